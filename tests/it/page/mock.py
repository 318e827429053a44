"""A server without a cache: it serves the page, and makes up what the page asks for.

    mock.py PAGE SCENARIO [PORT]

PAGE is the file to serve at `/`. It prints its port and then serves until its standard input ends. What it answers
depends on the time and the scenario alone.
"""

import base64
import hashlib
import json
import math
import os
import re
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MIB = 1 << 20
STARTED = time.time()
KINDS = ["get_hit", "get_miss", "set", "delete", "arithmetic", "touch", "other", "wait", "turn"]
EVIL = "<img src=x onerror=alert(1)>"


class Scenario:
    """What a server does. A scenario changes some of it."""

    workers = 4
    classes = 14
    uptime = 273_921
    limit = 4096 * MIB
    operations = 84_000
    hits = 0.957
    evictions = 240
    idle = 11_520
    latency = 1.0
    late = []
    ready = True
    named = True
    measured = True
    prefixes = [
        # name, share of operations, hit ratio, share of memory, share of sets, mean TTL in seconds (None: no TTL)
        ("user", 0.34, 0.991, 0.22, 0.04, 86_400),
        ("session", 0.22, 0.974, 0.18, 0.12, 1_800),
        ("product", 0.17, 0.962, 0.19, 0.05, 3_600),
        ("feed", 0.09, 0.881, 0.12, 0.2, 300),
        ("tmpl", 0.05, 0.999, 0.01, 0.01, None),
        ("export", 0.002, 0.08, 0.17, 0.85, None),
        ("rate", 0.05, 0.93, 0.004, 0.4, 60),
        ("search", 0.03, 0.42, 0.06, 0.55, 600),
        (None, 0.04, 0.71, 0.04, 0.2, 7_200),
    ]
    keys = [("user:1001", 0.061, 1.0), ("tmpl:home", 0.034, 1.0), (EVIL, 0.021, 0.9), ("rate:eu-west", 0.017, 0.5),
            ("product:featured:" + "long-name-" * 18, 0.012, 0.98), ("session:\u202eabc\n\u00e9", 0.009, 0.8),
            ("feed:top", 0.008, 0.93), ("user:7", 0.006, 1.0)]


def changed(**changes):
    return type("Changed", (Scenario,), changes)()


EMPTY = dict(uptime=7, operations=0, evictions=0, idle=None, hits=0, prefixes=[], keys=[], classes=0)
MANY = [(f"service-{i:02}", 0.2 / (i + 1), 0.5 + 0.5 * math.cos(i) ** 2, 0.02 / (1 + i % 7), 0.1, 600 * i)
        for i in range(100)]
SCENARIOS = {
    "busy": changed(),
    "empty": changed(**EMPTY),
    "unnamed": changed(named=False, uptime=140),
    "many": changed(workers=64, classes=60, prefixes=MANY, operations=9_400_000, evictions=0, idle=None,
                    limit=768 * 1024 * MIB, late=[17], uptime=40_000_000),
    "huge": changed(operations=4.2e11, evictions=3.3e9, idle=3, latency=20_000, limit=2**53, uptime=3.1e9, hits=0.61,
                    workers=1, keys=[(EVIL, 0.31, 1.0)]),
    "draining": changed(ready=False),
    "unmeasured": changed(measured=False, keys=None, prefixes=None, uptime=600),
}


def noise(seed, t):
    """A number from -1 to 1 that looks random."""
    return math.sin(t * 12.9898 + seed * 78.233) * 43758.5453 % 2 - 1


def moment(s, t):
    """The second `t`, as history tells of it."""
    swell = 1 + 0.25 * math.sin(t / 140) + 0.06 * noise(1, t) + (0.5 if t % 311 < 14 else 0)
    operations = s.operations * swell
    gets = operations * 0.88
    hits = gets * min(1, s.hits + 0.012 * math.sin(t / 90) + 0.004 * noise(2, t))
    busy = s.operations > 0 and not 400 < t % 1300 < 425
    slow = (1 + 0.2 * noise(3, t)) * s.latency * (4 if t % 311 < 14 else 1)
    evictions = max(0, s.evictions * (swell - 0.6 + 0.3 * noise(6, t))) if s.evictions else 0
    measured = busy and s.measured
    return {
        "operations": operations if busy else 0, "gets": gets if busy else 0, "hits": hits if busy else 0,
        "sets": operations * 0.09 if busy else 0, "misses": gets - hits if busy else 0,
        "p50_us": 9.5 * slow if measured else None, "p99_us": 41 * slow if measured else None,
        "p999_us": 160 * slow * (1 + 0.8 * abs(noise(4, t))) if measured else None,
        "evictions": evictions if busy else 0,
        "evicted_age_seconds": s.idle * (1 + 0.15 * math.sin(t / 200)) if evictions and busy else None,
        "bytes_read": operations * 210, "bytes_written": operations * 1_340,
        "connections": int(1_204 + 60 * math.sin(t / 75)) if s.operations else 1,
        "items": 3_100_000 if s.operations else 0, "memory_items": s.limit * 0.91 if s.operations else 0,
        "busiest_worker": min(1, 0.42 * swell) if busy else 0.001,
    }


def history(s, since, now):
    first = max(int(now - min(s.uptime + now - STARTED, 900)), int(since) + 1)
    times = list(range(first, int(now) + 1))
    moments = [moment(s, t) for t in times]
    names = moment(s, now).keys()
    return {"step_seconds": 1, "times": times, "series": {name: [m[name] for m in moments] for name in names}}


def percentiles(s, now, kind, count):
    factor = {"get_hit": 1, "get_miss": 0.8, "set": 1.6, "delete": 1.2, "wait": 2.2, "turn": 1.4}.get(kind, 1)
    factor *= s.latency * (1 + 0.05 * noise(len(kind), int(now)))
    return {"count": count, "mean_us": 12.1 * factor, "p50_us": 9.5 * factor, "p90_us": 22 * factor,
            "p99_us": 41 * factor, "p999_us": 190 * factor, "max_us": 3_400 * factor}


def latency(s, now, seconds):
    if not s.measured:
        return None
    shares = {"get_hit": 0.84, "get_miss": 0.04, "set": 0.09, "delete": 0.01, "wait": 1, "turn": 0.2}
    counts = {kind: int(s.operations * seconds * shares.get(kind, 0)) for kind in KINDS}
    empty = dict.fromkeys(["mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"])
    return {kind: percentiles(s, now, kind, n) if n else {"count": 0, **empty} for kind, n in counts.items()}


def key_name(s, key):
    prefix = key.split(":")[0] + ":" if ":" in key else ""
    return key if s.named else f"{prefix}#{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def hot_keys(s, m):
    if s.keys is None:
        return None
    keys = [{"key": key_name(s, key), "ops_per_second": m["operations"] * share, "share": share,
             "error": 0.002 + share / 30, "read_share": reads, "hit_ratio": 0.99 if reads else None,
             "bytes_per_second": m["operations"] * share * 900} for key, share, reads in s.keys]
    return {"window_seconds": 10.0, "samples": int(m["operations"] * 10 / 128),
            "operations_per_second": m["operations"], "named": s.named, "keys": keys}


def prefix(s, m, row):
    name, share, hit_ratio, memory, sets, ttl = row
    rate = m["operations"] * share
    gets, held = rate * (1 - sets), s.limit * 0.91 * memory
    return {"prefix": name, "ops_per_second": rate, "gets": gets * 10, "hits": gets * 10 * hit_ratio,
            "misses": gets * 10 * (1 - hit_ratio), "sets": rate * 10 * sets, "deletes": 0,
            "hit_ratio": hit_ratio if gets else None, "bytes_sent_per_second": gets * hit_ratio * 1_200,
            "bytes_held": held, "memory_share": memory,
            "hits_per_second_per_mib": gets * hit_ratio / max(1, held / MIB),
            "ttl_none_share": 1.0 if ttl is None else 0.02, "ttl_mean_seconds": ttl, "value_mean_bytes": 1_150}


def slab_class(s, m, i):
    size = int(96 * 1.25**min(i, 42)) if i < 43 else int(96 * 1.25**42) + 1024 * i
    pages = max(1, int(s.limit / MIB * 0.95 * math.exp(-((i - s.classes / 2.4) / s.classes * 4) ** 2) / s.classes * 2.2))
    chunks = pages * max(1, MIB // size)
    used = int(chunks * (0.97 - 0.3 * abs(noise(9, i)) ** 4))
    evicts = m["evictions"] * 0.3 / (1 + abs(i - 5)) if i % 3 else 0
    return {"class": i + 1, "chunk_size": size, "pages": pages, "bytes": pages * MIB, "chunks": chunks,
            "used_chunks": used, "items": used, "mem_requested": used * size * 0.9,
            "hits_per_second": m["hits"] / (i + 2), "sets_per_second": m["sets"] / (i + 2),
            "evictions_per_second": evicts, "evicted": int(evicts * 9_000),
            "evicted_age_seconds": s.idle * (1 + 0.4 * noise(3, i)) if evicts and s.idle else None,
            "age_seconds": 40_000 + 3_000 * i}


def worker(s, m, now, i):
    each = m["operations"] / s.workers
    return {"worker": i, "busy": min(1, max(0, m["busiest_worker"] * (1 - 0.12 * abs(noise(i + 1, int(now)))))),
            "operations_per_second": each * (1 + 0.1 * noise(i, int(now))), "turns_per_second": each / 6,
            "connections": m["connections"] // s.workers, "leases_refused_per_second": 0.2,
            "batches_posted_per_second": each / 40}


def slow(s, now):
    rows = [(40, 12_400, 210, "get_hit", 64, 83_000, "get user:1 user:2 user:3 user:4"),
            (700, 48_100, 1_900, "set", 1, 8, "set export:2026-11 0 0 8388608"),
            (3_000, 11_000, 90, "other", 1, 12, f"mg {EVIL} v t"),
            (70_000, 1_240_000, 15, "get_miss", 4, 5, "get " + "a" * 96)]
    names = ["service_us", "wait_us", "kind", "operations", "bytes", "command"]
    rows = rows if s.operations else []
    return [{"time": now - row[0], "worker": i % s.workers, **dict(zip(names, row[1:]))} for i, row in enumerate(rows)]


def memory(s):
    full = 0.91 if s.operations else 0
    parts = {"items": full, "index": 0.022 + full * 0.02, "buffers": 0.011, "tls": 0.004, "lent": 0.003}
    parts = {name: int(s.limit * share) for name, share in parts.items()}
    return {"limit": s.limit, **parts, "free": s.limit - sum(parts.values()), "resident": int(s.limit * (0.08 + full))}


def status(s, now):
    m = moment(s, int(now))
    ran = s.uptime + now - STARTED
    total = s.operations * ran
    return {
        "now": now,
        "server": {"version": "0.1.0", "memcached_version": "1.6.45", "pid": 4711, "uptime_seconds": int(ran),
                   "host": "cache-eu-7", "listen": ["127.0.0.1:11211", "unix:/run/corecached/socket"],
                   "workers": s.workers, "shards": s.workers},
        "health": {"ready": s.ready, "late_workers": s.late},
        "stats": {"curr_items": m["items"], "max_connections": 4_096, "curr_connections": m["connections"],
                  "cmd_get": total * 0.88, "get_hits": total * 0.88 * s.hits, "rejected_connections": 0},
        "memory": memory(s),
        "latency": latency(s, now, s.uptime), "latency_recent": latency(s, now, 10),
        "workers": [worker(s, m, now, i) for i in range(s.workers)],
        "classes": [slab_class(s, m, i) for i in range(s.classes)],
        "evictions": {"room": int(s.evictions * ran), "move": int(s.evictions * ran / 90), "chain": 0},
        "misses": dict.fromkeys(["absent", "expired", "flushed", "early"], 0) if not s.operations else
                  {"absent": int(s.operations * 0.03 * ran), "expired": int(s.operations * 0.007 * ran), "flushed": 12, "early": 3},
        "hot_keys": hot_keys(s, m),
        "big_keys": [{"key": key_name(s, key), "bytes": size, "age_seconds": age} for key, size, age in
                     [("export:2026-11", 8 * MIB, 700), (EVIL, 3 * MIB + 100, 90_000), ("feed:all", 131_072, 4)]]
                    if s.operations else [],
        "prefixes": None if s.prefixes is None else [prefix(s, m, row) for row in s.prefixes],
        "repeated_miss_ratio": 0.18 if s.operations and s.measured else None,
        "slow": slow(s, now),
    }


class Handler(BaseHTTPRequestHandler):
    page, scenario = "", None

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        now = time.time()
        if url.path == "/":
            with open(self.page, encoding="utf-8") as file:
                self.answer("text/html; charset=utf-8", file.read())
        elif url.path == "/status.json":
            self.answer("application/json", json.dumps(status(self.scenario, now)))
        elif url.path == "/history.json":
            self.answer("application/json", json.dumps(history(self.scenario, float(query.get("since", 0)), now)))
        else:
            self.send_error(404)

    def answer(self, kind, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if kind.startswith("text/html"):
            self.send_header("Content-Security-Policy", policy(text))
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            pass  # The page asks no longer.

    def log_message(self, *_):
        pass


def policy(page):
    """The strictest policy that the page works with: its one script and its one style, by their hashes."""
    def hash_of(tag):
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(texts) == 1, f"{len(texts)} elements {tag}"
        return base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode()

    return (f"default-src 'none'; script-src 'sha256-{hash_of('script')}'; style-src 'sha256-{hash_of('style')}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def main():
    Handler.page, Handler.scenario = sys.argv[1], SCENARIOS[sys.argv[2]]
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
