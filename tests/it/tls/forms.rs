//! The forms in which people keep certificates and keys of servers, as a table. The server serves each of them to
//! `openssl s_client` in both versions of TLS, or refuses it in one line with advice. The test also tries the same
//! files with memcached 1.6.45.

use super::*;
use data_encoding::BASE64;
use rustls::pki_types::pem::SectionKind;

/// The result for a pair of files.
enum Then<'a> {
    /// The server shows clients the certificate in this file.
    Served(&'a str),
    /// The server refuses the chain. Its message ends like this, after the name of the file.
    NoChain(&'a str),
    NoKey(&'a str),
}
use Then::{NoChain, NoKey, Served};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memcached {
    /// memcached serves if we do, and does not start if we refuse.
    Same,
    /// memcached does the opposite, for the reason beside the row.
    Other,
    /// The test does not try memcached, because it would ask the terminal for a pass phrase.
    NotAsked,
}
use Memcached::{NotAsked, Other, Same};

const CURVE: &str =
    "this elliptic curve cannot be used: RSA of 2048 to 4096 bits, the curves P-256 and P-384, and Ed25519 can";
const KIND: &str =
    "this kind of key cannot be used: RSA of 2048 to 4096 bits, the curves P-256 and P-384, and Ed25519 can";
const SMALL: &str =
    "RSA of 1024 bits cannot be used: RSA of 2048 to 4096 bits, the curves P-256 and P-384, and Ed25519 can";
const ENCRYPTED: &str = "it is encrypted: take the pass phrase away with `openssl pkey -in <file> -out <new file>`";
const COMPRESSED: &str = "its point is compressed: make it of a key from `openssl ec -conv_form uncompressed`";
const NOT_FIRST: &str = "it is not the key of the certificate, but of number 2 in CHAIN: put that one first";
const MISMATCH: &str = "it is not the key of the certificate";

/// A folder in which openssl makes files.
pub(super) struct Workshop {
    openssl: PathBuf,
    folder: PathBuf,
}

impl Workshop {
    pub(super) fn new() -> Option<Workshop> {
        Some(Workshop { openssl: peers::openssl()?, folder: crate::server::new_folder() })
    }

    pub(super) fn openssl(&self, words: &str) {
        let output =
            Command::new(&self.openssl).args(words.split(' ')).current_dir(&self.folder).output().expect("it is there");
        assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("a file in our folder");
    }

    /// The DER of the last PEM section in a file.
    fn der(&self, name: &str) -> Vec<u8> {
        let bytes = self.bytes(name);
        let all = <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes).map(|item| item.expect("openssl has made it").1);
        all.last().unwrap_or_else(|| panic!("{name} has no PEM"))
    }

    /// Writes a self-signed certificate of a key to `{stem}.crt`.
    fn sign_by_itself(&self, stem: &str) {
        self.openssl(&format!("req -x509 -key {stem}.key -subj /CN={stem} -days 30 -out {stem}.crt"));
    }

    /// The output of `s_client`, with the server's answer to `mn`.
    pub(super) fn client(&self, address: SocketAddr, version: &str, words: &[String]) -> String {
        let mut child = Command::new(&self.openssl)
            .args(["s_client", "-ign_eof", version, "-connect", &address.to_string(), "-cipher", "ALL:@SECLEVEL=0"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it has just been run");
        // A refused client may end before it reads this.
        let _ = child.stdin.take().expect("a pipe").write_all(b"mn\r\nquit\r\n");
        let output = child.wait_with_output().expect("it ends when the server closes");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether the server answers a client in both versions of TLS, and shows this certificate.
    fn is_shown(&self, address: SocketAddr, certificate: &str) -> bool {
        let text = String::from_utf8(self.bytes(certificate)).expect("text");
        let shown = ["-tls1_2", "-tls1_3"].map(|version| {
            let said = self.client(address, version, &[]);
            said.contains("MN\r\n") && said.contains(text.trim())
        });
        assert!(shown[0] == shown[1], "{certificate}: TLS 1.2 and 1.3 differ: {shown:?}");
        shown[0]
    }

    /// Whether memcached starts with these words and serves both versions. `None` if memcached is not installed.
    fn memcached_serves(&self, words: &str) -> Option<bool> {
        let memcached = peers::newest_memcached()?;
        let mut server = MemcachedOrItsEnd::start(&memcached, words);
        let served = server.address().is_some_and(|address| {
            ["-tls1_2", "-tls1_3"].iter().all(|version| self.client(address, version, &[]).contains("MN\r\n"))
        });
        Some(served)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// memcached with `-Z` and these words of `-o`. It may refuse to start with them.
pub(super) struct MemcachedOrItsEnd {
    child: std::process::Child,
    folder: PathBuf,
}

impl MemcachedOrItsEnd {
    pub(super) fn start(memcached: &std::path::Path, words: &str) -> MemcachedOrItsEnd {
        let folder = crate::server::new_folder();
        let child = Command::new(memcached)
            .args(["-u", "root", "-p", "-1", "-l", "127.0.0.1", "-t", "1", "-m", "16", "-Z", "-o", words])
            .env("MEMCACHED_PORT_FILENAME", folder.join("ports"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("its version was asked for");
        MemcachedOrItsEnd { child, folder }
    }

    /// The address of memcached, or `None` if memcached ends before it listens.
    pub(super) fn address(&mut self) -> Option<SocketAddr> {
        let mut port = None;
        wait_until("memcached listens or ends", || {
            let written = fs::read_to_string(self.folder.join("ports")).unwrap_or_default();
            port = written.trim().strip_prefix("TCP INET: ").and_then(|port| port.parse::<u16>().ok());
            port.is_some() || self.child.try_wait().expect("our child").is_some()
        });
        port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }
}

impl Drop for MemcachedOrItsEnd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// PEM with lines of this many letters.
fn pem(label: &str, der: &[u8], width: usize) -> Vec<u8> {
    let base64 = BASE64.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).expect("letters")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8(bytes.to_vec()).expect("text").replace(from, to).into_bytes()
}

/// A name, the contents of the files with chain and key, whether the key is DER, and the results.
type Row<'a> = (&'a str, Vec<u8>, Vec<u8>, bool, Then<'a>, Memcached);

/// All rows: kinds of keys, ways to write them, text around them, and combinations of certificates.
#[expect(clippy::too_many_lines, reason = "a table")]
fn rows(shop: &Workshop) -> Vec<Row<'static>> {
    let rsa = |bits: &str| format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{bits}");
    let curve = |name: &str| format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{name}");
    for (stem, words) in [
        ("rsa", rsa("2048")),
        ("r3072", rsa("3072")),
        ("r4096", rsa("4096")),
        ("r1024", rsa("1024")),
        ("r3", rsa("2048 -pkeyopt rsa_keygen_pubexp:3")),
        ("ec", curve("P-256")),
        ("p384", curve("P-384")),
        ("p521", curve("P-521")),
        ("ed", "genpkey -algorithm ED25519".into()),
        ("ed448", "genpkey -algorithm ED448".into()),
        ("pss", "genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048".into()),
    ] {
        shop.openssl(&format!("{words} -out {stem}.key"));
        shop.sign_by_itself(stem);
    }
    let (crt, key) = (shop.bytes("rsa.crt"), shop.bytes("rsa.key"));
    let (ec_crt, ec_key) = (shop.bytes("ec.crt"), shop.bytes("ec.key"));

    // Certificates.
    shop.openssl("req -new -key rsa.key -subj /CN=localhost -out rsa.csr");
    shop.openssl("x509 -req -in rsa.csr -signkey rsa.key -days 30 -out v1.crt");
    shop.openssl("x509 -in v1.crt -outform DER -out v1.der");
    // Byte 8 follows the headers of two SEQUENCEs. A certificate of version 1 has no `[0]` with a version there.
    assert_eq!(shop.bytes("v1.der")[8], 0x02, "this openssl makes no certificate of version 1");
    shop.openssl("x509 -req -in rsa.csr -signkey rsa.key -days -1 -out expired.crt");
    shop.openssl("x509 -req -in rsa.csr -CA ec.crt -CAkey ec.key -CAcreateserial -sha1 -days 30 -out sha1.crt");
    shop.openssl("x509 -in rsa.crt -addtrust serverAuth -trustout -out trusted.crt");
    shop.openssl("x509 -in rsa.crt -text -out text.crt");
    shop.openssl("ec -in ec.key -conv_form compressed -out compressed.key");
    shop.openssl("req -x509 -key compressed.key -subj /CN=compressed -days 30 -out compressed.crt");
    // Keys.
    shop.openssl("rsa -in rsa.key -traditional -out pkcs1.key");
    shop.openssl("ec -in ec.key -out sec1.key");
    shop.openssl("ec -in ec.key -no_public -out lonely.key");
    shop.openssl("pkcs8 -topk8 -nocrypt -in lonely.key -out lonely8.key");
    shop.openssl("ecparam -name prime256v1 -genkey -out parameters.key");
    shop.sign_by_itself("parameters");
    shop.openssl("ec -in ec.key -param_enc explicit -out explicit.key");
    shop.sign_by_itself("explicit");
    shop.openssl("pkey -in rsa.key -aes128 -passout pass:secret -out encrypted8.key");
    shop.openssl("rsa -in rsa.key -aes128 -traditional -passout pass:secret -out encrypted1.key");
    shop.openssl("pkcs8 -topk8 -in rsa.key -passout pass:secret -outform DER -out encrypted.der");
    shop.openssl("pkey -in rsa.key -pubout -out rsa.pub");
    shop.openssl("pkcs12 -export -in rsa.crt -inkey rsa.key -passout pass: -name friendly -out rsa.p12");
    shop.openssl("pkcs12 -in rsa.p12 -passin pass: -nodes -out bag.pem");
    shop.openssl("dhparam -dsaparam -out dh.pem 1024");
    let (pkcs8, pkcs1, sec1) = (shop.der("rsa.key"), shop.der("pkcs1.key"), shop.der("sec1.key"));
    let (der, ec8) = (shop.der("rsa.crt"), shop.der("ec.key"));
    let bag = shop.bytes("bag.pem");

    let mut rows: Vec<Row<'static>> = Vec::new();
    let mut row = |name, chain: &[u8], key: &[u8], then, memcached| {
        rows.push((name, chain.to_vec(), key.to_vec(), false, then, memcached));
    };
    let file = |name: &str| shop.bytes(name);
    let both = |first: &[u8], second: &[u8]| [first, second].concat();
    row("RSA, 2048 bits", &crt, &key, Served("rsa.crt"), Same);
    row("RSA, 3072 bits", &file("r3072.crt"), &file("r3072.key"), Served("r3072.crt"), Same);
    row("RSA, 4096 bits", &file("r4096.crt"), &file("r4096.key"), Served("r4096.crt"), Same);
    row("P-256", &ec_crt, &ec_key, Served("ec.crt"), Same);
    row("P-384", &file("p384.crt"), &file("p384.key"), Served("p384.crt"), Same);
    row("Ed25519", &file("ed.crt"), &file("ed.key"), Served("ed.crt"), Same);
    row("RSA, 1024 bits", &file("r1024.crt"), &file("r1024.key"), NoKey(SMALL), Same);
    // ring supports none of these.
    let exponent = "RSA with a public exponent below 65537 cannot be used: make a new key";
    row("RSA, exponent 3", &file("r3.crt"), &file("r3.key"), NoKey(exponent), Other);
    row("P-521", &file("p521.crt"), &file("p521.key"), NoKey(CURVE), Other);
    row("Ed448", &file("ed448.crt"), &file("ed448.key"), NoKey(KIND), Other);
    row("RSA-PSS", &file("pss.crt"), &file("pss.key"), NoKey(KIND), Other);

    row("version 1", &file("v1.crt"), &key, Served("v1.crt"), Same);
    row("expired", &file("expired.crt"), &key, Served("expired.crt"), Same);
    row("SHA-1", &file("sha1.crt"), &key, Served("sha1.crt"), Same);
    row("X509 CERTIFICATE", &pem("X509 CERTIFICATE", &der, 64), &key, Served("rsa.crt"), Same);
    row("TRUSTED CERTIFICATE", &file("trusted.crt"), &key, Served("rsa.crt"), Same);
    row("TRUSTED CERTIFICATE behind", &both(&crt, &file("trusted.crt")), &key, Served("rsa.crt"), Same);
    row("a compressed point", &file("compressed.crt"), &ec_key, NoChain(COMPRESSED), Same);
    let to_pem = "it is DER: make PEM of it with `openssl x509 -inform DER -in <file> -out <new file>`";
    row("a certificate in DER", &der, &key, NoChain(to_pem), Same);

    row("PKCS#1", &crt, &file("pkcs1.key"), Served("rsa.crt"), Same);
    row("SEC1", &ec_crt, &file("sec1.key"), Served("ec.crt"), Same);
    row("SEC1, parameters in front", &file("parameters.crt"), &file("parameters.key"), Served("parameters.crt"), Same);
    row("SEC1, no public key", &ec_crt, &file("lonely.key"), Served("ec.crt"), Same);
    row("PKCS#8, no public key", &ec_crt, &file("lonely8.key"), Served("ec.crt"), Same);
    row("SEC1, compressed", &ec_crt, &file("compressed.key"), Served("ec.crt"), Same);
    row("SEC1, parameters written out", &ec_crt, &file("explicit.key"), Served("ec.crt"), Same);
    // Neither the certificate nor the key names the curve.
    let unnamed = "the curve has no name: write it with `openssl ec -param_enc named_curve`";
    row("parameters written out", &file("explicit.crt"), &file("explicit.key"), NoKey(unnamed), Other);
    row("PKCS#8 as RSA", &crt, &pem("RSA PRIVATE KEY", &pkcs8, 64), Served("rsa.crt"), Same);
    row("PKCS#8 as EC", &ec_crt, &pem("EC PRIVATE KEY", &ec8, 64), Served("ec.crt"), Same);
    // The label names another format.
    row("PKCS#1 as PKCS#8", &crt, &pem("PRIVATE KEY", &pkcs1, 64), Served("rsa.crt"), Other);
    row("SEC1 as PKCS#8", &ec_crt, &pem("PRIVATE KEY", &sec1, 64), Served("ec.crt"), Other);
    row("a key behind other things", &crt, &both(&file("rsa.pub"), &key), Served("rsa.crt"), Same);
    row("two keys, the right one first", &crt, &both(&key, &ec_key), Served("rsa.crt"), Same);
    row("bytes behind the key", &crt, &pem("PRIVATE KEY", &both(&pkcs8, &[0; 3]), 64), Served("rsa.crt"), Same);
    row(
        "bytes behind the certificate",
        &pem("CERTIFICATE", &both(&der, &[0; 3]), 64),
        &key,
        NoChain("certificate 1 in it is damaged: something follows it"),
        Same,
    );
    row("PKCS#8, encrypted", &crt, &file("encrypted8.key"), NoKey(ENCRYPTED), NotAsked);
    row("PKCS#1, encrypted", &crt, &file("encrypted1.key"), NoKey(ENCRYPTED), NotAsked);
    row("a public key", &crt, &file("rsa.pub"), NoKey("it has no private key in PEM"), Same);
    row(
        "DER as PEM",
        &crt,
        &pkcs8,
        NoKey("it has no private key in PEM: if it is DER, say -o ssl_keyformat=DER"),
        Same,
    );
    row("a certificate as key", &crt, &crt, NoKey("it has no private key in PEM"), Same);
    row("a key as certificate", &key, &key, NoChain("it has no certificate in PEM"), Same);
    row(
        "garbage as key",
        &crt,
        &pem("PRIVATE KEY", b"garbage", 64),
        NoKey("it is not a private key in PKCS#8, PKCS#1 or SEC1"),
        Same,
    );

    row("CRLF", &replaced(&crt, "\n", "\r\n"), &replaced(&key, "\n", "\r\n"), Served("rsa.crt"), Same);
    row("CR alone", &replaced(&crt, "\n", "\r"), &key, NoChain("it has no certificate in PEM"), Same);
    row("in one line", &pem("CERTIFICATE", &der, 9999), &pem("PRIVATE KEY", &pkcs8, 9999), Served("rsa.crt"), Same);
    row("lines of 76", &pem("CERTIFICATE", &der, 76), &pem("PRIVATE KEY", &pkcs8, 76), Served("rsa.crt"), Same);
    row("lines of 300", &pem("CERTIFICATE", &der, 300), &pem("PRIVATE KEY", &pkcs8, 300), Served("rsa.crt"), Same);
    row("spaces behind lines", &replaced(&crt, "\n", " \t\n"), &replaced(&key, "\n", " \n"), Served("rsa.crt"), Same);
    // A YAML file indents the lines like this.
    row("spaces before lines", &replaced(&crt, "\n", "\n  "), &replaced(&key, "\n", "\n  "), Served("rsa.crt"), Other);
    row("a byte order mark", &both(b"\xef\xbb\xbf", &crt), &both(b"\xef\xbb\xbf", &key), Served("rsa.crt"), Same);
    row("no end of line", crt.trim_ascii_end(), key.trim_ascii_end(), Served("rsa.crt"), Same);
    row("text around", &file("text.crt"), &both(b"text \xff\n-----\n", &key), Served("rsa.crt"), Same);
    row("bag attributes", &bag, &bag, Served("rsa.crt"), Same);
    row("certificate and key in one", &both(&crt, &key), &both(&crt, &key), Served("rsa.crt"), Same);
    row("key and certificate in one", &both(&key, &crt), &both(&key, &crt), Served("rsa.crt"), Same);
    row("parameters in front", &both(&file("dh.pem"), &crt), &key, Served("rsa.crt"), Same);

    row("others behind", &[&crt[..], &ec_crt, &file("dh.pem"), &crt].concat(), &key, Served("rsa.crt"), Same);
    row("another one first", &both(&ec_crt, &crt), &key, NoKey(NOT_FIRST), Same);
    row("the same kind first", &both(&file("r3072.crt"), &crt), &key, NoKey(NOT_FIRST), Same);
    row("another key", &crt, &file("r3072.key"), NoKey(MISMATCH), Same);
    row("another key of a curve", &ec_crt, &file("parameters.key"), NoKey(MISMATCH), Same);
    row("another kind of key", &crt, &ec_key, NoKey(MISMATCH), Same);
    row("two keys, the wrong one first", &crt, &both(&file("r3072.key"), &key), NoKey(MISMATCH), Same);
    row(
        "the second is cut off",
        &both(&crt, &ec_crt[..200]),
        &key,
        NoChain("the CERTIFICATE that begins in line LINE does not end"),
        Same,
    );
    row(
        "the second is damaged",
        &both(&crt, &pem("CERTIFICATE", &der[..300], 64)),
        &key,
        NoChain("certificate 2 in it is damaged"),
        Same,
    );
    row(
        "no base64",
        &replaced(&crt, "\n-----END", "!\n-----END"),
        &key,
        NoChain("the CERTIFICATE that begins in line 1 is not base64"),
        Same,
    );
    row(
        "the end of another",
        &replaced(&crt, "END CERT", "END KERT"),
        &key,
        NoChain("the CERTIFICATE that begins in line 1 does not end before line LAST"),
        Same,
    );
    row("nothing", b"", &key, NoChain("it is empty"), Same);
    row("no key", &crt, b"", NoKey("it is empty"), Same);

    let mut row = |name, chain: &[u8], key: &[u8], then, memcached| {
        rows.push((name, chain.to_vec(), key.to_vec(), true, then, memcached));
    };
    row("PKCS#8 in DER", &crt, &pkcs8, Served("rsa.crt"), Same);
    row("PKCS#1 in DER", &crt, &pkcs1, Served("rsa.crt"), Same);
    row("PKCS#8 of a curve in DER", &ec_crt, &ec8, Served("ec.crt"), Same);
    row("SEC1 in DER", &ec_crt, &sec1, Served("ec.crt"), Same);
    row("Ed25519 in DER", &file("ed.crt"), &shop.der("ed.key"), Served("ed.crt"), Same);
    row("bytes behind the DER", &crt, &both(&pkcs8, &[0; 3]), Served("rsa.crt"), Same);
    row("PEM as DER", &crt, &key, NoKey("it is PEM: leave -o ssl_keyformat=DER away"), Same);
    row("DER, encrypted", &crt, &file("encrypted.der"), NoKey(ENCRYPTED), Same);
    row("DER, cut off", &crt, &pkcs8[..300], NoKey("it is not a private key in PKCS#8, PKCS#1 or SEC1"), Same);
    row("DER, another key", &crt, &shop.der("r3072.key"), NoKey(MISMATCH), Same);
    rows
}

#[test]
fn every_form_of_certificate_and_key_is_served_or_refused_with_advice() {
    let Some(shop) = Workshop::new() else { return };
    let rows = rows(&shop);
    let (chain, key) = (shop.path("chain"), shop.path("key"));
    for is_der in [false, true] {
        // One server tries all rows. If it refuses files, it must keep the last good certificate.
        let mut last = "rsa.crt";
        shop.write("chain", shop.bytes("rsa.crt"));
        shop.write("key", if is_der { shop.der("rsa.key") } else { shop.bytes("rsa.key") });
        let format = if is_der { "DER" } else { "PEM" };
        let words = format!("ssl_chain_cert={chain},ssl_key={key},ssl_keyformat={format}");
        let ports = free_ports(2);
        let listen = format!("127.0.0.1:{},notls:127.0.0.1:{}", ports[0], ports[1]);
        let server = Server::corecached_tcp(&["-t", "1", "-l", &listen, "-Z", "-o", &words]);
        let [address, plain] = [0, 1].map(|at| SocketAddr::from(([127, 0, 0, 1], ports[at])));
        let mut client = Client::connect(&Address::Tcp(plain));
        for (name, chain_bytes, key_bytes, _, then, memcached) in rows.iter().filter(|row| row.3 == is_der) {
            shop.write("chain", chain_bytes);
            shop.write("key", key_bytes);
            client.send("refresh_certs\r\n");
            let answer = String::from_utf8(client.line().expect("an answer")).expect("text");
            let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
            let expected = |what: &str, path: &str, why: &str| {
                let first = shop.bytes("rsa.crt");
                let why = why.replace("CHAIN", &chain).replace("LINE", &(lines(&first) + 1).to_string());
                format!("Error loading {what}: {path} : {}", why.replace("LAST", &lines(&first).to_string()))
            };
            let expected = match then {
                Served(file) => {
                    last = file;
                    "OK".to_owned()
                }
                NoChain(why) => expected("the certificate chain", &chain, why),
                NoKey(why) => expected("the key", &key, why),
            };
            assert_eq!(answer.trim_end(), expected, "{name}");
            assert!(shop.is_shown(address, last), "{name}: {last} is not what is shown");
            if *memcached != NotAsked {
                let format = if is_der { "2" } else { "1" };
                let words = format!("ssl_chain_cert={chain},ssl_key={key},ssl_keyformat={format}");
                let is_served = matches!(then, Served(_)) == (*memcached == Same);
                assert!(shop.memcached_serves(&words).is_none_or(|served| served == is_served), "{name}: memcached");
            }
        }
        drop(server);
    }
}

#[test]
fn a_start_with_files_of_any_form_ends_in_one_line_or_serves() {
    let Some(shop) = Workshop::new() else { return };
    for (name, chain_bytes, key_bytes, is_der, then, _) in rows(&shop) {
        if matches!(then, Served(_)) {
            continue;
        }
        shop.write("chain", chain_bytes);
        shop.write("key", key_bytes);
        let format = if is_der { "DER" } else { "PEM" };
        let words =
            format!("ssl_chain_cert={},ssl_key={},ssl_keyformat={format}", shop.path("chain"), shop.path("key"));
        let (status, printed) = corecached_run(&["-u", "root", "-p", "-1", "-l", "127.0.0.1", "-Z", "-o", &words]);
        assert_eq!(status.code(), Some(64), "{name}: {printed}");
        assert!(printed.starts_with("Error loading the ") && printed.lines().count() == 1, "{name}: {printed}");
    }
    // These paths do not lead to files.
    shop.openssl("req -x509 -newkey rsa:2048 -nodes -keyout a.key -subj /CN=a -days 30 -out a.crt");
    let folder = shop.folder.display().to_string();
    for (chain, key, why) in [
        (&folder, &shop.path("a.key"), format!("the certificate chain: {folder} : Is a directory")),
        (&shop.path("a.crt"), &folder, format!("the key: {folder} : Is a directory")),
        (
            &shop.path("a.crt"),
            &shop.path("b.key"),
            format!("the key: {} : No such file or directory", shop.path("b.key")),
        ),
    ] {
        let words = format!("ssl_chain_cert={chain},ssl_key={key}");
        let (status, printed) = corecached_run(&["-u", "root", "-p", "-1", "-l", "127.0.0.1", "-Z", "-o", &words]);
        assert_eq!(status.code(), Some(64), "{printed}");
        assert!(printed.starts_with(&format!("Error loading {why}")) && printed.lines().count() == 1, "{printed}");
    }
}
