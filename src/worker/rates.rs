//! What users may use in a second (`ops=` and `bytes=` of `--users`). Each worker has its share of a user's rate, one for each
//! worker. It serves a batch of requests as a whole, and takes what the batch has used out of the user's bucket. While the
//! bucket is empty, the worker does not read from the user's connections: they rest, and their clients wait for replies, as
//! they would on a slow network. Nobody gets an error, and other users are served meanwhile.

use crate::auth::user::User;
use std::time::{Duration, Instant};

/// The shortest rest: the worker does not wake more often.
const REST_MIN: Duration = Duration::from_millis(1);

/// What is left of a user's share. Below 0: what was used is more than there was.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    operations: f64,
    bytes: f64,
    filled: Instant,
}

/// A connection that is not read for now.
#[derive(Debug)]
struct Resting {
    token: usize,
    generation: u64,
    until: Instant,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Rates {
    workers: f64,
    /// By the numbers of users.
    buckets: Vec<Option<Bucket>>,
    resting: Vec<Resting>,
}

impl Rates {
    /// The rates of a worker, one of so many.
    pub(super) fn new(workers: usize) -> Rates {
        Rates { workers: workers as f64, buckets: Vec::new(), resting: Vec::new() }
    }

    /// The share of a rate. No limit is infinite.
    fn share(&self, rate: Option<u64>) -> f64 {
        rate.map_or(f64::INFINITY, |rate| rate as f64 / self.workers)
    }

    /// The bucket of a user, with what has flowed into it: at most the share of a second, or of one operation.
    fn bucket(&mut self, user: &User, now: Instant) -> &mut Bucket {
        let (operations, bytes) = (self.share(user.rate.operations), self.share(user.rate.bytes));
        let (most_operations, most_bytes) = (operations.max(1.0), bytes.max(1.0));
        let number = user.tally.number;
        if self.buckets.len() <= number {
            self.buckets.resize(number + 1, None);
        }
        let full = Bucket { operations: most_operations, bytes: most_bytes, filled: now };
        let bucket = self.buckets[number].get_or_insert(full);
        let seconds = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.filled = now;
        // A limit that has gone leaves no debt.
        bucket.operations = fill(bucket.operations, operations, seconds, most_operations);
        bucket.bytes = fill(bucket.bytes, bytes, seconds, most_bytes);
        bucket
    }

    /// Takes out what a connection of a user has used.
    pub(super) fn charge(&mut self, user: &User, operations: u64, bytes: u64, now: Instant) {
        let bucket = self.bucket(user, now);
        bucket.operations -= operations as f64;
        bucket.bytes -= bytes as f64;
    }

    /// How long the connections of a user rest. None: there is something in the bucket.
    pub(super) fn rest(&mut self, user: &User, now: Instant) -> Option<Duration> {
        let (operations, bytes) = (self.share(user.rate.operations), self.share(user.rate.bytes));
        let bucket = self.bucket(user, now);
        let seconds = ((1.0 - bucket.operations) / operations).max((1.0 - bucket.bytes) / bytes);
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(3600.0)).max(REST_MIN))
    }

    /// Notes that a connection rests.
    pub(super) fn lay_down(&mut self, token: usize, generation: u64, until: Instant) {
        self.resting.push(Resting { token, generation, until });
    }

    /// The connections whose rest is over: tokens and generations.
    pub(super) fn wake(&mut self, now: Instant) -> Vec<(usize, u64)> {
        let over = |resting: &mut Resting| resting.until <= now;
        self.resting.extract_if(.., over).map(|resting| (resting.token, resting.generation)).collect()
    }

    /// Whether no connection rests.
    pub(super) fn is_idle(&self) -> bool {
        self.resting.is_empty()
    }

    /// The time until the next connection wakes.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Duration> {
        self.resting.iter().map(|resting| resting.until.saturating_duration_since(now)).min()
    }
}

fn fill(held: f64, share: f64, seconds: f64, most: f64) -> f64 {
    if share.is_infinite() { f64::INFINITY } else { (held + share * seconds).min(most) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::directory::Directory;
    use crate::auth::file;
    use std::sync::Arc;

    fn user(words: &str) -> Arc<User> {
        let line = format!("u - read {words} tls-name=x");
        let users = Directory::new(file::read(line.as_bytes()).expect("a good file")).expect("random bytes");
        users.named("u").expect("a user")
    }

    #[test]
    fn a_worker_has_its_share_of_a_rate() {
        let (mut rates, start) = (Rates::new(2), Instant::now());
        let user = user("ops=20/s");
        let at = |millis| start + Duration::from_millis(millis);
        for _ in 0..10 {
            assert_eq!(rates.rest(&user, start), None);
            rates.charge(&user, 1, 1 << 30, start);
        }
        assert_eq!(rates.rest(&user, start), Some(Duration::from_millis(100)));
        assert_eq!(rates.rest(&user, at(99)), Some(REST_MIN));
        assert_eq!(rates.rest(&user, at(101)), None);
        // A batch is paid for afterwards, and no more than a second's share is saved.
        rates.charge(&user, 31, 0, at(101));
        assert_eq!(rates.rest(&user, at(101)).map(|rest| rest.as_secs()), Some(3));
        assert_eq!(rates.rest(&user, at(60_000)), None);
        rates.charge(&user, 10, 0, at(60_000));
        assert!(rates.rest(&user, at(60_000)).is_some());
    }

    #[test]
    fn bytes_have_a_rate_of_their_own() {
        let (mut rates, start) = (Rates::new(1), Instant::now());
        let both = user("ops=1000/s bytes=1000/s");
        rates.charge(&both, 1, 3000, start);
        assert_eq!(rates.rest(&both, start).map(|rest| rest.as_millis()), Some(2001));
        // A new line without limits leaves no debt.
        assert_eq!(rates.rest(&user("connections=1"), start), None);
        assert_eq!(rates.rest(&user("ops=1/s"), start), None, "a full bucket");
    }

    #[test]
    fn who_rests_is_woken_in_time() {
        let (mut rates, start) = (Rates::new(1), Instant::now());
        for (token, millis) in [(1, 50), (2, 10), (3, 50)] {
            rates.lay_down(token, 7, start + Duration::from_millis(millis));
        }
        assert_eq!(rates.next_wake(start), Some(Duration::from_millis(10)));
        assert_eq!(rates.wake(start), []);
        assert_eq!(rates.wake(start + Duration::from_millis(20)), [(2, 7)]);
        assert_eq!(rates.wake(start + Duration::from_millis(50)), [(1, 7), (3, 7)]);
        assert!(rates.is_idle());
    }
}
