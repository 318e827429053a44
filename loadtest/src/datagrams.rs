//! Gets over UDP, each in one datagram. Each of several sockets keeps some requests in flight.
//!
//! A datagram may be lost. A request without a reply counts as lost after a while, and the client sends another one.
//! The id in the header of a reply tells its request, so a late reply is not taken for that of another request.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::cpus::{Cpus, nanoseconds_run};
use crate::random::Random;

/// A request without a reply for so long counts as lost.
const PATIENCE: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(20);
const HEADER_LEN: usize = 8;

/// Parameters of a measurement over UDP.
#[derive(Clone, Debug)]
pub struct Datagrams {
    pub sockets: usize,
    pub in_flight: usize,
    pub keys: u64,
}

/// Results of a measurement over UDP.
pub struct Answered {
    pub replies: u64,
    pub lost: u64,
    pub elapsed: Duration,
    /// Nanoseconds.
    pub latency: Histogram<u64>,
    pub client_busy: f64,
}

/// A socket and its requests in flight: ids and send times, `None` for a free place.
struct Asker {
    socket: UdpSocket,
    waiting: Vec<Option<(u16, Instant)>>,
    next_id: u16,
}

impl Datagrams {
    /// The key and the value of item `number`.
    pub fn item(&self, number: u64) -> (String, String) {
        (format!("datagram-{number:016}"), format!("{number:032}"))
    }

    /// Sends gets to `server` for `time`, from one thread. The server must hold all items. `Err` reports a wrong reply,
    /// or no reply at all.
    pub fn ask(&self, server: SocketAddr, time: Duration, cpus: &Cpus, stop: &AtomicBool) -> Result<Answered, String> {
        let result = std::thread::scope(|scope| {
            let work = || {
                cpus.nth(0).pin().map_err(|error| error.to_string())?;
                self.run(server, time, stop)
            };
            scope.spawn(work).join()
        });
        result.expect("what goes wrong is said")
    }

    fn run(&self, server: SocketAddr, time: Duration, stop: &AtomicBool) -> Result<Answered, String> {
        let fail = |error: std::io::Error| format!("UDP to {server}: {error}");
        let mut poll = Poll::new().map_err(fail)?;
        let mut events = Events::with_capacity(1024);
        let mut random = Random::new(1);
        let latency = Histogram::new_with_max(PATIENCE.as_nanos() as u64, 3).expect("bounds in order");
        let mut answered = Answered { replies: 0, lost: 0, elapsed: time, latency, client_busy: 0.0 };
        let mut askers = Vec::new();
        for token in 0..self.sockets {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).map_err(fail)?;
            socket.connect(server).map_err(fail)?;
            socket.set_nonblocking(true).map_err(fail)?;
            let interest = Interest::READABLE;
            poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(token), interest).map_err(fail)?;
            askers.push(Asker { socket, waiting: vec![None; self.in_flight], next_id: 0 });
        }
        let (since, cpu) = (Instant::now(), nanoseconds_run("/proc/thread-self").unwrap_or(0));
        let mut buffer = [0; 2048];
        let mut looked = since;
        for asker in &mut askers {
            self.send(asker, &mut random).map_err(fail)?;
        }
        while since.elapsed() < time && !stop.load(Relaxed) {
            match poll.poll(&mut events, Some(LOOK)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(fail(error)),
                _ => {}
            }
            for event in &events {
                let asker = &mut askers[event.token().0];
                loop {
                    match asker.socket.recv(&mut buffer) {
                        Ok(len) => self.take(asker, &buffer[..len], &mut answered)?,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(fail(error)),
                    }
                }
                self.send(asker, &mut random).map_err(fail)?;
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                for asker in &mut askers {
                    for place in &mut asker.waiting {
                        if place.is_some_and(|(_, sent)| sent.elapsed() > PATIENCE) {
                            *place = None;
                            answered.lost += 1;
                        }
                    }
                    self.send(asker, &mut random).map_err(fail)?;
                }
            }
        }
        answered.elapsed = since.elapsed();
        let busy = nanoseconds_run("/proc/thread-self").unwrap_or(0) - cpu;
        answered.client_busy = busy as f64 / answered.elapsed.as_nanos() as f64;
        match answered.replies {
            0 => Err(format!("UDP to {server}: no reply to any request")),
            _ => Ok(answered),
        }
    }

    /// Sends a new request for each free place of a socket.
    fn send(&self, asker: &mut Asker, random: &mut Random) -> std::io::Result<()> {
        let Asker { socket, waiting, next_id } = asker;
        for place in waiting.iter_mut().filter(|place| place.is_none()) {
            *next_id = next_id.wrapping_add(1);
            let (key, _) = self.item(random.below(self.keys));
            let [high, low] = next_id.to_be_bytes();
            let mut datagram = vec![high, low, 0, 0, 0, 1, 0, 0];
            datagram.extend_from_slice(format!("get {key}\r\n").as_bytes());
            socket.send(&datagram)?;
            *place = Some((*next_id, Instant::now()));
        }
        Ok(())
    }

    /// Takes a reply, a whole value in one datagram, and frees the place of its request.
    fn take(&self, asker: &mut Asker, datagram: &[u8], answered: &mut Answered) -> Result<(), String> {
        let wrong = || format!("a wrong datagram: {}", datagram.escape_ascii());
        let (header, reply) = datagram.split_at_checked(HEADER_LEN).ok_or_else(wrong)?;
        let id = u16::from_be_bytes([header[0], header[1]]);
        let place = asker.waiting.iter_mut().find(|place| place.is_some_and(|(other, _)| other == id));
        // The request has been counted as lost, and its reply came after all.
        let Some(place) = place else { return Ok(()) };
        if header[2..6] != [0, 0, 0, 1] || !self.is_right(reply) {
            return Err(wrong());
        }
        if let Some((_, sent)) = place.take() {
            answered.latency.saturating_record(sent.elapsed().as_nanos() as u64);
        }
        answered.replies += 1;
        Ok(())
    }

    fn is_right(&self, reply: &[u8]) -> bool {
        let text = std::str::from_utf8(reply).unwrap_or_default();
        let number = text.strip_prefix("VALUE datagram-").and_then(|rest| rest.get(..16)?.parse().ok());
        number.is_some_and(|number| {
            let (key, value) = self.item(number);
            text == format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends gets to a server that makes its replies by `reply`. It sends nothing where `reply` returns `None`.
    fn ask(mut reply: impl FnMut(&Datagrams, &[u8]) -> Option<Vec<u8>> + Send + 'static) -> Result<Answered, String> {
        let server = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
        let address = server.local_addr().expect("it is bound");
        let datagrams = Datagrams { sockets: 3, in_flight: 2, keys: 10 };
        let own = datagrams.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((len, peer)) = server.recv_from(&mut buffer) {
                if let Some(reply) = reply(&own, &buffer[..len]) {
                    let _ = server.send_to(&reply, peer);
                }
            }
        });
        datagrams.ask(address, Duration::from_millis(600), &"0".parse().expect("a core"), &AtomicBool::new(false))
    }

    /// The reply that answers a get with the value, under the same header.
    fn value(datagrams: &Datagrams, request: &[u8]) -> Vec<u8> {
        let text = std::str::from_utf8(&request[HEADER_LEN..]).expect("text");
        let number = text.trim_end().rsplit('-').next().and_then(|digits| digits.parse().ok()).expect("a number");
        let (key, value) = datagrams.item(number);
        assert_eq!(text, format!("get {key}\r\n"));
        let reply = format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len());
        [&request[..HEADER_LEN], reply.as_bytes()].concat()
    }

    #[test]
    fn replies_are_counted_and_what_is_lost_is_asked_anew() {
        let answered = ask(|datagrams, request| Some(value(datagrams, request))).expect("all is right");
        assert!(answered.replies > 10 && answered.lost == 0, "{} lost", answered.lost);
        assert_eq!(answered.latency.len(), answered.replies);
        // The server drops every third request. All six places wait for a dropped one in the end, and go on after the
        // client has given it up.
        let mut count = 0;
        let answered = ask(move |datagrams, request| {
            count += 1;
            (count % 3 > 0).then(|| value(datagrams, request))
        });
        let answered = answered.expect("what comes is right");
        assert!(answered.lost >= 6 && answered.replies > answered.lost, "{} lost", answered.lost);
    }

    #[test]
    fn silence_and_other_replies_are_failures() {
        assert!(ask(|_, _| None).is_err_and(|why| why.contains("no reply")));
        assert!(ask(|_, request| Some([&request[..8], b"END\r\n"].concat())).is_err_and(|why| why.contains("wrong")));
        assert!(
            ask(|datagrams, request| Some([&value(datagrams, request)[..], b"x"].concat()))
                .is_err_and(|why| why.contains("wrong"))
        );
    }
}
