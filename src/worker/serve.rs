//! Input bytes become operations, routed to their shards in groups, and replies. No I/O in here, so it can be simulated.
//!
//! A group is parsed first: every key is hashed, and its index bucket prefetched. Then the group is executed, and the items
//! that the buckets name are prefetched some operations ahead: memory latency is not paid once per key. Operations on a
//! shard that somebody else has leased go into a batch for it (see `mailbox.rs`).

use super::mailbox::{Batch, Exchange, Lease, Origin, Reservation, Room, Task};
use super::pending::Pending;
use super::trace;
use super::uploads::{Admission, Ticket};
use crate::clock::{Clock, Now};
use crate::command::walk::Walk;
use crate::command::watch::{self, Categories, Log, Watcher, Watchers};
use crate::command::{self, Pinned, Reply, Shard, admin, set};
use crate::hash::{self, KeyHasher};
use crate::protocol::parser::{Parse, Parser};
use crate::protocol::{Limits, Operation, Span, Step, Verb};
use crate::protocol::{binary, login};
use crate::store::arena::ItemId;
use crate::store::gather::{Gathered, Gathering};
use crate::store::item::{Cursor, Items};
use crate::store::{OutOfMemory, PIN_LEN_MIN};
use std::sync::Arc;

/// How many operations ahead of the one that is executed an item is asked for. All of a group at once would fill the
/// processor's queue to memory and wait there, with nothing executed meanwhile: a fifth of the time of a `get` of 50 keys
/// out of ten million. 8 to 20 measure alike.
pub const PREFETCH_AHEAD: usize = 12;

/// Room for a long value ahead of what has come of it, in bytes: as much as has come, but at least and at most so many. A
/// value of 100 KB has all of its room with its first byte, one of 1 MB is read in as many pieces as before.
const ROOM_AHEAD_MIN: usize = 128 << 10;
const ROOM_AHEAD_MAX: usize = 512 << 10;
/// While others wait, a value of which fewer bytes come in a second than this is slow;
const SLOW_BYTES: usize = 16 << 10;
/// after so many seconds it makes way for those who wait,
const SLOW_SECONDS_YIELD: u32 = 2;
/// and after so many it is given up with its connection.
const SLOW_SECONDS_MAX: u32 = 5;

/// What serving needs to know.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Limits of the parser.
    pub parse: Limits,
    /// Operations parsed ahead.
    pub group_len: usize,
    /// Bytes of replies after which a connection is not served before they are on their way.
    pub output_max: usize,
    /// `-R`: commands after which a connection lets others go first.
    pub requests_per_turn: usize,
    /// Groups end where a connection lets others go first. Else it does so at the end of the group.
    pub cut_groups: bool,
    /// Bytes of a batch after which no more is put into it before it is on its way.
    pub batch_bytes_max: usize,
    /// `--port-per-core`: all keys belong to the worker's own shard, that with its number.
    pub keep_keys: bool,
}

/// Why serving a connection came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// More input is needed.
    Drained,
    /// Replies of other shards must come first.
    Waiting,
    /// Replies must be sent first.
    Full,
    /// It has had its share of this turn.
    Yield,
    /// This line or packet is a command that concerns the connection or the whole cache; all before it has been answered.
    Admin(Span),
    /// The connection is to be closed once its replies are sent.
    Close,
}

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
    parser: Parser,
    /// Replies that wait for those before them.
    pub pending: Pending,
    state: State,
    /// Commands since its turn began, or since it last let others go first; at most as many as it may.
    requests: usize,
}

#[derive(Debug)]
enum State {
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
struct Receiving {
    operation: Operation,
    /// What its spans refer to.
    bytes: Vec<u8>,
    shard: usize,
    /// The room that there is. None: none yet; or it travels with the task that asks for more.
    gathering: Option<Gathering>,
    /// Where the next bytes go, to the end of the room.
    cursor: Option<Cursor>,
    /// Bytes of the value that have come.
    received: usize,
    /// Bytes that it counts among the values under way.
    counted: usize,
    /// It has yielded: it counts no more than it holds.
    yielded: bool,
    /// `received` when a second began, and for how many seconds next to nothing has come while others wait.
    received_before: usize,
    slow_seconds: u32,
}

impl Receiving {
    fn len(&self) -> usize {
        self.operation.value.len as usize
    }

    /// There is room for bytes that have not come.
    fn has_room(&self) -> bool {
        self.cursor.is_some_and(|cursor| cursor.left() > 0)
    }

    /// How much room is wanted next: as much again as has come, within bounds.
    fn wanted(&self) -> usize {
        (self.received + self.received.clamp(ROOM_AHEAD_MIN, ROOM_AHEAD_MAX)).min(self.len())
    }

    fn set_room(&mut self, gathering: Gathering, items: &Items) {
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
    fn origin(&mut self, reply_bytes_max: usize) -> Origin {
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

    /// Whether more of a long value can be taken only once there is room for it: see [`Serve::make_room`].
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

    fn ticket(&self, worker: usize) -> Ticket {
        Ticket { worker, token: self.token, generation: self.generation }
    }
}

/// How things stand between this worker and a shard.
#[derive(Debug, Default)]
struct ShardLink<'a> {
    lease: Option<Lease<'a>>,
    /// The lease was asked for in vain for the connection at hand.
    refused: bool,
    /// Tasks that are not on their way.
    open: Option<Box<Batch>>,
    /// A batch is on its way.
    posted: bool,
}

/// Serves the connections of one worker.
#[derive(Debug)]
#[allow(clippy::vec_box, reason = "batches travel by pointer")]
pub struct Serve<'a> {
    worker: usize,
    exchange: &'a Exchange,
    clock: &'a Clock,
    hasher: KeyHasher,
    limits: ServeLimits,
    items: Items,
    now: Now,
    links: Vec<ShardLink<'a>>,
    /// Shards that are leased for the connection at hand.
    leased: Vec<usize>,
    group: Vec<Operation>,
    /// The items that the operations of the group probably find.
    hints: Vec<Option<ItemId>>,
    /// Batches of this worker that are done.
    done: Vec<Box<Batch>>,
    spare: Vec<Box<Batch>>,
    /// Room for a long value is to be asked for once more: there is something to do in the next turn.
    waits_for_room: bool,
    /// What there is to tell to those who watch; none while nobody does.
    log: Option<Box<Log<'a>>>,
    /// `-vv`: requests are printed.
    traces: bool,
    /// A batch has become as large as it may be.
    has_full: bool,
    /// Times that connections let others go first, since somebody last asked.
    yields: usize,
}

/// How a group came to its end.
enum End {
    Full,
    Incomplete,
    /// A command of the whole cache: its line or its packet.
    Admin(Span),
    Data,
    Close,
}

impl<'a> Serve<'a> {
    /// Serving for worker number `worker` of an exchange.
    pub fn new(
        worker: usize,
        exchange: &'a Exchange,
        clock: &'a Clock,
        hasher: KeyHasher,
        items: Items,
        limits: ServeLimits,
    ) -> Serve<'a> {
        let mut links = Vec::new();
        links.resize_with(exchange.shards(), ShardLink::default);
        Serve {
            worker,
            exchange,
            clock,
            hasher,
            limits,
            items,
            now: clock.now(),
            links,
            leased: Vec::new(),
            group: vec![Operation::default(); limits.group_len],
            hints: vec![None; limits.group_len],
            done: Vec::new(),
            spare: Vec::new(),
            waits_for_room: false,
            log: None,
            traces: false,
            has_full: false,
            yields: 0,
        }
    }

    /// A turn begins: what time it is.
    pub fn begin(&mut self, now: Now) {
        self.now = now;
        self.traces = trace::is_on();
        for link in &mut self.links {
            if let Some(lease) = &mut link.lease {
                lease.store.set_now(now);
            }
        }
    }

    /// What is watched from now on, in a turn of this time (microseconds since 1970), with a log of so many bytes.
    pub fn watch(&mut self, watchers: &'a Watchers, watched: Categories, micros: u128, bytes_max: usize) {
        if watched.is_empty() {
            self.log = None;
        } else {
            self.log.get_or_insert_with(|| Box::new(Log::new(watchers, bytes_max))).begin(watched, micros);
        }
    }

    /// What there is to tell to those who watch; none while nobody does.
    pub fn log(&mut self) -> Option<&mut Log<'a>> {
        self.log.as_deref_mut()
    }

    /// Serves a connection from its input, beginning at `*at`; replies go to `output`. What lies before `*at` afterwards
    /// is done with. `alone`: nobody else waits for this turn.
    pub fn serve(
        &mut self,
        session: &mut Session,
        input: &mut [u8],
        at: &mut usize,
        output: &mut Reply,
        alone: bool,
    ) -> Served {
        let served = self.serve_groups(session, input, at, output, alone);
        if served == Served::Drained || *at == input.len() {
            // All that it sent at once was taken.
            session.requests = 0;
        }
        self.give_back();
        served
    }

    /// How often connections let others go first since this was last asked.
    pub fn take_yields(&mut self) -> usize {
        std::mem::take(&mut self.yields)
    }

    /// Counts commands of a connection. As in memcached, it lets others go first before the first command beyond `-R`,
    /// and each such time counts, also where there is nobody else and it goes on at once.
    #[inline]
    fn count_requests(&mut self, session: &mut Session, commands: usize) {
        session.requests += commands;
        let most = self.limits.requests_per_turn;
        if session.requests > most {
            let yields = (session.requests - 1) / most;
            session.requests -= yields * most;
            self.yields += yields;
        }
    }

    /// Whether a connection lets others go first. Each key of a long list counts, which memcached does not count.
    #[inline]
    fn has_had_its_share(&self, session: &Session, operations: usize) -> bool {
        let most = self.limits.requests_per_turn;
        session.requests == most || operations >= most
    }

    fn serve_groups(
        &mut self,
        session: &mut Session,
        input: &mut [u8],
        at: &mut usize,
        output: &mut Reply,
        alone: bool,
    ) -> Served {
        let mut operations = 0;
        loop {
            match session.state {
                State::Parsing => {}
                State::Receiving(_) => {
                    if !self.receive(session, input, at, output) {
                        return if session.is_waiting() { Served::Waiting } else { Served::Drained };
                    }
                    continue;
                }
                _ => return Served::Waiting,
            }
            if self.has_full && !self.post_full() {
                return Served::Waiting;
            }
            let commands_max = match self.limits.requests_per_turn {
                _ if alone || !self.limits.cut_groups => usize::MAX,
                most if session.requests == most => most,
                most => most - session.requests,
            };
            let (count, commands, end) = match &mut session.parser {
                Parser::Text(parser) => self.parse_group(parser, input, at, commands_max),
                Parser::Binary(parser) => self.parse_packets(parser, input, at, commands_max),
                Parser::Login(parser) => self.parse_login(parser, input, at, commands_max),
                Parser::Undecided => match input.get(*at) {
                    Some(&first) => {
                        session.parser = Parser::decided_by(first);
                        let name = if matches!(session.parser, Parser::Binary(_)) { "binary" } else { "ascii" };
                        log::debug!("{}: Client using the {name} protocol", session.fd);
                        continue;
                    }
                    None => return Served::Drained,
                },
            };
            if self.traces && !matches!(session.parser, Parser::Login(_)) {
                let with_value = count + usize::from(matches!(end, End::Data));
                trace::group(session, &self.group[..with_value], input);
            }
            if self.log.is_none() {
                self.execute_group::<false>(session, count, input, output);
            } else {
                self.execute_watched_group(session, count, input, output);
            }
            operations += count;
            self.count_requests(session, commands);
            match end {
                End::Full if output.len() + session.pending.len() > self.limits.output_max => {
                    return if session.pending.is_waiting() { Served::Waiting } else { Served::Full };
                }
                End::Full if !alone && self.has_had_its_share(session, operations) => return Served::Yield,
                End::Full => {}
                End::Incomplete if session.pending.is_waiting() => return Served::Waiting,
                End::Incomplete => return Served::Drained,
                End::Admin(line) if session.pending.is_waiting() => {
                    // Commands of the whole cache wait for what came before them: it is parsed again then. But not a value
                    // in front of it that was thrown away.
                    *at = line.start as usize;
                    return Served::Waiting;
                }
                End::Admin(line) => {
                    self.count_requests(session, 1);
                    return Served::Admin(line);
                }
                End::Data => {
                    self.count_requests(session, 1);
                    self.begin_value(session, count, input);
                }
                End::Close => return Served::Close,
            }
        }
    }

    /// The shard of a key.
    #[inline]
    fn shard_of(&self, hash: u64) -> usize {
        if self.limits.keep_keys { self.worker } else { hash::shard(hash, self.links.len()) }
    }

    /// Sends batches that are as large as they may be on their way. Says whether that was possible: a shard that still
    /// has one of this worker's batches is not sent another.
    #[cold]
    fn post_full(&mut self) -> bool {
        self.has_full = false;
        for shard in 0..self.links.len() {
            let link = &self.links[shard];
            if link.open.as_deref().is_none_or(|batch| batch.bytes_max() <= self.limits.batch_bytes_max) {
                continue;
            }
            if link.lease.is_some() {
                self.run_open(shard);
            } else if link.posted {
                self.has_full = true;
            } else {
                self.post(shard);
            }
        }
        !self.has_full
    }

    /// Parses up to a group of operations, and no more than `commands_max` commands. Gives the number of operations to be
    /// executed and that of the commands they are; where one more is not to be executed like the others, it stands
    /// behind them.
    #[inline]
    fn parse_group(
        &mut self,
        parser: &mut impl Parse,
        input: &mut [u8],
        at: &mut usize,
        commands_max: usize,
    ) -> (usize, usize, End) {
        let mut commands = 0;
        for count in 0..self.limits.group_len {
            let start = *at;
            let operation = &mut self.group[count];
            let is_keyed = match parser.next(input, at, &self.limits.parse, operation) {
                Step::Key => true,
                Step::Operation => match operation.verb {
                    Verb::Admin => return (count, commands, End::Admin(operation.tokens)),
                    Verb::Say => {
                        commands += 1;
                        operation.tokens = Span::new(start, *at);
                        false
                    }
                    verb => {
                        commands += 1;
                        verb.is_keyed()
                    }
                },
                Step::Data => {
                    operation.hash = self.hasher.hash(operation.key.of(input));
                    return (count, commands, End::Data);
                }
                Step::Incomplete => return (count, commands, End::Incomplete),
                Step::Close => return (count, commands, End::Close),
            };
            if is_keyed {
                operation.hash = self.hasher.hash(operation.key.of(input));
                let hash = operation.hash;
                let shard = self.shard_of(hash);
                if let Some(lease) = self.lease(shard) {
                    lease.store.prefetch_bucket(hash);
                }
            }
            if commands == commands_max {
                return (count + 1, commands, End::Full);
            }
        }
        (self.limits.group_len, commands, End::Full)
    }

    /// [`Serve::parse_group`] of a connection that speaks binary: not in the way of the others.
    #[inline(never)]
    fn parse_packets(
        &mut self,
        parser: &mut binary::Parser,
        input: &mut [u8],
        at: &mut usize,
        commands_max: usize,
    ) -> (usize, usize, End) {
        self.parse_group(parser, input, at, commands_max)
    }

    /// [`Serve::parse_group`] of a connection that has still to show who it is.
    #[inline(never)]
    fn parse_login(
        &mut self,
        parser: &mut login::Parser,
        input: &mut [u8],
        at: &mut usize,
        commands_max: usize,
    ) -> (usize, usize, End) {
        self.parse_group(parser, input, at, commands_max)
    }

    /// Not part of the code that is for speed.
    #[cold]
    #[inline(never)]
    fn execute_watched_group(&mut self, session: &mut Session, count: usize, input: &[u8], output: &mut Reply) {
        self.execute_group::<true>(session, count, input, output);
    }

    #[inline]
    fn execute_group<const WATCHED: bool>(
        &mut self,
        session: &mut Session,
        count: usize,
        input: &[u8],
        output: &mut Reply,
    ) {
        for &shard in &self.leased {
            if let Some(lease) = &mut self.links[shard].lease {
                lease.store.begin_group();
            }
        }
        for at in 0..count.min(PREFETCH_AHEAD) {
            self.prefetch_item(at);
        }
        for at in 0..count {
            if at + PREFETCH_AHEAD < count {
                self.prefetch_item(at + PREFETCH_AHEAD);
            }
            let operation = &self.group[at];
            if !operation.verb.is_keyed() {
                command::speak(operation, session.pending.sink(output));
                continue;
            }
            let shard = self.shard_of(operation.hash);
            match &mut self.links[shard].lease {
                Some(lease) => {
                    if WATCHED && let Some(log) = &mut self.log {
                        let sink = session.pending.sink(output);
                        watch::execute(log, session.fd, lease, operation, input, self.clock, sink);
                        continue;
                    }
                    let hint = self.hints[at];
                    command::execute(lease, operation, hint, input, self.clock, session.pending.sink(output));
                }
                None => {
                    let operation = *operation;
                    let expected = reply_bytes_max(&operation);
                    let origin = session.origin(expected);
                    let operation = self.open(shard).adopt(&operation, input);
                    self.push(shard, Task::Execute(operation), Some(origin), expected);
                }
            }
        }
    }

    /// Asks for the item of an operation of the group, and notes which it probably is.
    #[inline(always)]
    fn prefetch_item(&mut self, at: usize) {
        let operation = &self.group[at];
        if operation.verb.is_keyed()
            && let Some(lease) = &self.links[self.shard_of(operation.hash)].lease
        {
            self.hints[at] = lease.store.prefetch_item(operation.hash);
        }
    }

    /// The lease of a shard, if it is held or can be had. Tasks that were put off for this shard are run first.
    #[inline]
    fn lease(&mut self, shard: usize) -> Option<&mut Lease<'a>> {
        let link = &mut self.links[shard];
        if link.lease.is_none() {
            if link.refused || link.posted {
                return None;
            }
            self.take_lease(shard);
        }
        self.links[shard].lease.as_mut()
    }

    fn take_lease(&mut self, shard: usize) {
        let link = &mut self.links[shard];
        match self.exchange.try_lease(shard) {
            Some(mut lease) => {
                lease.store.set_now(self.now);
                if let Some(mut batch) = link.open.take() {
                    let log = self.log.as_deref_mut();
                    run(&mut lease, &mut batch, self.exchange, self.clock, self.now, self.limits.group_len, log);
                    self.done.push(batch);
                }
                link.lease = Some(lease);
                self.leased.push(shard);
            }
            None => {
                link.refused = true;
                self.leased.push(shard);
            }
        }
    }

    /// Gives all leases back. A server with one worker keeps them.
    fn give_back(&mut self) {
        if self.exchange.workers() == 1 {
            return;
        }
        let (exchange, clock, now, group_len) = (self.exchange, self.clock, self.now, self.limits.group_len);
        let log = &mut self.log;
        while let Some(shard) = self.leased.pop() {
            let link = &mut self.links[shard];
            link.refused = false;
            if let Some(lease) = link.lease.take() {
                exchange.give_back(lease, |shard, batch| {
                    run(shard, batch, exchange, clock, now, group_len, log.as_deref_mut());
                });
            }
        }
    }

    /// The batch for a shard that is being collected.
    fn open(&mut self, shard: usize) -> &mut Batch {
        let (worker, spare) = (self.worker, &mut self.spare);
        self.links[shard].open.get_or_insert_with(|| match spare.pop() {
            Some(mut batch) => {
                batch.clear();
                batch.shard = shard;
                batch
            }
            None => Box::new(Batch::new(worker, shard)),
        })
    }

    /// Adds a task to the batch for a shard.
    fn push(&mut self, shard: usize, task: Task, origin: Option<Origin>, reply_bytes_max: usize) {
        let most = self.limits.batch_bytes_max;
        let batch = self.open(shard);
        batch.push(task, origin, reply_bytes_max);
        self.has_full |= batch.bytes_max() > most;
    }

    /// Puts a task that nobody waits for where it is done: at once, or with the next batch.
    fn run_or_defer(&mut self, shard: usize, task: Task) {
        match &mut self.links[shard].lease {
            Some(lease) => match task {
                Task::Unpin(id) => lease.store.unpin(id),
                Task::Abandon(id) => lease.store.abandon(id),
                _ => unreachable!("chores are unpinning and abandoning"),
            },
            None => self.push(shard, task, None, 0),
        }
    }

    /// A pinned value has been written, or never will be.
    pub fn unpin(&mut self, pinned: Pinned) {
        self.run_or_defer(usize::from(pinned.shard), Task::Unpin(pinned.id));
    }

    /// Asks all shards.
    pub fn ask_shards(&mut self, broadcast: &Arc<super::broadcast::Broadcast>) {
        for shard in 0..self.links.len() {
            self.push(shard, Task::Broadcast(Arc::clone(broadcast)), None, 0);
            if self.links[shard].lease.is_some() {
                self.run_open(shard);
            }
        }
    }

    /// As [`Serve::ask_shards`], but at the end of the turn: what is asked piece by piece leaves turns to others.
    pub fn ask_shards_later(&mut self, broadcast: &Arc<super::broadcast::Broadcast>) {
        for shard in 0..self.links.len() {
            self.push(shard, Task::Broadcast(Arc::clone(broadcast)), None, 0);
        }
    }

    /// Sends a walk to the shard that it has come to. It returns with the batch.
    pub fn walk(&mut self, walk: Box<Walk>) {
        let shard = walk.shard;
        self.push(shard, Task::Walk(Some(walk)), None, 0);
    }

    fn run_open(&mut self, shard: usize) {
        let link = &mut self.links[shard];
        if let (Some(lease), Some(mut batch)) = (&mut link.lease, link.open.take()) {
            let log = self.log.as_deref_mut();
            run(lease, &mut batch, self.exchange, self.clock, self.now, self.limits.group_len, log);
            self.done.push(batch);
        }
    }

    /// Sends batches on their way, at the end of a turn: runs them here if their shard is free.
    pub fn flush(&mut self) {
        self.waits_for_room = false;
        for shard in 0..self.links.len() {
            if self.links[shard].open.is_none() || self.links[shard].posted {
                continue;
            }
            if self.links[shard].lease.is_some() {
                self.run_open(shard);
                continue;
            }
            self.take_lease(shard);
            self.post(shard);
        }
        self.give_back();
    }

    /// Sends the batch for a shard on its way, if there is one. None is on its way yet.
    fn post(&mut self, shard: usize) {
        let Some(batch) = self.links[shard].open.take() else { return };
        self.links[shard].posted = true;
        let (exchange, clock, now, group_len) = (self.exchange, self.clock, self.now, self.limits.group_len);
        let log = &mut self.log;
        exchange.post(batch, |shard, batch| {
            run(shard, batch, exchange, clock, now, group_len, log.as_deref_mut());
        });
    }

    /// Whether it has something to do although nothing comes in.
    pub fn is_busy(&self) -> bool {
        self.waits_for_room
    }

    /// One of its batches has come back by mail.
    pub fn returned(&mut self, batch: Box<Batch>) {
        self.links[batch.shard].posted = false;
        self.done.push(batch);
    }

    /// The next batch whose replies are to be handed out; give it back with [`Serve::recycle`].
    pub fn next_done(&mut self) -> Option<Box<Batch>> {
        self.done.pop()
    }

    /// Takes back a batch that was handed out.
    pub fn recycle(&mut self, batch: Box<Batch>) {
        if self.spare.len() < self.links.len() * 2 {
            self.spare.push(batch);
        }
    }

    /// Bounded work on the shards that this worker looks after: those whose number is its own, modulo the workers.
    /// Says whether there was something to do.
    pub fn housekeep(&mut self, steps: u32, crawler_on: bool) -> bool {
        let mut busy = false;
        for shard in (self.worker..self.links.len()).step_by(self.exchange.workers()) {
            if self.lease(shard).is_some()
                && let Some(lease) = &mut self.links[shard].lease
            {
                busy |= match &mut self.log {
                    None => lease.store.housekeep(steps, crawler_on),
                    Some(log) => watch::housekeep(log, lease, steps, crawler_on),
                };
            }
        }
        self.give_back();
        busy
    }

    /// The command at the end of the group has a value that is too long for the buffer. It takes no memory before the first
    /// of its bytes has come.
    fn begin_value(&mut self, session: &mut Session, at: usize, input: &[u8]) {
        let operation = self.group[at];
        let mut keep = Batch::new(0, 0);
        let kept = keep.adopt(&operation, input);
        session.state = State::Receiving(Box::new(Receiving {
            operation: kept,
            bytes: keep.bytes,
            shard: self.shard_of(operation.hash),
            gathering: None,
            cursor: None,
            received: 0,
            counted: 0,
            yielded: false,
            received_before: 0,
            slow_seconds: 0,
        }));
    }

    /// Makes room for more of a long value, of which bytes have come: [`Session::wants_room`] said so. Afterwards there is
    /// room, or the connection waits for it, or there is none and the reply says so.
    pub fn make_room(&mut self, session: &mut Session, output: &mut Reply) {
        self.widen(session, output);
        self.give_back();
    }

    fn widen(&mut self, session: &mut Session, output: &mut Reply) {
        let State::Receiving(mut value) = std::mem::replace(&mut session.state, State::Parsing) else {
            unreachable!("only called while receiving");
        };
        if value.counted < value.len() {
            let held = value.counted;
            let admission = Admission::new(session.ticket(self.worker), value.shard, value.len(), held);
            if !self.exchange.uploads(value.shard).enter(admission) {
                session.state = State::Queued(value);
                return;
            }
            value.counted = value.len();
            value.yielded = false;
        }
        let (shard, wanted, so_far) = (value.shard, value.wanted(), value.gathering.take());
        let mut room = Room::Wanted(so_far);
        if self.lease(shard).is_some()
            && let Some(lease) = &mut self.links[shard].lease
        {
            let (operation, bytes) = (&value.operation, &value.bytes);
            let gathered = match &mut self.log {
                None => set::reserve(lease, operation, bytes, wanted, so_far),
                Some(log) => watch::reserve(log, session.fd, lease, operation, bytes, wanted, so_far),
            };
            room = Room::of(gathered);
        }
        match room {
            Room::Ready(gathering) => {
                value.set_room(gathering, &self.items);
                session.state = State::Receiving(value);
            }
            Room::Wanted(so_far) => {
                let slot = session.pending.gap(reply_bytes_max(&value.operation));
                self.ask_for_room(session, slot, &value, so_far);
                session.state = State::Reserving(value);
            }
            Room::Refused => {
                set::refuse(&value.operation, session.pending.sink(output));
                self.refuse(session, &value);
            }
        }
    }

    /// There is no room for the rest of a value: it is swallowed.
    fn refuse(&mut self, session: &mut Session, value: &Receiving) {
        session.parser.swallow_value((value.len() - value.received) as u32);
        self.discount(value);
    }

    /// A value is not under way any more.
    fn discount(&self, value: &Receiving) {
        let uploads = self.exchange.uploads(value.shard);
        if value.counted > 0 {
            let gone = if value.yielded { uploads.leave_yielded(value.counted) } else { uploads.leave(value.counted) };
            self.exchange.admit(gone);
        }
    }

    /// A long value that waited may come in. Says whether its connection still waits for that: it may have been closed, and
    /// another have its token.
    pub fn admitted(&mut self, session: Option<&mut Session>, admission: &Admission) -> bool {
        if let Some(session) = session.filter(|session| session.generation == admission.ticket.generation)
            && let State::Queued(_) = session.state
            && let State::Queued(mut value) = std::mem::replace(&mut session.state, State::Parsing)
        {
            value.counted = admission.bytes;
            value.yielded = false;
            session.state = State::Receiving(value);
            return true;
        }
        self.exchange.admit(self.exchange.uploads(admission.shard).leave(admission.bytes));
        false
    }

    /// A second has passed for a connection: a long value that hardly comes in makes way for those that wait. Says whether
    /// it has done so for too long, and the connection is to be closed.
    pub fn is_too_slow(&mut self, session: &mut Session) -> bool {
        let State::Receiving(value) = &mut session.state else { return false };
        let came = value.received - value.received_before;
        value.received_before = value.received;
        if value.counted == 0 || came >= SLOW_BYTES || self.exchange.uploads(value.shard).waiting() == 0 {
            value.slow_seconds = 0;
            return false;
        }
        value.slow_seconds += 1;
        if value.slow_seconds == SLOW_SECONDS_YIELD && !value.yielded {
            let held = value.gathering.as_ref().map_or(0, Gathering::room);
            self.exchange.admit(self.exchange.uploads(value.shard).yield_to_others(value.counted, held));
            value.counted = held;
            value.yielded = true;
        }
        value.slow_seconds >= SLOW_SECONDS_MAX
    }

    /// Asks for room for a long value, or for more of it, in the next batch.
    fn ask_for_room(&mut self, session: &Session, slot: usize, value: &Receiving, so_far: Option<Gathering>) {
        let origin = Origin { token: session.token, generation: session.generation, slot, fd: session.fd };
        let operation = self.open(value.shard).adopt(&value.operation, &value.bytes);
        let reservation = Reservation { operation, wanted: value.wanted(), room: Room::Wanted(so_far) };
        self.push(value.shard, Task::Reserve(Box::new(reservation)), Some(origin), reply_bytes_max(&operation));
    }

    /// Hands a reply from a batch to its connection.
    pub fn deliver(&mut self, session: &mut Session, task: &Task, slot: usize, reply: &Reply, from: usize, to: usize) {
        let Task::Reserve(reservation) = task else {
            session.pending.fill(slot, reply, from, to);
            return;
        };
        let State::Reserving(mut value) = std::mem::replace(&mut session.state, State::Parsing) else {
            unreachable!("a reply to a reservation comes to the connection that asked for it");
        };
        match reservation.room {
            Room::Wanted(so_far) => {
                self.ask_for_room(session, slot, &value, so_far);
                self.waits_for_room = true;
                session.state = State::Reserving(value);
            }
            Room::Ready(gathering) => {
                session.pending.fill(slot, reply, from, from);
                value.set_room(gathering, &self.items);
                session.state = State::Receiving(value);
            }
            Room::Refused => {
                // The error, unless the client wants none, is the reply.
                session.pending.fill(slot, reply, from, to);
                self.refuse(session, &value);
            }
        }
    }

    /// A reply comes for a connection that has gone: what it holds is let go of.
    pub fn discard(&mut self, shard: usize, task: &Task, reply: &Reply, from: usize, to: usize) {
        if let Task::Reserve(reservation) = task
            && let Some(id) = reservation.room.item()
        {
            self.run_or_defer(shard, Task::Abandon(id));
        }
        for &pinned in reply.pinned.iter().filter(|pinned| pinned.at > from && pinned.at <= to) {
            self.unpin(pinned);
        }
    }

    /// A connection is closed: what it holds is let go of.
    pub fn end(&mut self, mut session: Session) {
        for reply in session.pending.take_all() {
            reply.pinned.into_iter().for_each(|pinned| self.unpin(pinned));
        }
        let ticket = session.ticket(self.worker);
        match session.state {
            State::Receiving(value) => {
                if let Some(id) = value.gathering.as_ref().and_then(Gathering::item) {
                    self.run_or_defer(value.shard, Task::Abandon(id));
                }
                self.discount(&value);
            }
            State::Queued(value) => {
                if let Some(id) = value.gathering.as_ref().and_then(Gathering::item) {
                    self.run_or_defer(value.shard, Task::Abandon(id));
                }
                // If it has been admitted meanwhile, it is taken back when the mail comes.
                if let Some(admitted) = self.exchange.uploads(value.shard).withdraw(ticket) {
                    self.exchange.admit(admitted);
                }
            }
            // The room comes back with the task: see [`Serve::bury`].
            State::Reserving(value) => self.discount(&value),
            State::Parsing | State::Asking | State::Dumping | State::Watching(_) => {}
        }
    }

    /// Takes what the input has of a long value; stores it when it is complete. False when more input is needed, or the
    /// connection waits.
    fn receive(&mut self, session: &mut Session, input: &mut [u8], at: &mut usize, output: &mut Reply) -> bool {
        let terminator_len = session.parser.terminator_len();
        loop {
            let State::Receiving(value) = &mut session.state else { return !session.is_waiting() };
            let missing = value.len() - value.received;
            if missing == 0 {
                break;
            }
            if *at == input.len() {
                return false;
            }
            match value.cursor {
                Some(cursor) if cursor.left() > 0 => {
                    let count = cursor.left().min(input.len() - *at);
                    value.cursor = Some(self.items.fill(cursor, &input[*at..*at + count]));
                    value.received += count;
                    *at += count;
                }
                _ => self.widen(session, output),
            }
        }
        if input.len() - *at < terminator_len {
            return false;
        }
        let State::Receiving(value) = std::mem::replace(&mut session.state, State::Parsing) else {
            unreachable!("it was receiving a moment ago");
        };
        self.discount(&value);
        let Receiving { operation, bytes, shard, gathering, .. } = *value;
        let id = gathering.as_ref().and_then(Gathering::item).expect("there was room for the value");
        let terminated = b"\r\n".starts_with(&input[*at..*at + terminator_len]);
        *at += terminator_len;
        if !terminated {
            session.parser.lose_frame();
            self.run_or_defer(shard, Task::Abandon(id));
            if !operation.quiet || operation.verb == Verb::MetaSet {
                session.pending.sink(output).out.put(b"CLIENT_ERROR bad data chunk\r\n");
            }
            return true;
        }
        let clock = self.clock;
        self.lease(shard);
        match (&mut self.links[shard].lease, &mut self.log) {
            (Some(lease), None) => set::commit(lease, &operation, &bytes, id, clock, session.pending.sink(output)),
            (Some(lease), Some(log)) => {
                let sink = session.pending.sink(output);
                watch::commit(log, session.fd, lease, &operation, &bytes, id, clock, sink);
            }
            (None, _) => {
                let expected = reply_bytes_max(&operation);
                let origin = session.origin(expected);
                let operation = self.open(shard).adopt(&operation, &bytes);
                self.push(shard, Task::Commit(operation, id), Some(origin), expected);
            }
        }
        true
    }
}

/// Bytes that the reply to an operation takes at most, without those of pinned values.
fn reply_bytes_max(operation: &Operation) -> usize {
    let has_value =
        matches!(operation.verb, Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats | Verb::MetaGet | Verb::BinaryGet);
    // A line of the reply repeats the key, perhaps in base64, or the flags of the request, and some numbers.
    let line = 512 + if operation.verb.is_meta() { operation.tokens.len as usize } else { 0 };
    if has_value { PIN_LEN_MIN + line } else { line }
}

impl Room {
    fn of(gathered: Result<Gathered, OutOfMemory>) -> Room {
        match gathered {
            Ok(Gathered::Ready(gathering)) => Room::Ready(gathering),
            Ok(Gathered::Later(so_far)) => Room::Wanted(Some(so_far)),
            Err(OutOfMemory) => Room::Refused,
        }
    }
}

/// Runs a batch on its shard.
fn run(
    shard: &mut Shard,
    batch: &mut Batch,
    exchange: &Exchange,
    clock: &Clock,
    now: Now,
    group_len: usize,
    log: Option<&mut Log<'_>>,
) {
    shard.store.set_now(now);
    match log {
        None => run_tasks::<false>(shard, batch, exchange, clock, group_len, None),
        log => run_tasks::<true>(shard, batch, exchange, clock, group_len, log),
    }
}

/// `WATCHED` exactly if there is a log.
fn run_tasks<const WATCHED: bool>(
    shard: &mut Shard,
    batch: &mut Batch,
    exchange: &Exchange,
    clock: &Clock,
    group_len: usize,
    mut log: Option<&mut Log<'_>>,
) {
    let Batch { tasks, bytes, reply, ends, .. } = batch;
    for group in tasks.chunks_mut(group_len) {
        for (task, _) in &*group {
            if let Task::Execute(operation) = task {
                shard.store.prefetch_bucket(operation.hash);
            }
        }
        let prefetch_item = |shard: &Shard, ahead: Option<&(Task, Option<Origin>)>| {
            if let Some((Task::Execute(operation), _)) = ahead {
                shard.store.prefetch_item(operation.hash);
            }
        };
        group.iter().take(PREFETCH_AHEAD).for_each(|ahead| prefetch_item(shard, Some(ahead)));
        for at in 0..group.len() {
            prefetch_item(shard, group.get(at + PREFETCH_AHEAD));
            let (task, origin) = &mut group[at];
            if WATCHED && let Some(log) = &mut log {
                let fd = origin.map_or(-1, |origin| origin.fd);
                match task {
                    Task::Execute(operation) => watch::execute(log, fd, shard, operation, bytes, clock, reply),
                    Task::Commit(operation, id) => {
                        watch::commit(log, fd, shard, operation, bytes, *id, clock, reply);
                    }
                    Task::Reserve(reservation) => reserve(reservation, reply, |operation, wanted, so_far| {
                        watch::reserve(log, fd, shard, operation, bytes, wanted, so_far)
                    }),
                    task => log.observe(shard, |shard| run_task(shard, task, bytes, exchange, clock, reply)),
                }
            } else {
                run_task(shard, task, bytes, exchange, clock, reply);
            }
            ends.push(reply.out.len());
        }
    }
}

#[inline]
fn run_task(shard: &mut Shard, task: &mut Task, bytes: &[u8], exchange: &Exchange, clock: &Clock, reply: &mut Reply) {
    match task {
        Task::Execute(operation) => command::execute(shard, operation, None, bytes, clock, reply),
        Task::Commit(operation, id) => set::commit(shard, operation, bytes, *id, clock, reply),
        Task::Reserve(reservation) => reserve(reservation, reply, |operation, wanted, so_far| {
            set::reserve(shard, operation, bytes, wanted, so_far)
        }),
        Task::Abandon(id) => shard.store.abandon(*id),
        Task::Unpin(id) => shard.store.unpin(*id),
        Task::Walk(walk) => {
            if let Some(walk) = walk {
                walk.step(shard, clock, reply);
            }
        }
        Task::Broadcast(broadcast) => broadcast.answer(exchange, admin::answer(shard, &broadcast.query, clock)),
    }
}

/// Makes room for a value, or some of it.
fn reserve(
    reservation: &mut Reservation,
    reply: &mut Reply,
    reserve: impl FnOnce(&Operation, usize, Option<Gathering>) -> Result<Gathered, OutOfMemory>,
) {
    let Room::Wanted(so_far) = reservation.room else { unreachable!("what is ready is not asked for") };
    reservation.room = Room::of(reserve(&reservation.operation, reservation.wanted, so_far));
    if matches!(reservation.room, Room::Refused) {
        set::refuse(&reservation.operation, reply);
    }
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "fuzz.rs"]
pub mod fuzz;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
