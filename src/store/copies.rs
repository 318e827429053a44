//! Copies of items that workers keep, so that a key which all cores ask for does not bind them to its shard.
//!
//! A shard has a row of numbers, and bits of the hash choose the number of a key. Whoever makes a copy, with the lease of
//! the shard, notes the number. Whoever changes or removes the item adds one, also with the lease, before the reply can
//! leave. A copy holds while the number is the one that was noted, and until its deadline.
//!
//! Reads of a copy are linearizable. A read that saw the old number comes before the change, which nobody has been told of
//! yet. A read that begins after somebody was told sees the new number, because the reply has come between the two.
//!
//! Nobody waits, and a read writes nothing: as long as the item stays as it is, the number is in the cache of every core.
//! The store remembers the numbers that copies rely on. So a change of any other item costs one comparison.

use crate::clock::Now;
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use sync::AtomicU64;

/// With `--cfg loom` the numbers are stand-ins that the loom model checker sees into.
mod sync {
    #[cfg(loom)]
    pub(super) use loom::sync::atomic::AtomicU64;
    #[cfg(not(loom))]
    pub(super) use std::sync::atomic::AtomicU64;
}

/// The numbers of a shard: as many as a `u64` has bits.
const NUMBERS: usize = 64;

/// The number of a hash. These bits choose among buckets as well, which does no harm.
fn number_of(hash: u64) -> usize {
    (hash >> 24) as usize % NUMBERS
}

/// The numbers, each in a cache line of its own. The holder of the lease writes them.
#[derive(Debug)]
struct Numbers([CachePadded<AtomicU64>; NUMBERS]);

/// The copies of a shard's items, as the shard knows them.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// None until somebody makes the first copy.
    numbers: Option<Arc<Numbers>>,
    /// The numbers that copies rely on, a bit for each.
    relied_on: u64,
}

impl Copies {
    /// A copy that is made now of the item with this hash holds up to `until`, unless the item changes before.
    pub(super) fn rely_on(&mut self, hash: u64, until: u32) -> Validity {
        let numbers =
            self.numbers.get_or_insert_with(|| Arc::new(Numbers(std::array::from_fn(|_| CachePadded::default()))));
        let at = number_of(hash);
        self.relied_on |= 1 << at;
        let number = numbers.0[at].load(Ordering::Relaxed);
        Validity { numbers: Arc::clone(numbers), at, number, until }
    }

    /// Whether there may be copies that hold.
    #[inline(always)]
    pub(super) fn are_relied_on(&self) -> bool {
        self.relied_on != 0
    }

    /// Ends the copies of the item with this hash.
    pub(super) fn end_of(&mut self, hash: u64) {
        self.end(1 << number_of(hash));
    }

    /// Ends the copies that rely on these numbers, a bit for each.
    #[cold]
    #[inline(never)]
    pub(super) fn end(&mut self, ended: u64) {
        let Some(numbers) = &self.numbers else { return };
        for (at, number) in numbers.0.iter().enumerate() {
            if self.relied_on & ended & 1 << at != 0 {
                number.store(number.load(Ordering::Relaxed) + 1, Ordering::Release);
            }
        }
        self.relied_on &= !ended;
    }
}

/// Says whether a copy of an item still holds.
#[derive(Clone, Debug)]
pub struct Validity {
    numbers: Arc<Numbers>,
    at: usize,
    number: u64,
    /// The count of the clock from which on the copy does not hold.
    until: u32,
}

impl Validity {
    /// Whether the copy holds at this time.
    #[inline]
    pub fn holds(&self, now: Now) -> bool {
        self.numbers.0[self.at].load(Ordering::Acquire) == self.number && now.0 < self.until
    }
}

/// As in `worker/mailbox/loom_tests.rs`, with a lock in place of the lease.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Mutex;
    use loom::sync::atomic::AtomicBool;
    use loom::thread::spawn;

    /// A shard with an item.
    #[derive(Default)]
    struct Shard {
        copies: Copies,
        is_changed: bool,
    }

    #[test]
    fn who_is_told_of_a_change_reads_no_copy_from_before() {
        loom::model(|| {
            let lease = Arc::new(Mutex::new(Shard::default()));
            let copy = lease.lock().expect("no panic").copies.rely_on(7, u32::MAX);
            let told = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
            // One client changes the item, another one reads it from the shard. Each then tells others.
            let writer = spawn({
                let (lease, told) = (Arc::clone(&lease), Arc::clone(&told[0]));
                move || {
                    let mut shard = lease.lock().expect("no panic");
                    shard.copies.end(u64::MAX);
                    shard.is_changed = true;
                    drop(shard);
                    told.store(true, Ordering::Release);
                }
            });
            let reader = spawn({
                let (lease, told) = (Arc::clone(&lease), Arc::clone(&told[1]));
                move || {
                    if lease.lock().expect("no panic").is_changed {
                        told.store(true, Ordering::Release);
                    }
                }
            });
            if told.iter().any(|told| told.load(Ordering::Acquire)) {
                assert!(!copy.holds(Now(2)));
            }
            writer.join().expect("no panic");
            reader.join().expect("no panic");
            assert!(!copy.holds(Now(2)));
            // The next copy holds, and another item's change does not end it.
            let mut shard = lease.lock().expect("no panic");
            let copy = shard.copies.rely_on(7, u32::MAX);
            shard.copies.end(!(1 << number_of(7)));
            assert!(copy.holds(Now(2)));
        });
    }
}
