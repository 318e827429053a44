//! Keys and values, derived from a key's id. The client stores nothing, and can check every byte by the seed.
//!
//! ```text
//! id 4711 of 100,000, 25 bytes:   key:000000000000000004711
//!                                 └──────prefix──────┘└id─┘   digits of the last id, so that all keys are equally long
//! value:                          length and bytes from mix(seed, id); any byte may occur, \r and \n too
//! ```

use crate::random::mix;

/// The longest key of the protocol.
const KEY_SIZE_MAX: usize = 250;

/// Digits of the largest id.
const DIGITS_MAX: usize = 20;

/// The keys `0..count` and their values.
#[derive(Clone, Debug)]
pub struct Keys {
    count: u64,
    /// The start of all keys. Invariant: `prefix.len() + digits` is the key size.
    prefix: Vec<u8>,
    digits: usize,
    value_size_min: usize,
    value_size_max: usize,
    seed: u64,
}

impl Keys {
    /// `count` keys of `size` bytes, with values of `value_size_min..=value_size_max` bytes. All of them follow from
    /// `seed`.
    pub fn new(count: u64, size: usize, value_size: (usize, usize), seed: u64) -> Result<Keys, String> {
        let digits = count.saturating_sub(1).max(1).ilog10() as usize + 1;
        if count == 0 {
            return Err("there must be at least one key".into());
        }
        if size > KEY_SIZE_MAX {
            return Err(format!("keys of {size} bytes: the protocol allows {KEY_SIZE_MAX}"));
        }
        if size < digits {
            return Err(format!("keys of {size} bytes are too short for {count} different ones: {digits} needed"));
        }
        let mut prefix = vec![b'0'; size - digits];
        if prefix.len() >= 4 {
            prefix[..4].copy_from_slice(b"key:");
        }
        let (value_size_min, value_size_max) = value_size;
        Ok(Keys { count, prefix, digits, value_size_min, value_size_max, seed: mix(seed) })
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of every key.
    pub fn size(&self) -> usize {
        self.prefix.len() + self.digits
    }

    /// Bytes of the longest value.
    pub fn value_size_max(&self) -> usize {
        self.value_size_max
    }

    /// Appends the key of `id`.
    pub fn write_key(&self, mut id: u64, out: &mut Vec<u8>) {
        let mut digits = [b'0'; DIGITS_MAX];
        for pair in digits.as_chunks_mut::<2>().0.iter_mut().rev() {
            if id == 0 {
                break;
            }
            *pair = [b'0' + (id % 100 / 10) as u8, b'0' + (id % 10) as u8];
            id /= 100;
        }
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&digits[DIGITS_MAX - self.digits..]);
    }

    /// The key of `id` as text, for messages.
    pub fn text(&self, id: u64) -> String {
        let mut out = Vec::new();
        self.write_key(id, &mut out);
        String::from_utf8(out).expect("keys are ASCII")
    }

    /// The id of a key; `None` if the key is not one of these keys.
    pub fn id(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.prefix.as_slice())?;
        if digits.len() != self.digits {
            return None;
        }
        let mut id = 0_u64;
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            id = id.wrapping_mul(10).wrapping_add(u64::from(digit));
        }
        (id < self.count).then_some(id)
    }

    /// The id at `rank` of popularity. This is a bijection of `0..count` without a pattern, so popular keys are not
    /// neighbours, and not those stored first. It mixes the rank within the next power of two. While the result is not
    /// below `count`, it mixes the result again (cycle walking), on average less than once per key.
    pub fn at_rank(&self, rank: u64) -> u64 {
        let bits = self.count.saturating_sub(1).max(1).ilog2() + 1;
        let mask = u64::MAX >> (64 - bits);
        let shift = bits.div_ceil(2);
        let mut id = rank;
        loop {
            for key in [self.seed, self.seed >> 32] {
                id = (id ^ key) & mask;
                id ^= id >> shift;
                id = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask;
            }
            id ^= id >> shift;
            if id < self.count {
                return id;
            }
        }
    }

    /// Bytes in the value of `id`.
    pub fn value_length(&self, id: u64) -> usize {
        let spread = (self.value_size_max - self.value_size_min) as u64 + 1;
        let random = mix(self.seed ^ id.wrapping_mul(0xd6e8_feb8_6659_fd93));
        self.value_size_min + ((u128::from(random) * u128::from(spread)) >> 64) as usize
    }

    /// Appends the value of `id`.
    pub fn write_value(&self, id: u64, out: &mut Vec<u8>) {
        let length = self.value_length(id);
        let base = self.value_base(id);
        let start = out.len();
        out.resize(start + length, 0);
        let mut words = out[start..].chunks_exact_mut(8);
        let mut index = 0;
        for chunk in &mut words {
            chunk.copy_from_slice(&word(base, index).to_le_bytes());
            index += 1;
        }
        let tail = words.into_remainder();
        tail.copy_from_slice(&word(base, index).to_le_bytes()[..tail.len()]);
    }

    /// Checks that `bytes` are the value of `id` from `offset` on. If not, `Err` holds the position of the first wrong
    /// byte in the value, and the expected byte.
    pub fn check_value(&self, id: u64, offset: usize, bytes: &[u8]) -> Result<(), (usize, u8)> {
        let base = self.value_base(id);
        let check_bytes = |offset: usize, bytes: &[u8]| {
            for (at, byte) in (offset..).zip(bytes) {
                let expected = word(base, (at / 8) as u64).to_le_bytes()[at % 8];
                if *byte != expected {
                    return Err((at, expected));
                }
            }
            Ok(())
        };
        let (head, aligned) = bytes.split_at(bytes.len().min(offset.wrapping_neg() % 8));
        check_bytes(offset, head)?;
        let mut at = offset + head.len();
        let words = aligned.chunks_exact(8);
        let tail = words.remainder();
        for chunk in words {
            if chunk != word(base, (at / 8) as u64).to_le_bytes() {
                return check_bytes(at, chunk);
            }
            at += 8;
        }
        check_bytes(at, tail)
    }

    fn value_base(&self, id: u64) -> u64 {
        mix(self.seed.wrapping_add(id))
    }
}

/// Word `index` of the value that starts from `base`. It takes one multiplication: a value of a megabyte takes 0.1 ms.
fn word(base: u64, index: u64) -> u64 {
    let word = (base ^ index).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ (word >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u64, size: usize, value_size: (usize, usize)) -> Keys {
        Keys::new(count, size, value_size, 1).expect("valid")
    }

    fn key(keys: &Keys, id: u64) -> Vec<u8> {
        let mut out = Vec::new();
        keys.write_key(id, &mut out);
        out
    }

    #[test]
    fn keys_are_of_one_size_and_know_their_id() {
        assert_eq!(key(&keys(100_000, 25, (1, 1)), 4711), b"key:000000000000000004711");
        for (count, size) in [(1, 1), (10, 1), (11, 2), (100_000, 5), (100_001, 250), (u64::MAX, 20)] {
            let keys = keys(count, size, (1, 1));
            for id in [0, count / 3, count - 1] {
                assert_eq!(key(&keys, id).len(), size);
                assert_eq!(keys.id(&key(&keys, id)), Some(id));
            }
        }
    }

    #[test]
    fn foreign_keys_are_refused() {
        let keys = keys(1000, 10, (1, 1));
        for foreign in ["key:00001", "key:0000011", "kex:000001", "key:00000x", "key:001000", ""] {
            assert_eq!(keys.id(foreign.as_bytes()), None, "{foreign}");
        }
        for (count, size) in [(0, 10), (11, 1), (10, 251)] {
            assert!(Keys::new(count, size, (1, 1), 1).is_err());
        }
    }

    #[test]
    fn ranks_are_scattered_one_to_one() {
        for count in [1, 2, 3, 5, 64, 65, 1000, 4097] {
            let keys = keys(count, 10, (1, 1));
            let mut ids: Vec<u64> = (0..count).map(|rank| keys.at_rank(rank)).collect();
            let neighbours = ids.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
            assert!(count < 64 || neighbours < 8, "{neighbours} neighbours of {count}");
            ids.sort_unstable();
            assert_eq!(ids, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn values_have_lengths_over_the_whole_range() {
        let keys = keys(10_000, 10, (10, 19));
        let mut counts = [0; 10];
        for id in 0..10_000 {
            counts[keys.value_length(id) - 10] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn values_are_checked_from_any_place_to_any_place() {
        let keys = keys(100, 10, (37, 37));
        let mut value = Vec::new();
        keys.write_value(5, &mut value);
        for start in 0..=37 {
            for end in start..=37 {
                assert_eq!(keys.check_value(5, start, &value[start..end]), Ok(()));
            }
        }
        assert!(keys.check_value(6, 0, &value).is_err());
        for wrong in 0..37 {
            let mut bad = value.clone();
            bad[wrong] ^= 1;
            assert_eq!(keys.check_value(5, 0, &bad), Err((wrong, value[wrong])));
        }
    }
}
