//! Pages move from the class of the load to another class and back, a hundred times a second if the server is able to.
//!
//! An admin connection stores values of the other class, so that its pages are not empty either, and asks for each move
//! by `slabs reassign`. The classes are those that the server names in `stats items`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mio::{Registry, Token};

use super::link::Link;
use super::{Disturber, Kind};
use crate::server::Server;

/// Nanoseconds from one move to the next, and until the next attempt if the server still moves a page.
const EVERY: u64 = 10_000_000;
const RETRY: u64 = 1_000_000;

/// Values of the other class that come before each move, their length, and the number of their keys.
const STORED: u64 = 64;
const VALUE_SIZE: usize = 500;
const KEYS: u64 = 1_000_000;

/// Slab classes: the one with most of the items, and that of the other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes {
    load: u32,
    other: u32,
}

pub struct Moves {
    link: Link,
    classes: Classes,
    /// The next move is from the class of the load.
    away: bool,
    waiting: bool,
    due: u64,
    next_key: u64,
    reply: Vec<u8>,
}

impl Moves {
    pub fn begin(admin: SocketAddr, classes: Classes, registry: &Registry, token: Token) -> Result<Moves, String> {
        let link = Link::open(admin, registry, token)?;
        Ok(Moves { link, classes, away: true, waiting: false, due: 0, next_key: 0, reply: Vec::new() })
    }

    fn ask(&mut self) {
        for _ in 0..STORED {
            self.link.send(&set(self.next_key));
            self.next_key = (self.next_key + 1) % KEYS;
        }
        self.link.send(reassign(self.classes, self.away).as_bytes());
    }
}

impl Disturber for Moves {
    fn kind(&self) -> Kind {
        Kind::Moves
    }

    fn wake(&mut self) {
        self.link.wake();
    }

    fn step(&mut self, now: u64, _: &Registry, _: Token) -> Result<u64, String> {
        if !self.waiting {
            if now < self.due {
                return Ok(0);
            }
            self.ask();
            self.waiting = true;
        }
        self.link.flush()?;
        let mut buffer = [0; 256];
        self.reply.extend_from_slice(self.link.read(&mut buffer)?);
        let Some(line) = self.reply.strip_suffix(b"\r\n") else { return Ok(0) };
        let answer = Answer::of(line)?;
        self.reply.clear();
        self.waiting = false;
        if answer == Answer::Busy {
            self.due = now + RETRY;
            return Ok(0);
        }
        self.away = !self.away;
        self.due = now.max(self.due + EVERY);
        Ok(u64::from(answer == Answer::Begun))
    }
}

/// What a server answers to `slabs reassign`.
#[derive(Debug, PartialEq)]
enum Answer {
    Begun,
    /// The last move is not at its end.
    Busy,
    /// The class has no page to give.
    NoSpare,
}

impl Answer {
    fn of(line: &[u8]) -> Result<Answer, String> {
        match line.split(|byte| *byte == b' ').next() {
            Some(b"OK") => Ok(Answer::Begun),
            Some(b"BUSY") => Ok(Answer::Busy),
            Some(b"NOSPARE") => Ok(Answer::NoSpare),
            _ => Err(format!("slabs reassign: {}", String::from_utf8_lossy(line))),
        }
    }
}

/// A set of value number `number` of the other class, without a reply.
fn set(number: u64) -> Vec<u8> {
    let mut set = format!("set other:{number} 0 0 {VALUE_SIZE} noreply\r\n").into_bytes();
    set.resize(set.len() + VALUE_SIZE, b'x');
    set.extend_from_slice(b"\r\n");
    set
}

fn reassign(classes: Classes, away: bool) -> String {
    let Classes { load, other } = classes;
    let (from, to) = if away { (load, other) } else { (other, load) };
    format!("slabs reassign {from} {to}\r\n")
}

/// The classes of a server that is full of the load's items. Stores some values of the other class, and turns off moves
/// that nobody has asked for.
pub fn classes(server: &Server) -> Result<Classes, String> {
    let answer = server.ask("slabs automove 0").unwrap_or_default();
    if answer != "OK" {
        return Err(format!("slabs automove 0: {answer}"));
    }
    let before = server.numbers("stats items").map_err(|error| format!("stats items: {error}"))?;
    let sets: Vec<u8> = (0..STORED).flat_map(set).collect();
    server.tell(&sets).map_err(|error| format!("values of another class: {error}"))?;
    let after = server.numbers("stats items").map_err(|error| format!("stats items: {error}"))?;
    find(&items(&before), &items(&after)).ok_or_else(|| "stats items shows no other class".into())
}

/// The number of items of each class.
fn items(statistics: &[(String, u64)]) -> BTreeMap<u32, u64> {
    let number = |(name, count): &(String, u64)| {
        let class = name.strip_prefix("items:")?.strip_suffix(":number")?.parse().ok()?;
        Some((class, *count))
    };
    statistics.iter().filter_map(number).collect()
}

fn find(before: &BTreeMap<u32, u64>, after: &BTreeMap<u32, u64>) -> Option<Classes> {
    let (load, _) = before.iter().max_by_key(|(_, count)| **count)?;
    let other = after.iter().find(|(class, count)| **class != *load && before.get(class).unwrap_or(&0) < *count);
    other.map(|(other, _)| Classes { load: *load, other: *other })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_class_is_the_one_that_has_grown() {
        let statistics = |text: &str| -> BTreeMap<u32, u64> {
            let pairs = text.lines().filter_map(|line| line.split_once(' '));
            items(&pairs.map(|(name, count)| (name.to_owned(), count.parse().expect("a number"))).collect::<Vec<_>>())
        };
        let before = statistics("items:1:number 3\nitems:1:age 9\nitems:4:number 1000\nitems:4:number_hot 9");
        assert_eq!(before, BTreeMap::from([(1, 3), (4, 1000)]));
        let after = statistics("items:1:number 3\nitems:4:number 1001\nitems:12:number 64");
        let classes = find(&before, &after).expect("there is one");
        assert_eq!(classes, Classes { load: 4, other: 12 });
        assert_eq!(reassign(classes, true), "slabs reassign 4 12\r\n");
        assert_eq!(reassign(classes, false), "slabs reassign 12 4\r\n");
        assert_eq!(find(&before, &before), None);
    }

    #[test]
    fn a_move_begins_or_not_yet_or_cannot() {
        assert_eq!(Answer::of(b"OK"), Ok(Answer::Begun));
        assert_eq!(Answer::of(b"BUSY currently processing reassign request"), Ok(Answer::Busy));
        assert_eq!(Answer::of(b"NOSPARE source class has no spare pages"), Ok(Answer::NoSpare));
        assert!(Answer::of(b"CLIENT_ERROR slab reassignment disabled").is_err_and(|why| why.contains("disabled")));
    }
}
