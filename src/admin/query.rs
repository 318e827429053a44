//! Commands that concern the whole server become queries. This module defines the queries and their answers.

use super::cold_items::ColdItems;
use super::login_reply::LoginForm;
use super::walk::Walk;
use crate::auth::directory::Attempt;
use crate::auth::user::User;
use crate::clock::Now;
use crate::command::big_keys::BigKey;
use crate::command::prefixes::{PrefixCounts, Prefixes};
use crate::protocol::binary::Access;
use crate::protocol::packet::Head;
use crate::store::flushed::{Flush, Refused};
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
    /// Flush at this time, or at once.
    Flush(Option<Now>),
    /// Cancel a flush that is planned.
    ForgetFlush,
    /// Flush the items of prefixes.
    FlushPrefixes {
        /// The prefixes, each with its last delimiter.
        prefixes: Arc<[Vec<u8>]>,
        /// What happens to the items.
        flush: Flush,
        /// The reply if all goes well. Empty: the client wants no reply.
        reply: Arc<[u8]>,
    },
    /// Give the contents of the shard in numbers, and its counters.
    Snapshot,
    /// Set the counters to zero.
    ResetCounters,
    /// `Some`: count by prefix; a shard that has no counts yet begins with these. `None`: stop counting.
    Detail(Option<Prefixes>),
    /// Give the counts by prefix.
    DetailDump,
    /// List items of a class, in pieces.
    ColdItems {
        /// The class.
        class: u8,
        /// The largest number of items, of all shards together.
        limit: usize,
        /// The shards that have more to tell, and the place that each has reached. Empty: no shard has answered yet.
        rest: Vec<(u16, Reader)>,
    },
    /// Count the items of each size, in steps of 32 bytes, in pieces.
    Sizes {
        /// The shards that have more to tell, and the place that each has reached. Empty: no shard has answered yet.
        rest: Vec<(u16, Place)>,
    },
    /// `slabs reassign`: move a page of the first shard that can spare one.
    Reassign {
        /// The class that gives the page. `None`: any class.
        from: Option<ClassId>,
        /// The class that gets the page. 0: the budget gets it.
        to: ClassId,
        /// True once a shard has begun. The other shards then do nothing.
        begun: Arc<Mutex<bool>>,
    },
    /// Give the keys of the largest values.
    BigKeys,
    /// Take the latest settings of the store: they have changed.
    Tune(Arc<Mutex<Tuning>>),
    /// List the connections of a worker. Workers answer this query, shards answer those above.
    Connections,
    /// `refresh_certs`. The main thread answers this query.
    RefreshCertificates,
    /// Check a password, which travels beside the query. The thread of `auth::checks` answers this query.
    CheckPassword,
}

/// The answer of a shard or a worker.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The shard has done the work and has nothing to tell.
    Done,
    /// The answer to `FlushPrefixes`: the reply of the query, or why the shard has not flushed all of them. An error has the
    /// reply, too.
    Flushed(Arc<[u8]>, Result<(), Refused>),
    /// The answer to `Snapshot`: the number of the shard, and its numbers.
    Snapshot(u16, Box<Snapshot>),
    /// The answer to `Reassign`. It is [`Reassigned::NoSpare`], too, if another shard has already begun.
    Reassigned(Reassigned),
    /// The answer to `DetailDump`.
    Prefixes(Vec<(Vec<u8>, PrefixCounts)>),
    /// The answer to `Sizes`: counts by size, rounded up to 32 bytes, and the place to continue from if the shard has
    /// more.
    Sizes(BTreeMap<u32, u64>, Option<(u16, Place)>),
    /// The answer to `ColdItems`: a line for each item, most recent first, and the place to continue from if the shard
    /// has more.
    Items(Vec<Vec<u8>>, Option<(u16, Reader)>),
    /// The answer to `BigKeys`.
    BigKeys(Vec<BigKey>),
    /// The answers to `ColdItems` so far, merged.
    List(ColdItems),
    /// The answer to `Connections`: lines of the reply.
    Connections(Vec<Description>),
    /// The answer to `RefreshCertificates`. An error says why the server keeps the old certificates.
    Refreshed(Result<(), String>),
    /// The answer to `CheckPassword`: the user, if the password is right.
    Checked(Option<Arc<User>>),
}

/// The form of the reply. The connection that asked gets it when all shards or workers have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// A fixed text. An empty text means no reply.
    Text(&'static [u8]),
    /// `slabs reassign`
    Reassigned,
    /// `flush_prefix` and its other forms. The reply is in the query. A client that asked in a packet gets an error in one.
    Flushed(Option<Head>),
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
    /// `stats bigkeys`
    BigKeys,
    /// `stats cachedump`
    ColdItems,
    /// `stats conns`: all lines, and `END`.
    Lines,
    /// The same reply in packets, for a client that asked in a packet.
    Packets(Head, &'static ReplyKind),
    /// A login with a password.
    Login(LoginForm),
    /// `refresh_certs`. With `noreply` the reply tells only errors.
    Refreshed {
        /// The command ends in `noreply`.
        noreply: bool,
    },
}

/// The lines of `stats conns` about a connection or a listening socket.
#[derive(Clone, Debug)]
pub struct Description {
    /// It is a listening socket. `stats conns` lists these first.
    pub accepts: bool,
    /// The descriptor of the socket.
    pub fd: i32,
    /// The lines of the reply.
    pub lines: String,
}

/// The action that a command line asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this reply, which includes its terminator. Send nothing if it is empty.
    Say(Vec<u8>),
    /// Close the connection after the worker has sent the earlier replies.
    Quit,
    /// Ask all shards or all workers, and reply when all have answered.
    Ask(Query, ReplyKind),
    /// Walk through the shards: `lru_crawler crawl`, `metadump`, `mgdump`.
    Walk(Box<Walk>),
    /// The client has logged in (`-Y`, `-S`), has begun to, or has failed to: change its access to this, and send the reply.
    Access(Access, Vec<u8>),
    /// With `--users`: the client has logged in as this user, or has failed to.
    Enter {
        /// The user. `None`: the login has failed.
        user: Option<Arc<User>>,
        /// The form of the reply.
        form: LoginForm,
        /// The body of a packet that lets the client in.
        body: Vec<u8>,
    },
    /// With `--users`: let this password be checked, and reply then.
    Check(Attempt, LoginForm),
    /// Tell the connection about events of these categories. `None`: a word of the command names no category.
    Watch(Option<Categories>),
    /// Stop the server.
    Stop {
        /// True for `shutdown graceful`.
        graceful: bool,
    },
}

pub(super) fn say(text: &[u8]) -> Action {
    Action::Say(text.to_vec())
}
