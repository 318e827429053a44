//! Tasks of one worker for one shard, which travel in a batch, and come back with their replies.

use super::broadcast::Broadcast;
use crate::admin::walk::Walk;
use crate::command::Reply;
use crate::protocol::{Operation, Span, Verb};
use crate::store::arena::ItemId;
use crate::store::gather::{Gathered, Gathering};
use crate::store::{OutOfMemory, PIN_LEN_MIN};
use std::sync::Arc;

/// Which connection of a worker a task is for. Tokens are used again, generations are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its token.
    pub token: usize,
    /// Counts the connections of the worker.
    pub generation: u64,
    /// Its gap in the replies.
    pub slot: usize,
    /// Its descriptor, for those who watch.
    pub fd: i32,
}

/// Something to be done on a shard.
#[derive(Clone, Debug)]
pub enum Task {
    /// Execute an operation. Its spans refer to the bytes of the batch.
    Execute(Operation),
    /// Make room for a value that is received in place. There is a reply only if there is none: the error.
    Reserve(Box<Reservation>),
    /// Execute a storage command whose value was received.
    Commit(Operation, ItemId),
    /// Give up an item that was reserved.
    Abandon(ItemId),
    /// A pinned value has been written, or never will be.
    Unpin(ItemId),
    /// Answer a query to all shards.
    Broadcast(Arc<Broadcast>),
    /// A piece of a walk, which is taken out when the batch has returned. The reply is a piece of a dump.
    Walk(Option<Box<Walk>>),
}

/// Room for a value that is received in place.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The storage command.
    pub operation: Operation,
    /// Bytes of the value that room is wanted for.
    pub wanted: usize,
    /// How far it has come.
    pub room: Room,
}

/// See [`Reservation`].
#[derive(Clone, Copy, Debug)]
pub enum Room {
    /// More is wanted than there is. On the way back: ask once more.
    Wanted(Option<Gathering>),
    /// There is as much as is wanted.
    Ready(Gathering),
    /// There is no memory. What there was has been given up.
    Refused,
}

impl Room {
    /// The item that must be abandoned if nobody takes it over.
    pub fn item(&self) -> Option<ItemId> {
        match self {
            Room::Wanted(so_far) => so_far.as_ref().and_then(Gathering::item),
            Room::Ready(gathering) => gathering.item(),
            Room::Refused => None,
        }
    }
}

/// Tasks of one worker for one shard; on the way back, with their replies.
#[derive(Debug)]
pub struct Batch {
    /// The worker that it came from.
    pub from: usize,
    /// The shard that it is for.
    pub shard: usize,
    /// What to do, in this order, and for which connection; none where nobody waits for a reply.
    pub tasks: Vec<(Task, Option<Origin>)>,
    /// What the spans of the tasks refer to.
    pub bytes: Vec<u8>,
    /// The replies, one behind the other.
    pub reply: Reply,
    /// Where the reply of each task ends.
    pub ends: Vec<usize>,
    /// Bytes that the replies may take, at most; those of pinned values do not count.
    reply_bytes_max: usize,
}

/// Room for replies and operations that a batch keeps from one use to the next, in bytes each.
const KEPT_BYTES_MAX: usize = 256 << 10;

impl Batch {
    /// An empty batch.
    pub fn new(from: usize, shard: usize) -> Batch {
        Batch {
            from,
            shard,
            tasks: Vec::new(),
            bytes: Vec::new(),
            reply: Reply::default(),
            ends: Vec::new(),
            reply_bytes_max: 0,
        }
    }

    /// Empties it, to be used again. Memory beyond what most batches need goes back.
    pub fn clear(&mut self) {
        self.tasks.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.reply.out.clear();
        self.reply.out.shrink_to(KEPT_BYTES_MAX);
        self.reply.pinned.clear();
        self.ends.clear();
        self.reply_bytes_max = 0;
    }

    /// Adds a task whose reply takes at most `reply_bytes_max` bytes.
    pub fn push(&mut self, task: Task, origin: Option<Origin>, reply_bytes_max: usize) {
        self.tasks.push((task, origin));
        self.reply_bytes_max += reply_bytes_max;
    }

    /// Bytes that it takes, at most, with those of the replies.
    pub fn bytes_max(&self) -> usize {
        self.bytes.len() + self.tasks.len() * size_of::<(Task, Option<Origin>)>() + self.reply_bytes_max
    }

    /// Copies the bytes that an operation refers to into the batch, and makes it refer to them.
    pub fn adopt(&mut self, operation: &Operation, input: &[u8]) -> Operation {
        let mut adopted = *operation;
        adopted.key = self.copy(operation.key, input);
        if operation.verb.is_meta() {
            adopted.tokens = self.copy(operation.tokens, input);
        }
        // The value of a command that is still being received lies beyond the buffer; only its length matters.
        if operation.verb.is_storage() && (operation.value.start + operation.value.len) as usize <= input.len() {
            adopted.value = self.copy(operation.value, input);
        }
        adopted
    }
}

impl Batch {
    fn copy(&mut self, span: Span, input: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(span.of(input));
        Span::new(start, self.bytes.len())
    }
}

impl Room {
    pub(super) fn of(gathered: Result<Gathered, OutOfMemory>) -> Room {
        match gathered {
            Ok(Gathered::Ready(gathering)) => Room::Ready(gathering),
            Ok(Gathered::Later(so_far)) => Room::Wanted(Some(so_far)),
            Err(OutOfMemory) => Room::Refused,
        }
    }
}

/// Bytes that the reply to an operation takes at most, without those of pinned values.
pub(super) fn reply_bytes_max(operation: &Operation) -> usize {
    let has_value =
        matches!(operation.verb, Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats | Verb::MetaGet | Verb::BinaryGet);
    // A line of the reply repeats the key, perhaps in base64, or the flags of the request, and some numbers.
    let line = 512 + if operation.verb.is_meta() { operation.tokens.len as usize } else { 0 };
    if has_value { PIN_LEN_MIN + line } else { line }
}
