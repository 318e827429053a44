//! The command line: the effect of each flag and of each word of `-o`, in corecached and in memcached 1.6.45, as data.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::packet::{Packet, request};
use crate::peers;
use crate::server::{Address, CORECACHED, Program, Server, is_root, new_folder};

/// Lines of the form `flags -> outcome`. If the programs differ, a line has the form `flags -> memcached's outcome |
/// ours`, and the reason is above. An outcome is `serves`, with lines of `stats settings` as `name=value`, or `exits
/// CODE`, with the beginning of its first line on standard error. The test adds `-u root -p -1` before all flags,
/// unless they have a `-p` or a `-s`. SOCKET is a path in a folder of the test. `''` is an empty argument, and `·`
/// stands for a space within one.
const LINES: &str = include_str!("flags/lines.txt");

/// How long a process may take to serve or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process and its folder. Dropping it kills the process.
struct Started {
    child: Child,
    folder: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The result of a command line.
#[derive(Debug)]
enum Outcome {
    Serves(Vec<String>),
    Exits(i32, String),
}

fn path_of(program: Program) -> PathBuf {
    match program {
        Program::Corecached => CORECACHED.into(),
        Program::Memcached => "memcached".into(),
        Program::Newest => peers::newest_memcached().expect("who starts it has asked whether it is there"),
    }
}

fn start(program: Program, flags: &str) -> Outcome {
    let folder = new_folder();
    let (ports, socket, printed) = (folder.join("ports"), folder.join("socket"), folder.join("printed"));
    let mut words: Vec<String> = Vec::new();
    for word in flags.split_ascii_whitespace() {
        let word = if word == "''" { String::new() } else { word.replace('\'', "").replace('·', " ") };
        words.push(word.replace("SOCKET", &socket.display().to_string()));
    }
    let mut command = Command::new(path_of(program));
    if is_root() && !words.iter().any(|word| word.starts_with("-u") || word.starts_with("--user")) {
        command.args(["-u", "root"]);
    }
    if !words.iter().any(|word| ["-p", "-s", "--p", "--unix-s"].iter().any(|flag| word.starts_with(flag))) {
        command.args(["-p", "-1"]);
    }
    command.args(&words).env("MEMCACHED_PORT_FILENAME", &ports).current_dir(&folder);
    for name in ["MEMCACHED_SASL_PWDB", "SASL_CONF_PATH", "NOTIFY_SOCKET", "LISTEN_FDS"] {
        command.env_remove(name);
    }
    let file = fs::File::create(&printed).expect("a file in a folder of ours");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
    let mut started = Started { child, folder };
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = started.child.try_wait().expect("a child of ours") {
            let said = fs::read_to_string(&printed).unwrap_or_default();
            let first = said.lines().next().unwrap_or_default().to_owned();
            return Outcome::Exits(status.code().unwrap_or(-1), first);
        }
        // A server that is about to end may accept a connection, but it does not answer.
        let address = if socket.exists() { Some(Address::Unix(socket.clone())) } else { tcp_address(&ports) };
        if let Some(settings) = address.and_then(|address| settings(&address)) {
            return Outcome::Serves(settings);
        }
        assert!(Instant::now() < deadline, "{program:?} {flags}: it neither serves nor ends");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The first address in the port file. The server writes the file elsewhere and moves it here, so it is always
/// complete.
fn tcp_address(ports: &Path) -> Option<Address> {
    let text = fs::read_to_string(ports).ok()?;
    let (family, port) = text.lines().next()?.split_once(": ")?;
    let host = if family == "TCP INET6" { Ipv6Addr::LOCALHOST.into() } else { IpAddr::from(Ipv4Addr::LOCALHOST) };
    Some(Address::Tcp((host, port.parse().ok()?).into()))
}

fn settings(address: &Address) -> Option<Vec<String>> {
    let mut client = Client::try_connect(address).ok()?;
    client.try_send(b"stats settings\r\n").ok()?;
    let mut settings = Vec::new();
    loop {
        match String::from_utf8_lossy(&client.line().ok()?).trim_end().strip_prefix("STAT ") {
            Some(setting) => settings.push(setting.replacen(' ', "=", 1)),
            None => return Some(settings),
        }
    }
}

/// The difference between an outcome and the expected one, if they differ.
fn complaint(expected: &str, outcome: &Outcome) -> Option<String> {
    let (verb, rest) = expected.split_once(' ').unwrap_or((expected, ""));
    let as_expected = match (verb, outcome) {
        ("serves", Outcome::Serves(settings)) => {
            let missing = rest.split_ascii_whitespace().find(|wanted| !settings.iter().any(|it| it == wanted));
            match missing {
                None => return None,
                Some(wanted) => {
                    let name = wanted.split('=').next().unwrap_or_default();
                    let found = settings.iter().find(|it| it.split('=').next() == Some(name));
                    return Some(format!("expected {wanted}, found {found:?}"));
                }
            }
        }
        ("exits", Outcome::Exits(code, line)) => {
            let (wanted, begins) = rest.split_once(' ').unwrap_or((rest, ""));
            wanted.parse() == Ok(*code) && line.starts_with(begins) && (begins.is_empty() || !line.is_empty())
        }
        _ => false,
    };
    (!as_expected).then(|| format!("expected {expected}, found {outcome:?}"))
}

fn check(program: Program) {
    let mut cases = Vec::new();
    for line in LINES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (flags, outcomes) = line.split_once(" -> ").unwrap_or_else(|| panic!("no arrow in {line:?}"));
        let (theirs, ours) = outcomes.split_once(" | ").unwrap_or((outcomes, outcomes));
        let expected = if program == Program::Corecached { ours } else { theirs };
        // The test does not care what memcached does with these flags.
        if expected.trim() != "anything" {
            cases.push((flags.trim(), expected.trim()));
        }
    }
    assert!(cases.len() > 200, "{}", cases.len());
    let next = AtomicUsize::new(0);
    // The test mostly waits for processes to start.
    let complaints: Vec<String> = std::thread::scope(|scope| {
        let run = || {
            let mut complaints = Vec::new();
            while let Some((flags, expected)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                complaints.extend(complaint(expected, &start(program, flags)).map(|what| format!("{flags}: {what}")));
            }
            complaints
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the test")).collect()
    });
    assert!(complaints.is_empty(), "{program:?}:\n{}", complaints.join("\n"));
}

#[test]
fn flags_come_to_what_they_should() {
    check(Program::Corecached);
}

#[test]
fn flags_come_to_what_memcached_makes_of_them() {
    if peers::has(Program::Newest) {
        check(Program::Newest);
    }
}

/// Settings that only one of the two programs has, or that depend on the machine.
const OWN_SETTINGS: [&str; 7] = [
    "slab_chunk_max", // memcached: the size of an item with `no_modern`
    "num_threads",    // memcached: 4; here: usable CPUs
    "num_threads_per_udp",
    "hash_algorithm",
    "slab_automove_freeratio",
    "proxy_enabled",
    "proxy_uring_enabled",
];

#[test]
fn settings_are_the_same_line_by_line() {
    if !peers::has(Program::Newest) {
        return;
    }
    let is_common = |line: &String| {
        let name = line.split('=').next().unwrap_or_default();
        !OWN_SETTINGS.contains(&name) && !name.starts_with("ext_")
    };
    for flags in [
        "-l 127.0.0.1",
        "-l 127.0.0.1 -M -C -F -X -W -A -D / -R 3 -b 7 -c 200 -n 32 -f 1.1 -m 100 -I 2m -B ascii",
        "-l 127.0.0.1 -o no_modern",
        "-l 127.0.0.1 -o track_sizes,idle_timeout=7,hashpower=18,temporary_ttl=9,lru_crawler_sleep=5,hot_lru_pct=30",
        "-s SOCKET -a 770 -U 5",
        "-l tag[a]:127.0.0.1,proto[ascii]:127.0.0.1 -t 3 -N 2",
    ] {
        let [ours, theirs] = [Program::Corecached, Program::Newest].map(|program| match start(program, flags) {
            Outcome::Serves(settings) => {
                let common = settings.into_iter().filter(is_common);
                // The folder differs.
                common.filter(|line| !line.starts_with("domain_socket=/")).collect::<Vec<_>>()
            }
            Outcome::Exits(code, line) => panic!("{program:?} {flags}: {code}, {line}"),
        });
        assert_eq!(ours, theirs, "{flags}");
    }
}

fn check_protocols(program: Program) {
    // Each listener has a port of its own.
    for (flags, speaks_text, speaks_packets) in [
        (&["-l", "proto[ascii]:127.0.0.1,proto[binary]:127.0.0.1"][..], [true, false], [false, true]),
        (&["-l", "proto[negotiating]:tag[a]:127.0.0.1,127.0.0.1:0", "-B", "binary"], [true, false], [true, true]),
        (&["-l", "proto[foo]:127.0.0.1,proto[b]:tag_b_:127.0.0.1", "-B", "ascii"], [true, false], [false, true]),
    ] {
        let server = Server::on_tcp(program, flags);
        assert_eq!(server.addresses().len(), 2, "{flags:?}");
        for (at, address) in server.addresses().iter().enumerate() {
            // The client ends its input, so the server replies and closes, or only closes.
            let hears = |bytes: &[u8]| {
                let mut client = Client::connect(address);
                client.send(bytes);
                client.finish_sending();
                client
            };
            let text = hears(b"mn\r\n").rest().expect("it closes");
            assert_eq!(text == b"MN\r\n", speaks_text[at], "{program:?} {flags:?} {at}: {text:?}");
            let packet = matches!(Packet::receive(&mut hears(&request("noop"))), Ok(Ok(_)));
            assert_eq!(packet, speaks_packets[at], "{program:?} {flags:?} {at}");
        }
    }
}

#[test]
fn a_listener_speaks_what_its_prefix_says() {
    check_protocols(Program::Corecached);
}

#[test]
fn memcacheds_listener_speaks_what_its_prefix_says() {
    if peers::has(Program::Newest) {
        check_protocols(Program::Newest);
    }
}

#[test]
fn connections_without_a_queue_go_to_any_worker() {
    for program in [Program::Corecached, Program::Newest] {
        if !peers::has(program) {
            continue;
        }
        // The loopback interface has no queues.
        let server = Server::on_tcp(program, &["-t", "2", "-N", "2"]);
        let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
        for client in &mut clients {
            assert_eq!(client.ask("mn"), "MN");
        }
        assert_eq!((clients[0].stat("round_robin_fallback"), clients[0].stat("unexpected_napi_ids")), (4, 0));
        clients[0].send("stats reset\r\n");
        clients[0].expect("RESET\r\n");
        assert_eq!(clients[0].stat("round_robin_fallback"), 0, "{program:?}");
    }
}
