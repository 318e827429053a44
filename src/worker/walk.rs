//! A walk that a worker leads from shard to shard for the connection that asked for it: a dump, or a crawl.
//!
//! ```text
//! begin_walk ──▶ home ──▶ with a shard (in a batch) ──▶ home ──▶ … ──▶ over
//!                 ▲  a dump goes on when the client has taken everything so far:
//!                 └─ the outbox of the connection is empty; a crawl goes on after its pause
//! ```
//! A dump ends with the connection that asked for it. A crawl does not: nobody reads it.

use crate::admin::walk::Walk;

/// The walk that a worker leads. A server has at most one at a time.
#[derive(Debug)]
pub(super) struct LedWalk {
    /// The walk while it is with the worker; `None` while it is with a shard.
    pub(super) home: Option<Box<Walk>>,
    /// The connection that reads the dump: its token, and its generation. `None` if the walk is a crawl, or the connection has
    /// closed.
    pub(super) client: Option<(usize, u64)>,
}

impl LedWalk {
    /// Whether the walk is a crawl that waits for nothing but its pause.
    pub(super) fn pauses(&self) -> bool {
        self.client.is_none() && self.home.is_some()
    }
}
