//! `-vv`: what clients ask for, a line each on standard error, as memcached prints it.

use crate::protocol::parser::Parser;
use crate::protocol::{Operation, Verb};

/// Bytes of a request that are shown.
const SHOWN_MAX: usize = 1024;

/// Whether requests are to be told: asked once in a turn.
pub(super) fn is_on() -> bool {
    log::log_enabled!(log::Level::Debug)
}

/// One line of a client's, or one packet's key.
pub(super) fn request(fd: i32, text: &[u8]) {
    let text = &text[..text.len().min(SHOWN_MAX)];
    log::debug!("<{fd} {}", text.trim_ascii_end().escape_ascii());
}

/// The requests of a group: `lines` is the part of the input that it was parsed from, `from` where that begins.
#[cold]
#[inline(never)]
pub(super) fn group(fd: i32, parser: &Parser, operations: &[Operation], input: &[u8], from: usize, to: usize) {
    if matches!(parser, Parser::Binary(_)) {
        for operation in operations.iter().filter(|operation| !matches!(operation.verb, Verb::Say | Verb::BinarySay)) {
            request(fd, &[format!("{:?} ", operation.verb).as_bytes(), operation.key.of(input)].concat());
        }
        return;
    }
    let mut at = from;
    while at < to {
        let end = memchr::memchr(b'\n', &input[at..to]).map_or(to, |len| at + len + 1);
        request(fd, &input[at..end]);
        at = end;
        // Values are not lines.
        let value = operations.iter().find(|it| it.verb.is_storage() && it.value.start as usize == at);
        at += value.map_or(0, |operation| operation.value.len as usize + 2);
    }
}
