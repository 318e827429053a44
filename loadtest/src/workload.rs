//! The work for a server: requests, their keys, and how many at once. The [`Plan`](crate::plan::Plan) says where, how
//! long and how fast the client sends them.

use std::fmt;

use crate::keys::Keys;
use crate::random::{Random, mix};
use crate::zipf::Zipf;

/// The dialect of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// `get`, `set`.
    Classic,
    /// `mg`, `ms`.
    Meta,
    /// `GET`, `MGET` for several keys, and `SET`, for Redis and its relatives.
    Resp,
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads one or several keys.
    Get,
    /// Stores one key.
    Set,
}

/// The distribution of requests over keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    /// All keys equally often.
    Uniform,
    /// By rank, with this exponent.
    Zipf(f64),
    /// One after the other, over and over. Each thread starts at a place of its own.
    Sequential,
    /// Each set is of the next key from `first` on, which is new to the server until all keys have had their turn. A get
    /// asks for one of the last `span` keys before that.
    Newest { first: u64, span: u64 },
}

/// The parameters of a workload.
#[derive(Clone, Debug)]
pub struct Workload {
    pub protocol: Protocol,
    /// Weights of the two operations; not both 0.
    pub get: u32,
    pub set: u32,
    pub keys_per_get: usize,
    /// Requests that a connection sends together, before it waits for their replies.
    pub pipeline: usize,
    pub connections: usize,
    pub keys: u64,
    pub key_size: usize,
    /// Smallest and largest.
    pub value_size: (usize, usize),
    pub popularity: Popularity,
    /// Seconds and weights. An empty list means forever.
    pub ttls: Vec<(u32, f64)>,
    /// Set keys that a get did not find.
    pub cache_aside: bool,
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload {
            protocol: Protocol::Classic,
            get: 9,
            set: 1,
            keys_per_get: 1,
            pipeline: 1,
            connections: 50,
            keys: 100_000,
            key_size: 25,
            value_size: (32, 32),
            popularity: Popularity::Uniform,
            ttls: Vec::new(),
            cache_aside: false,
            seed: 1,
        }
    }
}

impl Workload {
    /// Continues after `sets` sets to the same server: keys that are new stay new.
    pub fn advance(&mut self, sets: u64) {
        if let Popularity::Newest { first, .. } = &mut self.popularity {
            *first = (*first + sets) % self.keys;
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (get, set) = match self.protocol {
            Protocol::Classic => ("get", "set"),
            Protocol::Meta => ("mg", "ms"),
            Protocol::Resp => ("GET", "SET"),
        };
        match (self.get, self.set) {
            (_, 0) => write!(f, "{get}")?,
            (0, _) => write!(f, "{set}")?,
            (gets, sets) => write!(f, "{gets}:{sets} {get}:{set}")?,
        }
        if self.keys_per_get > 1 {
            write!(f, " of {} keys", self.keys_per_get)?;
        }
        write!(f, ", {} connections with {} in flight, ", self.connections, self.pipeline)?;
        write!(f, "{} keys of {} bytes, ", self.keys, self.key_size)?;
        match self.popularity {
            Popularity::Uniform => write!(f, "uniform, ")?,
            Popularity::Zipf(exponent) => write!(f, "Zipf {exponent}, ")?,
            Popularity::Sequential => write!(f, "sequential, ")?,
            Popularity::Newest { span, .. } => write!(f, "sets of new keys, gets of the newest {span}, ")?,
        }
        match self.value_size {
            (min, max) if min == max => write!(f, "values of {min} bytes")?,
            (min, max) => write!(f, "values of {min} to {max} bytes")?,
        }
        match self.ttls.as_slice() {
            [] | [(0, _)] => {}
            [(ttl, _)] => write!(f, ", TTL {ttl} s")?,
            ttls => write!(f, ", {} TTLs", ttls.len())?,
        }
        if self.cache_aside { write!(f, ", cache-aside") } else { Ok(()) }
    }
}

/// Draws the requests of one client thread, one by one.
pub struct Draw {
    random: Random,
    ranks: Ranks,
    /// A get if the upper half of a draw is below this.
    get_below: u64,
    /// Seconds, and the cumulated share of draws up to this entry.
    ttls: Vec<(u32, f64)>,
}

enum Ranks {
    Uniform,
    Zipf(Zipf),
    Sequential {
        next: u64,
    },
    /// `next` is the key of the next set; each set steps over the keys of the other threads.
    Newest {
        next: u64,
        step: u64,
        span: u64,
    },
}

impl Draw {
    /// The requests of thread `thread` of `threads`, in random sequence number `sequence`.
    pub fn new(workload: &Workload, thread: usize, threads: usize, sequence: u64) -> Draw {
        let total: f64 = workload.ttls.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let cumulated = workload.ttls.iter().map(|(ttl, weight)| {
            sum += weight / total;
            (*ttl, sum)
        });
        Draw {
            random: Random::new(workload.seed.wrapping_add(thread as u64) ^ mix(sequence)),
            ranks: match workload.popularity {
                Popularity::Uniform => Ranks::Uniform,
                Popularity::Zipf(exponent) => Ranks::Zipf(Zipf::new(workload.keys, exponent)),
                Popularity::Sequential => Ranks::Sequential { next: share(workload.keys, thread, threads).start },
                Popularity::Newest { first, span } => {
                    Ranks::Newest { next: (first + thread as u64) % workload.keys, step: threads as u64, span }
                }
            },
            get_below: (u64::from(workload.get) << 32) / (u64::from(workload.get) + u64::from(workload.set)),
            ttls: cumulated.collect(),
        }
    }

    pub fn operation(&mut self) -> Operation {
        if self.random.next() >> 32 < self.get_below { Operation::Get } else { Operation::Set }
    }

    /// The key of the next request, which is an `operation`.
    #[inline]
    pub fn key(&mut self, operation: Operation, keys: &Keys) -> u64 {
        match &mut self.ranks {
            Ranks::Uniform => self.random.below(keys.count()),
            Ranks::Zipf(zipf) => keys.at_rank(zipf.draw(&mut self.random)),
            Ranks::Sequential { next } => {
                let id = *next;
                *next = (id + 1) % keys.count();
                id
            }
            Ranks::Newest { next, step, span } => match operation {
                Operation::Set => {
                    let id = *next;
                    *next = (id + *step) % keys.count();
                    id
                }
                Operation::Get => (*next + keys.count() - 1 - self.random.below(*span)) % keys.count(),
            },
        }
    }

    pub fn ttl(&mut self) -> u32 {
        match self.ttls.as_slice() {
            [] => 0,
            [(ttl, _)] => *ttl,
            [ttls @ .., (last, _)] => {
                let point = self.random.unit();
                ttls.iter().find(|(_, below)| point < *below).map_or(*last, |(ttl, _)| *ttl)
            }
        }
    }
}

/// Part `index` of `total` in `count` parts. The parts are contiguous and cover `total`; their sizes differ by at most
/// one.
pub fn share(total: u64, index: usize, count: usize) -> std::ops::Range<u64> {
    let bound = |index: usize| (u128::from(total) * index as u128 / count as u128) as u64;
    bound(index)..bound(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_complete_and_equal() {
        let shares: Vec<_> = (0..3).map(|index| share(10, index, 3)).collect();
        assert_eq!(shares, [0..3, 3..6, 6..10]);
        assert_eq!(share(u64::MAX, 6, 7).end, u64::MAX);
    }

    #[test]
    fn operations_come_in_their_ratio() {
        for (get, set, expected) in [(1, 0, 10_000), (0, 1, 0), (9, 1, 9_000), (1, 1, 5_000)] {
            let mut draw = Draw::new(&Workload { get, set, ..Workload::default() }, 0, 1, 0);
            let gets = (0..10_000).filter(|_| draw.operation() == Operation::Get).count();
            assert!(gets.abs_diff(expected) < 200, "{get}:{set} gave {gets}");
        }
    }

    #[test]
    fn ttls_come_in_their_weight() {
        let ttls = |ttls: &[(u32, f64)]| {
            let mut draw = Draw::new(&Workload { ttls: ttls.to_vec(), ..Workload::default() }, 0, 1, 0);
            (0..10_000).filter(|_| draw.ttl() == 60).count()
        };
        assert_eq!(ttls(&[]), 0);
        assert_eq!(ttls(&[(60, 0.1)]), 10_000);
        assert!(ttls(&[(60, 3.0), (90, 1.0)]).abs_diff(7_500) < 200);
        assert!(ttls(&[(90, 0.2), (60, 0.5), (10, 0.3)]).abs_diff(5_000) < 200);
    }

    #[test]
    fn sequential_threads_share_the_keys() {
        let workload = Workload { keys: 10, key_size: 5, popularity: Popularity::Sequential, ..Workload::default() };
        let keys = Keys::new(10, 5, (1, 1), 1).expect("valid");
        let mut draw = Draw::new(&workload, 1, 2, 0);
        assert_eq!((0..7).map(|_| draw.key(Operation::Get, &keys)).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 0, 1]);
    }

    #[test]
    fn gets_ask_for_the_newest_keys() {
        let popularity = Popularity::Newest { first: 7, span: 3 };
        let workload = Workload { keys: 10, key_size: 5, popularity, ..Workload::default() };
        let keys = Keys::new(10, 5, (1, 1), 1).expect("valid");
        let mut draw = Draw::new(&workload, 0, 1, 0);
        let asked = |draw: &mut Draw| {
            let mut ids: Vec<u64> = (0..100).map(|_| draw.key(Operation::Get, &keys)).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(asked(&mut draw), [4, 5, 6]);
        let stored: Vec<u64> = (0..4).map(|_| draw.key(Operation::Set, &keys)).collect();
        assert_eq!((stored, asked(&mut draw)), (vec![7, 8, 9, 0], vec![0, 8, 9]));
        let mut second = Draw::new(&workload, 1, 2, 0);
        assert_eq!((0..3).map(|_| second.key(Operation::Set, &keys)).collect::<Vec<_>>(), [8, 0, 2]);
    }
}
