//! Images of a cache, as streams of bytes. A graceful stop writes an image, and the next start loads it.
//!
//! ```text
//! image    header, blocks of items and of values, block of the end; nothing behind it
//!
//! header                                               block
//!  0 magic            8 bytes                           0 payload length  u32  at most BLOCK_MAX
//!  8 version          u32                               4 kind            u16  see `Kind`
//! 12 ports            u32  0: one for all shards        6 shard           u16  that it was written by
//!                                                       8 number          u64  0, 1, 2, … through the image
//! 16 nonce            u64  of this image alone         16 checksum        u64  of these 16 bytes and the payload
//! 24 clock            u32  count when it was written      payload
//! 28 flush            u32  count of a flush to come
//! 32 wall clock       u64  ms since 1970               record
//! 40 last CAS         u64  largest given out            0 value length    u32
//! 48 items            u64  no more than these           4 exptime         u32  count of the clock, 0: never
//! 56 bytes            u64  in their chunks              8 last access     u32  count of the clock
//! 64 checksum         u64  of these 64 bytes           12 key length      u8
//!                                                      13 state           u8   segment and marks
//! payload of the end                                   14 age             u16  0: coldest of its list … 65,535
//!  0 items            u64  as many as there are        16 client flags    u32
//!                                                      20 CAS             u64  0: none were kept
//!                                                         key, value
//! ```
//! Numbers are little endian, so that an image is the same on every machine. A payload of items is a run of whole
//! records. A value that is too long for a block begins in the last record of a block of kind [`Kind::ItemsAndMore`]
//! and continues in the next blocks, of kind [`Kind::Value`]. Apart from this, blocks may come in any order: each
//! record says where in its list the item was. So a store writes its items page by page, and gives each page back to
//! the system when its items are written. An image in memory (tmpfs) then grows as fast as the cache shrinks.
//!
//! A reader that comes to the end without a [`Refusal`] has read exactly what was written. A checksum (XXH3, 64 bits)
//! covers every byte. It starts from the nonce and the number of the block, so that a block of another image, or one in
//! the wrong place, does not pass. An image that was cut off has no end. The format does not protect against forged
//! images: the file must be as private as the memory was.
//!
//! This module reads and writes streams. The caller opens them, and decides what a refusal means.

mod load;
mod save;

pub use load::{Filling, Loaded, Loader};
pub use save::Writer;

use super::arena::PAGE_SIZE_MAX;
use super::item::{ACTIVE, FETCHED, KEY_BINARY, SEGMENT_MASK, STALE, WON};
use std::io::{self, ErrorKind, Read};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

const MAGIC: [u8; 8] = *b"\x89ccimg\r\n";
/// The version of the layout above. Each change of the layout raises it.
const VERSION: u32 = 1;

const HEADER_LEN: usize = 72;
const BLOCK_HEADER_LEN: usize = 24;
const RECORD_LEN: usize = 28;
const END_LEN: usize = 8;

/// The most bytes of a block's payload.
pub const BLOCK_MAX: usize = 1 << 20;
// A block has room for the longest record of an item in a single chunk, and for the head of any other item.
const _: () =
    assert!(BLOCK_MAX >= RECORD_LEN + u8::MAX as usize + super::slab::CHUNK_MAX && BLOCK_MAX <= PAGE_SIZE_MAX);

/// The state bits of an item that an image keeps: its segment, and the marks that clients see.
const STATE_MASK: u8 = SEGMENT_MASK | FETCHED | ACTIVE | STALE | WON | KEY_BINARY;

/// The header of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The number of shards, if each had a port of its own and the keys that came in there; 0: the hash spread the
    /// keys.
    pub ports: u32,
    /// A number of this image alone.
    pub nonce: u64,
    /// The count of the clock when the image was written. All counts of items refer to it.
    pub clock: u32,
    /// The count of a flush that is planned; 0: none is.
    pub flush_at: u32,
    /// The wall clock when the image was written, in milliseconds since 1970.
    pub unix_millis: u64,
    /// The largest CAS value that the store gave to an item, deleted ones included. Clients may have chosen larger
    /// values.
    pub last_cas: u64,
    /// The number of items in the store. Fewer may follow, because some may have died.
    pub items: u64,
    /// The bytes of their chunks.
    pub bytes: u64,
}

/// Why an image was refused.
#[derive(Debug)]
pub enum Refusal {
    /// It does not begin like an image, so it is another file.
    Foreign,
    /// It is an image of another version of this format.
    Version(u32),
    /// It has changed since it was written, or a part of it is missing.
    Damaged(&'static str),
    /// It could not be read.
    Unreadable(io::Error),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Foreign => write!(formatter, "it is not an image of a cache"),
            Refusal::Version(version) => write!(formatter, "it has format {version}, this is a server for {VERSION}"),
            Refusal::Damaged(what) => write!(formatter, "it is damaged: {what}"),
            Refusal::Unreadable(error) => write!(formatter, "it cannot be read: {error}"),
        }
    }
}

/// The kind of a block's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Whole records.
    Items = 1,
    /// Records. The value of the last one continues in the next block.
    ItemsAndMore = 2,
    /// More of that value.
    Value = 3,
    /// The last block of the image.
    End = 4,
}

/// An item in an image.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The deadline: a count of the clock, or 0 for never.
    pub exptime: u32,
    /// The count of the clock at the last fetch or storage.
    pub last_access: u32,
    /// Its segment and marks.
    pub state: u8,
    /// Its place in its list; 0 is the tail.
    pub age: u16,
    pub client_flags: u32,
    /// Its CAS value; 0 if the server kept none.
    pub cas: u64,
    /// The key: 1–250 bytes.
    pub key: &'a [u8],
    pub value_len: usize,
    /// The value, or the part of it that is in the block.
    pub value: &'a [u8],
}

impl Record<'_> {
    /// Appends the record without the value.
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.value_len as u32).to_le_bytes());
        out.extend_from_slice(&self.exptime.to_le_bytes());
        out.extend_from_slice(&self.last_access.to_le_bytes());
        out.extend_from_slice(&[self.key.len() as u8, self.state]);
        out.extend_from_slice(&self.age.to_le_bytes());
        out.extend_from_slice(&self.client_flags.to_le_bytes());
        out.extend_from_slice(&self.cas.to_le_bytes());
        out.extend_from_slice(self.key);
    }
}

/// The record at a place of a payload of items, and the place of the next record.
///
/// The caller has checked the block. The function refuses a record that does not fit all the same, because a mistake
/// here could corrupt memory.
pub fn record(payload: &[u8], at: usize, kind: Kind) -> Result<(Record<'_>, usize), Refusal> {
    const SHORT: Refusal = Refusal::Damaged("a record that is longer than its block");
    let rest = &payload[at..];
    let Some((head, tail)) = rest.split_first_chunk::<RECORD_LEN>() else { return Err(SHORT) };
    let (value_len, key_len) = (u32_at(head, 0) as usize, usize::from(head[12]));
    if key_len == 0 || key_len > KEY_LEN_MAX || tail.len() < key_len {
        return Err(Refusal::Damaged("a key of an impossible length"));
    }
    let (key, tail) = tail.split_at(key_len);
    let len = value_len.min(tail.len());
    if len < value_len && kind != Kind::ItemsAndMore {
        return Err(SHORT);
    }
    let record = Record {
        exptime: u32_at(head, 4),
        last_access: u32_at(head, 8),
        state: head[13] & STATE_MASK,
        age: u16_at(head, 14),
        client_flags: u32_at(head, 16),
        cas: u64_at(head, 20),
        key,
        value_len,
        value: &tail[..len],
    };
    Ok((record, at + RECORD_LEN + key_len + len))
}

/// The longest key of an item.
const KEY_LEN_MAX: usize = 250;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has measured"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has measured"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has measured"))
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &self.ports.to_le_bytes());
        put(16, &self.nonce.to_le_bytes());
        put(24, &self.clock.to_le_bytes());
        put(28, &self.flush_at.to_le_bytes());
        put(32, &self.unix_millis.to_le_bytes());
        put(40, &self.last_cas.to_le_bytes());
        put(48, &self.items.to_le_bytes());
        put(56, &self.bytes.to_le_bytes());
        let checksum = xxh3_64_with_seed(&bytes[..HEADER_LEN - 8], 0);
        bytes[HEADER_LEN - 8..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, Refusal> {
        if bytes[..8] != MAGIC {
            return Err(Refusal::Foreign);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(Refusal::Version(u32_at(bytes, 8)));
        }
        if u64_at(bytes, HEADER_LEN - 8) != xxh3_64_with_seed(&bytes[..HEADER_LEN - 8], 0) {
            return Err(Refusal::Damaged("its header does not add up"));
        }
        Ok(Header {
            ports: u32_at(bytes, 12),
            nonce: u64_at(bytes, 16),
            clock: u32_at(bytes, 24),
            flush_at: u32_at(bytes, 28),
            unix_millis: u64_at(bytes, 32),
            last_cas: u64_at(bytes, 40),
            items: u64_at(bytes, 48),
            bytes: u64_at(bytes, 56),
        })
    }
}

/// The first step to the checksum of a block: the checksum of its payload, which takes most of the time. The second
/// step, [`block_sum`], adds the 16 bytes before it.
fn payload_sum(nonce: u64, payload: &[u8]) -> u128 {
    xxh3_128_with_seed(payload, nonce)
}

fn block_sum(nonce: u64, head: &[u8; 16], payload_sum: u128) -> u64 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(head);
    bytes[16..].copy_from_slice(&payload_sum.to_le_bytes());
    xxh3_64_with_seed(&bytes, nonce)
}

/// Reads an image.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    header: Header,
    blocks: u64,
}

/// A block that was read. [`Block::check`] checks it and gives its payload.
#[derive(Debug)]
pub struct Block {
    /// Whether the value of its last record continues in the next block.
    pub goes_on: bool,
    /// The shard that wrote it.
    pub shard: u16,
    nonce: u64,
    kind: Kind,
    head: [u8; 16],
    checksum: u64,
    payload: Vec<u8>,
}

impl Default for Block {
    fn default() -> Block {
        let payload = Vec::with_capacity(BLOCK_MAX);
        Block { goes_on: false, shard: 0, nonce: 0, kind: Kind::End, head: [0; 16], checksum: 0, payload }
    }
}

impl Block {
    /// Whether it is the last block, by its header.
    pub fn ends(&self) -> bool {
        self.kind == Kind::End
    }

    /// Checks the block, and gives its kind and payload.
    pub fn check(&self) -> Result<(Kind, &[u8]), Refusal> {
        if block_sum(self.nonce, &self.head, payload_sum(self.nonce, &self.payload)) != self.checksum {
            return Err(Refusal::Damaged("a block does not add up"));
        }
        Ok((self.kind, &self.payload))
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header of an image.
    pub fn new(mut from: R) -> Result<Reader<R>, Refusal> {
        let mut bytes = [0; HEADER_LEN];
        let len = read_up_to(&mut from, &mut bytes).map_err(Refusal::Unreadable)?;
        if len < HEADER_LEN {
            let begins_well = len >= MAGIC.len() && bytes[..8] == MAGIC;
            return Err(if begins_well { Refusal::Damaged("it is cut off") } else { Refusal::Foreign });
        }
        Ok(Reader { header: Header::parse(&bytes)?, from, blocks: 0 })
    }

    pub fn header(&self) -> Header {
        self.header
    }

    /// Reads the next block, without a check of its checksum. A block of kind [`Kind::End`] must be the last one: see
    /// [`Reader::at_end`].
    pub fn next(&mut self, block: &mut Block) -> Result<(), Refusal> {
        let mut head = [0; BLOCK_HEADER_LEN];
        self.read(&mut head)?;
        let len = u32_at(&head, 0) as usize;
        block.kind = match u16_at(&head, 4) {
            1 => Kind::Items,
            2 => Kind::ItemsAndMore,
            3 => Kind::Value,
            4 => Kind::End,
            _ => return Err(Refusal::Damaged("a block of no known kind")),
        };
        if len > BLOCK_MAX || u64_at(&head, 8) != self.blocks {
            return Err(Refusal::Damaged("a block that does not belong here"));
        }
        self.blocks += 1;
        block.goes_on = block.kind == Kind::ItemsAndMore;
        block.shard = u16_at(&head, 6);
        block.nonce = self.header.nonce;
        block.head.copy_from_slice(&head[..16]);
        block.checksum = u64_at(&head, 16);
        block.payload.resize(len, 0);
        self.read(&mut block.payload)
    }

    /// Whether the stream ends here.
    pub fn at_end(&mut self) -> Result<bool, Refusal> {
        Ok(read_up_to(&mut self.from, &mut [0]).map_err(Refusal::Unreadable)? == 0)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        match self.from.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(Refusal::Damaged("it is cut off")),
            Err(error) => Err(Refusal::Unreadable(error)),
        }
    }
}

/// The number of items, from the payload of the last block.
pub fn items_in_all(payload: &[u8]) -> Result<u64, Refusal> {
    match payload.first_chunk::<END_LEN>() {
        Some(count) if payload.len() == END_LEN => Ok(u64::from_le_bytes(*count)),
        _ => Err(Refusal::Damaged("an end that is none")),
    }
}

fn read_up_to(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match from.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
