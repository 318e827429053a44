//! How keys, and text that may contain keys, appear at the metrics address.

use crate::config::Config;
use crate::measure::samples::hidden_name;
use crate::measure::slow::Slow;
use std::fmt::Write;

/// Shows keys, or hides them.
pub(super) struct Keys<'a>(&'a Config);

impl<'a> Keys<'a> {
    pub(super) fn new(config: &'a Config) -> Keys<'a> {
        Keys(config)
    }

    /// Whether keys are shown as they are. `-X` forbids to list them.
    pub(super) fn are_named(&self) -> bool {
        self.0.observing.key_names && !self.0.measuring.hide_keys && self.0.permissions.dump
    }

    /// A key, or its prefix and a part of its hash: `user:#1a2b3c4d`.
    pub(super) fn show(&self, key: &[u8], hash: u64) -> String {
        if self.are_named() { readable(key) } else { hidden_name(key, hash, &self.0.samples()) }
    }

    /// The command and the key of a slow request.
    pub(super) fn show_request(&self, slow: &Slow) -> String {
        let command = readable(&slow.command);
        if slow.key.is_empty() { command } else { format!("{command} {}", self.show(&slow.key, slow.hash)) }
    }
}

/// Bytes as text. Those that are no text, and control characters, become `%XX`.
pub(super) fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    // Writing to memory cannot fail, here and below.
                    let _ = write!(text, "%{byte:02X}");
                }
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::latency::Kind;
    use std::time::{Duration, SystemTime};

    fn slow(command: &[u8], key: &[u8]) -> Slow {
        Slow {
            time: SystemTime::UNIX_EPOCH,
            service: Duration::ZERO,
            wait: Duration::ZERO,
            kind: Kind::GetHit,
            operations: 1,
            bytes: 1,
            connection: 1,
            command: command.to_vec(),
            key: key.to_vec(),
            hash: 0x1a2b_3c4d << 32,
        }
    }

    #[test]
    fn keys_are_shown_only_if_all_flags_allow_it() {
        for (flags, named) in [
            ("", false),
            ("--metrics-key-names", true),
            ("--metrics-key-names --hide-keys", false),
            ("--metrics-key-names -X", false),
        ] {
            let words = ["corecached"].into_iter().chain(flags.split_ascii_whitespace()).map(Into::into);
            let config = Config::parse_from(words).expect("good flags");
            let keys = Keys::new(&config);
            let shown = if named { "user:secret" } else { "user:#1a2b3c4d" };
            assert_eq!(keys.are_named(), named, "{flags}");
            assert_eq!(keys.show(b"user:secret", 0x1a2b_3c4d << 32), shown);
            assert_eq!(keys.show_request(&slow(b"get", b"user:secret")), format!("get {shown}"));
            assert_eq!(keys.show_request(&slow(b"mn", b"")), "mn");
        }
    }

    #[test]
    fn what_is_no_text_is_escaped() {
        assert_eq!(readable("käse\n".as_bytes()), "käse%0A");
        assert_eq!(readable(b"a\xff\x00b"), "a%FF%00b");
    }
}
