//! Facts for the next server.

use serde::{Deserialize, Serialize};

/// The facts about a server that its next one needs, beside those about its stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The count of the clock at the stop.
    pub clock: u32,
    /// The wall clock at the stop, in milliseconds since 1970.
    pub unix_millis: u64,
    /// The number of shards, if each had a port of its own and the keys that came in there; 0: the hash spread the keys.
    pub ports: u32,
    /// `-I`, in bytes.
    pub item_size_max: u64,
}
