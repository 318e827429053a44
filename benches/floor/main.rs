//! How much does the kernel alone cost? A responder that parses nothing sends a constant reply, under the loads of the
//! comparison with memcached. No server on sockets can use less CPU time per key.
//!
//! The responder does what a worker does in a turn for each connection: one read, one write, by plain system calls. Its
//! thread and that of the client are pinned to two cores if the machine has two. CPU time is that of the responder's
//! thread alone.

#![allow(clippy::print_stdout, reason = "the answer")]
#![allow(missing_docs, reason = "a program")]

use core_affinity::CoreId;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 50;
const ROUND: Duration = Duration::from_millis(1500);
const KEY: &str = "key:000000000000000000001";
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

fn main() -> ExitCode {
    println!("CPU time of a responder that parses nothing, {CONNECTIONS} connections, key 25 bytes, value 32");
    for load in loads() {
        match measure(&load) {
            Ok((keys, cpu)) => println!("{:<20} {:.3} µs per key", load.name, cpu.as_secs_f64() * 1e6 / keys as f64),
            Err(error) => {
                println!("{}: {error}", load.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Number of keys answered in a round, and the responder's CPU time for them.
fn measure(load: &Load) -> io::Result<(usize, Duration)> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let responder = scope.spawn(|| respond(listener, load, &stop));
        let asked = ask(address, load);
        stop.store(true, Ordering::Relaxed);
        // The responder may wait for events. A last connection wakes it.
        drop(std::net::TcpStream::connect(address));
        let cpu = responder.join().expect("the responder does not panic")?;
        Ok((asked?, cpu))
    })
}

/// CPU time of this thread so far.
fn cpu_time() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
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

fn respond(mut listener: TcpListener, load: &Load, stop: &AtomicBool) -> io::Result<Duration> {
    pin(0);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(usize::MAX), Interest::READABLE)?;
    let mut streams: Vec<(TcpStream, usize)> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 << 10];
    let mut begun = None;
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
            if begun.is_none() {
                begun = Some(cpu_time()?);
            }
            let (stream, pending) = &mut streams[event.token().0];
            match recv(&*stream, &mut buffer[..], RecvFlags::empty()).map_err(io::Error::from) {
                Ok((count, _)) => *pending += count,
                // The client closes at the end of a round and leaves replies unread.
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
    Ok(cpu_time()? - begun.unwrap_or_default())
}

/// Keeps a request in flight on each connection for a round, and checks the length of the replies.
fn ask(address: SocketAddr, load: &Load) -> io::Result<usize> {
    pin(1);
    let mut poll = Poll::new()?;
    let mut streams = Vec::new();
    for token in 0..CONNECTIONS {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
        stream.write_all(load.request.as_bytes())?;
        streams.push((stream, 0));
    }
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 << 10];
    let mut keys = 0;
    let begun = Instant::now();
    while begun.elapsed() < ROUND {
        poll.poll(&mut events, Some(ROUND))?;
        for event in &events {
            let (stream, received) = &mut streams[event.token().0];
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("the responder closed")),
                Ok(count) => *received += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if *received == load.reply.len() {
                *received = 0;
                keys += load.keys;
                stream.write_all(load.request.as_bytes())?;
            } else if *received > load.reply.len() {
                return Err(io::Error::other("more came back than was asked for"));
            }
        }
    }
    Ok(keys)
}
