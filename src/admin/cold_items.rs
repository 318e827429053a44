//! The reply to `stats cachedump`. It grows piece by piece.

use super::line::END;

/// Longest reply to `stats cachedump`.
pub(super) const BYTES_MAX: usize = 2 << 20;

/// Shortest line of `stats cachedump`: `ITEM k [0 b; 0 s]` with its terminator.
pub(super) const LINE_MIN: usize = 19;

/// The lines of `stats cachedump` so far.
#[derive(Clone, Debug, Default)]
pub struct ColdItems {
    pub(super) lines: Vec<u8>,
    count: usize,
}

impl ColdItems {
    /// Adds pieces of the lists of some shards. It takes one line of each piece in turn, up to `limit` lines in all,
    /// and as many as fit into `bytes_max`. Says whether the list is full.
    pub(super) fn add(&mut self, pieces: &[Vec<Vec<u8>>], limit: usize, bytes_max: usize) -> bool {
        let rows = pieces.iter().map(Vec::len).max().unwrap_or(0);
        for line in (0..rows).flat_map(|row| pieces.iter().filter_map(move |lines| lines.get(row))) {
            if self.count == limit || self.lines.len() + line.len() + END.len() > bytes_max {
                return true;
            }
            self.lines.extend_from_slice(line);
            self.count += 1;
        }
        self.count == limit
    }
}
