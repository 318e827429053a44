//! Requests of the usual form, which are most of all requests, in one pass. What is not of that form is left alone: the
//! parser of [`text`](super::text) reads it, and knows all rules.

use super::token::{KEY_LENGTH_MAX, find_low};
use super::{Operation, PlainKey, Span, Verb, flag};
use std::ops::ControlFlow;

/// See [`Parse::plain_keys`](super::Parse::plain_keys). `in_list`: a key comes next, behind another one of its list. Its
/// keys are plain because all of them were checked before the first one was handed out, or because they come in parts.
/// Says whether that list, or another command, has ended.
#[inline(never)]
pub(super) fn keys(
    mut in_list: bool,
    input: &[u8],
    at: &mut usize,
    mut take: impl FnMut(PlainKey) -> ControlFlow<()>,
) -> bool {
    let mut ended = false;
    loop {
        let start = match input.get(*at..) {
            _ if in_list => *at,
            Some([b'g', b'e', b't', b' ', ..]) => *at + 4,
            _ => return ended,
        };
        let end = find_low(input, start);
        if !(1..=KEY_LENGTH_MAX).contains(&(end - start)) {
            return ended;
        }
        let is_last = match input.get(end..) {
            Some([b' ', ..]) if in_list => false,
            Some([b'\r', b'\n', ..]) => true,
            _ => return ended,
        };
        *at = end + 1;
        if is_last {
            *at = end + 2;
            in_list = false;
            ended = true;
        }
        if take(PlainKey { key: Span::new(start, end), is_last }).is_break() {
            return ended;
        }
    }
}

/// Flags of `mg` without an argument that a plain line may have.
const PLAIN_FLAGS: u64 = flag(b'c')
    | flag(b'f')
    | flag(b'h')
    | flag(b'k')
    | flag(b'l')
    | flag(b'q')
    | flag(b's')
    | flag(b't')
    | flag(b'u')
    | flag(b'v');

/// Reads the `mg` at `start` if it is of the usual form: single spaces, and flags without arguments, each once. Gives the
/// place behind the line. `None` says nothing about it, not even that it is complete.
#[inline]
pub(super) fn meta_get(input: &[u8], start: usize, operation: &mut Operation) -> Option<usize> {
    let key_start = start + b"mg ".len();
    let key_end = find_low(input, key_start);
    if !(1..=KEY_LENGTH_MAX).contains(&(key_end - key_start)) {
        return None;
    }
    let mut flags = 0;
    let mut at = key_end;
    let after = loop {
        match input.get(at..)? {
            [b' ', letter @ b'c'..=b'v', ..] if PLAIN_FLAGS & !flags & flag(*letter) != 0 => flags |= flag(*letter),
            [b'\r', b'\n', ..] => break at + 2,
            _ => return None,
        }
        at += 2;
    };
    operation.verb = Verb::MetaGet;
    operation.quiet = flags & flag(b'q') != 0;
    operation.mode = 0;
    operation.too_large = false;
    operation.key = Span::new(key_start, key_end);
    operation.tokens = Span::new((key_end + 1).min(at), at);
    operation.flags = flags;
    operation.client_flags = 0;
    operation.exptime = 0;
    operation.cas = 0;
    Some(after)
}
