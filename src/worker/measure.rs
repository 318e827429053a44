//! What a worker does to measure: it records the times of each service, notes requests that take too long, and samples
//! the memory of its shards.

use super::Worker;
use super::session::Late;
use crate::clock::Moment;
use crate::measure::latency::Tally;
use crate::measure::slow::Slow;
use crate::protocol::Verb;
use crate::protocol::administration::AdminCommand;
use crate::protocol::parser::Parser;
use std::time::{Duration, Instant, SystemTime};

/// The places of memory that a worker looks at in a second, in each of its shards.
const MEMORY_SAMPLES: usize = 64;
impl Worker<'_> {
    /// Records the operations of the service that has just ended. The replies have left, unless they wait for other shards.
    #[inline]
    pub(super) fn measure_service(&mut self, token: usize) {
        let tally = std::mem::take(&mut self.serve.shards.tally);
        if !self.meter.is_on {
            return;
        }
        let now = Moment::now();
        let began = std::mem::replace(&mut self.meter.last, now);
        let session = &mut self.connections[token].session;
        if session.pending.is_waiting() || session.late.is_some() {
            self.measure_late(token, &tally, began);
        } else if !tally.is_empty() {
            self.record(token, &tally, began, now);
        }
        self.serve.shards.long_key.clear();
        self.meter.bytes_written = self.counters().bytes_written.get();
        self.meter.input_len = 0;
    }

    #[inline]
    fn record(&self, token: usize, tally: &Tally, began: Moment, now: Moment) {
        let latency = &self.meter.measures.latency;
        let (service, wait) = (now.nanos_since(began), began.nanos_since(self.meter.turn_began));
        latency.record(tally, service);
        latency.wait.record(wait, 1);
        if !self.connections[token].outbox.is_empty() {
            latency.replies_blocked.add(1);
        }
        if service >= self.meter.slow_nanos {
            self.note_slow(token, tally, service, wait);
        }
    }

    /// Keeps the operations of a connection until all their replies have left, or records those that have.
    #[cold]
    fn measure_late(&mut self, token: usize, tally: &Tally, began: Moment) {
        let session = &mut self.connections[token].session;
        let late = session.late.get_or_insert_with(|| Box::new(Late { tally: Tally::default(), since: began }));
        late.tally.append(tally);
        if session.pending.is_waiting() {
            return;
        }
        let late = session.late.take().expect("it is there");
        if !late.tally.is_empty() {
            self.record(token, &late.tally, late.since, self.meter.last);
        }
    }

    /// Notes that the requests of a connection have taken too long.
    #[cold]
    #[inline(never)]
    fn note_slow(&self, token: usize, tally: &Tally, service: u64, wait: u64) {
        let measures = self.meter.measures;
        measures.latency.slow_requests.add(1);
        let session = &self.connections[token].session;
        let shows = session.shows_keys() && !matches!(session.parser(), Parser::Login(_) | Parser::Undecided);
        let input = if shows { &self.buffer[..self.meter.input_len] } else { &[] };
        let (mut word, mut key) = first_command(input);
        let long_key = self.serve.shards.long_key.as_slice();
        if word.is_empty() && shows && !long_key.is_empty() {
            // The command came in an earlier turn.
            (word, key) = (b"set", long_key);
        }
        // `stats reset` may have come between.
        let bytes = self.counters().bytes_written.get().saturating_sub(self.meter.bytes_written);
        measures.slow.lock().push(Slow {
            time: SystemTime::now(),
            service: Duration::from_nanos(service),
            wait: Duration::from_nanos(wait),
            kind: tally.main_kind(),
            operations: tally.total(),
            bytes,
            connection: session.fd,
            command: word.to_vec(),
            key: key.to_vec(),
            hash: self.options.hasher.hash(key),
        });
    }

    /// Samples the memory of the shards of this worker, once a second, and ends windows that are over.
    pub(super) fn sample_memory(&mut self) {
        let Some(samples) = self.serve.sampler.samples else { return };
        let Some(mut samples) = samples.try_lock() else { return };
        samples.rotate(Instant::now());
        let random = &mut self.serve.sampler.random;
        self.serve.shards.for_own_stores(|stores| {
            let page_bytes: u64 = stores.iter().map(|store| store.page_bytes()).sum();
            let keys = stores.iter().flat_map(|store| {
                let weight = store.page_bytes() as f64 / MEMORY_SAMPLES as f64;
                std::iter::repeat_n((*store, weight), MEMORY_SAMPLES)
            });
            samples
                .add_memory(keys.map(|(store, weight)| (store.key_at_random(next_random(random)), weight)), page_bytes);
        });
    }
}

/// The word and the key of the command that an input begins with, if there is a whole line, or the head of a packet. The word
/// is empty if it is none of the protocol's: it may be a part of a value or of a secret.
fn first_command(input: &[u8]) -> (&[u8], &[u8]) {
    if let [0x80, _, high, low, extras, ..] = *input {
        let start = 24 + usize::from(extras);
        let len = usize::from(u16::from_be_bytes([high, low]));
        return (b"binary", input.get(start..start + len).unwrap_or_default());
    }
    let Some(end) = memchr::memchr(b'\n', input) else { return (b"", b"") };
    let mut words = input[..end].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let word = words.next().unwrap_or_default();
    match Verb::OF_TEXT.into_iter().find(|verb| verb.word().as_bytes() == word) {
        // The exptime comes before the key.
        Some(verb) if verb.is_touching_retrieval() => (word, words.nth(1).unwrap_or_default()),
        Some(_) => (word, words.next().unwrap_or_default()),
        None if word == b"mn" || AdminCommand::named(word).is_some() => (word, b""),
        None => (b"", b""),
    }
}

fn next_random(state: &mut u64) -> u64 {
    // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_command_is_found() {
        let packet = [&[0x80, 0, 0, 3, 4, 0, 0, 0][..], &[0; 16], b"eeee", b"key", b"value"].concat();
        for (input, expected) in [
            (&b"get user:1 user:2\r\nget other\r\n"[..], (&b"get"[..], &b"user:1"[..])),
            (b"mn\r\n", (b"mn", b"")),
            (b"gat 100 user:3 user:4\r\n", (b"gat", b"user:3")),
            (b"stats reset\r\n", (b"stats", b"")),
            (b"password secret\r\n", (b"", b"")),
            (b"get half", (b"", b"")),
            (b"", (b"", b"")),
            (&packet, (b"binary", b"key")),
            (&packet[..25], (b"binary", b"")),
        ] {
            assert_eq!(first_command(input), expected, "{:?}", String::from_utf8_lossy(input));
        }
    }
}
