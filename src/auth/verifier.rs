//! What the server knows of a password: a verifier of SCRAM-SHA-256 (RFC 5802, RFC 7677), in the form that PostgreSQL uses:
//! `SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>`, the last three in base64. It serves a client that proves its password
//! by SCRAM, and one that sends it. The password itself cannot be had from it, only tried.
//!
//! A password is a row of bytes: it is not normalized, so one beyond ASCII must come from its client as it was given to
//! `corecached password`.

use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;

/// The length of hashes and keys, in bytes.
pub const HASH_LEN: usize = digest::SHA256_OUTPUT_LEN;
/// The name of the mechanism, with which a verifier begins.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The rounds of a new verifier: RFC 7677's least number. The helper thread takes 1 to 4 ms for them.
pub const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("it is not 0");
/// The most rounds of a verifier. More would keep the helper thread for seconds.
const ROUNDS_MAX: u32 = 1_000_000;
const SALT_LEN: usize = 16;
/// The longest salt, in bytes.
const SALT_LEN_MAX: usize = 64;

/// A hash or a key.
pub type Hash = [u8; HASH_LEN];

/// See the head of this file.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// The number of times that the password is hashed.
    pub rounds: NonZeroU32,
    /// Random bytes of this password.
    pub salt: Vec<u8>,
    stored_key: Hash,
    server_key: Hash,
}

impl Verifier {
    /// The verifier of a password. It takes as long as `rounds` hashes take.
    pub fn derive(password: &[u8], salt: &[u8], rounds: NonZeroU32) -> Verifier {
        let mut salted = [0; HASH_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password, &mut salted);
        let client_key = mac(&salted, b"Client Key");
        Verifier { rounds, salt: salt.to_vec(), stored_key: hash(&client_key), server_key: mac(&salted, b"Server Key") }
    }

    /// A verifier of a password with a new salt.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn generate(password: &[u8]) -> io::Result<Verifier> {
        Ok(Verifier::derive(password, &random::<SALT_LEN>()?, ROUNDS))
    }

    /// A verifier that no password has, to answer for a user that does not exist. It has the same salt each time.
    pub fn of_nobody(salt: Hash, rounds: NonZeroU32) -> Verifier {
        let salt = salt[..SALT_LEN].to_vec();
        Verifier { rounds, salt, stored_key: [0; HASH_LEN], server_key: [0; HASH_LEN] }
    }

    /// Reads a verifier in its usual form. None: it has another form, or too many rounds.
    pub fn read(text: &str) -> Option<Verifier> {
        let (head, keys) = text.strip_prefix(MECHANISM)?.strip_prefix('$')?.split_once('$')?;
        let (rounds, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let decode = |text: &str| BASE64.decode(text.as_bytes()).ok();
        let salt = decode(salt).filter(|salt| (1..=SALT_LEN_MAX).contains(&salt.len()))?;
        let rounds = rounds.parse().ok().filter(|rounds: &NonZeroU32| rounds.get() <= ROUNDS_MAX)?;
        let (stored_key, server_key) = (decode(stored_key)?.try_into().ok()?, decode(server_key)?.try_into().ok()?);
        Some(Verifier { rounds, salt, stored_key, server_key })
    }

    /// Whether it is the verifier of this password. It takes as long as `rounds` hashes take, whatever the password is.
    pub fn accepts(&self, password: &[u8]) -> bool {
        let other = Verifier::derive(password, &self.salt, self.rounds);
        let (stored, server) = (self.stored_key.ct_eq(&other.stored_key), self.server_key.ct_eq(&other.server_key));
        (stored & server).into()
    }

    /// Whether a client that has signed `message` so knows the password. If it does, the result is the signature of the
    /// server, by which the client knows that the server has the verifier.
    pub fn accepts_proof(&self, message: &[u8], proof: &Hash) -> Option<Hash> {
        let signature = mac(&self.stored_key, message);
        let mut client_key = *proof;
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let is_right: bool = hash(&client_key).ct_eq(&self.stored_key).into();
        is_right.then(|| mac(&self.server_key, message))
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|part| BASE64.encode(part));
        write!(f, "{MECHANISM}${}:{salt}${stored}:{server}", self.rounds)
    }
}

/// Prints no keys.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verifier of {} rounds", self.rounds)
    }
}

/// Random bytes.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no random bytes"))?;
    Ok(bytes)
}

fn hash(bytes: &[u8]) -> Hash {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("a hash has this length")
}

fn mac(key: &Hash, message: &[u8]) -> Hash {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("a signature has this length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_what_postgresql_writes() {
        // The salt, password and rounds of RFC 7677.
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let verifier = Verifier::derive(b"pencil", &salt, ROUNDS);
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(verifier.to_string(), text);
        assert_eq!(Verifier::read(text), Some(verifier.clone()));
        assert!(verifier.accepts(b"pencil") && !verifier.accepts(b"pencils") && !verifier.accepts(b""));
        assert!(!format!("{verifier:?}").contains("WG5d"));
    }

    #[test]
    fn two_verifiers_of_a_password_differ() {
        let [one, other] = [(); 2].map(|()| Verifier::generate(b"secret").expect("random bytes"));
        assert!(one != other && one.accepts(b"secret") && other.accepts(b"secret"));
    }

    #[test]
    fn other_texts_are_no_verifiers() {
        let good = Verifier::derive(b"x", b"salt", ROUNDS).to_string();
        for bad in [
            String::new(),
            "-".into(),
            "secret".into(),
            good.replace("256", "512"),
            good.replace("4096", "0"),
            good.replace("4096", "1000001"),
            good.replace("4096", "many"),
            good.replace(':', ";"),
            good.replace("c2FsdA==", ""),
            good.replace("c2FsdA==", "c2FsdA"),
            good.replace('=', ""),
            format!("{good}AAAA"),
            format!("{good} "),
        ] {
            assert_eq!(Verifier::read(&bad), None, "{bad}");
        }
        assert!(!Verifier::of_nobody([1; 32], ROUNDS).accepts(b""));
    }
}
