//! Authentication: a client logs in with SASL in packets (`-S`, `--users`) or with a `set` (`-Y`, `--users`). The outcome is
//! the access that the connection has from then on, and with `--users` the user that it is.
//!
//! With `--users` a password that is not remembered takes milliseconds to check. The action is then [`Action::Check`], and the
//! connection waits.

use super::context::ServerContext;
use super::login_reply::{AUTHENTICATED, LoginEnd, LoginForm};
use super::query::Action;
use crate::auth::directory::{Directory, Shown};
use crate::auth::{scram, verifier};
use crate::protocol::binary::Access;
use crate::protocol::encode::Output;
use crate::protocol::packet::{self, Head, Status, opcode};

/// The mechanism that every server offers (RFC 4616).
const PLAIN: &[u8] = b"PLAIN";
/// The one that a server with `--users` offers besides.
const SCRAM: &[u8] = verifier::MECHANISM.as_bytes();

/// A request of SASL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) head: Head,
    pub(crate) mechanism: &'a [u8],
    pub(crate) message: &'a [u8],
}

/// `-Y`, `--users`: reads the data block of a `set`. A password may contain spaces, a name may not.
pub fn plan(block: &[u8], context: &ServerContext<'_>) -> Action {
    let Some(space) = block.iter().position(|&byte| byte == b' ') else {
        return Action::Say(b"CLIENT_ERROR bad authentication token format\r\n".to_vec());
    };
    let (user, password) = (&block[..space], &block[space + 1..]);
    if let Some(users) = context.auth.and_then(|auth| auth.users()) {
        return show(users, user, password, LoginForm::Text);
    }
    if is_let_in(Some((user, password)), context) {
        Action::Access(Access::Granted, LoginForm::Text.reply(LoginEnd::Granted(b"")))
    } else {
        Action::Say(LoginForm::Text.reply(LoginEnd::Refused))
    }
}

/// Shows a name and a password to the users of `--users`.
fn show(users: &Directory, name: &[u8], password: &[u8], form: LoginForm) -> Action {
    match users.show(name, password) {
        Shown::Known(user) => Action::Enter { user: Some(user), form, body: AUTHENTICATED.to_vec() },
        Shown::Unknown(attempt) => Action::Check(attempt, form),
    }
}

/// Whether a user of `-Y` or `-S` has this password. `None`: the message gave no name and password. The function counts every
/// attempt.
fn is_let_in(user_and_password: Option<(&[u8], &[u8])>, context: &ServerContext<'_>) -> bool {
    let known = user_and_password.zip(context.auth).is_some_and(|((user, password), auth)| auth.knows(user, password));
    count(known, context);
    known
}

/// Counts an attempt to log in.
pub fn count(succeeds: bool, context: &ServerContext<'_>) {
    let counters = &context.workers[context.worker];
    counters.auth_cmds.add(1);
    counters.auth_errors.add(u64::from(!succeeds));
}

/// `-S`, `--users`: handles a request with a mechanism and the client's message. `login` is the login by SCRAM that is under
/// way on this connection.
pub(crate) fn sasl(
    request: Request<'_>,
    access: Access,
    login: &mut Option<Box<scram::Login>>,
    context: &ServerContext<'_>,
) -> Action {
    let Request { head, mechanism, message } = request;
    let mut out = Output::default();
    let begins = head.opcode == opcode::SASL_AUTH;
    let users = context.auth.and_then(|auth| auth.users());
    let is = |name: &[u8]| mechanism.eq_ignore_ascii_case(name);
    let under_way = login.take().filter(|_| !begins);
    // As in memcached, the server asks a client with an empty message to continue.
    if begins && message.is_empty() && (is(PLAIN) || is(SCRAM) && users.is_some()) {
        packet::message(&mut out, head, Status::AUTH_CONTINUE, b"");
        return Action::Access(Access::Begun, out.take());
    }
    let Some(users) = users else { return plain_sasl(request, access, context) };
    let may = begins || access == Access::Begun;
    let form = LoginForm::Packet(head);
    let refused = Action::Enter { user: None, form, body: Vec::new() };
    if let Some(under_way) = under_way.filter(|_| may) {
        return match under_way.finish(message) {
            Some((user, body)) => Action::Enter { user: Some(user), form, body: body.into_bytes() },
            None => refused,
        };
    }
    if is(SCRAM) && may {
        let Some((begun, reply)) = scram::Login::begin(message, |name| users.look_up(name)) else { return refused };
        *login = Some(Box::new(begun));
        packet::message(&mut out, head, Status::AUTH_CONTINUE, reply.as_bytes());
        return Action::Access(Access::Begun, out.take());
    }
    match plain(message).filter(|_| is(PLAIN) && may) {
        Some((name, password)) => show(users, name, password, form),
        None => refused,
    }
}

/// PLAIN with the users of `-S`.
fn plain_sasl(request: Request<'_>, access: Access, context: &ServerContext<'_>) -> Action {
    let Request { head, mechanism, message } = request;
    let begins = head.opcode == opcode::SASL_AUTH;
    let may = if begins { mechanism.eq_ignore_ascii_case(PLAIN) } else { access == Access::Begun };
    let form = LoginForm::Packet(head);
    if is_let_in(plain(message).filter(|_| may), context) {
        return Action::Access(Access::Granted, form.reply(LoginEnd::Granted(AUTHENTICATED)));
    }
    // A client that had access and fails loses it.
    Action::Access(Access::Locked, form.reply(LoginEnd::Refused))
}

/// Reads user and password from a message of PLAIN: `[user to act as]\0user\0password`. A user may act only as itself.
fn plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = message.split(|&byte| byte == 0);
    let (acts_as, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let user = user.trim_ascii();
    let is_self = acts_as.is_empty() || acts_as.trim_ascii() == user;
    (parts.next().is_none() && is_self && !user.is_empty() && !password.is_empty()).then_some((user, password))
}

/// Replies with the names of all mechanisms, one space between, the best first.
pub(crate) fn mechanisms(head: Head, context: &ServerContext<'_>) -> Action {
    let has_users = context.auth.is_some_and(|auth| auth.users().is_some());
    let names = if has_users { [SCRAM, b" ", PLAIN].concat() } else { PLAIN.to_vec() };
    let mut out = Output::default();
    packet::success(&mut out, head, &names, 0);
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
