//! `lru_crawler crawl`, `metadump` and `mgdump`: a [`Walk`] goes through all shards, one after the other, a piece at a
//! time.
//!
//! As in memcached, a server runs at most one walk at a time. A worker leads the walk. It sends the walk with a batch
//! to the shard that the walk has reached, and the walk comes back with a piece of the dump. The worker asks for the
//! next piece only when the client has taken this one. So a dump takes the memory of one piece, however many items the
//! cache has and however slowly the client reads, and a walk never holds a shard for longer than a piece.
//!
//! A dump tells a key that is in the cache all along exactly once: see `store/walk.rs`.

use crate::clock::{Clock, NEVER, Now};
use crate::command::reply::escape;
use crate::command::{Reply, Shard};
use crate::protocol::encode::Output;
use crate::protocol::meta::base64_encode;
use crate::protocol::token::digits_u32;
use crate::store::Store;
use crate::store::arena::ItemId;
use crate::store::item::{FETCHED, KEY_BINARY};
use crate::store::slab::CLASSES_MAX;
use crate::store::walk::Place;

/// The work that a walk does on the items it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkKind {
    /// `lru_crawler crawl`: free dead items. The other kinds free them, too.
    Crawl,
    /// `lru_crawler metadump`: write a line about each live item.
    Metadump,
    /// `lru_crawler mgdump`: write a command that fetches the item, for each live item.
    Mgdump,
}

/// The limits of one piece.
#[derive(Clone, Copy, Debug)]
pub struct WalkLimits {
    /// The walk looks at this many items at most.
    pub items: usize,
    /// The walk ends the piece after this many bytes of a dump. The last few items may exceed it.
    pub bytes: usize,
}

/// A walk that is under way.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The work that it does on the items.
    pub kind: WalkKind,
    limits: WalkLimits,
    classes: Classes,
    /// `lru_crawler tocrawl`: the number of items of each class that the walk may still look at. `None`: all items.
    left: Option<Box<[u32; CLASSES_MAX + 1]>>,
    /// The shard that the walk has reached. Invariant: the walk has finished the shards before it.
    pub shard: usize,
    place: Place,
}

impl Walk {
    /// Makes a walk through items of these classes. It looks at `tocrawl` items of each class, or at all if that is 0.
    pub fn new(kind: WalkKind, classes: Classes, tocrawl: u32, limits: WalkLimits) -> Box<Walk> {
        let left = (tocrawl > 0).then(|| Box::new([tocrawl; CLASSES_MAX + 1]));
        Box::new(Walk { kind, limits, classes, left, shard: 0, place: Place::default() })
    }

    /// Does one piece of the walk, in the shard that it has reached, and appends the output to the reply.
    pub fn step(&mut self, shard: &mut Shard, clock: &Clock, reply: &mut Reply) {
        let Walk { kind, limits, classes, left, place, .. } = self;
        let out = &mut reply.out;
        let bytes_max = out.len() + limits.bytes;
        let wanted = |class: crate::store::slab::ClassId| {
            classes.has(class.0) && left.as_mut().is_none_or(|left| take_one(&mut left[usize::from(class.0)]))
        };
        let next = shard.store.walk(*place, limits.items, wanted, |store, id| {
            match kind {
                WalkKind::Crawl => {}
                WalkKind::Metadump => put_metadata(store, id, clock, out),
                WalkKind::Mgdump => put_fetch(store, id, out),
            }
            out.len() < bytes_max
        });
        match next {
            Some(place) => self.place = place,
            None => {
                self.shard += 1;
                self.place = Place::default();
            }
        }
    }

    /// The line that ends the dump for the client.
    pub fn terminator(&self) -> &'static [u8] {
        match self.kind {
            WalkKind::Crawl => b"",
            WalkKind::Metadump => b"END\r\n",
            WalkKind::Mgdump => b"EN\r\n",
        }
    }
}

fn take_one(left: &mut u32) -> bool {
    let some = *left > 0;
    *left -= u32::from(some);
    some
}

/// Writes `key=<key> exp=<Unix time, -1: never> la=<Unix time> cas= fetch= cls= size= flags= `. As in memcached, the
/// line ends in a space and a newline.
fn put_metadata(store: &Store, id: ItemId, clock: &Clock, out: &mut Output) {
    let item = store.item(id);
    let exptime = if item.exptime() == NEVER { -1 } else { clock.unix(Now(item.exptime())) };
    out.put(b"key=");
    let len = escape(item.key(), out.room(3 * item.key().len()));
    out.advance(len);
    out.put(b" exp=");
    out.put_i64(exptime);
    out.put(b" la=");
    out.put_i64(clock.unix(store.last_access(id)));
    out.put(b" cas=");
    out.put_u64(item.cas());
    out.put(if item.state() & FETCHED == 0 { b" fetch=no cls=" } else { b" fetch=yes cls=" });
    out.put_u64(u64::from(store.class_of(id).0));
    out.put(b" size=");
    out.put_u64(store.size_of(id));
    out.put(b" flags=");
    out.put_u64(u64::from(item.client_flags()));
    out.put(b" \n");
}

/// Writes `mg <key>`, or `mg <key in base64> b`.
fn put_fetch(store: &Store, id: ItemId, out: &mut Output) {
    let item = store.item(id);
    let key = item.key();
    out.put(b"mg ");
    if item.state() & KEY_BINARY == 0 {
        out.put(key);
        out.put(b"\r\n");
    } else {
        let len = key.len().div_ceil(3) * 4;
        base64_encode(key, out.room(len));
        out.advance(len);
        out.put(b" b\r\n");
    }
}

/// A set of slab classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes([u64; 4]);

impl Classes {
    /// All slab classes.
    pub const ALL: Classes = Classes([u64::MAX; 4]);

    /// Reads a list of ids with commas between. `None`: one of them is not an id from 1 to `id_max`.
    pub fn listed(list: &[u8], id_max: u32) -> Option<Classes> {
        let mut classes = [0; 4];
        for id in list.split(|&byte| byte == b',').filter(|id| !id.is_empty()) {
            match digits_u32(id) {
                Some(id) if (1..=id_max).contains(&id) => classes[id as usize / 64] |= 1 << (id % 64),
                _ => return None,
            }
        }
        Some(Classes(classes))
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }

    fn has(self, class: u8) -> bool {
        self.0[usize::from(class / 64)] >> (class % 64) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_listed_with_commas() {
        for (list, expected) in [
            (&b"1"[..], Some(1 << 1)),
            (b"1,63,", Some(1 << 1 | 1 << 63)),
            (b",", Some(0)),
            (b"0", None),
            (b"64", None),
            (b"1,x", None),
            (b"all", None),
        ] {
            assert_eq!(Classes::listed(list, 63), expected.map(|first| Classes([first, 0, 0, 0])), "{list:?}");
        }
    }
}
