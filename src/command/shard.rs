//! What a lease guards.

use super::prefixes::Prefixes;
use crate::protocol::Limits;
use crate::store::Store;

/// What a lease guards: one shard of the cache.
#[derive(Debug)]
pub struct Shard {
    /// Its number.
    pub number: u16,
    /// Its items.
    pub store: Store,
    /// Limits of items, as the parser has them.
    pub limits: Limits,
    /// Counts by key prefix, while `stats detail` is on.
    pub prefixes: Option<Prefixes>,
}
