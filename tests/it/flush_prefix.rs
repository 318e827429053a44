//! `flush_prefix` and its other forms, over sockets.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use crate::client::Client;
use crate::clients::{PYLIBMC, PYMEMCACHE, Peer, run_script};
use crate::packet::request;
use crate::server::Server;

fn store(client: &mut Client, keys: &[&str]) {
    for key in keys {
        assert_eq!(client.ask(&format!("set {key} 0 0 3\r\nold")), "STORED");
    }
}

/// Those of the keys that are there.
fn there<'a>(client: &mut Client, keys: &[&'a str]) -> Vec<&'a str> {
    keys.iter().copied().filter(|key| client.ask(&format!("mg {key}")) == "HD").collect()
}

#[test]
fn every_form_flushes_all_shards() {
    let server = Server::corecached(&["-t", "3", "--prefix-depth", "2", "-o", "flush_prefix_key=!"]);
    let mut client = server.client();
    let keys = ["a:1", "a:2", "a:3", "a:b:1", "a:b:2", "ab:1", "a", "c:1"];
    let outside = ["ab:1", "a", "c:1"];
    for form in [
        "flush_prefix a\r\n>OK\r\n",
        "flush_prefix a:\r\n>OK\r\n",
        "flush_prefix a noreply\r\nmn\r\n>MN\r\n",
        "stats flush_prefix a\r\n>STAT flushed a:\r\nEND\r\n",
        "delete !a\r\n>DELETED\r\n",
        "delete !a: noreply\r\nmn\r\n>MN\r\n",
        "md !a: O12 k q\r\nmn\r\n>MN\r\n",
        "md !a O12 k\r\n>HD O12 k!a\r\n",
    ] {
        store(&mut client, &keys);
        let (line, reply) = form.split_once('>').expect("a reply");
        client.send(line);
        client.expect(reply);
        assert_eq!(there(&mut client, &keys), outside, "{line}");
    }
    store(&mut client, &keys);
    client.send("flush_prefix a:b\r\n");
    client.expect("OK\r\n");
    assert_eq!(there(&mut client, &keys), ["a:1", "a:2", "a:3", "ab:1", "a", "c:1"]);
}

#[test]
fn packets_flush_as_well() {
    let server = Server::corecached(&["-t", "2", "-o", "flush_prefix_key=!"]);
    let mut client = server.client();
    for (packet, reply_len) in
        [("stat key=\"flush_prefix a\"", 24 + 7 + 2 + 24), ("delete key=!a", 24), ("deleteq key=!a:", 0)]
    {
        store(&mut client, &["a:1", "a:2", "b:1"]);
        let mut binary = server.client();
        binary.send([request(packet), request("noop")].concat());
        let reply = binary.bytes(reply_len + 24).expect("a reply");
        assert!(
            reply.chunks(24).all(|packet| packet.len() < 8 || packet[0] != 0x81 || packet[6..8] == [0, 0]),
            "{packet}"
        );
        assert_eq!(there(&mut client, &["a:1", "a:2", "b:1"]), ["b:1"], "{packet}");
    }
}

#[test]
fn mistakes_flush_nothing() {
    let server = Server::corecached(&["-t", "2"]);
    let mut client = server.client();
    store(&mut client, &["a:1", "a:b:1"]);
    const USAGE: &str = "CLIENT_ERROR usage: flush_prefix <prefix> [stale] [noreply]";
    for (line, reply) in [
        ("flush_prefix", USAGE),
        ("flush_prefix a b", USAGE),
        ("flush_prefix a stale b", USAGE),
        ("stats flush_prefix", USAGE),
        ("flush_prefix a:b:", "CLIENT_ERROR a prefix has at most 1 parts (see --prefix-depth)"),
        ("delete !a", "NOT_FOUND"),
        ("md !a", "NF"),
    ] {
        assert_eq!(client.ask(line), reply, "{line}");
    }
    assert_eq!(there(&mut client, &["a:1", "a:b:1"]).len(), 2);
    let server = Server::corecached(&["-F"]);
    assert_eq!(server.client().ask("flush_prefix a"), "CLIENT_ERROR flush_prefix not allowed");
}

#[test]
fn one_client_of_many_recaches_a_stale_item() {
    let server = Server::corecached(&["-t", "2"]);
    let mut client = server.client();
    store(&mut client, &["a:1", "a:2"]);
    assert_eq!(client.ask("flush_prefix a stale"), "OK");
    client.send("get a:1\r\n");
    client.expect("VALUE a:1 0 3\r\nold\r\nEND\r\n");
    for key in ["a:1", "a:2"] {
        assert_eq!(client.ask(&format!("mg {key}")), "HD X W");
        assert_eq!(client.ask(&format!("mg {key}")), "HD Z X");
        assert_eq!(client.ask(&format!("ms {key} 3\r\nnew")), "HD");
        assert_eq!(client.ask(&format!("mg {key}")), "HD");
    }
}

/// Runs a script with the ports of a pool.
fn flush_pool(peer: &Peer, script: &str) {
    let servers = (0..3).map(|_| Server::corecached_tcp(&["-t", "2"])).collect();
    run_script(peer, script, &[], servers, &[]);
}

#[test]
fn pylibmc_flushes_all_servers_of_its_pool() {
    flush_pool(&PYLIBMC, "pylibmc_flush_prefix.py");
}

#[test]
fn pymemcache_flushes_all_servers_of_its_pool() {
    flush_pool(&PYMEMCACHE, "pymemcache_flush_prefix.py");
}

/// What the threads of [`no_client_sees_what_was_stored_before_a_flush`] know together. A stamp is a moment: each takes the
/// next number.
struct History {
    stamps: AtomicU64,
    /// By version: the stamp at which its store was answered, or 0.
    stored: Vec<AtomicU64>,
    /// By prefix: the stamp before the last flush that is answered was sent.
    flushed: [AtomicU64; PREFIXES.len()],
    next: AtomicU64,
}

const PREFIXES: [&str; 3] = ["a:", "a:b:", "c:"];
const KEYS: usize = 24;

impl History {
    fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, SeqCst)
    }

    fn key(number: usize) -> String {
        let prefix = ["", "a:", "a:b:", "c:"][number % 4];
        format!("{prefix}key{number}{}", if number.is_multiple_of(5) { "x".repeat(100) } else { String::new() })
    }

    /// The stamp before which no version of this key may have been stored.
    fn floor(&self, key: &str) -> u64 {
        let flushes = PREFIXES.iter().zip(&self.flushed).filter(|(prefix, _)| key.starts_with(*prefix));
        flushes.map(|(_, stamp)| stamp.load(SeqCst)).max().unwrap_or(0)
    }

    fn check(&self, key: &str, floor: u64, value: &[u8]) {
        let version = std::str::from_utf8(&value[..10]).expect("digits").parse::<usize>().expect("a version");
        let stored = self.stored[version].load(SeqCst);
        assert!(stored == 0 || stored >= floor, "{key}: version {version} was stored at {stored}, flushed at {floor}");
    }
}

fn value_of(client: &mut Client, line: &[u8]) -> Option<Vec<u8>> {
    let words: Vec<&[u8]> = line.trim_ascii_end().split(|&byte| byte == b' ').collect();
    let len = match words[..] {
        [b"VALUE", _, _, len, ..] | [b"VA", len, ..] => {
            std::str::from_utf8(len).expect("digits").parse().expect("a length")
        }
        _ => return None,
    };
    let value = client.bytes(len).expect("a value");
    client.bytes(2).expect("its end");
    Some(value)
}

/// One operation of a client, over text, meta commands or packets.
fn operate(client: &mut Client, binary: &mut Client, history: &History, random: u64) {
    let number = random as usize / 7 % KEYS;
    let key = History::key(number);
    let floor = history.floor(&key);
    match random % 16 {
        0..5 => {
            let version = history.next.fetch_add(1, SeqCst) as usize;
            // Long values are received in pieces.
            let len = if random.is_multiple_of(97) { 30_000 } else { 20 };
            let value = format!("{version:010}{}", "v".repeat(len));
            match random / 16 % 3 {
                0 => assert_eq!(client.ask(&format!("set {key} 0 0 {}\r\n{value}", value.len())), "STORED"),
                1 => assert_eq!(client.ask(&format!("ms {key} {} T100\r\n{value}", value.len())), "HD"),
                _ => {
                    binary.send(request(&format!("set key={key} flags=0 exp=0 val={value}")));
                    let head = binary.bytes(24).expect("a reply");
                    assert_eq!(head[6..8], [0, 0]);
                }
            }
            history.stored[version].store(history.stamp(), SeqCst);
        }
        5..9 => {
            let verb = ["get", "gets", "gat 100", "gats 100"][random as usize / 16 % 4];
            client.send(format!("{verb} {key}\r\n"));
            let line = client.line().expect("a reply");
            if let Some(value) = value_of(client, &line) {
                history.check(&key, floor, &value);
                client.expect("END\r\n");
            }
        }
        9..11 => {
            client.send(format!("mg {key} v t h l\r\n"));
            let line = client.line().expect("a reply");
            if let Some(value) = value_of(client, &line) {
                history.check(&key, floor, &value);
            }
        }
        11..13 => {
            let command =
                if random.is_multiple_of(3) { format!("gat key={key} exp=90") } else { format!("get key={key}") };
            binary.send(request(&command));
            let head = binary.bytes(24).expect("a reply");
            let body_len = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
            let body = binary.bytes(body_len).expect("a body");
            if head[6..8] == [0, 0] {
                history.check(&key, floor, &body[usize::from(head[4])..]);
            }
        }
        13 => _ = client.ask(&format!("append {key} 0 0 4\r\nmore")),
        14 => _ = client.ask(&format!("touch {key} 80")),
        _ => {
            let at = random as usize / 16 % PREFIXES.len();
            let stamp = history.stamp();
            match random / 64 % 4 {
                0 => assert_eq!(client.ask_list(&format!("stats flush_prefix {}", PREFIXES[at])).len(), 1),
                1 => assert_eq!(client.ask(&format!("delete !{}", PREFIXES[at])), "DELETED"),
                2 => assert_eq!(client.ask(&format!("flush_prefix {} stale", PREFIXES[at])), "OK"),
                _ => assert_eq!(client.ask(&format!("flush_prefix {}", PREFIXES[at])), "OK"),
            }
            if random / 64 % 4 != 2 {
                history.flushed[at].fetch_max(stamp, SeqCst);
            }
        }
    }
}

/// Eight clients over three workers, which copy the items of keys that they read at once. `CORECACHED_COMMANDS` is the number
/// of operations.
#[test]
fn no_client_sees_what_was_stored_before_a_flush() {
    const CLIENTS: u64 = 8;
    let operations = env::var("CORECACHED_COMMANDS").map_or(40_000, |count| count.parse().expect("a number"));
    let flags = ["-t", "3", "-m", "256", "--prefix-depth", "2", "-o", "flush_prefix_key=!", "--sample", "1"];
    let server = Server::corecached(&flags);
    let history = History {
        stamps: AtomicU64::new(1),
        stored: (0..operations + 1).map(|_| AtomicU64::new(0)).collect(),
        flushed: Default::default(),
        next: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, history) = (&server, &history);
            scope.spawn(move || {
                let (mut client, mut binary) = (server.client(), server.client());
                let mut random = number + 1;
                for _ in 0..operations / CLIENTS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    operate(&mut client, &mut binary, history, random >> 20);
                }
            });
        }
    });
    let mut client = server.client();
    eprintln!("{:?}", client.ask_list("stats leases"));
    assert!(client.stat("get_hits") > operations / 20, "hardly anything was found");
}
