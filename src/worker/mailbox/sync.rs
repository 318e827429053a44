//! The queues, atomics and wakers of the mailbox. With `--cfg loom` they are stand-ins that the loom model checker sees into.
//!
//! Loom runs a test once for every order in which threads can do the operations below, and lets each load see every value
//! that the memory model allows. The stand-ins promise less than the real queues and wakers do, so a test that holds with
//! the stand-ins holds with the real ones:
//! - A queue hands items over in order, a push before the pop that takes the item. But whether it is empty may be out of
//!   date until a fence. crossbeam's queues promise the same, and more.
//! - Each wake works, and lasts until the worker sleeps, like an eventfd in an epoll.
//!
//! In tests without loom they are the real ones, and the simulator may let other workers go on before each step of them.

#[cfg(not(loom))]
pub(super) use {mio::Waker, std::cell::UnsafeCell, std::sync::atomic::fence};

#[cfg(not(any(loom, test)))]
pub(super) use {
    crossbeam::queue::{ArrayQueue, SegQueue},
    std::sync::atomic::AtomicBool,
};

#[cfg(all(test, not(loom)))]
pub(super) use interleaved::{ArrayQueue, AtomicBool, SegQueue};

#[cfg(loom)]
pub(super) use {
    loom::sync::atomic::fence,
    model::{ArrayQueue, AtomicBool, SegQueue, UnsafeCell, Waker},
};

#[cfg(loom)]
#[allow(unreachable_pub, reason = "they stand in for public types")]
mod model {
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    /// Stores are swaps here. Loom does not order a store after a swap that the storing thread has not seen, although nothing
    /// can come between that swap and the value that it has read; so it would report executions that cannot happen.
    pub struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub fn new(value: bool) -> AtomicBool {
            AtomicBool(loom::sync::atomic::AtomicBool::new(value))
        }

        pub fn load(&self, order: Ordering) -> bool {
            self.0.load(order)
        }

        pub fn swap(&self, value: bool, order: Ordering) -> bool {
            self.0.swap(value, order)
        }

        pub fn store(&self, value: bool, order: Ordering) {
            self.0.swap(value, order);
        }
    }

    /// A queue without a limit.
    pub struct SegQueue<T> {
        count: AtomicUsize,
        /// Loom does not see this lock. The items change together with `count`, between two steps of the model.
        items: Mutex<VecDeque<T>>,
    }

    impl<T> SegQueue<T> {
        pub fn new() -> SegQueue<T> {
            SegQueue { count: AtomicUsize::new(0), items: Mutex::default() }
        }

        pub fn push(&self, item: T) {
            self.count.fetch_add(1, Ordering::Release);
            self.items.lock().expect("no panic in here").push_back(item);
        }

        pub fn pop(&self) -> Option<T> {
            let fewer = |count: usize| count.checked_sub(1);
            self.count.fetch_update(Ordering::Acquire, Ordering::Relaxed, fewer).ok()?;
            self.items.lock().expect("no panic in here").pop_front()
        }

        pub fn is_empty(&self) -> bool {
            self.count.load(Ordering::Relaxed) == 0
        }
    }

    /// A queue with a limit.
    pub struct ArrayQueue<T> {
        queue: SegQueue<T>,
        limit: usize,
    }

    impl<T> ArrayQueue<T> {
        pub fn new(limit: usize) -> ArrayQueue<T> {
            ArrayQueue { queue: SegQueue::new(), limit }
        }

        pub fn push(&self, item: T) -> Result<(), T> {
            if self.queue.count.load(Ordering::Relaxed) >= self.limit {
                return Err(item);
            }
            self.queue.push(item);
            Ok(())
        }

        pub fn pop(&self) -> Option<T> {
            self.queue.pop()
        }

        pub fn is_empty(&self) -> bool {
            self.queue.is_empty()
        }
    }

    /// Every access counts as a write, which excludes all other accesses.
    pub struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub fn new(inner: T) -> UnsafeCell<T> {
            UnsafeCell(loom::cell::UnsafeCell::new(inner))
        }

        pub fn get(&self) -> *mut T {
            self.0.with_mut(|inner| inner)
        }
    }

    /// Wakes the thread that waits for this [`loom::sync::Notify`].
    #[derive(Debug)]
    pub struct Waker(pub Arc<loom::sync::Notify>);

    impl Waker {
        pub fn wake(&self) -> std::io::Result<()> {
            self.0.notify();
            Ok(())
        }
    }

    impl From<mio::Waker> for Waker {
        fn from(_: mio::Waker) -> Waker {
            unreachable!("there are no event loops in the model")
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(unreachable_pub, reason = "they stand in for public types")]
pub(in crate::worker) mod interleaved {
    use crossbeam::queue;
    use scoped_tls_hkt::scoped_thread_local;
    use std::sync::atomic::{self, Ordering};

    scoped_thread_local!(static OTHERS: for<'a> &'a (dyn Fn() + 'a));

    /// Runs `run` on this thread. Before each step of the mailbox, it calls `others`.
    pub fn interleave<R>(others: &dyn Fn(), run: impl FnOnce() -> R) -> R {
        OTHERS.set(others, run)
    }

    /// Others may go on here, but not after a panic: one panic is enough.
    pub fn step() {
        if OTHERS.is_set() && !std::thread::panicking() {
            OTHERS.with(|others| others());
        }
    }

    pub struct AtomicBool(atomic::AtomicBool);

    impl AtomicBool {
        pub fn new(value: bool) -> AtomicBool {
            AtomicBool(atomic::AtomicBool::new(value))
        }

        pub fn load(&self, order: Ordering) -> bool {
            step();
            self.0.load(order)
        }

        pub fn swap(&self, value: bool, order: Ordering) -> bool {
            step();
            self.0.swap(value, order)
        }

        pub fn store(&self, value: bool, order: Ordering) {
            step();
            self.0.store(value, order);
        }
    }

    pub struct SegQueue<T>(queue::SegQueue<T>);

    impl<T> SegQueue<T> {
        pub fn new() -> SegQueue<T> {
            SegQueue(queue::SegQueue::new())
        }

        pub fn push(&self, item: T) {
            step();
            self.0.push(item);
        }

        pub fn pop(&self) -> Option<T> {
            step();
            self.0.pop()
        }

        pub fn is_empty(&self) -> bool {
            step();
            self.0.is_empty()
        }
    }

    pub struct ArrayQueue<T>(queue::ArrayQueue<T>);

    impl<T> ArrayQueue<T> {
        pub fn new(limit: usize) -> ArrayQueue<T> {
            ArrayQueue(queue::ArrayQueue::new(limit))
        }

        pub fn push(&self, item: T) -> Result<(), T> {
            step();
            self.0.push(item)
        }

        pub fn pop(&self) -> Option<T> {
            step();
            self.0.pop()
        }

        pub fn is_empty(&self) -> bool {
            step();
            self.0.is_empty()
        }
    }
}
