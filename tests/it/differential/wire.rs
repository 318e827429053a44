//! A connection that reads and writes at the same time, so that no amount of replies can stall it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) struct Wire {
    stream: UnixStream,
    /// Chunks that are still unsent. Each goes out in a write of its own.
    unsent: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are already sent.
    sent: usize,
    /// Whether the client ends its side after the last chunk.
    finishes: bool,
    buffer: Box<[u8]>,
    patience: Duration,
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The awaited bytes came.
    Complete,
    /// The server closed the connection.
    Closed,
    /// The server said nothing more, for too long.
    Silent,
}

impl Wire {
    /// Connects. A reply that takes longer than `patience` counts as missing.
    pub(super) fn connect(socket: &Path, patience: Duration) -> Wire {
        let stream = UnixStream::connect(socket).expect("the server accepts");
        stream.set_nonblocking(true).expect("a socket need not block");
        Wire { stream, unsent: VecDeque::new(), sent: 0, finishes: false, buffer: vec![0; 64 * 1024].into(), patience }
    }

    /// Sends as much of `chunk` as the server takes now, and the rest while the client reads replies.
    pub(super) fn send(&mut self, chunk: Vec<u8>) {
        self.unsent.push_back(chunk);
        self.write();
    }

    /// Tells the server after the last chunk that the client sends nothing more.
    pub(super) fn finish(&mut self) {
        self.finishes = true;
        self.write();
    }

    /// All bytes before `end`. `end` must be the last reply to the bytes that were sent.
    pub(super) fn read_until(&mut self, end: &[u8]) -> (Vec<u8>, End) {
        let mut received = Vec::new();
        loop {
            let ready = self.wait();
            if ready.is_empty() {
                return (received, End::Silent);
            }
            self.write();
            if ready == PollFlags::OUT {
                continue;
            }
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return (received, End::Closed),
                Ok(count) => received.extend_from_slice(&self.buffer[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(_) => return (received, End::Closed),
            }
            if received.ends_with(end) {
                received.truncate(received.len() - end.len());
                return (received, End::Complete);
            }
        }
    }

    /// Waits until the client can read or, if it has unsent bytes, write. The result is empty if the time runs out.
    fn wait(&self) -> PollFlags {
        let writes = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut polled = [PollFd::new(&self.stream, PollFlags::IN | writes)];
        let patience = Timespec::try_from(self.patience).expect("a few seconds");
        loop {
            match poll(&mut polled, Some(&patience)) {
                Ok(_) => return polled[0].revents(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("cannot poll: {error}"),
            }
        }
    }

    /// Writes as much as possible without waiting.
    fn write(&mut self) {
        while let Some(chunk) = self.unsent.front() {
            match self.stream.write(&chunk[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A server may close while the client sends. The replies that it sent before still count.
                Err(_) => {
                    self.unsent.clear();
                    self.sent = 0;
                    return;
                }
            }
            if self.sent == chunk.len() {
                self.unsent.pop_front();
                self.sent = 0;
            }
        }
        if std::mem::take(&mut self.finishes) {
            // This fails if the server has closed the connection.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}
