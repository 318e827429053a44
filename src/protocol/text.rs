//! The classic protocol, and the parser that each connection has.
//!
//! [`Parser::next`] makes one operation of the bytes at a position. The usual requests (`get` of one key, `set` with
//! plain numbers) are recognised by their first bytes and read in one pass. A slower path, which knows all rules, reads
//! every other request again. The rules are those of memcached 1.6.45, down to the text of each error.
//!
//! ```text
//!            get, gat: keys follow         last key
//!     Line ───────────────────────▶ Keys ───────────▶ End ──▶ Line     one operation per key, then `End`
//!      │  a bad key in a line that is still coming ──┐
//!      │                                             ▼
//!      ├───────────────────────────────────────────▶ Skip ──▶ Line     up to the next newline
//!      └── value that nobody wants ──────────────▶ Swallow ──▶ Line    so many bytes
//! ```
//!
//! A line is parsed once its newline is there; until then nothing of it is consumed. The exception is a `get` or `gets`
//! of more than [`LINE_LENGTH_MAX`] bytes, whose keys are handed out as they come, so that no `get` is too long for a
//! buffer. Its caller must be able to hold a line of that many bytes, plus one read, and a header plus
//! `Limits::inline_max` bytes of value with their `\r\n`.
//!
//! What is written into the operation: `Get` … `Gats`: `key`, `exptime`. Storage: `key`, `value`, `client_flags`,
//! `exptime`, `cas`, `too_large`. `Incr`, `Decr`: `key`, `delta`. `Touch`: `key`, `exptime`. `Delete`: `key`. Meta: all
//! fields, but of an `mg` whose flags have no arguments only `key`, `tokens`, `exptime`, `client_flags` and `cas`. `Say`:
//! `text`. `Admin`: `tokens`. All: `verb`, `quiet` and, if it has a key, `flags`, `mode` and `too_large`.

use std::ops::{ControlFlow, Range};

use super::administration::AdminCommand;
use super::meta::{self, BAD_FORMAT, Refusal};
use super::plain;
use super::token::{self, KEY_LENGTH_MAX, Tokens, after_terminator, find_end, find_low, plain_digits, skip_spaces};
use super::{Limits, Operation, Parse, PlainKey, Span, Step, Verb};

/// Bytes without a newline that are waited for; memcached's limit. More must be a `get`, or the connection is closed.
pub const LINE_LENGTH_MAX: usize = 2048;

/// Bytes that precede the newline of a command, with its `\r`.
const COMMAND_LENGTH_MIN: usize = 3;

/// Bytes behind a value: `\r\n`.
pub const TERMINATOR_LEN: usize = 2;

/// Spaces that may precede such a `get`.
const LEADING_SPACES_MAX: usize = 100;

const ERROR: &[u8] = b"ERROR\r\n";
const BAD_DATA_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";
const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";

/// What a connection's parser remembers between calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parser {
    state: State,
    /// The next bytes may be the rest of a value: a refused line had a value behind it, a value did not end where it should,
    /// or a line was no command.
    unframed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A command begins.
    #[default]
    Line,
    /// In the list of keys of a retrieval.
    Keys(Keys),
    /// All keys were handed out.
    End,
    /// The rest of the line is skipped.
    Skip,
    /// The next bytes are a value that is thrown away.
    Swallow { bytes: u64 },
}

/// A retrieval whose keys are handed out one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keys {
    verb: Verb,
    exptime: i32,
    /// A key has been seen: an end of line is not a mistake.
    any: bool,
}

impl Parse for Parser {
    #[inline(always)]
    fn next(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step {
        Parser::next(self, input, at, limits, operation)
    }

    #[inline(always)]
    fn plain_keys(&mut self, input: &[u8], at: &mut usize, take: impl FnMut(PlainKey) -> ControlFlow<()>) {
        let in_list = match self.state {
            State::Keys(Keys { verb: Verb::Get, any: true, .. }) => true,
            State::Line if input.get(*at) == Some(&b'g') => false,
            _ => return,
        };
        if plain::keys(in_list, input, at, take) {
            self.state = State::Line;
        }
    }
}

/// A storage command's line.
struct Header {
    /// Where the command begins, in the request buffer.
    start: usize,
    /// Where its value begins.
    body: usize,
    /// Length of the key, once decoded.
    key_len: usize,
    value_len: u32,
}

impl Parser {
    /// Makes the next operation of `input[*at..]` and moves `*at` past what was consumed. `operation` may have been used
    /// before. `input` is changed only where a base64 key of the operation that is returned was.
    ///
    /// After [`Step::Close`] the parser must not be used again.
    #[inline(always)]
    pub fn next(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step {
        match self.state {
            State::Line => self.line(input, at, limits, operation),
            State::Keys(keys) => self.key(keys, input, at, operation),
            State::End => {
                self.state = State::Line;
                operation.verb = Verb::End;
                operation.quiet = false;
                Step::Operation
            }
            State::Skip | State::Swallow { .. } => {
                self.discard(input, at);
                if self.state == State::Line { self.line(input, at, limits, operation) } else { Step::Incomplete }
            }
        }
    }

    /// Throws the next `bytes` bytes away. Only between commands.
    pub fn swallow(&mut self, bytes: u64) {
        debug_assert!(self.is_idle(), "the bytes to swallow are those after a command");
        if bytes > 0 {
            self.state = State::Swallow { bytes };
        }
    }

    /// Whether the next byte begins a command.
    pub fn is_idle(&self) -> bool {
        self.state == State::Line
    }

    /// Whether bytes that are parsed as commands may be the rest of a value. Once true, it stays true: only the client knows
    /// where its values end.
    pub fn is_unframed(&self) -> bool {
        self.unframed
    }

    /// Notes that a value did not end where it should.
    pub fn lose_frame(&mut self) {
        self.unframed = true;
    }

    /// Replies `text` to a line that may have a value behind it.
    #[cold]
    fn refuse(&mut self, text: &'static [u8], operation: &mut Operation) -> Step {
        self.refuse_unless(false, text, operation)
    }

    /// As `refuse`, but gives no reply if the client wants none.
    #[cold]
    fn refuse_unless(&mut self, quiet: bool, text: &'static [u8], operation: &mut Operation) -> Step {
        self.unframed = true;
        say_unless(quiet, text, operation)
    }

    /// Whether the next bytes are a value that is thrown away.
    pub fn swallows(&self) -> bool {
        matches!(self.state, State::Swallow { .. })
    }

    /// Whether the parser gives another operation without further input: the end of a complete list of keys.
    pub fn owes_end(&self) -> bool {
        self.state == State::End
    }

    /// The usual commands, told by their first bytes; [`Parser::command`] takes the others.
    #[inline]
    fn line(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step {
        match input.get(*at..).unwrap_or_default() {
            [b'g', b'e', b't', b' ', ..] => self.get(Verb::Get, *at + 4, input, at, operation),
            [b's', b'e', b't', b' ', ..] => {
                if let Some(header) = plain_storage(Verb::Set, input, *at, *at + 3, operation) {
                    self.value(&header, input, at, limits, operation)
                } else {
                    self.command(input, at, limits, operation)
                }
            }
            [b'm', b'g', b' ', ..] => match plain::meta_get(input, *at, operation) {
                Some(after) => {
                    *at = after;
                    Step::Operation
                }
                None => self.command(input, at, limits, operation),
            },
            [b'g', b'e', b't', b's', b' ', ..] => self.get(Verb::Gets, *at + 5, input, at, operation),
            [] => Step::Incomplete,
            _ => self.command(input, at, limits, operation),
        }
    }

    /// `get` and `gets`; the first key is at or after `start`.
    #[inline]
    fn get(&mut self, verb: Verb, start: usize, input: &[u8], at: &mut usize, operation: &mut Operation) -> Step {
        let end = find_low(input, start);
        if end > start
            && end - start <= KEY_LENGTH_MAX
            && let Some(after) = after_terminator(input, end)
        {
            self.state = State::End;
            *at = after;
            return retrieve(verb, 0, start, end, operation);
        }
        let Some(length) = memchr::memchr(b'\n', &input[start..]) else {
            return self.unfinished(input, at, operation);
        };
        self.keys(Keys { verb, exptime: 0, any: true }, start..start + length, input, at, operation)
    }

    /// A list of keys in `range`, up to its newline. One bad key makes the whole command an error, so all keys are checked
    /// before the first one is answered.
    fn keys(
        &mut self,
        keys: Keys,
        range: Range<usize>,
        input: &[u8],
        at: &mut usize,
        operation: &mut Operation,
    ) -> Step {
        let list = token::trim_return(&input[range.clone()]);
        if skip_spaces(list, 0) == list.len() || has_long_key(list) {
            *at = range.end + 1;
            return say(BAD_FORMAT, operation);
        }
        *at = range.start;
        self.state = State::Keys(keys);
        self.key(keys, input, at, operation)
    }

    /// The next key of a retrieval, or its end.
    #[inline]
    fn key(&mut self, keys: Keys, input: &[u8], at: &mut usize, operation: &mut Operation) -> Step {
        let start = *at;
        let end = find_low(input, start);
        // The usual key, with another one behind it.
        if end > start && end - start <= KEY_LENGTH_MAX && input.get(end) == Some(&b' ') {
            *at = end + 1;
            if !keys.any {
                self.state = State::Keys(Keys { any: true, ..keys });
            }
            return retrieve(keys.verb, keys.exptime, start, end, operation);
        }
        self.key_or_end(keys, input, at, operation)
    }

    /// [`Parser::key`] for keys at the end of the line or of the buffer, after more than one space, or refused.
    fn key_or_end(&mut self, keys: Keys, input: &[u8], at: &mut usize, operation: &mut Operation) -> Step {
        let start = skip_spaces(input, *at);
        let end = find_end(input, start);
        let Some(delimiter) = input.get(end) else {
            *at = start;
            let length = end - start;
            if length <= KEY_LENGTH_MAX || length == KEY_LENGTH_MAX + 1 && input[end - 1] == b'\r' {
                self.state = State::Keys(keys);
                return Step::Incomplete;
            }
            self.state = State::Skip;
            return say(BAD_FORMAT, operation);
        };
        *at = end + 1;
        let last = *delimiter == b'\n';
        let end = if last && end > start && input[end - 1] == b'\r' { end - 1 } else { end };
        if end > start && end - start <= KEY_LENGTH_MAX {
            self.state = if last { State::End } else { State::Keys(Keys { any: true, ..keys }) };
            return retrieve(keys.verb, keys.exptime, start, end, operation);
        }
        self.state = if last { State::Line } else { State::Skip };
        if start == end && keys.any {
            operation.verb = Verb::End;
            operation.quiet = false;
            return Step::Operation;
        }
        say(BAD_FORMAT, operation)
    }

    /// More bytes than a line may have, without a newline, can only be a `get`.
    #[cold]
    fn unfinished(&mut self, input: &[u8], at: &mut usize, operation: &mut Operation) -> Step {
        let rest = &input[*at..];
        if rest.len() <= LINE_LENGTH_MAX {
            return Step::Incomplete;
        }
        let spaces = skip_spaces(rest, 0);
        let (verb, length) = match &rest[spaces..] {
            [b'g', b'e', b't', b' ', ..] => (Verb::Get, 4),
            [b'g', b'e', b't', b's', b' ', ..] => (Verb::Gets, 5),
            _ => return Step::Close,
        };
        match spaces {
            0 => {
                *at += length;
                self.key(Keys { verb, exptime: 0, any: false }, input, at, operation)
            }
            // memcached waits for the whole line, and then finds no command at its start.
            1..=LEADING_SPACES_MAX => {
                *at = input.len();
                self.state = State::Skip;
                self.refuse(ERROR, operation)
            }
            _ => Step::Close,
        }
    }

    /// Whether keys of a list were handed out, and more are to come.
    pub fn is_in_list(&self) -> bool {
        matches!(self.state, State::Keys(_))
    }

    /// Gives up the list of keys of which one was handed out last: its other keys are skipped, and its end has no reply.
    pub fn abandon_list(&mut self) {
        self.state = match self.state {
            State::Keys(_) => State::Skip,
            State::End => State::Line,
            state => state,
        };
    }

    /// Goes on with [`State::Skip`] and [`State::Swallow`].
    fn discard(&mut self, input: &[u8], at: &mut usize) {
        let rest = input.get(*at..).unwrap_or_default();
        match self.state {
            State::Skip => match memchr::memchr(b'\n', rest) {
                Some(newline) => {
                    *at += newline + 1;
                    self.state = State::Line;
                }
                None => *at += rest.len(),
            },
            State::Swallow { bytes } => {
                // The terminator is checked as a whole, so it is left until both bytes have come.
                let most = if rest.len() as u64 >= bytes { bytes } else { bytes.saturating_sub(TERMINATOR_LEN as u64) };
                let taken = most.min(rest.len() as u64);
                if taken == bytes && !rest[..taken as usize].ends_with(b"\r\n") {
                    self.unframed = true;
                }
                *at += taken as usize;
                self.state = if taken == bytes { State::Line } else { State::Swallow { bytes: bytes - taken } };
            }
            State::Line | State::Keys(_) | State::End => {}
        }
    }

    /// Any command, once its line is complete.
    fn command(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step {
        let start = *at;
        let Some(length) = memchr::memchr(b'\n', &input[start..]) else {
            return self.unfinished(input, at, operation);
        };
        let newline = start + length;
        let line = token::trim_return(&input[start..newline]);
        *at = newline + 1;
        // With a bare newline, a command needs three letters, and `mn` is none.
        if length < COMMAND_LENGTH_MIN {
            return self.refuse(BAD_FORMAT, operation);
        }
        let word = &line[..find_end(line, 0)];
        let range = start..newline;
        let rest = start + word.len()..newline;
        if let Some(verb) = Verb::from_meta_word(word) {
            operation.verb = verb;
            return self.meta(range, input, at, limits, operation);
        }
        operation.verb = match word {
            b"mn" => return say(b"MN\r\n", operation),
            b"get" => return self.keys(Keys { verb: Verb::Get, exptime: 0, any: true }, rest, input, at, operation),
            b"gets" => return self.keys(Keys { verb: Verb::Gets, exptime: 0, any: true }, rest, input, at, operation),
            b"gat" => return self.touch_and_get(Verb::Gat, rest, input, at, operation),
            b"gats" => return self.touch_and_get(Verb::Gats, rest, input, at, operation),
            b"set" => Verb::Set,
            b"add" => Verb::Add,
            b"replace" => Verb::Replace,
            b"append" => Verb::Append,
            b"prepend" => Verb::Prepend,
            b"cas" => Verb::Cas,
            b"incr" => return keyed(Verb::Incr, line, start, operation),
            b"decr" => return keyed(Verb::Decr, line, start, operation),
            b"touch" => return keyed(Verb::Touch, line, start, operation),
            b"delete" => return keyed(Verb::Delete, line, start, operation),
            _ => {
                let step = other(line, start, operation);
                self.unframed |= operation.verb == Verb::Say;
                return step;
            }
        };
        self.storage(range, input, at, limits, operation)
    }

    /// `gat` and `gats`: `range` holds the exptime and the keys, up to the newline.
    fn touch_and_get(
        &mut self,
        verb: Verb,
        range: Range<usize>,
        input: &[u8],
        at: &mut usize,
        operation: &mut Operation,
    ) -> Step {
        let arguments = token::trim_return(&input[range.clone()]);
        let start = skip_spaces(arguments, 0);
        let end = find_end(arguments, start);
        if skip_spaces(arguments, end) == arguments.len() {
            return say(BAD_FORMAT, operation);
        }
        match token::digits_i32(&arguments[start..end]) {
            Some(exptime) => {
                let keys = Keys { verb, exptime, any: true };
                self.keys(keys, range.start + end..range.end, input, at, operation)
            }
            None => say(BAD_EXPTIME, operation),
        }
    }

    /// The storage command `operation.verb`, whose line is `range`, up to its newline.
    fn storage(
        &mut self,
        range: Range<usize>,
        input: &[u8],
        at: &mut usize,
        limits: &Limits,
        operation: &mut Operation,
    ) -> Step {
        let verb = operation.verb;
        let word_end = find_low(input, range.start);
        if let Some(header) = plain_storage(verb, input, range.start, word_end, operation) {
            return self.value(&header, input, at, limits, operation);
        }
        // The kind of error decides whether the value is thrown away as well.
        let tokens = Tokens::new(token::trim_return(&input[range.clone()]));
        let [_, key, client_flags, exptime, length, ref rest @ ..] = *tokens.all() else {
            return self.refuse(BAD_FORMAT, operation);
        };
        let Some(value_len) = token::value_length(length) else {
            return self.refuse(BAD_FORMAT, operation);
        };
        let quiet = tokens.noreply();
        let cas = if verb == Verb::Cas { rest.first().and_then(|cas| token::digits_u64(cas)) } else { Some(0) };
        if key.len() <= KEY_LENGTH_MAX
            && let Some(client_flags) = token::strto_u32(client_flags)
            && let Some(exptime) = token::strto_i32(exptime)
            && let Some(cas) = cas
        {
            let key_start = skip_spaces(input, find_end(input, range.start));
            operation.quiet = quiet;
            operation.client_flags = client_flags;
            operation.exptime = exptime;
            operation.cas = cas;
            classic(verb, Span::new(key_start, key_start + key.len()), operation);
            let header = Header { start: range.start, body: range.end + 1, key_len: key.len(), value_len };
            self.value(&header, input, at, limits, operation)
        } else {
            self.state = State::Swallow { bytes: u64::from(value_len) + 2 };
            say_unless(quiet, BAD_FORMAT, operation)
        }
    }

    /// The value of a storage command, all else of which is in `operation`.
    #[inline]
    fn value(
        &mut self,
        header: &Header,
        input: &[u8],
        at: &mut usize,
        limits: &Limits,
        operation: &mut Operation,
    ) -> Step {
        let (body, value_len) = (header.body, header.value_len as usize);
        *at = body;
        operation.value = Span { start: body as u32, len: header.value_len };
        operation.too_large = limits.too_large(header.key_len, operation.client_flags, value_len);
        if operation.too_large {
            operation.value.len = 0;
            self.state = State::Swallow { bytes: u64::from(header.value_len) + 2 };
            return Step::Operation;
        }
        if let Some(terminator) = input.get(body + value_len..body + value_len + 2) {
            *at = body + value_len + 2;
            if terminator == b"\r\n" {
                return Step::Operation;
            }
            // `q` hides no error, `noreply` all of them.
            let quiet = operation.quiet && operation.verb != Verb::MetaSet;
            return self.refuse_unless(quiet, BAD_DATA_CHUNK, operation);
        }
        if header.value_len <= limits.inline_max {
            *at = header.start;
            return Step::Incomplete;
        }
        Step::Data
    }

    /// The meta command `operation.verb`, whose line is `range`, up to its newline.
    fn meta(
        &mut self,
        range: Range<usize>,
        input: &mut [u8],
        at: &mut usize,
        limits: &Limits,
        operation: &mut Operation,
    ) -> Step {
        let verb = operation.verb;
        let step = match meta::read(verb, input, range.clone(), operation) {
            Ok(line) if verb == Verb::MetaSet => {
                let (key_len, value_len) = (line.key_len, line.value_len);
                let header = Header { start: range.start, body: range.end + 1, key_len, value_len };
                self.value(&header, input, at, limits, operation)
            }
            Ok(_) => Step::Operation,
            Err(Refusal { text, swallow }) => {
                self.swallow(swallow);
                self.unframed |= verb == Verb::MetaSet && swallow == 0;
                return say(text, operation);
            }
        };
        if step != Step::Incomplete && operation.verb == verb {
            meta::decode_key(input, operation);
        }
        step
    }
}

/// Reads the line of the storage command at `start`, whose word ends at `word_end`, if it is of the usual form: single
/// spaces, plain numbers, maybe `noreply`. `None` says nothing about it, not even that it is complete.
#[inline(always)]
fn plain_storage(verb: Verb, input: &[u8], start: usize, word_end: usize, operation: &mut Operation) -> Option<Header> {
    let key_start = word_end + 1;
    let key_end = find_low(input, key_start);
    if input.get(word_end) != Some(&b' ') || !(1..=KEY_LENGTH_MAX).contains(&key_end.wrapping_sub(key_start)) {
        return None;
    }
    let mut at = key_end;
    let (client_flags, exptime) = if input.get(at..)?.starts_with(b" 0 0 ") {
        at += b" 0 0".len();
        (0, 0)
    } else {
        (u32::try_from(number(input, &mut at)?).ok()?, i32::try_from(number(input, &mut at)?).ok()?)
    };
    let value_len = u32::try_from(number(input, &mut at)?).ok()?;
    if value_len > token::VALUE_LENGTH_MAX {
        return None;
    }
    let cas = if verb == Verb::Cas { number(input, &mut at)? } else { 0 };
    let quiet = input.get(at..)?.starts_with(b" noreply");
    let body = after_terminator(input, if quiet { at + 8 } else { at })?;
    operation.quiet = quiet;
    operation.client_flags = client_flags;
    operation.exptime = exptime;
    operation.cas = cas;
    classic(verb, Span::new(key_start, key_end), operation);
    Some(Header { start, body, key_len: key_end - key_start, value_len })
}

/// A space and a plain number.
#[inline(always)]
fn number(input: &[u8], at: &mut usize) -> Option<u64> {
    if input.get(*at) != Some(&b' ') {
        return None;
    }
    *at += 1;
    plain_digits(input, at)
}

/// `incr`, `decr`, `touch` and `delete`.
fn keyed(verb: Verb, line: &[u8], start: usize, operation: &mut Operation) -> Step {
    let key_start = skip_spaces(line, find_end(line, 0));
    let key_end = find_end(line, key_start);
    let key = Span::new(start + key_start, start + key_end);
    // The usual form: nothing after the key, or one plain number.
    let mut end = key_end;
    let plain = if verb == Verb::Delete { Some(0) } else { number(line, &mut end) };
    if (1..=KEY_LENGTH_MAX).contains(&(key_end - key_start))
        && end == line.len()
        && let Some(number) = plain
        && (verb != Verb::Touch || i32::try_from(number).is_ok())
    {
        operation.quiet = false;
        operation.delta = number;
        operation.exptime = number as i32;
        return classic(verb, key, operation);
    }

    let tokens = Tokens::new(line);
    let quiet = tokens.noreply() && (verb != Verb::Delete || tokens.all().len() > 2);
    let argument = match (verb, tokens.all()) {
        // Old clients send a time behind the key, which once was a delay. It is ignored, whatever it is.
        (Verb::Delete, [_, _, ..]) => &b""[..],
        (Verb::Incr | Verb::Decr | Verb::Touch, [_, _, argument, ..]) => *argument,
        _ => return say(BAD_FORMAT, operation),
    };
    if key.len as usize > KEY_LENGTH_MAX {
        return say_unless(quiet, BAD_FORMAT, operation);
    }
    match verb {
        Verb::Incr | Verb::Decr => match token::digits_u64(argument) {
            Some(delta) => operation.delta = delta,
            None => return say_unless(quiet, BAD_DELTA, operation),
        },
        Verb::Touch => match token::digits_i32(argument) {
            Some(exptime) => operation.exptime = exptime,
            None => return say_unless(quiet, BAD_EXPTIME, operation),
        },
        _ => {}
    }
    operation.quiet = quiet;
    classic(verb, key, operation)
}

/// A line that is no command on keys: a command for the server, or a mistake. A line of HTTP is not answered.
fn other(line: &[u8], start: usize, operation: &mut Operation) -> Step {
    let spaces = skip_spaces(line, 0);
    let word = &line[spaces..find_end(line, spaces)];
    if AdminCommand::named(word).is_some_and(|command| spaces == 0 || command.may_be_indented()) {
        operation.verb = Verb::Admin;
        operation.quiet = false;
        operation.too_large = false;
        operation.tokens = Span::new(start + spaces, start + line.len());
        return Step::Operation;
    }
    let tokens = Tokens::new(line);
    match tokens.all() {
        [_, .., last] if last.starts_with(b"HTTP/") => Step::Close,
        _ => say_unless(tokens.noreply(), ERROR, operation),
    }
}

/// Whether a token of `keys` is longer than a key may be. Of any 251 bytes in a row one must be a space, so it is enough to
/// search backward from every 251st byte.
fn has_long_key(keys: &[u8]) -> bool {
    let mut start = 0;
    while let Some(window) = keys.get(start..start + KEY_LENGTH_MAX + 1) {
        match memchr::memrchr(b' ', window) {
            Some(space) => start += space + 1,
            None => return true,
        }
    }
    false
}

#[inline(always)]
fn retrieve(verb: Verb, exptime: i32, start: usize, end: usize, operation: &mut Operation) -> Step {
    operation.quiet = false;
    operation.exptime = exptime;
    classic(verb, Span::new(start, end), operation);
    Step::Key
}

/// What all operations of the classic protocol on a key have; `quiet` is for the caller to set.
#[inline(always)]
fn classic(verb: Verb, key: Span, operation: &mut Operation) -> Step {
    operation.verb = verb;
    operation.mode = 0;
    operation.too_large = false;
    operation.flags = 0;
    operation.key = key;
    Step::Operation
}

/// Gives `text` as the reply.
fn say(text: &'static [u8], operation: &mut Operation) -> Step {
    say_unless(false, text, operation)
}

/// Gives `text` as the reply, unless the client wants none.
fn say_unless(quiet: bool, text: &'static [u8], operation: &mut Operation) -> Step {
    operation.verb = Verb::Say;
    operation.quiet = quiet;
    operation.too_large = false;
    operation.text = text;
    Step::Operation
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 64 };

    /// A connection as the parser sees it. It receives bytes, and records the operations.
    struct Client {
        parser: Parser,
        limits: Limits,
        buffer: Vec<u8>,
        /// The operations, in words.
        said: Vec<String>,
        /// A storage command that waits for this many bytes of its value: the command in words, and whether it hides an
        /// error.
        waiting: Option<(String, bool, usize)>,
        closed: bool,
        /// It takes plain keys first, as the server does.
        takes_keys: bool,
    }

    impl Client {
        fn new(limits: Limits) -> Client {
            let (parser, buffer, said) = (Parser::default(), Vec::new(), Vec::new());
            Client { parser, limits, buffer, said, waiting: None, closed: false, takes_keys: true }
        }

        fn receive(&mut self, bytes: &[u8]) {
            self.buffer.extend_from_slice(bytes);
            let mut at = 0;
            let mut operation = Operation { flags: 1, mode: 1, too_large: true, quiet: true, ..Operation::default() };
            while !self.closed {
                if let Some((words, hidden, length)) = self.waiting.take() {
                    let Some(value) = self.buffer.get(at..at + length + 2) else {
                        self.waiting = Some((words, hidden, length));
                        break;
                    };
                    at += length + 2;
                    self.said.push(match value.strip_suffix(b"\r\n") {
                        Some(value) => format!("{words} [{}]", value.escape_ascii()),
                        None => format!("CE bad data chunk{}", if hidden { " quiet" } else { "" }),
                    });
                }
                if self.takes_keys {
                    let (buffer, said) = (&self.buffer, &mut self.said);
                    self.parser.plain_keys(buffer, &mut at, |PlainKey { key, is_last }| {
                        said.push(format!("Get {}", key.of(buffer).escape_ascii()));
                        said.extend(is_last.then(|| "End".to_owned()));
                        // The caller may stop at any key.
                        if said.len().is_multiple_of(3) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    });
                }
                let before = at;
                let step = self.parser.next(&mut self.buffer, &mut at, &self.limits, &mut operation);
                assert!(before <= at && at <= self.buffer.len());
                match step {
                    Step::Operation | Step::Key => self.said.push(words(&operation, &self.buffer, true)),
                    Step::Data => {
                        assert!(operation.value.start as usize == at && operation.value.len > self.limits.inline_max);
                        let hidden = operation.quiet && operation.verb != Verb::MetaSet;
                        let words = words(&operation, &self.buffer, false);
                        self.waiting = Some((words, hidden, operation.value.len as usize));
                    }
                    Step::Incomplete => break,
                    Step::Close => self.closed = true,
                }
            }
            self.buffer.drain(..at);
        }

        /// All operations in words, and the state at the end.
        fn finish(mut self) -> String {
            match () {
                () if self.closed => self.said.push("Close".to_owned()),
                () if self.waiting.is_some() => self.said.push("waiting".to_owned()),
                () if !self.buffer.is_empty() => self.said.push(format!("{} left", self.buffer.len())),
                () if !self.parser.is_idle() => self.said.push(format!("{:?}", self.parser.state)),
                () => {}
            }
            self.said.join("; ")
        }
    }

    /// An operation in words: only the fields that the request sets.
    fn words(operation: &Operation, buffer: &[u8], value: bool) -> String {
        let key = operation.key.of(buffer).escape_ascii();
        let verb = operation.verb;
        let Operation { client_flags, exptime, cas, delta, .. } = operation;
        let mut words = match verb {
            Verb::End => return "End".to_owned(),
            Verb::Get | Verb::Gets => format!("{verb:?} {key}"),
            Verb::Gat | Verb::Gats | Verb::Touch => format!("{verb:?} {key} {exptime}"),
            Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend => {
                format!("{verb:?} {key} {client_flags} {exptime}")
            }
            Verb::Cas => format!("{verb:?} {key} {client_flags} {exptime} {cas}"),
            Verb::Delete => format!("{verb:?} {key}"),
            Verb::Incr | Verb::Decr => format!("{verb:?} {key} {delta}"),
            Verb::MetaGet | Verb::MetaSet | Verb::MetaDelete | Verb::MetaArithmetic | Verb::MetaDebug => {
                let tokens = operation.tokens.of(buffer).escape_ascii();
                format!("{verb:?} {key} <{tokens}> {exptime} {client_flags} {cas}")
            }
            Verb::Say => {
                let text = String::from_utf8_lossy(operation.text.strip_suffix(b"\r\n").expect("replies are lines"));
                text.replace("CLIENT_ERROR", "CE").replace("bad command line format", "BCLF")
            }
            Verb::BinaryGet | Verb::BinarySet | Verb::BinaryDelete | Verb::BinaryArithmetic | Verb::BinarySay => {
                unreachable!("these come in packets")
            }
            Verb::Admin => format!("Admin {}", operation.tokens.of(buffer).escape_ascii()),
        };
        if operation.too_large {
            words += " too large";
        }
        if operation.quiet {
            words += " quiet";
        }
        if !operation.too_large && value && stores(verb) {
            words += &format!(" [{}]", operation.value.of(buffer).escape_ascii());
        }
        words
    }

    fn stores(verb: Verb) -> bool {
        verb == Verb::MetaSet || (Verb::Set as u8..=Verb::Cas as u8).contains(&(verb as u8))
    }

    /// Parses `input` as a whole and in pieces, and compares the operations with `want`.
    #[track_caller]
    fn check(input: &str, want: &str) {
        check_bytes(input.as_bytes(), want, LIMITS);
    }

    #[track_caller]
    fn check_bytes(input: &[u8], want: &str, limits: Limits) {
        for takes_keys in [false, true] {
            let mut client = Client { takes_keys, ..Client::new(limits) };
            client.receive(input);
            assert_eq!(client.finish(), want, "{takes_keys}: {}", input[..input.len().min(300)].escape_ascii());
        }
        if input.len() < LINE_LENGTH_MAX {
            in_pieces(input, want, limits);
        }
    }

    /// The input must give the same operations if it is split at any point, or comes byte by byte.
    #[track_caller]
    fn in_pieces(input: &[u8], want: &str, limits: Limits) {
        for split in 0..=input.len() {
            let mut client = Client::new(limits);
            client.receive(&input[..split]);
            client.receive(&input[split..]);
            assert_eq!(client.finish(), want, "split at {split}: {}", input.escape_ascii());
        }
        let mut client = Client::new(limits);
        for byte in input {
            client.receive(std::slice::from_ref(byte));
        }
        assert_eq!(client.finish(), want, "byte by byte: {}", input.escape_ascii());
    }

    #[test]
    fn retrieval() {
        check("get a\r\n", "Get a; End");
        for length in [7, 8, 31, 32, 33, 64, 249, 250] {
            let key = "k".repeat(length);
            let line = format!("get {key} b {key}\r\nget {key}\r\n");
            check(&line, &format!("Get {key}; Get b; Get {key}; End; Get {key}; End"));
        }
        check("get a\n", "Get a; End");
        check("get a\r\r\n", "Get a\\r; End");
        check("get a\rb\x01\tc\r\n", "Get a\\rb\\x01\\tc; End");
        check("get a\0b c\0\r\n", "Get a\\x00b; Get c\\x00; End");
        check("get  a  b \r\nget c\r\n", "Get a; Get b; End; Get c; End");
        check("gets a b\r\n", "Gets a; Gets b; End");
        check("gat 30 a\r\n", "Gat a 30; End");
        check("gats -1 a b \n", "Gats a -1; Gats b -1; End");
        check("get noreply\r\n", "Get noreply; End");
        check("get / HTTP/1.1\r\n", "Get /; Get HTTP/1.1; End");
        check("get a", "5 left");
        check("get a\r", "6 left");
        check("get a b", "7 left");
        for line in ["get", "get ", "get   ", "gets", "gets ", "gat", "gat 1", "gat 1 ", "gats x"] {
            check(&format!("{line}\r\n"), "CE BCLF");
            check(&format!("{line}\nget a\n"), "CE BCLF; Get a; End");
        }
        for exptime in ["x", "1x", "+1", "2147483648", "99999999999", "000000000001"] {
            check(&format!("gat {exptime} a\r\nmn\r\n"), "CE invalid exptime argument; MN");
        }
    }

    #[test]
    fn long_keys() {
        let (most, more) = ("k".repeat(250), "k".repeat(251));
        for command in ["get", "gets", "gat 0"] {
            for keys in [more.clone(), format!("a {more}"), format!("{more} a"), format!("{most} a {more} {most}")] {
                check(&format!("{command} {keys}\r\nmn\r\n"), "CE BCLF; MN");
            }
        }
        check(&format!("get {most}\r\n"), &format!("Get {most}; End"));
        check(&format!("get {most}  {most} a\n"), &format!("Get {most}; Get {most}; Get a; End"));
        check(&format!("set {more} 0 0 1\r\nx\r\nmn\r\n"), "CE BCLF; MN");
        check(&format!("set {more} 0 0 1 noreply\r\nx\r\nmn\r\n"), "CE BCLF quiet; MN");
        check(&format!("delete {more}\r\n"), "CE BCLF");
        check(&format!("incr {more} x noreply\r\n"), "CE BCLF quiet");
        check(&format!("mg {more}\r\nms {more} 1\r\nx\r\n"), "CE BCLF; CE BCLF");
    }

    /// Compares the search for long keys with the simplest one.
    #[test]
    fn long_keys_anywhere() {
        let mut random = Random::new(7);
        for _ in 0..2000 {
            let mut keys = Vec::new();
            for _ in 0..random.below(6) {
                keys.extend_from_slice(&b"k".repeat([0, 1, 249, 250, 251, 252, 700][random.below(7)]));
                keys.extend_from_slice(&b" ".repeat(random.below(3)));
            }
            let long = keys.split(|byte| *byte == b' ').any(|key| key.len() > KEY_LENGTH_MAX);
            assert_eq!(has_long_key(&keys), long, "{}", keys.escape_ascii());
        }
    }

    /// On an endless line, the parser returns keys as they arrive, once the line is longer than usual.
    #[test]
    fn endless_get() {
        let keys: Vec<String> = (0..5000).map(|index| format!("key{index}")).collect();
        let line = format!("get {}\r\nmn\r\n", keys.join(" "));
        let want = format!("Get {}; End; MN", keys.join("; Get "));
        check(&line, &want);
        for piece in [1, 7, 100, 2049, 5000] {
            let mut client = Client::new(LIMITS);
            for bytes in line.as_bytes().chunks(piece) {
                client.receive(bytes);
                assert!(client.buffer.len() <= LINE_LENGTH_MAX, "the buffer does not grow");
            }
            assert_eq!(client.finish(), want, "{piece} at a time");
        }

        // The parser has already returned the other keys when one turns out to be too long.
        let mut client = Client::new(LIMITS);
        let (most, more) = ("k".repeat(250), "k".repeat(251));
        client.receive(format!("gets {} {more}", [most.as_str(); 10].join(" ")).as_bytes());
        assert_eq!(client.said[10..], ["CE BCLF"]);
        client.receive(b"kk a b");
        client.receive(b" c\r\nmn\r\n");
        assert_eq!(client.said[10..], ["CE BCLF", "MN"]);

        let mut client = Client::new(LIMITS);
        client.receive(format!("get {}\r", [most.as_str(); 10].join(" ")).as_bytes());
        assert_eq!(client.said.len(), 9);
        client.receive(b"\n");
        assert_eq!(client.said[9..], [format!("Get {most}").as_str(), "End"]);

        let mut client = Client::new(LIMITS);
        client.receive(format!("get {}", " ".repeat(3000)).as_bytes());
        client.receive(b"\r\nmn\r\n");
        assert_eq!(client.finish(), "CE BCLF; MN");
    }

    #[test]
    fn line_too_long() {
        check(&"k".repeat(2048), "2048 left");
        check(&"k".repeat(2049), "Close");
        check(&" ".repeat(3000), "Close");
        check(&format!("gat 0 {}", "k ".repeat(1100)), "Close");
        check(&format!("{}get {}", " ".repeat(101), "k ".repeat(1100)), "Close");
        check(&format!("{}get {}\r\nmn\r\n", " ".repeat(101), "k ".repeat(1100)), "ERROR; MN");
        check(&format!("{}get {}", " ".repeat(100), "k ".repeat(1100)), "ERROR; Skip");
        check(&format!("{}\r\nmn\r\n", "x".repeat(5000)), "ERROR; MN");
    }

    #[test]
    fn storage() {
        check("set a 1 2 3\r\nxyz\r\n", "Set a 1 2 [xyz]");
        check("set a 0 0 0\r\n\r\n", "Set a 0 0 []");
        check("set a 0 0 2\n\r\n\r\nmn \n", "Set a 0 0 [\\r\\n]; MN");
        check("set a 0 0 1 noreply\r\nx\r\n", "Set a 0 0 quiet [x]");
        check("set a 0 0 1 noreply \r\nx\r\n", "Set a 0 0 quiet [x]");
        check("set a 0 0 1 Noreply\r\nx\r\n", "Set a 0 0 [x]");
        check("set a 0 0 1 z\r\nx\r\n", "Set a 0 0 [x]");
        check("set a 0 0 1 noreply z\r\nx\r\n", "Set a 0 0 [x]");
        check("set a 0 0 1 z noreply\r\nx\r\n", "Set a 0 0 quiet [x]");
        check("set  a  0  0  1 \r\nx\r\n", "Set a 0 0 [x]");
        check("set a 4294967295 -1 1\r\nx\r\n", "Set a 4294967295 -1 [x]");
        check("set a +1 \t1 1\r\nx\r\n", "Set a 1 1 [x]");
        check("set a 0 4294967297 1\r\nx\r\n", "Set a 0 1 [x]");
        check("add a 0 0 1\r\nx\r\nreplace a 0 0 1\r\nx\r\n", "Add a 0 0 [x]; Replace a 0 0 [x]");
        check("append a 0 0 1\r\nx\r\nprepend a 0 0 1\r\nx\r\n", "Append a 0 0 [x]; Prepend a 0 0 [x]");
        check("cas a 1 2 1 5\r\nx\r\n", "Cas a 1 2 5 [x]");
        check("cas a 1 2 1 18446744073709551615 noreply\r\nx\r\n", "Cas a 1 2 18446744073709551615 quiet [x]");
        check("cas a 1 2 1 5 z\r\nx\r\n", "Cas a 1 2 5 [x]");
    }

    #[test]
    fn values_in_pieces() {
        let long = "v".repeat(100);
        check(&format!("set a 0 0 100\r\n{long}\r\nmn\r\n"), &format!("Set a 0 0 [{long}]; MN"));
        check("set a 0 0 100\r\nv", "waiting");
        check("set a 0 0 64\r\nv", "15 left");
        check("set a 0 0 2147483645\r\n", "Set a 0 0 too large; Swallow { bytes: 2147483647 }");
        let limits = Limits { item_size_max: 1 << 30, ..LIMITS };
        check_bytes(b"set a 0 0 1000000000\r\n", "waiting", limits);
        check_bytes(b"ms YQ== 65 b T30\r\n", "waiting", limits);
        check(&format!("ms YQ== 100 b\r\n{long}\r\nmn\r\n"), &format!("MetaSet a <b> 0 0 0 [{long}]; MN"));
    }

    /// The kind of error decides whether the parser discards the value.
    #[test]
    fn storage_refused() {
        for line in ["set", "set a", "set a 0 0", "cas a 0 0", "set a 0 0 x noreply", "set a 0 0 -1", "set a 0 0 1x"] {
            check(&format!("{line}\r\nmn\r\n"), "CE BCLF; MN");
        }
        for length in ["+1", "\t1", "1\t", "2147483646", "2147483647", "4294967296", "000000000001", "--"] {
            check(&format!("set a 0 0 {length} noreply\r\nmn\r\n"), "CE BCLF; MN");
        }
        for line in ["set a x 0 2", "set a 0 x 2", "set a -1 0 2", "cas a 0 0 2", "cas a 0 0 2 x", "add a 0x 0 2"] {
            check(&format!("{line}\r\nmn\r\nmn\r\n"), "CE BCLF; MN");
        }
        check("cas a 0 0 2 noreply\r\nmn\r\nmn\r\n", "CE BCLF quiet; MN");
        check("set a 0 99999999999999999999 2 noreply\r\nmn\r\nmn\r\n", "CE BCLF quiet; MN");
        check("ms a 2 z\r\nmn\r\nmn\r\n", "CE invalid flag; MN");
        check("ms a 2 MX q\r\nmn\r\nmn\r\n", "CE invalid mode for ms M token; MN");
        check("ms a x\r\nmn\r\n", "CE BCLF; MN");
        check("ms a 2 !\r\nmn\r\n", "CE BCLF; MN");
    }

    /// An earlier parser looked for the missing key of a `set` in the next line.
    #[test]
    fn key_in_the_next_line() {
        for command in ["set", "add", "cas"] {
            check(&format!("{command}\na 0 0 1\r\nx\r\n"), "CE BCLF; ERROR; CE BCLF");
        }
        check("delete\na\nincr\na 1\n", "CE BCLF; CE BCLF; CE BCLF; ERROR");
    }

    #[test]
    fn bad_data_chunk() {
        check("set a 0 0 1\r\nabc\r\nmn\r\n", "CE bad data chunk; CE BCLF; MN");
        check("set a 0 0 1\r\na\n\r\nmn\r\n", "CE bad data chunk; CE BCLF; MN");
        check("set a 0 0 1 noreply\r\nabmn\r\n", "CE bad data chunk quiet; CE BCLF");
        check("set a 0 0 1 noreply\r\nabxmn\r\n", "CE bad data chunk quiet; MN");
        check("ms a 1 q\r\nabxmn\r\n", "CE bad data chunk; MN");
        check(&format!("set a 0 0 99 noreply\r\n{}xmn\r\n", "v".repeat(100)), "CE bad data chunk quiet; MN");
        check(&format!("ms a 99 q\r\n{}xmn\r\n", "v".repeat(100)), "CE bad data chunk; MN");
    }

    #[test]
    fn too_large() {
        let limits = Limits { item_size_max: 200, ..LIMITS };
        let value = "v".repeat(150);
        let most = 200 - 48 - 8 - 1 - 1 - 2;
        for (line, want) in [
            ("set a 0 0 150", "Set a 0 0 too large; MN"),
            ("set a 0 0 150 noreply", "Set a 0 0 too large quiet; MN"),
            ("append a 0 0 150", "Append a 0 0 too large; MN"),
            ("ms a 150 q", "MetaSet a <q> 0 0 0 too large quiet; MN"),
            ("ms YQ== 150 b", "MetaSet a <b> 0 0 0 too large; MN"),
        ] {
            check_bytes(format!("{line}\r\n{value}\r\nmn\r\n").as_bytes(), want, limits);
        }
        let fits = &value[..most];
        check_bytes(format!("set a 0 0 {most}\r\n{fits}\r\n").as_bytes(), &format!("Set a 0 0 [{fits}]"), limits);
        let more = format!("set a 1 0 {most}\r\n{fits}\r\nmn\r\n");
        check_bytes(more.as_bytes(), "Set a 1 0 too large; MN", limits);
        // The size limit counts the decoded key.
        let meta = format!("ms YQ== {most} b\r\n{fits}\r\n");
        check_bytes(meta.as_bytes(), &format!("MetaSet a <b> 0 0 0 [{fits}]"), limits);
    }

    #[test]
    fn arithmetic_and_touch() {
        check("incr a 5\r\n", "Incr a 5");
        check("decr a 18446744073709551615 noreply\r\n", "Decr a 18446744073709551615 quiet");
        check("incr a 01 x y\r\n", "Incr a 1");
        check("incr a\r\ndecr\r\ntouch\r\ntouch a\r\n", "CE BCLF; CE BCLF; CE BCLF; CE BCLF");
        for delta in ["x", "-1", "+1", "1x", "18446744073709551616"] {
            check(&format!("incr a {delta}\r\n"), "CE invalid numeric delta argument");
            check(&format!("decr a {delta} noreply\r\n"), "CE invalid numeric delta argument quiet");
        }
        check("incr a noreply\r\n", "CE invalid numeric delta argument quiet");
        check("touch a 30\r\n", "Touch a 30");
        check("touch  a  -1 noreply \n", "Touch a -1 quiet");
        check("touch a 2147483647\r\n", "Touch a 2147483647");
        for exptime in ["x", "+1", "2147483648", "99999999999", "-2147483649", "000000000001"] {
            check(&format!("touch a {exptime}\r\n"), "CE invalid exptime argument");
        }
        check("touch a noreply\r\n", "CE invalid exptime argument quiet");
    }

    #[test]
    fn words_behind_the_key_of_a_delete_mean_nothing() {
        check("delete\r\n", "CE BCLF");
        check("delete a\r\n", "Delete a");
        check("delete noreply\r\n", "Delete noreply");
        check("delete noreply noreply\r\n", "Delete noreply quiet");
        for words in
            ["", "0", "1", "-1", "b", "0 0", "b c d e", "noreply 0", "NOREPLY", &"0 ".repeat(20), &"0".repeat(999)]
        {
            check(&format!("delete a {words}\r\n"), "Delete a");
            check(&format!("delete a {words} noreply\r\n"), "Delete a quiet");
        }
        // `noreply` comes after the last word that the parser looks at.
        check(&format!("delete a {} noreply\r\n", "0 ".repeat(21)), "Delete a");
        check(&format!("delete {} 0\r\n", "k".repeat(251)), "CE BCLF");
        check(&format!("delete {} 0 noreply\r\n", "k".repeat(251)), "CE BCLF quiet");
    }

    #[test]
    fn meta_commands() {
        check("mg a v\r\nmg YQ== v b\r\n", "MetaGet a <v> 0 0 0; MetaGet a <v b> 0 0 0");
        check("md a q\nma a\r\n", "MetaDelete a <q> 0 0 0 quiet; MetaArithmetic a <> 0 0 0");
        check("ms a 2 T30 MA\r\nxy\r\n", "MetaSet a <T30 MA> 30 0 0 [xy]");
        check("me YQ==\r\nme YQ== b v\r\n", "MetaDebug YQ== <> 0 0 0; MetaDebug a <b v> 0 0 0");
        check("mg\r\nms a\r\nmg a v v\r\n", "CE BCLF; CE BCLF; CE duplicate flag");
        check("mn\r\nmn a\r\nmn \nmn\n", "MN; MN; MN; CE BCLF");
        check("mx a\r\n mg a\r\n mn\r\n", "ERROR; ERROR; ERROR");
        check("mg a q z\r\n", "CE invalid flag");
    }

    #[test]
    fn others() {
        check("stats\r\n", "Admin stats");
        check("stats \n", "Admin stats ");
        check("  verbosity 1 noreply\r\n", "Admin verbosity 1 noreply");
        check("version a b\r\nquit\r\nflush_all -1\r\n", "Admin version a b; Admin quit; Admin flush_all -1");
        check(
            "lru_crawler metadump all\r\nlru\r\nslabs x\r\n",
            "Admin lru_crawler metadump all; Admin lru; Admin slabs x",
        );
        check("statsx\r\nSTATS\r\nversion\ta\r\nbget a\r\n", "ERROR; ERROR; ERROR; ERROR");
        check(" get a\r\n set a 0 0 1\r\n", "ERROR; ERROR");
        check("foo\r\nfoo bar\r\n  \r\nfoo noreply\r\n", "ERROR; ERROR; ERROR; ERROR quiet");
        check("\n\r\n \r\na\r\nab\nabc\n", "CE BCLF; CE BCLF; CE BCLF; CE BCLF; CE BCLF; ERROR");
        check("GET / HTTP/1.1\r\nHost: a\r\n", "Close");
        check("foo HTTP/1.1 x\r\n", "ERROR");
        check("", "");
    }

    #[test]
    fn swallowing_is_not_idle() {
        let mut parser = Parser::default();
        assert!(parser.is_idle());
        parser.swallow(0);
        assert!(parser.is_idle());
        parser.swallow(5);
        let (mut at, mut operation) = (0, Operation::default());
        assert_eq!(parser.next(&mut [b'x'; 3], &mut at, &LIMITS, &mut operation), Step::Incomplete);
        assert!(at == 3 && !parser.is_idle());
        assert_eq!(parser.next(&mut b"xxmn\r\n".to_owned(), &mut { 0 }, &LIMITS, &mut operation), Step::Operation);
        assert!(operation.text == b"MN\r\n" && parser.is_idle());
    }

    /// A small random generator (xorshift). The seed repeats a failure.
    struct Random(u64);

    impl Random {
        fn new(seed: u64) -> Random {
            Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        }

        fn one_of(&mut self, bytes: &[u8]) -> u8 {
            bytes[self.below(bytes.len())]
        }

        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 33) as usize % limit
        }
    }

    /// The random input consists of these requests.
    const SEEDS: &[&str] = &[
        "get a\r\n",
        "get aaa bb  c\r\n",
        "gets a b\n",
        "gat 10 a b\r\n",
        "get kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk kkkkkkkkkkkkkkkkkkkkkkkkkkkk\r\n",
        "set a 0 0 5\r\nhello\r\n",
        "set abcdefghij 12 -1 3 noreply\r\nabc\r\n",
        "add a 1 0 0\r\n\r\n",
        "cas a 1 0 1 99\r\nx\r\n",
        "set a 0 0 20\r\nget a\r\nget b\r\nmn\r\n..\r\n",
        "incr a 1\r\n",
        "delete a\r\n",
        "delete a 0 noreply\r\n",
        "touch a 5 noreply\r\n",
        "mg a v t f\r\n",
        "mg YWJj b k q O123\r\n",
        "ms a 3 T10 F5\r\nabc\r\n",
        "ms YWJj 12 b MA q\r\nabcdefghijkl\r\n",
        "md a I T5\r\n",
        "ma a N0 J5 D2 MD\r\n",
        "me YQ== b v\r\n",
        "mn\r\n",
        "stats items\r\n",
        "version\r\n",
        "bogus\r\n",
        "\r\n",
    ];

    /// Random requests, some of them damaged, must cause no panic, and give the same operations whole and in pieces.
    #[test]
    fn damaged_requests() {
        for seed in 1..=3000 {
            let mut random = Random::new(seed);
            let mut input = Vec::new();
            for _ in 0..=random.below(5) {
                input.extend_from_slice(SEEDS[random.below(SEEDS.len())].as_bytes());
            }
            for _ in 0..random.below(5) {
                let at = random.below(input.len());
                match random.below(4) {
                    0 => input[at] = random.one_of(b"\r\n \0z09-+bqOMS\xff"),
                    1 if input.len() > 1 => drop(input.remove(at)),
                    2 => input.insert(at, random.one_of(b"\r\n  kT019-")),
                    _ => input.truncate(at + 1),
                }
            }
            let limits =
                Limits { inline_max: random.below(30) as u32, item_size_max: 60 + random.below(60) as u32, cas: true };
            let mut client = Client::new(limits);
            client.receive(&input);
            let want = client.finish();
            in_pieces(&input, &want, limits);
        }
    }

    #[test]
    fn random_bytes() {
        for seed in 1..=3000 {
            let mut random = Random::new(seed);
            let mut client = Client::new(LIMITS);
            let alphabet = [&b"\r\n"[..], b"get 0a", b"mgsda b\nkO", b"gets k"][random.below(4)];
            for _ in 0..random.below(20) {
                let (length, skew) = (random.below(600), random.below(9));
                let mut bytes = Vec::new();
                while bytes.len() < length {
                    bytes.push(if random.below(9) < skew { random.one_of(alphabet) } else { random.below(256) as u8 });
                }
                if random.below(3) == 0 {
                    client.receive(["get ", "gets k", "set k 0 0 9\r\n", "ms k 5 "][random.below(4)].as_bytes());
                }
                client.receive(&bytes);
            }
        }
    }
}
