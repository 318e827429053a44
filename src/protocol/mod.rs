//! The words of the protocol: bytes of a request become one [`Operation`] after another.
//!
//! Sans-I/O: a parser is handed a buffer and a position and says what it found ([`Step`]).
//! It never copies: an operation names its key, value and flags as [`Span`]s of that buffer,
//! so it is plain data that can be grouped, routed and copied to another worker's batch.
//!
//! What the operations mean is not known here; see `command/`.

pub mod parser;

pub mod administration;
pub mod login;
pub mod message;
pub mod meta;
pub mod text;
pub mod token;

pub mod binary;

pub mod encode;
pub mod packet;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

/// The version of memcached whose protocol and flags these are. Clients are told it, and parse it: three plain numbers.
pub const MEMCACHED_VERSION: &str = "1.6.45";

/// A part of the request buffer: `len` bytes from `start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The part of a buffer from `start` up to `end`, exclusive.
    #[inline]
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, len: (end - start) as u32 }
    }

    /// The bytes it names in `buffer`, which must be the buffer it was made from.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.start as usize + self.len as usize]
    }
}

/// What an operation does. One verb, one meaning; the variants of one command that differ only in
/// their reply (`get` and `gets`) are verbs of their own, so that executing is one flat `match`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// One key of a `get`.
    #[default]
    Get,
    /// One key of a `gets`: as `Get`, the reply carries the CAS value.
    Gets,
    /// One key of a `gat`: as `Get`, and sets `exptime`.
    Gat,
    /// One key of a `gats`.
    Gats,
    /// After the last key of a `get`, `gets`, `gat` or `gats`: the reply is `END`.
    End,
    /// `set`
    Set,
    /// `add`
    Add,
    /// `replace`
    Replace,
    /// `append`
    Append,
    /// `prepend`
    Prepend,
    /// `cas`
    Cas,
    /// `delete`
    Delete,
    /// `incr` by `delta`
    Incr,
    /// `decr` by `delta`
    Decr,
    /// `touch`
    Touch,
    /// `mg`
    MetaGet,
    /// `ms`
    MetaSet,
    /// `md`
    MetaDelete,
    /// `ma`
    MetaArithmetic,
    /// `me`
    MetaDebug,
    /// Binary get, gat and touch, with their key or without, quiet or not: `mode` is the opcode.
    BinaryGet,
    /// Binary set, add, replace, append and prepend: `mode` is the opcode.
    BinarySet,
    /// Binary delete.
    BinaryDelete,
    /// Binary incr and decr: `mode` is the opcode; with the flag `N` a missing number is created.
    BinaryArithmetic,
    /// Nothing to execute: the reply is a packet with a status and its message.
    BinarySay,
    /// Nothing to execute: the reply is `text` (errors, `VERSION …`, `MN`). Nothing is said if `quiet`.
    Say,
    /// A command of one connection or of the whole cache (`stats`, `flush_all`, `quit`, …): `tokens` is
    /// the line without its terminator, or the packet with its header. `command/admin.rs` and
    /// `command/binary.rs` read it. It ends a group.
    Admin,
}

impl Verb {
    /// The commands with keys of the text protocols.
    pub const OF_TEXT: [Verb; 19] = [
        Verb::Get,
        Verb::Gets,
        Verb::Gat,
        Verb::Gats,
        Verb::Set,
        Verb::Add,
        Verb::Replace,
        Verb::Append,
        Verb::Prepend,
        Verb::Cas,
        Verb::Delete,
        Verb::Incr,
        Verb::Decr,
        Verb::Touch,
        Verb::MetaGet,
        Verb::MetaSet,
        Verb::MetaDelete,
        Verb::MetaArithmetic,
        Verb::MetaDebug,
    ];

    /// The command's word in the text protocols; empty if it has none.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Gets => "gets",
            Verb::Gat => "gat",
            Verb::Gats => "gats",
            Verb::Set => "set",
            Verb::Add => "add",
            Verb::Replace => "replace",
            Verb::Append => "append",
            Verb::Prepend => "prepend",
            Verb::Cas => "cas",
            Verb::Delete => "delete",
            Verb::Incr => "incr",
            Verb::Decr => "decr",
            Verb::Touch => "touch",
            Verb::MetaGet => "mg",
            Verb::MetaSet => "ms",
            Verb::MetaDelete => "md",
            Verb::MetaArithmetic => "ma",
            Verb::MetaDebug => "me",
            Verb::BinaryGet
            | Verb::BinarySet
            | Verb::BinaryDelete
            | Verb::BinaryArithmetic
            | Verb::BinarySay
            | Verb::End
            | Verb::Say
            | Verb::Admin => "",
        }
    }

    /// The meta command with this word.
    #[inline(always)]
    pub fn from_meta_word(word: &[u8]) -> Option<Verb> {
        Some(match word {
            b"mg" => Verb::MetaGet,
            b"ms" => Verb::MetaSet,
            b"md" => Verb::MetaDelete,
            b"ma" => Verb::MetaArithmetic,
            b"me" => Verb::MetaDebug,
            _ => return None,
        })
    }

    /// Whether it reads values for a list of keys, each with a `VALUE` line of its own.
    #[inline]
    pub fn is_retrieval(self) -> bool {
        matches!(self, Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats)
    }

    /// Whether it is of the meta protocol: the operation has tokens.
    #[inline]
    pub fn is_meta(self) -> bool {
        matches!(self, Verb::MetaGet | Verb::MetaSet | Verb::MetaDelete | Verb::MetaArithmetic | Verb::MetaDebug)
    }

    /// Whether it stores: the operation has a value.
    #[inline]
    pub fn is_storage(self) -> bool {
        use Verb::{Add, Append, BinarySet, Cas, MetaSet, Prepend, Replace, Set};
        matches!(self, Set | Add | Replace | Append | Prepend | Cas | MetaSet | BinarySet)
    }

    /// Whether its reply is a packet.
    #[inline]
    pub fn is_binary(self) -> bool {
        use Verb::{BinaryArithmetic, BinaryDelete, BinaryGet, BinarySay, BinarySet};
        matches!(self, BinaryGet | BinarySet | BinaryDelete | BinaryArithmetic | BinarySay)
    }

    /// Whether it concerns a key, and so a shard.
    #[inline]
    pub fn is_keyed(self) -> bool {
        !matches!(self, Verb::End | Verb::BinarySay | Verb::Say | Verb::Admin)
    }
}

/// One operation on one key (or a reply to be given in its place), parsed and checked.
///
/// Plain data: all borrowed parts are [`Span`]s of the request buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operation {
    /// What to do.
    pub verb: Verb,
    /// `noreply` of the classic protocol, `q` of the meta protocol, the quiet opcodes of the binary one.
    pub quiet: bool,
    /// Mode of `ms` and `ma`: the first byte of the `M` token as sent, 0 when there is none. Binary: the opcode as sent.
    pub mode: u8,
    /// A storage command whose value is larger than an item may be: the value is being swallowed.
    /// Executing it gives the error and does to the old value what memcached does.
    pub too_large: bool,
    /// The key, 1–250 bytes; base64 keys (`b`) are already decoded, in place.
    pub key: Span,
    /// Binary: what the reply repeats.
    pub opaque: u32,
    /// The data block of a storage command, without its `\r\n`.
    pub value: Span,
    /// Meta commands: everything after the key (and after the length, for `ms`), to the end of the line: the
    /// return flags are written in this order. `Admin`: the whole line. `Say`: filled in by the caller of the parser,
    /// all that was consumed for it.
    pub tokens: Span,
    /// Hash of the key; filled in by the caller of the parser.
    pub hash: u64,
    /// Meta commands: which flags were given, [`flag`]`(letter)` each. Binary: `C` for a CAS value to compare with, `N`
    /// for a number to create.
    pub flags: u64,
    /// Classic: client flags. Meta: value of the `F` token. `BinarySay`: the status.
    pub client_flags: u32,
    /// Classic: exptime as sent. Meta: value of the `T` token. Seconds, memcached's rules; see `clock`.
    pub exptime: i32,
    /// Meta: value of the `N` token (vivify, autocreate).
    pub vivify: i32,
    /// Meta: value of the `R` token (recache).
    pub recache: i32,
    /// Classic `cas`: its unique. Meta: value of the `C` token (compare).
    pub cas: u64,
    /// Meta: value of the `E` token (explicit new CAS).
    pub new_cas: u64,
    /// `incr`, `decr`: the number. Meta: value of the `D` token, 1 when there is none.
    pub delta: u64,
    /// Meta: value of the `J` token, 0 when there is none.
    pub initial: u64,
    /// `Say`: the reply, with its terminator. It is never hidden unless `quiet`.
    pub text: &'static [u8],
}

/// The bit of a meta flag in [`Operation::flags`].
///
/// `letter` is an ASCII letter; anything else is a mistake of the caller.
#[inline]
pub const fn flag(letter: u8) -> u64 {
    1 << (letter - b'A')
}

impl Operation {
    /// Whether the meta flag `letter` was given.
    #[inline]
    pub fn has(&self, letter: u8) -> bool {
        self.flags & flag(letter) != 0
    }
}

/// What the parser found at the position it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The operation was filled in and its bytes, including a complete value, are behind the position. It ends a
    /// command.
    Operation,
    /// As `Operation`, for one key of a `get`, `gets`, `gat` or `gats`: an operation without a key ends the command.
    Key,
    /// A storage command whose header is complete and behind the position, but whose value is not complete in
    /// the buffer and is longer than [`Limits::inline_max`]: `operation.value` starts at the position and has the
    /// announced length, which goes beyond the buffer. The caller takes the value and its `\r\n` from here on.
    Data,
    /// Nothing can be made of the rest until more bytes come. The position is where parsing must start
    /// again (bytes before it are done with).
    Incomplete,
    /// Close the connection without a reply (after what was said before).
    Close,
}

/// Makes operations of bytes; [`text::Parser::next`] has the rules, which hold for all parsers.
pub trait Parse {
    /// Makes the next operation of `input[*at..]`, and moves `*at` past what was consumed.
    fn next(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step;
}

/// Limits that parsing needs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `-I`: largest item in bytes, in memcached's accounting (48 bytes of header, 8 of CAS, key + 1, 4 of client
    /// flags when they are not zero, value + 2).
    pub item_size_max: u32,
    /// CAS is kept (no `-C`): 8 bytes of each item in the accounting.
    pub cas: bool,
    /// A value that is not complete in the buffer and is no longer than this waits in the buffer (`Incomplete`);
    /// a longer one is handed out as `Step::Data`.
    pub inline_max: u32,
}

impl Limits {
    /// Whether an item of this key, flags and value length (without `\r\n`) is too large for the cache, by
    /// memcached's arithmetic.
    #[inline]
    pub fn too_large(&self, key_len: usize, client_flags: u32, value_len: usize) -> bool {
        let header = 48 + if self.cas { 8 } else { 0 } + if client_flags != 0 { 4 } else { 0 };
        header + key_len + 1 + value_len + 2 > self.item_size_max as usize
    }
}
