//! The line of a meta command: `mg`, `ms`, `md`, `ma`, `me`, their flags, and base64 keys.
//!
//! ```text
//! mg <key> <flag>*        ms <key> <length> <flag>*        a flag is a letter and, for some, its argument: T30
//! ```
//!
//! memcached checks a line in this order, and reports the first fault:
//! 1. a flag that starts with neither letter nor digit, a missing key, a bad length. Such a line has no known value, so
//!    the parser discards none;
//! 2. a key that is too long, too many tokens;
//! 3. the flags in their order. An unknown or repeated flag ends the check. Of several bad arguments, memcached reports
//!    the last;
//! 4. the mode of `ms` and `ma`, the length of the opaque.

use std::ops::Range;

use super::token::{self, KEY_LENGTH_MAX, TOKENS_MAX};
use super::{Operation, Span, Verb, flag};

/// Tokens that a meta command may have, with command, key and length.
const META_TOKENS_MAX: usize = 20;

/// Longest opaque token, with its `O`.
const OPAQUE_LENGTH_MAX: usize = 32;

pub(super) const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";
const BAD_KEY: &[u8] = b"CLIENT_ERROR error decoding key\r\n";
const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta value\r\n";
const BAD_INITIAL: &[u8] = b"CLIENT_ERROR invalid numeric initial value\r\n";
const BAD_MODE_SET: &[u8] = b"CLIENT_ERROR invalid mode for ms M token\r\n";
const BAD_MODE_ARITHMETIC: &[u8] = b"CLIENT_ERROR invalid mode for ma M token\r\n";
const DUPLICATE: &[u8] = b"CLIENT_ERROR duplicate flag\r\n";
const INVALID: &[u8] = b"CLIENT_ERROR invalid flag\r\n";
const INVALID_OR_DUPLICATE: &[u8] = b"CLIENT_ERROR invalid or duplicate flag\r\n";
const OPAQUE_TOO_LONG: &[u8] = b"CLIENT_ERROR opaque token too long\r\n";
const OPTIONS_TOO_LONG: &[u8] = b"CLIENT_ERROR options flags are too long\r\n";

/// The facts that a line gives besides those that [`read`] wrote into the operation.
pub(super) struct Header {
    /// `ms`: length of the value that follows, without its `\r\n`.
    pub(super) value_len: u32,
    /// Length of the key after decoding ([`decode_key`]).
    pub(super) key_len: usize,
}

/// The refusal of a line.
pub(super) struct Refusal {
    /// The reply.
    pub(super) text: &'static [u8],
    /// The number of bytes after the line that belong to a value, with its `\r\n`. The parser discards them.
    pub(super) swallow: u64,
}

/// Reads a line of the meta command `verb`: `range` of `input`, up to its newline. Fills in all of the operation except
/// its value. Checks a base64 key, but does not decode it.
pub(super) fn read(
    verb: Verb,
    input: &[u8],
    range: Range<usize>,
    operation: &mut Operation,
) -> Result<Header, Refusal> {
    // Keep the bytes behind the line, so that the search for tokens can read eight bytes at a time.
    let end = range.start + token::trim_return(&input[range.clone()]).len();
    let line = Line { bytes: input, end };
    *operation = Operation { verb, delta: 1, ..Operation::default() };
    let unframed = Refusal { text: BAD_FORMAT, swallow: 0 };
    let mut at = range.start + 2;
    let Some(key) = line.next(&mut at) else { return Err(unframed) };
    operation.key = Span::new(at - key.len(), at);
    let mut header = Header { value_len: 0, key_len: key.len() };
    let mut swallow = 0;
    let mut count = 2;
    if verb == Verb::MetaSet {
        let length = line.next(&mut at).and_then(token::value_length);
        let Some(length) = length else { return Err(unframed) };
        header.value_len = length;
        swallow = u64::from(length) + 2;
        count = 3;
    }

    at = token::skip_spaces(input, at);
    operation.tokens = Span::new(at, end);
    let flags_start = at;
    let mut fault = None;
    let mut opaque_len = 0;
    while count < TOKENS_MAX
        && let Some(token) = line.next(&mut at)
    {
        let letter = token[0];
        if !matches!(letter, b'A'..=b'z' | b'0'..=b'9') {
            return Err(unframed);
        }
        count += 1;
        if verb == Verb::MetaDebug || matches!(fault, Some(Fault::Flag(_))) {
            continue;
        }
        if letter == b'O' {
            opaque_len = token.len();
        }
        if let Err(later) = take(token, key, &mut header.key_len, operation) {
            fault = Some(later.after(fault));
        }
    }

    let refuse = |text| Err(Refusal { text, swallow });
    if key.len() > KEY_LENGTH_MAX {
        return refuse(if verb == Verb::MetaArithmetic { INVALID_OR_DUPLICATE } else { BAD_FORMAT });
    }
    if verb == Verb::MetaDebug {
        // `b` counts only when a token follows it; see the reference, "me details".
        if count >= 4 && line.next(&mut { flags_start }) == Some(b"b") {
            header.key_len = decoded_length(key).ok_or(Refusal { text: BAD_FORMAT, swallow })?;
            operation.flags = flag(b'b');
        }
        return Ok(header);
    }
    match check(verb, count, fault, opaque_len, operation.mode) {
        Ok(()) => {
            operation.quiet = operation.has(b'q');
            Ok(header)
        }
        Err(text) => refuse(text),
    }
}

/// Finds the fault to report of a line that has been read to its end.
#[inline]
fn check(verb: Verb, count: usize, fault: Option<Fault>, opaque_len: usize, mode: u8) -> Result<(), &'static [u8]> {
    let text = match fault {
        _ if count > META_TOKENS_MAX => OPTIONS_TOO_LONG,
        Some(Fault::Flag(text) | Fault::Argument(text)) => text,
        None => match mode_fault(verb, mode) {
            Some(text) => return Err(text),
            None if opaque_len > OPAQUE_LENGTH_MAX => return Err(OPAQUE_TOO_LONG),
            None => return Ok(()),
        },
    };
    Err(if verb == Verb::MetaArithmetic { INVALID_OR_DUPLICATE } else { text })
}

/// The error for a mode that `ms` or `ma` does not have.
fn mode_fault(verb: Verb, mode: u8) -> Option<&'static [u8]> {
    match (verb, mode) {
        (_, 0) => None,
        (Verb::MetaSet, b'S' | b'E' | b'A' | b'P' | b'R') => None,
        (Verb::MetaSet, _) => Some(BAD_MODE_SET),
        (Verb::MetaArithmetic, b'I' | b'+' | b'D' | b'-') => None,
        (Verb::MetaArithmetic, _) => Some(BAD_MODE_ARITHMETIC),
        _ => None,
    }
}

/// A fault of a flag, with its reply.
enum Fault {
    /// The flag does not exist, or the line has it twice. `read` skips the flags after it.
    Flag(&'static [u8]),
    /// The argument of the flag cannot be read.
    Argument(&'static [u8]),
}

impl Fault {
    /// The fault to report when this one comes after an `earlier` one.
    fn after(self, earlier: Option<Fault>) -> Fault {
        match self {
            // A bad `F` does not replace an earlier fault.
            Fault::Argument(BAD_FORMAT) => earlier.unwrap_or(self),
            _ => self,
        }
    }
}

/// Writes one flag, of at least one byte, into the operation. `key` is as sent.
fn take(token: &[u8], key: &[u8], key_len: &mut usize, operation: &mut Operation) -> Result<(), Fault> {
    let (letter, argument) = (token[0], &token[1..]);
    let bit = match letter {
        b'A'..=b'z' => flag(letter),
        _ => return Err(Fault::Flag(INVALID)),
    };
    if operation.flags & bit != 0 {
        return Err(Fault::Flag(DUPLICATE));
    }
    operation.flags |= bit;
    let bad_token = Fault::Argument(BAD_TOKEN);
    match letter {
        b'v' | b'f' | b'c' | b'k' | b'q' | b's' | b't' | b'u' | b'h' | b'l' | b'x' | b'I' | b'O' | b'P' | b'L' => {}
        b'T' => operation.exptime = token::digits_i32(argument).ok_or(bad_token)?,
        b'F' => operation.client_flags = token::digits_u32(argument).ok_or(Fault::Argument(BAD_FORMAT))?,
        // A lone `M` is an unknown mode.
        b'M' => operation.mode = argument.first().copied().unwrap_or(b' '),
        b'C' => operation.cas = token::digits_u64(argument).ok_or(bad_token)?,
        b'E' => operation.new_cas = token::digits_u64(argument).ok_or(bad_token)?,
        b'N' => operation.vivify = token::digits_i32(argument).ok_or(bad_token)?,
        b'R' => operation.recache = token::digits_i32(argument).ok_or(bad_token)?,
        b'D' => operation.delta = token::digits_u64(argument).ok_or(Fault::Argument(BAD_DELTA))?,
        b'J' => operation.initial = token::digits_u64(argument).ok_or(Fault::Argument(BAD_INITIAL))?,
        b'b' => *key_len = decoded_length(key).ok_or(Fault::Argument(BAD_KEY))?,
        _ => return Err(Fault::Flag(INVALID)),
    }
    Ok(())
}

/// A line within the request buffer: up to `end`, exclusive.
struct Line<'a> {
    bytes: &'a [u8],
    end: usize,
}

impl<'a> Line<'a> {
    /// Returns the token at or after `*at`, and moves `*at` past it.
    #[inline(always)]
    fn next(&self, at: &mut usize) -> Option<&'a [u8]> {
        let start = token::skip_spaces(self.bytes, *at);
        if start >= self.end {
            return None;
        }
        *at = token::find_end(self.bytes, start).min(self.end);
        self.bytes.get(start..*at)
    }
}

/// Decodes the key of a checked operation in place, if it is base64 (`b`). Call it only once, because it changes the
/// buffer.
pub(super) fn decode_key(input: &mut [u8], operation: &mut Operation) {
    if operation.has(b'b') {
        let start = operation.key.start as usize;
        let len = base64_decode(&mut input[start..start + operation.key.len as usize]);
        operation.key = Span::new(start, start + len);
    }
}

/// The length of `key` after decoding. `None`: it is not base64, or it is too long, and then another check refuses it.
fn decoded_length(key: &[u8]) -> Option<usize> {
    let mut copy = [0; KEY_LENGTH_MAX];
    let copy = copy.get_mut(..key.len())?;
    copy.copy_from_slice(key);
    Some(base64_decode(copy)).filter(|len| *len > 0)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes that the longest key needs in base64.
pub const BASE64_KEY_LENGTH_MAX: usize = KEY_LENGTH_MAX.div_ceil(3) * 4;

/// Writes `source` in base64 to the start of `out`, and returns the number of bytes written. `out` must have room: 4
/// bytes for every 3 bytes of `source`, rounded up.
pub fn base64_encode(source: &[u8], out: &mut [u8]) -> usize {
    let mut groups = 0;
    for (group, four) in source.chunks(3).zip(out.chunks_exact_mut(4)) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (index, slot) in four.iter_mut().enumerate() {
            *slot = if index > group.len() { b'=' } else { ALPHABET[(bits >> (18 - 6 * index)) as usize & 63] };
        }
        groups += 1;
    }
    groups * 4
}

/// Decodes base64 in place, and returns the number of decoded bytes, or 0 if the bytes are not base64. As memcached
/// does, it skips bytes outside of the alphabet and ignores everything after the padding. But the number of bytes in
/// the alphabet must be a multiple of four.
pub fn base64_decode(bytes: &mut [u8]) -> usize {
    let counted = bytes.iter().filter(|byte| base64_value(**byte).is_some()).count();
    if counted == 0 || counted % 4 != 0 {
        return 0;
    }
    let (mut bits, mut padding, mut gathered, mut len) = (0u32, 0, 0, 0);
    for at in 0..bytes.len() {
        let byte = bytes[at];
        let Some(value) = base64_value(byte) else { continue };
        padding += usize::from(byte == b'=');
        bits = bits << 6 | value;
        gathered += 1;
        if gathered % 4 == 0 {
            // Four bytes read give three bytes of result, so the result never passes `at`.
            let [_, three @ ..] = bits.to_be_bytes();
            bytes[len..len + 3].copy_from_slice(&three);
            len += 3;
            match padding {
                0 => {}
                1 | 2 => return len - padding,
                _ => return 0,
            }
        }
    }
    len
}

/// The six bits that a byte of base64 stands for. Padding stands for zeros.
fn base64_value(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        b'=' => 0,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of `line`: the given fields, or the error and the number of bytes to discard.
    fn outcome(line: &str) -> String {
        let verb = match &line.as_bytes()[..2] {
            b"mg" => Verb::MetaGet,
            b"ms" => Verb::MetaSet,
            b"md" => Verb::MetaDelete,
            b"ma" => Verb::MetaArithmetic,
            _ => Verb::MetaDebug,
        };
        let mut buffer = format!("???{line}\r\n").into_bytes();
        let mut op = Operation { cas: 99, text: b"left over", flags: !0, ..Operation::default() };
        match read(verb, &buffer, 3..buffer.len() - 1, &mut op) {
            Err(Refusal { text, swallow }) => {
                let text = String::from_utf8_lossy(text);
                let text = text.trim_end().trim_start_matches("CLIENT_ERROR ");
                if swallow > 0 { format!("{text}, {swallow}") } else { text.to_owned() }
            }
            Ok(header) => {
                assert_eq!((op.verb, op.text, op.too_large, op.value), (verb, &b""[..], false, Span::default()));
                let tokens = String::from_utf8_lossy(op.tokens.of(&buffer)).into_owned();
                decode_key(&mut buffer, &mut op);
                assert_eq!(op.key.len as usize, header.key_len);
                let mut said = format!("{} [{tokens}]", op.key.of(&buffer).escape_ascii());
                for (letter, value) in [
                    ('T', i64::from(op.exptime)),
                    ('N', i64::from(op.vivify)),
                    ('R', i64::from(op.recache)),
                    ('F', i64::from(op.client_flags)),
                    ('C', op.cas as i64),
                    ('E', op.new_cas as i64),
                    ('J', op.initial as i64),
                    ('D', op.delta as i64 - 1),
                    ('M', i64::from(op.mode)),
                ] {
                    if value != 0 {
                        assert!(op.has(letter as u8));
                        said += &format!(" {letter}={value}");
                    }
                }
                said + if op.quiet { " quiet" } else { "" }
                    + &if verb == Verb::MetaSet { format!(" +{}", header.value_len) } else { String::new() }
            }
        }
    }

    #[track_caller]
    fn check(conversation: &str) {
        let mut lines = conversation.lines().map(str::trim).filter(|line| !line.is_empty());
        while let (Some(line), Some(want)) = (lines.next(), lines.next()) {
            assert_eq!(outcome(line), want, "{line:?}");
        }
    }

    /// The errors are those of memcached 1.6.18, except where 1.6.45 is known to differ.
    #[test]
    fn lines() {
        check(
            "mg
             bad command line format
             mg a
             a []
             mg  a  v  t
             a [v  t]
             mg a v v
             duplicate flag
             mg a vv
             a [vv]
             mg a !
             bad command line format
             mg a v \u{e9}
             bad command line format
             mg a z v v
             invalid flag
             mg a S1
             invalid flag
             mg a 1
             invalid flag
             mg a _
             invalid flag
             mg a N
             bad token in command line format
             mg a N v
             bad token in command line format
             mg a Nx z
             invalid flag
             mg a Dx
             invalid numeric delta value
             mg a Jx
             invalid numeric initial value
             mg a Fx
             bad command line format
             mg a Fx Dx
             invalid numeric delta value
             mg a Dx Fx
             invalid numeric delta value
             mg a Nx Dx
             invalid numeric delta value
             mg a Dx Nx
             bad token in command line format
             mg a Cx
             bad token in command line format
             mg a E-1
             bad token in command line format
             mg a M
             a [M] M=32
             mg a MXX P1 Lx x
             a [MXX P1 Lx x] M=88
             mg a N5 T-6 R7 F8 C9 E10 J11 D12 O13 q k
             a [N5 T-6 R7 F8 C9 E10 J11 D12 O13 q k] T=-6 N=5 R=7 F=8 C=9 E=10 J=11 D=11 quiet
             md a q z
             invalid flag
             ma a q z
             invalid or duplicate flag
             ma a Dx
             invalid or duplicate flag
             ma a MX
             invalid mode for ma M token
             ma a M
             invalid mode for ma M token
             ma a Mi
             invalid mode for ma M token
             ma a M-x
             a [M-x] M=45",
        );
    }

    #[test]
    fn values() {
        check(
            "ms
             bad command line format
             ms a
             bad command line format
             ms a x
             bad command line format
             ms a S1
             bad command line format
             ms a -1
             bad command line format
             ms a 2147483646
             bad command line format
             ms a b 1
             bad command line format
             ms a 1 !
             bad command line format
             ms a 1
             a [] +1
             ms a 2147483645 v q
             a [v q] quiet +2147483645
             ms a 1 z
             invalid flag, 3
             ms a 1 MX
             invalid mode for ms M token, 3
             ms a 1 M
             invalid mode for ms M token, 3
             ms a 1 Ms
             invalid mode for ms M token, 3
             ms a 1 Tx MX
             bad token in command line format, 3
             ms a 1 b
             error decoding key, 3
             ms YQ== 1 ME b
             a [ME b] M=69 +1
             ms a 10 Fx
             bad command line format, 12",
        );
    }

    #[test]
    fn limits() {
        let (most, more) = ("k".repeat(250), "k".repeat(251));
        assert_eq!(outcome(&format!("mg {most} v")), format!("{most} [v]"));
        assert_eq!(outcome(&format!("mg {more} v v")), "bad command line format");
        assert_eq!(outcome(&format!("me {more}")), "bad command line format");
        assert_eq!(outcome(&format!("ma {more}")), "invalid or duplicate flag");
        assert_eq!(outcome(&format!("mg {more} b")), "bad command line format");
        assert_eq!(outcome(&format!("ms {more} 7")), "bad command line format, 9");
        let (most, more) = (format!("O{}", "1".repeat(31)), format!("O{}", "1".repeat(32)));
        assert_eq!(outcome(&format!("mg a {most}")), format!("a [{most}]"));
        assert_eq!(outcome(&format!("mg a {more} k")), "opaque token too long");
        assert_eq!(outcome(&format!("mg a {more} z")), "invalid flag");
        assert_eq!(outcome(&format!("ms a 2 {more}")), "opaque token too long, 4");
        let flags = "v f c k q s t u h l x I O P L b T1 F1";
        assert_eq!(outcome(&format!("md aaaa {flags}")), format!("i\\xa6\\x9a [{flags}] T=1 F=1 quiet"));
        assert_eq!(outcome(&format!("md aaaa {flags} C1")), "options flags are too long");
        assert_eq!(outcome(&format!("md aaaa {flags} v")), "options flags are too long");
        assert_eq!(outcome(&format!("ma aaaa {flags} v")), "invalid or duplicate flag");
        assert_eq!(outcome(&format!("md aaaa {flags} C E !")), "bad command line format");
        assert_eq!(outcome(&format!("md aaaa {flags} C E J !")), "options flags are too long");
    }

    /// `b` counts only if another token follows.
    #[test]
    fn debug() {
        check(
            "me
             bad command line format
             me a
             a []
             me YQ== b
             YQ== [b]
             me YQ== b v
             a [b v]
             me YQ== v b
             YQ== [v b]
             me a b v
             bad command line format
             me a z z z
             a [z z z]",
        );
    }

    #[test]
    fn base64() {
        #[track_caller]
        fn check(encoded: &str, want: &[u8]) {
            let mut bytes = encoded.as_bytes().to_vec();
            let len = base64_decode(&mut bytes);
            assert_eq!(&bytes[..len], want, "{encoded:?}");
        }
        check("", b"");
        check("a", b"");
        check("YQ==", b"a");
        check("YWI=", b"ab");
        check("YWJj", b"abc");
        check("YWJjZA==", b"abcd");
        check("Y!W J\njZA==", b"abcd");
        check("YQ==YQ==", b"a");
        check("YQ==YQ=", b"");
        check("=QQQ", b"\x01\x04");
        check("Y===", b"");
        check("====", b"");
        for len in 0..=KEY_LENGTH_MAX {
            let source: Vec<u8> = (0..len).map(|index| (index * 37 + len) as u8).collect();
            let mut out = [0; BASE64_KEY_LENGTH_MAX];
            let written = base64_encode(&source, &mut out);
            check(std::str::from_utf8(&out[..written]).expect("base64 is ASCII"), &source);
        }
    }
}
