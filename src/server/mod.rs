//! A server from start to stop: bind, prepare the process, start the workers, hand them connections, stop in order.
//!
//! The main thread accepts: a new connection goes to the worker with the fewest, not to wherever a hash falls, so that a
//! dozen long-lived connections leave no core idle. Signals and `shutdown` arrive at the same poll.

pub mod restart;

use crate::auth::{Auth, TEXT_USERS_MAX, Users};
use crate::clock::Clock;
use crate::command::Shard;
use crate::command::admin::{Answer, ServerContext, Settings};
use crate::command::detail::Prefixes;
use crate::config::{BindingProtocol, Config, EXIT_NOT_KEPT, EXIT_SYSTEM, EXIT_USAGE, Exit, Listen};
use crate::counters::{ServerCounters, UploadUse, WorkerCounters};
use crate::hash::KeyHasher;
use crate::net::certificates::{Certificates, Verify};
use crate::net::listener::Listener;
use crate::net::queues::Queues;
use crate::net::stream::Stream;
use crate::net::udp::UdpSocket;
use crate::process::supervisor::{Supervisor, Watchdog};
use crate::process::{self, PidFile, failure};
use crate::protocol::Limits;
use crate::store::arena::{Arena, PAGE_SIZE};
use crate::store::item::Items;
use crate::store::slab::{Budget, SlabOptions};
use crate::store::{Store, StoreOptions};
use crate::worker::broadcast::Broadcast;
use crate::worker::mailbox::{Exchange, Mail};
use crate::worker::serve::ServeLimits;
use crate::worker::uploads::Limit;
use crate::worker::{Worker, WorkerOptions};
use core_affinity::CoreId;
use crossbeam::queue::SegQueue;
use listenfd::ListenFd;
use log::Level;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::unistd;
use restart::MemoryFile;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Tokens of the main thread's poll; listeners have those from 0.
const SIGNALS: Token = Token(usize::MAX);
const REQUESTS: Token = Token(usize::MAX - 1);

/// How long accepting rests before it looks again, when there are no descriptors left, or with `-o no_maxconns_fast` as
/// many connections as `-c` allows. memcached looks as often.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// Connections that a worker may have because it is near, while others have none.
const NEAR_CONNECTIONS: u64 = 4;

/// What a client is told that is one too many.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// Least pages for each shard: with less memory there are fewer shards than workers. Each shard needs a page for each class
/// of sizes in use, some forty by default: with fewer of them, pages are missing where others are half empty. 26 MB of
/// values from 16 bytes to 8 KiB, with `-m 64`, all stay in one shard; of two shards with 32 pages each, 58 % did.
const PAGES_PER_SHARD_MIN: u64 = 64;

/// Serves until INT, TERM or `shutdown`.
///
/// # Errors
/// What keeps the server from starting, or a graceful stop from keeping the cache, with the exit code for it.
pub fn run(mut config: Config) -> Result<(), Exit> {
    process::start_log(config.verbosity);
    let supervisor = Supervisor::from_environment();
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    process::raise_limits(&config)?;
    // Before anything is there that must be tidied up: a signal right after the start is no surprise.
    let signals =
        Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP]).map_err(|error| failure("failed to take signals", error))?;
    process::name_files_from_the_root(&mut config)?;
    // While it may still read what only root may.
    let certificates = config.tls_enabled.then(|| Certificates::load(&config.tls)).transpose();
    let certificates = certificates.map_err(|line| Exit::failure(EXIT_USAGE, line))?;
    let inherited = inherited(&config)?;
    let is_bound_by_us = inherited.is_none();
    let (listeners, endpoints) = match inherited {
        Some(sockets) => sockets,
        None => (bind(&config)?, bind_udp(&config)?),
    };
    process::fit_connections(&mut config)?;
    let auth = read_users(&config).map_err(|why| Exit::failure(1, why))?.map(Auth::new);
    if let Some(path) = &config.port_file {
        let ports = listeners.iter().filter_map(|listener| Some(("TCP", listener.listener.tcp_address()?)));
        let ports = ports.chain(udp_addresses(&config, &endpoints).map(|address| ("UDP", address)));
        process::write_port_file(path, ports).map_err(|error| failure(&format!("{}", path.display()), error))?;
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
    process::daemonize(&config)?;
    process::drop_privileges(&config)?;
    if !config.daemonize {
        tell();
    }
    let _pid_file = config.pid_file.as_deref().and_then(PidFile::write);
    serve(&config, auth.as_ref(), listeners, endpoints, certificates, signals, &supervisor)?;
    log::info!("Exiting normally");
    Ok(())
}

/// The users of `-Y` or `-S`, if there is one of these.
///
/// # Errors
/// What is wrong with their file, in a line.
fn read_users(config: &Config) -> Result<Option<Users>, String> {
    let Some(path) = config.auth_file.as_ref().or(config.sasl_password_file.as_ref()) else { return Ok(None) };
    let named = path.display();
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(config.password_file_bytes_max + 1).read_to_end(&mut text))
        .map_err(|error| format!("Could not open authfile [{named}] for reading, error {error}"))?;
    if text.len() as u64 > config.password_file_bytes_max {
        return Err(format!("Authfile [{named}] has more than {} bytes", config.password_file_bytes_max));
    }
    let users = if config.auth_file.is_some() {
        Users::from_text(&text)
    } else {
        let host = unistd::gethostname().unwrap_or_default();
        Users::from_sasl(&text, host.as_encoded_bytes())
    };
    let users = users.map_err(|why| format!("Authfile [{named}] {why}"))?;
    if users.is_empty() {
        // memcached, too, starts with a file of `-S` that has no users: they may come later.
        log::warn!("Authfile [{named}] has no users: nobody can log in");
    }
    if users.ignored > 0 {
        log::warn!("Authfile [{named}]: the last {} lines are ignored, {TEXT_USERS_MAX} count", users.ignored);
    }
    Ok(Some(users))
}

/// The sockets that systemd has bound (sd_listen_fds(3)), instead of those of the command line. One for UDP is shared by all
/// workers, since there is but one of it: see [`bind_udp`] for what that costs. With `--port-per-core` it is the first's.
fn inherited(config: &Config) -> Result<Option<(Vec<BoundListener>, UdpEndpoints)>, Exit> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() == 0 {
        return Ok(None);
    }
    let mut listeners = Vec::new();
    let mut endpoints: UdpEndpoints = (0..config.threads).map(|_| Vec::new()).collect();
    for at in 0..sockets.len() {
        let unusable = |error| failure("a socket that was handed over is of no use", error);
        let listener = if let Ok(Some(listener)) = sockets.take_tcp_listener(at) {
            Listener::from_tcp(listener)
        } else if let Ok(Some(socket)) = sockets.take_udp_socket(at) {
            let socket = UdpSocket::of(socket).map_err(unusable)?;
            let others = if config.port_per_core { 0 } else { config.threads - 1 };
            for own in endpoints.iter_mut().skip(1).take(others) {
                own.push(socket.share().map_err(unusable)?);
            }
            endpoints[0].push(socket);
            continue;
        } else {
            let listener = sockets.take_unix_listener(at).map_err(unusable)?;
            Listener::from_unix(listener.expect("each is taken once"))
        };
        let listener = listener.map_err(unusable)?;
        let verify = listener.tcp_address().and_then(|_| config.tls_enabled.then_some(config.tls.verify));
        listeners.push(BoundListener { verify, ..BoundListener::of(listener, config) });
    }
    Ok(Some((listeners, endpoints)))
}

/// A listening socket, and what becomes of those who come in there.
struct BoundListener {
    listener: Listener,
    /// The worker that all its connections go to (`--port-per-core`), if there is such a one.
    worker: Option<usize>,
    /// What TLS wants of its clients, if they come by TLS.
    verify: Option<Verify>,
    /// What they may speak.
    protocol: BindingProtocol,
}

impl BoundListener {
    fn of(listener: Listener, config: &Config) -> BoundListener {
        BoundListener { listener, worker: None, verify: None, protocol: config.protocol }
    }
}

/// The sockets for UDP of each worker.
type UdpEndpoints = Vec<Vec<UdpSocket>>;

/// Binding the addresses of one entry of `-l`, or of the default. As in memcached an address that is in use is left out as
/// long as there is another one.
struct Attempt<'a> {
    /// Before the address in what is told: nothing for TCP.
    transport: &'static str,
    listen: &'a Listen,
    /// Of each worker with a port of its own, or of all: whether it has an address.
    served: Vec<bool>,
    missing: Vec<(SocketAddr, io::Error)>,
}

impl<'a> Attempt<'a> {
    fn new(transport: &'static str, listen: &'a Listen, ports: usize) -> Attempt<'a> {
        Attempt { transport, listen, served: vec![false; ports], missing: Vec::new() }
    }

    fn failed(&self, error: io::Error) -> Exit {
        failure(&format!("failed to listen on {}{}", self.transport, self.listen), error)
    }

    /// The address of a worker with a port of its own.
    fn address(&self, mut base: SocketAddr, worker: usize) -> Result<SocketAddr, Exit> {
        if base.port() != 0 {
            let port = base.port().checked_add(worker as u16);
            base.set_port(port.ok_or_else(|| self.failed(io::Error::other("there are not enough ports above it")))?);
        }
        Ok(base)
    }

    /// An address could not be bound. Of the two of loopback or of all interfaces one is enough, whatever is wrong with
    /// the other: not every machine has IPv6.
    fn refused(&mut self, address: SocketAddr, error: io::Error) -> Result<(), Exit> {
        if matches!(self.listen, Listen::Host { .. }) && error.kind() != ErrorKind::AddrInUse {
            return Err(self.failed(error));
        }
        self.missing.push((address, error));
        Ok(())
    }

    /// All addresses were tried: fails where nobody could be served, and tells what is missing.
    fn end(mut self) -> Result<(), Exit> {
        if self.served.contains(&false) {
            let error = self.missing.pop().map_or(ErrorKind::AddrNotAvailable.into(), |(_, error)| error);
            return Err(self.failed(error));
        }
        for (address, error) in &self.missing {
            let level = if error.kind() == ErrorKind::AddrInUse { Level::Warn } else { Level::Info };
            log::log!(level, "{}{address} is not listened on: {error}", self.transport);
        }
        Ok(())
    }
}

fn bind(config: &Config) -> Result<Vec<BoundListener>, Exit> {
    let mut listeners = Vec::new();
    let workers = if config.port_per_core { config.threads } else { 1 };
    for (at, listen) in config.listen.iter().enumerate() {
        let mut attempt = Attempt::new("", listen, workers);
        if let Listen::Unix { path, mask } = listen {
            let listener = Listener::unix(path, *mask, config.listen_backlog).map_err(|error| attempt.failed(error))?;
            listeners.push(BoundListener::of(listener, config));
            continue;
        }
        let rules = config.rules(at);
        let addresses = listen.resolve().map_err(|error| attempt.failed(error))?;
        for (base, worker) in addresses.iter().flat_map(|&base| (0..workers).map(move |worker| (base, worker))) {
            let address = attempt.address(base, worker)?;
            match Listener::tcp(address, config.listen_backlog) {
                Ok(listener) => {
                    mark(config, |mark| listener.set_mark(mark));
                    if let Some(tag) = &rules.tag {
                        log::info!("tag {tag}: {listener}");
                    }
                    attempt.served[worker] = true;
                    let worker = config.port_per_core.then_some(worker);
                    let protocol = rules.protocol.unwrap_or(config.protocol);
                    listeners.push(BoundListener { listener, worker, verify: config.verify(at), protocol });
                }
                Err(error) => attempt.refused(address, error)?,
            }
        }
        attempt.end()?;
    }
    Ok(listeners)
}

/// `-o sock_cookie_id`. As in memcached, a server that may not mark its sockets serves all the same.
fn mark(config: &Config, set: impl FnOnce(u32) -> io::Result<()>) {
    if config.socket_mark > 0
        && let Err(error) = set(config.socket_mark)
    {
        log::warn!("-o sock_cookie_id: a socket could not be marked: {error}");
    }
}

/// Every worker has a socket of its own at the same port, among which the kernel divides the clients: with one for all, as
/// in memcached, a datagram wakes every worker, and all but one in vain. Two workers, 50 clients, server CPU per get
/// (`loadtest compare --set udp`): 3.9 µs one at a time and 3.5 with 4 in flight; 4.0 and 3.9 with one socket for all;
/// memcached 5.4 and 5.2. (All by the first worker: 3.8 and 3.4, and never more than one core.) With `--port-per-core` the
/// ports are different ones.
fn bind_udp(config: &Config) -> Result<UdpEndpoints, Exit> {
    let mut endpoints: UdpEndpoints = (0..config.threads).map(|_| Vec::new()).collect();
    let shared = config.threads > 1 && !config.port_per_core;
    let sharers = if config.port_per_core { 1 } else { config.threads };
    for listen in &config.udp_listen {
        let mut attempt = Attempt::new("UDP ", listen, config.threads / sharers);
        for mut base in listen.resolve().map_err(|error| attempt.failed(error))? {
            for (port, owners) in endpoints.chunks_mut(sharers).enumerate() {
                let mut address = attempt.address(base, port)?;
                // Alone first: a port that another server has is not to be shared with it.
                match UdpSocket::bind(address, false).and_then(|alone| alone.address()) {
                    Ok(found) => address = found,
                    Err(error) => {
                        attempt.refused(address, error)?;
                        continue;
                    }
                }
                if port == 0 {
                    // The others have the ports above it, which may be any one.
                    base = address;
                }
                for own in owners {
                    let socket = UdpSocket::bind(address, shared).map_err(|error| attempt.failed(error))?;
                    mark(config, |mark| socket.set_mark(mark));
                    own.push(socket);
                }
                attempt.served[port] = true;
            }
        }
        attempt.end()?;
    }
    Ok(endpoints)
}

/// Where the sockets of UDP are bound. Those of all workers are at the same addresses, unless each has a port of its own.
fn udp_addresses(config: &Config, endpoints: &UdpEndpoints) -> impl Iterator<Item = SocketAddr> {
    let some = if config.port_per_core { endpoints.len() } else { 1 };
    endpoints.iter().take(some).flatten().filter_map(|socket| socket.address().ok())
}

/// Without `-l` memcached listens on all addresses, so whoever comes from there must be told, also without `-v`.
fn tell_that_it_is_for_this_machine(config: &Config, listeners: &[BoundListener], endpoints: &UdpEndpoints) {
    let by_default = |listen: &Listen| matches!(listen, Listen::Loopback { .. });
    if config.listen.iter().chain(&config.udp_listen).any(by_default) {
        let tcp = listeners.iter().filter_map(|listener| listener.listener.tcp_address());
        let udp = udp_addresses(config, endpoints).map(|address| format!("UDP {address}"));
        let places: Vec<String> = tcp.map(|address| address.to_string()).chain(udp).collect();
        log::warn!(
            "listening on {}, for this machine only: -l ADDRESS serves others (-l 0.0.0.0: on every address)",
            places.join(", ")
        );
    }
}

/// The same of replies over UDP: whoever has not said who may get long ones sees them only on this machine.
fn tell_that_replies_are_withheld(config: &Config, endpoints: &UdpEndpoints) {
    let public = udp_addresses(config, endpoints).find(|address| !address.ip().to_canonical().is_loopback());
    if let Some(address) = public.filter(|_| config.udp_allow.is_empty()) {
        log::warn!(
            "listening on UDP {address}: of other machines only those of --udp-allow get replies that are longer than \
             their request"
        );
    }
}

/// How many shards there are for so many workers.
fn shard_count(config: &Config) -> usize {
    if config.port_per_core {
        return config.threads;
    }
    let by_pages = config.memory_limit_bytes / (PAGES_PER_SHARD_MIN * PAGE_SIZE as u64);
    let by_item = config.memory_limit_bytes / (PAGES_PER_SHARD_MIN * config.item_size_max);
    (config.threads as u64).min(by_pages).min(by_item).max(1) as usize
}

fn store_options(config: &Config, shards: usize) -> StoreOptions {
    StoreOptions {
        slabs: SlabOptions {
            growth_factor: config.growth_factor,
            size_min: config.chunk_size_min as usize,
            chunk_max: config.slab_chunk_max_bytes as usize,
            sizes: config.slab_sizes.clone(),
        },
        cas: config.cas_enabled,
        evict: config.evictions,
        hash_power: config.hash_power.unwrap_or(16).saturating_sub(shards.ilog2()),
        hot_percent: config.hot_lru_percent,
        warm_percent: config.warm_lru_percent,
        hot_max_factor: config.hot_max_factor,
        warm_max_factor: config.warm_max_factor,
        segmented: config.lru_maintainer,
        maintain: config.lru_maintainer,
        reassign: config.slab_reassign,
        automove: config.slab_automove,
        automove_ratio: config.slab_automove_ratio,
        automove_window: config.slab_automove_window_seconds,
        automove_free_ratio: config.slab_automove_free_ratio,
        temporary_ttl: config.temporary_ttl_seconds,
        evictions_noted_max: config.evictions_noted_max,
    }
}

fn serve_limits(config: &Config) -> ServeLimits {
    ServeLimits {
        parse: Limits {
            item_size_max: config.item_size_max as u32,
            cas: config.cas_enabled,
            inline_max: config.inline_value_max as u32,
        },
        group_len: config.group_len,
        output_max: config.output_high_water_bytes,
        requests_per_turn: config.requests_per_event as usize,
        cut_groups: config.requests_per_event < Config::REQUESTS_PER_EVENT,
        batch_bytes_max: config.mailbox_batch_bytes,
        keep_keys: config.port_per_core,
    }
}

/// In memcached's words. Before the slab classes: test suites give up after fifty lines without one of these.
fn tell_listeners(listeners: &[BoundListener], endpoints: &UdpEndpoints) {
    for BoundListener { listener, protocol, .. } in listeners {
        log::info!("listening on {listener}");
        log::debug!("<{} server listening ({protocol})", listener.fd());
    }
    for socket in endpoints.iter().flatten() {
        log::info!("listening on {socket}");
        log::debug!("<{} server listening (udp)", socket.fd());
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
    let hasher = KeyHasher::random().map_err(|error| failure("random bits for the hash of keys", error))?;
    let memory_file = match &config.memory_file {
        Some(path) => Some(MemoryFile::claim(path).map_err(|error| failure(&format!("-e {}", path.display()), error))?),
        None => None,
    };
    let (memory, clock) = warm_or_cold(config, shards, &hasher, memory_file.as_ref(), supervisor)?;
    let Memory { stores, items, budget } = memory;
    let classes = stores[0].snapshot().classes;
    let shard = |(number, store)| {
        let prefixes = config.detail_enabled.then(|| Prefixes::new(config.prefix_delimiter, config.prefixes_max));
        Shard { number: number as u16, store, limits: serve_limits(config).parse, prefixes }
    };
    let uploads = Limit::Share {
        budget: Arc::clone(&budget),
        percent: config.uploads_percent,
        item_size_max: config.item_size_max,
    };
    let exchange = Exchange::new(stores.into_iter().enumerate().map(shard).collect(), config.threads, uploads);
    if config.lock_memory {
        process::lock_memory();
    }
    let settings = Settings::new(config);
    let workers: Vec<WorkerCounters> = (0..config.threads).map(|_| WorkerCounters::default()).collect();
    let server = ServerCounters::default();
    let addresses: Vec<(i32, String)> =
        listeners.iter().map(|BoundListener { listener, .. }| (listener.fd(), listener.to_string())).collect();
    let poll = Poll::new().map_err(|error| failure("failed to wait for events", error))?;
    let waker = Waker::new(poll.registry(), REQUESTS).map_err(|error| failure("failed to wait for events", error))?;
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
    let made = made.map_err(|error| failure("failed to start a worker", error))?;
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
    .map_err(|error| failure("failed to accept connections", error))?;
    if graceful && let Some(file) = memory_file {
        if config.lock_memory {
            // Locked pages could not be given back on the way.
            process::unlock_memory();
        }
        let save = || file.save(&exchange, &clock, if config.port_per_core { shards as u32 } else { 0 });
        supervisor
            .during("writing the cache", file.bytes(), save)
            .map_err(|line| Exit::failure(EXIT_NOT_KEPT, line))?;
    }
    Ok(())
}

/// The stores of a server, and what they share.
struct Memory {
    stores: Vec<Store>,
    items: Items,
    budget: Arc<Budget>,
}

/// Empty stores, each with an index for its share of the items to come.
fn memory(config: &Config, shards: usize, hasher: &KeyHasher, items_expected: u64) -> Result<Memory, Exit> {
    let no_memory = |error| failure("failed to reserve memory", error);
    let pages = (config.memory_limit_bytes / PAGE_SIZE as u64) as u32;
    let arena = Arc::new(Arena::reserve(pages, config.large_pages).map_err(no_memory)?);
    let budget = Arc::new(Budget::new(pages, shards, &arena).lending(config.memory_credit_percent));
    let items = Items::new(arena, config.cas_enabled);
    let mut options = store_options(config, shards);
    options.hash_power = options.hash_power.max(Store::hash_power_for(items_expected / shards as u64));
    let store = |number| Store::new(number, options.clone(), items.clone(), Arc::clone(&budget), hasher.clone());
    let stores = (0..shards).map(store).collect::<io::Result<_>>().map_err(no_memory)?;
    Ok(Memory { stores, items, budget })
}

/// The memory that the server starts with, and its clock: what the last one left, if it left something; or empty.
fn warm_or_cold(
    config: &Config,
    shards: usize,
    hasher: &KeyHasher,
    file: Option<&MemoryFile>,
    supervisor: &Supervisor,
) -> Result<(Memory, Clock), Exit> {
    if let Some(file) = file
        && let Some(image) =
            file.take().map_err(|error| failure("-e: the image of the last server cannot be taken over", error))?
    {
        let (header, clock) = (image.header(), image.clock());
        // What does not fit needs no place in the index either.
        let share = (config.memory_limit_bytes as f64 / header.bytes.max(1) as f64).min(1.0);
        let mut memory = memory(config, shards, hasher, (header.items as f64 * share) as u64)?;
        let rules = restart::Rules {
            hasher,
            limits: serve_limits(config).parse,
            ports: if config.port_per_core { shards as u32 } else { 0 },
            threads: config.threads,
        };
        let load = || image.load(std::mem::take(&mut memory.stores), clock.now(), rules);
        if let Some(stores) = supervisor.during("loading the cache", file.bytes(), load) {
            return Ok((Memory { stores, ..memory }, clock));
        }
    }
    Ok((memory(config, shards, hasher, 0)?, Clock::start()))
}

/// What came of accepting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    /// Nobody waits any more.
    All,
    /// There may be more.
    Some,
    /// The system refuses for now.
    Refused,
}

/// The main thread's part.
struct Acceptor<'a> {
    config: &'a Config,
    auth: Option<&'a Auth>,
    exchange: &'a Exchange,
    workers: &'a [WorkerCounters],
    server: &'a ServerCounters,
    /// The cores that workers are pinned to, in turn; none if they are not.
    cores: &'a [CoreId],
    clock: &'a Clock,
    /// `refresh_certs` of connections.
    refreshes: &'a SegQueue<Arc<Broadcast>>,
    /// There if somebody wants to know whether all workers live.
    watchdog: Option<Watchdog<'a>>,
    listeners: Vec<BoundListener>,
    udp_sockets: usize,
    /// There with TLS.
    certificates: Option<Certificates>,
    /// There with `-N`.
    queues: Option<RefCell<Queues>>,
    poll: Poll,
}

impl Acceptor<'_> {
    /// Accepts until a signal or `shutdown` comes; the listeners are closed then. Says whether the end is to be graceful.
    fn run(mut self, mut signals: Signals, stopped: &AtomicBool, gracefully: &AtomicBool) -> io::Result<bool> {
        self.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        for (at, BoundListener { listener, .. }) in self.listeners.iter_mut().enumerate() {
            self.poll.registry().register(listener, Token(at), Interest::READABLE)?;
        }
        self.server.certificates_read.set(u64::from(self.clock.now().0));
        // As memcached counts: each socket of each worker.
        let sockets = (self.listeners.len() + self.udp_sockets) as u64;
        self.server.listeners.set(sockets);
        self.server.total_connections.add(sockets);
        let mut events = Events::with_capacity(64);
        // Listeners that may have more to accept.
        let mut ready: Vec<usize> = Vec::new();
        // Since when accepting rests, and how much of that is counted.
        let mut resting: Option<Instant> = None;
        loop {
            let timeout = match (ready.is_empty(), resting) {
                (true, _) => None,
                (false, Some(_)) => Some(ACCEPT_REST),
                (false, None) => Some(Duration::ZERO),
            };
            let timeout = self.feed_watchdog().into_iter().chain(timeout).min();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    SIGNALS => {
                        // Whoever sends USR1 and then, to be sure, TERM wants the first (`ExecStop=` of systemd).
                        let mut stops = false;
                        for signal in signals.pending() {
                            match signal {
                                SIGHUP => self.reload(),
                                _ => {
                                    log::info!("signal {signal}: stopping");
                                    gracefully.fetch_or(signal == SIGUSR1, Ordering::Relaxed);
                                    stops = true;
                                }
                            }
                        }
                        if stops {
                            return Ok(gracefully.load(Ordering::Relaxed));
                        }
                    }
                    REQUESTS => {}
                    Token(at) if !ready.contains(&at) => ready.push(at),
                    Token(_) => {}
                }
            }
            if stopped.load(Ordering::Relaxed) {
                log::info!("shutdown: stopping");
                return Ok(gracefully.load(Ordering::Relaxed));
            }
            while let Some(broadcast) = self.refreshes.pop() {
                broadcast.answer(self.exchange, Answer::Refreshed(self.refresh_certificates()));
            }
            let mut refused = false;
            ready.retain(|&at| match self.accept_some(at) {
                Accepted::All => false,
                Accepted::Some => true,
                Accepted::Refused => {
                    refused = true;
                    true
                }
            });
            resting = self.rest(resting, refused);
        }
    }

    /// Asks the workers whether they live, and tells. Gives the time until it is to be done again, if ever.
    fn feed_watchdog(&mut self) -> Option<Duration> {
        let watchdog = self.watchdog.as_mut()?;
        let (exchange, workers) = (self.exchange, self.workers);
        let send = |letter| (0..workers.len()).for_each(|worker| exchange.mail(worker, Mail::Watchdog(letter)));
        watchdog.look(Instant::now(), workers.iter().map(|worker| worker.watchdog_letter.get()), send);
        Some(watchdog.wait(Instant::now()))
    }

    /// Begins, counts or ends a rest: as in memcached, one rest is one count of `listen_disabled_num`, however long.
    fn rest(&self, since: Option<Instant>, refused: bool) -> Option<Instant> {
        let now = Instant::now();
        match since {
            Some(since) => self.server.listen_disabled_micros.add((now - since).as_micros() as u64),
            None if refused => {
                self.server.listen_disabled_num.add(1);
                log::warn!("too many open connections: accepting rests until one closes");
            }
            None => {}
        }
        self.server.listen_disabled.set(u64::from(refused));
        refused.then_some(now)
    }

    fn is_full(&self) -> bool {
        let open: u64 = self.workers.iter().map(WorkerCounters::connections).sum();
        open >= u64::from(self.config.connections_max)
    }

    /// Reads again what can be changed while it runs; what cannot be read stays as it was.
    fn reload(&mut self) {
        if self.auth.is_none() && self.certificates.is_none() {
            log::info!("nothing to reload");
        }
        if self.certificates.is_some() {
            match self.refresh_certificates() {
                Ok(()) => log::info!("certificates were read again"),
                Err(line) => log::error!("certificates stay as they were: {line}"),
            }
        }
        let Some(auth) = self.auth else { return };
        match read_users(self.config) {
            Ok(users) => {
                let users = users.unwrap_or_default();
                log::info!("{} users", users.len());
                auth.replace(users);
            }
            Err(why) => log::error!("users stay as they were: {why}"),
        }
    }

    /// Reads certificates again; connections that are there keep what they have.
    fn refresh_certificates(&mut self) -> Result<(), String> {
        if let Some(certificates) = &mut self.certificates {
            *certificates = certificates.reload(&self.config.tls)?;
            self.server.certificates_read.set(u64::from(self.clock.now().0));
        }
        Ok(())
    }

    /// Accepts some of what waits at a listener.
    fn accept_some(&self, at: usize) -> Accepted {
        for _ in 0..self.config.accepts_per_turn {
            let bound = &self.listeners[at];
            let listener = &bound.listener;
            if !self.config.maxconns_fast && self.is_full() {
                return if listener.is_waited_at() { Accepted::Refused } else { Accepted::All };
            }
            match listener.accept() {
                Ok(stream) => self.place(stream, bound),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Accepted::All,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    // Without descriptors the system says so although nobody waits.
                    _ if !listener.is_waited_at() => return Accepted::All,
                    _ => {
                        // No descriptors, or no memory: others must close first.
                        log::debug!("not accepted: {error}");
                        return Accepted::Refused;
                    }
                },
            }
        }
        Accepted::Some
    }

    /// Gives a connection to the worker that it was meant for, or else to the nearest, or else to that with the fewest; or
    /// refuses it.
    fn place(&self, mut stream: Stream, listener: &BoundListener) {
        if self.is_full() {
            self.server.rejected_connections.add(1);
            // It may not be able to take it; it is closed either way.
            let _ = stream.write(TOO_MANY);
            return;
        }
        if let Some(verify) = listener.verify {
            match self.secure(stream, verify) {
                Ok(secured) => stream = secured,
                Err(error) => return log::error!("a connection could not be put under TLS: {error}"),
            }
        }
        let connections = |worker: &usize| self.workers[*worker].connections();
        let fewest = || (0..self.workers.len()).min_by_key(connections);
        let near = || self.by_queue(&stream).or_else(|| self.nearest(&stream));
        let worker = listener.worker.or_else(near).or_else(fewest).expect("there is at least one worker");
        self.server.total_connections.add(1);
        self.workers[worker].given_connections.add(1);
        self.exchange.mail(worker, Mail::Connection(stream, listener.protocol));
    }

    /// With `-N`, the worker of the receive queue that the packets of a connection come in by.
    fn by_queue(&self, stream: &Stream) -> Option<usize> {
        let mut queues = self.queues.as_ref()?.borrow_mut();
        let Some(queue) = stream.incoming_queue() else {
            self.server.round_robin_fallback.add(1);
            return None;
        };
        let (worker, is_surprise) = queues.worker_of(queue);
        self.server.unexpected_napi_ids.add(u64::from(is_surprise));
        Some(worker)
    }

    /// The worker that is pinned to the core where the packets of a connection come in, unless it has far more than its
    /// share: twice as many as the worker with the fewest, and [`NEAR_CONNECTIONS`].
    ///
    /// With two workers, and 50 connections from clients on the same two cores, this took a tenth to a third of the CPU
    /// time from a `get` alone and a fifth with 32 in flight, and p99 from 4 ms to less than 2: packets do not change cores.
    /// (Busy polling, `SO_BUSY_POLL`, made no difference over loopback: it is for network cards.)
    fn nearest(&self, stream: &Stream) -> Option<usize> {
        if self.cores.is_empty() {
            return None;
        }
        let cpu = stream.incoming_cpu()?;
        let connections = |worker: usize| self.workers[worker].connections();
        let workers = 0..self.workers.len();
        let near = |&worker: &usize| self.cores[worker % self.cores.len()].id == cpu;
        let nearest = workers.clone().filter(near).min_by_key(|&worker| connections(worker))?;
        let fewest = workers.map(connections).min()?;
        (connections(nearest) < 2 * fewest + NEAR_CONNECTIONS).then_some(nearest)
    }

    /// Puts a connection under TLS. The handshake is for its worker.
    fn secure(&self, stream: Stream, verify: Verify) -> io::Result<Stream> {
        let config = self.certificates.as_ref().and_then(|certificates| certificates.config(verify));
        let config = config.ok_or_else(|| io::Error::other("there are no certificates"))?;
        stream.secure(Arc::clone(config), self.config.tls_limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(listen: &Listen, outcomes: &[Result<(), ErrorKind>]) -> Result<(), Exit> {
        let mut attempt = Attempt::new("", listen, 1);
        for outcome in outcomes {
            match outcome {
                Ok(()) => attempt.served[0] = true,
                Err(kind) => attempt.refused(([127, 0, 0, 1], 1).into(), (*kind).into())?,
            }
        }
        attempt.end()
    }

    #[test]
    fn one_address_of_a_name_is_enough_where_the_others_are_in_use() {
        use ErrorKind::{AddrInUse, AddrNotAvailable};
        let named = Listen::Host { host: "name".into(), port: 1 };
        for (listen, outcomes, serves) in [
            (&named, &[Ok(()), Ok(())][..], true),
            (&named, &[Ok(()), Err(AddrInUse)], true),
            (&named, &[Err(AddrInUse), Ok(())], true),
            (&named, &[Err(AddrInUse), Err(AddrInUse)], false),
            (&named, &[Ok(()), Err(AddrNotAvailable)], false),
            (&named, &[], false),
            (&Listen::Loopback { port: 1 }, &[Ok(()), Err(AddrNotAvailable)], true),
            (&Listen::Loopback { port: 1 }, &[Err(AddrInUse), Err(AddrNotAvailable)], false),
            (&Listen::Any { port: 1 }, &[Err(AddrInUse), Ok(())], true),
        ] {
            assert_eq!(attempt(listen, outcomes).is_ok(), serves, "{listen} {outcomes:?}");
        }
    }
}
