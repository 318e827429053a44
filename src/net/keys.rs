//! Reads private keys in every form that OpenSSL reads, and makes the keys that sign handshakes.
//!
//! The content of a key decides its form, not its label: some files have PKCS#8 under `RSA PRIVATE KEY`. ring needs the
//! public point of an elliptic curve beside the private key. If the file has no point, `elliptic` takes it from the
//! certificate, and ring checks that the two fit.

use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::sign::SigningKey;
use std::sync::Arc;
use x509_parser::asn1_rs::{Any, FromDer, Tag, ToDer};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::x509::SubjectPublicKeyInfo;

const KINDS: &str = "RSA of 2048 to 4096 bits, the curves P-256 and P-384, and Ed25519";
/// The reason for refusing an encrypted key.
pub(super) const ENCRYPTED: &str =
    "it is encrypted: take the pass phrase away with `openssl pkey -in <file> -out <new file>`";

/// Makes a key from its DER, for a certificate with this public key. Bytes behind the DER are ignored.
///
/// # Errors
/// The reason why the key cannot be used.
pub(super) fn signing_key(bytes: &[u8], public: &SubjectPublicKeyInfo<'_>) -> Result<Arc<dyn SigningKey>, String> {
    let unreadable = || "it is not a private key in PKCS#8, PKCS#1 or SEC1".to_owned();
    let (rest, whole) = Any::from_der(bytes).map_err(|_| unreadable())?;
    let der = &bytes[..bytes.len() - rest.len()];
    let parts = elements(whole.data).filter(|_| whole.tag() == Tag::Sequence).ok_or_else(unreadable)?;
    let tags: Vec<Tag> = parts.iter().map(Any::tag).collect();
    match tags[..] {
        [Tag::Integer, Tag::Sequence, Tag::OctetString, ..] => {
            pkcs8(der, &parts, public).unwrap_or_else(|| Err(unreadable()))
        }
        [Tag::Integer, Tag::Integer, Tag::Integer, ..] => rsa(der),
        [Tag::Integer, Tag::OctetString, ..] => elliptic(&parts, None, public),
        [Tag::Sequence, Tag::OctetString] => Err(ENCRYPTED.into()),
        _ => Err(unreadable()),
    }
}

/// PrivateKeyInfo (RFC 5208): version, algorithm, key. None: the parts are not those of a PrivateKeyInfo.
fn pkcs8(
    der: &[u8],
    parts: &[Any<'_>],
    public: &SubjectPublicKeyInfo<'_>,
) -> Option<Result<Arc<dyn SigningKey>, String>> {
    let algorithm = elements(parts[1].data)?;
    let key = parts[2].data;
    let name = algorithm.first()?.as_oid().ok()?;
    Some(if name == OID_PKCS1_RSAENCRYPTION {
        rsa(key)
    } else if name == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let (_, inner) = Any::from_der(key).ok()?;
        elliptic(&elements(inner.data)?, algorithm.get(1), public)
    } else if name == OID_SIG_ED25519 {
        ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).map_err(|error| error.to_string())
    } else {
        Err(format!("this kind of key cannot be used: {KINDS} can"))
    })
}

/// RSAPrivateKey (RFC 8017): version, modulus, public exponent and so on.
fn rsa(der: &[u8]) -> Result<Arc<dyn SigningKey>, String> {
    let number = |index: usize| {
        let parts = Any::from_der(der).ok().and_then(|(_, whole)| elements(whole.data))?;
        let digits = parts.get(index)?.data;
        Some(&digits[digits.iter().take_while(|byte| **byte == 0).count()..])
    };
    if let Some(modulus) = number(1) {
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !(2048..=4096).contains(&bits) {
            return Err(format!("RSA of {bits} bits cannot be used: {KINDS} can"));
        }
    }
    if number(2).is_some_and(|exponent| exponent.len() < 3 || exponent.len() == 3 && *exponent < [1, 0, 1][..]) {
        return Err("RSA with a public exponent below 65537 cannot be used: make a new key".into());
    }
    let key = PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der));
    let key = ring::sign::RsaSigningKey::new(&key).map_err(|_| "the numbers of this RSA key do not fit together")?;
    Ok(Arc::new(key))
}

/// ECPrivateKey (RFC 5915): version, private key, optionally curve and public point. PKCS#8 names the curve outside.
fn elliptic(
    parts: &[Any<'_>],
    curve: Option<&Any<'_>>,
    public: &SubjectPublicKeyInfo<'_>,
) -> Result<Arc<dyn SigningKey>, String> {
    let inside = |tag: u32| {
        let part = parts.iter().skip(2).find(|part| part.tag() == Tag(tag))?;
        Any::from_der(part.data).ok().map(|(_, inner)| inner)
    };
    let (inner_curve, inner_point) = (inside(0), inside(1));
    // Explicit curve parameters have no name. In that case the certificate may name the curve.
    let candidates = [curve, inner_curve.as_ref(), public.algorithm.parameters.as_ref()];
    let name = candidates.into_iter().flatten().filter(|any| any.tag() == Tag::Oid).find_map(|any| any.as_oid().ok());
    let len = match &name {
        Some(name) if *name == OID_EC_P256 => 32,
        Some(name) if *name == OID_NIST_EC_P384 => 48,
        Some(_) => return Err(format!("this elliptic curve cannot be used: {KINDS} can")),
        None => return Err("the curve has no name: write it with `openssl ec -param_enc named_curve`".into()),
    };
    let mismatch = || "it is not the key of the certificate".to_owned();

    // The key's point is in a bit string. Skip the first byte of that, which counts the unused bits.
    let of_certificate = &public.subject_public_key.data[..];
    let of_key = inner_point.as_ref().and_then(|bits| bits.data.split_first()).map(|(_, point)| point);
    let whole = |point: &&[u8]| point.first() == Some(&4);
    let point = of_key.filter(whole).unwrap_or(of_certificate);
    let scalar = parts[1].data;
    let scalar = &scalar[scalar.iter().take_while(|byte| **byte == 0).count()..];
    if scalar.len() > len || point.len() != 1 + 2 * len {
        return Err(mismatch());
    }

    let scalar = [&vec![0; len - scalar.len()][..], scalar].concat();
    let name = name.and_then(|name| name.to_der_vec().ok()).unwrap_or_default();
    let bits = [&[0], point].concat();
    let sec1 = element(
        0x30,
        &[element(2, &[1]), element(4, &scalar), element(0xa0, &name), element(0xa1, &element(3, &bits))].concat(),
    );
    ring::sign::any_ecdsa_type(&PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(sec1))).map_err(|_| mismatch())
}

/// Splits bytes into DER elements, one after the other. None: the bytes contain something else.
pub(super) fn elements(mut bytes: &[u8]) -> Option<Vec<Any<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (rest, any) = Any::from_der(bytes).ok()?;
        found.push(any);
        bytes = rest;
    }
    Some(found)
}

/// Writes an element in DER, of less than 256 bytes.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len()).expect("keys of elliptic curves are short");
    let head = if len < 128 { vec![tag, len] } else { vec![tag, 0x81, len] };
    [&head, content].concat()
}
