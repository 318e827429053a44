//! An item on its way, and its key in the words of a request.

use data_encoding::BASE64;
use std::io::Write;

/// Longest key of a request in bytes, in base64 or not.
pub(in crate::tool) const KEY_BYTES_MAX: usize = 250;
/// Longest value in bytes that a transfer accepts: that of memcached's largest `-I`.
pub(in crate::tool) const VALUE_BYTES_MAX: usize = 1 << 30;
/// Up to this, an exptime is a number of seconds from now. A larger one is a Unix time.
pub(in crate::tool) const RELATIVE_SECONDS_MAX: u64 = 60 * 60 * 24 * 30;
/// memcached reads no larger exptime.
const EXPTIME_MAX: u64 = i32::MAX as u64;

/// An item, and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tool) struct Item<'a> {
    pub(in crate::tool) key: &'a [u8],
    pub(in crate::tool) flags: u32,
    /// Seconds that it has left, at least 1. `None`: it does not expire.
    pub(in crate::tool) left: Option<u64>,
    pub(in crate::tool) value: &'a [u8],
}

impl Item<'_> {
    /// Bytes of key and value.
    pub(in crate::tool) fn bytes(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }
}

/// How a request can name a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tool) enum KeyForm {
    Plain,
    Base64,
}

impl KeyForm {
    /// The flag of a meta command that says so, with a space in front.
    pub(in crate::tool) fn flag(self) -> &'static str {
        match self {
            KeyForm::Plain => "",
            KeyForm::Base64 => " b",
        }
    }
}

/// The form of a key in requests. `None`: the text protocol cannot name it. Such a key has more than 186 bytes, among them
/// a space, a line end or a zero.
pub(in crate::tool) fn key_form(key: &[u8]) -> Option<KeyForm> {
    let is_short = BASE64.encode_len(key.len()) <= KEY_BYTES_MAX;
    match key {
        _ if key.is_empty() || key.len() > KEY_BYTES_MAX => None,
        _ if key.iter().all(|&byte| byte > b' ' && byte != 0x7f) => Some(KeyForm::Plain),
        _ if is_short => Some(KeyForm::Base64),
        // Other control characters are unusual, but servers take them as they are.
        _ if !key.iter().any(|byte| b"\0\n\r ".contains(byte)) => Some(KeyForm::Plain),
        _ => None,
    }
}

/// Appends a key in this form.
pub(in crate::tool) fn put_key(out: &mut Vec<u8>, key: &[u8], form: KeyForm) {
    match form {
        KeyForm::Plain => out.extend_from_slice(key),
        KeyForm::Base64 => out.extend_from_slice(BASE64.encode(key).as_bytes()),
    }
}

/// The exptime of a request for an item with so many seconds left at this Unix time.
pub(in crate::tool) fn exptime_of(left: Option<u64>, now: u64) -> u64 {
    match left {
        None => 0,
        // 0 would mean no end.
        Some(left) if left <= RELATIVE_SECONDS_MAX => left.max(1),
        Some(left) => left.saturating_add(now).min(EXPTIME_MAX),
    }
}

/// The absolute exptime for a file.
pub(in crate::tool) fn unix_exptime(left: Option<u64>, now: u64) -> u64 {
    left.map_or(0, |left| left.saturating_add(now).min(EXPTIME_MAX))
}

/// Appends formatted text. A vector takes everything.
pub(in crate::tool) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector grows");
}

/// Unix time in seconds.
pub(in crate::tool) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_up_to_186_bytes_has_a_form() {
        for byte in 0..=u8::MAX {
            let expected = if byte <= b' ' || byte == 0x7f { KeyForm::Base64 } else { KeyForm::Plain };
            assert_eq!(key_form(&[byte]), Some(expected), "{byte}");
            assert!(key_form(&[byte; 186]).is_some(), "{byte}");
            let has_one = !b"\0\n\r ".contains(&byte);
            assert_eq!(key_form(&[byte; 187]), has_one.then_some(KeyForm::Plain), "{byte}");
        }
        assert_eq!((key_form(b""), key_form(&[b'x'; 251])), (None, None));
        let mut out = Vec::new();
        put_key(&mut out, b"a b", KeyForm::Base64);
        put_key(&mut out, b"ab", KeyForm::Plain);
        assert_eq!(out, b"YSBiab");
    }

    #[test]
    fn an_exptime_never_says_no_end_by_mistake() {
        assert_eq!([None, Some(0), Some(5), Some(2_592_000)].map(|left| exptime_of(left, 1000)), [0, 1, 5, 2_592_000]);
        assert_eq!(exptime_of(Some(2_592_001), 1_700_000_000), 1_702_592_001);
        assert_eq!([exptime_of(Some(u64::MAX), 5), unix_exptime(Some(u64::MAX), 5)], [2_147_483_647; 2]);
        assert_eq!([None, Some(7)].map(|left| unix_exptime(left, 1_700_000_000)), [0, 1_700_000_007]);
    }
}
