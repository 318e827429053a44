//! The slowest requests: which of them did the machine delay?
//!
//! A client thread that never sleeps looks at the clock all the time. If two looks are far apart, something else had its
//! core: another process, an interrupt, the hypervisor. That is a gap, and a request that was under way during a gap says
//! nothing of the server. On the server's core no such thread may spin, because it would delay the server. There the
//! kernel's count tells how long the server's thread waited for its core while no other thread of the server ran. Pauses
//! of the core itself, by the hypervisor, are in no count: a [`Sentinel`] sleeps there, and wakes up late.
//!
//! Requests that are due during a gap are sent, or served, together after it. Until that backlog is served, later
//! requests wait as well. It ends when no request is under way or many replies in a row were quick, or at the latest after
//! the time in which a server at this share of its load makes up for the gap: gap · share / (1 − share).
//!
//! Requests that none of this touched are the server's own. Times are nanoseconds since the start of the thread's run.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cpus::Cpus;
use crate::disturb::Kind;
use crate::storm::go_first;
use crate::tally::histogram;

/// The shortest time between two looks at the clock that is a gap.
pub const GAP_MIN: u64 = 100_000;

/// A request that takes longer is late.
pub const LATE: u64 = 1_000_000;

/// So many replies in a row, each within so many nanoseconds, show that no backlog is left that could make a request late.
const QUICK: u64 = LATE / 4;
const QUICK_IN_A_ROW: u32 = 100;

/// How often a thread asks how long the server has waited for its core, and how soon again because of a late request.
const WAITS_EVERY: u64 = 1_000_000;
const WAITS_SOONEST: u64 = 250_000;

/// How long the sentinel sleeps. It takes less than a hundredth of the core.
const SENTINEL_SLEEPS: Duration = Duration::from_micros(500);

/// What the machine did to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A gap of the client's core came while the request was under way.
    ClientGap,
    /// Meanwhile the server's thread waited for its core.
    ServerWait,
    /// The request came after one of these, before the backlog was served.
    Backlog,
}

/// The gaps between the looks of one thread at the clock.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    last: u64,
    pub longest: u64,
    pub gaps: u64,
    /// Gaps that alone would make a request late.
    pub long: u64,
}

impl Looks {
    /// A thread that looks first at `now`.
    pub fn new(now: u64) -> Looks {
        Looks { last: now, ..Looks::default() }
    }

    /// A look at the clock. Returns the time since the one before if that is a gap.
    #[inline]
    pub fn look(&mut self, now: u64) -> Option<u64> {
        let gap = now.saturating_sub(self.last);
        self.last = now;
        self.longest = self.longest.max(gap);
        self.gaps += u64::from(gap > GAP_MIN);
        self.long += u64::from(gap > LATE);
        (gap > GAP_MIN).then_some(gap)
    }

    /// Adds the gaps of another thread.
    pub fn add(&mut self, other: &Looks) {
        self.longest = self.longest.max(other.longest);
        self.gaps += other.gaps;
        self.long += other.long;
    }
}

/// The requests of one thread, and what the machine did to them.
#[derive(Debug)]
pub struct Tail {
    pub looks: Looks,
    waits: Option<Waits>,
    /// The sentinel, and nanoseconds from its start to that of the thread.
    sentinel: Option<(Arc<Sentinel>, u64)>,
    /// The end of the last pause that the thread knows.
    pause_seen: u64,
    /// Nanoseconds that the server's core paused.
    pub paused: u64,
    /// To serve a gap's backlog takes so many times its length.
    recovery: f64,
    gap_end: u64,
    wait_end: u64,
    backlog_end: u64,
    quick_in_a_row: u32,
    /// Late requests without a cause so far, by their latency. The next question to the server may show one.
    open: Vec<u64>,
    /// Late requests: all, and by cause.
    pub late: u64,
    pub late_by_gap: u64,
    pub late_by_wait: u64,
    pub late_by_backlog: u64,
    /// Nanoseconds that the server's thread waited for its core.
    pub waited: u64,
    /// Latencies of the requests that the machine did not touch.
    pub own: Histogram<u64>,
    /// What the steps of each kind of disturbance have done.
    pub disturbed: [u64; Kind::COUNT],
}

impl Tail {
    /// Requests that come at this share of the rate that a server holds, 0 to 1, from `now` on. If the process of the
    /// server is gone, or hides its threads, it has not waited.
    pub fn new(share: f64, process: u32, now: u64) -> Tail {
        Tail {
            looks: Looks::new(now),
            waits: Waits::open(process).ok(),
            sentinel: None,
            pause_seen: 0,
            paused: 0,
            recovery: share / (1.0 - share),
            gap_end: 0,
            wait_end: 0,
            backlog_end: 0,
            quick_in_a_row: 0,
            open: Vec::new(),
            late: 0,
            late_by_gap: 0,
            late_by_wait: 0,
            late_by_backlog: 0,
            waited: 0,
            own: histogram(),
            disturbed: [0; Kind::COUNT],
        }
    }

    /// Takes the notes of a sentinel into account; the thread's time begins at `epoch`.
    pub fn ask(&mut self, sentinel: Arc<Sentinel>, epoch: Instant) {
        let offset = epoch.saturating_duration_since(sentinel.begun).as_nanos() as u64;
        self.pause_seen = sentinel.last.load(Ordering::Acquire);
        self.sentinel = Some((sentinel, offset));
    }

    /// A look at the clock.
    #[inline]
    pub fn look(&mut self, now: u64) {
        if let Some(gap) = self.looks.look(now) {
            self.gap_end = now;
            // The server has served its own backlog during the gap.
            self.backlog_until(self.backlog_end.max(now + self.recovery(gap)));
        }
        if let Some((sentinel, offset)) = &self.sentinel {
            let end = sentinel.last.load(Ordering::Acquire);
            if end != self.pause_seen {
                self.pause_seen = end;
                let (length, end) = (sentinel.length.load(Ordering::Relaxed), end.saturating_sub(*offset));
                self.pause(length, end.min(now));
            }
        }
        if self.waits.as_ref().is_some_and(|waits| now >= waits.looked_at + WAITS_EVERY) {
            self.look_at_server(now);
        }
    }

    /// Nothing is under way, and nothing is due.
    #[inline]
    pub fn rest(&mut self, now: u64) {
        self.backlog_end = self.backlog_end.min(now);
    }

    /// A request that was due at `since` has its reply.
    #[inline]
    pub fn complete(&mut self, since: u64, now: u64) {
        let latency = now.saturating_sub(since);
        match self.cause(since) {
            None if latency > LATE => {
                self.open.push(latency);
                if self.waits.as_ref().is_some_and(|waits| now >= waits.looked_at + WAITS_SOONEST) {
                    self.look_at_server(now);
                }
            }
            cause => self.count(cause, latency),
        }
        self.quick_in_a_row = if latency > QUICK { 0 } else { self.quick_in_a_row + 1 };
        if self.quick_in_a_row >= QUICK_IN_A_ROW {
            self.rest(now);
        }
    }

    /// All requests have their replies.
    pub fn end(&mut self, now: u64) {
        self.look_at_server(now);
    }

    fn count(&mut self, cause: Option<Cause>, latency: u64) {
        if latency > LATE {
            self.late += 1;
            match cause {
                Some(Cause::ClientGap) => self.late_by_gap += 1,
                Some(Cause::ServerWait) => self.late_by_wait += 1,
                Some(Cause::Backlog) => self.late_by_backlog += 1,
                None => {}
            }
        }
        if cause.is_none() {
            self.own.saturating_record(latency);
        }
    }

    /// What the machine did to a request that was due at `since` and has its reply now.
    fn cause(&self, since: u64) -> Option<Cause> {
        match since {
            _ if self.gap_end > since => Some(Cause::ClientGap),
            _ if self.wait_end > since => Some(Cause::ServerWait),
            _ if self.backlog_end > since => Some(Cause::Backlog),
            _ => None,
        }
    }

    fn look_at_server(&mut self, now: u64) {
        let waited = self.waits.as_mut().map_or(0, |waits| waits.look(now));
        self.wait(waited, now);
    }

    /// The server's core has paused for so long, until `end`.
    fn pause(&mut self, length: u64, end: u64) {
        self.paused += length;
        self.without_core(length, end);
    }

    /// The server's thread has waited so long since the last question.
    fn wait(&mut self, waited: u64, now: u64) {
        self.waited += waited;
        self.without_core(waited, now);
    }

    fn without_core(&mut self, waited: u64, now: u64) {
        // Only the wait itself can be the cause of these: their replies came before its backlog.
        let cause = (waited > GAP_MIN).then_some(Cause::ServerWait);
        for latency in std::mem::take(&mut self.open) {
            self.count(cause, latency);
        }
        if cause.is_some() {
            self.wait_end = self.wait_end.max(now);
        }
        // Short waits do not begin a backlog, but they prolong one.
        if cause.is_some() || self.backlog_end > now {
            self.backlog_until((self.backlog_end + waited).max(now) + self.recovery(waited));
        }
    }

    /// The time in which the server makes up for `nanoseconds` without service.
    fn recovery(&self, nanoseconds: u64) -> u64 {
        (nanoseconds as f64 * self.recovery) as u64
    }

    fn backlog_until(&mut self, end: u64) {
        if end > self.backlog_end {
            self.backlog_end = end;
            self.quick_in_a_row = 0;
        }
    }

    /// Late requests without a cause in the machine.
    pub fn late_own(&self) -> u64 {
        self.late - self.late_by_gap - self.late_by_wait - self.late_by_backlog
    }

    /// Adds the requests of another thread. What the server waited, both have seen.
    pub fn add(&mut self, other: &Tail) {
        self.looks.add(&other.looks);
        self.late += other.late;
        self.late_by_gap += other.late_by_gap;
        self.late_by_wait += other.late_by_wait;
        self.late_by_backlog += other.late_by_backlog;
        self.waited = self.waited.max(other.waited);
        self.paused = self.paused.max(other.paused);
        self.own.add(&other.own).expect("histograms of equal bounds");
        for (sum, count) in self.disturbed.iter_mut().zip(other.disturbed) {
            *sum += count;
        }
    }
}

/// Notes when a core has paused. It sleeps on the core, with priority over every program: if it wakes up late, the core
/// itself was away.
#[derive(Debug)]
pub struct Sentinel {
    begun: Instant,
    /// The end of the last pause and its length, in nanoseconds.
    last: AtomicU64,
    length: AtomicU64,
}

impl Sentinel {
    pub fn new() -> Sentinel {
        Sentinel { begun: Instant::now(), last: AtomicU64::new(0), length: AtomicU64::new(0) }
    }

    /// Keeps watch on a core until `done`. Without the right to priority it notes nothing.
    pub fn watch(&self, core: &Cpus, done: &AtomicBool) {
        if core.pin().is_err() || !go_first() {
            return;
        }
        while !done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            thread::sleep(SENTINEL_SLEEPS);
            let late = begun.elapsed().saturating_sub(SENTINEL_SLEEPS);
            self.note(late.as_nanos() as u64, self.begun.elapsed().as_nanos() as u64);
        }
    }

    fn note(&self, late: u64, now: u64) {
        if late > GAP_MIN {
            self.length.store(late, Ordering::Relaxed);
            self.last.store(now, Ordering::Release);
        }
    }
}

/// How long the busiest thread of a process waits for its core.
#[derive(Debug)]
struct Waits {
    threads: Vec<File>,
    /// What was read last.
    times: Vec<Times>,
    busiest: usize,
    looked_at: u64,
}

/// Nanoseconds that a thread has run, and that it has waited for a core.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Times {
    run: u64,
    waited: u64,
}

impl Waits {
    fn open(process: u32) -> io::Result<Waits> {
        let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
        let files: io::Result<Vec<File>> = tasks.map(|task| File::open(task?.path().join("schedstat"))).collect();
        let threads = files?;
        let times: Vec<Times> = threads.iter().map(|file| read(file).unwrap_or_default()).collect();
        let busiest = (0..times.len()).max_by_key(|&thread| times[thread].run).ok_or(io::ErrorKind::NotFound)?;
        Ok(Waits { threads, times, busiest, looked_at: 0 })
    }

    /// Nanoseconds that the busiest thread has waited since the last look, and no other thread of the process ran.
    fn look(&mut self, now: u64) -> u64 {
        self.looked_at = now;
        let times: Vec<Times> =
            self.threads.iter().zip(&self.times).map(|(file, before)| read(file).unwrap_or(*before)).collect();
        let waited = waited_for_others(&self.times, &times, self.busiest);
        self.times = times;
        waited
    }
}

fn waited_for_others(before: &[Times], after: &[Times], busiest: usize) -> u64 {
    let waited = after[busiest].waited.saturating_sub(before[busiest].waited);
    let threads = before.iter().zip(after).enumerate().filter(|(thread, _)| *thread != busiest);
    let run: u64 = threads.map(|(_, (before, after))| after.run.saturating_sub(before.run)).sum();
    waited.saturating_sub(run)
}

fn read(schedstat: &File) -> Option<Times> {
    let mut bytes = [0; 96];
    let count = schedstat.read_at(&mut bytes, 0).ok()?;
    let mut numbers = std::str::from_utf8(&bytes[..count]).ok()?.split_ascii_whitespace().map(str::parse);
    Some(Times { run: numbers.next()?.ok()?, waited: numbers.next()?.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_gap_is_the_time_between_two_looks() {
        let mut looks = Looks::new(50);
        assert_eq!(looks.look(50 + GAP_MIN), None);
        assert_eq!(looks.look(2 * MS), Some(2 * MS - 50 - GAP_MIN));
        assert_eq!(looks.look(3 * MS), Some(MS));
        assert_eq!((looks.longest, looks.long), (2 * MS - 50 - GAP_MIN, 1));
    }

    /// At half of what the server holds, a backlog lasts as long as the gap.
    fn tail() -> Tail {
        let mut tail = Tail { waits: None, ..Tail::new(0.5, 0, 0) };
        (0..=100).for_each(|step| tail.look(step * GAP_MIN));
        tail
    }

    #[test]
    fn a_request_under_way_during_a_gap_is_the_machines() {
        let mut tail = tail();
        assert_eq!(tail.cause(0), None);
        tail.look(14 * MS);
        // Due before the gap, in it, at its end, and just before the backlog of 4 ms is served.
        for (since, cause) in [
            (0, Some(Cause::ClientGap)),
            (11 * MS, Some(Cause::ClientGap)),
            (14 * MS, Some(Cause::Backlog)),
            (18 * MS - 1, Some(Cause::Backlog)),
            (18 * MS, None),
        ] {
            assert_eq!(tail.cause(since), cause, "{since}");
        }
    }

    #[test]
    fn a_backlog_ends_when_nothing_is_under_way() {
        let mut tail = tail();
        tail.look(14 * MS);
        tail.rest(15 * MS);
        assert_eq!((tail.cause(15 * MS - 1), tail.cause(15 * MS)), (Some(Cause::Backlog), None));
        tail.rest(17 * MS);
        assert_eq!(tail.cause(16 * MS), None);
    }

    #[test]
    fn a_backlog_ends_when_many_replies_in_a_row_were_quick() {
        let mut tail = tail();
        tail.look(14 * MS);
        for (count, latency) in [(QUICK_IN_A_ROW - 1, QUICK), (1, QUICK + 1), (QUICK_IN_A_ROW - 1, 0)] {
            (0..count).for_each(|_| tail.complete(15 * MS - latency, 15 * MS));
            assert_eq!(tail.cause(15 * MS), Some(Cause::Backlog));
        }
        tail.complete(15 * MS, 15 * MS);
        assert_eq!(tail.cause(15 * MS), None);
        tail.look(16 * MS);
        tail.complete(16 * MS, 16 * MS);
        assert_eq!(tail.cause(16 * MS), Some(Cause::Backlog), "a gap begins a new row");
    }

    #[test]
    fn a_server_makes_up_for_its_waits_but_not_for_a_gap_of_the_client_while_it_had_work() {
        let mut tail = tail();
        tail.look(14 * MS);
        tail.look(15 * MS);
        assert_eq!((tail.cause(18 * MS - 1), tail.cause(18 * MS)), (Some(Cause::Backlog), None));
        tail.wait(2 * MS, 16 * MS);
        assert_eq!((tail.cause(16 * MS - 1), tail.cause(16 * MS)), (Some(Cause::ServerWait), Some(Cause::Backlog)));
        assert_eq!((tail.cause(22 * MS - 1), tail.cause(22 * MS)), (Some(Cause::Backlog), None));
    }

    #[test]
    fn a_short_wait_prolongs_a_backlog_and_begins_none() {
        let mut tail = tail();
        tail.wait(GAP_MIN, 10 * MS);
        assert_eq!(tail.cause(10 * MS - 1), None);
        tail.look(14 * MS);
        tail.wait(GAP_MIN, 15 * MS);
        let end = 18 * MS + 2 * GAP_MIN;
        assert_eq!((tail.cause(end - 1), tail.cause(end)), (Some(Cause::Backlog), None));
        assert_eq!((tail.cause(14 * MS), tail.waited), (Some(Cause::Backlog), 2 * GAP_MIN));
    }

    #[test]
    fn late_requests_are_counted_by_cause_and_the_others_are_the_servers() {
        let mut tail = tail();
        tail.complete(8 * MS, 10 * MS);
        tail.complete(9 * MS, 10 * MS);
        tail.end(10 * MS);
        tail.look(14 * MS);
        tail.complete(9 * MS, 14 * MS);
        tail.complete(14 * MS, 16 * MS);
        tail.complete(30 * MS, 32 * MS);
        // The last one has no cause so far, and is not counted.
        assert_eq!((tail.late, tail.own.len()), (3, 2));
        tail.wait(MS, 33 * MS);
        tail.complete(32 * MS, 34 * MS);
        let counts = [tail.late, tail.late_by_gap, tail.late_by_backlog, tail.late_by_wait, tail.late_own()];
        assert_eq!(counts, [5, 1, 1, 2, 1]);
        assert_eq!(tail.own.len(), 2);
        assert!(tail.own.max().abs_diff(2 * MS) < MS / 100);
    }

    #[test]
    fn a_server_that_waits_for_itself_does_not_wait_for_the_machine() {
        let times =
            |pairs: &[(u64, u64)]| -> Vec<Times> { pairs.iter().map(|&(run, waited)| Times { run, waited }).collect() };
        let before = times(&[(5, 7), (900, 100), (20, 0)]);
        for (after, expected) in [
            ([(5, 7), (950, 100), (20, 0)], 0),
            ([(5, 90), (950, 180), (20, 0)], 80),
            ([(25, 7), (950, 180), (50, 0)], 30),
            ([(25, 7), (950, 180), (90, 0)], 0),
        ] {
            assert_eq!(waited_for_others(&before, &times(&after), 1), expected, "{after:?}");
        }
    }

    #[test]
    fn a_pause_of_the_servers_core_counts_once() {
        let sentinel = Arc::new(Sentinel::new());
        let mut tail = tail();
        tail.ask(Arc::clone(&sentinel), sentinel.begun + Duration::from_nanos(5 * MS));
        sentinel.note(GAP_MIN, 14 * MS);
        tail.look(10 * MS);
        assert_eq!((tail.cause(0), tail.paused), (None, 0), "not late enough");
        sentinel.note(2 * MS, 15 * MS);
        tail.look(10 * MS);
        tail.look(10 * MS);
        assert_eq!((tail.cause(10 * MS - 1), tail.paused), (Some(Cause::ServerWait), 2 * MS));
        assert_eq!((tail.cause(12 * MS - 1), tail.cause(12 * MS)), (Some(Cause::Backlog), None));
    }

    #[test]
    fn this_process_has_run() {
        let mut waits = Waits::open(std::process::id()).expect("it is there");
        assert!(waits.times[waits.busiest].run > 0);
        waits.look(MS);
        assert_eq!(waits.looked_at, MS);
    }
}
