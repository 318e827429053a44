//! Monitors that people use, on our statistics. The tests run the monitors that they can install. Of the others, this
//! file has the requirements (fields, their form, sums), which come from their sources and documentation.
//!
//! The monitors read a server with hits and misses of every kind, evictions, refusals, and many classes. Every check
//! also holds for the real memcached, so no check is our own invention.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::clients::{Outcome, converse, lines_of};
use crate::peers;
use crate::server::{Program, Server, new_folder};

/// How long a monitor may take to report.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names and values in the order of the reply.
struct Statistics(Vec<(String, String)>);

impl Statistics {
    fn ask(server: &Server, request: &str) -> Statistics {
        let lines = server.client().ask_list(request);
        let parts = lines.iter().map(|line| {
            let mut parts = line.splitn(3, ' ');
            match (parts.next(), parts.next(), parts.next()) {
                (Some("STAT"), Some(name), Some(value)) => (name.to_owned(), value.to_owned()),
                // telegraf and the exporter refuse other lines. An empty value still follows a space.
                _ => panic!("{request}: {line:?} is not STAT, a name and a value"),
            }
        });
        Statistics(parts.collect())
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    fn number(&self, name: &str) -> u64 {
        let value = self.find(name).unwrap_or_else(|| panic!("there is no {name}"));
        value.parse().unwrap_or_else(|_| panic!("{name} {value}: not a number"))
    }

    /// The fields of each class, from names such as `1:field` and `items:1:field`.
    fn classes(&self) -> BTreeMap<u32, BTreeMap<&str, u64>> {
        let mut classes: BTreeMap<u32, BTreeMap<&str, u64>> = BTreeMap::new();
        for (name, value) in &self.0 {
            let Some((class, field)) = name.strip_prefix("items:").unwrap_or(name).split_once(':') else { continue };
            let class = class.parse().unwrap_or_else(|_| panic!("{name}: no number of a class"));
            let value = value.parse().unwrap_or_else(|_| panic!("{name} {value}: not a number"));
            let before = classes.entry(class).or_default().insert(field, value);
            assert!(before.is_none(), "{name} is there twice");
        }
        classes
    }
}

/// The names that a monitor must find: numbers of `stats`, and those of each class of `stats items` and `stats slabs`.
struct Reader {
    name: &'static str,
    general: &'static str,
    items: &'static str,
    slabs: &'static str,
}

const READERS: &[Reader] = &[
    Reader {
        name: "prometheus/memcached_exporter",
        general: "uptime time get_hits get_misses delete_hits delete_misses incr_hits incr_misses decr_hits decr_misses \
            cas_hits cas_misses cas_badval touch_hits touch_misses cmd_flush cmd_set bytes limit_maxbytes curr_items \
            total_items bytes_read bytes_written curr_connections total_connections rejected_connections conn_yields \
            listen_disabled_num accepting_conns evictions reclaimed lru_crawler_starts direct_reclaims \
            crawler_items_checked crawler_reclaimed moves_to_cold moves_to_warm moves_within_lru",
        items: "number age number_hot number_warm number_cold age_hot age_warm hits_to_hot hits_to_warm hits_to_cold \
            hits_to_temp crawler_reclaimed evicted evicted_nonzero evicted_time evicted_unfetched expired_unfetched \
            outofmemory reclaimed tailrepairs mem_requested moves_to_cold moves_to_warm moves_within_lru",
        slabs: "get_hits delete_hits incr_hits decr_hits cas_hits touch_hits cas_badval cmd_set chunk_size \
            chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end",
    },
    Reader {
        name: "telegraf inputs.memcached",
        general: "accepting_conns auth_cmds auth_errors bytes bytes_read bytes_written cas_badval cas_hits cas_misses \
            cmd_flush cmd_get cmd_set cmd_touch conn_yields connection_structures curr_connections curr_items \
            decr_hits decr_misses delete_hits delete_misses evicted_active evicted_unfetched evictions \
            expired_unfetched get_expired get_flushed get_hits get_misses hash_bytes hash_is_expanding \
            hash_power_level incr_hits incr_misses limit_maxbytes listen_disabled_num max_connections reclaimed \
            rejected_connections threads total_connections total_items touch_hits touch_misses uptime",
        items: "",
        slabs: "",
    },
    Reader {
        name: "Datadog mcache",
        general: "total_items curr_items limit_maxbytes uptime bytes curr_connections max_connections \
            connection_structures threads pointer_size cmd_get cmd_set cmd_flush get_hits get_misses delete_misses \
            delete_hits evictions bytes_read bytes_written cas_misses cas_hits cas_badval total_connections \
            listen_disabled_num",
        items: "evicted evicted_nonzero expired_unfetched evicted_unfetched outofmemory tailrepairs moves_to_cold \
            moves_to_warm moves_within_lru reclaimed crawler_reclaimed lrutail_reflocked direct_reclaims number \
            number_hot number_warm number_cold age evicted_time",
        slabs: "get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits used_chunks chunk_size \
            chunks_per_page total_pages total_chunks free_chunks free_chunks_end",
    },
    Reader {
        name: "netdata go.d",
        general: "limit_maxbytes bytes bytes_read bytes_written cas_badval cas_hits cas_misses cmd_get cmd_set cmd_touch \
            curr_connections curr_items decr_hits decr_misses delete_hits delete_misses evictions get_hits get_misses \
            incr_hits incr_misses reclaimed rejected_connections total_connections total_items touch_hits touch_misses",
        items: "",
        slabs: "",
    },
    Reader {
        name: "munin memcached_multi_",
        general: "uptime limit_maxbytes bytes cmd_get cmd_set cmd_flush cmd_touch get_hits get_misses delete_hits \
            delete_misses incr_hits incr_misses decr_hits decr_misses cas_hits cas_misses cas_badval touch_hits \
            touch_misses total_items curr_items total_connections curr_connections bytes_read bytes_written \
            evictions reclaimed expired_unfetched evicted_unfetched",
        items: "number age evicted evicted_nonzero evicted_time reclaimed expired_unfetched evicted_unfetched",
        slabs: "chunk_size total_chunks used_chunks free_chunks get_hits cmd_set delete_hits incr_hits decr_hits \
            cas_hits cas_badval touch_hits",
    },
    Reader {
        name: "Zabbix agent 2",
        general: "max_connections limit_maxbytes listen_disabled_num total_connections conn_yields \
            connection_structures curr_connections cmd_flush cmd_get cmd_set pid uptime bytes bytes_written bytes_read \
            get_hits get_misses evictions total_items curr_items threads",
        items: "",
        slabs: "",
    },
    Reader {
        name: "mtop",
        general: "pid uptime time threads max_connections curr_connections total_connections rejected_connections \
            cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_hits \
            delete_misses incr_hits incr_misses decr_hits decr_misses touch_hits touch_misses bytes_read bytes_written \
            bytes limit_maxbytes curr_items total_items evictions",
        items: "number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted evicted_nonzero \
            evicted_time outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched evicted_active \
            crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru \
            direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp",
        slabs: "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks get_hits cmd_set \
            delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits",
    },
    Reader {
        name: "phpMemcachedAdmin",
        general: "cmd_set cmd_get get_hits get_misses delete_hits delete_misses cas_hits cas_misses cas_badval incr_hits \
            incr_misses decr_hits decr_misses touch_hits touch_misses cmd_flush limit_maxbytes bytes evictions reclaimed",
        items: "mem_requested",
        slabs: "used_chunks total_chunks chunk_size get_hits cmd_set delete_hits cas_hits cas_badval incr_hits decr_hits",
    },
];

/// A server whose statistics have something for everything that a monitor shows.
fn lived(program: Program, workers: &str) -> Server {
    lived_with(program, &["-t", workers])
}

/// The same, with these flags.
pub(crate) fn lived_with(program: Program, flags: &[&str]) -> Server {
    // After some seconds the server would move pages and evict their items, so page moves are off here.
    let server = Server::on_tcp(program, &[&["-m", "24", "-I", "512k", "-o", "slab_automove=0"], flags].concat());
    let mut client = server.client();
    let mut exchange = |sent: String, expected: &str| {
        client.send(sent);
        client.expect(expected);
    };
    exchange("set old 0 0 1\r\nx\r\nflush_all\r\nget old\r\n".to_owned(), "STORED\r\nOK\r\nEND\r\n");
    // Store twice as many values as the server has room for, in many sizes. Read half of them again at once.
    for (size, count) in [(10, 1000), (100, 1000), (1000, 1000), (5000, 1000), (20_000, 1000), (100_000, 200)] {
        for i in 0..count {
            let value = "v".repeat(size);
            exchange(format!("set {size}-{i} 3 0 {size}\r\n{value}\r\n"), "STORED\r\n");
            if i % 2 == 0 {
                exchange(format!("get {size}-{i}\r\n"), &format!("VALUE {size}-{i} 3 {size}\r\n{value}\r\nEND\r\n"));
            }
        }
    }
    exchange("get nothing\r\ngets nothing\r\n".to_owned(), "END\r\nEND\r\n");
    exchange("set number 0 0 2\r\n10\r\nincr number 5\r\ndecr number 1\r\n".to_owned(), "STORED\r\n15\r\n14\r\n");
    exchange("incr nothing 1\r\ndecr nothing 1\r\n".to_owned(), "NOT_FOUND\r\nNOT_FOUND\r\n");
    exchange("touch number 100\r\ntouch nothing 100\r\n".to_owned(), "TOUCHED\r\nNOT_FOUND\r\n");
    exchange("gat 100 number\r\n".to_owned(), "VALUE number 0 2\r\n14\r\nEND\r\n");
    exchange("mg number s\r\nmg nothing s\r\n".to_owned(), "HD s2\r\nEN\r\n");
    exchange("ms number 1 C1\r\nx\r\nms nothing 1 C1\r\nx\r\n".to_owned(), "EX\r\nNF\r\n");
    exchange("delete number\r\ndelete nothing\r\n".to_owned(), "DELETED\r\nNOT_FOUND\r\n");
    let huge = "x".repeat(600_000);
    exchange(format!("set huge 0 0 600000\r\n{huge}\r\n"), "SERVER_ERROR object too large for cache\r\n");
    exchange("set gone 0 -1 1\r\nx\r\nget gone\r\n".to_owned(), "STORED\r\nEND\r\n");
    if program == Program::Corecached {
        // The server has taken pages beyond its limit, and gives them back with their items. From then on its counts do
        // not change by themselves.
        let deadline = Instant::now() + PATIENCE;
        let limit = client.stat("limit_maxbytes");
        let is_kept = |line: &String| {
            let bytes = line.strip_prefix("STAT total_malloced ").and_then(|bytes| bytes.parse::<u64>().ok());
            bytes.is_some_and(|bytes| bytes <= limit)
        };
        while !client.ask_list("stats slabs").iter().any(is_kept) {
            assert!(Instant::now() < deadline, "the limit is exceeded for too long");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    server
}

/// Runs a check on a server of each program.
fn on_every_server(check: impl Fn(&Server)) {
    for workers in ["1", "3"] {
        check(&lived(Program::Corecached, workers));
    }
    for memcached in [Program::Memcached, Program::Newest] {
        if peers::has(memcached) {
            check(&lived(memcached, "2"));
        }
    }
}

#[test]
fn every_reader_finds_what_it_insists_on() {
    on_every_server(|server| {
        let [general, items, slabs] = ["stats", "stats items", "stats slabs"].map(|kind| Statistics::ask(server, kind));
        let (items, slabs) = (items.classes(), slabs.classes());
        assert!(items.len() >= 4 && slabs.len() >= 4, "{} and {} classes", items.len(), slabs.len());
        for reader in READERS {
            for name in reader.general.split_whitespace() {
                let value = general.find(name).unwrap_or_else(|| panic!("{} finds no {name}", reader.name));
                assert!(value.parse::<u64>().is_ok(), "{} cannot read {name} {value}", reader.name);
            }
            for (kind, classes, wanted) in [("items", &items, reader.items), ("slabs", &slabs, reader.slabs)] {
                for (class, fields) in classes {
                    let absent: Vec<&str> =
                        wanted.split_whitespace().filter(|name| !fields.contains_key(name)).collect();
                    assert!(absent.is_empty(), "{} finds no {absent:?} in {kind} of class {class}", reader.name);
                }
            }
        }
        // Monitors take titles and sizes of a class from `slabs`.
        let without: Vec<&u32> = items.keys().filter(|class| !slabs.contains_key(class)).collect();
        assert!(without.is_empty(), "classes {without:?} have items and no pages");
        assert!(slabs.keys().all(|class| (1..=63).contains(class)), "{:?}", slabs.keys());
    });
}

#[test]
fn the_sums_that_readers_make_are_of_this_world() {
    on_every_server(|server| {
        let [general, items, slabs] = ["stats", "stats items", "stats slabs"].map(|kind| Statistics::ask(server, kind));
        // The exporter shows `cmd_set` minus this sum in a counter, as the number of plain sets.
        let cas = general.number("cas_hits") + general.number("cas_misses") + general.number("cas_badval");
        assert!(general.number("cmd_set") >= cas, "fewer sets than those with cas");
        assert_eq!((general.number("cas_misses"), general.number("cas_badval")), (1, 1));
        for (class, fields) in slabs.classes() {
            assert!(fields["cmd_set"] >= fields["cas_hits"] + fields["cas_badval"], "class {class}");
            assert_eq!(fields["used_chunks"] + fields["free_chunks"], fields["total_chunks"], "class {class}");
            assert_eq!(fields["chunks_per_page"] * fields["total_pages"], fields["total_chunks"], "class {class}");
        }
        // collectd shows a file system with this much used space and the rest free. Other monitors divide the two
        // numbers.
        assert!(general.number("bytes") <= general.number("limit_maxbytes"));
        assert!(general.number("uptime") >= 1);
        assert_eq!(general.number("get_hits") + general.number("get_misses"), general.number("cmd_get"));
        let classes = items.classes();
        let sum = |field: &str| classes.values().map(|fields| fields[field]).sum::<u64>();
        assert_eq!(sum("number"), general.number("curr_items"));
        // `stats items` leaves out a class that is empty now.
        assert!(sum("evicted") > 0 && sum("evicted") <= general.number("evictions"));
        assert!(sum("mem_requested") > 0 && sum("mem_requested") <= general.number("limit_maxbytes"));
        let slab_classes = slabs.classes();
        let slab_sum = |field: &str| slab_classes.values().map(|fields| fields[field]).sum::<u64>();
        assert_eq!(slabs.number("active_slabs"), slab_classes.len() as u64);
        // `stats slabs` leaves out a class that has lost its pages.
        for name in ["get_hits", "delete_hits", "incr_hits", "decr_hits", "cas_hits", "cas_badval", "touch_hits"] {
            assert!(slab_sum(name) <= general.number(name), "{name}");
        }
        assert!(slab_sum("get_hits") > 0);
    });
}

#[test]
fn nothing_is_said_that_readers_stumble_over() {
    on_every_server(|server| {
        let kinds = ["stats", "stats items", "stats slabs", "stats settings", "stats sizes", "stats conns"];
        let all = kinds.map(|kind| Statistics::ask(server, kind));
        for (kind, statistics) in kinds.iter().zip(&all) {
            let mut names = BTreeSet::new();
            for (name, value) in &statistics.0 {
                assert!(names.insert(name), "{kind}: {name} is there twice");
                // Some monitors stop reading at these letters, wherever they stand.
                assert!(!name.contains("END") && !value.contains("END"), "{kind}: {name} {value}");
            }
        }
        let [general, items, slabs, settings, ..] = &all;

        // The exporter ignores lines that do not have three words.
        assert!(general.0.iter().all(|(_, value)| !value.contains(' ')));
        // If the exporter finds these names, it asks for the statistics of a disk tier and of a proxy.
        for name in ["extstore_limit_maxbytes", "proxy_backend_total"] {
            assert_eq!(general.find(name), None, "{name}");
        }
        // With these names the exporter would show a series twice, or without the label of its class.
        for fields in items.classes().values() {
            assert!(!fields.contains_key("store_too_large") && !fields.contains_key("store_no_memory"));
        }
        assert!(slabs.classes().values().all(|fields| !fields.contains_key("mem_requested")));

        // The value has seconds, a point and six digits. The exporter reads the digits as microseconds, and
        // libmemcached looks for the point.
        for name in ["rusage_user", "rusage_system"] {
            let value = general.find(name).unwrap_or_else(|| panic!("there is no {name}"));
            let (seconds, micros) = value.split_once('.').unwrap_or_else(|| panic!("{name} {value}"));
            assert!(seconds.parse::<u64>().is_ok() && micros.parse::<u32>().is_ok() && micros.len() == 6, "{value}");
        }

        // libmemcached copies the version into 24 bytes, and reads three numbers of one byte each.
        let version = general.find("version").expect("a version");
        let numbers: Vec<u8> = version.split('.').map_while(|number| number.parse().ok()).collect();
        assert!(version.len() < 24 && numbers.len() == 3 && numbers[0] == 1, "{version}");
        assert_eq!(server.client().ask("version"), format!("VERSION {version}"));

        // The exporter reads these settings.
        for name in ["lru_crawler", "lru_maintainer_thread"] {
            assert!(matches!(settings.find(name), Some("yes" | "no")), "{name}");
        }
        for name in ["maxconns", "lru_crawler_sleep", "lru_crawler_tocrawl", "hot_lru_pct", "warm_lru_pct"] {
            settings.number(name);
        }
        for name in ["hot_max_factor", "warm_max_factor", "growth_factor"] {
            assert!(settings.find(name).is_some_and(|value| value.parse::<f64>().is_ok()), "{name}");
        }
        assert_eq!(settings.find("evictions"), Some("on"));
    });
}

/// collectd has 4096 bytes for the reply to `stats`. It treats a longer reply as none.
#[test]
fn the_reply_to_stats_fits_into_what_collectd_has_for_it() {
    on_every_server(|server| {
        let statistics = Statistics::ask(server, "stats");
        let longest: usize = statistics
            .0
            .iter()
            .map(|(name, value)| {
                let is_number = value.parse::<u64>().is_ok();
                "STAT  \r\n".len() + name.len() + if is_number { 20 } else { value.len().max(13) }
            })
            .sum();
        assert!(longest + "END\r\n".len() < 4096, "{longest} bytes, when every number has all its digits");
    });
}

#[test]
fn the_words_of_all_tools_are_understood() {
    on_every_server(|server| {
        // damemtop sends a space before the end of the line. memcache-top sends no carriage return. netdata keeps its
        // connection for years.
        let mut client = server.client();
        for request in ["stats \r\n", "stats\n", "stats settings \r\n", "stats items\n", "stats slabs\n"] {
            for _ in 0..50 {
                client.send(request);
                let mut lines = 0;
                while client.line().expect("a line") != b"END\r\n" {
                    lines += 1;
                }
                assert!(lines > 20, "{request:?}: {lines} lines");
            }
        }
        // phpMemcachedAdmin lists each key with the number of bytes of its value and its expiry.
        // Items that nobody asks for become cold in the background.
        let deadline = Instant::now() + PATIENCE;
        let class = loop {
            let items = Statistics::ask(server, "stats items");
            let cold = items.classes().into_iter().find(|(_, fields)| fields["number_cold"] >= 5);
            if let Some((class, _)) = cold {
                break class;
            }
            assert!(Instant::now() < deadline, "no class has cold items");
            std::thread::sleep(Duration::from_millis(5));
        };
        let listed = client.ask_list(&format!("stats cachedump {class} 5"));
        assert_eq!(listed.len(), 5);
        for line in listed {
            let inner = line.strip_prefix("ITEM ").and_then(|rest| rest.strip_suffix(" s]"));
            let (name, rest) = inner.and_then(|inner| inner.split_once(" [")).unwrap_or_else(|| panic!("{line:?}"));
            let (bytes, expiry) = rest.split_once(" b; ").unwrap_or_else(|| panic!("{line:?}"));
            assert!(!name.is_empty() && bytes.parse::<u64>().is_ok() && expiry.parse::<u64>().is_ok(), "{line:?}");
        }
        // mtop and memcached-tool list keys too, with these fields in this order.
        client.send("lru_crawler metadump all\r\n");
        let mut count = 0;
        loop {
            let line = String::from_utf8(client.line().expect("a line")).expect("plain keys");
            if line == "END\r\n" {
                break;
            }
            // All servers but memcached 1.6.18 send this line. The tools skip it.
            if line == "OK\r\n" {
                continue;
            }
            let fields: Vec<&str> = line.trim_end().split(' ').collect();
            let value = |at: usize, name: &str| fields.get(at).and_then(|field| field.strip_prefix(name));
            assert!(value(0, "key=").is_some_and(|key| !key.is_empty()), "{line:?}");
            assert!(value(1, "exp=").is_some_and(|expiry| expiry.parse::<i64>().is_ok()), "{line:?}");
            assert!(fields.iter().any(|field| field.starts_with("size=")), "{line:?}");
            count += 1;
        }
        assert_eq!(count, client.stat("curr_items"));
        for (request, reply) in [("stats reset", "RESET"), ("stats detail on", "OK"), ("stats detail off", "OK")] {
            assert_eq!(client.ask(request), reply, "{request}");
        }
    });
}

/// Runs a tool and returns its output.
#[track_caller]
fn run(program: &str, arguments: &[&str], succeeds: bool) -> Option<String> {
    let mut command = Command::new(peers::program(program)?);
    command.args(arguments).env_remove("MEMCACHED_SERVERS");
    let Outcome { succeeded, said, complained } = converse(command, |_| false);
    assert_eq!(succeeded, succeeds, "{program} {arguments:?}:\n{said}{complained}");
    Some(said)
}

#[test]
fn memcached_tool_shows_and_dumps() {
    on_every_server(|server| {
        let address = server.tcp().to_string();
        let Some(display) = run("memcached-tool", &[&address, "display"], true) else { return };
        let items = Statistics::ask(server, "stats items");
        let mut classes = items.classes();
        // Each line has the number, chunk size, age, pages, items, fullness, evictions and so on of a class with pages.
        for line in display.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words.len(), 9, "{line:?}");
            let class = words[0].parse().expect("the number of a class");
            let fields = classes.remove(&class).unwrap_or_default();
            let shown = |field: &str| fields.get(field).copied().unwrap_or_default().to_string();
            assert_eq!(words[4], shown("number"), "items of class {class}");
            assert_eq!(words[6], shown("evicted"), "evicted from class {class}");
        }
        assert!(display.lines().count() > 4 && classes.is_empty(), "{display}");

        for (mode, wanted) in [("stats", "curr_items"), ("settings", "maxconns"), ("sizes", "sizes_status")] {
            let said = run("memcached-tool", &[&address, mode], true).expect("it is installed");
            assert!(said.lines().any(|line| line.trim_start().starts_with(wanted)), "{mode}: {said}");
        }
        // The tool reads ten lines. The first one is `OK`, except with memcached 1.6.18.
        let told = if server.client().ask("version") == "VERSION 1.6.18" { 10 } else { 9 };
        let keys = run("memcached-tool", &[&address, "keys", "10"], true).expect("it is installed");
        assert_eq!(keys.lines().filter(|line| line.starts_with("key=")).count(), told, "{keys}");

        // The test can send the dump to a server unchanged.
        let dump = run("memcached-tool", &[&address, "dump", "10"], true).expect("it is installed");
        let copy = Server::corecached_tcp(&[]);
        let mut client = copy.client();
        client.send(&dump);
        (0..told).for_each(|_| client.expect("STORED\r\n"));
        assert_eq!(client.stat("curr_items"), told as u64);
    });
}

#[test]
fn the_tools_of_libmemcached_work() {
    on_every_server(|server| {
        let address = format!("--servers={}", server.tcp());
        let folder = new_folder();
        let file = folder.join("a-file");
        fs::write(&file, "its content").expect("a file in a folder of ours");
        let path = file.to_str().expect("a temporary folder has a plain name").to_owned();

        let tool = |name: &str, arguments: &[&str], succeeds: bool| {
            run(name, &[&[address.as_str()], arguments].concat(), succeeds)
        };
        if tool("memcping", &[], true).is_none() {
            return;
        }
        tool("memccp", &[&path], true);
        assert_eq!(tool("memccat", &["a-file"], true).as_deref().map(str::trim_end), Some("its content"));
        tool("memcexist", &["a-file"], true);
        tool("memctouch", &["--expire=100", "a-file"], true);
        tool("memcrm", &["a-file"], true);
        tool("memcexist", &["a-file"], false);
        tool("memccat", &["a-file"], false);

        let said = tool("memcstat", &[], true).expect("it is installed");
        for name in ["pid", "version", "curr_items", "get_hits", "limit_maxbytes", "threads"] {
            assert!(said.lines().any(|line| line.trim().starts_with(&format!("{name}: "))), "no {name}: {said}");
        }
        let said = tool("memcstat", &["--analyze"], true).expect("it is installed");
        assert!(said.contains("Number of Servers Analyzed         : 1"), "{said}");

        let said = tool("memcdump", &[], true).expect("it is installed");
        let key = said.lines().find(|key| key.starts_with("10")).unwrap_or_else(|| panic!("{said:?}"));
        tool("memccat", &[key], true);
        tool("memcflush", &[], true);
        tool("memccat", &[key], false);
        let _ = fs::remove_dir_all(&folder);
    });
}

/// The types that collectd's plugin reports, each with its number of values.
const COLLECTED: &[(&str, usize)] = &[
    ("uptime", 1),
    ("df-cache", 2),
    ("ps_cputime", 2),
    ("memcached_octets", 2),
    ("memcached_connections-current", 1),
    ("memcached_items-current", 1),
    ("memcached_command-get", 1),
    ("memcached_command-set", 1),
    ("memcached_command-flush", 1),
    ("memcached_command-touch", 1),
    ("memcached_ops-hits", 1),
    ("memcached_ops-misses", 1),
    ("memcached_ops-evictions", 1),
    ("memcached_ops-incr_hits", 1),
    ("memcached_ops-incr_misses", 1),
    ("memcached_ops-decr_hits", 1),
    ("memcached_ops-decr_misses", 1),
    ("memcached_ops-delete_hits", 1),
    ("memcached_ops-delete_misses", 1),
    ("total_events-listen_disabled", 1),
];

#[test]
fn collectd_reads_and_reports() {
    let Some(collectd) = peers::program("collectd") else { return };
    on_every_server(|server| {
        let folder = new_folder();
        let (base, port) = (folder.display(), server.tcp().port());
        let configuration = format!(
            "BaseDir \"{base}\"\nPIDFile \"{base}/pid\"\nHostname \"h\"\nFQDNLookup false\nInterval 1\n\
             TypesDB \"/usr/share/collectd/types.db\"\nLoadPlugin csv\nLoadPlugin memcached\n\
             <Plugin csv>\n  DataDir \"stdout\"\n</Plugin>\n\
             <Plugin memcached>\n  <Instance \"one\">\n    Address \"127.0.0.1\"\n    Port \"{port}\"\n  </Instance>\n\
             </Plugin>\n"
        );
        fs::write(folder.join("conf"), configuration).expect("a file in a folder of ours");
        let mut child = Command::new(&collectd)
            .arg("-f")
            .arg("-C")
            .arg(folder.join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("collectd was found");
        let lines = lines_of(child.stdout.take().expect("it was piped"));

        // PUTVAL h/memcached-one/TYPE interval=1.000 TIME:VALUE[:VALUE]
        let mut told: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut said = String::new();
        let deadline = Instant::now() + PATIENCE;
        let complete = loop {
            if COLLECTED.iter().all(|(name, _)| told.contains_key(*name)) {
                break true;
            }
            let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else { break false };
            if let Some((name, rest)) =
                line.strip_prefix("PUTVAL h/memcached-one/").and_then(|rest| rest.split_once(' '))
            {
                let values = rest.rsplit(' ').next().unwrap_or_default().split(':').skip(1);
                told.insert(name.to_owned(), values.map(|value| value.parse().unwrap_or(f64::NAN)).collect());
            }
            said.push_str(&line);
            said.push('\n');
        };
        // Both calls fail only if collectd has ended already.
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_dir_all(&folder);

        assert!(complete, "collectd told only:\n{said}");
        for (name, count) in COLLECTED {
            assert_eq!(told[*name].len(), *count, "{name}");
            assert!(told[*name].iter().all(|value| value.is_finite() && *value >= 0.0), "{name} {:?}", told[*name]);
        }
        let mut client = server.client();
        assert_eq!(told["memcached_items-current"][0] as u64, client.stat("curr_items"));
        assert_eq!(told["memcached_command-set"][0] as u64, client.stat("cmd_set"));
        assert_eq!(told["memcached_ops-evictions"][0] as u64, client.stat("evictions"));
        assert_eq!(told["df-cache"].iter().sum::<f64>() as u64, client.stat("limit_maxbytes"));
    });
}
