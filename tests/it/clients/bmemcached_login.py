"""python-binary-memcached logs in by PLAIN as a user of `--users`."""
import sys

import bmemcached

port, name, password = sys.argv[1:]
client = bmemcached.Client((f"127.0.0.1:{port}",), name, password)
assert client.set("app:bmemcached", "a value")
assert client.get("app:bmemcached") == "a value"
try:
    client.set("other", "a value")
    raise SystemExit("it may not set this key")
except bmemcached.exceptions.MemcachedException as error:
    assert error.code == 0x20, error
print("ok")
