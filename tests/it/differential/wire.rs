//! A connection that is written to and read from at the same time, so that no amount of replies can stall it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One connection to a server.
pub(super) struct Wire {
    stream: UnixStream,
    /// Chunks that are still to be sent, each in a write of its own.
    unsent: VecDeque<Vec<u8>>,
    /// How much of the first of them has been sent.
    sent: usize,
    /// Nothing will be sent after that.
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
    /// Connects; a reply that takes longer than `patience` is missing.
    pub(super) fn connect(socket: &Path, patience: Duration) -> Wire {
        let stream = UnixStream::connect(socket).expect("the server accepts");
        stream.set_nonblocking(true).expect("a socket need not block");
        Wire { stream, unsent: VecDeque::new(), sent: 0, finishes: false, buffer: vec![0; 64 * 1024].into(), patience }
    }

    /// Has bytes sent: as far as the server takes them now, the rest while its replies are read.
    pub(super) fn send(&mut self, chunk: Vec<u8>) {
        self.unsent.push_back(chunk);
        self.write();
    }

    /// Has the server told that nothing more will be sent.
    pub(super) fn finish(&mut self) {
        self.finishes = true;
        self.write();
    }

    /// All that comes before `end`, which must be the last that is replied to what was sent.
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

    /// Waits until there is something to read or, if something is unsent, room to write; nothing of it in time is empty.
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
                // A server may close on what it is sent; what it had to say still counts.
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
            // Fails if the server has closed.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}
