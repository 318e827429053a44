# Every command of pylibmc, over the text protocol.
import sys

import pylibmc

behaviors = {"tcp_nodelay": True, "cas": True}
client = pylibmc.Client([f"127.0.0.1:{sys.argv[1]}"], binary=False, behaviors=behaviors)

assert client.get("nothing") is None
assert client.set("key", "value") is True
assert client.get("key") == "value"
assert client.add("key", "other") is False
assert client.replace("nothing", "x") is False
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

[(_, stats)] = client.get_stats()
assert int(stats["get_hits"] if "get_hits" in stats else stats[b"get_hits"]) > 0
assert client.flush_all()
assert client.get("blob") is None
print("ok")
