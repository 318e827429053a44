//! Clients of many kinds ("guests"): they fill the cache, read slowly, stop in the middle of a value, connect and
//! leave, or administer the server.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use super::link::{Link, unexpected};
use super::world::{Fillers, Guest, World};
use crate::random::Random;

/// Sets and gets in one exchange of a [`Filler`], and the pause after it.
const BATCH: usize = 20;
const FILLER_PAUSE: Duration = Duration::from_millis(8);

/// Sets values, of which the server must evict most, and reads the rest.
pub struct Filler {
    random: Random,
    fillers: Fillers,
    link: Option<Link>,
}

impl Filler {
    pub fn new(number: u64, fillers: Fillers) -> Filler {
        Filler { random: Random::new(number), fillers, link: None }
    }
}

impl Guest for Filler {
    fn step(&mut self, world: &World) -> io::Result<()> {
        if self.link.is_none() {
            self.link = Some(Link::open(&world.doors, false)?);
        }
        let link = self.link.as_mut().expect("there is one now");
        let mut request = Vec::new();
        for _ in 0..BATCH {
            let number = self.fillers.any(&mut self.random);
            let value = Fillers::value(number);
            request.extend_from_slice(format!("set {} 0 0 {}\r\n", Fillers::key(number), value.len()).as_bytes());
            request.extend_from_slice(&value);
            request.extend_from_slice(b"\r\n");
        }
        link.send(&request)?;
        for _ in 0..BATCH {
            match link.line()?.as_str() {
                "STORED" => {}
                refusal if refusal.starts_with("SERVER_ERROR out of memory") => {
                    world.tally.refused.up();
                    world.complain(format!("a value of at most 200 KB: {refusal}"));
                }
                other => return Err(unexpected(other)),
            }
        }
        let numbers: Vec<u64> = (0..BATCH).map(|_| self.fillers.any(&mut self.random)).collect();
        let keys: String = numbers.iter().map(|&number| format!(" {}", Fillers::key(number))).collect();
        link.send(format!("get{keys}\r\n").as_bytes())?;
        loop {
            let line = link.line()?;
            if line == "END" {
                break;
            }
            let mut words = line.strip_prefix("VALUE fill-").ok_or_else(|| unexpected(&line))?.split(' ');
            let number = words.next().and_then(|word| word.parse().ok()).filter(|number| numbers.contains(number));
            let length = words.nth(1).and_then(|word| word.parse::<usize>().ok());
            let (number, length) = number.zip(length).ok_or_else(|| unexpected(&line))?;
            let value = link.bytes(length + 2)?;
            Fillers::check(world, number, &value[..length]);
        }
        thread::sleep(FILLER_PAUSE);
        Ok(())
    }

    fn leave(&mut self) {
        self.link = None;
    }
}

const SLOW_LINKS: usize = 6;
/// Requests that each connection sends at once: their replies take some megabytes.
const SLOW_REQUESTS: usize = 400;
const SLOW_PAUSE: Duration = Duration::from_millis(5);

/// Sends many gets at once, and reads one value at a time, with pauses.
pub struct SlowReader {
    random: Random,
    fillers: Fillers,
    /// Each connection with the keys whose replies it has not read.
    links: Vec<(Link, Vec<u64>)>,
}

impl SlowReader {
    pub fn new(number: u64, fillers: Fillers) -> SlowReader {
        SlowReader { random: Random::new(number), fillers, links: Vec::new() }
    }
}

impl Guest for SlowReader {
    fn step(&mut self, world: &World) -> io::Result<()> {
        if self.links.len() < SLOW_LINKS {
            let mut link = Link::open(&world.doors, self.links.len() % 3 == 2)?;
            let asked: Vec<u64> = (0..SLOW_REQUESTS).map(|_| self.fillers.any(&mut self.random)).collect();
            let requests: String = asked.iter().map(|&number| format!("get {}\r\n", Fillers::key(number))).collect();
            link.send(requests.as_bytes())?;
            self.links.insert(0, (link, asked.into_iter().rev().collect()));
        }
        thread::sleep(SLOW_PAUSE);
        let at = self.random.below(self.links.len() as u64) as usize;
        let (link, asked) = &mut self.links[at];
        if let Some(number) = asked.pop()
            && let Some(value) = link.value(&Fillers::key(number))?
        {
            Fillers::check(world, number, &value);
            world.tally.values_slow.up();
        }
        // Most connections close before they have read all replies.
        if self.random.below(200) == 0 {
            let (link, _) = self.links.swap_remove(at);
            link.cut(self.random.below(2) == 0);
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.links.clear();
    }
}

const HALF_LINKS: usize = 12;
const HALF_KEYS: u64 = 50;
const HALF_MAX: u64 = 700_000;
const HALF_PAUSE: Duration = Duration::from_millis(15);

/// Announces values and never sends a whole one.
pub struct HalfSender {
    random: Random,
    links: Vec<Link>,
}

impl HalfSender {
    pub fn new(number: u64) -> HalfSender {
        HalfSender { random: Random::new(number), links: Vec::new() }
    }
}

impl Guest for HalfSender {
    fn step(&mut self, world: &World) -> io::Result<()> {
        thread::sleep(HALF_PAUSE);
        let key = format!("half-{}", self.random.below(HALF_KEYS));
        if self.links.len() == HALF_LINKS {
            let link = self.links.swap_remove(self.random.below(HALF_LINKS as u64) as usize);
            link.cut(self.random.below(2) == 0);
            let mut asking = Link::open(&world.doors, false)?;
            asking.send(format!("get {key}\r\n").as_bytes())?;
            if asking.value(&key)?.is_some() {
                world.tally.half_stored.up();
                world.complain(format!("{key} is there, and was never sent to its end"));
            }
        }
        let mut link = Link::open(&world.doors, self.random.below(4) == 0)?;
        let length = 10 + self.random.below(HALF_MAX);
        let sent = match self.random.below(3) {
            0 => 0,
            1 => self.random.below(length),
            // Sends all of the value except its `\r\n`.
            _ => length,
        };
        let mut request = format!("set {key} 0 0 {length}\r\n").into_bytes();
        request.resize(request.len() + sent as usize, b'h');
        // The server may refuse and close while the request is sent.
        if link.send(&request).is_ok() {
            self.links.push(link);
        }
        world.tally.half_values.up();
        Ok(())
    }

    fn leave(&mut self) {
        self.links.clear();
    }
}

const VISIT_PAUSE: Duration = Duration::from_millis(5);

/// Connects, sends one request at most, and closes.
pub struct Visitor {
    random: Random,
    fillers: Fillers,
}

impl Visitor {
    pub fn new(number: u64, fillers: Fillers) -> Visitor {
        Visitor { random: Random::new(number), fillers }
    }
}

impl Guest for Visitor {
    fn step(&mut self, world: &World) -> io::Result<()> {
        thread::sleep(VISIT_PAUSE);
        let mut link = Link::open(&world.doors, self.random.below(5) == 0)?;
        world.tally.visits.up();
        match self.random.below(10) {
            0 => {}
            1..4 => {
                let answer = link.ask("mn")?;
                if answer != "MN" {
                    return Err(unexpected(&answer));
                }
            }
            4 => link.send(b"get hal")?,
            // Neither a request nor a handshake: the server may close while it is sent.
            5 => drop(link.send_raw(&self.random.next().to_le_bytes())),
            6 => {
                link.send(b"lru_crawler metadump all\r\n")?;
                link.line()?;
            }
            7 => {
                link.send(b"watch fetchers mutations evictions\r\n")?;
                link.line()?;
            }
            _ => {
                let number = self.fillers.any(&mut self.random);
                link.send(format!("get {}\r\n", Fillers::key(number)).as_bytes())?;
                if let Some(value) = link.value(&Fillers::key(number))? {
                    Fillers::check(world, number, &value);
                }
                link.send(b"quit\r\n")?;
            }
        }
        link.cut(self.random.below(3) == 0);
        Ok(())
    }

    fn leave(&mut self) {}
}

const UDP_PAUSE: Duration = Duration::from_millis(5);
const UDP_PATIENCE: Duration = Duration::from_millis(200);
/// Values of up to this length fit into one datagram.
const UDP_VALUE_MAX: usize = 1200;
const UDP_HEADER: usize = 8;

/// Sends gets over UDP for values that fit into one datagram. A reply may be lost.
pub struct Datagrams {
    random: Random,
    fillers: Fillers,
    socket: Option<UdpSocket>,
    id: u16,
}

impl Datagrams {
    pub fn new(number: u64, fillers: Fillers) -> Datagrams {
        Datagrams { random: Random::new(number), fillers, socket: None, id: 0 }
    }
}

impl Guest for Datagrams {
    fn step(&mut self, world: &World) -> io::Result<()> {
        let number = self.fillers.any(&mut self.random);
        let value = Fillers::value(number);
        if value.len() > UDP_VALUE_MAX {
            return Ok(());
        }
        if self.socket.is_none() {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_read_timeout(Some(UDP_PATIENCE))?;
            self.socket = Some(socket);
        }
        let socket = self.socket.as_ref().expect("there is one now");
        self.id = self.id.wrapping_add(1);
        let header = [&self.id.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0]].concat();
        let request = [&header[..], format!("get {}\r\n", Fillers::key(number)).as_bytes()].concat();
        thread::sleep(UDP_PAUSE);
        socket.send_to(&request, world.doors.plain)?;
        let mut buffer = [0; 2048];
        let count = match socket.recv(&mut buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = &buffer[..count];
        if count < UDP_HEADER || answer[..2] != self.id.to_be_bytes() {
            return Ok(()); // one that came late
        }
        let body = &answer[UDP_HEADER..];
        let whole = format!("VALUE {} 0 {}\r\n", Fillers::key(number), value.len());
        let whole = [whole.as_bytes(), &value, b"\r\nEND\r\n"].concat();
        if body != b"END\r\n" {
            world.tally.values.up();
            world.tally.values_udp.up();
            if body != whole {
                world.tally.wrong.up();
                world.complain(format!("over UDP, {} is not its own", Fillers::key(number)));
            }
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.socket = None;
    }
}

const TURN: Duration = Duration::from_millis(100);
/// In turns: a flush and a change of the limit happen once in this many.
const FLUSH_EVERY: u64 = 97;
const LIMIT_EVERY: u64 = 23;

/// Flushes, changes the limit, and asks for statistics.
pub struct Steward {
    link: Option<Link>,
    turn: u64,
    megabytes: u64,
}

impl Steward {
    /// The limit alternates between `megabytes` and three quarters of it.
    pub fn new(megabytes: u64) -> Steward {
        Steward { link: None, turn: FLUSH_EVERY - 15, megabytes }
    }
}

impl Guest for Steward {
    fn step(&mut self, world: &World) -> io::Result<()> {
        if self.link.is_none() {
            self.link = Some(Link::open(&world.doors, false)?);
        }
        let link = self.link.as_mut().expect("there is one now");
        thread::sleep(TURN);
        self.turn += 1;
        if self.turn.is_multiple_of(FLUSH_EVERY) {
            world.flushes_begun.up();
            let answer = link.ask("flush_all")?;
            if answer != "OK" {
                return Err(unexpected(&answer));
            }
            world.flushes_done.up();
            world.tally.flushes.up();
        }
        if self.turn.is_multiple_of(LIMIT_EVERY) {
            let quarters = 3 + self.turn / LIMIT_EVERY % 2;
            let answer = link.ask(&format!("cache_memlimit {}", self.megabytes * quarters / 4))?;
            if answer != "OK" {
                return Err(unexpected(&answer));
            }
            world.tally.limit_changes.up();
        }
        let kind = ["stats", "stats items", "stats slabs", "stats conns", "stats settings"][self.turn as usize % 5];
        link.send(format!("{kind}\r\n").as_bytes())?;
        while link.line()? != "END" {}
        Ok(())
    }

    fn leave(&mut self) {
        self.link = None;
    }
}
