# One server with a port for each worker. The client sees three servers, and each keeps the keys that it gets.
import sys

from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

servers = [("127.0.0.1", int(port)) for port in sys.argv[1:]]
assert len(servers) == 3
client = HashClient(servers, timeout=10, connect_timeout=10, default_noreply=False)

keys = {f"key-{i}": str(i).encode() for i in range(1000)}
assert client.set_many(keys) == []
assert client.get_many(keys) == keys

ones = [Client(server, timeout=10) for server in servers]
# The ports belong to one process, so its statistics cover all of them.
assert [one.stats()[b"curr_items"] for one in ones] == [1000] * 3
# But each port has keys of its own.
found = [len(one.get_many(list(keys))) for one in ones]
assert sum(found) == 1000 and min(found) > 200, found
ones[0].set("mine", b"1", noreply=False)
assert [one.get("mine") for one in ones] == [b"1", None, None]
ones[1].flush_all(noreply=False)
assert ones[0].get("mine") is None
print("ok")
