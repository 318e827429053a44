//! The sample of a worker's operations: what each of them is for, and what it has left behind. See
//! [`crate::measure::samples`].

use super::batch::Part;
use crate::clock::{NEVER, Now};
use crate::hash::KeyHasher;
use crate::measure::latency::Kind;
use crate::measure::sample::{Purpose, Sample, SampledItem};
use crate::measure::samples::{Countdown, Samples};
use crate::protocol::{Operation, Verb};
use crate::store::Store;

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

/// Looks closer at some of a worker's operations.
#[derive(Debug)]
pub(super) struct Sampler<'a> {
    pub(super) countdown: Countdown,
    pub(super) samples: Option<&'a parking_lot::Mutex<Samples>>,
    /// The state of a generator of random numbers.
    pub(super) random: u64,
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

    /// Samples an operation that was executed. `left` is the item that it has left under its key, if any; None: another
    /// worker executes it.
    pub(super) fn take(&self, verb: Verb, key: &[u8], hash: u64, left: Option<Option<SampledItem>>) {
        let item = left.flatten();
        let purpose = purpose_of(verb);
        let is_get = purpose == Purpose::Get;
        let reply_bytes = match item {
            Some(item) if is_get => key.len() + item.value_len + REPLY_BYTES,
            _ => SHORT_REPLY_BYTES,
        };
        let hit = left.filter(|_| is_get).map(|item| item.is_some());
        self.add(&Sample { key, hash, purpose, hit, item, reply_bytes: reply_bytes as u64 });
    }

    /// Samples a storage command whose value is still to come.
    pub(super) fn take_value(&self, operation: &Operation, input: &[u8], deadline: u32, now: Now) {
        self.add(&Sample {
            key: operation.key.of(input),
            hash: operation.hash,
            purpose: Purpose::Set,
            hit: None,
            item: Some(sampled(operation.value.len as usize, deadline, now)),
            reply_bytes: SHORT_REPLY_BYTES as u64,
        });
    }

    fn add(&self, sample: &Sample<'_>) {
        if let Some(mut samples) = self.samples.and_then(parking_lot::Mutex::try_lock) {
            samples.add(sample);
        }
    }
}

/// The item with this key in a store.
pub(super) fn item_in(store: &Store, hash: u64, key: &[u8]) -> Option<SampledItem> {
    let item = store.item(store.peek(hash, key).ok()?);
    Some(sampled(item.value_len(), item.exptime(), store.now()))
}

/// An item with this deadline.
pub(super) fn sampled(value_len: usize, deadline: u32, now: Now) -> SampledItem {
    SampledItem { value_len, ttl: (deadline != NEVER).then(|| deadline.saturating_sub(now.0)) }
}

fn purpose_of(verb: Verb) -> Purpose {
    match kind_of(verb) {
        Kind::GetHit | Kind::GetMiss => Purpose::Get,
        Kind::Set => Purpose::Set,
        Kind::Delete => Purpose::Delete,
        Kind::Arithmetic | Kind::Touch | Kind::Other => Purpose::Other,
    }
}
