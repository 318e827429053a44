//! The label of kept memory: the first bytes of its file, in the first page of the arena, which has no items.
//!
//! ```text
//!  0 mark       u64  0: the memory is in use, or was not left in order
//!  8 magic      8 bytes
//! 16 version    u64  of the layout, see `layout`
//! 24 end        u64  where the roots begin
//! 32 length     u64  of the roots
//! 40 checksum   u64  of the bytes 8 to 40 and the roots, with the mark as the seed
//! ```
//! Numbers have the byte order of the machine. The mark and the magic stay where they are in all versions, so that any
//! version can claim the memory of any other.

use super::super::bucket::Bucket;
use super::super::item::HEADER;
use super::super::memfd::Memfd;
use super::refusal::Refusal;
use crate::hash::KeyHasher;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 8] = *b"\x89ccmem\r\n";

/// The version of everything that lies in kept memory: items, chunks, pages, buckets, ghosts, stamps, roots and this label.
/// Each change of one of them raises it. The test `the_layout_has_a_version` notices most changes.
const VERSION: u32 = 1;

const LEN: usize = 48;
/// The most bytes of roots: those of a cache of 64 TiB.
const ROOTS_MAX: u64 = 8 << 30;

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) mark: u64,
    pub(super) end: u64,
    len: u64,
    checksum: u64,
}

impl Label {
    /// The label for these roots.
    pub(super) fn new(mark: u64, end: u64, roots: &[u8]) -> Label {
        let label = Label { mark, end, len: roots.len() as u64, checksum: 0 };
        Label { checksum: label.sum(roots), ..label }
    }

    fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[8..16].copy_from_slice(&MAGIC);
        for (at, number) in [(0, self.mark), (16, layout()), (24, self.end), (32, self.len), (40, self.checksum)] {
            bytes[at..at + 8].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    fn sum(&self, roots: &[u8]) -> u64 {
        let mut sum = Xxh3::with_seed(self.mark);
        sum.update(&self.to_bytes()[8..40]);
        sum.update(roots);
        sum.digest()
    }

    /// Writes everything but the mark.
    pub(super) fn write(&self, memfd: &Memfd) -> std::io::Result<()> {
        memfd.write(&self.to_bytes()[8..], 8)
    }

    /// Reads the label of a file. If it is of another version, only its mark is true.
    pub(super) fn read(memfd: &Memfd) -> Result<Label, Refusal> {
        let mut bytes = [0; LEN];
        memfd.read(&mut bytes, 0).map_err(|_| Refusal::Foreign)?;
        let number = |at: usize| u64::from_ne_bytes(*bytes[at..].first_chunk().expect("a label has 48 bytes"));
        if bytes[8..16] != MAGIC {
            // A server that was killed before its first stop has written no magic.
            return Err(if number(0) == 0 { Refusal::Unclean } else { Refusal::Foreign });
        }
        if number(16) != layout() {
            return Ok(Label { mark: number(0), end: 0, len: u64::MAX, checksum: 0 });
        }
        Ok(Label { mark: number(0), end: number(24), len: number(32), checksum: number(40) })
    }

    /// Reads the roots that belong to the label.
    pub(super) fn roots(&self, memfd: &Memfd) -> Result<Vec<u8>, Refusal> {
        if self.len == u64::MAX {
            return Err(Refusal::Layout);
        }
        let end = self.end.checked_add(self.len);
        if self.len > ROOTS_MAX || end.is_none_or(|end| memfd.len().is_ok_and(|len| end > len)) {
            return Err(Refusal::Damaged("its roots lie outside"));
        }
        let mut roots = vec![0; self.len as usize];
        memfd.read(&mut roots, self.end)?;
        if self.sum(&roots) != self.checksum {
            return Err(Refusal::Damaged("its roots do not add up"));
        }
        Ok(roots)
    }
}

/// A number that two builds of the server share only if they lay out memory in the same way.
pub(super) fn layout() -> u64 {
    let facts =
        [u64::from(VERSION), size_of::<usize>() as u64, size_of::<Bucket>() as u64, HEADER as u64, KeyHasher::probe()];
    let mut sum = Xxh3::new();
    facts.iter().for_each(|fact| sum.update(&fact.to_ne_bytes()));
    sum.digest()
}
