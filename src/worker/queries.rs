//! Commands of a connection that concern itself or the whole server.

use super::broadcast::Broadcast;
use super::mailbox::Mail;
use super::{Worker, trace};
use crate::admin::walk::WalkKind;
use crate::admin::{self, Action, Description, Query, ServerContext};
use crate::net::stream::Stream;
use crate::protocol::Span;
use crate::protocol::parser::Parser;
use crate::watch::CloseReason;
use std::sync::Arc;

impl Worker<'_> {
    /// A command of the connection or of the whole cache. All before it has been answered.
    pub(super) fn administer(&mut self, token: usize, line: Span) {
        let line = line.of(&self.buffer);
        let context = ServerContext { uploads: self.exchange().upload_use(), ..self.context() };
        if trace::is_on() {
            trace::admin(&self.connections[token].session, line);
        }
        let plan = match self.connections[token].session.parser() {
            Parser::Binary(parser) => admin::binary::plan(line, parser.access(), &context),
            Parser::Login(_) => admin::login::plan(line, &context),
            Parser::Undecided | Parser::Text(_) => admin::plan(line, &context),
        };
        if cfg!(feature = "debug-commands") {
            // `debugtime` holds for what comes after it in the same turn. The turn itself keeps its time: no connection
            // is closed for idling while one is being served.
            self.serve.begin(self.clock().now());
        }
        match plan {
            Action::Say(text) => self.reply.out.put(&text),
            Action::Quit => {
                self.connections[token].closing = true;
                self.connections[token].close_reason = CloseReason::Normal;
            }
            Action::Access(access, text) => {
                self.connections[token].session.set_access(access);
                self.reply.out.put(&text);
            }
            Action::Walk(walk) if walk.kind != WalkKind::Crawl && self.is_datagram(token) => {
                // More than fits, for longer than it lasts. memcached says nothing at all.
                self.reply.out.put(b"CLIENT_ERROR not over UDP\r\n");
            }
            Action::Walk(walk) => self.begin_walk(token, walk),
            Action::Watch(_) if self.is_datagram(token) => self.reply.out.put(b"CLIENT_ERROR not over UDP\r\n"),
            Action::Watch(categories) => self.begin_watching(token, categories),
            Action::Stop { graceful } => {
                self.connections[token].closing = true;
                self.connections[token].close_reason = CloseReason::Shutdown;
                (self.options.stop)(graceful);
            }
            Action::Ask(query, report) => {
                let session = &mut self.connections[token].session;
                session.begin_query();
                let connection = (token, session.generation);
                let (exchange, number) = (self.exchange(), self.number());
                if matches!(query, Query::RefreshCertificates) {
                    (self.options.refresh)(Broadcast::new(query, report, number, connection, 1));
                } else if matches!(query, Query::Connections) {
                    let broadcast = Broadcast::new(query, report, number, connection, exchange.workers());
                    for worker in 0..exchange.workers() {
                        exchange.mail(worker, Mail::Broadcast(Arc::clone(&broadcast)));
                    }
                } else {
                    let broadcast = Broadcast::new(query, report, number, connection, exchange.shards());
                    self.serve.ask_shards(&broadcast);
                }
            }
        }
    }

    /// A query of one of its connections has been answered by all.
    pub(super) fn report(&mut self, broadcast: &Broadcast) {
        let (token, generation) = broadcast.connection;
        let Some(connection) = self.connections.get_mut(token).filter(|other| other.session.generation == generation)
        else {
            return;
        };
        let mut answers = broadcast.answers();
        if let Some(query) = admin::go_on(&broadcast.query, &mut answers) {
            let shards = self.exchange().shards();
            self.serve.ask_shards_later(&broadcast.again(query, answers, shards));
            return;
        }
        connection.session.resume();
        let text = admin::finish(&broadcast.report, answers, &self.options.context);
        connection.outbox.reply().out.put(&text);
        self.queue_up(token);
    }

    /// The lines of `stats conns` about its connections.
    pub(super) fn describe_connections(&self) -> Vec<Description> {
        let mut descriptions = Vec::new();
        // Worker 0 reports the listeners.
        for (fd, address) in self.context().listeners.iter().filter(|_| self.number() == 0) {
            let lines = format!(
                "STAT {fd}:addr {address}\r\nSTAT {fd}:state conn_listening\r\nSTAT {fd}:secs_since_last_cmd {}\r\n",
                self.clock().age(self.now)
            );
            descriptions.push(Description { accepts: true, fd: *fd, lines });
        }
        descriptions.extend(self.endpoints.iter().map(|endpoint| endpoint.describe(self.now)));
        for (_, connection) in &self.connections {
            if matches!(connection.stream, Stream::Datagram(_)) {
                // The endpoint stands for it.
                continue;
            }
            let fd = connection.stream.fd();
            let listens = !connection.session.is_dumping() && connection.session.watcher().is_none();
            let writes = listens && !connection.outbox.is_empty();
            let is_next = connection.queued || connection.session.is_waiting();
            let state = if writes { "conn_mwrite" } else { connection.session.state_name(&connection.input, is_next) };
            let idle = self.now.0.saturating_sub(connection.active.0);
            let lines = format!(
                "STAT {fd}:addr {}\r\nSTAT {fd}:listen_addr {}\r\nSTAT {fd}:state {state}\r\n\
                 STAT {fd}:secs_since_last_cmd {idle}\r\n",
                connection.stream.peer(),
                connection.stream.local(),
            );
            descriptions.push(Description { accepts: false, fd, lines });
        }
        descriptions
    }
}
