//! A `get` of as many keys as there are operations in a group, whose reply the socket does not take at once.

use crate::server::Server;

/// More than the sockets of both sides hold, with the group's 64 keys.
const SIZE: usize = 200_000;

#[test]
fn a_get_ends_also_when_its_last_key_fills_a_group() {
    for workers in ["1", "2"] {
        let server = Server::corecached_tcp(&["-t", workers]);
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
