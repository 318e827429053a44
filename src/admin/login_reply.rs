//! The replies to attempts to log in.

use crate::protocol::encode::Output;
use crate::protocol::packet::{self, Head, Status};

/// How a client has asked to log in, and so the form of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginForm {
    /// By a `set`.
    Text,
    /// By a packet with this head.
    Packet(Head),
}

/// How an attempt to log in ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginEnd<'a> {
    /// The client is let in. A packet has this body.
    Granted(&'a [u8]),
    /// It is not.
    Refused,
    /// The user has as many connections as it may have.
    Crowded,
}

impl LoginForm {
    /// The reply to an attempt.
    pub fn reply(self, end: LoginEnd<'_>) -> Vec<u8> {
        let LoginForm::Packet(head) = self else {
            return match end {
                LoginEnd::Granted(_) => b"STORED\r\n".to_vec(),
                LoginEnd::Refused => b"CLIENT_ERROR authentication failure\r\n".to_vec(),
                LoginEnd::Crowded => b"ERROR Too many open connections\r\n".to_vec(),
            };
        };
        let mut out = Output::default();
        match end {
            LoginEnd::Granted(body) => packet::success(&mut out, head, body, 0),
            LoginEnd::Refused => packet::failure(&mut out, head, Status::AUTH_ERROR),
            LoginEnd::Crowded => packet::message(&mut out, head, Status::AUTH_ERROR, b"Too many open connections"),
        }
        out.take()
    }
}

/// The body of a packet that lets a client in.
pub const AUTHENTICATED: &[u8] = b"Authenticated";
