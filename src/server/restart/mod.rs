//! The memory file (`-e`): the cache outlives its process if the process stops gracefully.
//!
//! ```text
//!  start:  lock FILE.new ─▶ open FILE ─▶ remove it ─▶ load its image ─▶ serve
//!  stop:   connections end ─▶ write FILE.new ─▶ sync ─▶ rename it to FILE
//! ```
//! What always holds:
//! - FILE is whole, or it does not exist. The server writes the image to FILE.new, and renames that to FILE when it is
//!   on the disk.
//! - At most one server loads FILE, and only once: the server removes FILE before it serves anything from it. A server
//!   that does not stop gracefully leaves no FILE, and the next server starts cold. So no client ever sees a value that
//!   another client has replaced since.
//! - FILE has one server at a time. Each server holds the lock on FILE.new from its start to its end. Without the lock,
//!   a server that still writes could leave an image behind while the next one already serves.
//! - An image that is damaged, foreign or of another version counts as no image: the server logs one line and starts
//!   cold.
//!
//! The server gives pages back to the system while it writes their contents to the image, and gives blocks of the image
//! back while it loads them. So a FILE in memory (tmpfs) does not need the memory of a second cache.

mod copy;

pub use copy::Copying;

use crate::clock::{Clock, Now};
use crate::hash::{self, KeyHasher};
use crate::protocol::Limits;
use crate::store::Store;
use crate::store::image::{self, BLOCK_MAX, Block, Filling, Header, Kind, Loaded, Loader, Reader, Record, Refusal};
use crate::worker::mailbox::{Exchange, Lease};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use parking_lot::{Mutex, MutexGuard};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Only the user of the server may read the image, because it holds the contents of the memory.
const MODE: u32 = 0o600;
/// The server gives back this many bytes at a time of an image in memory.
const PUNCH: u64 = 8 << 20;

/// The place of the image. This server has claimed it for itself alone.
#[derive(Debug)]
pub struct MemoryFile {
    path: PathBuf,
    beside_path: PathBuf,
    /// FILE.new. This server holds its lock. The file is empty until the server writes the image into it.
    beside: File,
    /// Bytes of the image that the server has read or written. Threads that wait can watch the count.
    bytes: Arc<AtomicU64>,
}

/// An image of an earlier server. Its file is already removed, so this server loads it now, or no server ever does.
#[derive(Debug)]
pub struct Image<R = Consumed> {
    path: PathBuf,
    reader: Reader<R>,
    found: Instant,
}

/// The rules that say to which shard a key goes, and which items the server admits.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The hash of keys.
    pub hasher: &'a KeyHasher,
    /// Limits of items.
    pub limits: Limits,
    /// The number of shards with their own port. 0: the hash spreads the keys over the shards.
    pub ports: u32,
    /// The number of threads that load the image.
    pub threads: usize,
}

impl MemoryFile {
    /// Makes sure that this server can write an image to `path`, and that no other server will.
    ///
    /// # Errors
    /// If this server cannot write it, or another server has the file.
    pub fn claim(path: &Path) -> io::Result<MemoryFile> {
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(io::Error::other("it is not a file"));
        }
        let mut beside_path = OsString::from(path);
        beside_path.push(".new");
        let beside_path = PathBuf::from(beside_path);
        let beside = loop {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(MODE).open(&beside_path)?;
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::Error::other("another server uses it, or still writes it"),
                TryLockError::Error(error) => error,
            })?;
            // Between the two steps, a server that ended just now may have renamed this file to its image.
            let (locked, named) = (file.metadata()?, fs::metadata(&beside_path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
                break file;
            }
        };
        // A server that was killed while it wrote has left a part of an image here.
        beside.set_len(0)?;
        Ok(MemoryFile { path: path.to_owned(), beside_path, beside, bytes: Arc::default() })
    }

    /// Bytes of the image that the server has read or written so far.
    pub fn bytes(&self) -> &AtomicU64 {
        &self.bytes
    }

    /// Takes the image of the last server, if it left one, and removes its file, so that no server can load it twice. A
    /// file that is not an image stays where it is until this server replaces it with an image.
    ///
    /// # Errors
    /// If an image exists and cannot be removed. Then this server must not load it, and another start must not load it
    /// either.
    pub fn take(&self) -> io::Result<Option<Image>> {
        let found = Instant::now();
        let path = &self.path;
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                log::info!("there is no {}: starting cold", path.display());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let reader = Reader::new(Consumed::new(file, Arc::clone(&self.bytes)));
        if !matches!(reader, Err(Refusal::Foreign)) {
            fs::remove_file(path)?;
            // Without this, the file could come back after a power failure.
            self.sync_folder()?;
        }
        match reader {
            Ok(reader) => Ok(Some(Image { path: path.clone(), reader, found })),
            Err(refusal) => {
                refuse(path, &refusal);
                Ok(None)
            }
        }
    }

    /// Removes the image of an earlier server, if there is one, because this server has newer items.
    ///
    /// # Errors
    /// If an image exists and cannot be removed.
    pub fn discard(&self) -> io::Result<()> {
        let Ok(file) = File::open(&self.path) else { return Ok(()) };
        if !matches!(Reader::new(file), Err(Refusal::Foreign)) {
            fs::remove_file(&self.path)?;
            self.sync_folder()?;
            log::info!("{} is older than the memory: it is removed", self.path.display());
        }
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    /// Writes the contents of the shards to the file and empties the shards. Call it after all workers have ended.
    ///
    /// # Errors
    /// One line with the reason why the server could not write the image. Then it leaves no image, and no part of one.
    pub fn save(&self, exchange: &Exchange, clock: &Clock, ports: u32) -> Result<(), String> {
        let begun = Instant::now();
        let (items, bytes) = self.write(exchange, clock, ports).map_err(|error| {
            if let Err(error) = fs::remove_file(&self.beside_path) {
                log::warn!("{} could not be removed: {error}", self.beside_path.display());
            }
            format!("{}: the cache could not be kept: {error}", self.path.display())
        })?;
        log::info!(
            "kept {items} items ({} MiB) in {} in {:.2} s",
            bytes >> 20,
            self.path.display(),
            begun.elapsed().as_secs_f64()
        );
        Ok(())
    }

    fn write(&self, exchange: &Exchange, clock: &Clock, ports: u32) -> io::Result<(u64, u64)> {
        let now = clock.now();
        let mut shards = leases(exchange);
        let mut stores: Vec<&mut Store> = shards.iter_mut().map(|shard| &mut shard.store).collect();
        let header = Header { ports, clock: now.0, unix_millis: unix_millis(), ..Header::default() };
        let (_, items) = write_stores(&mut stores, Counted(&self.beside, &self.bytes), header)?;
        self.beside.sync_all()?;
        let bytes = (&self.beside).stream_position()?;
        fs::rename(&self.beside_path, &self.path)?;
        self.sync_folder()?;
        Ok((items, bytes))
    }
}

/// The leases of all shards, after all workers have ended.
pub fn leases(exchange: &Exchange) -> Vec<Lease<'_>> {
    let lease = |shard| exchange.try_lease(shard).expect("the workers have given their leases back");
    (0..exchange.shards()).map(lease).collect()
}

/// The wall clock, in milliseconds since 1970.
pub fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The clock that goes on from a count at which the wall clock had shown `unix_millis`. It includes the time for which no
/// server ran. If the wall clock was set back, no time has passed.
pub fn clock_after(count: u32, millis: u64) -> Clock {
    // Round up: an item may die a second too early, but not live a second too long.
    let seconds = unix_millis().saturating_sub(millis).div_ceil(1000).min(u64::from(u32::MAX)) as u32;
    Clock::from_count(Now(count.saturating_add(seconds)))
}

/// Writes the items of stores, which the caller must not use any more, as an image with this header. The header has no
/// nonce yet, and nothing about the stores. Gives the stream back with the number of items.
///
/// # Errors
/// Those of the stream, and of the system that has no threads.
fn write_stores<W: Write + Send>(stores: &mut [&mut Store], to: W, header: Header) -> io::Result<(W, u64)> {
    let mut header = Header { nonce: RandomState::new().build_hasher().finish(), ..header };
    for store in &mut *stores {
        store.set_now(Now(header.clock));
        let facts = store.image_facts();
        header.flush_at = header.flush_at.max(facts.flush_at);
        header.last_cas = header.last_cas.max(facts.last_cas);
        header.items += facts.items;
        header.bytes += facts.bytes;
    }
    let image = Mutex::new(image::Writer::new(to, &header)?);
    thread::scope(|scope| {
        let savers: Vec<_> = stores
            .iter_mut()
            .map(|store| {
                let image = &image;
                thread::Builder::new().spawn_scoped(scope, move || store.save(image))
            })
            .collect();
        let mut results = Vec::new();
        for saver in savers {
            results.push(saver?.join().expect("a thread that saves does not panic"));
        }
        results.into_iter().collect::<io::Result<()>>()
    })?;
    image.into_inner().finish()
}

/// Writes to a stream, and counts the bytes.
struct Counted<'a, W>(W, &'a AtomicU64);

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Logs one line about a file that the server does not load.
fn refuse(path: &Path, refusal: &Refusal) {
    log::warn!("{} is not loaded, starting cold: {refusal}", path.display());
}

impl<R: Read + Send> Image<R> {
    /// The header: facts about the image as a whole.
    pub fn header(&self) -> Header {
        self.reader.header()
    }

    /// The clock of the server that loads the image.
    pub fn clock(&self) -> Clock {
        clock_after(self.header().clock, self.header().unix_millis)
    }

    /// Fills empty stores with the items of the image. If that fails, it logs the reason, and the server must not use
    /// the items that were loaded.
    pub fn load(self, stores: Vec<Store>, now: Now, rules: Rules<'_>) -> Option<Vec<Store>> {
        let (path, header, found) = (self.path.clone(), self.header(), self.found);
        if header.ports != rules.ports {
            // With ports, the client chooses the shard of a key. In the wrong shard no client would find an item, or
            // two shards would hold the same key.
            let had = |ports| if ports == 0 { "one port".to_owned() } else { format!("{ports} ports") };
            let (then, now) = (had(header.ports), had(rules.ports));
            log::warn!(
                "{} is not loaded, starting cold: it is of a server with {then}, this has {now}",
                path.display()
            );
            return None;
        }
        match self.load_all(stores, now, rules) {
            Ok((stores, loaded)) => {
                let Loaded { items, expired, dropped } = loaded;
                let seconds = found.elapsed().as_secs_f64();
                log::info!("loaded {items} items from {} in {seconds:.2} s; {expired} have expired", path.display());
                if dropped > 0 {
                    log::warn!("there was no room for {dropped} items of {}", path.display());
                }
                Some(stores)
            }
            Err(refusal) => {
                refuse(&path, &refusal);
                None
            }
        }
    }

    fn load_all(self, stores: Vec<Store>, now: Now, rules: Rules<'_>) -> Result<(Vec<Store>, Loaded), Refusal> {
        let header = self.header();
        let loading = Loading {
            source: Mutex::new(Source { reader: self.reader, ended: false, items: None }),
            loaders: stores.into_iter().map(|store| Mutex::new(Loader::new(store, &header, now))).collect(),
            rules,
            seen: AtomicU64::new(0),
            too_large: AtomicU64::new(0),
        };
        thread::scope(|scope| {
            let spawn = |number| {
                thread::Builder::new().spawn_scoped(scope, {
                    let loading = &loading;
                    move || loading.run(number)
                })
            };
            let threads: Vec<_> = (1..rules.threads).map_while(|number| spawn(number).ok()).collect();
            let mut result = loading.run(0);
            for thread in threads {
                result = result.and(thread.join().expect("a thread that loads does not panic"));
            }
            result
        })?;
        if loading.source.into_inner().items != Some(loading.seen.into_inner()) {
            return Err(Refusal::Damaged("its items are not as many as it says"));
        }
        let mut sum = Loaded { dropped: loading.too_large.into_inner(), ..Loaded::default() };
        let finish = |loader: Mutex<Loader>| {
            let (store, loaded) = loader.into_inner().finish();
            sum += loaded;
            store
        };
        let stores = loading.loaders.into_iter().map(finish).collect();
        Ok((stores, sum))
    }
}

/// The state that the loading threads share.
struct Loading<'a, R> {
    source: Mutex<Source<R>>,
    /// The loader of each shard.
    loaders: Vec<Mutex<Loader>>,
    rules: Rules<'a>,
    /// The number of items in the blocks that the threads have read.
    seen: AtomicU64,
    /// The number of items that are larger than this server admits.
    too_large: AtomicU64,
}

struct Source<R> {
    reader: Reader<R>,
    /// The threads must not read on: they have read everything, or found an error.
    ended: bool,
    /// The number of items according to the image. A thread sets it when it reads the end.
    items: Option<u64>,
}

/// The items of a block that go to one shard.
#[derive(Default)]
struct Run {
    hashes: Vec<u64>,
    /// The places in the block where their records begin.
    places: Vec<usize>,
}

impl<R: Read> Loading<'_, R> {
    /// Loads block after block until the image ends.
    fn run(&self, number: usize) -> Result<(), Refusal> {
        let result = self.run_blocks(number);
        if result.is_err() {
            // The other threads need not continue.
            self.source.lock().ended = true;
        }
        result
    }

    fn run_blocks(&self, number: usize) -> Result<(), Refusal> {
        let mut block = Block::default();
        let mut runs: Vec<Run> = self.loaders.iter().map(|_| Run::default()).collect();
        loop {
            let mut source = self.source.lock();
            if source.ended {
                return Ok(());
            }
            source.reader.next(&mut block)?;
            // A value that does not fit this block continues in the next blocks. Keep the lock, so that no other thread
            // reads them.
            let source = if block.goes_on || block.ends() { Some(source) } else { None };
            let (kind, payload) = block.check()?;
            match (kind, source) {
                (Kind::Items, _) => {
                    self.sort(payload, kind, block.shard, &mut runs)?;
                    self.load(payload, kind, &mut runs, number)?;
                }
                (Kind::ItemsAndMore, Some(source)) => {
                    let last = self.sort(payload, kind, block.shard, &mut runs)?;
                    self.load(payload, kind, &mut runs, number)?;
                    let last = last.ok_or(Refusal::Damaged("a value that goes on nowhere"))?;
                    self.load_long(source, &image::record(payload, last, kind)?.0, block.shard)?;
                }
                (Kind::End, Some(mut source)) => {
                    source.ended = true;
                    source.items = Some(image::items_in_all(payload)?);
                    return if source.reader.at_end()? {
                        Ok(())
                    } else {
                        Err(Refusal::Damaged("it goes on behind its end"))
                    };
                }
                _ => return Err(Refusal::Damaged("a block in the wrong place")),
            }
        }
    }

    /// Reads the records of a block, and notes for each the shard that it goes to. If the value of the last record
    /// continues in the next block, the function leaves this record out and gives its place.
    fn sort(&self, payload: &[u8], kind: Kind, from: u16, runs: &mut [Run]) -> Result<Option<usize>, Refusal> {
        let (mut at, mut count, mut last) = (0, 0, None);
        while at < payload.len() {
            let (record, next) = image::record(payload, at, kind)?;
            count += 1;
            if record.value.len() < record.value_len {
                last = Some(at);
            } else if self.admits(&record) {
                let hash = self.rules.hasher.hash(record.key);
                let run = &mut runs[self.shard_of(hash, from)?];
                run.hashes.push(hash);
                run.places.push(at);
            }
            at = next;
        }
        self.seen.fetch_add(count, Ordering::Relaxed);
        Ok(last)
    }

    fn admits(&self, record: &Record<'_>) -> bool {
        let admitted = !self.rules.limits.too_large(record.key.len(), record.client_flags, record.value_len);
        if !admitted {
            self.too_large.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn shard_of(&self, hash: u64, from: u16) -> Result<usize, Refusal> {
        let shard = if self.rules.ports > 0 { usize::from(from) } else { hash::shard(hash, self.loaders.len()) };
        if shard < self.loaders.len() { Ok(shard) } else { Err(Refusal::Damaged("a shard that there is not")) }
    }

    /// Puts the sorted items into the shards. Each thread begins with another shard.
    fn load(&self, payload: &[u8], kind: Kind, runs: &mut [Run], number: usize) -> Result<(), Refusal> {
        for step in 0..runs.len() {
            let shard = (number + step) % runs.len();
            let run = &mut runs[shard];
            if run.hashes.is_empty() {
                continue;
            }
            let record = |at: usize| image::record(payload, run.places[at], kind).map(|(record, _)| record);
            self.loaders[shard].lock().load(&run.hashes, record)?;
            run.hashes.clear();
            run.places.clear();
        }
        Ok(())
    }

    /// Loads an item whose value continues in the next blocks.
    fn load_long(&self, mut source: MutexGuard<'_, Source<R>>, record: &Record<'_>, from: u16) -> Result<(), Refusal> {
        let hash = self.rules.hasher.hash(record.key);
        let loader = &self.loaders[self.shard_of(hash, from)?];
        let mut filling: Option<Filling> = if self.admits(record) { loader.lock().begin(record) } else { None };
        let mut left = record.value_len;
        let mut take = |bytes: &[u8], filling: &mut Option<Filling>| {
            left = left.checked_sub(bytes.len()).ok_or(Refusal::Damaged("a value that is too long"))?;
            if let Some(filling) = filling {
                loader.lock().fill(filling, bytes);
            }
            Ok(left)
        };
        let mut more = Block::default();
        let mut open = take(record.value, &mut filling)? > 0;
        while open {
            source.reader.next(&mut more)?;
            let (kind, payload) = more.check()?;
            if kind != Kind::Value || payload.is_empty() {
                return Err(Refusal::Damaged("a value that does not go on"));
            }
            open = take(payload, &mut filling)? > 0;
        }
        drop(source);
        match filling {
            Some(filling) => loader.lock().end(filling, hash, record),
            None => Ok(()),
        }
    }
}

/// A file that the server reads once, from its beginning to its end. If it is in memory, it shrinks meanwhile.
#[derive(Debug)]
pub struct Consumed {
    file: File,
    in_memory: bool,
    read: u64,
    punched: u64,
    /// Bytes that were read. Threads that wait can watch the count.
    bytes: Arc<AtomicU64>,
}

impl Consumed {
    fn new(file: File, bytes: Arc<AtomicU64>) -> Consumed {
        let in_memory = fstatfs(&file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC);
        Consumed { file, in_memory, read: 0, punched: 0, bytes }
    }
}

impl Read for Consumed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        self.bytes.store(self.read, Ordering::Relaxed);
        let done = self.read / BLOCK_MAX as u64 * BLOCK_MAX as u64;
        if self.in_memory && done - self.punched >= PUNCH {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            if let Err(error) = fallocate(&self.file, hole, self.punched as i64, (done - self.punched) as i64) {
                log::debug!("what was loaded stays in memory: {error}");
                self.in_memory = false;
            }
            self.punched = done;
        }
        Ok(count)
    }
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod tests;
