//! The layout of an index bucket in memory, which fills one cache line. The file is apart because both the index and
//! the arena, whose regions hold buckets, need it.

/// Slots of a bucket.
pub(super) const SLOTS: usize = 12;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Twelve tags (0: the slot is free), then the link: the number of the overflow bucket that continues this one,
    /// plus 1 (0: none does).
    pub(super) head: [u8; 16],
    pub(super) ids: [u32; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

pub(super) const EMPTY: Bucket = Bucket { head: [0; 16], ids: [0; SLOTS] };

impl Bucket {
    #[inline]
    pub(super) fn link(&self) -> u32 {
        let [.., a, b, c, d] = self.head;
        u32::from_le_bytes([a, b, c, d])
    }

    pub(super) fn set_link(&mut self, link: u32) {
        self.head[SLOTS..].copy_from_slice(&link.to_le_bytes());
    }
}
