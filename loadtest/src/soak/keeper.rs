//! A client that remembers all sets that the server has confirmed. No other client writes its keys. Each value that it
//! reads must thus come from the last confirmed set, or from a later one whose reply was lost. A key that was deleted,
//! flushed or lost, or that has expired, must have no value.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use super::link::{Link, unexpected};
use super::world::{Guest, World};
use crate::random::Random;

const KEYS: u64 = 300;
/// Seconds until some values expire, and how much longer the server may return them: clocks count whole seconds.
const TTL: u64 = 2;
const TTL_GRACE: Duration = Duration::from_secs(2);

/// The keeper's knowledge of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The last version with a confirmed set; 0 for none.
    stored: u64,
    /// A later version whose set had no reply.
    perhaps: Option<u64>,
    /// The server must not return either version after this time.
    dead: Option<Instant>,
    /// The number of flushes that had begun when `stored` was confirmed.
    flushes: u64,
}

pub struct Keeper {
    number: u64,
    tls: bool,
    /// Pause before each step.
    pause: Duration,
    random: Random,
    link: Option<Link>,
    known: HashMap<u64, Known>,
    /// The value of `World::forgotten` for which `known` holds.
    forgotten: u64,
    version: u64,
}

impl Keeper {
    pub fn new(number: u64, tls: bool, pause: Duration) -> Keeper {
        Keeper {
            number,
            tls,
            pause,
            random: Random::new(number),
            link: None,
            known: HashMap::new(),
            forgotten: 0,
            version: 0,
        }
    }

    fn key(&self, id: u64) -> String {
        format!("keeper-{}-{id}", self.number)
    }

    /// The connection, or a new one. The server of the old connection may have been killed. The keeper forgets its
    /// items in that case, before the new connection opens.
    fn link(&mut self, world: &World) -> io::Result<&mut Link> {
        if self.link.is_none() {
            let forgotten = world.forgotten.get();
            if forgotten != self.forgotten {
                self.forgotten = forgotten;
                self.known.clear();
            }
            self.link = Some(Link::open(&world.doors, self.tls)?);
        }
        Ok(self.link.as_mut().expect("there is one now"))
    }

    fn set(&mut self, world: &World, id: u64) -> io::Result<()> {
        self.version += 1;
        let (key, version, meta) = (self.key(id), self.version, self.random.below(2) == 0);
        let expires = self.random.below(8) == 0;
        let value = value_of(&key, version);
        let entry = self.known.entry(id).or_default();
        entry.perhaps = Some(version);
        // Until the reply comes, the earlier value may still be stored, and its expiry is unknown.
        entry.dead = None;
        let ttl = if expires { TTL } else { 0 };
        let line = if meta {
            format!("ms {key} {} T{ttl}", value.len())
        } else {
            format!("set {key} 0 {ttl} {}", value.len())
        };
        let link = self.link.as_mut().expect("it was opened for this step");
        link.send(format!("{line}\r\n{value}\r\n").as_bytes())?;
        let answer = link.line()?;
        match answer.as_str() {
            "HD" if meta => {}
            "STORED" if !meta => {}
            refusal if refusal.starts_with("SERVER_ERROR out of memory") => {
                world.tally.refused.up();
                world.complain(format!("{line}: {refusal}"));
                // memcached also drops the old value here.
                self.known.insert(id, Known::default());
                return Ok(());
            }
            _ => return Err(unexpected(&answer)),
        }
        let dead = expires.then(|| Instant::now() + Duration::from_secs(TTL) + TTL_GRACE);
        self.known.insert(id, Known { stored: version, perhaps: None, dead, flushes: world.flushes_begun.get() });
        Ok(())
    }

    fn get(&mut self, world: &World, id: u64) -> io::Result<()> {
        let key = self.key(id);
        let (flushes, asked) = (world.flushes_done.get(), Instant::now());
        let link = self.link.as_mut().expect("it was opened for this step");
        let found = if self.random.below(2) == 0 {
            link.send(format!("get {key}\r\n").as_bytes())?;
            link.value(&key)?
        } else {
            let line = link.ask(&format!("mg {key} v"))?;
            match line.strip_prefix("VA ").map(str::parse::<usize>) {
                None if line == "EN" => None,
                Some(Ok(length)) => {
                    let mut value = link.bytes(length + 2)?;
                    value.truncate(length);
                    Some(value)
                }
                _ => return Err(unexpected(&line)),
            }
        };
        let Some(found) = found else { return Ok(()) };
        world.tally.values.up();
        if self.tls {
            world.tally.values_tls.up();
        }
        let known = self.known.entry(id).or_default();
        let candidates = [Some(known.stored).filter(|&version| version > 0), known.perhaps];
        let mut candidates = candidates.into_iter().flatten();
        let Some(version) = candidates.find(|&version| found == value_of(&key, version).as_bytes()) else {
            let text = String::from_utf8_lossy(&found);
            let is_own = text.starts_with(&format!("{key}="));
            if is_own { &world.tally.stale } else { &world.tally.wrong }.up();
            let shown: String = text.chars().take(60).collect();
            world.complain(format!("{key}, of which is known {known:?}, has {shown:?}"));
            return Ok(());
        };
        let flushed = version == known.stored && flushes > known.flushes;
        if flushed || known.dead.is_some_and(|dead| asked > dead) {
            world.tally.stale.up();
            world.complain(format!("{key}, {known:?}, is there after {flushes} flushes, at {asked:?}"));
        }
        if known.perhaps == Some(version) {
            // The unconfirmed version has been stored after all. Its expiry is unknown.
            *known = Known { stored: version, perhaps: None, dead: None, flushes: world.flushes_begun.get() };
        }
        Ok(())
    }

    fn delete(&mut self, id: u64) -> io::Result<()> {
        let key = self.key(id);
        let link = self.link.as_mut().expect("it was opened for this step");
        let answer = link.ask(&format!("delete {key}"))?;
        if !["DELETED", "NOT_FOUND"].contains(&answer.as_str()) {
            return Err(unexpected(&answer));
        }
        self.known.insert(id, Known::default());
        Ok(())
    }
}

impl Guest for Keeper {
    fn step(&mut self, world: &World) -> io::Result<()> {
        self.link(world)?;
        std::thread::sleep(self.pause);
        let id = self.random.below(KEYS);
        match self.random.below(20) {
            0 => self.delete(id),
            1..8 => self.set(world, id),
            _ => self.get(world, id),
        }
    }

    fn leave(&mut self) {
        self.link = None;
    }
}

/// Consecutive versions have different lengths, from 30 bytes to 30 KB.
fn value_of(key: &str, version: u64) -> String {
    let times = if version.is_multiple_of(29) { 1000 } else { 1 + version % 40 };
    format!("{key}={version};").repeat(times as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::Arc;

    use super::super::link::Doors;
    use super::*;
    use crate::certificate::Certificate;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        None,
        /// Keeps a deleted value.
        Undead,
        /// Keeps the first value of a key.
        Old,
        /// Returns the value of another key.
        Foreign,
        /// Changes a byte of a value.
        Bent,
        /// Refuses sets as out of memory.
        Full,
    }

    /// Serves the commands of a keeper on one connection.
    fn serve(mut stream: TcpStream, fault: Fault) -> io::Result<()> {
        let mut input = BufReader::new(stream.try_clone()?);
        let mut items: HashMap<String, Vec<u8>> = HashMap::new();
        let mut line = String::new();
        while input.read_line(&mut line)? > 0 {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            line.clear();
            let key = words[1].clone();
            let mut found = items.get(&key).cloned();
            match (fault, &mut found) {
                (Fault::Foreign, Some(_)) => found = items.values().last().cloned(),
                (Fault::Bent, Some(value)) => *value.last_mut().expect("it is not empty") ^= 1,
                _ => {}
            }
            let mut reply = Vec::new();
            match words[0].as_str() {
                name @ ("set" | "ms") => {
                    let length: usize = words[if name == "set" { 4 } else { 2 }].parse().expect("a length");
                    let mut value = vec![0; length + 2];
                    input.read_exact(&mut value)?;
                    value.truncate(length);
                    if fault != Fault::Old || !items.contains_key(&key) {
                        items.insert(key, value);
                    }
                    reply.extend_from_slice(match (fault, name) {
                        (Fault::Full, _) => b"SERVER_ERROR out of memory storing object\r\n",
                        (_, "set") => b"STORED\r\n",
                        _ => b"HD\r\n",
                    });
                }
                "delete" => {
                    if fault != Fault::Undead {
                        items.remove(&key);
                    }
                    reply.extend_from_slice(b"DELETED\r\n");
                }
                name => {
                    if let Some(value) = &found {
                        let length = value.len();
                        let head = if name == "get" {
                            format!("VALUE {key} 0 {length}\r\n")
                        } else {
                            format!("VA {length}\r\n")
                        };
                        reply.extend_from_slice(&[head.as_bytes(), value, b"\r\n"].concat());
                    }
                    if name == "get" {
                        reply.extend_from_slice(b"END\r\n");
                    } else if found.is_none() {
                        reply.extend_from_slice(b"EN\r\n");
                    }
                }
            }
            stream.write_all(&reply)?;
        }
        Ok(())
    }

    #[test]
    fn a_server_that_forgets_nothing_or_mixes_up_is_found_out() {
        for fault in [Fault::None, Fault::Undead, Fault::Old, Fault::Foreign, Fault::Bent, Fault::Full] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let plain: SocketAddr = listener.local_addr().expect("it is bound");
            let server = std::thread::spawn(move || serve(listener.accept().expect("a keeper comes").0, fault));
            let config = Arc::new(Certificate::new().and_then(|it| it.client(false)).expect("a certificate"));
            let world = World::new(Doors { plain, tls: plain, config });
            let mut keeper = Keeper::new(1, false, Duration::ZERO);
            for _ in 0..3000 {
                keeper.step(&world).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            }
            keeper.leave();
            server.join().expect("it panics at nothing that a keeper asks").expect("the keeper reads to the end");
            let tally = &world.tally;
            let found = [tally.stale.get() > 0, tally.wrong.get() > 0, tally.refused.get() > 0];
            let expected = match fault {
                Fault::None => [false, false, false],
                Fault::Undead | Fault::Old => [true, false, false],
                Fault::Foreign => [false, true, false],
                // The value still begins with the key, so it counts as stale.
                Fault::Bent => [true, false, false],
                Fault::Full => [true, false, true],
            };
            assert_eq!(found, expected, "{fault:?}: {:?}", world.complaints());
        }
    }
}
