# pymemcache's HashClient spreads keys over three servers, as in an application.
import sys

from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

servers = [("127.0.0.1", int(port)) for port in sys.argv[1:]]
assert len(servers) == 3
client = HashClient(servers, timeout=10, connect_timeout=10, use_pooling=True, default_noreply=False)

keys = {f"key-{i}": str(i).encode() for i in range(1000)}
assert client.set_many(keys) == []
assert client.get_many(keys) == keys
for key, value in keys.items():
    assert client.get(key) == value

counts = []
for server in servers:
    one = Client(server, timeout=10)
    counts.append(one.stats()[b"curr_items"])
    one.close()
assert sum(counts) == 1000, counts
assert min(counts) > 200, counts

assert client.incr("key-7", 3) == 10
assert client.delete("key-7") is True
assert client.get("key-7") is None
print("ok")
