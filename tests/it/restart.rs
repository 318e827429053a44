//! The warm restart: a graceful stop keeps the cache. No deleted or replaced value ever comes back.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::Client;
use crate::server::{Server, corecached_run};

mod descriptor_store;
mod kept;
mod reconnecting;
mod take_over;
mod under_load;

/// A folder for memory files. Dropping it removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corecached-image-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a new folder");
        Folder(folder)
    }

    fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    /// A server with its memory file in this folder.
    fn start(&self, flags: &str) -> Server {
        let image = self.image();
        let flags = ["-v", "-e", image.to_str().expect("a path in UTF-8")].into_iter().chain(flags.split_whitespace());
        Server::corecached(&flags.collect::<Vec<_>>())
    }

    /// Stops a server gracefully.
    fn stop(&self, server: &mut Server) {
        end(server, "USR1");
        assert!(self.image().exists(), "there is no image; it printed:\n{}", server.printed());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn end(server: &mut Server, signal: &str) {
    server.signal(signal);
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}; it printed:\n{}", server.printed());
}

#[track_caller]
fn assert_printed(server: &Server, text: &str) {
    assert!(server.printed().contains(text), "it did not print {text:?} but:\n{}", server.printed());
}

/// Sets `count` keys with this prefix. Their values contain the keys.
fn set_many(client: &mut Client, prefix: &str, count: usize, len: usize) {
    for number in 0..count {
        let value = format!("{prefix}{number}:").repeat(len)[..len].to_owned();
        client.send(format!("set {prefix}{number} {number} 0 {len} noreply\r\n{value}\r\n"));
    }
    assert_eq!(client.ask("mn"), "MN");
}

/// The number of these keys that the server still has. A key with another value fails the test.
fn count_many(client: &mut Client, prefix: &str, count: usize, len: usize) -> usize {
    let mut found = 0;
    for number in 0..count {
        client.send(format!("get {prefix}{number}\r\n"));
        let line = client.line().expect("a reply");
        if line != b"END\r\n" {
            assert_eq!(line, format!("VALUE {prefix}{number} {number} {len}\r\n").into_bytes());
            let value = format!("{prefix}{number}:").repeat(len)[..len].to_owned();
            client.expect(format!("{value}\r\nEND\r\n"));
            found += 1;
        }
    }
    found
}

/// What the last server must have left: small and long values, deadlines, marks, CAS uniques.
fn fill(client: &mut Client) -> (String, String) {
    let long = "0123456789abcdef".repeat(200_000);
    set_many(client, "k", 2000, 50);
    client.send(format!("set long 5 0 {}\r\n{long}\r\n", long.len()));
    client.expect("STORED\r\n");
    client.send("set empty 4294967295 1000 0\r\n\r\nset dead 0 -1 1\r\nx\r\nset gone 0 0 1\r\nx\r\ndelete gone\r\n");
    client.expect("STORED\r\nSTORED\r\nSTORED\r\nDELETED\r\n");
    client.send("ms stale 1 T900\r\nx\r\nmd stale I T900\r\nms Zm9v 1 b\r\nx\r\nset number 0 0 1\r\n7\r\nmg k7 v\r\n");
    client.expect("HD\r\nHD\r\nHD\r\nSTORED\r\n");
    client.line().and_then(|_| client.line()).expect("an item of which it will be known that it was fetched");
    client.send("set a:1 0 0 1\r\nx\r\nflush_prefix a:\r\nset a:2 0 0 1\r\ny\r\n");
    client.expect("STORED\r\nOK\r\nSTORED\r\n");
    (client.ask("mg number c"), long)
}

/// Checks what [`fill`] has stored.
fn check(client: &mut Client, cas: Option<&str>, long: &str) {
    assert_eq!(count_many(client, "k", 2000, 50), 2000);
    client.send("get long\r\n");
    client.expect(format!("VALUE long 5 {}\r\n{long}\r\nEND\r\n", long.len()));
    client.send("get empty dead gone a:1 a:2\r\nmg Zm9v b k v\r\n");
    client.expect("VALUE empty 4294967295 0\r\n\r\nVALUE a:2 0 1\r\ny\r\nEND\r\nVA 1 kZm9v b\r\nx\r\n");
    let left = client.ask("mg empty t");
    let seconds: i32 = left.strip_prefix("HD t").and_then(|text| text.parse().ok()).expect("a time");
    assert!((900..=1000).contains(&seconds), "{left}");
    if let Some(cas) = cas {
        assert_eq!(client.ask("mg number c"), cas);
    }
    assert_eq!(client.ask("mg k7 h l").split(" l").next(), Some("HD h1"));
    assert_eq!(client.ask("mg stale s").split(' ').next(), Some("HD"), "the stale item");
}

#[test]
fn a_graceful_stop_keeps_everything() {
    let folder = Folder::new();
    let mut server = folder.start("-t 2 -m 64 -I 8m");
    let mut client = server.client();
    let (cas, long) = fill(&mut client);
    assert_eq!(client.ask_list("stats settings").iter().filter(|line| line.contains("memory_file")).count(), 1);
    let uptime = client.stat("uptime");
    folder.stop(&mut server);
    client.expect_closed();

    for flags in ["-t 1 -m 64 -I 8m", "-t 3 -m 200 -I 8m -f 1.5 -n 100", "-t 2 -m 64 -I 8m -o slab_chunk_max=8"] {
        let mut server = folder.start(flags);
        let mut client = server.client();
        check(&mut client, Some(&cas), &long);
        assert!(!folder.image().exists(), "{flags}: the image is still there while it is being served");
        assert_printed(&server, "loaded 2006 items");
        assert!(client.stat("uptime") >= uptime, "{flags}: the clock has gone back");
        folder.stop(&mut server);
    }
}

#[test]
fn what_only_meta_commands_see_is_kept() {
    let folder = Folder::new();
    let mut server = folder.start("-t 2");
    let mut client = server.client();
    client.send(
        "ms a 1\r\n1\r\nms b 1\r\n2\r\nms c 1\r\n3\r\nms d 1 T0\r\n4\r\nmd b I T500\r\nmd c I T500\r\nmg c c v\r\n",
    );
    client.expect("HD\r\nHD\r\nHD\r\nHD\r\nHD\r\nHD\r\n");
    let won = client.line().expect("a reply");
    assert!(won.ends_with(b" X W\r\n"), "{}", won.escape_ascii());
    client.expect("3\r\n");
    folder.stop(&mut server);

    let server = folder.start("-t 1");
    let mut client = server.client();
    let reply = |client: &mut Client, request: &str| client.ask(request);
    assert_eq!(reply(&mut client, "mg a h t"), "HD h0 t-1");
    // Two items are stale. The server has told no client to fetch the first one again, but it has told one to fetch the
    // second.
    assert_eq!(reply(&mut client, "mg b h"), "HD h0 X W");
    assert_eq!(reply(&mut client, "mg c h"), "HD h1 Z X");
    assert_eq!(reply(&mut client, "mg d t"), "HD t-1");
}

#[test]
fn cas_values_go_on_where_they_were() {
    let folder = Folder::new();
    let mut highest = 0;
    for flags in ["-t 3", "-t 1", "-t 2"] {
        let mut server = folder.start(flags);
        let mut client = server.client();
        let mut new = Vec::new();
        for number in 0..50 {
            let reply = client.ask(&format!("ms n{number} 1 c\r\nx"));
            let cas: u64 = reply.strip_prefix("HD c").and_then(|text| text.parse().ok()).expect("a CAS value");
            assert!(cas > highest, "{flags}: {cas} was given out before, up to {highest}");
            new.push(cas);
        }
        highest = new.into_iter().max().expect("fifty of them");
        // The server must not give out the CAS values of deleted items again.
        for number in 0..50 {
            assert_eq!(client.ask(&format!("delete n{number}")), "DELETED");
        }
        folder.stop(&mut server);
    }
}

#[test]
fn with_less_memory_the_rest_is_right() {
    let folder = Folder::new();
    let mut server = folder.start("-t 2 -m 32");
    set_many(&mut server.client(), "k", 20_000, 500);
    folder.stop(&mut server);
    let mut server = folder.start("-t 1 -m 5");
    let mut client = server.client();
    let found = count_many(&mut client, "k", 20_000, 500);
    assert!((3000..10_000).contains(&found), "{found} of 20,000 in 5 MiB");
    assert_eq!(client.stat("curr_items"), found as u64);
    assert_printed(&server, "there was no room for");
    // The newest items are there.
    assert_eq!(client.ask("mg k19999"), "HD");
    folder.stop(&mut server);
}

#[test]
fn any_other_end_leaves_nothing() {
    let folder = Folder::new();
    let mut server = folder.start("-t 2");
    server.client().ask("ms key 1\r\n1");
    folder.stop(&mut server);
    for (signal, first) in [("KILL", "HD"), ("TERM", "EN"), ("INT", "EN")] {
        let mut server = folder.start("-t 2");
        let mut client = server.client();
        // The server loads the image once, after the graceful stop, and never again.
        assert_eq!(client.ask("mg key"), first, "before {signal}");
        client.ask("ms key 1\r\n2");
        server.signal(signal);
        server.wait();
        assert!(!folder.image().exists(), "{signal} left an image");
    }
    let mut server = folder.start("-t 1");
    assert_eq!(server.client().ask("mg key"), "EN");
    end(&mut server, "TERM");
}

#[test]
fn shutdown_graceful_keeps_and_shutdown_does_not() {
    let folder = Folder::new();
    for (command, kept) in [("shutdown graceful", true), ("shutdown", false)] {
        let mut server = folder.start("-A");
        let mut client = server.client();
        client.ask("ms key 1\r\n1");
        client.send(format!("{command}\r\n"));
        client.expect_closed();
        assert_eq!(server.wait().code(), Some(0));
        assert_eq!(folder.image().exists(), kept, "{command}");
        let _ = fs::remove_file(folder.image());
    }
}

#[test]
fn requests_under_way_are_answered_and_kept() {
    let folder = Folder::new();
    let mut server = folder.start("-t 2");
    let mut client = server.client();
    let requests: String = (0..500).map(|number| format!("set k{number} 0 0 1\r\nx\r\n")).collect();
    client.send(requests);
    client.expect("STORED\r\n");
    folder.stop(&mut server);
    let stored = client.rest().expect("the end").len() / "STORED\r\n".len() + 1;
    let server = folder.start("-t 3");
    // All acknowledged items are there. There may be more, because the server may not have sent all replies.
    let mut client = server.client();
    for number in 0..stored {
        assert_eq!(client.ask(&format!("mg k{number}")), "HD", "{number} of {stored} that were answered");
    }
}

#[test]
fn a_file_that_is_damaged_is_not_loaded() {
    let folder = Folder::new();
    let mut server = folder.start("-t 1");
    set_many(&mut server.client(), "k", 500, 100);
    folder.stop(&mut server);
    let whole = fs::read(folder.image()).expect("the image");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    let mut other_version = whole.clone();
    other_version[8] += 1;
    for (bytes, line) in [
        (&whole[..whole.len() - 1], "starting cold: it is damaged"),
        (&whole[..whole.len() / 2], "starting cold: it is damaged"),
        (&flipped[..], "starting cold: it is damaged"),
        (&other_version[..], "starting cold: it has format 2"),
        (b"#!/bin/sh\n", "starting cold: it is not an image of a cache"),
    ] {
        fs::write(folder.image(), bytes).expect("a folder of ours");
        let mut server = folder.start("-t 2");
        let mut client = server.client();
        assert_eq!(count_many(&mut client, "k", 500, 100), 0);
        assert_eq!(client.stat("curr_items"), 0);
        let said = server.printed().lines().filter(|text| text.contains("WARN") && text.contains(line)).count();
        assert_eq!(said, 1, "no line {line:?}; it printed:\n{}", server.printed());
        // The server does not remove a file that is not its own.
        assert_eq!(folder.image().exists(), bytes.starts_with(b"#!"));
        end(&mut server, "TERM");
    }
    // The server still loads the undamaged file.
    fs::write(folder.image(), &whole).expect("a folder of ours");
    let server = folder.start("-t 2");
    assert_eq!(count_many(&mut server.client(), "k", 500, 100), 500);
}

#[test]
fn a_path_that_cannot_be_written_is_refused_at_the_start() {
    let folder = Folder::new();
    let missing = folder.0.join("missing/image");
    for path in [missing.to_str().expect("a path in UTF-8"), folder.0.to_str().expect("a path in UTF-8"), "/dev/null"] {
        let (status, printed) = corecached_run(&["-p", "-1", "-e", path]);
        assert!(!status.success() && printed.contains("-e ") && printed.contains(path), "{path}: {status} {printed}");
    }
}

#[test]
fn two_servers_cannot_share_a_file() {
    let folder = Folder::new();
    let mut server = folder.start("-t 1");
    let image = folder.image();
    let (status, printed) = corecached_run(&["-p", "-1", "-e", image.to_str().expect("a path in UTF-8")]);
    assert!(!status.success() && printed.contains("another server"), "{status} {printed}");
    server.assert_alive();
}

#[test]
fn a_graceful_stop_without_an_image_is_told_by_the_exit_code_and_leaves_nothing() {
    for command in ["kill -USR1", "shutdown graceful"] {
        for folder_is_gone in [false, true] {
            let folder = Folder::new();
            let mut server = folder.start("-t 1 -A");
            let mut client = server.client();
            client.ask("ms key 1\r\n1");
            if folder_is_gone {
                fs::remove_dir_all(&folder.0).expect("a folder of ours");
            } else {
                // The server writes a file beside its place. It cannot move that file there now.
                fs::create_dir(folder.image()).expect("a folder of ours");
            }
            match command {
                "kill -USR1" => server.signal("USR1"),
                _ => client.send(format!("{command}\r\n")),
            }
            let (status, printed) = (server.wait(), server.printed());
            assert_eq!(status.code(), Some(74), "{command}: {status}; it printed:\n{printed}");
            assert!(printed.contains("the cache could not be kept"), "{command}; it printed:\n{printed}");
            assert!(!printed.contains("Exiting normally"), "{command}; it printed:\n{printed}");
            if folder_is_gone {
                continue;
            }
            fs::remove_dir(folder.image()).expect("it is empty");
            assert_eq!(fs::read_dir(&folder.0).expect("a folder of ours").count(), 0, "something is left");
            let mut server = folder.start("-t 1");
            assert_eq!(server.client().ask("mg key"), "EN");
            // The server has no image to write, so the kind of stop does not matter.
            end(&mut server, "TERM");
        }
    }
}
