//! Latency as `stats latency histogram` gives it: counts by powers of two of microseconds, and percentiles of them.

use super::reply::Stats;

/// Buckets: up to 1 µs, up to 2 µs, … up to 2^23 µs, and the rest.
pub(super) const BUCKETS: usize = 25;
/// The kinds that are no requests: time until a ready connection is read, and time of a turn.
pub(super) const NOT_REQUESTS: [&str; 2] = ["wait", "turn"];
const KINDS: [&str; 9] = ["get_hit", "get_miss", "set", "delete", "arithmetic", "touch", "other", "wait", "turn"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram([u64; BUCKETS]);

impl Histogram {
    pub(super) fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn buckets(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    pub(super) fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    /// What has been added since `before`. If a count has become smaller, the server has started anew.
    fn since(&self, before: &Histogram) -> Histogram {
        if self.0.iter().zip(&before.0).any(|(now, before)| now < before) {
            return *self;
        }
        Histogram(std::array::from_fn(|at| self.0[at] - before.0[at]))
    }

    /// The time in microseconds that this share of the requests did not exceed, or `None` without requests. Within a
    /// bucket the times count as evenly spread, so the error is less than a factor of two.
    pub(super) fn percentile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count() as f64;
        let mut below = 0.0;
        for (at, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                // The last bucket has no upper end.
                let (low, high) = (lower_bound(at), if at + 1 == BUCKETS { lower_bound(at) } else { upper_bound(at) });
                return Some(low + (high - low) * ((rank - below) / count).max(0.0));
            }
            below += count;
        }
        None
    }
}

fn upper_bound(bucket: usize) -> f64 {
    f64::from(1_u32 << bucket)
}

/// The shortest time of a bucket, in microseconds.
pub(super) fn lower_bound(bucket: usize) -> f64 {
    if bucket == 0 { 0.0 } else { upper_bound(bucket - 1) }
}

/// Histograms by the kind of operation, in the server's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Latency(Vec<(String, Histogram)>);

impl Latency {
    /// Reads `stats latency histogram`.
    pub(super) fn from_stats(stats: &Stats) -> Latency {
        let mut latency = Latency::default();
        for (name, value) in stats.iter() {
            let parts = name.split_once(":le_").zip(value.parse::<u64>().ok());
            let Some(((kind, bound), count)) = parts else { continue };
            let bucket = match bound.parse::<u32>() {
                Ok(bound) if bound.is_power_of_two() && bound.ilog2() < BUCKETS as u32 - 1 => bound.ilog2() as usize,
                Err(_) if bound == "inf" => BUCKETS - 1,
                _ => continue,
            };
            latency.entry(kind).0[bucket] = count;
        }
        for (_, Histogram(counts)) in &mut latency.0 {
            // The counts are cumulative.
            let mut below = 0;
            for count in counts.iter_mut() {
                let upto = (*count).max(below);
                (*count, below) = (upto - below, upto);
            }
        }
        let place = |kind: &str| KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len());
        latency.0.sort_by_key(|(kind, _)| place(kind));
        latency
    }

    fn entry(&mut self, kind: &str) -> &mut Histogram {
        let at = self.0.iter().position(|(present, _)| present == kind).unwrap_or_else(|| {
            self.0.push((kind.to_owned(), Histogram::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = (&str, &Histogram)> {
        self.0.iter().map(|(kind, histogram)| (kind.as_str(), histogram))
    }

    pub(super) fn kind(&self, kind: &str) -> Option<&Histogram> {
        self.kinds().find(|(present, _)| *present == kind).map(|(_, histogram)| histogram)
    }

    /// The requests of all kinds together.
    pub(super) fn requests(&self) -> Histogram {
        let mut all = Histogram::default();
        self.kinds().filter(|(kind, _)| !NOT_REQUESTS.contains(kind)).for_each(|(_, histogram)| all.add(histogram));
        all
    }

    pub(super) fn since(&self, before: &Latency) -> Latency {
        let since = |(kind, now): &(String, Histogram)| {
            (kind.clone(), before.kind(kind).map_or(*now, |before| now.since(before)))
        };
        Latency(self.0.iter().map(since).collect())
    }

    pub(super) fn add(&mut self, other: &Latency) {
        other.kinds().for_each(|(kind, histogram)| self.entry(kind).add(histogram));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply with these counts, each for one bucket: the exponent of its upper bound, and its requests.
    fn reply(kind: &str, counts: &[(usize, u64)]) -> String {
        let upto = |bucket| counts.iter().filter(|(at, _)| *at <= bucket).map(|(_, count)| count).sum::<u64>();
        let lines = (0..BUCKETS - 1).map(|bucket| format!("STAT {kind}:le_{} {}\n", 1 << bucket, upto(bucket)));
        lines.chain([format!("STAT {kind}:le_inf {}\n", upto(BUCKETS - 1))]).collect()
    }

    fn latency(text: &str) -> Latency {
        Latency::from_stats(&Stats::from_text(text))
    }

    #[test]
    fn counts_of_a_reply_are_cumulative() {
        let latency = latency(&reply("get_hit", &[(0, 5), (3, 10), (24, 1)]));
        let histogram = latency.kind("get_hit").expect("it has the kind");
        assert_eq!(histogram.count(), 16);
        assert_eq!((histogram.0[0], histogram.0[3], histogram.0[24]), (5, 10, 1));
    }

    #[test]
    fn percentiles_are_those_of_the_interval() {
        // Before: a thousand slow requests. In the interval: 90 of 5 to 8 µs, 10 of 65 to 128 µs.
        let before = latency(&reply("set", &[(20, 1000)]));
        let after = latency(&reply("set", &[(3, 90), (7, 10), (20, 1000)]));
        let interval = after.since(&before).requests();
        assert_eq!(interval.count(), 100);
        assert_eq!(interval.percentile(0.45), Some(6.0));
        assert_eq!(interval.percentile(0.9), Some(8.0));
        assert_eq!(interval.percentile(0.95), Some(96.0));
        assert_eq!(interval.percentile(1.0), Some(128.0));
        assert_eq!(after.since(&after).requests().percentile(0.5), None);
    }

    #[test]
    fn a_reset_of_the_server_starts_anew() {
        let before = latency(&reply("set", &[(3, 100)]));
        let after = latency(&reply("set", &[(5, 7)]));
        assert_eq!(after.since(&before).requests().count(), 7);
    }

    #[test]
    fn times_beyond_the_last_bound_count_as_the_bound() {
        let histogram = latency(&reply("set", &[(24, 3)])).requests();
        assert_eq!(histogram.percentile(0.5), Some(8_388_608.0));
    }

    #[test]
    fn waits_and_turns_are_no_requests() {
        let text = reply("turn", &[(9, 4)]) + &reply("wait", &[(2, 3)]) + &reply("get_miss", &[(1, 2)]);
        let latency = latency(&text);
        assert_eq!(latency.requests().count(), 2);
        assert_eq!(latency.kinds().map(|(kind, _)| kind).collect::<Vec<_>>(), ["get_miss", "wait", "turn"]);
    }
}
