//! The certificates of clients that the server accepts, as a table. Each row has a file of authorities, the
//! certificates that `openssl s_client` shows in both versions of TLS, and whether the server answers it. The test asks
//! memcached 1.6.45, which uses OpenSSL, the same.

use super::forms::{MemcachedOrItsEnd, Workshop};
use super::*;
use rcgen::{CustomExtension, GeneralSubtree, KeyUsagePurpose, NameConstraints, date_time_ymd};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;

type Signer = Issuer<'static, KeyPair>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Both servers accept the client.
    In,
    /// Neither server accepts the client.
    Out,
    /// Only memcached accepts the client. corecached is stricter, for the reason beside the row.
    OutHere,
}
use Then::{In, Out, OutHere};

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn with(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

fn extension(oid: &[u64], content: &[u8], critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// Writes `{stem}.crt` and `{stem}.key`. `by` signs the certificate, or it signs itself.
fn issue(shop: &Workshop, stem: &str, params: CertificateParams, by: Option<&Signer>) -> Signer {
    let key = KeyPair::generate().expect("a key");
    let certificate = by.map_or_else(|| params.self_signed(&key), |by| params.signed_by(&key, by));
    shop.write(&format!("{stem}.crt"), certificate.expect("a certificate").pem());
    shop.write(&format!("{stem}.key"), key.serialize_pem());
    Issuer::new(params, key)
}

/// The authorities, the certificates that the client shows (its own first), and the result.
type Row = (&'static str, &'static str, Then);

/// Makes all certificates. The names of the files describe them.
#[expect(clippy::too_many_lines, reason = "a table")]
fn rows(shop: &Workshop) -> Vec<Row> {
    let usage = |usages: &[KeyUsagePurpose]| {
        let usages = usages.to_vec();
        move |params: &mut CertificateParams| params.key_usages = usages
    };
    let purpose = |purposes: &[ExtendedKeyUsagePurpose]| {
        let purposes = purposes.to_vec();
        move |params: &mut CertificateParams| params.extended_key_usages = purposes
    };
    let custom = |oid: &'static [u64], content: &'static [u8], critical| {
        move |params: &mut CertificateParams| params.custom_extensions.push(extension(oid, content, critical))
    };
    let expired = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    };
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);

    let root = issue(shop, "root", authority("root"), None);
    let namesake = issue(shop, "namesake", authority("root"), None);
    let client = issue(shop, "client", params("client"), Some(&root));
    issue(shop, "of_client", params("client of a client"), Some(&client));
    issue(shop, "of_namesake", params("client"), Some(&namesake));
    issue(shop, "expired", with(params("client"), expired), Some(&root));
    issue(shop, "early", with(params("client"), early), Some(&root));

    // Certificates for different purposes.
    let (of_client, of_server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    issue(shop, "for_client", with(params("client"), purpose(&[of_server.clone(), of_client])), Some(&root));
    issue(shop, "for_server", with(params("client"), purpose(std::slice::from_ref(&of_server))), Some(&root));
    issue(shop, "for_any", with(params("client"), purpose(&[ExtendedKeyUsagePurpose::Any])), Some(&root));
    let (signs, agrees) = (KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement);
    issue(shop, "signs", with(params("client"), usage(&[signs])), Some(&root));
    issue(shop, "agrees", with(params("client"), usage(&[agrees])), Some(&root));
    issue(shop, "enciphers", with(params("client"), usage(&[KeyUsagePurpose::KeyEncipherment])), Some(&root));
    // nsCertType: a client, a server.
    let netscape = &[2, 16, 840, 1, 113_730, 1, 1];
    issue(shop, "netscape", with(params("client"), custom(netscape, &[3, 2, 7, 0x80], false)), Some(&root));
    issue(shop, "netscape_server", with(params("client"), custom(netscape, &[3, 2, 6, 0x40], false)), Some(&root));

    // Extensions.
    issue(shop, "unknown", with(params("client"), custom(&[1, 3, 6, 1, 4, 1, 7], &[5, 0], false)), Some(&root));
    issue(shop, "critical", with(params("client"), custom(&[1, 3, 6, 1, 4, 1, 7], &[5, 0], true)), Some(&root));
    let policies = custom(&[2, 5, 29, 32], &[0x30, 6, 0x30, 4, 6, 2, 0x2a, 3], true);
    issue(shop, "policies", with(params("client"), policies), Some(&root));
    let broken = custom(&[2, 5, 29, 37], &[0x30, 3, 0x6, 9, 1], false);
    issue(shop, "broken", with(params("client"), broken), Some(&root));
    let foreign = custom(&[2, 5, 29, 35], &[0x30, 6, 0x80, 4, 1, 2, 3, 4], false);
    issue(shop, "foreign", with(params("client"), foreign), Some(&root));
    let told = |params: &mut CertificateParams| params.use_authority_key_identifier_extension = true;
    issue(shop, "told", with(params("client"), told), Some(&root));

    // Certificates of authorities, and self-signed certificates.
    issue(shop, "authority", authority("client"), Some(&root));
    issue(shop, "alone", params("client"), None);
    issue(shop, "alone_server", with(params("client"), purpose(std::slice::from_ref(&of_server))), None);
    issue(shop, "alone_expired", with(params("client"), expired), None);
    issue(shop, "root_signs", with(authority("client"), usage(&[signs, KeyUsagePurpose::KeyCertSign])), None);
    issue(shop, "root_of_others", with(authority("client"), usage(&[KeyUsagePurpose::KeyCertSign])), None);

    // Chains.
    let middle = issue(shop, "middle", authority("middle"), Some(&root));
    issue(shop, "below", params("client"), Some(&middle));
    let lower = issue(shop, "lower", authority("lower"), Some(&middle));
    issue(shop, "far_below", params("client"), Some(&lower));
    for (stem, of_middle) in [
        ("middle_expired", with(authority("m"), expired)),
        ("middle_server", with(authority("m"), purpose(&[of_server]))),
        ("middle_crl", with(authority("m"), usage(&[KeyUsagePurpose::CrlSign]))),
        ("middle_no_ca", with(params("m"), |params| params.is_ca = IsCa::ExplicitNoCa)),
        ("middle_signs", with(params("m"), usage(&[KeyUsagePurpose::KeyCertSign]))),
    ] {
        let middle = issue(shop, stem, of_middle, Some(&root));
        issue(shop, &format!("{stem}_below"), params("client"), Some(&middle));
    }
    let root_expired = issue(shop, "root_expired", with(authority("root_expired"), expired), None);
    issue(shop, "root_expired_below", params("client"), Some(&root_expired));
    let root_no_ca = with(params("root_no_ca"), |params| params.is_ca = IsCa::ExplicitNoCa);
    let root_no_ca = issue(shop, "root_no_ca", root_no_ca, None);
    issue(shop, "root_no_ca_below", params("client"), Some(&root_no_ca));
    let short = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = issue(shop, "short", with(authority("short"), short), None);
    issue(shop, "short_below", params("client"), Some(&short));
    let too_far = issue(shop, "too_far", authority("too far"), Some(&short));
    issue(shop, "too_far_below", params("client"), Some(&too_far));

    // Name constraints.
    let only_example = |params: &mut CertificateParams| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("example".into())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    };
    let constrained = issue(shop, "constrained", with(authority("constrained"), only_example), Some(&root));
    let named = |name: &str| with(CertificateParams::new([name.to_owned()]).expect("a name"), |_| {});
    issue(shop, "in_example", named("a.example"), Some(&constrained));
    issue(shop, "in_other", named("a.other"), Some(&constrained));
    issue(shop, "called_other", params("a.other"), Some(&constrained));
    issue(shop, "called_example", params("a.example"), Some(&constrained));
    issue(shop, "no_host", params("a client"), Some(&constrained));
    issue(shop, "constrained_authority", with(authority("x"), |_| {}), Some(&constrained));

    // openssl makes the certificates of version 1, with SHA-1, with RSA, and with algorithms that ring does not know.
    let request = |stem: &str, key: &str| {
        shop.openssl(&format!("{key} -out {stem}.key"));
        shop.openssl(&format!("req -new -key {stem}.key -subj /CN={stem} -out {stem}.csr"));
    };
    let curve = |name: &str| format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{name}");
    let sign = |stem: &str, by: &str, words: &str| {
        let by = format!("-CA {by}.crt -CAkey {by}.key -CAcreateserial");
        shop.openssl(&format!("x509 -req -in {stem}.csr {by} -days 30{words} -out {stem}.crt"));
    };
    for (stem, key, by, words) in [
        ("v1", curve("P-256"), "root", ""),
        ("v1_rsa", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048".to_owned(), "root", ""),
        ("v1_below", curve("P-256"), "middle", ""),
        ("sha1", curve("P-256"), "root", " -sha1"),
        ("p384", curve("P-384"), "root", ""),
        ("ed", "genpkey -algorithm ED25519".to_owned(), "root", ""),
        ("p521", curve("P-521"), "root", ""),
        ("of_v1", curve("P-256"), "v1", ""),
    ] {
        request(stem, &key);
        sign(stem, by, words);
    }
    request("v1_root", &curve("P-256"));
    shop.openssl("x509 -req -in v1_root.csr -signkey v1_root.key -days 30 -out v1_root.crt");
    request("of_v1_root", &curve("P-256"));
    sign("of_v1_root", "v1_root", "");

    // The signature of this certificate does not fit its contents.
    let text = String::from_utf8(shop.bytes("client.crt")).expect("text");
    let mut lines: Vec<&str> = text.lines().collect();
    let at = lines.len() - 2;
    let other = lines[at].replacen(&lines[at][2..3], if &lines[at][2..3] == "A" { "B" } else { "A" }, 1);
    lines[at] = &other;
    shop.write("forged.crt", lines.join("\n") + "\n");
    shop.write("forged.key", shop.bytes("client.key"));

    vec![
        ("root", "client", In),
        ("root", "p384", In),
        ("root", "ed", In),
        ("root", "v1", In),
        ("root", "v1_rsa", In),
        ("root", "authority", In),
        ("root", "root", In),
        ("root", "alone", Out),
        ("root", "expired", Out),
        ("root", "early", Out),
        ("root", "of_client", Out),
        ("root", "of_client client", Out),
        ("root", "of_v1 v1", Out),
        ("root", "of_namesake", Out),
        ("root", "of_namesake namesake", Out),
        ("root", "namesake", Out),
        ("root", "forged", Out),
        ("root", "sha1", Out),
        // ring does not support P-521.
        ("root", "p521", OutHere),
        ("root", "for_client", In),
        ("root", "for_server", Out),
        ("root", "for_any", Out),
        ("root", "signs", In),
        ("root", "agrees", In),
        ("root", "enciphers", Out),
        ("root", "netscape", In),
        ("root", "netscape_server", Out),
        ("root", "unknown", In),
        ("root", "critical", Out),
        ("root", "policies", In),
        ("root", "broken", Out),
        ("root", "foreign", Out),
        ("root", "told", In),
        // The server uses the first authority with the right name, unless the client's certificate names the key of its
        // issuer.
        ("root namesake", "client", In),
        ("namesake root", "client", Out),
        ("namesake root", "told", In),
        ("root", "client root", In),
        ("root", "below", Out),
        ("root", "below middle", In),
        ("root", "v1_below middle", In),
        ("root", "below client root middle", In),
        ("root", "far_below middle lower", In),
        ("root", "far_below lower", Out),
        ("root middle", "below", In),
        ("root middle", "far_below lower", In),
        ("root middle", "client", In),
        ("root middle", "middle", In),
        ("root", "middle_expired_below middle_expired", Out),
        ("root", "middle_server_below middle_server", Out),
        ("root", "middle_crl_below middle_crl", Out),
        ("root", "middle_no_ca_below middle_no_ca", Out),
        ("root", "middle_signs_below middle_signs", Out),
        // No chain leads from these certificates to a self-signed one.
        ("middle namesake", "below", Out),
        ("middle namesake", "middle", Out),
        ("client namesake", "client", Out),
        ("alone", "alone", In),
        ("alone", "client", Out),
        ("alone_server", "alone_server", Out),
        ("alone_expired", "alone_expired", Out),
        ("root_signs", "root_signs", In),
        ("root_of_others", "root_of_others", Out),
        ("root_expired", "root_expired_below", Out),
        ("root_no_ca", "root_no_ca_below", Out),
        ("root_no_ca", "root_no_ca", In),
        ("short", "short_below", In),
        ("short", "too_far_below too_far", Out),
        ("v1_root", "v1_root", In),
        ("v1_root", "of_v1_root", In),
        ("root", "in_example constrained", In),
        ("root", "in_other constrained", Out),
        ("root", "called_other constrained", Out),
        // The common name may be a host name. rustls does not check it against name constraints, so corecached refuses
        // it.
        ("root", "called_example constrained", OutHere),
        ("root", "no_host constrained", In),
        // rustls does not accept an authority as a client.
        ("root", "constrained_authority constrained", OutHere),
    ]
}

/// Whether a client that shows these certificates gets an answer, for both versions of TLS.
fn is_let_in(shop: &Workshop, address: SocketAddr, shown: &str) -> [bool; 2] {
    let (client, others) = shown.split_once(' ').unwrap_or((shown, ""));
    let mut words = vec!["-cert".to_owned(), shop.path(&format!("{client}.crt"))];
    words.extend(["-key".to_owned(), shop.path(&format!("{client}.key"))]);
    if !others.is_empty() {
        concatenate(shop, others, "others");
        words.extend(["-cert_chain".to_owned(), shop.path("others")]);
    }
    ["-tls1_2", "-tls1_3"].map(|version| shop.client(address, version, &words).contains("MN\r\n"))
}

fn concatenate(shop: &Workshop, stems: &str, file: &str) {
    shop.write(file, stems.split(' ').flat_map(|stem| shop.bytes(&format!("{stem}.crt"))).collect::<Vec<u8>>());
}

#[test]
fn certificates_of_clients_are_let_in_as_openssl_does() {
    let Some(shop) = Workshop::new() else { return };
    let rows = rows(&shop);
    let memcached = peers::newest_memcached();
    shop.openssl("req -x509 -newkey rsa:2048 -nodes -keyout server.key -subj /CN=localhost -days 30 -out server.crt");
    concatenate(&shop, "root", "authorities");
    let words = |verify: &str| {
        let [chain, key, authorities] = ["server.crt", "server.key", "authorities"].map(|name| shop.path(name));
        format!("ssl_chain_cert={chain},ssl_key={key},ssl_ca_cert={authorities},ssl_verify_mode={verify}")
    };
    let ports = free_ports(3);
    let [p0, p1, p2] = ports[..] else { unreachable!("three were asked for") };
    let listen = format!("127.0.0.1:{p0},mtls:127.0.0.1:{p1},notls:127.0.0.1:{p2}");
    let server = Server::corecached_tcp(&["-t", "1", "-l", &listen, "-Z", "-o", &words("1")]);
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut admin = Client::connect(&Address::Tcp(address(p2)));

    let mut by_authorities: BTreeMap<&str, Vec<(&str, Then)>> = BTreeMap::new();
    for (authorities, shown, then) in rows {
        by_authorities.entry(authorities).or_default().push((shown, then));
    }
    let mut wrong = Vec::new();
    for (authorities, rows) in by_authorities {
        concatenate(&shop, authorities, "authorities");
        admin.send("refresh_certs\r\n");
        admin.expect("OK\r\n");
        let mut theirs = memcached.as_deref().map(|memcached| MemcachedOrItsEnd::start(memcached, &words("2")));
        let theirs = theirs.as_mut().map(|server| server.address().expect("it takes all of these files"));
        for (shown, then) in rows {
            let got = is_let_in(&shop, address(p1), shown);
            if got != [then == In; 2] {
                wrong.push(format!("{authorities} <- {shown}: {got:?}"));
            }
            // Where the certificate is optional, the server refuses a bad one too. But the client may not send a
            // certificate that this server cannot verify.
            let [_, got] = is_let_in(&shop, address(p0), shown);
            if then != OutHere && got != (then == In) {
                wrong.push(format!("{authorities} <- {shown}: {got:?} where it is only asked for"));
            }
            let got = theirs.map(|address| is_let_in(&shop, address, shown));
            if got.is_some_and(|got| got != [then != Out; 2]) {
                wrong.push(format!("{authorities} <- {shown}: memcached {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(server);
}

/// A client that shows this certificate and signs with this key. The two need not fit.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn nobody_comes_in_with_the_certificate_of_another() {
    let pki = Pki::new();
    let server = pki.server(&["-t", "1", "-o", "ssl_verify_mode=2"]);
    let certificate = CertificateDer::from_pem_file(pki.file("client.pem")).expect("a certificate");
    for versions in [&[&version::TLS13][..], &[&version::TLS12][..]] {
        for (file, expected) in [("client.key", true), ("server.key", false)] {
            let key = PrivateKeyDer::from_pem_file(pki.file(file)).expect("a key");
            let key = ring::sign::any_supported_type(&key).expect("a key that ring has made");
            let shown = Shows(Arc::new(CertifiedKey::new(vec![certificate.clone()], key)));
            let mut config = ClientConfig::clone(&pki.client(versions, None));
            config.client_auth_cert_resolver = Arc::new(shown);
            assert_eq!(is_served(server.tcp(), &Arc::new(config)), expected, "{file} {versions:?}");
        }
    }
}

#[test]
fn files_of_authorities_are_taken_or_refused_with_advice() {
    let Some(shop) = Workshop::new() else { return };
    let root = issue(&shop, "root", authority("root"), None);
    issue(&shop, "middle", authority("middle"), Some(&root));
    issue(&shop, "client", params("client"), Some(&root));
    shop.openssl("x509 -in root.crt -trustout -out trusted.crt");
    shop.openssl("x509 -in root.crt -addreject clientAuth -out rejected.crt -trustout");
    shop.openssl("x509 -in root.crt -outform DER -out der.crt");
    let path = shop.path("authorities");
    let words = format!(
        "ssl_chain_cert={},ssl_key={},ssl_ca_cert={path},ssl_verify_mode=2",
        shop.path("client.crt"),
        shop.path("client.key")
    );
    shop.write("authorities", shop.bytes("root.crt"));
    let ports = free_ports(2);
    let listen = format!("127.0.0.1:{},notls:127.0.0.1:{}", ports[0], ports[1]);
    let server = Server::corecached_tcp(&["-t", "1", "-l", &listen, "-Z", "-o", &words]);
    let [address, plain] = [0, 1].map(|at| SocketAddr::from(([127, 0, 0, 1], ports[at])));
    let mut admin = Client::connect(&Address::Tcp(plain));
    let crt = shop.bytes("root.crt");
    let text = String::from_utf8(crt.clone()).expect("text");
    for (bytes, why) in [
        (text.replace('\n', "\r\n").into_bytes(), ""),
        (text.replace("CERTIFICATE", "X509 CERTIFICATE").into_bytes(), ""),
        ([b"text\n", &shop.bytes("client.key")[..], &crt, &crt].concat(), ""),
        (
            shop.bytes("rejected.crt"),
            "certificate 1 in it says what it is trusted for: take that away with `openssl x509 -clrtrust -in <file> -out <new file>`",
        ),
        (shop.bytes("middle.crt"), "no certificate in it is signed by itself: add that of the authority at the root"),
        (shop.bytes("der.crt"), "it is DER: make PEM of it with `openssl x509 -inform DER -in <file> -out <new file>`"),
        (shop.bytes("client.key"), "it has no certificate in PEM"),
        (Vec::new(), "it is empty"),
        (crt[..crt.len() - 40].to_vec(), "the CERTIFICATE that begins in line 1 does not end"),
    ] {
        shop.write("authorities", bytes);
        admin.send("refresh_certs\r\n");
        let expected = match why {
            "" => "OK\r\n".to_owned(),
            why => format!("Error loading the CA certificate: {path} : {why}\r\n"),
        };
        admin.expect(&expected);
        // The client gets in with the new authorities or, after a failed refresh, with the old ones.
        assert_eq!(is_let_in(&shop, address, "client"), [true; 2], "{expected}");
        assert_eq!(is_let_in(&shop, address, "middle"), [true; 2], "{expected}");
    }
    drop(server);
}
