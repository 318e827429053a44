//! Questions that concern more than one shard or worker: asked of each, answered when all have answered.

use super::mailbox::{Exchange, Mail};
use crate::admin::{Answer, Query, ReplyKind};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A query on its way, and the answers so far.
#[derive(Debug)]
pub struct Broadcast {
    /// What is asked.
    pub query: Query,
    /// What the asking connection is told in the end.
    pub report: ReplyKind,
    /// The worker that asks.
    pub asker: usize,
    /// The connection that asks: its token, and its generation.
    pub connection: (usize, u64),
    left: AtomicUsize,
    answers: Mutex<Vec<Answer>>,
}

impl Broadcast {
    /// A query to `asked` shards or workers.
    pub fn new(
        query: Query,
        report: ReplyKind,
        asker: usize,
        connection: (usize, u64),
        asked: usize,
    ) -> Arc<Broadcast> {
        let (left, answers) = (AtomicUsize::new(asked), Mutex::new(Vec::with_capacity(asked)));
        Arc::new(Broadcast { query, report, asker, connection, left, answers })
    }

    /// The same query, put again to as many because some have more to tell; `so_far`: what was told.
    pub fn again(&self, query: Query, so_far: Vec<Answer>, asked: usize) -> Arc<Broadcast> {
        let broadcast = Broadcast::new(query, self.report, self.asker, self.connection, asked);
        *broadcast.answers.lock() = so_far;
        broadcast
    }

    /// One of those asked answers. The last answer sends all of them back.
    pub fn answer(self: &Arc<Broadcast>, exchange: &Exchange, answer: Answer) {
        self.answers.lock().push(answer);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            exchange.mail(self.asker, Mail::Answered(Arc::clone(self)));
        }
    }

    /// The answers.
    pub fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut self.answers.lock())
    }
}
