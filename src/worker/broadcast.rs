//! Queries to more than one shard or worker. Each of those asked gives one answer; the last answer sends all of them back.
//! See [`super::mailbox::Exchange::answer`].

use crate::admin::{Answer, Query, ReplyKind};
use mio::Waker;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

/// Who asks a query, and gets the answers.
#[derive(Clone, Debug)]
pub enum Asker {
    /// A connection of a worker.
    Connection {
        /// The worker.
        worker: usize,
        /// The token of the connection.
        token: usize,
        /// The generation of the connection.
        generation: u64,
    },
    /// A thread that is no worker, and what wakes it when the answers are there. It may have given up waiting.
    Thread(Sender<Vec<Answer>>, Arc<Waker>),
}

/// A query on its way, and the answers so far.
#[derive(Debug)]
pub struct Broadcast {
    /// The query.
    pub query: Query,
    /// The kind of the reply that the asking connection gets in the end.
    pub report: ReplyKind,
    /// Who asks.
    pub asker: Asker,
    left: AtomicUsize,
    answers: Mutex<Vec<Answer>>,
}

impl Broadcast {
    /// A query to `asked` shards or workers.
    pub fn new(query: Query, report: ReplyKind, asker: Asker, asked: usize) -> Arc<Broadcast> {
        let (left, answers) = (AtomicUsize::new(asked), Mutex::new(Vec::with_capacity(asked)));
        Arc::new(Broadcast { query, report, asker, left, answers })
    }

    /// The same query to `asked` shards or workers once more, because some have more to answer. It begins with the answers
    /// `so_far`.
    pub fn again(&self, query: Query, so_far: Vec<Answer>, asked: usize) -> Arc<Broadcast> {
        let broadcast = Broadcast::new(query, self.report, self.asker.clone(), asked);
        *broadcast.answers.lock() = so_far;
        broadcast
    }

    /// Adds an answer. Returns whether it was the last one.
    pub(super) fn add(&self, answer: Answer) -> bool {
        self.answers.lock().push(answer);
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Takes the answers.
    pub fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut self.answers.lock())
    }
}
