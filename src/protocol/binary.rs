//! The binary protocol: one packet, one operation.
//!
//! The rules are those of memcached 1.6. The server answers most bad packets with an error and closes the connection.
//! It answers a packet with an unknown opcode with an error, and continues with the next packet. The header alone shows
//! that a packet is bad, so the server never waits for the rest of a packet that it refuses.
//!
//! The parser writes these fields of the operation: `BinaryGet`: `key`, `exptime`. `BinarySet`: `key`, `value`,
//! `client_flags`, `exptime`, `cas`, `too_large`. `BinaryDelete`: `key`, `cas`. `BinaryArithmetic`: `key`, `cas`,
//! `delta`, `initial`, `vivify`. `BinarySay`: `client_flags`. `Admin`: `tokens`. All: `verb`, `quiet`, `mode`,
//! `opaque`, `flags` and `too_large`.
//!
//! Intended difference from memcached: when an unknown command has a key or extras, memcached also discards that many
//! bytes of the next packet. This server does not.

use super::packet::{HEADER_LEN, Header, Status, opcode};
use super::token::KEY_LENGTH_MAX;
use super::{Limits, Operation, Parse, Span, Step, Verb, flag};

pub use super::packet::REQUEST;

/// Largest body of a packet. The parser refuses a packet with a larger one.
const BODY_LENGTH_MAX: u32 = 1 << 30;

/// The expiry of incr and decr that means "do not create".
const NO_INITIAL: u32 = 0xffff_ffff;

/// Longest name of a SASL mechanism.
const MECHANISM_LENGTH_MAX: usize = 32;

/// The state of a connection's parser between calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parser {
    state: State,
    access: Access,
    /// A packet had a value that its command does not read. Bytes that are parsed as packets may now be values.
    unframed: bool,
}

/// What a client may do (`-S`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// The client may do everything. Clients need not authenticate, and SASL is off.
    #[default]
    Open,
    /// The client may only authenticate.
    Locked,
    /// The client may only authenticate, and has begun to.
    Begun,
    /// The client may do everything.
    Granted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A packet begins.
    #[default]
    Packet,
    /// The next bytes are a body to discard.
    Swallow { bytes: u64 },
    /// The connection closes after the last reply.
    Closing,
    /// The same, because the client has sent `quit`.
    Quitting,
}

impl Parse for Parser {
    #[inline]
    fn next(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step {
        loop {
            match self.state {
                State::Packet => return self.packet(input, at, limits, operation),
                State::Closing | State::Quitting => return Step::Close,
                State::Swallow { bytes } => {
                    let taken = bytes.min((input.len() - *at) as u64);
                    *at += taken as usize;
                    if taken < bytes {
                        self.state = State::Swallow { bytes: bytes - taken };
                        return Step::Incomplete;
                    }
                    self.state = State::Packet;
                }
            }
        }
    }
}

impl Parser {
    /// Makes the parser of a connection with this access.
    pub fn new(access: Access) -> Parser {
        Parser { state: State::Packet, access, unframed: false }
    }

    /// Whether the bytes that are parsed as packets may be values.
    pub fn is_unframed(&self) -> bool {
        self.unframed
    }

    /// Whether the client has sent `quit`.
    pub fn has_quit(&self) -> bool {
        self.state == State::Quitting
    }

    /// What the client may do.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Sets what the client may do from now on.
    pub fn set_access(&mut self, access: Access) {
        self.access = access;
    }

    /// Discards the next `bytes` bytes. Callers may use it only between packets.
    pub fn swallow(&mut self, bytes: u64) {
        debug_assert!(self.is_idle(), "the bytes to swallow are those after a packet");
        if bytes > 0 {
            self.state = State::Swallow { bytes };
        }
    }

    /// Whether the next bytes are a body to discard.
    pub fn swallows(&self) -> bool {
        matches!(self.state, State::Swallow { .. })
    }

    /// Whether the next byte begins a packet.
    pub fn is_idle(&self) -> bool {
        self.state == State::Packet
    }

    #[inline]
    fn packet(&mut self, input: &[u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step {
        let start = *at;
        let Some(bytes) = input.get(start..).and_then(<[u8]>::first_chunk) else { return Step::Incomplete };
        let Some(header) = Header::read(bytes) else { return Step::Close };
        operation.mode = header.opcode;
        operation.opaque = header.opaque;
        operation.cas = header.cas;
        operation.flags = if header.cas == 0 { 0 } else { flag(b'C') };
        operation.too_large = false;
        let (form, value_len) = match self.check(&header) {
            Ok(found) => found,
            Err(Fault::Refused(status)) => return self.refuse(status, operation),
            Err(Fault::Unknown) => return self.skip(&header, at, operation),
        };
        let packet = Packet { start, value_len };
        let key_len = usize::from(header.key_len);
        let key_start = start + HEADER_LEN + usize::from(header.extras_len);
        let body = key_start + key_len;
        let Some(extras) = input.get(start + HEADER_LEN..body) else { return Step::Incomplete };
        operation.key = Span { start: key_start as u32, len: key_len as u32 };
        operation.quiet = form.quiet;
        *at = body;
        match form.kind {
            Kind::Get => {
                operation.verb = Verb::BinaryGet;
                Step::Operation
            }
            Kind::Touch => {
                self.unframed |= value_len > 0;
                operation.verb = Verb::BinaryGet;
                operation.exptime = exptime(u32_at(extras, 0));
                Step::Operation
            }
            Kind::Set => {
                operation.client_flags = u32_at(extras, 0);
                operation.exptime = exptime(u32_at(extras, 4));
                self.value(packet, input, at, limits, operation)
            }
            Kind::Append => {
                operation.client_flags = 0;
                operation.exptime = 0;
                self.value(packet, input, at, limits, operation)
            }
            Kind::Delete => {
                operation.verb = Verb::BinaryDelete;
                Step::Operation
            }
            Kind::Arithmetic => {
                operation.verb = Verb::BinaryArithmetic;
                read_arithmetic(extras, operation);
                Step::Operation
            }
            Kind::Noop => say(Status::SUCCESS, operation),
            Kind::Quit => {
                self.state = State::Quitting;
                let step = say(Status::SUCCESS, operation);
                operation.quiet = form.quiet;
                step
            }
            Kind::Version | Kind::Flush | Kind::Stat => {
                self.unframed |= value_len > 0;
                operation.verb = Verb::Admin;
                operation.tokens = Span::new(start, body);
                Step::Operation
            }
            Kind::SaslList | Kind::Sasl => self.sasl(packet, input, at, limits, operation),
        }
    }

    /// Returns the form of the command and the length of its value. A fault: the client may not give the command, or
    /// its parts have wrong lengths.
    #[inline]
    fn check(&self, header: &Header) -> Result<(Form, usize), Fault> {
        let (extras_len, key_len) = (usize::from(header.extras_len), usize::from(header.key_len));
        let Some(value_len) = (header.body_len as usize).checked_sub(extras_len + key_len) else {
            return Err(Fault::Refused(Status::UNKNOWN_COMMAND));
        };
        if matches!(self.access, Access::Locked | Access::Begun) && !is_for_strangers(header.opcode) {
            return Err(Fault::Refused(Status::AUTH_ERROR));
        }
        if key_len > KEY_LENGTH_MAX || header.body_len > BODY_LENGTH_MAX {
            return Err(Fault::Refused(Status::INVALID));
        }
        let form = Form::from_opcode(header.opcode).ok_or(Fault::Unknown)?;
        // As in memcached, the bytes behind the key of a touch, a gat or a stat are the next packet.
        if form.fits(extras_len, key_len, value_len) {
            Ok((form, value_len))
        } else {
            Err(Fault::Refused(Status::INVALID))
        }
    }

    /// Takes the value of a storage command, which begins at `*at`. `operation` already has all other fields.
    #[inline]
    fn value(
        &mut self,
        Packet { start, value_len }: Packet,
        input: &[u8],
        at: &mut usize,
        limits: &Limits,
        operation: &mut Operation,
    ) -> Step {
        operation.verb = Verb::BinarySet;
        operation.value = Span { start: *at as u32, len: value_len as u32 };
        if limits.too_large(operation.key.len as usize, operation.client_flags, value_len) {
            operation.too_large = true;
            operation.value.len = 0;
            self.swallow(value_len as u64);
            Step::Operation
        } else if input.len() - *at >= value_len {
            *at += value_len;
            Step::Operation
        } else if value_len <= limits.inline_max as usize {
            *at = start;
            Step::Incomplete
        } else {
            Step::Data
        }
    }

    /// Reads a request of SASL. Its message begins at `*at`.
    #[cold]
    fn sasl(
        &mut self,
        Packet { start, value_len }: Packet,
        input: &[u8],
        at: &mut usize,
        limits: &Limits,
        operation: &mut Operation,
    ) -> Step {
        let status = if self.access == Access::Open {
            Status::UNKNOWN_COMMAND
        } else if operation.key.len as usize > MECHANISM_LENGTH_MAX {
            Status::INVALID
        } else if value_len > limits.inline_max as usize {
            Status::OUT_OF_MEMORY
        } else if input.len() - *at < value_len {
            *at = start;
            return Step::Incomplete;
        } else {
            *at += value_len;
            operation.verb = Verb::Admin;
            operation.tokens = Span::new(start, *at);
            return Step::Operation;
        };
        self.swallow(value_len as u64);
        say(status, operation)
    }

    /// Answers a packet with an unknown opcode, and discards its body.
    #[cold]
    fn skip(&mut self, header: &Header, at: &mut usize, operation: &mut Operation) -> Step {
        *at += HEADER_LEN;
        self.swallow(u64::from(header.body_len));
        say(Status::UNKNOWN_COMMAND, operation)
    }

    /// Answers with an error, and closes the connection.
    #[cold]
    fn refuse(&mut self, status: Status, operation: &mut Operation) -> Step {
        self.state = State::Closing;
        say(status, operation)
    }
}

/// The start of a packet in the buffer, and the length of its value.
#[derive(Clone, Copy, Debug)]
struct Packet {
    start: usize,
    value_len: usize,
}

/// The reason why a packet is not executed.
enum Fault {
    /// The server replies with this status and closes the connection.
    Refused(Status),
    /// No command has the opcode. The server replies with an error and discards the packet.
    Unknown,
}

/// The form of the commands with one opcode.
#[derive(Clone, Copy, Debug)]
struct Form {
    kind: Kind,
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    Touch,
    Set,
    Append,
    Delete,
    Arithmetic,
    Noop,
    Version,
    Quit,
    Flush,
    Stat,
    SaslList,
    Sasl,
}

impl Form {
    #[inline]
    fn from_opcode(code: u8) -> Option<Form> {
        let (kind, quiet) = match code {
            opcode::GET | opcode::GETK => (Kind::Get, false),
            opcode::GETQ | opcode::GETKQ => (Kind::Get, true),
            opcode::SET | opcode::ADD | opcode::REPLACE => (Kind::Set, false),
            opcode::SETQ | opcode::ADDQ | opcode::REPLACEQ => (Kind::Set, true),
            opcode::APPEND | opcode::PREPEND => (Kind::Append, false),
            opcode::APPENDQ | opcode::PREPENDQ => (Kind::Append, true),
            opcode::TOUCH | opcode::GAT | opcode::GATK => (Kind::Touch, false),
            opcode::GATQ | opcode::GATKQ => (Kind::Touch, true),
            opcode::DELETE => (Kind::Delete, false),
            opcode::DELETEQ => (Kind::Delete, true),
            opcode::INCREMENT | opcode::DECREMENT => (Kind::Arithmetic, false),
            opcode::INCREMENTQ | opcode::DECREMENTQ => (Kind::Arithmetic, true),
            opcode::NOOP => (Kind::Noop, false),
            opcode::VERSION => (Kind::Version, false),
            opcode::QUIT => (Kind::Quit, false),
            opcode::QUITQ => (Kind::Quit, true),
            opcode::FLUSH => (Kind::Flush, false),
            opcode::FLUSHQ => (Kind::Flush, true),
            opcode::STAT => (Kind::Stat, false),
            opcode::SASL_LIST => (Kind::SaslList, false),
            opcode::SASL_AUTH | opcode::SASL_STEP => (Kind::Sasl, false),
            _ => return None,
        };
        Some(Form { kind, quiet })
    }

    /// Whether a packet of this form has parts of these lengths.
    #[inline]
    fn fits(self, extras_len: usize, key_len: usize, value_len: usize) -> bool {
        match self.kind {
            Kind::Get | Kind::Delete => extras_len == 0 && key_len > 0 && value_len == 0,
            Kind::Touch => extras_len == 4 && key_len > 0,
            Kind::Set => extras_len == 8 && key_len > 0,
            Kind::Append | Kind::Sasl => extras_len == 0 && key_len > 0,
            Kind::Arithmetic => extras_len == 20 && key_len > 0 && value_len == 0,
            Kind::Noop | Kind::Version | Kind::Quit | Kind::SaslList => extras_len + key_len + value_len == 0,
            Kind::Flush => matches!(extras_len, 0 | 4) && key_len + value_len == 0,
            Kind::Stat => extras_len == 0,
        }
    }
}

/// Whether a client that has not authenticated may give a command.
fn is_for_strangers(code: u8) -> bool {
    matches!(code, opcode::SASL_LIST | opcode::SASL_AUTH | opcode::SASL_STEP | opcode::VERSION)
}

/// Whether a command with a [`Verb::BinaryGet`] replies with a value.
pub fn has_fetch(code: u8) -> bool {
    code != opcode::TOUCH
}

/// Whether a command with a [`Verb::BinaryGet`] sets a time.
pub fn has_touch(code: u8) -> bool {
    matches!(code, opcode::TOUCH | opcode::GAT | opcode::GATQ | opcode::GATK | opcode::GATKQ)
}

/// An exptime of the binary protocol has no sign. A time that is too large for a signed one becomes the largest one.
#[inline]
pub fn exptime(seconds: u32) -> i32 {
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// Reads the numbers of an incr or a decr.
#[inline]
fn read_arithmetic(extras: &[u8], operation: &mut Operation) {
    operation.delta = u64_at(extras, 0);
    operation.initial = u64_at(extras, 8);
    let expiry = u32_at(extras, 16);
    if expiry != NO_INITIAL {
        operation.flags |= flag(b'N');
        operation.vivify = exptime(expiry);
    }
}

/// The number at an offset of the extras. The caller has checked their length.
#[inline]
fn u32_at(extras: &[u8], at: usize) -> u32 {
    extras[at..].first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes))
}

#[inline]
fn u64_at(extras: &[u8], at: usize) -> u64 {
    extras[at..].first_chunk().map_or(0, |&bytes| u64::from_be_bytes(bytes))
}

fn say(status: Status, operation: &mut Operation) -> Step {
    operation.verb = Verb::BinarySay;
    operation.client_flags = u32::from(status.0);
    operation.quiet = false;
    Step::Operation
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 2048 };

    fn packet(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![REQUEST, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
        bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
        bytes.extend(7_u32.to_be_bytes());
        bytes.extend(9_u64.to_be_bytes());
        [&bytes, extras, key, value].concat()
    }

    /// Parses operations until the input is incomplete, and describes each in words.
    fn parse(parser: &mut Parser, input: &mut [u8], at: &mut usize, words: &mut Vec<String>) -> Step {
        let mut operation =
            Operation { client_flags: 77, exptime: 77, flags: !0, too_large: true, ..Default::default() };
        loop {
            match parser.next(input, at, &LIMITS, &mut operation) {
                Step::Operation => {}
                step => return step,
            }
            let Operation { verb, quiet, mode, too_large, opaque, .. } = operation;
            let Operation { client_flags, exptime, vivify, cas, delta, initial, .. } = operation;
            let key = operation.key;
            let key = if verb.is_keyed() { key.of(input).escape_ascii().to_string() } else { String::new() };
            words.push(match verb {
                Verb::BinaryGet => format!("get {mode:#x} {key} {exptime} {quiet} {opaque}"),
                Verb::BinarySet => {
                    let value = operation.value.of(input).escape_ascii();
                    format!("set {mode:#x} {key} {value} {client_flags} {exptime} {cas} {quiet} {too_large}")
                }
                Verb::BinaryDelete => format!("delete {key} {cas} {quiet}"),
                Verb::BinaryArithmetic => {
                    let vivify = operation.has(b'N').then_some(vivify);
                    format!("incr {mode:#x} {key} {delta} {initial} {vivify:?} {} {quiet}", operation.has(b'C'))
                }
                Verb::BinarySay => format!("say {mode:#x} {client_flags:#x} {quiet}"),
                Verb::Admin => format!("admin {}", operation.tokens.of(input).len()),
                other => panic!("{other:?} does not come in packets"),
            });
            operation.exptime = 77;
        }
    }

    #[test]
    fn packets_are_the_same_however_they_are_cut() {
        let extras = [&5_u64.to_be_bytes()[..], &6_u64.to_be_bytes(), &0xffff_ffff_u32.to_be_bytes()].concat();
        let input = [
            packet(opcode::GETKQ, b"", b"key", b""),
            packet(opcode::GAT, &[0xff; 4], b"key", b""),
            packet(opcode::SETQ, &[0, 0, 0, 5, 0, 0, 0, 60], b"key", b"value"),
            packet(opcode::APPEND, b"", b"key", b""),
            packet(opcode::DELETE, b"", b"k", b""),
            packet(opcode::INCREMENT, &extras, b"n", b""),
            packet(0x77, b"extras", b"key", b"value"),
            packet(opcode::SASL_AUTH, b"", b"PLAIN", b"secret"),
            packet(opcode::SET, &[0; 8], b"big", &[b'v'; 1 << 20]),
            packet(opcode::STAT, b"", b"items", b""),
            packet(opcode::NOOP, b"", b"", b""),
            packet(opcode::QUITQ, b"", b"", b""),
            packet(opcode::NOOP, b"", b"", b""),
        ]
        .concat();
        let expected = [
            "get 0xd key 77 true 7",
            "get 0x1d key 2147483647 false 7",
            "set 0x11 key value 5 60 9 true false",
            "set 0xe key  0 0 9 false false",
            "delete k 9 false",
            "incr 0x5 n 5 6 None true false",
            "say 0x77 0x81 false",
            "say 0x21 0x81 false",
            "set 0x1 big  0 0 9 false true",
            "admin 29",
            "say 0xa 0x0 false",
            "say 0x17 0x0 true",
        ];
        for step in [1, 7, 24, 25, 100, 1 << 22] {
            let (mut parser, mut words) = (Parser::default(), Vec::new());
            let (mut buffer, mut at) = (Vec::new(), 0);
            let mut last = Step::Incomplete;
            for piece in input.chunks(step) {
                buffer.extend_from_slice(piece);
                if last == Step::Incomplete {
                    last = parse(&mut parser, &mut buffer, &mut at, &mut words);
                }
                buffer.drain(..at);
                at = 0;
            }
            assert_eq!(words, expected, "in pieces of {step}");
            assert_eq!(last, Step::Close, "in pieces of {step}");
        }
    }

    #[test]
    fn a_long_value_is_left_to_the_caller() {
        let bytes = packet(opcode::SET, &[0; 8], b"key", &[b'v'; 5000]);
        let (mut parser, mut operation, mut at) = (Parser::default(), Operation::default(), 0);
        let mut some = bytes[..100].to_vec();
        assert_eq!(parser.next(&mut some, &mut at, &LIMITS, &mut operation), Step::Data);
        assert_eq!((at, operation.value), (35, Span { start: 35, len: 5000 }));
        assert!(parser.is_idle());
        let (mut all, mut at) = (bytes, 0);
        assert_eq!(parser.next(&mut all, &mut at, &LIMITS, &mut operation), Step::Operation);
        assert_eq!((at, operation.value), (5035, Span { start: 35, len: 5000 }));
    }

    #[test]
    fn what_is_wrong_is_said_before_the_rest_comes() {
        // The lengths of key and body of a get, and the status that the header alone causes.
        for (key_len, body_len, status) in
            [(5_u16, 3_u32, 0x81), (300, 300, 0x4), (65535, 65535, 0x4), (5, 1 << 31, 0x4), (0, 0, 0x4)]
        {
            let mut header = vec![REQUEST, opcode::GET];
            header.extend(key_len.to_be_bytes());
            header.extend([0; 4]);
            header.extend(body_len.to_be_bytes());
            header.extend([0; 12]);
            let (mut words, mut at) = (Vec::new(), 0);
            assert_eq!(parse(&mut Parser::default(), &mut header, &mut at, &mut words), Step::Close);
            assert_eq!(words, [format!("say 0x0 {status:#x} false")]);
        }
    }
}
