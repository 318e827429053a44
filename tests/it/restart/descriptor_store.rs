//! Sockets in systemd's store of descriptors. The tests play systemd: they take what a server stores, and hand it to the
//! next one.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use corecached::process::rights;

use super::reconnecting::{restarts, under_load};
use crate::client::Client;
use crate::server::{Address, CORECACHED, free_ports, new_folder};
use crate::waiting::{LOOK_AGAIN, PATIENCE, wait_until};

/// A service manager, and the one service that it has.
struct Systemd {
    folder: PathBuf,
    socket: UnixDatagram,
    store: Vec<(String, OwnedFd)>,
    /// What the service has asked to be forgotten.
    forgotten: Vec<String>,
    service: Option<Child>,
}

impl Systemd {
    fn new() -> Systemd {
        let folder = new_folder();
        let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket in a folder of ours");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        Systemd { folder, socket, store: Vec::new(), forgotten: Vec::new(), service: None }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Starts the service with what is stored, as descriptors from 3, and waits until it is ready. The shell gets them as
    /// its standard streams, so there can be three.
    fn start(&mut self, flags: &str) {
        let names: Vec<&str> = self.store.iter().map(|(name, _)| &**name).collect();
        assert!(names.len() <= 3, "the test can pass three: {names:?}");
        let passed = ["", "3<&0", "3<&0 4<&1", "3<&0 4<&1 5<&2"][names.len()];
        let script = format!(
            "LISTEN_FDS={} LISTEN_FDNAMES='{}' LISTEN_PID=$$ exec \"$0\" -u root -v {flags} {passed} </dev/null >>{log} 2>&1",
            names.len(),
            names.join(":"),
            log = self.path("printed")
        );
        let mut stdio = self.store.iter().map(|(_, fd)| Stdio::from(fd.try_clone().expect("a descriptor")));
        let mut next = || stdio.next().unwrap_or_else(Stdio::null);
        let mut command = Command::new("sh");
        command.args(["-c", &script, CORECACHED]).stdin(next()).stdout(next()).stderr(next());
        command.env("NOTIFY_SOCKET", self.path("notify")).env("MEMCACHED_PORT_FILENAME", self.path("ports"));
        drop(fs::remove_file(self.path("ports")));
        self.service = Some(command.spawn().expect("there is a shell"));
        // It holds the descriptors too.
        drop(command);
        self.read_until("READY=1");
    }

    /// Obeys the messages of the service up to one that begins so.
    fn read_until(&mut self, beginning: &str) {
        loop {
            let received = rights::receive(&self.socket, 1000);
            let (message, fds) = received.unwrap_or_else(|error| panic!("{error}; it printed:\n{}", self.printed()));
            let message = String::from_utf8(message).expect("text");
            let name = message.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
            if message.starts_with("FDSTORE=1\n") {
                for fd in fds {
                    // As in systemd, the same socket is stored once.
                    if !self.store.iter().any(|(_, stored)| inode(stored) == inode(&fd)) {
                        self.store.push((name.clone(), fd));
                    }
                }
            } else if message.starts_with("FDSTOREREMOVE=1\n") {
                self.store.retain(|(stored, _)| *stored != name);
                self.forgotten.push(name);
            }
            if message.starts_with(beginning) {
                return;
            }
        }
    }

    fn stop(&mut self, signal: &str) {
        let mut service = self.service.take().expect("it runs");
        let killed = Command::new("kill").arg(format!("-{signal}")).arg(service.id().to_string()).status();
        assert!(killed.expect("kill(1) exists").success());
        if signal != "KILL" {
            self.read_until("STOPPING=1");
        }
        let status = service.wait().expect("a child of ours");
        assert!(status.success() || signal == "KILL", "{status}; it printed:\n{}", self.printed());
    }

    fn names(&self) -> Vec<&str> {
        self.store.iter().map(|(name, _)| &**name).collect()
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.path("printed")).unwrap_or_default()
    }

    /// The port in a line of the port file.
    fn port(&self, line: &str) -> u16 {
        let ports = fs::read_to_string(self.path("ports")).expect("the server has written its ports");
        let port = ports.lines().find_map(|it| it.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in {ports}"));
        port.parse().expect("a port")
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            // Both calls fail only if it has ended already.
            let _ = service.kill();
            let _ = service.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn inode(socket: &OwnedFd) -> u64 {
    let socket = fs::File::from(socket.try_clone().expect("a descriptor"));
    socket.metadata().expect("an open descriptor").ino()
}

fn tcp(port: u16) -> Address {
    Address::Tcp((Ipv4Addr::LOCALHOST, port).into())
}

#[test]
fn no_connection_is_refused_while_the_service_restarts() {
    let mut systemd = Systemd::new();
    let flags = "-t 1 -l 127.0.0.1 -p -1 -U -1 --metrics 127.0.0.1:0";
    systemd.start(flags);
    let names = ["kept-cache-127.0.0.1-any0", "kept-udp-127.0.0.1-any0", "kept-metrics-127.0.0.1-any0"];
    let mut stored = systemd.names();
    stored.sort_unstable();
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(stored, sorted);
    let ports = fs::read_to_string(systemd.path("ports")).expect("it was written");
    let seen = under_load(&tcp(systemd.port("TCP INET: ")), |seen| {
        for restart in 0..restarts() {
            seen.wait_for_more();
            systemd.stop(if restart % 5 == 4 { "KILL" } else { "TERM" });
            systemd.start(flags);
            assert_eq!(systemd.store.len(), 3, "nothing is stored twice");
            assert_eq!(fs::read_to_string(systemd.path("ports")).ok().as_ref(), Some(&ports), "all ports stay");
        }
        seen.wait_for_more();
    });
    seen.assert_no_gap("descriptor store", restarts());
    assert!(systemd.forgotten.is_empty(), "{:?}", systemd.forgotten);
    TcpStream::connect((Ipv4Addr::LOCALHOST, systemd.port("METRICS INET: "))).expect("the observer listens");
    systemd.stop("TERM");
}

#[test]
fn clients_that_connect_while_no_server_runs_are_served_by_the_next() {
    let mut systemd = Systemd::new();
    let (socket, metrics) = (systemd.path("socket"), systemd.path("metrics"));
    let flags = format!("-t 2 -s {socket} --metrics unix:{metrics}");
    systemd.start(&flags);
    systemd.stop("TERM");
    let mut early = Client::connect(&Address::Unix(socket.clone().into()));
    early.send("set a 0 0 1\r\nx\r\n");
    systemd.start(&flags);
    early.expect("STORED\r\n");
    assert_eq!(systemd.store.len(), 2);
    // A socket whose file is gone is of no use to anybody.
    systemd.stop("TERM");
    fs::remove_file(&socket).expect("the server has left it there");
    systemd.start(&flags);
    assert_eq!(Client::connect(&Address::Unix(socket.into())).ask("mn"), "MN");
    assert!(systemd.forgotten.iter().all(|name| name.starts_with("kept-cache-")), "{:?}", systemd.forgotten);
    assert_eq!((systemd.forgotten.len(), systemd.store.len()), (1, 2), "{:?}", systemd.names());
    systemd.stop("TERM");
}

#[test]
fn sockets_that_the_flags_name_no_more_are_closed_and_new_ones_are_bound() {
    let mut systemd = Systemd::new();
    let [one, two, three] = free_ports(3)[..] else { panic!("three ports") };
    let name = |port: u16| format!("kept-cache-127.0.0.1-{port}");
    for (flags, open, closed, forgotten) in [
        (format!("-t 1 -l 127.0.0.1:{one}"), &[one][..], &[two, three][..], &[][..]),
        (format!("-t 1 -l 127.0.0.1:{two},127.0.0.1:{one}"), &[one, two], &[three], &[]),
        (format!("-t 2 -l 127.0.0.1:{two} --port-per-core"), &[two], &[one], &[one]),
        // The wildcard can be bound only after all others of this port are closed, here and in the store.
        (format!("-t 1 -l 0.0.0.0:{two}"), &[two], &[one, three], &[two]),
    ] {
        systemd.forgotten.clear();
        systemd.start(&flags);
        for port in open {
            assert_eq!(Client::connect(&tcp(*port)).ask("mn"), "MN", "{flags}");
        }
        for port in closed {
            assert!(Client::try_connect(&tcp(*port)).is_err(), "{flags}: {port}");
        }
        for port in forgotten {
            assert!(systemd.forgotten.contains(&name(*port)), "{flags}: {:?}", systemd.forgotten);
        }
        systemd.stop("TERM");
    }
}

#[test]
fn other_numbers_of_workers_share_the_udp_port_that_was_kept() {
    let mut systemd = Systemd::new();
    let port = free_ports(1)[0];
    for (workers, forgets) in [(1, false), (3, false), (2, true), (1, true)] {
        systemd.forgotten.clear();
        systemd.start(&format!("-t {workers} -p 0 -U {port} -l 127.0.0.1"));
        assert_eq!(systemd.names(), vec![format!("kept-udp-127.0.0.1-{port}"); workers], "{}", systemd.printed());
        assert_eq!(!systemd.forgotten.is_empty(), forgets, "{workers}: {:?}", systemd.forgotten);
        // The kernel divides these clients among the sockets. Each must be served.
        for _ in 0..20 {
            let client = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            client.set_read_timeout(Some(LOOK_AGAIN * 100)).expect("a time above zero");
            // A datagram is lost if the kernel gives it to a socket that is being closed: a process that another test has
            // just forked may still hold one. The same client comes to the same socket again, if that stays open.
            let (mut reply, mut count) = ([0; 100], 0);
            wait_until("the client gets a reply", || {
                client.send_to(b"\0\x01\0\0\0\x01\0\0mn\r\n", (Ipv4Addr::LOCALHOST, port)).expect("it is open");
                let received = client.recv(&mut reply);
                count = *received.as_ref().unwrap_or(&0);
                received.is_ok()
            });
            assert_eq!(&reply[8..count], b"MN\r\n");
        }
        systemd.stop("TERM");
    }
}

#[test]
fn a_service_without_a_store_leaves_nothing_that_hinders_the_next() {
    let mut systemd = Systemd::new();
    let flags = format!("-t 1 -s {}", systemd.path("socket"));
    for _ in 0..2 {
        systemd.start(&flags);
        assert_eq!(Client::connect(&Address::Unix(systemd.path("socket").into())).ask("mn"), "MN");
        systemd.stop("TERM");
        systemd.store.clear();
    }
    wait_until("the log says so", || systemd.printed().matches("Exiting normally").count() == 2);
}

#[test]
fn descriptors_that_are_not_open_are_refused() {
    for count in ["1", "5", "4000000000"] {
        let script = format!("LISTEN_FDS={count} LISTEN_PID=$$ exec \"$0\" -u root -p -1 -l 127.0.0.1");
        let output = Command::new("sh").args(["-c", &script, CORECACHED]).output().expect("there is a shell");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(71), "{said}");
        assert!(said.starts_with("LISTEN_FDS: a descriptor is of no use: descriptor "), "{said}");
    }
}
