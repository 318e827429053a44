//! The metrics address (`--metrics`): what scrapers, load balancers and browsers find there, and what rude ones can do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::monitors::lived_with;
use crate::server::{Address, CORECACHED, Program, Server, TemporaryFile, corecached_run, new_folder};
use crate::waiting::{PATIENCE, wait_until};
use text::{Family, Labels, parse};

mod peers;
mod text;

/// The flag of a test, and its value.
const METRICS: [&str; 2] = ["--metrics", "127.0.0.1:0"];

/// A response of the metrics address.
#[derive(Debug)]
struct Response {
    status: u16,
    /// The names are in lower case.
    headers: BTreeMap<String, String>,
    body: String,
}

impl Response {
    /// Reads a response up to the end of the connection.
    #[track_caller]
    fn read(mut stream: impl Read) -> Response {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a response, and the end of the connection");
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let headers = lines.map(|line| line.split_once(": ").expect("a name and a value"));
        let headers: BTreeMap<String, String> =
            headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        assert_eq!(headers.get("connection").map(String::as_str), Some("close"));
        Response { status: status.unwrap_or_else(|| panic!("no status: {head}")), headers, body: body.to_owned() }
    }

    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!((self.status, self.headers["content-type"].as_str()), (200, "application/json"), "{}", self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    stream
}

/// Sends bytes, and reads a response.
#[track_caller]
fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    let mut stream = connect(address);
    stream.write_all(request.as_ref()).expect("there is room");
    Response::read(stream)
}

#[track_caller]
fn get(address: SocketAddr, path: &str) -> Response {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

/// The metrics that the server shows now.
#[track_caller]
pub(crate) fn scrape(address: SocketAddr) -> BTreeMap<String, Family> {
    let response = get(address, "/metrics");
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    parse(&response.body)
}

/// The value of the sample with these labels.
#[track_caller]
fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let family = families.get(name).unwrap_or_else(|| panic!("there is no {name}"));
    let sample = family.samples.iter().find(|(_, other, _)| *other == labels);
    sample.unwrap_or_else(|| panic!("{name} has no sample {labels:?}: {family:?}")).2
}

/// Statistics by name: those of `stats`, and with a word before their name those of its sub-commands. Words are numbers: 1 for
/// yes and 0 for no.
fn statistics(client: &mut Client) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    // `stats` itself comes last and counts what the others cost.
    for (command, word) in
        [("stats settings", "settings."), ("stats items", ""), ("stats slabs", "slabs."), ("stats", "")]
    {
        for line in client.ask_list(command) {
            let (name, value) = line.strip_prefix("STAT ").and_then(|line| line.split_once(' ')).expect("a statistic");
            let number = match value {
                "yes" => Some(1.0),
                "no" => Some(0.0),
                value => value.parse().ok(),
            };
            all.extend(number.map(|number| (format!("{word}{name}"), number)));
        }
    }
    all
}

/// The value of a source of `exporter.txt`, for a class if it needs one.
fn sourced(statistics: &BTreeMap<String, f64>, source: &str, class: Option<&str>) -> Option<f64> {
    let mut parts = source.split('-').map(|part| {
        let name = match (part.split_once('.'), class) {
            (Some(("items", name)), Some(class)) => format!("items:{class}:{name}"),
            (Some(("slabs", name)), Some(class)) => format!("slabs.{class}:{name}"),
            _ => part.to_owned(),
        };
        statistics.get(&name).copied()
    });
    let first = parts.next()??;
    parts.try_fold(first, |sum, part| Some(sum - part?))
}

/// The series of a row of a table that a server must have: its labels and its source.
struct Row {
    name: String,
    kind: &'static str,
    labels: Vec<(&'static str, &'static str)>,
    is_by_class: bool,
    source: &'static str,
    needs: Vec<&'static str>,
}

fn exporter_rows() -> Vec<Row> {
    let lines = include_str!("metrics/exporter.txt").lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, kind, labels, source, ref needs @ ..] = words[..] else { panic!("{line}") };
        let labels = labels.split(',').filter(|label| *label != "-");
        Row {
            name: format!("memcached_{name}"),
            kind,
            labels: labels.clone().filter_map(|label| label.split_once('=')).collect(),
            is_by_class: labels.clone().any(|label| label == "slab"),
            source,
            needs: needs.iter().flat_map(|needs| needs.split(',')).collect(),
        }
    });
    rows.collect()
}

/// The first difference between a scrape and the table. `before` and `after` are the statistics around the scrape.
fn difference(
    families: &BTreeMap<String, Family>,
    has: &[&str],
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> Option<String> {
    let mut expected: BTreeSet<(String, Labels)> = BTreeSet::new();
    for row in exporter_rows().into_iter().filter(|row| row.needs.iter().all(|need| has.contains(need))) {
        let family = families.get(&row.name);
        let of = |kind: &'static str| {
            before.keys().filter_map(move |name| Some(name.strip_prefix(kind)?.split_once(':')?.0))
        };
        let classes: BTreeSet<&str> = match row.is_by_class {
            true if row.source.starts_with("items.") => of("items:").collect(),
            true => of("slabs.").collect(),
            false => BTreeSet::from([""]),
        };
        for class in classes {
            let mut labels: Labels = row.labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            if row.is_by_class {
                labels.insert("slab".into(), class.into());
            }
            let Some(sample) = family.and_then(|family| family.samples.iter().find(|sample| sample.1 == labels)) else {
                return Some(format!("there is no {} {labels:?}", row.name));
            };
            if family.is_none_or(|family| family.kind != row.kind) {
                return Some(format!("{} is no {}", row.name, row.kind));
            }
            let class = row.is_by_class.then_some(class);
            let bounds = match row.source.strip_prefix('=') {
                Some(fixed) => fixed.parse().ok().map(|fixed| (fixed, fixed)),
                None => sourced(before, row.source, class).zip(sourced(after, row.source, class)),
            };
            let Some((low, high)) = bounds else { return Some(format!("{}: stats has no {}", row.name, row.source)) };
            if !(low.min(high)..=low.max(high)).contains(&sample.2) {
                return Some(format!("{} {labels:?} is {}, and stats says {low} to {high}", row.name, sample.2));
            }
            expected.insert((row.name.clone(), labels));
        }
    }
    let shown = families.iter().filter(|(name, _)| name.starts_with("memcached_"));
    let mut shown =
        shown.flat_map(|(name, family)| family.samples.iter().map(move |sample| (name.clone(), sample.1.clone())));
    shown.find(|series| !expected.contains(series)).map(|series| format!("{series:?} is not in the table"))
}

#[test]
fn it_has_every_metric_of_the_exporter_with_the_values_of_stats() {
    for (flags, has) in [
        (&["-t", "2", "-N", "1", "-o", "temporary_ttl=61"][..], &["segments", "crawler", "temp", "fast", "queues"][..]),
        (&["-t", "1"], &["segments", "crawler", "fast"]),
        (&["-t", "3", "-o", "no_lru_crawler,no_lru_maintainer,no_maxconns_fast"], &[]),
    ] {
        let server = lived_with(Program::Corecached, &[flags, &METRICS].concat());
        let mut client = server.client();
        // Housekeeping goes on meanwhile, and some figures go up and down.
        let mut last = None;
        for _ in 0..20 {
            let before = statistics(&mut client);
            let families = scrape(server.metrics());
            last = difference(&families, has, &before, &statistics(&mut client));
            if last.is_none() {
                assert!(value(&families, "memcached_items_evicted_total", &[]) > 0.0, "the server has not lived");
                break;
            }
        }
        assert_eq!(last, None, "{flags:?}");
    }
}

#[test]
fn it_has_every_metric_of_its_own() {
    let image = new_folder().join("image").display().to_string();
    let nodes = TemporaryFile::new("127.0.0.1\n");
    for (flags, has_extra) in [(&["-t", "2"][..], false), (&["-e", &image, "--nodes", nodes.path()], true)] {
        let server = lived_with(Program::Corecached, &[&METRICS, flags].concat());
        let families = scrape(server.metrics());
        let mut known = BTreeSet::new();
        for line in include_str!("metrics/own.txt").lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let (name, kind, labels) = (words[0], words[1], words[2]);
            known.insert(name);
            if words.get(3) == Some(&"extra") && !has_extra {
                assert!(!families.contains_key(name), "{name} without its flag");
                continue;
            }
            let labels: Vec<(&str, &str)> = labels.split(',').filter_map(|label| label.split_once('=')).collect();
            let family = families.get(name).unwrap_or_else(|| panic!("there is no {name}"));
            assert_eq!(family.kind, kind, "{name}");
            let fits = |found: &Labels| {
                found.keys().filter(|name| *name != "le").count() == labels.len()
                    && labels
                        .iter()
                        .all(|(name, value)| found.get(*name).is_some_and(|found| *value == "*" || found == value))
            };
            assert!(family.samples.iter().any(|sample| fits(&sample.1)), "{line}: {family:?}");
        }
        // These need samples of keys.
        known.extend(["corecached_hottest_key_ratio", "corecached_repeated_miss_ratio"]);
        let unknown: Vec<&String> = families.keys().filter(|name| !known.contains(name.as_str())).collect();
        assert!(unknown.iter().all(|name| name.starts_with("memcached_")), "{unknown:?}");
    }
}

#[test]
fn its_sums_are_of_this_world() {
    let server = lived_with(Program::Corecached, &[&METRICS[..], &["-t", "2", "-m", "200"]].concat());
    let mut client = server.client();
    client.send("set gone 0 1 1\r\nx\r\n");
    client.expect("STORED\r\n");
    let families = scrape(server.metrics());
    let stats = statistics(&mut client);
    let sum = |name: &str| families[name].samples.iter().map(|sample| sample.2).sum::<f64>();
    assert_eq!(sum("corecached_get_misses_total"), stats["get_misses"]);
    assert_eq!(value(&families, "corecached_get_misses_total", &[("reason", "flushed")]), stats["get_flushed"]);
    assert_eq!(sum("corecached_evictions_total"), stats["evictions"]);
    assert_eq!(sum("corecached_shard_evictions_total"), stats["evictions"]);
    assert_eq!(sum("corecached_shard_items"), stats["curr_items"]);
    assert_eq!(families["corecached_shard_items"].samples.len(), 2);
    assert_eq!(sum("corecached_connections"), sum("corecached_worker_connections"));
    let memory = |kind| value(&families, "corecached_memory_bytes", &[("kind", kind)]);
    assert_eq!(memory("index"), stats["hash_bytes"]);
    assert!(memory("items") >= stats["bytes"], "items hold less than their bytes");
    assert!(memory("items") + memory("free") <= stats["limit_maxbytes"] + memory("lent"), "more than there is");
    assert_eq!(value(&families, "corecached_memory_limit_bytes", &[]), stats["limit_maxbytes"]);
    let start = value(&families, "process_start_time_seconds", &[]);
    assert!((stats["time"] - stats["uptime"] - start).abs() < 5.0, "{start}");
    let resident = value(&families, "process_resident_memory_bytes", &[]);
    assert!((resident / 1024.0 / server.resident_kib() as f64 - 1.0).abs() < 0.2, "{resident}");
    assert!(value(&families, "process_open_fds", &[]) <= value(&families, "process_max_fds", &[]));
    assert!(value(&families, "process_cpu_seconds_total", &[]) > 0.0);
}

#[test]
fn connections_and_logins_are_counted() {
    let users = TemporaryFile::new("alice:secret\n");
    let server = Server::corecached_tcp(&[&METRICS[..], &["-Y", users.path()]].concat());
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for (client, (password, reply)) in
        clients.iter_mut().zip([("secret", "STORED"), ("wrong1", "CLIENT_ERROR"), ("secret", "STORED")])
    {
        assert!(client.ask(&format!("set a 0 0 12\r\nalice {password}")).starts_with(reply));
    }
    let families = scrape(server.metrics());
    let auth = |result| value(&families, "corecached_auth_total", &[("result", result)]);
    assert_eq!((auth("success"), auth("failure")), (2.0, 1.0));
    let connections = |families: &_, transport| value(families, "corecached_connections", &[("transport", transport)]);
    assert_eq!((connections(&families, "tcp"), connections(&families, "unix")), (3.0, 0.0));
    clients.truncate(1);
    wait_until("two are gone", || connections(&scrape(server.metrics()), "tcp") == 1.0);
}

#[test]
fn it_answers_when_all_connections_are_taken() {
    let server = Server::corecached_tcp(&[&METRICS[..], &["-c", "1", "-t", "1"]].concat());
    let mut first = server.client();
    assert_eq!(first.ask("mn"), "MN");
    let mut refused = server.client();
    assert!(refused.rest().expect("it is told").starts_with(b"ERROR Too many open connections"));
    let families = scrape(server.metrics());
    let number = |name: &str| value(&families, name, &[]);
    assert_eq!((number("memcached_max_connections"), number("memcached_current_connections")), (1.0, 1.0));
    assert_eq!(number("memcached_connections_rejected_total"), 1.0);
    assert_eq!(get(server.metrics(), "/healthz").body, "ok\n");
}

#[test]
fn every_path_answers() {
    let server = Server::corecached_tcp(&[&METRICS[..], &["-t", "2", "-m", "200"]].concat());
    let address = server.metrics();
    let mut client = server.client();
    for i in 0..1000 {
        client.send(format!("set user:{i} 0 0 1\r\nx\r\n"));
        client.expect("STORED\r\n");
    }
    wait_until("the server is ready", || get(address, "/readyz").status == 200);
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ok\n")] {
        let response = get(address, path);
        assert_eq!((response.status, response.body.as_str()), (200, body), "{path}");
    }
    let version = get(address, "/version").json();
    assert_eq!(
        (&version["version"], &version["memcached_version"]),
        (&env!("CARGO_PKG_VERSION").into(), &"1.6.45".into())
    );
    assert_eq!(get(address, "/settings").json()["maxbytes"], 200 << 20);
    let mut status = Value::Null;
    wait_until("the second is over", || {
        status = get(address, "/status.json").json();
        status["stats"]["curr_items"] == 1000
    });
    assert_eq!(status["server"]["pid"], server.pid());
    assert_eq!(status["server"]["listen"][0], server.tcp().to_string());
    assert_eq!((&status["server"]["workers"], &status["server"]["shards"]), (&2.into(), &2.into()));
    assert_eq!(status["health"], serde_json::json!({"ready": true, "late_workers": []}));
    assert_eq!(status["memory"]["limit"], 200 << 20);
    assert_eq!(status["workers"].as_array().map(Vec::len), Some(2));
    assert!(status["classes"].as_array().is_some_and(|classes| classes.iter().any(|class| class["items"] == 1000)));
    for part in ["latency", "latency_recent"] {
        for kind in "get_hit get_miss set delete arithmetic touch other wait turn".split(' ') {
            assert!(status[part][kind]["p999_us"].is_number(), "{part} {kind}");
        }
    }
    for part in ["evictions", "misses", "hot_keys", "big_keys", "prefixes", "slow", "repeated_miss_ratio"] {
        assert!(status.get(part).is_some(), "{part}");
    }
    assert!(get(address, "/latency").json()["latency"]["set"].is_object());
    assert_eq!(get(address, "/hotkeys").json()["named"], false);
    assert!(get(address, "/prefixes").json().as_array().is_some_and(|prefixes| !prefixes.is_empty()));
    let mut history = Value::Null;
    wait_until("there are two seconds of history", || {
        history = get(address, "/history.json").json();
        history["times"].as_array().is_some_and(|times| times.len() >= 2)
    });
    let times = history["times"].as_array().expect("it has").len();
    let series = history["series"].as_object().expect("it has");
    assert_eq!(series.len(), 16);
    assert!(series.values().all(|values| values.as_array().is_some_and(|values| values.len() == times)), "{history}");
    // Times have three decimals, and reading them as JSON may be inexact.
    let first = format!("{:.3}", history["times"][0].as_f64().expect("a number"));
    let later = get(address, &format!("/history.json?since={first}")).json();
    assert!(later["times"].as_array().is_some_and(|left| left.len() >= times - 1 && left[0] == history["times"][1]));
    assert_eq!(get(address, "/history.json?since=yesterday").status, 400);
    let page = get(address, "/");
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"), "{page:?}");
    assert_eq!(
        (page.headers["cache-control"].as_str(), page.headers["x-content-type-options"].as_str()),
        ("no-store", "nosniff")
    );
}

#[test]
fn wrong_requests_get_their_status() {
    let server = Server::corecached_tcp(&METRICS);
    let address = server.metrics();
    let long = format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "A: aaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(2400));
    assert!(long.len() > 64 << 10);
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("DELETE / HTTP/1.1\r\nHost: test\r\n\r\n", 405),
        ("GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n", 404),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: test\r\n\r\n", 404),
        ("GET /metrics/../healthz HTTP/1.1\r\nHost: test\r\n\r\n", 404),
        ("GET /%2e%2e/healthz HTTP/1.1\r\nHost: test\r\n\r\n", 404),
        ("GET //metrics HTTP/1.1\r\nHost: test\r\n\r\n", 404),
        ("GET /metrics HTTP/1.1\r\n\r\n", 400),
        ("get a\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n", 400),
        (&long, 431),
    ] {
        assert_eq!(ask(address, request).status, status, "{request:.60}");
    }
    let head = ask(address, "HEAD /healthz HTTP/1.0\r\n\r\n");
    assert_eq!((head.status, head.headers["content-length"].as_str(), head.body.as_str()), (200, "3", ""));
    assert_eq!(get(address, "/healthz?a=b").body, "ok\n");
}

#[test]
fn rude_clients_hold_nobody_up() {
    let mut server = Server::corecached_tcp(&METRICS);
    let address = server.metrics();
    let before = server.resident_kib();
    // Half a request, then a byte at a time. The wait for the response is the pause between two bytes.
    let mut slow = connect(address);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nA: ").expect("there is room");
    slow.set_read_timeout(Some(Duration::from_millis(200))).expect("a time above zero");
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 1000];
        match slow.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // The server may close at this moment.
                let _ = slow.write_all(b"T");
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(received.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&received));
    // Clients that say nothing, and clients that do not read what they have asked for.
    let mut idle: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    for _ in 0..30 {
        let mut stalled = connect(address);
        stalled.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("there is room");
        idle.push(stalled);
    }
    for _ in 0..10 {
        assert_eq!(get(address, "/healthz").body, "ok\n");
        scrape(address);
    }
    // Each of them is closed in the end, though it does nothing.
    for mut stream in idle {
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    assert!(server.resident_kib() < before + 20_000, "{} KiB, before {before}", server.resident_kib());
    server.assert_alive();
}

#[test]
fn a_unix_socket_serves_too() {
    let path = new_folder().join("metrics");
    let flag = format!("unix:{}", path.display());
    let mut server = Server::corecached(&["--metrics", &flag, "-a", "750"]);
    let scrape = || {
        let mut stream = UnixStream::connect(&path).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("there is room");
        parse(&Response::read(stream).body)
    };
    wait_until("the server is ready", || value(&scrape(), "corecached_ready", &[]) == 1.0);
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("it is there").permissions()) & 0o777,
        0o750
    );
    let client = server.client();
    wait_until("the client is counted", || value(&scrape(), "corecached_connections", &[("transport", "unix")]) == 1.0);
    drop(client);
    server.signal("TERM");
    assert!(server.wait().success());
    assert!(!path.exists(), "the file stays");
    let _ = std::fs::remove_dir(path.parent().expect("it has a folder"));
}

#[test]
fn a_socket_that_cannot_be_bound_is_an_error() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let (status, printed) = corecached_run(&["-u", "root", "-p", "-1", "--metrics", &address]);
    assert_eq!(status.code(), Some(71), "{printed}");
    assert!(printed.contains(&format!("failed to listen on metrics {address}: Address already in use")), "{printed}");
    let (status, printed) = corecached_run(&["-u", "root", "-p", "-1", "--metrics", "unix:/nonexistent/metrics"]);
    assert_eq!(status.code(), Some(71), "{printed}");
    assert!(printed.contains("failed to listen on metrics /nonexistent/metrics: "), "{printed}");
}

#[test]
fn a_socket_of_systemd_is_taken_by_its_name() {
    let (cache, metrics) = ((Ipv4Addr::LOCALHOST, 0), (Ipv4Addr::LOCALHOST, 0));
    let cache = TcpListener::bind(cache).expect("a port");
    let metrics = TcpListener::bind(metrics).expect("a port");
    let (cache_at, metrics_at) = (cache.local_addr().expect("bound"), metrics.local_addr().expect("bound"));
    let script = "LISTEN_FDS=2 LISTEN_FDNAMES=cache.socket:metrics LISTEN_PID=$$ exec \"$0\" -u root -p 1 --metrics 1 \
        3<&0 4>&1 </dev/null >/dev/null";
    let mut child = Command::new("sh")
        .args(["-c", script, CORECACHED])
        .stdin(OwnedFd::from(cache))
        .stdout(OwnedFd::from(metrics))
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    assert_eq!(value(&scrape(metrics_at), "memcached_up", &[]), 1.0);
    assert_eq!(Client::connect(&Address::Tcp(cache_at)).ask("mn"), "MN");
    child.kill().and_then(|()| child.wait()).expect("a child of ours");
}

/// A server that logs into a pipe, which nobody reads unless the test does.
struct Logging {
    child: std::process::Child,
    folder: std::path::PathBuf,
    metrics: SocketAddr,
}

impl Logging {
    fn start() -> Logging {
        let folder = new_folder();
        let ports = folder.join("ports");
        let child = Command::new(CORECACHED)
            .args(["-u", "root", "-p", "-1", "-t", "2", "-vv"])
            .args(METRICS)
            .env("MEMCACHED_PORT_FILENAME", &ports)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it is there");
        wait_until("it has written its ports", || ports.exists());
        let port = |name: &str| {
            let written = std::fs::read_to_string(&ports).expect("it is there");
            written.lines().find_map(|line| line.strip_prefix(name)?.parse::<u16>().ok()).expect("a port")
        };
        Logging { metrics: (Ipv4Addr::LOCALHOST, port("METRICS INET: ")).into(), child, folder }
    }

    fn tcp(&self) -> SocketAddr {
        let written = std::fs::read_to_string(self.folder.join("ports")).expect("it is there");
        let port = written.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.parse::<u16>().ok());
        (Ipv4Addr::LOCALHOST, port.expect("a port")).into()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_worker_that_hangs_is_named() {
    let mut server = Logging::start();
    let (tcp, metrics) = (server.tcp(), server.metrics);
    assert_eq!(get(metrics, "/healthz").body, "ok\n");
    // Make the server log until the pipe is full. The workers that write the log then wait for a reader.
    let mut health = get(metrics, "/healthz");
    wait_until("a worker hangs", || {
        if let Ok(stream) = TcpStream::connect_timeout(&tcp, Duration::from_millis(10)) {
            drop(stream);
        }
        health = get(metrics, "/healthz");
        health.status == 503
    });
    let names = ["worker 0 does not answer\n", "worker 1 does not answer\n", "workers 0, 1 do not answer\n"];
    assert!(names.contains(&health.body.as_str()), "{health:?}");
    // A scrape and the page do without the shards.
    let response = get(metrics, "/metrics");
    let families = parse(&response.body);
    assert!(response.body.contains("# The shards have not answered in time"), "{}", response.body);
    assert_eq!(value(&families, "memcached_up", &[]), 1.0);
    assert!(value(&families, "corecached_late_workers", &[]) >= 1.0);
    assert!(!families.contains_key("memcached_current_items"));
    let status = get(metrics, "/status.json").json();
    assert!(status["health"]["late_workers"].as_array().is_some_and(|late| !late.is_empty()), "{status}");
    // Somebody reads the log: the worker goes on.
    let mut log = server.child.stderr.take().expect("it is a pipe");
    let read = std::thread::spawn(move || {
        let mut text = Vec::new();
        log.read_to_end(&mut text).map(|_| text)
    });
    wait_until("it is well again", || get(metrics, "/healthz").status == 200);
    wait_until("the shards answer", || scrape(metrics).contains_key("memcached_current_items"));
    drop(server);
    assert!(read.join().expect("a thread of the test").is_ok());
}

#[test]
fn it_drains_before_it_stops() {
    let folder = new_folder();
    let notify = folder.join("notify");
    let supervisor = UnixDatagram::bind(&notify).expect("a socket in a folder of ours");
    supervisor.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    let told = || loop {
        let mut buffer = [0; 200];
        let count = supervisor.recv(&mut buffer).expect("a datagram");
        let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
        // Other tests look at what is stored.
        if !message.starts_with("FDSTORE=1\n") {
            return message;
        }
    };
    let environment = [("NOTIFY_SOCKET", notify.to_str().expect("plain names"))];
    for (drain, first) in [("3600", "TERM"), ("3600", "USR1"), ("1", "TERM")] {
        let mut server = Server::corecached_tcp_with(&environment, &[&METRICS[..], &["--drain", drain]].concat());
        assert!(told().starts_with("READY=1"));
        let address = server.metrics();
        assert_eq!(get(address, "/readyz").status, 200);
        server.signal(first);
        assert_eq!(told(), "STOPPING=1\nSTATUS=stopping");
        if drain == "3600" {
            let ready = get(address, "/readyz");
            assert_eq!((ready.status, ready.body.as_str()), (503, "not ready\n"));
            assert_eq!(get(address, "/healthz").status, 200);
            assert_eq!(value(&scrape(address), "corecached_ready", &[]), 0.0);
            assert_eq!(get(address, "/status.json").json()["health"]["ready"], false);
            server.assert_alive();
            if first == "USR1" {
                // systemd may send this one in any case.
                server.signal("TERM");
                server.assert_alive();
            }
            server.signal("TERM");
        }
        assert!(server.wait().success());
    }
    let mut server = Server::corecached_tcp_with(&environment, &[&METRICS[..], &["--drain", "3600"]].concat());
    assert!(told().starts_with("READY=1"));
    server.signal("INT");
    assert_eq!(told(), "STOPPING=1\nSTATUS=stopping");
    assert!(server.wait().success());
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn keys_are_hidden_unless_they_are_asked_for() {
    for (flags, is_named) in [
        (&[][..], false),
        (&["--metrics-key-names"], true),
        (&["--metrics-key-names", "--hide-keys"], false),
        (&["--metrics-key-names", "-X"], false),
    ] {
        let server = Server::corecached_tcp(&[&METRICS[..], &["--sample", "1"], flags].concat());
        let (address, mut client) = (server.metrics(), server.client());
        let big = "x".repeat(100_000);
        client.send(format!("set user:secretbig 0 0 {}\r\n{big}\r\n", big.len()));
        client.expect("STORED\r\n");
        for _ in 0..1000 {
            client.send("mg user:secretkey v\r\n");
            client.expect("EN\r\n");
        }
        let mut status = Value::Null;
        // The list is a second old at most: an earlier one knows only a few of the requests.
        wait_until("the keys are there, and all requests are counted", || {
            status = get(address, "/status.json").json();
            let is_hot = status["hot_keys"]["keys"][0]["share"].as_f64().is_some_and(|share| share > 0.9);
            is_hot && status["big_keys"].as_array().is_some_and(|keys| !keys.is_empty())
        });
        assert_eq!(status["hot_keys"]["named"], is_named, "{flags:?}");
        let (hot, big) = (&status["hot_keys"]["keys"][0], &status["big_keys"][0]);
        assert_eq!(big["bytes"], 100_000);
        let names = [hot, big].map(|key| key["key"].as_str().expect("a name"));
        if is_named {
            assert_eq!(names, ["user:secretkey", "user:secretbig"]);
            assert!(value(&scrape(address), "corecached_hot_key_ratio", &[("key", "user:secretkey")]) > 0.9);
        } else {
            assert!(names.iter().all(|name| name.starts_with("user:#") && name.len() == 14), "{names:?}");
            let paths =
                ["/metrics", "/status.json", "/hotkeys", "/prefixes", "/latency", "/history.json", "/settings", "/"];
            let bodies = paths.map(|path| get(address, path).body).concat();
            assert!(!bodies.contains("secret"), "{flags:?}");
        }
        let mut families = scrape(address);
        let misses = [("prefix", "user"), ("command", "get"), ("status", "miss")];
        // The server loses the samples that come while it reads those before.
        wait_until("the prefix is counted", || {
            families = scrape(address);
            (900.0..=1000.0).contains(&value(&families, "corecached_prefix_operations_total", &misses))
        });
        assert!(value(&families, "corecached_hottest_key_ratio", &[("rank", "1")]) > 0.9);
        let missed = [("command", "get"), ("result", "miss")];
        let count = families["corecached_request_duration_seconds"].samples.iter().find(|(name, labels, _)| {
            name.ends_with("_count")
                && missed.iter().all(|(label, value)| labels.get(*label).is_some_and(|it| it == value))
        });
        assert!(count.is_some_and(|(_, _, count)| *count == 1000.0), "{count:?}");
    }
}
