//! `mtop`, which draws what servers do, and its `mc`, a client for the command line. Both read statistics by name, and
//! fail if a server lacks one of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clients::{PYTHON, run_script};
use crate::peers;
use crate::server::{Program, Server, on_every_server};

on_every_server! {
    mtop_draws_what_two_servers_do: mtop;
    mc_speaks_every_command: mc;
    mc_lists_keys: mc_keys;
    mc_finds_all_well: mc_check;
}

fn mtop(program: Program) {
    let Some(path) = path_for("mtop", program) else { return };
    let servers = (0..2).map(|_| Server::on_tcp(program, &["-t", "2"])).collect();
    run_script(&PYTHON, "mtop_screens.py", &[], servers, &[path.to_str().expect("it has a plain name")]);
}

/// The path of the tool, if it is installed and the program is too.
fn path_for(tool: &str, program: Program) -> Option<PathBuf> {
    peers::has(program).then(|| peers::program(tool)).flatten()
}

/// A call of `mc`: its arguments, its input, whether it succeeds, and its output or its error message.
type Call = (&'static [&'static str], &'static str, bool, &'static str);

const CALLS: &[Call] = &[
    (&["get", "nothing"], "", true, ""),
    (&["set", "greeting", "100"], "hello", true, ""),
    (&["get", "greeting"], "", true, "hello"),
    (&["add", "number", "0"], "5", true, ""),
    (&["add", "number", "0"], "6", false, "NOT_STORED"),
    (&["incr", "number", "7"], "", true, ""),
    (&["decr", "number", "3"], "", true, ""),
    // If the new number is shorter, memcached keeps the length of the value and fills it with spaces.
    (&["get", "number"], "", true, "9 "),
    (&["incr", "greeting", "1"], "", false, "cannot increment or decrement non-numeric value"),
    (&["incr", "nothing", "1"], "", false, "NOT_FOUND"),
    (&["decr", "nothing", "1"], "", false, "NOT_FOUND"),
    (&["replace", "greeting", "0"], "good bye", true, ""),
    (&["replace", "nothing", "0"], "x", false, "NOT_STORED"),
    (&["get", "greeting"], "", true, "good bye"),
    (&["touch", "greeting", "300"], "", true, ""),
    (&["touch", "nothing", "300"], "", false, "NOT_FOUND"),
    (&["delete", "number"], "", true, ""),
    (&["delete", "number"], "", false, "NOT_FOUND"),
    (&["flush-all"], "", true, ""),
    (&["get", "greeting"], "", true, ""),
];

fn mc(program: Program) {
    let Some(path) = path_for("mc", program) else { return };
    let server = Server::on_tcp(program, &["-t", "2"]);
    let host = server.tcp().to_string();
    for (arguments, input, succeeds, expected) in CALLS {
        let (succeeded, said, complained) = call(&path, &host, arguments, input);
        assert_eq!(succeeded, *succeeds, "mc {arguments:?}: {said}{complained}");
        match succeeds {
            true => assert_eq!(said, *expected, "mc {arguments:?}"),
            false => assert!(complained.contains(expected), "mc {arguments:?}: {complained}"),
        }
    }
}

/// Lists a thousand keys with their expiry. The test does not compare sizes, because they differ from server to server.
fn mc_keys(program: Program) {
    let Some(path) = path_for("mc", program) else { return };
    let server = Server::on_tcp(program, &["-t", "2"]);
    let mut client = server.client();
    for i in 0..1000 {
        client.send(format!("set key-{i} 0 0 10\r\n0123456789\r\n"));
        client.expect("STORED\r\n");
    }
    let (succeeded, said, complained) = call(&path, &server.tcp().to_string(), &["keys", "--details"], "");
    if program != Program::Memcached {
        // This version of `mc` does not know the `OK` that newer memcacheds send before the keys.
        assert!(!succeeded && complained.contains("unexpected metadump format 'OK'"), "{said}{complained}");
        return;
    }
    assert!(succeeded, "{complained}");
    let mut keys: Vec<&str> = said.lines().map(|line| details(line).expect("a key, a time and a size")).collect();
    keys.sort_unstable();
    let mut expected: Vec<String> = (0..1000).map(|i| format!("key-{i}")).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

/// `mc check` resolves the server's name, connects, sets and gets. `mc bench` sets and gets all the time.
fn mc_check(program: Program) {
    let Some(path) = path_for("mc", program) else { return };
    let server = Server::on_tcp(program, &["-t", "2"]);
    let host = server.tcp().to_string();
    let (succeeded, said, complained) = call(&path, &host, &["check", "--time", "300ms", "--delay", "20ms"], "");
    assert!(succeeded && !complained.contains("ERROR"), "{said}{complained}");
    for kind in ["overall", "dns", "connection", "set", "get"] {
        let line = said.lines().find(|line| line.starts_with(&format!("type={kind} ")));
        assert!(line.is_some_and(|line| line.ends_with(" failures=0")), "{kind}: {said}{complained}");
    }
    let mut client = server.client();
    let sets = client.stat("cmd_set");
    let (succeeded, said, complained) =
        call(&path, &host, &["bench", "--time", "300ms", "--delay", "1ms", "--write-percent", "0.5"], "");
    assert!(succeeded && !complained.contains("ERROR"), "{said}{complained}");
    assert!(client.stat("cmd_set") > sets, "{said}{complained}");
}

/// The key, if the line is a key, a time and a size.
fn details(line: &str) -> Option<&str> {
    let mut words = line.split('\t');
    let (key, time, size) = (words.next()?, words.next()?, words.next()?);
    (time == "-1" && size.parse::<u64>().is_ok_and(|size| size > 20) && words.next().is_none()).then_some(key)
}

/// Whether `mc` succeeded, its standard output and its standard error.
fn call(path: &Path, host: &str, arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut child = Command::new(path)
        .args(["--host", host, "--timeout", "20s"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mc was found");
    let sent = child.stdin.take().expect("it was piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the child is ours");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    // `mc` may end before it gets this input, if its call reads none.
    assert!(sent.is_ok() || input.is_empty(), "mc {arguments:?} did not read");
    (output.status.success(), text(output.stdout), text(output.stderr))
}
