//! Memory that the next server can take over: a file without a name, which exists only in memory (`--keep-memory`).
//!
//! ```text
//! 0            the first page of the arena, which has no items: the label (`keep/label.rs`)
//! page size    the other pages of the arena
//!              the buckets of each shard: of its index and of its ghosts
//! end          the roots, which a clean stop writes (`keep/roots.rs`)
//! ```
//! The file is sparse: only what was written takes memory. It grows and never shrinks, and a seal ensures that no process
//! can cut it while another one uses the memory.

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Each area begins at a multiple of this number of bytes, the size of a huge page.
const ALIGNMENT: u64 = 2 << 20;

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Area {
    /// Bytes before it.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) len: u64,
}

/// See the top of the file.
#[derive(Debug)]
pub struct Memfd {
    file: File,
    /// The end of the last area.
    end: AtomicU64,
}

impl Memfd {
    /// An empty file.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn create() -> io::Result<Memfd> {
        let file = memfd_create(c"corecached", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL))?;
        Ok(Memfd { file: File::from(file), end: AtomicU64::new(0) })
    }

    /// The file of another process.
    ///
    /// # Errors
    /// If it is not such a file.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Memfd> {
        let seals = fcntl(&fd, FcntlArg::F_GET_SEALS)?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(io::Error::other("it is not sealed"));
        }
        let file = File::from(fd);
        let len = file.metadata()?.len();
        Ok(Memfd { file, end: AtomicU64::new(len.next_multiple_of(ALIGNMENT)) })
    }

    /// Adds an area of `len` bytes.
    ///
    /// # Errors
    /// If the system refuses a file of this length.
    pub(super) fn add(&self, len: usize) -> io::Result<Area> {
        let len = len as u64;
        let offset = self.end.fetch_add(len.next_multiple_of(ALIGNMENT), Ordering::Relaxed);
        let end = offset + len.next_multiple_of(ALIGNMENT);
        if end > self.len()? {
            self.file.set_len(end)?;
        }
        Ok(Area { offset, len })
    }

    /// The end of the last area, where the roots begin.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Areas that are added from now on begin here.
    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end.next_multiple_of(ALIGNMENT), Ordering::Relaxed);
    }

    /// Whether the file has all bytes of an area, and the area begins where areas may begin.
    pub(super) fn has(&self, area: Area) -> bool {
        let Ok(metadata) = self.file.metadata() else { return false };
        let end = area.offset.checked_add(area.len);
        area.offset.is_multiple_of(ALIGNMENT) && end.is_some_and(|end| end <= metadata.len())
    }

    /// Gives the memory of some bytes back to the system. They are zeros from now on.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&self.file, hole, offset as i64, len as i64)?)
    }

    /// Writes bytes at an offset.
    ///
    /// # Errors
    /// If the system has no memory for them.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Reads bytes at an offset.
    ///
    /// # Errors
    /// If the file is shorter.
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The file itself, which a process maps.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
