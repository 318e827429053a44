//! `lru_crawler metadump`, `mgdump` and `crawl` on larger caches, beside other clients, and for clients that do not
//! read.

use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::Client;
use crate::peers;
use crate::server::Server;

const BUSY: &str = "BUSY currently processing crawler request";

/// Sets `count` keys. Each consists of `prefix` and a number.
fn fill(client: &mut Client, prefix: &str, count: usize) {
    for first in (0..count).step_by(1000) {
        let sets: String =
            (first..count.min(first + 1000)).map(|n| format!("set {prefix}{n} 0 0 3 noreply\r\nabc\r\n")).collect();
        client.send(sets + "mn\r\n");
        client.expect("MN\r\n");
    }
}

/// Number of times that a dump lists each key.
fn dumped(client: &mut Client, command: &str) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for key in told(client, command) {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// The keys of a dump in its order.
fn told(client: &mut Client, command: &str) -> Vec<String> {
    let mut keys = Vec::new();
    client.send(format!("{command}\r\n"));
    client.expect("OK\r\n");
    loop {
        let line = client.line().expect("the dump goes on to its end");
        let line = String::from_utf8(line).expect("plain keys");
        if ["END\r\n", "EN\r\n"].contains(&line.as_str()) {
            return keys;
        }
        let key = match line.strip_prefix("mg ") {
            Some(key) => key.trim_end().to_owned(),
            None => {
                let fields: Vec<&str> = line.trim_end().split(' ').collect();
                let names: Vec<&str> = fields.iter().filter_map(|field| Some(field.split_once('=')?.0)).collect();
                assert_eq!(names, ["key", "exp", "la", "cas", "fetch", "cls", "size", "flags"], "{line:?}");
                fields[0]["key=".len()..].to_owned()
            }
        };
        keys.push(key);
    }
}

/// Asks until no other walk through the cache is running.
fn ask_until_free(client: &mut Client, command: &str) -> String {
    loop {
        let reply = client.ask(command);
        if reply != BUSY {
            return reply;
        }
    }
}

#[test]
fn a_dump_tells_every_key_that_stays_exactly_once() {
    const STAYS: usize = 200_000;
    const SET_ANEW: usize = 2000;
    let server = Server::corecached(&["-m", "256", "-t", "3"]);
    let mut client = server.client();
    fill(&mut client, "stays", STAYS);
    fill(&mut client, "anew", SET_ANEW);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Other clients set keys meanwhile, so that the index grows and splits its buckets. They delete keys. They set
        // some keys again and again with values of many sizes, so that these change classes and pages.
        for number in 0..2 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut writer = server.client();
                let mut round = 0_usize;
                while !done.load(Ordering::Relaxed) {
                    let mut requests = String::new();
                    for n in 0..200 {
                        let key = round * 200 + n;
                        requests.push_str(&format!("set new{number}-{key} 0 0 3 noreply\r\nabc\r\n"));
                        if key.is_multiple_of(3) {
                            requests.push_str(&format!("delete new{number}-{} noreply\r\n", key / 2));
                        }
                        let len = key * 7 % 900;
                        let (again, value) = ((key * 2 + number) % SET_ANEW, "v".repeat(len));
                        requests.push_str(&format!("set anew{again} 0 0 {len} noreply\r\n{value}\r\n"));
                    }
                    writer.send(requests + "mn\r\n");
                    writer.expect("MN\r\n");
                    round += 1;
                }
            });
        }
        for command in ["lru_crawler metadump all", "lru_crawler mgdump all", "lru_crawler metadump hash"] {
            let counts = dumped(&mut client, command);
            let once = |prefix: &str, count: usize| {
                (0..count).filter(|n| counts.get(&format!("{prefix}{n}")) == Some(&1)).count()
            };
            assert_eq!((once("stays", STAYS), once("anew", SET_ANEW)), (STAYS, SET_ANEW), "{command}");
            assert!(counts.values().all(|&count| count == 1), "{command}: a key was told twice");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(client.stat("evictions"), 0);
    assert_eq!((client.stat("lru_crawler_running"), client.stat("lru_crawler_starts")), (0, 3));
}

#[test]
fn who_does_not_read_his_dump_holds_up_nobody_and_no_memory() {
    let server = Server::corecached_tcp(&["-m", "256", "-t", "2"]);
    let mut polite = server.client();
    fill(&mut polite, "some-rather-long-key-to-be-dumped-", 300_000);
    let before = server.resident_kib();
    let buffers = polite.stat("read_buf_bytes");
    let mut rude = server.client();
    rude.send("lru_crawler metadump all\r\nget some-rather-long-key-to-be-dumped-7\r\n");
    // The dump blocks other dumps as soon as it has begun.
    rude.expect("OK\r\n");
    for n in 0..2000 {
        polite.send(format!("get some-rather-long-key-to-be-dumped-{n}\r\n"));
        polite.expect(format!("VALUE some-rather-long-key-to-be-dumped-{n} 0 3\r\nabc\r\nEND\r\n"));
    }
    assert_eq!(polite.ask("lru_crawler metadump all"), BUSY);
    assert_eq!(polite.ask("lru_crawler mgdump all"), BUSY);
    assert_eq!(polite.ask("lru_crawler crawl all"), BUSY);
    assert_eq!(polite.stat("lru_crawler_running"), 1);
    let states = polite.ask_list("stats conns");
    assert!(states.iter().any(|line| line.ends_with(":state conn_watch") || line.ends_with(":state conn_mwrite")));
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 2048, "a dump that nobody reads takes {grown} KiB");
    let held = polite.stat("read_buf_bytes").saturating_sub(buffers);
    assert!(held < 300 << 10, "a dump that nobody reads takes {held} bytes of buffers");

    // When the client begins to read, it gets the whole dump, and the reply to its next request.
    let mut told = 0;
    while rude.line().expect("the dump goes on") != b"END\r\n" {
        told += 1;
    }
    assert_eq!(told, 300_000);
    rude.expect("VALUE some-rather-long-key-to-be-dumped-7 0 3\r\nabc\r\nEND\r\n");

    // A client that closes the connection in the middle of a dump leaves nothing behind.
    for _ in 0..5 {
        let mut gone = server.client();
        assert_eq!(ask_until_free(&mut gone, "lru_crawler metadump all"), "OK");
        assert!(gone.line().expect("a dump").starts_with(b"key=some"));
    }
    ask_until_free(&mut polite, "lru_crawler crawl all");
    assert_eq!(polite.ask("mn"), "MN");
}

#[test]
fn a_crawl_looks_at_as_many_items_as_it_is_told() {
    let server = Server::corecached(&["-t", "1"]);
    let mut client = server.client();
    fill(&mut client, "key", 5000);
    let crawled = |client: &mut Client| {
        assert_eq!(ask_until_free(client, "lru_crawler crawl all"), "OK");
        while client.stat("lru_crawler_running") == 1 {}
        client.stat("crawler_items_checked")
    };
    assert_eq!(client.ask("lru_crawler sleep 0"), "OK");
    assert_eq!(crawled(&mut client), 5000);
    assert_eq!(client.ask("lru_crawler tocrawl 10"), "OK");
    assert_eq!(client.ask("lru_crawler sleep 1000"), "OK");
    let classes = client.ask_list("stats items").iter().filter(|line| line.contains(":number ")).count() as u64;
    assert_eq!(crawled(&mut client), 5000 + 10 * classes);
}

#[test]
fn a_crawl_frees_what_is_dead() {
    let server = Server::corecached(&["-t", "2", "-m", "256"]);
    let mut client = server.client();
    fill(&mut client, "key", 5000);
    assert_eq!(client.ask("flush_all"), "OK");
    fill(&mut client, "new", 100);
    assert_eq!(ask_until_free(&mut client, "lru_crawler crawl all"), "OK");
    while client.stat("lru_crawler_running") == 1 {}
    assert_eq!(client.stat("curr_items"), 100);
    // Housekeeping removes a part of the newest items at once: at most 512 of each shard. Either housekeeping or the
    // crawler counts an item, whichever finds it first.
    let found = client.stat("crawler_reclaimed") + client.stat("reclaimed");
    assert!((5000 - 2 * 512..=5000).contains(&found), "{found}");
}

/// A dump has the order of the keys' hashes. By chance, two processes would have the same order of 50 keys once in
/// 10^64 times. Here the processes differ only in random bits that they get from the system.
#[test]
fn each_process_hashes_keys_in_its_own_way() {
    if !Command::new("setarch").args(["-R", "true"]).status().is_ok_and(|status| status.success()) {
        return peers::say_skipped("addresses are always randomized: setarch -R");
    }
    let order = || {
        let server = Server::corecached_at_fixed_addresses(&["-t", "1", "-m", "64"]);
        let mut client = server.client();
        fill(&mut client, "key", 50);
        told(&mut client, "lru_crawler mgdump all")
    };
    let (one, other) = (order(), order());
    assert_eq!((one.len(), other.len()), (50, 50));
    assert_ne!(one, other);
}
