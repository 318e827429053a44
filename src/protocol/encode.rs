//! Replies: bytes appended to one buffer, without formatting machinery.

/// A growing buffer of reply bytes.
///
/// The bytes behind the end stay initialised, so that appending is a copy into a slice; the buffer seldom grows.
#[derive(Debug, Default)]
pub struct Output {
    /// Invariant: `len <= buffer.len()`.
    buffer: Vec<u8>,
    len: usize,
}

impl Output {
    /// An empty output with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Output {
        Output { buffer: vec![0; capacity], len: 0 }
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Forgets all bytes; keeps the room.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Releases room beyond `capacity` bytes, unless it is in use.
    pub fn shrink_to(&mut self, capacity: usize) {
        if self.buffer.len() > capacity.max(self.len) {
            self.buffer.truncate(capacity.max(self.len));
            self.buffer.shrink_to_fit();
        }
    }

    /// Forgets the bytes behind `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// `count` bytes behind the end to write to. The caller then passes the number of bytes written to [`Output::advance`].
    #[inline]
    pub fn room(&mut self, count: usize) -> &mut [u8] {
        if self.buffer.len() - self.len < count {
            self.grow(count);
        }
        &mut self.buffer[self.len..self.len + count]
    }

    #[cold]
    fn grow(&mut self, count: usize) {
        let wanted = (self.len + count).max(self.buffer.len() * 2).max(512);
        self.buffer.resize(wanted, 0);
    }

    /// Takes `count` bytes, written to [`Output::room`] before, into the output.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.len += count;
        debug_assert!(self.len <= self.buffer.len());
    }

    /// Appends bytes.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends bytes that are few, as a rule.
    #[inline]
    pub fn put_short(&mut self, bytes: &[u8]) {
        copy_short(self.room(bytes.len()), bytes);
        self.len += bytes.len();
    }

    /// Appends a number in decimal.
    #[inline]
    pub fn put_u64(&mut self, number: u64) {
        self.len += decimal(self.room(DIGITS_MAX), 0, number);
    }

    /// Appends a number in decimal.
    #[inline]
    pub fn put_i64(&mut self, number: i64) {
        let mut digits = itoa::Buffer::new();
        self.put(digits.format(number).as_bytes());
    }

    /// Moves the bytes out, and leaves an empty output without room.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.truncate(self.len);
        self.len = 0;
        bytes
    }
}

impl std::fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// Copies bytes into a buffer that has room for them. For up to 64 bytes a call of the library's copy costs more than the
/// copy itself, so they are copied as overlapping parts of fixed lengths. The compiler would turn a loop into a call.
#[inline(always)]
pub fn copy_short(to: &mut [u8], from: &[u8]) {
    let len = from.len();
    let to = &mut to[..len];
    match len {
        33..=64 => {
            to[..32].copy_from_slice(&from[..32]);
            to[len - 32..].copy_from_slice(&from[len - 32..]);
        }
        16..=32 => {
            to[..16].copy_from_slice(&from[..16]);
            to[len - 16..].copy_from_slice(&from[len - 16..]);
        }
        8..=15 => {
            to[..8].copy_from_slice(&from[..8]);
            to[len - 8..].copy_from_slice(&from[len - 8..]);
        }
        4..=7 => {
            to[..4].copy_from_slice(&from[..4]);
            to[len - 4..].copy_from_slice(&from[len - 4..]);
        }
        _ => to.copy_from_slice(from),
    }
}

/// `VALUE <key> <flags> <bytes>[ <cas>]\r\n`
#[inline]
pub fn value_header(out: &mut Output, key: &[u8], client_flags: u32, value_len: usize, cas: Option<u64>) {
    let room = out.room(HEADER_MAX + key.len());
    let end = write_header(room, key, client_flags, value_len, cas);
    out.advance(end);
}

/// The whole of `VALUE …`, with the value.
#[inline(always)]
pub fn value(out: &mut Output, key: &[u8], client_flags: u32, cas: Option<u64>, value: &[u8]) {
    let room = out.room(HEADER_MAX + key.len() + value.len() + 2);
    let at = match PLAIN_ENDS.get(value.len()) {
        Some((end, len)) if client_flags == 0 && cas.is_none() => {
            *room.first_chunk_mut().expect("there is room") = *b"VALUE   ";
            let after = &mut room[WORD..];
            copy_short(after, key);
            *after[key.len()..].first_chunk_mut().expect("there is room") = *end;
            WORD + key.len() + usize::from(*len)
        }
        _ => write_header(room, key, client_flags, value.len(), cas),
    };
    let (text, end) = room[at..at + value.len() + 2].split_at_mut(value.len());
    copy_short(text, value);
    end.copy_from_slice(b"\r\n");
    out.advance(at + value.len() + 2);
}

/// Bytes of `VALUE `.
const WORD: usize = 6;

/// By length of the value, up to three digits: what follows the key if the client flags are 0, and its length.
static PLAIN_ENDS: [([u8; 8], u8); 1000] = {
    let mut ends = [([0; 8], 0); 1000];
    let mut number = 0;
    while number < ends.len() {
        let digits = [b'0' + (number / 100) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        let [a, b, c] = digits;
        ends[number] = match number {
            0..10 => ([b' ', b'0', b' ', c, b'\r', b'\n', 0, 0], 6),
            10..100 => ([b' ', b'0', b' ', b, c, b'\r', b'\n', 0], 7),
            _ => ([b' ', b'0', b' ', a, b, c, b'\r', b'\n'], 8),
        };
        number += 1;
    }
    ends
};

/// The largest length of a header without its key: words, spaces, numbers.
const HEADER_MAX: usize = b"VALUE    \r\n".len() + 10 + 10 + 20;

#[inline(never)]
fn write_header(room: &mut [u8], key: &[u8], client_flags: u32, value_len: usize, cas: Option<u64>) -> usize {
    room[..6].copy_from_slice(b"VALUE ");
    let mut at = 6;
    copy_short(&mut room[at..at + key.len()], key);
    at += key.len();
    if client_flags == 0 {
        room[at..at + 3].copy_from_slice(b" 0 ");
        at += 3;
    } else {
        room[at] = b' ';
        at = decimal(room, at + 1, u64::from(client_flags));
        room[at] = b' ';
        at += 1;
    }
    at = decimal(room, at, value_len as u64);
    if let Some(cas) = cas {
        room[at] = b' ';
        at = decimal(room, at + 1, cas);
    }
    room[at..at + 2].copy_from_slice(b"\r\n");
    at + 2
}

/// The most digits of a number of 64 bits.
const DIGITS_MAX: usize = 20;

/// Writes a number in decimal at an offset, and returns the offset behind it.
#[inline]
fn decimal(room: &mut [u8], at: usize, number: u64) -> usize {
    if number < 10 {
        room[at] = b'0' + number as u8;
        return at + 1;
    }
    if number < 100 {
        room[at] = b'0' + (number / 10) as u8;
        room[at + 1] = b'0' + (number % 10) as u8;
        return at + 2;
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    room[at..at + digits.len()].copy_from_slice(digits);
    at + digits.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_headers_are_memcacheds() {
        for (flags, len, cas, expected) in [
            (0, 0, None, "VALUE k 0 0\r\n"),
            (7, 32, None, "VALUE k 7 32\r\n"),
            (u32::MAX, 1_048_576, Some(u64::MAX), "VALUE k 4294967295 1048576 18446744073709551615\r\n"),
        ] {
            let mut out = Output::default();
            value_header(&mut out, b"k", flags, len, cas);
            assert_eq!(out.bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn values_with_and_without_flags_are_memcacheds() {
        for len in [0, 1, 9, 10, 32, 99, 100, 999, 1000, 1001, 70_000] {
            for (flags, cas) in [(0, None), (5, None), (0, Some(3))] {
                for key_len in [1, 6, 7, 25, 250] {
                    let (key, text) = ("k".repeat(key_len), "v".repeat(len));
                    let cas_text = cas.map_or(String::new(), |cas: u64| format!(" {cas}"));
                    let mut out = Output::default();
                    value(&mut out, key.as_bytes(), flags, cas, text.as_bytes());
                    let expected = format!("VALUE {key} {flags} {len}{cas_text}\r\n{text}\r\n");
                    assert_eq!(out.bytes(), expected.as_bytes());
                }
            }
        }
    }

    #[test]
    fn short_copies_are_whole() {
        let from: Vec<u8> = (0..200).collect();
        for len in 0..from.len() {
            let mut to = vec![0xff; len];
            copy_short(&mut to, &from[..len]);
            assert_eq!(to, from[..len], "{len}");
        }
    }

    #[test]
    fn appending_grows_the_buffer() {
        let mut out = Output::with_capacity(1);
        for number in 0..1000 {
            out.put_u64(number);
            out.put(b" ");
        }
        let expected: String = (0..1000).map(|number| format!("{number} ")).collect();
        assert_eq!(out.bytes(), expected.as_bytes());
        out.truncate(3);
        assert_eq!(out.take(), b"0 1");
        assert!(out.is_empty());
    }
}
