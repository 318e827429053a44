//! The words of the protocol: parsers turn the bytes of a request into one [`Operation`] after another.
//!
//! Parsers do no I/O. The caller gives a parser a buffer and a position, and the parser returns what it found
//! ([`Step`]). It never copies: an operation names its key, value and flags as [`Span`]s of that buffer. So an
//! operation is plain data, which a caller can group, route and copy to another worker's batch.
//!
//! This module does not know what the operations mean. `command/` does.

pub mod parser;

pub mod administration;
pub mod login;
pub mod message;
pub mod meta;
mod plain;
pub mod text;
pub mod token;

pub mod binary;

pub mod encode;
pub mod packet;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

use std::ops::ControlFlow;

/// This server has the protocol and the flags of this version of memcached. Clients receive it and parse it, so it is
/// three plain numbers.
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

    /// The bytes of the span in `buffer`. The span must have been made from that buffer.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.start as usize + self.len as usize]
    }
}

/// The action of an operation. Each verb has one meaning. Commands that differ only in their reply (`get` and `gets`)
/// are different verbs, so that executing is one flat `match`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// One key of a `get`.
    #[default]
    Get,
    /// One key of a `gets`: as `Get`, and the reply carries the CAS value.
    Gets,
    /// One key of a `gat`: as `Get`, and the command sets `exptime`.
    Gat,
    /// One key of a `gats`.
    Gats,
    /// The end of a `get`, `gets`, `gat` or `gats`, after its last key: the reply is `END`.
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
    /// Binary get, gat and touch, with or without the key in the reply, quiet or not. `mode` is the opcode.
    BinaryGet,
    /// Binary set, add, replace, append and prepend. `mode` is the opcode.
    BinarySet,
    /// Binary delete.
    BinaryDelete,
    /// Binary incr and decr. `mode` is the opcode. With the flag `N` the command creates a missing number.
    BinaryArithmetic,
    /// Nothing to execute. The reply is a packet with a status and its message.
    BinarySay,
    /// Nothing to execute. The reply is `text` (errors, `VERSION …`, `MN`). If `quiet`, the client gets no reply.
    Say,
    /// A command of one connection or of the whole cache (`stats`, `flush_all`, `quit`, …). `tokens` is the line
    /// without its terminator, or the packet with its header. `admin/` reads it. The command ends a group of
    /// operations.
    Admin,
}

impl Verb {
    /// The commands of the text protocols that have keys.
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

    /// Whether the verb reads values for a list of keys. The reply has a `VALUE` line for each.
    #[inline]
    pub fn is_retrieval(self) -> bool {
        matches!(self, Verb::Get | Verb::Gets) || self.is_touching_retrieval()
    }

    /// Whether it fetches values and sets their expiration time.
    #[inline]
    pub fn is_touching_retrieval(self) -> bool {
        matches!(self, Verb::Gat | Verb::Gats)
    }

    /// Whether the verb is a command of the meta protocol, so that the operation has tokens.
    #[inline]
    pub fn is_meta(self) -> bool {
        matches!(self, Verb::MetaGet | Verb::MetaSet | Verb::MetaDelete | Verb::MetaArithmetic | Verb::MetaDebug)
    }

    /// Whether the verb stores, so that the operation has a value.
    #[inline]
    pub fn is_storage(self) -> bool {
        use Verb::{Add, Append, BinarySet, Cas, MetaSet, Prepend, Replace, Set};
        matches!(self, Set | Add | Replace | Append | Prepend | Cas | MetaSet | BinarySet)
    }

    /// Whether the reply to the verb is a packet.
    #[inline]
    pub fn is_binary(self) -> bool {
        use Verb::{BinaryArithmetic, BinaryDelete, BinaryGet, BinarySay, BinarySet};
        matches!(self, BinaryGet | BinarySet | BinaryDelete | BinaryArithmetic | BinarySay)
    }

    /// Whether the verb concerns a key, and so a shard.
    #[inline]
    pub fn is_keyed(self) -> bool {
        !matches!(self, Verb::End | Verb::BinarySay | Verb::Say | Verb::Admin)
    }
}

/// One operation on one key, or a reply to give in its place, parsed and checked.
///
/// Plain data: all borrowed parts are [`Span`]s of the request buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operation {
    /// What to do.
    pub verb: Verb,
    /// `noreply` of the classic protocol, `q` of the meta protocol, the quiet opcodes of the binary one.
    pub quiet: bool,
    /// Mode of `ms` and `ma`: the first byte of the `M` token as sent, 0 without one. Binary: the opcode as sent.
    pub mode: u8,
    /// A storage command whose value is larger than an item may be. The parser discards the value. Executing the
    /// operation gives the error and does to the old value what memcached does.
    pub too_large: bool,
    /// The key, 1–250 bytes. The parser has already decoded a base64 key (`b`), in place.
    pub key: Span,
    /// Binary: the number that the reply repeats.
    pub opaque: u32,
    /// The data block of a storage command, without its `\r\n`.
    pub value: Span,
    /// Meta commands: everything after the key (for `ms`, after the length), to the end of the line. The reply writes
    /// the return flags in this order. `Admin`: the whole line. `Say`: all bytes that the parser consumed for the
    /// reply; the caller of the parser fills them in.
    pub tokens: Span,
    /// Hash of the key. The caller of the parser fills it in.
    pub hash: u64,
    /// Meta commands: the given flags, [`flag`]`(letter)` each. Binary: `C` if the packet has a CAS value to compare
    /// with, `N` if the command may create a number.
    pub flags: u64,
    /// Classic: client flags. Meta: value of the `F` token. `BinarySay`: the status.
    pub client_flags: u32,
    /// Classic: exptime as sent. Meta: value of the `T` token. Seconds by memcached's rules; see `clock`.
    pub exptime: i32,
    /// Meta: value of the `N` token (vivify, autocreate).
    pub vivify: i32,
    /// Meta: value of the `R` token (recache).
    pub recache: i32,
    /// Classic `cas`: its unique number. Meta: value of the `C` token (compare).
    pub cas: u64,
    /// Meta: value of the `E` token (explicit new CAS).
    pub new_cas: u64,
    /// `incr`, `decr`: the number. Meta: value of the `D` token, 1 without one.
    pub delta: u64,
    /// Meta: value of the `J` token, 0 without one.
    pub initial: u64,
    /// `Say`: the reply, with its terminator. The client gets it unless `quiet`.
    pub text: &'static [u8],
}

/// The bit of a meta flag in [`Operation::flags`].
///
/// `letter` must be an ASCII letter. The caller makes sure of that.
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

/// What the parser found at the given position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The parser filled in the operation, and moved the position past its bytes, including a complete value. The
    /// operation ends a command.
    Operation,
    /// As `Operation`, for one key of a `get`, `gets`, `gat` or `gats`. A later operation without a key ends the
    /// command.
    Key,
    /// A storage command with a complete header. Its value is not complete in the buffer and is longer than
    /// [`Limits::inline_max`]. The parser moved the position past the header. `operation.value` starts at the position
    /// and has the announced length, which reaches beyond the buffer. The caller takes the value and its `\r\n` from
    /// here on.
    Data,
    /// The parser needs more bytes. It must start again at the position, and no longer needs the bytes before it.
    Incomplete,
    /// The caller closes the connection without a reply, after it has sent the earlier replies.
    Close,
}

/// Makes operations from bytes. [`text::Parser::next`] has the rules, which hold for all parsers.
pub trait Parse {
    /// Makes the next operation from `input[*at..]`, and moves `*at` past the consumed bytes.
    fn next(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits, operation: &mut Operation) -> Step;

    /// Hands out keys of `get`s while the next one is of the usual form and `take` wants another, and moves the position
    /// past them. It says nothing about the input behind them, which [`Parse::next`] reads.
    #[inline(always)]
    fn plain_keys(&mut self, _input: &[u8], _at: &mut usize, _take: impl FnMut(PlainKey) -> ControlFlow<()>) {}
}

/// A key of a `get`.
#[derive(Clone, Copy, Debug)]
pub struct PlainKey {
    /// The key.
    pub key: Span,
    /// It is the last key of its command, whose reply `END` follows.
    pub is_last: bool,
}

/// The limits that parsers need.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `-I`: largest item in bytes, in memcached's accounting (48 bytes of header, 8 of CAS, key + 1, 4 of client
    /// flags when they are not zero, value + 2).
    pub item_size_max: u32,
    /// The server keeps CAS values (no `-C`): 8 bytes of each item in the accounting.
    pub cas: bool,
    /// A value that is not complete in the buffer waits there (`Incomplete`) if it is no longer than this. The parser
    /// reports a longer one as `Step::Data`.
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
