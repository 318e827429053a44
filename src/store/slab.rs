//! Slab classes: pages cut into chunks of one size.
//!
//! Every page keeps its own list of free chunks. So a page can leave its class without a search, and a page without
//! items can go back to the budget at once, where any class of any shard can take it.
//!
//! The chunk sizes follow from the factor `f` (`-f`). Up to 128 bytes they are 8 bytes apart. From there to the largest
//! chunk (the largest whole part of a page that has no more than 12 KiB, or less with `-o slab_chunk_max`; a twelfth of a
//! small page) the step is four tenths of `f - 1`. With the default factor of 1.25 a chunk is on average about 4 % larger
//! than its item; in memcached, 10 %. An item that is larger than the largest chunk is a chain of such chunks, and its last
//! one is as small as it can be.

use super::arena::{ItemId, PageId};
use super::budget::Budget;
use super::item::{HEADER, Items, SMALL_VALUE_MAX};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// The most classes. With default flags and `-m` there are not more than memcached's 63.
pub const CLASSES_MAX: usize = 250;
/// The largest id of a class with default flags, as in memcached. Tools loop over the ids from 1 to 63.
pub const CLASSES_MAX_DEFAULT: usize = 63;
/// The largest chunk. A chain wastes less than a class of large chunks does, and costs some 20 bytes for each chunk.
pub const CHUNK_MAX: usize = 12 << 10;
/// The chunks that fit into a page at least. With this number, the step to the largest chunk is a twelfth.
const PARTS_MIN: usize = 12;
/// The step from a chunk size to the next is this part of `f - 1`. With the default factor, this gives as many classes as
/// tools expect at most.
const STEP: f64 = 0.4;
/// The largest step: with small pages, more classes cost little.
const STEP_MAX: f64 = 0.1;
/// Up to this size, chunk sizes are as close together as ids allow.
const EVEN_UNTIL: usize = 128;
/// From this size on, and from this part of a page on, chunk sizes are whole parts of a page.
const FITTED_FROM: usize = 1024;
const FITTED_PARTS: usize = 64;
const _: () = assert!(CHUNK_MAX <= u16::MAX as usize);
const _: () =
    assert!(CHUNK_MAX - HEADER <= SMALL_VALUE_MAX, "a value that fits into a chunk is short enough for a small item");
/// The default of `-n`. With it the smallest chunk is [`CHUNK_MIN`].
pub const SLAB_MIN_DEFAULT: usize = 48;
const CHUNK_MIN: usize = 48;

/// The number of a slab class, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassId(pub u8);

impl ClassId {
    #[inline]
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The options that determine the chunk sizes.
#[derive(Clone, Debug)]
pub struct SlabOptions {
    /// `-f`, above 1.
    pub growth_factor: f64,
    /// `-n`, in bytes: the smallest room for key, value and flags.
    pub size_min: usize,
    /// The largest chunk, in bytes.
    pub chunk_max: usize,
    /// `-o slab_sizes`: the sizes themselves, in ascending order.
    pub sizes: Option<Vec<u32>>,
}

impl SlabOptions {
    /// The chunk sizes for these items: see [`chunk_sizes`].
    pub(super) fn chunk_sizes(&self, items: &Items) -> Vec<u32> {
        chunk_sizes(self, items.size(0, 0, 0), items.arena().page_size(), items.arena().granule())
    }
}

impl Default for SlabOptions {
    fn default() -> SlabOptions {
        SlabOptions { growth_factor: 1.25, size_min: SLAB_MIN_DEFAULT, chunk_max: CHUNK_MAX, sizes: None }
    }
}

/// The chunk sizes of the classes 1, 2, …, in bytes, ascending, for pages of `page` bytes. They are multiples of
/// `granule`, which is at least 8. An item has at least `header` bytes.
pub fn chunk_sizes(options: &SlabOptions, header: usize, page: usize, granule: usize) -> Vec<u32> {
    let round = |size: usize| size.next_multiple_of(granule);
    // A whole part of a page, so that long values leave no rest of it.
    let parts = page.div_ceil(options.chunk_max.clamp(1, CHUNK_MAX)).max(PARTS_MIN);
    let chunk_max = page / parts / granule * granule;
    let mut sizes: Vec<usize> = match &options.sizes {
        Some(explicit) => {
            let sizes = explicit.iter().map(|&size| round(size as usize)).filter(|&size| size < chunk_max);
            sizes.take(CLASSES_MAX - 1).chain([chunk_max]).collect()
        }
        None => {
            let first = if options.size_min == SLAB_MIN_DEFAULT { CHUNK_MIN } else { header + options.size_min };
            // With too fine a factor, the classes would run out before the largest chunk.
            let mut step = ((options.growth_factor - 1.0) * STEP).min(STEP_MAX);
            loop {
                let sizes = grown(round(first).min(chunk_max), chunk_max, step, page, granule);
                if sizes.len() <= CLASSES_MAX {
                    break sizes;
                }
                step *= 1.1;
            }
        }
    };
    sizes.dedup();
    sizes.into_iter().map(|size| size as u32).collect()
}

/// Chunk sizes from `first` to `chunk_max` that grow by the part `step` of a size.
///
/// Large sizes are whole parts of a page: a twelfth, a thirteenth and so on, rounded down. Small pages have no other sizes
/// that leave no rest.
fn grown(first: usize, chunk_max: usize, step: f64, page: usize, granule: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut size = first;
    while size < chunk_max.min(FITTED_FROM).min(page / FITTED_PARTS) {
        sizes.push(size);
        let granules = if size < EVEN_UNTIL { 1.0 } else { (size as f64 * step / granule as f64).round().max(1.0) };
        size = size.saturating_add((granules as usize).saturating_mul(granule));
    }
    let mut parts = page / size;
    while parts > 0 && page / parts / granule * granule < chunk_max {
        sizes.push(page / parts / granule * granule);
        parts = ((parts as f64 / (1.0 + step)).ceil() as usize).min(parts - 1);
    }
    sizes.push(chunk_max);
    sizes.dedup();
    sizes
}

/// A page of this shard.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Page {
    class: u8,
    /// Bytes of a chunk of the class. They are here as well because a prefetch of an item needs nothing else.
    chunk_size: u16,
    /// It is in its class's list of pages with room; or it is closed, which keeps it out of that list.
    listed: bool,
    /// The first free chunk; 0: none.
    free: u32,
    /// Chunks in use.
    used: u32,
    /// A client has assigned the page to its class, which has not used it yet.
    assigned: bool,
    /// Chunks that were in use at least once. The chunks behind them were never touched.
    fresh: u32,
    /// No item of the page expires before this count of the clock; 0 after a flush.
    expires_first: u32,
    /// The visit that [`Slabs::visit_all`] asked for.
    visit: Visit,
}

/// Whether a search must visit all chunks of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Visit {
    #[default]
    Done,
    Wanted,
    Begun,
}

/// A slab class of one shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Class {
    pub(super) size: u32,
    per_page: u32,
    used: u32,
    pub(super) pages: Vec<PageId>,
    /// Pages with a free chunk. The next chunk comes from the last one.
    with_room: Vec<PageId>,
    /// No item of the class expires before this count of the clock, except perhaps on the page under search. It spares
    /// most classes a search.
    due: u32,
    /// Where the search for dead items continues: an index into `pages`, and a chunk.
    scan_page: usize,
    scan_chunk: u32,
}

/// The slab classes of one shard.
#[derive(Debug)]
pub(super) struct Slabs {
    shard: usize,
    /// By class id. The first one is never used.
    classes: Vec<Class>,
    /// By page number. Pages of other shards have default values.
    pages: Vec<Page>,
    /// The number of pages without a chunk in use.
    empty: u32,
    /// The number of pages whose visit is not done.
    visits_left: u32,
    /// Whether a page has left its class since [`Slabs::forget_moves`].
    moved: bool,
    /// The class of an item of up to 1024 bytes, by its size in units of 8 bytes, rounded up.
    small: [u8; 129],
}

/// What describes the classes and pages of a shard to the next process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SlabRoots {
    pub(super) classes: Vec<Class>,
    /// The pages of the classes.
    pub(super) pages: Vec<(PageId, Page)>,
}

/// Sizes and counts of a class, for `stats slabs`.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "memcached's names")]
pub struct ClassUse {
    pub chunk_size: u32,
    pub chunks_per_page: u32,
    pub total_pages: u64,
    pub used_chunks: u64,
}

impl Slabs {
    pub(super) fn new(shard: usize, sizes: &[u32], page_size: usize) -> Slabs {
        let mut classes = vec![Class::new(page_size as u32, page_size)];
        classes.extend(sizes.iter().map(|&size| Class::new(size, page_size)));
        let mut small = [0; 129];
        for (units, class) in small.iter_mut().enumerate() {
            let size = units as u32 * 8;
            *class = sizes.iter().position(|&chunk| chunk >= size).map_or(0, |at| at as u8 + 1);
        }
        Slabs { shard, classes, pages: Vec::new(), empty: 0, visits_left: 0, moved: false, small }
    }

    /// What describes the classes and pages to the next process. No page is closed.
    pub(super) fn roots(&self) -> SlabRoots {
        let pages = (0..).map(PageId).zip(&self.pages);
        let pages = pages.filter(|(_, page)| page.class != 0).map(|(id, &page)| (id, page)).collect();
        SlabRoots { classes: self.classes.clone(), pages }
    }

    /// The classes and pages of an earlier process, in place of none. `None`: they are not sound.
    pub(super) fn attach(mut self, roots: SlabRoots, items: &Items) -> Option<Slabs> {
        let SlabRoots { classes, pages } = roots;
        let shapes = |classes: &[Class]| classes.iter().map(|class| (class.size, class.per_page)).collect::<Vec<_>>();
        if shapes(&classes) != shapes(&self.classes) {
            return None;
        }
        let count: usize = classes.iter().map(|class| class.pages.len()).sum();
        if count != pages.len() {
            return None;
        }
        for (id, page) in pages {
            let at = id.0 as usize;
            let class = classes.get(usize::from(page.class)).filter(|_| page.class != 0)?;
            if id.0 == 0 || id.0 > items.arena().pages() || !page.is_sound(class) {
                return None;
            }
            self.pages.resize(self.pages.len().max(at + 1), Page::default());
            if std::mem::replace(&mut self.pages[at], page).class != 0 {
                return None;
            }
            self.empty += u32::from(page.used == 0);
            self.visits_left += u32::from(page.visit != Visit::Done);
        }
        self.classes = classes;
        let is_sound = (0..self.classes.len()).all(|number| self.has_sound_class(number))
            && self.pages.iter().enumerate().all(|(at, page)| self.has_sound_free_list(PageId(at as u32), page, items));
        is_sound.then_some(self)
    }

    /// Whether a class has exactly the pages that name it, and exactly those of them with room.
    fn has_sound_class(&self, number: usize) -> bool {
        let class = &self.classes[number];
        let page = |id: &PageId| self.pages.get(id.0 as usize).filter(|page| usize::from(page.class) == number);
        let used: Option<u32> = class.pages.iter().map(|id| page(id).map(|page| page.used)).sum();
        let mut ids: Vec<u32> = class.pages.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        let with_room = class.pages.iter().filter(|id| page(id).is_some_and(|page| page.listed)).count();
        let mut listed: Vec<u32> = class.with_room.iter().map(|id| id.0).collect();
        listed.sort_unstable();
        used == Some(class.used)
            && ids.is_sorted_by(|one, next| one < next)
            && listed.is_sorted_by(|one, next| one < next)
            && listed.len() == with_room
            && class.with_room.iter().all(|id| page(id).is_some_and(|page| page.listed && page.has_room(class)))
            && class.scan_page <= class.pages.len()
    }

    fn has_sound_free_list(&self, id: PageId, page: &Page, items: &Items) -> bool {
        ItemId::from_raw(page.free)
            .is_none_or(|free| items.arena().page(free) == id && self.is_chunk_of(ClassId(page.class), free, items))
    }

    /// The class with the smallest chunks that hold `size` bytes; `None`: the item is large.
    #[inline]
    pub(super) fn class_for(&self, size: usize) -> Option<ClassId> {
        if size <= 1024 {
            return match self.small[size.div_ceil(8)] {
                0 => None,
                class => Some(ClassId(class)),
            };
        }
        let regular = &self.classes[1..];
        let at = regular.partition_point(|class| (class.size as usize) < size);
        (at < regular.len()).then_some(ClassId(at as u8 + 1))
    }

    /// The class with the largest chunks, which is the last. The chunks of a large item are of this class, except for
    /// the last one of them.
    pub(super) fn largest(&self) -> ClassId {
        ClassId(self.classes.len() as u8 - 1)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ClassId> + use<> {
        (1..self.classes.len() as u8).map(ClassId)
    }

    pub(super) fn class_of(&self, page: PageId) -> ClassId {
        ClassId(self.pages[page.0 as usize].class)
    }

    #[inline]
    pub(super) fn chunk_size(&self, page: PageId) -> usize {
        usize::from(self.pages[page.0 as usize].chunk_size)
    }

    pub(super) fn usage(&self, class: ClassId) -> ClassUse {
        let class = &self.classes[class.index()];
        ClassUse {
            chunk_size: class.size,
            chunks_per_page: class.per_page,
            total_pages: class.pages.len() as u64,
            used_chunks: u64::from(class.used),
        }
    }

    pub(super) fn page_count(&self, class: ClassId) -> usize {
        self.classes[class.index()].pages.len()
    }

    /// Takes a free chunk of a class, if one of its pages has one.
    #[inline]
    pub(super) fn allocate(&mut self, class: ClassId, items: &Items) -> Option<ItemId> {
        let class = &mut self.classes[class.index()];
        let page_id = *class.with_room.last()?;
        let page = &mut self.pages[page_id.0 as usize];
        let id = match ItemId::from_raw(page.free) {
            Some(id) => {
                page.free = ItemId::to_raw(items.next_chunk(id));
                id
            }
            None => {
                page.fresh += 1;
                items.arena().id(page_id, (page.fresh as usize - 1) * class.size as usize)
            }
        };
        if page.used == 0 {
            self.empty -= 1;
            page.assigned = false;
        }
        page.used += 1;
        class.used += 1;
        if page.free == 0 && page.fresh == class.per_page {
            page.listed = false;
            class.with_room.pop();
        }
        Some(id)
    }

    /// Takes a free chunk of a closed page. The chunk was in use before.
    pub(super) fn allocate_on(&mut self, page_id: PageId, items: &Items) -> Option<ItemId> {
        let page = &mut self.pages[page_id.0 as usize];
        let id = ItemId::from_raw(page.free)?;
        page.free = ItemId::to_raw(items.next_chunk(id));
        self.empty -= u32::from(page.used == 0);
        page.used += 1;
        self.classes[usize::from(page.class)].used += 1;
        Some(id)
    }

    /// Takes a page from the budget for a class, in a shard with an index of so many bytes.
    pub(super) fn take_page(&mut self, class: ClassId, budget: &Budget, index_bytes: usize) -> bool {
        match budget.take(self.shard, index_bytes) {
            Some(page) => {
                self.adopt(class, page);
                true
            }
            None => false,
        }
    }

    /// Like [`Slabs::take_page`], beyond the limit.
    pub(super) fn borrow_page(&mut self, class: ClassId, budget: &Budget) -> bool {
        match budget.borrow_page(self.shard) {
            Some(page) => {
                self.adopt(class, page);
                true
            }
            None => false,
        }
    }

    /// Adds an empty page to a class.
    pub(super) fn adopt(&mut self, class_id: ClassId, page: PageId) {
        if self.pages.len() <= page.0 as usize {
            self.pages.resize(page.0 as usize + 1, Page::default());
        }
        let class = &mut self.classes[class_id.index()];
        let chunk_size = class.size as u16;
        class.pages.push(page);
        class.with_room.push(page);
        self.empty += 1;
        self.pages[page.0 as usize] =
            Page { class: class_id.0, chunk_size, listed: true, expires_first: u32::MAX, ..Page::default() };
    }

    /// Keeps an empty page in its class until the class has used it, because a client has assigned it.
    pub(super) fn assign(&mut self, page: PageId) {
        self.pages[page.0 as usize].assigned = true;
    }

    /// Frees a chunk. Its page stays with its class, even without items, until housekeeping or a class in need takes
    /// it. So a lookup, which may free an item, never makes a page leave its class.
    #[inline]
    pub(super) fn free(&mut self, id: ItemId, items: &Items) {
        let page_id = items.arena().page(id);
        let page = &mut self.pages[page_id.0 as usize];
        let class = &mut self.classes[usize::from(page.class)];
        items.set_free(id, ItemId::from_raw(page.free));
        page.free = id.bits();
        page.used -= 1;
        class.used -= 1;
        if !page.listed {
            page.listed = true;
            class.with_room.push(page_id);
        }
        self.empty += u32::from(page.used == 0);
    }

    /// Removes an empty page from its class. The caller then gives it to another class or to the budget.
    pub(super) fn give_up(&mut self, page_id: PageId) {
        let page = std::mem::take(&mut self.pages[page_id.0 as usize]);
        assert!(page.used == 0, "a page is given up when it is empty");
        self.empty -= 1;
        self.visits_left -= u32::from(page.visit != Visit::Done);
        self.moved = true;
        let class = &mut self.classes[usize::from(page.class)];
        class.with_room.retain(|&other| other != page_id);
        let place = class.pages.iter().position(|&other| other == page_id).expect("a page is one of its class");
        class.pages.remove(place);
        // The search for dead items continues where it was: a page that is half searched must not count as searched.
        match place.cmp(&class.scan_page) {
            Ordering::Less => class.scan_page -= 1,
            Ordering::Equal => class.scan_chunk = 0,
            Ordering::Greater => {}
        }
    }

    /// Closes a page: it hands out no more chunks, so that it can be emptied. Its free chunks stay as they are.
    pub(super) fn close(&mut self, page_id: PageId) {
        let page = &mut self.pages[page_id.0 as usize];
        // `free` does not add a listed page to `with_room`.
        page.listed = true;
        self.classes[usize::from(page.class)].with_room.retain(|&other| other != page_id);
    }

    /// Reopens a closed page.
    pub(super) fn reopen(&mut self, page_id: PageId) {
        let page = &mut self.pages[page_id.0 as usize];
        let class = &mut self.classes[usize::from(page.class)];
        page.listed = page.has_room(class);
        if page.listed {
            class.with_room.push(page_id);
        }
    }

    /// Gives an empty page back to the budget, and its memory back to the system.
    pub(super) fn return_page(&mut self, page: PageId, budget: &Budget, items: &Items) {
        self.give_up(page);
        items.arena().release(page);
        budget.give_back(self.shard, page);
    }

    /// The chunks of a page that were ever in use.
    pub(super) fn chunks(&self, page_id: PageId, items: &Items) -> impl Iterator<Item = ItemId> + use<> {
        let page = self.pages[page_id.0 as usize];
        let size = self.classes[usize::from(page.class)].size as usize;
        let first = items.arena().id(page_id, 0);
        let units = size / items.arena().granule();
        (0..page.fresh).filter_map(move |at| ItemId::from_raw(first.bits() + at * units as u32))
    }

    /// The chunk at a place of a page, if it was ever in use.
    pub(super) fn chunk(&self, page_id: PageId, place: u32, items: &Items) -> Option<ItemId> {
        let page = self.pages[page_id.0 as usize];
        let size = self.classes[usize::from(page.class)].size as usize;
        (place < page.fresh).then(|| items.arena().id(page_id, place as usize * size))
    }

    /// Whether a chunk of a class that was ever in use begins at an id.
    pub(super) fn is_chunk_of(&self, class: ClassId, id: ItemId, items: &Items) -> bool {
        let (page_id, offset) = (items.arena().page(id), items.arena().offset_in_page(id) as u32);
        let Some(page) = self.pages.get(page_id.0 as usize) else { return false };
        let size = self.classes[class.index()].size;
        page.class == class.0 && offset.is_multiple_of(size) && offset / size < page.fresh
    }

    /// Chunks in use on a page.
    pub(super) fn used(&self, page: PageId) -> u32 {
        self.pages[page.0 as usize].used
    }

    /// Chunks of a class that are not in use.
    pub(super) fn free_chunks(&self, class: ClassId) -> u32 {
        let class = &self.classes[class.index()];
        class.pages.len() as u32 * class.per_page - class.used
    }

    pub(super) fn pages_of(&self, class: ClassId) -> &[PageId] {
        &self.classes[class.index()].pages
    }

    pub(super) fn shard(&self) -> usize {
        self.shard
    }

    /// Whether a class has a free chunk to hand out.
    pub(super) fn has_room(&self, class: ClassId) -> bool {
        !self.classes[class.index()].with_room.is_empty()
    }

    /// Whether a class has a free chunk on another page than this.
    pub(super) fn has_other_room(&self, class: ClassId, page: PageId) -> bool {
        self.classes[class.index()].with_room.iter().any(|&other| other != page)
    }

    /// Makes [`Slabs::have_moved`] false until a page leaves its class.
    #[inline]
    pub(super) fn forget_moves(&mut self) {
        self.moved = false;
    }

    /// Whether a page has left its class since [`Slabs::forget_moves`]. Older ids may then no longer name chunks.
    #[inline]
    pub(super) fn have_moved(&self) -> bool {
        self.moved
    }

    /// Whether a class has a page without items.
    #[inline]
    pub(super) fn has_empty_page(&self) -> bool {
        self.empty > 0
    }

    /// A page without items, of a class, that no client has assigned to the class.
    pub(super) fn empty_page(&self, class: ClassId) -> Option<PageId> {
        let class = &self.classes[class.index()];
        let is_free = |page: &Page| page.used == 0 && !page.assigned;
        class.with_room.iter().copied().find(|page| is_free(&self.pages[page.0 as usize]))
    }

    /// A page without items that a client has assigned to a class.
    pub(super) fn assigned_page(&self, class: ClassId) -> Option<PageId> {
        let with_room = &self.classes[class.index()].with_room;
        with_room.iter().copied().find(|page| self.pages[page.0 as usize].assigned)
    }

    /// Notes that an item of this page expires at a count of the clock.
    #[inline]
    pub(super) fn note_deadline(&mut self, page: PageId, exptime: u32) {
        let page = &mut self.pages[page.0 as usize];
        page.expires_first = page.expires_first.min(exptime);
        let class = &mut self.classes[usize::from(page.class)];
        class.due = class.due.min(exptime);
    }

    /// After a flush, makes the search for dead items look at every page.
    pub(super) fn all_due(&mut self) {
        for page in &mut self.pages {
            page.expires_first = 0;
        }
        for class in &mut self.classes {
            class.due = 0;
        }
    }

    /// Makes the search for dead items visit every chunk that is in use now. [`Slabs::visits_left`] tells when it has.
    pub(super) fn visit_all(&mut self) {
        self.all_due();
        self.visits_left = 0;
        for page in self.pages.iter_mut().filter(|page| page.class != 0) {
            page.visit = Visit::Wanted;
            self.visits_left += 1;
        }
    }

    /// The number of pages that the search still has to visit.
    pub(super) fn visits_left(&self) -> u32 {
        self.visits_left
    }

    /// The next chunks of a class to search for dead items: at most `count`, all on one page. On that page an item may
    /// be dead by `now`; if no page of the class is such a page, the result is empty. The caller looks at each chunk
    /// and passes the deadlines of live items to [`Slabs::note_deadline`].
    pub(super) fn scan(
        &mut self,
        class_id: ClassId,
        now: u32,
        count: u32,
        items: &Items,
    ) -> impl Iterator<Item = ItemId> + use<> {
        let class = &mut self.classes[class_id.index()];
        let mut range = 0..0;
        let mut first = 0;
        let looks = if class.due > now { 0 } else { class.pages.len().min(PAGES_LOOKED_AT) + 1 };
        // In the middle of a page, continue there; otherwise find the next page that is due.
        for _ in 0..looks {
            let Some(&page_id) = class.pages.get(class.scan_page) else {
                // All pages were visited: their deadlines are now the deadline of the class.
                let deadlines = class.pages.iter().map(|page| self.pages[page.0 as usize].expires_first);
                class.due = deadlines.min().unwrap_or(u32::MAX);
                class.scan_page = 0;
                class.scan_chunk = 0;
                if class.due > now {
                    break;
                }
                continue;
            };
            let page = &mut self.pages[page_id.0 as usize];
            if class.scan_chunk == 0 {
                if page.expires_first > now {
                    class.scan_page += 1;
                    continue;
                }
                page.expires_first = u32::MAX;
                if page.visit == Visit::Wanted {
                    page.visit = Visit::Begun;
                }
            }
            let end = (class.scan_chunk + count).min(page.fresh);
            range = class.scan_chunk..end;
            first = items.arena().id(page_id, 0).bits();
            class.scan_chunk = end;
            if end == page.fresh {
                class.scan_page += 1;
                class.scan_chunk = 0;
                if page.visit == Visit::Begun {
                    page.visit = Visit::Done;
                    self.visits_left -= 1;
                }
            }
            break;
        }
        let units = class.size / items.arena().granule() as u32;
        range.filter_map(move |at| ItemId::from_raw(first + at * units))
    }
}

impl Page {
    fn has_room(&self, class: &Class) -> bool {
        self.free != 0 || self.fresh < class.per_page
    }

    /// Whether the counts of the page are possible in its class.
    fn is_sound(&self, class: &Class) -> bool {
        u32::from(self.chunk_size) == class.size & 0xffff
            && self.used <= self.fresh
            && self.fresh <= class.per_page
            && self.listed == self.has_room(class)
    }
}

/// Pages that [`Slabs::scan`] passes over at most in one call.
const PAGES_LOOKED_AT: usize = 32;

impl Class {
    fn new(size: u32, page_size: usize) -> Class {
        Class {
            size,
            per_page: page_size as u32 / size,
            used: 0,
            pages: Vec::new(),
            with_room: Vec::new(),
            due: u32::MAX,
            scan_page: 0,
            scan_chunk: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];

    #[test]
    fn default_sizes_are_finer_than_memcacheds() {
        for page in PAGES {
            let sizes = chunk_sizes(&SlabOptions::default(), 28, page, 8);
            assert!(sizes.len() <= CLASSES_MAX_DEFAULT);
            assert_eq!(sizes[..13], [48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 144, 160]);
            let parts = page.div_ceil(CHUNK_MAX).max(PARTS_MIN);
            assert_eq!(sizes.last(), Some(&((page / parts / 8 * 8) as u32)));
        }
    }

    /// The part of memory that a size wastes: in its chunk, and behind the last chunk of a page.
    fn waste(sizes: &[u32], page: usize, size: usize) -> f64 {
        let chunk = *sizes.iter().find(|&&chunk| chunk as usize >= size).expect("it fits") as usize;
        1.0 - (page / chunk * size) as f64 / page as f64
    }

    #[test]
    fn no_size_wastes_more_than_the_factor_says() {
        for page in PAGES {
            for factor in [1.02, 1.05, 1.07, 1.1, 1.25, 1.5, 2.0] {
                for size_min in [5, 48, 256, 1024] {
                    let options = SlabOptions { growth_factor: factor, size_min, ..SlabOptions::default() };
                    let sizes = chunk_sizes(&options, 28, page, 8);
                    assert!(sizes.len() <= CLASSES_MAX && sizes.is_sorted_by(|one, next| one < next), "{sizes:?}");
                    // The smallest item of a class wastes the most.
                    for size in sizes[..sizes.len() - 1].iter().map(|&chunk| chunk as usize + 1) {
                        // Chunks are multiples of eight bytes. With the finest factors the classes would run out.
                        // Large chunks leave a rest of a small page, or are its next whole part.
                        let (rounded, part) = (8.0 / size as f64, 1.0 / (page / size) as f64);
                        // With the finest factors the classes would run out.
                        let step = (factor - 1.0_f64).clamp(0.03, 0.125);
                        let allowed = step.max(rounded + part);
                        let waste = waste(&sizes, page, size);
                        assert!(waste <= allowed, "{page} {factor} {size_min}: {waste} of {size} is wasted");
                    }
                }
            }
        }
    }

    #[test]
    fn flags_shape_the_sizes() {
        let page = 1 << 20;
        let doubled = SlabOptions { growth_factor: 2.0, size_min: 100, ..SlabOptions::default() };
        assert_eq!(chunk_sizes(&doubled, 28, page, 8)[..3], [128, 144, 160]);
        let steep = SlabOptions { growth_factor: f64::MAX, ..SlabOptions::default() };
        assert_eq!(chunk_sizes(&steep, 28, page, 8), chunk_sizes(&SlabOptions::default(), 28, page, 8));
        let explicit = SlabOptions { sizes: Some(vec![96, 200, 1000]), chunk_max: 2048, ..SlabOptions::default() };
        assert_eq!(chunk_sizes(&explicit, 28, page, 8), [96, 200, 1000, 2048]);
    }
}
