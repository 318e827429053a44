//! Room for a long value, and its return, a part at a time.
//!
//! A value that is announced need not come. So a client that has announced one is given room for some of it, and for more
//! as its bytes come ([`Store::gather`] says how much is wanted).
//!
//! A value of 1 GiB takes 65,000 chunks. To take them, or to free them, in one go would hold a worker up for tens of
//! milliseconds, and to empty a thousand pages of small items for them, for seconds. So room is asked for again and again,
//! between which other requests are served, until it is there; and of what is freed the rest is for housekeeping, or for
//! whoever needs chunks next.
//!
//! An item that is being gathered is floating, and has all of its header: whoever gives it up frees the chunks it has.

use super::arena::ItemId;
use super::item::{Cursor, Items};
use super::slab::ClassId;
use super::{OutOfMemory, Store};

/// Chunks of a large item that are taken or freed in one go.
const CHUNKS_PER_STEP: usize = 128;
/// Chunks looked at of a page that is being emptied for a value, in one go.
const MOVE_STEPS: u32 = 512;
/// Seconds that a value is waited for with pages on their way before there is no memory for it.
const SECONDS_MAX: u32 = 30;

/// What there is of the room for a value.
#[derive(Clone, Copy, Debug)]
pub struct Gathering {
    parts: Option<Parts>,
    /// Bytes of the value that there is room for.
    room: usize,
    /// There was as much room as was wanted: the next chunk is the first of what is wanted next.
    begins: bool,
    /// It is given up at this count of the clock.
    give_up_at: u32,
}

#[derive(Clone, Copy, Debug)]
struct Parts {
    head: ItemId,
    last: ItemId,
    count: usize,
    /// The first chunk that came since more was wanted.
    newest: ItemId,
}

impl Gathering {
    /// The item that must be abandoned if no more is asked for, if there is one yet.
    pub fn item(&self) -> Option<ItemId> {
        self.parts.map(|parts| parts.head)
    }

    /// Bytes of the value that there is room for.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Where bytes of the value go for which there was no room before: those behind the first `received`. It has just
    /// become ready.
    ///
    /// # Panics
    /// If there is no room at all.
    pub fn cursor(&self, items: &Items, received: usize) -> Cursor {
        let parts = self.parts.expect("what is ready has begun");
        items.cursor_from(parts.head, parts.newest, self.room - received)
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

/// How far it has come.
#[derive(Clone, Copy, Debug)]
pub enum Gathered {
    /// There is as much room as is wanted, in a floating item.
    Ready(Gathering),
    /// Ask again, with this.
    Later(Gathering),
}

/// How pages are taken from other classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pace {
    /// Emptied at once.
    #[default]
    AtOnce,
    /// In steps: who needs one can wait.
    InSteps,
    /// The same, and one is on its way.
    Waiting,
}

impl Store {
    /// As [`Store::allocate`], for a value that can be waited for: in steps of bounded work, and for the first `wanted`
    /// bytes of the value at least; when they have come, it is asked for more.
    ///
    /// # Errors
    /// When there is no room, and none is on its way; nothing is left of what was gathered then.
    pub fn gather(
        &mut self,
        item: Announced<'_>,
        wanted: usize,
        so_far: Option<Gathering>,
    ) -> Result<Gathered, OutOfMemory> {
        let mut gathering = so_far.unwrap_or(Gathering { parts: None, room: 0, begins: true, give_up_at: 0 });
        if gathering.begins {
            gathering.give_up_at = self.now.saturating_add(SECONDS_MAX);
        }
        self.pace = Pace::InSteps;
        let ready = self.gather_some(item, wanted, &mut gathering);
        let pace = std::mem::take(&mut self.pace);
        match ready {
            Some(true) => {
                gathering.begins = true;
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

    /// Says whether all is there; none: there is no chunk to go on with.
    fn gather_some(&mut self, item: Announced<'_>, wanted: usize, gathering: &mut Gathering) -> Option<bool> {
        let Announced { key, client_flags, value_len } = item;
        if let Some(class) = self.slabs.class_for(self.items.size(key.len(), client_flags, value_len)) {
            let id = self.chunk(class)?;
            self.items.create(id, key, client_flags, value_len);
            gathering.parts = Some(Parts { head: id, last: id, count: 1, newest: id });
            gathering.room = value_len;
            return Some(true);
        }
        let wanted = wanted.min(value_len);
        let class = self.slabs.large();
        for _ in 0..CHUNKS_PER_STEP {
            let id = self.chunk(class)?;
            let parts = match gathering.parts {
                None => {
                    self.items.create(id, key, client_flags, 0);
                    self.items.spread(id, value_len, &[]);
                    Parts { head: id, last: id, count: 1, newest: id }
                }
                Some(Parts { head, last, count, newest }) => {
                    self.items.append_body(head, last, id);
                    Parts { head, last: id, count: count + 1, newest: if gathering.begins { id } else { newest } }
                }
            };
            gathering.begins = false;
            gathering.parts = Some(parts);
            gathering.room = self.items.room_in(key.len(), client_flags, parts.count).min(value_len);
            if gathering.room >= wanted {
                return Some(true);
            }
        }
        Some(false)
    }

    /// A part of what it takes to empty a page for a class that can wait. Says whether the class has room now.
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

    /// Frees a large item, or a part of it and the rest later.
    #[cold]
    pub(super) fn free_large(&mut self, head: ItemId) {
        if !self.free_bodies(head) {
            self.remains.push(head);
        }
    }

    /// Goes on with what is to be freed. Says whether there was something.
    pub(super) fn free_remains(&mut self) -> bool {
        let Some(&head) = self.remains.last() else { return false };
        if self.free_bodies(head) {
            self.remains.pop();
        }
        true
    }

    /// Says whether all of an item was freed. What is left of it is a floating item with fewer chunks.
    fn free_bodies(&mut self, head: ItemId) -> bool {
        let mut body = self.items.first_body(head);
        for _ in 0..CHUNKS_PER_STEP {
            let Some(chunk) = body else { break };
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
