//! A connection that is written to and read from at the same time, so that no amount of replies can stall it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// One connection to a server.
pub(super) struct Wire {
    stream: UnixStream,
    chunks: Option<Sender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With what was waited for.
    Complete,
    /// The server closed the connection.
    Closed,
    /// The server said nothing more, for too long.
    Silent,
}

impl Wire {
    /// Connects; a reply that takes longer than `patience` is missing.
    pub(super) fn connect(socket: &Path, patience: Duration) -> Wire {
        let stream = UnixStream::connect(socket).expect("the server accepts");
        stream.set_read_timeout(Some(patience)).expect("a socket has deadlines");
        let mut second = stream.try_clone().expect("a socket can be duplicated");
        second.set_write_timeout(Some(patience)).expect("a socket has deadlines");
        let (chunks, written) = channel::<Vec<u8>>();
        // A server may close on what it is sent; what it had to say still counts.
        let writer =
            std::thread::spawn(move || written.iter().try_for_each(|chunk| second.write_all(&chunk)).unwrap_or(()));
        Wire { stream, chunks: Some(chunks), writer: Some(writer) }
    }

    /// Has bytes sent, each chunk in a write of its own, and does not wait for that.
    pub(super) fn send(&self, chunk: Vec<u8>) {
        // The writer has ended if the server has closed.
        let _ = self.chunks.as_ref().expect("until it is dropped").send(chunk);
    }

    /// Sends from here: for what needs no second thread, because nothing is replied before all is there.
    pub(super) fn send_now(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// All that comes before `end`, which must be the last that is replied to what was sent.
    pub(super) fn read_until(&mut self, end: &[u8]) -> (Vec<u8>, End) {
        let mut received = Vec::new();
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return (received, End::Closed),
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return (received, End::Silent);
                }
                Err(_) => return (received, End::Closed),
            }
            if received.ends_with(end) {
                received.truncate(received.len() - end.len());
                return (received, End::Complete);
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        drop(self.chunks.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
