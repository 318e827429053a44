from pymemcache.client.base import Client

NOTHING = b"\0"  # no value of this application


def fetch(cache, key, ask_database):
    value = cache.get(key)
    if value is None:
        value = ask_database(key)
        if value is None:
            cache.set(key, NOTHING, expire=30)
        else:
            cache.set(key, value, expire=300)
    return None if value == NOTHING else value


def insert(cache, key, value, database):
    database[key] = value
    cache.delete(key)


# ---- the test of the lines above ----
import sys

cache = Client(("127.0.0.1", int(sys.argv[1])))
database, asked = {}, []


def ask_database(key):
    asked.append(key)
    return database.get(key)


assert [fetch(cache, "user:1", ask_database) for _ in range(100)] == [None] * 100
assert len(asked) == 1
insert(cache, "user:1", b"somebody", database)
assert [fetch(cache, "user:1", ask_database) for _ in range(100)] == [b"somebody"] * 100
assert len(asked) == 2
print("ok")
