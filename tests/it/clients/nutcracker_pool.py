# pymemcache through nutcracker, which spreads keys over three servers. The arguments are the port of nutcracker and the
# ports of the servers behind it.
import random
import sys
import threading
import time

from pymemcache.client.base import Client

proxy, *servers = [("127.0.0.1", int(port)) for port in sys.argv[1:]]
assert len(servers) == 3


def connect(server):
    return Client(server, timeout=10, connect_timeout=10, default_noreply=False)


client = connect(proxy)
behind = [connect(server) for server in servers]

assert client.get("nothing") is None
assert client.set("key", "value") is True
assert client.get("key") == b"value"
assert client.add("key", "other") is False
assert client.replace("nothing", "x") is False
assert client.append("key", "!") and client.prepend("key", "<")
assert client.get("key") == b"<value!"
value, cas = client.gets("key")
assert client.cas("key", "mine", cas) is True
assert client.cas("key", "late", cas) is False
assert client.cas("nothing", "x", cas) is None
assert client.set("number", "10") and client.incr("number", 5) == 15 and client.decr("number", 50) == 0
assert client.incr("nothing", 1) is None
assert client.touch("key", 100) is True
assert client.touch("nothing", 100) is False
assert client.delete("key") is True
assert client.delete("key") is False

now = int(time.time())
for expiry, found in ((0, b"x"), (100, b"x"), (30 * 24 * 3600, b"x"), (now + 100, b"x"), (now - 10, None)):
    client.set("timed", "x", expire=expiry)
    assert client.get("timed") == found, expiry

# nutcracker spreads keys. It splits a get of many keys and joins the replies again.
many = {f"many-{i}": f"value {i}".encode() for i in range(900)}
assert client.set_many(many) == []
assert client.get_many([*many, "nothing"]) == many
assert set(client.gets_many(list(many)[:50])) == set(list(many)[:50])
shares = [len(one.get_many(list(many))) for one in behind]
assert sum(shares) == 900 and min(shares) > 100, shares

# Requests without replies, and then one with a reply.
for i in range(200):
    client.set(f"quiet-{i}", str(i), noreply=True)
assert client.get("quiet-199") == b"199"
assert len(client.get_many([f"quiet-{i}" for i in range(200)])) == 200

blob = random.Random(1).randbytes(900_000)
assert client.set("blob", blob) is True
assert client.get("blob") == blob


# Several clients at once. nutcracker sends their requests on one connection to each server.
def use(number):
    try:
        mine = connect(proxy)
        for i in range(200):
            key = f"client-{number}-{i}"
            assert mine.set(key, key * 20) is True
            assert mine.get(key) == (key * 20).encode()
            assert mine.get_many([key, "many-7"]) == {key: (key * 20).encode(), "many-7": b"value 7"}
        done.append(number)
    finally:
        mine.close()


done = []
threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(done) == list(range(8)), done
assert all(one.stats()[b"cmd_get"] > 0 for one in behind)

# The servers restart behind it.
print("restart", flush=True)
sys.stdin.readline()
for i in range(60):
    for attempt in range(50):
        try:
            if client.set(f"again-{i}", "x") and client.get(f"again-{i}") == b"x":
                break
        except Exception:
            client.close()
            time.sleep(0.01)
    else:
        raise AssertionError(f"again-{i}: it does not come back")
assert client.get("blob") is None
print("ok")
