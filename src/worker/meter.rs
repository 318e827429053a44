//! The times of a worker's turn: see [`crate::measure::latency`].

use crate::clock::Moment;
use crate::config::Measuring;
use crate::measure::Measures;

/// The times of the turn that is under way.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    pub(super) measures: &'a Measures,
    /// False with `--no-latency`.
    pub(super) is_on: bool,
    /// Requests that take longer are noted.
    pub(super) slow_nanos: u64,
    /// When poll returned.
    pub(super) turn_began: Moment,
    /// When the last service ended.
    pub(super) last: Moment,
    /// The bytes that the worker had written by then.
    pub(super) bytes_written: u64,
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
