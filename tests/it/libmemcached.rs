//! libmemcached's tools in both protocols, and its two load generators, which check the replies.

use std::fs;

use crate::clients::{Outcome, converse};
use crate::peers;
use crate::server::{Program, Server, new_folder, on_every_server};

/// A call of a tool: its name, its arguments, whether it succeeds, and its output if it does.
type Call = (&'static str, &'static [&'static str], bool, &'static str);

/// `FILE` stands for the path of a file. The key is the file's name.
const CALLS: &[Call] = &[
    ("memccp", &["--add", "FILE"], true, ""),
    ("memccp", &["--add", "FILE"], false, ""),
    ("memccp", &["--replace", "--expire=1000", "--flag=7", "FILE"], true, ""),
    ("memccp", &["--set", "FILE"], true, ""),
    ("memccat", &["a-file"], true, "its content\n"),
    ("memccat", &["nothing"], false, ""),
    ("memcexist", &["a-file"], true, ""),
    ("memcexist", &["nothing"], false, ""),
    ("memctouch", &["--expire=100", "a-file"], true, ""),
    ("memctouch", &["--expire=100", "nothing"], false, ""),
    ("memcrm", &["a-file"], true, ""),
    ("memcrm", &["a-file"], false, ""),
    ("memccp", &["--replace", "FILE"], false, ""),
    ("memccat", &["a-file"], false, ""),
    ("memccp", &["FILE"], true, ""),
    ("memcflush", &[], true, ""),
    ("memccat", &["a-file"], false, ""),
];

/// The loads of `memcslap`, each with the numbers of sets and gets that must reach the server.
const LOADS: &[(&[&str], u64, u64)] = &[
    (&["--test=set", "--concurrency=4"], 2000, 0),
    (&["--test=get", "--concurrency=4"], 2000, 2000),
    (&["--test=mget"], 2000, 2000),
    (&["--test=set", "--non-blocking", "--tcp-nodelay"], 2000, 0),
    (&["--test=set", "--noreply"], 2000, 0),
];

on_every_server! {
    tools: |program| in_both_protocols(program, super::tools);
    memcslap: |program| in_both_protocols(program, super::memcslap);
    memcaslap: |program| in_both_protocols(program, super::memcaslap);
}

fn in_both_protocols(program: Program, run: fn(Program, bool)) {
    for binary in [false, true] {
        run(program, binary);
    }
}

/// Runs a tool on a server and returns its output, or `None` if the tool is not installed.
fn call(server: &Server, name: &str, arguments: &[&str], succeeds: bool) -> Option<String> {
    let mut command = peers::command(&peers::program(name)?);
    command.arg(format!("--servers={}", server.tcp())).args(arguments).env_remove("MEMCACHED_SERVERS");
    let Outcome { succeeded, said, complained } = converse(command, |_| false);
    assert_eq!(succeeded, succeeds, "{name} {arguments:?}: {said}{complained}");
    Some(said)
}

fn tools(program: Program, binary: bool) {
    if !peers::has(program) {
        return;
    }
    let server = Server::on_tcp(program, &["-t", "2", "-m", "256"]);
    let folder = new_folder();
    let file = folder.join("a-file");
    fs::write(&file, "its content").expect("a file in a folder of ours");
    let path = file.to_str().expect("a temporary folder has a plain name");
    for (name, arguments, succeeds, expected) in CALLS {
        let arguments = arguments.iter().map(|&argument| if argument == "FILE" { path } else { argument });
        let arguments: Vec<&str> = binary.then_some("--binary").into_iter().chain(arguments).collect();
        let Some(said) = call(&server, name, &arguments, *succeeds) else { break };
        if *succeeds {
            assert_eq!(said, *expected, "{name} {arguments:?}");
        }
    }
    let _ = fs::remove_dir_all(&folder);
}

fn memcslap(program: Program, binary: bool) {
    if !peers::has(program) {
        return;
    }
    // The values have many sizes, so the server needs room for pages of all classes.
    let server = Server::on_tcp(program, &["-t", "2", "-m", "1024"]);
    for (arguments, sets, gets) in LOADS {
        let before = counted(&server);
        let usual = ["--flush", "--execute-number=2000"];
        let arguments: Vec<&str> =
            binary.then_some("--binary").into_iter().chain(usual).chain(arguments.iter().copied()).collect();
        let Some(said) = call(&server, "memcslap", &arguments, true) else { return };
        let after = counted(&server);
        let (set, hit) = (after.0 - before.0, after.1 - before.1);
        assert!(set >= *sets && hit >= *gets, "{arguments:?}: {set} sets, {hit} hits\n{said}");
        assert_eq!(after.2, before.2, "{arguments:?}: misses\n{said}");
    }
}

/// The numbers of sets, hits and misses that the server has counted.
fn counted(server: &Server) -> (u64, u64, u64) {
    let mut client = server.client();
    (client.stat("cmd_set"), client.stat("get_hits"), client.stat("get_misses"))
}

/// This tool checks every value that it gets.
fn memcaslap(program: Program, binary: bool) {
    if !peers::has(program) {
        return;
    }
    let server = Server::on_tcp(program, &["-t", "2", "-m", "256"]);
    for division in ["1", "50"] {
        let mut arguments = vec!["-T", "2", "-c", "8", "-x", "20000", "-v", "1.0", "-d", division];
        arguments.extend(binary.then_some("-B"));
        let Some(said) = call(&server, "memcaslap", &arguments, true) else { return };
        let number = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|number| number.parse::<u64>().ok()).unwrap_or_else(|| panic!("{name}: {said}"))
        };
        assert_eq!(number("cmd_get") + number("cmd_set"), 20_000, "{said}");
        assert!(number("cmd_get") >= 17_000, "{said}");
        for name in ["get_misses", "verify_misses", "verify_failed"] {
            assert_eq!(number(name), 0, "{name}: {said}");
        }
        assert!(counted(&server).1 >= 17_000);
    }
}
