//! Input bytes become operations, routed to their shards in groups, and replies. No I/O in here, so it can be simulated.
//!
//! A group is parsed first: every key is hashed, and its index bucket prefetched. Then the group is executed, and the items
//! that the buckets name are prefetched some operations ahead: memory latency is not paid once per key. Operations on a
//! shard that somebody else has leased go into a batch for it (see `mailbox/mod.rs`).

use super::batch::{Batch, Task, reply_bytes_max};
use super::execute::PREFETCH_AHEAD;
use super::limits::ServeLimits;
use super::mailbox::Exchange;
use super::session::{Session, State};
use super::shards::ShardLink;
use super::trace;
use crate::clock::{Clock, Now};
use crate::command::{self, Reply, observed};
use crate::hash::KeyHasher;
use crate::protocol::parser::{Parse, Parser};
use crate::protocol::{Operation, Span, Step, Verb};
use crate::protocol::{binary, login};
use crate::store::arena::ItemId;
use crate::store::item::Items;
use crate::watch::{Categories, Log, Watchers};

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

/// Serves the connections of one worker.
#[derive(Debug)]
#[allow(clippy::vec_box, reason = "batches travel by pointer")]
pub struct Serve<'a> {
    pub(super) worker: usize,
    pub(super) exchange: &'a Exchange,
    pub(super) clock: &'a Clock,
    pub(super) hasher: KeyHasher,
    pub(super) limits: ServeLimits,
    pub(super) items: Items,
    pub(super) now: Now,
    pub(super) links: Vec<ShardLink<'a>>,
    /// Shards that are leased for the connection at hand.
    pub(super) leased: Vec<usize>,
    pub(super) group: Vec<Operation>,
    /// The items that the operations of the group probably find.
    pub(super) hints: Vec<Option<ItemId>>,
    /// Batches of this worker that are done.
    pub(super) done: Vec<Box<Batch>>,
    pub(super) spare: Vec<Box<Batch>>,
    /// Room for a long value is to be asked for once more: there is something to do in the next turn.
    pub(super) waits_for_room: bool,
    /// What there is to tell to those who watch; none while nobody does.
    pub(super) log: Option<Box<Log<'a>>>,
    /// `-vv`: requests are printed.
    pub(super) traces: bool,
    /// A batch has become as large as it may be.
    pub(super) has_full: bool,
    /// Times that connections let others go first, since somebody last asked.
    pub(super) yields: usize,
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
                        observed::execute(log, session.fd, lease, operation, input, self.clock, sink);
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
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod tests;
