//! Tokens of a request line, and the numbers in them.
//!
//! A token is a run of bytes other than spaces. A line is the bytes before `\n`, without one `\r` at their end. Only
//! spaces separate tokens: tabs, control bytes and NUL are part of a token, as in memcached's tokeniser.
//!
//! memcached reads a number in one of two ways, so what a client may send depends on the place of the number. `strto_*`
//! reads a token as C's `strtoul` does (leading blanks, `+`, a tail after a tab). It serves client flags and exptime of
//! the classic storage commands, and values that commands compute with. `digits_*` accepts digits only, and serves all
//! other numbers.

/// Longest key in bytes, before base64 is decoded.
pub const KEY_LENGTH_MAX: usize = 250;

/// The parser reads this many tokens of a line and ignores the rest. The keys of a `get` have no such limit.
pub const TOKENS_MAX: usize = 23;

/// The position of the first space or control byte in `bytes`, from `from` on, or `bytes.len()`. Such a byte ends a
/// key. The search reads eight bytes at a time, and checks the bounds once for the first four of these words.
#[inline(always)]
pub fn find_low(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    if let Some(words) = bytes.get(at..).and_then(|rest| rest.first_chunk::<32>()) {
        for (number, word) in words.as_chunks::<8>().0.iter().enumerate() {
            if let Some(low) = first_low(*word) {
                return at + number * 8 + low;
            }
        }
        at += 32;
    }
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        if let Some(low) = first_low(*word) {
            return at + low;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| *byte > b' ') {
        at += 1;
    }
    at
}

/// The place of the first byte below 0x21.
#[inline(always)]
fn first_low(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let word = u64::from_le_bytes(word);
    // The top bit of each byte below 0x21 is set; a borrow can only spoil bytes after the first one.
    let low = word.wrapping_sub(ONES * 0x21) & !word & (ONES << 7);
    if low == 0 { None } else { Some(low.trailing_zeros() as usize / 8) }
}

/// The end of the token that starts at `from`: the next space or newline, or `bytes.len()`.
#[inline]
pub fn find_end(bytes: &[u8], from: usize) -> usize {
    let mut at = find_low(bytes, from);
    while bytes.get(at).is_some_and(|byte| *byte != b' ' && *byte != b'\n') {
        at = find_low(bytes, at + 1);
    }
    at
}

/// The end of the token of a line that starts at `from`: the next space, or `line.len()`.
#[inline]
pub fn find_space(line: &[u8], from: usize) -> usize {
    line.get(from..).and_then(|rest| memchr::memchr(b' ', rest)).map_or(line.len(), |length| from + length)
}

/// The position of the first byte other than a space, from `from` on.
#[inline]
pub fn skip_spaces(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while bytes.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// A line without its terminator. The caller gives the bytes before its `\n`.
#[inline]
pub fn trim_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The start of the next line, if a terminator (`\n` or `\r\n`) stands at `at`.
#[inline(always)]
pub fn after_terminator(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at..)? {
        [b'\r', b'\n', ..] => Some(at + 2),
        [b'\n', ..] => Some(at + 1),
        _ => None,
    }
}

/// The first [`TOKENS_MAX`] tokens of a line.
pub struct Tokens<'a> {
    tokens: [&'a [u8]; TOKENS_MAX],
    /// Invariant: count <= TOKENS_MAX
    count: usize,
}

impl<'a> Tokens<'a> {
    /// Splits `line`, which has no terminator.
    pub fn new(line: &'a [u8]) -> Tokens<'a> {
        let mut split = Tokens { tokens: [&[]; TOKENS_MAX], count: 0 };
        let mut at = 0;
        for slot in &mut split.tokens {
            let start = skip_spaces(line, at);
            at = find_space(line, start);
            if start == at {
                break;
            }
            *slot = &line[start..at];
            split.count += 1;
        }
        split
    }

    /// The tokens, in their order.
    pub fn all(&self) -> &[&'a [u8]] {
        &self.tokens[..self.count]
    }

    /// Whether the last token is exactly `noreply`.
    pub fn noreply(&self) -> bool {
        self.all().last() == Some(&&b"noreply"[..])
    }
}

/// Reads a number as memcached's `safe_strtoull` does. Blanks and a sign may precede it. A blank (tab, `\r` …) or a NUL
/// may follow it, and then anything. As in C, a negative number wraps round. It counts if the result is less than 2⁶³.
pub fn strto_u64(token: &[u8]) -> Option<u64> {
    let (negative, magnitude) = strto(token)?;
    let value = if negative { magnitude.wrapping_neg() } else { magnitude };
    if value > i64::MAX as u64 && token.contains(&b'-') { None } else { Some(value) }
}

/// Reads a number as memcached's `safe_strtoul` does where `long` has 64 bits. A number that is too large for 32 bits
/// loses its upper half.
pub fn strto_u32(token: &[u8]) -> Option<u32> {
    strto_u64(token).map(|value| value as u32)
}

/// Reads a number as memcached's `safe_strtol` does where `long` has 64 bits. A number that is too large for 32 bits
/// loses its upper half.
pub fn strto_i32(token: &[u8]) -> Option<i32> {
    let (negative, magnitude) = strto(token)?;
    let value = if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
    value.map(|value| value as i32)
}

/// Sign and magnitude of the number at the start of a token. `None`: the token has no number there, or has a tail, or
/// the number does not fit in 64 bits.
fn strto(token: &[u8]) -> Option<(bool, u64)> {
    // The usual form: digits, too few to overflow.
    if token.len() <= DIGITS_MAX
        && let Some(value) = sum(token)
    {
        return Some((false, value));
    }
    let start = token.iter().position(|byte| !is_c_space(*byte))?;
    let (negative, digits) = match &token[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // A NUL ends a text in C.
    let ended = digits.get(count).is_none_or(|byte| *byte == 0 || is_c_space(*byte));
    sum(&digits[..count]).filter(|_| ended).map(|magnitude| (negative, magnitude))
}

/// C's `isspace` in the C locale.
fn is_c_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The number that `digits` stand for. `None`: they are empty, contain another byte, or stand for too large a number.
fn sum(digits: &[u8]) -> Option<u64> {
    let mut sum = 0u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum = sum.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if digits.is_empty() { None } else { Some(sum) }
}

/// Longest token that the `digits_*` functions of 32 bits accept, sign included.
const DIGITS_MAX: usize = 11;
/// The same for 64 bits.
const DIGITS_MAX_U64: usize = 22;

/// Reads digits only, at most 22, no more than 2⁶⁴ − 1 (memcached's `mcmc_token_get_u64`).
pub fn digits_u64(token: &[u8]) -> Option<u64> {
    if token.len() > DIGITS_MAX_U64 {
        return None;
    }
    sum(token)
}

/// Reads digits only, at most 11, no more than 2³² − 1 (memcached's `mcmc_token_get_u32`).
pub fn digits_u32(token: &[u8]) -> Option<u32> {
    if token.len() > DIGITS_MAX {
        return None;
    }
    sum(token).and_then(|value| u32::try_from(value).ok())
}

/// Reads an optional `-` and digits only, at most 11 bytes, within 32 bits. A lone `-` is a zero (memcached's
/// `mcmc_token_get_32`).
pub fn digits_i32(token: &[u8]) -> Option<i32> {
    if token.len() > DIGITS_MAX {
        return None;
    }
    let (negative, digits) = match token {
        b"-" => return Some(0),
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let magnitude = i64::from(digits_u32(digits)?);
    i32::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Reads the length of a value: [`digits_i32`], not negative, and small enough that value and `\r\n` fit in an `i32`.
pub fn value_length(token: &[u8]) -> Option<u32> {
    digits_i32(token).and_then(|value| u32::try_from(value).ok()).filter(|value| *value <= VALUE_LENGTH_MAX)
}

/// Longest length of a value that a client may announce. The limit of an item is another one.
pub const VALUE_LENGTH_MAX: u32 = i32::MAX as u32 - 2;

/// Reads the digits at `*at`, and moves `*at` past them. It serves headers in their usual form. `None` (no digit, or
/// more than a length may have) tells the caller to parse again by the slower path, which knows all rules.
#[inline(always)]
pub fn plain_digits(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let start = *at;
    let mut value = 0u64;
    while let Some(digit) = bytes.get(*at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        // Overflow is harmless: the check below refuses so many digits.
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        *at += 1;
    }
    if (1..=DIGITS_MAX).contains(&(*at - start)) { Some(value) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        #[track_caller]
        fn check(token: &str, u64: Option<u64>, i32: Option<i32>, digits: Option<i32>) {
            let bytes = token.as_bytes();
            assert_eq!((strto_u64(bytes), strto_i32(bytes), digits_i32(bytes)), (u64, i32, digits), "{token:?}");
            assert_eq!(strto_u32(bytes), u64.map(|value| value as u32), "{token:?}");
        }
        check("0", Some(0), Some(0), Some(0));
        check("17", Some(17), Some(17), Some(17));
        check("", None, None, None);
        check("x", None, None, None);
        check("1x", None, None, None);
        check("-", None, None, Some(0));
        check("+", None, None, None);
        check("--1", None, None, None);
        check(" 1", Some(1), Some(1), None);
        check("\t1", Some(1), Some(1), None);
        check("1\tx", Some(1), Some(1), None);
        check("1\0x", Some(1), Some(1), None);
        check("\x001", None, None, None);
        check("+1", Some(1), Some(1), None);
        check("-1", None, Some(-1), Some(-1));
        check("00000000000001", Some(1), Some(1), None);
        check("2147483647", Some(2147483647), Some(2147483647), Some(2147483647));
        check("2147483648", Some(2147483648), Some(-2147483648), None);
        check("-2147483648", None, Some(-2147483648), Some(-2147483648));
        check("-2147483649", None, Some(2147483647), None);
        check("4294967296", Some(4294967296), Some(0), None);
        check("99999999999", Some(99999999999), Some(1215752191), None);
        check("9223372036854775807", Some(9223372036854775807), Some(-1), None);
        check("9223372036854775808", Some(9223372036854775808), None, None);
        check("18446744073709551615", Some(u64::MAX), None, None);
        check("18446744073709551616", None, None, None);
        check("-18446744073709551615", Some(1), None, None);
    }

    #[test]
    fn digits_of_64_bits() {
        #[track_caller]
        fn check(token: &str, want: Option<u64>) {
            assert_eq!(digits_u64(token.as_bytes()), want, "{token:?}");
        }
        check("18446744073709551615", Some(u64::MAX));
        check("18446744073709551616", None);
        check("0000000000000000000001", Some(1));
        check("00000000000000000000001", None);
        for wrong in ["", "-", "-1", "-0", "+1", " 1", "\t1", "1\t", "1x"] {
            check(wrong, None);
        }
    }

    #[test]
    fn lengths() {
        #[track_caller]
        fn check(token: &str, want: Option<u32>) {
            assert_eq!(value_length(token.as_bytes()), want, "{token:?}");
        }
        check("0", Some(0));
        check("-0", Some(0));
        check("-", Some(0));
        check("-1", None);
        check("", None);
        check("2147483645", Some(2147483645));
        check("2147483646", None);
        check("4294967295", None);
    }

    #[test]
    fn tokens() {
        #[track_caller]
        fn check(line: &str, want: &[&str]) {
            let tokens = Tokens::new(line.as_bytes());
            let got: Vec<_> = tokens.all().iter().map(|token| String::from_utf8_lossy(token)).collect();
            assert_eq!(got, want);
        }
        check("", &[]);
        check("  ", &[]);
        check("a", &["a"]);
        check(" a  b\tc\r ", &["a", "b\tc\r"]);
        check(&"a ".repeat(30), &["a"; TOKENS_MAX]);
        assert!(Tokens::new(b"a noreply ").noreply());
        assert!(!Tokens::new(b"a noreply b").noreply());
    }

    #[test]
    fn ends_of_tokens() {
        for length in 0..40 {
            for after in [&b" "[..], b"\n", b"\r\n", b"\0 ", b"\xff\xff\n", b"\x1f\x20"] {
                let mut bytes = vec![b'\xa1'; length];
                bytes.extend_from_slice(after);
                let low = bytes.iter().position(|byte| *byte <= b' ').expect("each tail has one");
                let end = bytes.iter().position(|byte| *byte == b' ' || *byte == b'\n').expect("each tail has one");
                assert_eq!((find_low(&bytes, 0), find_end(&bytes, 0)), (low, end), "{bytes:?}");
                assert_eq!(find_end(&bytes[..end], 0), end);
                assert_eq!(find_end(&bytes, bytes.len() + 3), bytes.len() + 3);
            }
        }
    }
}
