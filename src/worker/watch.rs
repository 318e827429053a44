//! Watchers and their worker: what a turn has to tell goes into the queues of those who watch, and from there, when their
//! connection has sent all before, to them.
//!
//! A watcher that does not read costs its queue and as much again in its outbox, and nobody waits for it.

use super::Worker;
use super::connection::{Connection, send};
use crate::watch::Categories;
use crate::worker::mailbox::Mail;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

impl Worker<'_> {
    /// Looks whether anybody watches: once in a turn.
    pub(super) fn look_for_watchers(&mut self) {
        let watchers = &self.context().settings.watchers;
        let watched = watchers.watched();
        if watched.is_empty() && self.serve.log().is_none() {
            return;
        }
        // The wall clock is read only for those who are told what it says.
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let bytes_max = self.config().worker_logbuf_bytes as usize;
        self.serve.watch(watchers, watched, micros, bytes_max);
    }

    /// At the end of a turn: hands what was logged to those who watch.
    pub(super) fn tell_watchers(&mut self) {
        let (number, exchange) = (self.number(), self.exchange());
        let watchers = &self.context().settings.watchers;
        let mut own = Vec::new();
        if let Some(log) = self.serve.log() {
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

    /// There is something in the queue of a watcher.
    pub(super) fn wake_watcher(&mut self, token: usize, generation: u64) {
        let connection = self.connections.get(token);
        if connection.is_some_and(|connection| connection.session.generation == generation) {
            self.queue_up(token);
        }
    }

    /// A connection has asked to watch these categories, or what is none.
    pub(super) fn begin_watching(&mut self, token: usize, categories: Option<Categories>) {
        if !self.reply.is_empty() {
            // As memcached, which hands the connection over to its logger.
            self.reply.out.put(b"ERROR cannot pipeline other commands before watch\r\n");
            return;
        }
        let Some(categories) = categories else {
            self.reply.out.put(b"ERROR\r\n");
            return;
        };
        let bytes_max = self.config().watcher_logbuf_bytes as usize;
        let (number, watchers) = (self.number(), &self.context().settings.watchers);
        let session = &mut self.connections[token].session;
        match watchers.add((number, token, session.generation), categories, bytes_max) {
            Some(watcher) => {
                session.begin_watch(watcher);
                self.reply.out.put(b"OK\r\n");
                // What comes after this in the same turn is told already.
                self.look_for_watchers();
            }
            None => self.reply.out.put(b"WATCHER_TOO_MANY log watcher limit reached\r\n"),
        }
    }

    /// Does for a watcher what can be done now; all before has been sent. What it says is not listened to, as in memcached.
    pub(super) fn attend_watcher(&mut self, token: usize) -> io::Result<()> {
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
        let counters = self.counters();
        let connection = &mut self.connections[token];
        let Connection { session, outbox, .. } = &mut *connection;
        if let Some(watcher) = session.watcher() {
            outbox.reply().out.put(&watcher.take());
        }
        send(connection, &self.options.items, &mut self.serve, counters)?;
        connection.outbox.shrink();
        Ok(())
    }
}
