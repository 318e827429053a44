//! Clients that connect anew for each few requests while servers come and go. No connection may be refused, no reply may
//! be wrong or end in the middle.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Silence};
use crate::server::Address;
use crate::waiting::wait_until;

/// The number of clients.
const CLIENTS: u64 = 4;
/// Rounds of a set and a get on one connection.
const ROUNDS: u64 = 3;

/// How many times a server is restarted: `CORECACHED_RESTARTS`, or 20.
pub(super) fn restarts() -> usize {
    let given = std::env::var("CORECACHED_RESTARTS").ok();
    given.map_or(20, |given| given.parse().expect("CORECACHED_RESTARTS is a number"))
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    requests: AtomicU64,
    /// Connections that were refused.
    refused: AtomicU64,
    /// Replies that ended in the middle.
    torn: AtomicU64,
    /// Connections that ended before the client had asked everything.
    closed: AtomicU64,
    /// The longest time between two replies of a client, in microseconds.
    longest: AtomicU64,
}

/// Has clients ask at `address` as long as `restart` runs.
pub(super) fn under_load(address: &Address, restart: impl FnOnce(&Seen)) -> Seen {
    let (seen, is_done) = (Seen::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (seen, is_done) = (&seen, &is_done);
                scope.spawn(move || work(address, number, seen, is_done))
            })
            .collect();
        // The clients end even if the test fails.
        let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| restart(&seen)));
        is_done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client got a wrong reply");
        }
        if let Err(panic) = restarted {
            std::panic::resume_unwind(panic);
        }
    });
    seen
}

impl Seen {
    /// Waits until the clients have got replies from a server that has started.
    pub(super) fn wait_for_more(&self) {
        let before = self.requests.load(Ordering::Relaxed);
        wait_until("the clients go on", || self.requests.load(Ordering::Relaxed) >= before + 4 * CLIENTS);
    }

    /// Fails if any client was turned away.
    pub(super) fn assert_no_gap(&self, what: &str, restarts: usize) {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let longest = Duration::from_micros(get(&self.longest));
        eprintln!(
            "{what}: {restarts} restarts, {} requests, {} refused, {} torn, {} closed, longest gap {longest:.1?}",
            get(&self.requests),
            get(&self.refused),
            get(&self.torn),
            get(&self.closed)
        );
        assert_eq!((get(&self.refused), get(&self.torn)), (0, 0), "{what}");
    }
}

/// A client that writes a key of its own.
fn work(address: &Address, number: u64, seen: &Seen, is_done: &AtomicBool) {
    let key = format!("load{number}");
    // The last version that the server has acknowledged, and the last that it may have got.
    let (mut stored, mut sent) = (0, 0);
    let mut last = Instant::now();
    'connections: while !is_done.load(Ordering::Relaxed) {
        let mut client = match Client::try_connect(address) {
            Ok(client) => client,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound), "{error}");
                seen.refused.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        for round in 0..=ROUNDS {
            let replied = match round {
                0 => get(&mut client, &key, seen).map(|found| {
                    // A server that starts cold has nothing, and one that has something has the last version.
                    assert!(
                        found.is_none_or(|found| (stored..=sent).contains(&found)),
                        "{found:?}: {stored} to {sent}"
                    );
                }),
                _ => {
                    sent += 1;
                    set(&mut client, &key, sent, seen).and_then(|()| {
                        stored = sent;
                        let found = get(&mut client, &key, seen)?;
                        assert_eq!(found, Some(sent), "the connection is still open, so it is the same server");
                        Ok(())
                    })
                }
            };
            if replied.is_err() {
                seen.closed.fetch_add(1, Ordering::Relaxed);
                continue 'connections;
            }
            seen.requests.fetch_add(1, Ordering::Relaxed);
            seen.longest.fetch_max(last.elapsed().as_micros() as u64, Ordering::Relaxed);
            last = Instant::now();
        }
    }
}

/// The beginning of a reply, or the end of the connection before it.
fn first_line(client: &mut Client, request: &str, seen: &Seen) -> Result<String, Silence> {
    client.try_send(request.as_bytes()).map_err(|_| Silence::Closed)?;
    let line = client.line();
    if line.is_err() && !client.pending().is_empty() {
        seen.torn.fetch_add(1, Ordering::Relaxed);
    }
    assert_ne!(line, Err(Silence::TimedOut), "no reply came");
    line.map(|line| String::from_utf8(line).expect("a line of text"))
}

fn set(client: &mut Client, key: &str, version: u64, seen: &Seen) -> Result<(), Silence> {
    let value = version.to_string().repeat(100);
    let line = first_line(client, &format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()), seen)?;
    assert_eq!(line, "STORED\r\n");
    Ok(())
}

fn get(client: &mut Client, key: &str, seen: &Seen) -> Result<Option<u64>, Silence> {
    let line = first_line(client, &format!("get {key}\r\n"), seen)?;
    if line == "END\r\n" {
        return Ok(None);
    }
    let len: usize = line.trim_end().rsplit(' ').next().and_then(|len| len.parse().ok()).expect("a VALUE line");
    let value = client.bytes(len + "\r\nEND\r\n".len()).inspect_err(|_| {
        seen.torn.fetch_add(1, Ordering::Relaxed);
    })?;
    let value = std::str::from_utf8(&value[..len]).expect("a value of ours");
    let version: u64 = value[..len / 100].parse().expect("a version");
    assert_eq!(value, version.to_string().repeat(100));
    Ok(Some(version))
}
