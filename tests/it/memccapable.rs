//! `memccapable` is libmemcached's test of servers. It has 27 tests of each protocol. All of them pass but two, which
//! memcached 1.6.45 does not pass either.

use std::process::Command;

use crate::peers;
use crate::server::Server;

const TESTS: usize = 2 * 27;

/// Width of the column for the name of a test in the report.
const COLUMN: usize = 40;

/// These tests want a server to refuse words after the key of a `delete`, as memcached up to 1.6.18 does. Later
/// versions delete the key.
const OUTDATED: [&str; 2] = ["ascii delete", "ascii delete noreply"];

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
    // The report appends "[pass]" to the line of a test that has passed. The names of failed tests stand before it in
    // that line, in columns of the same width.
    let names = |line: &str| -> Vec<String> {
        let columns = line.as_bytes().chunks(COLUMN);
        columns.map(|name| String::from_utf8_lossy(name).trim_end().to_owned()).collect()
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for line in report.lines().filter_map(|line| line.strip_suffix("[pass]")) {
        let mut names = names(line);
        passed += usize::from(names.pop().is_some());
        failed.extend(names);
    }
    assert!(
        failed == OUTDATED && passed == TESTS - OUTDATED.len(),
        "{passed} of {TESTS} passed ({}):\n{report}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
