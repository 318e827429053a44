//! Finds the blocks of PEM text in a file, as OpenSSL does.
//!
//! Any text may stand around a block: the output of `openssl x509 -text`, attributes of a PKCS#12 bag, other blocks.
//! Lines end in LF or CRLF, a line of base64 has any length, and spaces around it do not matter.

use data_encoding::BASE64;

/// Longest label in bytes: as long as a line of base64.
const LABEL_MAX: usize = 64;

/// The content between a line of `BEGIN` and its line of `END`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) label: String,
    /// The header says that the block is encrypted (RFC 1421). Old private keys can be.
    pub(super) encrypted: bool,
    pub(super) der: Vec<u8>,
}

/// The blocks of a file in their order. Callers stop at the first error.
pub(super) fn blocks(file: &[u8]) -> impl Iterator<Item = Result<Block, String>> {
    let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).zip(1..);
    std::iter::from_fn(move || {
        let (label, begin) = lines.find_map(|(line, at)| Some((marker(line, b"-----BEGIN ")?, at)))?;
        Some(block(label, begin, &mut lines))
    })
}

/// Reads the rest of a block, behind its line of `BEGIN`.
fn block<'a>(label: &[u8], begin: usize, lines: &mut impl Iterator<Item = (&'a [u8], usize)>) -> Result<Block, String> {
    let label_text = String::from_utf8_lossy(label).into_owned();
    let (mut base64, mut encrypted) = (Vec::new(), false);
    for (line, at) in lines {
        if marker(line, b"-----END ") == Some(label) {
            let der = BASE64.decode(&base64);
            let der = der.map_err(|_| format!("the {label_text} that begins in line {begin} is not base64"))?;
            return Ok(Block { label: label_text, encrypted, der });
        }
        if line.starts_with(b"-----") {
            return Err(format!("the {label_text} that begins in line {begin} does not end before line {at}"));
        }
        // Base64 has no colon, so this line is a header.
        match line.contains(&b':') {
            true => encrypted |= line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED"),
            false => base64.extend_from_slice(line),
        }
    }
    Err(format!("the {label_text} that begins in line {begin} does not end"))
}

/// The label in a line of `BEGIN` or `END`. Users see it in error messages, so it must look like a label. Where lines
/// end in CR alone, the text between the dashes would be a whole private key.
fn marker<'a>(line: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let label = line.strip_prefix(word)?.strip_suffix(b"-----")?;
    let is_label = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" ._".contains(byte);
    (label.len() <= LABEL_MAX && label.iter().all(is_label)).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the blocks of a file: each is `label=content`, with `!` before an encrypted one. An error is its text.
    fn check(file: &str, expected: &str) {
        let shown = |block: Result<Block, String>| match block {
            Ok(Block { label, encrypted, der }) => {
                format!("{}{label}={}", if encrypted { "!" } else { "" }, String::from_utf8_lossy(&der))
            }
            Err(error) => error,
        };
        assert_eq!(blocks(file.as_bytes()).map(shown).collect::<Vec<_>>().join(", "), expected, "{file:?}");
    }

    #[test]
    fn blocks_are_found_in_any_text() {
        check("", "");
        check("some text", "");
        check("-----BEGIN A-----\naGVs\nbG8=\n-----END A-----", "A=hello");
        check("-----BEGIN A-----\r\naGVs\r\nbG8=\r\n-----END A-----\r\n", "A=hello");
        check("\u{feff}-----BEGIN A-----\n\n aGVsbG8= \t\n-----END A----- \n", "A=hello");
        check(
            "x\n-----BEGIN A B-----\naGk=\n-----END A B-----\n-----\nx: y\n-----BEGIN C-----\n-----END C-----\n",
            "A B=hi, C=",
        );
        check(
            "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\naGk=\n-----END A-----\n",
            "!A=hi",
        );
    }

    #[test]
    fn no_content_is_taken_for_a_label() {
        check("-----BEGIN PRIVATE KEY-----\raGVsbG8=\r-----END PRIVATE KEY-----\r", "");
        check("-----BEGIN PRIVATE KEY-----aGVsbG8=-----END PRIVATE KEY-----\n", "");
        check(&format!("-----BEGIN {}-----\n", "A".repeat(65)), "");
    }

    #[test]
    fn what_is_damaged_is_named_by_its_line() {
        check("\n-----BEGIN A-----\naGk=\n", "the A that begins in line 2 does not end");
        check("-----BEGIN A-----\naGk=\n-----END B-----\n", "the A that begins in line 1 does not end before line 3");
        check("-----BEGIN A-----\naG k=\n-----END A-----\n", "the A that begins in line 1 is not base64");
        check("-----BEGIN A-----\naGk\n-----END A-----\n", "the A that begins in line 1 is not base64");
    }
}
