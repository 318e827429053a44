//! The command line, in memcached's letters, read once into one checked [`Config`].
//!
//! A flag in a service file for memcached means the same here. The server refuses a flag that it does not implement: it
//! prints one line on standard error and exits with a code that is not 0. If memcached has a message for a mistake, the
//! server's message begins with the same words, and the exit code is the same. If memcached reads a value as something else
//! than it says (`-m 10g` is 10 MB there, and an argument without a flag has no effect), the server does the same and logs a
//! warning.
//!
//! `flags.rs` has a row for each flag, and `options.rs` and `tls.rs` have one for each word of `-o`; `values.rs` reads the
//! values of flags. `flags_file.rs` reads the lines of `--flags-file`, and `given.rs` puts the command line above them.
//!
//! Wanted differences from memcached:
//! - Without `-l` the server listens on loopback.
//! - The default of `-t` is the number of usable CPUs.
//! - Root without `-u` gets a warning, not an error.
//! - The server refuses command lines that leave it out of reach (`-p 0` alone, `-l ''`, `-s ''`), and numbers without a
//!   meaning: ports above 65535, negative `-m` and `idle_timeout`, an infinite `-f`.
//!
//! Only [`Listen::resolve`], which the server calls, uses the network. Nothing here binds anything, and the only file that
//! is opened is that of `--flags-file`.

mod flags;
mod flags_file;
mod given;
mod listen;
mod numbers;
mod options;
mod parse;
mod paths;
mod prefixes;
mod tls;
mod ttl;
mod values;
mod word;

use crate::measure::samples::SampleOptions;
use crate::net::certificates::TlsOptions;
use crate::net::network::Network;
use crate::net::tls::TlsLimits;
pub use crate::protocol::MEMCACHED_VERSION;
use crate::store::Tuning;
use crate::ttl::TtlRule;
pub use flags::command as command_line;
pub use listen::{BindingProtocol, Listen, ListenRules};
use std::path::PathBuf;

/// The commit that this was compiled from, or `unknown`: see `build.rs`.
pub const COMMIT: &str = env!("CORECACHED_COMMIT");

const KILOBYTE: u64 = 1 << 10;
const MEGABYTE: u64 = 1 << 20;
/// The slab page of memcached and of the store.
const PAGE_BYTES: u64 = MEGABYTE;
const ITEM_BYTES_MIN: u64 = KILOBYTE;
const ITEM_BYTES_MAX: u64 = 1 << 30;
/// 16 TiB. A larger number is a typing error, and its product with a megabyte could overflow.
const MEMORY_MEGABYTES_MAX: u64 = 1 << 24;
const THREADS_MAX: u64 = 1024;
/// memcached warns about more threads than this.
const THREADS_MANY: usize = 64;
const SLAB_SIZES_MAX: usize = 62;
/// The largest chunk of the store, which chains larger items (`store/slab.rs`, `CHUNK_MAX`).
const CHUNK_BYTES_LARGEST: u64 = 12 * KILOBYTE;
/// The default of `-R`. From here on, a turn ends with a whole group of requests.
pub const REQUESTS_PER_EVENT: u32 = 20;

/// All settings, checked. `Config::default()` is the result of an empty command line.
///
/// Each group has its defaults in `impl Default`. The default of a setting that belongs to a lower layer is there.
#[allow(missing_docs, reason = "each group says what it is")]
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: Listening,
    pub udp: Udp,
    pub login: Login,
    pub tls: Tls,
    pub memory: Memory,
    /// The settings of the store that commands change: `-o slab_automove`, `-o hot_lru_pct`, `-o temporary_ttl` and others.
    pub tuning: Tuning,
    /// `--ttl`: rules for the time to live of items, each with another prefix.
    pub ttl: Vec<TtlRule>,
    pub crawler: Crawler,
    pub workers: Workers,
    pub turn: Turn,
    pub connections: Connections,
    pub uploads: Uploads,
    pub permissions: Permissions,
    /// `--nodes`: the file of nodes that `config get cluster` lists.
    pub nodes_file: Option<PathBuf>,
    pub detail: Detail,
    pub watch: Watch,
    pub measuring: Measuring,
    pub observing: Observing,
    pub process: Process,
    pub shown: Shown,
    /// Lines for the log: settings that have no effect or are unwise.
    pub warnings: Vec<String>,
}

/// Where the server listens for TCP and Unix connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Listening {
    /// What to bind for `-p`, `-l`, `-s` and `-a`, in order, without repeats. Empty if the server has UDP only.
    pub sockets: Vec<Listen>,
    /// What the prefixes of `-l` say about each of `sockets`, in the same order.
    pub rules: Vec<ListenRules>,
    /// `-a` as given.
    pub unix_mask: u32,
    /// `-o sock_cookie_id`: the mark of listening sockets, for packet filters. 0: none.
    pub socket_mark: u32,
    /// `-p` as given: 1 to 65535, 0 for no TCP, -1 for any port.
    pub tcp_port: i32,
    /// `-l` as given, repeats joined by commas.
    pub interface: Option<String>,
    /// Environment `MEMCACHED_PORT_FILENAME`: the file to write the bound ports to.
    pub port_file: Option<PathBuf>,
    /// `-b`: the backlog of `listen`, in connections. The kernel limits it to `net.core.somaxconn`, and -1 is that limit.
    pub backlog: i32,
    /// `-B`: the protocols that clients may use. Binary with `-S`, text with `-Y`.
    pub protocol: BindingProtocol,
}

impl Default for Listening {
    fn default() -> Listening {
        Listening {
            sockets: Vec::new(),
            rules: Vec::new(),
            unix_mask: 0o700,
            socket_mark: 0,
            tcp_port: 11211,
            interface: None,
            port_file: None,
            backlog: 1024,
            protocol: BindingProtocol::Auto,
        }
    }
}

/// Datagrams.
#[derive(Clone, Debug, PartialEq)]
pub struct Udp {
    /// `-U` as given: 1 to 65535, 0 for no UDP, -1 for any port.
    pub port: i32,
    /// What to bind, from `-U` and `-l`.
    pub sockets: Vec<Listen>,
    /// `--udp-allow`: networks whose clients may get replies longer than their request. Loopback clients always may. The
    /// sender of a datagram can forge its address, and the owner of the address gets the reply.
    pub allow: Vec<Network>,
    /// The most requests of a worker that wait for other workers. Further requests wait in the socket.
    pub requests_max: usize,
    /// The most bytes of datagrams in reply to one request.
    pub reply_max: usize,
}

impl Default for Udp {
    fn default() -> Udp {
        Udp { port: 0, sockets: Vec::new(), allow: Vec::new(), requests_max: 1024, reply_max: 4 << 20 }
    }
}

/// How clients log in.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    /// `-S`: clients must log in by SASL. The password file of the environment's `MEMCACHED_SASL_PWDB`.
    pub sasl_file: Option<PathBuf>,
    /// `-Y`: clients must log in by a `set`. The password file.
    pub text_file: Option<PathBuf>,
    /// `--users`: clients log in by either protocol, and have rights and limits. The file of users.
    pub users_file: Option<PathBuf>,
    /// The longest password file or file of users, in bytes.
    pub file_bytes_max: u64,
}

impl Default for Login {
    fn default() -> Login {
        Login { sasl_file: None, text_file: None, users_file: None, file_bytes_max: MEGABYTE }
    }
}

/// TLS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// `-Z`: TCP is under TLS, except for listeners with `notls:`.
    pub enabled: bool,
    /// `-o ssl_...`: certificates and versions.
    pub options: TlsOptions,
    /// What a connection may buffer. `-o ssl_wbuf_size` sets the bytes that are sealed before they are sent.
    pub limits: TlsLimits,
}

/// Memory for items.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// `-m`: memory for the pages of all shards, in bytes. At least twice `item_size_max`.
    pub limit_bytes: u64,
    /// Memory beyond `-m`, in percent of it, for classes that come into use when memory is full. Housekeeping returns it
    /// within a second or two. memcached's classes keep their first pages, up to 63 MiB.
    pub credit_percent: u32,
    /// `-M` clears it: evict items when memory is used up. Otherwise answer with an error.
    pub evictions: bool,
    /// `-I`: the largest item with its header and key, in bytes, 1 KiB to 1 GiB.
    pub item_size_max: u64,
    /// `-f`: the ratio between the chunk sizes of neighbouring slab classes, above 1, finite.
    pub growth_factor: f64,
    /// `-n`: the least room for key, value and flags, in bytes.
    pub chunk_size_min: u32,
    /// `-o slab_chunk_max`: the largest chunk, in bytes. Divides 1 MiB and `item_size_max`. The store has a smaller limit
    /// of its own, which this can only lower.
    pub chunk_max_bytes: u64,
    /// `-o slab_sizes`: chunk sizes in bytes, ascending, 1 to 62 of them, each more than 8 above the last and from
    /// `chunk_size_min` to `chunk_max_bytes`. None: they follow from the growth factor.
    pub slab_sizes: Option<Vec<u32>>,
    /// `-o slab_reassign`: pages may move between classes.
    pub slab_reassign: bool,
    /// `-o hashpower`: log2 of the buckets that the index starts with, over all shards, 12 to 32. None: 16.
    pub hash_power: Option<u32>,
    /// `-C` clears it: keep a CAS unique with every item (8 bytes).
    pub cas_enabled: bool,
    /// `-L`: commit all of `-m` at the start, in huge pages if the system has them. Otherwise the server commits memory, in
    /// huge pages too, when it needs it.
    pub large_pages: bool,
    /// `-k`: lock all memory (`mlockall`).
    pub locked: bool,
    /// `--keep-memory`: leave the memory to the next server at a stop in order, and take that of the last one.
    pub keep: bool,
    /// `-o track_sizes`: count item sizes for `stats sizes`.
    pub track_sizes: bool,
    /// `-o lru_maintainer`: divide the LRU into segments, and balance them between turns. Otherwise the LRU is one list.
    pub lru_maintainer: bool,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            limit_bytes: 64 * MEGABYTE,
            credit_percent: 2,
            evictions: true,
            item_size_max: MEGABYTE,
            growth_factor: 1.25,
            chunk_size_min: 48,
            chunk_max_bytes: PAGE_BYTES / 2,
            slab_sizes: None,
            slab_reassign: true,
            hash_power: None,
            cas_enabled: true,
            large_pages: false,
            locked: false,
            keep: false,
            track_sizes: false,
            lru_maintainer: true,
        }
    }
}

/// The crawler, which looks for expired items.
#[derive(Clone, Debug, PartialEq)]
pub struct Crawler {
    /// `-o lru_crawler`: look for expired items between turns.
    pub enabled: bool,
    /// `-o lru_crawler_sleep`: pause between the steps of `lru_crawler crawl`, in microseconds, 0 to 1,000,000.
    pub sleep_micros: u32,
    /// `-o lru_crawler_tocrawl`: items of a class that `lru_crawler crawl` looks at. 0: all.
    pub tocrawl: u32,
}

impl Default for Crawler {
    fn default() -> Crawler {
        Crawler { enabled: true, sleep_micros: 100, tocrawl: 0 }
    }
}

/// Worker threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Workers {
    /// `-t`: the number of workers, 1 to 1024. The default counts the CPUs that affinity and the cgroup quota leave.
    pub threads: usize,
    /// `--pin`: pin worker *i* to the *i*-th usable CPU.
    pub pin: bool,
    /// `--port-per-core`: worker *i* listens on port + *i* and keeps the items that it receives in a shard of its own.
    /// Clients list the ports as servers, and no key crosses a core. Not with a Unix socket.
    pub port_per_core: bool,
    /// `--hot-copies`: the most keys whose items a worker copies because many workers read them. See `worker/copies.rs`.
    pub hot_copies: usize,
    /// `-N`: the number of receive queues of network cards that get a worker each, the one of their first connection. 1 to
    /// `threads`. 0: each connection goes to the worker with the fewest.
    pub napi_ids: usize,
    /// The bytes that one `read` of a connection can take. Each worker has one such buffer.
    pub read_buffer_bytes: usize,
    /// Values up to this size, in bytes, are parsed out of the read buffer and copied into replies. Workers read larger
    /// values into their chunks and write them from there.
    pub inline_value_max: usize,
    /// The number of requests that a worker parses ahead, hashes and prefetches together.
    pub group_len: usize,
    /// The bytes of operations and of their longest replies in one batch to another shard. A worker has at most one batch
    /// on its way to a shard, and fills another. When both are full its clients wait.
    pub mailbox_batch_bytes: usize,
}

impl Default for Workers {
    fn default() -> Workers {
        Workers {
            threads: 1,
            pin: false,
            port_per_core: false,
            hot_copies: 64,
            napi_ids: 0,
            read_buffer_bytes: 64 << 10,
            inline_value_max: 8 << 10,
            group_len: 64,
            mailbox_batch_bytes: 1 << 20,
        }
    }
}

/// How much of each thing a thread does in one turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// `-R`: requests of one connection before other connections have their turn, at least 1. From
    /// [`REQUESTS_PER_EVENT`] on, a connection is served to the end of the group that reaches the limit.
    pub requests: u32,
    /// Events that one poll returns.
    pub events: usize,
    /// Connections that the main thread accepts at a listener.
    pub accepts: usize,
    /// Datagrams that a worker takes from a UDP socket.
    pub datagrams: usize,
    /// Steps of TLS handshakes of a worker. With 2, p99 of another connection is 0.3 to 0.6 ms while a thousand handshakes
    /// begin at once, and with 8 it is 2 ms. More turns cost nothing measurable (`loadtest compare --set tls -w storm`).
    pub handshakes: usize,
    /// Chunks that one step of housekeeping looks at. A worker takes a step for each of its shards.
    pub housekeeping_items: u32,
    /// Items that a dump or a crawl looks at.
    pub walk_items: usize,
    /// Bytes of a dump. They wait until the client has taken them.
    pub walk_bytes: usize,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn {
            requests: REQUESTS_PER_EVENT,
            events: 1024,
            accepts: 64,
            datagrams: 64,
            handshakes: 2,
            housekeeping_items: 64,
            walk_items: 512,
            walk_bytes: 32 << 10,
        }
    }
}

/// Connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Connections {
    /// `-c`: connections of the whole server at the same time, at least 1. The limit of open files may reduce it.
    pub max: u32,
    /// `--connections-per-address`: TCP connections from one address at the same time. 0: as many as there may be.
    pub per_address: u32,
    /// `-c` was given, so that fewer connections are a failure.
    pub max_given: bool,
    /// `-o no_maxconns_fast` clears it: refuse a connection above `-c` with an error line. Otherwise it waits until
    /// another connection closes.
    pub maxconns_fast: bool,
    /// `-o idle_timeout`: a TCP connection that is silent for this long closes, in seconds. 0: never.
    pub idle_timeout_seconds: u32,
    /// Unsent replies of a connection, in bytes, above which the worker serves no more of its requests. Replies that other
    /// shards still owe count with their longest length.
    pub output_high_water_bytes: usize,
    /// Bytes of one list of keys that the worker reads nevertheless, so that a client may send all of it before it reads.
    /// memcached takes any number.
    pub list_backlog_max: usize,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections {
            max: 1024,
            per_address: 0,
            max_given: false,
            maxconns_fast: true,
            idle_timeout_seconds: 0,
            output_high_water_bytes: 1 << 20,
            list_backlog_max: 4 << 20,
        }
    }
}

/// Long values that clients have begun to send. See `worker/uploads.rs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploads {
    /// The memory of these values, in percent of `-m`.
    pub percent: u32,
    /// A connection that is silent for this long within such a value closes, in seconds. `idle_timeout` may be shorter.
    pub idle_seconds: u32,
}

impl Default for Uploads {
    fn default() -> Uploads {
        Uploads { percent: 25, idle_seconds: 60 }
    }
}

/// What clients may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Permissions {
    /// `-A`: `shutdown` is allowed.
    pub shutdown: bool,
    /// `-F` clears it: `flush_all` and `flush_prefix` are allowed.
    pub flush: bool,
    /// `-o flush_prefix_key`: the deletion of a key that begins so flushes the prefix that follows in the key.
    pub flush_prefix_key: Option<Vec<u8>>,
    /// `-X` clears it: `stats cachedump`, `stats detail` and the dumps of `lru_crawler` are allowed.
    pub dump: bool,
    /// `-W` clears it: `watch` is allowed.
    pub watch: bool,
}

impl Default for Permissions {
    fn default() -> Permissions {
        Permissions { shutdown: false, flush: true, flush_prefix_key: None, dump: true, watch: true }
    }
}

/// `stats detail`: statistics by prefix of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail {
    /// `-D`: the byte that ends the prefix of a key.
    pub delimiter: u8,
    /// `-D` was given: the server collects from the start.
    pub enabled: bool,
    /// The most prefixes that have counters.
    pub prefixes_max: usize,
}

impl Default for Detail {
    fn default() -> Detail {
        Detail { delimiter: b':', enabled: false, prefixes_max: 65_536 }
    }
}

/// What the server measures of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Measuring {
    /// `--no-latency` clears it: measure how long requests take.
    pub latency: bool,
    /// `--sample`: the mean number of operations between two that are sampled. 0: none are.
    pub sample: u32,
    /// `--slow-log`: note requests that take longer than this many milliseconds. 0: none.
    pub slow_millis: u64,
    /// `--prefix-depth`: the parts of a key that make its prefix, 1 to 4.
    pub prefix_depth: usize,
    /// `--hide-keys`: show hashes in place of keys.
    pub hide_keys: bool,
}

impl Default for Measuring {
    fn default() -> Measuring {
        Measuring { latency: true, sample: 128, slow_millis: 10, prefix_depth: 1, hide_keys: false }
    }
}

/// The metrics address, and the end of the server as load balancers see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observing {
    /// `--metrics`: where the server answers scrapers and browsers by HTTP. Empty: nowhere.
    pub addresses: Vec<Listen>,
    /// `--metrics-key-names`: keys may appear there. Otherwise a hash and the prefix stand for a key.
    pub key_names: bool,
    /// `--drain`: after TERM, the server says that it is not ready for this long before it stops, in seconds.
    pub drain_seconds: u64,
}

impl Observing {
    /// The port of an address without one: memcached_exporter's.
    pub const PORT: u16 = 9150;
}

/// Connections that `watch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The most watchers at the same time, as in memcached.
    pub watchers_max: usize,
    /// The most evictions of one operation that watchers hear of.
    pub evictions_max: usize,
    /// `-o watcher_logbuf_size`: lines that wait for one watcher, in bytes.
    pub watcher_bytes: u64,
    /// `-o worker_logbuf_size`: lines that a worker writes for watchers in one turn, in bytes.
    pub worker_bytes: u64,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { watchers_max: 20, evictions_max: 1024, watcher_bytes: 256 * KILOBYTE, worker_bytes: 64 * KILOBYTE }
    }
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// `--flags-file`: the file that some of the flags come from.
    pub flags_file: Option<PathBuf>,
    /// `--check`: check the flags and the files that they name, and end.
    pub check: bool,
    /// `-d`: run in the background.
    pub daemonize: bool,
    /// `-u`: the user to become if root has started the server. Ignored otherwise.
    pub user: Option<String>,
    /// `-P`: the file for the process id, with or without `-d`. Removed at exit.
    pub pid_file: Option<PathBuf>,
    /// `-e`: the file that a graceful stop writes the cache to, and that the next start loads.
    pub memory_file: Option<PathBuf>,
    /// `--take-over`: take the sockets of a running server with the same address and user, and let the next one do the same.
    pub take_over: bool,
    /// `-r`: raise the limit of core files.
    pub core_dumps: bool,
    /// `-v`: 0 logs warnings, 1 also events of the server, 2 also connections and their requests.
    pub verbosity: u8,
}

/// Values that only `stats settings` shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// `-o tail_repair_time`, in seconds, 0 or at least 10.
    pub tail_repair_time_seconds: u32,
    /// `-o read_buf_mem_limit`, in bytes. 0: no limit.
    pub read_buffers_limit_bytes: u64,
    /// `-o ssl_wbuf_size` as given. The default is memcached's.
    pub tls_write_buffer_bytes: u64,
    /// `-o ssl_verify_mode` as OpenSSL's bits.
    pub tls_verify_bits: u8,
    /// `-o ssl_min_version`, 0 to 3 for 1.0 to 1.3. The server takes numbers below 2 as 2.
    pub tls_min_version: u8,
    /// `-o ssl_kernel_tls`.
    pub tls_kernel: bool,
}

impl Default for Shown {
    fn default() -> Shown {
        Shown {
            tail_repair_time_seconds: 0,
            read_buffers_limit_bytes: 0,
            tls_write_buffer_bytes: 16 << 10,
            tls_verify_bits: 0,
            tls_min_version: 2,
            tls_kernel: false,
        }
    }
}

impl Config {
    /// The settings before any flag is read.
    fn base() -> Config {
        Config {
            listen: Listening::default(),
            udp: Udp::default(),
            login: Login::default(),
            tls: Tls::default(),
            memory: Memory::default(),
            tuning: Tuning::default(),
            ttl: Vec::new(),
            crawler: Crawler::default(),
            workers: Workers::default(),
            turn: Turn::default(),
            connections: Connections::default(),
            uploads: Uploads::default(),
            permissions: Permissions::default(),
            nodes_file: None,
            detail: Detail::default(),
            watch: Watch::default(),
            measuring: Measuring::default(),
            observing: Observing::default(),
            process: Process::default(),
            shown: Shown::default(),
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// How workers sample operations.
    pub fn samples(&self) -> SampleOptions {
        let Measuring { sample, prefix_depth, .. } = self.measuring;
        SampleOptions { mean: sample, delimiter: self.detail.delimiter, prefix_depth }
    }
}

/// The level of the log with so many `-v`.
pub fn log_level(verbosity: u8) -> log::LevelFilter {
    match verbosity {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests;
