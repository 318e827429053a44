//! The same requests lead to the same counts in memcached 1.6.45 and in corecached: every counter of `stats`, and the
//! sums over all classes of `stats items` and `stats slabs`. Tables list the few counters that differ, with reasons.

use std::collections::BTreeMap;

use crate::client::Client;
use crate::packet;
use crate::peers;
use crate::server::{Program, Server};

/// The requests of one round, one in a line. `$` is the key of the round, ` | ` ends a line within a request, and `{N}`
/// is a value of N bytes. The test compares `bytes_written`. So replies contain no CAS value that a request has not
/// set, and no time that may lose a digit within a few seconds.
const ROUND: &str = "\
set $ 0 0 5 | hello
get $
gets nothing
get $ nothing $ nothing
add $ 0 0 1 | x
add $-added 0 0 1 | x
replace $ 0 0 1 | y
replace nothing 0 0 1 | y
append $ 0 0 2 | zz
prepend $ 0 0 2 | zz
append nothing 0 0 1 | z
prepend nothing 0 0 1 | z
delete $-added
delete nothing
ms $-cas 1 E77 | x
cas $-cas 0 0 1 76 | x
cas $-cas 0 0 1 77 | y
cas nothing 0 0 1 77 | y
touch $ 5000
touch nothing 5000
gat 5000 $
gat 5000 nothing $ nothing
set $-n 0 0 2 | 10
incr $-n 5
incr nothing 1
decr $-n 100
decr nothing 1
incr $ 1
incr $-n x
set $-quiet 0 0 1 noreply | x
add $-quiet 0 0 1 noreply | x
touch $-quiet 100 noreply
incr $-quiet 1 noreply
delete $-quiet noreply
mg $
mg $ v
mg $ s t f h k Oabc
mg nothing v
mg nothing v q
mg $ T500 t
mg nothing T500
mg $-vivified N600 v
mg $-vivified N600 v
mg $-vivified q
mg $ R2000 t
mg $ v v
mg $ C1
ms $-m 1 | x
ms $-m 1 ME | x
ms $-m 1 MR | x
ms nothing 1 MR | x
ms $-m 1 MA | x
ms $-m 1 MP | x
ms nothing 1 MA | x
ms $-made 1 MA N600 | x
ms $-m 1 E500 | x
ms $-m 1 C1 | x
ms $-m 1 C500 E600 | y
ms nothing 1 C1 | x
ms $-m 1 C1 I E650 | x
ms $-m 1 C2 I MR E660 | x
ms $-m 1 C1 I MA | x
ms $-m 1 C1 ME | x
ms $-m 1 q | x
ms JGFiY2Q= 1 b | x
mg JGFiY2Q= b v
md JGFiY2Q= b
ma $-n
ma $-n MD D3 v
ma nothing
ma nothing MD
ma $-auto N600 J5 v
ma $-auto N600 J5 v
ma $-auto q
ma $-n C1
ma $ v
md $-m C1
md $-m I T600
mg $-m v
mg $-m v
md $-m x
md nothing q
md nothing
md $-auto q
me nothing
set $-dead 0 -1 1 | x
get $-dead
set $-dead 0 -1 1 | x
gat 10 $-dead
set $-dead 0 -1 1 | x
touch $-dead 10
set $-dead 0 -1 1 | x
mg $-dead v
set $-dead 0 -1 1 | x
incr $-dead 1
set $-dead 0 -1 1 | x
delete $-dead
set $-dead 0 -1 1 | x
append $-dead 0 0 1 | x
set $-dead 0 -1 1 | x
cas $-dead 0 0 1 5 | x
set $-dead 0 -1 1 | x
add $-dead 0 0 1 | x
set $-large 0 0 2000000 | {2000000}
ms $-large 2000000 | {2000000}
set $-large 0 0 300000 | {300000}
get $-large
append $-large 0 0 5 | xxxxx
append $-large 0 0 900000 | {900000}
delete $-large
set $-middle 0 0 5000 | {5000}
get $-middle
incr $-middle 1
set $ x 0 1 | y
set $ 0 0
ms $ 1 Tx | y
mg $ z
bogus
get
incr $ x
verbosity 0
flush_all 100000
flush_all x
stats detail on
get $
stats detail off";

/// The requests of one round in the binary protocol.
const PACKETS: &str = "\
set key=$ flags=0 exp=0 val=1
set key=$ flags=0 exp=0 val=1 cas=999999999
set key=nothing flags=0 exp=0 val=1 cas=999999999
add key=$ flags=0 exp=0 val=1
add key=$-added flags=0 exp=0 val=1
replace key=nothing flags=0 exp=0 val=1
replace key=$ flags=0 exp=0 val=1
append key=$ val=1
append key=nothing val=1
prepend key=$ val=1
get key=$
get key=nothing
getq key=nothing
getk key=$
getkq key=nothing
gat key=$ exp=1000
gat key=nothing exp=1000
gatq key=nothing exp=1000
touch key=$ exp=1000
touch key=nothing exp=1000
incr key=$ delta=1 initial=0 exp=0
incr key=nothing delta=1 initial=0 exp=4294967295
incr key=$-made delta=1 initial=7 exp=0
decr key=$-made delta=1 initial=7 exp=0
decr key=nothing delta=1 initial=7 exp=4294967295
incr key=$-middle delta=1 initial=0 exp=0
delete key=$-added
delete key=$-added
delete key=$ cas=999999999
setq key=$ flags=0 exp=0 val=1
deleteq key=nothing
version";

/// Dead items at the tail of a list, and other items before them. A flat LRU looks at the tail before it takes memory.
const TAILS: &str = "\
set a 0 -1 1 | x
set a 0 0 1 | y
set b 0 -1 1 | x
get b
delete a
set c 0 -1 1 | x
set d 0 -1 1 | x
add e 0 -1 1 | x
replace e 0 0 1 | x
delete c
append d 0 0 1 | x
ms f 1 T-1 | x
mg f v
ma g N0 J5
set h 0 -1 1 | x
mg i N60 v
set n 0 0 1 | 9
delete g
delete i
set j 0 -1 1 | x
incr n 1
set k 0 -1 1 | x
append n 0 0 1 | 1
set l 0 -1 1 | x
md n x
set m 0 -1 1 | x
cas n 0 0 1 1 | x
set o 0 -1 1 | x
set p 0 -1 1 | x
lru_crawler enable
lru_crawler crawl all";

/// Statistics about the parts of a server.
const PARTS: &[(&str, &str)] = &[
    ("pid uptime time libevent rusage_user rusage_system", "of the process"),
    ("threads", "corecached is asked for as many as are tested"),
    ("response_obj_count response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free", "memcached's buffers"),
    ("reserved_fds", "descriptors of its own"),
    ("curr_connections connection_structures", "a connection that was closed may be noticed later"),
    ("bytes", "an item takes less here"),
    ("hash_power_level hash_bytes", "each worker has an index of its own"),
    ("slab_global_page_pool", "housekeeping gives empty pages back, at its own time"),
];

/// Fields of `stats items` and `stats slabs` that are no counters, or that depend on the layout of memory.
const CLASSES: &[(&str, &str)] = &[
    ("age age_hot age_warm", "times"),
    ("mem_requested", "an item takes less here"),
    ("chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end", "other classes"),
    ("active_slabs total_malloced", "other classes"),
];

/// Counters that may differ after `flush_all`.
const FLUSHED: &[(&str, &str)] = &[
    ("get_flushed curr_items", "what was accessed more than a second ago is found later, and how long it took differs"),
    ("bytes_written", "the reply to `stats` has been counted"),
];

/// Counters that may differ with several workers, because the hash of a key determines the list of its item.
const SHARDS: &[(&str, &str)] = &[("expired_unfetched get_expired reclaimed", "each worker has tails of its own")];

type Counts = BTreeMap<String, String>;

/// One server and two connections to it.
struct Life {
    server: Server,
    text: Client,
    binary: Client,
}

impl Life {
    fn begin(program: Program, workers: &str) -> Life {
        // The server runs without these threads, because they would count items and move pages in their own time.
        let words = "no_lru_maintainer,no_lru_crawler,slab_automove=0";
        let server = Server::on_unix_socket(program, &["-t", workers, "-m", "256", "-o", words]);
        Life { text: server.client(), binary: server.client(), server }
    }

    fn ask_all(&mut self, lines: &str, key: &str) {
        for line in lines.lines() {
            let mut request = line.replace('$', key).replace(" | ", "\r\n");
            if let Some((before, after)) = request.split_once('{') {
                let length: usize = after.trim_end_matches('}').parse().expect("a number of bytes");
                request = format!("{before}{}", "x".repeat(length));
            }
            self.text.send(format!("{request}\r\nmn\r\n"));
            while self.text.line().expect("the end of a reply") != b"MN\r\n" {}
        }
    }

    fn lead(&mut self, key: &str) {
        self.ask_all(ROUND, key);
        // This value is too long.
        let large = format!("set key={key}-large flags=0 exp=0 val={}", "x".repeat(1 << 21));
        self.binary.send([packet::request(&large), packet::request("noop")].concat());
        while packet::Packet::receive(&mut self.binary).expect("a packet").expect("of the protocol").opcode
            != packet::Words::of("noop").opcode
        {}
        for words in PACKETS.lines() {
            self.binary.send([packet::request(&words.replace('$', key)), packet::request("noop")].concat());
            let noop = packet::Words::of("noop").opcode;
            while packet::Packet::receive(&mut self.binary).expect("a packet").expect("of the protocol").opcode != noop
            {
            }
        }
    }

    /// Waits until the worker of this connection has counted everything. The worker counts after it has sent a reply,
    /// so the client may be faster.
    fn part_with_binary(&mut self) {
        self.binary.finish_sending();
        self.binary.expect_closed();
    }

    /// The statistics of a kind. For statistics of classes, it adds up the values of all classes.
    fn counts(&mut self, kind: &str) -> Counts {
        let mut counts = Counts::new();
        for line in self.text.ask_list(kind) {
            let (name, value) = line["STAT ".len()..].split_once(' ').expect("a name and a value");
            let field = name.strip_prefix("items:").unwrap_or(name);
            match field.split_once(':') {
                None => drop(counts.insert(name.to_owned(), value.to_owned())),
                Some((_, field)) => {
                    let sum = counts.entry(field.to_owned()).or_insert_with(|| "0".to_owned());
                    *sum = (sum.parse::<u64>().unwrap() + value.parse::<u64>().expect("a number")).to_string();
                }
            }
        }
        counts
    }
}

/// Checks that all names are the same, and that all values are the same but those in the tables.
#[track_caller]
fn compare(kind: &str, theirs: &Counts, ours: &Counts, tables: &[&[(&str, &str)]]) {
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "{kind}");
    let excused: Vec<&str> = tables.iter().copied().flatten().flat_map(|(names, _)| names.split(' ')).collect();
    let different = theirs.iter().filter(|(name, value)| ours[*name] != **value && !excused.contains(&name.as_str()));
    let different: Vec<String> =
        different.map(|(name, value)| format!("{name}: memcached {value}, corecached {}", ours[name])).collect();
    assert!(different.is_empty(), "{kind}\n{}", different.join("\n"));
}

#[test]
fn one_worker_counts_as_memcached_does() {
    check("1");
}

#[test]
fn several_workers_count_as_memcached_does() {
    check("3");
}

#[test]
fn dead_items_count_for_who_finds_them() {
    if !peers::has(Program::Newest) {
        return;
    }
    let mut lives = [(Program::Newest, "1"), (Program::Corecached, "1")].map(|(program, t)| Life::begin(program, t));
    for life in &mut lives {
        life.ask_all(TAILS, "");
        while life.text.stat("lru_crawler_running") == 1 {}
    }
    let [theirs, ours] = &mut lives;
    // A client asks often until the crawler is done.
    let asked: &[(&str, &str)] = &[("bytes_read bytes_written", "the crawler was asked for")];
    compare("stats", &theirs.counts("stats"), &ours.counts("stats"), &[PARTS, asked]);
    compare("stats items", &theirs.counts("stats items"), &ours.counts("stats items"), &[CLASSES]);
}

#[test]
fn what_was_stored_in_the_second_of_a_flush_is_gone_from_the_counts() {
    for program in [Program::Newest, Program::Corecached] {
        if !peers::has(program) {
            continue;
        }
        let mut life = Life::begin(program, "1");
        let value = "x".repeat(5000);
        // Repeat this until all of it happens within one second.
        loop {
            let before = life.text.stat("time");
            life.text.send(format!("set a 0 0 1\r\nx\r\nset b 0 0 5000\r\n{value}\r\nflush_all\r\n"));
            life.text.expect("STORED\r\nSTORED\r\nOK\r\n");
            let left = life.text.stat("curr_items");
            assert_eq!(life.text.ask("get a"), "END");
            let found = life.text.stat("get_flushed");
            if life.text.stat("time") == before {
                assert_eq!((left, found), (0, 0), "{program:?}");
                break;
            }
            assert_eq!(life.text.ask("get b"), "END");
            assert_eq!(life.text.ask("stats reset"), "RESET");
        }
    }
}

fn check(workers: &str) {
    if !peers::has(Program::Newest) {
        return;
    }
    let mut lives =
        [(Program::Newest, "2"), (Program::Corecached, workers)].map(|(program, t)| Life::begin(program, t));
    for life in &mut lives {
        for key in ["a", "b", "some-longer-key", "c", "d"] {
            life.lead(key);
        }
        life.part_with_binary();
    }
    let [theirs, ours] = &mut lives;
    let kinds = ["stats", "stats items", "stats slabs"];
    let shards = if workers == "1" { &[] } else { SHARDS };
    let excuses: [&[&[(&str, &str)]]; 3] = [&[PARTS, shards], &[CLASSES, shards], &[CLASSES]];
    for (kind, tables) in kinds.into_iter().zip(excuses) {
        compare(kind, &theirs.counts(kind), &ours.counts(kind), tables);
    }

    for life in [&mut *theirs, &mut *ours] {
        life.text.send("flush_all\r\nget a b\r\nmg a\r\ngat 10 b\r\ntouch c 1\r\nincr a-n 1\r\ndelete d\r\nmn\r\n");
        while life.text.line().expect("the end of a reply") != b"MN\r\n" {}
    }
    compare("stats, after a flush", &theirs.counts("stats"), &ours.counts("stats"), &[PARTS, FLUSHED, shards]);

    for life in [&mut *theirs, &mut *ours] {
        assert_eq!(life.text.ask("stats reset"), "RESET");
    }
    compare("stats, reset", &theirs.counts("stats"), &ours.counts("stats"), &[PARTS, FLUSHED, shards]);
    ours.server.assert_alive();
}
