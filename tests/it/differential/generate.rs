//! Makes conversations in the classic and the meta protocol from a seed. They have only a dozen keys, so that many
//! commands use the same one. They have every command in its usual form, and with each of its parts damaged in turn.
//!
//! Conversations leave out requests whose replies depend on the server or the moment:
//! - times to live of less than two minutes, and moments close to the present: a second may pass in between;
//! - adding to numbers of 2^63 and more: memcached looks for a `-` up to the next NUL, even after the value. So the
//!   largest number to begin with is [`LARGEST`], and no command adds digits to it;
//! - a `flush_all` now and a later one in the same conversation: for memcached, the later one undoes the first;
//! - lines longer than a server waits for, except lists of keys: it is chance whether a newline comes in time;
//! - an opaque that is too long for `ma`: memcached executes the command before it complains;
//! - `T` with `ma`: if the number gets longer, memcached gives the time to the old item.
//!
//! For 1.6.18 alone, conversations also leave out a valid `md … x`, and an opaque that is too long for `mg`, as for
//! `ma`.

use super::compare;
use super::differences::STANDS_FOR_NUL;
use super::frame::KEY_MAX;
use super::minimise;
use super::random::Random;
use crate::client::shown;

pub(super) type Conversation = minimise::Conversation<Piece>;

/// A request, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece(pub(super) Vec<Part>);

/// Bytes, or a number that the test knows only when it sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Bytes(Vec<u8>),
    /// The latest CAS value of a key that this server sent, plus an offset.
    Cas {
        key: Vec<u8>,
        offset: i64,
    },
    /// A Unix time, this many seconds from now.
    Unix(i64),
}

impl Piece {
    /// The piece in readable form.
    pub(super) fn shown(&self) -> String {
        let parts = joined(&self.0);
        let texts = parts.iter().map(|part| match part {
            Part::Bytes(bytes) => shown(bytes),
            Part::Cas { key, offset } => format!("<CAS of {} {offset:+}>", shown(key)),
            Part::Unix(offset) => format!("<now {offset:+}>"),
        });
        texts.collect::<Vec<_>>().join(" ")
    }
}

/// The same parts, with successive bytes joined into one part.
fn joined(parts: &[Part]) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Bytes(bytes)), Part::Bytes(more)) => bytes.extend_from_slice(more),
            _ => joined.push(part.clone()),
        }
    }
    joined
}

/// The kinds of requests that a conversation may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Commands that compute, and commands that empty the cache now. With these, servers run without LRU maintainer.
    /// memcached's maintainer puts old items before new ones, but a flush looks for items of this very second and stops
    /// at the first older one.
    pub(super) arithmetic: bool,
    /// Requests that only 1.6.45 can answer.
    pub(super) newest: bool,
}

/// Most commands that the client sends at once.
const BURST_MAX: usize = 60;

/// Longer lines stay undamaged. Only a list of keys may be that long, and damage could turn it into another command.
const DAMAGED_LINE_MAX: usize = 1_500;

/// 2^62, half of the largest signed number.
const LARGEST: &[u8] = b"4611686018427387904";

/// The first CAS value that a request sets (`E`). Servers never choose a value as large as this.
const EXPLICIT_CAS: u64 = 1_000_000_000_000;

pub(super) fn conversation(seed: u64, commands: usize, scope: Scope) -> Conversation {
    let mut generator = Generator::new(seed, scope);
    let mut bursts = Vec::new();
    let mut count = 0;
    while count < commands {
        let most = *generator.random.mostly(70, 1, &[8, BURST_MAX]);
        let len = 1 + generator.random.below(most);
        generator.damaged = false;
        bursts.push((0..len).map(|_| generator.piece()).collect());
        count += len;
    }
    bursts
}

/// Commands for the administrator. Their replies do not depend on earlier requests.
const LINES: &str = "
    version | version now | verbosity 0 | verbosity 1 | verbosity 0 noreply | verbosity | verbosity x |
    verbosity 1 2 3 | verbosity noreply | cache_memlimit | cache_memlimit 1 | cache_memlimit 0 |
    cache_memlimit x | cache_memlimit 2000000000 | cache_memlimit 1024 | cache_memlimit 1 noreply |
    cache_memlimit 1024 noreply | slabs | slabs x | slabs reassign | slabs reassign 1 |
    slabs reassign 1 1 | slabs reassign 1 99 | slabs reassign -2 1 | slabs reassign x 1 |
    slabs reassign 1 2 3 | slabs automove | slabs automove 0 | slabs automove x | slabs automove 3 |
    slabs automove 0 noreply | slabs automove ratio 0.8 | slabs automove ratio | slabs automove ratio x |
    slabs automove window 20 | slabs automove freeratio 0.1 | lru | lru tune | lru tune 20 40 0.2 2.0 |
    lru tune 50 50 0.2 2.0 | lru tune 20 40 0 2.0 | lru tune x 40 0.2 2.0 | lru tune 20 40 0.2 |
    lru mode | lru mode segmented | lru mode x | lru temp_ttl | lru temp_ttl -1 | lru temp_ttl x | lru x |
    lru_crawler | lru_crawler x | lru_crawler enable x | lru_crawler sleep | lru_crawler sleep 100 |
    lru_crawler sleep x | lru_crawler sleep 2000000 | lru_crawler tocrawl 0 | lru_crawler tocrawl x |
    lru_crawler crawl | lru_crawler crawl x | lru_crawler crawl 0 | lru_crawler crawl 99 |
    lru_crawler crawl 1,x | shutdown | shutdown graceful | shutdown x | stats reset | stats settings |
    stats | stats x | stats detail | stats detail x | stats detail on | stats detail off | stats sizes |
    stats cachedump | stats cachedump 1 | stats cachedump x 1 | stats cachedump 200 1 | stats items |
    stats slabs | stats set | stats re | stats noreply | misbehave | mn | mn now | mn noreply";

/// Commands that empty the cache now. A command that occurs twice is twice as likely.
const FLUSHES: &str = "
    flush_all | flush_all | flush_all 0 | flush_all -1 | flush_all noreply | flush_all x |
    flush_all 0 noreply | flush_all 0 0 0 | flush_all x noreply | flush_all 99999999999";

/// Flushes at a time after the end of a conversation. A time before the server started means never.
const LATER: &str = "flush_all 1000 | flush_all 5000 noreply | flush_all 2147483647 | flush_all 200 |
    flush_all 2592001 | flush_all 1000000000 noreply";

pub(super) struct Generator {
    random: Random,
    pub(super) keys: Vec<Vec<u8>>,
    explicit_cas: u64,
    /// Whether the burst has a damaged request. A server may then read a later request as a value, so its length must
    /// be known.
    damaged: bool,
    scope: Scope,
    /// Percentage of requests that are damaged.
    damage: usize,
    /// Whether requests set CAS values (`E`).
    explicit: bool,
    /// Whether some values are large.
    large: bool,
    /// Whether a flush empties the cache now and not later.
    flushes: bool,
}

/// The words of a request. Each consists of parts.
type Words = Vec<Vec<Part>>;

fn word(text: impl AsRef<[u8]>) -> Vec<Part> {
    vec![Part::Bytes(text.as_ref().to_vec())]
}

impl Generator {
    pub(super) fn new(seed: u64, scope: Scope) -> Generator {
        let mut random = Random::new(seed);
        let mut keys: Vec<Vec<u8>> = vec![b"a".to_vec(), b"n".to_vec(), b"Zm9v".to_vec(), b"foo".to_vec()];
        for length in [2, 7, 8, 9, 30, 249, KEY_MAX] {
            keys.push(key(&mut random, length));
        }
        let length = 1 + random.below(KEY_MAX);
        keys.push(key(&mut random, length));
        let kept = 3 + random.below(keys.len() - 3);
        while keys.len() > kept {
            keys.remove(random.below(keys.len()));
        }
        let damage = *random.one_of(&[0, 5, 20, 50]);
        let (explicit, large, flushes) = (random.percent(50), random.percent(20), random.percent(50));
        let flushes = flushes && scope.arithmetic;
        Generator { random, keys, explicit_cas: EXPLICIT_CAS, damaged: false, scope, damage, explicit, large, flushes }
    }

    fn piece(&mut self) -> Piece {
        match self.random.below(100) {
            0..24 => self.storage(),
            24..38 => self.retrieval(),
            38..46 if self.scope.arithmetic => self.arithmetic(),
            86..94 if !self.scope.arithmetic => self.storage(),
            38..46 => self.retrieval(),
            46..52 => self.touch_or_delete(),
            52..66 => self.meta_get(),
            66..80 => self.meta_set(),
            80..86 => self.meta_delete(),
            86..94 => self.meta_arithmetic(),
            94..96 => self.meta_debug(),
            96..99 => self.admin(),
            _ => self.nonsense(),
        }
    }

    fn storage(&mut self) -> Piece {
        let command = *self.random.one_of(&["set", "set", "add", "replace", "append", "prepend", "cas"]);
        let mut value = self.value();
        if value == LARGEST && matches!(command, "append" | "prepend") {
            value = b"5".to_vec();
        }
        let key = self.key();
        let mut words = vec![word(command), word(&key), word(self.client_flags()), self.exptime()];
        words.push(word(value.len().to_string()));
        if command == "cas" {
            words.push(self.cas(&key));
        }
        if self.random.percent(12) {
            words.push(word("noreply"));
        }
        self.with_value(words, 4, value)
    }

    fn retrieval(&mut self) -> Piece {
        let command = *self.random.one_of(&["get", "get", "gets", "gets", "gat", "gats"]);
        let mut words = vec![word(command)];
        if command.starts_with("gat") {
            words.push(self.exptime());
        }
        match self.random.below(20) {
            0 if !command.starts_with("gat") => {
                let count = 25 + self.random.below(40);
                words.extend((0..count).map(|_| word(self.random.one_of(&self.keys))));
            }
            0..8 => words.extend((0..2 + self.random.below(5)).map(|_| word(self.key()))),
            _ => words.push(word(self.key())),
        }
        self.line(words)
    }

    fn arithmetic(&mut self) -> Piece {
        let mut words = vec![word(*self.random.one_of(&["incr", "decr"])), word(self.key()), word(self.number())];
        if self.random.percent(12) {
            words.push(word("noreply"));
        }
        self.line(words)
    }

    fn touch_or_delete(&mut self) -> Piece {
        let mut words = vec![word("delete"), word(self.key())];
        match self.random.below(10) {
            0 => words.push(word("0")),
            1 => words.push(word(*self.random.one_of(&["1", "x", "-1", "00", "NOREPLY"]))),
            2..6 => {
                words[0] = word("touch");
                words.push(self.exptime());
            }
            _ => {}
        }
        if self.random.percent(12) {
            words.push(word("noreply"));
        }
        self.line(words)
    }

    fn meta_get(&mut self) -> Piece {
        let (key, mut flags) = self.meta_key();
        let name = compare::name(&key, !flags.is_empty());
        for letter in ["v", "v", "t", "f", "c", "s", "k", "h", "l", "q", "u", "x", "I"] {
            let likely = if matches!(letter, "x" | "I") { 1 } else { 22 };
            if self.random.percent(likely) {
                flags.push(word(letter));
            }
        }
        for letter in ["T", "N"] {
            if self.random.percent(8) {
                flags.push(self.with_argument(letter, Generator::exptime));
            }
        }
        if self.random.percent(8) {
            flags.push(self.with_argument("R", Generator::recache));
        }
        if self.random.percent(6) {
            flags.push(self.with_argument("C", |this| this.cas(&name)));
        }
        self.sometimes_explicit(3, &mut flags);
        self.opaque(if self.scope.newest { 40 } else { 31 }, &mut flags);
        self.meta("mg", key, None, flags)
    }

    fn meta_set(&mut self) -> Piece {
        let (key, mut flags) = self.meta_key();
        let name = compare::name(&key, !flags.is_empty());
        let value = Some(self.value()).filter(|value| value != LARGEST).unwrap_or_else(|| b"99".to_vec());
        for letter in ["c", "k", "q", "s", "I", "x"] {
            let likely = match letter {
                "x" => 1,
                // If a request has set one of two CAS values, the servers may disagree about which one is older.
                "I" if self.explicit => 0,
                _ => 12,
            };
            if self.random.percent(likely) {
                flags.push(word(letter));
            }
        }
        if self.random.percent(20) {
            flags.push(self.with_argument("T", Generator::exptime));
        }
        if self.random.percent(20) {
            flags.push(self.with_argument("F", |this| word(this.client_flags())));
        }
        if self.random.percent(60) {
            let modes = ["S", "E", "A", "P", "R", "A", "P", "s", "e", "", "EX", "!", "9", "I"];
            let mode = *self.random.mostly(80, 7, &modes);
            flags.push(word(format!("M{mode}")));
        }
        if self.random.percent(25) {
            flags.push(self.with_argument("C", |this| this.cas(&name)));
        } else if self.random.percent(15) {
            flags.push(self.with_argument("N", Generator::exptime));
        }
        // The size of a stale item is only in a reply that also tells the client to recache it.
        if flags.contains(&word("I")) {
            flags.retain(|flag| *flag != word("s"));
        }
        self.sometimes_explicit(8, &mut flags);
        // This request has two errors. The servers must report the same one.
        if value.len() > 1_000_000 && self.random.percent(20) {
            flags.push(word(format!("O{}", "o".repeat(39))));
        }
        self.opaque(40, &mut flags);
        self.meta("ms", key, Some(value), flags)
    }

    fn meta_delete(&mut self) -> Piece {
        let (key, mut flags) = self.meta_key();
        let name = compare::name(&key, !flags.is_empty());
        for letter in ["q", "k", "I", "I", "s", "v", "x"] {
            if self.random.percent(15) {
                flags.push(word(letter));
            }
        }
        if self.random.percent(30) {
            flags.push(self.with_argument("T", Generator::exptime));
        }
        if self.random.percent(25) {
            flags.push(self.with_argument("C", |this| this.cas(&name)));
        }
        self.sometimes_explicit(8, &mut flags);
        self.opaque(40, &mut flags);
        self.meta("md", key, None, flags)
    }

    fn meta_arithmetic(&mut self) -> Piece {
        let (key, mut flags) = self.meta_key();
        let name = compare::name(&key, !flags.is_empty());
        for letter in ["v", "v", "c", "t", "k", "q"] {
            if self.random.percent(22) {
                flags.push(word(letter));
            }
        }
        if self.random.percent(25) {
            flags.push(self.with_argument("N", Generator::exptime));
        }
        for letter in ["D", "J"] {
            if self.random.percent(30) {
                flags.push(self.with_argument(letter, |this| word(this.number())));
            }
        }
        if self.random.percent(40) {
            let modes = ["I", "D", "+", "-", "i", "d", "", "DX", "A"];
            let mode = *self.random.mostly(85, 4, &modes);
            flags.push(word(format!("M{mode}")));
        }
        if self.random.percent(15) {
            flags.push(self.with_argument("C", |this| this.cas(&name)));
        }
        self.sometimes_explicit(8, &mut flags);
        self.opaque(31, &mut flags);
        self.meta("ma", key, None, flags)
    }

    fn meta_debug(&mut self) -> Piece {
        let (key, mut flags) = self.meta_key();
        if self.random.percent(30) {
            flags.push(word(*self.random.one_of(&["v", "b", "q", "x1"])));
        }
        self.meta("me", key, None, flags)
    }

    /// A key as the client sends it, and the flag `b` if it is in base64.
    fn meta_key(&mut self) -> (Vec<u8>, Words) {
        match self.random.below(10) {
            0 => {
                let key = self.key();
                let key = if key.len() > KEY_MAX / 4 * 3 || key.contains(&0) { b"foo".to_vec() } else { key };
                (base64(&key), vec![word("b")])
            }
            1 if self.random.percent(30) => {
                let keys = ["Zm9v", "Zm9", "Zg==", "Zg=", "====", "!!!!", "Zm9vZm9v", "YSBi", "AAAA", "CgoK", "a b"];
                (self.random.one_of(&keys).as_bytes().to_vec(), vec![word("b")])
            }
            _ => (self.key(), Vec::new()),
        }
    }

    fn with_argument(&mut self, letter: &str, argument: impl FnOnce(&mut Generator) -> Vec<Part>) -> Vec<Part> {
        let mut parts = word(letter);
        if !self.random.percent(self.damage / 10) {
            parts.extend(argument(self));
        }
        parts
    }

    fn sometimes_explicit(&mut self, percent: usize, flags: &mut Words) {
        if self.explicit && self.random.percent(percent) {
            // Each value occurs once, so that it identifies the value it belongs to.
            self.explicit_cas += 1;
            let cas = if self.random.percent(self.damage / 5) { "x".to_owned() } else { self.explicit_cas.to_string() };
            flags.push(word(format!("E{cas}")));
        }
    }

    fn opaque(&mut self, longest: usize, flags: &mut Words) {
        if self.random.percent(15) {
            let length = (*self.random.mostly(80, 5, &[0, 1, 5, 20, 31, 32, 40])).min(longest);
            flags.push(word([b"O", &"o1=O".repeat(10).as_bytes()[..length]].concat()));
        }
    }

    /// A meta command with its flags in random order. Some flags occur twice or are unknown.
    fn meta(&mut self, command: &str, key: Vec<u8>, value: Option<Vec<u8>>, mut flags: Words) -> Piece {
        for at in 0..flags.len() {
            let with = self.random.below(flags.len());
            flags.swap(at, with);
        }
        let mut seen = Vec::new();
        flags.retain(|flag| {
            let Part::Bytes(bytes) = &flag[0] else { return true };
            let is_new = !seen.contains(&bytes[0]);
            seen.push(bytes[0]);
            is_new
        });
        if self.random.percent(self.damage / 4) {
            let odd = ["z", "v", "k", "q", "Z", "S", "!", "=1", "\u{ff}", "_", "[", "0", "9x", "P", "Lx", "i", "-"];
            let at = self.random.below(flags.len() + 1);
            for _ in 0..1 + self.random.below(2) {
                flags.insert(at, word(*self.random.one_of(&odd)));
            }
        }
        if self.random.percent(self.damage / 20) {
            for number in 0..10 + self.random.below(14) {
                flags.push(word(format!("{}", (b'a' + number as u8) as char)));
            }
        }
        // 1.6.18 cannot get `x` with `md`. See the list at the top of this file.
        if command == "md" && !self.scope.newest {
            flags.retain(|flag| !matches!(&flag[0], Part::Bytes(bytes) if bytes[0] == b'x'));
        }
        let mut words = vec![word(command), word(key)];
        match value {
            Some(value) => {
                words.push(word(value.len().to_string()));
                words.extend(flags);
                self.with_value(words, 2, value)
            }
            None => {
                words.extend(flags);
                self.line(words)
            }
        }
    }

    fn admin(&mut self) -> Piece {
        let lines = match (self.random.percent(25), self.flushes) {
            (true, true) => FLUSHES,
            (true, false) => LATER,
            (false, _) => LINES,
        };
        let lines: Vec<&str> = lines.split('|').map(str::trim).collect();
        let line = *self.random.one_of(&lines);
        if self.random.percent(self.damage / 5) {
            return self.line(line.split(' ').map(word).collect());
        }
        Piece(word(format!("{line}\r\n")))
    }

    /// Lines that are no command, or that end the connection.
    fn nonsense(&mut self) -> Piece {
        let length = 1 + self.random.below(40);
        let junk = match self.random.below(12) {
            0 => b"\r\n".to_vec(),
            1 => b"\n".to_vec(),
            2 => b" \r\n".to_vec(),
            3 => b"x\n".to_vec(),
            4 => {
                let mut junk = self.random.bytes(length);
                junk.push(b'\n');
                // The first byte of a binary request is 0x80.
                junk[0] &= 0x7f;
                junk
            }
            5 => b"quit\r\n".to_vec(),
            6 => b"quit now\r\n".to_vec(),
            7 => b"GET / HTTP/1.1\r\n".to_vec(),
            8 => b"bogus noreply\r\n".to_vec(),
            9 => [&b"get "[..], &b"nothing ".repeat(300 + length)[..], b"\r\n"].concat(),
            10 => [&b"bogus "[..], &b"x".repeat(length * 30)[..], b"\r\n"].concat(),
            _ => [&b"get"[..], &b" ".repeat(length)[..], b"a\r\n"].concat(),
        };
        self.damaged = true;
        Piece(word(junk))
    }

    /// One of the keys, or a key that no server has. Some are too long.
    fn key(&mut self) -> Vec<u8> {
        match self.random.below(200) {
            0..4 => {
                let length = KEY_MAX + 1 + self.random.below(10);
                key(&mut self.random, length)
            }
            4..20 => b"nothing".to_vec(),
            20 => b"noreply".to_vec(),
            _ => self.random.one_of(&self.keys).clone(),
        }
    }

    fn client_flags(&mut self) -> String {
        let flags = ["0", "1", "5", "65535", "65536", "4294967295", "4294967296", "4294967297", "-1", "x", "1x", ""];
        let odd = self.random.percent(self.damage / 5);
        self.damaged |= odd;
        (*self.random.one_of(if odd { &flags } else { &flags[..6] })).to_owned()
    }

    /// An expiry time that is long past or far ahead, 0, or no valid number.
    fn exptime(&mut self) -> Vec<Part> {
        let times = ["0", "0", "0", "1000", "5000", "100000", "2592000", "-1", "-100", "2147483647", "200"];
        let odd = ["x", "1x", "", "1.5", "+1000", "-2147483648", "99999999999", "-0", "9223372036854775807", "1000\t"];
        match self.random.below(100) {
            0..4 => vec![Part::Unix(*self.random.one_of(&[-100_000, -1000, 1000, 100_000]))],
            4..8 if self.damage > 0 => {
                self.damaged = true;
                word(*self.random.one_of(&odd))
            }
            _ => word(*self.random.one_of(&times)),
        }
    }

    /// A time that is much longer or much shorter than the time left to any item.
    fn recache(&mut self) -> Vec<Part> {
        let times = ["0", "300", "3000", "50000", "2000000", "-1", "x", "1x", "+300", "99999999999"];
        word(*self.random.mostly(90, 6, &times))
    }

    fn number(&mut self) -> String {
        let numbers = ["1", "1", "2", "10", "99", "0", "100000", "4294967296", "1000000000000"];
        let odd = ["x", "-1", "+1", "1x", "", "18446744073709551616", "1.5", "007", "99999999999999999999999"];
        let odd = self.random.percent(self.damage / 5).then_some(odd);
        self.damaged |= odd.is_some();
        (*self.random.one_of(odd.as_ref().unwrap_or(&numbers))).to_owned()
    }

    /// A CAS value that the server has sent, a number near it, or another one.
    fn cas(&mut self, key: &[u8]) -> Vec<Part> {
        let odd = ["x", "-1", "", "1x", "18446744073709551616", "99999999999999999999999", "+"];
        if self.random.percent(self.damage / 5) {
            self.damaged = true;
            return word(*self.random.one_of(&odd));
        }
        if self.damaged {
            return word(*self.random.one_of(&["0", "18446744073709551615"]));
        }
        let offset = *self.random.one_of(&[0, 0, 0, 0, 0, 0, -1, 1_000_000]);
        vec![Part::Cas { key: key.to_vec(), offset }]
    }

    pub(super) fn value(&mut self) -> Vec<u8> {
        let mut value = self.any_value();
        value.iter_mut().filter(|byte| **byte == STANDS_FOR_NUL).for_each(|byte| *byte = b'_');
        // If a value is all blanks, memcached looks for a number in the bytes after it.
        if let Some(last) = value.last_mut().filter(|last| matches!(last, b' ' | b'\t'..=b'\r')) {
            *last = b'_';
        }
        value
    }

    fn any_value(&mut self) -> Vec<u8> {
        let numbers: [&[u8]; 14] = [
            b"5",
            b"10",
            b"0",
            b"99",
            LARGEST,
            b"18446744073709551616",
            b"-1",
            b"+1",
            b" 7",
            b"7 x",
            b"007",
            b"1.5",
            b"12345678901234567890123",
            b"1\r\n.",
        ];
        let texts: [&[u8]; 9] =
            [b"", b"hello", b"\0", b"\r\n.", b"set a 0 0 1\r\nx", b"END\r\n.", b"get a", b"{\"a\":1}", b"\xff\xfe"];
        match self.random.below(100) {
            0..40 => self.random.one_of(&numbers).to_vec(),
            40..75 => self.random.one_of(&texts).to_vec(),
            75..92 => {
                let length = self.random.below(300);
                self.random.bytes(length)
            }
            92..99 => {
                let most = if self.random.percent(20) { 70_000 } else { 5_000 };
                let length = self.random.below(most);
                self.random.bytes(length)
            }
            _ if self.large => {
                // Some values have about the largest size that the server stores, to the byte. Others need more than
                // one chunk.
                let length = match self.random.below(8) {
                    0..2 => 1_048_576 - 59 - self.random.below(20),
                    2..4 => 1_048_576 - 59 - self.random.below(280),
                    4 => 1_048_576 + self.random.below(100_000),
                    _ => 300_000 + self.random.below(700_000),
                };
                vec![b'0' + self.random.below(10) as u8; length]
            }
            _ => b"z".repeat(2_000),
        }
    }

    /// A storage command. One of its words is the length of the value, and some of these lengths are false.
    fn with_value(&mut self, mut words: Words, length_at: usize, mut value: Vec<u8>) -> Piece {
        let mut end: &[u8] = b"\r\n";
        if self.random.percent(self.damage / 3) && value.len() < 10_000 {
            self.damaged = true;
            match self.random.below(8) {
                0 => value.push(b'!'),
                1 => value.truncate(value.len().saturating_sub(1)),
                2 => value.extend_from_slice(b"more words\r\nget a"),
                3 => end = b"\n",
                4 => end = b"",
                5 => end = b"\r\r",
                6 => {
                    let lengths = ["-1", "x", "", "1x", "+5", "005", "-0", "2147483645", "2147483646", "4294967296"];
                    let odd = ["99999999999999999999999", "00000000000005", "5\t", "0", "7"];
                    let length =
                        if self.random.percent(70) { self.random.one_of(&lengths) } else { self.random.one_of(&odd) };
                    // No conversation sends a value of this length.
                    let length = if *length == "2147483645" { "20000" } else { length };
                    words[length_at] = word(length);
                    numbers_for_all(&mut words);
                }
                _ => words[length_at] = word((value.len() + self.random.below(30)).to_string()),
            }
        }
        let Piece(mut parts) = self.line(words);
        parts.push(Part::Bytes([&value, end].concat()));
        Piece(parts)
    }

    /// Joins words to a line. Damages some of the lines.
    fn line(&mut self, mut words: Words) -> Piece {
        let mut separator: &[u8] = b" ";
        let mut start: &[u8] = b"";
        let mut end: &[u8] = b"\r\n";
        let bytes = words.iter().flatten().map(|part| if let Part::Bytes(bytes) = part { bytes.len() + 1 } else { 0 });
        if bytes.sum::<usize>() < DAMAGED_LINE_MAX && self.random.percent(self.damage / 2) {
            self.damaged = true;
            numbers_for_all(&mut words);
            let at = self.random.below(words.len());
            match self.random.below(16) {
                0 | 1 => drop(words.remove(at)),
                2 => words.truncate(at),
                3 => words.insert(at, words[at].clone()),
                4 => words.push(word(*self.random.one_of(&["noreply", "x", "0", "NOREPLY", "noreply more"]))),
                5 => words.insert(at, word("noreply")),
                6 => {
                    let odd = ["x", "-1", "99999999999", "\0", "+1", "1\t", "1\0", "\x0b1"];
                    words[at] = word(*self.random.one_of(&odd));
                }
                7 => words.extend((0..1 + self.random.below(30)).map(|_| word("y"))),
                8 => separator = b"  ",
                9 => start = *self.random.one_of(&[&b" "[..], b"   ", b"\t"]),
                10 => end = *self.random.one_of(&[&b" \r\n"[..], b"   \n", b"\r\r\n", b" noreply \r\n"]),
                11 => end = b"\n",
                12 => {
                    let with = self.random.below(words.len());
                    words.swap(at, with);
                }
                13 => separator = b"\t",
                14 => {
                    let Part::Bytes(command) = &mut words[0][0] else { unreachable!("a command is known") };
                    match self.random.below(3) {
                        0 => command.make_ascii_uppercase(),
                        1 => command.push(b'x'),
                        _ => drop(command.pop()),
                    }
                }
                _ => end = b"",
            }
        }
        // Damage may not make a valid `md … x` either.
        if words.first() == Some(&word("md")) && !self.scope.newest {
            let is_x = |word: &Vec<Part>| matches!(&word[0], Part::Bytes(bytes) if bytes.first() == Some(&b'x'));
            words.iter_mut().skip(2).filter(|flag| is_x(flag)).for_each(|flag| *flag = word("z"));
        }
        let mut parts = word(start);
        for (index, word) in words.into_iter().enumerate() {
            if index > 0 {
                parts.push(Part::Bytes(separator.to_vec()));
            }
            parts.extend(word);
        }
        parts.push(Part::Bytes(end.to_vec()));
        Piece(parts)
    }
}

/// Replaces CAS values and times by 0. The CAS values differ between the servers, so they may not become a length. A
/// time as a length would be gigabytes.
fn numbers_for_all(words: &mut Words) {
    let parts = words.iter_mut().flatten().filter(|part| !matches!(part, Part::Bytes(_)));
    parts.for_each(|part| *part = Part::Bytes(b"0".to_vec()));
}

/// A key of this length, of letters or of any bytes that a key may have. [`STANDS_FOR_NUL`] is not among them.
fn key(random: &mut Random, length: usize) -> Vec<u8> {
    let any = random.percent(40);
    let byte = |random: &mut Random| match random.bytes(1)[0] {
        b' ' | b'\n' | STANDS_FOR_NUL => b'_',
        byte if any => byte,
        byte => b'a' + byte % 26,
    };
    let mut key: Vec<u8> = (0..length).map(|_| byte(random)).collect();
    // A key may not end in `\r`, because the line may end after it.
    if let Some(last) = key.last_mut().filter(|last| **last == b'\r') {
        *last = b'r';
    }
    key
}

/// Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * index)) as usize % 64];
            text.push(if index > three.len() { b'=' } else { letter });
        }
    }
    text
}
