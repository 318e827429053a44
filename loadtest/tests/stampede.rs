//! A short stampede on the server beside this program. Cargo builds both for the tests of the workspace.

use std::path::Path;
use std::process::Command;

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

#[test]
fn the_database_is_asked_once_for_each_end_of_a_protected_value() {
    if !Path::new(LOADTEST).with_file_name("corecached").exists() {
        let required = std::env::var("CORECACHED_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "corecached is not built: test the whole workspace");
        eprintln!("skipped: corecached is not built; test the whole workspace");
        return;
    }
    let output = Command::new(LOADTEST)
        .args(["stampede", "--seconds", "10", "--clients", "40"])
        .output()
        .expect("it was built for this test");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}{complained}", output.status);
    let most = |name: &str| -> usize {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {said}"));
        line.split_whitespace().last().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    assert!(most("nothing") > 5, "without protection there is a stampede: {said}");
    for name in ["early", "win", "recache", "stale"] {
        assert_eq!(most(name), 1, "{said}");
    }
}

#[test]
fn mistaken_times_are_refused() {
    for words in [&["--ttl", "8", "--early", "5"], &["--ttl", "8", "--seconds", "8"]] {
        let output = Command::new(LOADTEST).arg("stampede").args(words).output().expect("it was built for this test");
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("loadtest: --"), "{words:?}");
    }
}
