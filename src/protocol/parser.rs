//! The parser of a connection: which of the protocols it is for is decided once, by its first byte.

use super::{Limits, Operation, Step, binary, text};

/// What makes operations of bytes; see [`text::Parser::next`], whose rules hold for all.
pub trait Parse {
    /// Makes the next operation of `input[*at..]`, and moves `*at` past what was consumed.
    fn next(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step;
}

/// The parser of one connection.
#[derive(Clone, Copy, Debug)]
pub enum Parser {
    /// Nothing has come yet: the first byte decides.
    Undecided,
    /// The classic and the meta protocol.
    Text(text::Parser),
    /// The binary protocol.
    Binary(binary::Parser),
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
        }
    }

    /// Has the value of a command thrown away, whose next byte is the first of these `bytes`.
    pub fn swallow_value(&mut self, bytes: u32) {
        match self {
            Parser::Undecided => unreachable!("a value comes behind a command"),
            Parser::Text(parser) => parser.swallow(u64::from(bytes) + text::TERMINATOR_LEN as u64),
            Parser::Binary(parser) => parser.swallow(u64::from(bytes)),
        }
    }

    /// Bytes behind a value that belong to it.
    pub fn terminator_len(&self) -> usize {
        match self {
            Parser::Undecided | Parser::Text(_) => text::TERMINATOR_LEN,
            Parser::Binary(_) => 0,
        }
    }
}
