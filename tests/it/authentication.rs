//! Logins by SASL (`-S`) in packets, and changes of password files. `conversations/login.txt` has the replies with
//! `-Y`.

use std::path::Path;
use std::process::Command;

use crate::client::Client;
use crate::packet::{Packet, request};
use crate::peers;
use crate::server::{Program, Server, TemporaryFile, corecached_run, run};
use crate::waiting::wait_until;

/// Runs a conversation in packets, one line at a time: `> request`, `< reply` or `= closed`. ` | ` separates several
/// packets of a line. `---` begins a new connection.
#[track_caller]
fn check(file: &str, talk: &str) {
    let users = TemporaryFile::new(file);
    for workers in ["1", "3"] {
        let server =
            Server::corecached_with(&[("MEMCACHED_SASL_PWDB", users.path())], &["-S", "-t", workers, "-m", "256"]);
        for talk in talk.split("---") {
            let mut client = server.client();
            for line in talk.trim().lines().map(str::trim) {
                match line.split_at(2) {
                    ("> ", words) => client.send(words.split(" | ").flat_map(request_with_nul).collect::<Vec<u8>>()),
                    ("< ", words) => {
                        for expected in words.split(" | ") {
                            assert_eq!(without_cas(&receive(&mut client)), expected, "in {talk}");
                        }
                    }
                    _ => client.expect_closed(),
                }
            }
        }
    }
}

/// `%` stands for the zero byte, which separates the parts of a PLAIN message.
fn request_with_nul(words: &str) -> Vec<u8> {
    request(&words.replace('%', "\0"))
}

#[track_caller]
fn receive(client: &mut Client) -> String {
    Packet::receive(client).expect("a reply").expect("a packet").shown()
}

fn without_cas(packet: &str) -> String {
    packet.split(' ').filter(|word| !word.starts_with("cas=")).collect::<Vec<_>>().join(" ")
}

const FAILURE: &str = "status=0x20 val=\"Auth failure.\"";

#[test]
fn a_client_that_logs_in_by_sasl() {
    check(
        "user:secret:more\n",
        "> sasl_list
         < sasl_list val=\"PLAIN\"
         > sasl_auth key=PLAIN val=%user%secret
         < sasl_auth val=\"Authenticated\"
         > set key=a flags=5 exp=0 val=x | get key=a | flush | get key=a
         < set | get ext=00000005 val=\"x\" | flush | get status=0x1 val=\"Not found\"
         ---
         > sasl_auth key=plain val=user%user%secret | noop
         < sasl_auth val=\"Authenticated\" | noop
         ---
         > sasl_auth key=PLAIN
         < sasl_auth status=0x21
         > sasl_step key=PLAIN val=%user%secret | noop
         < sasl_step val=\"Authenticated\" | noop",
    );
}

#[test]
fn a_client_that_does_not() {
    let talk: String =
        ["get key=a", "set key=a flags=0 exp=0 val=x", "noop", "quit", "quitq", "flush", "stat", "0x50", "verbosity"]
            .map(|words| {
                let name = words.split(' ').next().expect("a word");
                format!("---\n> {words} | noop\n< {name} {FAILURE}\n= closed\n")
            })
            .concat();
    check("user:secret\n", &talk[4..]);
    // These commands need no login.
    check(
        "user:secret\n",
        "> version | sasl_list | version
         < version val=\"1.6.45\" | sasl_list val=\"PLAIN\" | version val=\"1.6.45\"
         ---
         > get key=abcdef bodylen=3
         < get status=0x81 val=\"Unknown command\"
         = closed
         ---
         > sasl_list key=k
         < sasl_list status=0x4 val=\"Invalid arguments\"
         = closed",
    );
}

#[test]
fn clients_that_fail() {
    let mut talk = String::new();
    for attempt in [
        "sasl_auth key=PLAIN val=%user%wrong",
        "sasl_auth key=PLAIN val=%user%secre",
        "sasl_auth key=PLAIN val=%user%secret2",
        "sasl_auth key=PLAIN val=%nobody%secret",
        "sasl_auth key=PLAIN val=other%user%secret",
        "sasl_auth key=PLAIN val=%user%",
        "sasl_auth key=PLAIN val=%user",
        "sasl_auth key=PLAIN val=%user%secret%",
        "sasl_auth key=CRAM-MD5 val=%user%secret",
        "sasl_auth key=CRAM-MD5",
        "sasl_step key=PLAIN val=%user%secret",
    ] {
        let name = &attempt[..9];
        // The client may try to log in again. Other requests end the connection.
        talk += &format!("> {attempt} | version\n< {name} {FAILURE} | version val=\"1.6.45\"\n");
        talk += &format!("> get key=a\n< get {FAILURE}\n= closed\n---\n");
    }
    talk += "> sasl_auth key=PLAIN val=%user%wrong | sasl_auth key=PLAIN val=%user%secret | noop\n";
    talk += &format!("< sasl_auth {FAILURE} | sasl_auth val=\"Authenticated\" | noop\n");
    // A failed login logs out a client that was logged in.
    talk += "> sasl_auth key=PLAIN val=%user%wrong | noop\n";
    talk += &format!("< sasl_auth {FAILURE} | noop {FAILURE}\n= closed\n---\n");
    talk += "> sasl_auth key=PLAIN val=%user%secret | sasl_step key=PLAIN val=%user%secret | noop\n";
    talk += &format!("< sasl_auth val=\"Authenticated\" | sasl_step {FAILURE} | noop {FAILURE}\n= closed");
    check("user:secret\n", &talk);
}

#[test]
fn messages_that_are_too_long_are_not_looked_at() {
    let talk = format!(
        "> sasl_auth key={} val=x | version | sasl_auth key=PLAIN val=%user%{} | version
         < sasl_auth status=0x4 val=\"Invalid arguments\" | version val=\"1.6.45\"
         < sasl_auth status=0x82 val=\"Out of memory\" | version val=\"1.6.45\"
         ---
         > sasl_auth val=x
         < sasl_auth status=0x4 val=\"Invalid arguments\"
         = closed",
        "M".repeat(33),
        "x".repeat(600_000)
    );
    check("user:secret\n", &talk);
}

#[test]
fn attempts_are_counted() {
    let users = TemporaryFile::new("user:secret\n");
    let server = Server::corecached_with(&[("MEMCACHED_SASL_PWDB", users.path())], &["-S", "-t", "2", "-m", "256"]);
    for (password, count) in [("wrong", 3), ("secret", 2)] {
        for _ in 0..count {
            let mut client = server.client();
            client.send(request_with_nul(&format!("sasl_auth key=PLAIN val=%user%{password}")));
            receive(&mut client);
        }
    }
    let mut client = server.client();
    client.send(request_with_nul("sasl_auth key=PLAIN val=%user%secret"));
    receive(&mut client);
    client.send([request("stat"), request("stat key=settings"), request("noop")].concat());
    let mut stats = Vec::new();
    while stats.last().is_none_or(|last| last != "noop") {
        stats.push(receive(&mut client));
    }
    for expected in [
        "key=\"auth_cmds\" val=\"6\"",
        "key=\"auth_errors\" val=\"3\"",
        "key=\"binding_protocol\" val=\"binary\"",
        "key=\"auth_enabled_sasl\" val=\"yes\"",
        "key=\"auth_enabled_ascii\" val=\"no\"",
    ] {
        assert!(stats.iter().any(|stat| stat == &format!("stat {expected}")), "{expected} in {stats:#?}");
    }
}

#[test]
fn libmemcached_logs_in() {
    let Some(memccp) = peers::program("memccp") else { return };
    let Some(memccat) = peers::program("memccat") else { return };
    let users = TemporaryFile::new("user:secret\n");
    let server = Server::corecached_tcp_with(&[("MEMCACHED_SASL_PWDB", users.path())], &["-S", "-t", "2", "-m", "256"]);
    let run = |tool: &Path, password: &str, argument: &str| {
        let servers = format!("--servers=127.0.0.1:{}", server.tcp().port());
        let mut command = Command::new(tool);
        command.args(["--binary", "--username=user", &format!("--password={password}"), &servers, argument]);
        let output = command.output().expect("it can be run");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let value = TemporaryFile::new("a value");
    assert!(run(&memccp, "secret", value.path()).0);
    let (found, shown) = run(&memccat, "secret", "file");
    assert!(found && shown.starts_with("a value"), "{shown:?}");
    assert!(!run(&memccat, "wrong", "file").0);
}

#[test]
fn text_is_no_way_around_sasl() {
    let users = TemporaryFile::new("user:secret\n");
    let server = Server::corecached_with(&[("MEMCACHED_SASL_PWDB", users.path())], &["-S"]);
    let mut client = server.client();
    client.send("get a\r\nversion\r\nstats\r\nset a 0 0 1\r\nx\r\n");
    client.expect_closed();
}

#[test]
fn a_password_file_that_has_changed_is_read_again() {
    let users = TemporaryFile::new("foo:old\n");
    let server = Server::corecached(&["-Y", users.path(), "-v", "-t", "2", "-m", "256"]);
    let log_in = |password: &str| server.client().ask(&format!("set x 0 0 7\r\nfoo {password}"));
    let mut inside = server.client();
    assert_eq!(inside.ask("set x 0 0 7\r\nfoo old"), "STORED");
    assert_eq!(log_in("new"), "CLIENT_ERROR authentication failure");

    // The server ignores a malformed file.
    users.write("no colon\n");
    server.signal("HUP");
    wait_until("the server complains", || server.printed().contains("users stay as they were"));
    assert_eq!(log_in("old"), "STORED");

    users.write("foo:new\n");
    server.signal("HUP");
    wait_until("the new password is known", || log_in("new") == "STORED");
    assert_eq!(log_in("old"), "CLIENT_ERROR authentication failure");
    // A logged-in client stays logged in.
    assert_eq!(inside.ask("mn"), "MN");
}

#[test]
fn a_server_that_cannot_know_its_users_does_not_start() {
    let bad = TemporaryFile::new("foo:bar\nno colon\n");
    for (flags, code, words) in [
        (&["-Y", "/nowhere/users"][..], 1, "Could not open authfile [/nowhere/users] for reading, error"),
        (&["-Y", ""], 1, "Could not open authfile [] for reading, error"),
        (&["-Y", "/"], 1, "Could not open authfile [/] for reading, error Is a directory"),
        (&["-Y", bad.path()], 1, "has a malformed entry. Should be 'user:password' (line 2)"),
        (&["-S"], 1, "Error initializing sasl. MEMCACHED_SASL_PWDB names no file"),
        (&["-S", "-B", "auto"], 64, "ERROR: You cannot allow the ASCII protocol while using SASL."),
        (
            &["-Y", bad.path(), "-B", "auto"],
            64,
            "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.",
        ),
        (&["-Y", bad.path(), "-S"], 64, "-S and -Y: "),
    ] {
        let (status, printed) = corecached_run(flags);
        assert!(status.code() == Some(code) && printed.contains(words), "{flags:?}: {status}, {printed}");
    }
}

/// Checks the result of a password file for `-Y`: the server serves, or it exits with code 1 and these words in its
/// first line.
#[track_caller]
fn check_file(program: Program, file: &[u8], complaint: Option<&str>) {
    let users = TemporaryFile::new("");
    std::fs::write(users.path(), file).expect("a file in a folder of ours");
    let shown = file.escape_ascii();
    match complaint {
        None => {
            let server = Server::on_tcp(program, &["-Y", users.path()]);
            assert_eq!(server.client().ask("version"), "CLIENT_ERROR unauthenticated", "{program:?} {shown}");
        }
        Some(complaint) => {
            let (status, printed) = run(program, &["-p", "-1", "-l", "127.0.0.1", "-Y", users.path()]);
            let first = printed.lines().find(|line| !line.contains("WARN")).unwrap_or_default();
            assert_eq!(status.code(), Some(1), "{program:?} {shown}: {printed}");
            assert!(first.starts_with("Authfile [") && first.contains(complaint), "{program:?} {shown}: {printed}");
        }
    }
}

#[test]
fn a_file_of_users_is_what_memcached_takes_for_one() {
    const MALFORMED: &str = "] has a malformed entry. Should be 'user:password'";
    let eight: String = (0..8).map(|number| format!("user{number}:password{number}\n")).collect();
    // Each row has the file, memcached's message if it does not serve, and our message.
    let same = |complaint| [complaint, complaint];
    let longest = format!("user:{}\n", "x".repeat(250));
    let too_long = format!("user:{}\n", "x".repeat(251));
    for (file, [theirs, ours]) in [
        (&b""[..], same(Some(MALFORMED))),
        (b"\n", same(Some(MALFORMED))),
        (b"\n\n\n", same(Some(MALFORMED))),
        (b"\r\n", same(Some(MALFORMED))),
        (b" \n", same(Some(MALFORMED))),
        (b"user", same(Some(MALFORMED))),
        (b"user\n", same(Some(MALFORMED))),
        (b"user:password\n\n", same(Some(MALFORMED))),
        (b"user:password\n\nother:password\n", same(Some(MALFORMED))),
        (b"user:password", same(None)),
        (b"user:password\r\n", same(None)),
        (b"user:\n", same(None)),
        (b":password\n", same(None)),
        (b":\n", same(None)),
        (eight.as_bytes(), same(None)),
        // The server does not read more than eight lines.
        (format!("{eight}\n").as_bytes(), same(None)),
        (format!("{eight}malformed\n").as_bytes(), same(None)),
        (longest.as_bytes(), same(None)),
        // memcached would cut off a part of these lines.
        (too_long.as_bytes(), [None, Some("] has a line of more than 255 bytes (line 1)")]),
        (b"user:pass\0word\n", [None, Some("] has a zero byte (line 1)")]),
        (b"us\0er:password\n", [Some(MALFORMED), Some("] has a zero byte (line 1)")]),
    ] {
        check_file(Program::Corecached, file, ours);
        if peers::has(Program::Newest) {
            check_file(Program::Newest, file, theirs);
        }
    }
}

#[test]
fn a_file_that_lets_nobody_in_is_not_taken_while_it_serves() {
    let users = TemporaryFile::new("foo:old\n");
    let server = Server::corecached(&["-v", "-Y", users.path()]);
    let log_in = || server.client().ask("set a 0 0 7\r\nfoo old");
    assert_eq!(log_in(), "STORED");
    users.write("");
    server.signal("HUP");
    wait_until("the server complains", || server.printed().contains("users stay as they were"));
    assert_eq!(log_in(), "STORED");
}

#[test]
fn sasl_starts_without_users_and_says_so() {
    let users = TemporaryFile::new("# none yet\n");
    let server = Server::corecached_with(&[("MEMCACHED_SASL_PWDB", users.path())], &["-S"]);
    wait_until("it has said so", || server.printed().contains("has no users: nobody can log in"));
}
