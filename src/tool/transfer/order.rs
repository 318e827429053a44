//! Keys sorted by their last access, the latest first, in bounded memory: sorted pieces go to a temporary file, and are
//! merged from there.

use super::walk::Listed;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

/// Memory of the keys that are being sorted, in bytes, with the 8 bytes of each key's place.
pub(super) const MEMORY: usize = 64 << 20;
/// Bytes in front of a key: last access, size, length of the key.
const HEAD: usize = 9;
/// Bytes that are read at once from each sorted piece.
const READ_BYTES: usize = 32 << 10;

/// Keys before they are sorted.
#[derive(Debug)]
pub(super) struct Sorter {
    memory: usize,
    /// Records, one behind the other.
    records: Vec<u8>,
    /// Last access and place in `records` of each.
    places: Vec<(u32, u32)>,
    /// Sorted pieces of the file, by their ends.
    ends: Vec<u64>,
    file: Option<File>,
}

/// Sorted keys.
#[derive(Debug)]
pub(super) enum Sorted {
    /// All of them fit into memory. Their places are in reverse order.
    Here(Vec<u8>, Vec<(u32, u32)>),
    /// The first key of each piece, and the pieces.
    Merged(BinaryHeap<(u32, Reverse<usize>, Pending)>, Vec<BufReader<Piece>>),
}

/// A part of the file that is read from its beginning.
#[derive(Debug)]
pub(super) struct Piece {
    file: Arc<File>,
    at: u64,
    end: u64,
}

/// A key of a piece that waits for its turn.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pending {
    size: u32,
    key: Vec<u8>,
}

impl Sorter {
    /// A sorter of `memory` bytes, at least one key.
    pub(super) fn new(memory: usize) -> Sorter {
        Sorter { memory, records: Vec::new(), places: Vec::new(), ends: Vec::new(), file: None }
    }

    /// Takes a key.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(super) fn add(&mut self, listed: &Listed) -> io::Result<()> {
        let needed = self.records.len() + HEAD + listed.key.len() + 8 * (self.places.len() + 1);
        if needed > self.memory && !self.places.is_empty() {
            self.spill()?;
        }
        // The memory is far below 4 GiB, and a key has at most 250 bytes.
        self.places.push((listed.last_access, self.records.len() as u32));
        self.records.extend_from_slice(&listed.last_access.to_le_bytes());
        self.records.extend_from_slice(&listed.size.to_le_bytes());
        self.records.push(listed.key.len() as u8);
        self.records.extend_from_slice(&listed.key);
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.places.sort_unstable_by_key(|&(last_access, _)| Reverse(last_access));
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(unnamed_file()?),
        };
        let mut writer = BufWriter::with_capacity(1 << 18, file);
        for &(_, place) in &self.places {
            writer.write_all(record(&self.records, place as usize))?;
        }
        writer.flush()?;
        self.ends.push(writer.get_mut().stream_position()?);
        self.places.clear();
        self.records.clear();
        Ok(())
    }

    /// The keys in their order.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(super) fn sorted(mut self) -> io::Result<Sorted> {
        if self.file.is_none() {
            self.places.sort_unstable_by_key(|&(last_access, _)| last_access);
            return Ok(Sorted::Here(self.records, self.places));
        }
        self.spill()?;
        let file = Arc::new(self.file.expect("it was just written"));
        let (mut pieces, mut start) = (Vec::new(), 0);
        for end in self.ends {
            let piece = Piece { file: Arc::clone(&file), at: start, end };
            pieces.push(BufReader::with_capacity(READ_BYTES, piece));
            start = end;
        }
        let mut heap = BinaryHeap::new();
        for (number, piece) in pieces.iter_mut().enumerate() {
            heap.extend(read(piece)?.map(|(last_access, pending)| (last_access, Reverse(number), pending)));
        }
        Ok(Sorted::Merged(heap, pieces))
    }
}

impl Sorted {
    /// The next key, or `None` at the end.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(super) fn next(&mut self) -> io::Result<Option<Listed>> {
        match self {
            Sorted::Here(records, places) => Ok(places.pop().map(|(last_access, place)| {
                let record = record(records, place as usize);
                Listed { key: record[HEAD..].to_vec(), size: number(&record[4..8]), last_access }
            })),
            Sorted::Merged(heap, pieces) => {
                let Some((last_access, Reverse(number), Pending { size, key })) = heap.pop() else { return Ok(None) };
                let next = read(&mut pieces[number])?;
                heap.extend(next.map(|(last_access, pending)| (last_access, Reverse(number), pending)));
                Ok(Some(Listed { key, size, last_access }))
            }
        }
    }
}

fn record(records: &[u8], place: usize) -> &[u8] {
    &records[place..place + HEAD + usize::from(records[place + HEAD - 1])]
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

/// The next key of a piece.
fn read(piece: &mut impl Read) -> io::Result<Option<(u32, Pending)>> {
    let mut head = [0; HEAD];
    match piece.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut key = vec![0; usize::from(head[HEAD - 1])];
    piece.read_exact(&mut key)?;
    Ok(Some((number(&head[..4]), Pending { size: number(&head[4..8]), key })))
}

impl Read for Piece {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min((self.end - self.at) as usize);
        let count = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// A file in `$TMPDIR` that has no name, and goes with the process.
fn unnamed_file() -> io::Result<File> {
    let folder = std::env::temp_dir();
    for number in 0.. {
        let path = folder.join(format!("corecached-keys-{}-{number}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => {}
            Err(error) => {
                return Err(io::Error::other(format!("no temporary file for its keys: {}: {error}", path.display())));
            }
        }
    }
    unreachable!("the loop returns")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of all lengths with random ages, sorted in so much memory.
    fn sorted(memory: usize) -> (Vec<Listed>, Vec<Listed>, usize) {
        let mut sorter = Sorter::new(memory);
        let mut random = 1_u64;
        let mut given = Vec::new();
        for number in 0..5000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = [&number.to_be_bytes()[..], &vec![b'\n'; (random >> 40) as usize % 247]].concat();
            given.push(Listed { key, size: (random >> 32) as u32, last_access: (random >> 50) as u32 % 1000 });
            sorter.add(given.last().expect("one")).expect("a temporary file");
        }
        let pieces = sorter.ends.len();
        let (mut sorted, mut got) = (sorter.sorted().expect("a temporary file"), Vec::new());
        while let Some(listed) = sorted.next().expect("a temporary file") {
            got.push(listed);
        }
        (given, got, pieces)
    }

    #[test]
    fn keys_come_latest_first_from_memory_and_from_the_file() {
        for (memory, few, many) in [(MEMORY, 0, 0), (100_000, 5, 20), (20_000, 25, 100)] {
            let (mut given, mut got, pieces) = sorted(memory);
            assert!((few..=many).contains(&pieces), "{memory}: {pieces}");
            assert!(got.is_sorted_by_key(|listed| Reverse(listed.last_access)), "{memory}");
            given.sort_by(|a, b| a.key.cmp(&b.key));
            got.sort_by(|a, b| a.key.cmp(&b.key));
            assert!(given == got, "{memory}");
        }
    }
}
