//! The commands that look at servers, by TLS.

use super::*;

#[test]
fn a_command_connects_by_tls_and_checks_the_certificate() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let server = pki.server(&["-t", "1"]);
    let address = format!("localhost:{}", server.tcp().port());
    let check = |flags: &[&str]| {
        let mut command = Command::new(crate::server::CORECACHED);
        let output = command.args(["check", "--server", &address]).args(flags).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&["--tls-ca", &pki.text("ca.pem")]), (Some(0), String::new()));
    let mut command = Command::new(crate::server::CORECACHED);
    let nodes = crate::server::TemporaryFile::new(&format!("localhost|127.0.0.1:{}\n", server.tcp().port()));
    command.args(["flush", "--all", "--yes", "--nodes", nodes.path(), "--tls-ca", &pki.text("ca.pem")]);
    let output = command.output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{address}: flushed\n"), "{output:?}");
    // Another authority, and no TLS at all.
    let (code, complained) = check(&["--tls-ca", &stranger.text("ca.pem")]);
    assert_eq!(code, Some(1));
    assert!(complained.contains("certificate"), "{complained}");
    assert_eq!(check(&["--timeout", "0.5"]).0, Some(1));
    // A file without a certificate is a mistake of the command line.
    assert_eq!(check(&["--tls-ca", &pki.text("server.key")]).0, Some(64));
}

#[test]
fn items_are_copied_by_tls_and_by_plain_connections() {
    let pki = Pki::new();
    let (server, open) = (pki.server(&["-t", "1"]), Server::corecached_tcp(&["-t", "1"]));
    let (secret, plain) = (format!("localhost:{}", server.tcp().port()), open.tcp().to_string());
    let mut client = open.client();
    for number in 0..500 {
        // Larger than a record of TLS.
        let value = format!("{number}").repeat(8000);
        client.send(format!("set key{number} 0 0 {}\r\n{value}\r\n", value.len()));
        client.expect("STORED\r\n");
    }
    let call = |words: &[&str]| {
        let output = Command::new(crate::server::CORECACHED).args(words).output().expect("it runs");
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.stdout, complained)
    };
    let ca = pki.text("ca.pem");
    let (code, _, complained) = call(&["copy", &plain, &secret, "--tls-ca", &ca, "--from-plain", "--rate", "0"]);
    assert_eq!(code, Some(0), "{complained}");
    assert!(complained.starts_with("corecached: copied 500 items"), "{complained}");
    client.send("flush_all\r\n");
    client.expect("OK\r\n");
    let (code, _, complained) = call(&["copy", &secret, &plain, "--from-tls-ca", &ca, "--rate", "0"]);
    assert_eq!(code, Some(0), "{complained}");
    let sorted = |words: &[&str]| {
        let (code, mut dump, complained) = call(&[&["dump", "--rate", "0", "--server"], words].concat());
        assert_eq!(code, Some(0), "{complained}");
        dump.sort_unstable();
        dump
    };
    assert!(sorted(&[&secret, "--tls-ca", &ca]) == sorted(&[&plain]), "the dumps differ");
}
