//! A server as a child process. It starts on chosen cores and free ports.
//!
//! Dropping the [`Server`] kills it. If this process dies first, the kernel kills it (unless the server changes its
//! user, which makes the kernel drop the request). The server has its own process group. A wrapper such as `env` or
//! `sh` therefore ends together with it, and ctrl-C reaches only this process, which then stops the server.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::cpus::{Cpus, nanoseconds_run, ticks_per_second};
use crate::program::{Kind, Program, Spoken};
use crate::resp;

const START_SECONDS_MAX: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(10);
const ANSWER_SECONDS_MAX: Duration = Duration::from_secs(10);
const SETTLE_SECONDS_MAX: Duration = Duration::from_secs(30);
const SETTLE_POLL: Duration = Duration::from_millis(200);

/// Maximum share of its time that an idle server may be busy.
const IDLE_BUSY_MAX: f64 = 0.03;

const PORT_ATTEMPTS_MAX: usize = 20;

/// Bytes to show of what the server has printed.
const OUTPUT_SHOWN: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// This many ports in a row.
    Plain(usize),
    /// A port for TLS, and the next one without TLS.
    Tls,
    /// One port, for TCP and UDP.
    Udp,
}

impl Ports {
    pub fn count(self) -> usize {
        match self {
            Ports::Plain(count) => count,
            Ports::Tls => 2,
            Ports::Udp => 1,
        }
    }

    /// Number of ports that the load uses.
    fn loaded(self) -> usize {
        match self {
            Ports::Plain(count) => count,
            Ports::Tls | Ports::Udp => 1,
        }
    }
}

/// A server that accepts connections.
pub struct Server {
    command: String,
    kind: Kind,
    child: Child,
    /// The first port; the others follow.
    port: u16,
    ports: Ports,
    /// What the server has printed. Redis prints its errors on standard output.
    output: File,
}

impl Server {
    /// Starts `program` by the shell, on free ports, and waits until it accepts. Its command must contain the options for
    /// TLS.
    pub fn start(program: &Program, ports: Ports, cpus: &Cpus, stop: &AtomicBool) -> Result<Server, String> {
        let port = free_ports(ports.count()).map_err(|error| format!("no free port: {error}"))?;
        Server::start_at(program, port, ports, Some(cpus), stop)
    }

    /// Like `start`, on given ports, the first of them `port`; without `cpus`, on any core.
    pub fn start_at(
        program: &Program,
        port: u16,
        ports: Ports,
        cpus: Option<&Cpus>,
        stop: &AtomicBool,
    ) -> Result<Server, String> {
        let command = program.listening(port, ports);
        let no_file = |error| format!("no file for what the server prints: {error}");
        let output = nameless_file().map_err(no_file)?;
        let (child_stdout, child_stderr) = (output.try_clone().map_err(no_file)?, output.try_clone().map_err(no_file)?);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {command}")).process_group(0);
        shell.stdin(Stdio::null()).stdout(child_stdout).stderr(child_stderr);
        let (cpus, parent) = (cpus.cloned(), std::process::id());
        let prepare = move || {
            cpus.as_ref().map_or(Ok(()), Cpus::pin)?;
            // SAFETY: PR_SET_PDEATHSIG takes a signal and touches no memory.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: asks for a number only.
            let orphaned = unsafe { libc::getppid() } as u32 != parent;
            if orphaned { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec, `prepare` makes system calls and neither allocates nor takes a lock.
        unsafe { shell.pre_exec(prepare) };
        let child = shell.spawn().map_err(|error| format!("cannot start \"{command}\": {error}"))?;
        let mut server = Server { command, kind: program.kind, child, port, ports, output };
        server.await_port(stop)?;
        Ok(server)
    }

    fn await_port(&mut self, stop: &AtomicBool) -> Result<(), String> {
        let begun = Instant::now();
        while (0..self.ports.count()).any(|port| self.connect(port).is_err()) {
            self.check()?;
            if stop.load(Relaxed) {
                return Err("interrupted".into());
            }
            if begun.elapsed() > START_SECONDS_MAX {
                let seconds = START_SECONDS_MAX.as_secs();
                return Err(format!("\"{}\" does not accept after {seconds} s{}", self.command, self.last_words()));
            }
            thread::sleep(START_POLL);
        }
        Ok(())
    }

    /// The addresses for the load.
    pub fn addresses(&self) -> Result<Vec<Address>, String> {
        let address = |port| Address::find(&format!("{}:{}", Ipv4Addr::LOCALHOST, self.port + port as u16));
        (0..self.ports.loaded()).map(address).collect()
    }

    /// A blocking connection to port number `port` of the server.
    pub fn connect(&self, port: usize) -> io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port + port as u16))
    }

    /// The address of the port without TLS.
    pub fn plain(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + u16::from(self.ports == Ports::Tls)).into()
    }

    /// The number of the process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The address for datagrams, if the server takes them.
    pub fn udp(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A connection without TLS.
    pub fn connect_plain(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.plain())
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The reply of a memcached to a command whose reply is one line.
    pub fn ask(&self, command: &str) -> Option<String> {
        self.converse(command, |_| true).ok()?.pop()
    }

    /// The server's version; with its name, if it speaks RESP.
    pub fn version(&self) -> Option<String> {
        match self.kind.speaks() {
            Spoken::Text => Some(self.ask("version")?.strip_prefix("VERSION ")?.to_owned()),
            Spoken::Resp => resp::version(&self.information("server").ok()?),
        }
    }

    /// The number of items that the server holds.
    pub fn items(&self) -> Option<u64> {
        match self.kind.speaks() {
            Spoken::Text => self.stat("curr_items"),
            Spoken::Resp => resp::keys(&self.information("keyspace").ok()?),
        }
    }

    /// A section of the information that a server gives about itself by RESP.
    fn information(&self, section: &str) -> io::Result<String> {
        let mut stream = self.connect(0)?;
        stream.set_read_timeout(Some(ANSWER_SECONDS_MAX))?;
        stream.write_all(&resp::command(&["INFO", section]))?;
        resp::read_string(BufReader::new(stream))
    }

    /// A number from `stats`.
    pub fn stat(&self, name: &str) -> Option<u64> {
        self.statistic("stats", name)
    }

    /// A number from one kind of statistics, such as `stats slabs`.
    pub fn statistic(&self, kind: &str, name: &str) -> Option<u64> {
        self.statistics(kind, [name])[0]
    }

    /// Numbers from one kind of statistics. `None` stands for one that the server does not have; a server that
    /// speaks RESP has none.
    pub fn statistics<const N: usize>(&self, kind: &str, names: [&str; N]) -> [Option<u64>; N] {
        if self.kind.speaks() == Spoken::Resp {
            return [None; N];
        }
        let lines = self.converse(kind, |line| !line.starts_with("STAT ")).unwrap_or_default();
        let number = |line: &String, name: &str| line.strip_prefix("STAT ")?.strip_prefix(name)?.trim().parse().ok();
        names.map(|name| lines.iter().find_map(|line| number(line, name)))
    }

    /// All numbers of one kind of statistics, with their names.
    pub fn numbers(&self, kind: &str) -> io::Result<Vec<(String, u64)>> {
        let lines = self.converse(kind, |line| !line.starts_with("STAT "))?;
        let number = |line: &String| {
            let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(lines.iter().filter_map(number).collect())
    }

    /// Sends commands that have no reply, and waits until the server has executed them.
    pub fn tell(&self, commands: &[u8]) -> io::Result<()> {
        let mut stream = self.connect_plain()?;
        stream.set_read_timeout(Some(ANSWER_SECONDS_MAX))?;
        stream.write_all(commands)?;
        stream.write_all(b"mn\r\n")?;
        let mut reply = [0; 4];
        stream.read_exact(&mut reply)?;
        if &reply == b"MN\r\n" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// The lines of a reply, up to the first for which `last` is true.
    fn converse(&self, command: &str, last: fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut stream = self.connect_plain()?;
        stream.set_read_timeout(Some(ANSWER_SECONDS_MAX))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line?;
            lines.push(line.trim_end().to_owned());
            if last(&line) {
                break;
            }
        }
        Ok(lines)
    }

    /// Waits until the server is idle, for half a minute at most. In the background, it grows its hash table and sorts
    /// new items. This work belongs to the load that caused it, and must not slow down the next one.
    pub fn settle(&self) {
        let begun = Instant::now();
        let mut before = self.cpu();
        while begun.elapsed() < SETTLE_SECONDS_MAX {
            thread::sleep(SETTLE_POLL);
            let now = self.cpu();
            let busy = now.zip(before).map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
            if busy < SETTLE_POLL.mul_f64(IDLE_BUSY_MAX) {
                return;
            }
            before = now;
        }
    }

    /// `Err` says how the server has ended, if it has.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(format!("\"{}\" has ended: {status}{}", self.command, self.last_words())),
            Ok(None) => Ok(()),
            Err(error) => Err(format!("\"{}\": {error}", self.command)),
        }
    }

    /// CPU time of all threads, user and system: nanoseconds from the scheduler, or else clock ticks.
    pub fn cpu(&self) -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let times: Option<u64> = tasks.map(|task| nanoseconds_run(task.ok()?.path().to_str()?)).sum();
        times.filter(|sum| *sum > 0).map(Duration::from_nanos).or_else(|| self.cpu_ticks())
    }

    fn cpu_ticks(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Duration::from_secs_f64(ticks as f64 / ticks_per_second()))
    }

    /// Bytes of resident memory.
    pub fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(resident.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    }

    /// Bytes of resident memory, except in nameless mappings of at least `mapping_bytes`.
    pub fn memory_besides(&self, mapping_bytes: u64) -> Option<u64> {
        let maps = fs::read_to_string(format!("/proc/{}/smaps", self.child.id())).ok()?;
        let (mut sum, mut counts) = (0, true);
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next()?;
            if let Some(resident) = line.strip_prefix("Rss:") {
                let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
                sum += if counts { kib << 10 } else { 0 };
            } else if let Some((start, end)) = first.split_once('-') {
                let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).ok());
                // Range, rights, offset, device, inode, and a name, if it has one.
                counts = words.count() > 4 || end? - start? < mapping_bytes;
            }
        }
        Some(sum)
    }

    /// Number of open descriptors.
    pub fn descriptors(&self) -> Option<u64> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.child.id())).ok()?.count() as u64)
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: touches no memory. Only this value waits for the child, so no other process can have its number.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// The exit status, if the server has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of what the server has printed, as the end of a sentence.
    pub fn last_words(&self) -> String {
        let (mut file, mut bytes) = (&self.output, Vec::new());
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_SHOWN)));
        let _ = file.read_to_end(&mut bytes);
        match String::from_utf8_lossy(&bytes).trim_end() {
            "" => ", and said nothing".into(),
            text => format!(", and said:\n{text}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // SAFETY: touches no memory. The group is the child's own. Nobody has waited for the child yet, so no other
            // process can have its number.
            unsafe { libc::kill(-(self.child.id() as libc::pid_t), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}

/// The first of `count` free ports in a row. Tries random ones.
fn free_ports(count: usize) -> io::Result<u16> {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let mut attempts = 0;
    loop {
        let first = bind(0)?;
        let port = first.local_addr()?.port();
        let rest: io::Result<Vec<TcpListener>> =
            (1..count).map(|next| bind(port.saturating_add(next as u16))).collect();
        attempts += 1;
        match rest {
            Err(error) if attempts == PORT_ATTEMPTS_MAX => return Err(error),
            Err(_) => {}
            Ok(_) => return Ok(port),
        }
    }
}

/// The first of `count` free ports in a row that the system does not assign to connections, so that another server can
/// start on them after the first has ended.
pub fn lasting_ports(count: usize) -> io::Result<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0..PORT_ATTEMPTS_MAX as u32 {
        let port = FIRST + std::process::id().wrapping_mul(7919).wrapping_add(attempt * 101) % COUNT;
        let bind = |next| TcpListener::bind((Ipv4Addr::LOCALHOST, (port + next) as u16));
        match (0..count as u32).map(bind).collect::<io::Result<Vec<TcpListener>>>() {
            Ok(_) => return Ok(port as u16),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// A file that the system deletes when its last descriptor is closed.
fn nameless_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("loadtest-{}.output", std::process::id()));
    let file = File::options().read(true).append(true).create(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(command: &str) -> Result<Server, String> {
        let stop = AtomicBool::new(false);
        Server::start(&Program::memcached(command), Ports::Plain(1), &"0".parse().expect("a core"), &stop)
    }

    #[test]
    fn a_server_that_refuses_to_start_is_quoted() {
        let error = start("sh -c 'echo no memory >&2; exit 3' x").err().expect("it ends at once");
        assert!(error.contains("exit status: 3, and said:\nno memory"), "{error}");
        let error = start("/nonexistent/server").err().expect("it does not exist");
        assert!(error.contains("not found"), "{error}");
    }
}
