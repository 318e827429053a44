//! A short soak of the server beside this program. Cargo builds both for the tests of the workspace.

use std::path::Path;
use std::process::Command;

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

#[test]
fn a_short_soak_finds_nothing() {
    if !Path::new(LOADTEST).with_file_name("corecached").exists() {
        let required = std::env::var("CORECACHED_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "corecached is not built: test the whole workspace");
        eprintln!("skipped: corecached is not built; test the whole workspace");
        return;
    }
    let output = Command::new(LOADTEST).args(["soak", "--seconds", "20"]).output().expect("it was built for this test");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}{complained}", output.status);
    // The soak has produced every kind of load, and every figure is within its limit.
    assert!(said.lines().filter(|line| line.ends_with(" ok")).count() > 20, "{said}");
}
