//! For fuzzing: makes the checksums of an image right, so that what they protect is reached.

use super::{BLOCK_HEADER_LEN, BLOCK_MAX, HEADER_LEN, MAGIC, VERSION, block_sum, payload_sum, u32_at, u64_at};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Gives the bytes the checksums of an image, and its blocks their numbers, as far as they are one.
pub(crate) fn mend(image: &mut [u8]) {
    let Some((header, mut rest)) = image.split_at_mut_checked(HEADER_LEN) else { return };
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let checksum = xxh3_64_with_seed(&header[..HEADER_LEN - 8], 0);
    header[HEADER_LEN - 8..].copy_from_slice(&checksum.to_le_bytes());
    let nonce = u64_at(header, 16);
    for number in 0_u64.. {
        let Some((head, behind)) = rest.split_at_mut_checked(BLOCK_HEADER_LEN) else { return };
        let len = u32_at(head, 0) as usize;
        if len > BLOCK_MAX || len > behind.len() {
            return;
        }
        head[8..16].copy_from_slice(&number.to_le_bytes());
        let (payload, behind) = behind.split_at_mut(len);
        let first: [u8; 16] = *head.first_chunk().expect("a header of a block is longer");
        let checksum = block_sum(nonce, &first, payload_sum(nonce, payload));
        head[16..].copy_from_slice(&checksum.to_le_bytes());
        rest = behind;
    }
}
