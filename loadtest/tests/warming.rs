//! `corecached copy` warms a node that takes traffic already: no client of either node sees a wrong byte, and in the end
//! the new node has what the old one had. Cargo builds the server beside this program for the tests of the workspace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");
const KEYS: &str = "20000";
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a Unix socket in a folder of its own, which goes with it.
struct Server {
    child: Child,
    folder: PathBuf,
    socket: String,
}

impl Server {
    fn start(program: &Path, name: &str) -> Server {
        let folder = std::env::temp_dir().join(format!("loadtest-warming-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new folder");
        let socket = folder.join("socket");
        let child = Command::new(program)
            .args(["-u", "root", "-t", "2", "-m", "128", "-s"])
            .arg(&socket)
            .stderr(Stdio::null())
            .spawn()
            .expect("it was built for this test");
        let server = Server { child, socket: socket.display().to_string(), folder };
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "{program:?} does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        server
    }

    fn load(&self, words: &[&str]) -> Command {
        let mut command = Command::new(LOADTEST);
        command.args(["run", "--quiet", "--json", "--verify", "--keys", KEYS, "--threads", "1", "--connections", "4"]);
        command.args(["--server", &self.socket]).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The result of a run that found no wrong byte.
#[track_caller]
fn result(output: Output) -> serde_json::Value {
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}{complained}", output.status);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_node_is_warmed_while_it_serves() {
    let program = Path::new(LOADTEST).with_file_name("corecached");
    if !program.exists() {
        let required = std::env::var("CORECACHED_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "corecached is not built: test the whole workspace");
        eprintln!("skipped: corecached is not built; test the whole workspace");
        return;
    }
    let (old, new) = (Server::start(&program, "old"), Server::start(&program, "new"));
    result(old.load(&["--prefill", "-n", "1"]).output().expect("it runs"));
    // Both nodes serve meanwhile, the new one with gets and sets.
    let on_old = old.load(&["--time", "3", "--rate", "2000"]).spawn().expect("it runs");
    let on_new = new.load(&["--time", "3", "--rate", "2000", "--ratio", "9:1"]).spawn().expect("it runs");
    let copy = Command::new(&program)
        .args(["copy", &old.socket, &new.socket, "--by-access", "--rate", "15000", "--json"])
        .output()
        .expect("it runs");
    let copied = result(copy);
    for child in [on_old, on_new] {
        result(child.wait_with_output().expect("it is ours"));
    }
    let sum = ["copied", "already_there"].iter().filter_map(|name| copied[name].as_u64()).sum::<u64>();
    assert_eq!(sum.to_string(), KEYS, "{copied}");
    // Every key is there, with the right bytes.
    let after = result(new.load(&["--ratio", "1:0", "-n", "40000"]).output().expect("it runs"));
    assert_eq!(after["misses"], 0, "{after}");
}
