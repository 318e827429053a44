//! `-vv`: the worker prints a line about each request on standard error, as memcached does. But no line has bytes that
//! may be a value or a credential.
//!
//! The worker composes a line from the parts that the parser has understood: words of the protocol, numbers, and keys.
//! The line about a refused request has the command, the length, and the reply. If the request has no known command,
//! the line has none of its words. A value may look like a command. So if the input may be the rest of a value (see
//! [`Session::shows_keys`]), the line has the lengths of keys instead of the keys. The worker prints no requests of a
//! client that has still to log in.

use super::session::Session;
use crate::protocol::parser::Parser;
use crate::protocol::{Operation, Verb};
use std::fmt::{self, Write};

/// The most bytes that the worker prints of a line.
const SHOWN_MAX: usize = 1024;

/// The words that can be arguments of commands of the whole cache.
const ARGUMENTS: [&str; 39] = [
    "all",
    "cachedump",
    "conns",
    "connevents",
    "crawl",
    "deletions",
    "detail",
    "disable",
    "dump",
    "enable",
    "evictions",
    "fetchers",
    "flat",
    "graceful",
    "hash",
    "items",
    "metadump",
    "mgdump",
    "mode",
    "mutations",
    "noreply",
    "off",
    "on",
    "automove",
    "p",
    "r",
    "reassign",
    "reset",
    "segmented",
    "settings",
    "sizes",
    "slabs",
    "sleep",
    "sysevents",
    "temp_ttl",
    "threads",
    "tocrawl",
    "tune",
    "udp",
];

/// Whether the worker prints requests. It asks once per turn.
pub(super) fn is_on() -> bool {
    log::log_enabled!(log::Level::Debug)
}

/// Prints a line about a connection.
fn print(session: &Session, line: &str) {
    log::debug!("<{} {}", session.fd, &line[..line.len().min(SHOWN_MAX)]);
}

/// A key, or its length.
struct Key<'a> {
    bytes: &'a [u8],
    shown: bool,
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shown { write!(f, "{}", self.bytes.escape_ascii()) } else { write!(f, "({} bytes)", self.bytes.len()) }
    }
}

/// Prints the operations of a group.
#[cold]
#[inline(never)]
pub(super) fn group(session: &Session, operations: &[Operation], input: &[u8]) {
    let shown = session.shows_keys();
    // One line has all keys of a list that the parser has read so far.
    let mut list = String::new();
    for operation in operations {
        if operation.verb.is_retrieval() && !list.is_empty() {
            put(&mut list, format_args!(" {}", Key { bytes: operation.key.of(input), shown }));
        } else if operation.verb.is_retrieval() {
            list = line(operation, input, shown);
        } else {
            if !list.is_empty() {
                print(session, &std::mem::take(&mut list));
            }
            if !matches!(operation.verb, Verb::End | Verb::BinarySay | Verb::Admin) {
                print(session, &line(operation, input, shown));
            }
        }
    }
    if !list.is_empty() {
        print(session, &list);
    }
}

/// Prints a command that concerns the connection or the whole cache. `command` is its line or its packet.
pub(super) fn admin(session: &Session, command: &[u8]) {
    let mut line = String::new();
    match (session.parser(), command) {
        (Parser::Login(_), _) => return,
        (Parser::Binary(_), [_, opcode, ..]) => put(&mut line, format_args!("opcode {opcode:#04x}")),
        _ => {
            let mut words = command.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
            // The first word is a command that the parser knows.
            line.extend(words.next().map(|word| word.escape_ascii().to_string()));
            for word in words.take_while(|_| session.shows_keys()) {
                let known = ARGUMENTS.iter().find(|known| known.as_bytes() == word).copied();
                let number = || std::str::from_utf8(word).ok().filter(|word| is_number(word));
                put(&mut line, format_args!(" {}", known.or_else(number).unwrap_or("...")));
            }
        }
    }
    print(session, &line);
}

/// The line about one operation. The caller adds the further keys of a list.
fn line(operation: &Operation, input: &[u8], shown: bool) -> String {
    let mut line = String::new();
    let out = &mut line;
    if operation.verb == Verb::Say {
        refused(operation.tokens.of(input), operation.text, out);
        return line;
    }
    let key = Key { bytes: operation.key.of(input), shown };
    let word = operation.verb.word();
    if operation.verb.is_binary() {
        put(out, format_args!("{:?} {key}", operation.verb));
        return line;
    }
    put(out, format_args!("{word} "));
    if operation.verb.is_touching_retrieval() && shown {
        put(out, format_args!("{} ", operation.exptime));
    }
    put(out, format_args!("{key}"));
    if !shown {
        return line;
    }
    let value_len: &dyn fmt::Display = if operation.too_large { &"(too large)" } else { &operation.value.len };
    match operation.verb {
        Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend | Verb::Cas => {
            put(out, format_args!(" {} {} {value_len}", operation.client_flags, operation.exptime));
            if operation.verb == Verb::Cas {
                put(out, format_args!(" {}", operation.cas));
            }
        }
        Verb::Incr | Verb::Decr => put(out, format_args!(" {}", operation.delta)),
        Verb::Touch => put(out, format_args!(" {}", operation.exptime)),
        Verb::MetaSet => put(out, format_args!(" {value_len}")),
        _ => {}
    }
    if operation.verb.is_meta() && operation.verb != Verb::MetaDebug {
        meta_flags(operation.tokens.of(input), out);
    } else if operation.quiet {
        line.push_str(" noreply");
    }
    line
}

/// Adds the flags of a meta command, with those arguments that the parser has found to be numbers or a mode.
fn meta_flags(tokens: &[u8], out: &mut String) {
    for token in tokens.split(|&byte| byte == b' ').filter(|token| !token.is_empty()) {
        let shown = match token[0] {
            b'T' | b'F' | b'C' | b'E' | b'N' | b'R' | b'D' | b'J' => token.len(),
            b'M' => token.len().min(2),
            _ => 1,
        };
        put(out, format_args!(" {}", token[..shown].escape_ascii()));
    }
}

/// Adds the line about a refused request: the command if it is a known one, the length, and the reply. The request `mn`
/// has a fixed reply, too, but it is no mistake.
fn refused(text: &[u8], reply: &[u8], out: &mut String) {
    if reply == b"MN\r\n" {
        out.push_str("mn");
        return;
    }
    let first = text.split(|byte| b" \r\n".contains(byte)).next().unwrap_or_default();
    let command = Verb::OF_TEXT.iter().map(|verb| verb.word()).find(|word| word.as_bytes() == first);
    let command = command.unwrap_or("unknown command");
    put(out, format_args!("{command}, {} bytes: {}", text.len(), reply.trim_ascii_end().escape_ascii()));
}

fn put(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit() || b"-.,".contains(&byte))
}
