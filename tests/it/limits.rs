//! Limits of connections, memory and sizes; and the addresses that a server listens on.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use crate::client::{Client, Silence};
use crate::peers;
use crate::server::{Address, Server, corecached_run};

const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

#[test]
fn surplus_connections_are_told_and_closed() {
    let mut server = Server::corecached_tcp(&["-c", "100", "-t", "2", "-m", "256"]);
    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..150 {
        let mut client = server.client();
        // A refused connection may already be closed when the client sends this.
        let _ = client.try_send(b"mn\r\n");
        match client.line() {
            Ok(line) if line == b"MN\r\n" => served.push(client),
            Ok(line) if line == TOO_MANY => {
                client.expect_closed();
                refused += 1;
            }
            // The server closed the connection with the request unread. That resets the connection, and the client does
            // not get the message.
            Err(Silence::Closed) => refused += 1,
            other => panic!("neither served nor refused: {other:?}"),
        }
    }
    assert!(served.len() <= 100, "{} are served", served.len());
    assert!(served.len() >= 60, "only {} of 100 are served", served.len());
    assert_eq!(served.len() + refused, 150);
    let said = served[0].stat("rejected_connections");
    assert!(said >= refused as u64, "{refused} were refused, stats say {said}");
    for client in &mut served {
        assert_eq!(client.ask("mn"), "MN");
    }

    // A client that leaves makes room. The server learns of it in its own time, so a new client may have to ask again.
    drop(served);
    let answered = (0..1000).any(|_| {
        let mut client = server.client();
        client.try_send(b"mn\r\n").is_ok() && client.line() == Ok(b"MN\r\n".to_vec())
    });
    assert!(answered, "nobody is served although everybody has left");
    server.assert_alive();
}

#[test]
fn a_refused_client_can_read_why() {
    let server = Server::corecached_tcp(&["-c", "100", "-t", "1"]);
    let mut clients = Vec::new();
    for _ in 0..150 {
        clients.push(server.client());
    }
    let mut last = clients.pop().expect("there are 150");
    assert_eq!(last.rest(), Ok(TOO_MANY.to_vec()));
}

#[test]
fn without_evictions_a_full_cache_refuses() {
    let server = Server::corecached(&["-m", "8", "-M", "-t", "2"]);
    let mut client = server.client();
    let value = "x".repeat(10_000);
    let mut stored = Vec::new();
    let refusal = loop {
        let key = format!("key{}", stored.len());
        let reply = client.ask(&format!("set {key} 0 0 {}\r\n{value}", value.len()));
        if reply != "STORED" {
            break reply;
        }
        stored.push(key);
        assert!(stored.len() < 2000, "20 MB fit into 8");
    };
    assert_eq!(refusal, "SERVER_ERROR out of memory storing object");
    assert!(stored.len() >= 200, "8 MB are full with {} values of 10 kB", stored.len());
    assert_eq!(client.stat("evictions"), 0);
    assert_eq!(client.stat("store_no_memory"), 1);
    assert_eq!(client.stat("curr_items"), stored.len() as u64);
    for key in &stored {
        client.send(format!("get {key}\r\n"));
        client.expect(format!("VALUE {key} 0 10000\r\n{value}\r\nEND\r\n"));
    }

    // An `add` keeps the old value. When the client has deleted all values, the server stores a new one.
    assert_eq!(client.ask(&format!("add {} 0 0 1\r\ny", stored[0])), "NOT_STORED");
    for key in &stored {
        assert_eq!(client.ask(&format!("delete {key}")), "DELETED");
    }
    assert_eq!(client.ask(&format!("set again 0 0 {}\r\n{value}", value.len())), "STORED");
}

#[test]
fn a_full_cache_evicts_what_is_old_and_keeps_what_is_new() {
    for workers in ["1", "4"] {
        let server = Server::corecached(&["-m", "8", "-t", workers]);
        let mut client = server.client();
        let value = "v".repeat(1000);
        for batch in 0..200 {
            let sets: String =
                (0..100).map(|i| format!("set key{} 0 0 1000\r\n{value}\r\n", batch * 100 + i)).collect();
            client.send(sets);
            client.expect("STORED\r\n".repeat(100));
        }
        assert!(client.stat("evictions") > 5_000, "20 MB went into 8, {} evictions", client.stat("evictions"));
        assert_eq!(client.stat("store_no_memory"), 0);
        let (items, bytes) = (client.stat("curr_items"), client.stat("bytes"));
        assert!((3_000..10_000).contains(&items), "{items} items of 1 kB in 8 MB");
        assert!(bytes <= client.stat("limit_maxbytes"), "{bytes} bytes");
        for i in 19_800..20_000 {
            client.send(format!("get key{i}\r\n"));
            client.expect(format!("VALUE key{i} 0 1000\r\n{value}\r\nEND\r\n"));
        }
        client.send("get key0 key1 key2\r\n");
        client.expect("END\r\n");
    }
}

#[test]
fn what_is_read_again_and_again_survives_a_flood() {
    let server = Server::corecached(&["-m", "8", "-t", "1"]);
    let mut client = server.client();
    let value = "v".repeat(1000);
    assert_eq!(client.ask(&format!("set hot 0 0 1000\r\n{value}")), "STORED");
    for batch in 0..400 {
        let sets: String = (0..50).map(|i| format!("set flood{} 0 0 1000\r\n{value}\r\n", batch * 50 + i)).collect();
        client.send(sets + "get hot\r\n");
        client.expect("STORED\r\n".repeat(50) + &format!("VALUE hot 0 1000\r\n{value}\r\nEND\r\n"));
    }
}

#[test]
fn values_of_every_size_live_in_one_small_cache() {
    // The server must move pages between classes, so that it stores values of whatever size comes next.
    let server = Server::corecached(&["-m", "16", "-t", "1"]);
    let mut client = server.client();
    for size in [10, 100, 1_000, 5_000, 20_000, 80_000, 300_000, 900_000, 300_000, 5_000, 100] {
        let value = "s".repeat(size);
        let count = (20_000_000 / size).min(3_000);
        for i in 0..count {
            client.send(format!("set {size}-{i} 0 0 {size}\r\n{value}\r\n"));
            client.expect("STORED\r\n");
        }
        client.send(format!("get {size}-{}\r\n", count - 1));
        client.expect(format!("VALUE {size}-{} 0 {size}\r\n{value}\r\nEND\r\n", count - 1));
    }
}

#[test]
fn the_largest_item_can_be_set() {
    for (flag, fits, does_not) in
        [("512k", 500_000, 600_000), ("2m", 2_000_000, 2_200_000), ("8m", 8_000_000, 9_000_000)]
    {
        let server = Server::corecached(&["-I", flag, "-m", "64"]);
        let mut client = server.client();
        client.send(format!("set a 0 0 {fits}\r\n{}\r\n", "a".repeat(fits)));
        client.expect("STORED\r\n");
        client.send("get a\r\n");
        client.expect(format!("VALUE a 0 {fits}\r\n{}\r\nEND\r\n", "a".repeat(fits)));
        client.send(format!("set b 0 0 {does_not}\r\n{}\r\nget b\r\n", "b".repeat(does_not)));
        client.expect("SERVER_ERROR object too large for cache\r\nEND\r\n");
    }
}

#[test]
fn hundreds_of_connections_are_spread_and_served() {
    let server = Server::corecached_tcp(&["-t", "4", "-m", "256"]);
    let mut clients: Vec<Client> = (0..500).map(|_| server.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(format!("set key{i} 0 0 {}\r\n{i}\r\n", i.to_string().len()));
    }
    for client in &mut clients {
        client.expect("STORED\r\n");
    }
    // Each client asks for the value that its neighbor has stored, all at the same time.
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(format!("get key{}\r\n", (i + 1) % 500));
    }
    for (i, client) in clients.iter_mut().enumerate() {
        let value = ((i + 1) % 500).to_string();
        client.expect(format!("VALUE key{value} 0 {}\r\n{value}\r\nEND\r\n", value.len()));
    }
    assert_eq!(clients[0].stat("curr_connections"), 500);
    assert_eq!(clients[0].stat("threads"), 4);
}

#[test]
fn it_listens_on_several_addresses() {
    let server = Server::corecached_tcp(&["-l", "127.0.0.1", "-l", "127.0.0.2"]);
    let ports: Vec<u16> = server.addresses().iter().map(port).collect();
    assert_eq!(ports.len(), 2);
    let mut first = Client::connect(&Address::Tcp((Ipv4Addr::LOCALHOST, ports[0]).into()));
    let mut second = Client::connect(&Address::Tcp((Ipv4Addr::new(127, 0, 0, 2), ports[1]).into()));
    assert_eq!(first.ask("set a 0 0 1\r\nx"), "STORED");
    second.send("get a\r\n");
    second.expect("VALUE a 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn it_listens_on_both_loopbacks() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return peers::say_skipped("there is no IPv6 here");
    }
    let server = Server::corecached_tcp(&["-l", "127.0.0.1,::1"]);
    let addresses = server.addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    assert!(addresses.iter().any(|address| matches!(address, Address::Tcp(address) if address.is_ipv6())));
    for (i, address) in addresses.iter().enumerate() {
        let mut client = Client::connect(address);
        assert_eq!(client.ask(&format!("set key{i} 0 0 1\r\nx")), "STORED");
        client.send("get key0\r\n");
        client.expect("VALUE key0 0 1\r\nx\r\nEND\r\n");
    }
}

#[test]
fn the_socket_has_the_permissions_asked_for() {
    for (flags, mode) in [(&[][..], 0o700), (&["-a", "0777"][..], 0o777), (&["-a", "660"][..], 0o660)] {
        let server = Server::corecached(flags);
        let metadata = std::fs::metadata(server.socket()).expect("the socket file");
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{flags:?}");
    }
}

#[test]
fn flags_that_make_no_sense_are_refused_at_the_start() {
    for flags in [
        &["-c", "0"][..],
        &["-t", "0"][..],
        &["-f", "1.0"][..],
        &["-n", "0"][..],
        &["-I", "100"][..],
        &["-I", "2g"][..],
        &["-m", "x"][..],
        &["-B", "bogus"][..],
        &["-o", "bogus"][..],
        &["--bogus"][..],
    ] {
        let (status, printed) = corecached_run(flags);
        assert!(!status.success(), "{flags:?} was accepted");
        assert!(!printed.trim().is_empty(), "{flags:?} was refused without a word");
    }
}

#[test]
fn version_and_help_are_printed() {
    for flag in ["-V", "--version", "-h", "--help"] {
        let (status, printed) = corecached_run(&[flag]);
        assert!(status.success() && !printed.trim().is_empty(), "{flag}: {status}\n{printed}");
    }
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Tcp(address) => address.port(),
        Address::Unix(path) => panic!("not a TCP address: {}", path.display()),
    }
}
