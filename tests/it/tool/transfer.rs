//! `corecached dump`, `load` and `copy`: every item comes through byte by byte, nothing newer is lost, and the servers
//! notice little.

mod fake;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{call, json, nowhere, output, tool};
use crate::client::Client;
use crate::clients::{PYLIBMC, run_script};
use crate::peers;
use crate::server::{Program, Server, TemporaryFile};
use crate::waiting::wait_until;
use fake::{Fake, Listed};

/// An item of a dump: flags, exptime and value.
type Item = (u32, u64, Vec<u8>);

/// The items of a dump by their keys, read in another way than the program reads them.
#[track_caller]
fn parse(mut dump: &[u8]) -> BTreeMap<Vec<u8>, Item> {
    let mut items = BTreeMap::new();
    while !dump.is_empty() {
        let end = dump.iter().position(|&byte| byte == b'\n').expect("a line");
        let line = std::str::from_utf8(&dump[..end - 1]).map(str::to_owned);
        let line = line.unwrap_or_else(|_| dump[..end - 1].iter().map(|&byte| char::from(byte)).collect());
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].trim_start_matches(['F', 'T']).parse::<u64>().expect("a number");
        let (key, flags, exptime, length) = match words[0] {
            "add" => (dump[4..4 + key_length(&dump[4..])].to_vec(), number(2), number(3), number(4)),
            "ms" => {
                assert_eq!((words[3], words[6]), ("b", "ME"), "{line}");
                let key = data_encoding::BASE64.decode(words[1].as_bytes()).expect("base64");
                (key, number(4), number(5), number(2))
            }
            other => panic!("{other}"),
        };
        let start = end + 1;
        let value = dump[start..start + length as usize].to_vec();
        assert_eq!(&dump[start + length as usize..][..2], b"\r\n");
        dump = &dump[start + length as usize + 2..];
        let old = items.insert(key, (u32::try_from(flags).expect("32 bits"), exptime, value));
        assert_eq!(old, None, "a key comes once");
    }
    items
}

fn key_length(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte == b' ').expect("a space")
}

/// The items of a server.
#[track_caller]
fn dumped(address: &str) -> BTreeMap<Vec<u8>, Item> {
    parse(&dump(address, &[]))
}

#[track_caller]
fn dump(address: &str, flags: &[&str]) -> Vec<u8> {
    let Output { status, stdout, stderr } =
        tool(&[&["dump", "--server", address, "--rate", "0"], flags].concat()).output().expect("it runs");
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.starts_with("corecached: dumped ") && said.lines().count() == 1, "{said}");
    stdout
}

/// Runs `load`, `copy` or `dump` with `--json` and without a rate, and returns its figures.
#[track_caller]
fn figures(words: &[&str]) -> serde_json::Value {
    let (code, said, complained) = call(&[words, &["--json", "--rate", "0"]].concat());
    assert_eq!(code, Some(0), "{words:?}: {complained}");
    json(&said)
}

/// The same items, and deadlines that differ by a second at most: a server tells the seconds that are left.
#[track_caller]
fn assert_same(items: &BTreeMap<Vec<u8>, Item>, others: &BTreeMap<Vec<u8>, Item>) {
    let missing: Vec<_> = items.keys().filter(|key| !others.contains_key(*key)).collect();
    assert!(missing.is_empty() && items.len() == others.len(), "{} and {}: {missing:?}", items.len(), others.len());
    for (key, (flags, exptime, value)) in items {
        let (other_flags, other_exptime, other_value) = &others[key];
        let key = key.escape_ascii();
        assert_eq!(flags, other_flags, "{key}");
        assert!(exptime.abs_diff(*other_exptime) <= 2, "{key}: {exptime} and {other_exptime}");
        assert!((*exptime == 0) == (*other_exptime == 0), "{key}");
        assert!(value == other_value, "the value of {key}");
    }
}

/// Stores an item by the binary protocol, which takes keys of any bytes.
fn set_binary(client: &mut Client, key: &[u8], (flags, exptime, value): &(u32, u32, &[u8])) {
    let mut packet = vec![0x80, 1, 0, key.len() as u8, 8, 0, 0, 0];
    packet.extend(((8 + key.len() + value.len()) as u32).to_be_bytes());
    packet.extend([0; 12]);
    packet.extend(flags.to_be_bytes());
    packet.extend(exptime.to_be_bytes());
    packet.extend(key);
    packet.extend(*value);
    client.send(packet);
    let reply = client.bytes(24).expect("a reply");
    assert_eq!(&reply[..8], [0x81, 1, 0, 0, 0, 0, 0, 0], "{}", key.escape_ascii());
}

/// Stores an item by the text protocol.
fn set(client: &mut Client, key: &str, value: &str) {
    client.send(format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()));
    client.expect("STORED\r\n");
}

fn start(program: Program, flags: &[&str]) -> Option<(Server, String)> {
    peers::has(program).then(|| {
        let server = Server::on_tcp(program, &[&["-t", "2"], flags].concat());
        let address = server.tcp().to_string();
        (server, address)
    })
}

/// Items with keys and values of every byte, all lengths of keys that the text protocol can name, flags and deadlines.
fn fill(server: &Server) -> usize {
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let megabyte: Vec<u8> = (0..1 << 20).map(|at: u32| (at ^ at >> 8) as u8).collect();
    let values: [&[u8]; 5] = [b"", b"\r\n", &every, b"x\r\nadd injected 0 0 1\r\ny", &every[128..]];
    let mut keys: Vec<Vec<u8>> = every.iter().map(|&byte| vec![byte]).collect();
    keys.extend([every[..128].to_vec(), every[128..].to_vec(), b"a b\r\nflush_all\r\n".to_vec(), vec![b' '; 186]]);
    keys.extend([vec![b'x'; 250], vec![1; 250], "schlüssel:ключ".as_bytes().to_vec(), b"100%25".to_vec()]);
    let mut client = server.client();
    for (number, key) in keys.iter().enumerate() {
        let flags = [0, 1, u32::MAX, 7][number % 4];
        // Up to 30 days an exptime is relative.
        let exptime = [0, 1000, 2_592_000, 2_000_000_000][number / 4 % 4];
        set_binary(&mut client, key, &(flags, exptime, values[number % 5]));
    }
    set_binary(&mut client, b"megabyte", &(3, 0, &megabyte));
    keys.len() + 1
}

const LARGE: &[&str] = &["-I", "2m", "-m", "128"];

/// dump → load → dump, and copy, from one program to another.
fn round_trip(from: Program, to: Program) {
    let (Some((source, a)), Some((_target, b)), Some((_other, c))) =
        (start(from, LARGE), start(to, LARGE), start(to, LARGE))
    else {
        return;
    };
    let count = fill(&source);
    let first = dump(&a, &[]);
    let items = parse(&first);
    assert_eq!(items.len(), count);
    let file = TemporaryFile::new("");
    std::fs::write(file.path(), &first).expect("a file of ours");
    let said = figures(&["load", file.path(), "--server", &b]);
    assert_eq!((&said["stored"], &said["already_there"]), (&count.into(), &0.into()), "{said}");
    assert_same(&items, &dumped(&b));
    // Items without a deadline come back as the same bytes.
    let lasting = |items: &BTreeMap<Vec<u8>, Item>| {
        items.iter().filter(|(_, item)| item.1 == 0).map(|(key, item)| (key.clone(), item.clone())).collect::<Vec<_>>()
    };
    assert!(lasting(&items) == lasting(&dumped(&b)));
    let said = figures(&["load", file.path(), "--server", &b]);
    assert_eq!((&said["stored"], &said["already_there"]), (&0.into(), &count.into()), "{said}");
    let said = figures(&["copy", &a, &c]);
    assert_eq!((&said["copied"], &said["gone"]), (&count.into(), &0.into()), "{said}");
    assert_same(&items, &dumped(&c));
}

#[test]
fn items_come_through_from_corecached_to_itself() {
    round_trip(Program::Corecached, Program::Corecached);
}

#[test]
fn items_come_through_from_corecached_to_memcached() {
    round_trip(Program::Corecached, Program::Memcached);
}

#[test]
fn items_come_through_from_memcached_to_corecached() {
    round_trip(Program::Memcached, Program::Corecached);
}

#[test]
fn items_come_through_from_corecached_to_memcached_1_6_45() {
    round_trip(Program::Corecached, Program::Newest);
}

#[test]
fn items_come_through_from_memcached_1_6_45_to_corecached() {
    round_trip(Program::Newest, Program::Corecached);
}

/// A key that no request of the text protocol can name is told, and the others come through.
pub(super) fn unnameable(program: Program) {
    let Some((server, a)) = start(program, &[]) else { return };
    let mut client = server.client();
    set_binary(&mut client, &[b' '; 187], &(0, 0, b"v"));
    set_binary(&mut client, b"other", &(0, 0, b"v"));
    let (code, said, complained) = call(&["dump", "--server", &a]);
    assert_eq!((code, said.as_str()), (Some(1), "add other 0 0 1\r\nv\r\n"), "{complained}");
    assert!(complained.contains("left out: 1 with a key of more than 186 bytes"), "{complained}");
}

/// Either reads the other's files: the same text, which a server takes as it is.
pub(super) fn memcached_tool(program: Program) {
    let Some(script) = peers::program("memcached-tool") else { return };
    let (Some((source, a)), Some((target, b)), Some((_other, c))) =
        (start(program, &[]), start(program, &[]), start(program, &[]))
    else {
        return;
    };
    let mut client = source.client();
    for number in 0..300 {
        let exptime = [0, 5000][number % 2];
        client.send(format!("set key:{number} {number} {exptime} 6\r\nv\r\n{:03}\r\n", number));
        client.expect("STORED\r\n");
    }
    let Output { status, stdout, .. } = Command::new(script).args([&a, "dump"]).output().expect("it runs");
    assert!(status.success());
    let theirs = parse(&stdout);
    assert_eq!(theirs.len(), 300);
    let ours = dump(&a, &[]);
    assert_same(&theirs, &parse(&ours));
    // We read theirs.
    let file = TemporaryFile::new("");
    std::fs::write(file.path(), &stdout).expect("a file of ours");
    assert_eq!(figures(&["load", file.path(), "--server", &b])["stored"], 300);
    assert_same(&theirs, &dumped(&b));
    // Theirs is sent to servers as it is. So is ours.
    let mut client = target.client();
    client.send("flush_all\r\n");
    client.expect("OK\r\n");
    client.send("ms YSBi 0 b F7 T0 ME\r\n\r\n");
    client.expect("HD\r\n");
    client.send(&ours);
    client.expect("STORED\r\n".repeat(300));
    let said = figures(&["copy", &b, &c]);
    assert_eq!(said["copied"], 301, "{said}");
}

/// Clients write to the target all the time, and never see an older value again.
#[test]
fn a_target_that_is_written_meanwhile_keeps_the_newer_value() {
    const KEYS: usize = 20_000;
    let (source, target) = (Server::corecached_tcp(&["-t", "2"]), Server::corecached_tcp(&["-t", "2"]));
    let mut client = source.client();
    let sets: String = (0..KEYS).map(|key| format!("set key{key} 0 0 3 noreply\r\nold\r\n")).collect();
    client.send(sets + "mn\r\n");
    client.expect("MN\r\n");
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut written = BTreeMap::new();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut client, mut written, mut key) = (target.client(), BTreeMap::new(), 1);
            while !done.load(Ordering::Relaxed) {
                let round = rounds.fetch_add(1, Ordering::Relaxed);
                for _ in 0..50 {
                    key = key * 7919 % 20_011 % KEYS;
                    let value = format!("new{round}");
                    client.send(format!("set key{key} 0 0 {}\r\n{value}\r\nget key{key}\r\n", value.len()));
                    let length = value.len();
                    client.expect(format!("STORED\r\nVALUE key{key} 0 {length}\r\n{value}\r\nEND\r\n"));
                    written.insert(key, value);
                }
                key += 1;
            }
            written
        });
        wait_until("the writer has begun", || rounds.load(Ordering::Relaxed) > 1);
        let (a, b) = (source.tcp().to_string(), target.tcp().to_string());
        let said = figures(&["copy", &a, &b]);
        let together = ["copied", "already_there"].map(|name| said[name].as_u64().expect("a number"));
        assert!(together[0] > 0 && together[1] > 0 && together.iter().sum::<u64>() == KEYS as u64, "{said}");
        done.store(true, Ordering::Relaxed);
        written = writer.join().expect("the writer saw no older value");
    });
    let items = dumped(&target.tcp().to_string());
    assert_eq!(items.len(), KEYS);
    for (key, (_, _, value)) in items {
        let key: usize = String::from_utf8_lossy(&key)[3..].parse().expect("a number");
        assert_eq!(String::from_utf8_lossy(&value), written.get(&key).map_or("old", String::as_str), "key{key}");
    }
}

/// A server drops the item of a key when it refuses a larger one, so it must not get one.
pub(super) fn too_large(program: Program) {
    let Some((source, a)) = start(Program::Corecached, LARGE) else { return };
    let Some((target, b)) = start(program, &[]) else { return };
    let (mut from, mut to) = (source.client(), target.client());
    let sizes = [900_000, 1_048_400, 1_048_500, 1_048_560, 1_048_576, 1_500_000];
    for size in sizes {
        set(&mut from, &format!("taken{size}"), &"x".repeat(size));
        set(&mut from, &format!("free{size}"), &"x".repeat(size));
        set(&mut to, &format!("taken{size}"), "newer");
    }
    let (code, said, complained) = call(&["copy", &a, &b, "--json", "--rate", "0"]);
    let said = json(&said);
    assert_eq!((code, &said["already_there"]), (Some(1), &4.into()), "{said} {complained}");
    let together = ["copied", "already_there", "too_large"].map(|name| said[name].as_u64().expect("a number"));
    assert!(together[0] >= 2 && together.iter().sum::<u64>() == 12, "{said}");
    assert!(complained.contains(" too large"), "{complained}");
    for size in sizes {
        assert_eq!(to.ask(&format!("mg taken{size} v")), "VA 5");
        to.expect("newer\r\n");
    }
}

/// A fetch of a stale item tells one client to renew it. That client must not be us.
pub(super) fn stale(program: Program) {
    let (Some((source, a)), Some((target, b))) = (start(program, &[]), start(program, &[])) else { return };
    let mut client = source.client();
    for key in ["stale", "renewing", "fresh"] {
        set(&mut client, key, "v");
    }
    for key in ["stale", "renewing"] {
        assert_eq!(client.ask(&format!("md {key} I")), "HD");
    }
    assert_eq!(client.ask("mg renewing"), "HD X W");
    client.send("mg unfilled N60 v\r\n");
    client.expect("VA 0 W\r\n\r\n");
    let said = figures(&["copy", &a, &b]);
    assert_eq!((&said["copied"], &said["stale"], &said["unfilled"]), (&1.into(), &2.into(), &1.into()), "{said}");
    assert_eq!(dumped(&b).into_keys().collect::<Vec<_>>(), [b"fresh"]);
    let mut client = source.client();
    // The next client is told, and only that one. Who was told before the copy is still the only one.
    assert_eq!([client.ask("mg stale"), client.ask("mg renewing")], ["HD X W", "HD Z X"]);
    assert_eq!(client.ask("mg stale"), "HD Z X");
    // Nothing counts as fetched.
    client.send("lru_crawler metadump all\r\n");
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| line != "END\r\n") {
        lines.push(String::from_utf8(client.line().expect("a line")).expect("text"));
    }
    let fresh = lines.iter().find(|line| line.starts_with("key=fresh ")).expect("it is there");
    assert!(fresh.contains(" fetch=no "), "{fresh}");
    drop(target);
}

/// A connection to a server by way of this thread, which ends after so many bytes from the client.
fn cutting(server: SocketAddr, bytes: usize) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it has one").to_string();
    thread::spawn(move || {
        let (client, _) = listener.accept().expect("the tool connects");
        let server = TcpStream::connect(server).expect("it listens");
        let (mut to_client, mut from_server) =
            (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        let back = thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
        let _ = std::io::copy(&mut client.try_clone().expect("a socket").take(bytes as u64), &mut &server);
        // The server answers what has come, and the client gets that.
        let _ = server.shutdown(std::net::Shutdown::Write);
        let _ = back.join();
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
    address
}

/// The number behind `--skip` in a message.
fn skip(complained: &str) -> String {
    let skip = complained.split("go on with --skip ").nth(1).unwrap_or_else(|| panic!("no --skip: {complained}"));
    skip.split_whitespace().next().expect("a number").to_owned()
}

#[test]
fn a_load_goes_on_after_its_connection_broke() {
    const ITEMS: usize = 3000;
    let server = Server::corecached_tcp(&["-t", "2"]);
    let text: String = (0..ITEMS).map(|item| format!("add key{item} 0 0 3\r\nabc\r\n")).collect();
    let file = TemporaryFile::new(&text);
    let (code, _, complained) =
        call(&["load", file.path(), "--server", &cutting(server.tcp(), text.len() / 2), "--rate", "0"]);
    assert_eq!(code, Some(1), "{complained}");
    assert!(complained.contains("the server closed the connection"), "{complained}");
    let done = skip(&complained);
    let skipped: usize = done.parse().expect("a number");
    let stored = server.client().stat("curr_items") as usize;
    assert!(0 < skipped && skipped <= stored && stored < ITEMS, "{skipped} of {stored}");
    let said = figures(&["load", file.path(), "--server", &server.tcp().to_string(), "--skip", &done]);
    assert_eq!(said["stored"], ITEMS - stored, "{said}");
    assert_eq!(said["already_there"], stored - skipped, "{said}");
    assert_eq!(dumped(&server.tcp().to_string()).len(), ITEMS);
}

#[test]
fn a_signal_ends_a_load_between_batches() {
    const ITEMS: usize = 100_000;
    let server = Server::corecached_tcp(&["-t", "2"]);
    let address = server.tcp().to_string();
    let text: String = (0..ITEMS).map(|item| format!("add key{item} 0 0 3\r\nabc\r\n")).collect();
    let file = TemporaryFile::new(&text);
    let child = tool(&["load", file.path(), "--server", &address, "--rate", "1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test runs");
    let mut client = server.client();
    wait_until("some items are stored", || client.stat("curr_items") > 100);
    let signal = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    assert!(signal.expect("kill(1) exists").success());
    let Output { status, stderr, .. } = child.wait_with_output().expect("the child is ours");
    let complained = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{complained}");
    let done = skip(&complained);
    assert_eq!(client.stat("curr_items").to_string(), done, "{complained}");
    let said = figures(&["load", file.path(), "--server", &address, "--skip", &done]);
    assert_eq!(
        (&said["stored"], &said["already_there"]),
        (&(ITEMS - done.parse::<usize>().expect("a number")).into(), &0.into())
    );
}

#[test]
fn a_wrong_file_is_told_after_the_items_before_the_mistake() {
    let server = Server::corecached_tcp(&["-t", "1"]);
    let address = server.tcp().to_string();
    let file = TemporaryFile::new(
        "add a 0 0 1\r\nx\r\nadd b 0 9000 1\r\ny\r\nadd old 0 1700000000 1\r\nz\r\nadd c 0 0 9\r\nz",
    );
    let (code, said, complained) = call(&["load", file.path(), "--server", &address]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(complained.contains("stored 2 items of 4 ") && complained.contains("left out: 1 expired"), "{complained}");
    assert!(complained.contains("item 4, at byte 62: the file ends in the middle of it"), "{complained}");
    assert_eq!(server.client().stat("curr_items"), 2);
    assert_eq!(call(&["load", "/no/such/file", "--server", &address]).0, Some(64));
    assert_eq!(call(&["load", "/", "--server", &address]).0, Some(64));
}

#[test]
fn copy_to_three_servers_puts_keys_where_pylibmc_looks_for_them() {
    if peers::python_with(PYLIBMC.1).is_none() {
        return;
    }
    let source = Server::corecached_tcp(&["-t", "2"]);
    let targets: Vec<Server> = (0..3).map(|_| Server::corecached_tcp(&["-t", "1"])).collect();
    let mut client = source.client();
    for number in 0..2000 {
        let key = if number % 2 == 0 { format!("key-{number}") } else { format!("ключ-{number}") };
        set(&mut client, &key, &number.to_string());
    }
    let addresses: Vec<String> =
        [&source].into_iter().chain(&targets).map(|server| format!("127.0.0.1:{}", server.tcp().port())).collect();
    let words: Vec<&str> = ["copy"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    let said = figures(&words);
    assert_eq!(said["copied"], 2000, "{said}");
    for target in &targets {
        assert!(target.client().stat("curr_items") > 200);
    }
    run_script(&PYLIBMC, "pylibmc_copied.py", &[], targets, &[]);
}

#[test]
fn copy_and_load_log_in_and_each_side_has_its_own_way() {
    let (users, password) = (TemporaryFile::new("me:secret\n"), TemporaryFile::new("secret\n"));
    let closed = Server::corecached_tcp(&["-t", "1", "-Y", users.path()]);
    let open = Server::corecached_tcp(&["-t", "1"]);
    let (a, b) = (closed.tcp().to_string(), open.tcp().to_string());
    let login = ["--user", "me", "--password-file", password.path()];
    set(&mut open.client(), "key", "value");
    let (code, _, complained) = call(&["copy", &b, &a]);
    assert_eq!(code, Some(1));
    assert!(complained.contains("the server wants a login"), "{complained}");
    let said = figures(&[&["copy", &b, &a, "--from-plain"], &login[..]].concat());
    assert_eq!(said["copied"], 1, "{said}");
    // The password did not become an item of the other server.
    assert_eq!(open.client().stat("curr_items"), 1);
    let file = TemporaryFile::new("");
    figures(&[&["dump", "--server", &a, "-o", file.path()], &login[..]].concat());
    assert_eq!(std::fs::read_to_string(file.path()).expect("a file"), "add key 0 0 5\r\nvalue\r\n");
    assert_eq!(figures(&[&["load", file.path(), "--server", &a], &login[..]].concat())["already_there"], 1);
    set(&mut open.client(), "other", "value");
    let back = ["--from-user", "me", "--from-password-file", password.path()];
    assert_eq!(figures(&[&["copy", &a, &b], &back[..]].concat())["already_there"], 1);
    for words in [&["copy", &a, &a][..], &["copy", &a, &b, &b], &["copy", &a], &["load"], &["dump", "--json"]] {
        let (code, said, _) = call(words);
        assert_eq!((code, said.as_str()), (Some(64), ""), "{words:?}");
    }
}

/// The line of `--users` for a user whose password is "secret".
fn user(name: &str, words: &str) -> String {
    let mut command = tool(&["password", name]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(b"secret\n").expect("it reads");
    let Output { stdout, .. } = child.wait_with_output().expect("the child is ours");
    let line = String::from_utf8(stdout).expect("text");
    assert!(line.contains("read write"), "{line}");
    line.replace("read write", words)
}

#[test]
fn users_need_rights_and_a_large_item_harms_nothing_where_they_are_few() {
    let lines = user("reads", "read admin") + &user("writes", "read write") + &user("only", "write");
    let (users, password) = (TemporaryFile::new(&lines), TemporaryFile::new("secret\n"));
    let closed = Server::corecached_tcp(&["-t", "1", "--users", users.path()]);
    let address = closed.tcp().to_string();
    let file = TemporaryFile::new(&format!(
        "add small 0 0 1\r\nx\r\nadd large 0 0 1100000\r\n{}\r\nadd free 0 0 2000\r\n{}\r\n",
        "x".repeat(1_100_000),
        "x".repeat(2000)
    ));
    let run = |command: &[&str], name: &str| {
        call(&[command, &["--server", &address, "--user", name, "--password-file", password.path()]].concat())
    };
    // The larger item of the file must not drop the newer one of the server, also if the user does not learn its limit.
    let mut client = closed.client();
    assert_eq!(client.ask("set auth 0 0 13\r\nwrites secret"), "STORED");
    set(&mut client, "large", "newer");
    let (code, _, complained) = run(&["load", file.path()], "writes");
    assert_eq!(code, Some(1), "{complained}");
    assert!(complained.contains("stored 2 items") && complained.contains("1 too large"), "{complained}");
    let (code, _, complained) = run(&["load", file.path()], "only");
    assert_eq!(code, Some(1));
    assert!(complained.contains("the user may not look whether a key is there"), "{complained}");
    assert_eq!(client.ask("mg large v"), "VA 5");
    client.expect("newer\r\n");
    let (code, said, complained) = run(&["dump"], "reads");
    assert_eq!(code, Some(0), "{complained}");
    assert_eq!(parse(said.as_bytes()).len(), 3);
    let (code, _, complained) = run(&["dump"], "writes");
    assert_eq!(code, Some(1));
    assert!(complained.contains("needs the right admin"), "{complained}");
}

#[test]
fn prefixes_and_limits_choose_items() {
    let server = Server::corecached(&["-t", "2"]);
    let address = server.socket().to_str().expect("a plain name").to_owned();
    let mut client = server.client();
    for number in 0..200 {
        set(&mut client, &format!("user:{number:03}"), "0123456789");
        set(&mut client, &format!("page:{number:03}"), "0123456789");
    }
    let users = parse(&dump(&address, &["--prefix", "user:"]));
    assert!(users.len() == 200 && users.keys().all(|key| key.starts_with(b"user:")));
    // A key and its value have 18 bytes.
    assert_eq!(parse(&dump(&address, &["--limit", "200"])).len(), 11);
    assert_eq!(parse(&dump(&address, &["--limit", "1K", "--by-access"])).len(), 56);
    // A file is replaced when the new one is there.
    let file = TemporaryFile::new("old");
    let (code, _, complained) = call(&["dump", "--server", &nowhere(), "-o", file.path()]);
    assert_eq!(code, Some(1));
    assert!(complained.contains("connection refused"), "{complained}");
    assert_eq!(std::fs::read_to_string(file.path()).expect("a file"), "old");
    assert_eq!(figures(&["dump", "--server", &address, "-o", file.path()])["dumped"], 400);
    assert_eq!(parse(&std::fs::read(file.path()).expect("a file")).len(), 400);
    assert!(!std::path::Path::new(&format!("{}.new", file.path())).exists());
}

#[test]
fn a_dump_that_nobody_reads_ends_quietly() {
    let server = Server::corecached_tcp(&["-t", "1"]);
    let mut client = server.client();
    for number in 0..100 {
        set(&mut client, &format!("key{number}"), &"x".repeat(50_000));
    }
    let mut child = tool(&["dump", "--server", &server.tcp().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test runs");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    out.read_line(&mut String::new()).expect("a line");
    drop(out);
    let Output { status, stderr, .. } = child.wait_with_output().expect("the child is ours");
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
}

#[test]
fn the_hottest_keys_come_first() {
    let ages = [5, 3, 9, 1, 7, 9, 2];
    let list = ages.iter().enumerate().map(|(key, &age)| Listed::new(&format!("key{key}"), 1_000_000 - age));
    let fake = Fake::serving(list.collect(), "");
    let order: Vec<String> = String::from_utf8(dump(&fake.address, &["--by-access"]))
        .expect("text")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("add ")?.split(' ').next()?.to_owned()))
        .collect();
    let ages_in_order: Vec<u32> = order.iter().map(|key| ages[key[3..].parse::<usize>().expect("a number")]).collect();
    assert_eq!(ages_in_order, [1, 2, 3, 5, 7, 9, 9]);
}

#[test]
fn a_server_that_talks_nonsense_is_told_clearly() {
    let keys = || (0..3).map(|key| Listed::new(&format!("key{key}"), 1)).collect::<Vec<_>>();
    for (fetch, complaint) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "to \"mg\" it says \"HTTP/1.1 400 Bad Request\""),
        ("VA 5 f0 t-1 c1 O0\r\nabcdefgh\r\nMN\r\n", "a value that is longer than it says"),
        ("VA 5 f0 t-1 c1 O0\r\nab", "the server closed the connection"),
        ("VA 1 f0 t-1 c1 O9\r\na\r\nMN\r\n", "it answers what was not asked"),
        ("VA 1 f0 t-1 c1 O1\r\na\r\nVA 1 f0 t-1 c1 O0\r\na\r\n", "it answers what was not asked"),
        ("VA 4000000000 f0 t-1 c1 O0\r\n", "to \"mg\" it says \"VA 4000000000"),
        ("ERROR\r\n", "it knows no meta commands"),
        ("CLIENT_ERROR access denied\r\n", "the user may not read these keys"),
        ("\u{1b}[2J\r\n", "to \"mg\" it says \"\u{fffd}[2J\""),
    ] {
        let fake = Fake::serving(keys(), fetch);
        let (code, said, complained) = call(&["dump", "--server", &fake.address, "--timeout", "20"]);
        assert_eq!(code, Some(1), "{fetch}: {said}");
        assert!(complained.contains(complaint) && !complained.contains('\u{1b}'), "{fetch}: {complained}");
    }
    for (list, complaint) in [
        ("ERROR\r\n", "it does not list its keys"),
        ("ERROR metadump not allowed\r\n", "it lists no keys (-X)"),
        ("OK\r\nkey=%zz la=1 size=1\r\n", "to \"lru_crawler metadump\" it says"),
        ("OK\r\nkey=a exp=-1 la=1 cas=1 fetch=no cls=1 size=70\r\n", "the server closed the connection"),
    ] {
        let fake = Fake::listing(list);
        let (code, said, complained) = call(&["dump", "--server", &fake.address]);
        assert_eq!(code, Some(1), "{list}: {said}");
        assert!(complained.contains(complaint), "{list}: {complained}");
    }
    // One that stores nonsense.
    for (reply, complaint) in [
        ("HD\r\n", "to \"ms\" it says \"HD\""),
        ("NS\r\nNS\r\nNS\r\n", "it answers what was not asked"),
        ("CLIENT_ERROR access denied\r\nMN\r\n", "the user may not write these keys"),
        ("NS", "the server closed the connection"),
    ] {
        let fake = Fake::storing(reply);
        let file = TemporaryFile::new("add a 0 0 1\r\nx\r\n");
        let (code, _, complained) = call(&["load", file.path(), "--server", &fake.address]);
        assert_eq!(code, Some(1), "{reply}: {complained}");
        assert!(complained.contains(complaint) && complained.contains("--skip 0"), "{reply}: {complained}");
    }
}

/// At least so many seconds: the rate is a bound, however busy the machine is.
#[test]
fn a_rate_bounds_what_a_server_is_asked() {
    let server = Server::corecached_tcp(&["-t", "1"]);
    let mut client = server.client();
    for number in 0..300 {
        set(&mut client, &format!("key{number}"), "v");
    }
    let file = TemporaryFile::new("");
    let address = server.tcp().to_string();
    let (code, said, _) = call(&["dump", "--server", &address, "--rate", "400/s", "-o", file.path(), "--json"]);
    let (code_of_load, loaded, _) = call(&["load", file.path(), "--server", &address, "--rate", "400", "--json"]);
    assert_eq!((code, code_of_load), (Some(0), Some(0)));
    for said in [json(&said), json(&loaded)] {
        let seconds = said["seconds"].as_f64().expect("a number");
        // Two batches of a twentieth of a second go for free: the first one, and the end of the last one.
        assert!(seconds > 300.0 / 400.0 - 0.11, "{said}");
    }
}

#[test]
fn a_pool_is_dumped_server_by_server() {
    let servers = [Server::corecached_tcp(&["-t", "1"]), Server::corecached_tcp(&["-t", "1"])];
    for (number, server) in servers.iter().enumerate() {
        set(&mut server.client(), &format!("key{number}"), "v");
    }
    let both = servers.each_ref().map(|server| server.tcp().to_string()).join(",");
    assert_eq!(dumped(&both).len(), 2);
    let mut command = tool(&["load", "-", "--server", &both, "--json"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(b"add a 0 0 1\r\nx\r\nadd b 0 0 1\r\nx\r\n").expect("it reads");
    let Output { status, stdout, .. } = child.wait_with_output().expect("the child is ours");
    assert!(status.success());
    assert_eq!(json(&String::from_utf8_lossy(&stdout))["stored"], 2);
    let (code, ..) = output(tool(&["dump", "--server", &format!("{},{both}", nowhere())]));
    assert_eq!(code, Some(1));
}
