//! `compare` and `scale` with real servers that speak RESP: Redis and Valkey, from `PATH` or from where `.ci/resp` puts them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

/// The path of a peer. Without one, the test is skipped; with `CORECACHED_REQUIRE_PEERS=1` it fails.
fn peer(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/resp");
    let mut folders = std::env::split_paths(&path).chain([unpacked]).map(|folder| folder.join(name));
    let found = folders.find(|file| file.is_file());
    if found.is_none() {
        missing(&format!("{name} is not installed (.ci/resp fetches it)"));
    }
    found
}

/// The server beside this program. Cargo builds both for the tests of the workspace.
fn corecached() -> Option<PathBuf> {
    let path = Path::new(LOADTEST).with_file_name("corecached");
    if !path.exists() {
        missing("corecached is not built: test the whole workspace");
        return None;
    }
    Some(path)
}

/// Reports that the test is skipped, or fails it.
fn missing(what: &str) {
    let required = std::env::var("CORECACHED_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "{what}");
    // The test harness hides what `eprintln!` prints.
    let _ = writeln!(std::io::stderr(), "skipped: {what}");
}

/// Compares two commands for a moment, servers and client on one core, and returns the results.
fn compare(baseline: &Path, candidate: &Path, options: &str, core: usize) -> Value {
    let core = core.to_string();
    let options = [&["--server-cpus", &core, "--client-cpus", &core], &options.split(' ').collect::<Vec<_>>()[..]];
    measure(
        "compare",
        &baseline.display().to_string(),
        &format!("{} -u root -t 1", candidate.display()),
        &options.concat(),
    )
}

/// Runs a command of this program for a moment, and returns the results.
fn measure(command: &str, baseline: &str, candidate: &str, options: &[&str]) -> Value {
    let output = Command::new(LOADTEST)
        .args([command, "--json", "--quiet", "--rounds", "1", "--seconds", "0.1", "--keys", "1000"])
        .args(["--baseline", baseline, "--candidate", candidate])
        .args(options)
        .output()
        .expect("it was built for this test");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complained}", output.status);
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// The rows of the results, with their names.
fn rows(results: &Value) -> Vec<(&str, &Value)> {
    let rows = results["workloads"].as_array().expect("rows");
    rows.iter().map(|row| (row["workload"].as_str().expect("a name"), row)).collect()
}

/// A figure of the one round of each side.
fn figures(row: &Value, figure: &str) -> [f64; 2] {
    ["baseline", "candidate"].map(|side| {
        row[side]["rounds"][0][figure].as_f64().unwrap_or_else(|| panic!("no {figure} of the {side} in {row}"))
    })
}

#[test]
fn servers_of_two_protocols_do_the_same_work() {
    let Some(corecached) = corecached() else { return };
    for (program, name) in [("redis-server", "redis "), ("valkey-server", "valkey ")] {
        let Some(path) = peer(program) else { continue };
        let results = compare(&path, &corecached, "--set canonical", 0);
        assert!(results["versions"][0].as_str().is_some_and(|version| version.starts_with(name)), "{results}");
        let rows = rows(&results);
        assert_eq!(rows.len(), 6);
        for (name, row) in rows {
            if name == "mg-32" {
                let why = "refused: the baseline speaks RESP, which has no meta commands";
                assert_eq!(row["remarks"][0], why);
                continue;
            }
            for figure in ["keys_per_second", "cpu_microseconds_per_key", "p99_microseconds", "memory_bytes"] {
                assert!(figures(row, figure).into_iter().all(|value| value > 0.0), "{figure} of {name}: {row}");
            }
            // All keys were found, and loadtest has checked every byte.
            if name != "set-32" {
                assert_eq!(figures(row, "hit_rate"), [1.0, 1.0], "{name}");
            }
            assert_eq!(figures(row, "error_replies"), [0.0, 0.0], "{name}");
        }
    }
}

#[test]
fn a_redis_with_a_limit_of_memory_evicts() {
    let (Some(corecached), Some(redis)) = (corecached(), peer("redis-server")) else { return };
    // Not the core of the other test, if there are two.
    let core = std::thread::available_parallelism().map_or(0, |count| count.get() - 1);
    let results = compare(&redis, &corecached, "--set peers -w value-500 -w rate-70", core);
    for (name, row) in rows(&results) {
        if name == "rate-70" {
            assert!(figures(row, "p99_microseconds").into_iter().all(|value| value > 0.0), "{row}");
            continue;
        }
        let (items, memory) = (figures(row, "items"), figures(row, "memory_bytes"));
        for (items, memory) in items.into_iter().zip(memory) {
            // Keys of 25 bytes and values of 500 within the 256 MiB of the row. A fifth more may be resident: Redis limits
            // what it allocates. All keys would take half more.
            assert!(items * 525.0 < memory && memory < 1.2 * f64::from(256 << 20), "{items} items in {memory} bytes");
            assert!(items > 300_000.0, "only {items} items");
        }
        assert_eq!(figures(row, "error_replies"), [0.0, 0.0]);
    }
}

#[test]
fn a_server_that_speaks_resp_scales_by_one_port() {
    let (Some(corecached), Some(redis)) = (corecached(), peer("redis-server")) else { return };
    let options = ["--workers", "1,2", "-w", "get-50keys", "-w", "mix-zipf", "-w", "get-32-ports"];
    let (text, resp) = (format!("{} -u root", corecached.display()), redis.display().to_string());
    for (candidate, results) in
        [("text", measure("scale", &resp, &text, &options)), ("resp", measure("scale", &text, &resp, &options))]
    {
        let rows = results["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 6, "three workloads with one worker and with two");
        for row in rows {
            let outcome = &row["outcome"];
            if candidate == "resp" && outcome["workload"] == "get-32-ports" {
                assert_eq!(row["remarks"][0], "candidate: refused: it speaks RESP, and has no --port-per-core");
                assert!(outcome["baseline"]["rounds"][0]["keys_per_second"].as_f64() > Some(0.0), "{row}");
                continue;
            }
            assert!(figures(outcome, "cpu_microseconds_per_key").into_iter().all(|value| value > 0.0), "{row}");
            // All keys were found, and loadtest has checked every byte.
            assert_eq!(figures(outcome, "hit_rate"), [1.0, 1.0], "{row}");
            assert_eq!(row["remarks"], Value::Array(Vec::new()));
        }
    }
}
