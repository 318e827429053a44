//! A storm: many connections begin at once. Each makes a TLS handshake, sends one request, and closes; then the next
//! storm begins. Meanwhile an older connection without TLS measures how long the server makes it wait.
//!
//! The client must not limit the result. It creates its TLS sessions before a storm begins. It watches the established
//! connection in a separate thread, with a higher priority than the storm's if the system allows it. If client and
//! server share no core, their work on handshakes overlaps, and the slower of both sets the speed of the storm.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::address::Address;
use crate::cpus::{Cpus, nanoseconds_run};
use crate::wire::Wire;

/// The request of each connection, for a missing key, and the length of the reply.
const REQUEST: &[u8] = b"get nothing\r\n";
const REPLY_LEN: usize = 5;

/// A longer storm has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Interval between requests on the established connection.
const WATCH_EVERY: Duration = Duration::from_millis(1);
/// Interval at which its thread checks whether a storm has begun.
const REST: Duration = Duration::from_micros(200);

/// The phases of the thread that watches the established connection.
const RESTING: u8 = 0;
const WATCHING: u8 = 1;
const OVER: u8 = 2;

/// Parameters of a storm.
#[derive(Clone, Debug)]
pub struct Storm {
    pub connections: usize,
    /// Each connection resumes an earlier session, instead of a full handshake.
    pub resumed: bool,
}

/// The results of several storms.
pub struct Weather {
    pub handshakes: u64,
    /// Total time of all storms, without the pauses between them.
    pub elapsed: Duration,
    /// For each storm, nanoseconds from its beginning to the last byte of the slowest reply.
    pub slowest: Vec<u64>,
    /// Nanoseconds that requests on the established connection waited.
    pub established: Histogram<u64>,
    /// Share of the storms' time that the client spent on a core.
    pub client_busy: f64,
    /// The system did not grant priority to the thread of the established connection, so its figures include delays by
    /// the client itself.
    pub unwatched: bool,
}

impl Storm {
    /// Sends storms to `door` (by TLS) for `time`, at least one, and measures `established` (without TLS) meanwhile.
    /// `Err`: the server did not serve a connection.
    pub fn rage(
        &self,
        door: &Address,
        established: TcpStream,
        time: Duration,
        cpus: &Cpus,
        stop: &AtomicBool,
    ) -> Result<Weather, String> {
        let phase = AtomicU8::new(RESTING);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let pinned = cpus.nth(cpus.count() - 1).pin();
                pinned.and_then(|()| watch(established, &phase))
            });
            let storms = scope.spawn(|| {
                let result = cpus.nth(0).pin().map_err(|error| error.to_string());
                let result = result.and_then(|()| self.storms(door, time, &phase, stop));
                phase.store(OVER, Relaxed);
                result
            });
            let weather = storms.join().expect("a storm that cannot go on says so");
            let (established, unwatched) = watcher
                .join()
                .expect("a watcher that cannot go on says so")
                .map_err(|error| format!("the established connection was lost: {error}"))?;
            Ok(Weather { established, unwatched, ..weather? })
        })
    }

    fn storms(&self, door: &Address, time: Duration, phase: &AtomicU8, stop: &AtomicBool) -> Result<Weather, String> {
        let mut weather = Weather {
            handshakes: 0,
            elapsed: Duration::ZERO,
            slowest: Vec::new(),
            established: histogram(),
            client_busy: 0.0,
            unwatched: false,
        };
        let mut crowd = Crowd::new().map_err(|error| format!("no poll: {error}"))?;
        if self.resumed {
            // These connections get the sessions that the storms resume.
            crowd.gather(door, self.connections)?;
            crowd.come(door)?;
            crowd.leave()?;
        }
        let (begun, mut busy) = (Instant::now(), 0);
        while weather.handshakes == 0 || begun.elapsed() < time && !stop.load(Relaxed) {
            crowd.gather(door, self.connections)?;
            phase.store(WATCHING, Relaxed);
            let (since, cpu) = (Instant::now(), nanoseconds_run("/proc/thread-self").unwrap_or(0));
            crowd.come(door)?;
            let elapsed = since.elapsed();
            busy += nanoseconds_run("/proc/thread-self").unwrap_or(0) - cpu;
            phase.store(RESTING, Relaxed);
            if crowd.visitors.iter().any(|visitor| visitor.wire.is_resumed() != Some(self.resumed)) {
                let not = if self.resumed { "not " } else { "" };
                return Err(format!("a session was {not}resumed"));
            }
            weather.handshakes += self.connections as u64;
            weather.elapsed += elapsed;
            weather.slowest.push(elapsed.as_nanos() as u64);
            crowd.leave()?;
        }
        weather.client_busy = busy as f64 / weather.elapsed.as_nanos() as f64;
        Ok(weather)
    }
}

/// One connection of a storm.
struct Visitor {
    wire: Wire,
    /// Bytes of the reply so far.
    received: usize,
    gone: bool,
}

/// All connections of a storm.
struct Crowd {
    poll: Poll,
    events: Events,
    visitors: Vec<Visitor>,
}

impl Crowd {
    fn new() -> io::Result<Crowd> {
        Ok(Crowd { poll: Poll::new()?, events: Events::with_capacity(1024), visitors: Vec::new() })
    }

    /// Creates `count` sessions with their first requests, and sends nothing.
    fn gather(&mut self, door: &Address, count: usize) -> Result<(), String> {
        self.visitors.clear();
        for ordinal in 0..count {
            let socket = door.socket_later(ordinal).map_err(|error| format!("no socket: {error}"))?;
            let mut wire = door.wire(socket)?;
            wire.prepare(REQUEST).map_err(|error| error.to_string())?;
            self.visitors.push(Visitor { wire, received: 0, gone: false });
        }
        Ok(())
    }

    /// Connects all at once, and returns when every connection has its reply.
    fn come(&mut self, door: &Address) -> Result<(), String> {
        for (token, visitor) in self.visitors.iter_mut().enumerate() {
            let socket = visitor.wire.socket();
            let begun = door.begin(socket).and_then(|()| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(token), interest)
            });
            begun.map_err(|error| format!("connection {token} to {door}: {error}"))?;
        }
        self.until_each("was served", |visitor, writable| {
            if writable {
                if let Some(error) = visitor.wire.socket().take_error()? {
                    return Err(error);
                }
                visitor.wire.push()?;
            }
            visitor.read()?;
            match visitor.gone {
                true => Err(ErrorKind::UnexpectedEof.into()),
                false => Ok(visitor.received >= REPLY_LEN),
            }
        })
    }

    /// Closes TLS on all connections, and waits until the server has closed them.
    fn leave(&mut self) -> Result<(), String> {
        let mut farewell = |visitor: &mut Visitor| visitor.wire.farewell();
        self.visitors.iter_mut().try_for_each(&mut farewell).map_err(|error| format!("leaving: {error}"))?;
        let done = self.until_each("was let go", |visitor, _| match visitor.read() {
            Ok(()) => Ok(visitor.gone),
            // A server may close without ending TLS.
            Err(_) => Ok(true),
        });
        self.visitors.clear();
        done
    }

    /// Calls `step` for each connection that has an event, until `step` returns true for every connection.
    fn until_each(
        &mut self,
        what: &str,
        mut step: impl FnMut(&mut Visitor, bool) -> io::Result<bool>,
    ) -> Result<(), String> {
        let since = Instant::now();
        let mut there = vec![false; self.visitors.len()];
        let mut left = there.len();
        while left > 0 {
            match self.poll.poll(&mut self.events, Some(LOOK)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(format!("poll: {error}")),
                _ => {}
            }
            for event in &self.events {
                let token = event.token().0;
                if !there[token] {
                    there[token] = step(&mut self.visitors[token], event.is_writable())
                        .map_err(|error| format!("connection {token} of {}: {error}", there.len()))?;
                    left -= usize::from(there[token]);
                }
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("{left} of {} connections: none {what} for a minute", there.len()));
            }
        }
        Ok(())
    }
}

impl Visitor {
    /// Reads all bytes that have arrived.
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 512];
        loop {
            match self.wire.read(&mut buffer) {
                Ok(0) => {
                    self.gone = true;
                    return Ok(());
                }
                Ok(count) => self.received += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sends requests at fixed intervals during a storm. Each wait counts from the time the request was due, so a late
/// reply delays all requests that were due meanwhile. Also returns whether its thread could not get priority.
fn watch(mut stream: TcpStream, phase: &AtomicU8) -> io::Result<(Histogram<u64>, bool)> {
    let mut waits = histogram();
    let unwatched = !go_first();
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut due: Option<Instant> = None;
    loop {
        match phase.load(Relaxed) {
            OVER => return Ok((waits, unwatched)),
            WATCHING => {
                let now = Instant::now();
                let at = *due.get_or_insert(now);
                thread::sleep(at.saturating_duration_since(now));
                stream.write_all(REQUEST)?;
                stream.read_exact(&mut [0; REPLY_LEN])?;
                waits.saturating_record(at.elapsed().as_nanos() as u64);
                due = Some(at + WATCH_EVERY);
            }
            _ => {
                due = None;
                thread::sleep(REST);
            }
        }
    }
}

/// Lets the calling thread run before all others on its core. Returns false if the system does not allow it.
pub fn go_first() -> bool {
    let least = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread, and the parameter is valid for the length of the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &least) == 0 }
}

/// A histogram from a nanosecond to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(PATIENCE.as_nanos() as u64, 3).expect("bounds in order")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, Stream};

    use super::*;
    use crate::certificate::Certificate;

    /// A server that replies END to each request. It speaks TLS if `tls` is set, and has a thread for each connection.
    fn serve(tls: Option<Arc<ServerConfig>>) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let session = tls.clone().map(|config| ServerConnection::new(config).expect("a session"));
                thread::spawn(move || match session {
                    None => answer(&mut socket),
                    Some(mut session) => answer(&mut Stream::new(&mut session, &mut socket)),
                });
            }
        });
        Address::find(&address).expect("it listens")
    }

    fn answer(stream: &mut (impl Read + Write)) {
        let mut request = [0; REQUEST.len()];
        while stream.read_exact(&mut request).is_ok() && stream.write_all(b"END\r\n").is_ok() {}
    }

    /// A storm of full or resumed handshakes. `resumes` says whether the client keeps sessions, `tickets` how many the
    /// server offers per connection.
    fn storm(resumed: bool, resumes: bool, tickets: usize) -> Result<Weather, String> {
        let certificate = Certificate::new().expect("a certificate");
        let flags = certificate.flags();
        let file = |name: &str| {
            let (_, rest) = flags.split_once(&format!("ssl_{name}=")).expect("it is named");
            rest.split(',').next().expect("there is a first").to_owned()
        };
        let chain = CertificateDer::from_pem_file(file("chain_cert")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions that ring has")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("a pair");
        config.send_tls13_tickets = tickets;
        let client = certificate.client(resumes).expect("a configuration");
        let door = serve(Some(Arc::new(config))).with_tls(Some(Arc::new(client)));
        let established = serve(None).connect(0).expect("it listens");
        established.set_nonblocking(false).expect("a socket takes it");
        let cpus = "0".parse().expect("a core");
        Storm { connections: 20, resumed }.rage(
            &door,
            established.into(),
            Duration::ZERO,
            &cpus,
            &AtomicBool::new(false),
        )
    }

    #[test]
    fn all_are_served_at_least_once() {
        for (resumed, resumes) in [(false, false), (true, true)] {
            let weather = storm(resumed, resumes, 2).unwrap_or_else(|why| panic!("{resumed}: {why}"));
            assert_eq!((weather.handshakes, weather.slowest.len()), (20, 1));
            assert_eq!(weather.elapsed.as_nanos(), u128::from(weather.slowest[0]));
            assert!(!weather.established.is_empty());
        }
    }

    #[test]
    fn a_storm_of_another_kind_than_was_meant_is_none() {
        assert!(storm(true, true, 0).is_err_and(|why| why.contains("not resumed")));
        assert!(storm(true, false, 2).is_err_and(|why| why.contains("not resumed")));
    }
}
