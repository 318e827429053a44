//! The session of a connection: its parser, the replies that wait, and what is under way.
//!
//! ```text
//!  from        to          when
//!  Parsing     Receiving   a storage command has a value that is too long for the buffer
//!  Receiving   Queued      others with long values go first
//!  Queued      Receiving   the value is admitted
//!  Receiving   Reserving   the shard is leased by another worker, or has no pages yet
//!  Reserving   Receiving   the shard has made room
//!  Receiving,  Parsing     the value is stored or refused
//!  Reserving
//!  Parsing     Asking      a query to all shards or workers begins; it ends with Parsing
//!  Parsing     Dumping     a dump begins; it ends with Parsing
//!  Parsing     Watching    the connection watches until it closes
//! ```

use super::batch::Origin;
use super::guard::Guard;
use super::pending::Pending;
use super::uploads::Ticket;
use crate::auth::scram;
use crate::auth::user::User;
use crate::clock::Moment;
use crate::measure::latency::Tally;
use crate::protocol::Operation;
use crate::protocol::binary::Access;
use crate::protocol::parser::Parser;
use crate::store::gather::Gathering;
use crate::store::item::{Cursor, Items};
use crate::watch::Watcher;
use std::sync::Arc;

/// A long value has room for as many bytes ahead as have come, but for at least and at most so many. A value of 100 KB has all
/// of its room with its first byte; one of 1 MB is read in no more pieces than without this limit.
const ROOM_AHEAD_MIN: usize = 128 << 10;
const ROOM_AHEAD_MAX: usize = 512 << 10;

/// See the head of this file.
#[derive(Debug)]
pub struct Session {
    /// The token of the connection.
    pub token: usize,
    /// See [`Origin`].
    pub generation: u64,
    /// The descriptor of the connection, for the log of watchers.
    pub fd: i32,
    /// The connection is a datagram: its bytes may be the rest of a value that began in another datagram.
    pub is_datagram: bool,
    pub(super) parser: Parser,
    /// What the client may do, also before its first byte chooses the protocol.
    pub(super) access: Access,
    /// With `--users`: who the client is, if it is somebody.
    pub(super) member: Option<Member>,
    /// There if this user may not do everything.
    pub(super) guard: Option<Box<Guard>>,
    /// A login by SCRAM that is under way.
    pub(super) scram: Option<Box<scram::Login>>,
    /// The operations that were left to other shards and are not charged to the user yet.
    pub(super) deferred: u32,
    /// Replies that wait for those before them.
    pub pending: Pending,
    pub(super) state: State,
    /// The number of commands since the turn of the connection began, or since it last let others go first. It is never more
    /// than `-R`.
    pub(super) requests: usize,
    /// The operations of an earlier turn whose replies have waited for other shards.
    pub(super) late: Option<Box<Late>>,
    /// The last thing that came was a long value, so the next may be one.
    pub(super) expects_value: bool,
}

/// The place of a connection among those of its user. Dropping it frees the place.
#[derive(Debug)]
pub struct Member {
    pub(super) user: Arc<User>,
    /// A request over UDP takes no place.
    takes_place: bool,
}

impl Member {
    /// A place for a connection. None: the user has as many connections as it may have.
    pub(super) fn enter(user: Arc<User>) -> Option<Member> {
        // A place that was not taken is not given back.
        user.enter().then(|| Member { user, takes_place: true })
    }

    /// The user of a request over UDP.
    pub(super) fn of_datagram(user: Arc<User>) -> Member {
        Member { user, takes_place: false }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.takes_place {
            self.user.leave();
        }
    }
}

/// Operations whose replies leave in a later turn.
#[derive(Debug)]
pub(super) struct Late {
    /// The operations that are executed.
    pub(super) tally: Tally,
    /// When the worker began to read them.
    pub(super) since: Moment,
}

#[derive(Debug)]
pub(super) enum State {
    /// The parser makes commands of the input.
    Parsing,
    /// The bytes of a long value come in, as far as there is room.
    Receiving(Box<Receiving>),
    /// More bytes of the value have come, and wait until fewer others are under way: see [`super::uploads`].
    Queued(Box<Receiving>),
    /// The shard was asked for more room for the value.
    Reserving(Box<Receiving>),
    /// A query to all shards or workers is under way.
    Asking,
    /// A dump is under way.
    Dumping,
    /// The connection gets the lines of watchers.
    Watching(Arc<Watcher>),
}

/// A storage command whose value is received in place.
///
/// Invariant: `received <= room <= operation.value.len`, where the room is that of `gathering`.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) operation: Operation,
    /// The bytes that the spans of the operation refer to.
    pub(super) bytes: Vec<u8>,
    pub(super) shard: usize,
    /// The room that there is. It is `None` at first, and while it travels with the task that asks for more.
    pub(super) gathering: Option<Gathering>,
    /// The place of the next bytes, up to the end of the room.
    pub(super) cursor: Option<Cursor>,
    /// The number of bytes of the value that have come.
    pub(super) received: usize,
    /// The number of bytes with which the value counts among those under way.
    pub(super) counted: usize,
    /// The value has made way for others: it counts with no more than the memory that it holds.
    pub(super) yielded: bool,
    /// `received` at the beginning of this second.
    pub(super) received_before: usize,
    /// The number of seconds in a row in which the value was slow.
    pub(super) slow_seconds: u32,
}

impl Receiving {
    pub(super) fn len(&self) -> usize {
        self.operation.value.len as usize
    }

    /// Whether there is room for bytes that have not come.
    pub(super) fn has_room(&self) -> bool {
        self.cursor.is_some_and(|cursor| cursor.left() > 0)
    }

    /// The room that the worker asks for next: twice as much as has come, within bounds.
    pub(super) fn wanted(&self) -> usize {
        (self.received + self.received.clamp(ROOM_AHEAD_MIN, ROOM_AHEAD_MAX)).min(self.len())
    }

    pub(super) fn set_room(&mut self, gathering: Gathering, items: &Items) {
        self.gathering = Some(gathering);
        self.cursor = Some(gathering.cursor(items, self.received));
    }
}

/// The room for the next bytes of a long value.
#[derive(Clone, Copy, Debug)]
pub struct ValueRoom {
    /// The place of the next byte.
    pub cursor: Cursor,
    /// The value is complete when the room is full.
    pub is_last: bool,
}

impl Session {
    /// The session of a new connection.
    pub fn new(token: usize, generation: u64, parser: Parser) -> Session {
        Session {
            token,
            generation,
            fd: -1,
            is_datagram: false,
            parser,
            access: Access::Open,
            member: None,
            guard: None,
            scram: None,
            deferred: 0,
            pending: Pending::default(),
            state: State::Parsing,
            requests: 0,
            late: None,
            expects_value: false,
        }
    }

    /// Leaves a gap for the reply to an operation that is posted: it takes at most `reply_bytes_max` bytes.
    pub(super) fn origin(&mut self, reply_bytes_max: usize) -> Origin {
        let slot = self.pending.gap(reply_bytes_max);
        self.deferred = self.deferred.saturating_add(1);
        Origin { token: self.token, generation: self.generation, slot, fd: self.fd }
    }

    /// The parser of the connection.
    pub fn parser(&self) -> &Parser {
        &self.parser
    }

    /// Whether the log may show the keys of this connection. After a mistake about a value, its rest may look like commands.
    pub fn shows_keys(&self) -> bool {
        !self.is_datagram && !self.parser.is_unframed()
    }

    /// The client has logged in, or failed to.
    pub fn set_access(&mut self, access: Access) {
        self.access = access;
        self.parser.set_access(access);
    }

    /// The client is this user from now on.
    pub(super) fn become_member(&mut self, member: Member) {
        self.guard = Guard::of(&member.user);
        self.deferred = 0;
        self.member = Some(member);
        self.scram = None;
        self.set_access(Access::Granted);
    }

    /// Whether the user of the connection has a rate.
    #[inline]
    pub(super) fn is_rated(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.user.is_rated())
    }

    /// The client is nobody from now on.
    pub(super) fn become_stranger(&mut self) {
        (self.member, self.guard, self.scram) = (None, None, None);
        self.set_access(Access::Locked);
    }

    /// The line of the user in the file has changed.
    pub(super) fn refresh_user(&mut self, user: &Arc<User>) {
        if let Some(member) = &mut self.member {
            // The place is the same: the counts of a user outlast its line.
            member.user = Arc::clone(user);
            self.guard = Guard::of(user);
            self.deferred = 0;
        }
    }

    /// Whether the session goes on only after something has come from another shard or worker.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.pending.is_waiting()
            || matches!(self.state, State::Queued(_) | State::Reserving(_) | State::Asking | State::Dumping)
    }

    /// Whether the session is between commands, and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.parser.is_idle() && self.pending.is_empty() && matches!(self.state, State::Parsing)
    }

    /// Whether the input begins with a command, or a part of one.
    pub fn is_at_command(&self) -> bool {
        matches!(self.state, State::Parsing) && self.parser.is_idle()
    }

    /// The state in memcached's words for `stats conns`. `rest` is the input that is not parsed yet; `is_next` says that the
    /// worker will parse more of it without an event.
    pub fn state_name(&self, rest: &[u8], is_next: bool) -> &'static str {
        match self.state {
            State::Parsing if matches!(self.parser, Parser::Undecided) => "conn_new_cmd",
            State::Parsing if self.parser.swallows() => "conn_swallow",
            State::Parsing if is_next && !rest.is_empty() || self.owes() => "conn_parse_cmd",
            State::Parsing if self.parser.awaits_value(rest) => "conn_nread",
            State::Parsing => "conn_read",
            State::Receiving(_) | State::Queued(_) | State::Reserving(_) => "conn_nread",
            // The query is the command of this connection.
            State::Asking => "conn_parse_cmd",
            State::Dumping | State::Watching(_) => "conn_watch",
        }
    }

    /// A query begins. Nothing is parsed until [`Session::resume`].
    pub fn begin_query(&mut self) {
        self.state = State::Asking;
    }

    /// A dump begins. Nothing is parsed until [`Session::resume`].
    pub fn begin_dump(&mut self) {
        self.state = State::Dumping;
    }

    /// Whether a dump is under way.
    #[inline]
    pub fn is_dumping(&self) -> bool {
        matches!(self.state, State::Dumping)
    }

    /// The connection becomes a watcher. Nothing is parsed any more.
    pub fn begin_watch(&mut self, watcher: Arc<Watcher>) {
        self.state = State::Watching(watcher);
    }

    /// The watcher, if the connection is one.
    #[inline]
    pub fn watcher(&self) -> Option<&Arc<Watcher>> {
        match &self.state {
            State::Watching(watcher) => Some(watcher),
            _ => None,
        }
    }

    /// The query is answered, or the dump is over.
    pub fn resume(&mut self) {
        self.state = State::Parsing;
    }

    /// Whether a long value is under way.
    pub fn is_receiving(&self) -> bool {
        matches!(self.state, State::Receiving(_) | State::Queued(_) | State::Reserving(_))
    }

    /// Whether the session waits for nothing but bytes of a long value.
    #[inline]
    pub fn awaits_value(&self) -> bool {
        matches!(self.state, State::Receiving(_))
    }

    /// Whether the session can take more of a long value only after `Shards::make_room`.
    #[inline]
    pub fn wants_room(&self) -> bool {
        matches!(&self.state, State::Receiving(value) if !value.has_room() && value.received < value.len())
    }

    /// The room for the next bytes of a long value, if there is any.
    pub fn room(&self) -> Option<ValueRoom> {
        match &self.state {
            State::Receiving(value) => value
                .cursor
                .filter(|cursor| cursor.left() > 0)
                .map(|cursor| ValueRoom { cursor, is_last: value.received + cursor.left() == value.len() }),
            _ => None,
        }
    }

    /// Whether there is something to do without further input: a long value of the binary protocol is complete, behind which
    /// nothing comes; or a `get` has only its end left, because full groups have taken all of its keys.
    pub fn owes(&self) -> bool {
        match &self.state {
            State::Receiving(value) => value.received == value.len() && self.parser.terminator_len() == 0,
            State::Parsing => matches!(&self.parser, Parser::Text(parser) if parser.owes_end()),
            _ => false,
        }
    }

    /// `count` bytes of the value were read into [`Session::room`].
    pub fn received(&mut self, items: &Items, count: usize) {
        if let State::Receiving(value) = &mut self.state
            && let Some(cursor) = &mut value.cursor
        {
            *cursor = items.advance(*cursor, count);
            value.received += count;
        }
    }

    pub(super) fn ticket(&self, worker: usize) -> Ticket {
        Ticket { worker, token: self.token, generation: self.generation }
    }
}
