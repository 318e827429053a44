"""emcache with autodiscovery: it follows the nodes of a cluster while it works."""
import asyncio
import sys

import emcache

ports = [int(port) for port in sys.argv[1:]]
assert len(ports) == 3


async def wait_line(word):
    print(word, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def nodes(client):
    return {address.port for address in client.cluster_managment().nodes()}


async def work(client, count, may_miss=False):
    """Each key goes to its node and comes back. A key may be missed whose node changes in between."""
    for number in range(count):
        key = b"key:%d" % number
        await client.set(key, b"value:%d" % number)
        found = await client.get(key)
        assert may_miss if found is None else found.value == b"value:%d" % number, key


async def follow(client, wanted):
    """Works until the client knows the wanted nodes, and then with these."""
    for _ in range(3000):
        if nodes(client) == set(wanted):
            break
        await work(client, 5, may_miss=True)
        await asyncio.sleep(0.01)
    assert nodes(client) == set(wanted), nodes(client)
    await work(client, 100)


async def used(port):
    """The number of items that a server has."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"stats\r\nquit\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return int(next(line.split()[2] for line in text.splitlines() if line.startswith("STAT curr_items ")))


async def main():
    client = await emcache.create_client(
        [emcache.MemcachedHostAddress("127.0.0.1", ports[0])],
        timeout=20.0,
        autodiscovery=True,
        autodiscovery_poll_interval=0.05,
    )
    await follow(client, ports[:2])
    assert await used(ports[0]) > 0 and await used(ports[1]) > 0
    assert await used(ports[2]) == 0
    await wait_line("add")
    await follow(client, ports)
    assert await used(ports[2]) > 0
    await wait_line("remove")
    await follow(client, [ports[0], ports[2]])
    await wait_line("end")
    await work(client, 100)
    await client.close()
    print("ok")


asyncio.run(main())
