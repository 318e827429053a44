//! A rate that a transfer does not exceed.

use super::interrupt::Interrupt;
use std::time::{Duration, Instant};

/// Longest sleep before a look at the signals.
const NAP: Duration = Duration::from_millis(100);
/// Most items of a batch.
const BATCH_ITEMS_MAX: usize = 64;
/// An item costs one unit of a rate for each of these bytes, begun or not: the rate bounds bytes as well.
const BYTES_PER_UNIT: u64 = 4096;

/// Time since some moment, and a way to let it pass.
pub(in crate::tool) trait Clock: std::fmt::Debug {
    fn now(&self) -> Duration;
    fn sleep(&self, span: Duration);
}

/// The clock of the system.
#[derive(Debug)]
pub(in crate::tool) struct SystemClock(pub(in crate::tool) Instant);

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, span: Duration) {
        std::thread::sleep(span);
    }
}

/// Says when the next batch may go. After a pause there is no burst that makes up for it: in any span of time there are at
/// most as many units as the rate allows, and one batch.
#[derive(Debug)]
pub(in crate::tool) struct Pace<C = SystemClock> {
    clock: C,
    /// Units per second. `None`: no limit.
    rate: Option<f64>,
    /// When the next batch may go.
    next: Duration,
}

impl Pace {
    /// A pace of `rate` units per second, or of no limit if that is 0.
    pub(in crate::tool) fn new(rate: u64) -> Pace {
        Pace::by(SystemClock(Instant::now()), rate)
    }
}

impl<C: Clock> Pace<C> {
    pub(in crate::tool) fn by(clock: C, rate: u64) -> Pace<C> {
        Pace { clock, rate: (rate > 0).then_some(rate as f64), next: Duration::ZERO }
    }

    /// Whether a batch would have to wait now.
    pub(in crate::tool) fn must_wait(&self) -> bool {
        self.rate.is_some() && self.clock.now() < self.next
    }

    /// Waits until the next batch may go, or until a signal comes. The batch costs so many units.
    pub(in crate::tool) fn wait(&mut self, units: u64, interrupt: &Interrupt) {
        let Some(rate) = self.rate else { return };
        let mut now = self.clock.now();
        while now < self.next && !interrupt.has_come() {
            self.clock.sleep((self.next - now).min(NAP));
            now = self.clock.now();
        }
        self.next = self.next.max(now) + Duration::from_secs_f64(units as f64 / rate);
    }

    /// Most items of a batch: few at a low rate, so that they do not come in bursts, and do not wait for long.
    pub(in crate::tool) fn batch_items(&self) -> usize {
        const BATCHES_PER_SECOND: f64 = 20.0;
        self.rate.map_or(BATCH_ITEMS_MAX, |rate| (rate / BATCHES_PER_SECOND) as usize).clamp(1, BATCH_ITEMS_MAX)
    }
}

/// What an item of so many bytes costs.
pub(in crate::tool) fn units(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_UNIT).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A clock that moves when somebody sleeps, and when a test says so.
    #[derive(Debug, Default)]
    struct TestClock(Cell<Duration>);

    impl Clock for &TestClock {
        fn now(&self) -> Duration {
            self.0.get()
        }

        fn sleep(&self, span: Duration) {
            // A system sleeps a little longer than asked.
            self.0.set(self.0.get() + span + Duration::from_micros(50));
        }
    }

    #[test]
    fn no_span_of_time_has_more_than_the_rate_and_a_batch() {
        let clock = TestClock::default();
        let mut pace = Pace::by(&clock, 1000);
        let (mut sent, mut times) = (0, Vec::new());
        let mut random = 7_u64;
        for _ in 0..2000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let units = random >> 58;
            // The work on a batch takes time too, and now and then a server pauses.
            let pause = if random.is_multiple_of(50) { 3000 } else { (random >> 33) % 20 };
            clock.0.set(clock.0.get() + Duration::from_millis(pause));
            pace.wait(units, &Interrupt::default());
            sent += units;
            times.push((clock.0.get().as_secs_f64(), sent, units));
        }
        for (first, &(start, before, units)) in times.iter().enumerate() {
            for &(end, after, _) in &times[first..] {
                let most = (end - start) * 1000.0 + 64.0 + 1.0;
                assert!(
                    ((after - before + units) as f64) <= most + units as f64,
                    "{start} to {end}: {}",
                    after - before
                );
            }
        }
    }

    #[test]
    fn a_steady_transfer_has_the_rate_and_zero_is_no_limit() {
        let clock = TestClock::default();
        let mut pace = Pace::by(&clock, 1000);
        for _ in 0..1000 {
            pace.wait(50, &Interrupt::default());
        }
        let seconds = clock.0.get().as_secs_f64();
        assert!((49.9..50.2).contains(&seconds), "{seconds}");
        let mut free = Pace::by(&clock, 0);
        free.wait(1 << 40, &Interrupt::default());
        assert!(!free.must_wait());
        free.wait(1, &Interrupt::default());
        assert_eq!(clock.0.get().as_secs_f64(), seconds);
    }

    #[test]
    fn a_low_rate_has_small_batches_and_large_items_cost_more() {
        let clock = TestClock::default();
        assert_eq!([0, 1, 100, 1_000_000].map(|rate| Pace::by(&clock, rate).batch_items()), [64, 1, 5, 64]);
        assert_eq!([0, 1, 4096, 4097, 1 << 20].map(units), [1, 1, 1, 2, 256]);
    }
}
