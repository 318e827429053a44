"""`get_stats` of pylibmc, which asks all servers of a pool, flushes a prefix on all of them."""
import sys

import pylibmc

cache = pylibmc.Client([f"127.0.0.1:{port}" for port in sys.argv[1:]], binary=False, behaviors={"ketama": True})
users, others = ([f"{prefix}:{number}" for number in range(60)] for prefix in ("user", "other"))
for key in users + others:
    assert cache.set(key, b"1")
cache.get_stats("flush_prefix user:")
assert all(cache.get(key) is None for key in users)
assert all(cache.get(key) == b"1" for key in others)
assert cache.set(users[0], b"2") and cache.get(users[0]) == b"2"
print("ok")
