//! How a worker measures: the times of a turn (see [`crate::measure::latency`]), the requests that take too long, and the
//! sample of its operations.

use super::Worker;
use super::batch::Part;
use super::session::Late;
use crate::clock::{Clock, Moment, NEVER, Now};
use crate::config::Measuring;
use crate::hash::KeyHasher;
use crate::measure::Measures;
use crate::measure::latency::{Kind, Tally};
use crate::measure::sample::{Purpose, Sample, SampledItem};
use crate::measure::samples::{Countdown, Samples};
use crate::measure::slow::Slow;
use crate::protocol::parser::Parser;
use crate::protocol::{Operation, Verb};
use crate::store::Store;
use std::time::{Duration, Instant, SystemTime};

/// The places of memory that a worker looks at in a second, in each of its shards.
const MEMORY_SAMPLES: usize = 64;
/// The bytes of a reply beside key and value, nearly.
const REPLY_BYTES: usize = 24;
/// The bytes of a reply without a value, nearly.
const SHORT_REPLY_BYTES: usize = 8;

/// The kind of an operation. A fetch may turn out to be a miss.
#[inline]
pub(super) fn kind_of(verb: Verb) -> Kind {
    match verb {
        Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats | Verb::MetaGet | Verb::BinaryGet => Kind::GetHit,
        Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend | Verb::Cas => Kind::Set,
        Verb::MetaSet | Verb::BinarySet => Kind::Set,
        Verb::Delete | Verb::MetaDelete | Verb::BinaryDelete => Kind::Delete,
        Verb::Incr | Verb::Decr | Verb::MetaArithmetic | Verb::BinaryArithmetic => Kind::Arithmetic,
        Verb::Touch => Kind::Touch,
        Verb::MetaDebug | Verb::End | Verb::BinarySay | Verb::Say | Verb::Admin => Kind::Other,
    }
}

/// The kind of an operation that another worker may have executed, from its reply.
pub(super) fn kind_of_reply(verb: Verb, reply: Part<'_>) -> Kind {
    let bytes = &reply.reply.out.bytes()[reply.from..reply.to];
    let is_miss = match verb {
        Verb::BinaryGet => bytes.get(6..8).is_none_or(|status| status != [0, 0]),
        _ => bytes.is_empty() || bytes.starts_with(b"EN"),
    };
    match kind_of(verb) {
        Kind::GetHit if is_miss => Kind::GetMiss,
        kind => kind,
    }
}

/// The times of the turn that is under way.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    measures: &'a Measures,
    /// False with `--no-latency`.
    is_on: bool,
    /// Requests that take longer are noted.
    slow_nanos: u64,
    /// When poll returned.
    turn_began: Moment,
    /// When the last service ended.
    last: Moment,
    /// The bytes that the worker had written by then.
    bytes_written: u64,
    /// The beginning of the worker's buffer has a command at its front, of a connection that is being served: bytes.
    pub(super) input_len: usize,
}

impl<'a> Meter<'a> {
    /// A meter that records in `measures`, as `measuring` says.
    pub(super) fn new(measures: &'a Measures, measuring: &Measuring) -> Meter<'a> {
        let slow_nanos = match measuring.slow_millis {
            0 => u64::MAX,
            millis => millis * 1_000_000,
        };
        let now = Moment::now();
        Meter {
            measures,
            is_on: measuring.latency,
            slow_nanos,
            turn_began: now,
            last: now,
            bytes_written: 0,
            input_len: 0,
        }
    }

    /// Poll has returned.
    pub(super) fn begin_turn(&mut self, now: Moment) {
        (self.turn_began, self.last) = (now, now);
    }

    /// Something was done that belongs to no request.
    pub(super) fn pass(&mut self) {
        if self.is_on {
            self.last = Moment::now();
        }
    }

    /// The worker is about to wait. `has_worked`: since the last service it has done something worth a look at the clock.
    pub(super) fn end_turn(&mut self, has_worked: bool) {
        if !self.is_on {
            return;
        }
        if has_worked {
            self.last = Moment::now();
        }
        let latency = &self.measures.latency;
        let nanos = self.last.nanos_since(self.turn_began);
        latency.turn.record(nanos, 1);
        latency.busy_nanos.add(nanos);
        latency.turns.add(1);
    }
}

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
        let (word, key) = first_command(input);
        let bytes = self.counters().bytes_written.get() - self.meter.bytes_written;
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

/// The word and the key of the command that an input begins with, if there is a whole line, or the head of a packet.
fn first_command(input: &[u8]) -> (&[u8], &[u8]) {
    if let [0x80, _, high, low, extras, ..] = *input {
        let start = 24 + usize::from(extras);
        let len = usize::from(u16::from_be_bytes([high, low]));
        return (b"binary", input.get(start..start + len).unwrap_or_default());
    }
    let Some(end) = memchr::memchr(b'\n', input) else { return (b"", b"") };
    let mut words = input[..end].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

fn next_random(state: &mut u64) -> u64 {
    // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Looks closer at some of a worker's operations.
#[derive(Debug)]
pub(super) struct Sampler<'a> {
    pub(super) countdown: Countdown,
    samples: Option<&'a parking_lot::Mutex<Samples>>,
    random: u64,
}

impl Default for Sampler<'_> {
    /// Looks at nothing.
    fn default() -> Self {
        Sampler { countdown: Countdown::new(0, 0), samples: None, random: 1 }
    }
}

impl<'a> Sampler<'a> {
    /// Looks at one operation in `mean`, on average; at none if that is 0.
    pub(super) fn new(samples: &'a parking_lot::Mutex<Samples>, mean: u32, hasher: &KeyHasher, worker: usize) -> Self {
        let random = hasher.hash(&worker.to_ne_bytes());
        let samples = (mean > 0).then_some(samples);
        Sampler { countdown: Countdown::new(mean, random), samples, random: random | 1 }
    }

    /// A fetch has missed.
    #[inline]
    pub(super) fn miss(&mut self, hash: u64, now: Now) {
        if Samples::follows(hash) {
            self.add_miss(hash, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_miss(&mut self, hash: u64, now: Now) {
        if let Some(mut samples) = self.samples.and_then(parking_lot::Mutex::try_lock) {
            samples.add_miss(hash, now.0);
        }
    }

    /// Samples an operation that was executed in `store`; None: another worker executes it.
    pub(super) fn take(&self, verb: Verb, key: &[u8], hash: u64, store: Option<&Store>) {
        let item = store.and_then(|store| {
            let item = store.item(store.peek(hash, key).ok()?);
            let ttl = (item.exptime() != NEVER).then(|| item.exptime() - store.now().0);
            Some(SampledItem { value_len: item.value_len(), ttl })
        });
        let purpose = purpose_of(verb);
        let is_get = purpose == Purpose::Get;
        let reply_bytes = match item {
            Some(item) if is_get => key.len() + item.value_len + REPLY_BYTES,
            _ => SHORT_REPLY_BYTES,
        };
        let hit = (is_get && store.is_some()).then_some(item.is_some());
        self.add(&Sample { key, hash, purpose, hit, item, reply_bytes: reply_bytes as u64 });
    }

    /// Samples a storage command whose value is still to come.
    pub(super) fn take_value(&self, operation: &Operation, input: &[u8], clock: &Clock, now: Now) {
        let ttl = match clock.deadline(operation.exptime, now) {
            NEVER => None,
            deadline => Some(deadline.saturating_sub(now.0)),
        };
        self.add(&Sample {
            key: operation.key.of(input),
            hash: operation.hash,
            purpose: Purpose::Set,
            hit: None,
            item: Some(SampledItem { value_len: operation.value.len as usize, ttl }),
            reply_bytes: SHORT_REPLY_BYTES as u64,
        });
    }

    fn add(&self, sample: &Sample<'_>) {
        if let Some(mut samples) = self.samples.and_then(parking_lot::Mutex::try_lock) {
            samples.add(sample);
        }
    }
}

fn purpose_of(verb: Verb) -> Purpose {
    match kind_of(verb) {
        Kind::GetHit | Kind::GetMiss => Purpose::Get,
        Kind::Set => Purpose::Set,
        Kind::Delete => Purpose::Delete,
        Kind::Arithmetic | Kind::Touch | Kind::Other => Purpose::Other,
    }
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
            (b"get half", (b"", b"")),
            (b"", (b"", b"")),
            (&packet, (b"binary", b"key")),
            (&packet[..25], (b"binary", b"")),
        ] {
            assert_eq!(first_command(input), expected, "{:?}", String::from_utf8_lossy(input));
        }
    }
}
