//! The packets that memcached answers otherwise than corecached. A row names its requests and versions as narrowly as
//! possible, and gives the reply that corecached must send. So it excuses nothing. The long run fails for a row that is
//! never used.

use super::frame::{HEADER_LEN, Request};
use super::generate::Setting;
use crate::server::Program;

pub(super) struct Difference {
    pub(super) reason: &'static str,
    /// The versions that differ.
    pub(super) of: &'static [Program],
    pub(super) rule: Rule,
}

pub(super) enum Rule {
    /// This is the reply, and the server closes the connection after it. The oracle does not ask memcached.
    Says(fn(&Request) -> Option<Vec<u8>>),
    /// The oracle asks memcached this request instead.
    Asks(fn(&Request) -> Option<Vec<u8>>),
    /// Changes memcached's reply.
    Rewrites { applies: fn(&Request, &Setting) -> bool, rewrite: fn(&Request, &[u8]) -> Vec<u8> },
}

const EVERY: &[Program] = &[Program::Memcached, Program::Newest];
const OLDER: &[Program] = &[Program::Memcached];

/// Names of statistics that only one version has.
pub(super) const NAMES: &[(&str, &str)] = &[("proxy_enabled proxy_uring_enabled", "Debian's 1.6.45 has a proxy")];

/// The table. The oracle applies all rows that concern a request, in this order.
pub(super) const DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "memcached takes as many bytes of what follows an unknown command along as that has of extras and key",
        of: EVERY,
        rule: Rule::Asks(|request| {
            let takes_along = request.is_unknown() && request.extras_len() + request.key_len() > 0;
            (takes_along && !request.is_last()).then(|| {
                let mut bytes = request.bytes[..HEADER_LEN].to_vec();
                bytes[2..5].fill(0);
                bytes[8..12].fill(0);
                bytes
            })
        }),
    },
    Difference {
        reason: "memcached says nothing of what is wrong with a header before extras and key are there, nor if they are more \
                 than it has room for",
        of: EVERY,
        rule: Rule::Rewrites {
            applies: |request, _| {
                let is_short = request.is_cut && !request.has_head();
                request.refusal().is_some() && (is_short || request.has_large_head())
            },
            rewrite: |request, reply| instead_of_nothing(reply, request, request.refusal().unwrap_or_default()),
        },
    },
    Difference {
        reason: "memcached says nothing of a command that it does not execute before the body is there, which nobody wants",
        of: EVERY,
        rule: Rule::Rewrites {
            applies: |request, setting| {
                let is_short = request.is_cut && request.refusal().is_none();
                let is_unwanted = || is_sasl(request) || is_set(request) && setting.is_too_large(request);
                is_short && (request.is_unknown() || request.has_head() && is_unwanted())
            },
            rewrite: |request, reply| instead_of_nothing(reply, request, if is_set(request) { 0x03 } else { 0x81 }),
        },
    },
    Difference {
        reason: "1.6.18 takes any body for one that may come",
        of: OLDER,
        rule: Rule::Says(|request| {
            let too_much = request.has_head() && request.body_len() > 1 << 30;
            request.refusal().filter(|_| too_much).map(|status| error(request, status))
        }),
    },
    Difference {
        reason: "1.6.18 is another version",
        of: OLDER,
        rule: Rule::Rewrites {
            applies: |request, _| request.opcode() == 0x0b && !request.is_last(),
            rewrite: |_, reply| [reply.strip_suffix(b"1.6.18").unwrap_or(reply), b"1.6.45"].concat(),
        },
    },
];

fn is_set(request: &Request) -> bool {
    matches!(request.opcode(), 0x01..=0x03 | 0x0e | 0x0f | 0x11..=0x13 | 0x19 | 0x1a)
}

fn is_sasl(request: &Request) -> bool {
    matches!(request.opcode(), 0x21 | 0x22)
}

fn instead_of_nothing(reply: &[u8], request: &Request, status: u16) -> Vec<u8> {
    if reply.is_empty() { error(request, status) } else { reply.to_vec() }
}

/// An error reply with this status.
fn error(request: &Request, status: u16) -> Vec<u8> {
    let message: &[u8] = match status {
        0x03 => b"Too large.",
        0x04 => b"Invalid arguments",
        _ => b"Unknown command",
    };
    let mut bytes = vec![0x81, request.opcode(), 0, 0, 0, 0];
    bytes.extend(status.to_be_bytes());
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(request.opaque().to_be_bytes());
    bytes.extend([0; 8]);
    [&bytes, message].concat()
}
