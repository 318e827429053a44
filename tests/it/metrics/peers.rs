//! Prometheus itself: its check of the format, and a server of it that scrapes ours, with the expressions of the dashboards
//! and alerts that people have for memcached.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{METRICS, get, scrape};
use crate::monitors::lived_with;
use crate::peers;
use crate::server::{CORECACHED, Program, Server, free_ports, new_folder};

/// Alerts for memcached: the server is down, connections run out (a warning, and then more), memory runs out. They have a
/// result only in trouble.
const ALERTS: [&str; 4] = [
    "memcached_up == 0",
    "(memcached_current_connections / memcached_max_connections * 100) > 80",
    "(memcached_current_connections / memcached_max_connections * 100) > 95",
    "sum without (slab) (rate(memcached_slab_items_outofmemory_total[5m])) > 0",
];

/// Dashboards for memcached. Each expression has a result when the server is used.
const PANELS: [(&str, &str); 24] = [
    (
        "hit rate",
        "sum(rate(memcached_commands_total{command=\"get\",status=\"hit\"}[1m])) / \
         sum(rate(memcached_commands_total{command=\"get\"}[1m]))",
    ),
    ("fullest servers", "topk(20, max by (job, instance) (memcached_current_connections / memcached_max_connections))"),
    ("commands", "sum by (job, instance, command, status) (rate(memcached_commands_total[1m])) > 0"),
    ("gets and sets", "sum(rate(memcached_commands_total{command=~\"get|set\"}[1m])) by (command)"),
    ("evictions", "sum by (instance) (rate(memcached_items_evicted_total[1m]))"),
    ("reclaimed", "sum by (instance) (rate(memcached_items_reclaimed_total[1m]))"),
    ("stored", "sum by (instance) (rate(memcached_items_total[1m])) > 0"),
    (
        "CPU",
        "rate(memcached_process_user_cpu_seconds_total[1m]) + rate(memcached_process_system_cpu_seconds_total[1m])",
    ),
    ("memory", "sum by (job, instance) (memcached_current_bytes) > 0"),
    ("memory in percent", "100 * memcached_current_bytes / memcached_limit_bytes"),
    ("items", "sum by (job, instance) (memcached_current_items) > 0"),
    ("items by class", "sum by (slab) (memcached_slab_current_items)"),
    ("connections", "sum by (job, instance) (memcached_current_connections) > 0"),
    ("most connections", "min by (instance) (memcached_max_connections)"),
    ("new connections", "sum by (instance) (rate(memcached_connections_total[1m]))"),
    ("bytes in", "sum by (instance) (rate(memcached_read_bytes_total[1m])) > 0"),
    ("bytes out", "sum by (instance) (rate(memcached_written_bytes_total[1m])) > 0"),
    ("versions", "count by (job, instance, version) (memcached_version)"),
    ("uptime", "max by (job, instance) (memcached_uptime_seconds) > 0"),
    ("templates", "count by (job, instance) (memcached_commands_total)"),
    ("misses by reason", "sum by (reason) (rate(corecached_get_misses_total[1m]))"),
    ("evictions by reason", "sum by (reason) (rate(corecached_evictions_total[1m]))"),
    ("memory by kind", "sum by (kind) (corecached_memory_bytes)"),
    ("p99", "histogram_quantile(0.99, sum by (le) (rate(corecached_turn_duration_seconds_bucket[1m])))"),
];

#[test]
fn promtool_finds_nothing_wrong() {
    let Some(promtool) = peers::program("promtool") else { return };
    let server = lived_with(Program::Corecached, &METRICS);
    let body = get(server.metrics(), "/metrics").body;
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is there");
    child.stdin.take().expect("a pipe").write_all(body.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // The names are the exporter's. Without complaints about them there is nothing left to say.
    let is_known = |line: &&str| {
        [
            "memcached_uptime_seconds counter metrics should have \"_total\" suffix",
            "memcached_slab_items_evicted_time_seconds counter metrics should have \"_total\" suffix",
            "memcached_slab_items_moves_to_cold counter metrics should have \"_total\" suffix",
            "memcached_slab_items_moves_to_warm counter metrics should have \"_total\" suffix",
            "memcached_slab_items_moves_within_lru counter metrics should have \"_total\" suffix",
            "memcached_slab_mem_requested_bytes counter metrics should have \"_total\" suffix",
        ]
        .contains(line)
    };
    let unknown: Vec<&str> = said.lines().filter(|line| !is_known(line)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert_eq!(said.lines().count(), 6, "promtool has not read it: {said}");
}

/// A Prometheus that scrapes one server each second.
struct Prometheus {
    child: Child,
    folder: std::path::PathBuf,
    address: SocketAddr,
}

impl Prometheus {
    fn start(program: &std::path::Path, server: &Server) -> Prometheus {
        let folder = new_folder();
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, free_ports(1)[0]).into();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n- job_name: memcached\n  static_configs: [{{targets: [\"{}\"]}}]\n",
            server.metrics()
        );
        std::fs::write(folder.join("prometheus.yml"), config).expect("a file in a folder of ours");
        let log = std::fs::File::create(folder.join("log")).expect("a file in a folder of ours");
        let child = Command::new(program)
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it is there");
        Prometheus { child, folder, address }
    }

    /// The results of an expression. An error if it cannot be reached, or refuses the expression.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        use std::io::Read;
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let patience = Duration::from_secs(10);
        let mut stream =
            std::net::TcpStream::connect_timeout(&self.address, patience).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
        let request = format!("GET /api/v1/query?query={escaped} HTTP/1.0\r\nHost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).map_err(|error| error.to_string())?;
        let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let json: Value = serde_json::from_str(body).map_err(|_| reply.clone())?;
        match json["data"]["result"].as_array() {
            Some(results) if json["status"] == "success" => Ok(results.clone()),
            _ => Err(json.to_string()),
        }
    }

    /// Asks until there is a result.
    #[track_caller]
    fn wait_for(&self, what: &str, expression: &str) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let last = self.query(expression);
            if let Ok(results) = &last
                && !results.is_empty()
            {
                return last.expect("it is there");
            }
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what}: {expression}: {last:?}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn dashboards_and_alerts_work_with_prometheus() {
    let Some(program) = peers::program("prometheus") else { return };
    let server = lived_with(Program::Corecached, &METRICS);
    let prometheus = Prometheus::start(&program, &server);
    let (user, used) = (server.client(), channel::<()>());
    std::thread::scope(|scope| {
        // Dropping the sender ends the thread.
        let (_sender, end) = used;
        scope.spawn(move || {
            let (mut client, mut number) = (user, 0_u64);
            while end.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
                number += 1;
                client.send(format!("set a:{number} 0 0 3\r\nabc\r\nget a:{number}\r\nget b\r\n"));
                client.expect(format!("STORED\r\nVALUE a:{number} 0 3\r\nabc\r\nEND\r\nEND\r\n"));
            }
        });
        assert_eq!(prometheus.wait_for("the scrape", "up == 1").len(), 1);
        for (panel, expression) in PANELS {
            prometheus.wait_for(panel, expression);
        }
        for alert in ALERTS {
            assert_eq!(prometheus.query(alert), Ok(Vec::new()), "{alert}");
        }
        let shown = scrape(server.metrics());
        for expression in own_dashboard() {
            assert!(prometheus.query(&expression).is_ok(), "{expression}: {:?}", prometheus.query(&expression));
            for name in metrics_in(&expression) {
                let name = name.strip_suffix("_bucket").unwrap_or(name);
                assert!(shown.contains_key(name) || RARE.contains(&name), "{name} is not shown: {expression}");
            }
        }
    });
}

/// Metrics that this server does not have: it was started without their flags, or nothing of theirs has happened.
const RARE: [&str; 4] = [
    "corecached_hot_key_ratio",
    "corecached_hottest_key_ratio",
    "corecached_repeated_miss_ratio",
    "corecached_started_warm",
];

/// What `corecached print` writes.
fn printed(what: &str) -> String {
    let output = Command::new(CORECACHED).args(["print", what]).output().expect("it is there");
    String::from_utf8(output.stdout).expect("text")
}

/// The expressions of our own dashboard, for all servers and the last minute.
fn own_dashboard() -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(expression)) = fields.get("expr") {
                    let expression = expression.replace("$job", ".*").replace("$instance", ".*");
                    found.push(expression.replace("$__rate_interval", "1m"));
                }
                fields.values().for_each(|value| walk(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::from_str(&printed("dashboard")).expect("JSON"), &mut found);
    assert!(found.len() > 30, "{found:?}");
    found
}

/// The names of metrics in an expression.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| ["memcached_", "corecached_", "process_"].iter().any(|prefix| word.starts_with(prefix)))
}

#[test]
fn our_alerts_are_rules_of_metrics_that_are_shown() {
    let Some(promtool) = peers::program("promtool") else { return };
    let server = lived_with(Program::Corecached, &METRICS);
    let shown = scrape(server.metrics());
    let alerts = printed("alerts");
    let lines = alerts.lines().filter(|line| !line.trim_start().starts_with('#'));
    let expressions: Vec<&str> = lines.filter(|line| metrics_in(line).next().is_some()).collect();
    assert!(expressions.len() > 10, "{alerts}");
    for name in expressions.iter().flat_map(|line| metrics_in(line)) {
        assert!(shown.contains_key(name) || RARE.contains(&name), "{name} is not shown");
    }
    let folder = new_folder();
    let rules = folder.join("alerts.yaml");
    std::fs::write(&rules, &alerts).expect("a file in a folder of ours");
    let output = Command::new(promtool).args(["check", "rules"]).arg(&rules).output().expect("it is there");
    let _ = std::fs::remove_dir_all(folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
