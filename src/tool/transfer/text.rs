//! The form of a file of items: what memcached-tool writes, commands that a server takes as they are.
//!
//! ```text
//! add KEY FLAGS EXPTIME LENGTH                         and the value on the next line; EXPTIME is a Unix time, or 0
//! ms KEY-IN-BASE64 LENGTH b FFLAGS TEXPTIME ME         the same for a key with a space or a control character
//! ```

use super::item::{Item, KEY_BYTES_MAX, KeyForm, RELATIVE_SECONDS_MAX, VALUE_BYTES_MAX};
use super::item::{key_form, put, put_key, unix_exptime};
use data_encoding::BASE64;
use std::io::{self, BufRead, Read};

/// Longest line in front of a value: key, three numbers and some letters.
const LINE_BYTES_MAX: u64 = 1024;

/// Appends an item in this form, at this Unix time.
pub(in crate::tool) fn put_item(out: &mut Vec<u8>, item: &Item<'_>, now: u64) {
    let (exptime, length) = (unix_exptime(item.left, now), item.value.len());
    match key_form(item.key) {
        Some(KeyForm::Plain) => {
            out.extend_from_slice(b"add ");
            out.extend_from_slice(item.key);
            put(out, format_args!(" {} {exptime} {length}\r\n", item.flags));
        }
        _ => {
            out.extend_from_slice(b"ms ");
            put_key(out, item.key, KeyForm::Base64);
            put(out, format_args!(" {length} b F{} T{exptime} ME\r\n", item.flags));
        }
    }
    out.extend_from_slice(item.value);
    out.extend_from_slice(b"\r\n");
}

/// Reads a file of items.
#[derive(Debug)]
pub(in crate::tool) struct Reader<R> {
    input: R,
    line: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Items that have been read, and bytes of the file.
    pub(in crate::tool) items: u64,
    pub(in crate::tool) bytes: u64,
}

/// The words of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head<'a> {
    key: &'a [u8],
    form: KeyForm,
    flags: u32,
    exptime: i64,
    length: usize,
}

impl<R: BufRead> Reader<R> {
    pub(in crate::tool) fn new(input: R) -> Reader<R> {
        Reader { input, line: Vec::new(), key: Vec::new(), value: Vec::new(), items: 0, bytes: 0 }
    }

    /// The next item, or `None` at the end. An item without time left has ended since.
    ///
    /// # Errors
    /// One line that names the item and what is wrong with it.
    pub(in crate::tool) fn next(&mut self, now: u64) -> Result<Option<Item<'_>>, String> {
        let number = self.items + 1;
        match self.read(now) {
            Ok(None) => Ok(None),
            Ok(Some((flags, left))) => {
                self.items = number;
                Ok(Some(Item { key: &self.key, flags, left, value: &self.value }))
            }
            Err(error) => Err(format!("item {number}, at byte {}: {error}", self.bytes)),
        }
    }

    /// Reads an item into `key` and `value`. Returns its flags and seconds left.
    fn read(&mut self, now: u64) -> Result<Option<(u32, Option<u64>)>, String> {
        let unreadable = |error: io::Error| error.to_string();
        self.line.clear();
        let count = self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).map_err(unreadable)?;
        if count == 0 {
            return Ok(None);
        }
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return Err(if count < LINE_BYTES_MAX as usize { CUT_OFF } else { "a line is too long" }.into());
        };
        let head = Head::read(line.strip_suffix(b"\r").unwrap_or(line))?;
        self.key.clear();
        match head.form {
            KeyForm::Plain => self.key.extend_from_slice(head.key),
            KeyForm::Base64 => self.key = BASE64.decode(head.key).map_err(|_| "its key is no base64")?,
        }
        let (flags, exptime, length) = (head.flags, head.exptime, head.length);
        if key_form(&self.key).is_none() {
            return Err("its key is too long for a server".into());
        }
        self.value.clear();
        let with_end = self.input.by_ref().take(length as u64 + 2);
        let read = { with_end }.read_to_end(&mut self.value).map_err(unreadable)?;
        if read < length + 2 {
            return Err(CUT_OFF.into());
        }
        if &self.value[length..] != b"\r\n" {
            return Err("its value has another length than the line before says".into());
        }
        self.value.truncate(length);
        self.bytes += (count + read) as u64;
        Ok(Some((flags, left_of(exptime, now))))
    }
}

const CUT_OFF: &str = "the file ends in the middle of it";

/// Seconds that an item has left. `Some(0)`: it has ended.
fn left_of(exptime: i64, now: u64) -> Option<u64> {
    match u64::try_from(exptime) {
        Ok(0) => None,
        Ok(seconds) if seconds <= RELATIVE_SECONDS_MAX => Some(seconds),
        Ok(end) => Some(end.saturating_sub(now)),
        Err(_) => Some(0),
    }
}

impl<'a> Head<'a> {
    /// # Errors
    /// What is wrong with the line, in a few words.
    fn read(line: &'a [u8]) -> Result<Head<'a>, String> {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let head = match words[..] {
            [b"add", key, flags, exptime, length] => {
                let head = Head { key, form: KeyForm::Plain, flags: 0, exptime: 0, length: 0 };
                number(flags).zip(number(exptime)).zip(number(length)).map(|((flags, exptime), length)| Head {
                    flags,
                    exptime,
                    length,
                    ..head
                })
            }
            [b"ms", key, length, ref flags @ ..] => number(length).and_then(|length| {
                let head = Head { key, form: KeyForm::Plain, flags: 0, exptime: 0, length };
                flags.iter().try_fold(head, |head, flag| head.with(flag))
            }),
            _ => None,
        };
        let head = head.ok_or("it begins with no line \"add KEY FLAGS EXPTIME LENGTH\" or \"ms KEY LENGTH …\"")?;
        match head {
            Head { key, .. } if key.is_empty() || key.len() > KEY_BYTES_MAX => Err("its key is too long".into()),
            Head { length, .. } if length > VALUE_BYTES_MAX => Err("its value has more than 1 GiB".into()),
            head => Ok(head),
        }
    }

    /// Reads a flag of `ms`.
    fn with(self, flag: &[u8]) -> Option<Head<'a>> {
        let (letter, token) = flag.split_first()?;
        match (letter, token) {
            (b'b', b"") => Some(Head { form: KeyForm::Base64, ..self }),
            (b'F', token) => Some(Head { flags: number(token)?, ..self }),
            (b'T', token) => Some(Head { exptime: number(token)?, ..self }),
            (b'M', b"E" | b"e") => Some(self),
            _ => None,
        }
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    /// Key, flags, seconds left and value.
    type Read = (Vec<u8>, u32, Option<u64>, Vec<u8>);

    /// The items of a file, and the error at its end.
    fn read(text: &[u8]) -> (Vec<Read>, Option<String>) {
        let (mut reader, mut items) = (Reader::new(text), Vec::new());
        loop {
            match reader.next(NOW) {
                Ok(Some(item)) => items.push((item.key.to_vec(), item.flags, item.left, item.value.to_vec())),
                Ok(None) => return (items, None),
                Err(error) => return (items, Some(error)),
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let every_byte: Vec<u8> = (0..=u8::MAX).collect();
        let (first, second) = every_byte.split_at(128);
        let keys: [&[u8]; 6] = [b"plain", b"a b", b"line\r\nflush_all", first, second, &[b'\x01'; 250]];
        let values: [&[u8]; 4] = [b"", &every_byte, b"x\r\nadd y 0 0 1\r\nz", &vec![b'v'; 1 << 20]];
        let (mut text, mut expected) = (Vec::new(), Vec::new());
        for (number, (key, value)) in keys.into_iter().flat_map(|key| values.map(|value| (key, value))).enumerate() {
            let left = [None, Some(1), Some(3_000_000)][number % 3];
            let flags = [0, u32::MAX][number % 2];
            put_item(&mut text, &Item { key, flags, left, value }, NOW);
            expected.push((key.to_vec(), flags, left, value.to_vec()));
        }
        assert!(read(&text) == (expected, None));
    }

    #[test]
    fn the_form_is_that_of_memcached_tool_and_of_the_server() {
        let mut text = Vec::new();
        put_item(&mut text, &Item { key: b"k", flags: 5, left: Some(60), value: b"v" }, NOW);
        put_item(&mut text, &Item { key: b"a b", flags: 7, left: None, value: b"" }, NOW);
        assert_eq!(text, b"add k 5 1800000060 1\r\nv\r\nms YSBi 0 b F7 T0 ME\r\n\r\n");
    }

    #[test]
    fn an_exptime_has_the_meaning_that_servers_give_it() {
        let text = b"add a 0 1 0\r\n\r\nadd b 0 1799999999 0\r\n\r\nadd c 0 -1 0\r\n\r\nadd d 0 0 0\r\n\r\n";
        let left: Vec<_> = read(text).0.into_iter().map(|(_, _, left, _)| left).collect();
        assert_eq!(left, [Some(1), Some(0), Some(0), None]);
    }

    #[test]
    fn a_wrong_file_is_told_with_the_item() {
        for (text, error) in [
            ("add a 0 0 1\r\nx\r\nadd b 0 0 5\r\nx", "item 2, at byte 16: the file ends in the middle of it"),
            ("add a 0 0", "item 1, at byte 0: the file ends in the middle of it"),
            ("get a\r\n", "item 1, at byte 0: it begins with no line"),
            ("add a b 0 0 1\r\nx\r\n", "item 1, at byte 0: it begins with no line"),
            ("add a 0 0 1\r\nxy\r\n", "item 1, at byte 0: its value has another length"),
            ("add a 0 0 2000000000\r\nx\r\n", "item 1, at byte 0: its value has more than 1 GiB"),
            ("ms *** 0 b\r\n\r\n", "item 1, at byte 0: its key is no base64"),
            ("ms a 0 S5\r\n\r\n", "item 1, at byte 0: it begins with no line"),
        ] {
            let said = read(text.as_bytes()).1.expect(text);
            assert!(said.starts_with(error), "{text}: {said}");
        }
        let long = format!("add {} 0 0 0\r\n\r\n", "x".repeat(251));
        assert!(read(long.as_bytes()).1.expect("an error").contains("its key is too long"));
        let endless = "x".repeat(5000);
        assert!(read(endless.as_bytes()).1.expect("an error").contains("a line is too long"));
    }
}
