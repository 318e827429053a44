//! A short run of `scale` with the server beside this program on both sides. Cargo builds both for the tests of the
//! workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

/// The server; `None` if it is not built.
fn server() -> Option<String> {
    let server = Path::new(LOADTEST).with_file_name("corecached");
    if server.exists() {
        return Some(server.display().to_string());
    }
    let required = std::env::var("CORECACHED_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "corecached is not built: test the whole workspace");
    eprintln!("skipped: corecached is not built; test the whole workspace");
    None
}

fn scale(baseline: &str, candidate: &str, options: &[&str]) -> Output {
    let mut loadtest = Command::new(LOADTEST);
    loadtest.args(["scale", "--baseline", baseline, "--candidate", candidate]).args(options);
    loadtest.output().expect("it was built for this test")
}

/// A directory for the files of a test, which is removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        Directory(std::env::temp_dir().join(format!("loadtest-{}-{name}", std::process::id())))
    }

    fn read(&self, name: &str) -> String {
        let path = self.0.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The cells of a line of a table.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn every_workload_has_a_table_and_two_plots() {
    let Some(server) = server() else { return };
    let command = format!("{server} -u root");
    let directory = Directory::new("scale");
    std::fs::create_dir(&directory.0).expect("a directory for temporary files");
    let markdown = directory.0.join("scale.md");
    let (markdown, plots) = (markdown.to_str().expect("UTF-8"), directory.0.to_str().expect("UTF-8"));
    let short = ["--workers", "1,2", "--rounds", "1", "--seconds", "0.1", "--keys", "1000"];
    let output = scale(&command, &command, &[&short[..], &["--markdown", markdown, "--plots", plots]].concat());
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}{complained}", output.status);
    assert!(said.starts_with("workers: 1, 2\ncores: ") && said.contains("\nexpected to end in 0:"), "{said}");

    let markdown = directory.read("scale.md");
    let tables: Vec<&str> = markdown.split("\n## ").skip(1).collect();
    let names = ["get-1", "get-32", "get-50keys", "mix-zipf", "hot-32", "hot-1", "get-32-ports"];
    assert_eq!(tables.iter().map(|table| table.split_once(':').expect("a title").0).collect::<Vec<_>>(), names);
    for (table, name) in tables.iter().zip(names) {
        assert!(said.contains(&format!("\n{name}: ")), "{name} in {said}");
        let mut lines = table.lines().filter(|line| line.starts_with('|')).map(cells);
        let titles = lines.next().expect("titles");
        let lines: Vec<Vec<&str>> = lines.skip(1).collect();
        let column = |title: &str| {
            let index = titles.iter().position(|other| *other == title).unwrap_or_else(|| panic!("{title} in {table}"));
            lines.iter().map(|line| line[index]).collect::<Vec<_>>()
        };
        assert_eq!(column("workers"), ["1", "1", "2", "2"]);
        assert_eq!(column("server"), ["baseline", "candidate", "baseline", "candidate"]);
        for figure in ["requests/s", "keys/s", "CPU µs/key", "p50 µs", "p99 µs", "p99.9 µs", "keys/s ×", "CPU ×"]
        {
            let values: Vec<f64> = column(figure).iter().map(|value| value.parse().expect("a number")).collect();
            assert!(values.iter().all(|value| *value > 0.0), "{figure}: {table}");
        }
        // Nobody refuses the only worker a lease.
        for figure in ["refused/M", "batches/M"] {
            let values: Vec<f64> = column(figure).iter().map(|value| value.parse().expect("a number")).collect();
            assert_eq!(values[..2], [0.0, 0.0], "{figure}: {table}");
        }
        for (steps, plot) in [("Million keys per second", "keys"), ("Server CPU µs per key", "cpu")] {
            let svg = directory.read(&format!("scale-{name}-{plot}.svg"));
            assert!(svg.contains(steps) && svg.matches("<circle").count() == 4, "two servers, two numbers: {svg}");
        }
    }
}

#[test]
fn a_workload_that_fails_or_is_refused_leaves_the_others() {
    // A candidate that takes neither two workers nor a port for each.
    let Some(server) = server() else { return };
    let refuses = "*--port-per-core*) echo no such flag >&2; exit 1;; *\"-t 2\"*) echo two are too many >&2; exit 1;;";
    let candidate = format!("sh -c 'case \"$*\" in {refuses} esac; exec {server} \"$@\"' sh -u root");
    let short = ["--workers", "1,2", "--rounds", "1", "--seconds", "0.1", "--keys", "1000", "-w", "get-1", "-w"];
    let output = scale(&format!("{server} -u root"), &candidate, &[&short[..], &["get-32-ports"]].concat());
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{complained}");
    assert!(complained.ends_with("loadtest: failed: get-1 with -t 2\n"), "{complained}");
    let (plain, ports) = said.split_once("\nget-32-ports: ").expect("both workloads");
    assert!(plain.contains("\n-t 2: failed: candidate: ") && plain.contains("two are too many"), "{plain}");
    for count in [1, 2] {
        assert!(ports.contains(&format!("\n-t {count}: candidate: refused: ")), "{ports}");
    }
    // A server that was measured with one worker has once its own throughput.
    let is_measured = |line: &&str| line.trim_start().starts_with("1 ") && line.contains(" 1.00 ");
    let measured = |text: &str| text.lines().filter(is_measured).count();
    assert_eq!((measured(plain), measured(ports)), (2, 1), "{said}");
}
