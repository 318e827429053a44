# meta-memcache, which uses only the meta commands: leases, recaching, stale values, over three servers.
import logging
import random
import sys

from meta_memcache import CacheClient, Key, ServerAddress, SetMode, connection_pool_factory_builder
from meta_memcache.configuration import LeasePolicy, RecachePolicy, StalePolicy
from meta_memcache.errors import MemcacheServerError
from meta_memcache.protocol import Miss, RequestFlags, Value

# If the client cannot reach a server, it raises an error and also logs it with a traceback.
logging.disable(logging.ERROR)

ports = [int(port) for port in sys.argv[1:]]
assert len(ports) == 3


def connect():
    return CacheClient.cache_client_from_servers(
        servers=[ServerAddress("127.0.0.1", port) for port in ports],
        connection_pool_factory_fn=connection_pool_factory_builder(
            connection_timeout=10, recv_timeout=10, read_buffer_size=1 << 20, mark_down_period_s=0.0
        ),
    )


client = connect()

# Values of every type. The client keeps the type in the flags.
for value in ("text", b"bytes", 1, -5, True, 1.5, None, [1, 2], {"a": {"b": "c"}}, "ünïcode"):
    assert client.set("typed", value, ttl=100)
    assert client.get("typed") == value, value
assert client.get("nothing") is None

# Keys that the protocol does not allow: with any bytes, and longer than 250. The client sends base64 or a hash.
for key in (Key("🍺"), Key("with space"), Key("k" * 200 + "é"), Key("long" * 200), "k" * 250):
    assert client.set(key, "kept", ttl=100)
    assert client.get(key) == "kept", key
    assert client.delete(key)
    assert client.get(key) is None

# Modes of storing.
assert client.set("mode", "a", ttl=100, set_mode=SetMode.ADD)
assert not client.set("mode", "b", ttl=100, set_mode=SetMode.ADD)
assert client.set("mode", "b", ttl=100, set_mode=SetMode.REPLACE)
assert not client.set("nothing", "b", ttl=100, set_mode=SetMode.REPLACE)
assert client.set("mode", "c", ttl=100, set_mode=SetMode.APPEND)
assert client.set("mode", "a", ttl=100, set_mode=SetMode.PREPEND)
assert client.get("mode") == "abc"
assert not client.refill("mode", "x", ttl=100)

# Many keys at once. The client asks each server for its share in one write.
many = {f"many-{i}": f"value {i}" for i in range(500)}
for key, value in many.items():
    client.set(key, value, ttl=100, no_reply=True)
got = client.multi_get([*many, "nothing"])
assert {key.key: value for key, value in got.items() if value is not None} == many
with_cas = client.multi_get_cas(list(many)[:20])
assert all(value is not None and cas for value, cas in with_cas.values())

# Compare and swap.
value, cas = client.get_cas("many-1")
assert client.set("many-1", "mine", ttl=100, cas_token=cas)
assert not client.set("many-1", "late", ttl=100, cas_token=cas)
cas = client.set_cas("many-1", "known", ttl=100)
assert client.get_cas("many-1") == ("known", cas)
assert not client.delete("many-1", cas_token=cas + 1)
assert client.delete("many-1", cas_token=cas)
assert not client.delete("many-1")
assert client.invalidate("many-1")

# Counters.
assert client.delta_and_get("counter", 1) is None
assert client.delta_initialize_and_get("counter", 1, initial_value=10, initial_ttl=100) == 10
assert client.delta_initialize_and_get("counter", 1, initial_value=10, initial_ttl=100) == 11
assert client.delta("counter", 5) and client.delta("counter", -6)
assert client.delta_and_get("counter", 0, refresh_ttl=200) == 10
assert client.delta_and_get("counter", -100) == 0
assert client.delta("counter", 7, no_reply=True)
assert int(client.get("counter")) == 7  # digits and padding: the client knows no type for what the server made

# Time: the server reports the time left to a value, and the time of its last access.
assert client.set("timed", "x", ttl=100)
meta = client.meta_get(Key("timed"), RequestFlags(return_value=True, return_ttl=True, return_last_access=True, return_fetched=True))
assert isinstance(meta, Value) and meta.value == "x" and 98 <= meta.flags.ttl <= 100, meta
assert meta.flags.fetched is False, meta
assert client.touch("timed", 500)
assert client.get("timed", touch_ttl=1000) == "x"
meta = client.meta_get(Key("timed"), RequestFlags(return_ttl=True, return_fetched=True))
assert 998 <= meta.flags.ttl <= 1000 and meta.flags.fetched is True, meta
assert not client.touch("nothing", 10)
assert isinstance(client.meta_get(Key("nothing"), RequestFlags(return_value=True)), Miss)

# A lease: the first client with a miss sets the value, and the others wait for it.
waits = []


def wait(seconds):
    waits.append(seconds)
    if len(waits) == 2:
        assert first.set("leased", "filled", ttl=100)


first, second = connect(), connect()
lease = LeasePolicy(ttl=30, miss_retries=5)
assert first.get_or_lease("leased", lease, lease_wait_fn=wait) is None
assert waits == []
assert second.get_or_lease("leased", lease, lease_wait_fn=wait) == "filled"
assert len(waits) == 2, waits

# Recaching: the server tells one client to renew a value with little time left.
recache = RecachePolicy(ttl=30)
assert first.set("renewed", "old", ttl=10)
assert [first.get("renewed", recache_policy=recache), second.get("renewed", recache_policy=recache)] == [None, "old"]
assert first.set("renewed", "new", ttl=100)
assert [first.get("renewed", recache_policy=recache), second.get("renewed", recache_policy=recache)] == ["new", "new"]

# Stale: one client renews an invalidated value, and the others still get the old one.
stale = StalePolicy(mark_stale_on_deletion_ttl=30, mark_stale_on_cas_mismatch=True)
assert first.set("stale", "old", ttl=100)
assert first.delete("stale", stale_policy=stale)
value, cas = first.get_cas("stale", recache_policy=recache)
assert value is None and cas, (value, cas)
assert second.get("stale", recache_policy=recache) == "old"
assert first.set("stale", "new", ttl=100, cas_token=cas, stale_policy=stale)
assert second.get("stale", recache_policy=recache) == "new"

# Large values. (The client reads values beyond its read buffer in steps of 40 ms, hence the buffer above.)
blob = random.Random(1).randbytes(900_000)
assert client.set("blob", blob, ttl=100)
assert client.get("blob") == blob

# The servers restart. The application may see an error or a miss, and then it continues.
print("restart", flush=True)
sys.stdin.readline()


def patiently(ask):
    for _ in range(20):
        try:
            return ask()
        except MemcacheServerError:
            pass
    raise AssertionError("it does not reconnect")


for i in range(30):
    assert patiently(lambda: client.set(f"again-{i}", i, ttl=100))
    assert patiently(lambda: client.get(f"again-{i}")) == i
assert client.get("typed") is None
print("ok")
