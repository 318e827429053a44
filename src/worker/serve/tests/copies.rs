//! Copies of hot items: they answer like the shard, and hold until the item changes.

use super::super::super::copies::{Copies, CopyPolicy};
use super::*;
use crate::store::flushed::Flush;

/// The policy that copies a key from its first sample on, and forgets none.
const EAGER: CopyPolicy = CopyPolicy { keys_max: 64, samples_min: 1, refusals_min: 0, reads_min: 0 };

/// Every way to read the item of the key `k:1` by lines. `S` and `R` are for replies of both kinds.
const READS: [&str; 7] =
    ["get k:1", "gets k:1", "get k:1 k:1", "mg k:1", "mg k:1 v q Osome k f s c t", "mg k:1 t v", "mg k:1 s"];

/// A server of two workers and one shard. The first worker copies items.
struct Pair<'w> {
    world: &'w World,
    copier: Serve<'w>,
    other: Serve<'w>,
}

impl<'w> Pair<'w> {
    /// The item of `k:1` is copied at its next read.
    fn new(world: &'w World) -> Pair<'w> {
        let (mut copier, other) = (world.serve(0, LIMITS), world.serve(1, LIMITS));
        copier.shards.copies = Copies::new(EAGER);
        copier.shards.copies.consider(world.hasher.hash(b"k:1"), 0, 0);
        Pair { world, copier, other }
    }

    /// The replies to some input, as far as they come at once.
    fn run(serve: &mut Serve<'_>, world: &World, input: &[u8]) -> Vec<u8> {
        let mut session = Session::new(0, 0, Parser::Undecided);
        let (mut input, mut output) = (input.to_vec(), Reply::default());
        serve.begin(world.clock.now());
        serve.serve(&mut session, &mut Input { bytes: &mut input, at: 0 }, &mut output, Turn::Alone);
        output.out.bytes().to_vec()
    }

    fn copier(&mut self, input: &[u8]) -> Vec<u8> {
        Pair::run(&mut self.copier, self.world, input)
    }

    fn other(&mut self, input: &[u8]) -> Vec<u8> {
        Pair::run(&mut self.other, self.world, input)
    }

    /// Reads by a copy, which must hold: nobody can have the shard meanwhile.
    fn by_copy(&mut self, input: &[u8]) -> Vec<u8> {
        let lease = self.world.exchange.try_lease(0).expect("nobody has it");
        let reply = self.copier(input);
        self.world.give_back(lease);
        reply
    }

    /// All reads, by a copy and by the shard: they must be the same.
    fn check_reads(&mut self, state: &str) {
        for line in READS {
            let input = format!("{line}\r\n").into_bytes();
            self.copier(b"get k:1\r\n");
            let (copy, shard) = (self.by_copy(&input), self.other(&input));
            assert!(!copy.is_empty(), "{state}: no copy answers {line:?}");
            assert_eq!(copy.escape_ascii().to_string(), shard.escape_ascii().to_string(), "{state}: {line:?}");
        }
        for opcode in [opcode::GET, opcode::GETQ, opcode::GETK, opcode::GETKQ] {
            let input = packet(opcode, b"", b"");
            let (copy, shard) = (self.by_copy(&input), self.other(&input));
            assert!(!copy.is_empty() && copy == shard, "{state}: opcode {opcode}: {copy:?}, {shard:?}");
        }
    }

    /// All that a client can read of the item.
    fn all_reads(serve: &mut Serve<'_>, world: &World) -> Vec<String> {
        let reads = READS.iter().map(|line| Pair::run(serve, world, format!("{line}\r\n").as_bytes()));
        reads.map(|reply| reply.escape_ascii().to_string()).collect()
    }
}

/// A packet about the key `k:1`.
fn packet(opcode: u8, extras: &[u8], value: &[u8]) -> Vec<u8> {
    let key = b"k:1";
    let mut packet = vec![packet::REQUEST, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
    packet.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    packet.extend([0; 12]);
    [packet, extras.to_vec(), key.to_vec(), value.to_vec()].concat()
}

#[test]
fn a_copy_answers_like_the_shard() {
    let world = World::new(3, 2, 1);
    world.clock.pause();
    let mut pair = Pair::new(&world);
    for (state, line) in [
        ("short", "set k:1 0 0 3\r\nabc\r\n".to_owned()),
        ("client flags", "set k:1 77 0 3\r\nabc\r\n".to_owned()),
        ("deadline", "set k:1 1 100 3\r\nabc\r\n".to_owned()),
        ("empty", "set k:1 0 0 0\r\n\r\n".to_owned()),
        ("longest", format!("set k:1 0 0 4096\r\n{}\r\n", "x".repeat(4096))),
    ] {
        assert_eq!(pair.other(line.as_bytes()), b"STORED\r\n");
        pair.check_reads(state);
    }
}

#[test]
fn what_is_not_for_all_is_not_copied() {
    let world = World::new(3, 2, 1);
    world.clock.pause();
    let mut pair = Pair::new(&world);
    for line in [
        "set k:1 0 0 4097\r\n".to_owned() + &"x".repeat(4097) + "\r\n",
        "set k:1 0 0 1\r\na\r\nmd k:1 I T30\r\n".to_owned(),
        "ms azox 1 b\r\na\r\n".to_owned(),
        "delete k:1\r\n".to_owned(),
    ] {
        pair.other(line.as_bytes());
        pair.copier(b"get k:1\r\n");
        assert_eq!(pair.by_copy(b"get k:1\r\n"), b"", "{line:.20}");
        pair.copier.shards.flush();
        let Some(Mail::Batch(batch)) = world.exchange.next_mail(0) else { continue };
        pair.copier.shards.returned(batch);
    }
}

#[test]
fn every_change_of_an_item_ends_its_copies() {
    let long = format!("set k:1 0 0 6000\r\n{}\r\n", "y".repeat(6000));
    let extras = [7_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
    let number = [5_u64.to_be_bytes().as_slice(), &[0; 12]].concat();
    let cases: [(&str, &[u8]); 31] = [
        ("set", b"set k:1 0 0 1\r\n6\r\n"),
        ("a long set", long.as_bytes()),
        ("a set that is too large", b"set k:1 0 0 2000000\r\n"),
        ("replace", b"replace k:1 0 0 2\r\n66\r\n"),
        ("append", b"append k:1 0 0 1\r\n6\r\n"),
        ("prepend", b"prepend k:1 0 0 1\r\n6\r\n"),
        ("delete", b"delete k:1\r\n"),
        ("incr", b"incr k:1 1\r\n"),
        ("decr", b"decr k:1 1\r\n"),
        ("touch", b"touch k:1 50\r\n"),
        ("touch into the past", b"touch k:1 -1\r\n"),
        ("gat", b"gat 50 k:1\r\n"),
        ("gats", b"gats 50 k:1\r\n"),
        ("ms", b"ms k:1 1\r\n6\r\n"),
        ("ms that appends", b"ms k:1 1 MA\r\n6\r\n"),
        ("ms with a CAS value of its own", b"ms k:1 1 E99\r\n5\r\n"),
        ("md", b"md k:1\r\n"),
        ("md that marks as stale", b"md k:1 I T30\r\n"),
        ("md that takes the value", b"md k:1 x\r\n"),
        ("ma", b"ma k:1\r\n"),
        ("ma that decrements", b"ma k:1 MD\r\n"),
        ("mg that touches", b"mg k:1 T50\r\n"),
        ("mg that wins the right to recache", b"touch k:1 20\r\nmg k:1 R30\r\n"),
        ("binary set", &packet(opcode::SET, &extras, b"6")),
        ("binary replace", &packet(opcode::REPLACE, &extras, b"6")),
        ("binary append", &packet(opcode::APPEND, b"", b"6")),
        ("binary delete", &packet(opcode::DELETE, b"", b"")),
        ("binary increment", &packet(opcode::INCREMENT, &number, b"")),
        ("binary touch", &packet(opcode::TOUCH, &50_u32.to_be_bytes(), b"")),
        ("binary gat", &packet(opcode::GAT, &50_u32.to_be_bytes(), b"")),
        ("binary quiet gat", &packet(opcode::GATKQ, &50_u32.to_be_bytes(), b"")),
    ];
    for (name, change) in cases {
        // What clients read after the change, and before it, with copies and without.
        let read = |copies: bool| {
            let world = World::new(3, 2, 1);
            world.clock.pause();
            let mut pair = Pair::new(&world);
            if !copies {
                pair.copier.shards.copies = Copies::default();
            }
            assert_eq!(pair.other(b"set k:1 0 0 1\r\n5\r\n"), b"STORED\r\n");
            pair.copier(b"get k:1\r\n");
            let before = Pair::all_reads(&mut pair.copier, &world);
            if copies {
                assert_eq!(pair.by_copy(b"get k:1\r\n"), b"VALUE k:1 0 1\r\n5\r\nEND\r\n", "{name}");
            }
            if change.starts_with(long.as_bytes()) || name.contains("too large") {
                upload_all(&mut pair, change);
            } else {
                pair.other(change);
            }
            (Pair::all_reads(&mut pair.copier, &world), before)
        };
        let (after, before) = read(true);
        assert_eq!((&after, &before), (&read(false).0, &read(false).1), "{name}");
        assert_ne!(after, before, "{name} changes something");
    }
}

/// Sends a storage command whose value the worker receives in place.
fn upload_all(pair: &mut Pair<'_>, input: &[u8]) {
    let mut input = input.to_vec();
    input.resize(input.len().max(2_000_100), b'\n');
    let end = if input.starts_with(b"set k:1 0 0 6000") { 6000 + 20 } else { input.len() };
    let mut session = Session::new(0, 0, Parser::Undecided);
    let serve = &mut pair.other;
    serve.begin(pair.world.clock.now());
    let mut at = 0;
    while at < end {
        let next = (at + 4000).min(end);
        let mut cursor = Input { bytes: &mut input[at..next], at: 0 };
        serve.serve(&mut session, &mut cursor, &mut Reply::default(), Turn::Alone);
        assert!(cursor.at > 0, "it goes on");
        at += cursor.at;
    }
}

#[test]
fn every_end_of_an_item_ends_its_copies() {
    type Change = fn(&mut Shard);
    let cases: [(&str, Change); 6] = [
        ("flush_all", |shard| shard.store.flush_at(shard.store.now())),
        ("a planned flush_all", |shard| shard.store.flush_at(Now(shard.store.now().0 + 1))),
        ("flush_prefix", |shard| shard.store.flush_prefix(b"k:", Flush::Kill).expect("room")),
        ("flush_prefix stale", |shard| shard.store.flush_prefix(b"k:", Flush::Stale).expect("room")),
        ("removal", |shard| {
            let entry = shard.store.find(KeyHasher::seeded(3).hash(b"k:1"), b"k:1").expect("it is there");
            shard.store.remove(entry);
        }),
        ("other seconds of grace", |shard| shard.store.set_due_seconds(200)),
    ];
    for (name, change) in cases {
        let world = World::new(3, 2, 1);
        world.clock.pause();
        let mut pair = Pair::new(&world);
        pair.other(b"set k:1 0 100 1\r\n5\r\n");
        pair.copier(b"get k:1\r\n");
        assert_eq!(pair.by_copy(b"get k:1\r\n"), b"VALUE k:1 0 1\r\n5\r\nEND\r\n", "{name}");
        let mut lease = world.exchange.try_lease(0).expect("nobody has it");
        change(&mut lease);
        assert_eq!(pair.copier(b"get k:1\r\n"), b"", "{name}: the copy does not hold");
        world.give_back(lease);
    }
}

#[test]
fn a_copy_dies_with_its_item() {
    let world = World::new(3, 2, 1);
    world.clock.pause();
    let mut pair = Pair::new(&world);
    pair.other(b"set k:1 0 10 1\r\n5\r\n");
    pair.copier(b"get k:1\r\n");
    world.clock.advance(9);
    assert_eq!(pair.by_copy(b"mg k:1 t\r\n"), b"HD t1\r\n");
    world.clock.advance(1);
    assert_eq!(pair.copier(b"get k:1\r\n"), b"END\r\n");
    // Within the seconds before its deadline in which one client may get a miss.
    world.exchange.try_lease(0).expect("nobody has it").store.set_due_seconds(20);
    pair.other(b"set k:1 0 100 1\r\n5\r\n");
    (0..4).for_each(|_| _ = pair.copier(b"get k:1\r\n"));
    for (seconds, holds) in [(79, true), (1, false), (0, false)] {
        world.clock.advance(seconds);
        let lease = world.exchange.try_lease(0).expect("nobody has it");
        assert_eq!(pair.copier(b"get k:1\r\n").is_empty(), !holds, "{seconds} seconds later");
        drop(lease);
        (0..2).for_each(|_| _ = pair.copier(b"get k:1\r\n"));
    }
    // A flush that is planned.
    pair.other(b"set k:1 0 0 1\r\n5\r\n");
    let mut lease = world.exchange.try_lease(0).expect("nobody has it");
    lease.store.flush_at(Now(world.clock.now().0 + 5));
    world.give_back(lease);
    world.clock.advance(4);
    (0..4).for_each(|_| _ = pair.copier(b"get k:1\r\n"));
    assert_eq!(pair.by_copy(b"get k:1\r\n"), b"VALUE k:1 0 1\r\n5\r\nEND\r\n");
    world.clock.advance(1);
    assert_eq!(pair.copier(b"get k:1\r\n"), b"END\r\n");
}

/// A client that has sent a change and a read must not read what was there before, although the change waits for another
/// worker.
#[test]
fn a_copy_does_not_pass_operations_that_wait() {
    let world = World::new(3, 2, 1);
    let mut pair = Pair::new(&world);
    pair.other(b"set k:1 0 0 1\r\n5\r\n");
    pair.copier(b"get k:1\r\n");
    let lease = world.exchange.try_lease(0).expect("nobody has it");
    assert_eq!(pair.copier(b"get k:1\r\nset k:1 0 0 1\r\n6\r\nget k:1\r\n"), b"VALUE k:1 0 1\r\n5\r\nEND\r\n");
    pair.copier.shards.flush();
    assert_eq!(pair.copier(b"get k:1\r\n"), b"", "the batch is on its way");
    world.give_back(lease);
    let Some(Mail::Batch(batch)) = world.exchange.next_mail(0) else { panic!("the batch should be back") };
    assert_eq!(batch.reply.out.bytes(), b"STORED\r\nVALUE k:1 0 1\r\n6\r\n");
}

/// `h` of `mg`, and `fetch` of `me`, are about the item as it is now.
#[test]
fn whether_an_item_was_fetched_is_told_as_without_copies() {
    let world = World::new(3, 2, 1);
    world.clock.pause();
    let mut pair = Pair::new(&world);
    pair.other(b"set k:1 0 0 1\r\n5\r\n");
    (0..5).for_each(|_| _ = pair.copier(b"get k:1\r\n"));
    assert_eq!(pair.other(b"mg k:1 h\r\n"), b"HD h1\r\n", "before its shard was told");
    (0..5).for_each(|_| _ = pair.copier(b"get k:1\r\n"));
    pair.other(b"set k:1 0 0 1\r\n6\r\n");
    assert!(pair.copier.shards.tell_reads() > 0);
    pair.copier.shards.flush();
    assert_eq!(pair.other(b"mg k:1 h\r\n"), b"HD h0\r\n", "what was read was the item before");
}

#[test]
fn a_key_with_the_hash_of_another_has_no_copy() {
    let world = World::new(3, 2, 1);
    let mut pair = Pair::new(&world);
    pair.other(b"set k:1 0 0 1\r\n5\r\n");
    pair.copier(b"get k:1\r\n");
    let hold = |key| pair.copier.shards.copies.hold(0, key, world.clock.now());
    assert_eq!((hold(b"k:1"), hold(b"k:2")), (true, false));
}

#[test]
fn reads_of_copies_are_counted() {
    let world = World::new(3, 2, 1);
    world.clock.pause();
    let mut pair = Pair::new(&world);
    pair.other(b"set k:1 0 0 1\r\n5\r\n");
    (0..10).for_each(|_| _ = pair.copier(b"get k:1\r\n"));
    let hits = || {
        let lease = world.exchange.try_lease(0).expect("nobody has it");
        lease.store.snapshot().classes.iter().map(|class| class.counters.get_hits()).sum::<u64>()
    };
    assert_eq!(hits(), 0, "even the first read is one of a copy");
    world.clock.advance(60);
    pair.copier.begin(world.clock.now());
    assert_eq!(pair.copier.shards.tell_reads(), 10);
    pair.copier.shards.flush();
    assert_eq!(hits(), 10);
    assert_eq!(pair.other(b"me k:1\r\n").escape_ascii().to_string().split("la=").nth(1).map(|la| &la[..2]), Some("0 "));
    // The item is gone when its shard is told.
    pair.copier(b"get k:1\r\n");
    pair.other(b"delete k:1\r\n");
    assert_eq!(pair.copier.shards.tell_reads(), 1);
    pair.copier.shards.flush();
    assert_eq!(hits(), 11);
    assert_eq!(pair.copier.shards.tell_reads(), 0);
}
