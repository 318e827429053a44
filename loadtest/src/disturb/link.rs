//! An admin connection that does not block.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// A connection with unwritten bytes.
pub struct Link {
    stream: TcpStream,
    out: Vec<u8>,
    /// The socket may hold something to read.
    readable: bool,
}

impl Link {
    pub fn open(address: SocketAddr, registry: &Registry, token: Token) -> Result<Link, String> {
        let open = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut SourceFd(&stream.as_raw_fd()), token, interest)?;
            Ok(stream)
        };
        let stream = open().map_err(|error: io::Error| format!("admin connection to {address}: {error}"))?;
        Ok(Link { stream, out: Vec::new(), readable: false })
    }

    pub fn wake(&mut self) {
        self.readable = true;
    }

    /// Adds bytes to send.
    pub fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes as much as the socket takes.
    pub fn flush(&mut self) -> Result<(), String> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("admin connection: {error}")),
            }
        }
        Ok(())
    }

    /// Reads once. Returns the bytes that came, none if there are none yet.
    pub fn read<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a [u8], String> {
        if !self.readable {
            return Ok(&[]);
        }
        match self.stream.read(buffer) {
            Ok(0) => Err("admin connection: the server closed it".into()),
            Ok(count) => Ok(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(&[])
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(format!("admin connection: {error}")),
        }
    }
}
