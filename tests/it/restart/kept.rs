//! Kept memory: a stop in order leaves the memory to the next server, by way of a supervisor that stores descriptors. Any
//! other end leaves nothing, and nobody ever sees a value that was replaced.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use corecached::process::rights;

use super::under_load::{Shared, work};
use super::{Folder, assert_printed, check, end, fill, set_many};
use crate::server::Server;
use crate::waiting::PATIENCE;

const NAME: &str = "kept-memory";

/// A supervisor that stores descriptors as systemd does.
struct Supervisor {
    folder: Folder,
    stored: Arc<Mutex<HashMap<String, OwnedFd>>>,
    /// Has a message for each one that the test has sent.
    read: Receiver<()>,
    reader: Option<JoinHandle<()>>,
}

impl Supervisor {
    fn new() -> Supervisor {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.0.join("notify")).expect("a socket in a folder of ours");
        let stored: Arc<Mutex<HashMap<String, OwnedFd>>> = Arc::default();
        let (store, (sender, read)) = (Arc::clone(&stored), channel());
        let reader = thread::spawn(move || {
            loop {
                let (message, descriptors) = rights::receive(&socket, 4096).expect("a message");
                let message = String::from_utf8(message).expect("a message of text");
                let line = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let mut stored = store.lock().expect("nobody panics with it");
                match (line("FDNAME="), line("TEST=").as_deref()) {
                    // Sockets are not handed on here: somebody who keeps one makes clients wait for its next server.
                    (Some(name), _) if line("FDSTORE=").is_some() && name == NAME => {
                        stored.extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
                    }
                    (Some(name), _) if line("FDSTOREREMOVE=").is_some() => drop(stored.remove(&name)),
                    (_, Some("end")) => return,
                    (_, Some(_)) => sender.send(()).expect("the test waits"),
                    _ => {}
                }
            }
        });
        Supervisor { folder, stored, read, reader: Some(reader) }
    }

    fn path(&self) -> PathBuf {
        self.folder.0.join("notify")
    }

    fn say(&self, what: &str) {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.send_to(what.as_bytes(), self.path()).expect("the supervisor listens");
    }

    /// The memory that is stored now. It has read everything that ended servers have sent.
    fn memory(&self) -> Option<OwnedFd> {
        self.say("TEST=read");
        self.read.recv_timeout(PATIENCE).expect("the supervisor reads");
        let stored = self.stored.lock().expect("nobody panics with it");
        stored.get(NAME).map(|fd| fd.try_clone().expect("a descriptor"))
    }

    /// A server that gets the memory that is stored.
    fn start(&self, flags: &str) -> Server {
        self.start_with(self.memory(), flags)
    }

    fn start_with(&self, memory: Option<OwnedFd>, flags: &str) -> Server {
        let path = self.path();
        let environment = [("NOTIFY_SOCKET", path.to_str().expect("a path in UTF-8"))];
        let flags: Vec<&str> = ["-v"].into_iter().chain(flags.split_whitespace()).collect();
        match memory {
            Some(memory) => Server::corecached_with_descriptor(memory, NAME, &environment, &flags),
            None => Server::corecached_with(&environment, &flags),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.say("TEST=end");
        self.reader.take().map(JoinHandle::join);
    }
}

#[test]
fn any_stop_in_order_leaves_the_memory() {
    let supervisor = Supervisor::new();
    let mut server = supervisor.start("--keep-memory -t 2 -m 64 -I 8m -A");
    let (cas, long) = fill(&mut server.client());
    let mut highest: u64 = cas.strip_prefix("HD c").and_then(|cas| cas.parse().ok()).expect("a CAS unique");
    assert!(server.client().ask_list("stats settings").contains(&"STAT keep_memory yes".to_owned()));
    for (signal, flags) in [
        ("TERM", "-t 2 -m 64"),
        ("INT", "-t 1 -m 64"),
        ("USR1", "-t 4 -m 64 --metrics 127.0.0.1:0"),
        ("", "-t 2 -m 100"),
        ("TERM", "-t 2 -m 70 -L"),
    ] {
        match signal {
            "" => {
                server.client().send("shutdown\r\n");
                assert_eq!(server.wait().code(), Some(0));
            }
            signal => end(&mut server, signal),
        }
        assert_printed(&server, "items to the next server");
        let next = supervisor.start(&format!("--keep-memory -I 8m -A {flags}"));
        let mut client = next.client();
        check(&mut client, Some(&cas), &long);
        assert!(supervisor.memory().is_none(), "{flags}: the memory is still stored");
        assert_printed(&next, " items, 3 MiB in ");
        let new = client.ask("ms new 1 c\r\nx");
        let new = new.strip_prefix("HD c").and_then(|cas| cas.parse().ok()).expect("a CAS unique");
        assert!(new > highest, "{flags}: {new} was given out before");
        highest = new;
        assert_eq!(client.ask("delete new"), "DELETED");
        server = next;
    }
    end(&mut server, "TERM");
}

#[test]
fn with_other_flags_the_items_are_copied() {
    let supervisor = Supervisor::new();
    let mut server = supervisor.start("--keep-memory -t 2 -m 64 -I 8m");
    let (cas, long) = fill(&mut server.client());
    for (flags, why) in [
        ("--keep-memory -t 3 -m 200 -I 8m", "shards"),
        ("--keep-memory -t 2 -m 64 -I 8m", "shards"),
        ("--keep-memory -t 2 -m 64 -I 8m -k -L", "(-k)"),
        ("--keep-memory -t 2 -m 64 -I 8m -f 1.05 -n 100", "slab classes"),
        ("--keep-memory -t 2 -m 64 -I 8m -o slab_chunk_max=8", "slab classes"),
        ("--keep-memory -t 2 -m 20 -I 8m", "pages"),
        ("-t 2 -m 64 -I 8m", "no --keep-memory"),
    ] {
        end(&mut server, "TERM");
        server = supervisor.start(flags);
        check(&mut server.client(), Some(&cas), &long);
        assert_printed(&server, "the items of the last server are copied");
        assert_printed(&server, why);
        assert!(supervisor.memory().is_none(), "{flags}: the memory is still stored");
    }
    // The last server had no flag, and leaves nothing.
    end(&mut server, "TERM");
    assert!(supervisor.memory().is_none());
    // Without CAS uniques, and with them again.
    let mut server = supervisor.start("--keep-memory -m 64 -I 8m");
    let (_, long) = fill(&mut server.client());
    end(&mut server, "TERM");
    let mut server = supervisor.start("--keep-memory -m 64 -I 8m -C");
    check(&mut server.client(), None, &long);
    assert_printed(&server, "(-C)");
    // A smaller limit of items is as good as none for those that are larger.
    end(&mut server, "TERM");
    let server = supervisor.start("--keep-memory -m 64 -I 1m -C");
    assert_eq!(server.client().ask("mg long"), "EN");
    assert_eq!(server.client().stat("curr_items"), 2005);
}

#[test]
fn only_a_stop_in_order_leaves_anything_and_only_once() {
    let supervisor = Supervisor::new();
    let mut server = supervisor.start("--keep-memory -t 2");
    server.client().ask("ms key 1\r\n1");
    end(&mut server, "TERM");
    // Two servers get the same memory.
    let memory = || supervisor.memory().expect("it is stored");
    let (one, other) = (memory(), memory());
    let mut first = supervisor.start_with(Some(one), "--keep-memory -t 2");
    assert_eq!(first.client().ask("mg key v"), "VA 1");
    let mut second = supervisor.start_with(Some(other), "--keep-memory -t 2");
    assert_eq!(second.client().ask("mg key v"), "EN");
    assert_printed(&second, "its server did not stop in order, or another server has taken it");
    end(&mut second, "TERM");
    assert!(supervisor.memory().is_some());
    supervisor.say("FDSTOREREMOVE=1\nFDNAME=kept-memory");

    // A server that is killed leaves nothing. A supervisor that has not forgotten the memory changes nothing.
    first.client().ask("ms key 1\r\n2");
    end(&mut first, "TERM");
    let stale = memory();
    let mut killed = supervisor.start("--keep-memory -t 2");
    assert_eq!(killed.client().ask("mg key v"), "VA 1");
    killed.client().ask("ms key 1\r\n3");
    killed.signal("KILL");
    killed.wait();
    assert!(supervisor.memory().is_none());
    let mut cold = supervisor.start_with(Some(stale.try_clone().expect("a descriptor")), "--keep-memory -t 2");
    assert_eq!(cold.client().ask("mg key v"), "EN");
    end(&mut cold, "TERM");
    // The same with a server that has no flag: it takes the memory, and nobody can take it again.
    let mut left = supervisor.start("--keep-memory");
    left.client().ask("ms key 1\r\n4");
    end(&mut left, "INT");
    let stale = memory();
    let mut without = supervisor.start("");
    assert_eq!(without.client().ask("mg key v"), "VA 1");
    end(&mut without, "INT");
    let cold = supervisor.start_with(Some(stale), "--keep-memory");
    assert_eq!(cold.client().ask("mg key v"), "EN");
}

#[test]
fn memory_that_has_changed_is_refused() {
    let supervisor = Supervisor::new();
    let mut server = supervisor.start("--keep-memory");
    set_many(&mut server.client(), "k", 100, 100);
    end(&mut server, "TERM");
    let memory = fs::File::from(supervisor.memory().expect("it is stored"));
    let mut byte = [0];
    memory.read_exact_at(&mut byte, 43).expect("a label");
    memory.write_all_at(&[byte[0] ^ 1], 43).expect("room");
    let server = supervisor.start("--keep-memory");
    assert_eq!(server.client().stat("curr_items"), 0);
    assert_printed(&server, "the memory of the last server is not used: it is damaged: its roots do not add up");
}

#[test]
fn with_an_image_too_the_newest_counts() {
    let supervisor = Supervisor::new();
    let files = Folder::new();
    let image = files.image();
    let flags = format!("--keep-memory -e {}", image.display());
    // Nobody takes the memory, so the server writes an image.
    let mut server = files.start("--keep-memory");
    server.client().ask("ms key 1\r\n1");
    files.stop(&mut server);
    assert_printed(&server, "nobody takes the memory");
    let kept_image = fs::read(&image).expect("the image");
    // Somebody takes the memory, so it writes none.
    let mut server = supervisor.start(&flags);
    assert_eq!(server.client().ask("mg key v"), "VA 1");
    server.client().ask("ms key 1\r\n2");
    end(&mut server, "USR1");
    assert!(!image.exists());
    fs::write(&image, kept_image).expect("a file in a folder of ours");
    let mut server = supervisor.start(&flags);
    assert_eq!(server.client().ask("mg key v"), "VA 1");
    server.client().send("get key\r\n");
    server.client().ask("mn");
    assert!(!image.exists(), "an old image is still there");
    assert_printed(&server, "is older than the memory");
    server.signal("KILL");
    server.wait();
    assert_eq!(supervisor.start(&flags).client().ask("mg key v"), "EN");
}

#[test]
fn clients_that_are_cut_off_leave_no_memory_behind() {
    let supervisor = Supervisor::new();
    let mut server = supervisor.start("--keep-memory -t 2 -m 64 -I 8m");
    let used = |server: &Server| {
        let slabs = server.client().ask_list("stats slabs");
        let used = slabs.iter().filter_map(|line| line.split_once(":used_chunks "));
        used.map(|(_, count)| count.parse::<u64>().expect("a number")).sum::<u64>()
    };
    let mut client = server.client();
    client.send(format!("set long 0 0 2000000\r\n{}\r\n", "x".repeat(2_000_000)));
    client.expect("STORED\r\n");
    let before = used(&server);
    // One client has sent half of a value; another one takes nothing of what it has asked for.
    let (mut half, mut deaf) = (server.client(), server.client());
    half.send(format!("set other 0 0 3000000\r\n{}", "y".repeat(1_500_000)));
    (0..5).for_each(|_| deaf.send("get long\r\n"));
    while used(&server) == before {
        thread::yield_now();
    }
    end(&mut server, "TERM");
    let server = supervisor.start("--keep-memory -t 2 -m 64 -I 8m");
    assert_eq!((server.client().stat("curr_items"), used(&server)), (1, before));
}

/// Tells the clients to end, also if the test fails.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

/// Whether a stop in order has left this memory, and nobody has claimed it.
fn is_marked(memory: Option<&OwnedFd>) -> bool {
    let mut mark = [0; 8];
    let memory = memory.map(|memory| fs::File::from(memory.try_clone().expect("a descriptor")));
    memory.is_some_and(|memory| memory.read_exact_at(&mut mark, 0).is_ok() && mark != [0; 8])
}

/// Kills servers at random moments of their lives: at work, while they stop, while they start. Clients check all along that
/// they see what they have stored last, or nothing.
#[test]
fn kills_at_any_moment_never_give_a_wrong_value() {
    let kills: u32 = std::env::var("CORECACHED_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let supervisor = Supervisor::new();
    let shared = Shared::default();
    let mut random = std::process::id();
    let mut below = |limit: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % limit
    };
    let (mut killed, mut warm) = (0, 0);
    thread::scope(|scope| {
        let _done = Done(&shared);
        let client = |number| {
            let shared = &shared;
            scope.spawn(move || work(shared, number))
        };
        let clients: Vec<_> = (0..2).map(client).collect();
        while killed < kills && !clients.iter().any(thread::ScopedJoinHandle::is_finished) {
            let memory = supervisor.memory();
            let is_left = is_marked(memory.as_ref());
            let flags = ["-t 1 -m 64", "-t 2 -m 64", "-t 2 -m 80", "-t 1 -m 64 -n 100"][below(4) as usize];
            let mut server = supervisor.start_with(memory, &format!("--keep-memory {flags}"));
            *shared.address.lock().expect("nobody panics with it") = Some(server.addresses()[0].clone());
            // One of four is killed while it starts.
            if below(4) == 0 {
                thread::sleep(Duration::from_micros(below(30_000).into()));
            } else {
                server.client().ask("mn");
                let is_warm = server.printed().contains("kept ") || server.printed().contains("loaded ");
                assert_eq!(is_warm, is_left, "it printed:\n{}", server.printed());
                warm += u32::from(is_warm);
                thread::sleep(Duration::from_millis(below(60).into()));
                if below(3) > 0 {
                    server.signal("TERM");
                    if below(2) > 0 {
                        assert_eq!(server.wait().code(), Some(0), "it printed:\n{}", server.printed());
                        assert!(is_marked(supervisor.memory().as_ref()), "a stop in order has left nothing");
                    }
                    thread::sleep(Duration::from_micros(below(20_000).into()));
                }
            }
            *shared.address.lock().expect("nobody panics with it") = None;
            if server.ended().is_none() {
                server.signal("KILL");
            }
            killed += u32::from(!server.wait().success());
        }
    });
    assert!(shared.hits.into_inner() > 0 && warm > 0, "{warm} of the servers found the items of the last one");
}
