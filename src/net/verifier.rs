//! Accepts or refuses the certificates of clients by the rules of OpenSSL.
//!
//! rustls has other rules. It refuses a client's certificate of version 1 and that of an authority, and OpenSSL accepts
//! both. It accepts an intermediate certificate or an expired one as a root, and OpenSSL refuses both. In this module a
//! chain leads from the client's certificate to a self-signed certificate in the file of authorities. Every certificate
//! of the chain is valid at this time, has no critical extension that we do not understand, and may be used for
//! clients. Every one but the first may sign others (X509_verify_cert(3), RFC 5280). A self-signed certificate of the
//! file is such a chain alone.
//!
//! Where OpenSSL's rules are long, ours are stricter: we compare names byte by byte, and rustls must also accept a
//! chain under name constraints.

use super::keys::elements;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use webpki::RawPublicKeyEntity;
use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag, oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{AuthorityKeyIdentifier, GeneralName, KeyUsage, NSCertType, ParsedExtension};
use x509_parser::oid_registry as oids;
use x509_parser::x509::X509Version;

/// The most certificates in a chain. It also limits the signatures that a client can make us check. OpenSSL has 100.
const DEPTH_MAX: usize = 16;
/// id-pe-proxyCertInfo (RFC 3820).
const PROXY: Oid<'static> = oid!(1.3.6.1.5.5.7.1.14);

/// Accepts or refuses the certificates of clients.
#[derive(Debug)]
pub(super) struct Verifier {
    authorities: Vec<Certificate>,
    subjects: Vec<DistinguishedName>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
    /// The verifier of rustls, for chains under name constraints. None: rustls can read none of the roots.
    webpki: Option<Arc<dyn ClientCertVerifier>>,
}

impl Verifier {
    /// Accepts clients of these authorities. Unless `mandatory`, it also accepts clients without a certificate.
    ///
    /// # Errors
    /// The number of the certificate that cannot be read, counted from 1; or that no certificate is self-signed, so
    /// that no client could connect.
    pub(super) fn new(
        authorities: &[CertificateDer<'static>],
        mandatory: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let read = |(der, at): (&CertificateDer<'_>, usize)| {
            Certificate::read(der).map_err(|error| format!("certificate {at} in it cannot be read: {error}"))
        };
        let read: Vec<Certificate> = authorities.iter().zip(1..).map(read).collect::<Result<_, _>>()?;
        if !read.iter().any(|certificate| certificate.is_root) {
            return Err("no certificate in it is signed by itself: add that of the authority at the root".into());
        }
        let roots = authorities.iter().zip(&read).filter(|(_, read)| read.is_root).map(|(der, _)| der.clone());
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots);
        let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider)).build().ok();
        let subjects = read.iter().map(|certificate| DistinguishedName::from(certificate.subject.clone())).collect();
        let algorithms = provider.signature_verification_algorithms;
        Ok(Verifier { authorities: read, subjects, mandatory, algorithms, webpki })
    }

    /// Leads a chain from the client's certificate to a root of the file. As OpenSSL does, it tries one issuer for each
    /// certificate. It searches the file first, and then the certificates that the client has shown. Of those with the
    /// issuer's name it takes the first that is valid at this time, or else the first.
    fn chain<'a>(
        &'a self,
        client: &'a Certificate,
        shown: &'a [Certificate],
        now: UnixTime,
    ) -> Result<Vec<&'a Certificate>, Error> {
        let mut chain = vec![client];
        // The number of intermediate certificates so far, without those that an authority has issued to itself.
        let mut between = 0;
        loop {
            let last = chain[chain.len() - 1];
            last.check(now)?;
            if last.is_root {
                let is_known = self.authorities.iter().any(|authority| authority.der == last.der);
                return if is_known { Ok(chain) } else { Err(CertificateError::UnknownIssuer.into()) };
            }
            let issuer_in = |certificates: &'a [Certificate]| {
                let mut named = certificates.iter().filter(|issuer| last.names(issuer));
                let first = named.clone().next();
                named.find(|issuer| issuer.check(now).is_ok()).or(first)
            };
            let issuer = issuer_in(&self.authorities).or_else(|| issuer_in(shown));
            let issuer = issuer.filter(|_| chain.len() < DEPTH_MAX).ok_or(CertificateError::UnknownIssuer)?;
            if !issuer.may_sign || issuer.path_max.is_some_and(|most| between > most) {
                return Err(CertificateError::InvalidPurpose.into());
            }
            last.check_signature(&issuer.key, &self.algorithms)?;
            between += u32::from(!issuer.is_self_issued);
            chain.push(issuer);
        }
    }

    /// Lets rustls check name constraints. OpenSSL also checks the names in the subject. rustls does not, so refuse
    /// such names here.
    fn check_names(&self, chain: &[&Certificate], now: UnixTime) -> Result<(), Error> {
        if !chain[1..].iter().any(|certificate| certificate.constrains_names) {
            return Ok(());
        }
        let refused = || Error::from(CertificateError::NotValidForName);
        if chain[0].has_host_in_subject || chain.iter().any(|certificate| certificate.has_email_in_subject) {
            return Err(refused());
        }
        let chain: Vec<_> = chain.iter().map(|certificate| CertificateDer::from(&certificate.der[..])).collect();
        let webpki = self.webpki.as_ref().ok_or_else(refused)?;
        webpki.verify_client_cert(&chain[0], &chain[1..], now).map(|_| ())
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let client = Certificate::read(end_entity)?;
        let shown = intermediates.iter().map(|der| Certificate::read(der)).collect::<Result<Vec<_>, _>>()?;
        if !client.may_be_client {
            return Err(CertificateError::InvalidPurpose.into());
        }
        let chain = self.chain(&client, &shown, now)?;
        self.check_names(&chain, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = public_key(certificate)?;
        let of_scheme = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, algorithms) = of_scheme.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        // In TLS 1.2 a scheme does not name the curve.
        check_signature(&key, algorithms.iter().copied(), message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &public_key(certificate)?, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The parts of a certificate that the rules need.
#[derive(Debug)]
struct Certificate {
    der: Vec<u8>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    issuer_id: IssuerId,
    key_id: Option<Vec<u8>>,
    key: SubjectPublicKeyInfoDer<'static>,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
    /// The signed bytes, the algorithm (the content of an AlgorithmIdentifier), and the signature.
    signed: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
    is_self_issued: bool,
    /// The names and the key identifiers say that the certificate is self-signed.
    is_root: bool,
    /// The reason why the certificate cannot be used at any time.
    fault: Option<CertificateError>,
    may_be_client: bool,
    may_sign: bool,
    /// The most intermediate certificates that may be below this one.
    path_max: Option<u32>,
    constrains_names: bool,
    has_host_in_subject: bool,
    has_email_in_subject: bool,
}

impl Certificate {
    fn read(der: &[u8]) -> Result<Certificate, Error> {
        let unreadable = || Error::from(CertificateError::BadEncoding);
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
        // x509-parser checks the types of these elements less strictly, and does not keep the bytes of the algorithm.
        let (_, whole) = Any::from_der(der).map_err(|_| unreadable())?;
        let outer = elements(whole.data).ok_or_else(unreadable)?;
        let kinds = [&whole].into_iter().chain(&outer).map(|any| (any.class(), any.tag(), any.header.constructed()));
        let sequence = (Class::Universal, Tag::Sequence, true);
        if !kinds.eq([sequence, sequence, sequence, (Class::Universal, Tag::BitString, false)]) {
            return Err(unreadable());
        }
        let algorithm = outer[1].data.to_vec();
        // A certificate names its algorithm twice, and the signature covers one of the two. An attacker could have
        // changed the other.
        let is_whole = rest.is_empty() && parsed.signature_value.unused_bits == 0;
        if !is_whole || parsed.signature_algorithm != parsed.tbs_certificate.signature {
            return Err(unreadable());
        }
        let (subject, issuer) = (parsed.subject(), parsed.issuer());
        // A name in an encoding that we cannot read may be a host as well.
        let is_host = |name: Result<&str, _>| name.map_or(true, |name| name.contains('.'));
        let mut certificate = Certificate {
            der: der.to_vec(),
            subject: subject.as_raw().to_vec(),
            issuer: issuer.as_raw().to_vec(),
            serial: parsed.raw_serial().to_vec(),
            issuer_id: IssuerId::default(),
            key_id: None,
            key: SubjectPublicKeyInfoDer::from(parsed.public_key().raw.to_vec()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            signed: parsed.tbs_certificate.as_ref().to_vec(),
            algorithm,
            signature: parsed.signature_value.data.to_vec(),
            is_self_issued: subject.as_raw() == issuer.as_raw(),
            is_root: false,
            fault: None,
            may_be_client: true,
            may_sign: false,
            path_max: None,
            constrains_names: false,
            has_host_in_subject: subject.iter_common_name().any(|name| is_host(name.as_str())),
            has_email_in_subject: subject.iter_email().next().is_some(),
        };
        certificate.read_extensions(&parsed);
        Ok(certificate)
    }

    fn read_extensions(&mut self, parsed: &X509Certificate<'_>) {
        let (mut is_authority, mut usage, mut for_clients, mut netscape) = (None, None, true, None);
        let has_none = parsed.extensions().is_empty();
        if parsed.extensions_map().is_err() || parsed.version() != X509Version::V3 && !has_none {
            // The certificate has an extension twice, or its version allows no extensions.
            self.fault = Some(CertificateError::BadEncoding);
        }
        for extension in parsed.extensions() {
            use ParsedExtension::*;
            match extension.parsed_extension() {
                BasicConstraints(found) => {
                    is_authority = Some(found.ca);
                    self.path_max = found.path_len_constraint;
                }
                KeyUsage(found) => usage = Some(found),
                ExtendedKeyUsage(found) => for_clients = found.client_auth,
                NSCertType(found) => netscape = Some(found),
                SubjectKeyIdentifier(found) => self.key_id = Some(found.0.to_vec()),
                AuthorityKeyIdentifier(found) => self.issuer_id = IssuerId::new(found),
                NameConstraints(_) => self.constrains_names = true,
                SubjectAlternativeName(found) => {
                    let is_host = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_));
                    self.has_host_in_subject &= !found.general_names.iter().any(is_host);
                }
                // The server requires no policies, and has no lists of revoked certificates.
                CertificatePolicies(_)
                | PolicyConstraints(_)
                | PolicyMappings(_)
                | InhibitAnyPolicy(_)
                | CRLDistributionPoints(_) => {}
                ParseError { .. } if extension.critical || CONSULTED.contains(&extension.oid) => {
                    self.fault = Some(CertificateError::BadEncoding);
                }
                _ if extension.critical || extension.oid == PROXY => {
                    self.fault = Some(CertificateError::UnhandledCriticalExtension);
                }
                _ => {}
            }
        }
        self.is_root = self.is_self_issued && self.identifies(self);
        let is_old_root = self.is_root && parsed.version() == X509Version::V1;
        let may = |allowed: fn(&KeyUsage) -> bool| usage.is_none_or(allowed);
        // Older roots have no basic constraints. As OpenSSL does, accept version 1 or a key usage in their place. Other
        // certificates must have basic constraints to sign.
        self.may_sign = for_clients
            && may(KeyUsage::key_cert_sign)
            && is_authority.unwrap_or(is_old_root || usage.is_some() && self.is_root);
        self.may_be_client = for_clients
            && may(|usage| usage.digital_signature() || usage.key_agreement())
            && netscape.is_none_or(NSCertType::ssl_client);
    }

    /// Checks that the certificate has no fault and is valid at this time.
    fn check(&self, now: UnixTime) -> Result<(), Error> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if let Some(error) = &self.fault {
            return Err(error.clone().into());
        }
        if now < self.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now >= self.not_after {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }

    /// Whether the certificate says that `issuer` has signed it.
    fn names(&self, issuer: &Certificate) -> bool {
        self.issuer == issuer.subject && self.identifies(issuer)
    }

    /// Whether the facts that the certificate tells about its issuer, if any, are true of `issuer`.
    fn identifies(&self, issuer: &Certificate) -> bool {
        let IssuerId { key, name, serial } = &self.issuer_id;
        let fits = |told: &Option<Vec<u8>>, is: &[u8]| told.as_deref().is_none_or(|told| told == is);
        issuer.key_id.as_ref().is_none_or(|is| fits(key, is))
            && fits(serial, &issuer.serial)
            && fits(name, &issuer.issuer)
    }

    fn check_signature(
        &self,
        key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let fitting = algorithms.all.iter().filter(|algorithm| *algorithm.signature_alg_id() == *self.algorithm);
        check_signature(key, fitting.copied(), &self.signed, &self.signature)
    }
}

/// Extensions that must be readable, even if they are not critical.
const CONSULTED: [Oid<'static>; 8] = [
    oids::OID_X509_EXT_BASIC_CONSTRAINTS,
    oids::OID_X509_EXT_KEY_USAGE,
    oids::OID_X509_EXT_EXTENDED_KEY_USAGE,
    oids::OID_X509_EXT_CERT_TYPE,
    oids::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
    oids::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
    oids::OID_X509_EXT_NAME_CONSTRAINTS,
    oids::OID_X509_EXT_SUBJECT_ALT_NAME,
];

/// The facts that a certificate tells about its issuer's certificate: the key identifier, the serial number, and the
/// name of the issuer of that certificate.
#[derive(Debug, Default)]
struct IssuerId {
    key: Option<Vec<u8>>,
    name: Option<Vec<u8>>,
    serial: Option<Vec<u8>>,
}

impl IssuerId {
    fn new(found: &AuthorityKeyIdentifier<'_>) -> IssuerId {
        let name = found.authority_cert_issuer.iter().flatten().find_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(name.as_raw().to_vec()),
            _ => None,
        });
        let key = found.key_identifier.as_ref().map(|key| key.0.to_vec());
        IssuerId { key, name, serial: found.authority_cert_serial.map(<[u8]>::to_vec) }
    }
}

/// The common names and the alternative names of hosts in a certificate, in this order. A name that is no text is left out.
pub(super) fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    let others = certificate.subject_alternative_name().ok().flatten();
    let others = others.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    common.chain(others).collect()
}

/// The public key of a client that has signed a handshake.
fn public_key(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    Certificate::read(certificate).map(|certificate| certificate.key)
}

/// Checks the signature with the first of these algorithms that fits the key.
fn check_signature(
    key: &SubjectPublicKeyInfoDer<'_>,
    algorithms: impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    let key = RawPublicKeyEntity::try_from(key).map_err(|_| CertificateError::BadEncoding)?;
    for algorithm in algorithms {
        match key.verify_signature(algorithm, message, signature) {
            Ok(()) => return Ok(()),
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(_) => return Err(CertificateError::BadSignature.into()),
        }
    }
    Err(Error::General("the algorithm of a signature is not known, or the key is not of its kind".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
    use rustls::crypto::ring;
    use std::time::Duration;

    /// 2001-01-01 and 2002-01-01. All certificates of these tests are valid between the two.
    const BEGIN: u64 = 978_307_200;
    const END: u64 = 1_009_843_200;

    fn params(name: &str, is_ca: IsCa) -> CertificateParams {
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        params.is_ca = is_ca;
        params
    }

    /// A verifier that knows a root, a client's certificate, and the intermediate certificate between the two.
    fn chain() -> (Verifier, CertificateDer<'static>, CertificateDer<'static>) {
        let [root_key, middle_key, client_key] = [(); 3].map(|()| KeyPair::generate().expect("a key"));
        let root = params("root", IsCa::Ca(BasicConstraints::Unconstrained));
        let root_der = root.self_signed(&root_key).expect("a certificate").der().clone();
        let root = Issuer::new(root, root_key);
        let middle = params("middle", IsCa::Ca(BasicConstraints::Constrained(0)));
        let middle_der = middle.signed_by(&middle_key, &root).expect("a certificate").der().clone();
        let middle = Issuer::new(middle, middle_key);
        let client = params("client", IsCa::NoCa).signed_by(&client_key, &middle).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        (Verifier::new(&[root_der], true, &provider).expect("a root"), client.der().clone(), middle_der)
    }

    fn verify(verifier: &Verifier, client: &[u8], middle: &[u8], now: u64) -> Result<(), Error> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let others = [CertificateDer::from(middle)];
        verifier.verify_client_cert(&CertificateDer::from(client), &others, now).map(|_| ())
    }

    #[test]
    fn a_chain_is_good_as_long_as_its_certificates_are_valid() {
        let (verifier, client, middle) = chain();
        for (now, expected) in [
            (0, Err(CertificateError::NotValidYet.into())),
            (BEGIN - 1, Err(CertificateError::NotValidYet.into())),
            (BEGIN, Ok(())),
            (END - 1, Ok(())),
            (END, Err(CertificateError::Expired.into())),
            (u64::MAX, Err(CertificateError::Expired.into())),
        ] {
            assert_eq!(verify(&verifier, &client, &middle, now), expected, "at {now}");
        }
    }

    #[test]
    fn no_byte_of_a_chain_can_be_changed() {
        let (verifier, client, middle) = chain();
        for (change, whole) in [(0, &client), (1, &middle)] {
            for at in 0..whole.len() {
                for bits in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                    let mut changed = whole.to_vec();
                    changed[at] ^= bits;
                    let (client, middle) =
                        if change == 0 { (&changed[..], &middle[..]) } else { (&client[..], &changed[..]) };
                    assert!(verify(&verifier, client, middle, BEGIN).is_err(), "byte {at} of {change} by {bits:#x}");
                }
                let (client, middle) =
                    if change == 0 { (&whole[..at], &middle[..]) } else { (&client[..], &whole[..at]) };
                assert!(verify(&verifier, client, middle, BEGIN).is_err(), "{change}, cut off at {at}");
            }
        }
    }
}
