//! Serving: input bytes become operations, groups of operations go to their shards, and replies come back. Nothing here does
//! I/O, so a test can simulate it.
//!
//! The worker parses a group first: it hashes every key, and prefetches the bucket of the index. Then it executes the group,
//! and prefetches the items that the buckets name some operations ahead. So a group waits for memory about once, not once per
//! key. Operations on a shard that another worker has leased go into a batch for it (see `shards.rs`).
//!
//! The keys of plain `get`s, which are most of what a cache is asked, take a short way through the same loops: a [`Slot`]
//! says all about them, and no [`Operation`] is filled in.

use super::batch::{Task, reply_bytes_max};
use super::execute::PREFETCH_AHEAD;
use super::guard::Guarded;
use super::sampler::{Sampler, item_in, kind_of};
use super::session::{Session, State};
use super::shards::Shards;
use super::trace;
use crate::clock::Now;
use crate::command::copied::only_reads;
use crate::command::observed::Observer;
use crate::command::{self, Reply, Request, Shard};
use crate::hash::KeyHasher;
use crate::measure::latency::Kind as Measured;
use crate::protocol::packet::HEADER_LEN;
use crate::protocol::parser::Parser;
use crate::protocol::{Operation, Parse, PlainKey, Span, Step, Verb};
use crate::protocol::{binary, login};
use crate::store::arena::ItemId;
use std::ops::ControlFlow::{Break, Continue};
use std::ops::Range;

/// The input of a connection, and how much of it was served.
#[derive(Debug)]
pub struct Input<'i> {
    /// The bytes that have come.
    pub bytes: &'i mut [u8],
    /// The place of the first byte that was not served.
    pub at: usize,
}

/// Whether a worker has other connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// No other connection waits for the end of this turn.
    Alone,
    /// Other connections may wait: this one lets them go first after its share of commands.
    Shared,
}

/// Why serving a connection came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The parser needs more input.
    Drained,
    /// Replies of other shards must come first.
    Waiting,
    /// The replies so far must be sent first.
    Full,
    /// The connection has had its share of this turn.
    Yield,
    /// This line or packet is a command that concerns the connection or the whole cache. All commands before it have been
    /// answered.
    Admin(Span),
    /// The connection must be closed once its replies are sent.
    Close,
}

/// Serves the connections of one worker.
#[derive(Debug)]
pub struct Serve<'a> {
    /// The links of the worker to the shards.
    pub shards: Shards<'a>,
    hasher: KeyHasher,
    /// The group.
    slots: Vec<Slot>,
    /// The operations of those slots that a key does not describe.
    group: Vec<Operation>,
    /// `-vv`: requests are printed.
    traces: bool,
    /// `-o flush_prefix_key`: deleting a key that begins so flushes a prefix. Empty: no key does.
    flush_key: Vec<u8>,
    /// Looks closer at some operations.
    pub(super) sampler: Sampler<'a>,
    /// How often connections have let others go first since the last [`Serve::take_yields`].
    yields: usize,
}

/// What the loops need of one operation of a group.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u64,
    key: Span,
    /// The item that the operation probably finds.
    hint: Option<ItemId>,
    kind: Kind,
}

/// What a slot stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// A key of a plain `get`.
    Key,
    /// The last key of a plain `get`, and the end of the command.
    LastKey,
    /// An operation on a key.
    Keyed,
    /// An operation on no key.
    #[default]
    Keyless,
}

/// What the parser has made of the input.
struct Group {
    /// The number of operations that are to be executed. If the group ends with a long value, its command comes after them.
    operations: usize,
    /// The number of commands that the operations belong to.
    commands: usize,
    end: End,
}

/// How a group came to its end.
enum End {
    Full,
    Incomplete,
    /// The line or the packet of a command that concerns the connection or the whole cache.
    Admin(Span),
    /// A command whose value is too long for the buffer.
    Data,
    Close,
}

/// Whether an operation that deletes a key flushes a prefix instead. Keys in base64 do not.
fn flushes_prefix(flush_key: &[u8], operation: &Operation, input: &[u8]) -> bool {
    !flush_key.is_empty() && operation.key.of(input).starts_with(flush_key) && !operation.has(b'b')
}

/// The line or the packet of an operation that deletes a key. It is in a range of the input, perhaps behind the rest of a
/// value that was thrown away.
fn command_of(operation: &Operation, input: &[u8], range: Range<usize>) -> Span {
    let key = operation.key.start as usize;
    if operation.verb == Verb::BinaryDelete {
        return Span::new(key - HEADER_LEN, range.end);
    }
    let start = memchr::memrchr(b'\n', &input[range.start..key]).map_or(range.start, |at| range.start + at + 1);
    Span::new(start, start + input[start..range.end].trim_ascii_end().len())
}

impl<'a> Serve<'a> {
    /// Serving for the worker of these links.
    pub fn new(shards: Shards<'a>, hasher: KeyHasher) -> Serve<'a> {
        let group_len = shards.limits.group_len;
        Serve {
            shards,
            hasher,
            slots: vec![Slot::default(); group_len],
            group: vec![Operation::default(); group_len],
            traces: false,
            flush_key: Vec::new(),
            sampler: Sampler::default(),
            yields: 0,
        }
    }

    /// A turn begins at this time.
    pub fn begin(&mut self, now: Now) {
        self.traces = trace::is_on();
        self.shards.begin(now);
    }

    /// Serves a connection from its input. The replies go to `output`.
    pub fn serve(&mut self, session: &mut Session, input: &mut Input<'_>, output: &mut Reply, turn: Turn) -> Served {
        let served = self.serve_groups(session, input, output, turn);
        if served == Served::Drained || input.at == input.bytes.len() {
            // Everything that the client sent at once is served.
            session.requests = 0;
        }
        self.shards.give_back();
        served
    }

    /// From now on, deleting a key that begins so flushes a prefix.
    pub fn set_flush_key(&mut self, key: &[u8]) {
        self.flush_key = key.to_vec();
    }

    /// How often connections have let others go first since the last call.
    pub fn take_yields(&mut self) -> usize {
        std::mem::take(&mut self.yields)
    }

    /// Counts commands of a connection. As in memcached, a connection lets others go first before the first command beyond
    /// `-R`, and each such time counts, even if there are no others and the connection goes on at once.
    #[inline]
    fn count_requests(&mut self, session: &mut Session, commands: usize) {
        session.requests += commands;
        let most = self.shards.limits.requests_per_turn;
        if session.requests > most {
            let yields = (session.requests - 1) / most;
            session.requests -= yields * most;
            self.yields += yields;
        }
    }

    /// Whether a connection lets others go first. Each key of a long list counts here; in memcached it does not.
    #[inline]
    fn has_had_its_share(&self, session: &Session, operations: usize) -> bool {
        let most = self.shards.limits.requests_per_turn;
        session.requests == most || operations >= most
    }

    /// The most commands that the next group may have.
    #[inline]
    fn commands_max(&self, session: &Session, turn: Turn) -> usize {
        match self.shards.limits.requests_per_turn {
            _ if turn == Turn::Alone || !self.shards.limits.cut_groups => usize::MAX,
            most if session.requests == most => most,
            most => most - session.requests,
        }
    }

    fn serve_groups(&mut self, session: &mut Session, input: &mut Input<'_>, output: &mut Reply, turn: Turn) -> Served {
        let Input { bytes, at } = input;
        let input: &mut [u8] = bytes;
        let mut operations = 0;
        loop {
            match session.state {
                State::Parsing => {}
                State::Receiving(_) => {
                    if !self.shards.receive(session, input, at, output) {
                        return if session.is_waiting() { Served::Waiting } else { Served::Drained };
                    }
                    continue;
                }
                _ => return Served::Waiting,
            }
            if self.shards.has_full && !self.shards.post_full() {
                return Served::Waiting;
            }
            let commands_max = self.commands_max(session, turn);
            let group = match &mut session.parser {
                Parser::Text(parser) if session.guard.is_none() => self.parse_group(parser, input, at, commands_max),
                Parser::Binary(parser) if session.guard.is_none() => {
                    self.parse_packets(parser, input, at, commands_max)
                }
                Parser::Text(_) | Parser::Binary(_) => self.parse_guarded(session, input, at, commands_max),
                Parser::Login(parser) => self.parse_login(parser, input, at, commands_max),
                Parser::Undecided => {
                    let Some(&first) = input.get(*at) else { return Served::Drained };
                    decide_protocol(session, first);
                    continue;
                }
            };
            let count = group.operations;
            if self.traces && !matches!(session.parser, Parser::Login(_)) {
                let with_value = count + usize::from(matches!(group.end, End::Data));
                trace::group(session, &self.group[..with_value], input);
            }
            self.execute_and_sample(session, count, input, output);
            operations += count;
            self.count_requests(session, group.commands);
            match group.end {
                End::Full if output.len() + session.pending.len() > self.shards.limits.output_max => {
                    return if session.pending.is_waiting() { Served::Waiting } else { Served::Full };
                }
                End::Full if turn == Turn::Shared && self.has_had_its_share(session, operations) => {
                    return Served::Yield;
                }
                End::Full => {}
                End::Incomplete if session.pending.is_waiting() => return Served::Waiting,
                End::Incomplete => return Served::Drained,
                End::Admin(line) if session.pending.is_waiting() => {
                    // The command waits for the replies before it, and is parsed again then. A value in front of it that was
                    // thrown away is not.
                    *at = line.start as usize;
                    return Served::Waiting;
                }
                End::Admin(line) => {
                    self.count_requests(session, 1);
                    return Served::Admin(line);
                }
                End::Data => {
                    self.count_requests(session, 1);
                    self.sample_long_value(count, input);
                    self.shards.begin_value(session, &self.group[count], input);
                }
                End::Close => return Served::Close,
            }
        }
    }

    /// Parses a group of operations, of no more than `commands_max` commands.
    #[inline]
    fn parse_group(&mut self, parser: &mut impl Parse, input: &mut [u8], at: &mut usize, commands_max: usize) -> Group {
        let mut commands = 0;
        let group_len = self.shards.limits.group_len;
        // Who watches or traces sees operations.
        let takes_keys = !self.traces && self.shards.log.is_none();
        let mut count = 0;
        while count < group_len {
            if takes_keys {
                let Serve { slots, shards, hasher, .. } = self;
                parser.plain_keys(input, at, |PlainKey { key, is_last }| {
                    let hash = hasher.hash(key.of(input));
                    let kind = if is_last { Kind::LastKey } else { Kind::Key };
                    slots[count] = Slot { hash, key, hint: None, kind };
                    shards.prefetch_bucket(hash, || true);
                    count += 1;
                    commands += usize::from(is_last);
                    if count == group_len || commands == commands_max { Break(()) } else { Continue(()) }
                });
                if count == group_len || commands == commands_max {
                    return Group { operations: count, commands, end: End::Full };
                }
            }
            let start = *at;
            let operation = &mut self.group[count];
            let is_keyed = match parser.next(input, at, &self.shards.limits.parse, operation) {
                Step::Key => true,
                Step::Operation => match operation.verb {
                    Verb::Admin => return Group { operations: count, commands, end: End::Admin(operation.tokens) },
                    Verb::Say => {
                        commands += 1;
                        operation.tokens = Span::new(start, *at);
                        false
                    }
                    Verb::Delete | Verb::MetaDelete | Verb::BinaryDelete
                        if flushes_prefix(&self.flush_key, operation, input) =>
                    {
                        let line = command_of(operation, input, start..*at);
                        return Group { operations: count, commands, end: End::Admin(line) };
                    }
                    verb => {
                        commands += 1;
                        verb.is_keyed()
                    }
                },
                Step::Data => {
                    operation.hash = self.hasher.hash(operation.key.of(input));
                    return Group { operations: count, commands, end: End::Data };
                }
                Step::Incomplete => return Group { operations: count, commands, end: End::Incomplete },
                Step::Close => return Group { operations: count, commands, end: End::Close },
            };
            if is_keyed {
                let key = operation.key;
                let hash = self.hasher.hash(key.of(input));
                operation.hash = hash;
                self.slots[count] = Slot { hash, key, hint: None, kind: Kind::Keyed };
                self.shards.prefetch_bucket(hash, || only_reads(operation));
            } else {
                self.slots[count].kind = Kind::Keyless;
            }
            count += 1;
            if commands == commands_max {
                return Group { operations: count, commands, end: End::Full };
            }
        }
        Group { operations: group_len, commands, end: End::Full }
    }

    /// [`Serve::parse_group`] of the binary protocol, out of line: the code of the text protocol stays short.
    #[inline(never)]
    fn parse_packets(
        &mut self,
        parser: &mut binary::Parser,
        input: &mut [u8],
        at: &mut usize,
        commands_max: usize,
    ) -> Group {
        self.parse_group(parser, input, at, commands_max)
    }

    /// [`Serve::parse_group`] of a user that may not do everything, out of line.
    #[inline(never)]
    fn parse_guarded(&mut self, session: &mut Session, input: &mut [u8], at: &mut usize, commands_max: usize) -> Group {
        let Some(guard) = &mut session.guard else { unreachable!("a client with a guard") };
        match &mut session.parser {
            Parser::Text(parser) => self.parse_group(&mut Guarded { parser, guard }, input, at, commands_max),
            Parser::Binary(parser) => self.parse_group(&mut Guarded { parser, guard }, input, at, commands_max),
            Parser::Undecided | Parser::Login(_) => unreachable!("such a client has no guard"),
        }
    }

    /// [`Serve::parse_group`] of a client that has still to log in, out of line.
    #[inline(never)]
    fn parse_login(
        &mut self,
        parser: &mut login::Parser,
        input: &mut [u8],
        at: &mut usize,
        commands_max: usize,
    ) -> Group {
        self.parse_group(parser, input, at, commands_max)
    }

    #[inline(always)]
    fn execute_and_sample(&mut self, session: &mut Session, count: usize, input: &[u8], output: &mut Reply) {
        if self.shards.log.is_none() {
            self.execute_group::<false>(session, count, input, output);
        } else {
            self.execute_watched_group(session, count, input, output);
        }
        if self.sampler.countdown.passes(count) {
            self.take_samples(count, input);
        }
    }

    /// [`Serve::execute_group`] while somebody watches, out of line.
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
        for &shard in &self.shards.leased {
            if let Some(lease) = &mut self.shards.links[shard].lease {
                lease.store.begin_group();
            }
        }
        for at in 0..count.min(PREFETCH_AHEAD) {
            self.prefetch_item(at);
        }
        let (mut gets, mut misses) = (0, 0);
        for at in 0..count {
            if at + PREFETCH_AHEAD < count {
                self.prefetch_item(at + PREFETCH_AHEAD);
            }
            let Slot { hash, key, hint, kind } = self.slots[at];
            let shard = match kind {
                Kind::Keyless => {
                    let operation = &self.group[at];
                    command::speak(operation, session.pending.sink(output));
                    self.shards.tally.add(Measured::Other, u32::from(operation.verb != Verb::End));
                    continue;
                }
                _ => self.shards.shard_of(hash),
            };
            if let Kind::Key | Kind::LastKey = kind {
                let sink = match &mut self.shards.links[shard].lease {
                    Some(lease) => {
                        let sink = session.pending.sink(output);
                        gets += 1;
                        if !command::get(lease, key.of(input), hash, hint, sink) {
                            misses += 1;
                            self.sampler.miss(hash, self.shards.now);
                        }
                        sink
                    }
                    None => {
                        self.get_without_lease(session, at, input, output);
                        session.pending.sink(output)
                    }
                };
                if kind == Kind::LastKey {
                    command::end(sink);
                }
                continue;
            }
            self.execute_keyed::<WATCHED>(session, at, input, output);
        }
        self.shards.tally.add(Measured::GetHit, gets - misses);
        self.shards.tally.add(Measured::GetMiss, misses);
    }

    /// Answers a key of a plain `get` whose shard the worker has not leased, without the end of the command.
    #[cold]
    #[inline(never)]
    fn get_without_lease(&mut self, session: &mut Session, at: usize, input: &[u8], output: &mut Reply) {
        let Slot { hash, key, .. } = self.slots[at];
        let operation = Operation { verb: Verb::Get, key, hash, ..Operation::default() };
        if self.answer_by_copy(session, &operation, input, output) {
            return;
        }
        let shard = self.shards.shard_of(hash);
        match &mut self.shards.links[shard].lease {
            Some(lease) => {
                let hits = command::get(lease, key.of(input), hash, None, session.pending.sink(output));
                self.shards.tally.add(if hits { Measured::GetHit } else { Measured::GetMiss }, 1);
                if !hits {
                    self.sampler.miss(hash, self.shards.now);
                }
            }
            None => self.defer(session, shard, &operation, input),
        }
    }

    /// Executes an operation of the group whose shard the worker has not leased.
    #[cold]
    #[inline(never)]
    fn execute_without_lease<const WATCHED: bool>(
        &mut self,
        session: &mut Session,
        at: usize,
        input: &[u8],
        output: &mut Reply,
    ) {
        let operation = self.group[at];
        if only_reads(&operation) && self.answer_by_copy(session, &operation, input, output) {
            return;
        }
        let shard = self.shards.shard_of(operation.hash);
        if self.shards.links[shard].lease.is_some() {
            self.execute_keyed::<WATCHED>(session, at, input, output);
        } else {
            self.defer(session, shard, &operation, input);
        }
    }

    /// Answers an operation that only reads by the copy of a hot item. Where the copy does not hold any more, this asks for
    /// the lease, and makes a new one. False: the shard executes the operation.
    fn answer_by_copy(
        &mut self,
        session: &mut Session,
        operation: &Operation,
        input: &[u8],
        output: &mut Reply,
    ) -> bool {
        let Some(number) = self.shards.hot_key(operation.hash, || true) else { return false };
        let (clock, now) = (self.shards.clock, self.shards.now);
        let Some(copied) = self.shards.copy_of(number, operation.hash, operation.key.of(input)) else { return false };
        copied.answer(&Request::new(operation, input, clock), now, session.pending.sink(output));
        self.shards.tally.add(Measured::GetHit, 1);
        true
    }

    /// Executes an operation of the group that is not a key of a plain `get`.
    #[inline(always)]
    fn execute_keyed<const WATCHED: bool>(
        &mut self,
        session: &mut Session,
        at: usize,
        input: &[u8],
        output: &mut Reply,
    ) {
        let Slot { hash, hint, .. } = self.slots[at];
        let (shard, clock) = (self.shards.shard_of(hash), self.shards.clock);
        let operation = &self.group[at];
        let Some(lease) = &mut self.shards.links[shard].lease else {
            return self.execute_without_lease::<WATCHED>(session, at, input, output);
        };
        let mut request = Request::new(operation, input, clock);
        let sink = session.pending.sink(output);
        let missed = missed_gets(lease);
        if WATCHED && let Some(log) = &mut self.shards.log {
            Observer { log, fd: session.fd }.execute(lease, &request, sink);
        } else {
            request.hint = hint;
            command::execute(lease, &request, sink);
        }
        let mut kind = kind_of(operation.verb);
        if kind == Measured::GetHit && missed_gets(lease) > missed {
            kind = Measured::GetMiss;
            self.sampler.miss(hash, self.shards.now);
        }
        self.shards.tally.add(kind, 1);
    }

    /// Samples operations of a group that was executed, as it has left their items.
    #[cold]
    #[inline(never)]
    fn take_samples(&mut self, count: usize, input: &[u8]) {
        let Serve { sampler, shards, slots, group, .. } = self;
        let mut at = 0;
        while let Some(place) = sampler.countdown.next_of(at, count) {
            at = place + 1;
            let Slot { hash, key, kind, .. } = slots[place];
            let verb = match kind {
                Kind::Keyless => continue,
                Kind::Key | Kind::LastKey => Verb::Get,
                Kind::Keyed => group[place].verb,
            };
            let shard = shards.shard_of(hash);
            let left = match &shards.links[shard].lease {
                Some(lease) => Some(item_in(&lease.store, hash, key.of(input))),
                None => shards.copies.item(hash, shards.now).map(Some),
            };
            sampler.take(verb, key.of(input), hash, left);
            if kind != Kind::Keyed || only_reads(&group[place]) {
                shards.copies.consider(hash, shard, shards.links[shard].refusals);
            }
        }
    }

    /// Samples the storage command at a place of the group, perhaps: its value is long, and still to come.
    fn sample_long_value(&mut self, at: usize, input: &[u8]) {
        let Serve { sampler, shards, group, .. } = self;
        if sampler.countdown.passes(1) && sampler.countdown.next_of(0, 1).is_some() {
            let operation = &group[at];
            let deadline = match shards.links[shards.shard_of(operation.hash)].lease.as_deref() {
                Some(shard) => Request::new(operation, input, shards.clock).deadline(operation.exptime, shard),
                // Another worker has the shard, and its rules.
                None => shards.clock.deadline(operation.exptime, shards.now),
            };
            sampler.take_value(operation, input, deadline, shards.now);
            sampler.countdown.next_of(1, 1);
        }
    }

    /// Adds an operation to the batch for its shard, which another worker has leased. Its reply comes later.
    fn defer(&mut self, session: &mut Session, shard: usize, operation: &Operation, input: &[u8]) {
        let expected = reply_bytes_max(operation);
        let origin = session.origin(expected);
        let operation = self.shards.open(shard).adopt(operation, input);
        self.shards.push(shard, Task::Execute(operation), Some(origin), expected);
    }

    /// Prefetches the item of an operation of the group, and notes which item that probably is.
    #[inline(always)]
    fn prefetch_item(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if slot.kind != Kind::Keyless
            && let Some(lease) = &self.shards.links[self.shards.shard_of(slot.hash)].lease
        {
            slot.hint = lease.store.prefetch_item(slot.hash);
        }
    }
}

/// The number of fetches of a shard that have missed, with those that touch.
#[inline]
fn missed_gets(shard: &Shard) -> u64 {
    shard.store.counters.get_misses + shard.store.counters.touch_misses
}

/// The first byte of a connection decides which protocol it speaks.
#[cold]
fn decide_protocol(session: &mut Session, first: u8) {
    session.parser = Parser::decided_by(first, session.access);
    let name = if matches!(session.parser, Parser::Binary(_)) { "binary" } else { "ascii" };
    log::debug!("{}: Client using the {name} protocol", session.fd);
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod tests;
