//! The rights of a client of `--users`, between the parser and the operations: what the client may not do becomes a refusal.
//!
//! Only a user that may not do everything has a guard. A connection without one has no cost but a branch for each group of
//! operations.
//!
//! A refused key refuses its whole line: before the first key of a list is handed out, all are looked at. Of a list of more
//! than `text::LINE_LENGTH_MAX` bytes the keys come as they are read; there the keys before the refused one are answered, as
//! before a key that is too long.

use crate::auth::user::{Rights, User};
use crate::protocol::binary::{self, has_fetch, has_touch};
use crate::protocol::packet::Status;
use crate::protocol::{Limits, Operation, Parse, PlainKey, Span, Step, Verb, flag, text};
use std::ops::ControlFlow::{self, Break};
use std::sync::Arc;

/// The reply to a refused command of the text protocols.
pub(super) const DENIED: &[u8] = b"CLIENT_ERROR access denied\r\n";

/// Flags of `mg` that change the item: they create it, set its time, or take the right to refresh it.
const CHANGING_FLAGS: u64 = flag(b'N') | flag(b'T') | flag(b'R');

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) user: Arc<User>,
    /// The refusals that are not counted yet.
    pub(super) refused: u64,
    list: List,
}

/// The list of keys that the parser is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// All keys are allowed.
    Checked,
    /// The keys come in parts, and each is looked at.
    Unchecked,
}

/// What a guard needs of a parser.
pub(super) trait Guardable: Parse {
    /// Whether keys of a list are still to come.
    fn is_in_list(&self) -> bool;
    /// Gives up the list of which a key was handed out last.
    fn abandon_list(&mut self);
    /// Throws away the value of the command that was handed out last.
    fn swallow_value(&mut self, len: u32);
}

impl Guardable for text::Parser {
    fn is_in_list(&self) -> bool {
        text::Parser::is_in_list(self)
    }

    fn abandon_list(&mut self) {
        text::Parser::abandon_list(self);
    }

    fn swallow_value(&mut self, len: u32) {
        self.swallow(u64::from(len) + text::TERMINATOR_LEN as u64);
    }
}

impl Guardable for binary::Parser {
    fn is_in_list(&self) -> bool {
        false
    }

    fn abandon_list(&mut self) {}

    fn swallow_value(&mut self, len: u32) {
        self.swallow(u64::from(len));
    }
}

impl Guard {
    /// The guard of a user, if it needs one.
    pub(super) fn of(user: &Arc<User>) -> Option<Box<Guard>> {
        user.is_restricted().then(|| Box::new(Guard { user: Arc::clone(user), refused: 0, list: List::Unchecked }))
    }

    /// Whether the user may do an operation.
    #[inline]
    fn allows(&self, operation: &Operation, input: &[u8]) -> bool {
        !operation.verb.is_keyed()
            || self.user.rights.have(needed(operation)) && self.user.owns(operation.key.of(input))
    }

    /// Whether the user may use all these keys, which have spaces between them.
    fn owns_all(&self, keys: &[u8]) -> bool {
        let keys = keys.strip_suffix(b"\r").unwrap_or(keys);
        // Behind each space comes a key, another space, or the end.
        let allows = |at: usize| matches!(keys.get(at), None | Some(b' ')) || self.user.owns(&keys[at..]);
        allows(0) && memchr::memchr_iter(b' ', keys).all(|space| allows(space + 1))
    }

    /// Whether a `get` begins here, of a first key that the user may use.
    #[inline]
    fn allows_get(&self, input: &[u8], at: usize) -> bool {
        let rest = input.get(at..).and_then(|rest| rest.strip_prefix(b"get "));
        rest.is_some_and(|key| self.user.owns(key))
    }
}

/// The rights that an operation on a key needs.
#[inline]
fn needed(operation: &Operation) -> Rights {
    match operation.verb {
        Verb::Get | Verb::Gets | Verb::MetaDebug => Rights::READ,
        Verb::MetaGet if operation.flags & CHANGING_FLAGS == 0 => Rights::READ,
        Verb::MetaGet | Verb::Gat | Verb::Gats => Rights::READ_AND_WRITE,
        Verb::BinaryGet => match (has_fetch(operation.mode), has_touch(operation.mode)) {
            (_, false) => Rights::READ,
            (true, true) => Rights::READ_AND_WRITE,
            (false, true) => Rights::WRITE,
        },
        Verb::End | Verb::Say | Verb::BinarySay | Verb::Admin => Rights::NONE,
        _ => Rights::WRITE,
    }
}

/// A parser under a guard.
pub(super) struct Guarded<'p, P> {
    pub(super) parser: &'p mut P,
    pub(super) guard: &'p mut Guard,
}

impl<P: Guardable> Guarded<'_, P> {
    /// Looks at the keys of a list that has just begun. False: one of them is refused.
    fn check_list(&mut self, rest: &[u8]) -> bool {
        self.guard.list = List::Checked;
        if !self.parser.is_in_list() {
            return true;
        }
        match memchr::memchr(b'\n', rest) {
            Some(end) => self.guard.owns_all(&rest[..end]),
            None => {
                self.guard.list = List::Unchecked;
                true
            }
        }
    }

    /// Makes a refusal of the operation that was parsed last.
    #[cold]
    fn refuse(&mut self, step: Step, operation: &mut Operation) -> Step {
        self.guard.refused += 1;
        match step {
            Step::Key => self.parser.abandon_list(),
            Step::Data => self.parser.swallow_value(operation.value.len),
            _ => {}
        }
        if operation.verb.is_binary() {
            operation.verb = Verb::BinarySay;
            operation.client_flags = u32::from(Status::AUTH_ERROR.0);
            operation.quiet = false;
        } else {
            // `noreply` hides every error, `q` none.
            operation.quiet &= !operation.verb.is_meta();
            operation.verb = Verb::Say;
            operation.text = DENIED;
        }
        operation.too_large = false;
        operation.key = Span::default();
        Step::Operation
    }
}

impl<P: Guardable> Parse for Guarded<'_, P> {
    fn next(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step {
        let begins = !self.parser.is_in_list();
        let step = self.parser.next(input, at, limits, operation);
        let list_is_good = !begins || self.check_list(input.get(*at..).unwrap_or_default());
        match step {
            Step::Key if !list_is_good => self.refuse(step, operation),
            Step::Key | Step::Operation | Step::Data if !self.guard.allows(operation, input) => {
                self.refuse(step, operation)
            }
            step => step,
        }
    }

    #[inline(always)]
    fn plain_keys(&mut self, input: &[u8], at: &mut usize, mut take: impl FnMut(PlainKey) -> ControlFlow<()>) {
        let Guarded { parser, guard } = self;
        if !guard.user.rights.have(Rights::READ) {
            return;
        }
        let may_begin = if parser.is_in_list() { guard.list == List::Checked } else { guard.allows_get(input, *at) };
        if !may_begin {
            return;
        }
        parser.plain_keys(input, at, |plain| {
            let flow = take(plain);
            // The end of a line comes behind its last key, and then perhaps another line.
            let next = (plain.key.start + plain.key.len) as usize + text::TERMINATOR_LEN;
            if plain.is_last && !guard.allows_get(input, next) { Break(()) } else { flow }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::directory::Directory;
    use crate::auth::file;
    use std::ops::ControlFlow::Continue;

    const LIMITS: Limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 64 };

    /// Parses an input for a user with these words in its line, in pieces of several lengths. Gives what is left of it: keys
    /// of operations, and refusals.
    #[track_caller]
    fn check(words: &str, input: &str, expected: &str) {
        check_by(&[1, 7, 1000, 100_000], words, input, expected);
    }

    #[track_caller]
    fn check_by(pieces: &[usize], words: &str, input: &str, expected: &str) {
        let line = format!("user - {words} tls-name=x\n");
        let users = Directory::new(file::read(line.as_bytes()).expect("a good file")).expect("random bytes");
        let user = users.named("user").expect("a user");
        for &piece in pieces {
            for takes_keys in [false, true] {
                let mut guard = Guard::of(&user).expect("a user who may not do everything");
                let mut parser = text::Parser::default();
                let (mut buffer, mut at, mut told) = (Vec::new(), 0, Vec::new());
                for piece in input.as_bytes().chunks(piece) {
                    buffer.extend_from_slice(piece);
                    parse(&mut parser, &mut guard, &mut buffer, &mut at, (takes_keys, &mut told));
                    buffer.drain(..at);
                    at = 0;
                }
                assert_eq!(told.join(" "), expected, "{input:?} by {piece}, takes keys: {takes_keys}");
                assert_eq!(guard.refused, told.iter().filter(|word| word.starts_with('-')).count() as u64);
            }
        }
    }

    fn parse(
        parser: &mut text::Parser,
        guard: &mut Guard,
        buffer: &mut [u8],
        at: &mut usize,
        (takes_keys, told): (bool, &mut Vec<String>),
    ) {
        let shown = |key: Span, buffer: &[u8]| String::from_utf8_lossy(key.of(buffer)).into_owned();
        let mut operation = Operation::default();
        loop {
            let mut guarded = Guarded { parser, guard };
            if takes_keys {
                guarded.plain_keys(buffer, at, |plain| {
                    told.push(shown(plain.key, buffer));
                    if plain.is_last {
                        told.push("END".into());
                    }
                    Continue(())
                });
            }
            match guarded.next(buffer, at, &LIMITS, &mut operation) {
                Step::Incomplete => return,
                Step::Data => panic!("no value of these tests is so long"),
                Step::Close => return told.push("closed".into()),
                Step::Key | Step::Operation => {}
            }
            told.push(match operation.verb {
                Verb::End => "END".into(),
                Verb::Say if operation.text == DENIED && operation.quiet => "-quiet".into(),
                Verb::Say if operation.text == DENIED => "-".into(),
                Verb::Say => String::from_utf8_lossy(operation.text).trim_end().to_owned(),
                Verb::Admin => "admin".into(),
                _ => shown(operation.key, buffer),
            });
        }
    }

    #[test]
    fn a_refused_key_refuses_its_line() {
        let words = "read write prefix=a:,b";
        check(words, "get a:1\r\nget c\r\nget b\r\nget a\r\n", "a:1 END - b END -");
        check(words, "get a:1 b2 c\r\nget b\r\n", "- b END");
        check(words, "get a:1  b2   a:3 \r\nget c a:1\r\ngets a:1 a\r\ngets a:1 b\r\n", "a:1 b2 a:3 END - - a:1 b END");
        check(words, "gat 0 a:1 b\r\ngat 0 a:1 c\r\n", "a:1 b END -");
        check(words, "get a:1 c\nget a:2\nmn\r\n", "- a:2 END MN");
    }

    #[test]
    fn rights_decide_which_commands() {
        check("read", "get k\r\nset k 0 0 1\r\nx\r\ntouch k 1\r\ngat 1 k\r\nmg k v\r\nmg k N0\r\n", "k END - - - k -");
        check(
            "write",
            "get k\r\ngets k k\r\nset k 0 0 1\r\nx\r\nincr k 1\r\ngat 1 k\r\nmg k\r\nms k 1\r\nx\r\n",
            "- - k k - - k",
        );
        check("read", "me k\r\nmd k\r\nma k\r\nmg k T1\r\nmg k R1\r\nms k 1\r\nx\r\nmn\r\n", "k - - - - - MN");
        check("admin", "get k\r\nversion\r\n", "- admin");
    }

    #[test]
    fn refusals_are_as_quiet_as_errors() {
        check(
            "read",
            "set k 0 0 1 noreply\r\nx\r\ndelete k noreply\r\nmd k q\r\nms k 1 q\r\nx\r\nmn\r\n",
            "-quiet -quiet - - MN",
        );
    }

    #[test]
    fn base64_hides_no_key() {
        // `YTox` is `a:1`, `Yzox` is `c:1`.
        check("read write prefix=a:", "mg YTox b v\r\nmg Yzox b v\r\nmg YTox v\r\nms YTox 1 b\r\nx\r\n", "a:1 - - a:1");
    }

    #[test]
    fn a_long_list_is_refused_where_its_key_comes() {
        let keys: Vec<String> = (0..1000).map(|number| format!("a:{number}")).collect();
        let line = format!("get {}\r\n", keys.join(" "));
        let told = format!("{} END a:1 END", keys.join(" "));
        check("read prefix=a:", &format!("{line}get a:1\r\n"), &told);
        let line = format!("get {} b a:1\r\nget a:1\r\n", keys.join(" "));
        check_by(&[100_000], "read prefix=a:", &line, "- a:1 END");
        let told = format!("{} - a:1 END", keys.join(" "));
        check_by(&[1, 7, 1000], "read prefix=a:", &line, &told);
    }

    #[test]
    fn binary_commands_need_the_same_rights() {
        let packet = |opcode: u8, extras: &[u8], key: &[u8]| {
            let mut bytes = vec![binary::REQUEST, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
            bytes.extend(((extras.len() + key.len()) as u32).to_be_bytes());
            bytes.extend([0; 12]);
            [&bytes, extras, key].concat()
        };
        let users = Directory::new(file::read(b"u - read tls-name=x prefix=a\n").expect("a good file")).expect("bits");
        let mut guard = Guard::of(&users.named("u").expect("a user")).expect("a guard");
        let mut parser = binary::Parser::default();
        for (opcode, extras, key, allowed) in [
            (0x00, &[][..], &b"a"[..], true),
            (0x0d, &[], b"abc", true),
            (0x00, &[], b"b", false),
            (0x1c, &[0; 4], b"a", false),
            (0x1d, &[0; 4], b"a", false),
            (0x01, &[0; 8], b"a", false),
            (0x11, &[0; 8], b"a", false),
            (0x04, &[], b"a", false),
            (0x05, &[0; 20], b"a", false),
            (0x0a, &[], b"", true),
        ] {
            let (mut bytes, mut at, mut operation) = (packet(opcode, extras, key), 0, Operation::default());
            let mut guarded = Guarded { parser: &mut parser, guard: &mut guard };
            assert_eq!(guarded.next(&mut bytes, &mut at, &LIMITS, &mut operation), Step::Operation);
            let refused = operation.verb == Verb::BinarySay && operation.client_flags == 0x20 && !operation.quiet;
            assert_eq!((refused, at), (!allowed, bytes.len()), "{opcode:#x}");
        }
    }
}
