//! Long values that are still arriving. An announced value takes no memory before its bytes arrive. All of them
//! together have a limit of memory. A client that stops in the middle makes room for others.

use crate::client::Client;
use crate::peers;
use crate::server::Server;
use crate::waiting::wait_until;

/// Almost the greatest length of a value.
const LONG: usize = 1_000_000;

/// This many small items fill half of a cache of 16 MB.
const SMALL: u64 = 8_000;

fn filled_server(flags: &[&str]) -> Server {
    let server = Server::corecached_tcp(&[&["-m", "16", "-t", "2"], flags].concat());
    let mut client = server.client();
    for batch in 0..SMALL / 100 {
        let value = "v".repeat(900);
        let sets: String = (0..100).map(|i| format!("set small{} 0 0 900\r\n{value}\r\n", batch * 100 + i)).collect();
        client.send(sets);
        client.expect("STORED\r\n".repeat(100));
    }
    assert_eq!((client.stat("curr_items"), client.stat("evictions")), (SMALL, 0));
    server
}

/// Clients that have announced a long value and sent this many bytes of it. The server has read the announcement.
fn announce(server: &Server, count: usize, sent: usize) -> Vec<Client> {
    (0..count)
        .map(|number| {
            let mut client = server.client();
            client.send(format!("mn\r\nset long{number} 0 0 {LONG}\r\n"));
            client.expect("MN\r\n");
            client.send_without_waiting(&vec![b'x'; sent]);
            client
        })
        .collect()
}

fn upload_stat(client: &mut Client, name: &str) -> u64 {
    let (lines, prefix) = (client.ask_list("stats uploads"), format!("STAT uploads_{name} "));
    let value = lines.iter().find_map(|line| line.strip_prefix(&prefix)).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no number {name}: {lines:?}"))
}

/// Waits until the server has read so many bytes of other clients since `keeper` was told `bytes_read`. `keeper` has sent
/// nothing else in between.
fn wait_until_read(keeper: &mut Client, mut bytes_read: u64, sent: u64) {
    wait_until("it was read", || {
        bytes_read += b"stats\r\n".len() as u64;
        keeper.stat("bytes_read") == bytes_read + sent
    });
}

#[test]
fn announced_values_take_no_memory() {
    let server = filled_server(&[]);
    let mut polite = server.client();
    let rude = announce(&server, 80, 0);
    for i in 0..100 {
        assert_eq!(polite.ask(&format!("set other{i} 0 0 900\r\n{}", "o".repeat(900))), "STORED");
    }
    assert_eq!(upload_stat(&mut polite, "bytes"), 0);
    assert_eq!((polite.stat("curr_items"), polite.stat("evictions")), (SMALL + 100, 0));
    drop(rude);
}

#[test]
fn values_cut_off_in_the_middle_take_a_share_of_memory() {
    for sent in [1, LONG / 2, LONG - 1] {
        let server = filled_server(&[]);
        let mut polite = server.client();
        let rude = announce(&server, 80, sent);
        wait_until("values wait", || upload_stat(&mut polite, "waiting") > 0);
        let (bytes, limit) = (upload_stat(&mut polite, "bytes"), upload_stat(&mut polite, "limit"));
        assert_eq!(limit, 4 << 20, "a quarter of -m");
        assert!(bytes <= limit, "{bytes} bytes are under way");
        for i in 0..1000 {
            assert_eq!(polite.ask(&format!("set other{i} 0 0 900\r\n{}", "o".repeat(900))), "STORED");
        }
        let (items, evictions) = (polite.stat("curr_items"), polite.stat("evictions"));
        assert_eq!((items, evictions), (SMALL + 1000, 0), "{sent} bytes of each were sent");
        // A long value of an honest client waits for room, but not for clients that have gone.
        drop(rude);
        assert_eq!(polite.ask(&format!("set long 0 0 {LONG}\r\n{}", "y".repeat(LONG))), "STORED");
        wait_until("nothing is under way", || {
            upload_stat(&mut polite, "bytes") + upload_stat(&mut polite, "waiting") == 0
        });
    }
}

#[test]
fn values_that_take_half_of_memory_each_come_in_one_by_one() {
    let mut server = Server::corecached_tcp(&["-m", "64", "-I", "20m", "-t", "2"]);
    let value = "z".repeat(20_000_000);
    std::thread::scope(|scope| {
        for i in 0..6 {
            let mut client = server.client();
            let value = &value;
            scope.spawn(move || {
                client.send(format!("set huge{i} 0 0 {}\r\n{value}\r\n", value.len()));
                client.expect("STORED\r\n");
            });
        }
    });
    let mut client = server.client();
    assert_eq!((upload_stat(&mut client, "bytes"), client.stat("store_no_memory")), (0, 0));
    server.assert_alive();
}

#[test]
fn many_long_values_at_once_are_all_stored() {
    // More than twice as many bytes arrive at once as the limit of 16 MiB allows. With the values that they replace, they
    // fit into memory, however the keys fall to the shards: no shard has to evict.
    let server = Server::corecached_tcp(&["-m", "64", "-t", "3"]);
    let mut clients: Vec<Client> = (0..40).map(|_| server.client()).collect();
    let value = "z".repeat(LONG);
    for round in 0..2 {
        for (i, client) in clients.iter_mut().enumerate() {
            let request = format!("set long{i} {round} 0 {LONG}\r\n");
            client.send(request);
        }
        std::thread::scope(|scope| {
            for client in &mut clients {
                let value = &value;
                scope.spawn(move || {
                    client.send(value);
                    client.send("\r\nmn\r\n");
                    client.expect("STORED\r\nMN\r\n");
                });
            }
        });
    }
    let mut client = server.client();
    assert_eq!((client.stat("evictions"), client.stat("store_no_memory")), (0, 0));
    for i in 0..40 {
        client.send(format!("get long{i}\r\n"));
        client.expect(format!("VALUE long{i} 1 {LONG}\r\n{value}\r\nEND\r\n"));
    }
    assert_eq!(upload_stat(&mut client, "bytes"), 0);
}

#[test]
fn slow_uploads_make_way_for_others() {
    if !cfg!(feature = "debug-commands") {
        return peers::say_skipped("the clock is moved by a feature that is not built: debug-commands");
    }
    let server = filled_server(&[]);
    let (mut polite, mut keeper) = (server.client(), server.client());
    assert_eq!(keeper.ask("debugtime p"), "OK");
    // Four of these values fit. The others wait until the server notices that the first ones are slow.
    let sent = LONG / 10;
    let mut rude = announce(&server, 12, sent);
    wait_until("values wait", || upload_stat(&mut keeper, "waiting") == 8);
    polite.send(format!("set long 0 0 {LONG}\r\n{}", "y".repeat(LONG)));
    wait_until("another value waits", || upload_stat(&mut keeper, "waiting") == 9);
    let mut seconds = 0;
    while upload_stat(&mut keeper, "waiting") > 0 {
        assert!(seconds < 20, "after {seconds} seconds there are still some that wait");
        seconds += 1;
        assert_eq!(keeper.ask("debugtime 1"), "OK");
        // Each worker replies after it has noticed the new second.
        keeper.send("stats conns\r\n");
        while keeper.line().expect("a line") != b"END\r\n" {}
    }
    polite.send("\r\n");
    polite.expect("STORED\r\n");
    // A value that made room for others continues where it stopped. The server may have given up the first ones by now.
    rude[8].send(format!("{}\r\n", "x".repeat(LONG - sent)));
    rude[8].expect("STORED\r\n");
    assert!(upload_stat(&mut keeper, "timed_out") <= 8, "{} were given up", upload_stat(&mut keeper, "timed_out"));
}

#[test]
fn idle_uploads_are_closed() {
    if !cfg!(feature = "debug-commands") {
        return peers::say_skipped("the clock is moved by a feature that is not built: debug-commands");
    }
    for (flags, seconds) in [(&[][..], 60), (&["-o", "idle_timeout=5"], 5)] {
        let server = filled_server(flags);
        let mut keeper = server.client();
        assert_eq!(keeper.ask("debugtime p"), "OK");
        let read = keeper.stat("bytes_read");
        let (mut silent, mut dripping) = (announce(&server, 2, 1000), announce(&server, 1, 1000).remove(0));
        silent.extend(announce(&server, 1, 0));
        // The bytes of a value are read after their memory is there, and that is what `uploads_bytes` counts.
        let announcement = format!("mn\r\nset long0 0 0 {LONG}\r\n").len() as u64;
        wait_until_read(&mut keeper, read, 4 * announcement + 3 * 1000);
        assert_eq!(upload_stat(&mut keeper, "bytes"), 3 * LONG as u64);
        for _ in 0..=seconds {
            // The server reads the byte before the clock moves.
            let read = keeper.stat("bytes_read");
            dripping.send("x");
            wait_until_read(&mut keeper, read, 1);
            assert_eq!(keeper.ask("debugtime 1"), "OK");
            assert_eq!(keeper.ask("mn"), "MN");
        }
        for client in &mut silent {
            client.expect_closed();
        }
        dripping.send(format!("{}\r\n", "x".repeat(LONG - 1000 - seconds - 1)));
        dripping.expect("STORED\r\n");
        assert_eq!((upload_stat(&mut keeper, "timed_out"), upload_stat(&mut keeper, "bytes")), (3, 0));
        assert_eq!(keeper.ask("stats reset"), "RESET");
        assert_eq!(upload_stat(&mut keeper, "timed_out"), 0);
    }
}
