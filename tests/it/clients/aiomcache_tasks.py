# aiomcache: many tasks share a small pool of connections. Each does what a web application does.
import asyncio
import sys
import time

import aiomcache
from aiomcache.exceptions import ClientException

MONTH = 30 * 24 * 3600


async def main(port):
    client = aiomcache.Client("127.0.0.1", port, pool_size=4)

    assert (await client.version()).startswith(b"1.6.")
    stats = await client.stats()
    assert stats[b"version"] == await client.version()
    assert int(stats[b"pid"]) > 0

    assert await client.get(b"nothing") is None
    assert await client.get(b"nothing", b"default") == b"default"
    assert await client.set(b"key", b"value")
    assert await client.get(b"key") == b"value"
    assert not await client.add(b"key", b"other")
    assert await client.add(b"new", b"")
    assert await client.get(b"new") == b""
    assert not await client.replace(b"nothing", b"x")
    assert await client.replace(b"key", b"b")
    assert await client.append(b"key", b"c") and await client.prepend(b"key", b"a")
    assert await client.multi_get(b"key", b"nothing", b"new") == (b"abc", None, b"")
    assert await client.delete(b"new")
    assert not await client.delete(b"new")

    value, token = await client.gets(b"key")
    assert value == b"abc" and token > 0
    assert await client.cas(b"key", b"mine", token)
    assert not await client.cas(b"key", b"late", token)
    assert await client.gets(b"nothing") == (None, None)

    # Four tasks count with cas and four with incr. No step is lost.
    await client.set(b"by-cas", b"0")
    await client.set(b"by-incr", b"0")

    async def count_by_cas():
        for _ in range(50):
            while True:
                value, token = await client.gets(b"by-cas")
                if await client.cas(b"by-cas", str(int(value) + 1).encode(), token):
                    break

    async def count_by_incr():
        for _ in range(50):
            await client.incr(b"by-incr", 2)
            await client.decr(b"by-incr")

    await asyncio.gather(*(count_by_cas() for _ in range(4)), *(count_by_incr() for _ in range(4)))
    assert await client.get(b"by-cas") == b"200"
    assert await client.get(b"by-incr") == b"200"
    for command in client.incr, client.decr:
        try:
            await command(b"nothing")
            raise AssertionError("what is not there was counted")
        except ClientException:
            pass

    # Expiry: at once, long ago, in a while, at a date.
    now = int(time.time())
    for expiry, found in ((now - 10, None), (0, b"x"), (100, b"x"), (MONTH, b"x"), (now + 100, b"x")):
        assert await client.set(b"timed", b"x", expiry)
        assert await client.get(b"timed") == found, expiry
    assert await client.touch(b"timed", 100)
    assert await client.touch(b"timed", -1)
    assert await client.get(b"timed") is None
    assert not await client.touch(b"timed", 100)

    # Large values from several tasks at once, interleaved with small ones.
    async def large(i):
        blob = bytes([i]) * (200_000 + i)
        key = b"blob-%d" % i
        assert await client.set(key, blob)
        assert await client.get(key) == blob
        assert await client.set(b"small-%d" % i, b"%d" % i)

    await asyncio.gather(*(large(i) for i in range(40)))
    keys = [b"small-%d" % i for i in range(40)]
    assert await client.multi_get(*keys) == tuple(b"%d" % i for i in range(40))

    await client.flush_all()
    assert await client.get(b"key") is None
    await client.close()

    # The application chooses the flags. Here they give the type of a value.
    async def load(value, flags):
        return int(value) if flags == 7 else value

    async def save(value):
        return (str(value).encode(), 7) if isinstance(value, int) else (value, 0)

    typed = aiomcache.FlagClient("127.0.0.1", port, get_flag_handler=load, set_flag_handler=save)
    assert await typed.set(b"number", 42)
    assert await typed.set(b"bytes", b"42")
    assert await typed.multi_get(b"number", b"bytes") == (42, b"42")
    await typed.close()


asyncio.run(main(int(sys.argv[1])))
print("ok")
