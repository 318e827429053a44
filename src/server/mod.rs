//! A server from start to stop: bind, prepare the process, start the workers, hand them connections, stop in order.
//!
//! The main thread accepts: a new connection goes to the worker with the fewest, not to wherever a hash falls, so that a
//! dozen long-lived connections leave no core idle. Signals and `shutdown` arrive at the same poll.

pub mod restart;

mod acceptor;
mod bind;
mod memory;
mod users;

use crate::admin::{ServerContext, Settings};
use crate::auth::Auth;
use crate::command::Shard;
use crate::command::prefixes::Prefixes;
use crate::config::Config;
use crate::counters::{ServerCounters, UploadUse, WorkerCounters};
use crate::exit::{EXIT_NOT_KEPT, EXIT_SYSTEM, EXIT_USAGE, Exit};
use crate::hash::KeyHasher;
use crate::net::certificates::Certificates;
use crate::net::queues::Queues;
use crate::process::files::{self, PidFile};
use crate::process::supervisor::Supervisor;
use crate::process::{self, daemon, limits, user};
use crate::worker::broadcast::Broadcast;
use crate::worker::limits::ServeLimits;
use crate::worker::mailbox::{Exchange, Mail};
use crate::worker::uploads::Limit;
use crate::worker::{Worker, WorkerOptions};
use acceptor::{Acceptor, REQUESTS};
use bind::{
    BoundListener, UdpEndpoints, bind, bind_udp, inherited, tell_listeners, tell_that_it_is_for_this_machine,
    tell_that_replies_are_withheld, udp_addresses,
};
use crossbeam::queue::SegQueue;
use memory::{Memory, item_limits, shard_count, warm_or_cold};
use mio::{Poll, Waker};
use restart::MemoryFile;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;
use users::read_users;

/// Serves until INT, TERM or `shutdown`.
///
/// # Errors
/// What keeps the server from starting, or a graceful stop from keeping the cache, with the exit code for it.
pub fn run(mut config: Config) -> Result<(), Exit> {
    process::log::start(config.verbosity);
    let supervisor = Supervisor::from_environment();
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    limits::raise(&config)?;
    // Before anything is there that must be tidied up: a signal right after the start is no surprise.
    let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP])
        .map_err(|error| Exit::system("failed to take signals", error))?;
    daemon::name_files_from_the_root(&mut config)?;
    // While it may still read what only root may.
    let certificates = config.tls_enabled.then(|| Certificates::load(&config.tls)).transpose();
    let certificates = certificates.map_err(|line| Exit::failure(EXIT_USAGE, line))?;
    let inherited = inherited(&config)?;
    let is_bound_by_us = inherited.is_none();
    let (listeners, endpoints) = match inherited {
        Some(sockets) => sockets,
        None => (bind(&config)?, bind_udp(&config)?),
    };
    limits::fit_connections(&mut config)?;
    let auth = read_users(&config).map_err(|why| Exit::failure(1, why))?.map(Auth::new);
    if let Some(path) = &config.port_file {
        let ports = listeners.iter().filter_map(|listener| Some(("TCP", listener.listener.tcp_address()?)));
        let ports = ports.chain(udp_addresses(&config, &endpoints).map(|address| ("UDP", address)));
        files::write_port_file(path, ports).map_err(|error| Exit::system(&format!("{}", path.display()), error))?;
    }
    let tell = || {
        if is_bound_by_us {
            tell_that_it_is_for_this_machine(&config, &listeners, &endpoints);
        }
        tell_that_replies_are_withheld(&config, &endpoints);
    };
    if config.daemonize {
        // Afterwards nobody would see it.
        tell();
    }
    daemon::daemonize(&config)?;
    user::drop_privileges(&config)?;
    if !config.daemonize {
        tell();
    }
    let _pid_file = config.pid_file.as_deref().and_then(PidFile::write);
    serve(&config, auth.as_ref(), listeners, endpoints, certificates, signals, &supervisor)?;
    log::info!("Exiting normally");
    Ok(())
}

fn serve_limits(config: &Config) -> ServeLimits {
    ServeLimits {
        parse: item_limits(config),
        group_len: config.group_len,
        output_max: config.output_high_water_bytes,
        requests_per_turn: config.requests_per_event as usize,
        cut_groups: config.requests_per_event < Config::REQUESTS_PER_EVENT,
        batch_bytes_max: config.mailbox_batch_bytes,
        keep_keys: config.port_per_core,
    }
}

fn serve(
    config: &Config,
    auth: Option<&Auth>,
    listeners: Vec<BoundListener>,
    endpoints: UdpEndpoints,
    certificates: Option<Certificates>,
    signals: Signals,
    supervisor: &Supervisor,
) -> Result<(), Exit> {
    let shards = shard_count(config);
    let hasher = KeyHasher::random().map_err(|error| Exit::system("random bits for the hash of keys", error))?;
    let memory_file = match &config.memory_file {
        Some(path) => {
            Some(MemoryFile::claim(path).map_err(|error| Exit::system(&format!("-e {}", path.display()), error))?)
        }
        None => None,
    };
    let (memory, clock) = warm_or_cold(config, shards, &hasher, memory_file.as_ref(), supervisor)?;
    let Memory { stores, items, budget } = memory;
    let classes = stores[0].snapshot().classes;
    let shard = |(number, store)| {
        let prefixes = config.detail_enabled.then(|| Prefixes::new(config.prefix_delimiter, config.prefixes_max));
        Shard { number: number as u16, store, limits: item_limits(config), prefixes }
    };
    let uploads = Limit::Share {
        budget: Arc::clone(&budget),
        percent: config.uploads_percent,
        item_size_max: config.item_size_max,
    };
    let exchange = Exchange::new(stores.into_iter().enumerate().map(shard).collect(), config.threads, uploads);
    if config.lock_memory {
        limits::lock_memory();
    }
    let settings = Settings::new(config);
    let workers: Vec<WorkerCounters> = (0..config.threads).map(|_| WorkerCounters::default()).collect();
    let server = ServerCounters::default();
    let addresses: Vec<(i32, String)> =
        listeners.iter().map(|BoundListener { listener, .. }| (listener.fd(), listener.to_string())).collect();
    let poll = Poll::new().map_err(|error| Exit::system("failed to wait for events", error))?;
    let waker =
        Waker::new(poll.registry(), REQUESTS).map_err(|error| Exit::system("failed to wait for events", error))?;
    let stopped = AtomicBool::new(false);
    let gracefully = AtomicBool::new(false);
    let stop = |graceful: bool| {
        gracefully.fetch_or(graceful, Ordering::Relaxed);
        stopped.store(true, Ordering::Relaxed);
        if let Err(error) = waker.wake() {
            log::error!("shutdown could not be passed on: {error}");
        }
    };
    // As many as there are connections at most: each waits for its answer.
    let refreshes = SegQueue::new();
    let refresh = |broadcast: Arc<Broadcast>| {
        refreshes.push(broadcast);
        if let Err(error) = waker.wake() {
            log::error!("refresh_certs could not be passed on: {error}");
        }
    };
    let options = |number: usize| WorkerOptions {
        number,
        exchange: &exchange,
        context: ServerContext {
            config,
            settings: &settings,
            clock: &clock,
            budget: &budget,
            auth,
            workers: &workers,
            listeners: &addresses,
            server: &server,
            worker: number,
            uploads: UploadUse::default(),
        },
        hasher: hasher.clone(),
        items: items.clone(),
        limits: serve_limits(config),
        stop: &stop,
        refresh: &refresh,
    };
    let cores = if config.pin { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
    let udp_sockets: usize = endpoints.iter().map(Vec::len).sum();
    tell_listeners(&listeners, &endpoints);
    let make = |(number, endpoints)| {
        let mut worker = Worker::new(options(number))?;
        worker.take_gates(endpoints)?;
        Ok(worker)
    };
    let made: io::Result<Vec<Worker<'_>>> = endpoints.into_iter().enumerate().map(make).collect();
    let made = made.map_err(|error| Exit::system("failed to start a worker", error))?;
    for class in &classes {
        let (id, usage) = (class.id.0, class.usage);
        log::debug!("slab class {id:3}: chunk size {:9} perslab {:7}", usage.chunk_size, usage.chunks_per_page);
    }
    log::info!("{shards} shards, {} workers, {} pages", config.threads, budget.limit());
    let graceful = thread::scope(|scope| {
        for (number, worker) in made.into_iter().enumerate() {
            let core = cores.get(number % cores.len().max(1)).copied();
            let run = move || {
                if let Some(core) = core
                    && !core_affinity::set_for_current(core)
                {
                    log::warn!("worker {number} could not be pinned to core {}", core.id);
                }
                if let Err(error) = worker.run() {
                    log::error!("worker {number} failed: {error}");
                    std::process::exit(i32::from(EXIT_SYSTEM));
                }
            };
            let spawned = thread::Builder::new().name(format!("worker-{number}")).spawn_scoped(scope, run);
            if let Err(error) = spawned {
                // Those that run would never end.
                log::error!("failed to start worker {number}: {error}");
                std::process::exit(i32::from(EXIT_SYSTEM));
            }
        }
        supervisor.ready();
        let acceptor = Acceptor {
            config,
            auth,
            exchange: &exchange,
            workers: &workers,
            server: &server,
            cores: &cores,
            clock: &clock,
            refreshes: &refreshes,
            watchdog: supervisor.watchdog(Instant::now()),
            listeners,
            udp_sockets,
            certificates,
            queues: (config.napi_ids > 0).then(|| RefCell::new(Queues::new(config.napi_ids))),
            poll,
        };
        let result = acceptor.run(signals, &stopped, &gracefully);
        supervisor.stopping();
        for worker in 0..config.threads {
            exchange.mail(worker, Mail::Stop);
        }
        result
    })
    .map_err(|error| Exit::system("failed to accept connections", error))?;
    if graceful && let Some(file) = memory_file {
        if config.lock_memory {
            // Locked pages could not be given back on the way.
            limits::unlock_memory();
        }
        let save = || file.save(&exchange, &clock, if config.port_per_core { shards as u32 } else { 0 });
        supervisor
            .during("writing the cache", file.bytes(), save)
            .map_err(|line| Exit::failure(EXIT_NOT_KEPT, line))?;
    }
    Ok(())
}
