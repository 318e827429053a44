//! `--users`: who may log in, what each user may do, and how much.

mod clients;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::clients::{PYTHON, run_script};
use crate::packet::{Packet, request};
use crate::server::{CORECACHED, Server, TemporaryFile};
use crate::waiting::wait_until;

/// The line of a user, from `corecached password`, with these words in place of its rights.
fn line(name: &str, password: &str, words: &str) -> String {
    let mut command = Command::new(CORECACHED);
    command.args(["password", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it can be run");
    child.stdin.take().expect("a pipe").write_all(format!("{password}\n").as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && printed.starts_with(&format!("{name} SCRAM-SHA-256$4096:")), "{printed}");
    printed.replace("read write", words)
}

fn log_in(client: &mut Client, name: &str, password: &str) -> String {
    let words = format!("{name} {password}");
    client.ask(&format!("set x 0 0 {}\r\n{words}", words.len()))
}

/// A client that has logged in by the text protocol.
fn text_client(server: &Server, name: &str) -> Client {
    let mut client = server.client();
    assert_eq!(log_in(&mut client, name, &format!("password of {name}")), "STORED");
    client
}

/// A client that has logged in by PLAIN.
fn binary_client(server: &Server, name: &str) -> Client {
    let mut client = server.client();
    client.send(plain(name, &format!("password of {name}")));
    assert_eq!(receive(&mut client), "sasl_auth val=\"Authenticated\"");
    client
}

fn plain(name: &str, password: &str) -> Vec<u8> {
    request(&format!("sasl_auth key=PLAIN val=\"\0{name}\0{password}\""))
}

#[track_caller]
fn receive(client: &mut Client) -> String {
    let shown = Packet::receive(client).expect("a reply").expect("a packet").shown();
    shown.split(' ').filter(|word| !word.starts_with("cas=")).collect::<Vec<_>>().join(" ")
}

const USERS: [(&str, &str); 6] = [
    ("reader", "read"),
    ("writer", "write"),
    ("admin", "admin"),
    ("both", "read write"),
    ("prefixed", "read write prefix=k,app:"),
    ("elsewhere", "read write prefix=app:,other"),
];

/// The users who may give a command that concerns the key `k`: r, w, b (a reader who writes), a (an admin). The user
/// `prefixed` may do what b may, and `elsewhere` nothing on `k`.
const TEXT: &[(&str, &str)] = &[
    ("get k", "rb"),
    ("get k k kk", "rb"),
    ("gets k", "rb"),
    ("gat 100 k", "b"),
    ("gats 100 k k", "b"),
    ("set k 0 0 1\r\nx", "wb"),
    ("set k 0 0 1 noreply\r\nx", "wb"),
    ("add k 0 0 1\r\nx", "wb"),
    ("replace k 0 0 1\r\nx", "wb"),
    ("append k 0 0 1\r\nx", "wb"),
    ("prepend k 0 0 1\r\nx", "wb"),
    ("cas k 0 0 1 1\r\nx", "wb"),
    ("delete k", "wb"),
    ("delete k noreply", "wb"),
    ("incr k 1", "wb"),
    ("decr k 1", "wb"),
    ("touch k 100", "wb"),
    ("touch k 100 noreply", "wb"),
    ("mg k", "rb"),
    ("mg k v f s", "rb"),
    ("mg aw== b v k", "rb"),
    ("mg k v q", "rb"),
    ("mg k v N100", "b"),
    ("mg k v T100", "b"),
    ("mg k v R100", "b"),
    ("ms k 1\r\nx", "wb"),
    ("ms k 1 q\r\nx", "wb"),
    ("ms aw== 1 b\r\nx", "wb"),
    ("md k", "wb"),
    ("md k q", "wb"),
    ("ma k", "wb"),
    ("ma k q", "wb"),
    ("version", "rwba"),
    ("flush_all", "a"),
    ("flush_all noreply", "a"),
    ("flush_prefix k", "wba"),
    ("flush_prefix k: stale noreply", "wba"),
    ("stats flush_prefix k", "wba"),
    ("config get cluster", "rwba"),
    ("stats items x", "rba"),
    ("stats reset", "a"),
    ("stats detail dump", "a"),
    ("stats cachedump 1 1", "a"),
    ("verbosity 0", "a"),
    ("cache_memlimit 100", "a"),
    ("cache_memlimit 100 noreply", "a"),
    ("slabs automove 1", "a"),
    ("lru temp_ttl 61", "a"),
    ("lru_crawler metadump all", "a"),
    ("lru_crawler sleep 100", "a"),
    ("shutdown", "a"),
    ("watch", "a"),
    ("refresh_certs", "a"),
];

/// The same in packets.
const BINARY: &[(&str, &str)] = &[
    ("get key=k", "rb"),
    ("getk key=k", "rb"),
    ("getq key=k", "rb"),
    ("getkq key=k", "rb"),
    ("gat ext=00000064 key=k", "b"),
    ("gatq ext=00000064 key=k", "b"),
    ("gatk ext=00000064 key=k", "b"),
    ("touch ext=00000064 key=k", "wb"),
    ("set key=k flags=0 exp=0 val=x", "wb"),
    ("setq key=k flags=0 exp=0 val=x", "wb"),
    ("add key=k flags=0 exp=0 val=x", "wb"),
    ("replace key=k flags=0 exp=0 val=x", "wb"),
    ("append key=k val=x", "wb"),
    ("prependq key=k val=x", "wb"),
    ("delete key=k", "wb"),
    ("deleteq key=k", "wb"),
    ("incr key=k delta=1 initial=0 exp=0", "wb"),
    ("decrq key=k delta=1 initial=0 exp=0", "wb"),
    ("version", "rwba"),
    ("flush", "a"),
    ("flushq", "a"),
    ("stat key=sizes", "rba"),
    ("stat key=reset", "a"),
    ("stat key=\"detail dump\"", "a"),
];

fn may(name: &str, users: &str) -> bool {
    let letter = match name {
        "reader" => 'r',
        "writer" => 'w',
        "admin" => 'a',
        _ => 'b',
    };
    users.contains(letter)
}

fn line_of(client: &mut Client) -> String {
    String::from_utf8(client.line().expect("a line")).expect("text").trim_end().to_owned()
}

/// The lines that a client gets for a command.
fn lines(client: &mut Client, command: &str) -> Vec<String> {
    client.send(format!("{command}\r\nmn\r\n"));
    std::iter::from_fn(|| Some(line_of(client)).filter(|line| line != "MN")).collect()
}

/// The packets that a client gets for a request.
fn packets(client: &mut Client, words: &str) -> Vec<String> {
    client.send([request(words), request("noop")].concat());
    std::iter::from_fn(|| Some(receive(client)).filter(|packet| packet != "noop")).collect()
}

/// Two servers with the same flags, one of them with users.
fn servers(file: &TemporaryFile) -> (Server, Server) {
    // What these flags forbid has a reply that is the same each time, for those who may ask.
    let flags = ["-X", "-W", "-t", "2", "-m", "64"];
    (Server::corecached(&flags), Server::corecached(&[&flags[..], &["--users", file.path()]].concat()))
}

fn users_file() -> TemporaryFile {
    let lines = USERS.map(|(name, words)| line(name, &format!("password of {name}"), words));
    TemporaryFile::new(&(lines.concat() + &line("root", "password of root", "read write admin")))
}

const KEY: &str = "set k 0 0 1\r\n5";

#[test]
fn each_text_command_is_executed_or_refused() {
    let file = users_file();
    let (open, guarded) = servers(&file);
    let (mut oracle, mut root) = (open.client(), text_client(&guarded, "root"));
    let mut clients: BTreeMap<&str, Client> =
        USERS.iter().map(|(name, _)| (*name, text_client(&guarded, name))).collect();
    for (command, users) in TEXT {
        for (name, _) in USERS {
            for client in [&mut oracle, &mut root] {
                client.ask("flush_all");
                assert_eq!(client.ask(KEY), "STORED");
            }
            let client = clients.get_mut(name).expect("a client of each");
            let is_key = !users.contains('a') || command.contains("flush_prefix");
            let allowed = may(name, users) && (name != "elsewhere" || !is_key);
            let told = lines(client, command);
            if allowed {
                let expected = lines(&mut oracle, command);
                let [told, expected] =
                    [told, expected].map(|lines| lines.iter().map(|line| plain_line(line)).collect::<Vec<_>>());
                assert_eq!(told, expected, "{name}: {command}");
            } else {
                let is_silent = command.contains(" noreply");
                let expected: &[&str] = if is_silent { &[] } else { &["CLIENT_ERROR access denied"] };
                assert_eq!(told, expected, "{name}: {command}");
                // Nothing has changed.
                assert_eq!(root.ask("mg k v"), "VA 1", "{name}: {command}");
                assert_eq!(line_of(&mut root), "5", "{name}: {command}");
            }
        }
    }
}

/// A line without what depends on earlier commands: the CAS value, and the value of a statistic.
fn plain_line(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    if words[0] == "STAT" {
        return words[..2].join(" ");
    }
    if words.len() == 5 && words[0] == "VALUE" { words[..4].join(" ") } else { line.to_owned() }
}

#[test]
fn each_packet_is_executed_or_refused() {
    let file = users_file();
    let (open, guarded) = servers(&file);
    let (mut oracle, mut root) = (open.client(), text_client(&guarded, "root"));
    let (mut plain, mut clients) = (open.client(), BTreeMap::new());
    for (name, _) in USERS {
        clients.insert(name, binary_client(&guarded, name));
    }
    for (words, users) in BINARY {
        for (name, _) in USERS {
            for client in [&mut plain, &mut root] {
                client.ask("flush_all");
                assert_eq!(client.ask(KEY), "STORED");
            }
            let client = clients.get_mut(name).expect("a client of each");
            let allowed = may(name, users) && (name != "elsewhere" || users.contains('a'));
            let told = packets(client, words);
            if allowed {
                assert_eq!(told, packets(&mut oracle, words), "{name}: {words}");
            } else {
                let command = words.split(' ').next().expect("a word");
                assert_eq!(told, [format!("{command} status=0x20 val=\"Auth failure.\"")], "{name}: {words}");
                assert_eq!(root.ask("mg k v"), "VA 1", "{name}: {words}");
                assert_eq!(line_of(&mut root), "5", "{name}: {words}");
            }
        }
    }
}

#[test]
fn one_refused_key_refuses_its_line_and_long_values_are_thrown_away() {
    let file = users_file();
    let (_, server) = servers(&file);
    let mut client = text_client(&server, "prefixed");
    let long = "x".repeat(100_000);
    assert_eq!(lines(&mut client, "set app:1 0 0 1\r\n1"), ["STORED"]);
    let denied = "CLIENT_ERROR access denied";
    assert_eq!(lines(&mut client, "get app:1 k other"), [denied]);
    assert_eq!(lines(&mut client, "get app:1 k"), ["VALUE app:1 0 1", "1", "END"]);
    assert_eq!(lines(&mut client, &format!("set other 0 0 100000\r\n{long}")), [denied]);
    assert_eq!(lines(&mut client, &format!("set other 0 0 100000 noreply\r\n{long}")), [""; 0]);
    assert_eq!(lines(&mut client, &format!("ms other 100000 q\r\n{long}")), [denied]);
    assert_eq!(lines(&mut client, &format!("set app:2 0 0 100000\r\n{long}")), ["STORED"]);
    let mut client = binary_client(&server, "prefixed");
    let refused = "set status=0x20 val=\"Auth failure.\"";
    assert_eq!(packets(&mut client, &format!("set key=other flags=0 exp=0 val={long}")), [refused]);
    assert_eq!(packets(&mut client, &format!("set key=app:3 flags=0 exp=0 val={long}")), ["set"]);
}

#[test]
fn a_user_with_prefixes_flushes_its_own_keys_alone() {
    let users =
        [("owner", "read write prefix=app:,web:"), ("odd", "read write prefix=app:,we"), ("admin", "read write admin")];
    let file: String = users.map(|(name, words)| line(name, &format!("password of {name}"), words)).concat();
    let file = TemporaryFile::new(&file);
    let server = Server::corecached(&["--users", file.path(), "-t", "2", "-m", "256"]);
    let keys = ["app:1", "app:2", "web:1", "other:1", "app"];
    let mut admin = text_client(&server, "admin");
    for (name, flush, left) in [
        ("owner", "flush_all", &["other:1", "app"][..]),
        ("owner", "flush_all 0 noreply\r\nmn", &["other:1", "app"]),
        ("owner", "flush_prefix app", &["web:1", "other:1", "app"]),
        ("owner", "flush_prefix other", &keys),
        ("owner", "flush_all 10", &keys),
        ("odd", "flush_all", &keys),
    ] {
        keys.iter().for_each(|key| assert_eq!(admin.ask(&format!("set {key} 0 0 1\r\nx")), "STORED"));
        let reply = text_client(&server, name).ask(flush);
        let expected = if left.len() == keys.len() { "CLIENT_ERROR access denied" } else { "OK" };
        assert_eq!(reply, if flush.ends_with("mn") { "MN" } else { expected }, "{name}: {flush}");
        let found: Vec<&str> = keys.into_iter().filter(|key| admin.ask(&format!("mg {key}")) == "HD").collect();
        assert_eq!(found, left, "{name}: {flush}");
    }
    for (packet, replies) in [("flush", 2), ("flushq", 1)] {
        keys.iter().for_each(|key| assert_eq!(admin.ask(&format!("set {key} 0 0 1\r\nx")), "STORED"));
        let mut binary = binary_client(&server, "owner");
        binary.send([request(packet), request("noop")].concat());
        assert!(binary.bytes(24 * replies).expect("replies").chunks(24).all(|reply| reply[6..8] == [0, 0]));
        let found: Vec<&str> = keys.into_iter().filter(|key| admin.ask(&format!("mg {key}")) == "HD").collect();
        assert_eq!(found, ["other:1", "app"], "{packet}");
    }
}

#[test]
fn a_client_may_be_the_default_user() {
    let file =
        TemporaryFile::new(&format!("default - read prefix=public:\n{}", line("web", "password of web", "read write")));
    let server = Server::corecached(&["--users", file.path(), "-t", "2", "-m", "64"]);
    let mut client = server.client();
    assert_eq!(lines(&mut client, "get public:a"), ["END"]);
    assert_eq!(lines(&mut client, "set public:a 0 0 1\r\nx"), ["CLIENT_ERROR access denied"]);
    let mut client = server.client();
    assert_eq!(packets(&mut client, "set key=public:a flags=0 exp=0 val=x"), ["set status=0x20 val=\"Auth failure.\""]);
    client.send(plain("web", "password of web"));
    assert_eq!(receive(&mut client), "sasl_auth val=\"Authenticated\"");
    assert_eq!(packets(&mut client, "set key=public:a flags=0 exp=0 val=x"), ["set"]);
    // A client that fails is nobody.
    client.send(plain("web", "wrong"));
    assert_eq!(receive(&mut client), "sasl_auth status=0x20 val=\"Auth failure.\"");
    client.send(request("get key=public:a"));
    assert_eq!(receive(&mut client), "get status=0x20 val=\"Auth failure.\"");
    client.expect_closed();
}

#[test]
fn both_protocols_have_a_login() {
    let file = TemporaryFile::new(&line("web", "two words", "read write"));
    let server = Server::corecached(&["--users", file.path(), "-t", "2", "-m", "64"]);
    let mut client = server.client();
    for command in ["get a", "version", "stats"] {
        assert_eq!(client.ask(command), "CLIENT_ERROR unauthenticated");
    }
    assert_eq!(log_in(&mut client, "web", "wrong"), "CLIENT_ERROR authentication failure");
    assert_eq!(log_in(&mut client, "nobody", "two words"), "CLIENT_ERROR authentication failure");
    assert_eq!(log_in(&mut client, "web", "two words"), "STORED");
    assert_eq!(client.ask("get a"), "END");
    // The commands behind a login wait for it.
    let mut client = server.client();
    client.send("set x 0 0 13\r\nweb two words\r\nset a 0 0 1\r\n1\r\nget a\r\n");
    let told: Vec<String> = (0..5).map(|_| line_of(&mut client)).collect();
    assert_eq!(told, ["STORED", "STORED", "VALUE a 0 1", "1", "END"]);
    let mut client = server.client();
    client.send([request("sasl_list"), plain("web", "two words"), request("get key=a")].concat());
    assert_eq!(receive(&mut client), "sasl_list val=\"SCRAM-SHA-256 PLAIN\"");
    assert_eq!(receive(&mut client), "sasl_auth val=\"Authenticated\"");
    assert_eq!(receive(&mut client), "get ext=00000000 val=\"1\"");
    let mut client = server.client();
    client.send(request("get key=a"));
    assert_eq!(receive(&mut client), "get status=0x20 val=\"Auth failure.\"");
    client.expect_closed();
}

#[test]
fn a_changed_file_counts_for_open_connections() {
    let (web, other) = (line("web", "password of web", "read write"), line("other", "password of other", "read"));
    let file = TemporaryFile::new(&format!("{web}{other}"));
    let server = Server::corecached(&["--users", file.path(), "-v", "-t", "2", "-m", "64"]);
    let (mut client, mut gone) = (text_client(&server, "web"), text_client(&server, "other"));
    assert_eq!(client.ask("set a 0 0 1\r\nx"), "STORED");

    file.write(&format!("{web}web - read\n"));
    server.signal("HUP");
    wait_until("the server complains", || server.printed().contains("line 2: nobody can become \"web\""));
    assert_eq!(client.ask("set a 0 0 1\r\nx"), "STORED");
    assert_eq!(lines(&mut gone, "get a"), ["VALUE a 0 1", "x", "END"]);

    file.write(&web.replace("read write", "read"));
    server.signal("HUP");
    wait_until("its right has gone", || client.ask("set a 0 0 1\r\nx") == "CLIENT_ERROR access denied");
    gone.expect_closed();
    assert_eq!(log_in(&mut server.client(), "other", "password of other"), "CLIENT_ERROR authentication failure");
}

#[test]
fn a_server_without_good_users_does_not_start() {
    let bad = TemporaryFile::new("# users\nweb secret read\n");
    for (flags, code, words) in [
        (&["--users", "/nowhere/users"][..], 1, "--users /nowhere/users: cannot be read: No such file"),
        (&["--users", bad.path()], 1, "line 2: the verifier of \"web\" is not"),
        (&["--users", bad.path(), "-Y", bad.path()], 64, "--users takes the place of -S and -Y"),
        (&["--users", bad.path(), "-S"], 64, "--users takes the place of -S and -Y"),
    ] {
        let (status, printed) = crate::server::corecached_run(flags);
        assert!(status.code() == Some(code) && printed.contains(words), "{flags:?}: {status}, {printed}");
    }
}

#[test]
fn a_user_has_so_many_connections() {
    let lines = line("web", "password of web", "read connections=2") + &line("other", "password of other", "read");
    let file = TemporaryFile::new(&format!("default - read connections=3\n{lines}"));
    let server = Server::corecached(&["--users", file.path(), "-t", "2", "-m", "64"]);
    let (_first, second) = (binary_client(&server, "web"), binary_client(&server, "web"));
    let crowded = |server: &Server| {
        let mut client = server.client();
        client.send(plain("web", "password of web"));
        let reply = receive(&mut client);
        if reply.contains("Too many") {
            client.expect_closed();
        }
        reply
    };
    assert_eq!(crowded(&server), "sasl_auth status=0x20 val=\"Too many open connections\"");
    let _third = binary_client(&server, "other");
    drop(second);
    wait_until("a place is free", || crowded(&server) == "sasl_auth val=\"Authenticated\"");
    // Those who do not log in are a user as well.
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("get a"), "END");
    }
    // One more must log in.
    assert_eq!(server.client().ask("get a"), "CLIENT_ERROR unauthenticated");
    clients.pop();
    wait_until("a place is free", || server.client().ask("get a") == "END");
}

#[test]
fn an_address_has_so_many_connections() {
    let server = Server::corecached_tcp(&["--connections-per-address", "2", "-t", "2", "-m", "64"]);
    let mut clients: Vec<Client> = (0..2).map(|_| server.client()).collect();
    assert_eq!(clients[0].ask("mn"), "MN");
    assert_eq!(clients[1].ask("mn"), "MN");
    let mut surplus = server.client();
    assert_eq!(line_of(&mut surplus), "ERROR Too many open connections");
    surplus.expect_closed();
    let rejected = clients[0].stat("rejected_connections");
    assert_eq!(rejected, 1);
    clients.pop();
    wait_until("a place is free", || server.client().try_send(b"mn\r\n").is_ok_and(|()| clients[0].ask("mn") == "MN"));
}

#[test]
fn a_user_at_its_limit_waits_and_others_do_not() {
    let lines =
        line("slow", "password of slow", "read write ops=20/s") + &line("fast", "password of fast", "read write");
    let file = TemporaryFile::new(&lines);
    // To rest is not to idle.
    let server = Server::corecached(&["--users", file.path(), "-t", "1", "-m", "64", "-o", "idle_timeout=1"]);
    let (mut slow, mut fast) = (text_client(&server, "slow"), text_client(&server, "fast"));
    let start = Instant::now();
    // A full bucket, and two seconds' worth.
    for _ in 0..20 {
        assert_eq!(slow.ask("mn"), "MN");
    }
    let mut other = text_client(&server, "slow");
    slow.send("mn\r\n");
    other.send("mn\r\n".repeat(20));
    let mut served = 0;
    while start.elapsed() < Duration::from_millis(800) {
        let asked = Instant::now();
        assert_eq!(fast.ask("mn"), "MN");
        assert!(asked.elapsed() < Duration::from_secs(1), "a user at its limit holds up another");
        served += 1;
    }
    assert!(served > 100, "{served}");
    for _ in 0..20 {
        assert_eq!(line_of(&mut other), "MN");
    }
    assert_eq!(line_of(&mut slow), "MN");
    assert_eq!(other.ask("mn"), "MN");
    let elapsed = start.elapsed();
    // 42 operations and two logins; 20 of them came out of the full bucket.
    assert!(elapsed >= Duration::from_millis(1000), "{elapsed:?}");
}

#[test]
fn who_waits_for_a_password_holds_up_nobody() {
    // A verifier of so many rounds takes the better part of a second, and no password fits it.
    let slow = line("slow", "any", "read").replace("$4096:", "$1000000:");
    let file = TemporaryFile::new(&(slow + &line("web", "password of web", "read write")));
    let server = Server::corecached(&["--users", file.path(), "-t", "1", "-m", "64"]);
    let mut idle = text_client(&server, "web");
    let mut waiting = server.client();
    waiting.send("set x 0 0 8\r\nslow any\r\nget a\r\n");
    let answered = thread::spawn(move || {
        assert_eq!(line_of(&mut waiting), "CLIENT_ERROR authentication failure");
        let at = Instant::now();
        assert_eq!(line_of(&mut waiting), "CLIENT_ERROR unauthenticated");
        at
    });
    for _ in 0..10 {
        assert_eq!(idle.ask("mn"), "MN");
        // A password that is remembered does not wait behind others.
        text_client(&server, "web");
    }
    let served = Instant::now();
    assert!(served < answered.join().expect("a reply"), "a login held up the worker");
}

#[test]
fn a_thousand_logins_leave_an_idle_connection_alone() {
    let file = TemporaryFile::new(&line("web", "password of web", "read write"));
    let server = Server::corecached(&["--users", file.path(), "-t", "1", "-m", "64"]);
    let mut idle = text_client(&server, "web");
    let logins = thread::scope(|scope| {
        let logins = scope.spawn(|| {
            for number in 0..1000 {
                // The text protocol, PLAIN, and a wrong password.
                match number % 10 {
                    0..5 => drop(text_client(&server, "web")),
                    5..9 => drop(binary_client(&server, "web")),
                    _ => {
                        let name = format!("nobody{number}");
                        assert_eq!(log_in(&mut server.client(), &name, "x"), "CLIENT_ERROR authentication failure");
                    }
                }
            }
            Instant::now()
        });
        let mut times = Vec::new();
        while !logins.is_finished() {
            let asked = Instant::now();
            assert_eq!(idle.ask("mn"), "MN");
            times.push(asked.elapsed());
        }
        times.sort();
        logins.join().expect("logins");
        times
    });
    // A check of a password takes milliseconds. The machine may be busy, so only most of the times can be short.
    let median = logins[logins.len() / 2];
    assert!(logins.len() > 100 && median < Duration::from_millis(2), "{} of {median:?}", logins.len());
}

#[test]
fn too_many_passwords_at_once_are_refused() {
    let slow = line("slow", "any", "read").replace("$4096:", "$1000000:");
    let file = TemporaryFile::new(&slow);
    let server = Server::corecached_tcp(&["--users", file.path(), "--metrics", "0", "-t", "1", "-m", "64"]);
    // One is checked, four of a name wait, and the others are refused at once.
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("set x 0 0 8\r\nslow any\r\n");
    }
    let result = |result: &str| {
        let families = crate::metrics::scrape(server.metrics());
        let samples = &families["corecached_auth_total"].samples;
        samples.iter().find(|(_, labels, _)| labels["result"] == result).expect("a sample").2
    };
    wait_until("some are refused", || result("crowded") >= 3.0);
    assert!(result("crowded") <= 4.0 && result("success") == 0.0);
}

#[test]
fn refusals_and_connections_are_counted_by_user() {
    let file = TemporaryFile::new(&format!("default - read\n{}", line("web", "password of web", "read")));
    let server = Server::corecached_tcp(&["--users", file.path(), "--metrics", "0", "-t", "2", "-m", "64"]);
    let (mut web, mut nobody) = (binary_client(&server, "web"), server.client());
    for _ in 0..3 {
        packets(&mut web, "delete key=a");
    }
    lines(&mut nobody, "flush_all");
    lines(&mut nobody, "ms a 1\r\nx");
    let number = |family: &str, user: &str| {
        let families = crate::metrics::scrape(server.metrics());
        let samples = &families[family].samples;
        samples.iter().find(|(_, labels, _)| labels["user"] == user).expect("a sample").2
    };
    // A worker counts when it has replied.
    for (user, refusals) in [("default", 2.0), ("web", 3.0)] {
        wait_until("they are counted", || number("corecached_user_refusals_total", user) == refusals);
        assert_eq!(number("corecached_user_connections", user), 1.0, "{user}");
    }
    // The log tells once.
    assert_eq!(server.printed().matches("of user web was refused").count(), 1);
    assert!(!server.printed().contains("password of web"));
}

#[test]
fn datagrams_are_those_of_the_default_user() {
    let web = line("web", "password of web", "read write");
    for (file, expected) in [
        (format!("default - read\n{web}"), ["END\r\n", "CLIENT_ERROR access denied\r\n", "ERROR\r\n"]),
        (
            web,
            [
                "CLIENT_ERROR unauthenticated\r\n",
                "CLIENT_ERROR unauthenticated\r\n",
                "CLIENT_ERROR authentication failure\r\n",
            ],
        ),
    ] {
        let file = TemporaryFile::new(&file);
        let server = Server::corecached_tcp(&["--users", file.path(), "-U", "-1", "-t", "1", "-m", "64"]);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time above zero");
        let login = "set x 0 0 19\r\nweb password of web\r\n";
        for (request, expected) in ["get a\r\n", "delete a\r\n", login].into_iter().zip(expected) {
            if expected == "ERROR\r\n" {
                // There a login is the refused storage of a value.
                continue;
            }
            socket
                .send_to(&[b"\0\x01\0\0\0\x01\0\0", request.as_bytes()].concat(), server.udp())
                .expect("it can be sent");
            let mut buffer = [0; 2000];
            let count = socket.recv(&mut buffer).expect("a datagram");
            assert_eq!(str::from_utf8(&buffer[8..count]), Ok(expected), "{request}");
        }
    }
}

#[test]
fn a_terminal_does_not_show_the_password() {
    run_script(&PYTHON, "password_terminal.py", &[], Vec::new(), &[CORECACHED]);
    for (input, words) in
        [("\n", "a password is not empty"), ("", "a password is not empty"), ("a\0b\n", "no zero byte")]
    {
        let mut command = Command::new(CORECACHED);
        command.arg("password").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it can be run");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && complained.contains(words), "{input:?}: {complained}");
    }
}
