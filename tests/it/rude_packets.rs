//! Rude clients that send packets: with false lengths, with bodies that never come, with random bytes. As in
//! `rude_clients.rs`, the server must serve the other clients meanwhile, in bounded memory.

use crate::packet::{Packet, request};
use crate::rude_clients::{Host, Random};

#[test]
fn one_that_sends_a_byte_at_a_time() {
    let mut host = Host::with_memory(64);
    let mut slow = host.client();
    let requests =
        ["set key=a flags=7 exp=0 val=hello", "0x99 key=k val=unknown", "getk key=a", "append key=a val=x", "noop"];
    for byte in requests.map(request).concat() {
        slow.send([byte]);
    }
    let replies: Vec<String> =
        (0..5).map(|_| Packet::receive(&mut slow).expect("a reply").expect("a packet").shown()).collect();
    assert!(replies[0].starts_with("set cas="), "{replies:#?}");
    assert_eq!(replies[1], "0x99 status=0x81 val=\"Unknown command\"");
    assert!(replies[2].starts_with("getk ext=00000007 key=\"a\" val=\"hello\" cas="), "{replies:#?}");
    assert_eq!(replies[4], "noop");
    host.assert_unharmed();
}

#[test]
fn some_that_lie_about_lengths() {
    let mut host = Host::with_memory(64);
    let lies =
        ["", "keylen=0", "keylen=2", "keylen=250", "keylen=251", "keylen=65535", "extlen=0", "extlen=8", "extlen=255"];
    let bodies =
        ["", "bodylen=0", "bodylen=1", "bodylen=30", "bodylen=2000000", "bodylen=0x7fffffff", "bodylen=0xffffffff"];
    for opcode in (0..0x28).chain([0x50, 0xff]) {
        for lie in lies {
            for body in bodies {
                let mut rude = host.client();
                let words = [format!("{opcode:#04x} key=k flags=0 exp=0 val=value"), lie.into(), body.into()];
                let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
                let _ = rude.try_send(&[request(&words.join(" ")), request("noop")].concat());
                rude.finish_sending_if_open();
                // The server answers in packets or not at all, and closes the connection.
                let replies = rude.rest().unwrap_or_else(|silence| panic!("to {words:?}: {silence:?}"));
                assert!(replies.is_empty() || replies[0] == 0x81, "to {words:?}: {}", replies.escape_ascii());
            }
        }
    }
    host.assert_unharmed();
}

#[test]
fn some_that_announce_a_huge_body_and_send_little_of_it() {
    let mut host = Host::with_memory(64);
    let mut rude = Vec::new();
    for i in 0..200 {
        let mut client = host.client();
        // The server reads the first value into its item. It discards the second one (too large) and the third one
        // (unknown command). It refuses the fourth request.
        client.send(request(&match i % 4 {
            0 => format!("set key=key{i} flags=0 exp=0 bodylen=900000"),
            1 => format!("setq key=key{i} flags=0 exp=0 bodylen=0x3fffffff"),
            2 => "0x77 bodylen=0x3fffffff".to_owned(),
            _ => format!("append key=key{i} bodylen=0xffffffff"),
        }));
        rude.push(client);
    }
    for round in 0..20 {
        for client in &mut rude {
            let _ = client.try_send(b"xxxxxxxxxx");
        }
        let mut polite = host.client();
        polite.send(request("set key=small flags=0 exp=0 val=y"));
        assert!(Packet::receive(&mut polite).is_ok_and(|reply| reply.is_ok()), "round {round}");
    }
    host.assert_memory_is_bounded();
    drop(rude);
    host.assert_unharmed();
}

#[test]
fn some_that_keep_a_key_for_themselves() {
    // Each client sends a packet without its last byte. The packet has the longest key and a long value.
    let mut host = Host::with_memory(64);
    let words = format!("set key={} flags=0 exp=0 val={}", "k".repeat(250), "v".repeat(8000));
    let packet = request(&words);
    let rude: Vec<_> = (0..500)
        .map(|_| {
            let mut client = host.client();
            client.send(&packet[..packet.len() - 1]);
            client
        })
        .collect();
    host.assert_unharmed();
    drop(rude);
}

#[test]
fn one_that_asks_everything_before_it_reads_anything() {
    const REQUESTS: u32 = 60_000;
    let mut host = Host::with_memory(64);
    let mut rude = host.client();
    rude.send(request(&format!("set key=big flags=0 exp=0 val={}", "v".repeat(3000))));
    Packet::receive(&mut rude).expect("a reply").expect("a packet");
    let mut requests = Vec::new();
    for i in 0..REQUESTS {
        requests.extend(request(&match i % 3 {
            0 => format!("get key=big opaque={i}"),
            1 => format!("getkq key=none opaque={i}"),
            _ => format!("getk key=none opaque={i}"),
        }));
    }
    let sent = rude.send_without_waiting(&requests);
    host.assert_memory_is_bounded();
    let mut sender = rude.second_handle();
    let rest = requests.split_off(sent);
    let sending = std::thread::spawn(move || sender.send(rest));
    for i in (0..REQUESTS).filter(|i| i % 3 != 1) {
        let reply = Packet::receive(&mut rude).expect("a reply").expect("a packet");
        assert_eq!((reply.opaque, reply.value.len()), (i, if i % 3 == 0 { 3000 } else { 0 }));
    }
    sending.join().expect("everything could be sent");
    host.assert_unharmed();
}

#[test]
fn some_that_talk_nonsense() {
    let mut host = Host::with_memory(16);
    for seed in 0..80 {
        let mut random = Random(seed);
        let mut rude = host.client();
        let _ = rude.try_send(&nonsense(&mut random));
        rude.finish_sending_if_open();
        assert!(rude.rest().is_ok(), "seed {seed}: the server neither answers nor closes");
        host.server.assert_alive();
    }
    host.assert_unharmed();
}

/// Valid packets. In a few of them one byte is changed.
fn nonsense(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < 20_000 {
        let key = ["a", "b", "counter", "a-longer-key"][random.below(4)];
        let opaque = random.below(1000);
        let mut packet = request(&match random.below(12) {
            0 | 1 => format!("set key={key} flags=1 exp={} val={}", random.below(100), "v".repeat(random.below(3000))),
            2 => format!("getkq key={key} opaque={opaque}"),
            3 => format!("gat key={key} exp=100 opaque={opaque}"),
            4 => format!("incr key=counter delta=5 initial=1 exp={}", random.below(2)),
            5 => format!("deleteq key={key} cas={}", random.below(3)),
            6 => format!("append key={key} val=more"),
            7 => format!("stat key={}", ["", "items", "slabs", "settings", "reset", "detail on"][random.below(5)]),
            8 => format!("touch key={key} exp=10"),
            9 => format!("{:#04x} key={key} val=what", random.below(256)),
            10 => format!("add key={key} flags=0 exp=0 val={}", "w".repeat(random.below(20_000))),
            _ => format!("noop opaque={opaque}"),
        });
        if random.below(20) == 0 {
            let at = random.below(packet.len());
            packet[at] = random.below(256) as u8;
        }
        bytes.extend(packet);
    }
    bytes
}
