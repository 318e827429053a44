//! A connection to a server: it sends a line and reads what comes back, within a deadline.

use super::reply::Stats;
use super::target::{Address, Target};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest line that is read. It bounds the memory that a strange server can take.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Most lines of one `stats`.
const STATS_LINES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    received: Vec<u8>,
    /// Invariant: `consumed <= received.len()`.
    consumed: usize,
    timeout: Duration,
    /// When the wait for the present answer ends.
    deadline: Instant,
    ping: Ping,
}

/// The request of [`Connection::ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    Noop,
    /// The server does not know `mn`.
    Version,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Connects and, if the target has a user, logs in.
    ///
    /// # Errors
    /// Those of the system, and [`io::ErrorKind::Other`] with a reason for a refused login.
    pub(super) fn open(target: &Target) -> io::Result<Connection> {
        let deadline = Instant::now() + target.timeout;
        let stream = match &target.address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Address::Tcp { host, port } => {
                let stream = connect(host, *port, deadline)?;
                stream.set_nodelay(true)?;
                match &target.tls {
                    Some(config) => Stream::Tls(Box::new(encrypted(stream, config, host)?)),
                    None => Stream::Tcp(stream),
                }
            }
        };
        let mut connection = Connection {
            stream,
            received: Vec::new(),
            consumed: 0,
            timeout: target.timeout,
            deadline,
            ping: Ping::Noop,
        };
        if let Some(login) = &target.login {
            let words = format!("{} {}", login.user, login.password);
            let reply = connection.ask(&format!("set auth 0 0 {}\r\n{words}", words.len()))?;
            if reply != "STORED" {
                return Err(io::Error::other(format!("the login is refused: {reply}")));
            }
        }
        Ok(connection)
    }

    /// Sends a line. The time for its answer begins.
    pub(super) fn send(&mut self, line: &str) -> io::Result<()> {
        self.send_bytes(format!("{line}\r\n").as_bytes())
    }

    /// Sends bytes as they are. The time for their answer begins.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.deadline = Instant::now() + self.timeout;
        self.stream.set_timeout(self.timeout)?;
        self.stream.write(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => io::ErrorKind::UnexpectedEof.into(),
            _ => error,
        })
    }

    /// Sends a line and returns the line that comes back.
    pub(super) fn ask(&mut self, line: &str) -> io::Result<String> {
        self.send(line)?;
        self.line()
    }

    /// The lines of `stats which`, or `None` if the server does not know them.
    pub(super) fn stats(&mut self, which: &str) -> io::Result<Option<Stats>> {
        self.send(if which.is_empty() { "stats".to_owned() } else { format!("stats {which}") }.as_str())?;
        let mut stats = Stats::default();
        for _ in 0..STATS_LINES_MAX {
            let line = self.line()?;
            match line.split_once(' ') {
                Some(("STAT", rest)) => {
                    let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                    stats.insert(name, value);
                }
                _ if line == "END" => return Ok(Some(stats)),
                _ if line == "ERROR" => return Ok(None),
                _ if line.contains("unauthenticated") => {
                    return Err(io::Error::other("the server wants a login: --user and --password-file"));
                }
                _ => return Err(io::Error::other(format!("to \"stats {which}\" it says \"{line}\""))),
            }
        }
        Err(io::Error::other(format!("\"stats {which}\" does not end")))
    }

    /// Time of the shortest round trip that the server offers: `mn`, or `version` if it does not know that.
    pub(super) fn ping(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        if self.ping == Ping::Noop {
            match self.ask("mn")?.as_str() {
                "MN" => return Ok(start.elapsed()),
                "ERROR" => self.ping = Ping::Version,
                other if other.contains("unauthenticated") => {
                    return Err(io::Error::other("the server wants a login: --user and --password-file"));
                }
                other => return Err(io::Error::other(format!("to \"mn\" it says \"{other}\""))),
            }
        }
        let start = Instant::now();
        let reply = self.ask("version")?;
        match reply.starts_with("VERSION ") {
            true => Ok(start.elapsed()),
            false => Err(io::Error::other(format!("to \"version\" it says \"{reply}\""))),
        }
    }

    /// Waits longer or shorter for the next lines than the time-out says.
    pub(super) fn wait_until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// The next line, without its end. Control characters are replaced: a key must not steer the terminal.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after the deadline, [`io::ErrorKind::UnexpectedEof`] if the server closes.
    pub(super) fn line(&mut self) -> io::Result<String> {
        let line = self.take_line()?;
        Ok(String::from_utf8_lossy(&self.received[line]).replace(char::is_control, "\u{fffd}"))
    }

    /// The next line as the server sent it, without its end. The server has the whole time-out for it.
    ///
    /// # Errors
    /// As of `line`.
    pub(super) fn raw_line(&mut self) -> io::Result<&[u8]> {
        self.deadline = Instant::now() + self.timeout;
        let line = self.take_line()?;
        Ok(&self.received[line])
    }

    /// The next `length` bytes. The end of a line must follow them. The server may take its time as long as it sends.
    ///
    /// # Errors
    /// As of `line`, and [`io::ErrorKind::Other`] if the end of the line is not there.
    pub(super) fn block(&mut self, length: usize) -> io::Result<&[u8]> {
        while self.received.len() - self.consumed < length + 2 {
            self.deadline = Instant::now() + self.timeout;
            self.receive()?;
        }
        let start = self.consumed;
        self.consumed += length + 2;
        match &self.received[start + length..self.consumed] {
            b"\r\n" => Ok(&self.received[start..start + length]),
            _ => Err(io::Error::other("the server sends a value that is longer than it says")),
        }
    }

    /// Consumes a line, and tells where it is in `received`, without its end.
    fn take_line(&mut self) -> io::Result<Range<usize>> {
        let mut searched = 0;
        loop {
            let pending = &self.received[self.consumed..];
            if let Some(end) = memchr::memchr(b'\n', &pending[searched..]).map(|end| searched + end) {
                let length = pending[..end].strip_suffix(b"\r").map_or(end, <[u8]>::len);
                let start = self.consumed;
                self.consumed += end + 1;
                return Ok(start..start + length);
            }
            searched = pending.len();
            if searched > LINE_BYTES_MAX {
                return Err(io::Error::other("the server sends a line without end"));
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_timeout(left)?;
        self.received.drain(..self.consumed);
        self.consumed = 0;
        let filled = self.received.len();
        self.received.resize(filled + 64 * 1024, 0);
        let count = self.stream.read(&mut self.received[filled..]);
        self.received.truncate(filled + *count.as_ref().unwrap_or(&0));
        match count {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        }
    }
}

impl Stream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would mean no limit.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)),
            Stream::Tls(stream) => {
                stream.sock.set_read_timeout(timeout).and_then(|()| stream.sock.set_write_timeout(timeout))
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

/// Tries the addresses of a host in their order.
fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn encrypted(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    host: &str,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}
