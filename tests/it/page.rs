//! The page that shows what a server does, in a real browser: Debian's `chromium`, which `chromedriver` drives.
//!
//! `page/look.py` looks at the page of any address. Here it looks at that of `page/mock.py`, which makes up the figures of
//! servers that no test can have, and serves the page as the observer renders it.
//!
//! `CORECACHED_PICTURES=FOLDER` makes the tests leave pictures of the page there, for people to look at.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;

use crate::clients::{Outcome, converse, lines_of};
use crate::peers;
use crate::server::{Server, new_folder};
use crate::waiting::{LOOK_AGAIN, PATIENCE};
use corecached::observer::page;

/// A key that would do harm if the page took it for markup. The mock has it among its hot keys.
const EVIL: &str = "<img src=x onerror=alert(1)>";

#[test]
fn the_page_shows_a_busy_server() {
    look_at_mock("busy", &[EVIL, "user:1001"]);
}

#[test]
fn the_page_shows_a_server_without_limits() {
    look_at_mock("huge", &[EVIL]);
}

#[test]
fn the_page_shows_many_workers_classes_and_prefixes() {
    look_at_mock("many", &[]);
}

/// What the observer of a server under load makes of it.
#[test]
fn the_page_shows_a_live_server() {
    let Some(python) = python_and_browser() else { return };
    let flags = ["-t", "2", "--sample", "4", "--metrics", "127.0.0.1:0", "--metrics-key-names"];
    let server = Server::corecached_tcp(&flags);
    let (stop, stopped) = channel::<()>();
    thread::scope(|scope| {
        let mut client = server.client();
        scope.spawn(move || {
            let mut at = 0_u64;
            while stopped.recv_timeout(LOOK_AGAIN) == Err(RecvTimeoutError::Timeout) {
                let mut commands = String::new();
                for _ in 0..100 {
                    at += 1;
                    commands += &format!("set page:{at} 0 0 5\r\nvalue\r\nget page:{at} user:hot\r\n");
                }
                client.send(format!("{commands}mn\r\n"));
                while client.line().expect("the server answers") != b"MN\r\n" {}
            }
        });
        // The load ends when this is dropped, whether the page is well or not.
        let _stop = stop;
        look(&python, &format!("http://{}", server.metrics()), server.pid(), &["user:hot"]);
    });
}

fn look_at_mock(scenario: &str, keys: &[&str]) {
    let Some(python) = python_and_browser() else { return };
    let mock = Mock::new(&python, scenario);
    look(&python, &format!("http://127.0.0.1:{}", mock.port), mock.child.id(), keys);
}

/// A Python, if there is a browser for it to drive.
fn python_and_browser() -> Option<PathBuf> {
    let python = peers::python_with("http.server")?;
    ["chromium", "chromedriver"].iter().all(|name| peers::program(name).is_some()).then_some(python)
}

/// Looks at the page of the server with this address of its metrics and this process. These keys must be hot in it.
fn look(python: &Path, base: &str, pid: u32, keys: &[&str]) {
    let mut command = Command::new(python);
    command.arg("-B").arg(script("look.py")).args([base, "--pause", &pid.to_string()]);
    command.args(keys.iter().flat_map(|key| ["--key", key]));
    if let Some(folder) = std::env::var_os("CORECACHED_PICTURES") {
        let test = std::thread::current().name().unwrap_or("page").replace("::", "-");
        command.arg("--pictures").arg(Path::new(&folder).join(test));
    }
    let Outcome { succeeded, said, complained } = converse(command, |_| false);
    assert!(succeeded && said.trim_end() == "ok", "the page of {base}:\n{said}{complained}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/page").join(name)
}

/// A running mock and the folder with the page that it serves. It ends when it is dropped.
struct Mock {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Mock {
    fn new(python: &Path, scenario: &str) -> Mock {
        let folder = new_folder();
        let file = folder.join("page.html");
        let mut command = Command::new(python);
        command.arg("-B").arg(script("mock.py")).arg(&file).arg(scenario);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this Python has just been run");
        let lines = lines_of(child.stdout.take().expect("it was piped"));
        let port = lines.recv_timeout(PATIENCE).ok().and_then(|line| line.trim().parse().ok());
        let mock = Mock { child, port: port.unwrap_or(0), folder };
        assert_ne!(mock.port, 0, "the mock prints its port");
        let status = serde_json::from_str(&mock.get("/status.json")).expect("the mock speaks JSON");
        fs::write(file, page::render(&status)).expect("the folder is ours");
        mock
    }

    /// The body of what the mock answers.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("the mock listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("the mock reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the mock answers");
        answer.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // These fail only if the mock has ended, or the folder is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
