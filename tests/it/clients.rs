//! The clients people use, doing what they do with them: small Python scripts in `clients/`, each of which asserts and
//! in the end prints `ok`. They are given the ports of servers as arguments.

use std::process::Command;

use crate::peers;
use crate::server::Server;

#[test]
fn pymemcache_speaks_every_command() {
    run("pymemcache", include_str!("clients/pymemcache_commands.py"), 1);
}

#[test]
fn pymemcache_hashes_over_three_servers() {
    run("pymemcache", include_str!("clients/pymemcache_hash.py"), 3);
}

#[test]
fn pylibmc_speaks_every_command() {
    run("pylibmc", include_str!("clients/pylibmc_commands.py"), 1);
}

#[test]
fn pylibmc_loses_a_third_of_the_keys_with_a_third_of_the_servers() {
    run("pylibmc", include_str!("clients/pylibmc_ketama.py"), 3);
}

/// Runs a script that imports `module`, with the ports of `count` servers for it alone.
fn run(module: &str, script: &str, count: usize) {
    let Some(python) = peers::python_with(module) else { return };
    let servers: Vec<Server> = (0..count).map(|_| Server::corecached_tcp(&["-t", "2"])).collect();
    let output = Command::new(python)
        .args(["-c", script])
        .args(servers.iter().map(|server| server.tcp().port().to_string()))
        .output()
        .expect("this Python has just been run");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim_end().ends_with("ok"), "{}\n{said}{complained}", output.status);
}
