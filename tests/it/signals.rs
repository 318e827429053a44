//! Orderly ends of the server, by signal and by command.

use crate::client::Client;
use crate::server::Server;

#[test]
fn term_ends_it_and_takes_the_socket_away() {
    ends_by("TERM");
}

#[test]
fn int_ends_it_and_takes_the_socket_away() {
    ends_by("INT");
}

#[test]
fn usr1_ends_it_gracefully() {
    ends_by("USR1");
}

fn ends_by(signal: &str) {
    let mut server = Server::corecached(&["-t", "2"]);
    let (mut busy, mut idle) = (server.client(), server.client());
    let replies = start_many_requests(&mut busy);

    server.signal(signal);
    busy.expect(replies);
    busy.expect_closed();
    idle.expect_closed();
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}; it printed:\n{}", server.printed());
    assert!(!server.socket().exists(), "the socket file is still there");
}

#[test]
fn what_has_come_before_the_signal_is_answered() {
    for signal in ["TERM", "INT", "USR1"] {
        let mut server = Server::corecached_tcp(&["-t", "2"]);
        let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
        for client in &mut clients {
            assert_eq!(client.ask("mn"), "MN");
        }
        // The server sees the requests and the signal at the same time.
        server.signal("STOP");
        for client in &mut clients {
            client.send("set a 0 0 1\r\nx\r\nget a\r\n");
        }
        server.signal(signal);
        server.signal("CONT");
        for client in &mut clients {
            client.expect("STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
            client.expect_closed();
        }
        assert!(server.wait().success(), "{}", server.printed());
    }
}

/// Sends a thousand requests, reads the first reply, and returns the replies that must still come.
fn start_many_requests(client: &mut Client) -> String {
    client.send(format!("set a 0 0 5\r\nhello\r\n{}", "get a\r\n".repeat(1000)));
    client.expect("STORED\r\n");
    "VALUE a 0 5\r\nhello\r\nEND\r\n".repeat(1000)
}

#[test]
fn a_signal_right_after_the_start_is_no_surprise() {
    // A server that accepts connections can already end in order.
    for _ in 0..10 {
        let mut server = Server::corecached(&["-t", "2"]);
        server.signal("TERM");
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(!server.socket().exists(), "the socket file is still there");
    }
}

#[test]
fn a_second_signal_changes_nothing() {
    let mut server = Server::corecached(&["-t", "2"]);
    server.assert_alive();
    server.signal("TERM");
    // The server may have ended before the second signal. kill(1) then sends the signal to our zombie, which is fine
    // too.
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn shutdown_ends_it_where_it_is_allowed() {
    for command in ["shutdown\r\n", "shutdown graceful\r\n"] {
        let mut server = Server::corecached(&["-A"]);
        let mut client = server.client();
        client.send("set a 0 0 5\r\nhello\r\nget a\r\n");
        client.expect("STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n");
        client.send(command);
        client.expect_closed();
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{command:?}: {status}; it printed:\n{}", server.printed());
    }
}

#[test]
fn a_client_that_has_gone_is_no_reason_to_die() {
    // The server replies to a client that no longer listens. SIGPIPE must not end the server.
    let mut server = Server::corecached(&["-t", "1"]);
    server.client().send("set a 0 0 100000\r\n".to_owned() + &"x".repeat(100_000) + "\r\n");
    for _ in 0..50 {
        let mut client = server.client();
        client.send("get a\r\n".repeat(100));
    }
    server.assert_alive();
}

#[test]
fn hangup_does_not_end_a_server_that_has_nothing_to_reload() {
    let mut server = Server::corecached(&["-t", "1"]);
    server.assert_alive();
    server.signal("HUP");
    // The server takes this signal before a later one. If HUP ended the server, its exit status would tell.
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}
