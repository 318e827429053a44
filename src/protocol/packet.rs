//! Packets of the binary protocol: the header that requests and replies share, and the forms of replies.
//!
//! ```text
//!  0       1        2         4        5         6        8        12      16    24
//! │ magic │ opcode │ key len │ extras │ datatype│ status │ body len│ opaque │ cas │ extras │ key │ value │
//! ```
//! All numbers are big-endian. The body is everything behind the header. memcached ignores the data type. In a request
//! it also ignores the field that is the status of a reply.

use super::Operation;
use super::encode::{Output, copy_short};

/// First byte of a request.
pub const REQUEST: u8 = 0x80;
/// First byte of a reply.
pub const RESPONSE: u8 = 0x81;
/// Bytes of a header.
pub const HEADER_LEN: usize = 24;

/// The commands of requests (protocol_binary.txt, command opcodes).
#[allow(missing_docs, reason = "the protocol's names")]
pub mod opcode {
    pub const GET: u8 = 0x00;
    pub const SET: u8 = 0x01;
    pub const ADD: u8 = 0x02;
    pub const REPLACE: u8 = 0x03;
    pub const DELETE: u8 = 0x04;
    pub const INCREMENT: u8 = 0x05;
    pub const DECREMENT: u8 = 0x06;
    pub const QUIT: u8 = 0x07;
    pub const FLUSH: u8 = 0x08;
    pub const GETQ: u8 = 0x09;
    pub const NOOP: u8 = 0x0a;
    pub const VERSION: u8 = 0x0b;
    pub const GETK: u8 = 0x0c;
    pub const GETKQ: u8 = 0x0d;
    pub const APPEND: u8 = 0x0e;
    pub const PREPEND: u8 = 0x0f;
    pub const STAT: u8 = 0x10;
    pub const SETQ: u8 = 0x11;
    pub const ADDQ: u8 = 0x12;
    pub const REPLACEQ: u8 = 0x13;
    pub const DELETEQ: u8 = 0x14;
    pub const INCREMENTQ: u8 = 0x15;
    pub const DECREMENTQ: u8 = 0x16;
    pub const QUITQ: u8 = 0x17;
    pub const FLUSHQ: u8 = 0x18;
    pub const APPENDQ: u8 = 0x19;
    pub const PREPENDQ: u8 = 0x1a;
    pub const TOUCH: u8 = 0x1c;
    pub const GAT: u8 = 0x1d;
    pub const GATQ: u8 = 0x1e;
    pub const SASL_LIST: u8 = 0x20;
    pub const SASL_AUTH: u8 = 0x21;
    pub const SASL_STEP: u8 = 0x22;
    pub const GATK: u8 = 0x23;
    pub const GATKQ: u8 = 0x24;
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

#[allow(missing_docs, reason = "the protocol's names")]
impl Status {
    pub const SUCCESS: Status = Status(0x00);
    pub const NOT_FOUND: Status = Status(0x01);
    pub const EXISTS: Status = Status(0x02);
    pub const TOO_LARGE: Status = Status(0x03);
    pub const INVALID: Status = Status(0x04);
    pub const NOT_STORED: Status = Status(0x05);
    pub const NON_NUMERIC: Status = Status(0x06);
    pub const AUTH_ERROR: Status = Status(0x20);
    pub const AUTH_CONTINUE: Status = Status(0x21);
    pub const UNKNOWN_COMMAND: Status = Status(0x81);
    pub const OUT_OF_MEMORY: Status = Status(0x82);

    /// memcached's words for the status. They are the body of the reply.
    pub fn message(self) -> &'static [u8] {
        match self {
            Status::NOT_FOUND => b"Not found",
            Status::EXISTS => b"Data exists for key.",
            Status::TOO_LARGE => b"Too large.",
            Status::INVALID => b"Invalid arguments",
            Status::NOT_STORED => b"Not stored.",
            Status::NON_NUMERIC => b"Non-numeric server-side value for incr or decr",
            Status::AUTH_ERROR => b"Auth failure.",
            Status::UNKNOWN_COMMAND => b"Unknown command",
            Status::OUT_OF_MEMORY => b"Out of memory",
            _ => b"",
        }
    }
}

/// The header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the protocol's names")]
pub struct Header {
    pub opcode: u8,
    pub key_len: u16,
    pub extras_len: u8,
    pub body_len: u32,
    pub opaque: u32,
    pub cas: u64,
}

impl Header {
    /// Reads a header. None: the bytes do not begin as a request does.
    #[inline]
    pub fn read(bytes: &[u8; HEADER_LEN]) -> Option<Header> {
        let [REQUEST, opcode, k0, k1, extras_len, _, _, _, b0, b1, b2, b3, o0, o1, o2, o3, cas @ ..] = *bytes else {
            return None;
        };
        Some(Header {
            opcode,
            key_len: u16::from_be_bytes([k0, k1]),
            extras_len,
            body_len: u32::from_be_bytes([b0, b1, b2, b3]),
            opaque: u32::from_be_bytes([o0, o1, o2, o3]),
            cas: u64::from_be_bytes(cas),
        })
    }
}

/// The fields that a reply copies from its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The opcode as sent, quiet or not.
    pub opcode: u8,
    /// The number that the client chose.
    pub opaque: u32,
}

impl Head {
    /// The head of the reply to an operation that came in a packet.
    #[inline]
    pub fn new(operation: &Operation) -> Head {
        Head { opcode: operation.mode, opaque: operation.opaque }
    }

    #[inline]
    fn header(self, status: Status, extras_len: usize, key_len: usize, body_len: usize, cas: u64) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0] = RESPONSE;
        header[1] = self.opcode;
        header[2..4].copy_from_slice(&(key_len as u16).to_be_bytes());
        header[4] = extras_len as u8;
        header[6..8].copy_from_slice(&status.0.to_be_bytes());
        header[8..12].copy_from_slice(&(body_len as u32).to_be_bytes());
        header[12..16].copy_from_slice(&self.opaque.to_be_bytes());
        header[16..24].copy_from_slice(&cas.to_be_bytes());
        header
    }
}

/// A success with this body, which may be empty.
#[inline]
pub fn success(out: &mut Output, head: Head, body: &[u8], cas: u64) {
    out.put(&head.header(Status::SUCCESS, 0, 0, body.len(), cas));
    out.put(body);
}

/// A failure, in memcached's words.
pub fn failure(out: &mut Output, head: Head, status: Status) {
    message(out, head, status, status.message());
}

/// A failure, with a text that is not memcached's usual one for the status.
pub fn message(out: &mut Output, head: Head, status: Status, text: &[u8]) {
    out.put(&head.header(status, 0, 0, text.len(), 0));
    out.put(text);
}

/// A packet with a key and a value, such as a statistic. With a status and no value it is a miss that names its key.
pub fn named(out: &mut Output, head: Head, status: Status, key: &[u8], value: &[u8]) {
    out.put(&head.header(status, 0, key.len(), key.len() + value.len(), 0));
    out.put(key);
    out.put(value);
}

/// The parts of an item that a reply shows.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The client flags.
    pub client_flags: u32,
    /// The CAS value.
    pub cas: u64,
    /// Empty if the reply has no key.
    pub key: &'a [u8],
    /// The first bytes of the value. The caller writes the others behind them.
    pub value: &'a [u8],
    /// Bytes of the whole value.
    pub value_len: usize,
}

/// A reply with an item.
#[inline]
pub fn item(out: &mut Output, head: Head, item: &Item<'_>) {
    let Item { client_flags, cas, key, value, value_len } = *item;
    const FLAGS_LEN: usize = 4;
    let body_len = FLAGS_LEN + key.len() + value_len;
    let room = out.room(HEADER_LEN + FLAGS_LEN + key.len() + value.len());
    room[..HEADER_LEN].copy_from_slice(&head.header(Status::SUCCESS, FLAGS_LEN, key.len(), body_len, cas));
    room[HEADER_LEN..HEADER_LEN + FLAGS_LEN].copy_from_slice(&client_flags.to_be_bytes());
    let (key_room, value_room) = room[HEADER_LEN + FLAGS_LEN..].split_at_mut(key.len());
    copy_short(key_room, key);
    copy_short(value_room, value);
    out.advance(HEADER_LEN + FLAGS_LEN + key.len() + value.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_big_endian() {
        let mut bytes = [0; HEADER_LEN];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8;
        }
        assert_eq!(Header::read(&bytes), None);
        bytes[0] = REQUEST;
        let expected = Header {
            opcode: 1,
            key_len: 0x0203,
            extras_len: 4,
            body_len: 0x0809_0a0b,
            opaque: 0x0c0d_0e0f,
            cas: 0x1011_1213_1415_1617,
        };
        assert_eq!(Header::read(&bytes), Some(expected));
    }

    #[test]
    fn an_item_is_its_header_flags_key_and_value() {
        let mut out = Output::default();
        let head = Head { opcode: opcode::GETK, opaque: 7 };
        let shown = Item { client_flags: 0x01020304, cas: 9, key: b"key", value: b"va", value_len: 5 };
        item(&mut out, head, &shown);
        let expected = b"\x81\x0c\0\x03\x04\0\0\0\0\0\0\x0c\0\0\0\x07\0\0\0\0\0\0\0\x09\x01\x02\x03\x04keyva";
        assert_eq!(out.bytes(), expected);
    }

    #[test]
    fn a_failure_says_so_in_its_body() {
        let mut out = Output::default();
        failure(&mut out, Head { opcode: 0xff, opaque: 1 }, Status::UNKNOWN_COMMAND);
        let expected = b"\x81\xff\0\0\0\0\0\x81\0\0\0\x0f\0\0\0\x01\0\0\0\0\0\0\0\0Unknown command";
        assert_eq!(out.bytes(), expected);
    }
}
