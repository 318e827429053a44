//! A client's certificate makes it a user of `--users`.

use super::{BOTH, Pki, TlsClient};
use crate::server::TemporaryFile;
use crate::waiting::wait_until;

/// The first line of the reply to a request.
fn line(client: &mut TlsClient, request: &str) -> String {
    client.send(format!("{request}\r\n"));
    let mut line = String::new();
    while !line.ends_with('\n') {
        let byte = client.receive(1).expect("an answer");
        assert!(!byte.is_empty(), "closed after {line:?}");
        line.push(char::from(byte[0]));
    }
    line.trim_end().to_owned()
}

#[test]
fn a_certificate_makes_its_client_a_user() {
    let pki = Pki::new();
    pki.sign("stranger", "stranger.example");
    let users = TemporaryFile::new("monitor - read tls-name=client.example connections=1\n");
    for protocol in ["auto", "ascii"] {
        let server =
            pki.server(&["-o", "ssl_verify_mode=1", "--users", users.path(), "-B", protocol, "-t", "2", "-m", "64"]);
        for version in BOTH {
            let ask = |stem: Option<&str>, request: &str| {
                let mut client = TlsClient::connect(server.tcp(), &pki.client(&[version], stem)).expect("a handshake");
                line(&mut client, request)
            };
            for stem in [None, Some("stranger")] {
                assert_eq!(ask(stem, "get a"), "CLIENT_ERROR unauthenticated");
            }
            let mut client =
                TlsClient::connect(server.tcp(), &pki.client(&[version], Some("client"))).expect("a handshake");
            assert_eq!(line(&mut client, "get a"), "END");
            assert_eq!(line(&mut client, "set a 0 0 1\r\nx"), "CLIENT_ERROR access denied");
            assert_eq!(ask(Some("client"), "get a"), "ERROR Too many open connections");
            drop(client);
            wait_until("the place is free", || ask(Some("client"), "get a") == "END");
            wait_until("the place is free", || ask(Some("client"), "mg a") == "EN");
        }
    }
}
