# python-binary-memcached: every command of the binary protocol that Python applications and Datadog's agent use.
import sys
import time

import bmemcached

address = f"127.0.0.1:{sys.argv[1]}"
# The client sends a user and a password, as for SASL. A server without SASL refuses them, and the client continues.
client = bmemcached.Client((address,), "user", "password", socket_timeout=10)

assert client.get("nothing") is None
assert client.get("nothing", "default") == "default"
for value in ("text", b"bytes", 1, 1 << 40, True, 1.5, None, [1, 2], {"a": {"b": "c"}}, "", "x" * 500_000):
    assert client.set("typed", value)
    assert client.get("typed") == value
assert client.set("long", "compressed" * 10_000, compress_level=6)
assert client.get("long") == "compressed" * 10_000

assert client.add("new", "a")
assert not client.add("new", "b")
assert client.replace("new", "c")
assert not client.replace("nothing", "x")
assert client.get("new") == "c"
assert client.delete("new")
assert client.get("new") is None

value, cas = client.gets("typed")
assert cas > 0
assert client.cas("typed", "mine", cas)
assert not client.cas("typed", "late", cas)
assert client.get("typed") == "mine"
assert not client.delete("typed", cas=cas)
assert client.get("typed") == "mine"
assert client.gets("nothing") == (None, None)

many = {f"many-{i}": i for i in range(500)}
assert client.set_multi(many) == []
assert client.get_multi([*many, "nothing"]) == many
got = client.get_multi(list(many)[:10], get_cas=True)
assert [value for value, _ in got.values()] == list(range(10)) and all(cas for _, cas in got.values())
assert client.set_multi({(key, cas): "by cas" for key, (_, cas) in got.items()}) == []
assert client.get("many-3") == "by cas"
assert client.delete_multi(list(many)) is True
assert client.get_multi(list(many)) == {}

assert client.incr("counter", 1, default=10, time=100) == 10
assert client.incr("counter", 5) == 15
assert client.decr("counter", 20) == 0
assert client.decr("other", 1, default=7, time=100) == 7
assert client.set("text", "abc")

# In the binary protocol, too, a time beyond thirty days is a date.
for expiry, found in ((100, "x"), (30 * 24 * 3600, "x"), (int(time.time()) + 100, "x"), (int(time.time()) - 10, None)):
    assert client.set("timed", "x", time=expiry)
    assert client.get("timed") == found, expiry

# Datadog reads four kinds of statistics, all with STAT.
for kind, wanted in (
    (None, ("pid", "uptime", "version", "rusage_user", "curr_items", "cmd_get", "get_hits", "limit_maxbytes", "threads")),
    ("settings", ("maxconns", "item_size_max", "evictions", "num_threads")),
    ("items", ("items:1:number", "items:1:age", "items:1:evicted")),
    ("slabs", ("1:chunk_size", "1:used_chunks", "active_slabs", "total_malloced")),
):
    [(_, stats)] = client.stats(kind).items()
    for name in wanted:
        name = name.encode() if isinstance(next(iter(stats)), bytes) else name
        assert name in stats, (kind, name, stats)

assert client.flush_all()
assert client.get("typed") is None

print("restart", flush=True)
sys.stdin.readline()
client.enable_retry_delay(False)
client.get("again")
assert client.set("again", 1) or client.set("again", 1)
assert client.get("again") == 1
client.disconnect_all()

# Several servers, and the client's consistent hashing.
addresses = tuple(f"127.0.0.1:{port}" for port in sys.argv[1:])
assert len(addresses) == 3
spread = bmemcached.DistributedClient(addresses, socket_timeout=10)
keys = {f"key-{i}": i for i in range(600)}
assert spread.set_multi(keys) == []
assert spread.get_multi(list(keys)) == keys
counts = [int(dict((str(k), v) for k, v in stats.items()).get("curr_items", 0)) for stats in spread.stats().values()]
assert sum(counts) == 600 + len(["again"]) and min(counts) > 50, counts
print("ok")
