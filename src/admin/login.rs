//! Authentication: a client logs in with SASL in packets (`-S`) or with a `set` (`-Y`). The outcome is the access that
//! the connection has from then on.

use super::context::ServerContext;
use super::query::Action;
use crate::protocol::binary::Access;
use crate::protocol::encode::Output;
use crate::protocol::packet::{self, Head, Status, opcode};

/// The only mechanism that the server offers (RFC 4616).
const MECHANISM: &[u8] = b"PLAIN";

/// `-Y`: reads the data block of a `set`. A password may contain spaces, a name may not.
pub fn plan(block: &[u8], context: &ServerContext<'_>) -> Action {
    let Some(space) = block.iter().position(|&byte| byte == b' ') else {
        return Action::Say(b"CLIENT_ERROR bad authentication token format\r\n".to_vec());
    };
    if is_let_in(Some((&block[..space], &block[space + 1..])), context) {
        Action::Access(Access::Granted, b"STORED\r\n".to_vec())
    } else {
        Action::Say(b"CLIENT_ERROR authentication failure\r\n".to_vec())
    }
}

/// Whether a user has this password. `None`: the message gave no name and password. The function counts every attempt.
fn is_let_in(user_and_password: Option<(&[u8], &[u8])>, context: &ServerContext<'_>) -> bool {
    let known = user_and_password.zip(context.auth).is_some_and(|((user, password), auth)| auth.knows(user, password));
    let counters = &context.workers[context.worker];
    counters.auth_cmds.add(1);
    counters.auth_errors.add(u64::from(!known));
    known
}

/// `-S`: handles a request with a mechanism and the client's message.
pub(crate) fn sasl(
    head: Head,
    mechanism: &[u8],
    message: &[u8],
    access: Access,
    context: &ServerContext<'_>,
) -> Action {
    let mut out = Output::default();
    let begins = head.opcode == opcode::SASL_AUTH;
    // As in memcached, the server asks a client with an empty message to continue.
    if begins && message.is_empty() && mechanism.eq_ignore_ascii_case(MECHANISM) {
        packet::message(&mut out, head, Status::AUTH_CONTINUE, b"");
        return Action::Access(Access::Begun, out.take());
    }
    let may = if begins { mechanism.eq_ignore_ascii_case(MECHANISM) } else { access == Access::Begun };
    if is_let_in(plain(message).filter(|_| may), context) {
        packet::success(&mut out, head, b"Authenticated", 0);
        return Action::Access(Access::Granted, out.take());
    }
    packet::failure(&mut out, head, Status::AUTH_ERROR);
    // A client that had access and fails loses it.
    Action::Access(Access::Locked, out.take())
}

/// Reads user and password from a message of PLAIN: `[user to act as]\0user\0password`. A user may act only as itself.
fn plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = message.split(|&byte| byte == 0);
    let (acts_as, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let user = user.trim_ascii();
    let is_self = acts_as.is_empty() || acts_as.trim_ascii() == user;
    (parts.next().is_none() && is_self && !user.is_empty() && !password.is_empty()).then_some((user, password))
}

/// Replies with the names of all mechanisms, one space between.
pub(crate) fn mechanisms(head: Head) -> Action {
    let mut out = Output::default();
    packet::success(&mut out, head, MECHANISM, 0);
    Action::Say(out.take())
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn plain_has_three_parts() {
        for (message, expected) in [
            (&b"\0user\0secret"[..], Some((&b"user"[..], &b"secret"[..]))),
            (b"user\0user\0secret", Some((b"user", b"secret"))),
            (b"\0 user \0 secret ", Some((b"user", b" secret "))),
            (b"other\0user\0secret", None),
            (b"\0user\0", None),
            (b"\0user", None),
            (b"\0\0secret", None),
            (b"\0user\0secret\0", None),
            (b"\0user\0sec\0ret", None),
            (b"", None),
        ] {
            assert_eq!(plain(message), expected, "{}", message.escape_ascii());
        }
    }
}
