//! For fuzzing: corrects the checksums and the number of items in an image, so that inputs reach the code after these
//! checks.

use super::{BLOCK_HEADER_LEN, BLOCK_MAX, END_LEN, HEADER_LEN, Kind, MAGIC, VERSION};
use super::{block_sum, payload_sum, record, u16_at, u32_at, u64_at};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Corrects the checksums and the block numbers, as far as the bytes form an image. With `counts` it also corrects the
/// number of records in the last block.
pub(crate) fn mend(image: &mut [u8], counts: bool) {
    let Some((header, mut rest)) = image.split_at_mut_checked(HEADER_LEN) else { return };
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let checksum = xxh3_64_with_seed(&header[..HEADER_LEN - 8], 0);
    header[HEADER_LEN - 8..].copy_from_slice(&checksum.to_le_bytes());
    let nonce = u64_at(header, 16);
    let mut records = 0_u64;
    for number in 0_u64.. {
        let Some((head, behind)) = rest.split_at_mut_checked(BLOCK_HEADER_LEN) else { return };
        let len = u32_at(head, 0) as usize;
        if len > BLOCK_MAX || len > behind.len() {
            return;
        }
        head[8..16].copy_from_slice(&number.to_le_bytes());
        let (payload, behind) = behind.split_at_mut(len);
        match u16_at(head, 4) {
            1 => records += count(payload, Kind::Items),
            2 => records += count(payload, Kind::ItemsAndMore),
            4 if counts && len == END_LEN => payload.copy_from_slice(&records.to_le_bytes()),
            _ => {}
        }
        let first: [u8; 16] = *head.first_chunk().expect("a header of a block is longer");
        let checksum = block_sum(nonce, &first, payload_sum(nonce, payload));
        head[16..].copy_from_slice(&checksum.to_le_bytes());
        rest = behind;
    }
}

/// The number of records in a payload, up to the first one that is invalid.
fn count(payload: &[u8], kind: Kind) -> u64 {
    let (mut at, mut records) = (0, 0);
    while at < payload.len()
        && let Ok((_, next)) = record(payload, at, kind)
    {
        at = next;
        records += 1;
    }
    records
}
