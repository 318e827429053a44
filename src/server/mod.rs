//! A server from start to stop.
//!
//! 1. [`run`] prepares the process: its limits, sockets, users and files.
//! 2. `serve` makes the memory and the workers, and starts a thread for each worker.
//! 3. The main thread accepts connections. It gives each one to the worker that has the fewest, so that a dozen long-lived
//!    connections leave no core idle. Signals and `shutdown` wake the same poll.
//! 4. At the end the main thread stops the workers, and leaves the memory to the next server (`--keep-memory`), or writes the
//!    cache to the memory file if the end is graceful.
//!
//! The sockets may outlive the server: see `open` and `takeover`. So may the memory: see `kept`.

pub mod restart;

mod acceptor;
mod begin;
mod bind;
mod check;
mod kept;
mod memory;
mod nodes;
mod open;
mod requests;
mod shared;
mod takeover;
mod users;

use crate::admin::{Answer, ServerContext};
use crate::auth::Auth;
use crate::auth::checks::{CheckLimits, Checks};
use crate::auth::directory::Directory;
use crate::config::{self, Config, Listen};
use crate::exit::{EXIT_NOT_KEPT, EXIT_SYSTEM, EXIT_USAGE, Exit};
use crate::net::certificates::Certificates;
use crate::net::listener::Listener;
use crate::net::udp::UdpSocket;
use crate::observer::{self, Observer, Sources, Stopper};
use crate::process::daemon::{self, Folder, Output};
use crate::process::files::{self, PidFile};
use crate::process::handover::Inherited;
use crate::process::supervisor::Supervisor;
use crate::process::takeover::Successor;
use crate::process::{self, cgroup, huge_pages, limits, user};
use crate::store::ClassSnapshot;
use crate::worker::broadcast::Broadcast;
use crate::worker::limits::ServeLimits;
use crate::worker::mailbox::{Exchange, Mail};
use crate::worker::{Worker, WorkerOptions};
use acceptor::{Acceptor, Files};
use begin::{Left, warm_or_cold};
use bind::Sockets;
use core_affinity::CoreId;
use memory::{Begun, Warmth, item_limits, shard_count};
use mio::Poll;
use nodes::NodesFile;
use requests::{Ending, Requests};
use restart::MemoryFile;
use shared::{Parts, Shared};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, Scope};
use std::time::{SystemTime, UNIX_EPOCH};
use takeover::{TakeOver, forget_rest};
use users::read_users;

/// Serves until INT, TERM or `shutdown`.
///
/// # Errors
/// The answer to `--check`. When the server cannot start, or a graceful stop cannot keep the cache.
pub fn run(mut config: Config) -> Result<(), Exit> {
    let started = SystemTime::now();
    process::log::start(config::log_level(config.process.verbosity));
    let supervisor = Supervisor::from_environment();
    let inherited = Inherited::from_environment();
    let mut inherited = inherited.map_err(|error| Exit::system("LISTEN_FDS: a descriptor is of no use", error))?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    warn_of_memory(&config);
    if config.process.check {
        return check::report(&config).and_then(|report| Err(Exit::information(report)));
    }
    limits::raise(wanted_limits(&config))?;
    // Take signals before the server makes anything that it must remove at exit.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP])
        .map_err(|error| Exit::system("failed to take signals", error))?;
    config.keep_paths_of_daemon()?;
    // Read certificates while the process may still read files of root.
    let certificates = config.tls.enabled.then(|| Certificates::load(&config.tls.options)).transpose();
    let certificates = certificates.map_err(|line| Exit::failure(EXIT_USAGE, line))?;
    let take_over = TakeOver::begin(&config, &mut inherited, &mut signals)?;
    let sockets = Sockets::open(&config, &mut inherited, &supervisor)?;
    let observer = if sockets.metrics.is_empty() { 0 } else { observer::FILES };
    config.connections.max = limits::fit_connections(config.connections.max, config.workers.threads, observer)?;
    let auth = read_users(&config).map_err(|why| Exit::failure(1, why))?;
    let nodes = config.nodes_file.as_deref().map(NodesFile::open).transpose()?;
    if let Some(path) = &config.listen.port_file {
        files::write_port_file(path, sockets.ports(&config))
            .map_err(|error| Exit::system(&format!("{}", path.display()), error))?;
    }
    if config.process.daemonize {
        // Warn first: in the background nobody sees the log.
        sockets.warn_of_limited_reach(&config);
        detach(&config)?;
    }
    drop_privileges(&config)?;
    if !config.process.daemonize {
        sockets.warn_of_limited_reach(&config);
    }
    let (config, auth, supervisor) = (&config, auth.as_ref(), &supervisor);
    serve(Start { config, auth, nodes, sockets, certificates, signals, supervisor, inherited, take_over, started })?;
    log::info!("Exiting normally");
    Ok(())
}

/// Warns of memory that the system will not give as the flags want it.
fn warn_of_memory(config: &Config) {
    let limit = cgroup::Limits::own().memory.map(|bound| bound.value as u64);
    if let Some(warning) = memory::cgroup_warning(config, limit) {
        log::warn!("{warning}");
    }
    if config.memory.keep
        && let Some(word) = huge_pages::shared_are_refused()
    {
        log::warn!("--keep-memory: no huge pages, because {} is {word} and not advise", huge_pages::SHARED);
    }
}

fn wanted_limits(config: &Config) -> limits::Wanted {
    limits::Wanted {
        connections: config.connections.max,
        connections_required: config.connections.max_given,
        workers: config.workers.threads,
        observer: if config.observing.addresses.is_empty() { 0 } else { observer::FILES },
        core_files: config.process.core_dumps,
        locked_memory: config.memory.locked,
    }
}

/// `-d`. The standard streams stay open with `-v`, for the log, and the current directory stays with `-r`, for core files.
fn detach(config: &Config) -> Result<(), Exit> {
    let folder = if config.process.core_dumps { Folder::Unchanged } else { Folder::Root };
    let output = if config.process.verbosity > 0 { Output::Unchanged } else { Output::Discarded };
    daemon::detach(folder, output)
}

/// `-u`, which only root can use.
fn drop_privileges(config: &Config) -> Result<(), Exit> {
    let Some(name) = config.process.user.as_deref().filter(|_| user::is_root()) else { return Ok(()) };
    let sockets = config.listen.sockets.iter().chain(&config.observing.addresses);
    let sockets = sockets.filter_map(|listen| match listen {
        Listen::Unix { path, .. } => Some(path.as_path()),
        _ => None,
    });
    user::become_user(name, sockets)?;
    if config.process.core_dumps {
        user::allow_core_files();
    }
    Ok(())
}

/// What `run` has prepared for `serve`.
struct Start<'a> {
    config: &'a Config,
    auth: Option<&'a Auth>,
    nodes: Option<NodesFile>,
    sockets: Sockets,
    certificates: Option<Certificates>,
    signals: Signals,
    supervisor: &'a Supervisor,
    /// What is left of the descriptors from the server before.
    inherited: Inherited,
    take_over: Option<TakeOver>,
    /// When the process started.
    started: SystemTime,
}

impl Start<'_> {
    fn has_predecessor(&self) -> bool {
        self.take_over.as_ref().is_some_and(TakeOver::has_predecessor)
    }

    /// With `--take-over`, ends the old server. What it has kept is in `inherited` then.
    fn end_predecessor(&mut self) -> Result<(), Exit> {
        match &mut self.take_over {
            Some(take_over) => take_over.end_predecessor(&mut self.inherited, &mut self.signals),
            None => Ok(()),
        }
    }
}

fn serve(mut start: Start<'_>) -> Result<(), Exit> {
    let (config, supervisor) = (start.config, start.supervisor);
    // The file names the old server as long as that runs.
    let pid_file = config.process.pid_file.as_deref().filter(|_| !start.has_predecessor());
    let mut pid_file = pid_file.and_then(PidFile::write);
    if may_start_warm(config) {
        // The memory comes from the old server, which still changes it.
        start.end_predecessor()?;
    }
    let shards = shard_count(config);
    let memory_file = claim_memory_file(config)?;
    let given = start.inherited.take(|name| name == kept::NAME).into_iter().map(|given| given.fd).collect();
    let left = Left { memory: given, file: memory_file.as_ref() };
    let Begun { memory, clock, hasher, warmth } = warm_or_cold(config, shards, left, supervisor)?;
    forget_rest(&mut start.inherited, supervisor);
    let classes = memory.stores[0].snapshot().classes;
    let no_events = |error| Exit::system("failed to wait for events", error);
    let poll = Poll::new().map_err(no_events)?;
    let requests = Requests::new(&poll).map_err(no_events)?;
    start.sockets.log();
    let listeners = &start.sockets.listeners;
    let addresses = listeners.iter().map(|bound| (bound.listener.fd(), bound.listener.to_string())).collect();
    let (auth, known) = (start.auth, start.nodes.as_ref().map(NodesFile::nodes));
    let shared = Shared::new(Parts { config, auth, nodes: known, memory, clock, hasher, addresses, requests });
    if config.memory.locked {
        limits::lock_memory();
    }
    log_classes(&classes);
    log::info!("{shards} shards, {} workers, {} pages", config.workers.threads, shared.budget.limit());
    let (ending, successor) = work(&shared, start, poll, warmth, &mut pid_file)?;
    let kept = kept::leave(&shared, supervisor, successor.is_some());
    let result = match &memory_file {
        _ if kept.is_some() => Ok(()),
        Some(file) if ending == Ending::Graceful => keep_cache(file, &shared, supervisor),
        _ => Ok(()),
    };
    if let Some(successor) = successor {
        // The next server takes the lock and writes its pid file as soon as it is told.
        drop((memory_file, pid_file));
        drop(shared);
        // The next server finds them in `Start::inherited` after `end_predecessor`.
        successor.end(&kept.unwrap_or_default());
    }
    result
}

/// Runs the workers, and accepts connections until the server ends. Returns how it ends, and the server that takes over.
fn work<'a>(
    shared: &Shared<'_>,
    mut start: Start<'a>,
    poll: Poll,
    warmth: Warmth,
    pid_file: &mut Option<PidFile<'a>>,
) -> Result<(Ending, Option<Successor>), Exit> {
    let config = start.config;
    let stop = |graceful: bool| shared.requests.stop(if graceful { Ending::Graceful } else { Ending::Plain });
    let refresh = |broadcast: Arc<Broadcast>| shared.requests.refresh(broadcast);
    let checks = Checks::new(CheckLimits::default());
    let check = |broadcast: Arc<Broadcast>, attempt, address| checks.submit(attempt, address, broadcast);
    let options = |number: usize| WorkerOptions {
        number,
        exchange: &shared.exchange,
        context: ServerContext { worker: number, ..shared.context() },
        hasher: shared.hasher.clone(),
        items: shared.items.clone(),
        limits: serve_limits(config),
        stop: &stop,
        refresh: &refresh,
        check: &check,
    };
    let endpoints = std::mem::take(&mut start.sockets.endpoints);
    let udp_sockets = endpoints.iter().map(Vec::len).sum();
    let workers: io::Result<Vec<Worker<'_>>> =
        endpoints.into_iter().enumerate().map(|(number, endpoints)| new_worker(options(number), endpoints)).collect();
    let workers = workers.map_err(|error| Exit::system("failed to start a worker", error))?;
    let observer = new_observer(shared, std::mem::take(&mut start.sockets.metrics), warmth, start.started)?;
    let nodes = start.nodes.take().map(NodesFile::watch).transpose();
    let nodes = nodes.map_err(|error| Exit::system("failed to start the thread of --nodes", error))?;
    if start.has_predecessor() {
        start.end_predecessor()?;
        *pid_file = config.process.pid_file.as_deref().and_then(PidFile::write);
    }
    start.sockets.store(start.supervisor);
    let Start { certificates, signals, supervisor, take_over, .. } = start;
    let Sockets { listeners, files, kept, .. } = start.sockets;
    let ended = thread::scope(|scope| {
        start_workers(scope, workers, &shared.cores);
        if let Some(users) = shared.auth.and_then(Auth::users) {
            start_checks(scope, &checks, users, &shared.exchange);
        }
        let stopper = observer.map(|observer| start_observer(scope, observer));
        shared.is_ready.store(true, Ordering::Relaxed);
        supervisor.ready();
        let files = Files { certificates, nodes, sockets: files };
        let offering = take_over.map(|take_over| take_over.serves(config, kept)).transpose();
        let ended = offering.and_then(|offering| {
            let acceptor = Acceptor::new(shared, listeners, files, supervisor);
            acceptor.offering(offering).run(poll, signals, udp_sockets)
        });
        for worker in 0..config.workers.threads {
            shared.exchange.mail(worker, Mail::Stop);
        }
        checks.stop();
        stopper.iter().for_each(Stopper::stop);
        ended
    });
    ended.map_err(|error| Exit::system("failed to accept connections", error))
}

/// The memory file (`-e`), locked against other servers.
fn claim_memory_file(config: &Config) -> Result<Option<MemoryFile>, Exit> {
    let Some(path) = &config.process.memory_file else { return Ok(None) };
    match MemoryFile::claim(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) => Err(Exit::system(&format!("-e {}", path.display()), error)),
    }
}

fn serve_limits(config: &Config) -> ServeLimits {
    ServeLimits {
        parse: item_limits(config),
        group_len: config.workers.group_len,
        output_max: config.connections.output_high_water_bytes,
        requests_per_turn: config.turn.requests as usize,
        cut_groups: config.turn.requests < config::REQUESTS_PER_EVENT,
        batch_bytes_max: config.workers.mailbox_batch_bytes,
        keep_keys: config.workers.port_per_core,
    }
}

fn new_worker(options: WorkerOptions<'_>, endpoints: Vec<UdpSocket>) -> io::Result<Worker<'_>> {
    let mut worker = Worker::new(options)?;
    worker.take_udp_sockets(endpoints)?;
    Ok(worker)
}

/// Logs the slab classes in memcached's words.
fn log_classes(classes: &[ClassSnapshot]) {
    for class in classes {
        let (id, usage) = (class.id.0, class.usage);
        log::debug!("slab class {id:3}: chunk size {:9} perslab {:7}", usage.chunk_size, usage.chunks_per_page);
    }
}

/// Starts a thread for each worker, pinned to one of `cores` if there are any.
fn start_workers<'scope>(scope: &'scope Scope<'scope, '_>, workers: Vec<Worker<'scope>>, cores: &[CoreId]) {
    for (number, worker) in workers.into_iter().enumerate() {
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
            // Exit here: the scope would wait for the other workers forever.
            log::error!("failed to start worker {number}: {error}");
            std::process::exit(i32::from(EXIT_SYSTEM));
        }
    }
}

/// The observer, if it has sockets.
fn new_observer<'a>(
    shared: &'a Shared<'a>,
    listeners: Vec<Listener>,
    warmth: Warmth,
    started: SystemTime,
) -> Result<Option<Observer<'a>>, Exit> {
    if listeners.is_empty() {
        return Ok(None);
    }
    let sources = Sources {
        context: shared.context(),
        exchange: &shared.exchange,
        pings: &shared.pings,
        is_ready: &shared.is_ready,
        is_warm: may_start_warm(shared.config).then_some(warmth == Warmth::Warm),
        started: started.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
    };
    let observer = Observer::new(sources, listeners);
    observer.map(Some).map_err(|error| Exit::system("failed to start the observer (--metrics)", error))
}

fn may_start_warm(config: &Config) -> bool {
    config.process.memory_file.is_some() || config.memory.keep
}

/// Starts the thread of the observer.
fn start_observer<'scope>(scope: &'scope Scope<'scope, '_>, observer: Observer<'scope>) -> Stopper {
    let stopper = observer.stopper();
    let run = move || {
        if let Err(error) = observer.run() {
            log::error!("the observer failed (--metrics): {error}");
        }
    };
    if let Err(error) = thread::Builder::new().name("observer".to_owned()).spawn_scoped(scope, run) {
        log::error!("failed to start the observer (--metrics): {error}");
        std::process::exit(i32::from(EXIT_SYSTEM));
    }
    stopper
}

/// Starts the thread that checks passwords.
fn start_checks<'scope>(
    scope: &'scope Scope<'scope, '_>,
    checks: &'scope Checks<Arc<Broadcast>>,
    users: &'scope Directory,
    exchange: &'scope Exchange,
) {
    let run = || {
        checks.run(|broadcast, attempt, user| {
            if user.is_some() {
                users.remember(attempt);
            }
            exchange.answer(&broadcast, Answer::Checked(user));
        });
    };
    if let Err(error) = thread::Builder::new().name("passwords".to_owned()).spawn_scoped(scope, run) {
        log::error!("failed to start the thread that checks passwords (--users): {error}");
        std::process::exit(i32::from(EXIT_SYSTEM));
    }
}

/// Writes the cache to the memory file, after all workers have ended.
fn keep_cache(file: &MemoryFile, shared: &Shared<'_>, supervisor: &Supervisor) -> Result<(), Exit> {
    if shared.config.memory.locked {
        // The system takes back no locked pages, and saving returns each page that it has written.
        limits::unlock_memory();
    }
    let save = || file.save(&shared.exchange, &shared.clock, memory::image_ports(shared.config));
    supervisor.during("writing the cache", file.bytes(), save).map_err(|line| Exit::failure(EXIT_NOT_KEPT, line))
}
