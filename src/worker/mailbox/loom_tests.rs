//! Tests of the mailbox with every order of the steps of threads, and every value that the memory model lets them see; see
//! `sync.rs`.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib loom`, as `.ci/run` does it.

use super::*;
use crate::hash::KeyHasher;
use crate::protocol::Limits;
use crate::store::arena::{Arena, PAGE_SIZE_MAX};
use crate::store::budget::Budget;
use crate::store::item::Items;
use crate::store::{Store, StoreOptions};
use loom::sync::Notify;
use loom::thread::{self, JoinHandle};
use std::sync::LazyLock;

/// These tests do not use the store of a shard. The arena of all stores is made once.
static MEMORY: LazyLock<(Items, Arc<Budget>)> = LazyLock::new(|| {
    let arena = Arc::new(Arena::reserve(2, PAGE_SIZE_MAX).expect("address space"));
    let budget = Arc::new(Budget::new(2, 1, &arena));
    (Items::new(arena, true), budget)
});

/// An exchange with one shard. With a lease, the tests write to the number of the shard, which is 0 at first.
fn exchange(workers: usize) -> Arc<Exchange> {
    let (items, budget) = (MEMORY.0.clone(), Arc::clone(&MEMORY.1));
    let store = Store::new(0, StoreOptions::default(), items, budget, KeyHasher::seeded(1)).expect("address space");
    let limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 2048 };
    Arc::new(Exchange::new(vec![Shard::new(0, store, limits)], workers, Limit::None))
}

/// Runs a test in every order in which at most `preemptions` times a thread is stopped although it could go on.
fn check(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(test);
}

fn spawn<T: 'static>(exchange: &Arc<Exchange>, test: impl FnOnce(&Exchange) -> T + 'static) -> JoinHandle<T> {
    let exchange = Arc::clone(exchange);
    thread::spawn(move || test(&exchange))
}

fn batch(from: usize, number: u8) -> Box<Batch> {
    let mut batch = Box::new(Batch::new(from, 0));
    batch.bytes.push(number);
    batch
}

/// Uses the shard. Returns the number of this use.
fn touch(shard: &mut Shard) -> usize {
    shard.number += 1;
    usize::from(shard.number)
}

/// Stands for executing a batch: uses the shard once.
fn run(shard: &mut Shard, batch: &mut Batch) {
    batch.ends.push(touch(shard));
}

/// Uses the shard by lease, or posts a batch that does. Returns the number of the use, if that is known.
fn turn(exchange: &Exchange, worker: usize) -> Option<usize> {
    match exchange.try_lease(0) {
        Some(mut lease) => {
            let number = touch(&mut lease);
            exchange.give_back(lease, run);
            Some(number)
        }
        None => {
            exchange.post(batch(worker, 0), run);
            None
        }
    }
}

/// Waits for the next batch of a worker, and sleeps meanwhile.
fn wait(exchange: &Exchange, worker: usize, waker: &Notify) -> Box<Batch> {
    loop {
        match exchange.next_mail(worker) {
            Some(Mail::Batch(batch)) => return batch,
            Some(other) => panic!("unexpected mail {other:?}"),
            None => {}
        }
        if exchange.falls_asleep(worker) {
            waker.wait();
        }
        exchange.wakes_up(worker);
    }
}

fn set_waker(exchange: &Exchange, worker: usize) -> Arc<Notify> {
    let waker = Arc::new(Notify::new());
    exchange.set_waker(worker, Waker(Arc::clone(&waker)));
    waker
}

/// Checks that nobody holds the shard, no batch is left for it, and it was used `uses` times.
fn check_end(exchange: &Exchange, uses: usize) {
    let lease = exchange.try_lease(0).expect("the lease was given back");
    assert!(exchange.shards[0].inbox.is_empty(), "a batch was left");
    assert_eq!(usize::from(lease.number), uses);
}

#[test]
fn a_shard_has_one_holder() {
    check(3, || {
        let exchange = exchange(3);
        let uses = |exchange: &Exchange| {
            let lease = exchange.try_lease(0);
            lease.map_or(0, |mut lease| {
                touch(&mut lease);
                exchange.give_back(lease, |_, _| unreachable!("nobody posts"));
                1
            })
        };
        let others = [(); 2].map(|()| spawn(&exchange, move |exchange| uses(exchange) + uses(exchange)));
        let own = uses(&exchange);
        check_end(&exchange, others.into_iter().map(|other| other.join().expect("no panic")).sum::<usize>() + own);
    });
}

#[test]
fn what_is_posted_is_run_once_and_comes_back() {
    check(3, || {
        let exchange = exchange(3);
        let others = [1, 2].map(|worker| spawn(&exchange, move |exchange| turn(exchange, worker)));
        let done = [turn(&exchange, 0)].into_iter().chain(others.map(|other| other.join().expect("no panic")));
        for (worker, done) in done.collect::<Vec<_>>().into_iter().enumerate() {
            match (done, exchange.next_mail(worker)) {
                (Some(_), None) => {}
                (None, Some(Mail::Batch(batch))) => assert_eq!((batch.from, batch.ends.len()), (worker, 1)),
                (done, mail) => panic!("worker {worker}: {done:?} {mail:?}"),
            }
            assert!(exchange.next_mail(worker).is_none());
        }
        check_end(&exchange, 3);
    });
}

#[test]
fn what_is_posted_keeps_its_order() {
    check(4, || {
        let exchange = exchange(2);
        let other = spawn(&exchange, |exchange| turn(exchange, 0));
        // A worker may post a second batch before the first has come back: the inbox has room for two here. Even then the
        // first is run first.
        exchange.post(batch(1, 1), run);
        exchange.post(batch(1, 2), run);
        other.join().expect("no panic");
        let mut last = 0;
        for number in [1, 2] {
            let Some(Mail::Batch(batch)) = exchange.next_mail(1) else { panic!("batch {number} is missing") };
            assert!(batch.bytes == [number] && batch.ends[0] > last);
            last = batch.ends[0];
        }
    });
}

#[test]
fn who_sleeps_is_woken_by_mail() {
    check(3, || {
        let exchange = exchange(1);
        let waker = set_waker(&exchange, 0);
        let others =
            [1, 2].map(|number| spawn(&exchange, move |exchange| exchange.mail(0, Mail::Batch(batch(0, number)))));
        let sum: u8 = [(); 2].map(|()| wait(&exchange, 0, &waker).bytes[0]).iter().sum();
        assert_eq!(sum, 3);
        others.into_iter().for_each(|other| other.join().expect("no panic"));
    });
}

#[test]
fn workers_post_and_sleep_and_go_on() {
    check(3, || {
        let exchange = exchange(2);
        let work = |exchange: &Exchange, worker: usize| {
            let waker = set_waker(exchange, worker);
            let mut last = 0;
            for _ in 0..2 {
                let use_number = turn(exchange, worker).unwrap_or_else(|| wait(exchange, worker, &waker).ends[0]);
                assert!(use_number > last, "worker {worker} is done with {last}, then {use_number}");
                last = use_number;
            }
        };
        let other = spawn(&exchange, move |exchange| work(exchange, 1));
        work(&exchange, 0);
        other.join().expect("no panic");
        check_end(&exchange, 4);
    });
}
