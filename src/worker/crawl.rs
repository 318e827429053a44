//! The crawler's client side: a worker leads a [`Walk`] from shard to shard on behalf of the connection that asked for it.
//!
//! ```text
//! administer ──▶ home ──▶ with a shard (in a batch) ──▶ home ──▶ … ──▶ over
//!                 ▲  a dump goes on when the client has taken all so far:
//!                 └─ the outbox of the connection is empty; a crawl after its pause
//! ```
//! What is under way ends with the connection that asked for it, but for a crawl, which nobody waits for.

use super::Worker;
use crate::admin::walk::{Walk, WalkKind};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The walk that a worker leads.
#[derive(Debug)]
pub(super) struct Crawl {
    /// Where it has come to; none while it is with a shard.
    home: Option<Box<Walk>>,
    /// Who is told: token and generation of a connection. None: nobody, as of a crawl.
    client: Option<(usize, u64)>,
}

impl Worker<'_> {
    /// Begins a walk that a connection has asked for, or says why not.
    pub(super) fn begin_walk(&mut self, token: usize, walk: Box<Walk>) {
        let settings = self.context().settings;
        let is_dump = walk.kind != WalkKind::Crawl;
        if is_dump && !self.reply.is_empty() {
            // As memcached: it hands the connection over to its crawler, and replies that are not sent would be lost.
            let command = if walk.kind == WalkKind::Metadump { "metadump" } else { "mgdump" };
            let text = format!("ERROR cannot pipeline other commands before {command}\r\n");
            self.reply.out.put(text.as_bytes());
            return;
        }
        if settings.lru_crawler_running.swap(true, Ordering::Relaxed) {
            self.reply.out.put(b"BUSY currently processing crawler request\r\n");
            return;
        }
        settings.lru_crawler_starts.fetch_add(1, Ordering::Relaxed);
        let session = &mut self.connections[token].session;
        let client = is_dump.then_some((token, session.generation));
        if is_dump {
            session.begin_dump();
        }
        self.reply.out.put(b"OK\r\n");
        self.crawl = Some(Crawl { home: Some(walk), client });
        self.go_on_walking();
    }

    /// Sends the walk to the shard it has come to, if it is home.
    pub(super) fn go_on_walking(&mut self) {
        if let Some(walk) = self.crawl.as_mut().and_then(|crawl| crawl.home.take()) {
            self.serve.walk(walk);
        }
    }

    /// A crawl, which nobody reads, goes on: once in a turn.
    pub(super) fn crawl(&mut self) {
        if self.is_crawling() {
            self.go_on_walking();
        }
    }

    /// Whether there is a crawl that waits for nothing but its pause.
    fn is_crawling(&self) -> bool {
        self.crawl.as_ref().is_some_and(|crawl| crawl.client.is_none() && crawl.home.is_some())
    }

    /// How long this worker may sleep with regard to a crawl.
    pub(super) fn crawler_pause(&self) -> Option<Duration> {
        let micros = || self.context().settings.lru_crawler_sleep.load(Ordering::Relaxed);
        self.is_crawling().then(|| Duration::from_micros(micros().into()))
    }

    /// The walk is back from a shard, with what it has to tell.
    pub(super) fn walk_returns(&mut self, walk: Box<Walk>, bytes: &[u8]) {
        let is_over = walk.shard == self.exchange().shards();
        let crawl = self.crawl.as_mut().expect("a walk returns to the worker that leads it");
        let Some((token, generation)) = crawl.client else {
            // A crawl, or the client has gone.
            if is_over || walk.kind != WalkKind::Crawl {
                self.end_walk();
            } else {
                crawl.home = Some(walk);
            }
            return;
        };
        let connection = &mut self.connections[token];
        debug_assert_eq!(connection.session.generation, generation);
        let out = &mut connection.outbox.reply().out;
        out.put(bytes);
        if is_over {
            out.put(walk.terminator());
            connection.session.resume();
            self.end_walk();
        } else {
            crawl.home = Some(walk);
        }
        self.queue_up(token);
    }

    /// A connection that is told of a walk closes, or is to be closed.
    pub(super) fn abandon_walk(&mut self, token: usize) {
        let Some(crawl) = self.crawl.as_mut().filter(|crawl| crawl.client.is_some_and(|(told, _)| told == token))
        else {
            return;
        };
        // While it is with a shard, its return ends it.
        crawl.client = None;
        if crawl.home.is_some() {
            self.end_walk();
        }
    }

    fn end_walk(&mut self) {
        self.crawl = None;
        self.context().settings.lru_crawler_running.store(false, Ordering::Relaxed);
    }
}
