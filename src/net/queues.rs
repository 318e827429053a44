//! The receive queue of a network card (its NAPI id) that the packets of a connection use, and the worker that serves the
//! queue: `-N`. If each worker has a queue whose interrupts are handled on its core (`--pin`), the packets of a connection
//! do not change cores.

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};
use std::os::fd::AsFd;

sockopt_impl!(
    /// `SO_INCOMING_NAPI_ID`
    IncomingNapiId, GetOnly, libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID, u32
);

/// The queue of a socket's last packet. None: its device has no queues, or the system does not report them.
pub(super) fn from_socket(socket: &impl AsFd) -> Option<u32> {
    getsockopt(socket, IncomingNapiId).ok().filter(|&queue| queue != 0)
}

/// The queues in the order in which they were seen: the first one is for the first worker, and so on.
#[derive(Debug)]
pub struct Queues {
    /// Invariant: at most `count_max`.
    seen: Vec<u32>,
    count_max: usize,
}

impl Queues {
    /// Expects at most `count_max` queues.
    pub fn new(count_max: usize) -> Queues {
        Queues { seen: Vec::with_capacity(count_max), count_max }
    }

    /// The worker of a queue, and whether this queue was one too many. In that case all queues are forgotten, as in
    /// memcached, because a card that is set up anew has new ids.
    pub fn worker_of(&mut self, queue: u32) -> (usize, bool) {
        if let Some(worker) = self.seen.iter().position(|&other| other == queue) {
            return (worker, false);
        }
        let is_surprise = self.seen.len() == self.count_max;
        if is_surprise {
            self.seen.clear();
        }
        self.seen.push(queue);
        (self.seen.len() - 1, is_surprise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn queues_are_given_to_workers_as_they_come() {
        let mut queues = Queues::new(3);
        for (queue, expected) in [
            (513, (0, false)),
            (517, (1, false)),
            (513, (0, false)),
            (514, (2, false)),
            (517, (1, false)),
            // A fourth queue: the assignment starts over.
            (600, (0, true)),
            (601, (1, false)),
            (600, (0, false)),
            (513, (2, false)),
            (514, (0, true)),
        ] {
            assert_eq!(queues.worker_of(queue), expected, "{queue}");
        }
    }

    #[test]
    fn loopback_has_no_queues() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let _client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (stream, _) = listener.accept().expect("somebody waits");
        assert_eq!(from_socket(&stream), None);
    }
}
