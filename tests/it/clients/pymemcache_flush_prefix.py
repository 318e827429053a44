"""`stats` of pymemcache, sent to each server of a pool, flushes a prefix on all of them."""
import sys

from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

servers = [("127.0.0.1", int(port)) for port in sys.argv[1:]]
# Without `noreply`: the flush comes by other connections, and must not overtake a set.
cache = HashClient(servers, default_noreply=False)
users, others = ([f"{prefix}:{number}" for number in range(60)] for prefix in ("user", "other"))
for key in users + others:
    assert cache.set(key, b"1")
for server in servers:
    Client(server).stats("flush_prefix", "user:")
assert all(cache.get(key) is None for key in users)
assert all(cache.get(key) == b"1" for key in others)
assert cache.set(users[0], b"2") and cache.get(users[0]) == b"2"
print("ok")
