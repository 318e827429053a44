//! A server process of a test. Its constructor gives it flags and returns when the server is ready. Dropping it kills
//! it.
//!
//! Each server has its own folder with its socket, its port file and its output. Dropping the server removes the
//! folder. A server that fails to start fails its test, and the message shows its output.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::client::Client;
use crate::peers;
use crate::waiting::{LOOK_AGAIN, PATIENCE};

/// The program under test, as Cargo built it.
pub(crate) const CORECACHED: &str = env!("CARGO_BIN_EXE_corecached");

/// The program that a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Corecached,
    /// The memcached of Debian 12, 1.6.18.
    Memcached,
    /// memcached 1.6.45. corecached follows its rules.
    Newest,
}

/// Makes a test for each program: `name: run;` calls `run` with each of them.
macro_rules! on_every_server {
    ($($name:ident: $run:expr;)*) => {
        $(mod $name {
            use super::*;

            const RUN: fn($crate::server::Program) = $run;

            #[test]
            fn on_corecached() {
                RUN($crate::server::Program::Corecached);
            }

            #[test]
            fn on_memcached() {
                RUN($crate::server::Program::Memcached);
            }

            #[test]
            fn on_memcached_1_6_45() {
                RUN($crate::server::Program::Newest);
            }
        })*
    };
}
pub(crate) use on_every_server;

/// An address that a server listens on.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// A running server and its folder.
#[derive(Debug)]
pub(crate) struct Server {
    program: Program,
    /// The flags that the test gave, without the address.
    flags: Vec<String>,
    child: Child,
    folder: PathBuf,
    /// Every address that the server listens on. `client` connects to the first one.
    addresses: Vec<Address>,
}

impl Server {
    /// corecached on a Unix socket.
    pub(crate) fn corecached(flags: &[&str]) -> Server {
        Server::on_unix_socket(Program::Corecached, flags)
    }

    /// corecached on a Unix socket, with these environment variables.
    pub(crate) fn corecached_with(environment: &[(&str, &str)], flags: &[&str]) -> Server {
        Server::on_unix_socket_with(Program::Corecached, environment, flags)
    }

    /// corecached on a Unix socket, with the same memory addresses in each run.
    pub(crate) fn corecached_at_fixed_addresses(flags: &[&str]) -> Server {
        let folder = new_folder();
        let mut command = silenced(Command::new("setarch"), &folder);
        command.args(["-R", CORECACHED]);
        Server::on_unix_socket_by(Program::Corecached, command, folder, &[], flags)
    }

    /// corecached on a Unix socket, with these environment variables. It gets a descriptor under this name, as from systemd.
    pub(crate) fn corecached_with_descriptor(
        descriptor: OwnedFd,
        name: &str,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Server {
        let folder = new_folder();
        let mut command = silenced(Command::new("sh"), &folder);
        // The shell gets it as its standard input, and the server as descriptor 3.
        let script = format!("LISTEN_FDS=1 LISTEN_FDNAMES={name} LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null");
        command.args(["-c", &script, CORECACHED]).stdin(descriptor);
        Server::on_unix_socket_by(Program::Corecached, command, folder, environment, flags)
    }

    /// corecached on a free TCP port of the loopback.
    pub(crate) fn corecached_tcp(flags: &[&str]) -> Server {
        Server::on_tcp(Program::Corecached, flags)
    }

    /// corecached on a free TCP port of the loopback, with these environment variables.
    pub(crate) fn corecached_tcp_with(environment: &[(&str, &str)], flags: &[&str]) -> Server {
        Server::on_tcp_port(Program::Corecached, "-1", environment, flags)
    }

    /// `program` on a Unix socket in the server's folder. A file is already at the path of the socket, as after a
    /// crash: the program must replace it.
    pub(crate) fn on_unix_socket(program: Program, flags: &[&str]) -> Server {
        Server::on_unix_socket_with(program, &[], flags)
    }

    fn on_unix_socket_with(program: Program, environment: &[(&str, &str)], flags: &[&str]) -> Server {
        let folder = new_folder();
        let command = command(program, &folder);
        Server::on_unix_socket_by(program, command, folder, environment, flags)
    }

    fn on_unix_socket_by(
        program: Program,
        mut command: Command,
        folder: PathBuf,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Server {
        let socket = folder.join("socket");
        // No client can connect to a socket of this kind. Another test may fork at this moment, and then its child
        // holds a copy of this socket until it executes its program.
        drop(UnixDatagram::bind(&socket).expect("a socket in a folder of ours"));
        command.envs(environment.iter().copied()).arg("-s").arg(&socket).args(flags);
        let mut server = Server::spawn(program, flags, folder, command);
        server.wait_until("it accepts on its Unix socket", |_| UnixStream::connect(&socket).is_ok());
        server.addresses.push(Address::Unix(socket));
        server
    }

    /// `program` on the loopback, on ports that the kernel chooses (`-p -1`). The port file (`MEMCACHED_PORT_FILENAME`)
    /// names them. A `-l` among the flags replaces the loopback.
    pub(crate) fn on_tcp(program: Program, flags: &[&str]) -> Server {
        Server::on_tcp_port(program, "-1", &[], flags)
    }

    /// `program` on the loopback, on a port that it gets again after a restart.
    pub(crate) fn on_lasting_port(program: Program, flags: &[&str]) -> Server {
        Server::on_tcp_port(program, &free_ports(1)[0].to_string(), &[], flags)
    }

    /// Kills the server and starts it again on its TCP port, which must come from `on_lasting_port`. Its clients see
    /// the same server with an empty cache.
    pub(crate) fn restarted(self) -> Server {
        let (program, flags, port) = (self.program, self.flags.clone(), self.tcp().port().to_string());
        drop(self);
        Server::on_tcp_port(program, &port, &[], &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn on_tcp_port(program: Program, port: &str, environment: &[(&str, &str)], flags: &[&str]) -> Server {
        let folder = new_folder();
        let ports = folder.join("ports");
        let mut command = command(program, &folder);
        command.envs(environment.iter().copied()).env("MEMCACHED_PORT_FILENAME", &ports).args(["-p", port]);
        if !flags.contains(&"-l") {
            command.args(["-l", "127.0.0.1"]);
        }
        command.args(flags);
        let mut server = Server::spawn(program, flags, folder, command);
        server.wait_until("it has written its ports", |_| ports.exists());
        let written = fs::read_to_string(&ports).expect("the file of ports exists");
        for line in written.lines() {
            let (family, port) = line.split_once(": ").unwrap_or_else(|| panic!("a line of the port file: {line:?}"));
            let port: u16 = port.parse().unwrap_or_else(|_| panic!("a port in the port file: {line:?}"));
            match family {
                "TCP INET" => server.addresses.push(Address::Tcp((Ipv4Addr::LOCALHOST, port).into())),
                "TCP INET6" => server.addresses.push(Address::Tcp((std::net::Ipv6Addr::LOCALHOST, port).into())),
                _ => {}
            }
        }
        assert!(!server.addresses.is_empty(), "no TCP port in the port file:\n{written}");
        server
    }

    fn spawn(program: Program, flags: &[&str], folder: PathBuf, mut command: Command) -> Server {
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Server { program, flags, child, folder, addresses: Vec::new() }
    }

    /// Waits until the server is ready. A server that ends meanwhile, or takes too long, fails the test.
    fn wait_until(&mut self, what: &str, mut ready: impl FnMut(&mut Server) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !ready(self) {
            if let Some(status) = self.ended() {
                panic!("{:?} ended ({status}) before {what}; it printed:\n{}", self.program, self.printed());
            }
            assert!(Instant::now() < deadline, "{:?} took too long until {what}:\n{}", self.program, self.printed());
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// A new connection to the first address.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.addresses[0])
    }

    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The first TCP address.
    pub(crate) fn tcp(&self) -> SocketAddr {
        let tcp = self.addresses.iter().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        });
        tcp.expect("the server was started on TCP")
    }

    /// The UDP ports of IPv4, in the order of the server's addresses.
    pub(crate) fn udp_ports(&self) -> Vec<u16> {
        let written = fs::read_to_string(self.folder.join("ports")).expect("the server was started on TCP");
        let ports = written.lines().filter_map(|line| line.strip_prefix("UDP INET: "));
        ports.map(|port| port.parse().expect("a port")).collect()
    }

    /// The first UDP address, on the loopback.
    pub(crate) fn udp(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.udp_ports()[0]).into()
    }

    /// The first address of `--metrics`, on the loopback. The server must have been started on TCP.
    pub(crate) fn metrics(&self) -> SocketAddr {
        let written = fs::read_to_string(self.folder.join("ports")).expect("the server has written its ports");
        let port = written.lines().find_map(|line| line.strip_prefix("METRICS INET: "));
        (Ipv4Addr::LOCALHOST, port.and_then(|port| port.parse().ok()).expect("a port")).into()
    }

    /// The path of the Unix socket.
    pub(crate) fn socket(&self) -> &Path {
        match &self.addresses[0] {
            Address::Unix(path) => path,
            Address::Tcp(_) => panic!("the server was started on TCP"),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server has written so far to standard output and standard error.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("printed")).unwrap_or_default()).into_owned()
    }

    /// Resident memory in KiB, from `/proc`.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc of a living child");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS in /proc/PID/status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("VmRSS is a number of kB")
    }

    /// Fails unless the same process still runs and still answers a new client.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.ended() {
            panic!("the server ended ({status}); it printed:\n{}", self.printed());
        }
        let mut client = self.client();
        client.send("set alive 0 0 3\r\nyes\r\nget alive\r\n");
        client.expect("STORED\r\nVALUE alive 0 3\r\nyes\r\nEND\r\n");
    }

    /// Sends a signal by its name: `TERM`, `INT`, `USR1`, `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill(1) exists").success(), "kill -{name} failed");
    }

    /// The exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end; it printed:\n{}", self.printed());
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both calls fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let printed = self.printed();
            if !printed.is_empty() {
                let tail: Vec<&str> = printed.lines().rev().take(40).collect();
                eprintln!("--- the last lines {:?} printed", self.program);
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs corecached with `flags` until it ends by itself, for example because a flag is wrong. Returns its exit status
/// and output.
pub(crate) fn corecached_run(flags: &[&str]) -> (ExitStatus, String) {
    run(Program::Corecached, flags)
}

/// Does the same with any program.
pub(crate) fn run(program: Program, flags: &[&str]) -> (ExitStatus, String) {
    let folder = new_folder();
    let mut command = command(program, &folder);
    command.args(flags);
    let mut server = Server::spawn(program, flags, folder, command);
    let status = server.wait();
    (status, server.printed())
}

/// The command of a server. It writes the server's output to a file in its folder.
fn command(program: Program, folder: &Path) -> Command {
    let command = Command::new(match program {
        Program::Corecached => PathBuf::from(CORECACHED),
        Program::Memcached => PathBuf::from("memcached"),
        Program::Newest => peers::newest_memcached().expect("who starts it has asked whether it is there"),
    });
    let mut command = silenced(command, folder);
    if program != Program::Corecached && is_root() {
        command.args(["-u", "root"]); // it refuses to run as root unless asked to
    }
    command
}

/// Makes the command write its output to a file.
fn silenced(mut command: Command, folder: &Path) -> Command {
    let printed = fs::File::create(folder.join("printed")).expect("a file in a folder of ours");
    command.stdin(Stdio::null()).stdout(printed.try_clone().expect("a second handle")).stderr(printed);
    command
}

/// A file for a server to read. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct TemporaryFile(PathBuf);

impl TemporaryFile {
    pub(crate) fn new(text: &str) -> TemporaryFile {
        let file = TemporaryFile(new_folder().join("file"));
        file.write(text);
        file
    }

    /// Replaces the text.
    pub(crate) fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("a file in a folder of ours");
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("plain names")
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().expect("it has a folder of its own"));
    }
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Free ports, for programs that cannot choose a port themselves. The system never gives these ports to outgoing
/// connections, so no connection takes one before the program does. No two tests get the same port.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Each test process begins with another port.
    let start = std::process::id().wrapping_mul(7919);
    let ports = std::iter::repeat_with(|| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.map(|port| port as u16).filter(is_free).take(count).collect()
}

/// A new folder for one server. Its path is short, because the path of a Unix socket has at most 108 bytes.
pub(crate) fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("corecached-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    fs::create_dir(&folder).unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
    folder
}
