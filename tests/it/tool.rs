//! The commands that look at servers: `corecached stat`, `check` and the others. They run against the real memcached,
//! against corecached, and against recorded replies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::peers;
use crate::server::{CORECACHED, Program, Server, TemporaryFile, on_every_server};
use crate::waiting::wait_until;

mod doctor;
mod flush;
mod transfer;

on_every_server! {
    check_finds_a_server: check;
    stat_counts_what_happens: stat;
    latency_measures_round_trips: latency;
    bigkeys_finds_the_largest_value: bigkeys;
    hotkeys_watches_a_server: hotkeys;
    top_draws_a_frame: top;
    flush_drops_all_keys: flush::all;
    keys_that_no_request_can_name_are_told: transfer::unnameable;
    memcached_tool_and_dump_read_the_same_files: transfer::memcached_tool;
    a_newer_value_survives_an_item_that_is_too_large: transfer::too_large;
    stale_items_stay_for_the_clients: transfer::stale;
    doctor_is_silent_if_all_is_well: doctor::silent_if_all_is_well;
    doctor_finds_the_faults_of_clients: doctor::faults;
}

/// A command of the tool, whose environment names no servers.
fn tool(words: &[&str]) -> Command {
    let mut command = Command::new(CORECACHED);
    command.args(words).env_remove("MEMCACHED_SERVERS").env_remove("COLUMNS").env_remove("LINES").stdin(Stdio::null());
    command
}

#[track_caller]
fn output(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program under test runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    (status.code(), text(stdout), text(stderr))
}

#[track_caller]
fn call(words: &[&str]) -> (Option<i32>, String, String) {
    output(tool(words))
}

/// Standard output of a command that succeeds, and says nothing on standard error.
#[track_caller]
fn printed(words: &[&str]) -> String {
    let (code, stdout, stderr) = call(words);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{words:?}: {stdout}");
    stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A server on TCP, and its address in words.
fn start(program: Program) -> Option<(Server, String)> {
    peers::has(program).then(|| {
        let server = Server::on_tcp(program, &["-t", "2"]);
        let address = server.tcp().to_string();
        (server, address)
    })
}

/// An address where nothing listens.
fn nowhere() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it has one").to_string()
}

fn check(program: Program) {
    let Some((_server, address)) = start(program) else { return };
    let said = printed(&["check", "--server", &address]);
    assert!(said.starts_with(&format!("{address}: ok, answered ")) && said.lines().count() == 1, "{said}");
    let away = nowhere();
    let (code, said, complained) = call(&["check", "--server", &format!("{address},{away}")]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with(&address), "{said}");
    assert_eq!(complained, format!("{away}: connection refused\n"));
}

fn stat(program: Program) {
    let Some((server, address)) = start(program) else { return };
    let mut child = tool(&["stat", "0.05", "--server", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut next = || lines.next().expect("it does not end").expect("text");
    let header: Vec<String> = next().split_whitespace().map(str::to_owned).collect();
    assert_eq!(header[..6], ["ops/s", "get/s", "set/s", "hit%", "p50", "p99"]);
    // One hit and three misses, again and again. A line may be about a moment in between, but not every line.
    let mut client = server.client();
    client.send("set k 0 0 1\r\nv\r\n");
    client.expect("STORED\r\n");
    let (mut headers, mut right) = (1, 0);
    for _ in 0..1000 {
        client.send("get k no none nothing\r\n");
        client.expect("VALUE k 0 1\r\nv\r\nEND\r\n");
        let line = next();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.len(), header.len(), "{line}");
        headers += usize::from(words[0] == "ops/s");
        right += usize::from(words[3] == "25.0");
        if headers == 2 && right > 5 {
            break;
        }
    }
    assert!(headers == 2 && right > 5, "{headers} headers, {right} lines with the right share of hits");
    end(child);
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn latency(program: Program) {
    let Some((_server, address)) = start(program) else { return };
    let said = json(&printed(&["latency", "--seconds", "0.05", "--json", "--server", &address]));
    let here = &said[0]["latencies"][0];
    assert_eq!((&said[0]["server"], &here["what"]), (&Value::from(address.as_str()), &"round trip from here".into()));
    let [p50, max] = ["p50_us", "max_us"].map(|field| here[field].as_f64().expect("a number"));
    assert!(0.0 < p50 && p50 <= max, "{said}");
    let table = printed(&["latency", "--seconds", "0.05", "--server", &address]);
    assert!(table.starts_with("count ") && table.contains("  round trip from here\n"), "{table}");
}

fn bigkeys(program: Program) {
    let Some((server, address)) = start(program) else { return };
    let mut client = server.client();
    for (key, size) in [("small:1", 10), ("large/2", 5000), ("middle", 300)] {
        client.send(format!("set {key} 0 0 {size}\r\n{}\r\n", "x".repeat(size)));
        client.expect("STORED\r\n");
    }
    let said = json(&printed(&["bigkeys", "--scan", "--limit", "2", "--json", "--server", &address]));
    let keys: Vec<&str> =
        said[0]["keys"].as_array().expect("a list").iter().filter_map(|key| key["key"].as_str()).collect();
    assert_eq!((keys, &said[0]["items"]), (vec!["large/2", "middle"], &3.into()));
    let table = printed(&["bigkeys", "--scan", "--server", &address]);
    assert!(table.starts_with("3 items of ") && table.ends_with("  small:1\n"), "{table}");
}

/// corecached tells its hot keys itself, so this is about servers that do not.
fn hotkeys(program: Program) {
    if program == Program::Corecached {
        return;
    }
    let Some((server, address)) = start(program) else { return };
    let mut client = server.client();
    let child = tool(&["hotkeys", "--seconds", "2", "--json", "--server", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test runs");
    // The server counts the lines that it has sent to its watcher.
    wait_until("the gets of a watched server are over", || {
        client.send("get hot hot hot hot cold\r\n");
        client.expect("END\r\n");
        client.send("stats\r\n");
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| line != "END\r\n") {
            lines.push(String::from_utf8(client.line().expect("a line")).expect("text"));
        }
        let number = |name: &str| lines.iter().find_map(|line| line.trim_end().strip_prefix(name)?.parse::<u64>().ok());
        number("STAT log_watcher_sent ").is_some_and(|sent| sent > 50)
    });
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the child is ours");
    let (said, warned) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(0), "{warned}");
    assert!(warned.contains("does not sample its keys: watching its gets for 2s"), "{warned}");
    let said = json(&said);
    let keys = said[0]["keys"].as_array().expect("a list");
    assert_eq!(keys[0]["key"], "hot", "{said}");
    let share = keys[0]["share_percent"].as_f64().expect("a number");
    assert!((75.0..85.0).contains(&share), "{said}");
    assert_eq!(keys[0]["hit_percent"], 0, "{said}");
}

fn top(program: Program) {
    if !cfg!(feature = "top") {
        return peers::say_skipped("the program was built without the feature \"top\"");
    }
    let Some((server, address)) = start(program) else { return };
    let mut client = server.client();
    client.send("set key 0 0 5\r\nvalue\r\n");
    client.expect("STORED\r\n");
    let away = nowhere();
    let servers = format!("{address},{away}");
    let (code, said, complained) = output({
        let mut command = tool(&["top", "--once", "--interval", "0.05", "--server", &servers]);
        command.env("COLUMNS", "150").env("LINES", "50");
        command
    });
    assert_eq!((code, complained.as_str()), (Some(1), ""), "{said}");
    let line = said.lines().find(|line| line.contains(&format!("▸ {address}"))).expect("a line for the server");
    assert!(line.contains("/64M"), "{said}");
    assert!(said.contains("connection refused") && !said.contains('\x1b'), "{said}");
    assert!(said.contains("Classes ─") && said.contains("1 items"), "{said}");
}

#[test]
fn names_of_commands_are_commands_unless_the_program_is_called_memcached() {
    let help = printed(&["help"]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|word| !word.is_empty()))
        .collect();
    assert!(commands.len() >= 9, "{commands:?}");
    // The help of the server names each of them, and each has a help of its own.
    let flags = printed(&["--help"]);
    let named = flags.split("Commands").nth(1).expect("a part about commands");
    for command in commands {
        assert!(named.contains(command), "{command} in {named}");
        assert!(printed(&["help", command]).contains("Usage: corecached"), "{command}");
    }
    let folder = TemporaryFile::new("");
    let link = std::path::Path::new(folder.path()).with_file_name("memcached");
    std::os::unix::fs::symlink(CORECACHED, &link).expect("a link in our folder");
    let said = Command::new(&link).args(["check", "-V"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("memcached 1.6"), "{said:?}");
}

#[test]
fn the_help_explains_stampedes() {
    let page = printed(&["help", "stampede"]);
    assert!(page.contains("--ttl 'feed: early=30s'") && page.contains("RecachePolicy(ttl=30)"), "{page}");
    assert!(printed(&["help"]).contains("corecached help stampede"));
    let flags = printed(&["--help"]);
    assert!(flags.split_whitespace().collect::<Vec<_>>().join(" ").contains("corecached help stampede"), "{flags}");
}

#[test]
fn mistakes_have_exit_code_64() {
    for words in [
        &["stat", "0"][..],
        &["stat", "1", "0"],
        &["check", "--no-such-flag"],
        &["check", "--server", "host:port"],
        &["check", "--user", "me"],
        &["check", "--tls-ca", "/no/such/file"],
        &["check", "--server", "a", "--user", "u", "--password-file", "/no/such/file"],
        &["print", "nothing"],
        // It has no terminal.
        &["top"],
        &["help", "nothing"],
    ] {
        let (code, said, complained) = call(words);
        assert_eq!((code, said.as_str()), (Some(64), ""), "{words:?}");
        assert!(!complained.is_empty() && !complained.contains('\x1b'), "{words:?}: {complained}");
    }
}

#[test]
fn an_output_that_nobody_reads_ends_stat_quietly() {
    let server = Server::corecached(&["-t", "1"]);
    let socket = server.socket().to_str().expect("a plain name");
    let mut child = tool(&["stat", "0.01", "--server", socket])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test runs");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    out.read_line(&mut String::new()).expect("a header");
    drop(out);
    let Output { status, stderr, .. } = child.wait_with_output().expect("the child is ours");
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
}

#[test]
fn servers_come_from_the_environment_and_by_unix_socket() {
    let server = Server::corecached(&["-t", "1"]);
    let socket = server.socket().to_str().expect("a plain name");
    let mut command = tool(&["check"]);
    command.env("MEMCACHED_SERVERS", socket);
    let (code, said, _) = output(command);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with(socket), "{said}");
}

#[test]
fn a_server_that_does_not_answer_fails_after_the_time_out() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = silent.local_addr().expect("it has one").to_string();
    let (code, said, complained) = call(&["check", "--timeout", "0.05", "--server", &address]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert_eq!(complained, format!("{address}: no answer in time\n"));
}

#[test]
fn a_server_with_passwords_wants_a_login() {
    let (users, good, bad) =
        (TemporaryFile::new("me:secret\n"), TemporaryFile::new("secret\n"), TemporaryFile::new("wrong\n"));
    let server = Server::corecached_tcp(&["-t", "1", "-Y", users.path()]);
    let address = server.tcp().to_string();
    let login = |password: &TemporaryFile| {
        call(&["check", "--server", &address, "--user", "me", "--password-file", password.path()])
    };
    assert_eq!(login(&good).0, Some(0), "{:?}", login(&good));
    let (code, _, complained) = login(&bad);
    assert_eq!(code, Some(1));
    assert!(complained.contains("the login is refused") && !complained.contains("wrong"), "{complained}");
    assert_eq!(call(&["check", "--server", &address]).0, Some(1));
    let (code, _, complained) = call(&["prefixes", "--server", &address]);
    assert_eq!(code, Some(1));
    assert!(complained.contains("the server wants a login"), "{complained}");
}

#[test]
fn corecached_tells_its_keys_prefixes_and_latencies() {
    let server = Server::corecached_tcp(&["-t", "2", "--sample", "1"]);
    let address = server.tcp().to_string();
    let mut client = server.client();
    client.send("set user:hot 0 0 1\r\nv\r\n");
    client.expect("STORED\r\n");
    for _ in 0..100 {
        client.send("get user:hot user:hot user:hot\r\nget page:cold\r\n");
        client.expect("VALUE user:hot 0 1\r\nv\r\n".repeat(3) + "END\r\nEND\r\n");
    }
    let rows = |words: &[&str], list: &str| {
        let said = json(&printed(&[words, &["--json", "--server", &address]].concat()));
        said[0][list].as_array().unwrap_or_else(|| panic!("no {list} in {said}")).clone()
    };
    let hot = rows(&["hotkeys"], "keys");
    assert_eq!((&hot[0]["key"], &hot[1]["key"]), (&"user:hot".into(), &"page:cold".into()), "{hot:?}");
    let shares = [0, 1].map(|at| hot[at]["share_percent"].as_f64().expect("a number"));
    assert!((70.0..80.0).contains(&shares[0]) && (20.0..30.0).contains(&shares[1]), "{shares:?}");
    let prefixes = rows(&["prefixes"], "prefixes");
    let named = |name: &str| prefixes.iter().find(|row| row["prefix"] == name).expect("a row of the prefix");
    assert_eq!((&named("user")["hits"], &named("page")["misses"]), (&300.into(), &100.into()), "{prefixes:?}");
    let latencies = rows(&["latency", "--seconds", "0.05"], "latencies");
    let what: Vec<&str> = latencies.iter().filter_map(|row| row["what"].as_str()).collect();
    assert_eq!(
        what[..4],
        ["round trip from here", "of these, inside the server", "server: get hit", "server: get miss"]
    );
    assert_eq!(latencies[2]["count"], 300);
}

/// A server that answers from recorded replies, each under its request.
fn recorded(replies: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it has one").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, replies));
        }
    });
    address
}

fn answer(mut stream: TcpStream, replies: &[(&str, &str)]) {
    let Ok(reader) = stream.try_clone() else { return };
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        let reply = replies.iter().find(|(request, _)| *request == line).map_or("ERROR", |(_, reply)| reply);
        if stream.write_all(format!("{}\r\n", reply.replace('\n', "\r\n")).as_bytes()).is_err() {
            return;
        }
    }
}

const HOT_KEYS: &str = "STAT sample_mean 128
STAT window_seconds 10.0
STAT samples 8203
STAT operations_per_second 105000
STAT 1:key user%3A42
STAT 1:ops_per_second 12600
STAT 1:share_percent 12.0
STAT 1:error_percent 0.4
STAT 1:read_percent 99.0
STAT 1:hit_percent 100.0
STAT 1:bytes_per_second 1260000
END";
const PREFIXES: &str = "STAT sample_mean 128
STAT repeated_miss_percent 31.0
STAT 1:prefix user
STAT 1:ops_per_second 90000
STAT 1:hit_percent 98.8
STAT 1:bytes_held 400000000
STAT 1:memory_percent 49.9
STAT 1:hits_per_second_per_mib 230.5
STAT 2:prefix page
STAT 2:ops_per_second 9000
STAT 2:hit_percent 61.0
STAT 2:bytes_held 401000000
STAT 2:memory_percent 50.0
STAT 2:hits_per_second_per_mib 14.0
END";

#[test]
fn lists_of_corecached_become_tables_and_json() {
    let address = recorded(&[
        ("stats hotkeys", HOT_KEYS),
        ("stats prefixes", PREFIXES),
        ("stats bigkeys", "STAT 1:key img%3A1\nSTAT 1:bytes 900000\nSTAT 1:age_seconds 61\nEND"),
    ]);
    let hot = printed(&["hotkeys", "--server", &address]);
    let lines: Vec<&str> = hot.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "8.2k samples in 10s, 105k operations a second",
            "ops/s  share%    ±  read%  hit%  out/s  key",
            "  13k    12.0  0.4   99.0   100   1.2M  user:42",
        ]
    );
    let prefixes = |order| {
        let said = printed(&["prefixes", "--sort", order, "--server", &address]);
        let names = said.lines().skip(1).filter_map(|line| line.split_whitespace().last());
        names.take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(prefixes("traffic"), ["user", "page"]);
    assert_eq!(prefixes("memory"), ["page", "user"]);
    assert_eq!(prefixes("waste"), ["page", "user"]);
    let big = json(&printed(&["bigkeys", "--json", "--server", &address]));
    assert_eq!(big[0]["keys"], json(r#"[{"key":"img:1","bytes":900000,"age_seconds":61}]"#));
}

#[test]
fn a_server_without_samples_says_so() {
    let off = recorded(&[("stats hotkeys", "STAT sample_mean 0\nEND"), ("stats prefixes", "STAT sample_mean 0\nEND")]);
    for command in ["hotkeys", "prefixes"] {
        let (code, said, complained) = call(&[command, "--server", &off]);
        assert_eq!((code, said.as_str()), (Some(1), ""));
        assert_eq!(complained, format!("corecached: {off}: it samples nothing (--sample 0)\n"));
    }
    let unknown = recorded(&[]);
    let (code, _, complained) = call(&["prefixes", "--server", &unknown]);
    assert_eq!(code, Some(1));
    assert!(complained.contains("only corecached counts them"), "{complained}");
}

#[test]
fn keys_cannot_steer_the_terminal() {
    let address = recorded(&[("stats bigkeys", "STAT 1:key a\u{1b}[31mb%1b%0a\nSTAT 1:bytes 70000\nEND")]);
    let said = printed(&["bigkeys", "--server", &address]);
    assert!(said.contains("a\u{fffd}[31mb%1B%0A"), "{said}");
}

#[test]
fn the_files_that_are_printed_are_the_embedded_ones() {
    let dashboard = json(&printed(&["print", "dashboard"]));
    assert_eq!(dashboard["title"], "corecached");
    let alerts = printed(&["print", "alerts"]);
    let Some(promtool) = peers::optional_program("promtool") else { return };
    let mut child = Command::new(promtool)
        .args(["check", "rules", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    child.stdin.take().expect("it is piped").write_all(alerts.as_bytes()).expect("it reads");
    let mut said = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("the child is ours").success(), "{said}");
}
