//! A blocking connection of a guest with a timeout, plain or by TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::SockRef;

use crate::wire;

/// A reply that takes longer counts as missing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The server's addresses.
#[derive(Clone)]
pub struct Doors {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub config: Arc<ClientConfig>,
}

/// A connection. `received[at..]` has been received and not returned yet.
pub struct Link {
    stream: Stream,
    received: Vec<u8>,
    /// Invariant: at <= received.len().
    at: usize,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Link {
    pub fn open(doors: &Doors, tls: bool) -> io::Result<Link> {
        let address = if tls { doors.tls } else { doors.plain };
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let stream = if tls {
            let session = wire::session(&doors.config, &address.to_string()).map_err(io::Error::other)?;
            Stream::Tls(Box::new(StreamOwned::new(session, socket)))
        } else {
            Stream::Plain(socket)
        };
        Ok(Link { stream, received: Vec::new(), at: 0 })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Sends bytes past TLS, which no proper client would do.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket().write_all(bytes)
    }

    /// The next line, without `\r\n`.
    pub fn line(&mut self) -> io::Result<String> {
        let mut searched = self.at;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.received[searched..]) {
                let line = &self.received[self.at..searched + end];
                let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
                self.at = searched + end + 1;
                return Ok(text);
            }
            let left = self.received.len() - self.at;
            self.receive()?;
            searched = self.at + left;
        }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() - self.at < count {
            self.receive()?;
        }
        self.at += count;
        Ok(self.received[self.at - count..self.at].to_vec())
    }

    /// Sends a line and returns the reply line.
    pub fn ask(&mut self, request: &str) -> io::Result<String> {
        self.send(format!("{request}\r\n").as_bytes())?;
        self.line()
    }

    /// The value of `key`, or `None`. Reads the reply to a `get` of this key alone.
    pub fn value(&mut self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        if line == "END" {
            return Ok(None);
        }
        let mut words = line.split(' ');
        let length = match (words.next(), words.next(), words.next(), words.next().map(str::parse)) {
            (Some("VALUE"), Some(other), Some(_), Some(Ok(length))) if other == key => length,
            _ => return Err(unexpected(&line)),
        };
        let value = self.bytes(length)?;
        match self.bytes(7)?.as_slice() {
            b"\r\nEND\r\n" => Ok(Some(value)),
            other => Err(unexpected(&other.escape_ascii().to_string())),
        }
    }

    /// Closes the connection without TLS's closing message, or with a reset.
    pub fn cut(mut self, reset: bool) {
        if reset {
            // If the reset fails, the connection just closes.
            let _ = SockRef::from(&*self.socket()).set_linger(Some(Duration::ZERO));
        }
    }

    fn socket(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &mut stream.sock,
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut buffer),
            Stream::Tls(stream) => stream.read(&mut buffer),
        };
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.received.drain(..self.at);
                self.at = 0;
                self.received.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The error for a reply that does not fit the request.
pub fn unexpected(line: &str) -> io::Error {
    let shown: String = line.chars().take(200).collect();
    io::Error::new(ErrorKind::InvalidData, format!("an answer that makes no sense: {shown:?}"))
}
