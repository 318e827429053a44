//! Reads certificates and keys from files, and makes the TLS configurations of connections from them.
//!
//! The server reads the files at the start, and again on `refresh_certs` or SIGHUP. If a new file has a fault, nothing
//! changes. Error messages begin as memcached's do, and continue with our own reason.
//!
//! Each rule for the certificates of clients has a configuration of its own, because one server can have listeners with
//! different rules (`btls:`, `mtls:`). The configurations share the certificate and the key, but no sessions: a client
//! must not resume a session that began without a certificate where the listener requires one. For the same reason a
//! refresh ends the sessions of clients with certificates, because it may bring other authorities. The sessions of
//! clients without certificates go on.
//!
//! Clients resume sessions by tickets, which all workers can open. Tickets need no state in the server. Their keys have
//! a lock, which only handshakes take.

use super::verifier::Verifier;
use super::{keys, pem};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerConfig, ServerSessionMemoryCache, StoresServerSessions,
    WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{SupportedCipherSuite, version};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Whether a listener asks its clients for certificates: memcached's `ssl_verify_mode`, or a prefix of the listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// The listener does not ask for a certificate.
    #[default]
    None,
    /// The listener asks for a certificate. The client may show none, but a certificate that it shows must be good.
    Request,
    /// The client must show a good certificate.
    Require,
}

/// The encoding of a private key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// Text: PKCS#8, PKCS#1 or SEC1, under any label.
    #[default]
    Pem,
    /// The same forms, binary.
    Der,
}

/// The TLS settings of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The file with the certificate and those that link it to an authority, PEM.
    pub chain: Option<PathBuf>,
    /// The file with the private key. None: the file of the chain has it.
    pub key: Option<PathBuf>,
    /// The encoding of the private key.
    pub key_format: KeyFormat,
    /// Whether to ask clients for certificates, where the listener does not say.
    pub verify: Verify,
    /// The file with the authorities of clients' certificates, PEM.
    pub authorities: Option<PathBuf>,
    /// The cipher suites of TLS 1.2, in OpenSSL's words.
    pub ciphers: Option<String>,
    /// The server refuses TLS 1.2.
    pub only_1_3: bool,
    /// The number of TLS 1.2 sessions that the server keeps for clients without tickets. 0: none.
    pub sessions_max: usize,
}

/// The TLS configurations of new connections, one for each [`Verify`].
#[derive(Clone, Debug)]
pub struct Certificates {
    none: Arc<ServerConfig>,
    /// `request` and `require` are `None` if no authorities are configured.
    request: Option<Arc<ServerConfig>>,
    require: Option<Arc<ServerConfig>>,
}

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    /// One line, which says what is wrong.
    pub fn load(options: &TlsOptions) -> Result<Certificates, String> {
        let provider = Arc::new(provider(options)?);
        let key = Arc::new(SingleCertAndKey::from(certified_key(options)?));
        let config = |verifier: Arc<dyn ClientCertVerifier>| {
            let all: &[_] = &[&version::TLS13, &version::TLS12];
            let versions = if options.only_1_3 { &all[..1] } else { all };
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)
                .map_err(|error| format!("Error setting the protocol versions: {error}"))?;
            let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(key.clone());
            config.ignore_client_order = true;
            config.ticketer = ring::Ticketer::new().map_err(|error| format!("Error making ticket keys: {error}"))?;
            config.session_storage = match options.sessions_max {
                0 => Arc::new(NoServerSessionStorage {}) as Arc<dyn StoresServerSessions>,
                count => ServerSessionMemoryCache::new(count),
            };
            Ok::<_, String>(Arc::new(config))
        };
        let none = config(WebPkiClientVerifier::no_client_auth())?;
        let Some(path) = &options.authorities else {
            return Ok(Certificates { none, request: None, require: None });
        };
        let failed = |why: String| format!("Error loading the CA certificate: {} : {why}", path.display());
        let authorities = read(path).and_then(|bytes| certificates(&bytes, Trusted::Alone)).map_err(failed)?;
        let verifying = |mandatory| {
            let verifier = Verifier::new(&authorities, mandatory, &provider).map_err(failed)?;
            config(Arc::new(verifier)).map(Some)
        };
        Ok(Certificates { none, request: verifying(false)?, require: verifying(true)? })
    }

    /// Reads all files again. Clients without certificates can still resume their sessions.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn reload(&self, options: &TlsOptions) -> Result<Certificates, String> {
        let mut new = Certificates::load(options)?;
        let none = Arc::get_mut(&mut new.none).expect("nobody else has it yet");
        none.ticketer = Arc::clone(&self.none.ticketer) as Arc<dyn ProducesTickets>;
        none.session_storage = Arc::clone(&self.none.session_storage);
        Ok(new)
    }

    /// The configuration for a new connection. None: the listener asks for certificates, but no authorities are
    /// configured.
    pub fn config(&self, verify: Verify) -> Option<&Arc<ServerConfig>> {
        match verify {
            Verify::None => Some(&self.none),
            Verify::Request => self.request.as_ref(),
            Verify::Require => self.require.as_ref(),
        }
    }
}

fn certified_key(options: &TlsOptions) -> Result<CertifiedKey, String> {
    let TlsOptions { chain, key_format, .. } = options;
    let Some(chain) = chain else { return Err("Error loading the certificate chain: none is named".into()) };
    let failed = |why: String| format!("Error loading the certificate chain: {} : {why}", chain.display());
    let certificates = read(chain).and_then(|bytes| certificates(&bytes, Trusted::First)).map_err(failed)?;
    let public = public_key(&certificates[0]).map_err(failed)?;

    let path = options.key.as_ref().unwrap_or(chain);
    let failed = |why: String| format!("Error loading the key: {} : {why}", path.display());
    let bytes = read(path).map_err(failed)?;
    let der = match key_format {
        KeyFormat::Pem => private_key(&bytes).map_err(failed)?,
        KeyFormat::Der if bytes.starts_with(b"-----") => {
            return Err(failed("it is PEM: leave -o ssl_keyformat=DER away".into()));
        }
        KeyFormat::Der => bytes,
    };
    let key = keys::signing_key(&der, &public).map_err(failed)?;
    let is_key_of = |public: &SubjectPublicKeyInfo<'_>| key.public_key().is_some_and(|own| is_same(&own, public));
    if !is_key_of(&public) {
        let other =
            certificates.iter().skip(1).position(|other| public_key(other).is_ok_and(|other| is_key_of(&other)));
        let why = "it is not the key of the certificate".to_owned();
        return Err(failed(match other {
            Some(index) => format!("{why}, but of number {} in {}: put that one first", index + 2, chain.display()),
            None => why,
        }));
    }
    drop(public);
    Ok(CertifiedKey::new(certificates, key))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Err("it is empty".into()),
        result => result.map_err(|error| error.to_string()),
    }
}

/// How OpenSSL treats a `TRUSTED CERTIFICATE`, which has its trust settings behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trusted {
    /// If it is the first certificate of the file, it counts as any other. Later ones are skipped.
    First,
    /// OpenSSL applies the trust settings. We cannot, so a certificate with trust settings is an error.
    Alone,
}

/// The certificates in a file, at least one.
fn certificates(bytes: &[u8], trusted: Trusted) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found: Vec<CertificateDer<'static>> = Vec::new();
    for block in pem::blocks(bytes) {
        let block = block?;
        let is_trusted = block.label == "TRUSTED CERTIFICATE";
        if !is_trusted && !matches!(&block.label[..], "CERTIFICATE" | "X509 CERTIFICATE")
            || is_trusted && trusted == Trusted::First && !found.is_empty()
        {
            continue;
        }
        let number = found.len() + 1;
        let (rest, _) = Any::from_der(&block.der).map_err(|_| format!("certificate {number} in it is damaged"))?;
        if !rest.is_empty() && !is_trusted {
            return Err(format!("certificate {number} in it is damaged: something follows it"));
        }
        if !rest.is_empty() && trusted == Trusted::Alone {
            let how = "`openssl x509 -clrtrust -in <file> -out <new file>`";
            return Err(format!("certificate {number} in it says what it is trusted for: take that away with {how}"));
        }
        let len = block.der.len() - rest.len();
        found.push(CertificateDer::from(block.der[..len].to_vec()));
    }
    match found {
        found if !found.is_empty() => Ok(found),
        _ if X509Certificate::from_der(bytes).is_ok() => {
            Err("it is DER: make PEM of it with `openssl x509 -inform DER -in <file> -out <new file>`".into())
        }
        _ => Err("it has no certificate in PEM".into()),
    }
}

/// The first private key in a file.
fn private_key(bytes: &[u8]) -> Result<Vec<u8>, String> {
    for block in pem::blocks(bytes) {
        let block = block?;
        match &block.label[..] {
            "ENCRYPTED PRIVATE KEY" => return Err(keys::ENCRYPTED.into()),
            label if label.ends_with("PRIVATE KEY") && block.encrypted => return Err(keys::ENCRYPTED.into()),
            label if label.ends_with("PRIVATE KEY") => return Ok(block.der),
            _ => {}
        }
    }
    Err(match bytes[0] {
        0x30 => "it has no private key in PEM: if it is DER, say -o ssl_keyformat=DER".into(),
        _ => "it has no private key in PEM".into(),
    })
}

/// The public key in a certificate.
fn public_key<'a>(certificate: &'a CertificateDer<'_>) -> Result<SubjectPublicKeyInfo<'a>, String> {
    let parsed = X509Certificate::from_der(certificate);
    let (_, parsed) = parsed.map_err(|error| format!("the first certificate in it cannot be read: {error}"))?;
    let key = parsed.tbs_certificate.subject_pki;
    let is_compressed = matches!(key.subject_public_key.data.first(), Some(2 | 3));
    if is_compressed && key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err("its point is compressed: make it of a key from `openssl ec -conv_form uncompressed`".into());
    }
    Ok(key)
}

/// Whether two public keys are the same. Their algorithms may be encoded differently.
fn is_same(own: &SubjectPublicKeyInfoDer<'_>, other: &SubjectPublicKeyInfo<'_>) -> bool {
    SubjectPublicKeyInfo::from_der(own).is_ok_and(|(_, own)| {
        own.algorithm.algorithm == other.algorithm.algorithm
            && own.subject_public_key.data == other.subject_public_key.data
    })
}

/// ring, with the configured cipher suites in the server's order of preference.
///
/// The first suite is AES-128 with SHA-256. It is as strong as the key exchange and the certificates that come with it.
/// Clients prefer SHA-384, but the CPU has no instructions for it, and it takes an eighth of a handshake's time
/// (`loadtest compare --set tls -w storm`: 162 µs against 144). The suites of `ssl_ciphers` keep their order.
fn provider(options: &TlsOptions) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    let is_128 = |suite: &SupportedCipherSuite| suite.suite().as_str().is_some_and(|name| name.contains("AES_128"));
    provider.cipher_suites.sort_by_key(|suite| !is_128(suite));
    if let Some(list) = &options.ciphers {
        let (all, rest) = (provider.cipher_suites.clone(), provider.cipher_suites.iter());
        let mut chosen: Vec<_> = rest.filter(|suite| suite.tls13().is_some()).copied().collect();
        let of_1_2 = choose(list, &all);
        if of_1_2.is_empty() {
            return Err(format!("Error setting the provided cipher(s): {list}"));
        }
        chosen.extend(of_1_2);
        provider.cipher_suites = chosen;
    }
    Ok(provider)
}

/// The cipher suites of TLS 1.2 that ring has: the name in rustls, OpenSSL's name, and OpenSSL's words for its groups.
const CIPHERS: [(&str, &str, &str); 6] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "aECDSA ECDSA AESGCM AES AES256 SHA384",
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "aECDSA ECDSA AESGCM AES AES128 SHA256",
    ),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "aECDSA ECDSA CHACHA20"),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "aRSA AESGCM AES AES256 SHA384"),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "aRSA AESGCM AES AES128 SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305", "aRSA CHACHA20"),
];
const CIPHERS_ALL: &str = "ALL DEFAULT HIGH ECDHE EECDH kECDHE kEECDH TLSv1.2";

/// Reads an OpenSSL cipher list (openssl-ciphers(1)). A word adds the suites that it names. Words joined by `+` name
/// the suites that all of them name. `-` before a word removes its suites, and `!` removes them for good. An unknown
/// word has no effect, and the list cannot be ordered by strength.
fn choose(list: &str, all: &[SupportedCipherSuite]) -> Vec<SupportedCipherSuite> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut barred: Vec<usize> = Vec::new();
    for word in list.split([':', ' ', ',']).filter(|word| !word.is_empty() && !word.starts_with(['@', '+'])) {
        let (sign, word) = match word.as_bytes()[0] {
            sign @ (b'!' | b'-') => (sign, &word[1..]),
            _ => (b'+', word),
        };
        let means = |index: &usize| {
            let (_, name, groups) = CIPHERS[*index];
            let known = || groups.split(' ').chain(CIPHERS_ALL.split(' ')).chain([name]);
            word.split('+').all(|part| known().any(|known| known == part))
        };
        let meant: Vec<usize> = (0..CIPHERS.len()).filter(means).collect();
        if sign == b'+' {
            for index in meant {
                if !chosen.contains(&index) && !barred.contains(&index) {
                    chosen.push(index);
                }
            }
        } else {
            chosen.retain(|index| !meant.contains(index));
            if sign == b'!' {
                barred.extend(meant);
            }
        }
    }
    let suite = |name: &str| all.iter().find(|suite| suite.suite().as_str() == Some(name)).copied();
    chosen.into_iter().filter_map(|index| suite(CIPHERS[index].0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the suites of a cipher list and their order. E and R stand for ECDSA and RSA; 2, 1 and C for AES-256,
    /// AES-128 and ChaCha20.
    fn check(list: &str, expected: &str) {
        let all = ring::default_provider().cipher_suites;
        let short = |suite: &SupportedCipherSuite| {
            let name = suite.suite().as_str().expect("a known suite").to_owned();
            let key = if name.contains("ECDSA") { "E" } else { "R" };
            let cipher = if name.contains("256_GCM") {
                "2"
            } else if name.contains("128_GCM") {
                "1"
            } else {
                "C"
            };
            format!("{key}{cipher}")
        };
        assert_eq!(choose(list, &all).iter().map(short).collect::<Vec<_>>().join(" "), expected, "{list}");
    }

    #[test]
    fn cipher_lists_are_read_as_openssl_reads_them() {
        check("HIGH", "E2 E1 EC R2 R1 RC");
        check("DEFAULT:!aNULL:@STRENGTH", "E2 E1 EC R2 R1 RC");
        check("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", "R1 R2");
        check("ECDHE+AESGCM:ECDHE+CHACHA20:!aECDSA", "R2 R1 RC");
        check("CHACHA20:AES128+aRSA", "EC RC R1");
        check("!CHACHA20:ALL:-AES128:AES128+aECDSA", "E2 R2 E1");
        check("AES128-SHA:RC4:!MD5", "");
        check("RSA", "");
        check("", "");
    }

    #[test]
    fn every_cipher_of_ours_exists() {
        let all = ring::default_provider().cipher_suites;
        assert_eq!(choose("ALL", &all).len(), CIPHERS.len());
        assert_eq!(all.iter().filter(|suite| suite.tls13().is_none()).count(), CIPHERS.len());
    }
}
