//! Kept memory (`--keep-memory`): the next server maps the memory of this one, and goes on with all items where they are.
//!
//! ```text
//!  serving            the memory has no description; whoever finds it so cannot use it
//!    │ clean stop: freeze
//!  frozen             roots at the end of the file, a label at its beginning, and a mark in the label
//!    │ next server: claim, which removes the mark; then thaw
//!  serving
//! ```
//! The roots are everything that a [`Store`] knows outside of the file: lists, pages, counts, flushes, the seeds of the hash.
//! What lies in the file, items and buckets, stays as it is: ids are true at any address. So a restart takes the same
//! short time for any number of items.
//!
//! What always holds:
//! - Only a clean stop sets the mark, as its last step, and only a claim removes it, in one atomic step. So memory of a server
//!   that was killed is never used, and of two servers that get the same memory, one claims it.
//! - A server claims memory before it uses it or refuses it. So nobody finds a mark on memory whose items may be older than
//!   what clients have stored elsewhere since.
//! - Memory that another layout has written, or whose roots have changed since, is refused. The checksum does not cover items
//!   and buckets: they were memory all the time.
//!
//! If the flags ask for other classes, pages or shards than the memory has, the memory does not fit ([`Kept::misfit`]).
//! Then the server writes its items into new memory, as from an image.

mod facts;
mod label;
mod refusal;
mod rest;
mod roots;

pub use facts::Facts;
pub use refusal::Refusal;

use super::Store;
use super::arena::{Arena, exchange_first_word};
use super::budget::Budget;
use super::item::Items;
use super::memfd::Memfd;
use super::options::StoreOptions;
use crate::hash::KeyHasher;
use label::Label;
use roots::{Roots, ShardRoots};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Describes the memory of stopped stores, which share an arena in a file, so that the next server can take it over. The
/// stores must not be used any more.
///
/// # Errors
/// If the memory is no file, or the system has no memory for the roots. Then no server can take the memory over, and the
/// stores may be used.
pub fn freeze(stores: &mut [&mut Store], facts: Facts) -> io::Result<Arc<Memfd>> {
    let roots = Roots::of(stores, facts)?;
    let memfd = Arc::clone(stores[0].items.arena().memfd().ok_or(io::ErrorKind::Unsupported)?);
    // Any number but 0 will do.
    let mark = RandomState::new().build_hasher().finish() | 1;
    let bytes = postcard::to_allocvec(&roots).map_err(io::Error::other)?;
    let end = memfd.end();
    memfd.write(&bytes, end)?;
    Label::new(mark, end, &bytes).write(&memfd)?;
    if !exchange_first_word(&memfd, 0, mark)? {
        return Err(io::Error::other("somebody else has marked the memory"));
    }
    Ok(memfd)
}

/// Memory of an earlier server that this one has claimed.
#[derive(Debug)]
pub struct Kept {
    memfd: Arc<Memfd>,
    items: Items,
    roots: Roots,
}

/// The stores of an earlier server, and the values that they share.
#[derive(Debug)]
pub struct Thawed {
    /// The stores.
    pub stores: Vec<Store>,
    /// Their items.
    pub items: Items,
    /// Their pages.
    pub budget: Arc<Budget>,
    /// Their hash function, which the server must use.
    pub hasher: KeyHasher,
}

/// What the flags of a server ask for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The options of each store.
    pub options: &'a StoreOptions,
    /// The number of shards.
    pub shards: usize,
    /// The limit, in bytes.
    pub limit_bytes: u64,
    /// Bytes of a page.
    pub page_size: usize,
    /// Bytes of address space that the arena may take at most.
    pub reach: usize,
    /// See [`Facts`].
    pub item_size_max: u64,
}

impl Kept {
    /// Claims the memory behind a descriptor.
    ///
    /// # Errors
    /// If this server cannot use it. Then no other server can.
    pub fn claim(fd: OwnedFd) -> Result<Kept, Refusal> {
        let memfd = Arc::new(Memfd::from_fd(fd).map_err(|_| Refusal::Foreign)?);
        let label = Label::read(&memfd)?;
        if label.mark == 0 || !exchange_first_word(&memfd, label.mark, 0)? {
            return Err(Refusal::Unclean);
        }
        let bytes = label.roots(&memfd)?;
        let roots: Roots = postcard::from_bytes(&bytes).map_err(|_| Refusal::Damaged("its roots end too early"))?;
        let arena = Arena::attach(Arc::clone(&memfd), roots.arena)?;
        memfd.set_end(label.end);
        // The memory of the roots is needed no more. If the system keeps it, the next stop overwrites it.
        let _ = memfd.punch(label.end, bytes.len() as u64);
        Ok(Kept { items: Items::new(Arc::new(arena), roots.cas), memfd, roots })
    }

    /// The facts about the earlier server.
    pub fn facts(&self) -> Facts {
        self.roots.facts
    }

    /// The number of items.
    pub fn item_count(&self) -> u64 {
        self.roots.shards.iter().map(|shard| shard.index.count).sum()
    }

    /// The reason why the memory cannot be used as it is by a server with these flags; `None`: it can.
    pub fn misfit(&self, wanted: Wanted<'_>) -> Option<&'static str> {
        let Wanted { options, shards, limit_bytes, page_size, reach, item_size_max } = wanted;
        let arena = self.items.arena();
        let classes = self.roots.shards.first().map(ShardRoots::chunk_sizes);
        let has_flushes = self.roots.shards.iter().any(|shard| !shard.flushed.is_empty());
        if shards != self.roots.shards.len() {
            Some("it has another number of shards (-t, -m, -I)")
        } else if options.cas != self.roots.cas {
            Some("its items have CAS uniques, or they should have them (-C)")
        } else if page_size != arena.page_size() || limit_bytes / page_size as u64 > u64::from(arena.pages()) {
            Some("its pages have another size, or are too few (-m)")
        } else if classes != Some(options.slabs.chunk_sizes(&self.items)) {
            Some("its slab classes are others (-f, -n, -o slab_sizes, -o slab_chunk_max)")
        } else if item_size_max < self.roots.facts.item_size_max {
            Some("it may have items that are too large now (-I)")
        } else if options.prefixes != self.roots.prefixes && has_flushes {
            Some("prefixes of another kind were flushed just now (-D)")
        } else if self.roots.arena.area.len > reach as u64 {
            Some("it reserves more than may be locked (-k)")
        } else {
            None
        }
    }

    /// Makes stores of the memory, with the pages, the classes and the hash function that it has. `options` are those of this
    /// server, and `limit_bytes` is its limit, of which no more counts than the memory has pages for.
    ///
    /// # Errors
    /// If a part of the roots is impossible.
    pub fn thaw(self, options: &StoreOptions, limit_bytes: u64) -> Result<Thawed, Refusal> {
        let Kept { memfd, items, roots } = self;
        let arena = items.arena();
        roots.check_pages(arena.pages())?;
        let limit = (limit_bytes / arena.page_size() as u64).min(arena.pages().into()) as u32;
        let budget = Arc::new(Budget::new(limit, roots.shards.len(), arena).attach(roots.budget));
        let hasher = KeyHasher::from_seeds(roots.seeds);
        let options = StoreOptions { cas: roots.cas, prefixes: roots.prefixes, ..options.clone() };
        let attach = |(number, shard): (usize, ShardRoots)| {
            let shared = super::Shared {
                options: options.clone(),
                items: items.clone(),
                budget: Arc::clone(&budget),
                hasher: hasher.clone(),
            };
            shard.attach(number, &memfd, shared)
        };
        let stores = roots.shards.into_iter().enumerate().map(attach).collect::<Result<_, Refusal>>()?;
        Ok(Thawed { stores, items, budget, hasher })
    }
}

#[cfg(test)]
mod tests;
