//! `--ttl` in the finished program. What the rules mean, command by command, is tested beside `worker/serve`, and how they
//! are read beside `config/ttl.rs`.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::Client;
use crate::peers;
use crate::server::{Server, corecached_run, new_folder};

/// The seconds that a key has left, as `mg` says.
fn left(client: &mut Client, key: &str) -> u64 {
    let reply = client.ask(&format!("mg {key} t"));
    reply.strip_prefix("HD t").and_then(|left| left.parse().ok()).unwrap_or_else(|| panic!("{key}: {reply}"))
}

#[test]
fn dumps_tell_the_deadlines_of_rules_and_datagrams_follow_them() {
    let server = Server::corecached_tcp(&["-t", "2", "-U", "-1", "--ttl", "page: default=1000s", "--ttl", "max=500s"]);
    let mut client = server.client();
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs();
    client.send("set page:tcp 0 0 1\r\nv\r\nset other 0 0 1\r\nv\r\n");
    client.expect("STORED\r\nSTORED\r\n");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("an open socket");
    socket.send_to(b"\0\x01\0\0\0\x01\0\0set page:udp 0 0 1\r\nv\r\n", server.udp()).expect("it is sent");
    let mut reply = [0; 100];
    let len = socket.recv(&mut reply).expect("a reply");
    assert_eq!(&reply[8..len], b"STORED\r\n");
    for (key, life) in [("page:tcp", 1000), ("page:udp", 1000), ("other", 500)] {
        let of_key = left(&mut client, key);
        assert!((life - 60..=life).contains(&of_key), "{key}: {of_key}");
    }
    client.send("lru_crawler metadump all\r\n");
    let lines =
        std::iter::from_fn(|| String::from_utf8(client.line().expect("a line")).ok().filter(|line| line != "END\r\n"));
    let dump: Vec<String> = lines.collect();
    let dumped = |key: &str| -> u64 {
        let line = dump.iter().find(|line| line.starts_with(&format!("key={} ", key.replace(':', "%3A"))));
        let exp = line.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("exp=")?.parse().ok()));
        exp.unwrap_or_else(|| panic!("{key}: {dump:?}"))
    };
    // The server's clock may be a second beside the one of the test.
    for (key, life) in [("page:tcp", 1000), ("page:udp", 1000), ("other", 500)] {
        assert!((began + life - 2..began + life + 60).contains(&dumped(key)), "{key}: {} {began}", dumped(key));
    }
    let classes = client.ask_list("stats items");
    let class = classes[0].split(':').nth(1).expect("a class").to_owned();
    let listed = client.ask_list(&format!("stats cachedump {class} 0"));
    assert!(listed.iter().any(|line| line.contains(&format!("; {} s]", dumped("other")))), "{listed:?}");
}

#[test]
fn a_restart_keeps_what_rules_have_made_of_deadlines() {
    let folder = new_folder();
    std::fs::create_dir_all(&folder).expect("a folder of ours");
    let image = folder.join("image");
    let image = image.to_str().expect("a path in UTF-8");
    let mut server = Server::corecached(&["-e", image, "--ttl", "default=1000s early=60s"]);
    let mut client = server.client();
    client.send("set k 0 0 1\r\nv\r\n");
    client.expect("STORED\r\n");
    server.signal("USR1");
    assert_eq!(server.wait().code(), Some(0));
    // Other rules change nothing for items that are there already.
    let server = Server::corecached(&["-e", image, "--ttl", "max=10s"]);
    let of_key = left(&mut server.client(), "k");
    assert!((900..=1000).contains(&of_key), "{of_key}");
    drop(server);
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn mistaken_rules_end_the_program() {
    for (rule, expected) in [
        ("jitter=200%", "--ttl 'jitter=200%': jitter takes 1% to 90%, not \"200%\""),
        ("page:", "--ttl 'page:': it has no setting: jitter=10%, default=1h, max=1d or early=30s"),
    ] {
        let (status, printed) = corecached_run(&["--ttl", rule]);
        assert_eq!((status.code(), printed.trim_end()), (Some(64), expected));
    }
}

#[test]
fn watchers_and_metrics_see_early_misses() {
    if !cfg!(feature = "debug-commands") {
        return peers::say_skipped("the clock is moved by a feature that is not built: debug-commands");
    }
    let server = Server::corecached_tcp(&["-t", "1", "--metrics", "0", "--ttl", "early=30s"]);
    let (mut client, mut watcher) = (server.client(), server.client());
    assert_eq!(client.ask("debugtime p"), "OK");
    client.send("set k 0 100 1\r\nv\r\n");
    client.expect("STORED\r\n");
    assert_eq!(client.ask("debugtime 80"), "OK");
    assert_eq!(watcher.ask("watch fetchers"), "OK");
    client.send("get k\r\nget k\r\n");
    client.expect("END\r\nVALUE k 0 1\r\nv\r\nEND\r\n");
    for expected in ["status=early clsid=0", "status=found"] {
        let line = String::from_utf8(watcher.line().expect("a line")).expect("text");
        assert!(line.contains(&format!("type=item_get key=k {expected}")), "{line}");
    }
    assert_eq!(client.stat("get_misses"), 1);
    let mut page = String::new();
    let mut scraper = TcpStream::connect(server.metrics()).expect("it listens");
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("an empty socket");
    scraper.read_to_string(&mut page).expect("a reply in text");
    assert!(page.lines().any(|line| line == "corecached_get_misses_total{reason=\"early\"} 1"), "{page}");
}
