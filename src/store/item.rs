//! Items. An item has a header, a key and a value, in one chunk of a slab class. A large item fills a chain of chunks. All
//! but the last are of the largest class, and the last is of the class that fits.
//!
//! ```text
//! small item                                                         large item: a chain of chunks
//!  0 next          u32  id in its LRU list, or FLOATING               head, as a small item up to the key, then
//!  4 prev          u32  id in its LRU list                              value length u32, id of first body u32,
//!  8 exptime       u32  count of the clock, 0: never                    bytes of the value in the head u32, value …
//! 12 stamp         u32  of the last access (stamps.rs)                body
//! 16 value length  u16  LARGE: a large item                            0 next body u32
//! 18 key length    u8   1–250; 0: no item begins in this chunk          4 id of the head u32
//! 19 state         u8   see the constants                              8 bytes of the value in the body u32
//! 20 CAS           u64  absent with -C                                18 0 u8, 19 BODY u8
//! 28 client flags  u32  absent when zero                              20 value …
//!    key, value
//! ```
//! Numbers have the byte order of the machine and are not aligned. A free chunk has key length 0 and state 0.
//!
//! This is one of the three files with `unsafe`. Its safety depends on these rules:
//! - An [`ItemId`] names a chunk inside the arena, and the chunk is as long as its header says: `slab.rs` hands out
//!   chunks, [`Items::create`], [`Items::enlarge`] and [`Items::append_body`] write headers.
//! - Only the thread that holds the shard's lease reads or writes a linked item. The exception is a pinned item (see
//!   `Store::pin`): other threads may read its value and the headers of its bodies, and no thread writes these while the
//!   item is pinned.
//! - A floating item that a client is sending ([`Items::room`]) belongs to the worker that receives it, until the
//!   worker hands it back.

use super::arena::{Arena, ItemId};
use std::marker::PhantomData;
use std::sync::Arc;

const NEXT: usize = 0;
const PREV: usize = 4;
const EXPTIME: usize = 8;
const STAMP: usize = 12;
const VALUE_LEN: usize = 16;
const KEY_LEN: usize = 18;
const STATE: usize = 19;
const CAS: usize = 20;
pub(super) const HEADER: usize = 20;
const CAS_SIZE: usize = 8;
const CLIENT_FLAGS_SIZE: usize = 4;
/// Bytes behind the key in the head of a large item: value length, id of the first body, bytes of the value in the head.
pub const LARGE_EXTENSION: usize = 12;
const BODY_OWNER: usize = 4;
const BODY_LEN: usize = 8;
/// Bytes of a body in front of its part of the value.
pub const BODY_HEADER: usize = 20;

/// A value of `next`: the item is neither in a list nor in the index.
const FLOATING: u32 = u32::MAX;
/// A value of the value length: the item is large.
const LARGE: u16 = u16::MAX;
/// The longest value of a small item, in bytes.
pub(super) const SMALL_VALUE_MAX: usize = LARGE as usize - 1;
/// The state of a body.
const BODY: u8 = 0xff;

/// The two low bits of the state, which name the item's LRU segment.
pub const SEGMENT_MASK: u8 = 0b11;
/// The item was fetched since it was stored.
pub const FETCHED: u8 = 1 << 2;
/// The item was fetched or overwritten since it came to its segment. The LRU keeps it for another round.
pub const ACTIVE: u8 = 1 << 3;
/// A meta command marked the item stale.
pub const STALE: u8 = 1 << 4;
/// A client was told to recache it (`W`).
pub const WON: u8 = 1 << 5;
/// The key was sent in base64.
pub const KEY_BINARY: u8 = 1 << 6;
/// The item has client flags behind its header.
const HAS_CLIENT_FLAGS: u8 = 1 << 7;

/// Access to the items of an arena by their ids.
#[derive(Clone, Debug)]
pub struct Items {
    arena: Arc<Arena>,
    cas: bool,
}

/// The content of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    Free,
    /// The beginning of an item that is in the index.
    Linked,
    /// The beginning of an item that a client is sending, or that is dead but pinned.
    Floating,
    /// A further part of the large item that begins at the id.
    Body(ItemId),
}

/// A place in a value, for code that reads or fills it part by part. The value may be spread over several chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    chunk: ItemId,
    offset: u32,
    /// Bytes of the value from here to the end of this chunk.
    here: u32,
    /// Bytes of the value from here to its end.
    left: u32,
    /// The chunk behind this one. It is kept here because a reader of a pinned value may not look it up in the header
    /// of the item, which belongs to the holder of the lease.
    next: Option<ItemId>,
}

impl Cursor {
    /// Bytes from here to the end of the value.
    pub fn left(&self) -> usize {
        self.left as usize
    }

    /// The same place in a value that ends after `left` more bytes, or earlier if it is shorter.
    fn cut(self, left: usize) -> Cursor {
        let left = self.left.min(left as u32);
        Cursor { here: self.here.min(left), left, ..self }
    }
}

impl Items {
    /// Items in `arena`, with CAS values or without.
    pub fn new(arena: Arc<Arena>, cas: bool) -> Items {
        Items { arena, cas }
    }

    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Bytes that an item needs in a single chunk.
    #[inline]
    pub fn size(&self, key_len: usize, client_flags: u32, value_len: usize) -> usize {
        self.header() + if client_flags == 0 { 0 } else { CLIENT_FLAGS_SIZE } + key_len + value_len
    }

    /// [`Items::size`] of an item.
    #[inline]
    pub fn size_of(&self, item: &Item<'_>) -> usize {
        self.size(item.key_len(), item.client_flags(), item.value_len())
    }

    #[inline]
    fn header(&self) -> usize {
        if self.cas { HEADER + CAS_SIZE } else { HEADER }
    }

    #[inline]
    pub fn at(&self, id: ItemId) -> Item<'_> {
        Item { pointer: self.arena.pointer(id), cas: self.cas, items: PhantomData }
    }

    /// The content of the chunk at an id.
    #[inline]
    pub fn chunk(&self, id: ItemId) -> Chunk {
        let item = self.at(id);
        match (item.read::<u8>(KEY_LEN), item.read::<u8>(STATE)) {
            (0, BODY) => ItemId::from_raw(item.read(BODY_OWNER)).map_or(Chunk::Free, Chunk::Body),
            (0, _) => Chunk::Free,
            _ if item.read::<u32>(NEXT) == FLOATING => Chunk::Floating,
            _ => Chunk::Linked,
        }
    }

    /// Writes the header and the key of a new item into a chunk. The item is floating and was never fetched; it has CAS
    /// 0 and no value yet. [`Items::enlarge`] turns it into a large item.
    ///
    /// The caller owns the chunk, and the chunk has at least [`Items::size`] bytes.
    #[inline]
    pub fn create(&self, id: ItemId, key: &[u8], client_flags: u32, value_len: usize) -> Item<'_> {
        let item = self.at(id);
        item.write(NEXT, FLOATING);
        item.write(PREV, 0_u32);
        item.write(EXPTIME, 0_u32);
        item.write(STAMP, 0_u32);
        item.write(VALUE_LEN, value_len as u16);
        item.write(KEY_LEN, key.len() as u8);
        item.write(STATE, if client_flags == 0 { 0 } else { HAS_CLIENT_FLAGS });
        item.set_cas(0);
        if client_flags != 0 {
            item.write(self.header(), client_flags);
        }
        item.copy_in(item.key_offset(), key);
        item
    }

    /// Turns a new item into a large one with a value of this length. Its chunk becomes the head, which holds the first
    /// `room` bytes of the value; [`Items::append_body`] adds chunks for the rest.
    ///
    /// The caller owns the chunk, and the chunk has [`Items::size`] bytes for a value that is [`LARGE_EXTENSION`] bytes
    /// longer than `room`.
    pub fn enlarge(&self, id: ItemId, value_len: usize, room: usize) {
        let item = self.at(id);
        item.write(VALUE_LEN, LARGE);
        let extension = item.extension();
        item.write(extension, value_len as u32);
        item.write(extension + 4, 0_u32);
        item.write(extension + 8, room as u32);
    }

    /// Marks a chunk as free and links it to the next free one.
    #[inline]
    pub fn set_free(&self, id: ItemId, next: Option<ItemId>) {
        let chunk = self.at(id);
        chunk.write(NEXT, ItemId::to_raw(next));
        chunk.write(KEY_LEN, 0_u8);
        chunk.write(STATE, 0_u8);
    }

    /// The chunk to which a chunk is linked: a free chunk to the next free one, a body to the next body.
    #[inline]
    pub fn next_chunk(&self, id: ItemId) -> Option<ItemId> {
        ItemId::from_raw(self.at(id).read(NEXT))
    }

    /// The first body of a large item; `None` for a small one.
    pub fn first_body(&self, id: ItemId) -> Option<ItemId> {
        let item = self.at(id);
        if item.is_large() { ItemId::from_raw(item.read(item.extension() + 4)) } else { None }
    }

    /// The beginning of an item's value.
    ///
    /// The caller holds the lease, or fills the floating item.
    pub fn value_cursor(&self, id: ItemId) -> Cursor {
        let item = self.at(id);
        let (offset, left) = (item.value_offset() as u32, item.value_len() as u32);
        let here = if item.is_large() { item.read::<u32>(item.extension() + 8) } else { left };
        Cursor { chunk: id, offset, here, left, next: self.first_body(id) }
    }

    /// The first place of a floating item's value in a chunk, which is the head or a body. The value ends after `left`
    /// bytes.
    ///
    /// The caller fills the item, and the item has chunks for this many bytes.
    pub(super) fn cursor_from(&self, head: ItemId, chunk: ItemId, left: usize) -> Cursor {
        if chunk == head {
            return self.value_cursor(head).cut(left);
        }
        let here = self.at(chunk).read::<u32>(BODY_LEN).min(left as u32);
        Cursor { chunk, offset: BODY_HEADER as u32, here, left: left as u32, next: self.next_chunk(chunk) }
    }

    /// The bytes from a place in a value to the end of its chunk; empty at the end of the value.
    ///
    /// The item is pinned, or the caller holds the lease.
    pub fn bytes(&self, cursor: &Cursor) -> &[u8] {
        self.at(cursor.chunk).slice(cursor.offset as usize, cursor.here as usize)
    }

    /// The bytes from a place in a value to the end of its chunk, for a caller that fills them.
    ///
    /// The item is floating, and no one else fills it.
    #[allow(
        clippy::mut_from_ref,
        reason = "the memory is the arena's, and leases decide who may write it, not borrows"
    )]
    pub fn room(&self, cursor: &Cursor) -> &mut [u8] {
        let pointer = self.at(cursor.chunk).pointer;
        // SAFETY: `here` bytes from `offset` lie in the chunk, as `value_cursor` and `advance` ensure. The item is
        // floating, so no one else reads or writes its value.
        unsafe { std::slice::from_raw_parts_mut(pointer.add(cursor.offset as usize), cursor.here as usize) }
    }

    /// The place `count` bytes further on, or the end of the value.
    pub fn advance(&self, mut cursor: Cursor, count: usize) -> Cursor {
        let mut count = count.min(cursor.left as usize) as u32;
        loop {
            let step = count.min(cursor.here);
            cursor.offset += step;
            cursor.here -= step;
            cursor.left -= step;
            count -= step;
            if cursor.here != 0 || cursor.left == 0 {
                return cursor;
            }
            cursor.chunk = cursor.next.expect("a large item has as many chunks as its value needs");
            cursor.next = self.next_chunk(cursor.chunk);
            cursor.offset = BODY_HEADER as u32;
            cursor.here = cursor.left.min(self.at(cursor.chunk).read(BODY_LEN));
        }
    }

    /// Copies the content of a chunk in use to another chunk of its class. The caller then replaces all references to
    /// the old chunk: in the index, in the list, and in other chunks of a large item.
    ///
    /// The caller holds the lease and owns the new chunk, and the item is not pinned.
    pub(super) fn copy_chunk(&self, from: ItemId, to: ItemId) {
        let item = self.at(from);
        let len = match self.chunk(from) {
            Chunk::Body(_) => BODY_HEADER + item.read::<u32>(BODY_LEN) as usize,
            _ if item.is_large() => item.value_offset() + item.read::<u32>(item.extension() + 8) as usize,
            _ => self.size_of(&item),
        };
        self.at(to).copy_in(0, item.slice(0, len));
    }

    /// Links a body behind another chunk of its item.
    pub(super) fn set_next_body(&self, before: ItemId, body: ItemId) {
        let item = self.at(before);
        match self.chunk(before) {
            Chunk::Body(_) => item.write(NEXT, body.bits()),
            _ => item.write(item.extension() + 4, body.bits()),
        }
    }

    /// Adds a body with the next `room` bytes of the value to a floating large item that has fewer chunks than its value
    /// needs. `last` is its last chunk so far, which is the head if it has no body.
    ///
    /// The caller owns the chunk, which has `room` bytes behind a [`BODY_HEADER`].
    pub(super) fn append_body(&self, head: ItemId, last: ItemId, body: ItemId, room: usize) {
        let chunk = self.at(body);
        chunk.write(NEXT, 0_u32);
        chunk.write(BODY_OWNER, head.bits());
        chunk.write(BODY_LEN, room as u32);
        chunk.write(KEY_LEN, 0_u8);
        chunk.write(STATE, BODY);
        self.set_next_body(last, body);
    }

    /// Tells a body that its item begins at `head`.
    pub(super) fn set_head(&self, body: ItemId, head: ItemId) {
        self.at(body).write(BODY_OWNER, head.bits());
    }

    /// Copies bytes into the value of a floating item, and gives the place behind them.
    pub fn fill(&self, mut cursor: Cursor, mut bytes: &[u8]) -> Cursor {
        while !bytes.is_empty() {
            let room = self.room(&cursor);
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            cursor = self.advance(cursor, count);
        }
        cursor
    }

    /// Copies the value of an item to a place in the value of a floating one, and gives the place behind it.
    pub fn copy_value(&self, mut to: Cursor, from: ItemId) -> Cursor {
        let mut from = self.value_cursor(from);
        while from.left() > 0 {
            let bytes = self.bytes(&from);
            to = self.fill(to, bytes);
            from = self.advance(from, bytes.len());
        }
        to
    }

    /// A copy of the value of an item, whatever the number of its chunks.
    ///
    /// The item is pinned, or the caller holds the lease.
    #[cold]
    pub fn value_to_vec(&self, id: ItemId) -> Vec<u8> {
        let mut cursor = self.value_cursor(id);
        let mut value = Vec::with_capacity(cursor.left());
        while cursor.left() > 0 {
            let bytes = self.bytes(&cursor);
            value.extend_from_slice(bytes);
            cursor = self.advance(cursor, bytes.len());
        }
        value
    }
}

/// Copies `len` bytes, from `N` to twice as many, as their first `N` and their last `N`.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`], and `len` is at least `N`.
#[inline(always)]
unsafe fn copy_ends<const N: usize>(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: both parts are inside the `len` bytes, which the caller may read and write.
    unsafe {
        let first = from.cast::<[u8; N]>().read_unaligned();
        let last = from.add(len - N).cast::<[u8; N]>().read_unaligned();
        to.cast::<[u8; N]>().write_unaligned(first);
        to.add(len - N).cast::<[u8; N]>().write_unaligned(last);
    }
}

/// The address of an item. It is cheap to copy, and all reads and writes go to the chunk.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Invariant: the first byte of a chunk of the arena.
    pointer: *mut u8,
    cas: bool,
    items: PhantomData<&'a Items>,
}

impl<'a> Item<'a> {
    #[inline]
    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: fields are integers. Their offsets are inside the smallest chunk, or behind the key of an item whose
        // chunk covers them. The top of the file says who may read.
        unsafe { self.pointer.add(offset).cast::<T>().read_unaligned() }
    }

    #[inline]
    fn write<T: Copy>(&self, offset: usize, value: T) {
        // SAFETY: as for `read`.
        unsafe { self.pointer.add(offset).cast::<T>().write_unaligned(value) }
    }

    #[inline]
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: the chunk has room for `bytes`: `Items::size` counted them, or they are the content of a chunk of the
        // same class. They are not in the chunk itself: they come from a request buffer or from another item.
        unsafe {
            let (to, from, len) = (self.pointer.add(offset), bytes.as_ptr(), bytes.len());
            // For short texts a call of the library's copy costs more than the copy itself.
            match len {
                8..=15 => copy_ends::<8>(to, from, len),
                16..=32 => copy_ends::<16>(to, from, len),
                33..=64 => copy_ends::<32>(to, from, len),
                _ => std::ptr::copy_nonoverlapping(from, to, len),
            }
        }
    }

    #[inline]
    fn slice(&self, offset: usize, len: usize) -> &'a [u8] {
        // SAFETY: the bytes are inside the chunk, as the header says. No one writes them while the slice lives: the
        // holder of the lease drops the slice before the next change, and no one writes the value of a pinned item.
        unsafe { std::slice::from_raw_parts(self.pointer.add(offset), len) }
    }

    /// The id of the next item in the list, as [`ItemId::to_raw`] gives it.
    #[inline]
    pub fn next(&self) -> u32 {
        self.read(NEXT)
    }

    /// The id of the previous item in the list, as [`ItemId::to_raw`] gives it.
    #[inline]
    pub fn prev(&self) -> u32 {
        self.read(PREV)
    }

    #[inline]
    pub(super) fn set_next(&self, raw: u32) {
        self.write(NEXT, raw);
    }

    #[inline]
    pub(super) fn set_prev(&self, raw: u32) {
        self.write(PREV, raw);
    }

    /// Whether the item is in the cache. If not, a client is sending it, or it is dead but pinned.
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.next() != FLOATING
    }

    /// Marks the item as floating, after it was removed from its list and from the index.
    #[inline]
    pub(super) fn set_floating(&self) {
        self.write(NEXT, FLOATING);
    }

    /// The deadline: a count of the clock, or 0 for never.
    #[inline]
    pub fn exptime(&self) -> u32 {
        self.read(EXPTIME)
    }

    #[inline]
    pub(super) fn set_exptime(&self, exptime: u32) {
        self.write(EXPTIME, exptime);
    }

    /// The stamp of the last fetch or storage (see `stamps.rs`). [`super::Store::last_access`] gives the time.
    #[inline]
    pub(super) fn stamp(&self) -> u32 {
        self.read(STAMP)
    }

    #[inline]
    pub(super) fn set_stamp(&self, stamp: u32) {
        self.write(STAMP, stamp);
    }

    /// The CAS value; 0 if the server keeps none.
    #[inline]
    pub fn cas(&self) -> u64 {
        if self.cas { self.read(CAS) } else { 0 }
    }

    /// Sets the CAS value, if the server keeps CAS values.
    #[inline]
    pub fn set_cas(&self, cas: u64) {
        if self.cas {
            self.write(CAS, cas);
        }
    }

    /// The state bits: segment, [`FETCHED`], [`ACTIVE`], [`STALE`], [`WON`], [`KEY_BINARY`].
    #[inline]
    pub fn state(&self) -> u8 {
        self.read(STATE)
    }

    #[inline]
    pub fn change_state(&self, set: u8, clear: u8) {
        self.write(STATE, self.state() & !clear | set);
    }

    /// Whether the value is spread over several chunks.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.read::<u16>(VALUE_LEN) == LARGE
    }

    #[inline]
    fn key_offset(&self) -> usize {
        let header = if self.cas { HEADER + CAS_SIZE } else { HEADER };
        header + if self.state() & HAS_CLIENT_FLAGS == 0 { 0 } else { CLIENT_FLAGS_SIZE }
    }

    /// The offset of the fields that only a large item has.
    #[inline]
    fn extension(&self) -> usize {
        self.key_offset() + self.key_len()
    }

    #[inline]
    fn value_offset(&self) -> usize {
        self.key_offset() + self.key_len() + if self.is_large() { LARGE_EXTENSION } else { 0 }
    }

    #[inline]
    fn key_len(&self) -> usize {
        usize::from(self.read::<u8>(KEY_LEN))
    }

    #[inline]
    pub fn client_flags(&self) -> u32 {
        if self.state() & HAS_CLIENT_FLAGS == 0 {
            return 0;
        }
        self.read(if self.cas { HEADER + CAS_SIZE } else { HEADER })
    }

    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.slice(self.key_offset(), self.key_len())
    }

    #[inline]
    pub fn value_len(&self) -> usize {
        match self.read::<u16>(VALUE_LEN) {
            LARGE => self.read::<u32>(self.extension()) as usize,
            len => usize::from(len),
        }
    }

    /// The value of a small item; `None` for a large one. The slab classes decide whether an item is large, not the
    /// length of its value: with small chunks, even an item with a short value is large. [`Items::value_cursor`] works
    /// for any value.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        match self.read::<u16>(VALUE_LEN) {
            LARGE => None,
            len => Some(self.slice(self.key_offset() + self.key_len(), usize::from(len))),
        }
    }

    /// Writes new client flags, a new value and a new state into a small item. It keeps its key, `key`, its place in its
    /// list, its times and its CAS value.
    ///
    /// The chunk of the item has room for all of it, and no slice of the old value is in use.
    #[inline]
    pub(super) fn overwrite(&self, key: &[u8], client_flags: u32, value: &[u8], state: u8) {
        debug_assert!(!self.is_large() && self.key() == key);
        let had_flags = self.state() & HAS_CLIENT_FLAGS != 0;
        let has_flags = client_flags != 0;
        self.write(STATE, state | if has_flags { HAS_CLIENT_FLAGS } else { 0 });
        if has_flags {
            self.write(if self.cas { HEADER + CAS_SIZE } else { HEADER }, client_flags);
        }
        if has_flags != had_flags {
            self.copy_in(self.key_offset(), key);
        }
        self.set_value(value);
    }

    /// Writes the value of a small item, and its length.
    ///
    /// The chunk of the item has room for it, and no slice of the old value is in use.
    #[inline]
    pub fn set_value(&self, bytes: &[u8]) {
        debug_assert!(!self.is_large());
        self.write(VALUE_LEN, bytes.len() as u16);
        self.copy_in(self.key_offset() + self.key_len(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::PageId;
    use super::*;

    fn items(cas: bool) -> Items {
        Items::new(Arc::new(Arena::reserve(4, 1 << 20).expect("address space")), cas)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (cas, flags) in [(true, 0), (true, 7), (false, 0), (false, u32::MAX)] {
            let items = items(cas);
            let id = items.arena().id(PageId(1), 64);
            let item = items.create(id, b"key", flags, 5);
            item.set_value(b"value");
            item.set_cas(u64::MAX - 1);
            item.change_state(FETCHED | STALE, 0);
            item.set_exptime(9);
            assert_eq!(items.chunk(id), Chunk::Floating);
            item.set_next(0);
            assert_eq!(items.chunk(id), Chunk::Linked);
            assert_eq!((item.key(), item.value(), item.client_flags()), (&b"key"[..], Some(&b"value"[..]), flags));
            assert_eq!((item.cas(), item.exptime()), (if cas { u64::MAX - 1 } else { 0 }, 9));
            items.set_free(id, None);
            assert_eq!(items.chunk(id), Chunk::Free);
        }
    }

    #[test]
    fn an_overwritten_item_keeps_its_key_and_its_times() {
        for cas in [true, false] {
            let items = items(cas);
            let id = items.arena().id(PageId(1), 64);
            let item = items.create(id, b"some key", 0, 3);
            item.set_value(b"old");
            item.set_exptime(9);
            item.set_stamp(8);
            item.set_cas(7);
            item.set_next(0);
            item.change_state(STALE | FETCHED, 0);
            for (flags, len) in [(0, 0), (5, 20), (6, 7), (0, 33), (u32::MAX, 64), (0, 65)] {
                let value = vec![b'x'; len];
                item.overwrite(b"some key", flags, &value, ACTIVE | 2);
                assert_eq!((item.key(), item.value(), item.client_flags()), (&b"some key"[..], Some(&*value), flags));
                assert_eq!(item.state() & !HAS_CLIENT_FLAGS, ACTIVE | 2);
                assert_eq!((item.exptime(), item.stamp(), item.next()), (9, 8, 0));
                assert_eq!(item.cas(), if cas { 7 } else { 0 });
                assert_eq!(items.size_of(&item), items.size(8, flags, len));
            }
        }
    }

    #[test]
    fn large_values_run_through_their_chunks() {
        let items = items(true);
        let value: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        let ids: Vec<ItemId> = (0..4).map(|n| items.arena().id(PageId(2), n * 16_384)).collect();
        let item = items.create(ids[0], b"key", 1, 0);
        let room = 16_384 - items.size(3, 1, LARGE_EXTENSION);
        items.enlarge(ids[0], value.len(), room);
        items.append_body(ids[0], ids[0], ids[1], 16_384 - BODY_HEADER);
        items.append_body(ids[0], ids[1], ids[2], 16_384 - BODY_HEADER);
        items.append_body(ids[0], ids[2], ids[3], value.len() - room - 2 * (16_384 - BODY_HEADER));
        let mut cursor = items.value_cursor(ids[0]);
        for part in value.chunks(777) {
            cursor = items.fill(cursor, part);
        }
        assert_eq!((cursor.left(), item.value_len(), item.key()), (0, value.len(), &b"key"[..]));
        assert_eq!(item.value(), None);
        assert_eq!(items.chunk(ids[3]), Chunk::Body(ids[0]));
        let mut read = Vec::new();
        let mut cursor = items.value_cursor(ids[0]);
        while cursor.left() > 0 {
            let bytes = items.bytes(&cursor);
            read.extend_from_slice(bytes);
            cursor = items.advance(cursor, bytes.len());
        }
        assert!(read == value);
    }

    /// For Miri and the thread sanitizer: a reader of a pinned value must not read bytes that the holder of the lease
    /// may write.
    #[test]
    fn pinned_values_are_read_while_their_header_changes() {
        let items = items(true);
        let ids: Vec<ItemId> = (0..2).map(|n| items.arena().id(PageId(1), n * 16_384)).collect();
        items.create(ids[0], b"key", 0, 0);
        items.enlarge(ids[0], 20_000, 16_000);
        items.append_body(ids[0], ids[0], ids[1], 4000);
        items.fill(items.value_cursor(ids[0]), &[7; 20_000]);
        let mut cursor = items.value_cursor(ids[0]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let item = items.at(ids[0]);
                item.change_state(FETCHED | ACTIVE, 0);
                item.set_stamp(1);
                item.set_exptime(2);
                item.set_cas(3);
                item.set_floating();
            });
            while cursor.left() > 0 {
                let bytes = items.bytes(&cursor);
                assert!(bytes.iter().all(|&byte| byte == 7));
                cursor = items.advance(cursor, bytes.len());
            }
        });
    }
}
