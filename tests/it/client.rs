//! A blocking client with deadlines: a server that does not reply fails the test instead of hanging it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::server::Address;

/// A reply that takes longer than this counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// A failure message shows this many bytes of an unexpected reply.
const SHOWN: usize = 400;

/// One connection. It keeps the bytes that it has received and that the test has not read yet.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
    /// Invariant: `consumed <= received.len()`.
    received: Vec<u8>,
    consumed: usize,
}

/// The reason why no reply comes, or no more of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The server closed the connection.
    Closed,
    /// The client waited as long as its patience allows, and received nothing.
    TimedOut,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    pub(crate) fn connect(address: &Address) -> Client {
        Client::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address:?}: {error}"))
    }

    pub(crate) fn try_connect(address: &Address) -> io::Result<Client> {
        let stream = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        let client = Client { stream, received: Vec::new(), consumed: 0 };
        client.set_patience(PATIENCE)?;
        Ok(client)
    }

    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(patience)).and(stream.set_write_timeout(Some(patience)))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(patience)).and(stream.set_write_timeout(Some(patience)))
            }
        }
    }

    /// A second handle on the same connection. The test writes with one handle while another thread reads with the
    /// other. The handles do not share received bytes.
    pub(crate) fn second_handle(&self) -> Client {
        let stream = match &self.stream {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        };
        Client { stream: stream.expect("a socket can be duplicated"), received: Vec::new(), consumed: 0 }
    }

    /// Sends all of `bytes`.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).unwrap_or_else(|error| panic!("cannot send to the server: {error}"));
    }

    /// Sends all of `bytes`. Returns an error if it cannot, because the server may close the connection in reply to
    /// them.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Sends as many bytes as possible without waiting, and returns their number.
    pub(crate) fn send_without_waiting(&mut self, bytes: &[u8]) -> usize {
        self.set_nonblocking(true);
        let mut sent = 0;
        while sent < bytes.len() {
            let written = match &mut self.stream {
                Stream::Tcp(stream) => stream.write(&bytes[sent..]),
                Stream::Unix(stream) => stream.write(&bytes[sent..]),
            };
            match written {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("cannot send to the server: {error}"),
            }
        }
        self.set_nonblocking(false);
        sent
    }

    fn set_nonblocking(&self, nonblocking: bool) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Stream::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
        .expect("a connected socket takes this option");
    }

    /// Tells the server that the client sends nothing more. The server may still reply.
    pub(crate) fn finish_sending(&self) {
        let finished = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        };
        finished.expect("a connected socket can be shut down");
    }

    /// Does the same as `finish_sending`, on a connection that the server may have closed.
    pub(crate) fn finish_sending_if_open(&self) {
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        };
    }

    /// Reads exactly the expected bytes, or fails and shows both.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        match self.bytes(expected.len()) {
            Ok(got) if got == expected => {}
            Ok(got) => panic!("expected {}\n     got {}", shown(expected), shown(&got)),
            Err(silence) => {
                panic!("expected {}\n     got {} and then {silence:?}", shown(expected), shown(self.pending()));
            }
        }
    }

    /// Fails unless the server closes the connection without another byte.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        match self.bytes(1) {
            Err(Silence::Closed) => {}
            Err(Silence::TimedOut) => panic!("expected the server to close the connection, it did not"),
            Ok(first) => {
                let rest = [&first, self.pending()].concat();
                panic!("expected the server to close the connection, got {}", shown(&rest));
            }
        }
    }

    /// Sends one request and reads one line, without its `\r\n`.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\r\n"));
        self.text_line()
    }

    /// Sends one request and reads lines up to `END`. The result does not include `END`.
    #[track_caller]
    pub(crate) fn ask_list(&mut self, request: &str) -> Vec<String> {
        self.send(format!("{request}\r\n"));
        let mut lines = Vec::new();
        loop {
            match self.text_line() {
                end if end == "END" => return lines,
                error if error.contains("ERROR") => panic!("to {request:?}: {error}"),
                line => lines.push(line),
            }
        }
    }

    /// One number of `stats`.
    #[track_caller]
    pub(crate) fn stat(&mut self, name: &str) -> u64 {
        let prefix = format!("STAT {name} ");
        let lines = self.ask_list("stats");
        let value = lines.iter().find_map(|line| line.strip_prefix(&prefix));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {name} in stats: {lines:#?}"))
    }

    #[track_caller]
    fn text_line(&mut self) -> String {
        match self.line() {
            Ok(line) => match line.strip_suffix(b"\r\n") {
                Some(text) => String::from_utf8_lossy(text).into_owned(),
                None => panic!("expected a line that ends in \\r\\n, got {}", shown(&line)),
            },
            Err(silence) => panic!("expected a line, got {} and then {silence:?}", shown(self.pending())),
        }
    }

    /// The next line, including its `\n`.
    pub(crate) fn line(&mut self) -> Result<Vec<u8>, Silence> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.pending()[searched..].iter().position(|&byte| byte == b'\n') {
                return Ok(self.take(searched + end + 1));
            }
            searched = self.pending().len();
            self.receive()?;
        }
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Silence> {
        while self.pending().len() < count {
            self.receive()?;
        }
        Ok(self.take(count))
    }

    /// All bytes until the server closes the connection.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, Silence> {
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(Silence::Closed) => return Ok(self.take(self.pending().len())),
                Err(Silence::TimedOut) => return Err(Silence::TimedOut),
            }
        }
    }

    /// The bytes that the client has received and that the test has not read yet.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.received[self.consumed..]
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self.pending()[..count].to_vec();
        self.consumed += count;
        if self.consumed == self.received.len() {
            self.received.clear();
            self.consumed = 0;
        }
        taken
    }

    fn receive(&mut self) -> Result<(), Silence> {
        let mut buffer = [0; 64 * 1024];
        let count = loop {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut buffer),
                Stream::Unix(stream) => stream.read(&mut buffer),
            };
            match read {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Silence::TimedOut);
                }
                // A server that closes with unread input resets the connection. To a client, that is the same end.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break 0,
                Err(error) => panic!("cannot read from the server: {error}"),
            }
        };
        if count == 0 {
            return Err(Silence::Closed);
        }
        self.received.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

/// Bytes in a readable form: escaped, and without the middle if there are many.
pub(crate) fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let (head, tail) = (&bytes[..SHOWN / 2], &bytes[bytes.len() - SHOWN / 4..]);
    format!("\"{}\" … \"{}\" ({} bytes)", head.escape_ascii(), tail.escape_ascii(), bytes.len())
}
