//! Address space. The server reserves it once, and the kernel commits it page by page at the first touch.
//!
//! [`Arena`] holds the pages of all shards. An [`ItemId`] names a chunk by its offset, in units of [`Arena::granule`]
//! bytes. So 32 bits reach every chunk, and no structure holds a pointer. [`Region`] is an array of one type that grows
//! in place: the index never moves while it grows.
//!
//! The first page of the arena is never used, so that an id of 0 names nothing.
//!
//! The memory belongs to the process alone, or it is a [`Memfd`], which the next process can take over. Then it maps the
//! same bytes at another address, and the ids stay true.
//!
//! This is one of the three files with `unsafe`. Its safety depends on three facts: the mapping lives as long as the
//! `Arena`; all of its bytes can be read and written (a seal keeps a `Memfd` from becoming shorter); and only this file
//! makes an `ItemId`, from an offset inside the mapping. Ids in memory of an earlier process were made by it in the same way:
//! `keep` takes only memory that this version of the layout has written, for the same arena, and left in order.

use super::memfd::{Area, Memfd};
use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw, UncheckedAdvice};
use serde::{Deserialize, Serialize};
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the largest page.
pub const PAGE_SIZE_MAX: usize = 1 << 20;
/// Bytes of the smallest page.
pub const PAGE_SIZE_MIN: usize = 16 << 10;
/// Pages that the memory of a cache has at least, unless they would be smaller than [`PAGE_SIZE_MIN`]. A slab class
/// leaves up to a page unused, so a class costs at most a thousandth of the memory.
const PAGES_MIN: u64 = 1024;

/// Bytes of a page, the unit that a slab class takes from the budget, for a cache of `limit` bytes: a power of two.
pub fn page_size(limit: u64) -> usize {
    let wanted = (limit / PAGES_MIN).clamp(PAGE_SIZE_MIN as u64, PAGE_SIZE_MAX as u64);
    1 << wanted.ilog2()
}

/// The name of a chunk of the arena, and of the item that begins in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemId(NonZeroU32);

impl ItemId {
    /// The form in which the index and the links store an id; 0 stands for none.
    #[inline]
    pub fn to_raw(id: Option<ItemId>) -> u32 {
        id.map_or(0, |id| id.0.get())
    }

    /// The inverse of [`ItemId::to_raw`]. `raw` must come from there: this function does not check that it names a
    /// chunk.
    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Option<ItemId> {
        NonZeroU32::new(raw).map(ItemId)
    }

    /// The bits of the id, never 0.
    #[inline]
    pub fn bits(self) -> u32 {
        self.0.get()
    }
}

/// The number of a page in the arena, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageId(pub u32);

/// What describes an arena in a [`Memfd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ArenaRoots {
    /// Its memory. It is the first area, because its first bytes are the label.
    pub(super) area: Area,
    /// See [`Arena`].
    pub(super) shift: u32,
    /// See [`Arena`].
    pub(super) page_shift: u32,
}

/// The memory of all items of all shards.
#[derive(Debug)]
pub struct Arena {
    map: MmapRaw,
    /// Invariant: a unit of an id has `1 << shift` bytes, at least 8.
    shift: u32,
    /// A page has `1 << page_shift` bytes.
    page_shift: u32,
    /// A page has `1 << page_units_shift` units.
    page_units_shift: u32,
    /// Invariant: pages 1 to `pages`, inclusive, lie inside `map`.
    pages: u32,
    /// What `map` maps: a file of which the arena is the first area, or `None` for memory of this process alone.
    memfd: Option<Arc<Memfd>>,
}

/// The bytes of a chunk that are prefetched. A `get` of 50 keys with values of 400 bytes takes 0.30 µs for each key
/// with 512 here, and 0.43 µs with 192. With values of 1 KiB it takes 0.49 µs with 1024, 0.59 µs with 512 and 0.51 µs
/// with 4096.
const PREFETCH_MAX: usize = 1024;
/// Bytes of a cache line.
const LINE: usize = 64;

impl Arena {
    /// Reserves room for at least `pages` pages of `page_size` bytes, a power of two, and for as many as ids reach, so that
    /// the limit can be raised later. It commits none of them.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub fn reserve(pages: u32, page_size: usize) -> io::Result<Arena> {
        Arena::reserve_up_to(usize::MAX, pages, page_size)
    }

    /// Like [`Arena::reserve`], but for no more than `bytes_max` bytes if `pages` fit into them.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub fn reserve_up_to(bytes_max: usize, pages: u32, page_size: usize) -> io::Result<Arena> {
        Arena::reserve_from(None, bytes_max, pages, page_size)
    }

    /// Like [`Arena::reserve_up_to`], in an empty file.
    ///
    /// # Errors
    /// Those of `mmap`, or if the system refuses a file of this length.
    pub fn reserve_in(memfd: Arc<Memfd>, bytes_max: usize, pages: u32, page_size: usize) -> io::Result<Arena> {
        Arena::reserve_from(Some(memfd), bytes_max, pages, page_size)
    }

    fn reserve_from(memfd: Option<Arc<Memfd>>, bytes_max: usize, pages: u32, page_size: usize) -> io::Result<Arena> {
        let needed = (pages as usize + 1) * page_size;
        let mut shift = 3;
        while needed > 1 << (32 + shift) {
            shift += 1;
        }
        // Only the limit if address space is scarce. Miri has none to spare.
        let reach = if cfg!(miri) { needed } else { bytes_max.clamp(needed, 1 << (32 + shift)) };
        let reserve = |len| match &memfd {
            Some(memfd) => {
                memfd.set_end(0);
                map(memfd, memfd.add(len)?, page_size)
            }
            None => reserve(len, page_size),
        };
        let (map, len) = match reserve(reach) {
            Ok(map) => (map, reach),
            Err(_) => (reserve(needed)?, needed),
        };
        let page_shift = page_size.ilog2();
        let pages = (len >> page_shift) as u32 - 1;
        Ok(Arena { map, shift, page_shift, page_units_shift: page_shift - shift, pages, memfd })
    }

    /// The arena of an earlier process.
    ///
    /// # Errors
    /// Those of `mmap`, or if the file has no such arena.
    pub(super) fn attach(memfd: Arc<Memfd>, roots: ArenaRoots) -> io::Result<Arena> {
        let ArenaRoots { area, shift, page_shift } = roots;
        let pages = area.len >> page_shift.min(63);
        let is_sound = area.offset == 0
            && (3..=16).contains(&shift)
            && (PAGE_SIZE_MIN.ilog2()..=PAGE_SIZE_MAX.ilog2()).contains(&page_shift)
            && area.len <= 1 << (32 + shift)
            && (2..=u64::from(u32::MAX)).contains(&pages);
        if !is_sound || !memfd.has(area) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let map = map(&memfd, area, 1 << page_shift)?;
        let pages = pages as u32 - 1;
        Ok(Arena { map, shift, page_shift, page_units_shift: page_shift - shift, pages, memfd: Some(memfd) })
    }

    /// The file that the next process can take over, if this arena is in one.
    pub fn memfd(&self) -> Option<&Arc<Memfd>> {
        self.memfd.as_ref()
    }

    /// What describes the arena to the next process.
    pub(super) fn roots(&self) -> ArenaRoots {
        let area = Area { offset: 0, len: self.map.len() as u64 };
        ArenaRoots { area, shift: self.shift, page_shift: self.page_shift }
    }

    /// Commits the first `pages` pages ahead of their use.
    ///
    /// # Errors
    /// Those of `madvise`.
    pub fn commit(&self, pages: u32) -> io::Result<()> {
        self.map.advise_range(Advice::PopulateWrite, self.page_size(), pages as usize * self.page_size())
    }

    /// The number of pages that the address space holds.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Bytes of a page.
    #[inline]
    pub fn page_size(&self) -> usize {
        1 << self.page_shift
    }

    /// Bytes in a unit of an id. Every chunk begins at a multiple of it.
    pub fn granule(&self) -> usize {
        1 << self.shift
    }

    /// The id of the chunk that begins `offset` bytes into a page.
    ///
    /// # Panics
    /// If the page or the offset lies outside, or the offset is not a multiple of the granule.
    #[inline]
    pub fn id(&self, page: PageId, offset: usize) -> ItemId {
        let in_page = offset < self.page_size() && offset.is_multiple_of(self.granule());
        assert!(page.0 != 0 && page.0 <= self.pages && in_page);
        let units = ((((page.0 as usize) << self.page_shift) + offset) >> self.shift) as u32;
        ItemId(NonZeroU32::new(units).expect("page 0 is never used"))
    }

    /// The page of a chunk.
    #[inline]
    pub fn page(&self, id: ItemId) -> PageId {
        PageId(id.bits() >> self.page_units_shift)
    }

    /// The offset of a chunk in its page, in bytes.
    #[inline]
    pub fn offset_in_page(&self, id: ItemId) -> usize {
        ((id.bits() as usize) << self.shift) & (self.page_size() - 1)
    }

    /// The address of a chunk. Only `item.rs` reads and writes through it.
    #[inline]
    pub(super) fn pointer(&self, id: ItemId) -> *mut u8 {
        // SAFETY: only `Arena::id` makes ids, from offsets inside the mapping.
        unsafe { self.map.as_mut_ptr().add((id.bits() as usize) << self.shift) }
    }

    /// Prefetches the cache lines of a chunk of `len` bytes, and no others: lines of its neighbour would occupy the
    /// queue to memory.
    #[inline]
    pub fn prefetch(&self, id: ItemId, len: usize) {
        let pointer = self.pointer(id);
        let end = pointer.wrapping_add(len.min(PREFETCH_MAX));
        let mut line = pointer.wrapping_sub(pointer.addr() % LINE);
        while line < end {
            prefetch(line);
            line = line.wrapping_add(LINE);
        }
    }

    /// Prefetches the first line of a chunk that comes some steps behind a chunk `to` if the steps are like that from
    /// `from`. The chunks of a long value mostly follow each other so, and each names only the next one.
    #[inline]
    pub(super) fn prefetch_beyond(&self, from: ItemId, to: ItemId) {
        const STEPS: isize = 4;
        let step = (i64::from(to.bits()) - i64::from(from.bits())) as isize;
        prefetch(self.pointer(to).wrapping_offset((step * STEPS) << self.shift));
    }

    /// Gives the memory of a page back to the operating system. At its next use the page is full of zeros.
    ///
    /// The caller owns the page, and no id names a chunk in it any more.
    pub fn release(&self, page: PageId) {
        assert!(page.0 != 0 && page.0 <= self.pages);
        let (offset, len) = ((page.0 as usize) << self.page_shift, self.page_size());
        let result = match &self.memfd {
            Some(memfd) => memfd.punch(offset as u64, len as u64),
            // SAFETY: DONTNEED replaces bytes by zeros. The range is inside the mapping, and no item is left in it.
            None => unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) },
        };
        if let Err(error) = result {
            log::warn!("giving a page back to the system failed: {error}");
        }
    }
}

/// Reserves address space, and advises the kernel to use huge pages behind its first `small` bytes. Accesses to items
/// and buckets are random, and with pages of 4 KiB and a million keys the translation of their addresses took a tenth
/// to a fifth of the time of a `get` of 50 keys. But the kernel commits huge pages as a whole, which is too much memory
/// for an index of a few MiB, or for a page that is never used.
fn reserve(len: usize, small: usize) -> io::Result<MmapRaw> {
    if cfg!(miri) {
        // Miri has neither address space without memory nor advice for the kernel.
        return MmapOptions::new().len(len).map_anon().map(MmapRaw::from);
    }
    let map: MmapMut = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
    let map = MmapRaw::from(map);
    prefer_huge_pages(&map, small);
    Ok(map)
}

/// Like [`reserve`], but for the memory of a file, which the file must have.
fn map(memfd: &Memfd, area: Area, small: usize) -> io::Result<MmapRaw> {
    assert!(memfd.has(area), "a process that reads behind the end of its file is killed");
    let options = MmapOptions::new().offset(area.offset).len(area.len as usize).no_reserve_swap().to_owned();
    let map = options.map_raw(memfd.file())?;
    prefer_huge_pages(&map, small);
    Ok(map)
}

fn prefer_huge_pages(map: &MmapRaw, small: usize) {
    if map.len() > small
        && let Err(error) = map.advise_range(Advice::HugePage, small, map.len() - small)
    {
        log::debug!("no huge pages: {error}");
    }
}

/// Sets the first word of a file to `to` if it is `from`, and says whether it was. All processes that have the file see one
/// order of such changes.
///
/// # Errors
/// Those of `mmap`, or if the file is empty.
pub(super) fn exchange_first_word(memfd: &Memfd, from: u64, to: u64) -> io::Result<bool> {
    let area = Area { offset: 0, len: size_of::<u64>() as u64 };
    if !memfd.has(area) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let map = map(memfd, area, usize::MAX)?;
    // SAFETY: the word is in the mapping, which begins at a page of memory and lives to the end of this function. All code
    // changes it here, by atomic operations.
    let word = unsafe { AtomicU64::from_ptr(map.as_mut_ptr().cast()) };
    Ok(word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok())
}

/// Prefetches the cache line at an address. It reads nothing, so any address is allowed.
#[inline]
fn prefetch(pointer: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint. It neither reads nor faults, whatever the address is.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}

/// Which of sixteen bytes equal a byte: bit *n* stands for byte *n*. It is in this file because, like a prefetch, it
/// needs an instruction of the processor.
#[inline]
pub(super) fn matching_bytes(bytes: &[u8; 16], byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
        // SAFETY: every x86-64 has SSE2, and `bytes` holds the sixteen bytes to be loaded.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8))) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    bytes.iter().enumerate().fold(0, |mask, (at, &other)| mask | u32::from(other == byte) << at)
}

/// Which of 32 words equal a word: bit *n* stands for word *n*.
#[inline]
pub(super) fn matching_words(words: &[u16; 32], word: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16};
        // SAFETY: every x86-64 has SSE2, and the sixteen words from `at` on, to be loaded, are in `words`.
        let half = |at: usize| unsafe {
            let words = words[at..at + 16].as_ptr();
            let word = _mm_set1_epi16(word as i16);
            let low = _mm_cmpeq_epi16(_mm_loadu_si128(words.cast()), word);
            let high = _mm_cmpeq_epi16(_mm_loadu_si128(words.add(8).cast()), word);
            _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u32
        };
        half(0) | half(16) << 16
    }
    #[cfg(not(target_arch = "x86_64"))]
    words.iter().enumerate().fold(0, |mask, (at, &other)| mask | u32::from(other == word) << at)
}

/// Types for which zero bytes are a valid value, as in fresh memory of a [`Region`].
///
/// # Safety
/// A value of zero bytes must be valid, and the type must not need dropping.
pub(super) unsafe trait Zeroed: Copy {}

// SAFETY: a bucket consists of integers, and zeros are an empty bucket.
unsafe impl Zeroed for super::bucket::Bucket {}
// SAFETY: zeros are integers.
unsafe impl Zeroed for [u16; 32] {}

/// The first bytes of a region, which the kernel commits in small pages.
const REGION_SMALL: usize = 8 << 20;

/// What describes a region in a [`Memfd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RegionRoots {
    area: Area,
    len: u64,
}

/// An array that grows in place up to its reserve. New elements are zero.
#[derive(Debug)]
pub(super) struct Region<T> {
    map: MmapRaw,
    /// Invariant: `len <= capacity`, and `capacity` elements fit in `map`.
    len: usize,
    capacity: usize,
    /// What `map` maps, if it is a part of a file.
    area: Option<Area>,
    _elements: PhantomData<T>,
}

impl<T: Zeroed> Region<T> {
    /// Reserves address space for `capacity` elements, in a file if one is given. If the system refuses, it tries half as
    /// much, down to 1024 elements.
    ///
    /// # Errors
    /// Those of `mmap`, if the system refuses room for 1024 elements.
    pub(super) fn reserve(memfd: Option<&Memfd>, capacity: usize) -> io::Result<Region<T>> {
        let mut capacity = capacity.max(1024);
        loop {
            match Region::reserve_exactly(memfd, capacity) {
                Err(_) if capacity > 1024 => capacity /= 2,
                result => return result,
            }
        }
    }

    fn reserve_exactly(memfd: Option<&Memfd>, capacity: usize) -> io::Result<Region<T>> {
        let len = capacity * size_of::<T>();
        let (map, area) = match memfd {
            Some(memfd) => {
                let area = memfd.add(len)?;
                (map(memfd, area, REGION_SMALL)?, Some(area))
            }
            None => (reserve(len, REGION_SMALL)?, None),
        };
        Ok(Region { map, len: 0, capacity, area, _elements: PhantomData })
    }

    /// The region of an earlier process.
    ///
    /// # Errors
    /// Those of `mmap`, or if the file has no such region.
    pub(super) fn attach(memfd: &Memfd, roots: RegionRoots) -> io::Result<Region<T>> {
        let RegionRoots { area, len } = roots;
        let capacity = area.len / size_of::<T>() as u64;
        if capacity == 0 || len > capacity || !memfd.has(area) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let map = map(memfd, area, REGION_SMALL)?;
        Ok(Region { map, len: len as usize, capacity: capacity as usize, area: Some(area), _elements: PhantomData })
    }

    /// What describes the region to the next process; `None`: it belongs to this process alone.
    pub(super) fn roots(&self) -> Option<RegionRoots> {
        self.area.map(|area| RegionRoots { area, len: self.len as u64 })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds `count` zero elements at the end. False: the reserve does not hold them.
    #[must_use]
    pub(super) fn grow(&mut self, count: usize) -> bool {
        if self.capacity - self.len < count {
            return false;
        }
        self.len += count;
        true
    }

    #[inline]
    pub(super) fn prefetch(&self, index: usize) {
        prefetch(self.map.as_ptr().wrapping_add(index * size_of::<T>()));
    }
}

impl<T: Zeroed> std::ops::Index<usize> for Region<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        assert!(index < self.len);
        // SAFETY: the element is inside the mapping (`len <= capacity`). It is aligned: a mapping starts at a page of
        // at least 4 KiB, and elements follow each other. Zeros are a `T` (`Zeroed`). `&self` keeps writers away.
        unsafe { &*self.map.as_ptr().cast::<T>().add(index) }
    }
}

impl<T: Zeroed> std::ops::IndexMut<usize> for Region<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        assert!(index < self.len);
        // SAFETY: as for `index`; `&mut self` makes this the only reference.
        unsafe { &mut *self.map.as_mut_ptr().cast::<T>().add(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: zero is a u64.
    unsafe impl Zeroed for u64 {}

    #[test]
    fn ids_name_pages_and_offsets() {
        let arena = Arena::reserve(4, PAGE_SIZE_MAX).expect("address space");
        for (page, offset) in [(1, 0), (1, 8), (4, PAGE_SIZE_MAX - 8)] {
            let id = arena.id(PageId(page), offset);
            assert_eq!((arena.page(id), arena.offset_in_page(id)), (PageId(page), offset));
            assert_eq!(ItemId::from_raw(ItemId::to_raw(Some(id))), Some(id));
        }
        assert_eq!(ItemId::to_raw(None), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no address space without memory")]
    fn more_than_32_gib_get_wider_granules() {
        let arena = Arena::reserve(40 * 1024, PAGE_SIZE_MAX).expect("address space");
        assert!(arena.granule() > 8 && arena.pages() >= 40 * 1024);
        let last = arena.id(PageId(arena.pages()), PAGE_SIZE_MAX - arena.granule());
        assert_eq!(arena.page(last), PageId(arena.pages()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no address space without memory")]
    fn the_limit_can_be_raised_as_far_as_ids_reach() {
        for limit in [2 << 20, 64 << 20, 1 << 30] {
            let page_size = page_size(limit);
            let arena = Arena::reserve((limit / page_size as u64) as u32, page_size).expect("address space");
            assert_eq!((arena.pages() as usize + 1) * page_size, 32 << 30);
            let arena = Arena::reserve_up_to(limit as usize, 2, page_size).expect("address space");
            assert_eq!((arena.pages() as usize + 1) * page_size, limit as usize);
        }
    }

    #[test]
    fn regions_grow_in_place_up_to_their_reserve() {
        let mut region = Region::<u64>::reserve(None, 2000).expect("address space");
        assert!(region.grow(1500));
        region[1499] = 7;
        assert!(!region.grow(501));
        assert!(region.grow(500));
        assert_eq!((region[1499], region[1999], region.len()), (7, 0, 2000));
    }
}
