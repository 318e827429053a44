//! `stampede`: many clients want one value that expires again and again, and ask a database when the cache does not have it.
//! How often do they ask at once, with each protection?
//!
//! The database is a pause. Every protection has a key and clients of its own, and all of them load one server at the same
//! time, without disturbing each other: the clients pause between their requests.

mod client;
mod database;
mod protection;
mod verdict;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::program::Program;
use crate::server::{Ports, Server, lasting_ports};

use client::Client;
use database::Database;
use protection::Protection;
pub use verdict::Verdict;

/// How often the invalidator looks whether the time is over.
const TICK: Duration = Duration::from_millis(50);

/// What `loadtest stampede` is to do.
pub struct Stampede {
    /// The command of the server, without ports and rules.
    pub command: String,
    /// The clients of each protection.
    pub clients: usize,
    /// How long a value lives.
    pub ttl_seconds: u32,
    /// How long before its end one client may ask the database.
    pub early_seconds: u32,
    /// How long the database takes to answer.
    pub database: Duration,
    /// How long the load lasts.
    pub time: Duration,
}

impl Stampede {
    /// Runs the load. A signal ends it early.
    pub fn run(&self, stop: &AtomicBool) -> Result<Verdict, String> {
        let rule = format!(" --ttl '{}: early={}s'", Protection::Early.name(), self.early_seconds);
        let port = lasting_ports(1).map_err(|error| format!("no free port: {error}"))?;
        let server =
            Server::start_at(&Program::memcached(&self.command).with(&rule), port, Ports::Plain(1), None, stop)?;
        let databases: Vec<Database> = Protection::ALL.iter().map(|_| Database::new(self.database)).collect();
        for protection in Protection::ALL {
            self.connect(&server, protection)?.store()?;
        }
        let mut clients = Vec::new();
        for (protection, database) in Protection::ALL.into_iter().zip(&databases) {
            for number in 0..self.clients {
                clients.push((number, self.connect(&server, protection)?, database));
            }
        }
        let mut invalidator = self.connect(&server, Protection::Stale)?;
        let end = Instant::now() + self.time;
        let goes_on = &|| Instant::now() < end && !stop.load(Relaxed);
        thread::scope(|scope| {
            let threads: Vec<_> = clients
                .into_iter()
                .map(|(number, mut client, database)| scope.spawn(move || client.load(number, database, goes_on)))
                .collect();
            let invalidated = scope.spawn(move || self.invalidate(&mut invalidator, goes_on));
            threads.into_iter().chain([invalidated]).try_for_each(|thread| thread.join().expect("no client panics"))
        })?;
        let pause = Duration::from_secs(u64::from(self.ttl_seconds - self.early_seconds)) / 2;
        let counts = Protection::ALL.into_iter().zip(&databases).map(|(name, database)| (name, database.herds(pause)));
        Ok(Verdict { counts: counts.collect(), clients: self.clients, interrupted: stop.load(Relaxed) })
    }

    fn connect(&self, server: &Server, protection: Protection) -> Result<Client, String> {
        let stream = server.connect(0).map_err(|error| format!("no connection: {error}"))?;
        Client::new(stream, protection.requests(self.ttl_seconds, self.early_seconds))
    }

    /// Marks the value of the stale protection as stale once in each life.
    fn invalidate(&self, client: &mut Client, goes_on: &impl Fn() -> bool) -> Result<(), String> {
        let mut next = Instant::now() + Duration::from_secs(u64::from(self.ttl_seconds)) / 2;
        while goes_on() {
            if Instant::now() >= next {
                client.invalidate()?;
                next += Duration::from_secs(u64::from(self.ttl_seconds));
            }
            thread::sleep(TICK);
        }
        Ok(())
    }
}
