//! The limit of connections, and connections that are too many, idle or greedy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use crate::client::{Client, Silence};
use crate::peers;
use crate::server::{Program, Server};
use crate::waiting::wait_until;

const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

#[test]
fn as_many_as_the_limit_says_are_served_and_one_more_is_told() {
    for workers in ["1", "3"] {
        let server = Server::corecached_tcp(&["-c", "10", "-t", workers, "-m", "256"]);
        // The server may still count the connection that checked whether it is ready, so refused clients ask again.
        let mut served: Vec<Client> = Vec::new();
        wait_until("ten are served", || {
            let mut client = server.client();
            if client.try_send(b"mn\r\n").is_ok() && client.line() == Ok(b"MN\r\n".to_vec()) {
                served.push(client);
            }
            served.len() == 10
        });
        let refused_before = served[0].stat("rejected_connections");
        for _ in 0..5 {
            assert_eq!(server.client().rest(), Ok(TOO_MANY.to_vec()));
        }
        let client = &mut served[0];
        assert_eq!(client.stat("rejected_connections"), refused_before + 5);
        assert_eq!(client.stat("curr_connections"), 10);
        assert_eq!(client.stat("connection_structures"), 11);
        assert_eq!(client.stat("max_connections"), 10);
        assert_eq!(client.stat("accepting_conns"), 1);
        assert_eq!(client.stat("listen_disabled_num"), 0);
    }
}

#[test]
fn without_maxconns_fast_they_wait_until_one_closes() {
    for workers in ["1", "3"] {
        let server = Server::corecached_tcp(&["-c", "3", "-o", "no_maxconns_fast", "-t", workers, "-m", "256"]);
        let mut served: Vec<Client> = (0..3).map(|_| server.client()).collect();
        for client in &mut served {
            assert_eq!(client.ask("mn"), "MN");
        }
        let mut waiting = server.client();
        waiting.send("mn\r\n");
        wait_until("accepting rests", || served[0].stat("accepting_conns") == 0);
        assert_eq!(served[0].stat("listen_disabled_num"), 1);
        assert_eq!(served[0].stat("curr_connections"), 3);
        assert_eq!(waiting.pending(), b"");
        let refusals = served[0].ask_list("stats").iter().any(|line| line.contains("rejected_connections"));
        assert!(!refusals, "nobody is rejected, and memcached does not say so either");

        drop(served.pop());
        waiting.expect("MN\r\n");
        wait_until("accepting goes on", || waiting.stat("accepting_conns") == 1);
        assert!(waiting.stat("time_in_listen_disabled_us") > 0);
        assert_eq!(waiting.stat("listen_disabled_num"), 1);
    }
}

#[test]
fn a_server_without_descriptors_rests_and_recovers() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        return peers::say_skipped("prlimit is not installed");
    }
    for workers in ["1", "3"] {
        let server = Server::corecached_tcp(&["-t", workers, "-m", "256"]);
        let mut first = server.client();
        assert_eq!(first.ask("mn"), "MN");
        let fds = format!("/proc/{}/fd", server.pid());
        let open = std::fs::read_dir(&fds).expect("/proc of a living child").count();
        // The server may open only five descriptors more than it has now.
        let limit = format!("--nofile={}", open + 5);
        let status = Command::new("prlimit").arg("--pid").arg(server.pid().to_string()).arg(limit).status();
        assert!(status.expect("prlimit runs").success());

        let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
        for client in &mut clients {
            client.send("mn\r\n");
        }
        wait_until("accepting rests", || first.stat("accepting_conns") == 0);
        assert_eq!(first.stat("listen_disabled_num"), 1);
        let connections = first.stat("curr_connections");
        assert!((2..20).contains(&connections), "{connections} connections with room for 5");

        // The server checks for free descriptors a hundred times a second, not all the time.
        let switches = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("of a living child");
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("a line");
            line.trim().parse::<u64>().expect("a number")
        };
        let (since, before, rested) = (Instant::now(), switches(), first.stat("time_in_listen_disabled_us"));
        wait_until("it has rested for a fifth of a second", || {
            first.stat("time_in_listen_disabled_us") > rested + 200_000
        });
        let looks = switches() - before;
        let most = since.elapsed().as_millis() as u64 / 10 + 20;
        assert!((1..=most).contains(&looks), "it woke {looks} times in {:?}", since.elapsed());
        assert_eq!(first.stat("listen_disabled_num"), 1, "one rest is counted once");

        // Each client that leaves makes room for one that waits. In the end the server has answered all of them.
        while !clients.is_empty() {
            let mut client = clients.remove(0);
            client.expect("MN\r\n");
        }
        wait_until("accepting goes on", || first.stat("accepting_conns") == 1);
        let mut newcomer = server.client();
        assert_eq!(newcomer.ask("mn"), "MN");
    }
}

#[test]
fn idle_connections_are_kicked_and_busy_ones_are_not() {
    if !cfg!(feature = "debug-commands") {
        return peers::say_skipped("the clock is moved by a feature that is not built: debug-commands");
    }
    for workers in ["1", "3"] {
        let server = Server::corecached_tcp(&["-o", "idle_timeout=10", "-t", workers, "-m", "256"]);
        let (mut idle, mut busy) = (server.client(), server.client());
        assert_eq!(busy.ask("debugtime p"), "OK");
        assert_eq!(idle.ask("mn"), "MN");
        // A client that stops in the middle of a value is idle here, unlike in memcached. A client that goes on is not
        // idle.
        let (mut stopped, mut halfway) = (server.client(), server.client());
        for client in [&mut stopped, &mut halfway] {
            client.send("mn\r\nset a 0 0 5\r\nhel");
            client.expect("MN\r\n");
        }
        // A client that has not read its replies is not idle either.
        let mut slow = server.client();
        let big = "x".repeat(1_000_000);
        assert_eq!(slow.ask(&format!("set big 0 0 1000000\r\n{big}")), "STORED");
        slow.send("get big\r\n".repeat(20));
        slow.expect("VALUE big 0 1000000\r\n");
        for byte in ["l", "o"] {
            let mut read = busy.stat("bytes_read");
            halfway.send(byte);
            wait_until("it was read", || {
                read += b"stats\r\n".len() as u64;
                busy.stat("bytes_read") == read + 1
            });
            assert_eq!(busy.ask("debugtime 6"), "OK");
            assert_eq!(busy.ask("mn"), "MN");
        }
        idle.expect_closed();
        stopped.expect_closed();
        assert_eq!(busy.ask("mn"), "MN");
        assert_eq!(busy.stat("idle_kicks"), 2);
        halfway.send("\r\n");
        halfway.expect("STORED\r\n");
        slow.expect(format!("{big}\r\nEND\r\n"));
        slow.expect(format!("VALUE big 0 1000000\r\n{big}\r\nEND\r\n").repeat(19));
    }
    // On a Unix socket the server kicks no client, like memcached.
    let server = Server::corecached(&["-o", "idle_timeout=10", "-t", "1"]);
    let (mut idle, mut busy) = (server.client(), server.client());
    assert_eq!(idle.ask("mn"), "MN");
    assert_eq!(busy.ask("debugtime 60"), "OK");
    assert_eq!(busy.ask("mn"), "MN");
    assert_eq!(idle.ask("mn"), "MN");
    assert_eq!(busy.stat("idle_kicks"), 0);
}

#[test]
fn a_greedy_connection_lets_others_go_first() {
    let server = Server::corecached(&["-R", "1", "-t", "1"]);
    let (mut greedy, mut other) = (server.client(), server.client());
    assert_eq!(other.ask("set a 0 0 1\r\nx"), "STORED");
    assert_eq!(other.stat("conn_yields"), 0);
    let requests = 5000;
    greedy.send("get a\r\n".repeat(requests));
    assert_eq!(other.ask("mn"), "MN");
    greedy.expect("VALUE a 0 1\r\nx\r\nEND\r\n".repeat(requests));
    let yields = other.stat("conn_yields");
    assert!((1..=requests as u64).contains(&yields), "{yields} yields in {requests} requests, one at a time");
}

/// A connection yields each time that it has had `-R` of the commands that it sent at once and has more. It does so
/// even without other clients. The keys of a list are one command. memcached counts the same.
#[test]
fn each_pipeline_beyond_the_limit_counts_as_yields() {
    let commands = ["get a\r\n", "get a b c\r\n", "set a 0 0 1 noreply\r\nx\r\n", "mg a q\r\n", "verbosity 0\r\n"];
    let programs = [Program::Corecached, Program::Newest].into_iter().filter(|&program| peers::has(program));
    for (program, limit) in programs.flat_map(|program| [2, 5, 20].map(|limit| (program, limit))) {
        let server = Server::on_tcp(program, &["-R", &limit.to_string(), "-t", "1"]);
        let mut client = server.client();
        let mut others = Vec::new();
        for (others_count, command) in [0, 2].iter().flat_map(|&count| commands.map(|command| (count, command))) {
            others.resize_with(others_count, || server.client());
            for commands_before in [0, 1, 2, 4, 5, 19, 20, 21, 40, 99, 200] {
                let before = client.stat("conn_yields");
                client.send(command.repeat(commands_before) + "mn\r\n");
                while client.line().expect("a reply to each") != b"MN\r\n" {}
                assert_eq!(
                    client.stat("conn_yields") - before,
                    commands_before as u64 / limit,
                    "{program:?} -R {limit}, beside {others_count}, {commands_before} of {command:?} before the last"
                );
            }
        }
    }
}

#[test]
fn the_backlog_is_what_is_asked_for() {
    let backlog = |server: &Server| {
        let output = Command::new("ss").args(["-Hltn", &format!("sport = :{}", server.tcp().port())]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().nth(2)?.parse::<u32>().ok()
    };
    for (flags, wanted) in [(&["-b", "7"][..], 7), (&["-b", "100"][..], 100)] {
        for program in [Program::Corecached, Program::Memcached, Program::Newest] {
            if !peers::has(program) {
                continue;
            }
            match backlog(&Server::on_tcp(program, flags)) {
                Some(backlog) => assert_eq!(backlog, wanted, "{program:?} {flags:?}"),
                None => return peers::say_skipped("ss is not installed"),
            }
        }
    }
}

/// The sorted reply to `stats conns` without descriptors, ports and seconds, which differ from run to run. Checks that
/// no number of seconds is greater than the server's age.
fn described(client: &mut Client, server: &Server, peer: u16, started: Instant) -> Vec<String> {
    let lines = client.ask_list("stats conns");
    // Two readings of a clock of whole seconds may differ by one more.
    let age = started.elapsed().as_secs() + 1;
    let line = |line: String| {
        let (_, rest) = line.split_once(':').unwrap_or_else(|| panic!("STAT fd:name value: {line}"));
        let rest = match rest.strip_prefix("secs_since_last_cmd ") {
            Some(seconds) => {
                assert!(seconds.parse::<u64>().is_ok_and(|seconds| seconds <= age), "{line}");
                "secs_since_last_cmd N".to_owned()
            }
            None => rest.to_owned(),
        };
        rest.replace(&format!(":{}", server.tcp().port()), ":SERVER").replace(&format!(":{peer}"), ":PEER")
    };
    let mut lines: Vec<String> = lines.into_iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn connections_are_described_as_memcached_does() {
    let describe = |program: Program, workers: &str| {
        let started = Instant::now();
        let server = Server::on_tcp(program, &["-t", workers, "-m", "256"]);
        let mut asker = server.client();
        let mut idle = TcpStream::connect(server.tcp()).expect("it accepts");
        let peer = idle.local_addr().expect("it is connected").port();
        idle.write_all(b"mn\r\n").expect("there is room");
        idle.read_exact(&mut [0; 4]).expect("a reply");
        assert_eq!(asker.stat("curr_connections"), 2);
        let mut lines = described(&mut asker, &server, peer, started);
        let own = lines
            .iter()
            .position(|line| line.starts_with("addr") && !line.contains(":PEER") && !line.contains(":SERVER"));
        lines.remove(own.expect("the address of the asking one"));
        lines
    };
    let ours = describe(Program::Corecached, "1");
    assert_eq!(ours, describe(Program::Corecached, "3"));
    assert_eq!(ours.iter().filter(|line| *line == "listen_addr tcp:127.0.0.1:SERVER").count(), 2, "{ours:#?}");
    assert!(ours.contains(&"addr tcp:127.0.0.1:PEER".to_owned()), "{ours:#?}");
    for memcached in [Program::Memcached, Program::Newest] {
        if peers::has(memcached) {
            assert_eq!(ours, describe(memcached, "1"));
        }
    }
}

/// Checks the state of a connection after these bytes.
#[test]
fn the_state_of_a_connection_is_memcacheds() {
    let packet = |opcode: u8, key_len: u8, extras_len: u8, body_len: u32, body: &[u8]| {
        let mut bytes = vec![0x80, opcode, 0, key_len, extras_len, 0, 0, 0];
        bytes.extend(body_len.to_be_bytes());
        bytes.extend([0; 12]);
        [&bytes, body].concat()
    };
    let states: Vec<(&str, Vec<u8>)> = [
        ("conn_new_cmd", &b""[..]),
        ("conn_read", b"mn\r\n"),
        ("conn_read", b"mn\r\nget a"),
        ("conn_nread", b"set a 0 0 10\r\n"),
        ("conn_nread", b"set a 0 0 10\r\nhello"),
        ("conn_nread", b"mn\r\nset a 0 0 5\r\nhello\r"),
        ("conn_nread", b"append a 0 0 10 noreply\r\nhello"),
        ("conn_nread", b"ms a 10\r\nhello"),
        ("conn_nread", b"set a 0 0 100000\r\nhello"),
        ("conn_swallow", b"set a 0 0 100000000\r\nhello"),
    ]
    .into_iter()
    .map(|(state, bytes)| (state, bytes.to_vec()))
    .chain([
        ("conn_read", packet(1, 1, 8, 19, &[])[..5].to_vec()),
        ("conn_read", packet(1, 1, 8, 19, &[0; 3])),
        ("conn_read", packet(0, 3, 0, 3, b"k")),
        ("conn_nread", packet(1, 1, 8, 19, &[&[0; 8][..], b"k", b"hello"].concat())),
        ("conn_nread", packet(1, 1, 8, 100_009, &[&[0; 8][..], b"k", b"hello"].concat())),
        ("conn_swallow", packet(1, 1, 8, 100_000_009, &[&[0; 8][..], b"k", b"hello"].concat())),
        ("conn_read", packet(10, 0, 0, 0, &[])),
    ])
    .collect();
    for (program, workers) in [(Program::Corecached, "1"), (Program::Corecached, "3"), (Program::Newest, "3")] {
        if !peers::has(program) {
            continue;
        }
        let server = Server::on_tcp(program, &["-t", workers, "-m", "256"]);
        let mut asker = server.client();
        for (state, bytes) in &states {
            let mut other = TcpStream::connect(server.tcp()).expect("it accepts");
            let peer = format!(":{}", other.local_addr().expect("it is connected").port());
            other.write_all(bytes).expect("there is room");
            wait_until(&format!("{program:?} says {state} after {:?}", bytes.escape_ascii().to_string()), || {
                let lines = asker.ask_list("stats conns");
                let own = lines.iter().find_map(|line| line.strip_suffix(&peer)?.split_once(":addr "));
                let Some((row, _)) = own else { return false };
                lines.contains(&format!("{row}:state {state}"))
            });
        }
    }
}

#[test]
fn connections_are_told_in_order_of_descriptors() {
    for (program, workers) in [(Program::Corecached, "1"), (Program::Corecached, "3"), (Program::Newest, "3")] {
        if !peers::has(program) {
            continue;
        }
        let server = Server::on_tcp(program, &["-t", workers, "-m", "256"]);
        let mut clients: Vec<Client> = (0..9).map(|_| server.client()).collect();
        for client in &mut clients {
            assert_eq!(client.ask("mn"), "MN");
        }
        let lines = clients[4].ask_list("stats conns");
        let of = |line: &String, what: &str| line.strip_prefix("STAT ")?.split_once(what)?.0.parse::<u32>().ok();
        let rows: Vec<u32> = lines.iter().filter_map(|line| of(line, ":addr ")).collect();
        let listening = lines.iter().filter(|line| line.ends_with("conn_listening"));
        let listening: Vec<u32> = listening.filter_map(|line| of(line, ":state ")).collect();
        assert_eq!((rows.len(), listening.len()), (10, 1), "{program:?}: {lines:#?}");
        assert!(rows.is_sorted(), "{program:?}: {lines:#?}");
        // memcached may give a client a free descriptor below that of the listener.
        assert!(program != Program::Corecached || rows.starts_with(&listening), "{lines:#?}");
    }
}

#[test]
fn nobody_is_heard_who_was_refused() {
    // The server neither executes nor answers requests of a refused connection.
    let server = Server::corecached_tcp(&["-c", "1", "-t", "1"]);
    let mut served = server.client();
    wait_until("it is served", || {
        let answered = served.try_send(b"mn\r\n").is_ok() && served.line() == Ok(b"MN\r\n".to_vec());
        if !answered {
            served = server.client();
        }
        answered
    });
    let mut refused = server.client();
    let _ = refused.try_send(b"set a 0 0 1\r\nx\r\n");
    let said = refused.rest();
    assert!(
        matches!(&said, Ok(said) if said.is_empty() || said == TOO_MANY) || said == Err(Silence::Closed),
        "{said:?}"
    );
    served.send("get a\r\n");
    served.expect("END\r\n");
}

#[test]
fn who_has_sent_all_is_answered_to_the_end() {
    // The server must not end the connection while it waits for replies of another shard, or when a turn of the
    // connection ends before its input.
    for workers in ["1", "3"] {
        let server = Server::corecached(&["-t", workers, "-m", "256", "-R", "1"]);
        let mut other = server.client();
        assert_eq!(other.ask("mn"), "MN");
        for requests in ["version\r\nverbosity 0\r\nflush_all\r\n".repeat(20), "mn\r\n".repeat(10_000)] {
            let mut client = server.client();
            client.send(format!("{requests}mg nothing\r\n"));
            client.finish_sending();
            let replies = client.rest().expect("it closes");
            let lines = requests.lines().count() + 1;
            assert_eq!(replies.split(|&byte| byte == b'\n').count() - 1, lines, "to {:?}…", &requests[..20]);
            assert!(replies.ends_with(b"\r\nEN\r\n"));
        }
    }
}
