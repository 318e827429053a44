//! Clients that stop in the middle of a handshake, never begin it, or send it endlessly byte by byte. `idle_timeout`
//! limits their time, and `-c` limits their number. Some clients here do not speak TLS at all.

use super::*;

/// A server with TLS on one port and without TLS on a second port.
struct Doors {
    server: Server,
    plain: SocketAddr,
}

impl Doors {
    fn open(pki: &Pki, flags: &[&str]) -> Doors {
        let port = free_ports(1)[0];
        let listen = format!("127.0.0.1,notls:127.0.0.1:{port}");
        Doors { server: pki.server_at(&listen, flags), plain: ([127, 0, 0, 1], port).into() }
    }

    fn plain_client(&self) -> Client {
        Client::connect(&Address::Tcp(self.plain))
    }

    /// A connection to the port with TLS, on which the client has sent these bytes.
    fn sent(&self, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(self.server.tcp()).expect("it accepts");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        socket.set_nodelay(true).expect("a socket takes it");
        socket.write_all(bytes).expect("there is room");
        socket
    }
}

/// Fails unless the server closes the connection. It may send bytes before that.
#[track_caller]
fn expect_end(mut socket: &TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("it is not closed: {error}"),
        }
    }
}

/// Whether the connection is open and has nothing to read.
fn is_open(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).expect("a socket takes it");
    let nothing = socket.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    socket.set_nonblocking(false).expect("a socket takes it");
    nothing
}

/// The header of a record of application data of this length.
fn record_header(len: u16) -> [u8; 5] {
    let [high, low] = len.to_be_bytes();
    [23, 3, 3, high, low]
}

#[test]
fn idle_handshakes_are_kicked_however_slowly_they_go_on() {
    if !cfg!(feature = "debug-commands") {
        return peers::say_skipped("the clock is moved by a feature that is not built: debug-commands");
    }
    let pki = Pki::new();
    for workers in ["1", "3"] {
        let doors = Doors::open(&pki, &["-t", workers, "-o", "idle_timeout=10"]);
        let config = pki.client(BOTH, None);
        let hello = client_hello(&pki);
        let mut busy = doors.plain_client();
        assert_eq!(busy.ask("debugtime p"), "OK");
        let alone = busy.stat("curr_connections");
        let silent = doors.sent(b"");
        let half = doors.sent(&hello[..hello.len() / 2]);
        let whole = doors.sent(&hello);
        let mut slow = doors.sent(&hello[..10]);
        let mut idle = TlsClient::to(&doors.server, &config);
        idle.ask("mn\r\n", "MN\r\n");
        let mut awake = TlsClient::to(&doors.server, &config);
        // This client sends the header of a record, and then a byte at a time. The other one sends a line in the same
        // way, without TLS.
        let mut record = TlsClient::to(&doors.server, &config);
        record.ask("mn\r\n", "MN\r\n");
        record.stream.sock.write_all(&record_header(1000)).expect("there is room");
        let mut line = doors.plain_client();
        line.send("get ");
        // The server lets a client take its time for a value, as memcached does.
        let mut value = TlsClient::to(&doors.server, &config);
        value.send("set a 0 0 4\r\n");
        // A connection is as old as the moment at which its worker took it.
        wait_until("the workers have them all", || busy.stat("curr_connections") == alone + 9);
        for at in 0..4 {
            slow.write_all(&hello[10 + at..11 + at]).expect("there is room");
            record.stream.sock.write_all(b"x").expect("there is room");
            line.send("a");
            value.send("v");
            awake.ask("mn\r\n", "MN\r\n");
            assert_eq!(busy.ask("debugtime 3"), "OK");
            assert_eq!(busy.ask("mn"), "MN");
        }
        for kicked in [&silent, &half, &whole, &slow, &idle.stream.sock, &record.stream.sock] {
            expect_end(kicked);
        }
        line.expect_closed();
        value.ask("\r\nget a\r\n", "STORED\r\nVALUE a 0 4\r\nvvvv\r\nEND\r\n");
        awake.ask("mn\r\n", "MN\r\n");
        assert_eq!(busy.stat("idle_kicks"), 7, "{workers} workers");
        assert_eq!([busy.stat("ssl_handshake_errors"), busy.stat("ssl_proto_errors")], [0, 0]);
        assert_eq!(busy.stat("curr_connections"), alone + 2);
    }
}

#[test]
fn stalled_handshakes_are_connections_and_no_more_than_allowed() {
    let pki = Pki::new();
    let doors = Doors::open(&pki, &["-t", "2", "-c", "20"]);
    let hello = client_hello(&pki);
    let mut plain = doors.plain_client();
    assert_eq!(plain.ask("mn"), "MN");
    let alone = plain.stat("curr_connections");
    let mut stalled: Vec<TcpStream> = (0..19).map(|at| doors.sent(&hello[..at * 10])).collect();
    wait_until("all are there", || plain.stat("curr_connections") == alone + 19);
    // The server sends this line without TLS, as memcached does, because the session does not exist yet.
    let mut refused = doors.sent(b"");
    let mut said = String::new();
    refused.read_to_string(&mut said).expect("the server closes in order");
    assert_eq!(said, "ERROR Too many open connections\r\n");
    assert_eq!(plain.stat("rejected_connections"), 1);
    // Without `idle_timeout`, unfinished handshakes may stay for any time and continue later.
    let last = stalled.len() - 1;
    stalled[last].write_all(&hello[last * 10..]).expect("the server waits for it");
    assert_eq!(stalled[last].read(&mut [0; 1]).expect("the server's hello"), 1);
    assert!(is_open(&stalled[0]) && is_open(&stalled[1]));
    drop(stalled);
    wait_until("they are gone", || plain.stat("curr_connections") == alone);
    // The client that sent nothing causes no TLS error. The last client resets its connection with unread bytes, and
    // this is an error.
    assert_eq!([plain.stat("ssl_handshake_errors"), plain.stat("ssl_proto_errors")], [18, 0]);
}

#[test]
fn plain_text_at_a_port_under_tls_is_refused_counted_and_told() {
    let pki = Pki::new();
    for (request, counted) in [
        (&b"version\r\n"[..], "ssl_handshake_errors"),
        (b"get a\r\n", "ssl_handshake_errors"),
        (b"\x80\x0b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "ssl_handshake_errors"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "ssl_handshake_errors"),
    ] {
        let doors = Doors::open(&pki, &["-t", "1", "-vv"]);
        let mut plain = doors.plain_client();
        let mut watcher = doors.plain_client();
        watcher.send("watch connevents\r\n");
        watcher.expect("OK\r\n");
        let mut rude = doors.sent(request);
        let mut answer = Vec::new();
        rude.read_to_end(&mut answer).expect("the server closes in order");
        assert_eq!(answer[..1], [21], "an alert, not {}", shown(&answer));
        assert_eq!(plain.stat(counted), 1);
        let mut lines = Vec::new();
        while !lines.iter().any(|line: &String| line.contains("type=conn_close")) {
            lines.push(String::from_utf8(watcher.line().expect("a line")).expect("text"));
        }
        let told = |text: &str| lines.iter().any(|line| line.contains(text));
        assert!(told("type=conntlserr fd=") && told(" msg=received corrupt message"), "{lines:?}");
        assert!(told("reason=error"), "{lines:?}");
        assert!(doors.server.printed().contains("received corrupt message"), "{}", doors.server.printed());
    }
}

#[test]
fn long_hellos_cost_no_more_than_they_may() {
    const COUNT: usize = 100;
    let pki = Pki::new();
    let doors = Doors::open(&pki, &["-t", "2", "-m", "64"]);
    let config = pki.client(BOTH, None);
    TlsClient::to(&doors.server, &config).ask("mn\r\n", "MN\r\n");
    let mut plain = doors.plain_client();
    wait_until("it is alone", || plain.stat("curr_connections") == 2);
    let alone = plain.stat("curr_connections");
    let before = doors.server.resident_kib();
    // These are full handshake records. They contain one hello that announces the greatest length and never ends.
    let record = |rest: &[u8]| [&[22, 3, 1, 64, 0][..], rest, &vec![0; 16_384 - rest.len()]].concat();
    let begun = [record(&[1, 0, 0xff, 0xff]), record(&[]), record(&[])].concat();
    let stalled: Vec<TcpStream> = (0..COUNT).map(|_| doors.sent(&begun)).collect();
    wait_until("all is read", || plain.stat("read_buf_bytes") as usize >= COUNT * begun.len());
    let grown = doors.server.resident_kib().saturating_sub(before);
    assert!(grown < COUNT as u64 * 128, "{grown} KiB for {COUNT} that wait");
    assert!(stalled.iter().all(is_open));
    // The server does not wait for a hello that announces a greater length.
    for promise in [[1, 1, 0, 0], [1, 0xff, 0xff, 0xff]] {
        expect_end(&doors.sent(&record(&promise)));
    }
    // The server does not wait for the end of a hello that exceeds the limit either.
    let mut rude = doors.sent(&begun);
    let _ = rude.write_all(&begun);
    expect_end(&rude);
    drop(stalled);
    wait_until("they are gone", || plain.stat("curr_connections") == alone);
    assert_eq!(plain.stat("ssl_handshake_errors") as usize, COUNT + 3);
}

#[test]
fn what_openssl_can_ask_for_in_the_middle_is_refused_or_done() {
    let Some(openssl) = peers::openssl() else { return };
    let pki = Pki::new();
    let doors = Doors::open(&pki, &["-t", "1"]);
    let mut plain = doors.plain_client();
    // Renegotiation is refused, as by memcached. A client may ask for new keys again and again.
    for (version, request, acted, rounds) in
        [("-tls1_2", "R\n", "no renegotiation", 1), ("-tls1_3", "K\n", "KEYUPDATE", 5)]
    {
        let (program, ca) = (openssl.display(), pki.text("ca.pem"));
        let connect = format!("{program} s_client {version} -connect {} -CAfile {ca} 2>&1", doors.server.tcp());
        let mut child = Command::new("timeout")
            .args(["20", "sh", "-c", &connect])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a program that is on every system");
        let mut input = child.stdin.take().expect("a pipe");
        let mut output = io::BufReader::new(child.stdout.take().expect("a pipe"));
        let mut said = String::new();
        for round in 0..rounds {
            // `s_client` takes a letter as a command only if it reads it alone. So the test waits for each result.
            input.write_all(b"mn\r\n").expect("it reads");
            assert!(read_until(&mut output, "MN\r\n", &mut said), "{version}, round {round}: {said}");
            input.write_all(request.as_bytes()).expect("it reads");
            assert!(read_until(&mut output, acted, &mut said), "{version}, round {round}: {said}");
        }
        drop(input);
        child.wait().expect("it ends with its input");
        assert_eq!(plain.ask("mn"), "MN");
    }
}

/// Reads up to `text`. Returns false if the output ends before.
fn read_until(output: &mut impl Read, text: &str, said: &mut String) -> bool {
    let start = said.len();
    let mut byte = [0];
    while !said[start..].ends_with(text) {
        match output.read(&mut byte) {
            Ok(1) => said.push(char::from(byte[0])),
            _ => return false,
        }
    }
    true
}
