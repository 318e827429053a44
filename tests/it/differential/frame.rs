//! Finds the end of a request and its words, by the rules of 1.6.45 (its reference is `protocol.txt`). This is a second
//! and simple implementation. With it, the oracle can send each request to memcached by itself.
//!
//! A server that ends a request at another byte answers the next bytes otherwise. So the comparison covers the framing
//! too.

/// Longest key.
pub(super) const KEY_MAX: usize = 250;

/// The server looks at this many words of a line.
pub(super) const WORDS_MAX: usize = 23;

/// One request: a line and, for a storage command, the bytes of its value.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The line and the value.
    pub(super) bytes: Vec<u8>,
    /// Length of the line with its terminator.
    line_len: usize,
}

/// The part that a request lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    /// The end of its line is missing.
    Newline,
    /// This many bytes of its value are missing.
    Value(usize),
}

impl Request {
    /// The request at the start of `bytes`, which must not be empty.
    pub(super) fn first_of(bytes: &[u8]) -> Result<Request, Lacks> {
        let newline = bytes.iter().position(|&byte| byte == b'\n').ok_or(Lacks::Newline)?;
        let line_len = newline + 1;
        let mut request = Request { bytes: bytes[..line_len].to_vec(), line_len };
        let end = line_len + request.announced().map_or(0, |value_len| value_len + 2);
        if end > bytes.len() {
            return Err(Lacks::Value(end - bytes.len()));
        }
        request.bytes = bytes[..end].to_vec();
        Ok(request)
    }

    /// A request that the test makes: a line and the bytes behind it.
    pub(super) fn of(line: &[u8], rest: &[u8]) -> Request {
        let line = [line, b"\r\n"].concat();
        Request { line_len: line.len(), bytes: [&line, rest].concat() }
    }

    /// The line without its terminator.
    pub(super) fn line(&self) -> &[u8] {
        let line = &self.bytes[..self.line_len - 1];
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// The bytes behind the line: the value and its two final bytes.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.line_len..]
    }

    /// The words of the line that the server looks at.
    pub(super) fn words(&self) -> Vec<&[u8]> {
        self.line().split(|&byte| byte == b' ').filter(|word| !word.is_empty()).take(WORDS_MAX).collect()
    }

    /// The first word, if no space stands before it.
    pub(super) fn command(&self) -> &str {
        let word = self.line().split(|&byte| byte == b' ').next().unwrap_or_default();
        str::from_utf8(word).unwrap_or_default()
    }

    /// Whether the last word is `noreply`.
    pub(super) fn noreply(&self) -> bool {
        self.words().last() == Some(&&b"noreply"[..])
    }

    pub(super) fn is_storage(&self) -> bool {
        matches!(self.command(), "set" | "add" | "replace" | "append" | "prepend" | "cas")
    }

    pub(super) fn is_meta(&self) -> bool {
        matches!(self.command(), "mg" | "ms" | "md" | "ma" | "me")
    }

    /// The flags of a meta command.
    pub(super) fn flags(&self) -> Vec<&[u8]> {
        let first = if self.command() == "ms" { 3 } else { 2 };
        self.words().into_iter().skip(first).collect()
    }

    /// The flag of this letter, including its argument.
    pub(super) fn flag(&self, letter: u8) -> Option<&[u8]> {
        self.flags().into_iter().find(|flag| flag[0] == letter)
    }

    /// Whether each flag begins with a letter, a digit, or a byte that memcached accepts in place of one.
    pub(super) fn flags_have_letters(&self) -> bool {
        self.flags().iter().all(|flag| matches!(flag[0], b'A'..=b'z' | b'0'..=b'9'))
    }

    /// Length of the value that follows the line, if one follows.
    fn announced(&self) -> Option<usize> {
        let words = self.words();
        match self.command() {
            "ms" if self.flags_have_letters() => value_len(words.get(2)?),
            _ if self.is_storage() => value_len(words.get(4)?),
            _ => None,
        }
    }
}

/// The length of a value. It has at most 11 digits. With the two bytes that end a value, it fits into an `i32`.
pub(super) fn value_len(word: &[u8]) -> Option<usize> {
    if matches!(word, b"-" | b"-0") {
        return Some(0);
    }
    if word.len() > 11 || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = str::from_utf8(word).ok()?.parse().ok()?;
    (value <= i32::MAX as usize - 2).then_some(value)
}

/// Whether 1.6.45 accepts a word as a signed number of 32 bits. It also accepts a `-` without digits.
pub(super) fn is_i32(word: &[u8]) -> bool {
    word == b"-" || word.len() <= 11 && !word.starts_with(b"+") && parses::<i32>(word)
}

/// Whether 1.6.45 accepts a word as an unsigned number of 32 bits.
pub(super) fn is_u32(word: &[u8]) -> bool {
    word.len() <= 11 && !word.starts_with(b"+") && parses::<u32>(word)
}

/// Whether 1.6.45 accepts a word as an unsigned number of 64 bits.
pub(super) fn is_u64(word: &[u8]) -> bool {
    word.len() <= 22 && !word.starts_with(b"+") && parses::<u64>(word)
}

fn parses<T: std::str::FromStr>(word: &[u8]) -> bool {
    str::from_utf8(word).is_ok_and(|word| word.parse::<T>().is_ok())
}

/// A number as C's `strtol` and `strtoul` read it, before they check its range.
pub(super) fn strto(word: &[u8]) -> Option<i128> {
    let word = word.split(|&byte| byte == 0).next()?;
    let space = |byte: &u8| matches!(byte, b'\t'..=b'\r');
    let start = word.iter().position(|byte| !space(byte))?;
    let (sign, digits) = match &word[start..] {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || digits.get(count).is_some_and(|byte| !space(byte)) {
        return None;
    }
    // If the number has too many digits, the first ones already show that.
    let magnitude: i128 = str::from_utf8(&digits[..count.min(36)]).ok()?.parse().ok()?;
    Some(sign * magnitude)
}

/// Whether 1.6.18 accepts a word as an unsigned number of 64 bits. For an unsigned number of 32 bits it checks the
/// same.
pub(super) fn is_unsigned(word: &[u8]) -> bool {
    let Some(number) = strto(word) else { return false };
    let wrapped = number.rem_euclid(1 << 64);
    number.unsigned_abs() < 1 << 64 && !(wrapped > i128::from(i64::MAX) && word.contains(&b'-'))
}

/// Whether 1.6.18 accepts a word as a signed number. It also accepts 64 bits for a time of 32 bits.
pub(super) fn is_signed(word: &[u8]) -> bool {
    strto(word).is_some_and(|number| i64::try_from(number).is_ok())
}
