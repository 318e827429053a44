//! Combinations of memory flags, lengths of values, and commands of all protocols. Flags and length together determine
//! the layout of an item in memory, and no client may notice the layout. corecached must reply as memcached 1.6.45
//! does, which also decides which values are too large.
//!
//! `CORECACHED_COMBINATIONS=100` tries 100 more command lines with random flags. `CORECACHED_SEED=…` starts with other
//! ones.

use std::collections::BTreeSet;
use std::ffi::OsString;

use corecached::config::Config;
use corecached::store::PIN_LEN_MIN;
use corecached::store::arena::page_size;
use corecached::store::item::{BODY_HEADER, LARGE_EXTENSION};
use corecached::store::slab::{SlabOptions, chunk_sizes};

use crate::client::shown;
use crate::packet;
use crate::peers;
use crate::server::{Program, Server};

/// All but the first two have small items, so that the test quickly tries all lengths around their limits.
const COMMAND_LINES: &[&str] = &[
    "-m 64",
    "-o slab_chunk_max=4",
    "-I 64k -o slab_chunk_max=1",
    "-I 64k -o slab_chunk_max=2 -C",
    "-I 128k -o slab_chunk_max=8",
    "-I 192k -o slab_chunk_max=64 -C",
    "-I 1k -o slab_chunk_max=1",
    "-I 8k -o slab_chunk_max=4",
    "-I 24k -o slab_chunk_max=8 -n 5 -C",
    "-I 128k -m 2 -f 3 -n 2000 -o slab_chunk_max=128",
    "-I 64k -f 1.01 -n 1 -o slab_chunk_max=32",
    "-I 64k -f 1000000 -o slab_chunk_max=16",
    "-I 64k -n 100000 -o slab_chunk_max=4",
    "-I 64k -o slab_sizes=100-200-1000-4000,slab_chunk_max=4",
    "-I 128k -o slab_sizes=60-5000-70000,slab_chunk_max=128",
    "-I 64k -m 40000 -o slab_chunk_max=1",
    "-I 64k -M -o slab_chunk_max=4,no_modern",
];

/// The test looks at this many class limits of a command line, of up to 63.
const CLASSES: usize = 6;
/// The size of a worker's input buffer, and the longest value that the worker reads there. See `Config`.
const BUFFERS: [usize; 2] = [8 << 10, 64 << 10];

/// A small random generator. A failure message shows the flags that it made.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<'a>(&mut self, some: &[&'a str]) -> &'a str {
        some[self.below(some.len())]
    }
}

/// Random memory flags, with which both servers start.
fn flags_by_chance(random: &mut Random) -> String {
    let chunk_max = [1, 2, 4, 8, 16, 32, 64, 128, 256][random.below(9)];
    let item_max = chunk_max * (1 + random.below(64 / chunk_max + 1));
    // With less memory, each of the two servers runs out of it in its own way.
    let mut flags = format!("-I {item_max}k -o slab_chunk_max={chunk_max} -m {}", [16, 64, 1024][random.below(3)]);
    if chunk_max > 1 && random.below(4) == 0 {
        flags += random.of(&[" -o slab_sizes=100-500-1500", " -o slab_sizes=64-80-96-1024", " -o slab_sizes=2000"]);
    } else {
        flags += random.of(&["", " -n 1", " -n 100", " -n 900", " -n 3000"]);
    }
    for some in [
        &["", "", " -f 1.05", " -f 1.5", " -f 2", " -f 30"][..],
        &["", "", " -C"],
        &["", "", " -M"],
        &["", "", " -o no_modern", " -o no_slab_reassign", " -o slab_automove=2", " -o slab_automove=0"],
    ] {
        flags += random.of(some);
    }
    flags
}

/// Lengths of values around each length at which the layout of an item changes, in corecached and in memcached.
fn lengths(config: &Config, key_len: usize, client_flags: u32) -> BTreeSet<usize> {
    let header = if config.memory.cas_enabled { 28 } else { 20 };
    let options = SlabOptions {
        growth_factor: config.memory.growth_factor,
        size_min: config.memory.chunk_size_min as usize,
        chunk_max: config.memory.chunk_max_bytes as usize,
        sizes: config.memory.slab_sizes.clone(),
    };
    let ours = header + key_len + if client_flags == 0 { 0 } else { 4 };
    let memcacheds = ours + 28 + 1 + 2;
    let classes = &chunk_sizes(&options, header, page_size(config.memory.limit_bytes), 8);
    let (every, rest) = (classes.len().div_ceil(CLASSES), classes.len().saturating_sub(2));
    let mut borders: Vec<usize> = Vec::new();
    borders.extend(
        classes
            .iter()
            .enumerate()
            .filter(|(at, _)| at % every == 0 || *at >= rest)
            .map(|(_, &size)| size as usize - ours.min(size as usize)),
    );
    borders.extend([0, 1, 2, 20, PIN_LEN_MIN, usize::from(u16::MAX)]);
    borders.extend(BUFFERS);
    // A large item has a head and bodies of the largest chunk, and a last body that fits.
    let chunk = classes[classes.len() - 1] as usize;
    let (head, body) = (chunk - ours - LARGE_EXTENSION, chunk - BODY_HEADER);
    let whole = [0, 1, 3, 4].map(|bodies| head + bodies * body);
    borders.extend(whole);
    borders.extend([classes[0], classes[classes.len() / 2]].map(|last| whole[1] + last as usize - BODY_HEADER));
    let memcacheds = [config.memory.chunk_max_bytes, config.memory.item_size_max, 2 * config.memory.chunk_max_bytes]
        .map(|size| (size as usize).saturating_sub(memcacheds));
    borders.extend(memcacheds);
    let longest = memcacheds[1] + 2;
    borders.into_iter().flat_map(|at| at.saturating_sub(1)..=at + 1).filter(|&len| len <= longest).collect()
}

/// A value that shows if bytes are missing or come from another place.
fn value(len: usize) -> String {
    let mut text: String =
        (0..997).map(|at| char::from(b'a' + (at % 26) as u8)).collect::<String>().repeat(len / 997 + 1);
    text.truncate(len);
    text
}

/// A number followed by spaces.
fn number(len: usize) -> String {
    let mut text = "17".to_owned() + &" ".repeat(len);
    text.truncate(len);
    text
}

fn in_text(key: &str, client_flags: u32, len: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut say = |line: &str, value: Option<&str>| {
        text += line;
        text += "\r\n";
        if let Some(value) = value {
            text += value;
            text += "\r\n";
        }
    };
    let (whole, digits) = (value(len), number(len));
    let storage = |name: &str| format!("{name} {key} {client_flags} 0 {len}");
    say(&storage("add"), Some(&whole));
    say(&format!("get {key}"), None);
    say(&storage("set"), Some(&whole));
    say(&format!("gets {key} missing {key}"), None);
    say(&format!("gat 0 {key}"), None);
    say(&format!("gats 100 {key}"), None);
    say(&format!("touch {key} 0"), None);
    say(&storage("replace"), Some(&whole));
    say(&(storage("cas") + " 999999"), Some(&whole));
    say(&format!("mg {key} v s f t q"), None);
    say(&format!("mg {key} s k O7"), None);
    say(&format!("incr {key} 1"), None);
    say(&format!("append {key} 0 0 3"), Some("end"));
    say(&format!("get {key}"), None);
    say(&format!("prepend {key} 0 0 5"), Some("begin"));
    say(&format!("get {key}"), None);
    say(&format!("append {key} 0 0 {len}"), Some(&whole));
    say(&format!("mg {key} v"), None);
    say(&format!("ms {key} {len} F{client_flags} T100 MS"), Some(&whole));
    say(&format!("ms {key} 2 MA"), Some("ab"));
    say(&format!("ms {key} {len} MP"), Some(&whole));
    say(&format!("mg {key} v s"), None);
    say(&format!("ma {key} N0 J5 v"), None);
    say(&format!("md {key} q"), None);
    say(&format!("ms {key} {len} ME q F{client_flags}"), Some(&whole));
    say(&format!("ms {key} {len} MR I"), Some(&digits));
    say(&format!("ma {key} v"), None);
    say(&format!("mg {key} v"), None);
    say(&format!("set {key} {client_flags} 0 {len} noreply"), Some(&digits));
    // No `get` comes in between, because memcached does not pad a number in place while it still has to send it.
    say(&format!("decr {key} 8"), None);
    say(&format!("incr {key} 18446744073709551600"), None);
    say(&format!("get {key}"), None);
    // The value fits as it is. With one more byte it may not fit any more.
    say(&format!("append {key} 0 0 1"), Some("x"));
    say(&format!("delete {key}"), None);
    say(&format!("get {key}"), None);
    say("mn", None);
    say("quit", None);
    text.into_bytes()
}

fn in_packets(key: &str, client_flags: u32, len: usize) -> Vec<u8> {
    let (whole, digits) = (value(len), number(len));
    let with = |value: &str| format!("flags={client_flags} exp=0 key={key} val=\"{value}\"");
    let words = [
        format!("add {}", with(&whole)),
        format!("get key={key}"),
        format!("setq {}", with(&whole)),
        format!("getk key={key}"),
        format!("getq key={key}"),
        format!("gat exp=0 key={key}"),
        format!("gatk exp=100 key={key}"),
        format!("touch exp=0 key={key}"),
        format!("replace {}", with(&whole)),
        format!("replace {} cas=999999", with(&whole)),
        format!("incr delta=1 initial=0 exp=0 key={key}"),
        format!("append key={key} val=end"),
        format!("get key={key}"),
        format!("prepend key={key} val=begin"),
        format!("getkq key={key}"),
        format!("append key={key} val=\"{whole}\""),
        format!("get key={key}"),
        format!("set {}", with(&digits)),
        format!("decr delta=8 initial=0 exp=0 key={key}"),
        format!("incr delta=18446744073709551600 initial=0 exp=0 key={key}"),
        format!("get key={key}"),
        format!("delete key={key}"),
        format!("get key={key}"),
        "noop".to_owned(),
        "quit".to_owned(),
    ];
    words.iter().flat_map(|words| packet::request(words)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Packets,
}

/// All replies of a server until it closes the connection.
fn replies(server: &Server, requests: &[u8]) -> Vec<u8> {
    let mut client = server.client();
    let mut writer = client.second_handle();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.send(requests));
        client.rest().expect("the server closes")
    })
}

/// The replies without their CAS values, which each server chooses itself.
fn without_cas(form: Form, mut replies: Vec<u8>) -> Vec<u8> {
    let (mut rest, mut out) = (&mut replies[..], Vec::new());
    while !rest.is_empty() {
        let head_len = match form {
            Form::Text => rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1),
            Form::Packets => rest.len().min(24),
        };
        let (head, behind) = rest.split_at_mut(head_len);
        let value_len = match form {
            Form::Text => {
                let line = String::from_utf8_lossy(head);
                let words: Vec<&str> = line.split_ascii_whitespace().collect();
                out.extend(words.iter().take(4).flat_map(|word| [word.as_bytes(), b" "].concat()));
                let len = match words[..] {
                    ["VALUE", _, _, len, ..] | ["VA", len, ..] => Some(len),
                    _ => None,
                };
                len.map_or(0, |len| len.parse::<usize>().expect("a length") + 2)
            }
            Form::Packets => {
                out.extend(head.iter().take(16));
                head.get(8..12).map_or(0, |len| len.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
            }
        };
        let (value, behind) = behind.split_at_mut(value_len.min(behind.len()));
        out.extend_from_slice(value);
        rest = behind;
    }
    out
}

/// Sends the same commands with the same values to both servers, and returns the differences.
fn check(flags: &str, nth: usize) -> Vec<String> {
    let words: Vec<&str> = flags.split_ascii_whitespace().chain(["-t", "1"]).collect();
    let config = Config::parse_from(std::iter::once("corecached").chain(words.iter().copied()).map(OsString::from));
    let config = config.unwrap_or_else(|exit| panic!("{flags}: {exit:?}"));
    let memcached = Server::on_unix_socket(Program::Newest, &words);
    let mut server = Server::corecached(&words);
    let mut failures = Vec::new();
    for (form, key, client_flags) in [
        (Form::Text, "k".repeat([3, 250][nth % 2]), [0, 7, 7][nth % 3]),
        (Form::Packets, "k".repeat([250, 5][nth % 2]), [7, 0, 7][nth % 3]),
    ] {
        for len in lengths(&config, key.len(), client_flags) {
            let requests = match form {
                Form::Text => in_text(&key, client_flags, len),
                Form::Packets => in_packets(&key, client_flags, len),
            };
            let [expected, got] = [&memcached, &server].map(|server| without_cas(form, replies(server, &requests)));
            if expected != got {
                let same = expected.iter().zip(&got).take_while(|(one, other)| one == other).count();
                let near = |bytes: &[u8]| shown(&bytes[same.saturating_sub(100)..bytes.len().min(same + 100)]);
                failures.push(format!(
                    "{flags}: a value of {len} bytes in {form:?}, key of {}, flags {client_flags}: at {same} memcached says {}\n    ours {}",
                    key.len(),
                    near(&expected),
                    near(&got)
                ));
            }
        }
    }
    server.assert_alive();
    failures
}

#[test]
fn whatever_shape_an_item_has_it_is_served_as_memcached_serves_it() {
    if peers::newest_memcached().is_none() {
        return;
    }
    let mut failures: Vec<String> =
        COMMAND_LINES.iter().enumerate().flat_map(|(nth, flags)| check(flags, nth)).collect();
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let mut random = Random(variable("CORECACHED_SEED").unwrap_or(1));
    for nth in 0..variable("CORECACHED_COMBINATIONS").unwrap_or(3) as usize {
        failures.extend(check(&flags_by_chance(&mut random), nth));
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}

/// The server has little memory for these values, and pages move. A value that it returns must be the value that the
/// client stored.
#[test]
fn whatever_shape_items_have_they_make_room_for_each_other() {
    const KEYS: usize = 300;
    let mut random = Random(7);
    for flags in [
        "-m 2 -I 64k -o slab_chunk_max=1",
        "-m 8 -I 4m -o slab_chunk_max=4 -t 3",
        "-m 16 -I 8m -f 3 -t 2",
        "-m 4 -I 1m -o slab_chunk_max=16,no_modern",
        "-m 6 -I 2m -C -o slab_automove=2,slab_chunk_max=64",
        "-m 4 -I 1m -M -o slab_chunk_max=2",
    ] {
        let words: Vec<&str> = flags.split_ascii_whitespace().collect();
        let config = Config::parse_from(std::iter::once("corecached").chain(words.iter().copied()).map(OsString::from));
        let lengths: Vec<usize> = lengths(&config.expect("flags that are taken"), 4, 0).into_iter().collect();
        let mut server = Server::corecached(&words);
        let mut client = server.client();
        // For each key, the length of the last stored value.
        let mut stored: Vec<Option<usize>> = vec![None; KEYS];
        for _ in 0..12 {
            for _ in 0..40 {
                let key = random.below(KEYS);
                let len = lengths[random.below(lengths.len())];
                match random.below(20) {
                    0 => {
                        client.send(format!("delete k{key:03} noreply\r\n"));
                        stored[key] = None;
                    }
                    1 => client.send(format!("slabs reassign -1 {}\r\n", random.below(12))),
                    2 => client.send(format!("touch k{key:03} 1000 noreply\r\n")),
                    3 => client.send(format!("append k{key:03} 0 0 0 noreply\r\n\r\n")),
                    _ => {
                        client.send(format!("set k{key:03} 0 0 {len} noreply\r\n{}\r\n", value(len)));
                        stored[key] = Some(len);
                    }
                }
            }
            if random.below(4) == 0 {
                client.send("flush_all noreply\r\n");
                stored.fill(None);
            }
            client.send("mn\r\n");
            while client.line().expect("a line") != b"MN\r\n" {}
            for (key, &len) in stored.iter().enumerate() {
                client.send(format!("get k{key:03}\r\n"));
                let line = String::from_utf8(client.line().expect("a line")).expect("text");
                if line == "END\r\n" {
                    continue;
                }
                let expected = len.map(|len| format!("VALUE k{key:03} 0 {len}\r\n"));
                assert_eq!(Some(line), expected, "{flags}");
                client.expect(value(len.unwrap_or(0)) + "\r\nEND\r\n");
            }
        }
        assert_eq!((client.ask("mn"), server.ended()), ("MN".to_owned(), None), "{flags}");
    }
}
