//! A login by SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's part. The client proves that it knows the password, and sends
//! neither the password nor anything that serves for another login. It costs the server some hashes, not thousands.
//!
//! ```text
//!  client-first  n,,n=user,r=<nonce of the client>
//!  server-first  r=<both nonces>,s=<salt>,i=<rounds>
//!  client-final  c=biws,r=<both nonces>,p=<proof>
//!  server-final  v=<signature of the server>
//! ```
//! A user that does not exist gets a salt as well, the same each time, and fails at the end.

use super::user::User;
use super::verifier::{HASH_LEN, Verifier, random};
use data_encoding::BASE64;
use std::fmt;
use std::sync::Arc;

/// Random bytes of the server's part of the nonce.
const NONCE_LEN: usize = 18;
/// The longest nonce of a client, in bytes.
const CLIENT_NONCE_MAX: usize = 256;

/// A login under way: the server waits for the client's final message.
pub struct Login {
    user: Option<Arc<User>>,
    verifier: Verifier,
    /// The head of the first message, which the client must repeat.
    head: String,
    /// Both nonces.
    nonce: String,
    /// What both sides have said so far, and sign: without the head, and without the final message.
    said: String,
}

/// Prints no verifier.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "login of {:?} by SCRAM", self.user)
    }
}

impl Login {
    /// Reads the client's first message. `look_up` finds the user of a name, and a verifier in any case. Returns the login,
    /// and the server's first message. None: the message is malformed, or wants what the server does not have.
    pub fn begin(
        message: &[u8],
        look_up: impl FnOnce(&[u8]) -> (Option<Arc<User>>, Verifier),
    ) -> Option<(Login, String)> {
        let nonce = BASE64.encode(&random::<NONCE_LEN>().ok()?);
        Login::begin_with(message, &nonce, look_up)
    }

    /// [`Login::begin`] with this part of the nonce.
    fn begin_with(
        message: &[u8],
        server_nonce: &str,
        look_up: impl FnOnce(&[u8]) -> (Option<Arc<User>>, Verifier),
    ) -> Option<(Login, String)> {
        let message = str::from_utf8(message).ok()?;
        let (binding, rest) = message.split_once(',')?;
        // `p=` would bind the login to a TLS channel.
        if binding != "n" && binding != "y" {
            return None;
        }
        let (acts_as, bare) = rest.split_once(',')?;
        let mut parts = bare.split(',');
        let name = parts.next()?.strip_prefix("n=")?;
        let client_nonce = parts.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce))?;
        // A user may act only as itself.
        if !acts_as.is_empty() && acts_as.strip_prefix("a=")? != name {
            return None;
        }
        let (user, verifier) = look_up(&unescape(name)?);
        let nonce = format!("{client_nonce}{server_nonce}");
        let reply = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.rounds);
        let head = message[..message.len() - bare.len()].to_owned();
        let said = format!("{bare},{reply}");
        Some((Login { user, verifier, head, nonce, said }, reply))
    }

    /// Reads the client's final message. Returns the user, and the server's final message. None: the client does not know the
    /// password.
    pub fn finish(self, message: &[u8]) -> Option<(Arc<User>, String)> {
        let message = str::from_utf8(message).ok()?;
        let (unproved, proof) = message.rsplit_once(",p=")?;
        let mut parts = unproved.split(',');
        let head = BASE64.decode(parts.next()?.strip_prefix("c=")?.as_bytes()).ok()?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        let proof: [u8; HASH_LEN] = BASE64.decode(proof.as_bytes()).ok()?.try_into().ok()?;
        let signed = format!("{},{unproved}", self.said);
        let signature = self.verifier.accepts_proof(signed.as_bytes(), &proof)?;
        let is_same = head == self.head.as_bytes() && nonce == self.nonce;
        let user = self.user.filter(|_| is_same)?;
        Some((user, format!("v={}", BASE64.encode(&signature))))
    }
}

/// Whether a nonce has only the bytes that it may have.
fn is_nonce(nonce: &str) -> bool {
    (1..=CLIENT_NONCE_MAX).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// A name as it was before `=2C` took the place of its commas, and `=3D` that of its equals signs.
fn unescape(name: &str) -> Option<Vec<u8>> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (byte, rest) =
            if let Some(rest) = part.strip_prefix("2C") { (',', rest) } else { ('=', part.strip_prefix("3D")?) };
        plain.push(byte);
        plain.push_str(rest);
    }
    (!plain.is_empty()).then(|| plain.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::user::{Rate, Rights, Tally};
    use crate::auth::verifier::ROUNDS;

    /// The example of RFC 7677, section 3.
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn look_up(name: &[u8]) -> (Option<Arc<User>>, Verifier) {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let verifier = Verifier::derive(b"pencil", &salt, ROUNDS);
        let user = User {
            name: "user".into(),
            verifier: Some(verifier.clone()),
            rights: Rights::READ,
            prefixes: Vec::new(),
            connections_max: None,
            rate: Rate::default(),
            tls_name: None,
            tally: Arc::new(Tally::new("user".into(), 0)),
        };
        match name {
            b"user" => (Some(Arc::new(user)), verifier),
            _ => (None, Verifier::of_nobody([7; 32], ROUNDS)),
        }
    }

    fn begin(message: &[u8]) -> Option<(Login, String)> {
        Login::begin_with(message, SERVER_NONCE, look_up)
    }

    #[test]
    fn the_example_of_the_standard() {
        let (login, reply) = begin(FIRST).expect("a good message");
        assert_eq!(reply, SERVER_FIRST);
        let (user, reply) = login.finish(FINAL.as_bytes()).expect("a good proof");
        assert_eq!((user.name.as_str(), reply.as_str()), ("user", SERVER_FINAL));
    }

    #[test]
    fn no_byte_of_the_final_message_can_be_changed() {
        for at in 0..FINAL.len() {
            let mut changed = FINAL.as_bytes().to_vec();
            changed[at] ^= 1;
            let (login, _) = begin(FIRST).expect("a good message");
            assert!(login.finish(&changed).is_none(), "byte {at}");
            let (login, _) = begin(FIRST).expect("a good message");
            assert!(login.finish(&FINAL.as_bytes()[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn a_user_that_does_not_exist_fails_at_the_end() {
        let (login, reply) = begin(b"n,,n=nobody,r=abc").expect("a good message");
        assert!(reply.starts_with("r=abc%hvY") && reply.ends_with(",s=BwcHBwcHBwcHBwcHBwcHBw==,i=4096"), "{reply}");
        assert!(login.finish(FINAL.as_bytes()).is_none());
    }

    #[test]
    fn other_first_messages_are_refused() {
        for message in [
            &b""[..],
            b"n,,",
            b"n,,n=user",
            b"n,,n=,r=abc",
            b"n,,n=user,r=",
            b"n,,n=us=er,r=abc",
            b"n,,n=user,r=a\x01c",
            b"n,,m=x,n=user,r=abc",
            b"n,a=other,n=user,r=abc",
            b"p=tls-exporter,,n=user,r=abc",
            b"\0user\0pencil",
            b"n,,n=\xff,r=abc",
        ] {
            assert!(begin(message).is_none(), "{}", message.escape_ascii());
        }
        for message in [&b"y,,n=user,r=abc"[..], b"n,a=user,n=user,r=abc", b"n,,n=user,r=abc,x=y"] {
            assert!(begin(message).is_some(), "{}", message.escape_ascii());
        }
        assert_eq!(unescape("a=2Cb=3D").as_deref(), Some(&b"a,b="[..]));
    }
}
