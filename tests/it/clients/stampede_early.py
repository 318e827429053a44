from pymemcache.client.base import Client


def fetch(cache, key, ask_database):
    value = cache.get(key)
    if value is None:
        value = ask_database(key)
        cache.set(key, value, expire=300)
    return value


# ---- the test of the lines above ----
import sys

asked = []


def ask_database(key):
    asked.append(key)
    return b"value %d" % len(asked)


def later(seconds):
    print(f"later {seconds}", flush=True)
    sys.stdin.readline()


# Without `noreply`: the next client must not overtake a set.
clients = [Client(("127.0.0.1", int(sys.argv[1])), default_noreply=False) for _ in range(100)]


def fetch_all():
    return [fetch(client, "feed:1", ask_database) for client in clients]


assert fetch_all() == [b"value 1"] * 100
later(265)
assert fetch_all() == [b"value 1"] * 100

# While one client asks the database, the others still get the value.
later(10)
assert clients[7].get("feed:1") is None
assert fetch_all() == [b"value 1"] * 100 and len(asked) == 1
fetched = ask_database("feed:1")
clients[7].set("feed:1", fetched, expire=300)
assert fetch_all() == [b"value 2"] * 100 and len(asked) == 2
later(275)
assert fetch_all() == [b"value 3"] * 100 and len(asked) == 3

# A client that does not come back costs the protection of one life, and no more.
later(275)
assert clients[7].get("feed:1") is None
later(20)
assert fetch_all() == [b"value 3"] * 100
later(10)
assert fetch_all() == [b"value 4"] * 100 and len(asked) == 4
print("ok")
