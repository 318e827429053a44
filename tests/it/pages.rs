//! Pages: the server moves them between classes on request, and returns them to the system when its limit becomes
//! lower.

use crate::client::Client;
use crate::server::Server;
use crate::waiting::wait_until;
use corecached::store::arena::page_size;

/// Stores items of `value_len` bytes with the numbers from `from` on, as fast as the server accepts them.
fn fill(client: &mut Client, from: usize, count: usize, value_len: usize) {
    for batch in (from..from + count).step_by(500) {
        let end = (batch + 500).min(from + count);
        let mut request = Vec::new();
        for number in batch..end {
            let noreply = if number + 1 == end { "" } else { " noreply" };
            request.extend_from_slice(format!("set key{number} 0 0 {value_len}{noreply}\r\n").as_bytes());
            request.extend_from_slice(&value_of(number, value_len));
            request.extend_from_slice(b"\r\n");
        }
        client.send(&request);
        client.expect("STORED\r\n");
    }
}

fn value_of(number: usize, len: usize) -> Vec<u8> {
    vec![b'a' + (number % 26) as u8; len]
}

/// The number of these keys that the server has. Checks their values.
fn count(client: &mut Client, from: usize, count: usize, value_len: usize) -> usize {
    let mut found = 0;
    for number in from..from + count {
        client.send(format!("get key{number}\r\n"));
        if client.line().expect("a line") != b"END\r\n" {
            let mut rest = value_of(number, value_len);
            rest.extend_from_slice(b"\r\nEND\r\n");
            client.expect(&rest);
            found += 1;
        }
    }
    found
}

/// The classes with pages, and their numbers of pages.
fn pages(client: &mut Client) -> Vec<(u32, u64)> {
    let lines = client.ask_list("stats slabs");
    let of_class = |line: &String| {
        let (class, pages) = line.strip_prefix("STAT ")?.split_once(":total_pages ")?;
        Some((class.parse().ok()?, pages.parse().ok()?))
    };
    lines.iter().filter_map(of_class).collect()
}

/// Deletes these items in one write.
fn delete(client: &mut Client, numbers: impl Iterator<Item = usize>) {
    let request: String = numbers.map(|number| format!("delete key{number} noreply\r\n")).collect();
    client.send(request + "mn\r\n");
    client.expect("MN\r\n");
}

#[test]
fn a_page_is_reassigned_and_its_items_stay() {
    for workers in ["1", "2"] {
        // Without `slab_automove`, the server moves only the pages that the test names. This holds however long the
        // test takes.
        let server = Server::corecached(&["-m", "64", "-t", workers, "-o", "slab_automove=0"]);
        let mut client = server.client();
        fill(&mut client, 0, 16_000, 1000);
        // Each page keeps half of its items, so the items of one page fit into the other pages.
        delete(&mut client, (1..16_000).step_by(2));
        let before = pages(&mut client);
        let [(class, held)] = before[..] else { panic!("one class: {before:?}") };
        assert_eq!(client.ask(&format!("slabs reassign {class} {class}")), "SAME src and dst class are identical");
        assert_eq!(client.ask(&format!("slabs reassign {class} 63")), "BADCLASS invalid src or dst class id");
        assert_eq!(client.ask("slabs reassign 1 2"), "NOSPARE source class has no spare pages");
        let moved = client.stat("slabs_moved");
        assert_eq!(client.ask(&format!("slabs reassign {class} 3")), "OK");
        wait_until("a page moves", || client.stat("slab_reassign_running") == 0);
        assert_eq!(client.stat("slabs_moved"), moved + 1);
        let after = pages(&mut client);
        assert!(after.iter().any(|&(other, held)| other == 3 && held == 1), "{after:?}");
        assert!(after.iter().any(|&(other, now)| other == class && now < held), "{after:?}");
        assert_eq!(client.stat("evictions"), 0);
        assert_eq!(count(&mut client, 0, 16_000, 1000), 8000);

        // Move a page back to the pool.
        let pool = client.stat("slab_global_page_pool");
        assert_eq!(client.ask("slabs reassign -1 0"), "OK");
        wait_until("a page goes to the pool", || client.stat("slab_global_page_pool") > pool);
        assert_eq!(count(&mut client, 0, 16_000, 1000), 8000);

        // The remaining items need only a few pages. Pages that become empty go to the pool. The server may take them
        // again for the items of a page that moves.
        delete(&mut client, 4000..16_000);
        for target in [0, 3, 0, 4] {
            assert_eq!(client.ask(&format!("slabs reassign {class} {target}")), "OK");
            wait_until("a page moves", || client.stat("slab_reassign_running") == 0);
        }
        assert_eq!((count(&mut client, 0, 4000, 1000), client.stat("evictions")), (2000, 0));
    }
}

/// At the pace of the usual housekeeping, some hundred items a second, this would take minutes.
#[test]
fn flushed_items_soon_count_no_more() {
    let server = Server::corecached(&["-m", "64", "-t", "2"]);
    let mut client = server.client();
    fill(&mut client, 0, 100_000, 20);
    assert_eq!(client.stat("curr_items"), 100_000);
    assert_eq!(client.ask("flush_all"), "OK");
    wait_until("no item is left", || client.stat("curr_items") == 0);
    assert_eq!(client.stat("bytes"), 0);
}

#[test]
fn the_limit_is_lowered_and_raised_under_load() {
    let server = Server::corecached(&["-m", "96", "-t", "2"]);
    let mut client = server.client();
    fill(&mut client, 0, 100_000, 1000);
    let full = server.resident_kib();
    assert!(full > 90 << 10, "{full} KiB");
    assert_eq!(client.ask("cache_memlimit 24"), "OK");
    let mut number = 100_000;
    wait_until("memory goes back to the system", || {
        fill(&mut client, number, 100, 1000);
        number += 100;
        server.resident_kib() + (60 << 10) < full
    });
    let held: u64 = pages(&mut client).iter().map(|&(_, pages)| pages).sum();
    let page = page_size(96 << 20) as u64;
    assert!(held * page < 40 << 20, "{held} pages");
    wait_until("the limit is kept", || {
        pages(&mut client).iter().map(|&(_, pages)| pages).sum::<u64>() * page <= 24 << 20
    });
    // The newest items are still there.
    assert_eq!(count(&mut client, number - 2000, 2000, 1000), 2000);

    assert_eq!(client.ask("cache_memlimit 96"), "OK");
    fill(&mut client, number, 100_000, 1000);
    let held: u64 = pages(&mut client).iter().map(|&(_, pages)| pages).sum();
    assert_eq!(held * page, 96 << 20);
    assert_eq!(count(&mut client, number + 40_000, 1000, 1000), 1000);
}

#[test]
fn a_long_value_finds_room_among_small_ones_while_others_are_served() {
    for workers in ["1", "3"] {
        let server = Server::corecached(&["-m", "64", "-t", workers, "-I", "30m"]);
        let mut others = server.client();
        fill(&mut others, 0, 600_000, 100);
        assert!(others.stat("evictions") > 0, "it is full");
        let value = vec![b'x'; 12 << 20];
        for number in 0..3 {
            let mut client = server.client();
            client.send(format!("set long{number} 0 0 {}\r\n", value.len()));
            // The server empties a dozen pages for this value. Other clients do not wait for it.
            fill(&mut others, 600_000 + number, 1, 100);
            client.send(&value);
            client.send("\r\n");
            client.expect("STORED\r\n");
            client.send(format!("get long{number}\r\n"));
            client.expect(format!("VALUE long{number} 0 {}\r\n", value.len()));
            client.expect(&value);
            client.expect("\r\nEND\r\n");
        }
        // A client that hangs up leaves no memory in use.
        for _ in 0..20 {
            let mut client = server.client();
            client.send(format!("set gone 0 0 {}\r\n", 28 << 20));
        }
        let class = pages(&mut others).last().expect("the class of long values").0;
        others.send("flush_all\r\n");
        others.expect("OK\r\n");
        let used = format!("STAT {class}:used_chunks ");
        wait_until("all is free", || {
            let lines = others.ask_list("stats slabs");
            lines.iter().find_map(|line| line.strip_prefix(&used)).is_none_or(|count| count == "0")
        });
    }
}
