//! A server takes over from a running one (`--take-over`): it gets the sockets of the old one, and the old one ends.
//!
//! ```text
//!  old server                                    new server
//!  listens at an abstract Unix socket            has read its flags, certificates, users
//!                              ◀── take-over 1 ──  and the file of -e, if it has one
//!  the user must be the same, or root
//!  sends its sockets           ── given ────────▶
//!                              ── end ──────────▶  binds what is missing, prepares all that may fail
//!                              ◀── ready ────────
//!  stops accepting; answers what was sent;
//!  closes connections; writes the image
//!  sends what else it keeps    ── given ────────▶
//!                              ── end ──────────▶  makes or loads its memory, serves
//!  exits                       ◀── serving ──────
//! ```
//! Until the new server is ready, the old one serves as if nothing were. If the connection ends before, it goes on. If it ends
//! later, each side goes its way alone: the new one serves with what it has, and the old one exits.
//!
//! The socket is abstract: it has no file, and the system removes it with its last descriptor. It is one of the sockets that
//! the new server gets, so there is never a moment without one, and of two new servers the second takes over from the first.
//! Each message is one packet (`SOCK_SEQPACKET`), so that neither side can make the other wait for its rest.

use super::handover::Descriptor;
use super::rights;
use nix::unistd::Uid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// The first line of the request. Its number changes with the messages.
const REQUEST: &[u8] = b"take-over 1\n";
/// The first line of a message that carries descriptors. Each further line is the name of one.
const GIVEN: &[u8] = b"given\n";
/// The last descriptors have been sent. The process id of the old server follows.
const END: &[u8] = b"end\n";
/// The new server is ready: from now on the old one ends.
const READY: &[u8] = b"ready\n";
/// The new server serves.
const SERVING: &[u8] = b"serving\n";
/// The longest message, in bytes: the names of as many descriptors as fit into one.
const MESSAGE_MAX: usize = 32 << 10;
/// Servers that may wait to take over.
const BACKLOG: i32 = 8;
/// How long the old server waits for the request of a new one.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long the old server waits until a new one is ready.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long the new server waits for the sockets of the old one. The old one may be busy with another.
const SOCKETS_MAX: Duration = Duration::from_secs(120);
/// How long the old server stays until the new one serves.
const SERVING_MAX: Duration = Duration::from_secs(60);
/// A wait looks this often whether it is to end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The name by which servers of this user with this address find each other.
pub fn name(address: &OsStr) -> String {
    format!("corecached-take-over-{}-{:016x}", nix::unistd::geteuid(), xxh3_64(address.as_bytes()))
}

fn at(name: &str) -> io::Result<SockAddr> {
    SockAddr::unix(Path::new(&format!("\0{name}")))
}

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::SEQPACKET, None)
}

/// Whether the process at the other end may have everything that this one has.
fn is_trusted(user: Uid) -> bool {
    user.is_root() || user == nix::unistd::geteuid()
}

/// The user and the process at the other end.
fn peer(socket: &Socket) -> io::Result<(Uid, i32)> {
    let peer = socket_peercred(socket)?;
    Ok((Uid::from_raw(peer.uid.as_raw()), peer.pid.as_raw_nonzero().get()))
}

/// The names and the descriptors of a message.
fn descriptors(message: &[u8], fds: Vec<OwnedFd>) -> Option<Vec<Descriptor>> {
    let names = std::str::from_utf8(message.strip_prefix(GIVEN)?).ok()?;
    let names: Vec<&str> = names.lines().collect();
    let named = names.len() == fds.len();
    named.then(|| names.into_iter().zip(fds).map(|(name, fd)| Descriptor { name: name.to_owned(), fd }).collect())
}

/// Sends descriptors and the end of them.
fn give(socket: &Socket, given: &[Descriptor]) -> io::Result<()> {
    for some in given.chunks(rights::DESCRIPTORS_MAX) {
        let mut message = GIVEN.to_vec();
        for Descriptor { name, .. } in some {
            message.extend_from_slice(name.as_bytes());
            message.push(b'\n');
        }
        let fds: Vec<_> = some.iter().map(|it| it.fd.as_fd()).collect();
        rights::send(socket, &message, &fds)?;
    }
    rights::send(socket, &[END, process::id().to_string().as_bytes()].concat(), &[])
}

/// Waits for a message. `goes_on` is asked again and again whether to wait on.
fn wait_for(socket: &Socket, mut goes_on: impl FnMut() -> bool) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    loop {
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) if goes_on() => {}
            Ok(0) | Err(rustix::io::Errno::INTR) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => return rights::receive(socket, MESSAGE_MAX),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives descriptors up to the end of them, and the process id of the sender.
fn take(socket: &Socket, mut goes_on: impl FnMut() -> bool) -> io::Result<(Vec<Descriptor>, String)> {
    let mut all = Vec::new();
    loop {
        let (message, fds) = wait_for(socket, &mut goes_on)?;
        if let Some(pid) = message.strip_prefix(END) {
            return Ok((all, String::from_utf8_lossy(pid).into_owned()));
        }
        if message.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        all.extend(descriptors(&message, fds).ok_or_else(|| io::Error::other("it does not speak our language"))?);
    }
}

/// The server that this one takes over from. It serves until [`Predecessor::end`].
#[derive(Debug)]
pub struct Predecessor {
    socket: Socket,
    pid: String,
}

impl Predecessor {
    /// Asks a running server that offers one of these names for its sockets. `memory_file` is the file of `-e`, as an
    /// absolute path: if the old server has the same one, it will write its image there. `goes_on` is asked again and
    /// again whether to wait. None: no such server of this user runs.
    ///
    /// # Errors
    /// When there is such a server, but it gives no sockets.
    pub fn find(
        names: &[String],
        memory_file: Option<&Path>,
        mut goes_on: impl FnMut() -> bool,
    ) -> io::Result<Option<(Predecessor, Vec<Descriptor>)>> {
        let Some(socket) = names.iter().find_map(|name| connect(name)) else { return Ok(None) };
        let file = memory_file.map_or(OsStr::new(""), Path::as_os_str);
        rights::send(&socket, &[REQUEST, file.as_bytes()].concat(), &[])?;
        let begun = Instant::now();
        let (sockets, pid) = take(&socket, || begun.elapsed() < SOCKETS_MAX && goes_on())?;
        Ok(Some((Predecessor { socket, pid }, sockets)))
    }

    /// The process id of the old server.
    pub fn pid(&self) -> &str {
        &self.pid
    }

    /// Tells the old server to end, and waits until it has ended its work: no connection is open, the image of `-e` is
    /// written. Returns what it keeps besides its sockets, by name. Call [`Predecessor::leave`] when this server serves.
    ///
    /// # Errors
    /// Before the old server has begun to end, when it is gone or waits no more; `TimedOut` when `goes_on` says so.
    pub fn end(&self, mut goes_on: impl FnMut() -> bool) -> io::Result<Vec<Descriptor>> {
        rights::send(&self.socket, READY, &[])?;
        match take(&self.socket, &mut goes_on) {
            Ok((kept, _)) => Ok(kept),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(error),
            Err(error) => {
                log::warn!("the server before (process {}) has ended without a word: {error}", self.pid);
                Ok(Vec::new())
            }
        }
    }

    /// Lets the old server exit.
    pub fn leave(self) {
        // If it is gone, it need not know.
        let _ = rights::send(&self.socket, SERVING, &[]);
    }
}

fn connect(name: &str) -> Option<Socket> {
    let socket = at(name).and_then(|address| {
        let socket = socket()?;
        socket.connect(&address)?;
        Ok(socket)
    });
    let socket = socket.ok()?;
    let (user, pid) = peer(&socket).ok()?;
    if !is_trusted(user) {
        log::warn!("--take-over: process {pid} of user {user} has taken our name");
        return None;
    }
    Some(socket)
}

/// The beginning of the names of the sockets of an [`Offer`] among those that are handed over.
const OFFER: &str = "take-over-";

/// The sockets where new servers ask this one for its sockets.
#[derive(Debug, Default)]
pub struct Offer {
    sockets: Vec<(String, Socket)>,
}

impl Offer {
    /// Listens at these names: at the sockets among `given`, or at new ones. Drops the other sockets of offers.
    pub fn new(names: &[String], given: &mut Vec<Descriptor>) -> Offer {
        let mut inherited: Vec<Descriptor> = given.extract_if(.., |it| it.name.starts_with(OFFER)).collect();
        let mut sockets = Vec::new();
        for name in names {
            let at_name = inherited.iter().position(|it| it.name.strip_prefix(OFFER) == Some(name));
            let socket = match at_name {
                Some(at) => Ok(Socket::from(inherited.swap_remove(at).fd)),
                None => listen(name),
            };
            match socket {
                Ok(socket) => sockets.push((name.clone(), socket)),
                // The server serves all the same.
                Err(error) => log::warn!("--take-over: no other server will be able to take over from here: {error}"),
            }
        }
        Offer { sockets }
    }

    /// The sockets, to be waited at.
    pub fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().map(|(_, socket)| socket)
    }

    /// Second descriptors of the sockets, for the next server.
    ///
    /// # Errors
    /// When the system has no descriptors.
    pub fn descriptors(&self) -> io::Result<Vec<Descriptor>> {
        let descriptor = |(name, socket): &(String, Socket)| {
            let fd = rustix::io::fcntl_dupfd_cloexec(socket, 0)?;
            Ok(Descriptor { name: format!("{OFFER}{name}"), fd })
        };
        self.sockets.iter().map(descriptor).collect()
    }

    /// The next server that wants to take over. Does not wait.
    pub fn next(&self) -> Option<Successor> {
        for (_, socket) in &self.sockets {
            while let Ok((socket, _)) = socket.accept() {
                match peer(&socket) {
                    Ok((user, pid)) if is_trusted(user) && socket.set_nonblocking(true).is_ok() => {
                        let deadline = Instant::now() + REQUEST_MAX;
                        return Some(Successor { socket, pid, state: State::Asks, deadline });
                    }
                    Ok((user, pid)) => log::warn!("process {pid} of user {user} may not take over"),
                    Err(error) => log::warn!("--take-over: {error}"),
                }
            }
        }
        None
    }
}

fn listen(name: &str) -> io::Result<Socket> {
    let socket = socket()?;
    socket.set_nonblocking(true)?;
    socket.bind(&at(name)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A server that takes over from this one.
#[derive(Debug)]
pub struct Successor {
    socket: Socket,
    pid: i32,
    state: State,
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    /// Its request has not come yet.
    Asks,
    /// It has the sockets, and prepares itself. With its file of `-e`.
    Prepares(Option<PathBuf>),
}

/// What a new server has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// It needs time.
    Waits,
    /// It does not take over: this server goes on.
    Gone,
    /// It is ready, and this server must end. With the file of `-e` of the new one.
    IsReady(Option<PathBuf>),
}

impl Successor {
    /// The socket, to be waited at.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The process id of the new server.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The time until this server waits for it no longer.
    pub fn wait(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// Does what can be done without waiting. `given` are the sockets that the new server gets.
    pub fn advance(&mut self, given: &[Descriptor]) -> Progress {
        loop {
            let message = match rights::receive(&self.socket, MESSAGE_MAX) {
                Ok((message, _)) => message,
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < self.deadline => {
                    return Progress::Waits;
                }
                Err(error) => return self.gone(&error.to_string()),
            };
            match (&mut self.state, message) {
                (_, message) if message.is_empty() => return self.gone("it has ended"),
                (State::Asks, message) => {
                    let Some(file) = message.strip_prefix(REQUEST) else {
                        return self.gone("it does not speak our language");
                    };
                    if let Err(error) = give(&self.socket, given) {
                        return self.gone(&error.to_string());
                    }
                    let file = Some(PathBuf::from(OsString::from(OsStr::from_bytes(file))));
                    self.state = State::Prepares(file.filter(|file| !file.as_os_str().is_empty()));
                    self.deadline = Instant::now() + READY_MAX;
                }
                (State::Prepares(file), message) if message == READY => return Progress::IsReady(file.take()),
                (State::Prepares(_), _) => return self.gone("it does not speak our language"),
            }
        }
    }

    fn gone(&self, why: &str) -> Progress {
        log::warn!("process {} does not take over: {why}", self.pid);
        Progress::Gone
    }

    /// Tells the new server that this one has ended its work, and gives it what this one keeps besides its sockets. Returns
    /// when the new one serves, or is gone, or is slow.
    pub fn end(&self, kept: &[Descriptor]) {
        let begun = Instant::now();
        let told = self.socket.set_nonblocking(false).and_then(|()| give(&self.socket, kept));
        let served = told.and_then(|()| wait_for(&self.socket, || begun.elapsed() < SERVING_MAX));
        match served {
            Ok((message, _)) if message == SERVING => log::info!("process {} serves", self.pid),
            Ok(_) => log::warn!("process {} has ended before it served", self.pid),
            Err(error) => log::warn!("process {} does not say that it serves: {error}", self.pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    fn new_name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        name(OsStr::new(&format!("test {} {number}", process::id())))
    }

    fn files(names: &[&str]) -> Vec<Descriptor> {
        let file = || std::fs::File::open("/dev/null").expect("it is there").into();
        names.iter().map(|&name| Descriptor { name: name.to_owned(), fd: file() }).collect()
    }

    fn names(descriptors: &[Descriptor]) -> Vec<&str> {
        descriptors.iter().map(|it| &*it.name).collect()
    }

    fn successor(offer: &Offer) -> Successor {
        loop {
            if let Some(successor) = offer.next() {
                return successor;
            }
            thread::yield_now();
        }
    }

    fn advance(successor: &mut Successor, given: &[Descriptor]) -> Progress {
        loop {
            match successor.advance(given) {
                Progress::Waits => thread::yield_now(),
                progress => return progress,
            }
        }
    }

    #[test]
    fn all_descriptors_go_over_and_so_does_the_offer() {
        let wanted = [new_name(), new_name()];
        let offer = Offer::new(&wanted[..1], &mut Vec::new());
        assert!(offer.next().is_none());
        let many: Vec<String> = (0..150).map(|number| format!("kept-cache-{number}")).collect();
        let mut given = files(&many.iter().map(String::as_str).collect::<Vec<_>>());
        given.extend(offer.descriptors().expect("there are descriptors"));
        thread::scope(|scope| {
            let new = scope.spawn(|| {
                let names = [wanted[1].clone(), wanted[0].clone()];
                let found = Predecessor::find(&names, Some(Path::new("/image")), || true).expect("it answers");
                let (old, mut sockets) = found.expect("the second name is offered");
                assert_eq!(old.pid(), process::id().to_string());
                let offer = Offer::new(&wanted, &mut sockets);
                assert_eq!(sockets.iter().map(|it| it.name.clone()).collect::<Vec<_>>(), many);
                let kept = old.end(|| true).expect("it ends");
                assert_eq!(super::tests::names(&kept), ["kept-memory"]);
                old.leave();
                offer
            });
            let mut successor = successor(&offer);
            assert_eq!(advance(&mut successor, &given), Progress::IsReady(Some("/image".into())));
            successor.end(&files(&["kept-memory"]));
            drop((offer, given));
            let offer = new.join().expect("the new server");
            assert_eq!(offer.sockets().count(), 2);
            // The socket is the same one, so it can be bound by nobody else.
            assert!(listen(&wanted[0]).is_err());
        });
    }

    #[test]
    fn a_server_goes_on_when_the_other_is_none_or_does_not_get_ready() {
        let wanted = [new_name()];
        let found = Predecessor::find(&wanted, None, || true).expect("nobody is no error");
        assert!(found.is_none());
        let offer = Offer::new(&wanted, &mut Vec::new());
        let given = files(&["kept-cache-1"]);
        for message in [&b"garbage"[..], b"", &[b'x'; 2 * MESSAGE_MAX]] {
            let socket = connect(&wanted[0]).expect("it is offered");
            rights::send(&socket, message, &[]).expect("there is room");
            assert_eq!(advance(&mut successor(&offer), &given), Progress::Gone, "{}", message.len());
        }
        thread::scope(|scope| {
            // It gets the sockets, and fails before it is ready.
            scope.spawn(|| drop(Predecessor::find(&wanted, None, || true)));
            assert_eq!(advance(&mut successor(&offer), &given), Progress::Gone);
        });
        // One that says nothing is dropped in time.
        let _silent = connect(&wanted[0]).expect("it is offered");
        let mut successor = successor(&offer);
        assert_eq!(successor.advance(&given), Progress::Waits);
        assert!(successor.wait(Instant::now()) <= REQUEST_MAX);
        successor.deadline = Instant::now();
        assert_eq!(successor.advance(&given), Progress::Gone);
    }

    #[test]
    fn only_root_and_the_same_user_are_trusted() {
        let own = nix::unistd::geteuid().as_raw();
        for (user, expected) in [(own, true), (0, true), (own + 1, false), (65534, own == 65534)] {
            assert_eq!(is_trusted(Uid::from_raw(user)), expected, "{user}");
        }
    }

    #[test]
    fn a_new_server_waits_no_longer_than_it_wants() {
        let wanted = [new_name()];
        let offer = Offer::new(&wanted, &mut Vec::new());
        let error = Predecessor::find(&wanted, None, || false).expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        thread::scope(|scope| {
            let new = scope.spawn(|| {
                let (old, _) = Predecessor::find(&wanted, None, || true).expect("it answers").expect("it is offered");
                // An old server that ends without a word is no error: its sockets are here.
                assert_eq!(names(&old.end(|| true).expect("it has ended")), [""; 0]);
            });
            // The first one in the queue is the one that gave up.
            assert_eq!(advance(&mut successor(&offer), &[]), Progress::Gone);
            let mut successor = successor(&offer);
            assert_eq!(advance(&mut successor, &[]), Progress::IsReady(None));
            drop(successor);
            new.join().expect("the new server");
        });
    }
}
