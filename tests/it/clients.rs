//! The clients people use, doing what they do with them: small Python scripts in `clients/`, each of which asserts and
//! in the end prints `ok`. They are given the ports of servers as arguments.

use std::process::Command;

use crate::peers;
use crate::server::{Address, Server};

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

#[test]
fn the_ports_of_one_server_are_servers_to_pymemcache() {
    run_on_ports("pymemcache", include_str!("clients/pymemcache_ports.py"));
}

#[test]
fn the_ports_of_one_server_are_servers_to_pylibmc() {
    run_on_ports("pylibmc", include_str!("clients/pylibmc_ketama.py"));
}

/// Runs a script that imports `module`, with the ports of `count` servers for it alone.
fn run(module: &str, script: &str, count: usize) {
    let servers: Vec<Server> = (0..count).map(|_| Server::corecached_tcp(&["-t", "2"])).collect();
    run_script(module, script, servers.iter().map(|server| server.tcp().port()));
}

/// Runs a script that imports `module`, with the three ports of one server with a port per core.
fn run_on_ports(module: &str, script: &str) {
    let server = Server::corecached_tcp(&["-t", "3", "-l", "127.0.0.1", "--port-per-core"]);
    let ports = server.addresses().iter().map(|address| match address {
        Address::Tcp(address) => address.port(),
        Address::Unix(path) => panic!("{} is no port", path.display()),
    });
    run_script(module, script, ports);
}

fn run_script(module: &str, script: &str, ports: impl Iterator<Item = u16>) {
    let Some(python) = peers::python_with(module) else { return };
    let output = Command::new(python)
        .args(["-c", script])
        .args(ports.map(|port| port.to_string()))
        .output()
        .expect("this Python has just been run");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim_end().ends_with("ok"), "{}\n{said}{complained}", output.status);
}
