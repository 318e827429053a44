//! Connections as users of `--users`: who a connection is, how it becomes somebody else, and what is refused to it.

use super::Worker;
use super::broadcast::{Asker, Broadcast};
use super::session::Member;
use crate::admin::login;
use crate::admin::login_reply::{LoginEnd, LoginForm};
use crate::admin::{Query, ReplyKind};
use crate::auth::Auth;
use crate::auth::directory::{Attempt, Directory};
use crate::auth::user::User;
use crate::net::stream::Stream;
use crate::protocol::binary::Access;
use crate::watch::CloseReason;
use std::sync::Arc;
use std::time::Instant;

/// Sent to a client whose certificate makes it a user that has no place for it, as to one beyond `-c`.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

impl<'a> Worker<'a> {
    /// The users of `--users`.
    fn users(&self) -> Option<&'a Directory> {
        self.options.context.auth.and_then(Auth::users)
    }

    /// Who a new connection is, and its access. `enter` takes a place for it. Without a place as `default` it must log in.
    pub(super) fn first_member(&self, enter: impl FnOnce(Arc<User>) -> Option<Member>) -> (Option<Member>, Access) {
        match (self.options.context.auth, self.users()) {
            (None, _) => (None, Access::Open),
            (Some(_), None) => (None, Access::Locked),
            (Some(_), Some(users)) => match users.default_user().and_then(enter) {
                Some(member) => (Some(member), Access::Granted),
                None => (None, Access::Locked),
            },
        }
    }

    /// The handshake of a connection is done: the name in its certificate may make it a user. False: the connection closes.
    pub(super) fn recognize(&mut self, token: usize) -> bool {
        let Some(users) = self.users() else { return true };
        let connection = &mut self.connections[token];
        let Stream::Tls(stream) = &connection.stream else { return true };
        let Some(user) = users.by_tls_names(&stream.client_names()) else { return true };
        match Member::enter(user) {
            Some(member) => {
                connection.session.become_member(member);
                true
            }
            None => {
                connection.outbox.reply().out.put(TOO_MANY);
                connection.closing = true;
                self.queue_up(token);
                false
            }
        }
    }

    /// Lets a password be checked. The connection waits, or is refused because too many others wait.
    pub(super) fn check_password(&mut self, token: usize, attempt: Attempt, form: LoginForm) {
        let connection = &mut self.connections[token];
        let asker = Asker::Connection { worker: self.options.number, token, generation: connection.session.generation };
        let broadcast = Broadcast::new(Query::CheckPassword, ReplyKind::Login(form), asker, 1);
        let address = connection.stream.peer_address().map(|address| address.ip().to_canonical());
        connection.session.begin_query();
        if !(self.options.check)(broadcast, attempt, address) {
            self.connections[token].session.resume();
            self.counters().auth_crowded.add(1);
            let reply = self.end_login(token, None, form, b"");
            self.reply.out.put(&reply);
        }
    }

    /// An attempt to log in has ended: the connection becomes this user, or nobody. Returns the reply.
    pub(super) fn end_login(&mut self, token: usize, user: Option<Arc<User>>, form: LoginForm, body: &[u8]) -> Vec<u8> {
        // The file may have changed since the password was checked.
        let user = user.and_then(|user| self.users()?.named(&user.name));
        login::count(user.is_some(), &self.options.context);
        let connection = &mut self.connections[token];
        let Some(user) = user else {
            connection.session.become_stranger();
            return form.reply(LoginEnd::Refused);
        };
        // The place of the user that the connection was so far is free now.
        connection.session.become_stranger();
        match Member::enter(user) {
            Some(member) => {
                connection.session.become_member(member);
                form.reply(LoginEnd::Granted(body))
            }
            None => {
                connection.closing = true;
                form.reply(LoginEnd::Crowded)
            }
        }
    }

    /// Counts refusals of a connection, and logs those of each user once a minute.
    pub(super) fn count_refusals(&self, token: usize, count: u64) {
        let session = &self.connections[token].session;
        let Some(member) = &session.member else { return };
        let user = &member.user;
        if user.tally.refuse(count, self.now.0) {
            let name = &user.name;
            log::warn!("<{} a command of user {name} was refused: it lacks the right, or the prefix", session.fd);
        }
    }

    /// Counts what was refused to a connection in this service.
    pub(super) fn note_refusals(&mut self, token: usize) {
        if let Some(guard) = &mut self.connections[token].session.guard
            && guard.refused > 0
        {
            let count = std::mem::take(&mut guard.refused);
            self.count_refusals(token, count);
        }
    }

    /// If the file of users was read again, gives each connection its user as it is now. A connection of a user that has gone
    /// is closed.
    pub(super) fn follow_users(&mut self) {
        let Some(users) = self.users() else { return };
        let generation = users.generation();
        if generation == self.users_seen {
            return;
        }
        self.users_seen = generation;
        let mut orphans = Vec::new();
        for (token, connection) in &mut self.connections {
            let Some(member) = &connection.session.member else { continue };
            match users.named(&member.user.name) {
                Some(user) => connection.session.refresh_user(&user),
                None => orphans.push(token),
            }
        }
        for token in orphans {
            self.connections[token].closing = true;
            self.connections[token].close_reason = CloseReason::Normal;
            self.queue_up(token);
        }
    }
}

/// Rates: see `rates.rs`.
impl Worker<'_> {
    /// If the user of a connection has a rate, the bytes that the worker has read and written so far.
    #[inline]
    pub(super) fn bytes_of_rated(&self, token: usize) -> Option<u64> {
        self.connections[token].session.is_rated().then(|| self.bytes())
    }

    fn bytes(&self) -> u64 {
        self.counters().bytes_read.get().wrapping_add(self.counters().bytes_written.get())
    }

    /// Charges the user of a connection for a service. `before` is the number of bytes before it.
    pub(super) fn charge(&mut self, token: usize, before: u64) {
        // `stats reset` may have come between.
        let bytes = self.bytes().saturating_sub(before);
        let session = &mut self.connections[token].session;
        let operations = self.serve.shards.tally.total() + std::mem::take(&mut session.deferred);
        if let Some(member) = &session.member
            && member.user.is_rated()
        {
            self.rates.charge(&member.user, operations.into(), bytes, Instant::now());
        }
    }

    /// Whether a connection rests, because its user has used its share. A value that has begun to come is read to its end: it
    /// holds room that others may wait for.
    pub(super) fn rests(&mut self, token: usize) -> bool {
        let connection = &mut self.connections[token];
        let Some(member) = &connection.session.member else { return false };
        if !member.user.is_rated() || connection.session.is_receiving() {
            return false;
        }
        let now = Instant::now();
        let Some(rest) = self.rates.rest(&member.user, now) else { return false };
        // It is not the client who is idle.
        connection.active = self.now;
        if !connection.resting {
            connection.resting = true;
            self.rates.lay_down(token, connection.session.generation, now + rest);
        }
        true
    }

    /// Serves the connections whose rest is over.
    pub(super) fn wake_resting(&mut self) {
        for (token, generation) in self.rates.wake(Instant::now()) {
            let connection = self.connections.get_mut(token);
            if let Some(connection) = connection.filter(|connection| connection.session.generation == generation) {
                connection.resting = false;
                connection.active = self.now;
                self.queue_up(token);
            }
        }
    }
}
