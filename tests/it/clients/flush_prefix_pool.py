"""Libraries whose `stats` reaches all servers of a pool flush a prefix on all of them."""
import sys

import pylibmc
from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

ports = [int(port) for port in sys.argv[1:]]
addresses = [f"127.0.0.1:{port}" for port in ports]
keys = [f"{prefix}:{number}" for prefix in ("user", "other") for number in range(60)]


def check(name, cache, flush):
    for key in keys:
        assert cache.set(key, b"1"), name
    flush()
    left = sum(cache.get(key) is not None for key in keys)
    assert left == 60, f"{name}: {left} keys are left"
    assert all(cache.get(key) is None for key in keys if key.startswith("user")), name


cache = pylibmc.Client(addresses, binary=False, behaviors={"ketama": True})
check("pylibmc", cache, lambda: cache.get_stats("flush_prefix user:"))
assert cache.set("user:1", b"2") and cache.get("user:1") == b"2"

# Without `noreply`: the flush comes by other connections, and must not overtake a set.
pool = HashClient([("127.0.0.1", port) for port in ports], default_noreply=False)
check("pymemcache", pool, lambda: [Client(("127.0.0.1", port)).stats("flush_prefix", "user:") for port in ports])
print("ok")
