//! The test runs agents of monitoring systems: Zabbix, munin, Nagios, netdata. Each agent reads a server that has
//! executed some of every command, and must report the server's numbers.
//!
//! `.ci/run` unpacks the agents into `target/debian`. It neither installs them nor starts them as services.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use crate::clients::{Outcome, converse, lines_of};
use crate::peers;
use crate::server::{Program, Server, new_folder, on_every_server};

/// How long an agent may take to report.
const PATIENCE: Duration = Duration::from_secs(60);

on_every_server! {
    zabbix_agent2_asks_in_binary: zabbix;
    munin_draws_three_graphs: munin;
    check_memcached_keeps_its_history_in_the_server: nagios;
    netdata_charts_it: netdata;
}

/// A server with 20 items, 30 hits, 10 misses and 22 sets, and the agent's path. `None` if one of the two is missing.
fn server_and_agent(program: Program, agent: &str) -> Option<(Server, PathBuf)> {
    if !peers::has(program) {
        return None;
    }
    let path = peers::program(agent)?;
    let server = Server::on_tcp(program, &["-t", "2", "-m", "32"]);
    let mut client = server.client();
    for i in 0..20 {
        let size = 10 << (i % 4 * 3);
        client.send(format!("set item-{i} 0 0 {size}\r\n{}\r\n", "v".repeat(size)));
        client.expect("STORED\r\n");
    }
    for i in 0..30 {
        client.send(format!("get item-{}\r\n", i % 20));
        assert!(client.line().expect("a line").starts_with(b"VALUE "));
        client.line().expect("the value");
        client.expect("END\r\n");
    }
    (0..10).for_each(|_| assert_eq!(client.ask("get nothing"), "END"));
    client.send("set number 0 0 1\r\n5\r\nincr number 1\r\ndecr number 1\r\ntouch number 0\r\ndelete number\r\n");
    client.expect("STORED\r\n6\r\n5\r\nTOUCHED\r\nDELETED\r\n");
    client.send("ms item-0 1 C99999\r\nx\r\nincr nothing 1\r\ndecr nothing 1\r\ntouch nothing 1\r\ndelete nothing\r\n");
    client.expect("EX\r\nNOT_FOUND\r\nNOT_FOUND\r\nNOT_FOUND\r\nNOT_FOUND\r\n");
    Some((server, path))
}

fn statistics(server: &Server, request: &str) -> BTreeMap<String, String> {
    let lines = server.client().ask_list(request);
    let parts = lines.iter().map(|line| {
        let (name, value) = line.strip_prefix("STAT ").and_then(|rest| rest.split_once(' ')).expect("a statistic");
        (name.to_owned(), value.to_owned())
    });
    parts.collect()
}

/// Statistics that stay the same when a client reads them or a second passes.
const LASTING: &[&str] = &[
    "accepting_conns",
    "bytes",
    "cas_badval",
    "cmd_flush",
    "cmd_get",
    "cmd_set",
    "cmd_touch",
    "curr_items",
    "decr_hits",
    "decr_misses",
    "delete_hits",
    "delete_misses",
    "evictions",
    "get_hits",
    "get_misses",
    "incr_hits",
    "incr_misses",
    "limit_maxbytes",
    "max_connections",
    "pid",
    "threads",
    "total_items",
    "touch_hits",
    "touch_misses",
    "version",
];

/// The template of Zabbix reads these statistics from the agent's answer.
const OF_ZABBIX: &[&str] = &[
    "max_connections",
    "limit_maxbytes",
    "rusage_system",
    "rusage_user",
    "listen_disabled_num",
    "total_connections",
    "conn_yields",
    "connection_structures",
    "curr_connections",
    "cmd_flush",
    "cmd_get",
    "cmd_set",
    "pid",
    "version",
    "uptime",
    "bytes",
    "bytes_written",
    "bytes_read",
    "get_hits",
    "get_misses",
    "evictions",
    "total_items",
    "curr_items",
    "threads",
];

fn zabbix(program: Program) {
    let Some((server, path)) = server_and_agent(program, "zabbix_agent2") else { return };
    let uri = format!("tcp://{}", server.tcp());
    let kinds = ["", ",,,items", ",,,slabs", ",,,settings", ",,,sizes"];
    let keys = kinds.map(|kind| format!("memcached.stats[{uri}{kind}]"));
    let [general, items, slabs, settings, sizes] = ask_zabbix(&path, keys).map(|answer| object(&answer));
    let said = statistics(&server, "stats");
    assert_eq!(names(&general), names(&said));
    LASTING.iter().for_each(|name| assert_eq!(general[*name], said[*name], "{name}"));
    for name in OF_ZABBIX.iter().filter(|name| **name != "version") {
        assert!(general[*name].parse::<f64>().is_ok(), "{name} {}", general[*name]);
    }
    assert_eq!(names(&items), names(&statistics(&server, "stats items")));
    for (kind, told) in [("slabs", slabs), ("settings", settings), ("sizes", sizes)] {
        assert_eq!(told, statistics(&server, &format!("stats {kind}")), "{kind}");
    }
    let pings = || ask_zabbix(&path, [format!("memcached.ping[{uri}]")]);
    assert_eq!(pings(), ["1"]);
    drop(server);
    assert_eq!(pings(), ["0"]);
}

#[test]
fn zabbix_agent2_gets_the_names_of_memcached_1_6_45() {
    let servers = [Program::Corecached, Program::Newest].map(|program| server_and_agent(program, "zabbix_agent2"));
    let [Some((ours, path)), Some((theirs, _))] = &servers else { return };
    let keys = [ours, theirs].map(|server| format!("memcached.stats[tcp://{}]", server.tcp()));
    let [ours, theirs] = ask_zabbix(path, keys).map(|answer| object(&answer));
    assert_eq!(names(&ours), names(&theirs));
}

/// The agent's answers for these keys. The agent waits a second for each of them.
fn ask_zabbix<const N: usize>(path: &Path, keys: [String; N]) -> [String; N] {
    let folder = new_folder();
    let ask = |at: usize, key: &str| {
        let base = folder.display();
        let configuration = format!(
            "Hostname=h\nServer=127.0.0.1\nLogType=console\nPluginSocket={base}/plugins-{at}\nControlSocket=\n"
        );
        let file = folder.join(format!("conf-{at}"));
        fs::write(&file, configuration).expect("a file in a folder of ours");
        let mut command = peers::command(path);
        command.arg("-c").arg(file).args(["-t", key]);
        let Outcome { succeeded, said, complained } = converse(command, |_| false);
        // `KEY [s|VALUE]`, with some spaces between the two.
        let value = said.split_once("[s|").and_then(|(_, rest)| rest.trim_end().strip_suffix(']'));
        match value {
            Some(value) if succeeded => value.to_owned(),
            _ => panic!("{key}: {said}{complained}"),
        }
    };
    let answers = std::thread::scope(|scope| {
        let mut at = 0;
        let asked = keys.each_ref().map(|key| {
            at += 1;
            let (at, ask) = (at, &ask);
            scope.spawn(move || ask(at, key))
        });
        asked.map(|thread| thread.join().expect("its complaint has been printed"))
    });
    let _ = fs::remove_dir_all(&folder);
    answers
}

fn names(statistics: &BTreeMap<String, String>) -> BTreeSet<&str> {
    statistics.keys().map(String::as_str).collect()
}

/// The fields of a flat JSON object of strings. No string contains a quotation mark.
fn object(text: &str) -> BTreeMap<String, String> {
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_else(|| panic!("{text}"));
    let strings: Vec<&str> = inner.split('"').collect();
    // `"name":"value","name":"value"`
    let fields = strings.chunks_exact(4).map(|chunk| {
        assert!(matches!(chunk, ["" | ",", _, ":", _]), "{chunk:?} in {text}");
        (chunk[1].to_owned(), chunk[3].to_owned())
    });
    fields.collect()
}

/// The lines of each graph of munin, and the statistics that they show.
const OF_MUNIN: &[(&str, &[(&str, &str)])] = &[
    (
        "rates",
        &[
            ("memcache_cache_hits", "get_hits"),
            ("memcache_cache_misses", "get_misses"),
            ("memcache_cmd_get", "cmd_get"),
            ("memcache_cmd_set", "cmd_set"),
            ("memcache_total_connections", "total_connections"),
            ("memcache_total_items", "total_items"),
        ],
    ),
    ("bytes", &[("memcache_bytes_read", "bytes_read"), ("memcache_bytes_written", "bytes_written")]),
    (
        "counters",
        &[
            ("memcache_bytes_allocated", "bytes"),
            ("memcache_curr_connections", "curr_connections"),
            ("memcache_curr_items", "curr_items"),
        ],
    ),
];

fn munin(program: Program) {
    let Some((server, path)) = server_and_agent(program, "memcached_") else { return };
    let folder = new_folder();
    for (graph, values) in OF_MUNIN {
        // The plugin reads the graph from its own name.
        let link = folder.join(format!("memcached_{graph}"));
        std::os::unix::fs::symlink(&path, &link).expect("a link in a folder of ours");
        let ask = |what: &[&str]| {
            let mut command = peers::command(&link);
            command.args(what).env("host", "127.0.0.1").env("port", server.tcp().port().to_string());
            let Outcome { succeeded, said, complained } = converse(command, |_| false);
            assert!(succeeded && complained.starts_with('('), "{graph} {what:?}: {said}{complained}");
            said
        };
        assert_eq!(ask(&["autoconf"]), "yes\n");
        let configuration = ask(&["config"]);
        let before = statistics(&server, "stats");
        let told = ask(&[]);
        let after = statistics(&server, "stats");
        let lines: Vec<(&str, u64)> =
            told.lines().map(|line| value(line).unwrap_or_else(|| panic!("{line:?}"))).collect();
        assert_eq!(lines.len(), values.len(), "{told}");
        for (name, from) in *values {
            let (_, shown) = lines.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("{name}: {told}"));
            let number = |said: &BTreeMap<String, String>| said[*from].parse::<u64>().expect("a number");
            assert!((number(&before)..=number(&after)).contains(shown), "{name}: {shown}");
            assert!(configuration.contains(&format!("{name}.label ")), "{name}: {configuration}");
        }
    }
    let _ = fs::remove_dir_all(&folder);
}

/// `NAME.value NUMBER`
fn value(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.split_once(".value ")?;
    Some((name, value.parse().ok()?))
}

/// The plugin stores its last numbers under a key of the same server, and compares the new numbers with them.
fn nagios(program: Program) {
    let Some((server, path)) = server_and_agent(program, "check_memcached") else { return };
    let port = server.tcp().port().to_string();
    // Nagios reads the exit status of the plugin.
    let ask = |arguments: &[&str], succeeds: bool, starts: &str| {
        let mut command = peers::command(&path);
        command.args(["-H", "127.0.0.1", "-p", &port, "-t", "10"]).args(arguments);
        let Outcome { succeeded, said, complained } = converse(command, |_| false);
        assert!(succeeded == succeeds && said.starts_with(starts), "{arguments:?}: {said}{complained}");
        said
    };
    ask(&[], true, "OK: no stats available yet.");
    let mut client = server.client();
    let line = client.ask("get check_memcached");
    assert!(line.starts_with("VALUE check_memcached 0 "), "{line}");
    let history = String::from_utf8(client.line().expect("its history")).expect("plain text");
    assert!(history.contains(" cmd_get=40 cmd_set=22 get_hits=30 get_misses=10 evictions=0\n"), "{history}");
    client.expect("\r\nEND\r\n");

    // The history says that all counters were 0 ten minutes ago. The plugin uses the server's clock, which may be a
    // second behind ours.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is set").as_secs();
    let history = format!("time={} cmd_get=0 cmd_set=0 get_hits=0 get_misses=0 evictions=0\n", now - 630);
    let mut remember = || {
        client.send(format!("set check_memcached 0 0 {}\r\n{history}\r\n", history.len()));
        client.expect("STORED\r\n");
    };
    remember();
    let said = ask(&["-T", "5"], true, "OK: hit/miss=");
    assert!(said.contains(" evictions=0 interval=10 mins|") && said.contains(" delta_get_misses=1"), "{said}");
    remember();
    ask(&["-T", "5", "-w", "50"], false, "WARNING: Low hit/miss rate: ");
    drop(server);
    ask(&[], false, "CRITICAL: Could not connect to server");
}

/// The lines of netdata's charts are these statistics.
const OF_NETDATA: &[&str] = &[
    "cas_badval",
    "cas_hits",
    "cas_misses",
    "cmd_get",
    "cmd_set",
    "cmd_touch",
    "curr_items",
    "decr_hits",
    "decr_misses",
    "delete_hits",
    "delete_misses",
    "evictions",
    "get_hits",
    "get_misses",
    "incr_hits",
    "incr_misses",
    "reclaimed",
    "rejected_connections",
    "total_items",
    "touch_hits",
    "touch_misses",
];

fn netdata(program: Program) {
    let Some((server, path)) = server_and_agent(program, "python.d.plugin") else { return };
    let folder = new_folder();
    fs::create_dir(folder.join("python.d")).expect("a folder in a folder of ours");
    fs::write(folder.join("python.d.conf"), "memcached: yes\n").expect("a file in a folder of ours");
    let port = server.tcp().port();
    fs::write(
        folder.join("python.d/memcached.conf"),
        format!("one:\n  name: one\n  host: 127.0.0.1\n  port: {port}\n"),
    )
    .expect("a file in a folder of ours");
    let mut command = peers::command(&path);
    for name in ["USER_CONFIG_DIR", "STOCK_CONFIG_DIR", "LIB_DIR", "LOCK_DIR"] {
        command.env(format!("NETDATA_{name}"), &folder);
    }
    command.env("NETDATA_PLUGINS_DIR", path.parent().unwrap_or(Path::new("/")));
    let mut child = command
        .args(["debug", "trace", "memcached", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it was found");
    let lines = lines_of(child.stdout.take().expect("it was piped"));

    // netdata prints `SET 'NAME' = NUMBER` between BEGIN and END of a chart. It asks the server every second, on one
    // connection.
    let mut told = BTreeMap::new();
    let mut rounds = 0;
    let deadline = Instant::now() + PATIENCE;
    while rounds < 2 {
        let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else { break };
        if line.starts_with("BEGIN memcached_one.touch_rate ") {
            rounds += 1;
        }
        let set = line.strip_prefix("SET '").and_then(|rest| rest.split_once("' = "));
        if let Some((name, value)) = set {
            told.insert(name.to_owned(), value.to_owned());
        }
    }
    // Both calls fail only if the plugin has ended already.
    let _ = child.kill();
    let _ = child.wait();
    let _ = fs::remove_dir_all(&folder);

    assert!(rounds == 2, "it told only {told:?}");
    let said = statistics(&server, "stats");
    OF_NETDATA.iter().for_each(|name| assert_eq!(told.get(*name), said.get(*name), "{name}"));
    let number = |name: &str| told[name].parse::<u64>().expect("a number");
    assert_eq!(told["used"], said["bytes"]);
    assert_eq!((number("avail") + number("used")).to_string(), said["limit_maxbytes"]);
    for name in ["bytes_read", "bytes_written", "curr_connections", "total_connections"] {
        assert!(number(name) > 0, "{name}");
    }
}
