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
