//! The parser of a connection. The first byte of the connection decides its protocol once.

use super::packet::{HEADER_LEN, Header};
use super::{binary, login, text};

/// The parser of one connection.
///
/// `repr(u8)` gives the tag a byte of its own. Otherwise the compiler hides it among unused values of the parser's state,
/// and taking it apart costs four instructions for each operation.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Parser {
    /// No byte has come yet.
    Undecided,
    /// The classic and the meta protocol.
    Text(text::Parser),
    /// The binary protocol.
    Binary(binary::Parser),
    /// The classic protocol of a client that has not authenticated yet.
    Login(login::Parser),
}

impl Parser {
    /// The parser for a connection with this access that may use either protocol and begins with this byte.
    #[cold]
    pub fn decided_by(first: u8, access: binary::Access) -> Parser {
        if first == binary::REQUEST { Parser::Binary(binary::Parser::new(access)) } else { Parser::text(access) }
    }

    /// The parser for a connection with this access that uses the text protocol.
    pub fn text(access: binary::Access) -> Parser {
        match access {
            binary::Access::Locked | binary::Access::Begun => Parser::Login(login::Parser::default()),
            binary::Access::Open | binary::Access::Granted => Parser::Text(text::Parser::default()),
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

    /// Whether the bytes that are parsed as commands may be the rest of a value or a secret. They must not be shown then.
    pub fn is_unframed(&self) -> bool {
        match self {
            Parser::Undecided => false,
            Parser::Text(parser) => parser.is_unframed(),
            Parser::Binary(parser) => parser.is_unframed(),
            Parser::Login(_) => true,
        }
    }

    /// Notes that a value did not end where it should.
    pub fn lose_frame(&mut self) {
        match self {
            Parser::Text(parser) => parser.lose_frame(),
            // The header of a packet says where it ends.
            Parser::Undecided | Parser::Binary(_) | Parser::Login(_) => {}
        }
    }

    /// Whether `rest`, which is incomplete, begins with a command that lacks only its value.
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

    /// Whether the next bytes are a value that is thrown away.
    pub fn swallows(&self) -> bool {
        match self {
            Parser::Undecided | Parser::Login(_) => false,
            Parser::Text(parser) => parser.swallows(),
            Parser::Binary(parser) => parser.swallows(),
        }
    }

    /// Notes that the client has authenticated, or has failed to.
    pub fn set_access(&mut self, access: binary::Access) {
        match self {
            Parser::Binary(parser) => parser.set_access(access),
            Parser::Login(_) if access == binary::Access::Granted => *self = Parser::Text(text::Parser::default()),
            Parser::Undecided | Parser::Text(_) | Parser::Login(_) => {}
        }
    }

    /// Throws away a value of `bytes` bytes that comes next.
    pub fn swallow_value(&mut self, bytes: u32) {
        match self {
            Parser::Undecided | Parser::Login(_) => unreachable!("a value comes behind a command"),
            Parser::Text(parser) => parser.swallow(u64::from(bytes) + text::TERMINATOR_LEN as u64),
            Parser::Binary(parser) => parser.swallow(u64::from(bytes)),
        }
    }

    /// The number of bytes that terminate a value.
    pub fn terminator_len(&self) -> usize {
        match self {
            Parser::Undecided | Parser::Text(_) | Parser::Login(_) => text::TERMINATOR_LEN,
            Parser::Binary(_) => 0,
        }
    }
}
