//! A run: client threads connect, prefill, wait for each other, and measure.
//!
//! It has two halves, so that `compare` can read the server's CPU time between prefill and measurement.

use std::io::{IsTerminal, Read, Write, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::address::allow_files;
use crate::plan::Plan;
use crate::report::Report;
use crate::tally::Tally;
use crate::worker::{Progress, Worker};

/// Files besides connections: polls, timers, standard streams.
const FILES_PER_THREAD: usize = 4;
const FILES_BESIDES: usize = 64;

/// A run whose threads have connected and prefilled, and wait for the start.
pub struct Session {
    plan: Arc<Plan>,
    prefill: Option<Tally>,
    idle: Vec<Socket>,
    starts: Vec<Sender<Instant>>,
    results: Receiver<Message>,
    progress: Vec<Arc<Progress>>,
    status: Status,
}

enum Message {
    /// The thread has connected, and prefilled if the plan says so; or why it could not.
    Ready(Result<Box<Tally>, String>),
    /// The thread of this number has measured.
    Measured(usize, Box<Tally>),
}

impl Session {
    /// Connects, and prefills if the plan says so. A signal or a failing thread sets `stop`; the threads then end in
    /// good order.
    pub fn open(plan: Plan, stop: &Arc<AtomicBool>, mut observe: impl FnMut(&Status)) -> Result<Session, String> {
        plan.rules()?;
        let plan = Arc::new(plan);
        let connections = plan.workload.connections;
        allow_files(connections + plan.idle_connections + FILES_PER_THREAD * plan.threads + FILES_BESIDES)?;
        let open = |ordinal: usize| plan.addresses[ordinal % plan.addresses.len()].connect(ordinal);
        let idle: Result<Vec<Socket>, _> = (connections..connections + plan.idle_connections).map(open).collect();
        let idle = idle.map_err(|error| format!("idle connection to {}: {error}", plan.server()))?;
        let (sender, results) = channel();
        let (mut starts, mut progress) = (Vec::new(), Vec::new());
        for index in 0..plan.threads {
            let (start, started) = channel();
            let own = Arc::new(Progress::default());
            starts.push(start);
            progress.push(own.clone());
            let (plan, stop, sender) = (plan.clone(), stop.clone(), sender.clone());
            let work = move || work(plan, index, stop, own, &sender, &started);
            thread::Builder::new()
                .name(format!("client {index}"))
                .spawn(work)
                .map_err(|error| format!("no thread: {error}"))?;
        }
        let mut session = Session { plan, prefill: None, idle, starts, results, progress, status: Status::new() };
        session.await_threads(&mut observe)?;
        Ok(session)
    }

    fn await_threads(&mut self, observe: &mut impl FnMut(&Status)) -> Result<(), String> {
        for _ in 0..self.plan.threads {
            let Message::Ready(ready) = self.receive(observe) else { panic!("a thread is ready before it measures") };
            let tally = *ready?;
            match &mut self.prefill {
                _ if self.plan.prefill == 0 => {}
                Some(sum) => sum.add(tally),
                none => *none = Some(tally),
            }
        }
        Ok(())
    }

    /// The counts of the prefill, if the plan has one.
    pub fn prefill(&self) -> Option<&Tally> {
        self.prefill.as_ref()
    }

    /// Starts the measurement and waits for the results of all threads. Calls `observe` about once a second, as `open`
    /// does.
    pub fn measure(mut self, mut observe: impl FnMut(&Status)) -> Report {
        self.status = Status::new();
        for start in &self.starts {
            start.send(self.status.begun).expect("a thread that is ready waits for its start");
        }
        let mut tally: Option<Tally> = None;
        let mut busy = vec![0.0; self.plan.threads];
        for _ in 0..self.plan.threads {
            let Message::Measured(index, other) = self.receive(&mut observe) else { panic!("a thread is ready once") };
            busy[index] = other.busy();
            match &mut tally {
                Some(tally) => tally.add(*other),
                none => *none = Some(*other),
            }
        }
        let tally = tally.expect("there is at least one thread");
        let idle_lost = self.idle.iter().filter(|socket| !is_idle(socket)).count();
        Report::new(&self.plan, self.prefill, tally, busy, idle_lost)
    }

    fn receive(&mut self, observe: &mut impl FnMut(&Status)) -> Message {
        loop {
            match self.results.recv_timeout(self.status.next.saturating_duration_since(Instant::now())) {
                Ok(message) => return message,
                Err(RecvTimeoutError::Timeout) => {
                    self.status.update(&self.progress);
                    observe(&self.status);
                }
                Err(RecvTimeoutError::Disconnected) => panic!("a thread ends with a message"),
            }
        }
    }
}

/// Runs a client thread, from connecting to its result.
fn work(
    plan: Arc<Plan>,
    index: usize,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    results: &Sender<Message>,
    started: &Receiver<Instant>,
) {
    let pinned = plan.cpus.as_ref().map_or(Ok(()), |cpus| cpus.nth(index).pin());
    let worker = pinned
        .map_err(|error| format!("thread {index} cannot be pinned: {error}"))
        .and_then(|()| Worker::connect(plan.clone(), index, stop, progress));
    // Sending fails only if the receiver has given up. Nothing is left to do then.
    let mut worker = match worker {
        Ok(worker) => worker,
        Err(why) => {
            let _ = results.send(Message::Ready(Err(why)));
            return;
        }
    };
    let tally = if plan.prefill > 0 { worker.prefill() } else { Tally::new() };
    let _ = results.send(Message::Ready(Ok(Box::new(tally))));
    if let Ok(start) = started.recv() {
        let _ = results.send(Message::Measured(index, Box::new(worker.measure(start))));
    }
}

/// An idle connection has nothing to read, not even an end of file.
fn is_idle(mut socket: &Socket) -> bool {
    socket.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Progress of the prefill or the measurement.
pub struct Status {
    begun: Instant,
    /// Time of the next update.
    next: Instant,
    /// Totals at the last update.
    requests: u64,
    hits: u64,
    misses: u64,
    /// Over the last second.
    requests_per_second: f64,
    hit_rate: Option<f64>,
}

const LOOK: Duration = Duration::from_secs(1);

impl Status {
    fn new() -> Status {
        let begun = Instant::now();
        Status { begun, next: begun + LOOK, requests: 0, hits: 0, misses: 0, requests_per_second: 0.0, hit_rate: None }
    }

    fn update(&mut self, progress: &[Arc<Progress>]) {
        let sum = |field: fn(&Progress) -> &AtomicU64| progress.iter().map(|own| field(own).load(Relaxed)).sum::<u64>();
        let step = |total: &mut u64, now: u64| now.saturating_sub(std::mem::replace(total, now)) as f64;
        let requests = step(&mut self.requests, sum(|progress| &progress.requests));
        let hits = step(&mut self.hits, sum(|progress| &progress.hits));
        let misses = step(&mut self.misses, sum(|progress| &progress.misses));
        self.requests_per_second = requests / LOOK.as_secs_f64();
        self.hit_rate = (hits + misses > 0.0).then(|| hits / (hits + misses));
        self.next += LOOK;
    }

    fn line(&self, what: &str) -> String {
        let hit_rate = self.hit_rate.map(|rate| format!(", {:.2} % hits", rate * 100.0)).unwrap_or_default();
        format!("{what}: {} s, {:.0} requests/s{hit_rate}", self.begun.elapsed().as_secs(), self.requests_per_second)
    }
}

/// Runs a plan, with a progress line on the terminal unless `quiet`.
pub fn run(plan: Plan, quiet: bool, stop: &Arc<AtomicBool>) -> Result<Report, String> {
    let shows = !quiet && stderr().is_terminal();
    let show = |line: &str| {
        if shows {
            let _ = write!(stderr(), "\r\x1b[K{line}");
        }
    };
    let session = Session::open(plan, stop, |status| show(&status.line("prefill")));
    show("");
    let report = session?.measure(|status| show(&status.line("run")));
    show("");
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    use super::*;
    use crate::address::Address;
    use crate::plan::Limit;
    use crate::workload::Workload;

    type Items = Arc<Mutex<HashMap<String, Vec<u8>>>>;

    /// A minimal server. It closes every connection after `requests_max` requests.
    fn start_server(requests_max: usize) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let items = Items::default();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let items = items.clone();
                thread::spawn(move || serve(&stream, requests_max, &items));
            }
        });
        Address::find(&address).expect("it listens")
    }

    fn serve(mut stream: &TcpStream, requests_max: usize, items: &Items) {
        let mut input = BufReader::new(stream);
        for _ in 0..requests_max {
            let (mut line, mut reply) = (String::new(), Vec::new());
            if input.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["set", key, _, _, length] = words[..] {
                let mut data = vec![0; length.parse::<usize>().expect("a length") + 2];
                input.read_exact(&mut data).expect("a data block");
                items.lock().expect("no panic").insert(key.to_owned(), data);
                reply.extend_from_slice(b"STORED\r\n");
            } else {
                for key in &words[1..] {
                    if let Some(data) = items.lock().expect("no panic").get(*key) {
                        reply.extend_from_slice(format!("VALUE {key} 0 {}\r\n", data.len() - 2).as_bytes());
                        reply.extend_from_slice(data);
                    }
                }
                reply.extend_from_slice(b"END\r\n");
            }
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
    }

    /// Runs 1000 requests, half of them gets, on 6 connections of 2 threads.
    fn run_with(server: Address, change: impl FnOnce(&mut Plan)) -> Report {
        let workload = Workload {
            get: 1,
            set: 1,
            keys: 100,
            connections: 6,
            pipeline: 3,
            keys_per_get: 4,
            value_size: (0, 20_000),
            ..Workload::default()
        };
        let mut plan = Plan { threads: 2, verify: true, ..Plan::new(vec![server], workload, Limit::Count(1000)) };
        change(&mut plan);
        run(plan, true, &Arc::default()).expect("the server is there")
    }

    #[test]
    fn a_prefilled_server_answers_everything() {
        let report = run_with(start_server(usize::MAX), |plan| plan.prefill = 100);
        assert!(report.is_clean(), "{:?}", report.complaints());
        assert_eq!(report.prefill.as_ref().map(|prefill| prefill.stored), Some(100));
        assert_eq!((report.tally.sent, report.tally.completed, report.hit_rate()), (1000, 1000, Some(1.0)));
    }

    #[test]
    fn missed_keys_are_set() {
        let report = run_with(start_server(usize::MAX), |plan| {
            (plan.workload.set, plan.workload.cache_aside) = (0, true);
        });
        assert!(report.is_clean(), "{:?}", report.complaints());
        assert!(report.tally.misses >= 100 && report.tally.stored >= 100);
        assert_eq!(report.tally.completed, 1000);
    }

    #[test]
    fn the_open_loop_sends_what_was_due() {
        let report = run_with(start_server(usize::MAX), |plan| plan.rate = Some(1e6));
        assert!(report.is_clean(), "{:?}", report.complaints());
        assert_eq!((report.tally.completed, report.tally.unsent), (1000, 0));
    }

    #[test]
    fn a_lost_connection_ends_the_run() {
        let report = run_with(start_server(20), |_| ());
        let complaints = report.complaints().join("\n");
        assert!(!report.is_clean() && complaints.contains("was lost with "), "{complaints}");
        assert_eq!(report.tally.sent, report.tally.completed + report.tally.lost);
    }

    #[test]
    fn a_lost_connection_is_opened_again_if_asked_for() {
        let report = run_with(start_server(100), |plan| plan.reconnect = true);
        assert!(report.is_clean(), "{:?}", report.complaints());
        assert_eq!(report.tally.sent, 1000);
        assert!(report.tally.reconnects > 0 && report.tally.lost > 0);
    }
}
