//! Textbook policies for a cache of a fixed number of items: LRU, S3-FIFO (Yang et al. 2023) and SIEVE (Zhang et al.
//! 2024).

use std::collections::{HashMap, VecDeque};

/// A cache that holds no values.
pub(crate) trait Policy {
    /// Asks for a key, and stores it after a miss. Returns whether it was a hit.
    fn request(&mut self, key: u64) -> bool;
}

/// A policy by its name, for a cache of so many items.
pub(crate) type Named = (&'static str, fn(usize) -> Box<dyn Policy>);

/// All policies. The first one is the exact LRU.
pub(crate) const POLICIES: [Named; 3] = [
    ("LRU", |items| Box::new(Lru { cache: Cache::new(items), queue: Queue::default() })),
    ("S3-FIFO", |items| Box::new(S3Fifo::new(items))),
    ("SIEVE", |items| Box::new(Sieve { cache: Cache::new(items), queue: Queue::default(), hand: None })),
];

/// The place of an entry in the cache.
type Place = usize;

/// The entries of a cache, by key.
struct Cache {
    items_max: usize,
    places: HashMap<u64, Place>,
    entries: Vec<Entry>,
    free: Vec<Place>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    key: u64,
    newer: Option<Place>,
    older: Option<Place>,
    /// Hits that the policy remembers.
    hits: u8,
}

/// A doubly linked list of entries.
#[derive(Default)]
struct Queue {
    newest: Option<Place>,
    oldest: Option<Place>,
    len: usize,
}

impl Cache {
    fn new(items_max: usize) -> Cache {
        Cache { items_max, places: HashMap::new(), entries: Vec::new(), free: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.places.len() >= self.items_max
    }

    fn insert(&mut self, key: u64) -> Place {
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            self.entries.len() - 1
        });
        self.entries[place] = Entry { key, ..Entry::default() };
        self.places.insert(key, place);
        place
    }

    /// Removes an entry that is in no queue, and gives its key.
    fn remove(&mut self, place: Place) -> u64 {
        let key = self.entries[place].key;
        self.places.remove(&key);
        self.free.push(place);
        key
    }
}

impl Queue {
    fn push(&mut self, cache: &mut Cache, place: Place) {
        (cache.entries[place].newer, cache.entries[place].older) = (None, self.newest);
        match self.newest {
            Some(newest) => cache.entries[newest].newer = Some(place),
            None => self.oldest = Some(place),
        }
        self.newest = Some(place);
        self.len += 1;
    }

    fn unlink(&mut self, cache: &mut Cache, place: Place) {
        let Entry { newer, older, .. } = cache.entries[place];
        match newer {
            Some(newer) => cache.entries[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => cache.entries[older].newer = newer,
            None => self.oldest = newer,
        }
        self.len -= 1;
    }

    fn pop(&mut self, cache: &mut Cache) -> Option<Place> {
        let oldest = self.oldest?;
        self.unlink(cache, oldest);
        Some(oldest)
    }
}

struct Lru {
    cache: Cache,
    queue: Queue,
}

impl Policy for Lru {
    fn request(&mut self, key: u64) -> bool {
        if let Some(&place) = self.cache.places.get(&key) {
            self.queue.unlink(&mut self.cache, place);
            self.queue.push(&mut self.cache, place);
            return true;
        }
        if self.cache.is_full()
            && let Some(oldest) = self.queue.pop(&mut self.cache)
        {
            self.cache.remove(oldest);
        }
        let place = self.cache.insert(key);
        self.queue.push(&mut self.cache, place);
        false
    }
}

struct Sieve {
    cache: Cache,
    queue: Queue,
    hand: Option<Place>,
}

impl Policy for Sieve {
    fn request(&mut self, key: u64) -> bool {
        if let Some(&place) = self.cache.places.get(&key) {
            self.cache.entries[place].hits = 1;
            return true;
        }
        if self.cache.is_full() {
            let mut hand = self.hand.or(self.queue.oldest).expect("a full cache has entries");
            while self.cache.entries[hand].hits > 0 {
                self.cache.entries[hand].hits = 0;
                hand = self.cache.entries[hand].newer.or(self.queue.oldest).expect("a full cache has entries");
            }
            self.hand = self.cache.entries[hand].newer;
            self.queue.unlink(&mut self.cache, hand);
            self.cache.remove(hand);
        }
        let place = self.cache.insert(key);
        self.queue.push(&mut self.cache, place);
        false
    }
}

/// With the parameters of the paper: a tenth of the items in the small queue, and as many ghosts as the main queue has
/// items.
struct S3Fifo {
    cache: Cache,
    small: Queue,
    main: Queue,
    small_max: usize,
    ghosts_max: usize,
    ghosts: VecDeque<(u64, u64)>,
    /// By key, the number of its ghost.
    ghost_of: HashMap<u64, u64>,
    ghosts_made: u64,
}

impl S3Fifo {
    fn new(items: usize) -> S3Fifo {
        S3Fifo {
            cache: Cache::new(items),
            small: Queue::default(),
            main: Queue::default(),
            small_max: (items / 10).max(1),
            ghosts_max: items * 9 / 10,
            ghosts: VecDeque::new(),
            ghost_of: HashMap::new(),
            ghosts_made: 0,
        }
    }

    fn evict(&mut self) {
        loop {
            let from_small = self.small.len >= self.small_max || self.main.len == 0;
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let place = queue.pop(&mut self.cache).expect("a full cache has entries");
            let entry = &mut self.cache.entries[place];
            if entry.hits == 0 {
                let key = self.cache.remove(place);
                if from_small {
                    self.haunt(key);
                }
                return;
            }
            entry.hits = if from_small { 0 } else { entry.hits - 1 };
            self.main.push(&mut self.cache, place);
        }
    }

    fn haunt(&mut self, key: u64) {
        self.ghosts_made += 1;
        self.ghosts.push_back((key, self.ghosts_made));
        self.ghost_of.insert(key, self.ghosts_made);
        while self.ghosts.len() > self.ghosts_max
            && let Some((key, number)) = self.ghosts.pop_front()
        {
            if self.ghost_of.get(&key) == Some(&number) {
                self.ghost_of.remove(&key);
            }
        }
    }
}

impl Policy for S3Fifo {
    fn request(&mut self, key: u64) -> bool {
        if let Some(&place) = self.cache.places.get(&key) {
            let hits = &mut self.cache.entries[place].hits;
            *hits = (*hits + 1).min(3);
            return true;
        }
        let returns = self.ghost_of.remove(&key).is_some();
        if self.cache.is_full() {
            self.evict();
        }
        let place = self.cache.insert(key);
        let queue = if returns { &mut self.main } else { &mut self.small };
        queue.push(&mut self.cache, place);
        false
    }
}
