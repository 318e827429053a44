//! Watchers and their worker: at the end of a turn, its lines go into the queues of the watchers; from its queue they go to a
//! watcher when its connection has sent everything before.
//!
//! A watcher that does not read costs the memory of its queue, and as much again in its outbox. Nobody waits for it.

use super::Worker;
use super::mailbox::Mail;
use crate::watch::Categories;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

impl Worker<'_> {
    /// Looks whether anybody watches: once in a turn.
    pub(super) fn look_for_watchers(&mut self) {
        let watchers = &self.context().settings.watchers;
        let watched = watchers.watched();
        if watched.is_empty() && self.serve.shards.log().is_none() {
            return;
        }
        // The worker reads the wall clock only while somebody watches.
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let bytes_max = self.config().watch.worker_bytes as usize;
        self.serve.shards.watch(watchers, watched, micros, bytes_max);
    }

    /// At the end of a turn: puts its lines into the queues of the watchers.
    pub(super) fn tell_watchers(&mut self) {
        let (number, exchange) = (self.number(), self.exchange());
        let watchers = &self.context().settings.watchers;
        let mut own = Vec::new();
        if let Some(log) = self.serve.shards.log() {
            watchers.publish(log, |watcher| {
                if watcher.worker == number {
                    own.push((watcher.token, watcher.generation));
                } else {
                    exchange.mail(watcher.worker, Mail::Watched(watcher.token, watcher.generation));
                }
            });
        }
        for (token, generation) in own {
            self.wake_watcher(token, generation);
        }
    }

    /// There are lines in the queue of a watcher.
    pub(super) fn wake_watcher(&mut self, token: usize, generation: u64) {
        let connection = self.connections.get(token);
        if connection.is_some_and(|connection| connection.session.generation == generation) {
            self.queue_up(token);
        }
    }

    /// A connection asks to watch these categories. `None`: it has named something that is no category.
    pub(super) fn begin_watching(&mut self, token: usize, categories: Option<Categories>) {
        if !self.reply.is_empty() {
            // As in memcached, which hands the connection over to its logger.
            self.reply.out.put(b"ERROR cannot pipeline other commands before watch\r\n");
            return;
        }
        let Some(categories) = categories else {
            self.reply.out.put(b"ERROR\r\n");
            return;
        };
        let bytes_max = self.config().watch.watcher_bytes as usize;
        let (number, watchers) = (self.number(), &self.context().settings.watchers);
        let session = &mut self.connections[token].session;
        match watchers.add((number, token, session.generation), categories, bytes_max) {
            Some(watcher) => {
                session.begin_watch(watcher);
                self.reply.out.put(b"OK\r\n");
                // The watcher sees the rest of this turn already.
                self.look_for_watchers();
            }
            None => self.reply.out.put(b"WATCHER_TOO_MANY log watcher limit reached\r\n"),
        }
    }

    /// Does for a watcher what can be done now; everything before has been sent. As in memcached, its input is thrown away.
    pub(super) fn service_watcher(&mut self, token: usize) -> io::Result<()> {
        let connection = &mut self.connections[token];
        connection.input = Vec::new();
        if connection.readable && !connection.closing {
            self.fill(token, 0)?;
            let connection = &mut self.connections[token];
            connection.closing |= connection.ended;
            if connection.readable {
                self.queue_up(token);
            }
        }
        let connection = &mut self.connections[token];
        if let Some(watcher) = connection.session.watcher() {
            connection.outbox.reply().out.put(&watcher.take());
        }
        self.send_outbox(token)?;
        self.connections[token].outbox.shrink();
        Ok(())
    }
}
