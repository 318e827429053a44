//! TLS: the same server behind certificates. Its clients are rustls, `openssl s_client` and pymemcache, and rude
//! clients that send garbage or stop in the middle of a handshake.

mod clients;
mod forms;
mod readme;
mod stalled;
mod tool;
mod users;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion, version,
};

use crate::client::{Client, shown};
use crate::peers;
use crate::server::{Address, Server, corecached_run, free_ports};
use crate::waiting::{PATIENCE, wait_until};

/// An authority and its certificates, as files in a folder.
struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
}

impl Pki {
    /// Makes `server.pem` and `server.key` for localhost, `client.pem` and `client.key`, and the authority's `ca.pem`.
    fn new() -> Pki {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corecached-pki-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a new folder");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate with the name of its issuer as self-signed, so the authority has another name.
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate");
        fs::write(folder.join("ca.pem"), authority.pem()).expect("a file in our folder");
        let pki = Pki { folder, authority: authority.der().clone(), issuer: Issuer::new(params, key) };
        pki.sign("server", "localhost");
        pki.sign("client", "client.example");
        pki
    }

    /// Signs a certificate for a name. Writes it to `{stem}.pem`, and its key to `{stem}.key`.
    fn sign(&self, stem: &str, name: &str) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.file(&format!("{stem}.pem")), certificate.pem()).expect("a file in our folder");
        fs::write(self.file(&format!("{stem}.key")), key.serialize_pem()).expect("a file in our folder");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// A server with the certificate and these flags. Words of `-o` among the flags come after ours.
    fn server(&self, flags: &[&str]) -> Server {
        self.server_at("127.0.0.1", flags)
    }

    /// The same, with this value of `-l`.
    fn server_at(&self, listen: &str, flags: &[&str]) -> Server {
        let words = format!(
            "ssl_chain_cert={},ssl_key={},ssl_ca_cert={}",
            self.text("server.pem"),
            self.text("server.key"),
            self.text("ca.pem")
        );
        let mut all = vec!["-Z", "-o", &words, "-l", listen];
        all.extend(flags);
        Server::corecached_tcp(&all)
    }

    /// The configuration of a client that trusts servers of this authority.
    fn client(&self, versions: &[&'static SupportedProtocolVersion], stem: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).expect("our authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that ring has")
            .with_root_certificates(roots);
        let config = match stem {
            None => builder.with_no_client_auth(),
            Some(stem) => {
                let chain = CertificateDer::from_pem_file(self.file(&format!("{stem}.pem"))).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(self.file(&format!("{stem}.key"))).expect("a key");
                builder.with_client_auth_cert(vec![chain], key).expect("a pair")
            }
        };
        Arc::new(config)
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// A client that uses TLS.
struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl TlsClient {
    /// Connects. The client has finished its side of the handshake when this returns.
    fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsClient> {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut session = session;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(TlsClient { stream: StreamOwned::new(session, socket), received: Vec::new() })
    }

    fn to(server: &Server, config: &Arc<ClientConfig>) -> TlsClient {
        TlsClient::connect(server.tcp(), config).unwrap_or_else(|error| panic!("no TLS with the server: {error}"))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()).expect("the server takes it");
    }

    /// Reads until it has this many bytes, or to the end.
    fn receive(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 << 10];
        while self.received.len() < count {
            match self.stream.read(&mut buffer)? {
                0 => break,
                read => self.received.extend_from_slice(&buffer[..read]),
            }
        }
        let rest = self.received.split_off(count.min(self.received.len()));
        Ok(std::mem::replace(&mut self.received, rest))
    }

    #[track_caller]
    fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let got = self.receive(expected.len()).unwrap_or_else(|error| panic!("no answer: {error}"));
        assert!(got == expected, "got {}, not {}", shown(&got), shown(expected));
    }

    #[track_caller]
    fn ask(&mut self, request: &str, expected: &str) {
        self.send(request);
        self.expect(expected);
    }

    /// The lines of a reply up to `END`.
    fn list(&mut self, request: &str) -> Vec<String> {
        self.send(format!("{request}\r\n"));
        let mut text = String::new();
        while !text.ends_with("END\r\n") {
            let more = self.receive(1).expect("an answer");
            assert!(!more.is_empty(), "closed after {text:?}");
            text.push_str(std::str::from_utf8(&more).expect("text"));
        }
        text.lines().filter(|line| *line != "END").map(str::to_owned).collect()
    }

    fn statistic(&mut self, name: &str) -> u64 {
        let prefix = format!("STAT {name} ");
        let lines = self.list("stats");
        let value = lines.iter().find_map(|line| line.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("there is no {name}")).parse().expect("a number")
    }

    fn kind(&self) -> HandshakeKind {
        self.stream.conn.handshake_kind().expect("the handshake is done")
    }

    /// The certificate that the server has shown.
    fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }
}

/// Whether a client gets an answer. The server may refuse a client that has finished its side of the handshake.
fn is_served(address: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    let Ok(mut client) = TlsClient::connect(address, config) else { return false };
    if client.stream.write_all(b"mn\r\n").and_then(|()| client.stream.flush()).is_err() {
        return false;
    }
    match client.receive(4) {
        Ok(bytes) => bytes == b"MN\r\n",
        Err(error) => {
            assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "the server says nothing");
            false
        }
    }
}

#[test]
fn requests_small_and_large_in_pieces_and_in_bulk() {
    let pki = Pki::new();
    for (versions, words) in [
        (&[&version::TLS13][..], "ssl_wbuf_size=64"),
        (&[&version::TLS12][..], "ssl_wbuf_size=64"),
        (&[&version::TLS13][..], "ssl_wbuf_size=1"),
    ] {
        let server = pki.server(&["-t", "2", "-I", "4m", "-m", "256", "-o", words]);
        let mut client = TlsClient::to(&server, &pki.client(versions, None));
        client.ask("set a 0 0 5\r\nhello\r\nget a\r\n", "STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n");
        // The client sends a request in single bytes, each in a record of its own.
        for byte in b"get a\r\n" {
            client.send([*byte]);
        }
        client.expect("VALUE a 0 5\r\nhello\r\nEND\r\n");
        // The sizes are near those of a record, and near the number of bytes that the server encrypts at once.
        for size in [0, 1, 8 << 10, (16 << 10) - 1, 16 << 10, (16 << 10) + 1, 65_536, 100_000, 1_000_000, 3_000_000] {
            let value: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            client.send(format!("set big 7 0 {size}\r\n"));
            client.send(&value);
            client.send("\r\nget big big\r\n");
            client.expect("STORED\r\n");
            for _ in 0..2 {
                client.expect(format!("VALUE big 7 {size}\r\n"));
                client.expect(&value);
                client.expect("\r\n");
            }
            client.expect("END\r\n");
        }
        // The client sends a long pipeline, and reads the replies only then.
        let count = 20_000;
        client.send("get a\r\n".repeat(count));
        client.expect("VALUE a 0 5\r\nhello\r\nEND\r\n".repeat(count));
        client.send("quit\r\n");
        // The server ends the session with close_notify. Without it, reading would fail.
        assert_eq!(client.receive(1).expect("close_notify comes before the end"), b"");
    }
}

#[test]
fn sessions_are_resumed_on_any_worker() {
    let pki = Pki::new();
    for (versions, words) in [
        (&[&version::TLS13][..], "ssl_session_cache"),
        (&[&version::TLS12][..], "ssl_session_cache"),
        (&[&version::TLS12][..], "ssl_verify_mode=2,ssl_session_cache"),
        (&[&version::TLS13][..], "ssl_verify_mode=2,ssl_session_cache"),
    ] {
        let server = pki.server(&["-t", "3", "-o", words]);
        let config = pki.client(versions, Some("client"));
        // All connections stay open, so that they are on all workers.
        let mut clients = Vec::new();
        for at in 0..9 {
            let mut client = TlsClient::to(&server, &config);
            let expected = if at == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(client.kind(), expected, "connection {at}, {words}");
            client.ask("mn\r\n", "MN\r\n");
            clients.push(client);
        }
        assert_eq!(clients[8].statistic("ssl_new_sessions"), 1);
        // A refresh ends sessions for which the client had to show a certificate, because the new files may not accept
        // it.
        clients[8].ask("refresh_certs\r\n", "OK\r\n");
        let kept = if words.contains("verify") { HandshakeKind::Full } else { HandshakeKind::Resumed };
        assert_eq!(TlsClient::to(&server, &config).kind(), kept, "{words}");
    }
}

#[test]
fn clients_show_certificates_where_they_must() {
    let (pki, other) = (Pki::new(), Pki::new());
    // This client has a certificate of another authority, but it trusts the server.
    fs::copy(other.file("client.pem"), pki.file("stranger.pem")).expect("a copy");
    fs::copy(other.file("client.key"), pki.file("stranger.key")).expect("a copy");
    for (mode, without, with, stranger) in
        [("0", true, true, true), ("1", true, true, false), ("2", false, true, false), ("3", false, true, false)]
    {
        let server = pki.server(&["-t", "2", "-o", &format!("ssl_verify_mode={mode}")]);
        for versions in [&[&version::TLS13][..], &[&version::TLS12][..]] {
            let served = |stem| is_served(server.tcp(), &pki.client(versions, stem));
            assert_eq!(served(None), without, "mode {mode}, nothing shown");
            assert_eq!(served(Some("client")), with, "mode {mode}, a good one shown");
            assert_eq!(served(Some("stranger")), stranger, "mode {mode}, a bad one shown");
        }
        let mut client = TlsClient::to(&server, &pki.client(BOTH, Some("client")));
        let refused = 2 * (u64::from(!without) + u64::from(!stranger));
        wait_until("all refused handshakes are counted", || client.statistic("ssl_handshake_errors") == refused);
        assert_eq!(client.statistic("ssl_proto_errors"), 0);
    }
}

#[test]
fn listeners_differ_by_prefix() {
    let pki = Pki::new();
    let ports: Vec<u16> = free_ports(4);
    let listen = format!(
        "notls:127.0.0.1:{},btls:127.0.0.1:{},mtls:127.0.0.1:{},127.0.0.1:{}",
        ports[0], ports[1], ports[2], ports[3]
    );
    let server = pki.server_at(&listen, &["-t", "2", "-o", "ssl_verify_mode=1"]);
    let address = |at: usize| SocketAddr::from(([127, 0, 0, 1], ports[at]));
    let mut plain = Client::connect(&Address::Tcp(address(0)));
    plain.send("set a 0 0 5\r\nhello\r\n");
    plain.expect("STORED\r\n");
    let (nobody, somebody) = (pki.client(BOTH, None), pki.client(BOTH, Some("client")));
    assert_eq!([1, 2, 3].map(|at| is_served(address(at), &nobody)), [true, false, true]);
    assert_eq!([1, 2, 3].map(|at| is_served(address(at), &somebody)), [true, true, true]);
    // A client may not resume a session of a listener without client certificates at a listener that requires them.
    assert!(is_served(address(1), &nobody) && !is_served(address(2), &nobody));
    TlsClient::connect(address(1), &nobody).expect("it is served").ask("get a\r\n", "VALUE a 0 5\r\nhello\r\nEND\r\n");
    drop(server);
}

#[test]
fn what_is_done_under_tls_is_told_as_without() {
    let pki = Pki::new();
    let ports = free_ports(2);
    let listen = format!("notls:127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
    let server = pki.server_at(&listen, &["-t", "2"]);
    let address = |at: usize| SocketAddr::from(([127, 0, 0, 1], ports[at]));
    let mut watcher = Client::connect(&Address::Tcp(address(0)));
    watcher.send("watch connevents fetchers mutations\r\n");
    watcher.expect("OK\r\n");
    for farewell in ["quit\r\n", ""] {
        let mut client = TlsClient::connect(address(1), &pki.client(BOTH, None)).expect("it is served");
        client.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
        let port = client.stream.sock.local_addr().expect("it is connected").port();
        client.send(farewell);
        if farewell.is_empty() {
            client.stream.conn.send_close_notify();
            let _ = client.stream.conn.complete_io(&mut client.stream.sock);
        }
        drop(client);
        for expected in [
            format!("type=conn_new rip=127.0.0.1 rport={port} transport=tcp cfd="),
            "type=item_get key=a status=".into(),
            "type=item_store key=a status=stored cmd=set ttl=0 clsid=".into(),
            format!("type=conn_close rip=127.0.0.1 rport={port} transport=tcp reason=normal cfd="),
        ] {
            let line = String::from_utf8(watcher.line().expect("a line")).expect("text");
            assert!(line.contains(&expected), "{line}, not {expected}");
        }
    }
    drop(server);
}

#[test]
fn a_port_is_under_tls_or_not() {
    let pki = Pki::new();
    let words = format!("ssl_chain_cert={},ssl_key={}", pki.text("server.pem"), pki.text("server.key"));
    let port = free_ports(1)[0].to_string();
    // The command line does not say which of the two listeners to use. memcached cannot bind the port twice either.
    for listen in ["127.0.0.1,notls:127.0.0.1", "notls:127.0.0.1,btls:127.0.0.1"] {
        let (status, printed) = corecached_run(&["-u", "root", "-p", &port, "-l", listen, "-Z", "-o", &words]);
        assert_eq!(status.code(), Some(71), "{listen}: {printed}");
        assert!(printed.contains("failed to listen on") && printed.contains("in use"), "{listen}: {printed}");
    }
}

#[test]
fn the_least_version_is_kept() {
    let pki = Pki::new();
    for (words, of_1_2) in [("ssl_min_version=2", true), ("ssl_min_version=3", false), ("ssl_min_version=0", true)] {
        let server = pki.server(&["-t", "1", "-o", words]);
        assert_eq!(is_served(server.tcp(), &pki.client(&[&version::TLS12], None)), of_1_2, "{words}");
        assert!(is_served(server.tcp(), &pki.client(&[&version::TLS13], None)), "{words}");
    }
    // The server chooses among the ciphers that both sides have.
    for (versions, expected) in [
        (&[&version::TLS13][..], "TLS13_AES_128_GCM_SHA256"),
        (&[&version::TLS12][..], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ] {
        let server = pki.server(&["-t", "1"]);
        let client = TlsClient::to(&server, &pki.client(versions, None));
        let suite = client.stream.conn.negotiated_cipher_suite().expect("it is open").suite();
        assert_eq!(suite.as_str(), Some(expected));
    }
    // The server uses the configured ciphers in TLS 1.2.
    let server = pki.server(&["-t", "1", "-o", "ssl_ciphers=CHACHA20"]);
    let client = TlsClient::to(&server, &pki.client(&[&version::TLS12], None));
    let suite = client.stream.conn.negotiated_cipher_suite().expect("it is open").suite();
    assert_eq!(suite.as_str(), Some("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"));
}

#[test]
fn certificates_are_read_again() {
    let pki = Pki::new();
    let mut server = pki.server(&["-t", "2", "-v"]);
    let config = pki.client(BOTH, None);
    let shown_now = || TlsClient::to(&server, &config_without_sessions(&pki)).certificate();
    let mut client = TlsClient::to(&server, &config);
    client.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let first = client.certificate();

    pki.sign("server", "localhost");
    assert_eq!(shown_now(), first, "nobody has asked for it yet");
    client.ask("refresh_certs\r\nget a\r\n", "OK\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    let second = shown_now();
    assert_ne!(second, first);
    client.ask("refresh_certs noreply\r\nget a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");

    // If the key does not fit, or a file is damaged or missing, the server keeps its certificates.
    let (key, chain) = (pki.text("server.key"), pki.text("server.pem"));
    let good = (fs::read(&key).expect("it is there"), fs::read(&chain).expect("it is there"));
    fs::copy(pki.file("client.key"), &key).expect("a copy");
    client
        .ask("refresh_certs\r\n", &format!("Error loading the key: {key} : it is not the key of the certificate\r\n"));
    fs::write(&key, &good.0).expect("our file");
    fs::write(&chain, "garbage").expect("our file");
    let complaint = format!("Error loading the certificate chain: {chain} : it has no certificate in PEM\r\n");
    client.ask("refresh_certs noreply\r\n", &complaint);
    fs::remove_file(&chain).expect("our file");
    let complaint =
        format!("Error loading the certificate chain: {chain} : No such file or directory (os error 2)\r\n");
    client.ask("refresh_certs\r\n", &complaint);
    assert_eq!(shown_now(), second);

    // A signal makes the server read the files again too. The log shows the result.
    fs::write(&chain, &good.1).expect("our file");
    pki.sign("server", "localhost");
    server.signal("HUP");
    wait_until("the new certificate is shown", || shown_now() != second);
    client.ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    assert!(server.printed().contains("certificates were read again"), "{}", server.printed());
    let third = shown_now();
    fs::write(&chain, "garbage").expect("our file");
    server.signal("HUP");
    let complaint = format!(
        "certificates stay as they were: Error loading the certificate chain: {chain} : it has no certificate in PEM"
    );
    wait_until("it says why not", || server.printed().contains(&complaint));
    assert_eq!(shown_now(), third);
    assert!(server.ended().is_none());
}

/// A client that makes each handshake in full.
fn config_without_sessions(pki: &Pki) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&pki.client(BOTH, None));
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[test]
fn without_tls_there_is_nothing_to_refresh() {
    let server = Server::corecached(&["-t", "1"]);
    let mut client = server.client();
    client.send("refresh_certs\r\nrefresh_certs noreply\r\nmn\r\n");
    client.expect("Error TLS not enabled\r\nError TLS not enabled\r\nMN\r\n");
}

#[test]
fn a_start_without_good_files_fails_in_one_line() {
    let pki = Pki::new();
    let (chain, key, ca) = (pki.text("server.pem"), pki.text("server.key"), pki.text("ca.pem"));
    for (words, complaint) in [
        (String::new(), "Error loading the certificate chain: ".to_owned()),
        ("ssl_chain_cert=/nonexistent".to_owned(), "Error loading the certificate chain: /nonexistent : ".to_owned()),
        (format!("ssl_chain_cert={key}"), format!("Error loading the certificate chain: {key} : ")),
        (format!("ssl_chain_cert={chain}"), format!("Error loading the key: {chain} : ")),
        (format!("ssl_chain_cert={chain},ssl_key={ca}"), format!("Error loading the key: {ca} : ")),
        (format!("ssl_chain_cert={chain},ssl_key={key},ssl_keyformat=DER"), format!("Error loading the key: {key} : ")),
        (
            format!("ssl_chain_cert={chain},ssl_key={key},ssl_ca_cert={key}"),
            format!("Error loading the CA certificate: {key} : "),
        ),
        (
            format!("ssl_chain_cert={chain},ssl_key={key},ssl_ciphers=RC4"),
            "Error setting the provided cipher(s): RC4".to_owned(),
        ),
    ] {
        let (status, printed) = corecached_run(&["-u", "root", "-p", "-1", "-l", "127.0.0.1", "-Z", "-o", &words]);
        assert_eq!(status.code(), Some(64), "{words}: {printed}");
        assert!(printed.starts_with(&complaint) && printed.lines().count() == 1, "{words}: {printed}");
    }
    // One key is in binary form, and the other is in the file of the chain.
    let der = PrivateKeyDer::from_pem_file(&key).expect("a key");
    fs::write(pki.file("server.der"), der.secret_der()).expect("our file");
    let both = [fs::read(&chain).expect("it is there"), fs::read(&key).expect("it is there")].concat();
    fs::write(pki.file("both.pem"), both).expect("our file");
    for words in [
        format!("ssl_chain_cert={chain},ssl_key={},ssl_keyformat=DER", pki.text("server.der")),
        format!("ssl_chain_cert={}", pki.text("both.pem")),
    ] {
        let server = Server::corecached_tcp(&["-Z", "-o", &words]);
        assert!(is_served(server.tcp(), &pki.client(BOTH, None)), "{words}");
    }
}

#[test]
fn statistics_have_their_places() {
    let pki = Pki::new();
    let server = pki.server(&["-t", "1", "-o", "ssl_session_cache,ssl_verify_mode=1"]);
    let mut client = TlsClient::to(&server, &pki.client(BOTH, None));
    let names = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.split(' ').nth(1).expect("a name").to_owned()).collect()
    };
    let between = |names: &[String], first: &str, last: &str| -> String {
        let at = |name: &str| names.iter().position(|other| other == name).expect("it is there");
        names[at(first) + 1..at(last)].join(" ")
    };
    let all = names(client.list("stats"));
    assert_eq!(
        between(&all, "log_watchers", "unexpected_napi_ids"),
        "ssl_new_sessions ssl_handshake_errors ssl_proto_errors time_since_server_cert_refresh"
    );
    let all = names(client.list("stats settings"));
    assert_eq!(
        between(&all, "inline_ascii_response", "num_napi_ids").trim_start_matches("drop_privileges "),
        "ssl_enabled ssl_chain_cert ssl_key ssl_verify_mode ssl_keyformat ssl_ciphers ssl_ca_cert ssl_wbuf_size \
         ssl_session_cache ssl_kernel_tls ssl_min_version"
    );
    assert!(client.statistic("time_since_server_cert_refresh") < 60);
}

/// The first message of a client.
fn client_hello(pki: &Pki) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(pki.client(BOTH, None), name).expect("a session");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("memory takes it");
    hello
}

#[test]
fn garbage_in_place_of_a_handshake_is_refused_and_counted() {
    let pki = Pki::new();
    let mut server = pki.server(&["-t", "2"]);
    let hello = client_hello(&pki);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut refused = 0;
    for round in 0..400 {
        let mut bytes = hello.clone();
        match round % 4 {
            // Send random bytes that are not TLS.
            0 => bytes = (0..1 + random() % 3000).map(|_| random() as u8).collect(),
            // Change some bytes of a hello.
            1 => (0..1 + random() % 8).for_each(|_| {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }),
            // Cut off a hello, and continue with other bytes.
            2 => {
                bytes.truncate(random() as usize % bytes.len());
                bytes.extend((0..random() % 500).map(|_| random() as u8));
            }
            // Send a hello in records of a few bytes each, with the last record broken.
            _ => {
                let chunk = 1 + random() as usize % 40;
                bytes = bytes[5..]
                    .chunks(chunk)
                    .flat_map(|part| {
                        let mut record = vec![22, 3, 1, 0, part.len() as u8];
                        record.extend_from_slice(part);
                        record
                    })
                    .collect();
                let at = bytes.len() - 1 - random() as usize % 20;
                bytes[at] ^= random() as u8;
            }
        }
        let mut client = Client::connect(&Address::Tcp(server.tcp()));
        // The server may close the connection before it has all bytes.
        let cut = bytes.len() / 2;
        let _ = client.try_send(&bytes[..cut]).and_then(|()| client.try_send(&bytes[cut..]));
        refused += 1;
    }
    assert!(refused > 0);
    let mut client = TlsClient::to(&server, &pki.client(BOTH, None));
    client.ask("mn\r\n", "MN\r\n");
    // A changed byte may not matter until the client hangs up. That breaks off the handshake, which is also an error. A
    // client that has hung up may still wait to be accepted, because the system need not queue connections in order.
    wait_until("all are counted", || client.statistic("ssl_handshake_errors") >= refused);
    wait_until("they are all gone", || client.statistic("curr_connections") == 1);
    assert_eq!(client.statistic("ssl_handshake_errors"), refused);
    assert_eq!(client.statistic("ssl_proto_errors"), 0);
    assert!(server.ended().is_none());

    // Garbage after a good handshake counts as another kind of error.
    let mut rude = TlsClient::to(&server, &pki.client(BOTH, None));
    rude.ask("mn\r\n", "MN\r\n");
    rude.stream.sock.write_all(b"get a\r\n").expect("it is taken");
    assert!(rude.receive(1).is_err(), "an alert comes");
    wait_until("it is counted", || client.statistic("ssl_proto_errors") == 1);
}

#[test]
fn a_handshake_in_single_bytes_holds_nobody_up() {
    let pki = Pki::new();
    let server = pki.server(&["-t", "1"]);
    let config = pki.client(BOTH, None);
    let mut polite = TlsClient::to(&server, &config);
    let hello = client_hello(&pki);
    let mut slow: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(server.tcp()).expect("a connection")).collect();
    for byte in &hello[..hello.len() - 1] {
        for client in &mut slow {
            client.write_all(&[*byte]).expect("the server waits for more");
        }
        polite.ask("mn\r\n", "MN\r\n");
    }
    // When the rest of their handshake comes, the server answers these clients like others.
    for client in &mut slow {
        client.write_all(&hello[hello.len() - 1..]).expect("the last byte");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut header = [0; 1];
        client.read_exact(&mut header).expect("the server's hello");
        assert_eq!(header[0], 22, "a handshake record");
    }
}

#[test]
fn one_that_reads_nothing_costs_little() {
    let pki = Pki::new();
    let server = pki.server(&["-t", "2", "-m", "64"]);
    let config = pki.client(BOTH, None);
    let mut polite = TlsClient::to(&server, &config);
    let value = "x".repeat(1_000_000);
    polite.ask(&format!("set big 0 0 1000000\r\n{value}\r\n"), "STORED\r\n");
    polite.ask("get big\r\n", &format!("VALUE big 0 1000000\r\n{value}\r\nEND\r\n"));
    let before = server.resident_kib();
    // Each rude client asks for a gigabyte.
    let mut rude: Vec<TlsClient> = (0..20).map(|_| TlsClient::to(&server, &config)).collect();
    for client in &mut rude {
        client.send("get big\r\n".repeat(1000));
    }
    for i in 0..200 {
        polite.ask(&format!("set small{i} 0 0 1\r\ny\r\n"), "STORED\r\n");
    }
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 20 that do not read");
    // Two of the rude clients begin to read.
    for client in &mut rude[..2] {
        for _ in 0..5 {
            client.expect(format!("VALUE big 0 1000000\r\n{value}\r\nEND\r\n"));
        }
    }
    drop(rude);
    wait_until("they are gone", || polite.statistic("curr_connections") == 1);
}

#[test]
fn many_connections_are_spread_and_small() {
    const COUNT: usize = 400;
    let pki = Pki::new();
    let server = pki.server(&["-t", "2", "-c", "1000"]);
    let config = pki.client(BOTH, None);
    let mut first = TlsClient::to(&server, &config);
    first.ask("set a 0 0 5\r\nhello\r\n", "STORED\r\n");
    let before = server.resident_kib();
    let address = server.tcp();
    // Connect from several threads at once.
    let clients: Vec<TlsClient> = std::thread::scope(|scope| {
        let connect = || (0..COUNT / 8).map(|_| TlsClient::connect(address, &config).expect("it is let in")).collect();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(connect)).collect();
        threads.into_iter().flat_map(|thread| -> Vec<TlsClient> { thread.join().expect("no panic") }).collect()
    });
    let mut clients = clients;
    for client in &mut clients {
        client.send("get a\r\n");
    }
    for client in &mut clients {
        client.expect("VALUE a 0 5\r\nhello\r\nEND\r\n");
    }
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < COUNT as u64 * 16, "{grown} KiB for {COUNT} idle connections");
    assert_eq!(first.statistic("curr_connections"), COUNT as u64 + 1);
}

#[test]
fn openssl_is_served() {
    let Some(openssl) = peers::openssl() else { return };
    let pki = Pki::new();
    let server = pki.server(&["-t", "2", "-o", "ssl_verify_mode=2"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new(&openssl)
            .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", "localhost", version])
            .args(["-connect", &server.tcp().to_string()])
            .args(["-CAfile", &pki.text("ca.pem"), "-cert", &pki.text("client.pem"), "-key", &pki.text("client.key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it has just been run");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(b"set a 0 0 5\r\nhello\r\nget a\r\nquit\r\n").expect("it reads");
        let output = child.wait_with_output().expect("it ends when the server closes");
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(said, "STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n", "{version}: {complained}");
        drop(input);
    }
}

#[test]
fn pymemcache_is_served() {
    let Some(python) = peers::python_with("pymemcache") else { return };
    let pki = Pki::new();
    let server = pki.server(&["-t", "2", "-o", "ssl_verify_mode=2"]);
    let output = Command::new(python)
        .args(["-c", include_str!("clients/pymemcache_tls.py"), &server.tcp().port().to_string()])
        .args([pki.file("ca.pem"), pki.file("client.pem"), pki.file("client.key")])
        .output()
        .expect("this Python has just been run");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim_end().ends_with("ok"), "{}\n{said}{complained}", output.status);
}
