//! Several workers, on one thread with a seed and on threads of their own. Replies must come in the order of requests
//! and match those of a model. The pieces of the input must not matter, nor which shards others lease, and when batches
//! come back.

use super::super::batch::Batch;
use super::super::execute::Executor;
use super::super::limits::ServeLimits;
use super::super::mailbox::{Exchange, Lease, Mail};
use super::super::uploads::{Admission, Limit};
use super::*;
use crate::clock::{Clock, NEVER};
use crate::command::Shard;
use crate::counters::WorkerCounters;
use crate::hash;
use crate::protocol::encode::Output;
use crate::protocol::packet::{self, Head, Status, opcode};
use crate::protocol::{Limits, text};
use crate::store::arena::{Arena, PAGE_SIZE_MAX};
use crate::store::budget::Budget;
use crate::store::item::Items;
use crate::store::{PIN_LEN_MIN, Store, StoreOptions};
use mio::{Events, Poll, Token, Waker};
use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// A small random generator. A failing run prints its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

const LIMITS: ServeLimits = ServeLimits {
    parse: Limits { item_size_max: 1 << 20, cas: true, inline_max: 2048 },
    group_len: 8,
    output_max: 1 << 20,
    requests_per_turn: 20,
    cut_groups: false,
    batch_bytes_max: 100_000,
    keep_keys: false,
};

/// The pages of all shards, the operations of a conversation, and the bytes of its longest values. They are fewer for
/// Miri, which is slow, and uses real memory for all address space.
const PAGES: u32 = if cfg!(miri) { 48 } else { 256 };
const OPERATIONS: usize = if cfg!(miri) { 12 } else { 150 };
const LONG: usize = if cfg!(miri) { 3000 } else { 60_000 };

/// The keys that all clients share, and the only value that they are set to. It is so long that it lies in several chunks, and
/// that the worker receives and sends it in place.
const SHARED_KEYS: usize = 3;
const SHARED_VALUE: &[u8] = &[b's'; 20_000];

/// A client: the bytes that it sends, and the expected replies.
struct Client {
    number: usize,
    input: Vec<u8>,
    sent: usize,
    expected: Vec<u8>,
    received: Vec<u8>,
}

/// The worker's side of a connection.
struct Line {
    client: Client,
    session: Session,
    input: Vec<u8>,
}

/// The part of a server that its workers share.
struct World {
    exchange: Exchange,
    items: Items,
    hasher: KeyHasher,
    clock: Clock,
}

/// A worker with three clients. One of them speaks the binary protocol.
struct Site<'a> {
    world: &'a World,
    worker: usize,
    serve: Serve<'a>,
    lines: Vec<Line>,
}

/// A random value. Few are long.
fn random_value(random: &mut Random) -> Vec<u8> {
    let len = if random.below(12) == 0 { 3000 + random.below(LONG) } else { random.below(60) };
    (0..len).map(|_| b'a' + random.below(26) as u8).collect()
}

/// Adds a storage command to the input. `line` is its first line.
fn ask_to_store(input: &mut Vec<u8>, line: String, value: &[u8], end: &[u8; 2]) {
    input.extend(line.bytes());
    input.extend(value);
    input.extend(end);
}

/// Adds a value to the expected replies. The flags are always 7: the second kind of `set`, with flags 0, never succeeds.
fn expect_value(expected: &mut Vec<u8>, key: &str, value: &[u8]) {
    expected.extend(format!("VALUE {key} 7 {}\r\n", value.len()).bytes());
    expected.extend(value);
    expected.extend(b"\r\n");
}

/// A conversation about the client's own keys and about shared ones, with the replies of a model.
fn conversation(client: usize, random: &mut Random) -> Client {
    let mut model: HashMap<String, Vec<u8>> = HashMap::new();
    let (mut input, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..OPERATIONS {
        let key = format!("c{client}-{}", random.below(12));
        let value = random_value(random);
        let len = value.len();
        let noreply = random.below(8) == 0;
        let suffix = if noreply { " noreply" } else { "" };
        let mut reply = Vec::new();
        match random.below(10) {
            0..3 => {
                ask_to_store(&mut input, format!("set {key} 7 0 {len}{suffix}\r\n"), &value, b"\r\n");
                reply.extend(b"STORED\r\n");
                model.insert(key, value);
            }
            3 => {
                ask_to_store(&mut input, format!("append {key} 0 0 {len}{suffix}\r\n"), &value, b"\r\n");
                reply.extend_from_slice(match model.get_mut(&key) {
                    Some(old) if old.len() + len < 900_000 => {
                        old.extend(&value);
                        b"STORED\r\n"
                    }
                    Some(_) => panic!("the conversation is too long for its values"),
                    None => b"NOT_STORED\r\n",
                });
            }
            4 => {
                input.extend(format!("delete {key}{suffix}\r\n").bytes());
                reply.extend_from_slice(if model.remove(&key).is_some() { b"DELETED\r\n" } else { b"NOT_FOUND\r\n" });
            }
            5 => {
                ask_to_store(&mut input, format!("set {key} 0 0 {len}{suffix}\r\n"), &value, b"xx");
                reply.extend(b"CLIENT_ERROR bad data chunk\r\n");
            }
            6 => {
                input.extend(b"mn\r\n");
                expected.extend(b"MN\r\n");
                continue;
            }
            7 => {
                let key = random.below(SHARED_KEYS);
                let line = format!("set shared-{key} 7 0 {}{suffix}\r\n", SHARED_VALUE.len());
                ask_to_store(&mut input, line, SHARED_VALUE, b"\r\n");
                reply.extend(b"STORED\r\n");
            }
            _ => {
                let keys: Vec<String> = (0..1 + random.below(20)).map(|n| format!("c{client}-{n}")).collect();
                let shared = (random.below(2) == 0).then(|| format!("shared-{}", random.below(SHARED_KEYS)));
                input.extend(format!("get {} {}\r\n", keys.join(" "), shared.as_deref().unwrap_or("none")).bytes());
                for key in &keys {
                    if let Some(value) = model.get(key) {
                        expect_value(&mut expected, key, value);
                    }
                }
                if let Some(key) = shared {
                    expect_value(&mut expected, &key, SHARED_VALUE);
                }
                expected.extend(b"END\r\n");
                continue;
            }
        }
        if !noreply {
            expected.extend(reply);
        }
    }
    Client { number: client, input, sent: 0, expected, received: Vec::new() }
}

fn request_packet(head: Head, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    let body_len = extras.len() + key.len() + value.len();
    let mut packet = vec![packet::REQUEST, head.opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
    packet.extend((body_len as u32).to_be_bytes());
    packet.extend(head.opaque.to_be_bytes());
    packet.extend([&[0; 8], extras, key.as_bytes(), value].concat());
    packet
}

/// A conversation in packets about the client's own keys. Values have all lengths; some packets are quiet.
fn packets(client: usize, random: &mut Random) -> Client {
    let mut model: HashMap<String, Vec<u8>> = HashMap::new();
    let (mut input, mut expected) = (Vec::new(), Output::default());
    for number in 0..OPERATIONS as u32 {
        let key = format!("c{client}-{}", random.below(12));
        let value = random_value(random);
        let quiet = random.below(3) == 0;
        let mut send = |opcode, extras: &[u8], key: &str, value: &[u8]| {
            let head = Head { opcode, opaque: number };
            input.extend(request_packet(head, extras, key, value));
            head
        };
        let out = &mut expected;
        match random.below(8) {
            0..3 => {
                let opcode = if quiet { opcode::SETQ } else { opcode::SET };
                let head = send(opcode, &[0, 0, 0, 7, 0, 0, 0, 0], &key, &value);
                model.insert(key, value);
                if !quiet {
                    packet::success(out, head, b"", 0);
                }
            }
            3 => {
                let head = send(if quiet { opcode::APPENDQ } else { opcode::APPEND }, b"", &key, &value);
                match model.get_mut(&key) {
                    Some(old) => {
                        old.extend(&value);
                        if !quiet {
                            packet::success(out, head, b"", 0);
                        }
                    }
                    None => packet::failure(out, head, Status::NOT_STORED),
                }
            }
            4 => {
                let head = send(if quiet { opcode::DELETEQ } else { opcode::DELETE }, b"", &key, b"");
                match model.remove(&key) {
                    Some(_) if quiet => {}
                    Some(_) => packet::success(out, head, b"", 0),
                    None => packet::failure(out, head, Status::NOT_FOUND),
                }
            }
            5 => {
                // The first packet creates the counter.
                let name = format!("n{client}");
                let extras = [&1_u64.to_be_bytes()[..], &1_u64.to_be_bytes(), &[0; 4]].concat();
                let head = send(opcode::INCREMENT, &extras, &name, b"");
                let count = model.entry(name).or_default();
                count.push(b'x');
                packet::success(out, head, &(count.len() as u64).to_be_bytes(), 0);
            }
            6 => {
                let head = send(opcode::NOOP, b"", "", b"");
                packet::success(out, head, b"", 0);
            }
            _ => {
                for key in (0..1 + random.below(20)).map(|n| format!("c{client}-{n}")) {
                    let opcode = if quiet { opcode::GETKQ } else { opcode::GETK };
                    let head = send(opcode, b"", &key, b"");
                    match model.get(&key) {
                        Some(value) => {
                            let (key, value_len) = (key.as_bytes(), value.len());
                            packet::item(out, head, &packet::Item { client_flags: 7, cas: 0, key, value, value_len });
                        }
                        None if quiet => {}
                        None => packet::named(out, head, Status::NOT_FOUND, key.as_bytes(), b""),
                    }
                }
            }
        }
    }
    Client { number: client, input, sent: 0, expected: expected.take(), received: Vec::new() }
}

/// Clears the CAS values in packets of replies, because the model does not know them.
fn without_cas(mut replies: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(&[packet::RESPONSE, .., b0, b1, b2, b3, _, _, _, _, _, _, _, _, _, _, _, _]) =
        replies.get(at..).and_then(<[u8]>::first_chunk::<{ packet::HEADER_LEN }>)
    {
        replies[at + 16..at + 24].fill(0);
        at += packet::HEADER_LEN + u32::from_be_bytes([b0, b1, b2, b3]) as usize;
    }
    replies
}

/// Moves a reply to its client, with the values that are pinned in it.
fn transmit(serve: &mut Serve<'_>, items: &Items, client: &mut Client, reply: &mut Reply) {
    let mut at = 0;
    for pinned in std::mem::take(&mut reply.pinned) {
        client.received.extend(&reply.out.bytes()[at..pinned.at]);
        at = pinned.at;
        let mut value = pinned.value;
        while value.left() > 0 {
            let part = items.bytes(&value);
            client.received.extend(part);
            value = items.advance(value, part.len());
        }
        serve.shards.unpin(pinned);
    }
    client.received.extend(&reply.out.bytes()[at..]);
    reply.out.clear();
}

impl World {
    fn new(seed: u64, workers: usize, shards: usize) -> World {
        // The limit is so low that clients wait for each other.
        World::with_uploads(seed, workers, shards, LONG)
    }

    /// `limit` is the maximum of the bytes of long values under way to each shard.
    fn with_uploads(seed: u64, workers: usize, shards: usize, limit: usize) -> World {
        let arena = Arc::new(Arena::reserve(PAGES, PAGE_SIZE_MAX).expect("address space"));
        let budget = Arc::new(Budget::new(PAGES, shards, &arena));
        let uploads = Limit::Share { budget: Arc::clone(&budget), percent: 0, item_size_max: limit as u64 / 2 };
        let items = Items::new(arena, true);
        let hasher = KeyHasher::seeded(seed);
        let shard = |number| {
            let store = Store::new(number, StoreOptions::default(), items.clone(), Arc::clone(&budget), hasher.clone());
            let mut store = store.expect("address space");
            for key in (0..SHARED_KEYS).map(|key| format!("shared-{key}")) {
                let hash = hasher.hash(key.as_bytes());
                if number == hash::shard(hash, shards) {
                    store.put(hash, key.as_bytes(), 7, NEVER, SHARED_VALUE, None).expect("there is room");
                }
            }
            Shard::new(number as u16, store, LIMITS.parse)
        };
        let exchange = Exchange::new((0..shards).map(shard).collect(), workers, uploads);
        World { exchange, items, hasher, clock: Clock::start() }
    }

    fn serve(&self, worker: usize, limits: ServeLimits) -> Serve<'_> {
        let shards = Shards::new(worker, &self.exchange, &self.clock, self.items.clone(), limits);
        Serve::new(shards, self.hasher.clone())
    }

    /// Gives back the lease of another worker, and runs the batches that were posted meanwhile.
    fn give_back(&self, lease: Lease<'_>) {
        let World { exchange, clock, .. } = self;
        let executor = Executor { exchange, clock, now: clock.now(), group_len: 8 };
        exchange.give_back(lease, |shard, batch| executor.run(shard, batch, None));
    }

    fn site(&self, worker: usize, random: &mut Random) -> Site<'_> {
        let line = |line| Line {
            client: match line {
                0..2 => conversation(worker * 3 + line, random),
                _ => packets(worker * 3 + line, random),
            },
            session: Session::new(line, worker as u64, Parser::Undecided),
            input: Vec::new(),
        };
        Site { world: self, worker, serve: self.serve(worker, LIMITS), lines: (0..3).map(line).collect() }
    }
}

impl Line {
    fn is_finished(&self) -> bool {
        let Client { input, sent, expected, received, .. } = &self.client;
        received.len() >= expected.len() && *sent == input.len() && self.input.is_empty() && self.session.is_idle()
    }
}

impl Site<'_> {
    /// A turn: the worker takes its mail, some input of each client, and the batches that have come back.
    fn turn(&mut self, random: &mut Random) {
        let Site { world: World { exchange, items, clock, .. }, worker, serve, lines } = self;
        serve.begin(clock.now());
        while let Some(mail) = exchange.next_mail(*worker) {
            match mail {
                Mail::Batch(batch) => serve.shards.returned(batch),
                Mail::Admitted(admission) => {
                    assert!(
                        serve.shards.admitted(Some(&mut lines[admission.ticket.token].session), &admission),
                        "it waits for that"
                    );
                }
                other => panic!("unexpected mail {other:?}"),
            }
        }
        for Line { client, session, input } in &mut *lines {
            if session.is_waiting() {
                continue;
            }
            let count = random.below(9000).min(client.input.len() - client.sent);
            input.extend(&client.input[client.sent..client.sent + count]);
            client.sent += count;
            let (mut cursor, mut reply) = (Input { bytes: input, at: 0 }, Reply::default());
            let served = serve.serve(session, &mut cursor, &mut reply, Turn::Shared);
            let at = cursor.at;
            assert!(!matches!(served, Served::Admin(_) | Served::Close), "client {}: {served:?}", client.number);
            input.drain(..at);
            transmit(serve, items, client, &mut reply);
        }
        serve.shards.flush();
        while let Some(mut batch) = serve.shards.next_done() {
            for (task, origin, reply) in batch.replies() {
                if let Some(origin) = origin {
                    let Line { client, session, .. } = &mut lines[origin.token];
                    serve.shards.deliver(session, task, origin.slot, reply);
                    if !session.pending.is_waiting() {
                        let mut reply = Reply::default();
                        session.pending.move_to(&mut reply);
                        transmit(serve, items, client, &mut reply);
                    }
                }
            }
            serve.shards.recycle(batch);
        }
    }

    fn is_finished(&self) -> bool {
        self.lines.iter().all(Line::is_finished)
    }

    /// Checks that all clients have received the expected replies.
    fn check(&self, seed: u64) {
        for Line { client: Client { number, received, expected, .. }, session, .. } in &self.lines {
            let received = &if matches!(session.parser(), Parser::Binary(_)) {
                without_cas(received.clone())
            } else {
                received.clone()
            };
            if received == expected {
                continue;
            }
            let same = received.iter().zip(expected).take_while(|(one, other)| one == other).count();
            let shown = |bytes: &[u8]| {
                String::from_utf8_lossy(&bytes[same.saturating_sub(20)..bytes.len().min(same + 60)]).into_owned()
            };
            let (got, wanted) = (shown(received), shown(expected));
            panic!("seed {seed} client {number} at {same}: got {got:?}, expected {wanted:?}");
        }
    }
}

fn simulate(seed: u64, workers: usize, shards: usize) {
    let mut random = Random(seed);
    let world = World::new(seed, workers, shards);
    let exchange = &world.exchange;
    let mut sites: Vec<Site<'_>> = (0..workers).map(|worker| world.site(worker, &mut random)).collect();
    let mut outsiders: Vec<Lease<'_>> = Vec::new();
    let mut turns = 0;
    while !sites.iter().all(Site::is_finished) {
        turns += 1;
        assert!(turns < 200_000, "seed {seed}: it does not come to an end");
        // Another worker leases a shard, or gives one back.
        if workers > 1 {
            if random.below(2) == 0 {
                outsiders.extend(exchange.try_lease(random.below(shards)));
            } else if !outsiders.is_empty() {
                let lease = outsiders.swap_remove(random.below(outsiders.len()));
                world.give_back(lease);
            }
        }
        let worker = random.below(workers);
        sites[worker].turn(&mut random);
    }
    sites.iter().for_each(|site| site.check(seed));
    assert_eq!((exchange.upload_use().bytes, exchange.upload_use().waiting), (0, 0), "seed {seed}");
}

/// Does the same with a thread for each worker. The thread sleeps when it has nothing to do. Miri and the thread
/// sanitizer find faulty accesses to memory that threads share.
fn work_in_threads(seed: u64, workers: usize, shards: usize) {
    let world = World::new(seed, workers, shards);
    let work = &|worker: usize| {
        let mut random = Random(seed << 8 | worker as u64);
        let mut site = world.site(worker, &mut random);
        let (mut poll, mut events) = (Poll::new().expect("descriptors"), Events::with_capacity(1));
        world.exchange.set_waker(worker, Waker::new(poll.registry(), Token(0)).expect("descriptors"));
        while !site.is_finished() {
            site.turn(&mut random);
            if random.below(4) == 0 {
                site.serve.shards.housekeep(50, true);
            }
            if site.lines.iter().all(|line| line.is_finished() || line.session.is_waiting())
                && !site.is_finished()
                && world.exchange.falls_asleep(worker)
            {
                poll.poll(&mut events, Some(Duration::from_secs(60))).expect("polling");
                assert!(!events.is_empty(), "seed {seed}: nobody wakes worker {worker}");
            }
            world.exchange.wakes_up(worker);
        }
        site.check(seed);
    };
    thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || work(worker));
        }
    });
}

#[test]
fn replies_keep_their_order_across_shards() {
    for seed in if cfg!(miri) { 2..3 } else { 1..40 } {
        simulate(seed, 1 + seed as usize % 4, 1 + seed as usize % 5);
    }
}

#[test]
fn replies_keep_their_order_across_threads() {
    for seed in if cfg!(miri) { 1..2 } else { 1..9 } {
        work_in_threads(seed, 2 + seed as usize % 3, 1 + seed as usize % 2);
    }
}

/// The number of keys that a client asks for at once.
const ASKED: usize = 2000;

/// Runs a client that asks for many keys, while another worker holds the leases of all shards but one. Every group has
/// keys of all shards. Returns the maximum number of bytes of replies that the worker has held for the client, and the
/// bytes of its largest batch.
fn hold_replies(worker_limits: ServeLimits, value_len: usize, keys: usize) -> (usize, usize) {
    let shards = 4;
    let world = World::new(7, 2, shards);
    let World { exchange, hasher, clock, .. } = &world;
    let names: Vec<String> = (0..keys).map(|key| format!("key-{key}")).collect();
    for name in &names {
        let hash = hasher.hash(name.as_bytes());
        let mut lease = exchange.try_lease(hash::shard(hash, shards)).expect("nobody has it");
        lease.store.put(hash, name.as_bytes(), 0, NEVER, &vec![b'v'; value_len], None).expect("there is room");
    }
    let mut input = Vec::new();
    for list in names.chunks(100) {
        input.extend(format!("get {}\r\n", list.join(" ")).bytes());
    }
    let mut serve = world.serve(0, worker_limits);
    let mut session = Session::new(0, 0, Parser::Undecided);
    let (mut held_max, mut batch_max, mut received) = (0, 0, 0);
    let mut input = Input { bytes: &mut input, at: 0 };
    for _ in 0..100_000 {
        let others: Vec<Lease<'_>> = (1..shards).filter_map(|shard| exchange.try_lease(shard)).collect();
        serve.begin(clock.now());
        let mut output = Reply::default();
        if !session.is_waiting() {
            serve.serve(&mut session, &mut input, &mut output, Turn::Shared);
        }
        let open = serve.shards.links.iter().filter_map(|link| link.open.as_deref());
        batch_max = batch_max.max(open.map(Batch::bytes_max).max().unwrap_or(0));
        held_max = held_max.max(output.len() + session.pending.len());
        serve.shards.flush();
        for lease in others {
            world.give_back(lease);
        }
        while let Some(mail) = exchange.next_mail(0) {
            let Mail::Batch(batch) = mail else { panic!("unexpected mail {mail:?}") };
            assert!(batch.reply.out.len() <= batch.bytes_max(), "replies are no longer than was said");
            serve.shards.returned(batch);
        }
        while let Some(mut batch) = serve.shards.next_done() {
            for (task, origin, reply) in batch.replies() {
                let slot = origin.expect("a get has an origin").slot;
                serve.shards.deliver(&mut session, task, slot, reply);
            }
            serve.shards.recycle(batch);
        }
        held_max = held_max.max(output.len() + session.pending.len());
        session.pending.move_to(&mut output);
        received += output.len();
        if input.at == input.bytes.len() && !session.is_waiting() {
            let line = names.iter().map(|name| format!("VALUE {name} 0 {value_len}\r\n").len()).sum::<usize>();
            assert_eq!(received, line + keys * (value_len + 2) + keys.div_ceil(100) * b"END\r\n".len());
            return (held_max, batch_max);
        }
    }
    panic!("it does not come to an end");
}

#[test]
fn a_value_that_was_thrown_away_is_not_parsed_again() {
    let world = World::new(7, 2, 2);
    let World { exchange, clock, .. } = &world;
    let mut serve = world.serve(0, LIMITS);
    let too_large = LIMITS.parse.item_size_max;
    let _others: Vec<Lease<'_>> = (0..2).filter_map(|shard| exchange.try_lease(shard)).collect();
    // The session waits for a reply; then a value is refused; then a command of the whole cache waits for the reply.
    for (line, value) in [
        ("set key 0 x 9".to_owned(), b"flush_all".to_vec()),
        (format!("set key 0 0 {too_large}"), vec![b'\n'; too_large as usize]),
    ] {
        let mut input = [format!("get key\r\n{line}\r\n").as_bytes(), &value, b"\r\nstats\r\n"].concat();
        let (mut session, mut output) = (Session::new(0, 0, Parser::Undecided), Reply::default());
        let mut input = Input { bytes: &mut input, at: 0 };
        serve.begin(clock.now());
        let served = serve.serve(&mut session, &mut input, &mut output, Turn::Shared);
        assert_eq!(
            (served, input.bytes[input.at..].escape_ascii().to_string()),
            (Served::Waiting, "stats\\r\\n".to_owned()),
            "{line}"
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "tens of megabytes are copied")]
fn replies_awaited_from_other_shards_count_as_unsent() {
    let limits = ServeLimits { output_max: 100_000, batch_bytes_max: 1 << 30, ..LIMITS };
    let group = limits.group_len * (PIN_LEN_MIN + 600);
    for value_len in [0, 100, PIN_LEN_MIN - 1] {
        let (held, _) = hold_replies(limits, value_len, ASKED);
        assert!(held <= limits.output_max + group, "{held} bytes for values of {value_len} bytes");
    }
}

#[test]
#[cfg_attr(miri, ignore = "tens of megabytes are copied")]
fn batches_between_shards_are_limited() {
    let limits = ServeLimits { output_max: 1 << 30, batch_bytes_max: 100_000, ..LIMITS };
    let group = limits.group_len * (PIN_LEN_MIN + 1000);
    for value_len in [0, 100, PIN_LEN_MIN - 1] {
        let (_, batch) = hold_replies(limits, value_len, ASKED);
        assert!(batch <= limits.batch_bytes_max + group, "{batch} bytes for values of {value_len} bytes");
    }
}

#[test]
fn others_go_first_after_as_many_requests_as_are_allowed() {
    let world = World::new(1, 1, 1);
    // Serves 12 requests. Checks the result of each call of `serve`, and the number of lines of replies by then.
    let check =
        |request: &str, requests_per_turn: usize, cut_groups: bool, turn: Turn, expected: &[(Served, usize)]| {
            let limits = ServeLimits { requests_per_turn, cut_groups, group_len: 10, ..LIMITS };
            let mut serve = world.serve(0, limits);
            let mut session = Session::new(0, 0, Parser::Text(text::Parser::default()));
            let (mut requests, mut output) = (request.repeat(12).into_bytes(), Reply::default());
            let mut input = Input { bytes: &mut requests, at: 0 };
            let mut calls = Vec::new();
            loop {
                let served = serve.serve(&mut session, &mut input, &mut output, turn);
                calls.push((served, output.out.bytes().iter().filter(|&&byte| byte == b'\n').count()));
                if served != Served::Yield {
                    break;
                }
            }
            serve.shards.give_back();
            assert_eq!(calls, expected, "{request:?}, {requests_per_turn} at a time, {turn:?}");
            assert_eq!(serve.take_yields(), 11 / requests_per_turn, "{request:?}, {requests_per_turn} at a time");
        };
    use Served::{Drained, Yield};
    use Turn::{Alone, Shared};
    let in_fives = [(Yield, 5), (Yield, 10), (Drained, 12)];
    check("mn\r\n", 5, true, Shared, &in_fives);
    check("get a\r\n", 5, true, Shared, &in_fives);
    // The keys exceed the share of the connection, although the commands do not.
    let in_tens = [(Yield, 2), (Yield, 5), (Yield, 7), (Yield, 10), (Drained, 12)];
    check("get a b c d\r\n", 5, true, Shared, &in_tens);
    check("mn\r\n", 5, true, Alone, &[(Drained, 12)]);
    // Groups are not cut: the first group has 10 commands.
    check("mn\r\n", 5, false, Shared, &[(Yield, 10), (Drained, 12)]);
    check("mn\r\n", 20, false, Shared, &[(Drained, 12)]);
}

#[test]
fn refused_leases_and_posted_batches_are_counted() {
    let world = World::new(7, 2, 1);
    let World { exchange, clock, .. } = &world;
    let counters = WorkerCounters::default();
    let mut serve = world.serve(0, LIMITS);
    serve.shards.count_in(&counters);
    // A turn with two gets of a new client. Returns the counts after it.
    let turn = |serve: &mut Serve<'_>| {
        let (mut session, mut requests) = (Session::new(0, 0, Parser::Undecided), b"get a\r\nget b\r\n".to_vec());
        serve.begin(clock.now());
        serve.serve(&mut session, &mut Input { bytes: &mut requests, at: 0 }, &mut Reply::default(), Turn::Shared);
        serve.shards.flush();
        (counters.leases_refused.get(), counters.batches_posted.get())
    };
    assert_eq!(turn(&mut serve), (0, 0), "the lease is free");
    let other = exchange.try_lease(0).expect("nobody has it");
    assert_eq!(turn(&mut serve), (2, 1), "it asks for the first get, and before it posts the batch");
    assert_eq!(turn(&mut serve), (2, 1), "a batch is on its way");
    world.give_back(other);
    let Some(Mail::Batch(batch)) = exchange.next_mail(0) else { panic!("the batch should be back") };
    serve.shards.returned(batch);
    assert_eq!(turn(&mut serve), (2, 1), "the lease is free again");
}

/// A session with a long value whose first bytes have come.
fn upload(serve: &mut Serve<'_>, token: usize, generation: u64, len: usize) -> Session {
    let mut session = Session::new(token, generation, Parser::Undecided);
    let mut input = format!("set upload{token} 0 0 {len}\r\nxxxxxxxx").into_bytes();
    let mut input = Input { bytes: &mut input, at: 0 };
    serve.serve(&mut session, &mut input, &mut Reply::default(), Turn::Shared);
    assert!(session.is_receiving());
    session
}

/// Reads the admission in the mail of worker 0. It must be the only mail.
fn admission(exchange: &Exchange) -> Admission {
    let Some(Mail::Admitted(admission)) = exchange.next_mail(0) else { panic!("somebody should come in") };
    assert!(exchange.next_mail(0).is_none());
    admission
}

#[test]
fn values_of_connections_that_close_count_no_more() {
    let world = &World::with_uploads(1, 2, 1, 60_000);
    let World { exchange, clock, .. } = world;
    let used = || {
        let lease = exchange.try_lease(0).expect("nobody has it");
        lease.store.snapshot().classes.iter().map(|class| class.usage.used_chunks).sum::<u64>()
    };
    let use_now = || (exchange.upload_use().bytes, exchange.upload_use().waiting);
    // A long value and a short one fit under the limit together; two long ones do not.
    let limit = exchange.upload_use().limit;
    let (long, short) = (limit - 5000, 4000);
    let used_before = used();
    let mut serve = world.serve(0, LIMITS);
    serve.begin(clock.now());

    // A connection closes while its value waits. The next value then comes in.
    let first = upload(&mut serve, 1, 1, long);
    let second = upload(&mut serve, 2, 2, long);
    let mut third = upload(&mut serve, 3, 3, short);
    assert_eq!(use_now(), (long, 2));
    assert!(second.is_waiting() && third.is_waiting());
    serve.shards.end(second);
    assert!(serve.shards.admitted(Some(&mut third), &admission(exchange)));
    assert_eq!(use_now(), (long + short, 0));

    // A connection closes while its admission is in the mail. Another one gets its token, and waits itself.
    let fourth = upload(&mut serve, 4, 4, long);
    serve.shards.end(first);
    let late = admission(exchange);
    serve.shards.end(fourth);
    assert_eq!(use_now(), (long + short, 0), "it counts until the mail is read");
    let mut successor = upload(&mut serve, 4, 5, long);
    assert!(!serve.shards.admitted(Some(&mut successor), &late), "it is of another generation");
    assert!(serve.shards.admitted(Some(&mut successor), &admission(exchange)), "there is room for it now");
    assert_eq!(use_now(), (long + short, 0));
    // The same, but no connection gets the token.
    let fifth = upload(&mut serve, 5, 6, long);
    serve.shards.end(successor);
    let late = admission(exchange);
    serve.shards.end(fifth);
    assert!(!serve.shards.admitted(None, &late));
    assert_eq!(use_now(), (short, 0));

    // A connection closes while another worker makes room for its value.
    let other = exchange.try_lease(0).expect("nobody has it");
    let sixth = upload(&mut serve, 6, 7, long);
    assert_eq!(use_now(), (long + short, 0));
    serve.shards.flush();
    serve.shards.end(sixth);
    assert_eq!(use_now(), (short, 0));
    world.give_back(other);
    let Some(Mail::Batch(mut batch)) = exchange.next_mail(0) else { panic!("room was made") };
    for (task, _, reply) in batch.replies() {
        serve.shards.discard(0, task, reply);
    }
    serve.shards.returned(batch);
    serve.shards.end(third);
    serve.shards.flush();
    assert_eq!((use_now(), used()), ((0, 0), used_before), "nothing is left");
}

#[test]
fn values_for_one_shard_take_no_more_than_its_part() {
    let shards = 4;
    let world = &World::with_uploads(1, 1, shards, 60_000);
    let World { exchange, hasher, clock, .. } = world;
    let part = exchange.upload_use().limit / shards;
    let mut serve = world.serve(0, LIMITS);
    serve.begin(clock.now());
    let mut sessions = Vec::new();
    for token in 0..20 {
        let mut session = Session::new(token, token as u64, Parser::Undecided);
        let mut input = format!("set same 0 0 {}\r\nxxxxxxxx", part / 2).into_bytes();
        let mut input = Input { bytes: &mut input, at: 0 };
        serve.serve(&mut session, &mut input, &mut Reply::default(), Turn::Shared);
        sessions.push(session);
    }
    assert_eq!((exchange.upload_use().bytes, exchange.upload_use().waiting), (part / 2 * 2, 18));
    // A value for another shard still comes in.
    let elsewhere = (0..)
        .map(|n| format!("other{n}"))
        .find(|key| hash::shard(hasher.hash(key.as_bytes()), shards) != hash::shard(hasher.hash(b"same"), shards));
    let mut session = Session::new(20, 20, Parser::Undecided);
    let mut input = format!("set {} 0 0 {}\r\nxxxxxxxx", elsewhere.expect("a key"), part / 2).into_bytes();
    let mut input = Input { bytes: &mut input, at: 0 };
    serve.serve(&mut session, &mut input, &mut Reply::default(), Turn::Shared);
    assert!(!session.is_waiting());
    sessions.push(session);
    sessions.into_iter().for_each(|session| serve.shards.end(session));
}

mod copies;
mod ttl;
