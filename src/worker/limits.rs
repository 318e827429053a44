//! Limits of serving.

use crate::protocol::Limits;

/// What serving needs to know.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Limits of the parser.
    pub parse: Limits,
    /// Operations parsed ahead.
    pub group_len: usize,
    /// Bytes of replies after which a connection is not served before they are on their way.
    pub output_max: usize,
    /// `-R`: commands after which a connection lets others go first.
    pub requests_per_turn: usize,
    /// Groups end where a connection lets others go first. Else it does so at the end of the group.
    pub cut_groups: bool,
    /// Bytes of a batch after which no more is put into it before it is on its way.
    pub batch_bytes_max: usize,
    /// `--port-per-core`: all keys belong to the worker's own shard, that with its number.
    pub keep_keys: bool,
}
