//! The command line, in memcached's letters, turned once into one validated [`Config`].
//!
//! What a service file for memcached says means the same here. A flag that is not built yet is refused with one line on
//! standard error and a non-zero exit, never ignored in silence. Where memcached has a message for a mistake, ours
//! begins with the same words and exits with the same code. Where it reads something else than what is written (`-m 10g`
//! is 10 MB there, an argument without a flag is nothing), it means the same here, and a warning says so.
//!
//! Wanted differences from memcached: it listens on loopback unless `-l` says otherwise; `-t` is the number of usable
//! CPUs; root without `-u` is warned, not refused. Refused is a server that nobody can reach (`-p 0` alone, `-l ''`,
//! `-s ''`), and a number that can mean nothing: ports above 65535, negative `-m` and `idle_timeout`, an infinite `-f`.
//!
//! Nothing here opens, binds or resolves anything, except [`Listen::resolve`], which the server calls.

mod flags;
mod listen;
mod numbers;
mod options;
mod parse;
mod paths;
mod prefixes;
mod tls;
mod word;

use crate::net::certificates::{KeyFormat, TlsOptions, Verify};
use crate::net::network::Network;
use crate::net::tls::TlsLimits;
pub use crate::protocol::MEMCACHED_VERSION;
use crate::store::Tuning;
pub use listen::{BindingProtocol, Listen, ListenRules};
use std::path::PathBuf;

const KILOBYTE: u64 = 1 << 10;
const MEGABYTE: u64 = 1 << 20;
/// The slab page of memcached and of our store.
const PAGE_BYTES: u64 = MEGABYTE;
const ITEM_BYTES_MIN: u64 = KILOBYTE;
const ITEM_BYTES_MAX: u64 = 1 << 30;
/// 16 TiB: more is a slip of the hand, and the product must not overflow.
const MEMORY_MEGABYTES_MAX: u64 = 1 << 24;
const THREADS_MAX: u64 = 1024;
/// From here memcached warns.
const THREADS_MANY: usize = 64;
const SLAB_SIZES_MAX: usize = 62;
/// Chunks of our store are not larger than this: larger items are chained (`store/slab.rs`, `CHUNK_MAX`).
const CHUNK_BYTES_LARGEST: u64 = 64 * KILOBYTE;

/// One validated set of settings: every flag and every limit, with nothing left to check.
///
/// `Config::default()` is what an empty command line gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    // Where it listens.
    /// What to bind, in order, without repeats. Empty only with UDP alone. `-p`, `-l`, `-s`, `-a` together; default: loopback, 11211.
    pub listen: Vec<Listen>,
    /// What the prefixes of `-l` say of each of `listen`, in the same order; none: nothing. Default none.
    pub listen_rules: Vec<ListenRules>,
    /// `-a` as given, for `stats settings`. Default 0o700.
    pub unix_mask: u32,
    /// `-o sock_cookie_id`: mark of listening TCP and UDP sockets, for packet filters; 0: none. Default 0.
    pub socket_mark: u32,
    /// `-p` as given, for `stats settings`: 1–65535, 0 no TCP, -1 ephemeral. Default 11211.
    pub tcp_port: i32,
    /// `-U` as given: 1–65535, 0 no UDP, -1 ephemeral. Default 0.
    pub udp_port: i32,
    /// What to bind for UDP, from `-U` and `-l`. Default nothing.
    pub udp_listen: Vec<Listen>,
    /// `--udp-allow`: who may be sent replies over UDP that are larger than their request; loopback always may. The
    /// address of a datagram can be forged, and then it is somebody else who is sent the reply. Default nobody.
    pub udp_allow: Vec<Network>,
    /// `-l` as given, repeats joined by commas, for `stats settings` (`inter`). Default none.
    pub interface: Option<String>,
    /// Environment `MEMCACHED_PORT_FILENAME`: file to write the bound ports to (`TCP INET: n`, `TCP INET6: n`), by way of
    /// a `.lck` beside it and a rename. Default none.
    pub port_file: Option<PathBuf>,
    /// `-b`: backlog of `listen`, in connections; the kernel caps it at `net.core.somaxconn`, and -1 asks for that cap.
    /// Default 1024.
    pub listen_backlog: i32,
    /// `-B`: what clients may speak. Default [`BindingProtocol::Auto`]; binary with `-S`, text with `-Y`.
    pub protocol: BindingProtocol,
    /// `-S`: the password file of the environment's `MEMCACHED_SASL_PWDB`; clients must show who they are, by SASL.
    /// Default none.
    pub sasl_password_file: Option<PathBuf>,
    /// `-Y`: a password file; clients must show who they are, by a `set`. Default none.
    pub auth_file: Option<PathBuf>,
    /// Longest password file, in bytes. Default 1 MiB.
    pub password_file_bytes_max: u64,

    // TLS.
    /// `-Z`: TCP is under TLS, but for listeners that say `notls:`. Default false.
    pub tls_enabled: bool,
    /// `-o ssl_...`: certificates and terms. Default: nothing is asked of clients, TLS 1.2 or 1.3, no session cache.
    pub tls: TlsOptions,
    /// What a connection under TLS may hold: a message of a handshake up to 64 KiB; `-o ssl_wbuf_size`: bytes that are
    /// sealed before they are sent, 1 KiB to 1 MiB, default 64 KiB.
    pub tls_limits: TlsLimits,
    /// `-o ssl_wbuf_size` as it was given, for `stats settings`. Default 16 KiB, memcached's.
    pub tls_write_buffer_bytes: u64,
    /// Steps of handshakes that a worker takes in a turn, before connections that are done with theirs have their turn
    /// again. Default 2: while a thousand handshakes are begun at once another connection's p99 is 0.3 to 0.6 ms, with 8 of
    /// them 2 ms; the turns themselves cost nothing that could be measured (`loadtest compare --set tls -w storm`).
    pub tls_handshakes_per_turn: usize,
    /// `-o ssl_verify_mode` as OpenSSL's bits, for `stats settings`. Default 0.
    pub tls_verify_bits: u8,
    /// `-o ssl_min_version`, 0 to 3 for 1.0 to 1.3, for `stats settings`; less than 2 is 2. Default 2.
    pub tls_min_version: u8,
    /// `-o ssl_kernel_tls`, for `stats settings` alone. Default false.
    pub tls_kernel: bool,

    // Memory.
    /// `-m`: memory for item pages of all shards, in bytes; at least twice `item_size_max`. Default 64 MiB.
    pub memory_limit_bytes: u64,
    /// `-M` clears it: evict when memory is used up, rather than answer with an error. Default true.
    pub evictions: bool,
    /// `-I`: largest item, header and key included, in bytes; 1 KiB–1 GiB. Default 1 MiB.
    pub item_size_max: u64,
    /// `-f`: ratio between chunk sizes of neighbouring slab classes; above 1, finite. Default 1.25.
    pub growth_factor: f64,
    /// `-n`: least room for key, value and flags, in bytes; 1–1 MiB. Default 48.
    pub chunk_size_min: u32,
    /// `-o slab_chunk_max`: largest chunk, in bytes; divides 1 MiB and `item_size_max`. Default 512 KiB. The store has
    /// its own, smaller cap, which this can only lower.
    pub slab_chunk_max_bytes: u64,
    /// `-o slab_sizes`: explicit chunk sizes, in bytes, ascending, 1–62 of them, each more than 8 above the last and
    /// `chunk_size_min` to `slab_chunk_max_bytes`. Default none: by growth factor.
    pub slab_sizes: Option<Vec<u32>>,
    /// `-o slab_reassign`: pages may move between classes. Default true.
    pub slab_reassign: bool,
    /// Settings that commands change: `-o slab_automove` and the like, `-o hot_lru_pct` and the like, `-o temporary_ttl`.
    pub tuning: Tuning,
    /// `-o hashpower`: log2 of the buckets that the index starts with, over all shards; 12–32. Default none: 16.
    pub hash_power: Option<u32>,
    /// `-C` clears it: keep a CAS unique with every item (8 bytes). Default true.
    pub cas_enabled: bool,
    /// `-L`: commit all of `-m` at the start, in huge pages where the system has them. Without it memory is committed, in
    /// huge pages too, as it is needed. Default false.
    pub large_pages: bool,
    /// `-k`: lock all memory (`mlockall`). Default false.
    pub lock_memory: bool,
    /// `-o track_sizes`: count item sizes for `stats sizes`. Default false.
    pub track_sizes: bool,

    // What is kept and for how long.
    /// `-o lru_maintainer`: an LRU in segments, juggled between turns; without it there is one list. Default true.
    pub lru_maintainer: bool,
    /// `-o lru_crawler`: look for expired items between turns. Default true.
    pub lru_crawler: bool,
    /// `-o lru_crawler_sleep`: pause between pieces of `lru_crawler crawl`, in microseconds; 0–1,000,000. Default 100.
    pub lru_crawler_sleep_micros: u32,
    /// `-o lru_crawler_tocrawl`: items that `lru_crawler crawl` looks at in a class; 0: all. Default 0.
    pub lru_crawler_tocrawl: u32,
    /// `-o tail_repair_time`, for `stats settings` only, in seconds; 0 or at least 10: no reference can leak here.
    /// Default 0.
    pub tail_repair_time_seconds: u32,

    // Workers and connections.
    /// `-t`: worker threads; 1–1024. Default: usable CPUs (affinity and cgroup quota counted).
    pub threads: usize,
    /// `--pin`: pin worker *i* to the *i*-th usable CPU. Default false.
    pub pin: bool,
    /// `--port-per-core`: worker *i* listens on port + *i* and keeps what it is sent in its own shard: clients list the
    /// ports as servers, and no key crosses a core. Not with a unix socket. Default false.
    pub port_per_core: bool,
    /// `-N`: receive queues of network cards whose connections have a worker of their own, which is the first to be given
    /// one of them; 1 to `threads`, 0: whichever has fewest. Default 0.
    pub napi_ids: usize,
    /// `-c`: simultaneous connections of the whole server, at least 1. Default 1024, or as many as the limit of open files
    /// leaves.
    pub connections_max: u32,
    /// `-c` was given: that many connections are promised. Default false.
    pub connections_given: bool,
    /// `-o no_maxconns_fast` clears it: a connection above `-c` is refused with an error line, rather than left waiting
    /// until one closes. Default true.
    pub maxconns_fast: bool,
    /// `-R`: requests of one connection that are served in a turn before others have theirs; at least 1. From
    /// [`Config::REQUESTS_PER_EVENT`] on, which is the default, the group in which they are reached is served whole.
    pub requests_per_event: u32,
    /// `-o idle_timeout`: a TCP connection silent for this long is closed, in seconds; 0: never. Default 0.
    pub idle_timeout_seconds: u32,
    /// `-o read_buf_mem_limit`: memory for buffers of connections, over all workers, in bytes; 0: no limit. Default 0.
    pub read_buffers_limit_bytes: u64,

    // Limits of our own, without a flag.
    /// Bytes that one `read` of a connection can take; a worker has one such buffer. Default 64 KiB.
    pub read_buffer_bytes: usize,
    /// Values up to this size, in bytes, are parsed out of the read buffer and copied into replies; larger ones are read
    /// into their place and written from there. Default 8 KiB.
    pub inline_value_max: usize,
    /// Memory of long values that clients have begun to send, as a share of `-m`, in percent; see `worker/uploads.rs`.
    /// Default 25.
    pub uploads_percent: u32,
    /// A connection that is silent for this long in the middle of a long value is closed, in seconds; less if
    /// `idle_timeout` is. Default 60.
    pub upload_idle_seconds: u32,
    /// Unsent replies of one connection, in bytes, beyond which no more of its requests are served; those that are still
    /// awaited from other shards count as much as they may take. Default 1 MiB.
    pub output_high_water_bytes: usize,
    /// Bytes of one list of keys that are taken in nevertheless, so that a client may send all of it before it reads.
    /// Default 4 MiB; memcached takes any number.
    pub list_backlog_max: usize,
    /// Requests that are parsed ahead, hashed and prefetched together. Default 64.
    pub group_len: usize,
    /// Bytes of operations and of their replies, as many as they may take, in one batch to another shard. A worker has at
    /// most one batch on its way to a shard, and another that fills; when both are full its clients wait. Default 1 MiB.
    pub mailbox_batch_bytes: usize,
    /// Events taken from one poll. Default 1024.
    pub poll_events_len: usize,
    /// Connections accepted in one turn. Default 64.
    pub accepts_per_turn: usize,
    /// Datagrams taken from one UDP socket in one turn. Default 64.
    pub datagrams_per_turn: usize,
    /// UDP requests of one worker that wait for other workers; further ones wait in the socket. Default 1024.
    pub udp_requests_max: usize,
    /// Replies to one UDP request, in bytes of datagrams. Default 4 MiB.
    pub udp_reply_max: usize,
    /// Chunks that one step of housekeeping looks at; a worker takes a step for each of its shards in a turn. Default 64.
    pub housekeeping_items_per_turn: u32,
    /// Memory beyond `-m`, in percent of it, for classes that come into use when it is full: given back within a second or
    /// two, in steps of housekeeping. memcached's classes keep their first pages, up to 63 MiB. Default 12.
    pub memory_credit_percent: u32,
    /// Items that a dump or a crawl looks at in one go. Default 512.
    pub walk_items_per_turn: usize,
    /// Bytes of a dump that are made in one go, and wait until the client has taken them. Default 32 KiB.
    pub walk_bytes_per_turn: usize,
    /// Connections that may `watch` at the same time. Default 20, memcached's.
    pub watchers_max: usize,
    /// Evictions by one operation that are told to those who watch. Default 1024.
    pub evictions_noted_max: usize,
    /// Prefixes that `stats detail` keeps counters for. Default 65,536.
    pub prefixes_max: usize,

    // What clients may ask for.
    /// `-A`: the `shutdown` command is allowed. Default false.
    pub shutdown_enabled: bool,
    /// `-F` clears it: `flush_all` is allowed. Default true.
    pub flush_enabled: bool,
    /// `-X` clears it: `stats cachedump`, `stats detail` and the `lru_crawler` dumps are allowed. Default true.
    pub dump_enabled: bool,
    /// `-W` clears it: `watch` is allowed. Default true.
    pub watch_enabled: bool,
    /// `-D`: the byte that ends a key's prefix, for `stats detail`. Default `:`.
    pub prefix_delimiter: u8,
    /// `-D` was given: per-prefix statistics are collected from the start. Default false.
    pub detail_enabled: bool,

    // The process.
    /// `-d`: run in the background. Default false.
    pub daemonize: bool,
    /// `-u`: user to become when started as root; exit [`EXIT_NO_USER`](crate::exit::EXIT_NO_USER) with `can't find the user … to switch to` if
    /// there is none. Ignored, as documented, when not root. Default none.
    pub user: Option<String>,
    /// `-P`: file for the process id, with or without `-d`; removed at exit. Default none.
    pub pid_file: Option<PathBuf>,
    /// `-e`: file that a graceful stop writes the cache to, and the next start takes it from. Default none.
    pub memory_file: Option<PathBuf>,
    /// `-r`: raise the limit of core files. Default false.
    pub core_dumps: bool,
    /// `-v`: 0 warnings, 1 and what happens to the server, 2 and connections and their requests, 3 the same.
    /// Default 0.
    pub verbosity: u8,

    // What memcached shows in `stats settings` and nothing here reads.
    /// `-o watcher_logbuf_size`: lines that wait for one watcher, in bytes. Default 256 KiB.
    pub watcher_logbuf_bytes: u64,
    /// `-o worker_logbuf_size`: lines that a worker writes in one turn for watchers, in bytes. Default 64 KiB.
    pub worker_logbuf_bytes: u64,

    /// One line each, for the server to log once it can: what was accepted although it changes nothing, or is unwise.
    pub warnings: Vec<String>,
}

impl Config {
    /// The default of `-R`.
    pub const REQUESTS_PER_EVENT: u32 = 20;

    /// What holds before any flag is looked at.
    fn base() -> Config {
        Config {
            listen: Vec::new(),
            listen_rules: Vec::new(),
            unix_mask: 0o700,
            socket_mark: 0,
            tcp_port: 11211,
            udp_port: 0,
            udp_listen: Vec::new(),
            udp_allow: Vec::new(),
            interface: None,
            port_file: None,
            listen_backlog: 1024,
            protocol: BindingProtocol::Auto,
            sasl_password_file: None,
            auth_file: None,
            password_file_bytes_max: MEGABYTE,
            tls_enabled: false,
            tls: TlsOptions {
                chain: None,
                key: None,
                key_format: KeyFormat::Pem,
                verify: Verify::None,
                authorities: None,
                ciphers: None,
                only_1_3: false,
                sessions_max: 0,
            },
            tls_limits: TlsLimits { incoming_max: 64 << 10, seal_max: 64 << 10 },
            tls_write_buffer_bytes: 16 << 10,
            tls_handshakes_per_turn: 2,
            tls_verify_bits: 0,
            tls_min_version: 2,
            tls_kernel: false,
            memory_limit_bytes: 64 * MEGABYTE,
            evictions: true,
            item_size_max: MEGABYTE,
            growth_factor: 1.25,
            chunk_size_min: 48,
            slab_chunk_max_bytes: PAGE_BYTES / 2,
            slab_sizes: None,
            slab_reassign: true,
            tuning: Tuning::default(),
            hash_power: None,
            cas_enabled: true,
            large_pages: false,
            lock_memory: false,
            track_sizes: false,
            lru_maintainer: true,
            lru_crawler: true,
            lru_crawler_sleep_micros: 100,
            lru_crawler_tocrawl: 0,
            tail_repair_time_seconds: 0,
            threads: 1,
            pin: false,
            port_per_core: false,
            napi_ids: 0,
            connections_max: 1024,
            connections_given: false,
            maxconns_fast: true,
            requests_per_event: Config::REQUESTS_PER_EVENT,
            idle_timeout_seconds: 0,
            read_buffers_limit_bytes: 0,
            read_buffer_bytes: 64 << 10,
            inline_value_max: 8 << 10,
            uploads_percent: 25,
            upload_idle_seconds: 60,
            output_high_water_bytes: 1 << 20,
            list_backlog_max: 4 << 20,
            group_len: 64,
            mailbox_batch_bytes: 1 << 20,
            poll_events_len: 1024,
            accepts_per_turn: 64,
            datagrams_per_turn: 64,
            udp_requests_max: 1024,
            udp_reply_max: 4 << 20,
            housekeeping_items_per_turn: 64,
            memory_credit_percent: 12,
            walk_items_per_turn: 512,
            walk_bytes_per_turn: 32 << 10,
            watchers_max: 20,
            evictions_noted_max: 1024,
            prefixes_max: 65_536,
            shutdown_enabled: false,
            flush_enabled: true,
            dump_enabled: true,
            watch_enabled: true,
            prefix_delimiter: b':',
            detail_enabled: false,
            daemonize: false,
            user: None,
            pid_file: None,
            memory_file: None,
            core_dumps: false,
            verbosity: 0,
            watcher_logbuf_bytes: 256 * KILOBYTE,
            worker_logbuf_bytes: 64 * KILOBYTE,
            warnings: Vec::new(),
        }
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
