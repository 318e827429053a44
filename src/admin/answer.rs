//! The answer of a shard to a query, and the next query when the answers come in pieces.

use super::cold_items::{BYTES_MAX, ColdItems};
use super::query::{Answer, Query};
use crate::clock::{Clock, NEVER, Now};
use crate::command::Shard;
use crate::command::prefixes::Prefixes;
use crate::store::item::KEY_BINARY;
use crate::store::rebalance::Reassigned;
use crate::store::slab::ClassId;
use crate::store::walk::{Place, Reader};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A shard looks at this many items for one piece of an answer. A line takes longer than a count.
const SIZES_PER_PIECE: usize = 512;
const COLD_ITEMS_PER_PIECE: usize = 128;

/// A shard looks at this many chunks of the page that it reassigns before the reply. Housekeeping does the rest.
const REASSIGN_STEPS: u32 = 256;

/// Answers a query for a shard. Shards never get [`Query::Connections`],
/// [`Query::RefreshCertificates`] or [`Query::CheckPassword`].
pub fn answer(shard: &mut Shard, query: &Query, clock: &Clock) -> Answer {
    let store = &mut shard.store;
    match query {
        &Query::Flush(Some(at)) => store.flush_at(at),
        // The shard's clock may be a turn behind the clock of the worker that asks.
        Query::Flush(None) => store.flush_at(Now(store.now().0 - 1)),
        Query::ForgetFlush => store.forget_flush(),
        Query::FlushPrefixes { prefixes, flush, reply } => {
            let flushed = prefixes.iter().map(|prefix| store.flush_prefix(prefix, *flush)).fold(Ok(()), Result::and);
            return Answer::Flushed(Arc::clone(reply), flushed);
        }
        Query::Snapshot => return Answer::Snapshot(shard.number, Box::new(store.snapshot())),
        Query::ResetCounters => {
            store.reset_counters();
            if let Some(prefixes) = &mut shard.prefixes {
                prefixes.clear();
            }
        }
        Query::Detail(None) => {
            if let Some(prefixes) = &mut shard.prefixes {
                prefixes.on = false;
            }
        }
        Query::Detail(Some(prefixes)) => {
            store.end_copies();
            shard.prefixes.get_or_insert_with(|| prefixes.clone()).on = true;
        }
        Query::DetailDump => {
            let prefixes = shard.prefixes.iter().flat_map(Prefixes::iter);
            return Answer::Prefixes(prefixes.map(|(prefix, counts)| (prefix.to_vec(), counts)).collect());
        }
        Query::ColdItems { class, rest, .. } => {
            let Some(mut reader) = place_in(rest, shard) else { return Answer::Done };
            let (lines, more) = cold_items(shard, ClassId(*class), &mut reader, clock);
            return Answer::Items(lines, more.then_some((shard.number, reader)));
        }
        Query::Reassign { from, to, begun } => {
            let mut begun = begun.lock();
            if *begun {
                return Answer::Reassigned(Reassigned::NoSpare);
            }
            let reassigned = store.reassign(*from, *to);
            *begun = reassigned == Reassigned::Started;
            drop(begun);
            store.move_pages(REASSIGN_STEPS);
            return Answer::Reassigned(reassigned);
        }
        Query::BigKeys => return Answer::BigKeys(shard.big_keys.list(store)),
        Query::Tune(tuning) => store.tune(*tuning.lock()),
        Query::Sizes { rest } => {
            let Some(place) = place_in(rest, shard) else { return Answer::Done };
            let (counts, next) = sizes(shard, place);
            return Answer::Sizes(counts, next.map(|place| (shard.number, place)));
        }
        Query::Connections => unreachable!("workers answer for their connections"),
        Query::RefreshCertificates => unreachable!("the main thread has them"),
        Query::CheckPassword => unreachable!("a thread of its own does"),
    }
    Answer::Done
}

/// The place where a shard continues its answer. `None`: the shard has told everything.
fn place_in<T: Copy + Default>(rest: &[(u16, T)], shard: &Shard) -> Option<T> {
    match rest {
        [] => Some(T::default()),
        rest => rest.iter().find(|(number, _)| *number == shard.number).map(|&(_, place)| place),
    }
}

/// Makes the query for the next piece once all shards have answered, or `None` at the end. A shard that has more items
/// takes longer for some queries. Shards answer these in pieces, and workers serve other requests between two pieces.
/// The function merges the answers so far into one.
pub fn go_on(query: &Query, answers: &mut Vec<Answer>) -> Option<Query> {
    match query {
        Query::Sizes { .. } => {
            let (mut total, mut rest) = (BTreeMap::new(), Vec::new());
            for answer in answers.drain(..) {
                if let Answer::Sizes(counts, more) = answer {
                    counts.into_iter().for_each(|(size, count)| *total.entry(size).or_insert(0) += count);
                    rest.extend(more);
                }
            }
            answers.push(Answer::Sizes(total, None));
            (!rest.is_empty()).then_some(Query::Sizes { rest })
        }
        &Query::ColdItems { class, limit, .. } => {
            let (mut list, mut pieces, mut rest) = (ColdItems::default(), Vec::new(), Vec::new());
            for answer in answers.drain(..) {
                match answer {
                    Answer::List(before) => list = before,
                    Answer::Items(lines, more) => {
                        pieces.push(lines);
                        rest.extend(more);
                    }
                    _ => {}
                }
            }
            let is_full = list.add(&pieces, limit, BYTES_MAX);
            answers.push(Answer::List(list));
            (!is_full && !rest.is_empty()).then_some(Query::ColdItems { class, limit, rest })
        }
        _ => None,
    }
}

/// One piece of the lines `ITEM <key> [<bytes> b; <exptime> s]`, and whether the shard has more. The exptime is Unix
/// time, or 0 for never. A key that a client sent in base64 may hold any byte; the function escapes those that would
/// break the line as `%XX`.
fn cold_items(shard: &Shard, class: ClassId, reader: &mut Reader, clock: &Clock) -> (Vec<Vec<u8>>, bool) {
    let mut lines = Vec::with_capacity(COLD_ITEMS_PER_PIECE);
    let more = shard.store.read_class(class, reader, COLD_ITEMS_PER_PIECE, |id| {
        let item = shard.store.item(id);
        let mut line = b"ITEM ".to_vec();
        for &byte in item.key() {
            if item.state() & KEY_BINARY != 0 && !byte.is_ascii_graphic() {
                line.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else {
                line.push(byte);
            }
        }
        let unix = if item.exptime() == NEVER { 0 } else { clock.unix(Now(item.exptime())) };
        line.extend_from_slice(format!(" [{} b; {unix} s]\r\n", item.value_len()).as_bytes());
        lines.push(line);
    });
    (lines, more)
}

/// One piece of the counts, and the place to continue from if the shard has more.
fn sizes(shard: &Shard, place: Place) -> (BTreeMap<u32, u64>, Option<Place>) {
    let mut counts = BTreeMap::new();
    let next = shard.store.survey(place, SIZES_PER_PIECE, |id| {
        let size = shard.store.size_of(id).next_multiple_of(32);
        *counts.entry(size as u32).or_default() += 1;
    });
    (counts, next)
}
