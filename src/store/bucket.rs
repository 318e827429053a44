//! A bucket of the index, as it lies in memory: one cache line. The index and the memory below it both know it.

/// Entries of a bucket.
pub(super) const SLOTS: usize = 12;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Twelve tags, 0: the slot is free; then the number of the overflow bucket that continues this one, plus 1, 0: none.
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
