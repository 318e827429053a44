"""django-elastipymemcache: pymemcache's hash client for ElastiCache. It follows the nodes of a cluster while it works."""
import sys
import time

from django_elastipymemcache.client import AWSElastiCacheClient

ports = [int(port) for port in sys.argv[1:]]
assert len(ports) == 3


def nodes(client):
    return {int(name.rsplit(":", 1)[1]) for name in client.clients}


def work(client, count, may_miss=False):
    """Each key goes to its node and comes back. A key may be missed whose node changes in between."""
    for number in range(count):
        client.set(f"key:{number}", f"value:{number}")
        found = client.get(f"key:{number}")
        assert may_miss if found is None else found == b"value:%d" % number
    keys = [f"key:{number}" for number in range(count)]
    assert may_miss or len(client.get_many(keys)) == count


def follow(client, wanted):
    """Works until the client knows the wanted nodes, and then with these."""
    for _ in range(3000):
        if nodes(client) == set(wanted):
            break
        work(client, 5, may_miss=True)
        time.sleep(0.01)
    assert nodes(client) == set(wanted), nodes(client)
    work(client, 100)


def say(word):
    print(word, flush=True)
    sys.stdin.readline()


client = AWSElastiCacheClient(
    f"127.0.0.1:{ports[0]}", discovery_interval=0.05, timeout=20, connect_timeout=20, no_delay=True
)
follow(client, ports[:2])
say("add")
follow(client, ports)
say("remove")
follow(client, [ports[0], ports[2]])
say("end")
work(client, 100)
client.close()
print("ok")
