//! Messages to systemd, for a service of `Type=notify` (sd_notify(3)): that the server serves, that it stops, that it
//! is alive (`WatchdogSec=`), and that a long step is still under way.
//!
//! The passing of time alone does not cause a keep-alive: the server sends one only after every worker has opened a
//! ping. A worker opens its mail at the beginning of a turn. So when a worker hangs, in a turn or on a lock, the
//! keep-alives end, and systemd starts the service again.
//!
//! systemd also stores descriptors for the next start of the service (`FileDescriptorStoreMax=`): see
//! [`super::handover`]. It logs a line if it is not to store any, and the server learns nothing of it.

use super::rights;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net as unix;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{env, process, thread};

/// The longest time for which a long step may make no progress. The last sync of an image to a slow disk takes this
/// long at most.
const STANDSTILL_MAX: Duration = Duration::from_secs(300);
/// The server looks this often for progress, and reports it to systemd.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// The longest time that the server waits for the supervisor to read a message. Its end is no error: systemd before version
/// 246 does not say when it has read.
const READ_MAX: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// The supervisor that wants reports from the server, if one started it.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<OsString>,
    /// The supervisor starts the service again after this time without a keep-alive. `None`: it wants no keep-alives.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Finds the supervisor that the environment names. Call this before `-d` changes the process id.
    pub fn from_environment() -> Supervisor {
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us = env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(process::id().into());
        Supervisor {
            socket: env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
            watchdog: number("WATCHDOG_USEC").filter(|&micros| micros > 0 && is_for_us).map(Duration::from_micros),
        }
    }

    /// Reports that all sockets are bound and all workers run. The report names the process id, because `-d` changes
    /// it.
    pub fn ready(&self) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS=serving", process::id()));
    }

    /// Reports that the server stops in an orderly way.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// The watchdog, if the supervisor wants keep-alives.
    pub fn watchdog(&self, now: Instant) -> Option<Watchdog<'_>> {
        let silence_max = self.watchdog.filter(|_| self.socket.is_some())?;
        Some(Watchdog { supervisor: self, period: silence_max / 4, next: now, ping: 0, is_late: false })
    }

    /// Runs `work`, which may take longer than the supervisor waits. As long as `bytes` grows, the supervisor waits on.
    pub fn during<T>(&self, status: &str, bytes: &AtomicU64, work: impl FnOnce() -> T) -> T {
        if self.socket.is_none() {
            return work();
        }
        let (working, done) = channel::<()>();
        let tell = move || {
            let mut last = None;
            loop {
                let count = bytes.load(Ordering::Relaxed);
                if last != Some(count) {
                    let (micros, mebibytes) = (STANDSTILL_MAX.as_micros(), count >> 20);
                    self.tell(&format!("EXTEND_TIMEOUT_USEC={micros}\nSTATUS={status}, {mebibytes} MiB so far"));
                    last = Some(count);
                }
                if done.recv_timeout(EXTEND_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        thread::scope(|scope| {
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, tell) {
                log::warn!("NOTIFY_SOCKET: systemd may not wait long enough: {error}");
            }
            let result = work();
            drop(working);
            result
        })
    }

    /// Whether there is a supervisor that may store descriptors.
    pub fn has_store(&self) -> bool {
        self.socket.is_some()
    }

    /// Asks the supervisor to store descriptors under this name, and to hand them to the next start of the service, even if
    /// this process is killed. What is stored already is not stored twice. The name has up to 255 printable ASCII characters
    /// other than `:`. Without a supervisor nothing happens.
    ///
    /// # Errors
    /// When the supervisor cannot be reached. It does not say whether it stores them.
    pub fn store(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Without FDPOLL=0 systemd would drop a socket that reports an error.
        let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        descriptors.chunks(rights::DESCRIPTORS_MAX).try_for_each(|some| self.send(&message, some))
    }

    /// Asks the supervisor to close all descriptors that it has stored under this name.
    pub fn forget(&self, name: &str) {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    /// Waits until the supervisor has read everything that it was told so far, but no longer than some seconds.
    pub fn wait_until_read(&self) {
        if self.socket.is_none() {
            return;
        }
        // systemd closes the other end of the pipe when it has read the message.
        let wait = || {
            let (ours, theirs) = io::pipe()?;
            self.send("BARRIER=1", &[theirs.as_fd()])?;
            drop(theirs);
            poll(&mut [PollFd::new(&ours, PollFlags::empty())], Some(&READ_MAX))?;
            io::Result::Ok(())
        };
        if let Err(error) = wait() {
            log::warn!("{error}");
        }
    }

    fn tell(&self, what: &str) {
        if let Err(error) = self.send(what, &[]) {
            log::warn!("{error}");
        }
    }

    fn send(&self, what: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(name) = &self.socket else { return Ok(()) };
        let send = || {
            let address = match name.as_bytes() {
                [b'@', name @ ..] => unix::SocketAddr::from_abstract_name(name)?,
                _ => unix::SocketAddr::from_pathname(name)?,
            };
            let socket = unix::UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            rights::send(&socket, what.as_bytes(), descriptors)
        };
        send().map_err(|error| io::Error::new(error.kind(), format!("NOTIFY_SOCKET {}: {error}", name.display())))
    }
}

/// Sends keep-alives. The main thread sends numbered pings to all workers. When all workers have read its last one, it
/// tells the supervisor, and sends the next ping. It does this four times in the time after which the supervisor
/// starts the service again.
#[derive(Debug)]
pub struct Watchdog<'a> {
    supervisor: &'a Supervisor,
    period: Duration,
    next: Instant,
    /// The number of the last ping that was sent for the watchdog.
    ping: u64,
    /// A worker did not read the ping in time, and the supervisor was told.
    is_late: bool,
}

impl Watchdog<'_> {
    /// The time until [`Watchdog::look`] has work again.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// If it is time, sends a keep-alive and the next ping, or reports a worker that is late. `opened` gives, for
    /// each worker, the number of the last ping that it has read. `send` sends a ping to all workers, and returns its
    /// number, which is higher than those of the pings before.
    pub fn look(&mut self, now: Instant, mut opened: impl Iterator<Item = u64>, send: impl FnOnce() -> u64) {
        if now < self.next {
            return;
        }
        self.next = now + self.period;
        match opened.position(|ping| ping < self.ping) {
            None => {
                let status = if self.is_late { "\nSTATUS=serving" } else { "" };
                self.is_late = false;
                self.supervisor.tell(&format!("WATCHDOG=1{status}"));
                self.ping = send();
            }
            Some(worker) if !self.is_late => {
                self.is_late = true;
                // Tell systemd before the log: all threads may be waiting for the log.
                self.supervisor.tell(&format!("STATUS=worker {worker} does not answer"));
                log::error!("worker {worker} does not answer: the watchdog is not told that all is well");
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A supervisor, and the socket that receives its reports.
    fn heard() -> (Supervisor, unix::UnixDatagram) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("corecached-notify-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = unix::SocketAddr::from_abstract_name(&name).expect("short enough");
        let socket = unix::UnixDatagram::bind_addr(&address).expect("a name that nobody has");
        socket.set_nonblocking(true).expect("a socket of ours");
        let watchdog = Some(Duration::from_secs(40));
        (Supervisor { socket: Some(format!("@{name}").into()), watchdog }, socket)
    }

    fn next(socket: &unix::UnixDatagram) -> String {
        let mut buffer = [0; 200];
        match socket.recv(&mut buffer) {
            Ok(count) => String::from_utf8_lossy(&buffer[..count]).into_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    #[test]
    fn it_is_told_by_file_or_by_abstract_name() {
        let (by_name, name_socket) = heard();
        let path = env::temp_dir().join(format!("corecached-notify-{}", process::id()));
        let path_socket = unix::UnixDatagram::bind(&path).expect("a socket in the temporary directory");
        let by_path = Supervisor { socket: Some(path.clone().into_os_string()), watchdog: None };
        for (supervisor, socket) in [(by_name, name_socket), (by_path, path_socket)] {
            supervisor.ready();
            supervisor.stopping();
            assert_eq!(next(&socket), format!("READY=1\nMAINPID={}\nSTATUS=serving", process::id()));
            assert_eq!(next(&socket), "STOPPING=1\nSTATUS=stopping");
        }
        fs::remove_file(path).expect("it was bound");
        // The socket has no listener, or the environment names no socket. Neither is an error.
        Supervisor { socket: Some("/nonexistent".into()), watchdog: None }.ready();
        Supervisor { socket: None, watchdog: None }.ready();
        assert!(Supervisor { socket: None, watchdog: Some(EXTEND_EVERY) }.watchdog(Instant::now()).is_none());
    }

    #[test]
    fn descriptors_are_stored_by_name() {
        let (supervisor, socket) = heard();
        let file = fs::File::open("/dev/null").expect("it is there");
        let many = vec![file.as_fd(); rights::DESCRIPTORS_MAX + 1];
        supervisor.store("kept-a", &many).expect("somebody listens");
        supervisor.forget("kept-b");
        for count in [rights::DESCRIPTORS_MAX, 1] {
            let (message, descriptors) = rights::receive(&socket, 100).expect("a message waits");
            assert_eq!(String::from_utf8_lossy(&message), "FDSTORE=1\nFDNAME=kept-a\nFDPOLL=0");
            assert_eq!(descriptors.len(), count);
        }
        assert_eq!(next(&socket), "FDSTOREREMOVE=1\nFDNAME=kept-b");
        let nowhere = Supervisor { socket: Some("/nonexistent".into()), watchdog: None };
        assert!(nowhere.has_store() && nowhere.store("kept-a", &many).is_err());
        let none = Supervisor { socket: None, watchdog: None };
        assert!(!none.has_store() && none.store("kept-a", &many).is_ok());
    }

    #[test]
    fn keep_alives_need_every_worker() {
        let (supervisor, socket) = heard();
        let begun = Instant::now();
        let mut watchdog = supervisor.watchdog(begun).expect("it has one");
        // The columns: the second, the pings that two workers have read, the ping that goes out, the report.
        let mut last = 0;
        for (second, opened, sent, told) in [
            (0, [0, 0], Some(1), "WATCHDOG=1"),
            (9, [0, 0], None, "WouldBlock"),
            (10, [1, 1], Some(2), "WATCHDOG=1"),
            (19, [2, 2], None, "WouldBlock"),
            (25, [2, 2], Some(3), "WATCHDOG=1"),
            (35, [3, 2], None, "STATUS=worker 1 does not answer"),
            (45, [3, 2], None, "WouldBlock"),
            (55, [3, 3], Some(4), "WATCHDOG=1\nSTATUS=serving"),
            (65, [3, 4], None, "STATUS=worker 0 does not answer"),
            (66, [4, 4], None, "WouldBlock"),
            (75, [4, 4], Some(5), "WATCHDOG=1\nSTATUS=serving"),
            // The workers have read a later ping too, which somebody else has sent.
            (85, [5, 6], Some(6), "WATCHDOG=1"),
        ] {
            let mut ping = None;
            watchdog.look(begun + Duration::from_secs(second), opened.into_iter(), || {
                last += 1;
                ping = Some(last);
                last
            });
            assert_eq!((ping, next(&socket).as_str()), (sent, told), "second {second}");
        }
        assert_eq!(watchdog.wait(begun + Duration::from_secs(87)), Duration::from_secs(8));
    }

    #[test]
    fn it_waits_for_what_is_under_way() {
        let (supervisor, socket) = heard();
        socket.set_nonblocking(false).expect("a socket of ours");
        let bytes = AtomicU64::new(5 << 20);
        let answer = supervisor.during("loading", &bytes, || {
            assert_eq!(next(&socket), "EXTEND_TIMEOUT_USEC=300000000\nSTATUS=loading, 5 MiB so far");
            42
        });
        assert_eq!(answer, 42);
        assert_eq!(Supervisor { socket: None, watchdog: None }.during("loading", &bytes, || 43), 43);
    }
}
