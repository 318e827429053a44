//! What serving remembers of a connection: its parser, its replies, and what is under way.

use super::batch::Origin;
use super::pending::Pending;
use super::uploads::Ticket;
use crate::protocol::parser::Parser;
use crate::protocol::{Operation, binary};
use crate::store::gather::Gathering;
use crate::store::item::{Cursor, Items};
use crate::watch::Watcher;
use std::sync::Arc;

/// Room for a long value ahead of what has come of it, in bytes: as much as has come, but at least and at most so many. A
/// value of 100 KB has all of its room with its first byte, one of 1 MB is read in as many pieces as before.
const ROOM_AHEAD_MIN: usize = 128 << 10;
const ROOM_AHEAD_MAX: usize = 512 << 10;

/// What serving remembers of a connection.
#[derive(Debug)]
pub struct Session {
    /// Its token.
    pub token: usize,
    /// See [`Origin`].
    pub generation: u64,
    /// Its descriptor, for those who watch.
    pub fd: i32,
    /// It is a datagram: what it says may be the rest of a value that began in another one.
    pub is_datagram: bool,
    pub(super) parser: Parser,
    /// Replies that wait for those before them.
    pub pending: Pending,
    pub(super) state: State,
    /// Commands since its turn began, or since it last let others go first; at most as many as it may.
    pub(super) requests: usize,
}

#[derive(Debug)]
pub(super) enum State {
    Parsing,
    /// A long value is coming in, as far as there is room.
    Receiving(Box<Receiving>),
    /// More of it has come, and waits until there are fewer others: see [`super::uploads`].
    Queued(Box<Receiving>),
    /// More room for it was asked for.
    Reserving(Box<Receiving>),
    /// A query to all shards or workers is under way.
    Asking,
    /// A dump is under way.
    Dumping,
    /// It is told what happens.
    Watching(Arc<Watcher>),
}

/// A storage command whose value is received in place.
///
/// Invariant: `received <= room <= operation.value.len`, where the room is that of `gathering`.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) operation: Operation,
    /// What its spans refer to.
    pub(super) bytes: Vec<u8>,
    pub(super) shard: usize,
    /// The room that there is. None: none yet; or it travels with the task that asks for more.
    pub(super) gathering: Option<Gathering>,
    /// Where the next bytes go, to the end of the room.
    pub(super) cursor: Option<Cursor>,
    /// Bytes of the value that have come.
    pub(super) received: usize,
    /// Bytes that it counts among the values under way.
    pub(super) counted: usize,
    /// It has yielded: it counts no more than it holds.
    pub(super) yielded: bool,
    /// `received` when a second began, and for how many seconds next to nothing has come while others wait.
    pub(super) received_before: usize,
    pub(super) slow_seconds: u32,
}

impl Receiving {
    pub(super) fn len(&self) -> usize {
        self.operation.value.len as usize
    }

    /// There is room for bytes that have not come.
    pub(super) fn has_room(&self) -> bool {
        self.cursor.is_some_and(|cursor| cursor.left() > 0)
    }

    /// How much room is wanted next: as much again as has come, within bounds.
    pub(super) fn wanted(&self) -> usize {
        (self.received + self.received.clamp(ROOM_AHEAD_MIN, ROOM_AHEAD_MAX)).min(self.len())
    }

    pub(super) fn set_room(&mut self, gathering: Gathering, items: &Items) {
        self.gathering = Some(gathering);
        self.cursor = Some(gathering.cursor(items, self.received));
    }
}

impl Session {
    /// A new connection, with the parser that it begins with.
    pub fn new(token: usize, generation: u64, parser: Parser) -> Session {
        Session {
            token,
            generation,
            fd: -1,
            is_datagram: false,
            parser,
            pending: Pending::default(),
            state: State::Parsing,
            requests: 0,
        }
    }

    /// Where the reply to an operation that is posted belongs: a gap for at most `reply_bytes_max` bytes.
    pub(super) fn origin(&mut self, reply_bytes_max: usize) -> Origin {
        let slot = self.pending.gap(reply_bytes_max);
        Origin { token: self.token, generation: self.generation, slot, fd: self.fd }
    }

    /// What makes operations of what it says.
    pub fn parser(&self) -> &Parser {
        &self.parser
    }

    /// Whether the log may have its keys. What follows a mistake about a value may be the rest of it, although it looks like
    /// a command.
    pub fn shows_keys(&self) -> bool {
        !self.is_datagram && !self.parser.is_unframed()
    }

    /// It has shown who it is, or failed to.
    pub fn set_access(&mut self, access: binary::Access) {
        self.parser.set_access(access);
    }

    /// Whether it can go on only after something has come from another shard or worker.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.pending.is_waiting()
            || matches!(self.state, State::Queued(_) | State::Reserving(_) | State::Asking | State::Dumping)
    }

    /// Whether it is between commands, and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.parser.is_idle() && self.pending.is_empty() && matches!(self.state, State::Parsing)
    }

    /// What it is doing, in memcached's words for `stats conns`. `rest`: what it has sent and was not taken yet; `is_next`:
    /// more of that can be.
    pub fn state_name(&self, rest: &[u8], is_next: bool) -> &'static str {
        match self.state {
            State::Parsing if matches!(self.parser, Parser::Undecided) => "conn_new_cmd",
            State::Parsing if self.parser.swallows() => "conn_swallow",
            State::Parsing if is_next && !rest.is_empty() || self.owes() => "conn_parse_cmd",
            State::Parsing if self.parser.awaits_value(rest) => "conn_nread",
            State::Parsing => "conn_read",
            State::Receiving(_) | State::Queued(_) | State::Reserving(_) => "conn_nread",
            // The query is its command.
            State::Asking => "conn_parse_cmd",
            State::Dumping | State::Watching(_) => "conn_watch",
        }
    }

    /// A query is under way; nothing is parsed until [`Session::resume`].
    pub fn begin_query(&mut self) {
        self.state = State::Asking;
    }

    /// A dump is under way; nothing is parsed until [`Session::resume`].
    pub fn begin_dump(&mut self) {
        self.state = State::Dumping;
    }

    /// Whether a dump is under way.
    #[inline]
    pub fn is_dumping(&self) -> bool {
        matches!(self.state, State::Dumping)
    }

    /// From now on it is told what happens, and nothing is parsed any more.
    pub fn begin_watch(&mut self, watcher: Arc<Watcher>) {
        self.state = State::Watching(watcher);
    }

    /// What it watches, if it does.
    #[inline]
    pub fn watcher(&self) -> Option<&Arc<Watcher>> {
        match &self.state {
            State::Watching(watcher) => Some(watcher),
            _ => None,
        }
    }

    /// The query was answered, or the dump is over.
    pub fn resume(&mut self) {
        self.state = State::Parsing;
    }

    /// Whether a long value is coming in.
    pub fn is_receiving(&self) -> bool {
        matches!(self.state, State::Receiving(_) | State::Queued(_) | State::Reserving(_))
    }

    /// Whether bytes of a long value are what is waited for.
    #[inline]
    pub fn awaits_value(&self) -> bool {
        matches!(self.state, State::Receiving(_))
    }

    /// Whether more of a long value can be taken only once there is room for it: see `make_room` in `receive.rs`.
    #[inline]
    pub fn wants_room(&self) -> bool {
        matches!(&self.state, State::Receiving(value) if !value.has_room() && value.received < value.len())
    }

    /// Where the next bytes of a long value go, if one is coming in, and whether they are its last.
    pub fn room(&self) -> Option<(Cursor, bool)> {
        match &self.state {
            State::Receiving(value) => value
                .cursor
                .filter(|cursor| cursor.left() > 0)
                .map(|cursor| (cursor, value.received + cursor.left() == value.len())),
            _ => None,
        }
    }

    /// Whether there is something to do without further input: a long value is there whole, behind which nothing comes in
    /// the binary protocol; or all keys of a `get` were taken by groups that were full, and what is left of it is its end.
    pub fn owes(&self) -> bool {
        match &self.state {
            State::Receiving(value) => value.received == value.len() && self.parser.terminator_len() == 0,
            State::Parsing => matches!(&self.parser, Parser::Text(parser) if parser.owes_end()),
            _ => false,
        }
    }

    /// `count` bytes of the value went to [`Session::room`].
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
