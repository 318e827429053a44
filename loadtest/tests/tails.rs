//! A short row of `compare --set tails`, with the server beside this program on both sides. Cargo builds both for the
//! tests of the workspace.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

#[test]
fn a_row_with_all_disturbances_moves_pages_dumps_keys_and_sorts_late_requests() {
    let server = Path::new(LOADTEST).with_file_name("corecached");
    if !server.exists() {
        let required = std::env::var("CORECACHED_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "corecached is not built: test the whole workspace");
        eprintln!("skipped: corecached is not built; test the whole workspace");
        return;
    }
    let server = format!("{} -u root", server.display());
    let row = ["--set", "tails", "-w", "all-1to1-70", "--rounds", "1", "--seconds", "1", "--json"];
    let mut command = Command::new(LOADTEST);
    command.arg("compare").args(row).args(["--baseline", &server, "--candidate", &server]);
    let output = command.output().expect("it was built for this test");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{complained}", output.status);
    let results: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let outcome = &results["workloads"][0];
    for side in ["baseline", "candidate"] {
        let figure =
            |name: &str| outcome[side]["rounds"][0][name].as_f64().unwrap_or_else(|| panic!("{name}: {outcome}"));
        for name in ["pages_moved_per_second", "dumped_mib_per_second", "tls_connections_per_second", "requests"] {
            assert!(figure(name) > 0.0, "{side}: {name}: {outcome}");
        }
        let causes = [
            "requests_late_by_gaps_of_the_client_core",
            "requests_late_while_the_server_waited_for_its_core",
            "requests_late_in_the_backlog_after_these",
            "requests_late_for_no_cause_outside_the_server",
        ];
        assert_eq!(figure("requests_late"), causes.map(figure).iter().sum::<f64>(), "{outcome}");
        assert!(figure("max_microseconds") >= figure("own_max_microseconds"), "{outcome}");
        assert!(figure("idle_longest_gap_of_the_server_core_microseconds") > 0.0, "{outcome}");
        // Every set is of a new key, and the gets ask for keys that the cache still has.
        assert!(figure("hit_rate") > 0.9, "{outcome}");
    }
}
