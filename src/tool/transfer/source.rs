//! The items of a server, one after the other.

use super::ended::{Ended, Trouble};
use super::fetch::Fetcher;
use super::interrupt::Interrupt;
use super::item::Item;
use super::options::PickArgs;
use super::order::{MEMORY, Sorted, Sorter};
use super::pace::{Pace, units};
use super::tally::{Counts, Tally};
use super::walk::{Listed, Walk};
use crate::tool::target::Target;
use std::io;

/// Most bytes of a batch. The last item may exceed them.
const BATCH_BYTES: u64 = 256 << 10;

/// A server whose items are read.
#[derive(Debug)]
pub(in crate::tool) struct Source<'a> {
    pub(in crate::tool) target: &'a Target,
    pub(in crate::tool) pick: &'a PickArgs,
    pub(in crate::tool) interrupt: &'a Interrupt,
    /// What standard error calls this, as "copy".
    pub(in crate::tool) name: &'static str,
}

/// The keys of a server in the order in which they are fetched.
enum Keys {
    Listed(Walk),
    /// Sorted, with the numbers of those that are taken and of all.
    Sorted(Sorted, u64, u64),
}

/// What ends a batch early: an error of the source, or one of whatever takes the items.
struct Stop(Trouble);

impl Source<'_> {
    /// Passes all items on, until the end, `--limit` or a signal.
    ///
    /// # Errors
    /// Those of the source, and those of `pass`.
    pub(in crate::tool) fn read(
        &self,
        tally: &mut Tally,
        mut pass: impl FnMut(&Item<'_>, &mut Counts) -> Result<(), Trouble>,
    ) -> Result<Ended, Trouble> {
        let of_source = Trouble::of(&self.target.name);
        let mut keys = self.keys(tally).map_err(&of_source)?;
        if self.interrupt.has_come() {
            return Ok(Ended::Interrupted);
        }
        let mut fetcher = Fetcher::open(self.target).map_err(&of_source)?;
        let mut pace = Pace::new(self.pick.pace.rate);
        let limit = self.pick.limit.unwrap_or(u64::MAX);
        let (mut is_last, mut passed) = (false, 0);
        loop {
            // What is on its way comes before a pause.
            while !is_last && fetcher.has_room() && (fetcher.is_idle() || !pace.must_wait()) {
                let (batch, cost) = keys.batch(pace.batch_items()).map_err(&of_source)?;
                is_last = batch.is_empty();
                if !is_last {
                    pace.wait(cost, self.interrupt);
                    fetcher.send(batch, &mut tally.counts).map_err(&of_source)?;
                }
            }
            tally.done = keys.done();
            tally.show(self.name);
            if self.interrupt.has_come() {
                return Ok(Ended::Interrupted);
            }
            if is_last && fetcher.is_idle() {
                return Ok(Ended::AtEnd);
            }
            let result = fetcher.receive(&mut tally.counts, |item, counts| {
                passed += item.bytes();
                if passed <= limit { pass(item, counts).map_err(Stop) } else { Ok(()) }
            });
            result.map_err(|Stop(trouble)| trouble.named(&self.target.name))?;
            if passed >= limit {
                return Ok(Ended::AtLimit);
            }
        }
    }

    fn keys(&self, tally: &mut Tally) -> io::Result<Keys> {
        let mut walk = Walk::begin(self.target, self.pick.prefix.as_bytes())?;
        if !self.pick.by_access {
            return Ok(Keys::Listed(walk));
        }
        let (mut sorter, mut count) = (Sorter::new(MEMORY), 0);
        while let Some(listed) = walk.next()? {
            sorter.add(&listed)?;
            count += 1;
            if walk.lines.is_multiple_of(1024) {
                tally.show("keys are listed");
                if self.interrupt.has_come() {
                    break;
                }
            }
        }
        Ok(Keys::Sorted(sorter.sorted()?, 0, count))
    }
}

impl Keys {
    fn next(&mut self) -> io::Result<Option<Listed>> {
        match self {
            Keys::Listed(walk) => walk.next(),
            Keys::Sorted(sorted, taken, _) => {
                *taken += 1;
                sorted.next()
            }
        }
    }

    /// The next keys, and what they cost. No keys: the end.
    fn batch(&mut self, most: usize) -> io::Result<(Vec<Listed>, u64)> {
        let (mut batch, mut bytes, mut cost) = (Vec::with_capacity(most), 0, 0);
        while batch.len() < most && bytes < BATCH_BYTES {
            let Some(listed) = self.next()? else { break };
            bytes += u64::from(listed.size);
            cost += units(u64::from(listed.size));
            batch.push(listed);
        }
        Ok((batch, cost))
    }

    /// The share of keys that are taken, if it is known.
    fn done(&self) -> Option<f64> {
        match self {
            Keys::Listed(walk) => walk.items.filter(|&items| items > 0).map(|items| walk.lines as f64 / items as f64),
            Keys::Sorted(_, taken, count) => Some(*taken as f64 / (*count).max(1) as f64),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop(Trouble::Server(String::new(), error))
    }
}
