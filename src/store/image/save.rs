//! Writes an image. Each store writes its own items, page by page, into one stream for all.

use super::super::item::Chunk;
use super::super::lru::Segment;
use super::super::{Store, arena::PageId};
use super::{BLOCK_HEADER_LEN, BLOCK_MAX, Header, Kind, RECORD_LEN, Record, STATE_MASK, block_sum, payload_sum};
use crate::store::arena::ItemId;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::io::{self, Write};

/// The writer of an image, which several stores share.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    nonce: u64,
    blocks: u64,
    items: u64,
}

/// A block in preparation: room for its header, and its payload.
struct Draft {
    shard: u16,
    bytes: Vec<u8>,
    items: u64,
}

impl Draft {
    fn new(shard: u16) -> Draft {
        let mut bytes = Vec::with_capacity(BLOCK_HEADER_LEN + BLOCK_MAX);
        bytes.resize(BLOCK_HEADER_LEN, 0);
        Draft { shard, bytes, items: 0 }
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[BLOCK_HEADER_LEN..]
    }

    fn room(&self) -> usize {
        BLOCK_HEADER_LEN + BLOCK_MAX - self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.truncate(BLOCK_HEADER_LEN);
        self.items = 0;
    }
}

impl<W: Write> Writer<W> {
    /// Begins an image: writes its header.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn new(mut to: W, header: &Header) -> io::Result<Writer<W>> {
        to.write_all(&header.to_bytes())?;
        Ok(Writer { to, nonce: header.nonce, blocks: 0, items: 0 })
    }

    fn write(&mut self, kind: Kind, draft: &mut Draft, payload_sum: u128) -> io::Result<()> {
        let len = draft.payload().len() as u32;
        let head = &mut draft.bytes[..BLOCK_HEADER_LEN];
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..6].copy_from_slice(&(kind as u16).to_le_bytes());
        head[6..8].copy_from_slice(&draft.shard.to_le_bytes());
        head[8..16].copy_from_slice(&self.blocks.to_le_bytes());
        let first = *head.first_chunk().expect("a header has 24 bytes");
        head[16..].copy_from_slice(&block_sum(self.nonce, &first, payload_sum).to_le_bytes());
        self.to.write_all(&draft.bytes)?;
        self.blocks += 1;
        self.items += draft.items;
        draft.clear();
        Ok(())
    }

    /// Writes the end of the image, flushes the stream, and gives it back with the number of items. The caller may have
    /// to sync it.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        let mut end = Draft::new(0);
        end.bytes.extend_from_slice(&self.items.to_le_bytes());
        let sum = payload_sum(self.nonce, end.payload());
        self.write(Kind::End, &mut end, sum)?;
        self.to.flush()?;
        Ok((self.to, self.items))
    }
}

/// Writes a block of records, unless it is empty.
fn send<W: Write>(image: &Mutex<Writer<W>>, nonce: u64, draft: &mut Draft) -> io::Result<()> {
    if draft.payload().is_empty() {
        return Ok(());
    }
    let sum = payload_sum(nonce, draft.payload());
    image.lock().write(Kind::Items, draft, sum)
}

impl Store {
    /// The facts about this store for the header of an image.
    pub fn image_facts(&self) -> Header {
        let usage = self.slabs.ids().map(|class| self.slabs.usage(class));
        let bytes = usage.map(|usage| usage.used_chunks * u64::from(usage.chunk_size));
        Header {
            clock: self.now,
            flush_at: self.flush_at,
            last_cas: self.last_cas,
            items: self.index.len() as u64,
            bytes: bytes.sum(),
            ..Header::default()
        }
    }

    /// Writes all live items to an image, and gives the memory of each page back to the system once its items are
    /// written. The caller must not use the store afterwards, because its lists are destroyed.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn save<W: Write>(&mut self, image: &Mutex<Writer<W>>) -> io::Result<()> {
        let nonce = image.lock().nonce;
        self.note_ages();
        let mut draft = Draft::new(self.slabs.shard() as u16);
        for page in self.pages_in_proportion() {
            for id in self.slabs.chunks(page, &self.items) {
                if self.items.chunk(id) != Chunk::Linked {
                    continue;
                }
                if self.death(&self.items.at(id)).is_none() {
                    self.settle(id);
                    self.save_item(id, image, nonce, &mut draft)?;
                }
                self.drop_written(id);
            }
        }
        send(image, nonce, &mut draft)
    }

    fn save_item<W: Write>(
        &self,
        id: ItemId,
        image: &Mutex<Writer<W>>,
        nonce: u64,
        draft: &mut Draft,
    ) -> io::Result<()> {
        let item = self.items.at(id);
        let record = Record {
            exptime: item.exptime(),
            last_access: self.last_access(id).0,
            state: item.state() & STATE_MASK,
            age: item.prev() as u16,
            client_flags: item.client_flags(),
            cas: item.cas(),
            key: item.key(),
            value_len: item.value_len(),
            value: &[],
        };
        let in_one_block = RECORD_LEN + record.key.len() + record.value_len <= BLOCK_MAX;
        let needed = RECORD_LEN + record.key.len() + if in_one_block { record.value_len } else { 0 };
        if draft.room() < needed {
            send(image, nonce, draft)?;
        }
        record.put(&mut draft.bytes);
        draft.items += 1;
        let mut cursor = self.items.value_cursor(id);
        if in_one_block {
            while cursor.left() > 0 {
                let bytes = self.items.bytes(&cursor);
                draft.bytes.extend_from_slice(bytes);
                cursor = self.items.advance(cursor, bytes.len());
            }
            return Ok(());
        }
        // The blocks of a value follow each other: the lock keeps other stores from writing until it is complete.
        let mut image = image.lock();
        let mut kind = Kind::ItemsAndMore;
        while cursor.left() > 0 {
            let bytes = self.items.bytes(&cursor);
            let count = bytes.len().min(draft.room());
            draft.bytes.extend_from_slice(&bytes[..count]);
            cursor = self.items.advance(cursor, count);
            if draft.room() == 0 || cursor.left() == 0 {
                let sum = payload_sum(nonce, draft.payload());
                image.write(kind, draft, sum)?;
                kind = Kind::Value;
            }
        }
        Ok(())
    }

    /// Writes into every item its place in its list. This overwrites the link to the previous item.
    fn note_ages(&mut self) {
        for class in self.slabs.ids() {
            for segment in Segment::ALL {
                let count = u64::from(self.lru.count(class, segment));
                let mut at = self.lru.tail(class, segment);
                let mut rank = 0;
                while let Some(id) = at {
                    let item = self.items.at(id);
                    at = ItemId::from_raw(item.prev());
                    item.set_prev((rank * (1 << 16) / count) as u32);
                    rank += 1;
                }
            }
        }
    }

    /// The pages, in an order in which every part of the image has its share of every class. If the store that loads
    /// the image is too small, each class then gets pages; with fewer pages than classes, only classes go without that
    /// hold least.
    fn pages_in_proportion(&self) -> Vec<PageId> {
        let mut pages = Vec::new();
        for class in self.slabs.ids() {
            let (of_class, usage) = (self.slabs.pages_of(class), self.slabs.usage(class));
            let bytes = usage.used_chunks * u64::from(usage.chunk_size);
            let share = |at: usize| at * 4096 / of_class.len();
            pages.extend(of_class.iter().enumerate().map(|(at, &page)| ((share(at), Reverse(bytes)), page)));
        }
        pages.sort_by_key(|&(place, _)| place);
        pages.into_iter().map(|(_, page)| page).collect()
    }

    /// Frees the chunks of an item that was written, and gives pages that are now empty back to the system. A page of
    /// small items may also hold the end of a large item that is written later.
    fn drop_written(&mut self, head: ItemId) {
        let mut next = Some(head);
        let mut body = self.items.first_body(head);
        while let Some(id) = next {
            next = body;
            body = body.and_then(|id| self.items.next_chunk(id));
            let page = self.items.arena().page(id);
            self.slabs.free(id, &self.items);
            if self.slabs.used(page) == 0 {
                self.items.arena().release(page);
            }
        }
    }
}
