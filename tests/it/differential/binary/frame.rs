//! Finds the end of a packet, and whether it ends the connection, by the rules of 1.6.45. This is a second and simple
//! implementation. A server that ends a packet at another byte answers the next bytes otherwise. So the comparison
//! covers the framing too.

use crate::client::shown;
use crate::packet;

pub(super) const HEADER_LEN: usize = 24;

/// First byte of a request.
pub(super) const REQUEST: u8 = 0x80;

/// Longest key.
pub(super) const KEY_MAX: usize = 250;

/// Largest body that 1.6.45 accepts.
const BODY_MAX: usize = 1 << 30;

/// One request as memcached reads it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) bytes: Vec<u8>,
    /// Whether the end of the request is missing.
    pub(super) is_cut: bool,
}

impl Request {
    /// The request at the start of `bytes`, which must not be empty, or the number of bytes that it lacks.
    pub(super) fn first_of(bytes: &[u8]) -> Result<Request, usize> {
        let len = Request { bytes: bytes.to_vec(), is_cut: true }.len();
        match bytes.get(..len) {
            Some(bytes) => Ok(Request { bytes: bytes.to_vec(), is_cut: false }),
            None => Err(len - bytes.len()),
        }
    }

    /// The server waits for this many bytes, as far as the bytes so far tell.
    fn len(&self) -> usize {
        if !self.has_header() || self.bytes[0] != REQUEST {
            return HEADER_LEN;
        }
        let head_len = HEADER_LEN + self.extras_len() + self.key_len();
        match self.opcode() {
            _ if self.is_refused() => head_len,
            // The next packet of these requests begins behind the key, whatever body length they give.
            0x10 | 0x1c..=0x1e | 0x23 | 0x24 => head_len,
            _ => HEADER_LEN + self.body_len(),
        }
    }

    fn number(&self, from: usize, to: usize) -> usize {
        self.bytes[from..to].iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
    }

    pub(super) fn has_header(&self) -> bool {
        self.bytes.len() >= HEADER_LEN
    }

    /// Whether its extras and key are complete. Until then, memcached reads only the first byte.
    pub(super) fn has_head(&self) -> bool {
        self.has_header() && self.bytes.len() >= HEADER_LEN + self.extras_len() + self.key_len()
    }

    /// Whether memcached has no room for its extras and key. It then closes the connection.
    pub(super) fn has_large_head(&self) -> bool {
        HEADER_LEN + self.extras_len() + self.key_len() > 16384
    }

    pub(super) fn opcode(&self) -> u8 {
        self.bytes[1]
    }

    pub(super) fn key_len(&self) -> usize {
        self.number(2, 4)
    }

    pub(super) fn extras_len(&self) -> usize {
        self.number(4, 5)
    }

    pub(super) fn body_len(&self) -> usize {
        self.number(8, 12)
    }

    pub(super) fn opaque(&self) -> u32 {
        self.number(12, 16) as u32
    }

    /// The key of a packet that the server does not refuse.
    pub(super) fn key(&self) -> &[u8] {
        if !self.has_header() {
            return &[];
        }
        let start = HEADER_LEN + self.extras_len();
        self.bytes.get(start..start + self.key_len()).unwrap_or_default()
    }

    /// Length of the bytes behind the key.
    fn value_len(&self) -> Option<usize> {
        self.body_len().checked_sub(self.extras_len() + self.key_len())
    }

    /// The status of the last reply on the connection, if the header is wrong.
    pub(super) fn refusal(&self) -> Option<u16> {
        const INVALID: u16 = 0x04;
        const UNKNOWN: u16 = 0x81;
        let Some(value_len) = self.value_len() else { return Some(UNKNOWN) };
        if self.key_len() > KEY_MAX || self.body_len() > BODY_MAX {
            return Some(INVALID);
        }
        let (has_key, extras_len, has_value) = (self.key_len() > 0, self.extras_len(), value_len > 0);
        let fits = match self.opcode() {
            0x00 | 0x04 | 0x09 | 0x0c | 0x0d | 0x14 => has_key && extras_len == 0 && !has_value,
            0x01..=0x03 | 0x11..=0x13 => has_key && extras_len == 8,
            0x05 | 0x06 | 0x15 | 0x16 => has_key && extras_len == 20 && !has_value,
            0x07 | 0x0a | 0x0b | 0x17 | 0x20 => self.body_len() == 0,
            0x08 | 0x18 => matches!(extras_len, 0 | 4) && !has_key && !has_value,
            0x0e | 0x0f | 0x19 | 0x1a | 0x21 | 0x22 => has_key && extras_len == 0,
            0x10 => extras_len == 0,
            0x1c..=0x1e | 0x23 | 0x24 => has_key && extras_len == 4,
            _ => true,
        };
        (!fits).then_some(INVALID)
    }

    fn is_refused(&self) -> bool {
        self.refusal().is_some()
    }

    /// Whether the connection ends with this request.
    pub(super) fn is_last(&self) -> bool {
        self.is_cut || self.bytes[0] != REQUEST || self.is_refused() || matches!(self.opcode(), 0x07 | 0x17)
    }

    /// Whether no command has this opcode.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.opcode(), 0x1b | 0x1f | 0x25..)
    }

    /// Whether its reply is a series of packets.
    pub(super) fn is_stat(&self) -> bool {
        self.opcode() == 0x10
    }

    /// The request in readable form.
    pub(super) fn shown(&self) -> String {
        if !self.has_header() || self.bytes[0] != REQUEST {
            return shown(&self.bytes);
        }
        let name = packet::name(self.opcode());
        let (key_len, extras_len, body_len) = (self.key_len(), self.extras_len(), self.body_len());
        let cas = self.number(16, 24);
        let rest = shown(&self.bytes[HEADER_LEN..]);
        let opaque = self.opaque();
        format!("{name} keylen={key_len} extlen={extras_len} bodylen={body_len} opaque={opaque} cas={cas} {rest}")
    }
}

/// The packet at the start of `bytes`, if it is complete.
pub(super) fn reply(bytes: &[u8]) -> Option<&[u8]> {
    let body_len = bytes.get(8..12)?.iter().fold(0, |number, &byte| number << 8 | usize::from(byte));
    bytes.get(..HEADER_LEN + body_len)
}
