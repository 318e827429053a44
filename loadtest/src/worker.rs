//! One client thread: its poll, its connections, and the loop that keeps requests in flight.
//!
//! Closed loop: a connection sends `pipeline` requests in one write, and the next batch after all replies. Every server
//! thus gets the same bytes in one read, however it cuts its replies. Open loop: the thread sends requests when they
//! are due, in turn on connections with less than `pipeline` in flight. If all connections are full, requests wait, and
//! their latency still counts from their due times.

use std::collections::VecDeque;
use std::io;
use std::iter::StepBy;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;

use crate::address::Address;
use crate::client::{Client, Received, Rules};
use crate::cpus::nanoseconds_run;
use crate::disturb::Disturber;
use crate::pace::{Pace, Timer};
use crate::plan::{Limit, Plan};
use crate::request;
use crate::tail::Tail;
use crate::tally::Tally;
use crate::workload::{Draw, Operation, share};

/// Bytes per read; a value may be larger.
const BUFFER_SIZE: usize = 256 << 10;

/// A connection with this many unwritten bytes gets no more requests, so that large values need little memory.
const UNSENT_MAX: usize = 256 << 10;

/// Bytes and requests that the prefill has in flight per connection.
const PREFILL_BYTES: usize = 64 << 10;
const PREFILL_PIPELINE: usize = 32;

/// Interval for checking stop and deadline, and for reopening lost connections.
const TICK: Duration = Duration::from_millis(100);

/// The timer fires this much early, because waking up takes about as long. The thread polls for the rest.
const WAKE_EARLY: Duration = Duration::from_micros(50);

const TIMER: Token = Token(usize::MAX);

/// The token of disturbance 0; those of the others follow.
const DISTURBERS: usize = usize::MAX / 2;

/// The figures of the progress line. Each thread publishes its own once per turn.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Progress {
    pub requests: AtomicU64,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

pub struct Worker {
    plan: Arc<Plan>,
    index: usize,
    rules: Rules,
    poll: Poll,
    timer: Timer,
    slots: Vec<Slot>,
    /// Number of this thread's first connection, counted over all threads.
    first: usize,
    /// Open loop: connections that can take a request, each at most once.
    ready: VecDeque<usize>,
    draw: Draw,
    buffer: Vec<u8>,
    ids: Vec<u64>,
    tally: Tally,
    phase: Phase,
    disturbers: Vec<Box<dyn Disturber>>,
    /// All nanoseconds of this thread count from here.
    epoch: Instant,
    retry_at: u64,
    /// Time of the last bytes from the server, or of the first request after a pause by the client.
    heard_at: u64,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

struct Slot {
    link: Link,
    /// Closed loop: requests of the current batch that are not sent yet.
    batch_left: usize,
    /// The slot is in the list `ready`.
    ready: bool,
}

enum Link {
    Up(Client),
    Opening(Socket),
    Down,
}

/// Parameters of the prefill, or of the measurement.
struct Phase {
    /// The keys to set, in order, for each address; `None` draws requests from the workload.
    prefill: Option<Vec<StepBy<Range<u64>>>>,
    pipeline: usize,
    /// Requests still to be sent.
    budget: u64,
    deadline: u64,
    pace: Option<Pace>,
}

impl Phase {
    /// Whether the connections to address `port` have requests left.
    fn has_request(&self, port: usize) -> bool {
        self.budget > 0 && self.prefill.as_ref().is_none_or(|ids| ids[port].size_hint().0 > 0)
    }
}

/// The last key up to `id` that belongs to address `port` of `ports`; or else the first key that does.
fn on_port(id: u64, port: usize, ports: usize) -> u64 {
    let ports = ports as u64;
    let below = (id % ports + ports - port as u64) % ports;
    id.checked_sub(below).unwrap_or(port as u64)
}

impl Worker {
    /// Opens the connections of thread `index`.
    pub fn connect(
        plan: Arc<Plan>,
        index: usize,
        stop: Arc<AtomicBool>,
        progress: Arc<Progress>,
    ) -> Result<Worker, String> {
        let own = share(plan.workload.connections as u64, index, plan.threads);
        let mut worker = Worker {
            rules: plan.rules()?,
            poll: Poll::new().map_err(|error| format!("no poll: {error}"))?,
            timer: Timer::new().map_err(|error| format!("no timer: {error}"))?,
            slots: Vec::new(),
            first: own.start as usize,
            ready: VecDeque::new(),
            draw: Draw::new(&plan.workload, index, plan.threads, plan.sequence),
            buffer: vec![0; BUFFER_SIZE],
            ids: Vec::new(),
            tally: Tally::new(),
            phase: Phase { prefill: None, pipeline: 0, budget: 0, deadline: u64::MAX, pace: None },
            disturbers: Vec::new(),
            epoch: Instant::now(),
            retry_at: 0,
            heard_at: 0,
            plan,
            index,
            stop,
            progress,
        };
        let registry = worker.poll.registry();
        let timer = registry.register(&mut SourceFd(&worker.timer.fd()), TIMER, Interest::READABLE);
        timer.map_err(|error| format!("no timer: {error}"))?;
        for slot in 0..own.count() {
            let ordinal = worker.first + slot;
            let opened = worker.address(slot).connect(ordinal);
            let socket = opened.and_then(|socket| worker.register(&socket, slot).map(|()| socket));
            let socket =
                socket.map_err(|error| format!("connection {ordinal} to {}: {error}", worker.address(slot)))?;
            let wire = worker.address(slot).wire(socket)?;
            worker.slots.push(Slot { link: Link::Up(Client::new(wire)), batch_left: 0, ready: false });
        }
        if let (0, Some(strain)) = (index, &worker.plan.strain) {
            for (disturbance, token) in strain.disturbances.iter().zip(DISTURBERS..) {
                worker.disturbers.push(disturbance.begin(worker.poll.registry(), Token(token))?);
            }
        }
        Ok(worker)
    }

    /// The address of a connection.
    fn address(&self, slot: usize) -> &Address {
        &self.plan.addresses[(self.first + slot) % self.plan.addresses.len()]
    }

    /// Sets this thread's share of the keys.
    pub fn prefill(&mut self) -> Tally {
        let keys = share(self.plan.prefill, self.index, self.plan.threads);
        let ports = self.plan.addresses.len();
        let ids = |port: usize| {
            let start = on_port(keys.start + ports as u64 - 1, port, ports);
            (start..keys.end).step_by(ports)
        };
        self.run(Phase {
            pipeline: (PREFILL_BYTES / request::set_size_max(&self.rules.keys)).clamp(1, PREFILL_PIPELINE),
            budget: keys.end - keys.start,
            prefill: Some((0..ports).map(ids).collect()),
            deadline: u64::MAX,
            pace: None,
        })
    }

    /// Sends the workload from `start` on, up to its limit.
    pub fn measure(&mut self, start: Instant) -> Tally {
        self.epoch = start;
        let plan = &self.plan;
        let (budget, deadline) = match plan.limit {
            Limit::Time(time) => (u64::MAX, time.as_nanos() as u64),
            Limit::Count(count) => {
                let own = share(count, self.index, plan.threads);
                (own.end - own.start, u64::MAX)
            }
        };
        let pace = plan.rate.map(|rate| Pace::new(rate, self.index, plan.threads));
        self.run(Phase { prefill: None, pipeline: plan.workload.pipeline, budget, deadline, pace })
    }

    fn run(&mut self, phase: Phase) -> Tally {
        self.phase = phase;
        self.tally = Tally::new();
        self.heard_at = self.now();
        if let Some(strain) = self.plan.strain.as_ref().filter(|_| self.phase.pace.is_some()) {
            let mut tail = Tail::new(strain.share, strain.process, self.heard_at);
            tail.ask(Arc::clone(&strain.sentinel), self.epoch);
            self.tally.tail = Some(tail);
        }
        self.ready.clear();
        for slot in &mut self.slots {
            (slot.batch_left, slot.ready) = (0, false);
        }
        let cpu = nanoseconds_run(SELF).unwrap_or(0);
        if let Err(failure) = self.turns() {
            self.tally.failures.push(failure);
            self.tally.lost = self.tally.sent - self.tally.completed;
            self.stop.store(true, Relaxed);
        }
        self.tally.elapsed = self.now();
        if let Some(tail) = &mut self.tally.tail {
            tail.end(self.tally.elapsed);
        }
        self.tally.cpu = nanoseconds_run(SELF).unwrap_or(0) - cpu;
        std::mem::replace(&mut self.tally, Tally::new())
    }

    fn turns(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        for slot in 0..self.slots.len() {
            self.feed(slot)?;
        }
        loop {
            let now = self.look();
            if self.phase.budget > 0 && (now >= self.phase.deadline || self.stop.load(Relaxed)) {
                self.tally.unsent =
                    self.phase.pace.as_ref().map_or(0, |pace| pace.backlog(now.min(self.phase.deadline)));
                self.phase.budget = 0;
            }
            self.reopen(now);
            self.send_due(now)?;
            self.disturb(now)?;
            self.publish();
            if self.phase.budget == 0 && self.tally.in_flight() == 0 {
                return Ok(());
            }
            self.check_patience(now)?;
            let timeout = self.timeout(now);
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(format!("poll: {error}")),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    TIMER => {}
                    Token(token) if token >= DISTURBERS => self.disturbers[token - DISTURBERS].wake(),
                    _ => self.serve(event)?,
                }
            }
        }
    }

    /// Lets each disturbance take a step, after all requests that were due `now` have been sent.
    fn disturb(&mut self, now: u64) -> Result<(), String> {
        let Some(tail) = &mut self.tally.tail else { return Ok(()) };
        if self.tally.sent == self.tally.completed + self.tally.lost {
            tail.rest(now);
        }
        for (disturber, token) in self.disturbers.iter_mut().zip(DISTURBERS..) {
            let now = self.epoch.elapsed().as_nanos() as u64;
            tail.look(now);
            tail.disturbed[disturber.kind() as usize] += disturber.step(now, self.poll.registry(), Token(token))?;
        }
        Ok(())
    }

    fn serve(&mut self, event: &Event) -> Result<(), String> {
        let slot = event.token().0;
        match &mut self.slots[slot].link {
            Link::Down => return Ok(()),
            Link::Opening(socket) => {
                let refused = !matches!(socket.take_error(), Ok(None));
                let link = std::mem::replace(&mut self.slots[slot].link, Link::Down);
                match link {
                    Link::Opening(socket) if !refused && event.is_writable() => {
                        let wire = self.address(slot).wire(socket)?;
                        self.slots[slot].link = Link::Up(Client::new(wire));
                        self.tally.reconnects += 1;
                    }
                    _ => return Ok(()),
                }
            }
            Link::Up(client) => {
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    let result = loop {
                        match client.receive(&self.rules, &mut self.buffer, self.epoch, &mut self.tally) {
                            Ok(Received::Full) => {}
                            Ok(Received::Some) if event.is_read_closed() => {}
                            Ok(Received::Some | Received::Nothing) => break Ok(()),
                            Err(why) => break Err(why),
                        }
                    };
                    self.heard_at = self.look();
                    if let Err(why) = result {
                        return self.lose(slot, &why);
                    }
                }
            }
        }
        self.feed(slot)
    }

    /// Fills a connection up with requests.
    fn feed(&mut self, slot: usize) -> Result<(), String> {
        let (now, ports) = (self.look(), self.plan.addresses.len());
        loop {
            let Slot { link: Link::Up(client), batch_left, ready } = &mut self.slots[slot] else { return Ok(()) };
            let room = client.unsent() < UNSENT_MAX && self.phase.has_request((self.first + slot) % ports);
            if self.phase.pace.is_none() {
                if client.in_flight() == 0 {
                    *batch_left = self.phase.pipeline;
                }
                if room && *batch_left > 0 {
                    *batch_left -= 1;
                    self.send(slot, now, now);
                    continue;
                }
            } else if client.in_flight() < self.phase.pipeline && room {
                if !client.missed.is_empty() {
                    self.send(slot, now, now);
                    continue;
                }
                if !*ready {
                    *ready = true;
                    self.ready.push_back(slot);
                }
            }
            let before = client.unsent();
            if let Err(why) = client.flush() {
                return self.lose(slot, &why);
            }
            // A large batch is written in parts. Continue while the socket takes them whole.
            if before < UNSENT_MAX || client.unsent() > 0 {
                return Ok(());
            }
        }
    }

    /// Open loop: sends the requests that are due by now.
    fn send_due(&mut self, now: u64) -> Result<(), String> {
        let mut touched: Vec<usize> = Vec::new();
        while self.phase.budget > 0
            && let Some(&slot) = self.ready.front()
        {
            let Some(pace) = &mut self.phase.pace else { break };
            let has_room = |slot: &Slot| match &slot.link {
                Link::Up(client) => client.in_flight() < self.phase.pipeline && client.unsent() < UNSENT_MAX,
                Link::Opening(_) | Link::Down => false,
            };
            if has_room(&self.slots[slot]) {
                let Some(due) = pace.take(now) else { break };
                self.send(slot, due, now);
                touched.push(slot);
                self.look_if_watched();
                self.ready.rotate_left(1);
            } else {
                self.ready.pop_front();
                self.slots[slot].ready = false;
            }
        }
        for slot in touched {
            self.look_if_watched();
            if let Link::Up(client) = &mut self.slots[slot].link
                && let Err(why) = client.flush()
            {
                self.lose(slot, &why)?;
            }
        }
        Ok(())
    }

    /// Adds the next request to the output of a connection that is up.
    #[inline]
    fn send(&mut self, slot: usize, since: u64, now: u64) {
        let Link::Up(client) = &mut self.slots[slot].link else { return };
        let (rules, draw) = (&self.rules, &mut self.draw);
        let ports = self.plan.addresses.len();
        let port = (self.first + slot) % ports;
        let draw_key = |draw: &mut Draw, operation| match (draw.key(operation, &rules.keys), ports) {
            (id, 1) => id,
            (id, _) => on_port(id, port, ports),
        };
        if self.tally.in_flight() == 0 {
            self.heard_at = now;
        }
        let id_to_set = match &mut self.phase.prefill {
            Some(ids) => ids[port].next(),
            None => client.missed.pop(),
        };
        match id_to_set {
            Some(id) => client.send_set(rules, id, draw.ttl(), since),
            None => match draw.operation() {
                Operation::Set => client.send_set(rules, draw_key(draw, Operation::Set), draw.ttl(), since),
                Operation::Get => {
                    self.ids.clear();
                    self.ids.extend((0..self.plan.workload.keys_per_get).map(|_| draw_key(draw, Operation::Get)));
                    client.send_get(rules, &self.ids, since);
                }
            },
        }
        self.tally.sent += 1;
        self.phase.budget -= 1;
    }

    /// Gives up a connection. Returns an error, unless the plan is to reconnect.
    fn lose(&mut self, slot: usize, why: &str) -> Result<(), String> {
        let Link::Up(client) = std::mem::replace(&mut self.slots[slot].link, Link::Down) else { return Ok(()) };
        self.tally.connections_lost += 1;
        self.tally.lost += client.in_flight() as u64;
        let (ordinal, lost) = (self.first + slot, client.in_flight());
        if self.plan.reconnect {
            return Ok(());
        }
        Err(format!("connection {ordinal} to {} was lost with {lost} requests in flight: {why}", self.address(slot)))
    }

    /// Tries to reopen lost connections, ten times a second.
    fn reopen(&mut self, now: u64) {
        if !self.plan.reconnect || now < self.retry_at {
            return;
        }
        self.retry_at = now + TICK.as_nanos() as u64;
        for slot in 0..self.slots.len() {
            if matches!(self.slots[slot].link, Link::Down)
                && let Ok(socket) = self.address(slot).connect_later(self.first + slot)
                && self.register(&socket, slot).is_ok()
            {
                self.slots[slot].link = Link::Opening(socket);
            }
        }
    }

    fn register(&self, socket: &Socket, slot: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(slot), interest)
    }

    fn check_patience(&self, now: u64) -> Result<(), String> {
        let silence = Duration::from_nanos(now.saturating_sub(self.heard_at));
        if silence < self.plan.patience {
            return Ok(());
        }
        match self.tally.in_flight() {
            0 if self.slots.iter().any(|slot| matches!(slot.link, Link::Up(_))) => Ok(()),
            0 => Err(format!("no connection to {} for {} s", self.plan.server(), silence.as_secs())),
            count => {
                Err(format!("{}: {count} requests without a reply for {} s", self.plan.server(), silence.as_secs()))
            }
        }
    }

    fn timeout(&self, now: u64) -> Duration {
        if self.tally.tail.is_some() {
            return Duration::ZERO;
        }
        let until = |time: u64| Duration::from_nanos(time.saturating_sub(now));
        let tick = if self.phase.budget > 0 { TICK.min(until(self.phase.deadline)) } else { TICK };
        let Some(pace) = self.phase.pace.as_ref().filter(|_| self.phase.budget > 0 && !self.ready.is_empty()) else {
            return tick;
        };
        let wait = until(pace.due());
        if wait <= WAKE_EARLY {
            return Duration::ZERO;
        }
        self.timer.set(wait - WAKE_EARLY);
        tick
    }

    fn publish(&self) {
        self.progress.requests.store(self.tally.completed, Relaxed);
        self.progress.hits.store(self.tally.hits, Relaxed);
        self.progress.misses.store(self.tally.misses, Relaxed);
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The time, which the tally notes as a look at the clock.
    fn look(&mut self) -> u64 {
        let now = self.now();
        self.tally.look(now);
        now
    }

    /// A look at the clock in long work; it costs nothing if nobody counts the looks.
    fn look_if_watched(&mut self) {
        if self.tally.tail.is_some() {
            self.look();
        }
    }
}

/// This thread's directory in /proc.
const SELF: &str = "/proc/thread-self";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_moved_to_the_address_that_they_are_asked_of() {
        for (id, port, ports, expected) in
            [(7, 0, 1, 7), (7, 1, 2, 7), (7, 0, 2, 6), (8, 2, 3, 8), (9, 2, 3, 8), (0, 2, 3, 2)]
        {
            assert_eq!(on_port(id, port, ports), expected, "{id} to {port} of {ports}");
        }
    }
}
