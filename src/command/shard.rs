//! The shard of the cache that a lease guards.

use super::prefixes::Prefixes;
use crate::protocol::Limits;
use crate::store::Store;

/// One shard of the cache. A lease guards it.
#[derive(Debug)]
pub struct Shard {
    /// The number of the shard.
    pub number: u16,
    /// The items of the shard.
    pub store: Store,
    /// The limits of items. The parser has the same ones.
    pub limits: Limits,
    /// The counts by key prefix. None until `stats detail` is on for the first time.
    pub prefixes: Option<Prefixes>,
}
