//! Pings show that workers are alive: a worker opens its mail at the beginning of each turn, so one that hangs, in a turn or
//! on a lock, opens no ping. The watchdog of systemd and the observer both send them.

use super::mailbox::{Exchange, Mail};
use crate::counters::WorkerCounters;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// The pings of a server. Each is a piece of mail with a number, for all workers.
#[derive(Debug, Default)]
pub struct Pings {
    /// The number of the last one. Whoever sends has the lock, so that the numbers come to each worker in their order.
    last: Mutex<u64>,
}

impl Pings {
    /// Sends the next ping, and returns its number. Do not call it before all workers have opened the ping that you have sent
    /// last: mail has no limit of its own.
    pub fn send(&self, exchange: &Exchange) -> u64 {
        let mut last = self.last.lock();
        *last += 1;
        (0..exchange.workers()).for_each(|worker| exchange.mail(worker, Mail::Watchdog(*last)));
        *last
    }
}

/// Sends pings, and finds the workers that open them too late.
#[derive(Debug, Default)]
pub struct Pinger {
    /// The number of the last ping that was sent here, and the time.
    sent: Option<(u64, Instant)>,
}

impl Pinger {
    /// Sends a ping, if all workers have opened the one before.
    pub fn ping(&mut self, pings: &Pings, exchange: &Exchange, workers: &[WorkerCounters], now: Instant) {
        let is_open = |(number, _)| workers.iter().all(|worker| worker.watchdog_ping.get() >= number);
        if self.sent.is_none_or(is_open) {
            self.sent = Some((pings.send(exchange), now));
        }
    }

    /// The workers that have not opened a ping for `silence_max`.
    pub fn late<'a>(
        &self,
        workers: &'a [WorkerCounters],
        now: Instant,
        silence_max: Duration,
    ) -> impl Iterator<Item = usize> + use<'a> {
        let missing = self.sent.filter(|(_, sent)| now.saturating_duration_since(*sent) >= silence_max);
        let is_late =
            move |worker: &WorkerCounters| missing.is_some_and(|(number, _)| worker.watchdog_ping.get() < number);
        workers.iter().enumerate().filter(move |(_, worker)| is_late(worker)).map(|(number, _)| number)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::worker::uploads::Limit;

    #[test]
    fn a_worker_that_opens_no_mail_is_late() {
        let exchange = Exchange::new(Vec::new(), 2, Limit::None);
        let workers = [WorkerCounters::default(), WorkerCounters::default()];
        let (pings, mut pinger) = (Pings::default(), Pinger::default());
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let late =
            |pinger: &Pinger, at: u32| pinger.late(&workers, begun + second * at, second * 5).collect::<Vec<_>>();
        let open = |worker: usize| {
            while let Some(mail) = exchange.next_mail(worker) {
                let Mail::Watchdog(ping) = mail else { panic!("{mail:?}") };
                assert!(ping > workers[worker].watchdog_ping.get(), "pings come in their order");
                workers[worker].watchdog_ping.set(ping);
            }
        };
        assert!(late(&pinger, 100).is_empty());
        pinger.ping(&pings, &exchange, &workers, begun);
        assert!(late(&pinger, 4).is_empty());
        assert_eq!(late(&pinger, 5), [0, 1]);
        open(0);
        assert_eq!(late(&pinger, 5), [1]);
        // The other sender's pings count, and no ping follows one that was not opened.
        assert_eq!(pings.send(&exchange), 2);
        pinger.ping(&pings, &exchange, &workers, begun + second * 6);
        open(1);
        assert!(late(&pinger, 6).is_empty());
        assert_eq!(workers[1].watchdog_ping.get(), 2);
        pinger.ping(&pings, &exchange, &workers, begun + second * 7);
        open(0);
        assert_eq!((late(&pinger, 12), workers[0].watchdog_ping.get()), (vec![1], 3));
    }
}
