from meta_memcache import CacheClient, ServerAddress
from meta_memcache.configuration import LeasePolicy, RecachePolicy, StalePolicy

# mg N30: the first client that finds nothing gets W and asks the database. The others wait, and ask again.
lease = LeasePolicy(ttl=30, miss_retries=60, miss_retry_wait=0.05, miss_max_retry_wait=0.5)
# mg R30: in the last 30 seconds one client gets W and stores the value anew. The others get the old one.
recache = RecachePolicy(ttl=30)
# md I T60: the old value stays for 60 seconds. One client gets W, the others get the old value.
# ms I C...: a value that was read from the database before a change is stored, but stale: the next client asks again.
stale = StalePolicy(mark_stale_on_deletion_ttl=60, mark_stale_on_cas_mismatch=True)


def fetch(cache, key, ask_database):
    value, cas = cache.get_or_lease_cas(key, lease_policy=lease, recache_policy=recache)
    if value is None:
        value = ask_database(key)
        cache.set(key, value, ttl=300, cas_token=cas, stale_policy=stale)
    return value


def update(cache, key, value, database):
    database[key] = value
    cache.delete(key, stale_policy=stale)


# ---- the test of the lines above ----
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from meta_memcache import connection_pool_factory_builder

COUNT = 20


def connect():
    return CacheClient.cache_client_from_servers(
        servers=[ServerAddress("127.0.0.1", int(sys.argv[1]))],
        connection_pool_factory_fn=connection_pool_factory_builder(connection_timeout=10, recv_timeout=10),
    )


clients = [connect() for _ in range(COUNT)]
database, asked = {"k": "first", "r": "new"}, []


def ask_database(key):
    asked.append(key)
    return database[key]


# Win: all clients ask at the same time for a key that is missing, and the database is asked once.
together = threading.Barrier(COUNT)


def fetch_at_once(client):
    together.wait()
    return fetch(client, "k", ask_database)


with ThreadPoolExecutor(COUNT) as threads:
    assert list(threads.map(fetch_at_once, clients)) == ["first"] * COUNT
assert asked == ["k"], asked

# Recache: one client of all renews a value that has little time left, and the others use it until then.
assert clients[0].set("r", "old", ttl=20)


def ask_slowly(key):
    assert [fetch(client, "r", None) for client in clients[1:]] == ["old"] * (COUNT - 1)
    return ask_database(key)


assert fetch(clients[0], "r", ask_slowly) == "new"
assert [fetch(client, "r", None) for client in clients] == ["new"] * COUNT
assert asked == ["k", "r"], asked

# Stale: the same after a change.
update(clients[0], "k", "second", database)


def ask_and_be_overtaken(key):
    assert [fetch(client, "k", None) for client in clients[1:]] == ["first"] * (COUNT - 1)
    value = ask_database(key)
    update(clients[1], "k", "third", database)
    return value


# A value that a later change has overtaken is stale at once: one client asks again.
assert fetch(clients[0], "k", ask_and_be_overtaken) == "second"
assert [fetch(client, "k", ask_database) for client in clients] == ["third"] * COUNT
assert asked == ["k", "r", "k", "k"], asked
print("ok")
