//! The commands of a connection that concern the connection itself or the whole server: queries to all shards or workers,
//! dumps and crawls, and the lines of `stats conns`.

use super::batch::Part;
use super::broadcast::{Asker, Broadcast};
use super::mailbox::Mail;
use super::session::Session;
use super::walk::LedWalk;
use super::{Worker, trace};
use crate::admin::flush_prefix;
use crate::admin::login_reply::{AUTHENTICATED, LoginEnd};
use crate::admin::rights::{self, Verdict};
use crate::admin::walk::{Walk, WalkKind};
use crate::admin::{self, Action, Answer, Description, Query, ReplyKind, ServerContext};
use crate::measure::latency::Kind;
use crate::protocol::Span;
use crate::protocol::parser::Parser;
use crate::watch::CloseReason;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Decides the action for a command, and says whether the client may give it.
fn plan(session: &mut Session, line: &[u8], context: &ServerContext<'_>) -> (Action, Verdict) {
    let verdict = session.guard.as_ref().map_or(Verdict::Allowed, |guard| match session.parser {
        Parser::Binary(_) => rights::judge_packet(line, &guard.user, context.config.detail.delimiter),
        _ => rights::judge(line, &guard.user, context.config.detail.delimiter),
    });
    let own_keys = session.guard.as_ref().filter(|_| verdict == Verdict::OwnKeys).map(|guard| &guard.user);
    let plan = if let Some(user) = own_keys {
        match session.parser {
            Parser::Binary(_) => flush_prefix::own_keys_packet(line, user, context),
            _ => flush_prefix::own_keys(line, user, context),
        }
    } else {
        match session.parser {
            Parser::Binary(_) if verdict != Verdict::Allowed => Action::Say(rights::packet_refusal(line)),
            Parser::Binary(parser) => admin::binary::plan(line, parser.access(), &mut session.scram, context),
            Parser::Login(_) => admin::login::plan(line, context),
            _ if verdict != Verdict::Allowed => Action::Say(rights::refusal(line).to_vec()),
            Parser::Undecided | Parser::Text(_) => admin::plan(line, context),
        }
    };
    (plan, verdict)
}

impl Worker<'_> {
    /// Does a command that concerns the connection or the whole server. All commands before it have been answered.
    pub(super) fn administer(&mut self, token: usize, line: Span) {
        let line = line.of(&self.buffer);
        self.serve.shards.tally.add(Kind::Other, 1);
        let (now, uploads) = (self.clock().now(), self.exchange().upload_use());
        let context = ServerContext { now, uploads, ..self.context() };
        let connection = &mut self.connections[token];
        if trace::is_on() {
            trace::admin(&connection.session, line);
        }
        let session = &mut connection.session;
        let (plan, verdict) = plan(session, line, &context);
        if verdict == Verdict::Refused {
            self.count_refusals(token, 1);
        }
        let connection = &mut self.connections[token];
        if cfg!(feature = "debug-commands") {
            // `debugtime` holds for the commands after it in the same turn. The turn itself keeps its time: no connection is
            // closed for idling while another one is served.
            self.serve.begin(self.options.context.clock.now());
        }
        match plan {
            Action::Say(text) => self.reply.out.put(&text),
            Action::Quit => {
                connection.closing = true;
                connection.close_reason = CloseReason::Normal;
            }
            Action::Access(access, text) => {
                connection.session.set_access(access);
                self.reply.out.put(&text);
            }
            Action::Enter { form, .. } | Action::Check(_, form) if connection.is_datagram() => {
                // The next request of the client would be that of a stranger again.
                let refused = form.reply(LoginEnd::Refused);
                self.reply.out.put(&refused);
            }
            Action::Enter { user, form, body } => {
                let reply = self.end_login(token, user, form, &body);
                self.reply.out.put(&reply);
            }
            Action::Check(attempt, form) => self.check_password(token, attempt, form),
            Action::Walk(walk) if walk.kind != WalkKind::Crawl && connection.is_datagram() => {
                // A dump is more than fits, and takes longer than the request lasts. memcached does not reply at all.
                self.reply.out.put(b"CLIENT_ERROR not over UDP\r\n");
            }
            Action::Walk(walk) => self.begin_walk(token, walk),
            Action::Watch(_) if connection.is_datagram() => self.reply.out.put(b"CLIENT_ERROR not over UDP\r\n"),
            Action::Watch(categories) => self.begin_watching(token, categories),
            Action::Stop { graceful } => {
                connection.closing = true;
                connection.close_reason = CloseReason::Shutdown;
                (self.options.stop)(graceful);
            }
            Action::Ask(query, report) => self.ask(token, query, report),
        }
    }

    /// Sends a query of a connection to all shards or workers, or to the main thread.
    fn ask(&mut self, token: usize, query: Query, report: ReplyKind) {
        let exchange = self.exchange();
        let session = &mut self.connections[token].session;
        session.begin_query();
        let asker = Asker::Connection { worker: self.options.number, token, generation: session.generation };
        if matches!(query, Query::RefreshCertificates) {
            (self.options.refresh)(Broadcast::new(query, report, asker, 1));
        } else if matches!(query, Query::Connections) {
            let broadcast = Broadcast::new(query, report, asker, exchange.workers());
            for worker in 0..exchange.workers() {
                exchange.mail(worker, Mail::Broadcast(Arc::clone(&broadcast)));
            }
        } else {
            let broadcast = Broadcast::new(query, report, asker, exchange.shards());
            self.serve.shards.ask(&broadcast);
        }
    }

    /// All have answered a query of a connection: the worker asks once more, or replies.
    pub(super) fn report(&mut self, broadcast: &Broadcast) {
        let Asker::Connection { token, generation, .. } = broadcast.asker else { return };
        let Some(connection) = self.connections.get_mut(token).filter(|other| other.session.generation == generation)
        else {
            return;
        };
        let mut answers = broadcast.answers();
        if let ReplyKind::Login(form) = broadcast.report {
            connection.session.resume();
            let user = answers.pop().and_then(|answer| if let Answer::Checked(user) = answer { user } else { None });
            let reply = self.end_login(token, user, form, AUTHENTICATED);
            self.connections[token].outbox.reply().out.put(&reply);
            return self.queue_up(token);
        }
        if let Some(query) = admin::go_on(&broadcast.query, &mut answers) {
            let shards = self.exchange().shards();
            self.serve.shards.ask_later(&broadcast.again(query, answers, shards));
            return;
        }
        connection.session.resume();
        let context = ServerContext { now: self.options.context.clock.now(), ..self.options.context };
        let text = admin::finish(&broadcast.report, answers, &context);
        connection.outbox.reply().out.put(&text);
        self.queue_up(token);
    }

    /// The lines of `stats conns` about the connections of this worker.
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
        // The endpoints stand for their requests.
        for (_, connection) in self.connections.iter().filter(|(_, connection)| !connection.is_datagram()) {
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

/// Walks: see `walk.rs`.
impl Worker<'_> {
    /// Begins a walk that a connection has asked for, or says why not.
    fn begin_walk(&mut self, token: usize, walk: Box<Walk>) {
        let settings = self.context().settings;
        let is_dump = walk.kind != WalkKind::Crawl;
        if is_dump && !self.reply.is_empty() {
            // As in memcached: it hands the connection over to its crawler, and replies that are not sent would be lost.
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
        self.walk = Some(LedWalk { home: Some(walk), client });
        self.continue_walk();
    }

    /// Sends the walk to the shard that it has come to, if it is home.
    pub(super) fn continue_walk(&mut self) {
        if let Some(walk) = self.walk.as_mut().and_then(|led| led.home.take()) {
            self.serve.shards.walk(walk);
        }
    }

    /// Sends a crawl to its next shard: once in a turn.
    pub(super) fn continue_crawl(&mut self) {
        if self.walk.as_ref().is_some_and(LedWalk::pauses) {
            self.continue_walk();
        }
    }

    /// The longest time that this worker may sleep while a crawl pauses.
    pub(super) fn crawler_pause(&self) -> Option<Duration> {
        let micros = || self.context().settings.lru_crawler_sleep.load(Ordering::Relaxed);
        self.walk.as_ref().is_some_and(LedWalk::pauses).then(|| Duration::from_micros(micros().into()))
    }

    /// The walk is back from a shard. `reply` is a piece of the dump.
    pub(super) fn walk_returns(&mut self, walk: Box<Walk>, reply: Part<'_>) {
        let is_over = walk.shard == self.exchange().shards();
        let led = self.walk.as_mut().expect("a walk returns to the worker that leads it");
        let Some((token, generation)) = led.client else {
            // The walk is a crawl, or the client has closed.
            if is_over || walk.kind != WalkKind::Crawl {
                self.end_walk();
            } else {
                led.home = Some(walk);
            }
            return;
        };
        let connection = &mut self.connections[token];
        debug_assert_eq!(connection.session.generation, generation);
        let out = &mut connection.outbox.reply().out;
        out.put(&reply.reply.out.bytes()[reply.from..reply.to]);
        if is_over {
            out.put(walk.terminator());
            connection.session.resume();
            self.end_walk();
        } else {
            led.home = Some(walk);
        }
        self.queue_up(token);
    }

    /// A connection that reads a dump closes, or the worker is about to close it.
    pub(super) fn abandon_walk(&mut self, token: usize) {
        let Some(led) = self.walk.as_mut().filter(|led| led.client.is_some_and(|(reader, _)| reader == token)) else {
            return;
        };
        // If the walk is with a shard, it ends when it returns.
        led.client = None;
        if led.home.is_some() {
            self.end_walk();
        }
    }

    fn end_walk(&mut self) {
        self.walk = None;
        self.context().settings.lru_crawler_running.store(false, Ordering::Relaxed);
    }
}
