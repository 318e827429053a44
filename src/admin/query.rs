//! The queries that commands of the server come to, and their answers.

use super::cold_items::ColdItems;
use super::walk::Walk;
use crate::clock::Now;
use crate::command::prefixes::{PrefixCounts, Prefixes};
use crate::protocol::binary::Access;
use crate::protocol::packet::Head;
use crate::store::rebalance::Reassigned;
use crate::store::slab::ClassId;
use crate::store::walk::{Place, Reader};
use crate::store::{Snapshot, Tuning};
use crate::watch::Categories;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A query to all shards or to all workers.
#[derive(Clone, Debug)]
pub enum Query {
    /// Flush when the time comes, or at once.
    Flush(Option<Now>),
    /// No flush is to come.
    ForgetFlush,
    /// What is there and what was counted.
    Snapshot,
    /// Forget what was counted.
    ResetCounters,
    /// Start counting by prefix, with these, unless it is on; or stop.
    Detail(Option<Prefixes>),
    /// Counts by prefix.
    DetailDump,
    /// Items of a class, in pieces.
    ColdItems {
        /// The class.
        class: u8,
        /// Items, of all shards together.
        limit: usize,
        /// The shards that have more to tell, and how far they have come. Empty: nobody was asked yet.
        rest: Vec<(u16, Reader)>,
    },
    /// How many items there are of each size, in steps of 32 bytes, in pieces.
    Sizes {
        /// The shards that have more to tell, and how far they have come. Empty: nobody was asked yet.
        rest: Vec<(u16, Place)>,
    },
    /// `slabs reassign`: move a page, of the first shard that can.
    Reassign {
        /// From this class; from any if there is none.
        from: Option<ClassId>,
        /// To this class; 0: to the budget.
        to: ClassId,
        /// Whether a shard has begun: the others need not.
        begun: Arc<Mutex<bool>>,
    },
    /// Settings of the store have changed: take the latest.
    Tune(Arc<Mutex<Tuning>>),
    /// The connections of a worker: answered by workers, the rest by shards.
    Connections,
    /// `refresh_certs`: answered by the main thread.
    RefreshCertificates,
}

/// The answer of a shard or a worker.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// To `Snapshot`.
    Snapshot(Box<Snapshot>),
    /// To `Reassign`; [`Reassigned::NoSpare`] as well when another shard has begun already.
    Reassigned(Reassigned),
    /// To `DetailDump`.
    Prefixes(Vec<(Vec<u8>, PrefixCounts)>),
    /// To `Sizes`: counts by size, rounded up to 32 bytes, and where to go on if there is more.
    Sizes(BTreeMap<u32, u64>, Option<(u16, Place)>),
    /// To `ColdItems`: a line for each item, most recent first, and where to go on if there is more.
    Items(Vec<Vec<u8>>, Option<(u16, Reader)>),
    /// The answers to `ColdItems` so far.
    List(ColdItems),
    /// To `Connections`: lines of the reply.
    Connections(Vec<Description>),
    /// To `RefreshCertificates`: why the old ones stay.
    Refreshed(Result<(), String>),
}

/// The form of the reply, which the asking connection gets when all have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// A fixed text; nothing when it is empty.
    Text(&'static [u8]),
    /// `slabs reassign`
    Reassigned,
    /// `stats`
    General,
    /// `stats items`
    Items,
    /// `stats slabs`
    Slabs,
    /// `stats evictions`
    Evictions,
    /// `stats sizes`
    Sizes,
    /// `stats detail dump`
    Detail,
    /// `stats cachedump`
    ColdItems,
    /// All lines, and `END`: `stats conns`.
    Lines,
    /// The same in packets, for who asked in one.
    Packets(Head, &'static ReplyKind),
    /// `refresh_certs`; with `noreply` only errors.
    Refreshed {
        /// With `noreply`.
        noreply: bool,
    },
}

/// What `stats conns` says of a connection, or of a listening socket.
#[derive(Clone, Debug)]
pub struct Description {
    /// It is a listening socket: those come first.
    pub accepts: bool,
    /// Its descriptor.
    pub fd: i32,
    /// Its lines.
    pub lines: String,
}

/// The action that a command line asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// This is the reply, with its terminator; nothing when it is empty.
    Say(Vec<u8>),
    /// Close the connection once earlier replies are sent.
    Quit,
    /// Ask all shards, or all workers, and report.
    Ask(Query, ReplyKind),
    /// Walk through the shards: `lru_crawler crawl`, `metadump`, `mgdump`.
    Walk(Box<Walk>),
    /// The client has shown who it is, or failed to: what it may do from now on, and the reply.
    Access(Access, Vec<u8>),
    /// Tell the connection what happens, of these categories; none: the words are no categories.
    Watch(Option<Categories>),
    /// Stop the server.
    Stop {
        /// `shutdown graceful`
        graceful: bool,
    },
}

pub(super) fn say(text: &[u8]) -> Action {
    Action::Say(text.to_vec())
}
