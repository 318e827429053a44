//! The parser of a connection: which of the protocols it is for is decided once, by its first byte.

use super::packet::{HEADER_LEN, Header};
use super::{Limits, Operation, Step, binary, login, text};

/// What makes operations of bytes; see [`text::Parser::next`], whose rules hold for all.
pub trait Parse {
    /// Makes the next operation of `input[*at..]`, and moves `*at` past what was consumed.
    fn next(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step;
}

/// The parser of one connection.
///
/// Its tag is a byte of its own: hidden among the values that a parser's own state does not use, it has to be told from them
/// for each operation, which is four instructions each.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Parser {
    /// Nothing has come yet: the first byte decides.
    Undecided,
    /// The classic and the meta protocol.
    Text(text::Parser),
    /// The binary protocol.
    Binary(binary::Parser),
    /// The classic protocol of a client that has not shown yet who it is.
    Login(login::Parser),
}

impl Parser {
    /// The parser for a connection that begins with this byte, if it may speak either.
    #[cold]
    pub fn decided_by(first: u8) -> Parser {
        if first == binary::REQUEST {
            Parser::Binary(binary::Parser::default())
        } else {
            Parser::Text(text::Parser::default())
        }
    }

    /// Whether the next byte begins a command.
    pub fn is_idle(&self) -> bool {
        match self {
            Parser::Undecided => true,
            Parser::Text(parser) => parser.is_idle(),
            Parser::Binary(parser) => parser.is_idle(),
            Parser::Login(_) => true,
        }
    }

    /// Whether what is parsed as commands may be the rest of a value, or is not for others to see at all.
    pub fn is_unframed(&self) -> bool {
        match self {
            Parser::Undecided => false,
            Parser::Text(parser) => parser.is_unframed(),
            Parser::Binary(parser) => parser.is_unframed(),
            Parser::Login(_) => true,
        }
    }

    /// A value has not ended where it should.
    pub fn lose_frame(&mut self) {
        match self {
            Parser::Text(parser) => parser.lose_frame(),
            // A packet has its length.
            Parser::Undecided | Parser::Binary(_) | Parser::Login(_) => {}
        }
    }

    /// Whether `rest`, of which nothing more can be made yet, begins with a command that lacks only its value.
    pub fn awaits_value(&self, rest: &[u8]) -> bool {
        match self {
            Parser::Undecided => false,
            Parser::Text(_) | Parser::Login(_) => self.is_idle() && memchr::memchr(b'\n', rest).is_some(),
            Parser::Binary(_) => {
                let header = rest.first_chunk().and_then(Header::read);
                let head_len =
                    |header: Header| HEADER_LEN + usize::from(header.extras_len) + usize::from(header.key_len);
                self.is_idle() && header.is_some_and(|header| rest.len() >= head_len(header))
            }
        }
    }

    /// Whether the next bytes are a value that nobody wants.
    pub fn swallows(&self) -> bool {
        match self {
            Parser::Undecided | Parser::Login(_) => false,
            Parser::Text(parser) => parser.swallows(),
            Parser::Binary(parser) => parser.swallows(),
        }
    }

    /// The client has shown who it is, or failed to.
    pub fn set_access(&mut self, access: binary::Access) {
        match self {
            Parser::Binary(parser) => parser.set_access(access),
            Parser::Login(_) if access == binary::Access::Granted => *self = Parser::Text(text::Parser::default()),
            Parser::Undecided | Parser::Text(_) | Parser::Login(_) => {}
        }
    }

    /// Has the value of a command thrown away, whose next byte is the first of these `bytes`.
    pub fn swallow_value(&mut self, bytes: u32) {
        match self {
            Parser::Undecided | Parser::Login(_) => unreachable!("a value comes behind a command"),
            Parser::Text(parser) => parser.swallow(u64::from(bytes) + text::TERMINATOR_LEN as u64),
            Parser::Binary(parser) => parser.swallow(u64::from(bytes)),
        }
    }

    /// Bytes behind a value that belong to it.
    pub fn terminator_len(&self) -> usize {
        match self {
            Parser::Undecided | Parser::Text(_) | Parser::Login(_) => text::TERMINATOR_LEN,
            Parser::Binary(_) => 0,
        }
    }
}
