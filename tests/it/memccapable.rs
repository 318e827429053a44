//! `memccapable`, libmemcached's test of servers: all 27 of its tests of each protocol pass.

use std::process::Command;

use crate::peers;
use crate::server::Server;

const TESTS: usize = 2 * 27;

#[test]
fn on_one_worker() {
    check("1");
}

#[test]
fn on_two_workers() {
    check("2");
}

fn check(workers: &str) {
    let Some(memccapable) = peers::program("memccapable") else { return };
    let server = Server::corecached_tcp(&["-t", workers, "-m", "256"]);
    let port = server.tcp().port().to_string();
    let output =
        Command::new(memccapable).args(["-h", "127.0.0.1", "-p", &port]).output().expect("memccapable can be run");
    let report = String::from_utf8_lossy(&output.stdout);
    let passed = report.lines().filter(|line| line.contains("[pass]")).count();
    assert!(
        output.status.success() && passed == TESTS,
        "{passed} of {TESTS} passed ({}):\n{report}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
