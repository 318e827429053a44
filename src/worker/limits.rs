//! The limits that serving keeps to.

use crate::protocol::Limits;

/// See the fields.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// The limits of the parsers.
    pub parse: Limits,
    /// The number of operations that are parsed before the first of them is executed.
    pub group_len: usize,
    /// The bytes of replies after which a connection is not served before they are sent.
    pub output_max: usize,
    /// `-R`: the number of commands after which a connection lets others go first.
    pub requests_per_turn: usize,
    /// A group ends where the connection lets others go first. Without it, the connection does so at the end of the group.
    pub cut_groups: bool,
    /// The bytes of a batch after which no task is added before the batch is posted.
    pub batch_bytes_max: usize,
    /// `--port-per-core`: all keys belong to the shard that has the number of the worker.
    pub keep_keys: bool,
}
