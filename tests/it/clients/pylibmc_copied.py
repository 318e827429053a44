# The keys that `corecached copy` has spread over servers are where this client looks for them.
import sys

import pylibmc

servers = [f"127.0.0.1:{port}" for port in sys.argv[1:]]
cache = pylibmc.Client(servers, binary=False, behaviors={"ketama": True})
keys = [f"key-{number}" if number % 2 == 0 else f"ключ-{number}" for number in range(2000)]
found = {key: cache.get(key) for key in keys}
wrong = [key for number, key in enumerate(keys) if found[key] not in (str(number), str(number).encode())]
assert not wrong, (len(wrong), wrong[:5])
print("ok")
