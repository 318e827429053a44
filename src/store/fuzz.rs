//! Compares the store with a simple model, for operations of all kinds. They store, append to, change, pin and gather
//! values of every length, change limits, move pages, flush, and let the clock jump.
//!
//! The store must hold only items that were stored. A missing item has expired or was flushed, deleted or evicted; the
//! store counts evictions. At the end the store must free all memory.

use super::arena::{Arena, ItemId, PAGE_SIZE_MAX};
use super::budget::Budget;
use super::flushed::{Flush, PrefixRule};
use super::gather::{Announced, Gathered, Gathering};
use super::item::{Cursor, Items, STALE, WON};
use super::slab::{ClassId, SlabOptions};
use super::{AutomoveTuning, Entry, LruTuning, OutOfMemory, Store, StoreOptions, Tuning, walk};
use crate::clock::{NEVER, Now};
use crate::fuzz::Bytes;
use crate::hash::KeyHasher;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// Pages of the address space, and the number of keys.
const PAGES: u32 = 14;
const KEYS: usize = 200;
/// The longest value, in bytes. It fills several pages of the smallest chunks.
const LEN_MAX: usize = 1_500_000;
/// Maximum number of operations in an input, and of pins and values under way at a time.
const OPERATIONS_MAX: usize = 400;
const HELD_MAX: usize = 6;
/// The clock stops here, so that it does not wrap.
const NOW_MAX: u32 = 1 << 30;

/// Bytes that differ from place to place, so that a value with wrong parts differs from the right one.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut state = 1_u64;
        let mut bytes = Vec::new();
        while bytes.len() < LEN_MAX + (1 << 16) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&(state >> 16).to_le_bytes()[..6]);
        }
        bytes
    })
}

/// The start and the length of a piece of the pattern.
type Piece = (usize, usize);

/// The model of an item.
#[derive(Clone, Debug)]
struct Twin {
    value: Vec<Piece>,
    flags: u32,
    deadline: u32,
    cas: u64,
    marks: u8,
}

/// A value that a client is sending. `received` bytes have arrived. It has room for more bytes, or waits for room.
struct Coming {
    key: usize,
    twin: Twin,
    received: usize,
    gathering: Gathering,
    room: Option<Cursor>,
}

struct World {
    store: Store,
    budget: Arc<Budget>,
    /// The pages that make up the largest page.
    parts: u32,
    twins: HashMap<usize, Twin>,
    now: u32,
    /// The time of a flush that is still to come.
    flush_at: Option<u32>,
    pins: Vec<(ItemId, Vec<Piece>)>,
    coming: Vec<Coming>,
    /// Items that were missing although they were alive.
    lost: u64,
    /// Items that earlier stores have evicted, in the same memory.
    evicted_before: u64,
    last_cas: u64,
    serial: usize,
    validations: usize,
}

/// Runs one input. Panics if it finds a fault.
pub fn run(input: &[u8]) {
    let mut input = Bytes(input);
    let mut world = World::new(&mut input);
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.end();
}

/// The prefixes of keys.
const PREFIXES: [&str; 5] = ["", "a:", "a:b:", "a:c:", "b:"];

fn prefix(number: usize) -> &'static str {
    PREFIXES[number / 3 % PREFIXES.len()]
}

fn key(number: usize) -> Vec<u8> {
    let mut key = format!("{}key-{number}", prefix(number)).into_bytes();
    // Some keys are long, and the first one is as long as a key may be.
    if number.is_multiple_of(16) {
        key.resize(250 - number, b'k');
    }
    key
}

impl World {
    /// Runs an input whose store is frozen and thawed again after every `every` operations.
    #[cfg(test)]
    fn run_with_restarts(input: &[u8], every: usize) {
        let mut input = Bytes(input);
        let memfd = Arc::new(super::memfd::Memfd::create().expect("a file"));
        let mut world = World::with(&mut input, Some(memfd));
        for operation in 0..OPERATIONS_MAX {
            if input.is_empty() {
                break;
            }
            if operation % every == every - 1 {
                world = world.restarted();
            }
            world.step(&mut input);
        }
        world.end();
    }

    /// The world with another store in the same memory. Values under way and pins are gone.
    #[cfg(test)]
    fn restarted(mut self) -> World {
        use super::keep::{Facts, Kept, freeze};
        use std::os::fd::AsFd;
        self.evicted_before += self.evicted();
        let facts = Facts { clock: self.now, unix_millis: 0, ports: 0, item_size_max: 1 << 20 };
        let memfd = freeze(&mut [&mut self.store], facts).expect("a store in a file");
        let (options, limit) = (self.store.options.clone(), self.budget.limit_bytes());
        drop(self.store);
        let kept = Kept::claim(memfd.as_fd().try_clone_to_owned().expect("a descriptor")).expect("frozen memory");
        let thawed = kept.thaw(&options, limit).expect("sound roots");
        let store = thawed.stores.into_iter().next().expect("one shard");
        store.validate();
        World { store, budget: thawed.budget, pins: Vec::new(), coming: Vec::new(), ..self }
    }

    fn new(input: &mut Bytes<'_>) -> World {
        World::with(input, None)
    }

    /// A world whose memory is a file, if one is given.
    fn with(input: &mut Bytes<'_>, memfd: Option<Arc<super::memfd::Memfd>>) -> World {
        let switches = input.byte();
        let on = |bit: u8| switches & 1 << bit == 0;
        let (growth_factor, size_min) = (input.one_of(&[1.25, 2.0, 1.05, 1.5]), input.one_of(&[48, 8, 200]));
        // The last one stands for small pages.
        let (chunk_max, parts) = match input.one_of(&[super::slab::CHUNK_MAX, 512, 1024, 2048, 4096, 8192, 0]) {
            0 => (super::slab::CHUNK_MAX, 16),
            chunk_max => (chunk_max, 1),
        };
        let slabs = SlabOptions { growth_factor, size_min, chunk_max, sizes: None };
        let options = StoreOptions {
            slabs,
            cas: on(0),
            evict: on(1),
            hash_power: 4,
            maintain: on(3),
            reassign: on(4),
            tuning: Tuning {
                lru: LruTuning { segmented: on(2), ..LruTuning::default() },
                automove: AutomoveTuning {
                    level: input.one_of(&[1, 0, 2]),
                    window_seconds: 2,
                    free_ratio: if on(5) { 0.0 } else { 0.2 },
                    ..AutomoveTuning::default()
                },
                temporary_ttl: (!on(6)).then_some(60),
            },
            prefixes: PrefixRule { parts_max: 2, ..PrefixRule::default() },
            ..StoreOptions::default()
        };
        let page_size = PAGE_SIZE_MAX / parts as usize;
        let arena = match memfd {
            Some(memfd) => Arena::reserve_in(memfd, 0, PAGES * parts, page_size),
            None => Arena::reserve(PAGES * parts, page_size),
        };
        let arena = Arc::new(arena.expect("address space"));
        let budget = Budget::new((2 + input.below(PAGES as usize - 1) as u32) * parts, 1, &arena);
        let budget = Arc::new(if on(7) { budget } else { budget.lending(20) });
        let items = Items::new(arena, options.cas);
        let store = Store::new(0, options, items, Arc::clone(&budget), KeyHasher::seeded(7)).expect("address space");
        World {
            store,
            budget,
            parts,
            twins: HashMap::new(),
            now: 2,
            flush_at: None,
            pins: Vec::new(),
            coming: Vec::new(),
            lost: 0,
            evicted_before: 0,
            last_cas: 0,
            serial: 0,
            validations: 0,
        }
    }

    fn step(&mut self, input: &mut Bytes<'_>) {
        match input.byte() % 32 {
            0..4 => {
                let (key, twin) = (input.below(KEYS), self.twin(input));
                self.set(key, twin);
            }
            4..6 => {
                // Many values of one size fill the memory.
                let (first, count, twin) = (input.below(KEYS), 1 + input.below(64), self.twin(input));
                for number in 0..count {
                    let piece = (self.serial() % (1 << 16), twin.value[0].1);
                    self.set((first + number) % KEYS, Twin { value: vec![piece], ..twin });
                }
            }
            6..9 => {
                let number = input.below(KEYS);
                self.get(number);
            }
            9 => {
                let number = input.below(KEYS);
                if let Some(entry) = self.find(number) {
                    self.store.remove(entry);
                }
                self.twins.remove(&number);
            }
            10 => {
                for number in 0..KEYS {
                    self.get(number);
                }
            }
            11..13 => {
                let (number, len, appends) = (input.below(KEYS), self.len(input), input.byte().is_multiple_of(2));
                self.extend(number, len, appends);
            }
            13..15 => {
                let (number, len) = (input.below(KEYS), input.below(24));
                self.change_value(number, len);
            }
            15 => {
                let (number, deadline) = (input.below(KEYS), self.deadline(input));
                if let Some(entry) = self.find(number) {
                    self.store.set_deadline(entry.id, deadline);
                    self.twins.get_mut(&number).expect("it was found").deadline = deadline;
                }
            }
            16..18 => {
                let seconds = input.one_of(&[1, 1, 2, 10, 31, 61, 4000, 3_000_000]);
                let steps = u32::from(input.short());
                self.pass(seconds);
                self.housekeep(steps, 1);
            }
            18 => {
                let (steps, times) = (u32::from(input.short()), input.below(64));
                self.housekeep(steps, times);
            }
            19..21 => {
                let class = |byte: u8, large: ClassId| ClassId(byte % (large.0 + 2));
                let large = self.store.slabs.largest();
                let (from, to) = (class(input.byte(), large), class(input.byte(), large));
                let from = input.byte().is_multiple_of(2).then_some(from).filter(|&from| from != to);
                self.store.reassign(from, to);
            }
            21 => {
                self.store.move_pages(u32::from(input.short()));
            }
            22 => {
                self.budget.set_limit((1 + input.below(PAGES as usize + 1) as u32) * self.parts);
            }
            23 if input.byte().is_multiple_of(2) => {
                let (prefix, flush) = (input.one_of(&PREFIXES[1..]), input.one_of(&[Flush::Kill, Flush::Stale]));
                self.flush_prefix(prefix, flush);
            }
            23 => {
                let after = input.one_of(&[0, 0, 1, 5, 100]);
                self.store.flush_at(Now(self.now + after));
                self.flush_at = (after > 0).then_some(self.now + after);
                if after == 0 {
                    self.twins.clear();
                }
            }
            24 => {
                let number = input.below(KEYS);
                if self.pins.len() < HELD_MAX
                    && let Some(entry) = self.find(number)
                {
                    self.store.pin(entry.id);
                    self.pins.push((entry.id, self.twins[&number].value.clone()));
                }
            }
            25 => self.unpin(input.below(HELD_MAX)),
            26 => {
                let (key, twin) = (input.below(KEYS), self.twin(input));
                if self.coming.len() < HELD_MAX {
                    self.gather(key, twin, 0, None);
                }
            }
            27..29 => {
                let (which, count, ends) = (input.below(HELD_MAX), self.len(input), input.byte().is_multiple_of(8));
                self.receive(which, count, ends);
            }
            29 => self.walk(1 + input.below(300)),
            30 => {
                if input.byte().is_multiple_of(4) {
                    self.store.stop_moving();
                }
                let number = input.below(KEYS);
                self.seek(number);
            }
            _ => self.validate(),
        }
    }

    fn serial(&mut self) -> usize {
        self.serial += 1;
        self.serial * 61
    }

    /// A length: short, near the size of a chunk, or near a multiple of the largest chunk.
    fn len(&mut self, input: &mut Bytes<'_>) -> usize {
        let chunk_max = self.store.options.slabs.chunk_max;
        let near = |size: usize, by: u8| (size + usize::from(by)).saturating_sub(128);
        let len = match input.byte() % 8 {
            0..3 => usize::from(input.byte()),
            3 => {
                let class = ClassId(1 + input.byte() % self.store.slabs.largest().0);
                near(self.store.slabs.usage(class).chunk_size as usize, input.byte())
            }
            4 => near(chunk_max * (1 + input.below(80)), input.byte()),
            5 => near(super::slab::CHUNK_MAX * (1 + input.below(20)), input.byte()),
            6 => usize::from(input.short()),
            _ => usize::from(input.short()) * 20,
        };
        len.min(LEN_MAX)
    }

    fn deadline(&mut self, input: &mut Bytes<'_>) -> u32 {
        match input.byte() % 4 {
            0 | 1 => NEVER,
            2 => self.now + u32::from(input.byte()) % 80,
            _ => self.now + u32::from(input.short()),
        }
    }

    fn twin(&mut self, input: &mut Bytes<'_>) -> Twin {
        let piece = (self.serial() % (1 << 16), self.len(input));
        let flags = if input.byte().is_multiple_of(4) { u32::from(input.short()) } else { 0 };
        Twin { value: vec![piece], flags, deadline: self.deadline(input), cas: 0, marks: 0 }
    }

    /// Whether an item is alive by its model.
    fn is_alive(&self, twin: &Twin) -> bool {
        twin.deadline == NEVER || twin.deadline > self.now
    }

    /// Finds an item. The model must know every item that the store finds. An item that only the model knows counts as
    /// lost.
    fn find(&mut self, number: usize) -> Option<Entry> {
        let name = key(number);
        let found = self.store.find(self.store.hasher.hash(&name), &name).ok();
        let known = self.twins.get(&number).is_some_and(|twin| self.is_alive(twin));
        assert!(known || found.is_none(), "key {number} came back");
        if found.is_none() && self.twins.remove(&number).is_some() {
            self.lost += u64::from(known);
        }
        found
    }

    fn get(&mut self, number: usize) -> Option<ItemId> {
        let id = self.find(number)?.id;
        let twin = &self.twins[&number];
        self.check(id, &twin.value);
        let item = self.store.item(id);
        assert_eq!((item.client_flags(), item.exptime()), (twin.flags, twin.deadline), "key {number}");
        assert_eq!(item.state() & (STALE | WON), twin.marks, "key {number}");
        if !self.store.options.cas {
            assert_eq!(item.cas(), 0, "key {number}");
        } else if twin.cas != 0 {
            assert_eq!(item.cas(), twin.cas, "key {number}");
        }
        self.store.hit(id);
        assert_eq!(self.store.last_access(id), Now(self.now), "key {number}");
        Some(id)
    }

    /// Compares a value with its model.
    fn check(&self, id: ItemId, value: &[Piece]) {
        let items = &self.store.items;
        let mut cursor = items.value_cursor(id);
        for &(start, len) in value {
            let mut rest = &pattern()[start..start + len];
            while !rest.is_empty() {
                let part = items.bytes(&cursor);
                let part = &part[..part.len().min(rest.len())];
                assert!(!part.is_empty() && part == &rest[..part.len()], "a value has changed");
                rest = &rest[part.len()..];
                cursor = items.advance(cursor, part.len());
            }
        }
        assert_eq!(cursor.left(), 0, "a value is too long");
    }

    /// Notes in the model that the store has stored an item.
    fn stored(&mut self, number: usize, id: ItemId, twin: Twin) {
        let cas = self.store.next_cas();
        assert!(cas > self.last_cas, "a CAS value came again");
        self.last_cas = cas;
        let marks = [0, 0, STALE, STALE | WON][self.serial % 4];
        let item = self.store.item(id);
        item.set_cas(cas);
        item.change_state(marks, 0);
        self.twins.insert(number, Twin { cas, marks, ..twin });
    }

    fn set(&mut self, number: usize, twin: Twin) {
        let old = self.find(number).map(|entry| entry.id);
        let name = key(number);
        let (hash, (start, len)) = (self.store.hasher.hash(&name), twin.value[0]);
        let value = &pattern()[start..start + len];
        if let Ok(id) = self.store.put(hash, &name, twin.flags, twin.deadline, value, old) {
            self.stored(number, id, twin);
        }
    }

    /// Executes an `append` or a `prepend`.
    fn extend(&mut self, number: usize, len: usize, appends: bool) {
        let Some(Entry { id: old, .. }) = self.find(number) else { return };
        let name = key(number);
        let mut twin = self.twins[&number].clone();
        let old_len = self.store.item(old).value_len();
        let piece = (self.serial() % (1 << 16), len);
        if old_len + len > LEN_MAX || twin.value.len() > 20 {
            return;
        }
        self.store.pin(old);
        let allocated = self.store.allocate(&name, twin.flags, old_len + len);
        if let Ok(id) = allocated {
            let items = &self.store.items;
            let mut cursor = items.value_cursor(id);
            if appends {
                cursor = items.copy_value(cursor, old);
            }
            cursor = items.fill(cursor, &pattern()[piece.0..piece.0 + len]);
            if !appends {
                cursor = items.copy_value(cursor, old);
            }
            assert_eq!(cursor.left(), 0);
            twin.value.insert(if appends { twin.value.len() } else { 0 }, piece);
            self.store.link(id, self.store.hasher.hash(&name), twin.deadline);
            self.stored(number, id, twin);
        }
        self.store.unpin(old);
    }

    /// Changes a value as `incr` does: flags and deadline stay.
    fn change_value(&mut self, number: usize, len: usize) {
        if self.find(number).is_some() {
            let piece = (self.serial() % (1 << 16), len);
            let twin = Twin { value: vec![piece], ..self.twins[&number].clone() };
            self.set(number, twin);
        }
    }

    fn flush_prefix(&mut self, flushed: &str, flush: Flush) {
        self.store.flush_prefix(flushed.as_bytes(), flush).expect("few prefixes, flushed at times");
        if flush == Flush::Kill {
            self.twins.retain(|&number, _| !prefix(number).starts_with(flushed));
            return;
        }
        // The item has another CAS value, and a mark, when it is found next.
        for (_, twin) in self.twins.iter_mut().filter(|(number, _)| prefix(**number).starts_with(flushed)) {
            twin.marks = twin.marks & !WON | STALE;
            twin.cas = 0;
        }
    }

    fn pass(&mut self, seconds: u32) {
        self.now = (self.now + seconds).min(NOW_MAX);
        self.store.set_now(Now(self.now));
        if self.flush_at.is_some_and(|at| at <= self.now) {
            self.flush_at = None;
            self.twins.clear();
        }
    }

    fn housekeep(&mut self, steps: u32, times: usize) {
        for _ in 0..times {
            self.store.housekeep(steps % 2048, !steps.is_multiple_of(3));
        }
    }

    fn unpin(&mut self, which: usize) {
        if which < self.pins.len() {
            let (id, value) = self.pins.swap_remove(which);
            self.check(id, &value);
            self.store.unpin(id);
        }
    }

    /// Asks for room for a value, or for more of it.
    fn gather(&mut self, number: usize, twin: Twin, received: usize, so_far: Option<Gathering>) {
        let (value_len, wanted) = (twin.value[0].1, received + 1 + self.serial() % 100_000);
        let item = Announced { key: &key(number), client_flags: twin.flags, value_len };
        let (gathering, room) = match self.store.gather(item, wanted, so_far) {
            Ok(Gathered::Ready(gathering)) => (gathering, Some(gathering.cursor(&self.store.items, received))),
            Ok(Gathered::Later(gathering)) => (gathering, None),
            Err(OutOfMemory) => return,
        };
        self.coming.push(Coming { key: number, twin, received, gathering, room });
    }

    /// Receives some bytes of a value, or abandons it.
    fn receive(&mut self, which: usize, count: usize, ends: bool) {
        if which >= self.coming.len() {
            return;
        }
        let Coming { key: number, twin, received, gathering, room } = self.coming.swap_remove(which);
        if ends {
            if let Some(id) = gathering.item() {
                self.store.abandon(id);
            }
            return;
        }
        let Some(cursor) = room else {
            return self.gather(number, twin, received, Some(gathering));
        };
        let (start, len) = twin.value[0];
        let count = count.min(cursor.left());
        let cursor = self.store.items.fill(cursor, &pattern()[start + received..start + received + count]);
        let received = received + count;
        if cursor.left() > 0 {
            self.coming.push(Coming { key: number, twin, received, gathering, room: Some(cursor) });
        } else if received < len {
            self.gather(number, twin, received, Some(gathering));
        } else {
            let id = gathering.item().expect("what is ready has begun");
            self.find(number);
            self.store.link(id, self.store.hasher.hash(&key(number)), twin.deadline);
            self.stored(number, id, twin);
        }
    }

    /// Checks that a walk meets every item once, and no others.
    fn walk(&mut self, count: usize) {
        let mut met: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut place = Some(walk::Place::default());
        while let Some(from) = place {
            place = self.store.walk(
                from,
                count,
                |_| true,
                |store, id| {
                    *met.entry(store.item(id).key().to_vec()).or_default() += 1;
                    true
                },
            );
        }
        for number in 0..KEYS {
            let there = self.find(number).is_some();
            assert_eq!(met.remove(&key(number)), there.then_some(1), "key {number}");
        }
        assert!(met.is_empty(), "a walk met a key that nobody stored");
    }

    /// Finds an item by a hint, as `get` does. The hint holds until a page moves.
    fn seek(&mut self, number: usize) {
        let name = key(number);
        let hash = self.store.hasher.hash(&name);
        self.store.begin_group();
        let hint = self.store.prefetch_item(hash);
        self.store.move_pages(50);
        let sought = self.store.seek(hint, hash, &name).ok();
        assert_eq!(self.find(number).map(|entry| entry.id), sought, "key {number}");
    }

    fn validate(&mut self) {
        self.validations += 1;
        if self.validations < 4 {
            self.store.validate();
        }
        self.count();
    }

    /// Items that the store has evicted.
    fn evicted(&self) -> u64 {
        self.store.snapshot().classes.iter().map(|class| class.counters.evicted).sum()
    }

    /// Checks that all lost items were evicted.
    fn count(&self) {
        let evicted = self.evicted_before + self.evicted();
        assert!(self.lost <= evicted, "{} keys are lost, {evicted} were evicted", self.lost);
    }

    /// Gives up all pins, values and items, and checks that the store is empty.
    fn end(mut self) {
        self.store.validate();
        for number in 0..KEYS {
            self.get(number);
        }
        while !self.pins.is_empty() {
            self.unpin(0);
        }
        while !self.coming.is_empty() {
            self.receive(0, 0, true);
        }
        for number in 0..KEYS {
            if let Some(entry) = self.find(number) {
                self.store.remove(entry);
            }
        }
        self.count();
        self.store.validate_at_rest();
        let snapshot = self.store.snapshot();
        assert_eq!((snapshot.curr_items, snapshot.bytes), (0, 0));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "Miri has no files in memory")]
    fn histories_go_on_after_restarts() {
        let mut random = 11_u64;
        for round in 0..20 {
            let input: Vec<u8> = std::iter::repeat_with(|| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 56) as u8
            })
            .take(4000)
            .collect();
            super::World::run_with_restarts(&input, 5 + round % 40);
        }
    }

    #[test]
    fn the_corpus_holds() {
        crate::fuzz::replay("store", super::run);
    }
}
