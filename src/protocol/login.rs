//! The classic protocol before a client has shown who it is (`-Y`): one kind of command, the rest is an error.
//!
//! `set <any> <any> <any> <length>` and a data block of `<user> <password>`. The operation is an `Admin` whose `tokens` are
//! the data block; what comes of it decides which parser the connection goes on with.

use super::parser::Parse;
use super::text::{LINE_LENGTH_MAX, TERMINATOR_LEN};
use super::token::{self, Tokens};
use super::{Limits, Operation, Span, Step, Verb};

/// Longest data block that is looked at.
const BLOCK_LENGTH_MAX: u32 = 16_384;

/// What a connection's parser remembers between calls: bytes that nobody wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parser {
    swallow: u64,
}

impl Parser {
    /// Whether the next byte begins a command.
    pub fn is_idle(&self) -> bool {
        self.swallow == 0
    }
}

impl Parse for Parser {
    fn next(&mut self, input: &mut [u8], at: &mut usize, _: &Limits, operation: &mut Operation) -> Step {
        let taken = self.swallow.min((input.len() - *at) as u64);
        self.swallow -= taken;
        *at += taken as usize;
        let rest = &input[*at..];
        let Some(line_len) = memchr::memchr(b'\n', rest) else {
            return if rest.len() > LINE_LENGTH_MAX { Step::Close } else { Step::Incomplete };
        };
        let tokens = Tokens::of(token::trim_return(&rest[..line_len]));
        let [b"set", _, _, _, length, ..] = *tokens.all() else {
            *at += line_len + 1;
            return say(b"CLIENT_ERROR unauthenticated\r\n", operation);
        };
        let block = *at + line_len + 1;
        let Some(length) = token::strto_u64(length).and_then(|length| u32::try_from(length).ok()) else {
            *at = block;
            return say(b"CLIENT_ERROR unauthenticated\r\n", operation);
        };
        if length > BLOCK_LENGTH_MAX {
            *at = block;
            self.swallow = u64::from(length) + TERMINATOR_LEN as u64;
            return say(b"CLIENT_ERROR auth token too long\r\n", operation);
        }
        let end = block + length as usize;
        let Some(terminator) = input.get(end..end + TERMINATOR_LEN) else { return Step::Incomplete };
        *at = end + TERMINATOR_LEN;
        if terminator != b"\r\n" {
            return say(b"CLIENT_ERROR bad command line termination\r\n", operation);
        }
        operation.verb = Verb::Admin;
        operation.quiet = false;
        operation.too_large = false;
        operation.tokens = Span::new(block, end);
        Step::Operation
    }
}

fn say(text: &'static [u8], operation: &mut Operation) -> Step {
    operation.verb = Verb::Say;
    operation.quiet = false;
    operation.text = text;
    Step::Operation
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 2048 };

    /// What a client is told, or the data block that is to be looked at, in pieces of every length.
    #[track_caller]
    fn check(input: &str, expected: &[&str], last: Step) {
        for piece in [1, 3, 1000, 100_000] {
            let (mut parser, mut operation) = (Parser::default(), Operation::default());
            let (mut buffer, mut at, mut told, mut step) = (Vec::new(), 0, Vec::new(), Step::Incomplete);
            for piece in input.as_bytes().chunks(piece) {
                buffer.extend_from_slice(piece);
                while step != Step::Close {
                    step = parser.next(&mut buffer, &mut at, &LIMITS, &mut operation);
                    let what = match (step, operation.verb) {
                        (Step::Operation, Verb::Say) => operation.text,
                        (Step::Operation, _) => operation.tokens.of(&buffer),
                        _ => break,
                    };
                    told.push(String::from_utf8_lossy(what).trim_start_matches("CLIENT_ERROR ").trim_end().to_owned());
                }
                buffer.drain(..at);
                at = 0;
            }
            assert_eq!((told.as_slice(), step), (expected.map_owned().as_slice(), last), "{input:.60} by {piece}");
        }
    }

    trait MapOwned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl MapOwned for &[&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|&text| text.to_owned()).collect()
        }
    }

    #[test]
    fn one_kind_of_command_is_looked_at() {
        check("set x 0 0 7\r\nfoo bar\r\n", &["foo bar"], Step::Incomplete);
        check("  set x y z 7 noreply\nfoo bar\r\nget a\r\n", &["foo bar", "unauthenticated"], Step::Incomplete);
        check("set x 0 0 0\r\n\r\nmn\r\n", &["", "unauthenticated"], Step::Incomplete);
        for line in ["get a", "", "add x 0 0 0", "set x 0 0", "set x 0 0 -1", "set x 0 0 seven", "set x 0 0 4294967296"]
        {
            check(&format!("{line}\r\nversion\r\n"), &["unauthenticated", "unauthenticated"], Step::Incomplete);
        }
    }

    #[test]
    fn blocks_have_their_length_and_end() {
        let termination = "bad command line termination";
        check("set x 0 0 7\r\nfoo barXX\n", &[termination, "unauthenticated"], Step::Incomplete);
        let long = format!("set x 0 0 20000\r\n{}\r\nversion\r\n", "y".repeat(20_000));
        check(&long, &["auth token too long", "unauthenticated"], Step::Incomplete);
        let fits = format!("set x 0 0 16384\r\n{}\r\n", "y".repeat(16_384));
        check(&fits, &[&"y".repeat(16_384)], Step::Incomplete);
    }

    #[test]
    fn lines_have_an_end() {
        check(&"x".repeat(LINE_LENGTH_MAX), &[], Step::Incomplete);
        check(&"x".repeat(LINE_LENGTH_MAX + 1), &[], Step::Close);
    }
}
