//! How long does a restart take away the cache, from an image and with kept memory?
//!
//! ```sh
//! GIB=1 cargo bench --profile fast --bench restart       # or 10; the temporary folder should be in memory (TMPDIR=/dev/shm)
//! ```
//! A server is filled, and a client asks for random keys all the time. The server stops (USR1) and starts again: with `-e`,
//! and with `--keep-memory` under a supervisor that stores the memory, as systemd does. The program prints, for each way, the
//! seconds from the signal to the end of the process, from the start of the next one to its first reply, and the longest
//! time between two replies to the client; the misses of the client; and the memory in huge pages before and after.
//!
//! It fails if a value is wrong, or if a key is gone.

#![allow(clippy::print_stdout, reason = "it prints its answer")]
#![allow(missing_docs, reason = "a program")]

use corecached::process::rights;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const VALUE_LEN: usize = 950;
/// Bytes of an item, with its share of the index.
const ITEM_LEN: u64 = 1024;

/// The ways to restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Image,
    KeptMemory,
}

/// What the client has seen.
#[derive(Default)]
struct Seen {
    done: AtomicBool,
    replies: AtomicU64,
    misses: AtomicU64,
    /// Microseconds.
    longest_gap: AtomicU64,
}

fn value(number: u64) -> String {
    format!("{number:020}").repeat(VALUE_LEN.div_ceil(20))[..VALUE_LEN].to_owned()
}

struct Scene {
    folder: PathBuf,
    notify: UnixDatagram,
    memory: Option<OwnedFd>,
}

impl Scene {
    fn new(way: Way) -> Result<Scene> {
        let folder = std::env::temp_dir().join(format!("corecached-restart-{}-{way:?}", std::process::id()));
        fs::create_dir(&folder)?;
        let notify = UnixDatagram::bind(folder.join("notify"))?;
        notify.set_nonblocking(true)?;
        Ok(Scene { folder, notify, memory: None })
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn start(&mut self, way: Way, gib: u64) -> Result<Child> {
        let limit = (gib * 1200).to_string();
        let mut command = Command::new("sh");
        let names = "LISTEN_FDS=1 LISTEN_FDNAMES=kept-memory LISTEN_PID=$$";
        match self.memory.take() {
            Some(memory) => {
                command.args(["-c", &format!("{names} exec \"$0\" \"$@\" 3<&0 </dev/null")]).stdin(memory);
            }
            None => {
                command.args(["-c", "exec \"$0\" \"$@\""]).stdin(Stdio::null());
            }
        }
        command.arg(env!("CARGO_BIN_EXE_corecached")).args(["-v", "-t", "2", "-m", &limit]);
        command.args(["-u", "root", "-s"]).arg(self.socket());
        match way {
            Way::Image => command.arg("-e").arg(self.folder.join("image")),
            Way::KeptMemory => command.arg("--keep-memory").env("NOTIFY_SOCKET", self.folder.join("notify")),
        };
        Ok(command.stderr(fs::File::create(self.folder.join("log"))?).spawn()?)
    }

    /// Reads what the server has told, and keeps the memory that it has left.
    fn listen(&mut self) {
        while let Ok((message, descriptors)) = rights::receive(&self.notify, 4096) {
            if String::from_utf8_lossy(&message).contains("FDNAME=kept-memory") {
                self.memory = descriptors.into_iter().next().or(self.memory.take());
            }
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn fill(socket: &Path, items: u64) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    let mut buffer = Vec::new();
    for number in 0..items {
        write!(buffer, "set key-{number} 0 0 {VALUE_LEN} noreply\r\n{}\r\n", value(number))?;
        if buffer.len() > 1 << 20 {
            stream.write_all(&buffer)?;
            buffer.clear();
        }
    }
    stream.write_all(&buffer)?;
    stream.write_all(b"mn\r\n")?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply)?;
    Ok(())
}

/// Asks for a key; `None`: the server has it not.
fn get(stream: &mut BufReader<UnixStream>, number: u64) -> Result<Option<Vec<u8>>> {
    stream.get_mut().write_all(format!("get key-{number}\r\n").as_bytes())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if line == "END\r\n" {
        return Ok(None);
    }
    if !line.starts_with("VALUE ") {
        return Err("the server closes".into());
    }
    let mut bytes = vec![0; VALUE_LEN + "\r\nEND\r\n".len()];
    stream.read_exact(&mut bytes)?;
    bytes.truncate(VALUE_LEN);
    Ok(Some(bytes))
}

/// Asks for random keys until it is told to end.
fn ask(socket: &Path, items: u64, seen: &Seen) {
    let mut random = 1_u64;
    let mut last = Instant::now();
    while !seen.done.load(Ordering::Relaxed) {
        let Ok(stream) = UnixStream::connect(socket) else {
            thread::sleep(Duration::from_micros(200));
            continue;
        };
        let mut stream = BufReader::new(stream);
        while !seen.done.load(Ordering::Relaxed) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 20) % items;
            let Ok(found) = get(&mut stream, number) else { break };
            let gap = last.elapsed().as_micros() as u64;
            last = Instant::now();
            seen.longest_gap.fetch_max(gap, Ordering::Relaxed);
            seen.replies.fetch_add(1, Ordering::Relaxed);
            match found {
                Some(found) => assert_eq!(found, value(number).into_bytes(), "a wrong value"),
                None => drop(seen.misses.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }
}

/// Waits until the client has got so many more replies.
fn wait_for_replies(seen: &Seen, count: u64) {
    let target = seen.replies.load(Ordering::Relaxed) + count;
    while seen.replies.load(Ordering::Relaxed) < target {
        thread::sleep(Duration::from_micros(200));
    }
}

/// MiB of a process in huge pages.
fn huge(child: &Child) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", child.id()))?;
    let of = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Ok((of("AnonHugePages:") + of("ShmemPmdMapped:")) >> 10)
}

fn measure(way: Way, gib: u64) -> Result<()> {
    let items = (gib << 30) / ITEM_LEN;
    let mut scene = Scene::new(way)?;
    let mut server = scene.start(way, gib)?;
    let socket = scene.socket();
    while UnixStream::connect(&socket).is_err() {
        thread::sleep(Duration::from_millis(1));
    }
    fill(&socket, items)?;
    scene.listen();
    let seen = Seen::default();
    thread::scope(|scope| -> Result<()> {
        let client = scope.spawn(|| ask(&socket, items, &seen));
        wait_for_replies(&seen, 20_000);
        let huge_before = huge(&server)?;
        seen.longest_gap.store(0, Ordering::Relaxed);
        let signal = Instant::now();
        Command::new("kill").arg("-USR1").arg(server.id().to_string()).status()?;
        let status = server.wait()?;
        let stopped = signal.elapsed();
        scene.listen();
        let start = Instant::now();
        server = scene.start(way, gib)?;
        wait_for_replies(&seen, 1);
        let first = start.elapsed();
        wait_for_replies(&seen, 100_000);
        let huge_after = huge(&server)?;
        seen.done.store(true, Ordering::Relaxed);
        let ended = client.join().is_ok();
        let misses = seen.misses.load(Ordering::Relaxed);
        println!(
            "{gib:3} GiB  {way:<10}  stop {:7.3} s  start {:7.3} s  longest gap {:7.3} s  misses {misses}  huge {huge_before} MiB, \
             then {huge_after} MiB",
            stopped.as_secs_f64(),
            first.as_secs_f64(),
            seen.longest_gap.load(Ordering::Relaxed) as f64 / 1e6,
            way = format!("{way:?}"),
        );
        Command::new("kill").arg("-TERM").arg(server.id().to_string()).status()?;
        server.wait()?;
        assert!(ended && status.success() && misses == 0, "a value was wrong, or a key is gone");
        Ok(())
    })
}

fn main() -> Result<()> {
    let gib = std::env::var("GIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    measure(Way::Image, gib)?;
    measure(Way::KeptMemory, gib)
}
