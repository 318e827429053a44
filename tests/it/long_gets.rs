//! Replies to a `get` of many keys. The socket does not take such a reply at once.

use crate::server::Server;

/// The values of 64 keys, which the server handles as one group, are more than the sockets of both sides hold.
const SIZE: usize = 200_000;

#[test]
fn a_get_ends_also_when_its_last_key_fills_a_group() {
    for workers in ["1", "2"] {
        let server = Server::corecached_tcp(&["-t", workers, "-m", "256"]);
        let mut client = server.client();
        let value = "v".repeat(SIZE);
        client.send(format!("set k 0 0 {SIZE}\r\n{value}\r\n"));
        client.expect("STORED\r\n");
        let one = format!("VALUE k 0 {SIZE}\r\n{value}\r\n");
        for keys in [63, 64, 65, 128] {
            client.send(format!("get{}\r\n", " k".repeat(keys)));
            (0..keys).for_each(|_| client.expect(&one));
            client.expect("END\r\n");
        }
    }
}

/// Many clients send a whole list of keys before they read. The client and the server must not wait for each other
/// then.
#[test]
fn a_list_may_be_sent_as_a_whole_before_anything_is_read() {
    const KEYS: usize = 50_000;
    for workers in ["1", "2"] {
        let server = Server::corecached(&["-t", workers, "-m", "256"]);
        let mut client = server.client();
        let keys: Vec<String> = (0..KEYS).map(|number| format!("{number:040}")).collect();
        let value = "v".repeat(200);
        for some in keys.chunks(1000) {
            let sets = some.iter().map(|key| format!("set {key} 0 0 200 noreply\r\n{value}\r\n"));
            client.send(sets.collect::<String>());
        }
        client.send("mn\r\n");
        client.expect("MN\r\n");
        for _ in 0..2 {
            client.send(format!("get {}\r\nmn\r\n", keys.join(" ")));
            for key in &keys {
                client.expect(format!("VALUE {key} 0 200\r\n{value}\r\n"));
            }
            client.expect("END\r\nMN\r\n");
        }
    }
}
