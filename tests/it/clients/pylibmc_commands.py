# Every command of pylibmc, with the protocol that follows the port: `text` or `binary`.
import sys
import time

import pylibmc

port, protocol = sys.argv[1:]
binary = {"text": False, "binary": True}[protocol]
behaviors = {"tcp_nodelay": True, "cas": True}
client = pylibmc.Client([f"127.0.0.1:{port}"], binary=binary, behaviors=behaviors)

assert client.get("nothing") is None
assert client.set("key", "value") is True
assert client.get("key") == "value"
assert client.add("key", "other") is False
try:
    assert client.replace("nothing", "x") is False
except pylibmc.NotFound:
    assert binary
assert client.set("bytes", b"abc") and client.append("bytes", b"def") and client.prepend("bytes", b"!")
assert client.get("bytes") == b"!abcdef"

value, cas = client.gets("key")
assert client.cas("key", "by cas", cas) is True
assert client.cas("key", "too late", cas) is False
assert client.get("key") == "by cas"

assert client.set("number", 10)
assert client.incr("number") == 11
assert client.incr("number", 9) == 20
assert client.decr("number", 5) == 15
assert client.touch("number", 100) is True
assert client.delete("number") is True
assert client.delete("number") is False

# Client flags carry the type of a value.
for value in (1, 1.5, True, None, "text", b"bytes", [1, 2], {"a": {"b": "c"}}):
    assert client.set("typed", value)
    assert client.get("typed") == value

many = {f"many-{i}": i for i in range(300)}
assert client.set_multi(many) == []
assert client.get_multi(list(many) + ["nothing"]) == many
assert client.delete_multi(list(many)) is True
assert client.get_multi(list(many)) == {}

blob = "x" * 900_000
assert client.set("blob", blob)
assert client.get("blob") == blob

# Expiry: none, in a while, a month, a date, a date long ago.
now = int(time.time())
for expiry, found in ((0, "x"), (100, "x"), (30 * 24 * 3600, "x"), (now + 100, "x"), (now - 10, None)):
    assert client.set("timed", "x", time=expiry)
    assert client.get("timed") == found, expiry

# A value that the client compresses, and one that is too large.
assert client.set("long", "compress me " * 100_000, min_compress_len=1000)
assert client.get("long") == "compress me " * 100_000
try:
    assert not client.set("huge", "x" * (2 << 20))
except pylibmc.Error:
    pass
assert client.get("huge") is None
assert client.get("blob") == blob

[(_, stats)] = client.get_stats()
assert int(stats["get_hits"] if "get_hits" in stats else stats[b"get_hits"]) > 0
assert client.flush_all()
assert client.get("blob") is None
print("ok")
