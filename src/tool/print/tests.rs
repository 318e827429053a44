//! The dashboard and the alerts name only metrics that the server has, and the dashboard is well formed.

use super::{ALERTS, DASHBOARD};
use serde_json::Value;
use std::collections::BTreeSet;

/// The metrics of the server that the dashboard and the alerts may name. A histogram stands with its base name.
const KNOWN: &[&str] = &[
    // Those of memcached_exporter.
    "memcached_up",
    "memcached_version",
    "memcached_uptime_seconds",
    "memcached_time_seconds",
    "memcached_process_user_cpu_seconds_total",
    "memcached_process_system_cpu_seconds_total",
    "memcached_commands_total",
    "memcached_current_bytes",
    "memcached_limit_bytes",
    "memcached_current_items",
    "memcached_malloced_bytes",
    "memcached_items_total",
    "memcached_items_evicted_total",
    "memcached_items_reclaimed_total",
    "memcached_item_too_large_total",
    "memcached_item_no_memory_total",
    "memcached_read_bytes_total",
    "memcached_written_bytes_total",
    "memcached_current_connections",
    "memcached_max_connections",
    "memcached_accepting_connections",
    "memcached_connections_total",
    "memcached_connections_rejected_total",
    "memcached_connections_yielded_total",
    "memcached_connections_listener_disabled_total",
    "memcached_direct_reclaims_total",
    "memcached_slab_current_items",
    "memcached_slab_items_age_seconds",
    "memcached_slab_items_evicted_total",
    "memcached_slab_items_outofmemory_total",
    "memcached_slab_chunk_size_bytes",
    "memcached_slab_chunks_per_page",
    "memcached_slab_current_pages",
    "memcached_slab_current_chunks",
    "memcached_slab_chunks_used",
    "memcached_slab_chunks_free",
    "memcached_slab_mem_requested_bytes",
    "memcached_slab_commands_total",
    // Our own.
    "corecached_build_info",
    "corecached_request_duration_seconds",
    "corecached_wait_duration_seconds",
    "corecached_turn_duration_seconds",
    "corecached_replies_blocked_total",
    "corecached_slow_requests_total",
    "corecached_worker_busy_seconds_total",
    "corecached_worker_turns_total",
    "corecached_worker_operations_total",
    "corecached_worker_batches_posted_total",
    "corecached_worker_leases_refused_total",
    "corecached_worker_connections",
    "corecached_shard_items",
    "corecached_shard_evictions_total",
    "corecached_memory_bytes",
    "corecached_memory_limit_bytes",
    "corecached_get_misses_total",
    "corecached_evictions_total",
    "corecached_slab_evicted_age_seconds",
    "corecached_connections",
    "corecached_tls_handshakes_total",
    "corecached_auth_total",
    "corecached_user_refusals_total",
    "corecached_user_connections",
    "corecached_hottest_key_ratio",
    "corecached_hot_key_ratio",
    "corecached_repeated_miss_ratio",
    "corecached_prefix_operations_total",
    "corecached_prefix_bytes",
    "corecached_late_workers",
    "corecached_ready",
    "corecached_started_warm",
    // Those of any process.
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

/// Words of PromQL that are no metrics and stand before no parenthesis.
const WORDS: [&str; 4] = ["and", "or", "unless", "offset"];
/// Words before a list of labels.
const LABELS_FOLLOW: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The names of metrics in an expression of PromQL.
fn metrics(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = without_selectors(expression);
    while let Some(start) = rest.find(|letter: char| letter.is_alphanumeric() || letter == '_') {
        rest.drain(..start);
        let end = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(rest.len());
        let word: String = rest.drain(..end).collect();
        let is_followed_by_list = rest.trim_start().starts_with('(');
        if LABELS_FOLLOW.contains(&word.as_str()) && is_followed_by_list {
            let close = rest.find(')').expect("a list of labels ends");
            rest.drain(..=close);
        } else if !word.starts_with(|letter: char| letter.is_ascii_digit())
            && !is_followed_by_list
            && !WORDS.contains(&word.as_str())
            // An aggregation with its labels first: `sum by (a) (…)`.
            && !LABELS_FOLLOW.iter().any(|label| rest.trim_start().starts_with(&format!("{label} (")))
        {
            names.insert(word);
        }
    }
    names
}

/// Leaves out what stands in braces and brackets.
fn without_selectors(expression: &str) -> String {
    let mut depth = 0;
    let outside = expression.chars().filter(|letter| {
        depth += i32::from(['{', '['].contains(letter));
        let is_outside = depth == 0;
        depth -= i32::from(['}', ']'].contains(letter));
        is_outside
    });
    outside.collect()
}

fn is_known(name: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
    KNOWN.contains(&name) || base.ends_with("_duration_seconds") && KNOWN.contains(&base)
}

#[track_caller]
fn assert_known(expressions: &[String]) {
    for expression in expressions {
        let names = metrics(expression);
        assert!(!names.is_empty(), "no metric in {expression}");
        for name in names {
            assert!(is_known(&name), "no server has {name}: {expression}");
        }
    }
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).expect("it is JSON")
}

/// All texts of this name, wherever they are.
fn texts(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, value)| match value {
            Value::String(text) if field == name => found.push(text.clone()),
            _ => texts(value, name, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| texts(value, name, found)),
        _ => {}
    }
}

/// The values of a field of the alerts: the rest of its line, or the lines below it that are indented further.
fn alert_fields(name: &str) -> Vec<String> {
    let lines: Vec<&str> = ALERTS.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(value) = line.trim_start().trim_start_matches("- ").strip_prefix(&format!("{name}:")) else {
            continue;
        };
        match value.trim() {
            ">-" => {
                let below = lines[at + 1..].iter().take_while(|below| indent(below) > indent(line));
                found.push(below.map(|line| line.trim()).collect::<Vec<_>>().join(" "));
            }
            value => found.push(value.to_owned()),
        }
    }
    found
}

#[test]
fn metrics_are_found_in_expressions() {
    let found = |expression| metrics(expression).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(found("rate(a_total{b=\"c\"}[5m] offset 1d) > 0.5 and time() - d < 3600"), "a_total d");
    assert_eq!(found("histogram_quantile(0.9, sum by (le, x) (rate(h_bucket[$__rate_interval])))"), "h_bucket");
    assert_eq!(found("a > ignoring (kind) 1.03 * b or topk(10, c)"), "a b c");
    assert!(is_known("corecached_request_duration_seconds_bucket"));
    assert!(!is_known("corecached_ready_bucket") && !is_known("memcached_no_such"));
}

#[test]
fn alerts_name_only_metrics_that_exist() {
    let expressions = alert_fields("expr");
    assert_eq!(expressions.len(), alert_fields("alert").len());
    assert_known(&expressions);
}

#[test]
fn each_alert_says_what_is_wrong_and_what_to_do() {
    let alerts = alert_fields("alert").len();
    assert!(alerts >= 11);
    for field in ["severity", "summary", "description"] {
        let values = alert_fields(field);
        assert_eq!(values.len(), alerts, "{field}");
        assert!(values.iter().all(|value| !value.is_empty()), "{field}");
    }
    assert!(alert_fields("summary").iter().all(|summary| summary.contains("$labels.instance")));
}

#[test]
fn the_dashboard_names_only_metrics_that_exist() {
    let mut expressions = Vec::new();
    texts(&dashboard(), "expr", &mut expressions);
    assert!(expressions.len() > 50);
    assert_known(&expressions);
}

#[test]
fn the_dashboard_has_its_rows_and_no_panel_covers_another() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("a list");
    let rows: Vec<&str> =
        panels.iter().filter(|panel| panel["type"] == "row").filter_map(|panel| panel["title"].as_str()).collect();
    assert_eq!(rows, ["Is it well", "Memory", "Traffic", "Cores", "Keys", "Connections"]);
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        for x in side("x")..side("x") + side("w") {
            assert!(x < 24, "{}", panel["title"]);
            for y in side("y")..side("y") + side("h") {
                assert!(taken.insert((x, y)), "{} covers another panel", panel["title"]);
            }
        }
    }
}
