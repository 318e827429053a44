//! The TLS example of the README, word for word, with its certificate, its flags and its client. Another client checks
//! more.

use super::*;

/// The commands of the first example in a section of the README. Continued lines become one command.
fn example(section: &str) -> Vec<String> {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once(&format!("\n### {section}\n")).expect("the section is there");
    let (_, rest) = rest.split_once("\n```sh\n").expect("it has an example");
    let (block, _) = rest.split_once("\n```\n").expect("which ends");
    block.replace("\\\n", "").lines().map(str::to_owned).collect()
}

#[test]
fn the_example_of_the_readme_works() {
    let Some(openssl) = peers::openssl() else { return };
    let folder = crate::server::new_folder();
    let in_folder = |command: &str| {
        let output = Command::new("sh").args(["-c", command]).current_dir(&folder).output().expect("a shell");
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command}: {said}{complained}");
        said.into_owned()
    };
    let [make, serve, ask] = &example("TLS")[..] else { panic!("another example: look what it is to show") };
    in_folder(&make.replacen("openssl", &openssl.display().to_string(), 1));

    let plain = free_ports(1)[0];
    let file = |name: &str| folder.join(name).display().to_string();
    let serve = serve.replace("cert.pem", &file("cert.pem")).replace("key.pem", &file("key.pem"));
    let serve = serve.replace("11212", &plain.to_string());
    let flags: Vec<&str> = serve.split_whitespace().skip(1).collect();
    let server = Server::corecached_tcp(&flags);
    Client::connect(&Address::Tcp(([127, 0, 0, 1], plain).into())).ask("set a 0 0 1\r\nx");

    let said = in_folder(&ask.replace("11211", &server.tcp().port().to_string()));
    assert!(said.starts_with("VERSION "), "{said}");
    // This client trusts only this certificate, and refuses the certificate of an authority as a server's.
    let own = CertificateDer::from_pem_file(folder.join("cert.pem")).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(own).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(BOTH)
        .expect("versions that ring has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsClient::to(&server, &Arc::new(config)).ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    fs::remove_dir_all(&folder).expect("our folder");
}
