//! `--take-over`: a new server gets the sockets of a running one, which then ends.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use corecached::process::takeover::name;
use socket2::{Domain, SockAddr, Socket, Type};

use super::reconnecting::{restarts, under_load};
use crate::client::Client;
use crate::peers;
use crate::server::{Address, CORECACHED, free_ports, is_root, new_folder};
use crate::waiting::wait_until;

/// Servers that follow each other on one port, and their folder.
struct Line {
    folder: PathBuf,
    port: u16,
    servers: Vec<Child>,
    started: usize,
}

impl Line {
    fn new() -> Line {
        Line { folder: new_folder(), port: free_ports(1)[0], servers: Vec::new(), started: 0 }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn address(&self) -> Address {
        Address::Tcp((Ipv4Addr::LOCALHOST, self.port).into())
    }

    fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    fn spawn(&mut self, flags: &str) -> Child {
        self.started += 1;
        let printed = fs::File::create(self.path(&format!("printed{}", self.started))).expect("a file of ours");
        let mut command = Command::new(CORECACHED);
        command.args(["-u", "root", "-v", "--take-over", "-l"]).arg(format!("127.0.0.1:{}", self.port));
        command.args(flags.split_whitespace()).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(printed).spawn().expect("it is there")
    }

    /// What the server that was started last has printed, or one before.
    fn printed(&self, before: usize) -> String {
        fs::read_to_string(self.path(&format!("printed{}", self.started - before))).unwrap_or_default()
    }

    /// Starts the first server.
    fn start(&mut self, flags: &str) {
        let server = self.spawn(flags);
        self.servers.push(server);
        // It prints this line once all its addresses are bound.
        wait_until("it serves", || self.printed(0).contains(" shards, "));
        assert!(self.printed(0).contains("there is no server to take over from"), "{}", self.printed(0));
    }

    /// Starts the next server, and waits until the last one has ended.
    fn next(&mut self, flags: &str) {
        let server = self.spawn(flags);
        self.servers.push(server);
        let mut old = self.servers.remove(0);
        let mut status = None;
        wait_until("the old server has ended", || {
            status = old.try_wait().expect("a child of ours");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}\n{}", self.printed(1), self.printed(0));
    }

    fn end(&mut self) {
        let mut server = self.servers.remove(0);
        let killed = Command::new("kill").arg(server.id().to_string()).status();
        assert!(killed.expect("kill(1) exists").success());
        assert!(server.wait().expect("a child of ours").success(), "{}", self.printed(0));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // Both calls fail only if it has ended already.
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn no_connection_is_refused_while_servers_take_over() {
    let mut line = Line::new();
    let udp = free_ports(1)[0];
    let flags = |at: usize| format!("-t {} -U {udp} --metrics 127.0.0.1:0", 1 + at % 3);
    line.start(&flags(0));
    let address = line.address();
    let seen = under_load(&address, |seen| {
        for restart in 0..restarts() {
            seen.wait_for_more();
            line.next(&flags(restart + 1));
        }
        seen.wait_for_more();
    });
    seen.assert_no_gap("take-over", restarts());
    line.end();
    assert!(Client::try_connect(&address).is_err(), "nobody is left");
}

#[test]
fn a_server_that_fails_to_start_leaves_the_running_one_alone() {
    let mut line = Line::new();
    line.start("-t 2 -P pid");
    let mut client = line.client();
    assert_eq!(client.ask("set a 0 0 1\r\nx"), "STORED");
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let taken = taken.local_addr().expect("it is bound");
    for flags in [
        "-Z -o ssl_chain_cert=/nonexistent,ssl_key=/nonexistent".to_owned(),
        "--users /nonexistent".to_owned(),
        "-t 0".to_owned(),
        "-Y /nonexistent".to_owned(),
        format!("--metrics {taken}"),
    ] {
        let status = line.spawn(&flags).wait().expect("a child of ours");
        assert!(!status.success(), "{flags}: {}", line.printed(0));
        // The same connection, and new ones.
        assert_eq!(client.ask("mg a"), "HD", "{flags}");
        assert_eq!(line.client().ask("mg a"), "HD", "{flags}");
        assert_eq!(fs::read_to_string(line.path("pid")).ok(), Some(format!("{}\n", line.servers[0].id())), "{flags}");
    }
    line.next("-t 1");
    client.expect_closed();
    assert_eq!(line.client().ask("mg a v"), "EN");
    line.end();
}

#[test]
fn of_two_new_servers_one_remains() {
    let mut line = Line::new();
    line.start("-t 2");
    let address = line.address();
    let seen = under_load(&address, |seen| {
        for _ in 0..3 {
            let two = [line.spawn("-t 1"), line.spawn("-t 2")];
            line.servers.extend(two);
            wait_until("one is left", || {
                line.servers.retain_mut(|server| match server.try_wait().expect("a child of ours") {
                    None => true,
                    Some(status) => {
                        assert!(status.success(), "{status}");
                        false
                    }
                });
                line.servers.len() == 1
            });
            seen.wait_for_more();
        }
    });
    seen.assert_no_gap("two at once", 6);
    line.end();
}

#[test]
fn its_files_are_those_of_the_new_server() {
    let mut line = Line::new();
    let (socket, other) = (line.path("socket"), line.path("other"));
    let flags = format!("-P pid --metrics unix:{socket}");
    line.start(&flags);
    for _ in 0..2 {
        line.next(&flags);
        assert_eq!(fs::read_to_string(line.path("pid")).ok(), Some(format!("{}\n", line.servers[0].id())));
        std::os::unix::net::UnixStream::connect(&socket).expect("the observer listens at the same file");
        assert!(!line.printed(0).contains("running) pid"), "{}", line.printed(0));
    }
    // A Unix socket and a pid file that are wanted no more, and others that are new.
    line.next(&format!("-P new --metrics unix:{other}"));
    assert!(!fs::exists(line.path("pid")).expect("a folder of ours"));
    std::os::unix::net::UnixStream::connect(&other).expect("the observer listens");
    line.end();
    for name in ["new", "other", "pid"] {
        assert!(!fs::exists(line.path(name)).expect("a folder of ours"), "{name}");
    }
}

#[test]
fn an_image_goes_from_server_to_server() {
    let mut line = Line::new();
    let image = line.path("image");
    line.start(&format!("-t 2 -e {image}"));
    let mut client = line.client();
    for number in 0..1000 {
        assert_eq!(client.ask(&format!("set key{number} 0 0 4\r\n{number:04}")), "STORED");
    }
    // The file may be named in another way.
    for flags in ["-t 1 -e image".to_owned(), format!("-t 3 -m 80 -e {image}")] {
        line.next(&flags);
        let mut client = line.client();
        for number in 0..1000 {
            assert_eq!(client.ask(&format!("mg key{number} v")), "VA 4");
            client.expect(format!("{number:04}\r\n"));
        }
    }
    // A server without the file starts cold, and no image is left behind that a later one could load.
    line.next("-t 1");
    assert!(line.printed(1).contains("the next server has another file of -e"), "{}", line.printed(1));
    assert_eq!(line.client().ask("mg key1 v"), "EN");
    assert!(!fs::exists(&image).expect("a folder of ours"));
    line.next(&format!("-t 1 -e {image}"));
    assert_eq!(line.client().ask("mg key1 v"), "EN");
    line.end();
}

#[test]
fn addresses_may_come_and_go() {
    let mut line = Line::new();
    let [one, two] = free_ports(2)[..] else { panic!("two ports") };
    line.start(&format!("-l 127.0.0.1:{one}"));
    let at = |port| Address::Tcp((Ipv4Addr::LOCALHOST, port).into());
    let mut early = Client::connect(&at(one));
    line.next(&format!("-l 127.0.0.1:{two}"));
    early.expect_closed();
    assert_eq!(Client::connect(&at(two)).ask("mn"), "MN");
    assert!(Client::try_connect(&at(one)).is_err(), "nobody wants it");
    // One address in common is enough to find each other: here that of `-l two`.
    line.port = two;
    line.next(&format!("-l 127.0.0.1:{one} -p 1"));
    assert_eq!(Client::connect(&at(one)).ask("mn"), "MN");
    assert_eq!(line.client().ask("mn"), "MN");
    line.end();
}

#[test]
fn what_was_sent_before_the_end_is_answered() {
    let mut line = Line::new();
    line.start("-t 2");
    let mut clients: Vec<Client> = (0..20).map(|_| line.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("set a 0 0 1\r\nx"), "STORED");
    }
    let new = line.spawn("-t 2");
    line.servers.push(new);
    for client in &mut clients {
        client.send("get a\r\n".repeat(500));
    }
    for client in &mut clients {
        // A connection ends between replies: after all of them, or before any.
        let replies = client.rest().expect("replies and the end");
        let one = b"VALUE a 0 1\r\nx\r\nEND\r\n";
        assert!(replies.len() % one.len() == 0 && replies.chunks(one.len()).all(|reply| reply == one), "{replies:?}");
    }
    wait_until("the old server has ended", || line.servers[0].try_wait().is_ok_and(|status| status.is_some()));
    let _ = line.servers.remove(0).wait();
    line.end();
}

#[test]
fn garbage_and_silence_at_its_socket_do_no_harm() {
    let mut line = Line::new();
    line.start("-t 1");
    let at = |line: &Line| {
        let name = name(OsStr::new(&format!("127.0.0.1:{}", line.port)));
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
        let address = SockAddr::unix(format!("\0{name}")).expect("a short name");
        socket.connect(&address).expect("it is offered");
        socket
    };
    for garbage in [&b"x"[..], b"take-over 2\n", b"ready\n", &[0; 60_000]] {
        let socket = at(&line);
        socket.send(garbage).expect("there is room");
        let mut reply = [0; 10];
        assert_eq!(std::io::Read::read(&mut &socket, &mut reply).ok(), Some(0), "it is closed");
    }
    // The next server waits behind this one for some seconds.
    let _silent = at(&line);
    assert_eq!(line.client().ask("mn"), "MN");
    line.next("-t 1");
    line.end();
}

#[test]
fn a_stranger_gets_nothing() {
    if !is_root() {
        return peers::say_skipped("only root can become somebody else");
    }
    // The stranger may not run what lies in a folder of root.
    let (setpriv, python) = ("/usr/bin/setpriv", "/usr/bin/python3");
    if ![setpriv, python].iter().all(|program| fs::exists(program).is_ok_and(|exists| exists)) {
        return peers::say_skipped("there is no setpriv, or no python3");
    }
    let mut line = Line::new();
    line.start("-t 1");
    let name = name(OsStr::new(&format!("127.0.0.1:{}", line.port)));
    let script = format!(
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('\\0{name}'); \
         s.send(b'take-over 1\\n'); print(s.recv(100))"
    );
    let stranger = Command::new(setpriv).args(["--reuid=65534", "--clear-groups", python, "-c", &script]).output();
    let stranger = stranger.expect("setpriv(1) exists");
    // It is closed before or after the stranger's request.
    let printed = String::from_utf8_lossy(&stranger.stdout).into_owned();
    assert!(printed == "b''\n" || !stranger.status.success(), "{printed}");
    wait_until("the log says so", || line.printed(0).contains("of user 65534 may not take over"));
    assert_eq!(line.client().ask("mn"), "MN");
    line.end();
}

#[test]
fn a_server_that_no_other_could_find_does_not_start() {
    let output =
        Command::new(CORECACHED).args(["-u", "root", "--take-over", "-p", "-1"]).output().expect("it is there");
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("--take-over needs an address with a port, or a Unix socket"), "{said}");
}

#[test]
fn the_memory_is_taken_over_too() {
    let mut line = Line::new();
    line.start("--keep-memory -t 2 -m 64");
    let value = "v".repeat(50_000);
    assert_eq!(line.client().ask("set a 0 0 1\r\nx"), "STORED");
    assert_eq!(line.client().ask(&format!("set b 0 100 50000\r\n{value}")), "STORED");
    for (flags, said) in [
        ("--keep-memory -t 1 -m 64", "kept 2 items"),
        ("--keep-memory -t 3 -m 80", "kept 2 items"),
        ("--keep-memory -t 2 -m 64 -f 1.05 -n 100", "the items of the last server are copied"),
        ("--keep-memory -t 2 -m 64 -f 1.05 -n 100", "kept 2 items"),
    ] {
        line.next(flags);
        let mut client = line.client();
        assert_eq!(client.ask("mg a v"), "VA 1", "{flags}");
        assert_eq!(client.line().expect("the value"), b"x\r\n");
        assert_eq!(client.ask("mg b s"), "HD s50000", "{flags}");
        assert!(line.printed(0).contains(said), "{flags}: it printed:\n{}", line.printed(0));
    }
    // A server that keeps no memory does not wait for any.
    line.next("-t 2");
    assert_eq!(line.client().ask("mg a"), "EN");
    line.end();
}
