//! `--nodes`: clients discover the nodes of a cluster, and a file of nodes is read again.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::clients::{ELASTIPYMEMCACHE, EMCACHE, NPM_MEMCACHED, Outcome, Peer, converse};
use crate::peers;
use crate::server::{Program, Server, TemporaryFile, corecached_run};
use crate::waiting::wait_until;

/// The reply to `config get cluster` up to `END`.
fn cluster(server: &Server) -> String {
    let mut client = server.client();
    client.send("config get cluster\r\n");
    let mut reply = String::new();
    loop {
        match client.line().expect("a reply").as_slice() {
            b"END\r\n" => return reply,
            line => reply.push_str(std::str::from_utf8(line).expect("text")),
        }
    }
}

/// Replaces the file in one step: a server that looks meanwhile reads the old one or the new one. `days` is its age.
fn replace(file: &TemporaryFile, text: &str, days: u64) {
    let path = format!("{}.new", file.path());
    fs::write(&path, text).expect("a folder of ours");
    let time = SystemTime::now() - Duration::from_secs(days * 86_400);
    let new = fs::File::options().write(true).open(&path).expect("a file of ours");
    new.set_modified(time).expect("a file of ours");
    fs::rename(&path, file.path()).expect("a folder of ours");
}

#[test]
fn the_reply_is_that_of_elasticache_to_the_byte() {
    let file = TemporaryFile::new("version 12\nhost-1|10.82.235.120:11211\nhost-2|10.80.249.27\n");
    let server = Server::corecached(&["--nodes", file.path(), "-t", "2"]);
    let mut client = server.client();
    let reply = "CONFIG cluster 0 56\r\n12\nhost-1|10.82.235.120|11211 host-2|10.80.249.27|11211\n\r\nEND\r\n";
    client.send("config get cluster\r\nconfig get cluste\r\nmn\r\nconfig get cluster\r\n");
    client.expect(format!("{reply}ERROR\r\nMN\r\n{reply}"));
}

#[test]
fn without_a_list_the_command_is_unknown() {
    let server = Server::corecached(&["-t", "1"]);
    let mut client = server.client();
    client.send("config get cluster\r\nconfig set cluster 0 0\r\nget AmazonElastiCache:cluster\r\nmn\r\n");
    client.expect("ERROR\r\nERROR\r\nEND\r\nMN\r\n");
}

#[test]
fn names_are_resolved_to_ipv4() {
    let file = TemporaryFile::new("version 1\nlocalhost:5\n");
    let server = Server::corecached(&["--nodes", file.path()]);
    assert!(cluster(&server).contains("\nlocalhost|127.0.0.1|5\n"), "{}", cluster(&server));
}

#[test]
fn a_thousand_nodes_are_told() {
    let nodes: String =
        (0..1000).map(|node| format!("cache-{node}.example|10.0.{}.{}\n", node / 250, node % 250)).collect();
    let file = TemporaryFile::new(&nodes);
    let server = Server::corecached(&["--nodes", file.path(), "-t", "2"]);
    let told = cluster(&server);
    assert_eq!(told.matches('|').count(), 2000);
    assert!(told.contains(" cache-999.example|10.0.3.249|11211\n"), "{told}");
}

#[test]
fn a_changed_file_is_read_again_and_a_broken_one_is_not_believed() {
    let file = TemporaryFile::new("127.0.0.1:1\n");
    replace(&file, "127.0.0.1:1\n", 2);
    let server = Server::corecached(&["--nodes", file.path(), "-v", "-t", "2"]);
    let version = || cluster(&server).lines().nth(1).and_then(|line| line.parse::<u64>().ok()).expect("a version");
    let first = version();
    let complaints = || server.printed().matches("the nodes stay as they were").count();

    // At HUP.
    replace(&file, "127.0.0.1:1\nbroken:port\n", 0);
    server.signal("HUP");
    wait_until("the server complains", || complaints() == 1);
    assert!(server.printed().contains(&format!("--nodes {}:2: \"port\" is no port", file.path())));
    assert_eq!(version(), first);
    // The same complaint is logged once. The server takes each HUP, as the second mistake shows.
    server.signal("HUP");
    replace(&file, "127.0.0.1:1\nbroken:0\n", 0);
    server.signal("HUP");
    wait_until("the server complains again", || server.printed().contains(":2: \"0\" is no port"));
    assert_eq!((complaints(), version()), (2, first));
    replace(&file, "127.0.0.1:1\n127.0.0.1:2\n", 1);
    server.signal("HUP");
    wait_until("the new nodes are told", || version() > first);
    assert_eq!(version(), first + 86_400);
    assert!(cluster(&server).contains("127.0.0.1|127.0.0.1|2\n"));

    fs::remove_file(file.path()).expect("a file of ours");
    server.signal("HUP");
    wait_until("the server misses the file", || complaints() == 3);

    // By itself, when the file's time changes.
    replace(&file, "version 9999999999\n127.0.0.1:3\n", 0);
    wait_until("the new nodes are told", || cluster(&server).contains("\n9999999999\n127.0.0.1|127.0.0.1|3\n"));

    replace(&file, "version 9999999999\n127.0.0.1:4\n", 0);
    server.signal("HUP");
    wait_until("the server warns", || server.printed().contains("not to a version above 9999999999"));
    assert!(cluster(&server).contains("127.0.0.1|127.0.0.1|4\n"));
}

#[test]
fn a_server_that_cannot_know_its_nodes_does_not_start() {
    let many: String = (0..1001).map(|node| format!("10.0.0.1:{}\n", node + 1)).collect();
    for (text, code, line) in [
        ("# nobody\n", 64, ": it lists no node"),
        ("10.0.0.1\nhalf a node\n", 64, ":2: \"half a node\" is no host name"),
        ("name.invalid\n", 64, ":1: \"name.invalid\" cannot be resolved: "),
        (&many, 64, ":1001: more than 1000 nodes"),
        (&"#".repeat(1_048_577), 64, ": it has more than 1048576 bytes"),
    ] {
        let file = TemporaryFile::new(text);
        let (status, printed) = corecached_run(&["-p", "-1", "--nodes", file.path()]);
        assert_eq!(status.code(), Some(code), "{printed}");
        assert!(printed.contains(&format!("--nodes {}{line}", file.path())), "{line}: {printed}");
    }
    for path in ["/nowhere/nodes", "/"] {
        let (status, printed) = corecached_run(&["-p", "-1", "--nodes", path]);
        assert!(status.code() == Some(66) && printed.contains(&format!("--nodes {path}: ")), "{printed}");
    }
}

#[test]
fn emcache_follows_nodes_that_come_and_go() {
    follow(&EMCACHE, "emcache_discovery.py");
}

#[test]
fn elastipymemcache_follows_nodes_that_come_and_go() {
    follow(&ELASTIPYMEMCACHE, "elastipymemcache_discovery.py");
}

#[test]
fn npm_memcached_reads_the_nodes() {
    follow(&NPM_MEMCACHED, "memcached_npm_discovery.js");
}

/// Runs a script with the ports of three servers. The first two are nodes at the start. When the script prints `add`, the
/// third joins them; at `remove` the second leaves, and at `end` it ends. All servers read the same file.
fn follow(peer: &Peer, script: &str) {
    let Some(mut command) = peers::interpreter(peer.0, peer.1) else { return };
    let file = TemporaryFile::new("version 1\n127.0.0.1:1\n");
    let flags = ["--nodes", file.path(), "-t", "2"];
    let mut servers: Vec<Server> = (0..3).map(|_| Server::on_lasting_port(Program::Corecached, &flags)).collect();
    let ports: Vec<u16> = servers.iter().map(|server| server.tcp().port()).collect();
    let list = |version: u64, servers: &[Server], ports: &[u16]| {
        let lines: String = ports.iter().map(|port| format!("127.0.0.1:{port}\n")).collect();
        file.write(&format!("version {version}\n{lines}"));
        for server in servers {
            server.signal("HUP");
            wait_until("the nodes are told", || cluster(server).lines().nth(1) == Some(&version.to_string()));
        }
    };
    list(2, &servers, &ports[..2]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients").join(script);
    command.arg(path).args(ports.iter().map(u16::to_string));
    let Outcome { succeeded, said, complained } = converse(command, |said| {
        match said {
            "add" => list(3, &servers, &ports),
            "remove" => list(4, &servers, &[ports[0], ports[2]]),
            "end" => drop(servers.remove(1)),
            _ => return false,
        }
        true
    });
    assert!(succeeded && said.trim_end().ends_with("ok"), "{script} failed:\n{said}{complained}");
}
