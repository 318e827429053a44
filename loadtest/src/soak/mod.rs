//! A soak: for an hour, or another time, one server after the other serves clients of every kind ("guests"),
//! well-behaved and rude. Each server ends by a graceful restart, which keeps the cache, or by a kill, which loses it.
//! The soak checks every value that a guest reads. Twice in the life of each server the guests leave, and the server
//! must release all that it held for them.
//!
//! ```text
//!        guests come      rest    guests come     rest    guests come
//! start ─────────────────▶ measure ──────────────▶ measure ───────────▶ restart or kill, under load ─▶ start …
//! ```
//! Every guest pauses after each step, which bounds the load. [`world`] is the state that guests share, [`link`] has
//! their connections, [`keeper`] and [`guests`] are the guests, and [`verdict`] is the report.

mod guests;
mod keeper;
mod link;
mod verdict;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::certificate::Certificate;
use crate::program::Program;
use crate::server::{self, Ports, Server};
use guests::{Datagrams, Filler, HalfSender, SlowReader, Steward, Visitor};
use keeper::Keeper;
use link::Doors;
use verdict::{Rest, Verdict};
use world::{EndOfWorld, FILLER_BYTES, Fillers, World};

const KEEPERS: u64 = 4;
const KEEPER_PAUSE: Duration = Duration::from_micros(500);
const FILLERS: u64 = 2;
/// Total size of the fillers' values, as a multiple of the memory.
const OVERFILL: u64 = 3;

/// Number of lives of servers in a soak, the minimum length of a life, and the minimum number of lives: one for each
/// kind of end, and a successor to each.
const LIVES: u32 = 12;
const LIFE_MIN: Duration = Duration::from_secs(5);
const LIVES_MIN: u64 = 4;
/// On a slow machine, a soak takes at most this many times its set length.
const LONGER_MAX: u32 = 10;
/// Shares of a life before its first rest, and before its second.
const RESTS: [f64; 2] = [0.45, 0.9];

/// Maximum times until guests have left, until a server has released what it held for them, and until it has ended.
const LEAVE_MAX: Duration = Duration::from_secs(60);
const SETTLE_MAX: Duration = Duration::from_secs(30);
const END_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);
/// Pages and index of the cache lie in mappings of their own. Even the smallest cache of a soak has larger mappings
/// than this.
const CACHE_MAPPING_MIN: u64 = 100 << 20;
/// Time before the first measurement, because the server counts its buffers once a second.
const FIRST_COUNT: Duration = Duration::from_millis(2500);

/// Parameters of a soak.
#[derive(Debug)]
pub struct Soak {
    /// Starts the server; the soak appends further options.
    pub command: String,
    pub megabytes: u64,
    pub time: Duration,
    pub quiet: bool,
}

/// The memory file of the servers, in a folder of its own. Dropping the value deletes it.
struct Image(PathBuf);

impl Image {
    fn new() -> Result<Image, String> {
        let folder = std::env::temp_dir().join(format!("loadtest-soak-{}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Image(folder))
    }

    fn path(&self) -> PathBuf {
        self.0.join("image")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // If the folder stays, only an unused cache image is left in it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Soak {
    /// Soaks until the time is over or `stop` is set. `Verdict::failure` says why the soak could not go on, for example
    /// because a server ended by itself.
    pub fn run(&self, stop: &AtomicBool) -> Result<Verdict, String> {
        let (image, certificate) = (Image::new()?, Certificate::new()?);
        let flags = certificate.flags();
        let port = server::lasting_ports(Ports::Tls.count()).map_err(|error| format!("no free port: {error}"))?;
        let program = Program::memcached(format!(
            "{} -m {} -U {} -e {} -Z{flags}",
            self.command,
            self.megabytes,
            port + 1,
            Path::new(&image.path()).display()
        ));
        let start = || Server::start_at(&program, port, Ports::Tls, None, stop);
        let doors = Doors {
            tls: ([127, 0, 0, 1], port).into(),
            plain: ([127, 0, 0, 1], port + 1).into(),
            config: Arc::new(certificate.client(false)?),
        };
        let world = World::new(doors);
        let life_time = (self.time / LIVES).max(LIFE_MIN);
        let begun = Instant::now();
        let mut verdict = Verdict::default();
        let soaked = thread::scope(|scope| {
            let mut server = start()?;
            // This ends the guests, and is dropped before the server.
            let _end = EndOfWorld(&world);
            self.invite(scope, &world);
            thread::sleep(FIRST_COUNT);
            verdict.start = measure(&mut server)?;
            loop {
                verdict.kept += server.stat("curr_items").unwrap_or(0);
                world.opens();
                let goes_on = self.live(&mut server, &world, life_time, &mut verdict, stop)?;
                let left = self.time.saturating_sub(begun.elapsed());
                if stop.load(Relaxed) || !goes_on {
                    break;
                }
                // The last server ends gracefully too, and has no successor.
                let tried = verdict.has_tried_all(&world.tally) || begun.elapsed() > self.time * LONGER_MAX;
                let last = left < life_time / 2 && world.life() >= LIVES_MIN && tried;
                server = match self.end(server, &world, last, &image)? {
                    true => break,
                    false => start()?,
                };
            }
            Ok(())
        });
        verdict.interrupted = stop.load(Relaxed);
        verdict.time = begun.elapsed();
        verdict.failure = soaked.err();
        verdict.complaints = world.complaints();
        verdict.tally = world.tally;
        Ok(verdict)
    }

    /// Starts the threads of the guests, which wait until a server opens.
    fn invite<'scope, 'env>(&self, scope: &'scope thread::Scope<'scope, 'env>, world: &'env World) {
        let fillers = Fillers { count: OVERFILL * (self.megabytes << 20) / FILLER_BYTES };
        for number in 0..KEEPERS {
            scope.spawn(move || world.host(Keeper::new(number, number % 2 == 1, KEEPER_PAUSE)));
        }
        for number in 0..FILLERS {
            scope.spawn(move || world.host(Filler::new(100 + number, fillers)));
        }
        scope.spawn(move || world.host(SlowReader::new(200, fillers)));
        scope.spawn(move || world.host(HalfSender::new(300)));
        scope.spawn(move || world.host(Visitor::new(400, fillers)));
        scope.spawn(move || world.host(Datagrams::new(500, fillers)));
        let megabytes = self.megabytes;
        scope.spawn(move || world.host(Steward::new(megabytes)));
    }

    /// One life, except for its end. Returns false if the soak must stop.
    fn live(
        &self,
        server: &mut Server,
        world: &World,
        time: Duration,
        verdict: &mut Verdict,
        stop: &AtomicBool,
    ) -> Result<bool, String> {
        let begun = Instant::now();
        let mut rests = Vec::new();
        for share in RESTS.into_iter().chain([1.0]) {
            world.pause(false);
            while begun.elapsed() < time.mul_f64(share) {
                server.check()?;
                if stop.load(Relaxed) {
                    return Ok(false);
                }
                thread::sleep(LOOK);
            }
            if share < 1.0 {
                world.pause(true);
                until("all guests have gone", LEAVE_MAX, || world.active() == 0)?;
                let rest = rest(server, &verdict.start)?;
                if !self.quiet {
                    eprintln!("life {}: {rest}", world.life());
                }
                rests.push(rest);
            }
        }
        verdict.evictions += server.stat("evictions").unwrap_or(0);
        verdict.lives.push(rests);
        Ok(true)
    }

    /// Ends a server under load, gracefully and by a kill in turn. Returns true if it was the last server.
    fn end(&self, mut server: Server, world: &World, last: bool, image: &Image) -> Result<bool, String> {
        let kills = world.life().is_multiple_of(2) && !last;
        world.closes();
        if kills {
            drop(server);
            world.forgotten.up();
            world.tally.kills.up();
            if image.path().exists() {
                return Err("there is an image of a server that was killed".into());
            }
            return Ok(false);
        }
        server.signal(libc::SIGUSR1);
        let mut ended = None;
        until("the server ends", END_MAX, || {
            ended = server.ended();
            ended.is_some()
        })?;
        match ended {
            Some(status) if status.success() && image.path().exists() => {}
            other => return Err(format!("the server ended ({other:?}) without an image{}", server.last_words())),
        }
        world.tally.warm_restarts.up();
        Ok(last)
    }
}

/// The resources of a server without guests, after it has released all that it can.
fn rest(server: &mut Server, start: &Rest) -> Result<Rest, String> {
    let begun = Instant::now();
    loop {
        let rest = measure(server)?;
        if rest.is_as_at(start) || begun.elapsed() > SETTLE_MAX {
            return Ok(rest);
        }
        thread::sleep(LOOK);
    }
}

fn measure(server: &mut Server) -> Result<Rest, String> {
    server.check()?;
    let number = |name: &str| server.stat(name).ok_or_else(|| format!("the server does not tell {name}"));
    let beside = server.memory_besides(CACHE_MAPPING_MIN);
    Ok(Rest {
        connections: number("curr_connections")?,
        buffers: number("read_buf_bytes")?,
        descriptors: server.descriptors().ok_or("the system does not tell the server's descriptors")?,
        beside_the_cache: beside.ok_or("the system does not tell how much memory the server has")?,
    })
}

fn until(what: &str, most: Duration, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > most {
            return Err(format!("it takes too long until {what}"));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
