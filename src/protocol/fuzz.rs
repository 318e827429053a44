//! Fuzzes the parsers with bytes of any kind. The operations must not depend on the pieces in which the bytes arrive.
//!
//! The first three bytes of an input choose the protocol, the limits and the pieces. The other bytes are those of a
//! client. This target also parses password files, because logins are checked against the users in them.

use super::parser::Parser;
use super::token::KEY_LENGTH_MAX;
use super::{Limits, Operation, Parse, Step, Verb, binary, login, packet, text};
use crate::auth::passwords::Passwords;
use crate::auth::user::Rights;
use std::collections::HashSet;

/// The limits that an input can choose.
const INLINE: [u32; 6] = [0, 1, 8, 64, 300, 2048];
const ITEMS: [u32; 6] = [60, 90, 200, 1 << 10, 1 << 20, 1 << 30];

/// Runs one input. Panics on a fault.
pub fn run(input: &[u8]) {
    let &[protocol, limits, pieces, ref bytes @ ..] = input else { return };
    if protocol % 8 == 7 {
        return password_file(bytes);
    }
    let parser = match protocol % 8 {
        0 => Parser::Undecided,
        1 => Parser::Login(login::Parser::default()),
        2 => Parser::Binary(binary::Parser::new(binary::Access::Locked)),
        3 => Parser::Binary(binary::Parser::default()),
        _ => Parser::Text(text::Parser::default()),
    };
    let parser = match (parser, bytes.first()) {
        (Parser::Undecided, Some(&first)) => Parser::decided_by(first, binary::Access::Open),
        (Parser::Undecided, None) => return,
        (parser, _) => parser,
    };
    let limits = Limits {
        inline_max: INLINE[usize::from(limits) % INLINE.len()],
        item_size_max: ITEMS[usize::from(limits) / INLINE.len() % ITEMS.len()],
        cas: limits & 0x80 == 0,
    };
    let mut whole = Client::new(parser, limits);
    whole.receive(bytes);
    let mut parts = Client::new(parser, limits);
    let mut seed = u32::from(pieces);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(piece_len(&mut seed).min(rest.len()));
        parts.receive(piece);
        rest = later;
    }
    // The result of parsing a line that is too long depends on how much of it has arrived.
    let endless = |bytes: &[u8]| bytes.split(|&byte| byte == b'\n').any(|line| line.len() > text::LINE_LENGTH_MAX);
    if matches!(parser, Parser::Binary(_)) || !endless(bytes) {
        assert_eq!(whole.finish(), parts.finish(), "in pieces by {pieces}");
    }
}

/// The keys that a client names.
pub(crate) fn keys(parser: Parser, limits: Limits, bytes: &[u8]) -> HashSet<Vec<u8>> {
    let Some(&first) = bytes.first() else { return HashSet::new() };
    let parser =
        if matches!(parser, Parser::Undecided) { Parser::decided_by(first, binary::Access::Open) } else { parser };
    let mut client = Client::new(parser, limits);
    client.receive(bytes);
    client.said.into_iter().chain([client.parts]).map(|said| said.key).filter(|key| !key.is_empty()).collect()
}

/// The length of the next piece. With the seed 0 all pieces have one byte. With other seeds they have any length.
fn piece_len(seed: &mut u32) -> usize {
    if *seed == 0 {
        return 1;
    }
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    let long = [3, 20, 200, 5000][(*seed >> 30) as usize];
    1 + (*seed >> 8) as usize % long
}

/// A connection as the parser sees it. It receives bytes, and records the operations.
struct Client {
    parser: Parser,
    limits: Limits,
    buffer: Vec<u8>,
    said: Vec<Said>,
    /// A storage command that waits for the rest of its value.
    waits: Option<Operation>,
    /// The part of the value that has arrived, with the command's key and tokens.
    parts: Said,
    closed: bool,
}

/// The parts of an operation that its verb defines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    verb: Verb,
    quiet: bool,
    too_large: bool,
    key: Vec<u8>,
    value: Vec<u8>,
    tokens: Vec<u8>,
    text: Vec<u8>,
    numbers: Vec<u64>,
}

/// The state at the end of a conversation.
#[derive(Debug, PartialEq, Eq)]
struct Finished {
    said: Vec<Said>,
    waits: Option<Said>,
    /// The bytes that are left in the buffer; `None` after the connection was closed.
    left: Option<Vec<u8>>,
    idle: bool,
    closed: bool,
}

impl Client {
    fn new(parser: Parser, limits: Limits) -> Client {
        let (buffer, said, parts) = (Vec::new(), Vec::new(), Said::default());
        Client { parser, limits, buffer, said, waits: None, parts, closed: false }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while !self.closed && self.step(&mut at) {}
        self.buffer.drain(..at);
    }

    /// Parses one operation. Returns true if the caller may call it again.
    fn step(&mut self, at: &mut usize) -> bool {
        if let Some(operation) = self.waits {
            let (len, end) = (operation.value.len as usize, self.parser.terminator_len());
            let count = (len - self.parts.value.len()).min(self.buffer.len() - *at);
            self.parts.value.extend_from_slice(&self.buffer[*at..*at + count]);
            *at += count;
            if self.parts.value.len() < len || self.buffer.len() - *at < end {
                return false;
            }
            let terminated = b"\r\n".starts_with(&self.buffer[*at..*at + end]);
            *at += end;
            self.waits = None;
            let said = std::mem::take(&mut self.parts);
            self.said.push(if terminated {
                said
            } else {
                Said {
                    verb: Verb::Say,
                    quiet: said.quiet && said.verb != Verb::MetaSet,
                    text: b"CLIENT_ERROR bad data chunk\r\n".to_vec(),
                    ..Said::default()
                }
            });
            return true;
        }
        let (before, kept) = (*at, self.buffer[*at..].to_vec());
        // The parser must overwrite these leftovers of an earlier operation.
        let mut operation = Operation { flags: !0, mode: 77, too_large: true, quiet: true, ..Operation::default() };
        let step = match &mut self.parser {
            Parser::Undecided => unreachable!("it was decided"),
            Parser::Text(parser) => parser.next(&mut self.buffer, at, &self.limits, &mut operation),
            Parser::Binary(parser) => parser.next(&mut self.buffer, at, &self.limits, &mut operation),
            Parser::Login(parser) => parser.next(&mut self.buffer, at, &self.limits, &mut operation),
        };
        assert!(before <= *at && *at <= self.buffer.len(), "from {before} to {at}: it leaves the buffer");
        let decodes = operation.verb.is_meta() && matches!(step, Step::Operation | Step::Key | Step::Data);
        assert!(decodes || self.buffer[before..] == kept, "the input was changed");
        match step {
            Step::Operation | Step::Key => {
                let retrieves = matches!(operation.verb, Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats);
                assert_eq!(step == Step::Key, retrieves, "{:?} does not end a command", operation.verb);
                let said = self.listen(&operation, before, *at, true);
                self.said.push(said);
                self.log_in(&operation);
                true
            }
            Step::Data => {
                let (start, len) = (operation.value.start as usize, operation.value.len);
                assert_eq!(start, *at, "a value begins where its header ends");
                assert!(len > self.limits.inline_max && operation.verb.is_storage() && !operation.too_large);
                assert!(start + len as usize + self.parser.terminator_len() > self.buffer.len(), "it is there whole");
                self.parts = self.listen(&operation, before, *at, false);
                self.waits = Some(operation);
                true
            }
            Step::Incomplete => false,
            Step::Close => {
                self.closed = true;
                false
            }
        }
    }

    /// Copies the parts of an operation. Its bytes must lie between two places of the buffer.
    fn listen(&self, operation: &Operation, from: usize, to: usize, whole: bool) -> Said {
        let Operation { verb, quiet, mode, flags, opaque, client_flags, exptime, vivify, .. } = *operation;
        let Operation { recache, cas, new_cas, delta, initial, .. } = *operation;
        let bytes = |span: super::Span| {
            let (start, end) = (span.start as usize, span.start as usize + span.len as usize);
            assert!(from <= start && end <= to, "{verb:?}: {start}..{end} is not between {from} and {to}");
            span.of(&self.buffer).to_vec()
        };
        let mut said = Said { verb, quiet, ..Said::default() };
        if verb.is_keyed() {
            said.key = bytes(operation.key);
            said.too_large = operation.too_large;
            assert!((1..=KEY_LENGTH_MAX).contains(&said.key.len()), "a key of {} bytes", said.key.len());
            let fits =
                !verb.is_storage() || whole && said.too_large || operation.value.len <= self.limits.item_size_max;
            assert!(fits, "a value that no item can have");
        }
        if verb.is_meta() {
            said.tokens = bytes(operation.tokens);
        }
        if verb.is_storage() && whole && !said.too_large {
            said.value = bytes(operation.value);
        }
        let signed = |number: i32| i64::from(number) as u64;
        said.numbers = match verb {
            Verb::Get | Verb::Gets | Verb::Delete => vec![flags, u64::from(mode)],
            Verb::Gat | Verb::Gats | Verb::Touch => vec![signed(exptime)],
            Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend => {
                vec![u64::from(client_flags), signed(exptime)]
            }
            Verb::Cas => vec![u64::from(client_flags), signed(exptime), cas],
            Verb::Incr | Verb::Decr => vec![delta],
            Verb::MetaGet | Verb::MetaSet | Verb::MetaDelete | Verb::MetaArithmetic | Verb::MetaDebug => vec![
                u64::from(mode),
                flags,
                u64::from(client_flags),
                signed(exptime),
                signed(vivify),
                signed(recache),
                cas,
                new_cas,
                delta,
                initial,
            ],
            Verb::BinaryGet => {
                let touches = matches!(mode, packet::opcode::TOUCH..=packet::opcode::GATQ)
                    || matches!(mode, packet::opcode::GATK | packet::opcode::GATKQ);
                vec![u64::from(mode), u64::from(opaque), if touches { signed(exptime) } else { 0 }]
            }
            Verb::BinarySet => {
                vec![u64::from(mode), u64::from(opaque), flags, u64::from(client_flags), signed(exptime), cas]
            }
            Verb::BinaryDelete => vec![u64::from(mode), u64::from(opaque), flags, cas],
            Verb::BinaryArithmetic => {
                let vivify = if operation.has(b'N') { signed(vivify) } else { 0 };
                vec![u64::from(mode), u64::from(opaque), flags, cas, delta, initial, vivify]
            }
            Verb::BinarySay => vec![u64::from(mode), u64::from(opaque), u64::from(client_flags)],
            Verb::End => vec![],
            Verb::Say => {
                said.text = operation.text.to_vec();
                assert!(said.text.ends_with(b"\r\n"), "replies are lines");
                vec![]
            }
            Verb::Admin => {
                said.tokens = bytes(operation.tokens);
                vec![]
            }
        };
        said
    }

    /// Decides about a login by the last byte of the message.
    fn log_in(&mut self, operation: &Operation) {
        let Some(said) = self.said.last().filter(|_| operation.verb == Verb::Admin) else { return };
        let last = said.tokens.last().copied().unwrap_or_default();
        let access = match (&self.parser, last & 3) {
            (Parser::Text(_) | Parser::Undecided, _) => return,
            (Parser::Binary(parser), _) if parser.access() == binary::Access::Open => return,
            (_, 0) => binary::Access::Locked,
            (_, 1) => binary::Access::Begun,
            _ => binary::Access::Granted,
        };
        self.parser.set_access(access);
    }

    fn finish(self) -> Finished {
        Finished {
            said: self.said,
            waits: self.waits.map(|_| self.parts),
            left: (!self.closed).then_some(self.buffer),
            idle: self.parser.is_idle(),
            closed: self.closed,
        }
    }
}

/// Reads a file of users or of passwords. The first user of a file of passwords must be able to log in with the password in the file, and with no other.
fn password_file(file: &[u8]) {
    if let Ok(users) = crate::auth::file::read(file) {
        assert!(!users.is_empty() && users.iter().all(|user| user.rights != Rights::NONE), "a user has a right");
    }
    for users in [Passwords::from_text(file), Passwords::from_sasl(file, b"host")].into_iter().flatten() {
        let first = file.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let first = first.strip_suffix(b"\r").unwrap_or(first);
        if let Some(colon) = first.iter().position(|&byte| byte == b':') {
            let (name, password) = (&first[..colon], &first[colon + 1..]);
            assert!(users.know(name, password), "{} is not let in", name.escape_ascii());
            assert!(!users.know(name, &[password, b"\n"].concat()), "a password cannot have a line");
        }
        assert!(!users.know(b"no:body", b""), "a name cannot have a colon");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        crate::fuzz::replay("parse", super::run);
    }
}
