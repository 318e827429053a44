//! The log never contains values and credentials, at any log level, in whatever form and in whatever pieces they
//! arrive.
//!
//! A value may arrive where the server does not expect one, after a line that it has refused. The server then executes
//! it as a command, as memcached does, but does not log it.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::client::Client;
use crate::packet::request;
use crate::server::{Server, TemporaryFile};

/// The text that must not be in a log. No four successive bytes of it are in a log for another reason.
const SECRET: &str = "Qz7Xw9Kp3VmG";
/// Length of a piece of the secret that the test looks for.
const PIECE: usize = 4;

#[track_caller]
fn check_log(server: &Server) {
    let log = server.printed();
    for piece in SECRET.as_bytes().windows(PIECE) {
        let piece = std::str::from_utf8(piece).expect("it is ASCII");
        let found: Vec<&str> = log.lines().filter(|line| line.contains(piece)).collect();
        assert!(found.is_empty(), "{piece:?} of the secret is in the log:\n{}", found.join("\n"));
    }
}

/// Sends a form whole. Also sends it on other connections in two pieces, cut at every byte.
fn send_in_pieces(server: &Server, form: &[u8]) {
    let cuts: Vec<usize> = (0..form.len().min(150)).collect();
    let mut clients: Vec<Client> = cuts.iter().map(|_| server.client()).collect();
    for (client, &cut) in clients.iter_mut().zip(&cuts) {
        client.send(&form[..cut]);
    }
    // The only worker serves the last connection last, so it has read the first pieces when this ends.
    let mut last = server.client();
    last.finish_sending();
    last.rest().expect("it is closed");
    for (client, &cut) in clients.iter_mut().zip(&cuts) {
        // Some forms end a connection.
        let _ = client.try_send(&form[cut..]);
        client.finish_sending_if_open();
    }
    for client in &mut clients {
        client.rest().expect("it is closed");
    }
}

/// Values that may follow a refused line. They have several lines, or look like commands.
fn values() -> Vec<String> {
    let lines = [
        "user SECRET",
        "SECRET",
        "get SECRET",
        "gets a SECRET",
        "gat 0 SECRET",
        "delete SECRET",
        "delete SECRET 0",
        "incr SECRET 1",
        "touch SECRET 0",
        "mg SECRET v",
        "md SECRET",
        "ma SECRET",
        "me SECRET",
        "mn SECRET",
        "stats SECRET",
        "stats detail SECRET",
        "set SECRET 0 0 1\r\nx",
        "set a 0 0 SECRET",
        "ms SECRET 1\r\nx",
        "cas SECRET 0 0 1 1\r\nx",
        "version\r\nget SECRET",
        "lru_crawler metadump SECRET",
        "verbosity 3 SECRET",
        "flush_all SECRET",
        "watch SECRET",
        "get a\r\n\r\nget SECRET",
        "\r\nget SECRET",
    ];
    lines.iter().map(|line| line.replace("SECRET", SECRET)).collect()
}

/// Lines after which a client sends a value, while the server expects none or one of another length.
fn refused_lines() -> Vec<String> {
    let key = "k".repeat(251);
    [
        "set _ _ _ 17",
        "set a 0 0",
        "set a 0 0 x",
        "set a 0 0 -1",
        "set a b 0 x",
        "cas a 0 0 x 1",
        "add",
        "append a 0",
        "ms a x",
        "ms a",
        "ms a S12",
        "ms a 12 !",
        "bogus",
        "AUTH",
        "*2\r\n$4\r\nAUTH\r\n$12",
        "se",
        // The value is three bytes longer than the line says.
        "set a 0 0 1\r\nxyz",
        "cas a 0 0 1 1\r\nxyz",
        "ms a 1\r\nxyz",
        "ms a 1 X\r\nxyz",
    ]
    .iter()
    .map(|&line| line.to_owned())
    .chain([format!("set {key} 0 0 1\r\nxyz"), format!("ms {key} 1\r\nxyz")])
    .collect()
}

/// Complete requests with the secret in place of a value or a credential.
fn text_forms() -> Vec<String> {
    let key = "k".repeat(251);
    let mut forms: Vec<String> = [
        "set a 0 0 12\r\nSECRET",
        "set a 0 0 12 noreply\r\nSECRET",
        "set a 0 0 12 SECRET\r\nSECRET",
        "add a 0 0 12\r\nSECRET",
        "append a 0 0 12\r\nSECRET",
        "cas a 0 0 12 1\r\nSECRET",
        "cas a 0 0 12 SECRET\r\nSECRET",
        "set a 0 0 14\r\nSECRET",
        "set a 0 0 5\r\nSECRET",
        "set a 0 0 0\r\nSECRET",
        "set a 0 0 SECRET",
        "set SECRET",
        "ms a 12\r\nSECRET",
        "ms a 12 T0 q\r\nSECRET",
        "ms a 12 X\r\nSECRET",
        "ms a 5\r\nSECRET",
        "ms a SECRET",
        "ms a 12 OSECRET\r\nSECRET",
        "ms a 12 PSECRET LSECRET\r\nSECRET",
        "ms a 12 MSSECRET\r\nSECRET",
        "ms a 12 TSECRET\r\nSECRET",
        "mg a OSECRET",
        "mg a kSECRET vSECRET",
        "mg a PSECRET",
        "me a SECRET",
        "ma a DSECRET",
        "md a CSECRET",
        "incr a SECRET",
        "decr a 1 SECRET",
        "touch a SECRET",
        "delete a 0 SECRET",
        "gat SECRET a",
        "SECRET",
        "auth SECRET",
        "GET /?token=SECRET HTTP/1.1",
        "Authorization: SECRET",
        " get SECRET",
        "mnSECRET",
        "stats SECRET",
        "stats cachedump SECRET",
        "stats detail SECRET",
        "version SECRET",
        "verbosity SECRET",
        "flush_all SECRET",
        "cache_memlimit SECRET",
        "lru SECRET",
        "lru tune SECRET",
        "slabs SECRET",
        "slabs reassign 1 SECRET",
        "lru_crawler SECRET",
        "watch SECRET",
        "shutdown SECRET",
        "refresh_certs SECRET",
        "quit SECRET",
    ]
    .iter()
    .map(|form| form.replace("SECRET", SECRET))
    .collect();
    forms.push(format!("set {key} 0 0 12\r\n{SECRET}"));
    forms.push(format!("ms {key} 12\r\n{SECRET}"));
    forms
}

#[test]
fn no_value_of_a_text_client_is_in_the_log() {
    let server = Server::corecached(&["-vvv", "-t", "1"]);
    for form in text_forms() {
        send_in_pieces(&server, format!("{form}\r\n").as_bytes());
        check_log(&server);
    }
    // Send each line with one value, cut at every byte. Then send each line with each value.
    let (lines, values) = (refused_lines(), values());
    for (number, line) in lines.iter().enumerate() {
        send_in_pieces(&server, format!("{line}\r\n{}\r\n", values[number % values.len()]).as_bytes());
    }
    for line in &lines {
        let mut clients: Vec<Client> = values.iter().map(|_| server.client()).collect();
        for (client, value) in clients.iter_mut().zip(&values) {
            let separator = if line.ends_with("xyz") { "" } else { "\r\n" };
            let _ = client.try_send(format!("{line}{separator}{value}\r\n").as_bytes());
            client.finish_sending_if_open();
        }
        for client in &mut clients {
            client.rest().expect("it is closed");
        }
        check_log(&server);
    }
    // These requests are longer than a buffer, than a line may be, and than an item may be.
    let (long, filler) = ("x".repeat(100_000), "x".repeat(3000));
    for form in [
        format!("set a 0 0 100012\r\n{SECRET}{long}\r\n"),
        format!("set a 0 0 100000\r\n{long}yzget {SECRET}\r\n"),
        format!("ms a 100000\r\n{long}yzget {SECRET}\r\n"),
        format!("set a 0 0 2000000\r\n{}get {SECRET}\r\nget {SECRET}\r\n", long.repeat(20)),
        format!("set a 0 0 2000000\r\n{}yzget {SECRET}\r\n", long.repeat(20)),
        format!("{filler}{SECRET}\r\n"),
        format!("set a {filler} {SECRET}\r\n"),
        format!("set a 0 0 {filler}\r\n{SECRET}\r\n"),
    ] {
        let mut client = server.client();
        let _ = client.try_send(form.as_bytes());
        client.finish_sending_if_open();
        client.rest().expect("it is closed");
        check_log(&server);
    }
    // The log is useful nevertheless.
    let mut client = server.client();
    client.send("set seen 1 0 2\r\nxy\r\nget seen b\r\nms seen 2 T30 Oopaque\r\nxy\r\nincr seen 1\r\nstats settings\r\nset a\r\nget seen\r\n");
    client.finish_sending();
    client.rest().expect("it is closed");
    let log = server.printed();
    let mut lines = log.lines();
    for expected in [
        " set seen 1 0 2",
        " get seen b",
        " ms seen 2 T30 O",
        " incr seen 1",
        " stats settings",
        " set, 7 bytes: CLIENT_ERROR bad command line format",
        " get (4 bytes)",
    ] {
        assert!(lines.any(|line| line.ends_with(expected)), "no {expected:?} behind the others in\n{log}");
    }
}

#[test]
fn no_value_in_packets_is_in_the_log() {
    let hidden = |words: &str| request(&words.replace("SECRET", SECRET).replace('%', "\0"));
    let inner = hidden("get key=SECRET");
    let within = |name: &str| {
        // The value of this command is a packet. The command takes no value, so the server reads the packet as the next
        // request.
        let mut outer = request(name);
        let body_len = u32::from_be_bytes(outer[8..12].try_into().expect("four bytes")) + inner.len() as u32;
        outer[8..12].copy_from_slice(&body_len.to_be_bytes());
        [outer, inner.clone()].concat()
    };
    let server = Server::corecached(&["-vvv", "-t", "1"]);
    let mut forms: Vec<Vec<u8>> = [
        "set key=a flags=0 exp=0 val=SECRET",
        "setq key=a flags=0 exp=0 val=SECRET",
        "append key=a val=SECRET",
        "sasl_auth key=PLAIN val=%user%SECRET",
        "sasl_step key=PLAIN val=%user%SECRET",
        "sasl_auth key=SECRET val=SECRET",
        "0x50 key=a val=SECRET",
        "noop val=SECRET",
        "version val=SECRET",
        "get key=a val=SECRET",
        "delete key=a val=SECRET",
    ]
    .map(hidden)
    .to_vec();
    forms.push(within("touch key=a exp=0"));
    forms.push(within("gat key=a exp=0"));
    forms.push(within("stat key=reset"));
    forms.push([&request("noop")[..], b"\x7f", SECRET.as_bytes()].concat());
    for form in &forms {
        send_in_pieces(&server, form);
        check_log(&server);
    }
    let users = TemporaryFile::new(&format!("user:{SECRET}\n"));
    let server = Server::corecached_with(&[("MEMCACHED_SASL_PWDB", users.path())], &["-S", "-vvv", "-t", "1"]);
    for form in &forms {
        send_in_pieces(&server, form);
    }
    for form in ["sasl_auth key=PLAIN val=%user%SECRETx", "sasl_auth key=CRAM-MD5 val=SECRET", "get key=SECRET"] {
        send_in_pieces(&server, &hidden(form));
    }
    server.signal("HUP");
    users.write(SECRET);
    server.signal("HUP");
    check_log(&server);
}

#[test]
fn no_login_is_in_the_log() {
    let users = TemporaryFile::new(&format!("user:{SECRET}\n"));
    let server = Server::corecached(&["-Y", users.path(), "-vvv", "-t", "1"]);
    for form in [
        "set x 0 0 17\r\nuser SECRET\r\nset a 0 0 12\r\nSECRET\r\nget a",
        "set x 0 0 18\r\nuser SECRETx\r\nset x 0 0 17\r\nuser SECRET",
        "set x 0 0 12\r\nSECRET",
        "set x 0 0 3\r\nuser SECRET",
        "set x 0 0 99999\r\nuser SECRET",
        "set _ _ _ x\r\nuser SECRET",
        "get SECRET",
        "user SECRET",
        "SECRET",
        "auth user SECRET",
    ] {
        send_in_pieces(&server, format!("{}\r\n", form.replace("SECRET", SECRET)).as_bytes());
        check_log(&server);
    }
    users.write(SECRET);
    server.signal("HUP");
    let mut client = server.client();
    client.send("version\r\n");
    client.line().expect("a reply");
    check_log(&server);
}

#[test]
fn no_value_in_datagrams_is_in_the_log() {
    let server = Server::corecached_tcp(&["-vvv", "-t", "1", "-U", "-1"]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time above zero");
    let send = |payload: &[u8]| {
        let datagram = [&[0, 1, 0, 0, 0, 1, 0, 0], payload].concat();
        socket.send_to(&datagram, server.udp()).expect("it is sent");
    };
    let behind = refused_lines().into_iter().zip(values().into_iter().cycle());
    let behind = behind.map(|(line, value)| format!("{line}\r\n{value}"));
    // A value may begin in one datagram and end in the next. There it looks like a command.
    let split = values().into_iter().map(|value| format!("set a 0 0 30\r\n{value}"));
    for form in text_forms().into_iter().chain(behind).chain(split) {
        let form = format!("{form}\r\n");
        for cut in 0..form.len().min(150) {
            send(&form.as_bytes()[..cut]);
            send(&form.as_bytes()[cut..]);
            // The test reads a reply now and then, because the buffers of sockets are limited.
            if cut % 16 == 0 {
                send(b"mn\r\n");
                let mut buffer = [0; 2000];
                while !socket.recv(&mut buffer).is_ok_and(|len| buffer[..len].ends_with(b"\0\0MN\r\n")) {}
            }
        }
    }
    check_log(&server);
}
