//! `watch`: a watcher reads what other clients do, byte for byte as from memcached. Without a watcher the server
//! records nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use corecached::store::arena::page_size;
use socket2::SockRef;

use crate::client::Client;
use crate::packet::request;
use crate::peers;
use crate::server::{Program, Server};

/// Requests of a client (`>`), replies (`<`), and lines that a watcher of `fetchers mutations` reads (`w`), for both
/// servers. Lines have no `ts`, `gid` and `cfd`, and a `clsid` is 0 or N. ` | ` ends a line. `m` lines are memcached's
/// instead of all `w` lines of an exchange. `n` lines are those of 1.6.45 alone. A server may send an `l` line instead
/// if a second has passed meanwhile.
const TOLD: &str = "
> get nothing
< END
w type=item_get key=nothing status=not_found clsid=0 size=0
> set a 7 0 2 | ab
< STORED
w type=item_get key=a status=not_found clsid=0 size=0
w type=item_store key=a status=stored cmd=set ttl=0 clsid=N size=2
> get a nothing a
< VALUE a 7 2 | ab | VALUE a 7 2 | ab | END
w type=item_get key=a status=found clsid=N size=2
w type=item_get key=nothing status=not_found clsid=0 size=0
w type=item_get key=a status=found clsid=N size=2
> add a 0 0 1 | x
< NOT_STORED
w type=item_get key=a status=found clsid=N size=2
w type=item_store key=a status=not_stored cmd=add ttl=0 clsid=N size=1
> replace a 0 100 1 | x
< STORED
w type=item_get key=a status=found clsid=N size=2
w type=item_store key=a status=stored cmd=replace ttl=100 clsid=N size=1
> append a 0 0 3 | yyy
< STORED
w type=item_get key=a status=found clsid=N size=1
w type=item_store key=a status=stored cmd=append ttl=100 clsid=N size=4
> prepend a 0 0 1 noreply | z
w type=item_get key=a status=found clsid=N size=4
w type=item_store key=a status=stored cmd=prepend ttl=100 clsid=N size=5
> prepend nothing 0 0 1 | z
< NOT_STORED
w type=item_get key=nothing status=not_found clsid=0 size=0
w type=item_store key=nothing status=not_stored cmd=prepend ttl=0 clsid=N size=1
> cas a 0 0 1 999999 | c
< EXISTS
w type=item_get key=a status=found clsid=N size=5
w type=item_store key=a status=exists cmd=cas ttl=0 clsid=N size=1
> cas nothing 0 0 1 1 | c
< NOT_FOUND
w type=item_get key=nothing status=not_found clsid=0 size=0
w type=item_store key=nothing status=not_found cmd=cas ttl=0 clsid=N size=1
> set quiet 0 0 1 noreply | q
w type=item_get key=quiet status=not_found clsid=0 size=0
w type=item_store key=quiet status=stored cmd=set ttl=0 clsid=N size=1
> gat 0 a
< VALUE a 0 5 | zxyyy | END
w type=item_get key=a status=found clsid=N size=5
> touch a 0
< TOUCHED
w type=item_get key=a status=found clsid=N size=5
> touch nothing 0
< NOT_FOUND
w type=item_get key=nothing status=not_found clsid=0 size=0
> set n 0 0 1 | 9
< STORED
w type=item_get key=n status=not_found clsid=0 size=0
w type=item_store key=n status=stored cmd=set ttl=0 clsid=N size=1
> incr n 1
< 10
w type=item_get key=n status=found clsid=N size=1
> decr n 1
< 9
w type=item_get key=n status=found clsid=N size=2
> incr nothing 1
< NOT_FOUND
w type=item_get key=nothing status=not_found clsid=0 size=0
> delete quiet
< DELETED
w type=item_get key=quiet status=found clsid=N size=1
> delete quiet
< NOT_FOUND
w type=item_get key=quiet status=not_found clsid=0 size=0
> mg a v
< VA 5 | zxyyy
w type=item_get key=a status=found clsid=N size=5
> mg nothing v
< EN
w type=item_get key=nothing status=not_found clsid=0 size=0
> mg vivified N30
< HD W
w type=item_get key=vivified status=not_found clsid=0 size=0
> me a
< ME a exp=-1 la=<*>
w type=item_get key=a status=found clsid=N size=5
> ms m 2 T50 | mm
< HD
w type=item_get key=m status=not_found clsid=0 size=0
w type=item_store key=m status=stored cmd=set ttl=50 clsid=N size=2
> ms m 2 ME | xx
< NS
w type=item_get key=m status=found clsid=N size=2
w type=item_store key=m status=not_stored cmd=add ttl=0 clsid=N size=2
> ms m 2 MA | xx
< HD
w type=item_get key=m status=found clsid=N size=2
w type=item_store key=m status=stored cmd=append ttl=50 clsid=N size=4
> ms m 2 C999999 | xx
< EX
w type=item_get key=m status=found clsid=N size=4
w type=item_store key=m status=exists cmd=cas ttl=0 clsid=N size=2
> ms m 2 q | xx
w type=item_get key=m status=found clsid=N size=4
w type=item_store key=m status=stored cmd=set ttl=0 clsid=N size=2
> ma n
< HD
w type=item_get key=n status=found clsid=N size=2
> ma made N0 J5
< HD
w type=item_get key=made status=not_found clsid=0 size=0
w type=item_get key=made status=not_found clsid=0 size=0
w type=item_store key=made status=stored cmd=add ttl=0 clsid=N size=1
> md made
< HD
w type=item_get key=made status=found clsid=N size=1
> ms AGEg 1 b | x
< HD
w type=item_get key=%00a%20 status=not_found clsid=0 size=0
w type=item_store key=%00a%20 status=stored cmd=set ttl=0 clsid=N size=1
> set late 0 -1 1 | x
< STORED
w type=item_get key=late status=not_found clsid=0 size=0
w type=item_store key=late status=stored cmd=set ttl=LATE clsid=N size=1
> get late
< END
w type=item_get key=late status=expired clsid=0 size=0
> set large 0 0 100000 | {x*100000}
< STORED
w type=item_get key=large status=not_found clsid=0 size=0
w type=item_store key=large status=stored cmd=set ttl=0 clsid=N size=100000
> get large
< VALUE large 0 100000 | {x*100000} | END
w type=item_get key=large status=found clsid=N size=100000
> set large 0 0 2000000 | {x*2000000}
< SERVER_ERROR object too large for cache
w type=item_store key=large status=too_large cmd=set ttl=0 clsid=0 size=0
w type=item_get key=large status=found clsid=N size=100000
m type=item_store key=large status=too_large cmd=set ttl=0 clsid=N size=0
m type=item_get key=large status=found clsid=N size=100000
> flush_all
< OK
> get a
< END
w type=item_get key=a status=not_found clsid=0 size=0
m type=item_get key=a status=flushed clsid=0 size=0
n type=item_get key=a status=not_found clsid=0 size=0
l type=item_get key=a status=flushed clsid=0 size=0
> mn
< MN
> get
< <*>
";

/// Replaces `{x*100}` and ` | ` by their values.
fn expanded(text: &str) -> String {
    let mut lines = text.replace(" | ", "\r\n") + "\r\n";
    while let (Some(start), Some(end)) = (lines.find('{'), lines.find('}')) {
        let (letter, count) = lines[start + 1..end].split_once('*').expect("a letter, a star, a number");
        let run = letter.repeat(count.parse().expect("a number"));
        lines.replace_range(start..=end, &run);
    }
    lines
}

/// A line without the fields that differ from run to run. Other tests check those fields.
fn settled(line: &str) -> String {
    let mut settled = String::new();
    for field in line.trim_end_matches('\n').split(' ') {
        match field.split_once('=') {
            Some(("ts" | "gid" | "cfd", _)) => continue,
            Some(("clsid", class)) if class != "0" => settled.push_str("clsid=N"),
            // The item expired before the client stored it.
            Some(("ttl", ttl)) if ttl.len() == 10 => settled.push_str("ttl=LATE"),
            // A `ttl` is the number in the table, or some seconds less.
            Some(("ttl", ttl)) if ttl.parse().is_ok_and(|ttl| (1..=100).contains(&ttl)) => {
                let _ = write!(settled, "ttl={}", ttl.parse::<u32>().expect("a number").next_multiple_of(25));
            }
            _ => settled.push_str(field),
        }
        settled.push(' ');
    }
    settled.trim_end().to_owned()
}

fn watcher(server: &Server, words: &str) -> Client {
    let mut watcher = server.client();
    assert_eq!(watcher.ask(&format!("watch {words}")), "OK");
    watcher
}

fn told(watcher: &mut Client) -> String {
    let line = watcher.line().expect("a line about what has happened");
    String::from_utf8(line).expect("text")
}

fn check(program: Program, flags: &[&str]) {
    // Dead items must stay until the watcher reads about them, so no thread may remove them.
    let flags = [flags, &["-o", "no_lru_maintainer,no_lru_crawler"]].concat();
    let server = Server::on_unix_socket(program, &flags);
    let mut watcher = watcher(&server, "fetchers mutations");
    let mut client = server.client();
    let (mut wanted, mut got) = (String::new(), String::new());
    for exchange in TOLD.trim().split("\n> ") {
        let mut lines = exchange.lines();
        let request = lines.next().expect("the request").trim_start_matches("> ");
        client.send(expanded(request));
        let of = |mark| exchange.contains(&format!("\n{mark} "));
        let own = match program {
            Program::Corecached => "w",
            // Like corecached, 1.6.45 removes items of this very second as soon as a flush comes.
            Program::Newest if of("n") => "n",
            Program::Memcached | Program::Newest => {
                if of("m") {
                    "m"
                } else {
                    "w"
                }
            }
        };
        for line in lines {
            let (mark, text) = line.split_once(' ').expect("a mark and a text");
            if mark == "<" {
                for line in text.split(" | ") {
                    let reply = client.line().unwrap_or_else(|silence| panic!("{request}: {silence:?}"));
                    let reply = String::from_utf8_lossy(&reply).into_owned();
                    let line = expanded(line);
                    let expected = line.split_once("<*>").map_or(&*line, |(start, _)| start);
                    assert!(reply.starts_with(expected), "{request}: {reply}");
                }
            } else if mark == own {
                let line = settled(&told(&mut watcher));
                let is_late = exchange.lines().any(|late| late.strip_prefix("l ") == Some(&line));
                let _ = writeln!(wanted, "{}", if is_late { &line } else { text });
                let _ = writeln!(got, "{line}");
            }
        }
        assert_eq!(got, wanted, "after {request}");
    }
    client.send("get last\r\n");
    client.expect("END\r\n");
    assert_eq!(settled(&told(&mut watcher)), "type=item_get key=last status=not_found clsid=0 size=0");
}

#[test]
fn one_worker_tells_what_memcached_tells() {
    check(Program::Corecached, &["-t", "1"]);
}

#[test]
fn several_workers_tell_what_memcached_tells() {
    check(Program::Corecached, &["-t", "4", "-m", "256"]);
}

#[test]
fn memcached_tells_it() {
    for program in [Program::Memcached, Program::Newest] {
        if peers::has(program) {
            check(program, &["-t", "2", "-m", "256"]);
        }
    }
}

#[test]
fn deletions_are_told() {
    let server = Server::corecached(&["-t", "2", "-m", "256"]);
    let mut watcher = watcher(&server, "deletions");
    let mut client = server.client();
    client.send("set a 0 0 3\r\nabc\r\nset b 0 0 1\r\nb\r\nset c 0 0 1\r\nc\r\n");
    client.expect("STORED\r\nSTORED\r\nSTORED\r\n");
    client.send("delete a\r\ndelete a\r\nmd c I\r\nmd c x\r\nmd b\r\nmd b\r\n");
    client.expect("DELETED\r\nNOT_FOUND\r\nHD\r\nHD\r\nHD\r\nNF\r\n");
    client.send("md c q\r\nmn\r\n");
    client.expect("MN\r\n");
    assert_eq!(settled(&told(&mut watcher)), "type=deleted key=a cmd=delete clsid=N size=3");
    assert_eq!(settled(&told(&mut watcher)), "type=deleted key=b cmd=md clsid=N size=1");
    assert_eq!(settled(&told(&mut watcher)), "type=deleted key=c cmd=md clsid=N size=0");
}

#[test]
fn evictions_are_told() {
    for workers in ["1", "3"] {
        let started = Instant::now();
        let server = Server::corecached(&["-m", "8", "-t", workers]);
        let mut watcher = watcher(&server, "evictions");
        let mut client = server.client();
        let value = "v".repeat(1000);
        let (mut evictions, mut round) = (0, 0);
        while evictions < 300 {
            round += 1;
            let sets: String = (0..100).map(|n| format!("set {round}-{n} 0 900 1000\r\n{value}\r\n")).collect();
            client.send(sets);
            client.expect("STORED\r\n".repeat(100));
            evictions = client.stat("evictions");
        }
        let most = started.elapsed().as_secs() as u32 + 1;
        for _ in 0..evictions {
            let line = told(&mut watcher);
            let fields: Vec<(&str, &str)> =
                line.trim_end().split(' ').filter_map(|part| part.split_once('=')).collect();
            let [(_, _), (_, _), ("type", "eviction"), ("key", key), rest @ ..] = &fields[..] else {
                panic!("{line:?}");
            };
            let [("fetch", "no"), ("ttl", ttl), ("la", age), ("clsid", class), ("size", "1000")] = rest else {
                panic!("{line:?}");
            };
            assert!(key.contains('-') && (900 - most..=900).contains(&ttl.parse().unwrap_or(0)), "{line:?}");
            assert!(age.parse::<u32>().is_ok_and(|age| age <= most) && *class != "0", "{line:?}");
        }
        assert_eq!(client.stat("log_watcher_sent"), evictions);
    }
}

#[test]
fn moves_of_pages_are_told() {
    for workers in ["1", "2"] {
        let server =
            Server::corecached(&["-m", "16", "-t", workers, "-o", "no_slab_automove,watcher_logbuf_size=8192"]);
        let mut client = server.client();
        let value = "v".repeat(1000);
        let mut count = 0;
        while client.stat("evictions") == 0 {
            let sets: String = (0..1000).map(|n| format!("set {} 0 0 1000\r\n{value}\r\n", count + n)).collect();
            count += 1000;
            client.send(sets);
            client.expect("STORED\r\n".repeat(1000));
        }
        let (mut events, mut evictions) = (watcher(&server, "sysevents"), watcher(&server, "evictions"));
        let (moved, evicted) = (client.stat("slabs_moved"), client.stat("evictions"));
        // Half of the pages must go.
        assert_eq!(client.ask("cache_memlimit 8"), "OK");
        let class = client.ask_list("stats items").into_iter().find_map(|line| {
            let class = line.strip_prefix("STAT items:")?.split(':').next()?;
            Some(class.to_owned())
        });
        let expected = format!("type=slab_move src={} dst=0 state=ok", class.expect("one class has items"));
        let pages = (8 << 20) / page_size(16 << 20) as u64;
        for _ in 0..pages {
            let line = told(&mut events);
            assert_eq!(settled(&line), expected, "{line}");
        }
        while client.stat("slabs_moved") < moved + pages {
            assert!(client.ask("mn") == "MN");
        }
        // A watcher of evictions gets a line for each item of these pages, as many as the server counts.
        let evicted = client.stat("evictions") - evicted;
        assert!(evicted > 1000, "{evicted}");
        for _ in 0..evicted {
            let line = told(&mut evictions);
            assert!(settled(&line).starts_with("type=eviction key="), "{line}");
        }
    }
}

fn check_connections(program: Program) {
    let server = Server::on_tcp(program, &["-t", "2", "-m", "256"]);
    let mut watcher = watcher(&server, "connevents");
    for farewell in ["quit\r\n", ""] {
        let mut client = TcpStream::connect(server.tcp()).expect("the server listens");
        let port = client.local_addr().expect("it is connected").port();
        client.write_all(b"mn\r\n").expect("the server reads");
        client.read_exact(&mut [0; 4]).expect("MN");
        client.write_all(farewell.as_bytes()).expect("the server reads");
        drop(client);
        let new = settled(&told(&mut watcher));
        let close = settled(&told(&mut watcher));
        assert_eq!(new, format!("type=conn_new rip=127.0.0.1 rport={port} transport=tcp"));
        assert_eq!(close, new.replace("conn_new", "conn_close") + " reason=normal");
    }
    // The server also knows the address of a client that resets its connection.
    for host in ["127.0.0.1", "::1"] {
        let server = Server::on_tcp(program, &["-t", "2", "-m", "256", "-l", host]);
        let mut watcher = crate::watch::watcher(&server, "connevents");
        let mut rude = TcpStream::connect(server.tcp()).expect("the server listens");
        let port = rude.local_addr().expect("it is connected").port();
        rude.write_all(b"mn\r\n").expect("the server reads");
        rude.read_exact(&mut [0; 4]).expect("MN");
        SockRef::from(&rude).set_linger(Some(Duration::ZERO)).expect("a socket of ours");
        drop(rude);
        assert_eq!(settled(&told(&mut watcher)), format!("type=conn_new rip={host} rport={port} transport=tcp"));
        let close = format!("type=conn_close rip={host} rport={port} transport=tcp reason=error");
        assert_eq!(settled(&told(&mut watcher)), close);
    }
    let server = Server::on_unix_socket(program, &["-t", "2", "-m", "256"]);
    // The client that checked whether the server accepts must have gone before a watcher begins.
    let mut early = server.client();
    while early.stat("curr_connections") > 1 {}
    let mut watcher = crate::watch::watcher(&server, "connevents");
    let mut client = server.client();
    assert!(client.ask("version").starts_with("VERSION"));
    client.send("quit\r\n");
    client.expect_closed();
    assert_eq!(settled(&told(&mut watcher)), "type=conn_new rip=unix rport=0 transport=local");
    assert_eq!(settled(&told(&mut watcher)), "type=conn_close rip=unix rport=0 transport=local reason=normal");
}

#[test]
fn connections_are_told() {
    check_connections(Program::Corecached);
}

#[test]
fn memcached_tells_of_connections() {
    for program in [Program::Memcached, Program::Newest] {
        if peers::has(program) {
            check_connections(program);
        }
    }
}

/// The packets of a client, and the lines that a watcher of `fetchers mutations connevents` reads about them, as in
/// `TOLD`.
const TOLD_OF_PACKETS: &str = "
> set key=k flags=0 exp=0 val=v
w type=item_get key=k status=not_found clsid=0 size=0
w type=item_store key=k status=stored cmd=set ttl=0 clsid=N size=1
> get key=k
w type=item_get key=k status=found clsid=N size=1
> getq key=none
w type=item_get key=none status=not_found clsid=0 size=0
> getkq key=k
w type=item_get key=k status=found clsid=N size=1
> add key=k flags=0 exp=0 val=v
w type=item_get key=k status=found clsid=N size=1
w type=item_store key=k status=not_stored cmd=add ttl=0 clsid=N size=1
> addq key=new flags=0 exp=30 val=vv
w type=item_get key=new status=not_found clsid=0 size=0
w type=item_store key=new status=stored cmd=add ttl=50 clsid=N size=2
> replace key=none flags=0 exp=0 val=v
w type=item_get key=none status=not_found clsid=0 size=0
w type=item_store key=none status=not_stored cmd=replace ttl=0 clsid=N size=1
> append key=k val=w
w type=item_get key=k status=found clsid=N size=1
w type=item_store key=k status=stored cmd=append ttl=0 clsid=N size=2
> prependq key=k val=w
w type=item_get key=k status=found clsid=N size=2
w type=item_store key=k status=stored cmd=prepend ttl=0 clsid=N size=3
> set key=k flags=0 exp=0 val=v cas=99999
w type=item_get key=k status=found clsid=N size=3
w type=item_store key=k status=exists cmd=cas ttl=0 clsid=N size=1
> incr key=n delta=1 initial=5 exp=0
w type=item_get key=n status=not_found clsid=0 size=0
w type=item_get key=n status=not_found clsid=0 size=0
w type=item_store key=n status=stored cmd=add ttl=0 clsid=N size=1
> incr key=n delta=1 initial=5 exp=0
w type=item_get key=n status=found clsid=N size=1
> touch key=k exp=100
w type=item_get key=k status=found clsid=N size=3
> gat key=k exp=0
w type=item_get key=k status=found clsid=N size=3
> delete key=k
w type=item_get key=k status=found clsid=N size=3
> delete key=k
w type=item_get key=k status=not_found clsid=0 size=0
> noop
> version
";

fn check_packets(program: Program, workers: &str) {
    let server = Server::on_tcp(program, &["-t", workers, "-m", "256"]);
    let mut watcher = watcher(&server, "fetchers mutations connevents");
    let mut client = server.client();
    let new = settled(&told(&mut watcher));
    assert!(new.starts_with("type=conn_new rip=127.0.0.1 rport="), "{new}");
    for exchange in TOLD_OF_PACKETS.trim().split("\n> ") {
        let mut lines = exchange.lines();
        let words = lines.next().expect("the request").trim_start_matches("> ");
        client.send(request(words));
        for line in lines {
            let expected = line.strip_prefix("w ").expect("what is told");
            assert_eq!(settled(&told(&mut watcher)), expected, "{program:?}: {words}");
        }
    }
    client.send(request("quit"));
    assert_eq!(settled(&told(&mut watcher)), new.replace("conn_new", "conn_close") + " reason=normal");
}

#[test]
fn of_packets_is_told_what_memcached_tells() {
    check_packets(Program::Corecached, "1");
    check_packets(Program::Corecached, "3");
    if peers::has(Program::Newest) {
        check_packets(Program::Newest, "2");
    }
}

#[test]
fn lines_are_stamped_numbered_and_name_the_connection() {
    let server = Server::corecached(&["-t", "3", "-m", "256"]);
    let mut watcher = watcher(&server, "fetchers");
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    // Each key contains the number of its sender.
    for round in 0..50 {
        for (number, client) in clients.iter_mut().enumerate() {
            let keys: String = (0..10).map(|n| format!(" client{number}-{round}-{n}")).collect();
            client.send(format!("get{keys}\r\n"));
            client.expect("END\r\n");
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let mut numbers = BTreeSet::new();
    let mut fds = BTreeMap::new();
    for _ in 0..4 * 50 * 10 {
        let line = told(&mut watcher);
        let value = |name: &str| {
            let field = line.trim_end().split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            field.unwrap_or_else(|| panic!("no {name} in {line:?}"))
        };
        let ts: f64 = value("ts").parse().expect("seconds");
        assert!(
            (now - 60.0..=now + 1.0).contains(&ts) && value("ts").split_once('.').expect("a fraction").1.len() == 6
        );
        // The lines of several workers come in turns. `gid` gives their order.
        let number: u64 = value("gid").parse().expect("a number");
        assert!(numbers.insert(number), "gid {number} came twice");
        let sender = value("key").split('-').next().expect("the sender").to_owned();
        fds.entry(sender).or_insert_with(BTreeSet::new).insert(value("cfd").to_owned());
    }
    assert!(fds.len() == 4 && fds.values().all(|fds| fds.len() == 1), "{fds:?}");
    let distinct: BTreeSet<_> = fds.values().flatten().collect();
    assert_eq!(distinct.len(), 4, "{fds:?}");
}

#[test]
fn who_does_not_listen_holds_up_nobody_and_no_memory() {
    let server = Server::corecached_tcp(&["-t", "2", "-m", "256", "-o", "watcher_logbuf_size=64"]);
    let mut deaf = watcher(&server, "fetchers mutations connevents");
    let mut client = server.client();
    client.send("mn\r\n");
    client.expect("MN\r\n");
    let before = server.resident_kib();
    let mut said = 1_u64;
    let ask = |client: &mut Client, gets: usize| {
        client.send("get a-key-of-some-length-to-fill-what-there-is\r\n".repeat(gets));
        client.expect("END\r\n".repeat(gets));
        gets as u64
    };
    // Ask until the kernel's buffer for this watcher is full too, and then as much again.
    while client.stat("log_watcher_skipped") < 20_000 {
        said += ask(&mut client, 200);
        assert!(said < 10_000_000, "nothing is ever skipped");
    }
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 2048, "a watcher that does not read takes {grown} KiB");
    let states = client.ask_list("stats conns");
    assert!(states.iter().any(|line| line.ends_with(":state conn_watch")), "{states:?}");

    // At the end of a worker's turn, each line of that turn is sent, skipped or dropped.
    let counted = |client: &mut Client| {
        ["log_watcher_sent", "log_watcher_skipped", "log_worker_dropped"].map(|name| client.stat(name))
    };
    while counted(&mut client).iter().sum::<u64>() < said {}
    let [sent, lost, _] = counted(&mut client);
    // The watcher reads the kept lines, and the numbers of dropped lines between them, in the order of events.
    let (mut heard, mut skipped) = (0, 0);
    while heard < sent {
        match told(&mut deaf).strip_prefix("skipped=") {
            Some(count) => skipped += count.trim_end().parse::<u64>().expect("a number"),
            None => heard += 1,
        }
    }
    client.send("get last\r\n");
    client.expect("END\r\n");
    if skipped < lost {
        assert_eq!(told(&mut deaf), format!("skipped={}\n", lost - skipped));
    }
    assert_eq!(settled(&told(&mut deaf)), "type=item_get key=last status=not_found clsid=0 size=0");
}

#[test]
fn a_turns_lines_have_a_limit() {
    let server = Server::corecached(&["-t", "1", "-o", "worker_logbuf_size=1"]);
    let _watcher = watcher(&server, "fetchers");
    let mut client = server.client();
    client.send(format!("get{}\r\n", " a-key-that-is-not-there".repeat(1000)));
    client.expect("END\r\n");
    assert_eq!(client.stat("log_worker_written") + client.stat("log_worker_dropped"), 1000);
    assert!(client.stat("log_worker_dropped") >= 500);
}

#[test]
fn so_many_may_watch_and_no_more() {
    let server = Server::corecached(&["-t", "2", "-m", "256"]);
    let mut client = server.client();
    let mut watchers: Vec<Client> = (0..20).map(|_| watcher(&server, "")).collect();
    assert_eq!(client.ask("watch"), "WATCHER_TOO_MANY log watcher limit reached");
    assert_eq!(client.stat("log_watchers"), 20);
    watchers.pop();
    while client.ask("watch fetchers") != "OK" {
        client = server.client();
    }
    drop(watchers);
    drop(client);
    let mut client = server.client();
    while client.stat("log_watchers") > 0 {}
    let sent = client.stat("log_watcher_sent") + client.stat("log_worker_written");
    assert_eq!(client.ask("get a"), "END");
    assert_eq!(client.stat("log_watcher_sent") + client.stat("log_worker_written"), sent, "nobody watches any more");
}

#[test]
fn what_a_watcher_says_is_not_listened_to() {
    let server = Server::corecached(&["-t", "2", "-m", "256"]);
    let mut watcher = watcher(&server, "fetchers");
    watcher.send("get a\r\nquit\r\nset x 0 0 3\r\nabc\r\n".repeat(5000));
    let mut client = server.client();
    client.send("get b\r\n");
    client.expect("END\r\n");
    assert_eq!(settled(&told(&mut watcher)), "type=item_get key=b status=not_found clsid=0 size=0");
    assert_eq!(client.stat("cmd_set"), 0);
    watcher.finish_sending();
    watcher.expect_closed();
}

#[test]
fn watching_can_be_forbidden_and_the_watched_never_notice() {
    let server = Server::corecached(&["-t", "1", "-W"]);
    let mut client = server.client();
    assert_eq!(client.ask("watch"), "CLIENT_ERROR watch commands not allowed");
    assert_eq!(client.stat("log_watchers"), 0);
}
