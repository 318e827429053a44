//! Rude clients: they never read, never finish, never stop, or send nonsense. The server must serve the other clients
//! meanwhile, in bounded memory, and the same process must run afterwards.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, shown};
use crate::server::Server;

/// The server's memory may grow by this much in addition to the memory for its items (`-m`).
const GROWTH_MAX_KIB: u64 = 48 * 1024;

/// A server, its memory before the rude clients came, and its memory for items.
pub(crate) struct Host {
    pub(crate) server: Server,
    resident_before_kib: u64,
    items_max_kib: u64,
}

impl Host {
    /// Starts a server with `-m megabytes` and two workers. It listens on TCP, because TCP has large buffers and most
    /// strangers use it.
    pub(crate) fn with_memory(megabytes: u64) -> Host {
        let mut server = Server::corecached_tcp(&["-m", &megabytes.to_string(), "-t", "2"]);
        server.assert_alive();
        let resident_before_kib = server.resident_kib();
        Host { server, resident_before_kib, items_max_kib: megabytes * 1024 }
    }

    pub(crate) fn client(&self) -> Client {
        self.server.client()
    }

    #[track_caller]
    pub(crate) fn assert_memory_is_bounded(&self) {
        let now = self.server.resident_kib();
        let allowed = self.resident_before_kib + self.items_max_kib + GROWTH_MAX_KIB;
        assert!(
            now <= allowed,
            "{now} KiB are resident, {} were before, {allowed} are allowed",
            self.resident_before_kib
        );
    }

    #[track_caller]
    pub(crate) fn assert_unharmed(&mut self) {
        self.server.assert_alive();
        self.assert_memory_is_bounded();
    }
}

#[test]
fn one_that_asks_everything_before_it_reads_anything() {
    const REQUESTS: usize = 100_000;
    let mut host = Host::with_memory(64);
    let mut rude = host.client();
    let mut requests = String::new();
    let mut replies = String::new();
    for i in 0..REQUESTS {
        let key = i % 1000;
        match i / 1000 % 4 {
            0 => {
                requests.push_str(&format!("set key{key} 0 0 6\r\n{i:06}\r\n"));
                replies.push_str("STORED\r\n");
            }
            1 => {
                requests.push_str(&format!("get key{key}\r\n"));
                replies.push_str(&format!("VALUE key{key} 0 6\r\n{:06}\r\nEND\r\n", i - 1000));
            }
            2 => {
                requests.push_str(&format!("get nothing{key}\r\n"));
                replies.push_str("END\r\n");
            }
            _ => {
                requests.push_str(&format!("mg key{key} v k\r\n"));
                replies.push_str(&format!("VA 6 kkey{key}\r\n{:06}\r\n", i - 3000));
            }
        }
    }
    // The client sends as much as server and kernel take at once before it reads the first reply. It sends the rest
    // while it reads.
    let sent = rude.send_without_waiting(requests.as_bytes());
    assert!(sent > 0);
    let mut sender = rude.second_handle();
    let rest = requests.split_off(sent);
    let sending = thread::spawn(move || sender.send(rest));
    rude.expect(&replies);
    sending.join().expect("everything could be sent");
    host.assert_unharmed();
}

#[test]
fn one_that_reads_nothing_of_what_it_asks_for() {
    let mut host = Host::with_memory(64);
    let value = "x".repeat(1_000_000);
    let mut polite = host.client();
    polite.send(format!("set big 0 0 1000000\r\n{value}\r\n"));
    polite.expect("STORED\r\n");

    // Four clients ask for terabytes in all.
    let mut rude: Vec<Client> = (0..4).map(|_| host.client()).collect();
    let requests = "get big\r\n".repeat(100_000);
    for _ in 0..10 {
        for client in &mut rude {
            client.send_without_waiting(requests.as_bytes());
        }
        for i in 0..100 {
            polite.send(format!("set small{i} 0 0 1\r\ny\r\nget small{i}\r\n"));
            polite.expect(format!("STORED\r\nVALUE small{i} 0 1\r\ny\r\nEND\r\n"));
        }
        host.assert_memory_is_bounded();
    }
    // Another client may replace the value while the server sends the old one.
    polite.send("set big 0 0 3\r\nnew\r\nget big\r\n");
    polite.expect("STORED\r\nVALUE big 0 3\r\nnew\r\nEND\r\n");
    // One client begins to read. Its reply is complete.
    rude[0].expect(format!("VALUE big 0 1000000\r\n{value}\r\nEND\r\n"));
    drop(rude);
    host.assert_unharmed();
}

#[test]
fn some_that_ask_for_much_from_all_shards_and_read_nothing() {
    // The values are just short enough for the server to copy them into replies. With four shards, many replies wait
    // for another shard.
    const KEYS: usize = 26;
    const CLIENTS: u64 = 4;
    // A connection may hold 1 MiB of replies and the replies to a group of requests. A batch between two of the four
    // shards may hold as much.
    const UNSENT_MAX_KIB: u64 = (CLIENTS + 2 * 12) * 2 * 1024;
    let mut server = Server::corecached_tcp(&["-t", "4", "-m", "256"]);
    let value = "x".repeat(8100);
    let mut polite = server.client();
    for key in 0..KEYS {
        polite.send(format!("set key{key} 0 0 8100\r\n{value}\r\n"));
        polite.expect("STORED\r\n");
    }
    let resident_before_kib = server.resident_kib();
    let list: String = (0..20_000).map(|i| format!(" key{}", i % KEYS)).collect();
    let mut rude: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    for round in 0..20 {
        for client in &mut rude {
            client.send_without_waiting(format!("get{list}\r\n").as_bytes());
        }
        for i in 0..50 {
            polite.send(format!("get nothing{i}\r\n"));
            polite.expect("END\r\n");
        }
        let grown = server.resident_kib().saturating_sub(resident_before_kib);
        assert!(grown <= UNSENT_MAX_KIB, "round {round}: {grown} KiB more are resident");
    }
    // One rude client begins to read.
    for i in 0..20_000 {
        rude[0].expect(format!("VALUE key{} 0 8100\r\n{value}\r\n", i % KEYS));
    }
    rude[0].expect("END\r\n");
    drop(rude);
    server.assert_alive();
}

#[test]
fn one_that_sends_a_byte_at_a_time() {
    let mut host = Host::with_memory(64);
    let mut slow = host.client();
    let requests = "set a 7 0 5\r\nhello\r\nget a b\r\nbogus\r\nms b 3 k\r\nbar\r\nmg b v\r\nset c 0 0 2\r\nlong\r\nincr a 1\r\nmn\r\n";
    for byte in requests.bytes() {
        slow.send([byte]);
    }
    slow.expect("STORED\r\nVALUE a 7 5\r\nhello\r\nEND\r\nERROR\r\nHD kb\r\nVA 3\r\nbar\r\n");
    slow.expect("CLIENT_ERROR bad data chunk\r\n");
    slow.expect("CLIENT_ERROR bad command line format\r\n"); // what was left of `long`: an empty line
    slow.expect("CLIENT_ERROR cannot increment or decrement non-numeric value\r\nMN\r\n");
    host.assert_unharmed();
}

#[test]
fn some_that_hang_up_in_the_middle_of_a_value() {
    // The server has room for all announced values. Without room, `set` would remove the old value too.
    let mut host = Host::with_memory(256);
    let mut polite = host.client();
    polite.send("set a 0 0 3\r\nold\r\n");
    polite.expect("STORED\r\n");
    for i in 0..200 {
        let mut rude = host.client();
        let key = if i % 2 == 0 { "a".to_owned() } else { format!("key{i}") };
        rude.send(format!("set {key} 0 0 900000\r\n{}", "x".repeat(i * 2000)));
    }
    for i in 0..50 {
        // These clients hang up in the middle of a line, or in the middle of the end of a value.
        host.client().send(&"set a 0 0 3\r\nnew\r\n".as_bytes()[..i % 18]);
    }
    // The server takes its time to notice that they have gone.
    let deadline = Instant::now() + Duration::from_secs(60);
    while polite.stat("curr_connections") > 1 {
        assert!(Instant::now() < deadline, "connections of clients that have gone are still counted");
    }
    host.assert_unharmed();
    // The server has not stored unfinished values, and it has freed their memory.
    polite.send("get a\r\n");
    polite.expect("VALUE a 0 3\r\nold\r\nEND\r\n");
    for i in 0..20 {
        polite.send(format!("set big{i} 0 0 900000\r\n{}\r\n", "y".repeat(900_000)));
        polite.expect("STORED\r\n");
    }
}

#[test]
fn some_that_hang_up_at_once_do_not_take_their_successors_along() {
    // A new connection takes the place of one that has closed. An event of the old connection must not reach the new
    // one.
    for workers in ["1", "4"] {
        let mut server = Server::corecached(&["-t", workers, "-m", "256"]);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        drop(server.client());
                        let mut rude = server.client();
                        rude.send("get a");
                        drop(rude);
                        assert_eq!(server.client().ask("mn"), "MN");
                    }
                });
            }
        });
        server.assert_alive();
    }
}

#[test]
fn some_that_announce_a_huge_value_and_send_little_of_it() {
    let mut host = Host::with_memory(64);
    let mut rude = Vec::new();
    for i in 0..100 {
        let mut client = host.client();
        let length = if i % 2 == 0 { 900_000 } else { 2_147_483_645_u64 };
        client.send(format!("set key{i} 0 0 {length}\r\n"));
        rude.push(client);
    }
    for round in 0..20 {
        for client in &mut rude {
            // Clients with a refused value get an error, and the server discards their bytes.
            client.send("xxxxxxxxxx");
        }
        let mut polite = host.client();
        polite.send(format!("set small{round} 0 0 1\r\ny\r\nget small{round}\r\n"));
        polite.expect(format!("STORED\r\nVALUE small{round} 0 1\r\ny\r\nEND\r\n"));
    }
    host.assert_memory_is_bounded();
    drop(rude);
    host.assert_unharmed();
}

#[test]
fn some_that_lie_about_lengths() {
    let mut host = Host::with_memory(64);
    let commands = ["set a 0 0 {}", "add a 0 0 {}", "replace a 0 0 {}", "append a 0 0 {}", "cas a 0 0 {} 1", "ms a {}"];
    let lengths = [
        "2147483646",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "18446744073709551615",
        "-1",
        "-2147483648",
        "-9223372036854775808",
        "99999999999999999999999999999999",
    ];
    let mut client = host.client();
    for command in commands {
        for length in lengths {
            let request = command.replace("{}", length);
            assert_eq!(client.ask(&request), "CLIENT_ERROR bad command line format", "to {request:?}");
        }
    }
    // The announced length is wrong in most cases. However the server reads the rest, it reaches the end and closes.
    for announced in 0..40 {
        for sent in [0, 1, 2, 3, 10, 39, 40, 41, 100] {
            let mut rude = host.client();
            rude.send(format!("set a 0 0 {announced}\r\n{}\r\n", "x".repeat(sent)));
            rude.finish_sending();
            let got = rude.rest().expect("the server closes when its client has finished");
            match announced.cmp(&sent) {
                std::cmp::Ordering::Equal => assert_eq!(got, b"STORED\r\n"),
                _ if got.is_empty() => {} // it still waited for the rest of the value
                _ => assert!(got.starts_with(b"CLIENT_ERROR bad data chunk\r\n"), "{}", shown(&got)),
            }
        }
    }
    host.assert_unharmed();
}

#[test]
fn one_whose_lines_have_no_end() {
    let mut host = Host::with_memory(64);
    for beginning in ["", "set a 0 0 ", "gat 10 ", "mg ", "stats ", "   "] {
        let mut rude = host.client();
        rude.send(beginning);
        // The server may close the connection before the client has sent everything.
        let _ = (0..100).try_for_each(|_| rude.try_send(&[b'x'; 4096]));
        rude.expect_closed();
    }
    // A `get` may have any number of keys, but it may not use much memory.
    let mut rude = host.client();
    rude.send("get ");
    let keys = "some-key-that-is-not-there ".repeat(10_000);
    let _ = (0..200).try_for_each(|_| rude.try_send(keys.as_bytes()));
    host.assert_memory_is_bounded();
    drop(rude);
    host.assert_unharmed();
}

#[test]
fn one_that_asks_for_a_million_keys_at_once() {
    let mut host = Host::with_memory(64);
    let mut rude = host.client();
    assert_eq!(rude.ask("set key999999 0 0 4\r\nlast"), "STORED");
    let mut request = String::from("get");
    for i in 0..1_000_000 {
        request.push_str(&format!(" key{i}"));
    }
    request.push_str("\r\n");
    rude.send(request);
    rude.expect("VALUE key999999 0 4\r\nlast\r\nEND\r\n");
    assert_eq!(rude.ask("mn"), "MN");
    host.assert_unharmed();
}

#[test]
fn one_that_asks_for_the_same_large_value_many_times_in_a_line() {
    let mut host = Host::with_memory(64);
    let mut rude = host.client();
    let value = "v".repeat(500_000);
    assert_eq!(rude.ask(&format!("set big 0 0 500000\r\n{value}")), "STORED");
    rude.send(format!("get{}\r\n", " big".repeat(300)));
    for _ in 0..300 {
        rude.expect(format!("VALUE big 0 500000\r\n{value}\r\n"));
    }
    rude.expect("END\r\n");
    host.assert_unharmed();
}

#[test]
fn one_whose_keys_are_too_long() {
    let mut host = Host::with_memory(64);
    let mut rude = host.client();
    for length in [251, 252, 1000, 1900] {
        let key = "k".repeat(length);
        for request in ["get {}", "gets {}", "delete {}", "incr {} 1", "touch {} 1", "gat 1 {}", "mg {} v", "md {}"] {
            let request = request.replace("{}", &key);
            assert_eq!(rude.ask(&request), "CLIENT_ERROR bad command line format", "key of {length} bytes");
        }
        for request in ["set {} 0 0 5\r\nvalue", "ms {} 5\r\nvalue"] {
            let request = request.replace("{}", &key);
            assert_eq!(rude.ask(&request), "CLIENT_ERROR bad command line format", "key of {length} bytes");
        }
    }
    assert_eq!(rude.ask("mn"), "MN");
    host.assert_unharmed();
}

#[test]
fn some_that_talk_nonsense() {
    let mut host = Host::with_memory(16);
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut rude = host.client();
        // The server may close the connection in reply. Then the client cannot send the rest.
        let _ = rude.try_send(&nonsense(&mut random, seed));
        rude.finish_sending_if_open();
        assert!(rude.rest().is_ok(), "seed {seed}: the server neither answers nor closes");
        host.server.assert_alive();
    }
    host.assert_unharmed();
}

/// Random bytes, random words, or valid requests with one byte changed.
fn nonsense(random: &mut Random, seed: u64) -> Vec<u8> {
    const WORDS: &str = "get gets gat gats set add replace append prepend cas incr decr touch delete mg ms md ma me mn \
        version stats verbosity flush_all noreply a b key 0 1 2 5 -1 99999999999 v k q T0 N10 R5 Oxyz MA C1 I b \
        YQ== settings items slabs reset sizes conns cachedump detail on off slabs automove lru tune mode crawl \
        lru_crawler cache_memlimit 100 bogus HTTP/1.1 {} \u{e9}";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut bytes = Vec::new();
    while bytes.len() < 20_000 {
        match seed % 3 {
            0 => bytes.push(random.below(256) as u8),
            1 => {
                bytes.extend(words[random.below(words.len())].bytes());
                bytes.extend(match random.below(6) {
                    0 => b"\r\n".as_slice(),
                    1 => b"  ",
                    2 => b"\n",
                    _ => b" ",
                });
            }
            _ => {
                let mut request = match random.below(5) {
                    0 => "set key 1 0 10\r\n0123456789\r\n".to_owned(),
                    1 => "get key other key\r\n".to_owned(),
                    2 => "ms key 5 T0 F5 c k\r\nhello\r\n".to_owned(),
                    3 => "mg key v t f s k Oabc\r\n".to_owned(),
                    _ => "incr number 5\r\nma number N0 J5 v\r\n".to_owned(),
                }
                .into_bytes();
                let at = random.below(request.len());
                request[at] = random.below(256) as u8;
                bytes.extend(request);
            }
        }
    }
    bytes
}

/// Splitmix64 (Steele, Lea & Flood 2014): the same seed gives the same numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
