# python-memcached, the first client of Python and for a long time the one of Django: every command, with pickles and
# compression, many keys, cas ids that it remembers, a ring of servers, a restart.
import random
import sys
import time

import memcache

addresses = [f"127.0.0.1:{port}" for port in sys.argv[1:]]
assert len(addresses) == 3


def connect(servers):
    return memcache.Client(servers, socket_timeout=10, dead_retry=0, cache_cas=True)


# The client returns 1 or True for success. It returns 0 for a failure, and also if the server replies 0.
def commands(client):
    assert client.get("nothing") is None
    assert client.get("nothing", default=7) == 7
    for value in ("text", "", "ünïcode", b"a\r\nEND\r\n\0\xff", 42, -(1 << 70), 2.5, True, None, [1, ("two",)], {"a": {}}):
        assert client.set("typed", value, time=100)
        assert client.get("typed") == value, value
    long = "compress me " * 10_000
    assert client.set("long", long, min_compress_len=1000)
    assert client.get("long") == long
    blob = random.Random(1).randbytes(900_000)
    assert client.set("blob", blob)
    assert client.get("blob") == blob
    # The client knows the limit and sends nothing.
    assert not client.set("huge", blob * 2)
    assert client.get("huge") is None

    client.set("key", "value")
    assert not client.add("key", "x")
    assert client.add("new", "b")
    assert client.replace("new", "b")
    assert not client.replace("nothing", "x")
    assert client.append("new", "c") and client.prepend("new", "a")
    assert client.get("new") == "abc"
    assert not client.append("nothing", "x")
    assert client.delete("new")
    assert not client.delete("new")

    client.set("counter", 10)
    assert client.incr("counter", 5) == 15
    assert client.decr("counter", 50) == 0
    assert client.incr("nothing") is None
    assert client.touch("key", 100)
    assert not client.touch("nothing", 100)

    client.reset_cas()
    assert client.gets("key") == "value"
    assert client.cas("key", "mine")
    # The client remembers the id of the value before.
    assert not client.cas("key", "late")
    assert client.get("key") == "mine"
    client.reset_cas()

    now = int(time.time())
    for expiry, found in ((0, "x"), (100, "x"), (30 * 86_400, "x"), (now + 100, "x"), (now - 10, None), (-1, None)):
        client.set("timed", "x", time=expiry)
        assert client.get("timed") == found, expiry

    many = {f"{i}": i for i in range(300)}
    assert client.set_multi(many, time=100, key_prefix="many-") == []
    assert client.get_multi([*many, "nothing"], key_prefix="many-") == many
    assert client.delete_multi(many, key_prefix="many-")
    assert client.get_multi(many, key_prefix="many-") == {}

    # Requests without replies, and then one with a reply.
    for i in range(200):
        client.set(f"quiet-{i}", i, noreply=True)
    client.incr("quiet-7", 10, noreply=True)
    client.delete("quiet-8", noreply=True)
    client.touch("quiet-9", 100, noreply=True)
    client.add("quiet-9", "x", noreply=True)
    found = client.get_multi([f"quiet-{i}" for i in range(200)])
    assert found == {f"quiet-{i}": 17 if i == 7 else i for i in range(200) if i != 8}


def statistics(client, servers):
    told = client.get_stats()
    assert len(told) == servers
    for _, stats in told:
        assert int(stats["pid"]) > 0 and int(stats["curr_items"]) > 0, stats
        assert stats["version"].startswith("1.6."), stats
    assert all(stats["maxconns"] == "1024" for _, stats in client.get_stats("settings"))


for servers in (addresses[:1], addresses):
    client = connect(servers)
    commands(client)
    statistics(client, len(servers))
    client.flush_all()
    assert client.get("key") is None
    client.disconnect_all()

# Two clients count with cas, each with the ids of its own gets.
one, two = connect(addresses), connect(addresses)
one.set("shared", 0)
for i in range(100):
    for client in (one, two):
        while not client.cas("shared", client.gets("shared") + 1):
            client.reset_cas()
        client.reset_cas()
assert one.get("shared") == 200

for i in range(30):
    assert one.set(f"before-{i}", "x")
print("restart", flush=True)
sys.stdin.readline()
for i in range(30):
    for attempt in range(100):
        if one.set(f"again-{i}", "x"):
            break
    assert one.get(f"again-{i}") == "x"
    assert one.get(f"before-{i}") is None
print("ok")
