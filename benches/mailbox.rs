//! What does it cost that any worker can use a shard: for one worker alone, for two that compete, and for one that
//! posts?
//!
//! - Lease and give back, uncontended: the cost per shard for each connection that a worker serves.
//! - Two workers run batches of `get`s on one shard, as fast as they can. A worker that finds the lease taken posts the
//!   batch, and waits until it comes back by mail. For comparison, one worker does the same alone. The figures are per
//!   batch and per operation.
//! - A hop: a worker posts a batch of one `get` to a shard whose holder is busy with its own operations, and waits
//!   until it comes back. Batches that the poster had to run itself, because the lease was free at that moment, do not
//!   count.
//!
//! The workers here are threads that do nothing else, so the bench measures the exchange without sockets and sleep. The
//! figures mean much only on two cores that are otherwise idle. The bench compares replies with the expected ones.

#![allow(clippy::print_stdout, reason = "what a bench finds out is its product")]

mod common;

use common::{SEED, Samples, Verdict, write_key, write_value};
use corecached::clock::{Clock, NEVER};
use corecached::command::{self, Request, Shard};
use corecached::hash::KeyHasher;
use corecached::protocol::{Operation, Span, Verb};
use corecached::worker::batch::{Batch, Task};
use corecached::worker::mailbox::{Exchange, Mail};
use corecached::worker::uploads::Limit;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// So few that they fit into the caches: the bench measures the exchange, not memory.
const ITEMS: u64 = 10_000;
const VALUE_LEN: usize = 32;
/// Bytes of the reply to one `get`: `VALUE <key> 0 32\r\n<value>\r\n`.
const REPLY_LEN: usize = 6 + common::KEY_LEN + 7 + VALUE_LEN + 2;
/// `Config::group_len`'s default.
const GROUP: usize = 64;

const BATCH_SIZES: [usize; 5] = [1, 4, 16, 64, 256];
/// Time for each batch size, with one worker and with two.
const TIME: Duration = Duration::from_millis(300);
const HOPS: usize = 20_000;
/// Hops end after this time, whatever their number.
const HOPS_TIME: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    lease(&mut verdict);
    contention(&mut verdict);
    hop(&mut verdict);
    verdict.exit()
}

/// A shard with [`ITEMS`] items, between two workers.
fn exchange() -> Exchange {
    let mut shard = common::shard(16);
    let hasher = common::hasher();
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for number in 0..ITEMS {
        key.clear();
        write_key(number, &mut key);
        value.clear();
        write_value(number, 0, VALUE_LEN, &mut value);
        shard.store.put(hasher.hash(&key), &key, 0, NEVER, &value, None).expect("there is room for all items");
    }
    Exchange::new(vec![shard], 2, Limit::None)
}

fn lease(verdict: &mut Verdict) {
    const LEASES: usize = 100_000;
    let exchange = exchange();
    let mut leases = 0;
    let samples = Samples::take(50, LEASES, || {
        for _ in 0..LEASES {
            if let Some(lease) = exchange.try_lease(0) {
                leases += 1;
                exchange.give_back(lease, |_, _| unreachable!("nobody posts"));
            }
        }
    });
    verdict.expect(leases == 51 * LEASES, || format!("the lease of a shard that nobody uses: {leases} times"));
    let held = exchange.try_lease(0);
    verdict.expect(held.is_some() && exchange.try_lease(0).is_none(), || "two leases of one shard".to_owned());
    println!("lease and give back, uncontended: best {:.1} ns, median {:.1} ns", samples.best(), samples.median());
}

fn contention(verdict: &mut Verdict) {
    println!("\nbatches of gets for one shard, ns by the clock while");
    println!(
        "{:>10} {:^25} {:^25} {:^12} {:^10}",
        "", "one worker has them", "two workers have them", "of the time", "of batches"
    );
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>12} {:>12} {:>10}",
        "operations", "per batch", "per op", "per batch", "per op", "of one", "posted"
    );
    for size in BATCH_SIZES {
        let alone = compete(size, 1, verdict);
        let both = compete(size, 2, verdict);
        println!(
            "{size:>10} {:>12.0} {:>12.1} {:>12.0} {:>12.1} {:>11.0}% {:>9.0}%",
            alone.batch_ns,
            alone.batch_ns / size as f64,
            both.batch_ns,
            both.batch_ns / size as f64,
            100.0 * both.batch_ns / alone.batch_ns,
            100.0 * both.posted
        );
    }
}

struct Competition {
    /// Elapsed time, divided by the batches of all workers.
    batch_ns: f64,
    /// Share of batches that found the lease taken.
    posted: f64,
}

/// Lets workers use the shard as fast as they can for [`TIME`].
fn compete(size: usize, workers: usize, verdict: &mut Verdict) -> Competition {
    let (exchange, clock) = (exchange(), Clock::start());
    let (stop, barrier) = (AtomicBool::new(false), Barrier::new(workers + 1));
    let (batches, posted, wrong) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = |worker: usize| {
        let mut batch = batch(worker, size);
        let (mut count, mut count_posted, mut count_wrong) = (0, 0, 0);
        barrier.wait();
        while !stop.load(Ordering::Relaxed) {
            let run = |shard: &mut Shard, batch: &mut Batch| run(shard, batch, &clock);
            batch = match exchange.try_lease(0) {
                Some(mut lease) => {
                    run(&mut lease, &mut batch);
                    exchange.give_back(lease, run);
                    batch
                }
                None => {
                    count_posted += 1;
                    exchange.post(batch, run);
                    wait(&exchange, worker)
                }
            };
            count_wrong += u64::from(batch.reply.out.len() != size * REPLY_LEN || batch.ends.len() != size);
            count += 1;
        }
        count_wrong += u64::from(!is_answered(&batch));
        batches.fetch_add(count, Ordering::Relaxed);
        posted.fetch_add(count_posted, Ordering::Relaxed);
        wrong.fetch_add(count_wrong, Ordering::Relaxed);
    };
    let time = thread::scope(|scope| {
        let work = &work;
        for worker in 0..workers {
            scope.spawn(move || work(worker));
        }
        barrier.wait();
        let started = Instant::now();
        thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
        started.elapsed()
    });
    let (batches, wrong) = (batches.into_inner(), wrong.into_inner());
    verdict.expect(batches > 0 && wrong == 0, || format!("{wrong} of {batches} batches of {size} had wrong replies"));
    Competition {
        batch_ns: time.as_nanos() as f64 / batches as f64,
        posted: posted.into_inner() as f64 / batches as f64,
    }
}

fn hop(verdict: &mut Verdict) {
    println!("\nhop to a busy shard and back, ns");
    println!(
        "{:>24} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "operations of its holder", "best", "median", "p99", "p99.9", "hops"
    );
    for size in [1, 16, 64] {
        let samples = hops(size, verdict);
        let quantile = |share| samples.quantile(share);
        println!(
            "{size:>24} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9}",
            samples.best(),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            samples.count()
        );
    }
}

/// Worker 0 posts; worker 1 holds the shard nearly all the time, and gives it back after every `size` operations.
fn hops(size: usize, verdict: &mut Verdict) -> Samples {
    let (exchange, clock, stop) = (exchange(), Clock::start(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut own = batch(1, size);
            while !stop.load(Ordering::Relaxed) {
                if let Some(mut lease) = exchange.try_lease(0) {
                    run(&mut lease, &mut own, &clock);
                    exchange.give_back(lease, |shard, batch| run(shard, batch, &clock));
                }
            }
        });
        let (mut samples, mut batch) = (Samples::default(), batch(0, 1));
        let begun = Instant::now();
        while samples.count() < HOPS && begun.elapsed() < HOPS_TIME {
            let mut ran_here = false;
            let started = Instant::now();
            exchange.post(batch, |shard, batch| {
                ran_here = true;
                run(shard, batch, &clock);
            });
            batch = wait(&exchange, 0);
            if !ran_here {
                samples.add(started.elapsed().as_nanos() as f64);
            }
            verdict.expect(is_answered(&batch), || format!("a batch came back with {:?}", batch.reply.out.bytes()));
        }
        stop.store(true, Ordering::Relaxed);
        verdict.expect(samples.count() > 0, || "no batch was run by the holder of the lease".to_owned());
        samples
    })
}

/// Waits until the batch of a worker has come back.
fn wait(exchange: &Exchange, worker: usize) -> Box<Batch> {
    let mut spins = 0_u32;
    loop {
        match exchange.next_mail(worker) {
            Some(Mail::Batch(batch)) => return batch,
            Some(other) => unreachable!("only batches are mailed here, not {other:?}"),
            // On a machine with few idle cores, the other thread may need this one.
            None if spins > 10_000 => thread::yield_now(),
            None => {
                spins += 1;
                std::hint::spin_loop();
            }
        }
    }
}

/// A batch of `size` gets of random keys.
fn batch(worker: usize, size: usize) -> Box<Batch> {
    let hasher: KeyHasher = common::hasher();
    let mut random = common::Random(SEED + worker as u64);
    let mut batch = Box::new(Batch::new(worker, 0));
    for _ in 0..size {
        let mut key = Vec::new();
        write_key(random.below(ITEMS), &mut key);
        let operation = Operation {
            verb: Verb::Get,
            key: Span::new(0, key.len()),
            hash: hasher.hash(&key),
            ..Operation::default()
        };
        let operation = batch.adopt(&operation, &key);
        batch.tasks.push((Task::Execute(operation), None));
    }
    batch
}

/// Executes the operations of a batch, in groups, as `serve.rs` does. A batch may run several times.
fn run(shard: &mut Shard, batch: &mut Batch, clock: &Clock) {
    let Batch { tasks, bytes, reply, ends, .. } = batch;
    reply.out.clear();
    ends.clear();
    for group in tasks.chunks(GROUP) {
        let operations =
            || group.iter().filter_map(|(task, _)| if let Task::Execute(it) = task { Some(it) } else { None });
        operations().for_each(|operation| shard.store.prefetch_bucket(operation.hash));
        operations().for_each(|operation| {
            shard.store.prefetch_item(operation.hash);
        });
        for operation in operations() {
            command::execute(shard, &Request::new(operation, bytes, clock), reply);
            ends.push(reply.out.len());
        }
    }
}

/// Whether a batch has the expected replies.
fn is_answered(batch: &Batch) -> bool {
    let mut expected = Vec::new();
    for (task, _) in &batch.tasks {
        let Task::Execute(operation) = task else { return false };
        let key = operation.key.of(&batch.bytes);
        let number = std::str::from_utf8(&key[4..]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX);
        expected.extend_from_slice(b"VALUE ");
        expected.extend_from_slice(key);
        expected.extend_from_slice(b" 0 32\r\n");
        write_value(number, 0, VALUE_LEN, &mut expected);
        expected.extend_from_slice(b"\r\n");
    }
    batch.reply.out.bytes() == expected
}
