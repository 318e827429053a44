//! Rules for the time to live (`--ttl`), as clients see them. The clock is moved, and nothing waits.

use super::*;
use crate::ttl::{TtlRule, TtlRules};

const WORKERS: usize = 4;

fn rule(prefix: &str, [jitter_percent, default_seconds, max_seconds, early_seconds]: [u32; 4]) -> TtlRule {
    TtlRule { prefix: prefix.as_bytes().into(), jitter_percent, default_seconds, max_seconds, early_seconds }
}

/// A server with rules. Its clock stands still until a test moves it.
fn world(rules: &[TtlRule]) -> World {
    let world = World::new(7, WORKERS, 1);
    world.clock.pause();
    if let Some(rules) = TtlRules::new(rules) {
        let mut lease = world.exchange.try_lease(0).expect("nobody has it");
        lease.set_ttl_rules(Arc::new(rules));
        world.give_back(lease);
    }
    world
}

impl World {
    /// Sends lines on a new connection of a worker and returns the replies, with `|` for the ends of lines.
    fn ask_by(&self, worker: usize, lines: &str) -> String {
        let mut input = lines.replace(" | ", "\r\n").into_bytes();
        input.extend(b"\r\n");
        self.send(worker, &mut input).out.bytes().escape_ascii().to_string().replace("\\r\\n", "|")
    }

    fn send(&self, worker: usize, input: &mut [u8]) -> Reply {
        let (mut serve, mut session) = (self.serve(worker, LIMITS), Session::new(0, 0, Parser::Undecided));
        let (mut input, mut output) = (Input { bytes: input, at: 0 }, Reply::default());
        serve.begin(self.clock.now());
        let served = serve.serve(&mut session, &mut input, &mut output, Turn::Alone);
        assert_eq!((served, input.at), (Served::Drained, input.bytes.len()), "all of it is served");
        output
    }

    fn ask(&self, lines: &str) -> String {
        self.ask_by(0, lines)
    }

    /// Holds a conversation. `+n` moves the clock by n seconds; anything else is asked, and the reply must come.
    #[track_caller]
    fn hold(&self, steps: &[(&str, &str)]) {
        for (number, (lines, expected)) in steps.iter().enumerate() {
            if let Some(seconds) = lines.strip_prefix('+') {
                self.clock.advance(seconds.parse().expect("a number"));
            } else {
                assert_eq!(self.ask(lines), *expected, "step {number}: {lines}");
            }
        }
    }

    /// The fetches that got an early miss, and all that missed.
    fn misses(&self) -> (u64, u64) {
        let lease = self.exchange.try_lease(0).expect("nobody has it");
        let counters = lease.store.counters;
        self.give_back(lease);
        (counters.get_early, counters.get_misses)
    }

    /// Sends a packet, and returns the status of the reply; `None` if there is no reply.
    fn ask_packet(&self, opcode: u8, extras: &[u8], value: &[u8]) -> Option<Status> {
        let mut packet = request_packet(Head { opcode, opaque: 0 }, extras, "k", value);
        let reply = self.send(0, &mut packet);
        let status = reply.out.bytes().get(6..8)?;
        Some(Status(u16::from_be_bytes([status[0], status[1]])))
    }
}

const HIT: &str = "VALUE k 0 1|v|END|";
const MISS: &str = "END|";
/// The item `k`, with a time to live of 100 seconds, and early misses in the last ten.
const STORE: (&str, &str) = ("set k 0 100 1 | v", "STORED|");

fn early() -> World {
    world(&[rule("", [0, 0, 0, 10])])
}

#[test]
fn every_command_that_sets_a_deadline_follows_the_rules() {
    let lives = |rules: &[TtlRule], lines: &str| {
        let world = world(rules);
        world.ask("set old 0 0 1 | 1");
        world.ask(lines);
        let reply = world.ask(if lines.contains(" new ") { "mg new t" } else { "mg old t" });
        // Marks of the meta commands may follow.
        reply.trim_start_matches("HD t").split([' ', '|']).next().expect("a number").to_owned()
    };
    // An exptime of 0, and one of 500, with the key of either item.
    for (with_none, with_500) in [
        ("set new 0 0 1 | v", "set new 0 500 1 | v"),
        ("set old 0 0 1 | v", "set old 0 500 1 | v"),
        ("add new 0 0 1 | v", "add new 0 500 1 | v"),
        ("replace old 0 0 1 | v", "replace old 0 500 1 | v"),
        ("set new 0 0 1 | v | gets new | cas new 0 0 1 1 | w", "set new 0 500 1 | v"),
        ("touch old 0", "touch old 500"),
        ("gat 0 old", "gat 500 old"),
        ("gats 0 old", "gats 500 old"),
        ("ms new 1 | v", "ms new 1 T500 | v"),
        ("ms new 1 T0 MA N0 | v", "ms new 1 MA N500 | v"),
        ("mg new N0", "mg new N500"),
        ("mg old T0", "mg old T500"),
        ("ma new N0", "ma new N500"),
        ("ma old T0", "ma old T500"),
        ("md old I T0", "md old I T500"),
        ("md old x", "md old x T500"),
    ] {
        assert_eq!(lives(&[], with_none), "-1", "{with_none}");
        assert_eq!(lives(&[], with_500), "500", "{with_500}");
        assert_eq!(lives(&[rule("", [0, 77, 0, 0])], with_none), "77", "{with_none}");
        assert_eq!(lives(&[rule("", [0, 77, 0, 0])], with_500), "500", "{with_500}");
        assert_eq!(lives(&[rule("", [0, 0, 99, 0])], with_none), "99", "{with_none}");
        assert_eq!(lives(&[rule("", [0, 0, 99, 0])], with_500), "99", "{with_500}");
        let jittered: u32 = lives(&[rule("", [80, 0, 0, 0])], with_500).parse().expect("a number");
        assert!((100..500).contains(&jittered), "{with_500}: {jittered}");
        assert_eq!(lives(&[rule("other", [80, 77, 0, 0])], with_none), "-1", "{with_none}");
    }
}

#[test]
fn commands_that_keep_the_deadline_keep_it() {
    let world = world(&[rule("", [90, 60, 0, 0])]);
    let exptime = world.clock.unix(world.clock.now()) + 5000;
    assert_eq!(world.ask(&format!("set k 0 {exptime} 1 | 1")), "STORED|");
    let left = "HD t5000|";
    for lines in ["append k 0 9 1 | 2", "prepend k 0 9 1 | 2", "incr k 999999", "decr k 3", "ms k 1 MA | 4", "get k"] {
        world.ask(lines);
        assert_eq!(world.ask("mg k t"), left, "{lines}");
    }
    assert_eq!(world.ask("set k 0 -1 1 | v | get k"), "STORED|END|");
}

#[test]
fn packets_follow_the_rules() {
    let world = world(&[rule("", [0, 77, 99, 0])]);
    let with_exptime = |flags: &[u8], exptime: u32| [flags, &exptime.to_be_bytes()].concat();
    let left = |expected: &str| assert_eq!(world.ask("mg k t"), expected);
    for (exptime, expected) in [(0, "HD t77|"), (50, "HD t50|"), (500, "HD t99|")] {
        world.ask_packet(opcode::SET, &with_exptime(&[0; 4], exptime), b"v").expect("a reply");
        left(expected);
        for touch in [opcode::TOUCH, opcode::GAT, opcode::GATK] {
            world.ask_packet(touch, &with_exptime(&[], 60), b"").expect("a reply");
            left("HD t60|");
            world.ask_packet(touch, &with_exptime(&[], exptime), b"").expect("a reply");
            left(expected);
        }
        world.ask("delete k");
        world.ask_packet(opcode::INCREMENT, &with_exptime(&[0; 16], exptime), b"").expect("a reply");
        left(expected);
    }
}

#[test]
fn long_values_follow_the_rules() {
    let world = world(&[rule("", [0, 77, 0, 10])]);
    let mut line = world.site(0, &mut Random(1));
    let value = "v".repeat(LONG);
    let client = Client {
        number: 0,
        input: format!("set k 0 0 {LONG}\r\n{value}\r\n").into_bytes(),
        sent: 0,
        expected: b"STORED\r\n".to_vec(),
        received: Vec::new(),
    };
    line.lines = vec![Line { client, session: Session::new(0, 0, Parser::Undecided), input: Vec::new() }];
    let mut random = Random(1);
    while !line.is_finished() {
        line.turn(&mut random);
    }
    line.check(1);
    assert_eq!(world.ask("mg k t s"), format!("HD t76 s{LONG}|"), "early misses take a second");
    world.clock.advance(70);
    assert_eq!(world.ask("get k"), MISS);
    let reply = world.send(0, &mut b"get k\r\n".to_vec());
    assert!(reply.len() > LONG, "the second client gets the value");
}

/// A hundred clients of four workers ask at the same time, while yet another worker has the shard or not. Returns how many
/// of them missed.
fn hundred_clients(world: &World, is_leased: bool) -> usize {
    let World { exchange, clock, .. } = world;
    let mut other = is_leased.then(|| exchange.try_lease(0).expect("nobody has it"));
    // One batch has room for the requests of all clients of a worker.
    let limits = ServeLimits { batch_bytes_max: 1 << 20, ..LIMITS };
    let mut serves: Vec<Serve<'_>> = (0..WORKERS).map(|worker| world.serve(worker, limits)).collect();
    let mut clients: Vec<_> = (0..100)
        .map(|client| (client % WORKERS, Session::new(client, 0, Parser::Undecided), Reply::default()))
        .collect();
    for (worker, session, reply) in &mut clients {
        let serve = &mut serves[*worker];
        serve.begin(clock.now());
        serve.serve(session, &mut Input { bytes: &mut b"get k\r\n".to_vec(), at: 0 }, reply, Turn::Shared);
    }
    serves.iter_mut().for_each(|serve| serve.shards.flush());
    if let Some(lease) = other.take() {
        world.give_back(lease);
    }
    for (worker, serve) in serves.iter_mut().enumerate() {
        while let Some(mail) = exchange.next_mail(worker) {
            let Mail::Batch(batch) = mail else { panic!("unexpected mail {mail:?}") };
            serve.shards.returned(batch);
        }
        while let Some(mut batch) = serve.shards.next_done() {
            for (task, origin, reply) in batch.replies() {
                let origin = origin.expect("a get has an origin");
                let (_, session, output) = &mut clients[origin.token];
                serve.shards.deliver(session, task, origin.slot, reply);
                session.pending.move_to(output);
            }
            serve.shards.recycle(batch);
        }
    }
    let misses = clients.iter().filter(|(_, _, reply)| match reply.out.bytes() {
        b"END\r\n" => true,
        b"VALUE k 0 1\r\nv\r\nEND\r\n" => false,
        other => panic!("{}", other.escape_ascii()),
    });
    misses.count()
}

#[test]
fn of_a_hundred_clients_one_gets_an_early_miss() {
    for is_leased in [false, true] {
        let world = early();
        for life in 1..=3 {
            world.hold(&[STORE, ("+88", "")]);
            assert_eq!(hundred_clients(&world, is_leased), 0, "11 or 12 seconds are left");
            for _ in 0..9 {
                world.clock.advance(1);
                hundred_clients(&world, is_leased);
            }
            assert_eq!(world.misses(), (life, life), "2 or 3 seconds are left");
        }
        // The last one does not come back.
        world.clock.advance(3);
        assert_eq!(hundred_clients(&world, is_leased), 100);
        assert_eq!(world.misses(), (3, 103));
    }
}

#[test]
fn without_rules_nobody_gets_an_early_miss() {
    let world = world(&[]);
    world.hold(&[STORE, ("+99", ""), ("get k", HIT), ("get k", HIT), ("+1", ""), ("get k", MISS)]);
}

#[test]
fn an_early_miss_is_for_the_keys_of_its_rule() {
    let world = world(&[rule("p:", [0, 0, 0, 10]), rule("p:q:", [0, 0, 90, 20])]);
    world.hold(&[
        STORE,
        ("set p:k 0 100 1 | v", "STORED|"),
        ("set p:q:k 0 100 1 | v", "STORED|"),
        ("+75", ""),
        ("get k p:k p:q:k", "VALUE k 0 1|v|VALUE p:k 0 1|v|END|"),
        ("+20", ""),
        ("get k p:k p:k", "VALUE k 0 1|v|VALUE p:k 0 1|v|END|"),
    ]);
}

#[test]
fn short_lives_and_unlimited_ones_have_no_early_miss() {
    for exptime in [0, 1, 2, 5, 10, 19] {
        let world = early();
        let store = format!("set k 0 {exptime} 1 | v");
        assert_eq!(world.ask(&store), "STORED|");
        for _ in 1..exptime.max(2) - 1 {
            assert_eq!(world.ask("get k"), HIT, "{store}");
            world.clock.advance(1);
        }
        assert_eq!(world.misses(), (0, 0), "{store}");
    }
}

#[test]
fn a_fetch_of_any_plain_command_may_get_the_early_miss() {
    for fetch in ["get k", "gets k"] {
        let world = early();
        world.hold(&[STORE, ("+95", ""), (fetch, MISS), ("get k", HIT)]);
    }
    for fetch in [opcode::GET, opcode::GETK, opcode::GETQ] {
        let world = early();
        world.hold(&[STORE, ("+95", "")]);
        let miss = (fetch != opcode::GETQ).then_some(Status::NOT_FOUND);
        assert_eq!(world.ask_packet(fetch, b"", b""), miss);
        assert_eq!(world.ask_packet(fetch, b"", b""), Some(Status::SUCCESS));
        assert_eq!(world.misses(), (1, 1));
    }
}

#[test]
fn a_store_begins_a_new_life() {
    for store in
        ["set k 0 100 1 | v", "replace k 0 100 1 | v", "ms k 1 T100 | v", "ms k 1 T100 E99 | v", "ms k 1 T100 MR | v"]
    {
        let world = early();
        world.hold(&[STORE, ("+95", ""), ("get k", MISS)]);
        world.ask(store);
        world.hold(&[("get k", HIT), ("+85", ""), ("get k", HIT), ("+10", ""), ("get k", MISS), ("get k", HIT)]);
    }
    // An item that a fetch has missed is there for all other commands.
    early().hold(&[STORE, ("+95", ""), ("get k", MISS), ("add k 0 100 1 | w", "NOT_STORED|"), ("get k", HIT)]);
    // Whoever fetched it before may store by its CAS value, and the one that missed stores over it.
    let world = early();
    let gets = world.ask("set k 0 100 1 | v | gets k");
    let cas = gets.split(['|', ' ']).nth(5).expect("a CAS value").to_owned();
    world.hold(&[("+95", ""), ("get k", MISS), (&format!("cas k 0 100 1 {cas} | v"), "STORED|"), ("get k", HIT)]);
    world.hold(&[("+95", ""), ("get k", MISS), (&format!("cas k 0 100 1 {cas} | v"), "EXISTS|"), ("get k", HIT)]);
}

#[test]
fn a_touch_begins_a_new_life() {
    for (touch, reply) in [("touch k 100", "TOUCHED|"), ("gat 100 k", HIT), ("mg k T100", "HD Z|")] {
        let world = early();
        world.hold(&[STORE, ("+95", ""), ("get k", MISS), (touch, reply)]);
        world.hold(&[("get k", HIT), ("+88", ""), ("get k", HIT), ("+5", ""), ("get k", MISS), ("get k", HIT)]);
    }
    // A fetch that touches gets the value, and leaves the early miss of the new life to others.
    early().hold(&[STORE, ("+95", ""), ("gat 100 k", HIT), ("get k", HIT), ("+95", ""), ("get k", MISS)]);
}

#[test]
fn the_meta_commands_share_one_winner_with_early_misses() {
    // They get no early miss, and see that another client is storing.
    early().hold(&[STORE, ("+95", ""), ("mg k v", "VA 1|v|"), ("get k", MISS), ("mg k v", "VA 1 Z|v|")]);
    early().hold(&[STORE, ("+95", ""), ("get k", MISS), ("mg k R30", "HD Z|"), ("get k", HIT)]);
    early().hold(&[STORE, ("+95", ""), ("mg k R30", "HD W|"), ("get k", HIT), ("mg k R30", "HD Z|")]);
}

#[test]
fn the_time_of_recaching_is_what_the_client_says() {
    let world = world(&[rule("", [90, 10, 2000, 0])]);
    for key in 0..50 {
        let reply = world.ask(&format!("set k{key} 0 1000 1 | v | mg k{key} t"));
        let left: u32 = reply.trim_start_matches("STORED|HD t").trim_end_matches('|').parse().expect("a number");
        assert_eq!(world.ask(&format!("mg k{key} R{left}")), "HD|", "{left}");
        assert_eq!(world.ask(&format!("mg k{key} R{}", left + 1)), "HD W|", "{left}");
    }
}

#[test]
fn stale_items_have_no_early_miss() {
    let (invalidate, w) = (("md k I T100", "HD|"), ("mg k v", "VA 1 X W|v|"));
    early().hold(&[STORE, invalidate, ("+95", ""), ("get k", HIT), ("get k", HIT), w, ("mg k v", "VA 1 Z X|v|")]);
    // An item that becomes stale after its early miss has a winner of its own, and a new value has no past.
    early().hold(&[STORE, ("+95", ""), ("get k", MISS), ("md k I", "HD|"), w, ("get k", HIT)]);
    early().hold(&[STORE, invalidate, w, STORE, ("+95", ""), ("get k", MISS), ("get k", HIT)]);
    // A stale value that lost its race (`I` with an old CAS value) is stale, too.
    early().hold(&[
        ("ms k 1 T100 E50 | v", "HD|"),
        ("ms k 1 T100 I C40 | v", "HD|"),
        ("+95", ""),
        ("get k", HIT),
        ("mg k v", "VA 1 X W|v|"),
    ]);
}
