//! Room for long values. The store gathers the chunks of a long value, and frees them later, a part at a time.
//!
//! A client may announce a value and not send it. So the store first makes room for a part of the value, and for more
//! as its bytes come: the caller of [`Store::gather`] says how much it wants.
//!
//! A value of 1 GiB needs 90,000 chunks. To take or to free all of them at once would stop a worker for tens of
//! milliseconds, and to empty a thousand pages of small items for them, for seconds. So the worker asks for room again
//! and again until it is there, and serves other requests in between. The store frees a long value in steps as well:
//! housekeeping does the rest, or the next operation that needs chunks.
//!
//! An item for which room is gathered is floating, and its header is complete. To abandon it frees the chunks that it
//! has.

use super::arena::ItemId;
use super::item::{BODY_HEADER, Cursor, Items, LARGE_EXTENSION};
use super::moves::Pace;
use super::slab::{ClassId, Slabs};
use super::{OutOfMemory, Store};

/// Chunks of a large item that one step takes or frees.
const CHUNKS_PER_STEP: usize = 128;
/// A last chunk of at least this part of a largest one is one itself, and needs no page of another class.
const NEARLY_WHOLE: (usize, usize) = (15, 16);
/// Chunks of a page that one step clears for a value.
const MOVE_STEPS: u32 = 512;
/// Seconds after which a value that waits for moving pages is refused.
const SECONDS_MAX: u32 = 30;

/// The room for a value so far.
#[derive(Clone, Copy, Debug)]
pub struct Gathering {
    parts: Option<Parts>,
    /// The first chunk of the latest request.
    newest: Option<ItemId>,
    /// All room wanted so far is there: the next chunk is the first one of a new request.
    begins: bool,
    /// The count of the clock at which the store refuses the value; 0: no request is under way.
    give_up_at: u32,
}

/// The chunks of a floating item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    head: ItemId,
    last: ItemId,
    /// Bytes of the value that the chunks hold.
    pub(super) room: usize,
}

/// The next chunk that a large item needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextPart {
    pub(super) class: ClassId,
    /// Bytes of the value that it holds.
    pub(super) room: usize,
}

impl Parts {
    /// The chunk that follows: of the largest class, or of a smaller one if it is the last and saves something.
    pub(super) fn next(&self, value_len: usize, slabs: &Slabs) -> NextPart {
        let left = value_len - self.room;
        let largest = slabs.largest();
        let chunk = |class| slabs.usage(class).chunk_size as usize;
        let fits = slabs.class_for(BODY_HEADER + left);
        match fits.filter(|&class| chunk(class) * NEARLY_WHOLE.1 < chunk(largest) * NEARLY_WHOLE.0) {
            Some(class) => NextPart { class, room: left },
            None => NextPart { class: largest, room: left.min(chunk(largest) - BODY_HEADER) },
        }
    }

    /// Adds the next chunk, which may be larger than needed.
    pub(super) fn append(&mut self, body: ItemId, room: usize, items: &Items) {
        items.append_body(self.head, self.last, body, room);
        self.last = body;
        self.room += room;
    }
}

impl Gathering {
    /// The item, once it has a chunk. A caller that asks for no more room must abandon it.
    pub fn item(&self) -> Option<ItemId> {
        self.parts.map(|parts| parts.head)
    }

    /// Bytes of the value for which the item has room.
    pub fn room(&self) -> usize {
        self.parts.map_or(0, |parts| parts.room)
    }

    /// The place of the bytes behind the first `received` ones, for which the item had no room before. The caller has
    /// just got [`Gathered::Ready`].
    ///
    /// # Panics
    /// If the item has no chunk.
    pub fn cursor(&self, items: &Items, received: usize) -> Cursor {
        let (parts, newest) = self.parts.zip(self.newest).expect("what is ready has begun");
        items.cursor_from(parts.head, newest, parts.room - received)
    }
}

/// An item whose value a client has announced.
#[derive(Clone, Copy, Debug)]
pub struct Announced<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The client's flags.
    pub client_flags: u32,
    /// Bytes of its value.
    pub value_len: usize,
}

/// The result of a step.
#[derive(Clone, Copy, Debug)]
pub enum Gathered {
    /// A floating item has as much room as the caller wants.
    Ready(Gathering),
    /// The caller must ask again, with this value.
    Later(Gathering),
}

impl Store {
    /// Like [`Store::allocate`], in steps of bounded work, for a value that can wait. It makes room for at least the
    /// first `wanted` bytes of the value. When these have come, the caller asks for more.
    ///
    /// # Errors
    /// If the store has no room and no page is moving. Then it has freed all chunks of the item.
    pub fn gather(
        &mut self,
        item: Announced<'_>,
        wanted: usize,
        so_far: Option<Gathering>,
    ) -> Result<Gathered, OutOfMemory> {
        let mut gathering = so_far.unwrap_or(Gathering { parts: None, newest: None, begins: true, give_up_at: 0 });
        if gathering.give_up_at == 0 {
            gathering.give_up_at = self.now.saturating_add(SECONDS_MAX);
        }
        self.pace = Pace::InSteps;
        let ready = self.gather_some(item, wanted, &mut gathering);
        let pace = std::mem::take(&mut self.pace);
        match ready {
            Some(true) => {
                (gathering.begins, gathering.give_up_at) = (true, 0);
                Ok(Gathered::Ready(gathering))
            }
            Some(false) => Ok(Gathered::Later(gathering)),
            None if pace == Pace::Waiting && self.now < gathering.give_up_at => Ok(Gathered::Later(gathering)),
            None => {
                if let Some(id) = gathering.item() {
                    self.abandon(id);
                }
                Err(OutOfMemory)
            }
        }
    }

    /// Does a step. Says whether all wanted room is there; `None`: the store has no further chunk.
    fn gather_some(&mut self, item: Announced<'_>, wanted: usize, gathering: &mut Gathering) -> Option<bool> {
        let Announced { key, client_flags, value_len } = item;
        if let Some(class) = self.slabs.class_for(self.items.size(key.len(), client_flags, value_len)) {
            let id = self.chunk(class)?;
            self.items.create(id, key, client_flags, value_len);
            gathering.parts = Some(Parts { head: id, last: id, room: value_len });
            gathering.newest = Some(id);
            return Some(true);
        }
        let wanted = wanted.min(value_len);
        for _ in 0..CHUNKS_PER_STEP {
            let parts = match gathering.parts {
                None => {
                    let head = self.chunk(self.slabs.largest())?;
                    self.begin_large(head, key, client_flags, value_len)
                }
                Some(mut parts) => {
                    let next = parts.next(value_len, &self.slabs);
                    let body = self.body(next)?;
                    self.items.arena().prefetch_beyond(parts.last, body);
                    parts.append(body, next.room, &self.items);
                    parts
                }
            };
            if gathering.begins {
                gathering.newest = Some(parts.last);
                gathering.begins = false;
            }
            gathering.parts = Some(parts);
            if parts.room >= wanted {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Gets a chunk for a part of a large item: of the class that fits, or of the largest one if that class has none. The
    /// class gets a page of another one as often as the automover may move a page.
    pub(super) fn body(&mut self, part: NextPart) -> Option<ItemId> {
        let mut chunk = None;
        if part.class != self.slabs.largest() {
            chunk = self.chunk_of_own(part.class);
            if chunk.is_none() && self.options.tuning.automove.level > 0 && self.automover.can_pay() {
                self.automover.pay();
                chunk = self.chunk(part.class);
            }
        }
        chunk.or_else(|| self.chunk(self.slabs.largest()))
    }

    /// Writes a large item without bodies into a chunk of the largest class.
    pub(super) fn begin_large(&self, head: ItemId, key: &[u8], client_flags: u32, value_len: usize) -> Parts {
        let chunk = self.slabs.usage(self.slabs.largest()).chunk_size as usize;
        let room = value_len.min(chunk - self.items.size(key.len(), client_flags, LARGE_EXTENSION));
        self.items.create(head, key, client_flags, 0);
        self.items.enlarge(head, value_len, room);
        Parts { head, last: head, room }
    }

    /// Does a part of the work to empty a page for a class that can wait. Says whether the class has room now.
    pub(super) fn hasten_page(&mut self, class: ClassId) -> bool {
        if !self.mover.is_running() && self.may_move() {
            let begun = self.donors(Some(class)).into_iter().any(|from| self.start_move(from, Some(class)));
            if !begun {
                return false;
            }
        }
        self.pace = Pace::Waiting;
        self.move_pages(MOVE_STEPS);
        self.slabs.has_room(class)
    }

    /// Frees a large item: all of it, or a part now and the rest later.
    #[cold]
    pub(super) fn free_large(&mut self, head: ItemId) {
        if !self.free_bodies(head) {
            self.remains.push(head);
        }
    }

    /// Frees a part of a large item that was freed in part. Says whether it found one.
    pub(super) fn free_remains(&mut self) -> bool {
        let Some(&head) = self.remains.last() else { return false };
        if self.free_bodies(head) {
            self.remains.pop();
        }
        true
    }

    /// Frees some chunks of a large item, and says whether these were all. The rest is a floating item with fewer
    /// chunks.
    fn free_bodies(&mut self, head: ItemId) -> bool {
        let mut body = self.items.first_body(head);
        let mut last = head;
        for _ in 0..CHUNKS_PER_STEP {
            let Some(chunk) = body else { break };
            self.items.arena().prefetch_beyond(last, chunk);
            last = chunk;
            body = self.items.next_chunk(chunk);
            self.free_chunk(chunk);
        }
        match body {
            Some(rest) => self.items.set_next_body(head, rest),
            None => self.free_chunk(head),
        }
        body.is_none()
    }
}
