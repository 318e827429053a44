# Every command of pymemcache's Client, with replies and without.
import sys

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError

client = Client(("127.0.0.1", int(sys.argv[1])), timeout=10, connect_timeout=10, default_noreply=False)

assert client.version().startswith(b"1.6.")
assert client.get("nothing") is None
assert client.get("nothing", "default") == "default"

assert client.set("key", "value") is True
assert client.get("key") == b"value"
assert client.add("key", "other") is False
assert client.add("new", "fresh") is True
assert client.replace("key", "replaced") is True
assert client.replace("nothing", "x") is False
assert client.append("key", "!") is True
assert client.prepend("key", "<") is True
assert client.get("key") == b"<replaced!"

value, cas = client.gets("key")
assert value == b"<replaced!"
assert client.cas("key", "by cas", cas) is True
assert client.cas("key", "too late", cas) is False
assert client.cas("nothing", "x", cas) is None
assert client.get("key") == b"by cas"

assert client.set("number", "10") is True
assert client.incr("number", 5) == 15
assert client.decr("number", 20) == 0
assert client.incr("nothing", 1) is None
client.set("text", "abc")
try:
    client.incr("text", 1)
    raise AssertionError("text was incremented")
except MemcacheClientError:
    pass

assert client.touch("key", 100) is True
assert client.touch("nothing", 100) is False
assert client.raw_command("gat 100 key", "END\r\n") == b"VALUE key 0 6\r\nby cas\r\n"
assert client.delete("key") is True
assert client.delete("key") is False

many = {f"many-{i}": f"value {i}".encode() for i in range(500)}
assert client.set_many(many) == []
assert client.get_many(list(many) + ["nothing"]) == many
assert set(client.gets_many(list(many)[:10])) == set(list(many)[:10])
assert client.delete_many(list(many)[:250]) is True
assert len(client.get_many(many)) == 250

blob = bytes(range(256)) * 2000
assert client.set("blob", blob) is True
assert client.get("blob") == blob
try:
    client.set("huge", b"x" * (2 * 1024 * 1024))
    raise AssertionError("two megabytes were stored")
except MemcacheServerError as error:
    assert b"object too large for cache" in error.args[0], error

for i in range(100):
    client.set("quiet", str(i), noreply=True)
client.incr("quiet", 1, noreply=True)
client.touch("quiet", 100, noreply=True)
client.delete("blob", noreply=True)
assert client.get("quiet") == b"100"
assert client.get("blob") is None

assert client.stats()[b"cmd_set"] > 0
assert client.stats("settings")[b"maxconns"] == 1024
assert client.raw_command("mn") == b"MN"

assert client.flush_all() is True
assert client.get("quiet") is None
client.quit()
print("ok")
