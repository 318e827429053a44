//! The responder on io_uring instead of epoll.
//!
//! One system call per turn submits the replies of the last turn and waits for requests. A receive stays armed for all
//! requests of its connection (multishot), and takes its buffers from a ring that is shared with the kernel. The kernel
//! completes operations in the thread of the responder, and only when it waits. Sockets are registered, and successful
//! sends report nothing.
//!
//! The kernel reads and writes memory while its operations run. All of that memory is leaked, so it stays valid whatever
//! happens: some hundred KiB for each ring.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fixed};
use io_uring::{IoUring, SubmissionQueue, cqueue, opcode, squeue};
use memmap2::MmapMut;

use super::{Load, Sends};

/// Bytes of a buffer for requests; a longer request takes several.
const BUFFER_SIZE: usize = 256;

/// The only group of buffers.
const GROUP: u16 = 0;

/// Marks the completions of sends; the other bits are the number of the connection.
const SEND: u64 = 1 << 63;

/// Whether the kernel allows the ring that the responder needs.
pub(crate) fn probe() -> io::Result<()> {
    Buffers::new(1, &ring(1)?).map(drop)
}

fn ring(connections: usize) -> io::Result<IoUring> {
    // In one turn, each connection has a reply and a new receive at most.
    let entries = (2 * connections).next_power_of_two() as u32;
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries)
}

/// Answers `connections` clients until all have left. While it waits for them to come, `stop` and one more connection end
/// it.
pub(crate) fn respond(
    listener: &TcpListener,
    load: &Load,
    connections: usize,
    sends: Sends,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut streams = Vec::new();
    while streams.len() < connections {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let mut ring = ring(connections)?;
    let descriptors: Vec<RawFd> = streams.iter().map(TcpStream::as_raw_fd).collect();
    ring.submitter().register_files(&descriptors)?;
    let mut buffers = Buffers::new(connections, &ring)?;
    let reply: &'static [u8] = load.reply.clone().leak().as_bytes();
    let mut pending = vec![0; connections];
    let mut open = connections;
    let (submitter, mut submissions, mut completions) = ring.split();
    for connection in 0..connections as u32 {
        push(&mut submissions, &receive(connection))?;
    }
    while open > 0 {
        submissions.sync();
        submitter.submit_and_wait(1)?;
        completions.sync();
        for completion in &mut completions {
            let connection = (completion.user_data() & !SEND) as u32;
            let count = match completion.result() {
                count @ 0.. => count as usize,
                error if is_end(-error) => 0,
                error => return Err(io::Error::from_raw_os_error(-error)),
            };
            if completion.user_data() & SEND != 0 {
                continue;
            }
            if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                buffers.give(buffer);
            }
            let pending = &mut pending[connection as usize];
            *pending += count;
            while *pending >= load.request.len() {
                *pending -= load.request.len();
                push(&mut submissions, &send(connection, reply, sends))?;
            }
            if !cqueue::more(completion.flags()) {
                if count > 0 || completion.result() == -nix::libc::ENOBUFS {
                    push(&mut submissions, &receive(connection))?;
                } else {
                    open -= 1;
                }
            }
        }
        buffers.publish();
    }
    match helpers()? {
        0 => Ok(()),
        count => Err(io::Error::other(format!("{count} threads of the kernel did a part of the work, uncounted"))),
    }
}

/// Whether an operation failed for a reason that is not a failure of the responder: a client that fails leaves replies
/// unread, and a receive ends when no buffer is free.
fn is_end(error: i32) -> bool {
    [nix::libc::EPIPE, nix::libc::ECONNRESET, nix::libc::ENOBUFS].contains(&error)
}

fn receive(connection: u32) -> squeue::Entry {
    opcode::RecvMulti::new(Fixed(connection), GROUP).build().user_data(u64::from(connection))
}

fn send(connection: u32, reply: &'static [u8], sends: Sends) -> squeue::Entry {
    // The kernel goes on until the whole reply is sent.
    let flags = nix::libc::MSG_WAITALL | nix::libc::MSG_NOSIGNAL;
    let (bytes, len) = (reply.as_ptr(), reply.len() as u32);
    let send = match sends {
        Sends::Copies => {
            let send = opcode::Send::new(Fixed(connection), bytes, len).flags(flags).build();
            send.flags(squeue::Flags::SKIP_SUCCESS)
        }
        // The kernel tells when it needs the bytes no more, as it does after `MSG_ZEROCOPY`.
        Sends::Pages => opcode::SendZc::new(Fixed(connection), bytes, len).flags(flags).build(),
    };
    send.user_data(SEND | u64::from(connection))
}

fn push(submissions: &mut SubmissionQueue<'_>, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: `receive` and `send` make all entries. They name no memory but replies, which are never freed, and buffers
    // of the group, which are not either.
    unsafe { submissions.push(entry) }.map_err(io::Error::other)
}

/// Threads that the kernel has added to this process, for operations that had to wait.
fn helpers() -> io::Result<usize> {
    let mut count = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread that ends meanwhile has no name any more.
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("iou-wrk"));
    }
    Ok(count)
}

/// Buffers for requests, and the ring through which the kernel gets them.
struct Buffers {
    /// Invariant: `count` entries, never freed.
    entries: *mut BufRingEntry,
    /// Invariant: `count` buffers, never freed. Only the kernel accesses their bytes.
    bytes: *mut u8,
    /// Invariant: a power of two.
    count: u16,
    /// Number of entries written so far; it wraps.
    tail: u16,
}

impl Buffers {
    /// At least a buffer for each connection, all of them given to the kernel.
    fn new(connections: usize, ring: &IoUring) -> io::Result<Buffers> {
        let count = connections.next_power_of_two().max(8);
        let entries = Box::leak(Box::new(MmapMut::map_anon(count * size_of::<BufRingEntry>())?));
        let entries = entries.as_mut_ptr().cast::<BufRingEntry>();
        let bytes = vec![0; count * BUFFER_SIZE].leak().as_mut_ptr();
        let mut buffers = Buffers { entries, bytes, count: count as u16, tail: 0 };
        // SAFETY: the entries start at a page, are as many as said, and are never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, buffers.count, GROUP, 0) }?;
        (0..buffers.count).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        Ok(buffers)
    }

    /// Adds a buffer to the ring; the kernel sees it after `publish`.
    fn give(&mut self, buffer: u16) {
        let place = usize::from(self.tail % self.count);
        let start = usize::from(buffer) * BUFFER_SIZE;
        // SAFETY: the place is below `count`. The kernel does not access an entry between its tail and ours: the number of
        // buffers is that of entries, and it has returned this one.
        let entry = unsafe { &mut *self.entries.add(place) };
        entry.set_addr(self.bytes.wrapping_add(start) as u64);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel the buffers that were given.
    fn publish(&self) {
        // SAFETY: the entries are a ring of the kernel, whose tail is aligned and lies within the first of them. Both sides
        // access it as an atomic.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
