//! The reply to operations, and the parts of it that commands of several protocols have in common.

use crate::protocol::Operation;
use crate::protocol::encode::Output;
use crate::store::arena::ItemId;
use crate::store::item::Cursor;

/// The replies to a run of operations: bytes, and values that stay in their items.
#[derive(Debug, Default)]
pub struct Reply {
    /// The bytes of the replies, without the pinned values.
    pub out: Output,
    /// The values that belong between these bytes, in the order of their places.
    pub pinned: Vec<Pinned>,
}

/// A value that the worker writes to the socket from its item, without a copy.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    /// The value comes after this many bytes of the reply.
    pub at: usize,
    /// The shard that has pinned the value and must unpin it.
    pub shard: u16,
    /// The item with the value.
    pub id: ItemId,
    /// The part of the value that the worker has not written yet.
    pub value: Cursor,
}

impl Reply {
    /// An empty reply with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Reply {
        Reply { out: Output::with_capacity(capacity), pinned: Vec::new() }
    }

    /// Whether the reply has nothing to send.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty() && self.pinned.is_empty()
    }

    /// The number of bytes to send, with those of the pinned values.
    pub fn len(&self) -> usize {
        self.out.len() + self.pinned.iter().map(|pinned| pinned.value.left()).sum::<usize>()
    }

    /// Appends the bytes of another reply from `from` to `to`, with the pinned values between them.
    pub fn append(&mut self, other: &Reply, from: usize, to: usize) {
        let shift = self.out.len();
        self.out.put(&other.out.bytes()[from..to]);
        let between = other.pinned.iter().filter(|pinned| pinned.at > from && pinned.at <= to);
        self.pinned.extend(between.map(|pinned| Pinned { at: pinned.at - from + shift, ..*pinned }));
    }
}

/// Appends a fixed reply unless the client wants none.
#[inline]
pub(super) fn say(operation: &Operation, reply: &mut Reply, text: &[u8]) {
    if !operation.quiet {
        reply.out.put(text);
    }
}

/// Writes a key as in a URI: all bytes but letters, digits and `-._~` become `%XX`. Each byte of the key takes at most
/// three bytes of `room`. Returns the number of bytes written.
pub fn escape(key: &[u8], room: &mut [u8]) -> usize {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut len = 0;
    for &byte in key {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            room[len] = byte;
            len += 1;
        } else {
            room[len..len + 3].copy_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            len += 3;
        }
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::token::KEY_LENGTH_MAX;

    #[test]
    fn keys_are_escaped_as_in_a_uri() {
        for (key, expected) in [
            (&b"plain-key_1.~"[..], "plain-key_1.~"),
            (b"a b", "a%20b"),
            (b"100%", "100%25"),
            (b"\xc3\xa4/:\x00", "%C3%A4%2F%3A%00"),
        ] {
            let mut room = [0; 3 * KEY_LENGTH_MAX];
            let len = escape(key, &mut room);
            assert_eq!(&room[..len], expected.as_bytes());
        }
    }
}
