//! How much does the kernel alone cost? A responder that parses nothing sends a constant reply, under the loads of the
//! comparison with memcached. No server on sockets that waits by epoll can use less CPU time per key.
//!
//! The responder does what a worker does in a turn for each connection: one read, one write, by plain system calls. Its
//! thread and that of the client are pinned to two cores if the machine has two. CPU time is that of the responder's
//! thread alone, while it answers: each connection has had a reply before, and has its last one at the end.
//!
//! And what would io_uring change? Another responder does the same work by it ([`ring`]), in turn with the first. It can also
//! send without copying the reply into the kernel: what does that change for long values?
//!
//! `cargo bench --bench floor -- serve 11999` only answers there, for clients that measure latency.

#![allow(clippy::print_stdout, reason = "the answer")]
#![allow(missing_docs, reason = "a program")]

mod ring;

use core_affinity::CoreId;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use nix::unistd::{Pid, gettid};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 50;
const ROUND: Duration = Duration::from_millis(1500);

/// The comparison of epoll and io_uring: connections, rounds of each, and their length.
const CROWDS: [usize; 3] = [1, 50, 1000];
const TURNS: usize = 7;
const TURN: Duration = Duration::from_millis(700);

/// The comparison of sending with and without a copy: lengths of values in bytes, and connections.
const LONG: [usize; 3] = [10_240, 102_400, 1_000_000];
const CONNECTIONS_LONG: usize = 10;

/// A responder that is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Open files besides two for each connection.
const FILES_BESIDES: u64 = 64;

const KEY: &str = "key:000000000000000000000";
const VALUE: &str = "01234567890123456789012345678901";

/// A client's request, and the constant reply to it.
struct Load {
    name: &'static str,
    request: String,
    reply: String,
    keys: usize,
}

fn loads() -> Vec<Load> {
    let value = format!("VALUE {KEY} 0 {}\r\n{VALUE}\r\n", VALUE.len());
    let get = format!("get {KEY}\r\n");
    let set = format!("set {KEY} 0 0 {}\r\n{VALUE}\r\n", VALUE.len());
    let keys: String = (0..50).map(|_| format!(" {KEY}")).collect();
    vec![
        Load { name: "get, one at a time", request: get.clone(), reply: format!("{value}END\r\n"), keys: 1 },
        Load {
            name: "get, 32 in flight",
            request: get.repeat(32),
            reply: format!("{value}END\r\n").repeat(32),
            keys: 32,
        },
        Load {
            name: "get of 50 keys",
            request: format!("get{keys}\r\n"),
            reply: format!("{}END\r\n", value.repeat(50)),
            keys: 50,
        },
        Load { name: "set, 32 in flight", request: set.repeat(32), reply: "STORED\r\n".repeat(32), keys: 32 },
    ]
}

/// How a responder waits for its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Epoll,
    IoUring(Sends),
}

/// How a responder on io_uring sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    /// The kernel copies the reply.
    Copies,
    /// The kernel takes the pages of the reply, as with `MSG_ZEROCOPY`, and tells when it needs them no more.
    Pages,
}

/// What a responder has done in a round.
struct Answered {
    keys: usize,
    elapsed: Duration,
    cpu: Duration,
}

impl Answered {
    /// CPU time in µs.
    fn cpu_per_key(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.keys.max(1) as f64
    }

    fn keys_per_second(&self) -> f64 {
        self.keys as f64 / self.elapsed.as_secs_f64()
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).skip_while(|word| word != "serve").skip(1);
    let answered = match words.next() {
        Some(port) => serve(&port),
        None => floor().and_then(|()| questions()),
    };
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers `get`s on a port of loopback until the process is ended: how late are replies if the server does nothing? All
/// requests must have the length of a `get` of a key of 25 bytes, as those of `loadtest run --ratio 1:0` have.
fn serve(port: &str) -> io::Result<()> {
    let port = port.parse().map_err(io::Error::other)?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    pin(0);
    respond(listener, &loads()[0], &AtomicBool::new(false))
}

fn floor() -> io::Result<()> {
    println!("CPU time of a responder that parses nothing, {CONNECTIONS} connections, key 25 bytes, value 32");
    for load in loads() {
        let answered = measure(Waits::Epoll, &load, CONNECTIONS, ROUND)?;
        println!("{:<20} {:.3} µs per key", load.name, answered.cpu_per_key());
    }
    Ok(())
}

fn questions() -> io::Result<()> {
    if let Err(error) = ring::probe() {
        println!("\nio_uring: refused by the kernel: {error}");
        return Ok(());
    }
    epoll_or_ring()?;
    copies_or_pages()
}

/// Compares sending with and without a copy, for long values: one request at a time on each connection.
fn copies_or_pages() -> io::Result<()> {
    println!("\nlong values without a copy: {CONNECTIONS_LONG} connections, medians of {TURNS} rounds");
    println!("    bytes | CPU µs per get: copied, not copied, ratio | gets per second: copied, not copied, ratio");
    for len in LONG {
        let reply = format!("VALUE {KEY} 0 {len}\r\n{}\r\nEND\r\n", "v".repeat(len));
        let load = Load { name: "get", request: format!("get {KEY}\r\n"), reply, keys: 1 };
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (sends, rounds) in [Sends::Copies, Sends::Pages].into_iter().zip(&mut rounds) {
                rounds.push(measure(Waits::IoUring(sends), &load, CONNECTIONS_LONG, TURN)?);
            }
        }
        let [copied, taken] = rounds.each_ref().map(|rounds| median(rounds, Answered::cpu_per_key));
        let [by_copy, by_page] = rounds.each_ref().map(|rounds| median(rounds, Answered::keys_per_second));
        println!(
            "{len:>9} | {copied:>22.2} {taken:>11.2} {:>6.2} | {by_copy:>23.0} {by_page:>11.0} {:>6.2}",
            taken / copied,
            by_page / by_copy
        );
    }
    Ok(())
}

/// Compares epoll and io_uring: one request at a time on each connection, medians of rounds in turn.
fn epoll_or_ring() -> io::Result<()> {
    let load = loads().swap_remove(0);
    println!("\nepoll and io_uring: {}, medians of {TURNS} rounds", load.name);
    println!("connections | CPU µs per request: epoll, io_uring, ratio | requests per second: epoll, io_uring, ratio");
    for connections in CROWDS {
        allow_files(connections)?;
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (waits, rounds) in [Waits::Epoll, Waits::IoUring(Sends::Copies)].into_iter().zip(&mut rounds) {
                rounds.push(measure(waits, &load, connections, TURN)?);
            }
        }
        let [epoll, ring] = rounds.each_ref().map(|rounds| median(rounds, Answered::cpu_per_key));
        let [by_epoll, by_ring] = rounds.each_ref().map(|rounds| median(rounds, Answered::keys_per_second));
        println!(
            "{connections:>11} | {epoll:>25.3} {ring:>9.3} {:>6.2} | {by_epoll:>26.0} {by_ring:>9.0} {:>6.2}",
            ring / epoll,
            by_ring / by_epoll
        );
    }
    Ok(())
}

fn median(rounds: &[Answered], figure: fn(&Answered) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Raises the limit of open files as far as the system allows. Each connection has two here.
fn allow_files(connections: usize) -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = 2 * connections as u64 + FILES_BESIDES;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))?;
    }
    Ok(())
}

/// Runs a responder and its client for a round of this length.
fn measure(waits: Waits, load: &Load, connections: usize, round: Duration) -> io::Result<Answered> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let stop = AtomicBool::new(false);
    let (sender, thread) = channel();
    thread::scope(|scope| {
        let stop = &stop;
        let responder = scope.spawn(move || {
            pin(0);
            // The receiver waits for it.
            let _ = sender.send(gettid());
            match waits {
                Waits::Epoll => respond(listener, load, stop),
                Waits::IoUring(sends) => {
                    let listener = std::net::TcpListener::from(OwnedFd::from(listener));
                    listener.set_nonblocking(false)?;
                    ring::respond(&listener, load, connections, sends, stop)
                }
            }
        });
        let thread = thread.recv().expect("the responder begins with it");
        let answered = Client::connect(address, load, connections).and_then(|mut client| {
            client.ask(Duration::ZERO)?;
            let before = cpu_time(thread)?;
            let (keys, elapsed) = client.ask(round)?;
            Ok(Answered { keys, elapsed, cpu: cpu_time(thread)? - before })
        });
        stop.store(true, Ordering::Relaxed);
        // The responder may wait for events. A last connection wakes it.
        drop(std::net::TcpStream::connect(address));
        responder.join().expect("the responder does not panic")?;
        answered
    })
}

/// CPU time of a thread of this process so far.
fn cpu_time(thread: Pid) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
    let nanos = text.split(' ').next().and_then(|field| field.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| io::Error::other("schedstat has another form"))
}

/// The cores of this process. Later, each thread sees only the core that it is pinned to.
static CORES: LazyLock<Vec<CoreId>> = LazyLock::new(|| core_affinity::get_core_ids().unwrap_or_default());

/// Keeps this thread on one of the cores, if there are so many.
fn pin(core: usize) {
    if let Some(core) = CORES.get(core) {
        core_affinity::set_for_current(*core);
    }
}

fn respond(mut listener: TcpListener, load: &Load, stop: &AtomicBool) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(usize::MAX), Interest::READABLE)?;
    let mut streams: Vec<(TcpStream, usize)> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == Token(usize::MAX) {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    poll.registry().register(&mut stream, Token(streams.len()), Interest::READABLE)?;
                    streams.push((stream, 0));
                }
                continue;
            }
            let (stream, pending) = &mut streams[event.token().0];
            match recv(&*stream, &mut buffer[..], RecvFlags::empty()).map_err(io::Error::from) {
                Ok((count, _)) => *pending += count,
                // A client that fails leaves replies unread.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset) => {}
                Err(error) => return Err(error),
            }
            while *pending >= load.request.len() {
                *pending -= load.request.len();
                match send(&*stream, load.reply.as_bytes(), SendFlags::NOSIGNAL).map_err(io::Error::from) {
                    Ok(count) if count < load.reply.len() => return Err(io::Error::other("a reply was cut")),
                    Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// The client: connections that ask for the same.
struct Client<'a> {
    load: &'a Load,
    poll: Poll,
    /// With the bytes received of the next reply.
    streams: Vec<(TcpStream, usize)>,
}

impl Client<'_> {
    fn connect(address: SocketAddr, load: &Load, connections: usize) -> io::Result<Client<'_>> {
        pin(1);
        let mut client = Client { load, poll: Poll::new()?, streams: Vec::new() };
        for token in 0..connections {
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            client.poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
            client.streams.push((stream, 0));
        }
        Ok(client)
    }

    /// Keeps a request in flight on each connection for a round, at least one, and checks the length of the replies.
    /// Returns the number of keys, and the time until the last reply.
    fn ask(&mut self, round: Duration) -> io::Result<(usize, Duration)> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 << 10];
        let (mut keys, mut in_flight) = (0, self.streams.len());
        let begun = Instant::now();
        for (stream, _) in &mut self.streams {
            stream.write_all(self.load.request.as_bytes())?;
        }
        while in_flight > 0 {
            self.poll.poll(&mut events, Some(PATIENCE))?;
            if events.is_empty() {
                return Err(io::Error::other("the responder is silent"));
            }
            let ends = begun.elapsed() >= round;
            for event in &events {
                let (stream, received) = &mut self.streams[event.token().0];
                // A long reply comes in pieces, and there may be no event for each of them.
                while *received < self.load.reply.len() {
                    match stream.read(&mut buffer) {
                        Ok(0) => return Err(io::Error::other("the responder closed")),
                        Ok(count) => *received += count,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                if *received > self.load.reply.len() {
                    return Err(io::Error::other("more came back than was asked for"));
                }
                if *received == self.load.reply.len() {
                    *received = 0;
                    keys += self.load.keys;
                    if ends {
                        in_flight -= 1;
                    } else {
                        stream.write_all(self.load.request.as_bytes())?;
                    }
                }
            }
        }
        Ok((keys, begun.elapsed()))
    }
}
