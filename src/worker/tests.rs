//! Several workers on one thread, with seeds: replies leave in the order of requests and are those of a model, however
//! input is cut, shards are leased by others, and batches travel.

use super::super::mailbox::Mail;
use super::*;
use crate::store::arena::Arena;
use crate::store::slab::Budget;
use crate::store::{Store, StoreOptions};
use std::collections::HashMap;

/// A small generator: the seed of a failing run is in its message.
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
    batch_bytes_max: 4096,
    keep_keys: false,
};

/// What a client sends, and what it must get.
struct Client {
    input: Vec<u8>,
    sent: usize,
    expected: Vec<u8>,
    received: Vec<u8>,
}

/// A connection as a worker has it.
struct Line {
    client: usize,
    talk: Talk,
    input: Vec<u8>,
}

struct Site<'a> {
    serve: Serve<'a>,
    lines: Vec<Line>,
}

/// A conversation on keys of the client's own, with the replies that a dull twin gives.
fn conversation(client: usize, random: &mut Random) -> Client {
    let mut model: HashMap<String, Vec<u8>> = HashMap::new();
    let (mut input, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..150 {
        let key = format!("c{client}-{}", random.below(12));
        let len = if random.below(12) == 0 { 3000 + random.below(60_000) } else { random.below(60) };
        let value: Vec<u8> = (0..len).map(|_| b'a' + random.below(26) as u8).collect();
        let noreply = random.below(8) == 0;
        let suffix = if noreply { " noreply" } else { "" };
        let mut reply = Vec::new();
        match random.below(9) {
            0..3 => {
                input.extend(format!("set {key} 7 0 {len}{suffix}\r\n").bytes());
                input.extend(&value);
                input.extend(b"\r\n");
                reply.extend(b"STORED\r\n");
                model.insert(key, value);
            }
            3 => {
                input.extend(format!("append {key} 0 0 {len}{suffix}\r\n").bytes());
                input.extend(&value);
                input.extend(b"\r\n");
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
                input.extend(format!("set {key} 0 0 {len}{suffix}\r\n").bytes());
                input.extend(&value);
                input.extend(b"xx");
                reply.extend(b"CLIENT_ERROR bad data chunk\r\n");
            }
            6 => {
                input.extend(b"mn\r\n");
                expected.extend(b"MN\r\n");
                continue;
            }
            _ => {
                let keys: Vec<String> = (0..1 + random.below(20)).map(|n| format!("c{client}-{n}")).collect();
                input.extend(format!("get {}\r\n", keys.join(" ")).bytes());
                for key in &keys {
                    if let Some(value) = model.get(key) {
                        // Flags of values that were set by the second kind of `set` are 0: it never succeeds.
                        expected.extend(format!("VALUE {key} 7 {}\r\n", value.len()).bytes());
                        expected.extend(value);
                        expected.extend(b"\r\n");
                    }
                }
                expected.extend(b"END\r\n");
                continue;
            }
        }
        if !noreply {
            expected.extend(reply);
        }
    }
    Client { input, sent: 0, expected, received: Vec::new() }
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
        serve.unpin(pinned);
    }
    client.received.extend(&reply.out.bytes()[at..]);
    reply.out.clear();
}

fn simulate(seed: u64, workers: usize, shards: usize) {
    let mut random = Random(seed);
    let arena = Arc::new(Arena::reserve(256, false).expect("address space"));
    let budget = Arc::new(Budget::new(256, shards, &arena));
    let items = Items::new(arena, true);
    let hasher = KeyHasher::seeded(seed);
    let shard = |number| {
        let store = Store::new(number, StoreOptions::default(), items.clone(), Arc::clone(&budget), hasher.clone());
        Shard { number: number as u16, store: store.expect("address space"), limits: LIMITS.parse, prefixes: None }
    };
    let exchange = Exchange::new((0..shards).map(shard).collect(), workers);
    let clock = Clock::start();
    let mut clients: Vec<Client> = (0..workers * 2).map(|client| conversation(client, &mut random)).collect();
    let mut sites: Vec<Site<'_>> = (0..workers)
        .map(|worker| Site {
            serve: Serve::new(worker, &exchange, &clock, hasher.clone(), items.clone(), LIMITS),
            lines: (0..2)
                .map(|line| Line { client: worker * 2 + line, talk: Talk::new(line, worker as u64), input: Vec::new() })
                .collect(),
        })
        .collect();
    let mut outsiders: Vec<Lease<'_>> = Vec::new();
    let mut turns = 0;
    while clients.iter().any(|client| client.received.len() < client.expected.len()) {
        turns += 1;
        assert!(turns < 200_000, "seed {seed}: it does not come to an end");
        // Somebody else leases a shard, or gives one back.
        if workers > 1 {
            if random.below(2) == 0 {
                outsiders.extend(exchange.try_lease(random.below(shards)));
            } else if !outsiders.is_empty() {
                let lease = outsiders.swap_remove(random.below(outsiders.len()));
                exchange.give_back(lease, |shard, batch| run(shard, batch, &exchange, &clock, clock.now(), 8));
            }
        }
        let worker = random.below(workers);
        let site = &mut sites[worker];
        site.serve.begin(clock.now());
        while let Some(mail) = exchange.next_mail(worker) {
            match mail {
                Mail::Batch(batch) => site.serve.returned(batch),
                other => panic!("unexpected mail {other:?}"),
            }
        }
        for line in &mut site.lines {
            let client = &mut clients[line.client];
            if line.talk.is_waiting() {
                continue;
            }
            let count = random.below(9000).min(client.input.len() - client.sent);
            line.input.extend(&client.input[client.sent..client.sent + count]);
            client.sent += count;
            let (mut at, mut reply) = (0, Reply::default());
            let served = site.serve.serve(&mut line.talk, &mut line.input, &mut at, &mut reply, false);
            assert!(!matches!(served, Served::Admin(_) | Served::Close), "seed {seed}");
            line.input.drain(..at);
            transmit(&mut site.serve, &items, client, &mut reply);
        }
        site.serve.flush();
        while let Some(batch) = site.serve.next_done() {
            let mut from = 0;
            for ((task, origin), &to) in batch.tasks.iter().zip(&batch.ends) {
                if let Some(origin) = origin {
                    let line = &mut site.lines[origin.token];
                    site.serve.deliver(&mut line.talk, task, origin.slot, &batch.reply, from, to);
                    if !line.talk.pending.is_waiting() {
                        let mut reply = Reply::default();
                        line.talk.pending.settle(&mut reply);
                        transmit(&mut site.serve, &items, &mut clients[line.client], &mut reply);
                    }
                }
                from = to;
            }
            site.serve.recycle(batch);
        }
    }
    for (number, client) in clients.iter().enumerate() {
        let same = client.received.iter().zip(&client.expected).take_while(|(one, other)| one == other).count();
        let shown = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[same.saturating_sub(20)..bytes.len().min(same + 60)]).into_owned()
        };
        assert!(
            client.received == client.expected,
            "seed {seed} client {number} at {same}: got {:?}, expected {:?}",
            shown(&client.received),
            shown(&client.expected),
        );
    }
}

#[test]
fn replies_keep_their_order_across_shards() {
    for seed in 1..40 {
        simulate(seed, 1 + seed as usize % 4, 1 + seed as usize % 5);
    }
}
