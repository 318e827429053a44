"""pymemcache has no login; a `set` before everything else is one."""
import sys

from pymemcache.client.base import Client

port, name, password = sys.argv[1:]
client = Client(("127.0.0.1", int(port)))
assert client.set("login", f"{name} {password}", noreply=False)
assert client.set("app:pymemcache", "a value", noreply=False)
assert client.get("app:pymemcache") == b"a value"
try:
    client.set("other", "a value", noreply=False)
    raise SystemExit("it may not set this key")
except Exception as error:
    assert "access denied" in str(error), error
print("ok")
