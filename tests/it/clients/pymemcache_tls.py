# pymemcache over TLS with a client certificate.
import ssl
import sys

from pymemcache.client.base import Client, PooledClient

port, authority, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.load_cert_chain(certificate, key)
for kind in (Client, PooledClient):
    client = kind(("localhost", int(port)), timeout=10, connect_timeout=10, tls_context=context, default_noreply=False)
    assert client.set("key", b"value") is True
    assert client.get("key") == b"value"
    big = bytes(range(256)) * 3000
    assert client.set("big", big) is True
    assert client.get_many(["key", "big", "none"]) == {"key": b"value", "big": big}
    for i in range(200):
        assert client.set(f"key-{i}", b"x" * i, noreply=True) is True
    assert client.get("key-199") == b"x" * 199
    assert client.delete("key") is True
    assert b"ssl_handshake_errors" in client.stats()
    client.close()
print("ok")
