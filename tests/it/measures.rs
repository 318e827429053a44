//! What the server measures beside memcached's statistics: how long requests take, which keys and prefixes they are for.

use crate::peers;
use crate::server::Server;
use crate::waiting::wait_until;
use std::collections::HashMap;

/// One kind of statistics, by name.
fn ask(server: &Server, request: &str) -> HashMap<String, String> {
    let lines = server.client().ask_list(request);
    let parts = lines.iter().map(|line| {
        let rest = line.strip_prefix("STAT ").unwrap_or_else(|| panic!("not a statistic: {line:?}"));
        rest.split_once(' ').unwrap_or_else(|| panic!("two spaces are wanted in {line:?}"))
    });
    parts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn number(statistics: &HashMap<String, String>, name: &str) -> f64 {
    let value = statistics.get(name).unwrap_or_else(|| panic!("there is no {name} in {statistics:?}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}"))
}

/// The places that `1:prefix user` and the like give to a name.
fn place(statistics: &HashMap<String, String>, field: &str, value: &str) -> Option<String> {
    let place = statistics.iter().find(|(name, other)| name.ends_with(&format!(":{field}")) && *other == value);
    place.map(|(name, _)| name.split_once(':').expect("a place").0.to_owned())
}

/// `stats latency` once these kinds have so many requests: a worker records requests after the replies have left, and one
/// kind after the other. Of a request it records the largest time last.
fn latency_with(server: &Server, kinds: &[(&str, u32)]) -> HashMap<String, String> {
    let mut latency = HashMap::new();
    wait_until(&format!("all of them count: {kinds:?}"), || {
        latency = ask(server, "stats latency");
        kinds.iter().all(|(kind, count)| {
            number(&latency, &format!("{kind}_count")) >= f64::from(*count)
                && number(&latency, &format!("{kind}_max_us")) > 0.0
        })
    });
    latency
}

/// Has the server execute all of these commands, sent at once, before it answers `mn`.
fn run(server: &Server, commands: &str) {
    let mut client = server.client();
    client.send(format!("{commands}mn\r\n"));
    while client.line().expect("a reply") != b"MN\r\n" {}
}

#[test]
fn each_operation_counts_in_its_kind() {
    for workers in ["1", "2", "4"] {
        let server = Server::corecached(&["-t", workers]);
        let mut commands = String::new();
        for at in 0..20 {
            commands += &format!("set k{at} 0 0 1\r\n1\r\nms m{at} 1\r\n1\r\nadd k{at} 0 0 1\r\n1\r\n");
            commands += &format!("get k{at} none{at} m{at}\r\ngets none{at}\r\nmg k{at} v\r\nmg none{at} v\r\n");
            commands += &format!("gat 0 k{at} none{at}\r\nincr k{at} 1\r\nma k{at}\r\ntouch k{at} 0\r\n");
            commands += &format!("delete m{at}\r\nmd none{at}\r\n");
        }
        run(&server, &commands);
        let kinds = [("get_hit", 80), ("get_miss", 80), ("set", 60), ("arithmetic", 40), ("touch", 20), ("delete", 40)];
        let latency = latency_with(&server, &kinds);
        for (kind, count) in kinds {
            let found = number(&latency, &format!("{kind}_count"));
            assert_eq!(found, f64::from(count), "{kind} with {workers} workers: {latency:?}");
            let percentiles = ["p50", "p90", "p99", "p999", "max"];
            let times = percentiles.map(|percentile| number(&latency, &format!("{kind}_{percentile}_us")));
            assert!(times.is_sorted() && times[0] > 0.0, "{kind}: {times:?}");
        }
        assert!(number(&latency, "other_count") >= 1.0 && number(&latency, "turn_count") >= 1.0);
        let histogram = ask(&server, "stats latency histogram");
        assert_eq!(number(&histogram, "set:le_inf"), 60.0);
        assert_eq!(number(&histogram, "set:le_8388608"), 60.0);
        assert_eq!(server.client().ask("stats reset"), "RESET");
        assert_eq!(number(&ask(&server, "stats latency"), "set_count"), 0.0);
    }
}

#[test]
fn a_long_value_counts_when_it_is_complete() {
    let server = Server::corecached(&["-t", "2"]);
    let mut client = server.client();
    let value = "v".repeat(300_000);
    for at in 0..4 {
        client.send(format!("set long:{at} 0 0 300000\r\n{value}\r\n"));
        client.expect("STORED\r\n");
    }
    let latency = latency_with(&server, &[("set", 4)]);
    assert_eq!(number(&latency, "set_count"), 4.0, "{latency:?}");
    let big = ask(&server, "stats bigkeys");
    let place_of = |key: &str| place(&big, "key", key);
    assert_eq!(number(&big, &format!("{}:bytes", place_of("long%3A0").expect("a big key"))), 300_000.0);
    client.ask("delete long:0");
    client.send("set long:1 0 0 1\r\n1\r\n");
    client.expect("STORED\r\n");
    let left = ask(&server, "stats bigkeys");
    assert_eq!(left.keys().filter(|name| name.ends_with(":key")).count(), 2, "{left:?}");
}

#[test]
fn with_latency_off_nothing_is_timed() {
    let server = Server::corecached(&["--no-latency", "--sample", "0"]);
    run(&server, "set a:1 0 0 1\r\n1\r\nget a:1\r\n");
    let latency = ask(&server, "stats latency");
    assert!(!latency.is_empty() && latency.values().all(|value| value.parse() == Ok(0.0)), "{latency:?}");
    assert_eq!(number(&ask(&server, "stats hotkeys"), "samples"), 0.0);
}

/// The clock of a latency is the real one, so this is the one test in which time passes.
#[test]
fn a_stall_shows_in_the_kinds_that_wait_for_it() {
    if !cfg!(feature = "debug-commands") {
        return peers::say_skipped("a worker is stalled by a feature that is not built: debug-commands");
    }
    let server = Server::corecached(&["-t", "1", "--slow-log", "5"]);
    run(&server, "set user:1 0 0 1\r\n1\r\n");
    for _ in 0..100 {
        run(&server, "set user:1 0 0 1\r\n1\r\n");
    }
    // Only what came with the stall waited for it.
    run(&server, "get user:1 user:2\r\ndebugstall 6\r\ndelete user:2\r\n");
    let latency = latency_with(&server, &[("delete", 1)]);
    for (name, is_slow) in [
        ("get_hit_max_us", true),
        ("get_miss_p50_us", true),
        ("delete_p999_us", true),
        ("other_max_us", true),
        ("turn_max_us", true),
        // Half of them: on a busy machine some may wait for a processor.
        ("set_p50_us", false),
    ] {
        assert_eq!(number(&latency, name) >= 5000.0, is_slow, "{name}: {latency:?}");
    }
    let slow = ask(&server, "stats slow");
    let place = place(&slow, "command", "get").expect("the slow request");
    let field = |name: &str| slow[&format!("{place}:{name}")].clone();
    assert_eq!((field("key"), field("operations")), ("user%3A1".to_owned(), "5".to_owned()));
    assert!(field("service_us").parse::<u64>().expect("a number") >= 6000, "{slow:?}");
    assert!(number(&latency, "slow_requests") >= 1.0);
}

/// The slow log compares counters that the reset of another worker sets back meanwhile.
#[test]
fn a_reset_during_a_slow_request_does_no_harm() {
    if !cfg!(feature = "debug-commands") {
        return peers::say_skipped("a worker is stalled by a feature that is not built: debug-commands");
    }
    let server = Server::corecached(&["-t", "2", "--slow-log", "5"]);
    let (mut stalled, mut other) = (server.client(), server.client());
    // Both have written something before.
    for client in [&mut stalled, &mut other] {
        client.send("get none\r\n");
        client.expect("END\r\n");
    }
    stalled.send("debugstall 200\r\n");
    other.send("stats reset\r\n");
    stalled.expect("OK\r\n");
    other.expect("RESET\r\n");
    wait_until("the stall was slow", || number(&ask(&server, "stats latency"), "slow_requests") >= 1.0);
    assert_eq!(stalled.ask("mn"), "MN");
}

#[test]
fn a_planted_key_is_found_and_a_rare_one_is_not() {
    let server = Server::corecached(&["--sample", "2"]);
    let mut commands = "set user:hot 0 0 1\r\n1\r\nset user:rare 0 0 1\r\n1\r\n".to_owned();
    for at in 0..40_000 {
        let key = match at % 1000 {
            0..30 => "user:hot".to_owned(),
            30 => "user:rare".to_owned(),
            _ => format!("user:{at}"),
        };
        commands += &format!("get {key}\r\n");
    }
    run(&server, &commands);
    let hot = ask(&server, "stats hotkeys");
    assert_eq!(hot.get("1:key").map(String::as_str), Some("user%3Ahot"), "{hot:?}");
    let share = number(&hot, "1:share_percent");
    assert!((2.4..=3.6).contains(&share), "{hot:?}");
    // The key was set once.
    assert!(number(&hot, "1:hit_percent") == 100.0 && number(&hot, "1:read_percent") > 99.0, "{hot:?}");
    assert!(!hot.contains_key("2:key"), "{hot:?}");
    let by_bytes = ask(&server, "stats hotkeys bytes");
    assert_eq!(by_bytes.get("1:key").map(String::as_str), Some("user%3Ahot"), "{by_bytes:?}");
    assert_eq!(server.client().ask("stats hotkeys names"), "CLIENT_ERROR usage: stats hotkeys [bytes|peaks]");
    server.client().ask("stats reset");
    assert!(!ask(&server, "stats hotkeys").contains_key("1:key"));
}

#[test]
fn prefixes_have_their_hit_rates_and_lifetimes() {
    let server = Server::corecached(&["-t", "2", "--sample", "1"]);
    let mut commands = String::new();
    for at in 0..900 {
        commands += &format!("set good:{at} 0 0 10\r\n0123456789\r\n");
    }
    for at in 0..400 {
        commands += &format!("set half:{at} 0 600 20\r\n01234567890123456789\r\n");
    }
    run(&server, &commands);
    let mut commands = String::new();
    for at in 0..1000 {
        commands += &format!("get good:{at}\r\nget half:{}\r\nget gone:{at}\r\nget plain{at}\r\n", at % 800);
    }
    run(&server, &commands);
    let prefixes = ask(&server, "stats prefixes");
    assert_eq!(prefixes["0:prefix"], "other");
    for (prefix, hit_percent, gets, sets, ttl_none, value_bytes) in [
        ("good", 90.0, 1000.0, 900.0, Some(100.0), Some(10.0)),
        ("half", 60.0, 1000.0, 400.0, Some(0.0), Some(20.0)),
        ("gone", 0.0, 1000.0, 0.0, None, None),
        ("other", 0.0, 1000.0, 0.0, None, None),
    ] {
        let place = place(&prefixes, "prefix", prefix).unwrap_or_else(|| panic!("no {prefix} in {prefixes:?}"));
        let field = |name: &str| prefixes.get(&format!("{place}:{name}")).map(|value| value.parse().expect("a number"));
        // Workers that meet a shard in use by another one leave the outcome open.
        let hits: f64 = field("hit_percent").expect("some outcomes are known");
        assert!((hits - hit_percent).abs() <= 3.0, "{prefix}: {hits} %");
        assert_eq!((field("gets"), field("sets")), (Some(gets), Some(sets)), "{prefix}");
        assert_eq!((field("ttl_none_percent"), field("value_mean_bytes")), (ttl_none, value_bytes), "{prefix}");
    }
}

#[test]
fn keys_can_be_hidden() {
    for flag in ["--hide-keys", "-X"] {
        let server = Server::corecached(&["--sample", "1", flag]);
        run(&server, &"get user:secret\r\n".repeat(100));
        let hot = ask(&server, "stats hotkeys");
        let key = &hot["1:key"];
        assert!(key.starts_with("user%3A%23") && !key.contains("secret"), "{flag}: {hot:?}");
    }
}

#[test]
fn samples_see_every_protocol() {
    let server = Server::corecached(&["--sample", "1"]);
    run(&server, &"mg meta:1\r\n".repeat(50));
    run(&server, &"mg YmFzZTp4 b\r\n".repeat(50));
    let mut client = server.client();
    let get = [&[0x80, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8][..], &[0; 12], b"binary:1"].concat();
    for _ in 0..50 {
        client.send(&get);
        client.bytes(24 + "Not found".len()).expect("a reply");
    }
    let hot = ask(&server, "stats hotkeys");
    for key in ["meta%3A1", "base%3Ax", "binary%3A1"] {
        assert!(place(&hot, "key", key).is_some(), "no {key} in {hot:?}");
    }
    let prefixes = ask(&server, "stats prefixes");
    assert!(place(&prefixes, "prefix", "binary").is_some(), "{prefixes:?}");
}
