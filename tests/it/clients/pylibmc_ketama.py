# Consistent hashing: the script removes one of three servers. About a third of the keys move, and the others stay.
import sys

import pylibmc

*ports, protocol = sys.argv[1:]
binary = {"text": False, "binary": True}[protocol]
servers = [f"127.0.0.1:{port}" for port in ports]
assert len(servers) == 3
three = pylibmc.Client(servers, binary=binary, behaviors={"ketama": True})
two = pylibmc.Client(servers[:2], binary=binary, behaviors={"ketama": True})

keys = [f"key-{i}" for i in range(3000)]
assert three.set_multi({key: key for key in keys}) == []
assert three.get_multi(keys) == {key: key for key in keys}

kept = len(two.get_multi(keys))
moved = len(keys) - kept
assert 0.15 < moved / len(keys) < 0.55, moved
print(f"{moved} of {len(keys)} keys moved")
print("ok")
