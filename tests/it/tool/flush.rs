//! `corecached flush`, against recorded replies and real servers.

use super::*;
use crate::clients::{PYTHON, converse};
use crate::peers::interpreter;

/// A server that flushes any prefix but one, and knows nothing else.
fn flusher() -> String {
    recorded(&[
        ("flush_prefix user:", "OK"),
        ("flush_prefix user: stale", "OK"),
        ("flush_prefix a", "CLIENT_ERROR a prefix ends with \":\""),
        ("flush_prefix hot:", "SERVER_ERROR flush_prefix too often"),
        ("flush_prefix odd:", "HELLO"),
    ])
}

#[test]
fn a_prefix_is_flushed_on_all_servers() {
    let servers = [flusher(), flusher(), flusher()];
    let lines: String = servers.iter().map(|server| format!("{server}: flushed\n")).collect();
    let list = servers.join(",");
    assert_eq!(printed(&["flush", "--prefix", "user:", "--servers", &list]), lines);
    assert_eq!(printed(&["flush", "--prefix", "user:", "--stale", "--server", &list]), lines);
    let nodes = TemporaryFile::new(&format!("version 3\n{} # nodes\n", servers.join("\n")));
    assert_eq!(printed(&["flush", "--prefix", "user:", "--nodes", nodes.path()]), lines);
}

#[test]
fn a_prefix_is_flushed_on_real_servers() {
    let servers = [Server::corecached_tcp(&["-t", "2"]), Server::corecached_tcp(&["-t", "1"])];
    let list = servers.each_ref().map(|server| server.tcp().to_string());
    for server in &servers {
        let mut client = server.client();
        for key in ["user:1", "user:2", "other:1"] {
            assert_eq!(client.ask(&format!("set {key} 0 0 1\r\nv")), "STORED");
        }
    }
    let lines: String = list.iter().map(|server| format!("{server}: flushed\n")).collect();
    assert_eq!(printed(&["flush", "--prefix", "user", "--servers", &list.join(",")]), lines);
    for server in &servers {
        let found = ["user:1", "user:2", "other:1"].map(|key| server.client().ask(&format!("mg {key}")));
        assert_eq!(found, ["EN", "EN", "HD"]);
    }
    let (code, _, complained) = call(&["flush", "--prefix", "a:b", "--server", &list[0]]);
    assert_eq!(code, Some(1));
    assert!(complained.contains("it refuses: a prefix has at most 1 parts"), "{complained}");
}

#[test]
fn more_servers_than_threads_answer_in_their_order() {
    let server = flusher();
    let lines = format!("{server}: flushed\n").repeat(200);
    let list = vec![server; 200].join(",");
    assert_eq!(printed(&["flush", "--prefix", "user:", "--servers", &list]), lines);
}

#[test]
fn one_server_that_fails_is_named_and_the_others_are_flushed() {
    let (server, away) = (flusher(), nowhere());
    let (code, said, complained) = call(&["flush", "--prefix", "user:", "--servers", &format!("{away},{server}")]);
    assert_eq!(
        (code, said, complained),
        (Some(1), format!("{server}: flushed\n"), format!("{away}: connection refused\n"))
    );
    for (prefix, error) in [
        ("a", "it refuses: a prefix ends with \":\""),
        ("hot:", "it refuses: flush_prefix too often"),
        ("odd:", "it says \"HELLO\""),
        ("none:", "it does not know this command: corecached flushes prefixes, memcached only all keys"),
    ] {
        let (code, said, complained) = call(&["flush", "--prefix", prefix, "--servers", &server]);
        assert_eq!((code, said, complained), (Some(1), String::new(), format!("{server}: {error}\n")));
    }
}

#[test]
fn mistakes_flush_nothing() {
    let bad = TemporaryFile::new("127.0.0.1:1\nno node\n");
    for (words, reason) in [
        (&["flush"][..], "--prefix <PREFIX>|--all"),
        (&["flush", "--prefix", "a:", "--all"], "cannot be used with"),
        (&["flush", "--prefix", ""], "it is empty"),
        (&["flush", "--prefix", "a b"], "no key has a space"),
        (&["flush", "--all", "--stale"], "--stale"),
        (&["flush", "--prefix", "a:", "--yes"], "--yes"),
        (&["flush", "--prefix", "a:", "--nodes", bad.path(), "--server", "a"], "cannot be used with"),
        (&["flush", "--prefix", "a:", "--nodes", bad.path()], ":2: \"no node\" is no host name"),
        (&["flush", "--prefix", "a:", "--nodes", "/no/such/file"], "--nodes /no/such/file: "),
        (&["flush", "--all"], "--all needs --yes where nobody can be asked"),
    ] {
        let (code, said, complained) = call(words);
        assert_eq!((code, said.as_str()), (Some(64), ""), "{words:?}: {complained}");
        assert!(complained.contains(reason), "{words:?}: {complained}");
    }
}

/// Whether a server still has the key that this stores at first.
fn keep(server: &Server) -> impl Fn() -> bool + '_ {
    assert_eq!(server.client().ask("set k 0 0 1\r\nv"), "STORED");
    || server.client().ask("mg k") == "HD"
}

pub(super) fn all(program: Program) {
    let Some((server, address)) = start(program) else { return };
    let has_key = keep(&server);
    if program != Program::Corecached {
        let (code, said, complained) = call(&["flush", "--prefix", "k:", "--server", &address]);
        assert_eq!((code, said.as_str()), (Some(1), ""));
        assert!(complained.starts_with(&format!("{address}: it does not know this command")), "{complained}");
    }
    assert!(has_key());
    assert_eq!(printed(&["flush", "--all", "--yes", "--server", &address]), format!("{address}: flushed\n"));
    assert!(!has_key());
}

#[test]
fn a_server_that_allows_no_flush_says_so() {
    let server = Server::corecached_tcp(&["-F"]);
    let address = server.tcp().to_string();
    let (code, _, complained) = call(&["flush", "--all", "--yes", "--server", &address]);
    assert_eq!((code, complained), (Some(1), format!("{address}: it refuses: flush_all not allowed\n")));
}

#[test]
fn a_terminal_is_asked_before_everything_goes() {
    let server = Server::corecached_tcp(&["-t", "1"]);
    let address = server.tcp().to_string();
    let has_key = keep(&server);
    for (answer, code, is_left) in [("n", 1, true), ("", 1, true), ("yes", 0, false)] {
        let Some(mut command) = interpreter(PYTHON.0, PYTHON.1) else { return };
        command.args(["-c", TERMINAL, answer, CORECACHED, "flush", "--all", "--server", &address]);
        let outcome = converse(command, |_| false);
        assert!(outcome.succeeded, "{}{}", outcome.said, outcome.complained);
        let question = format!("This drops all keys of {address}. Go on? [y/N] ");
        assert!(
            outcome.said.contains(&question) && outcome.said.trim_end().ends_with(&format!("code {code}")),
            "{}",
            outcome.said
        );
        assert_eq!(has_key(), is_left, "{answer}");
    }
}

/// Runs a command on a terminal, answers its first question, and prints what it said and its exit code.
const TERMINAL: &str = r#"
import os, pty, sys
answer, command = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
said = b""
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    if b"[y/N] " in more:
        os.write(terminal, answer.encode() + b"\n")
    said += more
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(said.decode())
print("code", code)
"#;
