//! The classic protocol before a client has authenticated (`-Y`): it has one command, and everything else is an error.
//!
//! The command is `set <any> <any> <any> <length>` with a data block of `<user> <password>`. The operation is an
//! `Admin` whose `tokens` are the data block. The outcome decides which parser the connection uses next.

use super::text::{LINE_LENGTH_MAX, TERMINATOR_LEN};
use super::token::{self, Tokens};
use super::{Limits, Operation, Parse, Span, Step, Verb};

/// Longest data block that the parser reads.
const BLOCK_LENGTH_MAX: u32 = 16_384;

/// Shortest line that gets an answer, with its `\r`. After a shorter one the parser closes the connection. As memcached
/// does, it first waits for more than two bytes.
const LINE_LENGTH_MIN: usize = 6;

/// The parser. It remembers nothing between calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parser {}

impl Parse for Parser {
    fn next(&mut self, input: &mut [u8], at: &mut usize, _: &Limits, operation: &mut Operation) -> Step {
        let rest = &input[*at..];
        let Some(line_len) = memchr::memchr(b'\n', rest) else {
            return if rest.len() > LINE_LENGTH_MAX { Step::Close } else { Step::Incomplete };
        };
        if line_len < LINE_LENGTH_MIN {
            return if rest.len() > TERMINATOR_LEN { Step::Close } else { Step::Incomplete };
        }
        let block = *at + line_len + 1;
        let line = rest[..line_len].strip_suffix(b"\r").filter(|line| line.starts_with(b"set"));
        let tokens = Tokens::new(line.unwrap_or_default());
        let length = if let [_, _, _, _, length, ..] = *tokens.all() { token::digits_u32(length) } else { None };
        let Some(length) = length else {
            *at = block;
            return say(b"CLIENT_ERROR unauthenticated\r\n", operation);
        };
        if length > BLOCK_LENGTH_MAX {
            *at = block;
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

    /// Checks the replies and the data blocks of logins. The input comes in pieces of several lengths.
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
        check("setx  x y z 07 noreply\r\nfoo bar\r\nget abc\r\n", &["foo bar", "unauthenticated"], Step::Incomplete);
        check("set x 0 0 0\r\n\r\nstats\r\n", &["", "unauthenticated"], Step::Incomplete);
        for line in [
            "get abc",
            "add x 0 0 0",
            " set x 0 0 7",
            "set x 0 0",
            "set x 0 0 -1",
            "set x 0 0 +7",
            "set x 0 0 seven",
            "set x 0 0 4294967296",
            "set x 0 0 7\nfoobar",
        ] {
            let told = vec!["unauthenticated"; 1 + line.split('\n').count()];
            check(&format!("{line}\r\nversion\r\n"), &told, Step::Incomplete);
        }
    }

    #[test]
    fn blocks_have_their_length_and_end() {
        let termination = "bad command line termination";
        check("set x 0 0 7\r\nfoo barXX\nversion\r\n", &[termination], Step::Close);
        check("set x 0 0 7\r\nfoo barXXversion\r\n", &[termination, "unauthenticated"], Step::Incomplete);
        check("set x 0 0 20000\r\nversion\r\n", &["auth token too long", "unauthenticated"], Step::Incomplete);
        let long = format!("set x 0 0 20000\r\n{}", "y".repeat(20_000));
        check(&long, &["auth token too long"], Step::Close);
        let fits = format!("set x 0 0 16384\r\n{}\r\n", "y".repeat(16_384));
        check(&fits, &[&"y".repeat(16_384)], Step::Incomplete);
    }

    #[test]
    fn lines_have_an_end_and_some_length() {
        check(&"x".repeat(LINE_LENGTH_MAX), &[], Step::Incomplete);
        check(&"x".repeat(LINE_LENGTH_MAX + 1), &[], Step::Close);
        check("\r\n", &[], Step::Incomplete);
        check("\n", &[], Step::Incomplete);
        check("abcd\r\n", &[], Step::Close);
        check("\r\nset x 0 0 7\r\n", &[], Step::Close);
        check("quit\r\n", &[], Step::Close);
        check("abcde\r\n", &["unauthenticated"], Step::Incomplete);
    }
}
