//! A server of two workers and two shards must reply to any input like a server with a single worker. The pieces of the
//! input must not matter, nor which worker leases a shard, when batches come back, and which long values wait.
//!
//! The input of a run has a few bytes of settings. Then come the bytes of one client, or of two that have no key in common. A
//! byte 0xff and a count stand for `count` times 128 bytes, so that values may be long.

use super::super::execute::Executor;
use super::super::limits::ServeLimits;
use super::super::mailbox::{Exchange, Lease, Mail};
use super::super::uploads::Limit;
use super::*;
use crate::clock::Clock;
use crate::command::Shard;
use crate::fuzz::Bytes;
use crate::protocol::text::LINE_LENGTH_MAX;
use crate::protocol::{self, Limits, packet};
use crate::store::arena::{Arena, PAGE_SIZE_MAX};
use crate::store::budget::Budget;
use crate::store::item::Items;
use crate::store::slab::{CHUNK_MAX, SlabOptions};
use crate::store::{Store, StoreOptions};
use std::sync::Arc;

/// The pages of all shards. No input fills them.
const PAGES: u32 = 256;
/// The maximum length of an expanded input.
const INPUT_MAX: usize = 200_000;
/// After this many turns the target fails, because something waits for ever.
const TURNS_MAX: usize = 100_000;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// The settings that an input chooses.
struct Settings {
    limits: ServeLimits,
    options: StoreOptions,
    parser: Parser,
    /// Two values of this length may be under way at a time.
    upload_max: u64,
    /// The number of shards of the server with one worker. With CAS values both servers have the same number, so that
    /// they give out the same CAS values.
    shards: usize,
    /// The bytes that each client sends, and the seconds by which the clock then advances.
    stages: Vec<([Vec<u8>; 2], u32)>,
    /// The second client closes its connection at some time.
    leaves: bool,
    seed: u64,
}

/// Runs one input. Panics on a fault.
pub fn run(input: &[u8]) {
    let mut input = Bytes(input);
    let Some(settings) = Settings::read(&mut input) else { return };
    let clock = Clock::start();
    clock.pause();
    let replies = Server::new(&settings, 1, settings.shards, &clock).replies(&settings, false);
    let others = Server::new(&settings, 2, 2, &clock).replies(&settings, true);
    for (client, (one, other)) in replies.iter().zip(&others).enumerate() {
        if one == other || client == 1 && settings.leaves {
            continue;
        }
        let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
        let shown = |bytes: &[u8]| {
            let part = &bytes[same.saturating_sub(20)..bytes.len().min(same + 60)];
            part.escape_ascii().to_string()
        };
        panic!("client {client} at {same}: one worker says {}, two say {}", shown(one), shown(other));
    }
}

impl Settings {
    fn read(input: &mut Bytes<'_>) -> Option<Settings> {
        let switches = input.byte();
        let on = |bit: u8| switches & 1 << bit != 0;
        let seed = u64::from(input.short());
        let limits = ServeLimits {
            parse: Limits {
                item_size_max: input.one_of(&[1 << 20, 2000]),
                cas: on(0),
                inline_max: input.one_of(&[2048, 8, 64]),
            },
            group_len: input.one_of(&[8, 1, 3, 32]),
            output_max: input.one_of(&[1 << 20, 1, 5000, 20_000]),
            requests_per_turn: input.one_of(&[20, 1, 1000]),
            cut_groups: on(5),
            batch_bytes_max: input.one_of(&[100_000, 1, 20_000]),
            keep_keys: false,
        };
        let slabs = SlabOptions { chunk_max: input.one_of(&[CHUNK_MAX, 512, 2048]), ..SlabOptions::default() };
        let options = StoreOptions { cas: on(0), slabs, hash_power: 4, ..StoreOptions::default() };
        let upload_max = [1 << 20, 0, 1000, 20_000][usize::from(switches >> 6)];
        let parser = if on(1) { Parser::Binary(binary::Parser::default()) } else { Parser::Undecided };
        let share = usize::from(input.byte());
        let bytes = expand(input.0);
        // CAS values depend on the order of operations in a shard. It is the same in both servers only with a single client.
        let first = if on(0) || on(2) { bytes.len() } else { bytes.len() * share / 255 };
        let (one, other) = bytes.split_at(first);
        let keys = |bytes: &[u8]| protocol::fuzz::keys(parser, limits.parse, bytes);
        let other = if keys(one).is_disjoint(&keys(other)) { other } else { &[] };
        // The result of parsing an endless line depends on how much of it has arrived.
        let endless = |bytes: &[u8]| {
            !matches!(parser, Parser::Binary(_))
                && bytes.first() != Some(&packet::REQUEST)
                && bytes.split(|&byte| byte == b'\n').any(|line| line.len() > LINE_LENGTH_MAX)
        };
        if endless(one) || endless(other) {
            return None;
        }
        let count = if on(3) { 3 } else { 1 };
        let piece =
            |bytes: &[u8], stage: usize| bytes[bytes.len() * stage / count..bytes.len() * (stage + 1) / count].to_vec();
        let stage = |stage| ([piece(one, stage), piece(other, stage)], [1, 70, 5][stage % 3]);
        Some(Settings {
            limits,
            options,
            parser,
            upload_max,
            shards: if on(0) { 2 } else { 1 },
            stages: (0..count).map(stage).collect(),
            leaves: on(4),
            seed,
        })
    }
}

fn expand(input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut input = Bytes(input);
    while !input.is_empty() && bytes.len() < INPUT_MAX {
        match input.byte() {
            0xff => {
                let line = (bytes.len() as u8 % 26 + b'a', usize::from(input.byte()) * 2);
                (0..line.1).for_each(|number| {
                    bytes.extend_from_slice(&[line.0; 60]);
                    bytes.extend(format!("{:03}\n", number % 1000).bytes());
                });
            }
            byte => bytes.push(byte),
        }
    }
    bytes
}

struct Server<'a> {
    exchange: Exchange,
    items: Items,
    hasher: KeyHasher,
    clock: &'a Clock,
    limits: ServeLimits,
    now: Now,
    random: Random,
}

/// A client and its connection.
struct Line {
    session: Option<Session>,
    input: Vec<u8>,
    /// The input that the worker has, and has not served yet.
    buffer: Vec<u8>,
    received: Vec<u8>,
    /// The worker can do nothing more without further input.
    is_idle: bool,
    is_closing: bool,
}

impl<'a> Server<'a> {
    fn new(settings: &Settings, workers: usize, shards: usize, clock: &'a Clock) -> Server<'a> {
        let arena = Arc::new(Arena::reserve(PAGES, PAGE_SIZE_MAX).expect("address space"));
        let budget = Arc::new(Budget::new(PAGES, shards, &arena));
        let items = Items::new(arena, settings.options.cas);
        let hasher = KeyHasher::seeded(11);
        let shard = |number| {
            let (options, budget) = (settings.options.clone(), Arc::clone(&budget));
            let store = Store::new(number, options, items.clone(), budget, hasher.clone()).expect("address space");
            Shard::new(number as u16, store, settings.limits.parse)
        };
        let stores = (0..shards).map(shard).collect();
        let exchange = Exchange::new(
            stores,
            workers,
            Limit::Share { budget: Arc::clone(&budget), percent: 0, item_size_max: settings.upload_max },
        );
        let random = Random(settings.seed);
        Server { exchange, items, hasher, clock, limits: settings.limits, now: clock.now(), random }
    }

    /// The replies to both clients. With `disturbed`, others lease shards now and then, and the input comes in pieces.
    fn replies(&mut self, settings: &Settings, disturbed: bool) -> [Vec<u8>; 2] {
        let Server { exchange, items, hasher, clock, limits, now, random } = self;
        let workers = exchange.workers();
        let links = |worker| Shards::new(worker, exchange, clock, items.clone(), *limits);
        let mut serves: Vec<Serve<'_>> = (0..workers).map(|worker| Serve::new(links(worker), hasher.clone())).collect();
        let mut lines = [0, 1].map(|client| Line::new(client, settings.parser));
        let alone = settings.stages.iter().all(|(pieces, _)| pieces[1].is_empty());
        let mut outsiders: Vec<Lease<'_>> = Vec::new();
        let give_back = |lease: Lease<'_>, now: Now| {
            exchange.give_back(lease, |shard, batch| {
                Executor { exchange, clock, now, group_len: 8 }.run(shard, batch, None);
            });
        };
        for (pieces, seconds) in &settings.stages {
            for (line, piece) in lines.iter_mut().zip(pieces) {
                line.input.extend_from_slice(piece);
                line.is_idle = false;
            }
            let mut turns = 0;
            while !lines.iter().all(Line::is_done) {
                turns += 1;
                let sessions = lines.each_ref().map(|line| &line.session);
                assert!(turns < TURNS_MAX, "it does not come to an end: {sessions:?}");
                if disturbed && random.below(3) == 0 {
                    outsiders.extend(exchange.try_lease(random.below(exchange.shards())));
                } else if !outsiders.is_empty() && random.below(2) == 0 {
                    give_back(outsiders.swap_remove(random.below(outsiders.len())), *now);
                }
                let worker = random.below(workers);
                let serve = &mut serves[worker];
                let second_passes = random.below(8) == 0;
                begin_turn(serve, exchange, &mut lines, *now);
                for client in (worker..lines.len()).step_by(workers) {
                    let line = &mut lines[client];
                    if client == 1 && settings.leaves && random.below(20) == 0 {
                        line.leave(serve);
                    }
                    // A stalled value yields to others before the worker would close its connection.
                    if second_passes && let Some(session) = &mut line.session {
                        assert!(!serve.shards.is_too_slow(session), "it keeps others waiting");
                    }
                    let piece = [4, 300, 20_000][random.below(3)];
                    let count = if disturbed { random.below(piece) } else { usize::MAX };
                    let Some(command) = line.serve(serve, items, count) else { continue };
                    let flushes = command.starts_with(b"flush_all")
                        || matches!(command[..], [packet::REQUEST, packet::opcode::FLUSH, ..]);
                    if flushes && alone {
                        outsiders.drain(..).for_each(|lease| give_back(lease, *now));
                        begin_turn(serve, exchange, &mut lines, *now);
                        flush_all(serve, exchange, *now);
                    }
                    let line = &mut lines[client];
                    line.is_closing = command.starts_with(b"quit");
                    line.received.extend([b"ADMIN ", &command[..], b"\r\n"].concat());
                }
                end_turn(serve, items, &mut lines);
                if disturbed && random.below(4) == 0 {
                    serve.shards.housekeep(100, true);
                }
            }
            outsiders.drain(..).for_each(|lease| give_back(lease, *now));
            now.0 += seconds;
        }
        let received = lines.each_ref().map(|line| line.received.clone());
        check_end(exchange, items, serves, &mut lines, *now);
        received
    }
}

/// Closes all connections, and checks that they leave nothing behind.
fn check_end(exchange: &Exchange, items: &Items, mut serves: Vec<Serve<'_>>, lines: &mut [Line], now: Now) {
    let workers = serves.len();
    for (client, line) in lines.iter_mut().enumerate() {
        line.leave(&mut serves[client % workers]);
    }
    for _ in 0..8 {
        for serve in &mut serves {
            begin_turn(serve, exchange, lines, now);
            end_turn(serve, items, lines);
        }
    }
    assert_eq!((exchange.upload_use().bytes, exchange.upload_use().waiting), (0, 0), "a value is under way");
    drop(serves);
    for shard in 0..exchange.shards() {
        let mut lease = exchange.try_lease(shard).expect("all leases were given back");
        lease.store.validate_at_rest();
    }
}

/// Flushes all shards. No worker may hold a lease.
fn flush_all(serve: &mut Serve<'_>, exchange: &Exchange, now: Now) {
    for shard in 0..exchange.shards() {
        serve.shards.lease(shard).expect("nobody else has it").store.flush_at(now);
    }
    serve.shards.give_back();
}

fn begin_turn(serve: &mut Serve<'_>, exchange: &Exchange, lines: &mut [Line], now: Now) {
    serve.begin(now);
    while let Some(mail) = exchange.next_mail(serve.shards.worker) {
        match mail {
            Mail::Batch(batch) => {
                assert!(batch.reply.out.len() <= batch.bytes_max(), "replies are longer than was said");
                serve.shards.returned(batch);
            }
            Mail::Admitted(admission) => {
                let line = &mut lines[admission.ticket.token];
                if serve.shards.admitted(line.session.as_mut(), &admission) {
                    line.is_idle = false;
                }
            }
            other => panic!("unexpected mail {other:?}"),
        }
    }
}

/// Posts batches, and delivers the replies of batches that have come back.
fn end_turn(serve: &mut Serve<'_>, items: &Items, lines: &mut [Line]) {
    serve.shards.flush();
    while let Some(mut batch) = serve.shards.next_done() {
        let shard = batch.shard;
        assert_eq!(batch.tasks.len(), batch.ends.len());
        for (task, origin, reply) in batch.replies() {
            if let Some(origin) = origin {
                let line = &mut lines[origin.token];
                match &mut line.session {
                    Some(session) => {
                        serve.shards.deliver(session, task, origin.slot, reply);
                        line.is_idle = false;
                        line.take_replies(serve, items);
                    }
                    None => serve.shards.discard(shard, task, reply),
                }
            }
        }
        serve.shards.recycle(batch);
    }
}

impl Line {
    fn new(client: usize, parser: Parser) -> Line {
        Line {
            session: Some(Session::new(client, 0, parser)),
            input: Vec::new(),
            buffer: Vec::new(),
            received: Vec::new(),
            is_idle: false,
            is_closing: false,
        }
    }

    /// Whether this client has nothing more to send or to receive.
    fn is_done(&self) -> bool {
        self.session.as_ref().is_none_or(|session| self.is_idle && self.input.is_empty() && !session.is_waiting())
    }

    /// Gives the next bytes of a client to its worker. Returns a command that concerns the connection or the whole cache.
    fn serve(&mut self, serve: &mut Serve<'_>, items: &Items, count: usize) -> Option<Vec<u8>> {
        let session = self.session.as_mut().filter(|session| !session.is_waiting())?;
        if self.is_closing {
            self.leave(serve);
            return None;
        }
        let count = count.min(self.input.len());
        self.buffer.extend(self.input.drain(..count));
        let (mut input, mut reply) = (Input { bytes: &mut self.buffer, at: 0 }, Reply::default());
        let served = serve.serve(session, &mut input, &mut reply, Turn::Shared);
        let at = input.at;
        self.is_idle = served == Served::Drained && !session.owes();
        self.is_closing = served == Served::Close;
        let command = match served {
            Served::Admin(span) => {
                assert!(session.pending.is_empty(), "what came before it was not answered");
                Some(span.of(&self.buffer).to_vec())
            }
            _ => None,
        };
        self.buffer.drain(..at);
        transmit(serve, items, &mut self.received, &mut reply);
        command
    }

    /// Takes the replies, if no gap is left in them.
    fn take_replies(&mut self, serve: &mut Serve<'_>, items: &Items) {
        if let Some(session) = self.session.as_mut().filter(|session| !session.pending.is_waiting()) {
            let mut reply = Reply::default();
            session.pending.move_to(&mut reply);
            transmit(serve, items, &mut self.received, &mut reply);
        }
    }

    /// Closes the connection, even if requests are under way.
    fn leave(&mut self, serve: &mut Serve<'_>) {
        if let Some(session) = self.session.take() {
            serve.shards.end(session);
        }
    }
}

/// Moves a reply to its client, with the values that are pinned in it.
fn transmit(serve: &mut Serve<'_>, items: &Items, received: &mut Vec<u8>, reply: &mut Reply) {
    let mut at = 0;
    for pinned in std::mem::take(&mut reply.pinned) {
        received.extend(&reply.out.bytes()[at..pinned.at]);
        at = pinned.at;
        let mut value = pinned.value;
        while value.left() > 0 {
            let part = items.bytes(&value);
            received.extend(part);
            value = items.advance(value, part.len());
        }
        serve.shards.unpin(pinned);
    }
    received.extend(&reply.out.bytes()[at..]);
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "many thousand requests")]
    fn the_corpus_holds() {
        crate::fuzz::replay("serve", super::run);
    }
}
