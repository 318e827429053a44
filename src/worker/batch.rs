//! Batches: the tasks that one worker has for one shard. A batch comes back to its worker with the replies.

use super::broadcast::Broadcast;
use crate::admin::walk::Walk;
use crate::command::Reply;
use crate::protocol::{Operation, Span, Verb};
use crate::store::arena::ItemId;
use crate::store::copies::Validity;
use crate::store::gather::{Gathered, Gathering};
use crate::store::slab::ClassId;
use crate::store::{OutOfMemory, PIN_LEN_MIN};
use std::sync::Arc;

/// The connection of a worker that a task belongs to. A token is used again after its connection has closed; a generation
/// is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The token of the connection.
    pub token: usize,
    /// The number of the connection: the worker counts all that it has had.
    pub generation: u64,
    /// The gap in the replies of the connection that the reply to this task fills.
    pub slot: usize,
    /// The descriptor of the connection, for the log of watchers.
    pub fd: i32,
}

/// Something to be done on a shard.
#[derive(Clone, Debug)]
pub enum Task {
    /// Execute an operation. Its spans refer to the bytes of the batch.
    Execute(Operation),
    /// Make room for a value that is received in place. The task has a reply only if there is no room: the error.
    Reserve(Box<Reservation>),
    /// Execute a storage command whose value was received in place.
    Commit(Operation, ItemId),
    /// Give up an item that was reserved.
    Abandon(ItemId),
    /// Unpin a value: the worker has written it, or never will.
    Unpin(ItemId),
    /// Answer a query to all shards.
    Broadcast(Arc<Broadcast>),
    /// Count the reads of copies of an item, whose key is among the bytes of the batch.
    Reads {
        /// The hash of the key.
        hash: u64,
        /// The key.
        key: Span,
        /// [`Copied::origin`](crate::command::copied::Copied::origin) of the last copy.
        origin: (ClassId, Validity),
        /// The number of reads.
        count: u64,
    },
    /// Do a piece of a walk. The worker takes the walk out when the batch has returned. The reply is a piece of a dump.
    Walk(Option<Box<Walk>>),
}

/// Room for a value that is received in place.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The storage command.
    pub operation: Operation,
    /// The number of bytes of the value that the worker wants room for.
    pub wanted: usize,
    /// The room that there is so far.
    pub room: Room,
}

/// The state of a [`Reservation`].
#[derive(Clone, Copy, Debug)]
pub enum Room {
    /// There is less room than is wanted. If a batch brings this back, the worker asks again.
    Wanted(Option<Gathering>),
    /// There is as much room as is wanted.
    Ready(Gathering),
    /// There is no memory. The shard has given up the room that there was.
    Refused,
}

impl Room {
    /// The item that the worker must abandon if the connection has closed meanwhile.
    pub fn item(&self) -> Option<ItemId> {
        match self {
            Room::Wanted(so_far) => so_far.as_ref().and_then(Gathering::item),
            Room::Ready(gathering) => gathering.item(),
            Room::Refused => None,
        }
    }
}

impl From<Result<Gathered, OutOfMemory>> for Room {
    fn from(gathered: Result<Gathered, OutOfMemory>) -> Room {
        match gathered {
            Ok(Gathered::Ready(gathering)) => Room::Ready(gathering),
            Ok(Gathered::Later(so_far)) => Room::Wanted(Some(so_far)),
            Err(OutOfMemory) => Room::Refused,
        }
    }
}

/// The bytes of a reply from one place to another, with the values that are pinned there.
#[derive(Clone, Copy, Debug)]
pub struct Part<'r> {
    /// The reply that this is a part of.
    pub reply: &'r Reply,
    /// The place of the first byte.
    pub from: usize,
    /// The place behind the last byte.
    pub to: usize,
}

/// Tasks of one worker for one shard, and the replies once the shard has run them.
#[derive(Debug)]
pub struct Batch {
    /// The worker that the batch came from.
    pub from: usize,
    /// The shard that the batch is for.
    pub shard: usize,
    /// The tasks in the order in which they are run, each with its connection. Nobody waits for the reply to a task without
    /// one.
    pub tasks: Vec<(Task, Option<Origin>)>,
    /// The bytes that the spans of the tasks refer to.
    pub bytes: Vec<u8>,
    /// The replies to all tasks, in the order of the tasks.
    pub reply: Reply,
    /// The place in `reply` where the reply to each task ends.
    pub ends: Vec<usize>,
    /// The most bytes that the replies can take, without those of pinned values.
    reply_bytes_max: usize,
}

/// The most memory that a batch keeps from one use to the next for its replies, and for its operations, in bytes.
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

    /// Empties the batch for its next use. Frees the memory beyond what most batches need.
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

    /// The most bytes that the batch can take, including the replies.
    pub fn bytes_max(&self) -> usize {
        self.bytes.len() + self.tasks.len() * size_of::<(Task, Option<Origin>)>() + self.reply_bytes_max
    }

    /// Copies the bytes that an operation refers to into the batch. The operation that is returned refers to the copy.
    pub fn adopt(&mut self, operation: &Operation, input: &[u8]) -> Operation {
        let mut adopted = *operation;
        adopted.key = self.copy(operation.key, input);
        if operation.verb.is_meta() {
            adopted.tokens = self.copy(operation.tokens, input);
        }
        // The value of a command that is still being received lies beyond the input; only its length matters.
        if operation.verb.is_storage() && (operation.value.start + operation.value.len) as usize <= input.len() {
            adopted.value = self.copy(operation.value, input);
        }
        adopted
    }

    fn copy(&mut self, span: Span, input: &[u8]) -> Span {
        self.copy_of(span.of(input))
    }

    /// Copies bytes into the batch.
    pub fn copy_of(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::new(start, self.bytes.len())
    }

    /// Each task that was run, with its connection and its part of the replies.
    pub fn replies(&mut self) -> impl Iterator<Item = (&mut Task, Option<Origin>, Part<'_>)> {
        let (reply, mut from) = (&self.reply, 0);
        self.tasks.iter_mut().zip(&self.ends).map(move |((task, origin), &to)| {
            let part = Part { reply, from, to };
            from = to;
            (task, *origin, part)
        })
    }
}

/// The most bytes that the reply to an operation can take, without those of pinned values.
pub(super) fn reply_bytes_max(operation: &Operation) -> usize {
    let has_value = operation.verb.is_retrieval() || matches!(operation.verb, Verb::MetaGet | Verb::BinaryGet);
    // A line of the reply repeats the key, perhaps in base64, or the flags of the request, and some numbers.
    let line = 512 + if operation.verb.is_meta() { operation.tokens.len as usize } else { 0 };
    if has_value { PIN_LEN_MIN + line } else { line }
}
