//! Time as the cache counts it: whole seconds since shortly before the process started.
//!
//! A worker reads the clock once per turn ([`Clock::now`]) and hands the result down; nothing below `worker/` reads a
//! clock. As in memcached, the count starts at 62. So 0 can mean "never", 1 can mean "long ago", and the count can
//! express times of up to a minute before the start.

use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds on the cache's clock. Items store this number unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u32);

impl Now {
    /// The seconds that the server has been up at this count, as memcached counts them: 2 at the start.
    pub fn uptime(self) -> u32 {
        self.0.saturating_sub(UPTIME_OFFSET).max(1)
    }
}

/// A moment of the system's monotonic clock, in nanoseconds. Differences take two instructions; those of
/// [`std::time::Instant`] take forty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// This moment.
    #[inline]
    pub fn now() -> Moment {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every system has this clock");
        Moment(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    }

    /// The nanoseconds from an earlier moment to this one; 0 if it is later.
    #[inline]
    pub fn nanos_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// An exptime up to this many seconds (30 days) is relative to now; a larger one is absolute Unix time
/// (protocol.txt, "Expiration times").
pub const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

/// The deadline of an item that never expires.
pub const NEVER: u32 = 0;

/// The count at the start.
const START: i64 = UPTIME_OFFSET as i64 + 2;
/// The count minus the uptime: memcached's `ITEM_UPDATE_INTERVAL`.
const UPTIME_OFFSET: u32 = 60;
/// The smallest count.
const FIRST: i64 = 2;
/// The largest count. The clock reaches it after 68 years, and then stands still. So a count plus a relative exptime
/// still fits in a count.
const LAST: i64 = i32::MAX as i64;

/// The one clock of a process, shared by its workers.
#[derive(Debug)]
pub struct Clock {
    /// The moment of the start.
    started: Moment,
    /// The count at `started`.
    start: i64,
    /// Unix time at which the count was 0.
    origin_unix: i64,
    /// Seconds that `debugtime` has added.
    offset: AtomicI64,
    /// Count at which `debugtime p` stopped the clock; negative while it runs.
    paused_at: AtomicI64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock::from_count(Now(START as u32))
    }

    /// A clock that goes on from the count of the server whose items this one has taken over. So the counts stored in
    /// the items stay true.
    pub fn from_count(count: Now) -> Clock {
        let start = i64::from(count.0).clamp(FIRST, LAST);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        Clock {
            started: Moment::now(),
            origin_unix: unix - start,
            start,
            offset: AtomicI64::new(0),
            paused_at: AtomicI64::new(-1),
        }
    }

    /// The current count.
    pub fn now(&self) -> Now {
        self.at(Moment::now())
    }

    /// The count at a moment that is not long ago.
    #[inline]
    pub fn at(&self, moment: Moment) -> Now {
        let paused_at = self.paused_at.load(Ordering::Relaxed);
        let base = if paused_at >= 0 { paused_at } else { self.elapsed(moment) };
        Now((base + self.offset.load(Ordering::Relaxed)).clamp(FIRST, LAST) as u32)
    }

    #[inline]
    fn elapsed(&self, moment: Moment) -> i64 {
        self.start + (moment.nanos_since(self.started) / 1_000_000_000) as i64
    }

    /// The seconds from the start of this clock to `now`.
    pub fn age(&self, now: Now) -> u32 {
        (i64::from(now.0) - self.start).max(0) as u32
    }

    /// Unix time of a count.
    pub fn unix(&self, now: Now) -> i64 {
        self.origin_unix + i64::from(now.0)
    }

    /// The deadline that an item stores for an exptime from a client (seconds, any sign): [`NEVER`], or the count from
    /// which on the item is dead.
    #[inline]
    pub fn deadline(&self, exptime: i32, now: Now) -> u32 {
        deadline(i64::from(exptime), now, self.origin_unix)
    }

    /// Stops the clock (`debugtime p`).
    pub fn pause(&self) {
        self.paused_at.store(self.elapsed(Moment::now()), Ordering::Relaxed);
    }

    /// Lets the clock run again (`debugtime r`).
    pub fn resume(&self) {
        self.paused_at.store(-1, Ordering::Relaxed);
    }

    /// Adds seconds to the clock (`debugtime ±n`).
    pub fn advance(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::Relaxed);
    }
}

/// memcached's `realtime()`: a negative exptime is long ago, one of up to 30 days is relative, and any other is Unix
/// time.
fn deadline(exptime: i64, now: Now, origin_unix: i64) -> u32 {
    match exptime {
        0 => NEVER,
        i64::MIN..0 => 1,
        1..=RELATIVE_SECONDS_MAX => now.0.saturating_add(exptime as u32),
        _ if exptime <= origin_unix => 1,
        _ => (exptime - origin_unix) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exptime_follows_protocol_txt() {
        let origin = 1_700_000_000;
        let now = Now(100);
        for (exptime, expected) in [
            (0, NEVER),
            (-1, 1),
            (1, 101),
            (RELATIVE_SECONDS_MAX, 100 + RELATIVE_SECONDS_MAX as u32),
            (RELATIVE_SECONDS_MAX + 1, 1),
            (origin, 1),
            (origin + 500, 500),
        ] {
            assert_eq!(deadline(exptime, now, origin), expected, "exptime {exptime}");
        }
    }

    #[test]
    fn a_clock_goes_on_from_a_count() {
        let (fresh, resumed) = (Clock::start(), Clock::from_count(Now(5000)));
        assert!((5000..5100).contains(&resumed.now().0));
        assert_eq!((fresh.age(Now(START as u32)), resumed.age(Now(5007))), (0, 7));
        assert!((fresh.unix(fresh.now()) - resumed.unix(resumed.now())).abs() <= 2);
    }

    #[test]
    fn the_largest_count_leaves_room_for_deadlines() {
        let clock = Clock::from_count(Now(u32::MAX));
        clock.advance(1 << 40);
        let now = clock.now();
        assert_eq!(now, Now(i32::MAX as u32));
        for exptime in [1, RELATIVE_SECONDS_MAX as i32] {
            assert_eq!(clock.deadline(exptime, now), now.0 + exptime as u32);
        }
        assert!(clock.deadline(i32::MAX, now) > now.0, "it is to die in 2038");
    }

    #[test]
    fn debugtime_moves_and_stops_the_clock() {
        let clock = Clock::start();
        let before = clock.now();
        clock.pause();
        clock.advance(50);
        assert!(clock.now().0 >= before.0 + 50);
        assert_eq!(clock.now(), clock.now());
        clock.resume();
        assert!(clock.now().0 >= before.0 + 50);
    }
}
