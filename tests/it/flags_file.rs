//! `--flags-file` and `--check`: a server from a file of flags, and what is said of one without starting it.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::server::{CORECACHED, Server, TemporaryFile};

/// The file that Debian's package of memcached installs, with lines that its comments propose.
const DEBIAN: &str = "\
# memcached default config file
-d

logfile /var/log/memcached.log
# -v
-m 96 # megabytes
-u nobody
-o 'idle_timeout=100,track_sizes'
-P /var/run/memcached/memcached.pid
";

/// The exit code, standard output and standard error of `corecached --check`.
fn check(flags: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(CORECACHED);
    command.arg("--check").args(["-u", "root"]).args(flags).stdin(Stdio::null());
    for name in ["MEMCACHED_SASL_PWDB", "NOTIFY_SOCKET", "LISTEN_FDS", "RUST_LOG"] {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } = command.output().expect("the program under test runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    (status.code(), text(stdout), text(stderr))
}

/// Expects that the check fails with this code, and that its last line begins so.
#[track_caller]
fn assert_refused(flags: &[&str], expected: i32, begins: &str) {
    let (code, said, complained) = check(flags);
    let last = complained.lines().last().unwrap_or_default();
    assert!(code == Some(expected) && last.starts_with(begins), "{flags:?}: {code:?} {complained}");
    assert_eq!(said, "", "{flags:?}");
}

#[test]
fn a_server_runs_from_the_file_of_memcached() {
    let file = TemporaryFile::new(DEBIAN);
    let server = Server::corecached_tcp(&["--flags-file", file.path(), "-u", "root", "-m", "128"]);
    let mut client = server.client();
    let settings = client.ask_list("stats settings");
    for setting in ["STAT maxbytes 134217728", "STAT idle_timeout 100", "STAT track_sizes yes"] {
        assert!(settings.iter().any(|line| line == setting), "{setting}: {settings:?}");
    }
}

#[test]
fn a_check_says_what_it_found() {
    let users = TemporaryFile::new("default - read\n");
    let nodes = TemporaryFile::new("version 3\nlocalhost:11211\n127.0.0.2:11212\n");
    let text = format!("{DEBIAN}--users {}\n--nodes {}\n--metrics 127.0.0.1:9150\n", users.path(), nodes.path());
    let file = TemporaryFile::new(&text);
    let folder = fs::canonicalize(file.path()).expect("it was written");
    let image = folder.with_file_name("image");
    let (code, said, complained) =
        check(&["--flags-file", file.path(), "-p", "11999", "-e", image.to_str().expect("text")]);
    assert_eq!(code, Some(0), "{complained}");
    for line in [
        &format!("flags: {}, then the command line", file.path()),
        "listens on: 127.0.0.1:11999, [::1]:11999",
        "metrics at: 127.0.0.1:9150",
        "memory: 96 MiB, items up to 1048576 bytes;",
        &format!("logins: 1 users in {}", users.path()),
        &format!("nodes: 2 in {}", nodes.path()),
        &format!("memory file: {} is not there", image.display()),
        "user: root, user id 0",
        "all is well",
    ] {
        let is_there = said.lines().any(|found| found.starts_with(line));
        assert!(is_there || line.starts_with("user:") && !crate::server::is_root(), "{line}: {said}");
    }
    assert_eq!(complained.lines().count(), 1, "only the line of logfile: {complained}");
    assert!(complained.contains(":4: logfile has no effect"), "{complained}");
}

#[test]
fn a_check_fails_as_the_server_would() {
    let wrong = TemporaryFile::new("# a mistake\n-t 0\n");
    assert_refused(&["--flags-file", wrong.path()], 1, &format!("{}:2: Number of threads", wrong.path()));
    assert_refused(&["--flags-file", "/nonexistent/f"], 66, "--flags-file /nonexistent/f: No such file");
    assert_refused(&["-Z", "-o", "ssl_chain_cert=/nonexistent/c"], 64, "Error loading the certificate chain");
    assert_refused(&["-l", "no-such-host.invalid"], 71, "failed to listen on no-such-host.invalid");
    assert_refused(&["--nodes", wrong.path()], 64, &format!("--nodes {}:", wrong.path()));
    assert_refused(&["--users", wrong.path()], 1, &format!("--users {}, line 2", wrong.path()));
    assert_refused(&["-Y", "/nonexistent/y"], 1, "Could not open authfile [/nonexistent/y]");
    assert_refused(&["-e", "/nonexistent/folder/image"], 71, "-e /nonexistent/folder/image: No such file");
    if crate::server::is_root() {
        assert_refused(&["-u", "no-such-user"], 67, "can't find the user no-such-user");
    }
}

#[test]
fn a_check_binds_nothing() {
    let server = Server::corecached_tcp(&[]);
    let port = server.tcp().port().to_string();
    let (code, said, _) = check(&["-p", &port, "-l", "127.0.0.1"]);
    assert_eq!(code, Some(0), "the address is in use, and not asked for: {said}");
    assert_eq!(server.client().ask("mn"), "MN");
}
