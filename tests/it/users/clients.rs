//! Real clients log in as users.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use super::line;
use crate::clients::{Outcome, Peer, converse, run_script};
use crate::peers::{self, Language};
use crate::server::{Server, TemporaryFile};

fn server() -> (Server, TemporaryFile) {
    let users = TemporaryFile::new(&line("web", "secret", "read write prefix=app:,file"));
    (Server::corecached_tcp(&["--users", users.path(), "-t", "2", "-m", "64"]), users)
}

#[track_caller]
fn check(peer: Peer, file: &str) {
    let (server, _users) = server();
    run_script(&peer, file, &[], vec![server], &["web", "secret"]);
}

#[test]
fn bmemcached() {
    check(Peer(Language::Python, "bmemcached"), "bmemcached_login.py");
}

#[test]
fn pymemcache() {
    check(Peer(Language::Python, "pymemcache"), "pymemcache_login.py");
}

#[test]
fn memjs() {
    check(Peer(Language::Node, "memjs"), "memjs_login.js");
}

#[test]
fn php_memcached() {
    check(Peer(Language::Php, "memcached"), "php_memcached_login.php");
}

/// Passes on what a client and a server say, and records it.
fn recorded(server: &Server) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let (listener, server) = (TcpListener::bind("127.0.0.1:0").expect("a free port"), server.tcp());
    let (port, record) = (listener.local_addr().expect("it is bound").port(), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&record);
    // It ends with the test's process.
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.expect("a client"), TcpStream::connect(server).expect("it listens"));
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
                let log = Arc::clone(&log);
                thread::spawn(move || pass_on(from, to, &log));
            }
        }
    });
    (port, record)
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, log: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        log.lock().expect("no panic").extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn libmemcached_by_scram() {
    let Some(memccp) = peers::program("memccp") else { return };
    let Some(memccat) = peers::program("memccat") else { return };
    let (server, _users) = server();
    let (port, record) = recorded(&server);
    let run = |tool: &Path, password: &str, argument: &str| {
        let mut command: Command = peers::command(tool);
        command.args(["--binary", "--username=web", &format!("--password={password}"), argument]);
        command.arg(format!("--servers=127.0.0.1:{port}"));
        let Outcome { succeeded, said, .. } = converse(command, |_| false);
        (succeeded, said)
    };
    let value = TemporaryFile::new("a value");
    assert!(run(&memccp, "secret", value.path()).0);
    let (found, said) = run(&memccat, "secret", "file");
    assert!(found && said.starts_with("a value"), "{said:?}");
    assert!(!run(&memccat, "wrong", "file").0);
    let record = record.lock().expect("no panic");
    let has = |words: &[u8]| record.windows(words.len()).any(|window| window == words);
    assert!(has(b"SCRAM-SHA-256n,"), "the SASL library of this machine has no SCRAM: libsasl2-modules");
    assert!(!has(b"secret") && !has(b"wrong"), "a password has crossed the wire");
}
