//! The command line, in memcached's letters, turned once into one validated [`Config`].
//!
//! What a service file for memcached says means the same here. A flag that is not built yet is refused with one line on
//! standard error and a non-zero exit, never ignored in silence. Where memcached has a message for a mistake, ours
//! begins with the same words and exits with the same code. Where it reads something else than what is written (`-m 10g`
//! is 10 MB there, an argument without a flag is nothing), it means the same here, and a warning says so.
//!
//! | what | flags |
//! |---|---|
//! | accepted | `-p -s -a -A -l -d -r -u -m -M -c -k -v -h -i -V -P -f -n -L -D -t -R -C -b -I -F -X -W -e -S -Y -Z -N --pin`, `-U`, `--udp-allow`, `-B` |
//! | `-o`, accepted | `maxconns_fast no_maxconns_fast hashpower slab_reassign no_slab_reassign slab_automove no_slab_automove slab_automove_ratio slab_automove_window slab_automove_freeratio no_modern slab_sizes slab_chunk_max lru_crawler no_lru_crawler lru_maintainer no_lru_maintainer hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor temporary_ttl lru_crawler_sleep lru_crawler_tocrawl watcher_logbuf_size worker_logbuf_size idle_timeout track_sizes ssl_chain_cert ssl_key ssl_keyformat ssl_verify_mode ssl_ca_cert ssl_ciphers ssl_min_version ssl_session_cache ssl_wbuf_size sock_cookie_id` |
//! | `-o`, no effect in memcached either | `modern inline_ascii_resp no_inline_ascii_resp no_drop_privileges relaxed_privileges` |
//! | `-o`, accepted with a warning | `hash_algorithm tail_repair_time read_buf_mem_limit resp_obj_mem_limit no_chunked_items no_hashexpand drop_privileges ssl_kernel_tls`; `slab_chunk_max` and `slab_sizes` beyond the largest chunk |
//! | `-o`, refused | `ext_* proxy_*` and unknown words |
//!
//! Wanted differences from memcached: it listens on loopback unless `-l` says otherwise; `-t` is the number of usable
//! CPUs; root without `-u` is warned, not refused. Refused is a server that nobody can reach (`-p 0` alone, `-l ''`,
//! `-s ''`), and a number that can mean nothing: ports above 65535, negative `-m` and `idle_timeout`, an infinite `-f`.
//!
//! Nothing here opens, binds or resolves anything, except [`Listen::resolve`], which the server calls.

mod flags;
mod options;
mod prefixes;
mod tls;

use crate::net::certificates::{KeyFormat, TlsOptions, Verify};
use crate::net::network::Network;
use crate::net::tls::TlsLimits;
use clap::ArgMatches;
use flags::{LICENSE, Program, command, help, mistake};
use options::{ChunkMax, suboptions};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The version whose protocol and flags these are: what clients are told. Three plain numbers, because clients parse it.
pub const MEMCACHED_VERSION: &str = "1.6.45";

/// Exit code of a mistaken command line (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code when `-u` names nobody (EX_NOUSER).
pub const EXIT_NO_USER: u8 = 67;
/// Exit code when the system refuses: bind, limits, fork, setuid (EX_OSERR).
pub const EXIT_SYSTEM: u8 = 71;
/// Exit code when a graceful stop could not write the image of `-e`: the next start will be cold (EX_IOERR).
pub const EXIT_NOT_KEPT: u8 = 74;

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
    /// `-o slab_automove`: 0 off, 1 by windows of samples, 2 aggressive. Default 1.
    pub slab_automove: u8,
    /// `-o slab_automove_ratio`: age of a class, as a share of the mean, that marks it poor; above 0, at most 1.
    /// Default 0.8.
    pub slab_automove_ratio: f64,
    /// `-o slab_automove_window`: seconds of samples before a page moves; 3–1800. Default 10.
    pub slab_automove_window_seconds: u32,
    /// `-o slab_automove_freeratio`: share of the pages that is kept free for any class to take; 0 to below 1. Default 0.
    pub slab_automove_free_ratio: f64,
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
    /// `-o hot_lru_pct`: share of a class that HOT may hold, in percent; 1–79, with WARM at most 80. Default 20.
    pub hot_lru_percent: u32,
    /// `-o warm_lru_pct`: share of a class that WARM may hold, in percent; 1–79, with HOT at most 80. Default 40.
    pub warm_lru_percent: u32,
    /// `-o hot_max_factor`: an item idle for longer than COLD's age times this leaves HOT; above 0. Default 0.2.
    pub hot_max_factor: f64,
    /// `-o warm_max_factor`: the same for WARM; above 0. Default 2.0.
    pub warm_max_factor: f64,
    /// `-o temporary_ttl`: items that live at most this long, in seconds, go to TEMP. Default none: there is no TEMP.
    pub temporary_ttl_seconds: Option<u32>,
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
    /// `-u`: user to become when started as root; exit [`EXIT_NO_USER`] with `can't find the user … to switch to` if
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

/// What prefixes of an entry of `-l` say of a TCP listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenRules {
    /// `notls:`, `btls:` or `mtls:`: what its clients are to show, none without TLS. Otherwise as `-Z` and `-o` say.
    pub tls: Option<Option<Verify>>,
    /// `proto[…]:`: what its clients may speak. Otherwise as `-B` says.
    pub protocol: Option<BindingProtocol>,
    /// `tag[…]:`: a name, which is for the log here, and for its proxy in memcached.
    pub tag: Option<String>,
}

/// Something to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// 127.0.0.1, and ::1 where there is IPv6: one of the two is enough. Nobody asked for an address.
    Loopback {
        /// 0: ephemeral.
        port: u16,
    },
    /// `*`: all addresses, 0.0.0.0 and ::; one of the two is enough.
    Any {
        /// 0: ephemeral.
        port: u16,
    },
    /// An address or a name; every address that the name has.
    Host {
        /// Without brackets.
        host: String,
        /// 0: ephemeral.
        port: u16,
    },
    /// A unix socket; a stale socket at the path is removed first.
    Unix {
        /// Path of the socket.
        path: PathBuf,
        /// Permissions of the socket. Default 0o700.
        mask: u32,
    },
}

impl Listen {
    /// The addresses to bind: none for a unix socket. Asks the resolver for a name, so it may block.
    ///
    /// IPv6 sockets must be bound IPv6-only, since `Any` and `Loopback` give both kinds with one port.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Listen::Loopback { port } => {
                Ok(vec![(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()])
            }
            Listen::Any { port } => {
                Ok(vec![(Ipv4Addr::UNSPECIFIED, *port).into(), (Ipv6Addr::UNSPECIFIED, *port).into()])
            }
            Listen::Host { host, port } => {
                let mut addresses = Vec::new();
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                Ok(addresses)
            }
            Listen::Unix { .. } => Ok(Vec::new()),
        }
    }
}

/// As an operator would write it: `127.0.0.1:11211`, `[::1]:11211`, `*:11211`, `/run/memcached.sock`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Loopback { port } => write!(f, "loopback:{port}"),
            Listen::Any { port } => write!(f, "*:{port}"),
            Listen::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Listen::Host { host, port } => write!(f, "{host}:{port}"),
            Listen::Unix { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// `-B`: the protocols that a connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingProtocol {
    /// Either, as a connection's first byte says.
    Auto,
    /// Text and meta.
    Ascii,
    /// Binary.
    Binary,
}

/// memcached's word for it in `stats settings`.
impl fmt::Display for BindingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BindingProtocol::Auto => "auto-negotiate",
            BindingProtocol::Ascii => "ascii",
            BindingProtocol::Binary => "binary",
        })
    }
}

/// Why the program ends before or instead of serving: `-h`, a mistake, or what the system refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code: 0, 1, or one of sysexits.h.
    pub code: u8,
    /// What to print; without the last newline.
    pub text: String,
    /// It was asked for, so it goes to standard output; otherwise to standard error, and is one line, or two for
    /// a flag that there is not.
    pub to_stdout: bool,
}

impl Exit {
    /// A failure with this code and this one line.
    pub fn failure(code: u8, text: impl Into<String>) -> Exit {
        Exit { code, text: text.into(), to_stdout: false }
    }

    fn usage(text: impl Into<String>) -> Exit {
        Exit::failure(EXIT_USAGE, text)
    }

    fn information(text: String) -> Exit {
        Exit { code: 0, text, to_stdout: true }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Exit {}

/// What the system refused.
impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Exit {
        Exit::failure(EXIT_SYSTEM, error.to_string())
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::parse_from(["corecached".into()]).expect("an empty command line is valid")
    }
}

impl Config {
    /// The default of `-R`.
    pub const REQUESTS_PER_EVENT: u32 = 20;

    /// Reads a command line, the program's name first, and what of the environment belongs to it.
    ///
    /// # Errors
    /// The [`Exit`] to make: help and the like (code 0, to standard output), or one line that says what is wrong.
    pub fn parse_from(args: impl IntoIterator<Item = OsString>) -> Result<Config, Exit> {
        parse(args.into_iter().collect(), &Surroundings::here())
    }

    /// What holds before any flag is looked at.
    fn base(surroundings: &Surroundings) -> Config {
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
            port_file: surroundings.port_file.clone(),
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
            slab_automove: 1,
            slab_automove_ratio: 0.8,
            slab_automove_window_seconds: 10,
            slab_automove_free_ratio: 0.0,
            hash_power: None,
            cas_enabled: true,
            large_pages: false,
            lock_memory: false,
            track_sizes: false,
            lru_maintainer: true,
            lru_crawler: true,
            lru_crawler_sleep_micros: 100,
            lru_crawler_tocrawl: 0,
            hot_lru_percent: 20,
            warm_lru_percent: 40,
            hot_max_factor: 0.2,
            warm_max_factor: 2.0,
            temporary_ttl_seconds: None,
            tail_repair_time_seconds: 0,
            threads: surroundings.cpus,
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

/// What a command line is read against.
#[derive(Clone, Debug)]
struct Surroundings {
    cpus: usize,
    is_root: bool,
    port_file: Option<PathBuf>,
    sasl_password_file: Option<PathBuf>,
}

impl Surroundings {
    fn here() -> Surroundings {
        Surroundings {
            cpus: std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX as usize),
            // The owner of our own directory in /proc is our effective user: geteuid without unsafe.
            is_root: std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0),
            port_file: file_in_environment("MEMCACHED_PORT_FILENAME"),
            sasl_password_file: file_in_environment("MEMCACHED_SASL_PWDB"),
        }
    }
}

fn file_in_environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|name| !name.is_empty()).map(PathBuf::from)
}

fn parse(mut args: Vec<OsString>, surroundings: &Surroundings) -> Result<Config, Exit> {
    if args.is_empty() {
        args.push("corecached".into());
    }
    let program = Program::of(&args[0]);
    let last = args[args.len() - 1].clone();
    let matches = command().try_get_matches_from(args).map_err(|error| mistake(&error, program, &last))?;
    if matches.get_flag("help") {
        return Err(Exit::information(format!("{}\n{}", program.version_line(), help())));
    }
    if matches.get_flag("version") {
        return Err(Exit::information(program.version_line()));
    }
    if matches.get_flag("license") {
        return Err(Exit::information(format!("{}\n\n{}", program.version_line(), LICENSE.trim_end())));
    }

    let flags = Flags(matches);
    let mut config = Config::base(surroundings);
    for unused in flags.texts("unused") {
        config.warnings.push(format!("\"{unused}\" belongs to no flag and is not used"));
    }
    switches(&flags, &mut config)?;
    authentication(&flags, surroundings, &mut config)?;
    numbers(&flags, &mut config)?;
    let mut chunk_max = ChunkMax::Default;
    for list in flags.texts("extended") {
        suboptions(&list, &mut config, &mut chunk_max)?;
    }
    sizes(&mut config, chunk_max)?;
    listeners(&flags, &mut config)?;
    tls::check(&mut config)?;

    if config.threads > THREADS_MANY.max(surroundings.cpus) {
        config.warnings.push(format!(
            "{} worker threads on {} usable CPUs: one per CPU serves best",
            config.threads, surroundings.cpus
        ));
    }
    if surroundings.is_root && config.user.is_none() {
        config.warnings.push("running as root: -u <user> gives up its privileges after binding".into());
    }
    Ok(config)
}

/// The flags that were given.
struct Flags(ArgMatches);

impl Flags {
    fn given(&self, id: &str) -> bool {
        self.0.get_flag(id)
    }

    fn raw(&self, id: &str) -> Option<&OsString> {
        self.0.get_one(id)
    }

    /// The value as text; bytes that are not UTF-8 become a sign that no number and no name has.
    fn text(&self, id: &str) -> Option<String> {
        self.raw(id).map(|value| value.to_string_lossy().into_owned())
    }

    fn texts(&self, id: &str) -> Vec<String> {
        self.0
            .get_many::<OsString>(id)
            .map_or_else(Vec::new, |values| values.map(|value| value.to_string_lossy().into_owned()).collect())
    }

    fn path(&self, id: &str) -> Option<PathBuf> {
        self.raw(id).map(PathBuf::from)
    }
}

/// Flags whose presence or plain text says all.
fn switches(flags: &Flags, config: &mut Config) -> Result<(), Exit> {
    config.evictions = !flags.given("disable-evictions");
    config.cas_enabled = !flags.given("disable-cas");
    config.large_pages = flags.given("enable-largepages");
    config.lock_memory = flags.given("lock-memory");
    config.pin = flags.given("pin");
    config.port_per_core = flags.given("port-per-core");
    config.shutdown_enabled = flags.given("enable-shutdown");
    config.flush_enabled = !flags.given("disable-flush-all");
    config.dump_enabled = !flags.given("disable-dumping");
    config.watch_enabled = !flags.given("disable-watch");
    config.tls_enabled = flags.given("enable-ssl");
    config.daemonize = flags.given("daemon");
    config.core_dumps = flags.given("enable-coredumps");
    config.user = flags.text("user").filter(|name| !name.is_empty());
    config.pid_file = flags.path("pidfile");
    config.memory_file = flags.path("memory-file");
    config.protocol = match flags.text("protocol").as_deref() {
        None | Some("auto") => BindingProtocol::Auto,
        Some("ascii") => BindingProtocol::Ascii,
        Some("binary") => BindingProtocol::Binary,
        Some(other) => {
            return Err(Exit::usage(format!(
                "Invalid value for binding protocol: {other}\n -- should be one of auto, binary, or ascii"
            )));
        }
    };
    if let Some(delimiter) = flags.raw("delimiter") {
        match *delimiter.as_bytes() {
            [] | [b' ' | b'\t'..=b'\r', ..] => return Err(Exit::failure(1, "No delimiter specified")),
            [byte, ref rest @ ..] => {
                config.prefix_delimiter = byte;
                if !rest.is_empty() {
                    config.warnings.push(format!("-D takes one character: \"{}\"", char::from(byte)));
                }
            }
        }
        config.detail_enabled = true;
    }
    Ok(())
}

/// `-S` and `-Y`: each is for one protocol, and there is no way around it.
fn authentication(flags: &Flags, surroundings: &Surroundings, config: &mut Config) -> Result<(), Exit> {
    let (sasl, auth_file) = (flags.given("enable-sasl"), flags.path("auth-file"));
    let protocol = flags.text("protocol").map(|_| config.protocol);
    let has_udp = flags.text("udp-port").is_some_and(|port| port != "0");
    if sasl && auth_file.is_some() {
        return Err(Exit::usage("-S and -Y: one is for the binary protocol, the other for the text protocol"));
    }
    if sasl {
        if protocol.is_some_and(|protocol| protocol != BindingProtocol::Binary) {
            return Err(Exit::usage("ERROR: You cannot allow the ASCII protocol while using SASL."));
        }
        if has_udp {
            return Err(Exit::usage("ERROR: Cannot enable UDP while using binary SASL authentication."));
        }
        let file = surroundings.sasl_password_file.clone();
        let none = || {
            Exit::failure(
                1,
                "Error initializing sasl. MEMCACHED_SASL_PWDB names no file of user:password lines in the environment",
            )
        };
        config.sasl_password_file = Some(file.ok_or_else(none)?);
        config.protocol = BindingProtocol::Binary;
    }
    if auth_file.is_some() {
        if protocol.is_some_and(|protocol| protocol != BindingProtocol::Ascii) {
            return Err(Exit::usage(
                "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.",
            ));
        }
        if has_udp {
            return Err(Exit::usage("Cannot use UDP with ascii authentication enabled (-U 0 to disable)"));
        }
        config.auth_file = auth_file;
        config.protocol = BindingProtocol::Ascii;
    }
    Ok(())
}

fn numbers(flags: &Flags, config: &mut Config) -> Result<(), Exit> {
    let warnings = &mut config.warnings;
    let mut positive = |id: &str, otherwise: &str, max: u64| match flags.text(id) {
        None => Ok(None),
        Some(text) => leading_number(&format!("--{id}"), &text, 1, max, otherwise, warnings).map(Some),
    };
    let int_max = i32::MAX as u64;
    let otherwise = format!("Number of threads must be greater than 0, and at most {THREADS_MAX}");
    if let Some(threads) = positive("threads", &otherwise, THREADS_MAX)? {
        config.threads = threads as usize;
    }
    if let Some(count) = positive("conn-limit", "Maximum connections must be greater than 0", int_max)? {
        config.connections_max = count as u32;
        config.connections_given = true;
    }
    if let Some(count) = positive("max-reqs-per-event", "Number of requests per event must be greater than 0", int_max)?
    {
        config.requests_per_event = count as u32;
    }
    if let Some(bytes) = positive("slab-min-size", "Chunk size must be greater than 0", int_max)? {
        config.chunk_size_min = bytes as u32;
    }
    if let Some(count) = positive("napi-ids", "Maximum number of NAPI IDs must be greater than 0", int_max)? {
        config.napi_ids = count as usize;
    }
    if let Some(text) = flags.text("slab-growth-factor") {
        let factor = leading_decimal("-f", &text, warnings).filter(|factor| *factor > 1.0);
        config.growth_factor = factor.ok_or_else(|| Exit::failure(1, "Factor must be greater than 1"))?;
    }
    if let Some(text) = flags.text("memory-limit") {
        let otherwise = "-m takes a number of megabytes, not below 0 and at most 16777216";
        let megabytes = leading_number("-m", &text, 0, MEMORY_MEGABYTES_MAX, otherwise, warnings)
            .map_err(|exit| Exit { code: EXIT_USAGE, ..exit })?;
        config.memory_limit_bytes = megabytes * MEGABYTE;
    }
    if let Some(text) = flags.text("max-item-size") {
        config.item_size_max = item_size(&text, warnings)?;
    }
    if let Some(text) = flags.text("listen-backlog") {
        config.listen_backlog = leading_integer("-b", &text, warnings).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    }
    let mut verbosity = u64::from(flags.0.get_count("verbose-count"));
    for text in flags.texts("verbose") {
        if !text.is_empty() {
            warnings.push(format!("--verbose={text}: its value is not used; -vv is more than -v"));
        }
        verbosity += 1;
    }
    config.verbosity = verbosity.min(255) as u8;
    Ok(())
}

/// The integer that a text begins with, as `atoi` reads it: 0 if it begins with none. What is behind it is warned of.
fn leading_integer(what: &str, text: &str, warnings: &mut Vec<String>) -> i64 {
    let trimmed = text.trim_ascii_start();
    let sign_len = usize::from(trimmed.starts_with(['+', '-']));
    let digits = trimmed[sign_len..].bytes().take_while(u8::is_ascii_digit).count();
    let (read, rest) = trimmed.split_at(if digits == 0 { 0 } else { sign_len + digits });
    let huge = if read.starts_with('-') { i64::MIN } else { i64::MAX };
    let value = if read.is_empty() { 0 } else { read.parse().unwrap_or(huge) };
    if !rest.is_empty() || read.is_empty() {
        warnings.push(format!("{what}: \"{text}\" is read as {value}, as in memcached"));
    }
    value
}

/// The same within limits: what must hold is said otherwise, with code 1.
fn leading_number(
    what: &str,
    text: &str,
    min: u64,
    max: u64,
    otherwise: &str,
    warnings: &mut Vec<String>,
) -> Result<u64, Exit> {
    u64::try_from(leading_integer(what, text, warnings))
        .ok()
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| Exit::failure(1, otherwise))
}

/// The finite decimal fraction that a text begins with, as `atof` reads it. What is behind it is warned of.
fn leading_decimal(what: &str, text: &str, warnings: &mut Vec<String>) -> Option<f64> {
    let trimmed = text.trim_ascii_start();
    // The longest that is a number: they are short.
    let lengths = (1..=trimmed.len()).rev().filter(|&length| trimmed.is_char_boundary(length));
    let (length, value) = lengths.filter_map(|length| Some((length, trimmed[..length].parse::<f64>().ok()?))).next()?;
    if length < trimmed.len() {
        warnings.push(format!("{what}: \"{text}\" is read as {value}, as in memcached"));
    }
    Some(value).filter(|value| value.is_finite())
}

/// `-I`: bytes, or with `k` or `m`.
fn item_size(text: &str, warnings: &mut Vec<String>) -> Result<u64, Exit> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], KILOBYTE),
        Some(b'm' | b'M') => (&text[..text.len() - 1], MEGABYTE),
        _ => (text, 1),
    };
    let otherwise = "Item max size cannot be less than 1024 bytes.";
    let bytes = leading_number("-I", digits, ITEM_BYTES_MIN.div_ceil(unit), u64::MAX / MEGABYTE, otherwise, warnings)
        .map_err(|exit| Exit { code: EXIT_USAGE, ..exit })?;
    Ok(bytes * unit)
}

/// Limits that must fit together, in memcached's order.
fn sizes(config: &mut Config, chunk_max: ChunkMax) -> Result<(), Exit> {
    let item_max = config.item_size_max;
    if item_max > ITEM_BYTES_MAX {
        return Err(Exit::usage("Cannot set item size limit higher than a gigabyte."));
    }
    if item_max > config.memory_limit_bytes / 2 {
        return Err(Exit::usage("Cannot set item size limit higher than 1/2 of memory max."));
    }
    if config.hot_lru_percent + config.warm_lru_percent > 80 {
        return Err(Exit::usage("hot_lru_pct + warm_lru_pct cannot be more than 80% combined"));
    }
    if chunk_max == ChunkMax::Unchunked && item_max <= PAGE_BYTES {
        config.slab_chunk_max_bytes = item_max;
    }
    let chunk = config.slab_chunk_max_bytes;
    if chunk > item_max {
        return Err(Exit::usage(format!(
            "slab_chunk_max (bytes: {chunk}) cannot be larger than -I (item_size_max {item_max})"
        )));
    }
    if !item_max.is_multiple_of(chunk) {
        return Err(Exit::usage(format!(
            "-I (item_size_max: {item_max}) must be evenly divisible by slab_chunk_max (bytes: {chunk})"
        )));
    }
    if !PAGE_BYTES.is_multiple_of(chunk) {
        return Err(Exit::usage(format!(
            "slab_chunk_max (bytes: {chunk}) must divide evenly into {PAGE_BYTES} (slab_page_size)"
        )));
    }
    if chunk_max == ChunkMax::Given && chunk > CHUNK_BYTES_LARGEST {
        config.warnings.push(format!("-o slab_chunk_max: items above {CHUNK_BYTES_LARGEST} bytes are chained here"));
    }
    if config.napi_ids > config.threads {
        return Err(Exit::usage(format!(
            "Number of napi_ids({}) cannot be greater than number of threads({})",
            config.napi_ids, config.threads
        )));
    }
    slab_sizes(config)
}

fn slab_sizes(config: &mut Config) -> Result<(), Exit> {
    let Some(sizes) = &config.slab_sizes else { return Ok(()) };
    let mut previous = 0;
    for &size in sizes {
        if size < config.chunk_size_min || u64::from(size) > config.slab_chunk_max_bytes {
            return Err(Exit::usage(format!("slab size {size} is out of valid range")));
        }
        if size <= previous {
            return Err(Exit::usage(format!(
                "slab size {size} cannot be lower than or equal to a previous class size"
            )));
        }
        if previous > 0 && size <= previous + 8 {
            return Err(Exit::usage(format!("slab size {size} must be at least 8 bytes larger than previous class")));
        }
        previous = size;
    }
    if u64::from(previous) > CHUNK_BYTES_LARGEST {
        config.warnings.push(format!("-o slab_sizes: items above {CHUNK_BYTES_LARGEST} bytes are chained here"));
    }
    Ok(())
}

/// `-p`, `-l`, `-s` and `-a` become what is bound. As in memcached, a unix socket is instead of TCP, and `-p 0` turns
/// TCP off whatever `-l` says.
fn listeners(flags: &Flags, config: &mut Config) -> Result<(), Exit> {
    let warnings = &mut config.warnings;
    let mut port_number = |flag: &str, text: &String| match leading_integer(flag, text, warnings) {
        port @ -1..=65535 => Ok(port as i32),
        _ => Err(Exit::usage(format!("ERROR: Invalid port number {text}."))),
    };
    let (port, udp_port) = (flags.text("port"), flags.text("udp-port"));
    config.udp_port = udp_port.as_ref().map_or(Ok(0), |text| port_number("-U", text))?;
    match &port {
        Some(text) => config.tcp_port = port_number("-p", text)?,
        // As in memcached: the port of both, if it is the only one that is given.
        None if config.udp_port != 0 => config.tcp_port = config.udp_port,
        None => {}
    }
    for network in flags.texts("udp-allow").iter().flat_map(|list| list.split(',')).filter(|it| !it.is_empty()) {
        let network = network.parse().map_err(|()| {
            Exit::usage(format!("--udp-allow takes addresses and networks, as 10.0.0.0/8: \"{network}\""))
        })?;
        config.udp_allow.push(network);
    }
    if let Some(text) = flags.text("unix-mask") {
        let digits = text.bytes().take_while(|digit| (b'0'..=b'7').contains(digit)).count();
        // Nothing, or what no file can have: as `strtol` reads it.
        config.unix_mask = u32::from_str_radix(&text[..digits], 8).unwrap_or(0);
        if digits < text.len() || digits == 0 || config.unix_mask > 0o777 {
            config.warnings.push(format!("-a: \"{text}\" is read as {:o}, as in memcached", config.unix_mask));
        }
    }
    config.interface = interfaces(&flags.texts("listen"));

    if let Some(path) = flags.path("unix-socket") {
        if path.as_os_str().is_empty() {
            return Err(Exit::usage("-s needs the path of a socket"));
        }
        if config.interface.is_some() || port.is_some_and(|port| port != "0") {
            config.warnings.push("-s: the unix socket is instead of TCP, so -l and -p are not used".into());
        }
        if config.udp_port != 0 {
            config.warnings.push("-s: the unix socket is instead of UDP too, so -U is not used".into());
        }
        if config.port_per_core {
            return Err(Exit::usage("--port-per-core needs ports: there are none with a unix socket"));
        }
        config.listen.push(Listen::Unix { path, mask: config.unix_mask });
        return Ok(());
    }
    if config.tcp_port == 0 && config.udp_port == 0 {
        return Err(Exit::usage("-p 0 turns TCP off, and without -s or -U there is nothing to listen on"));
    }
    if config.tcp_port != 0 {
        for (listen, rules) in addresses(config, config.tcp_port)? {
            config.listen.push(listen);
            config.listen_rules.push(rules);
        }
    }
    if config.udp_port != 0 {
        config.udp_listen = addresses(config, config.udp_port)?.into_iter().map(|(listen, _)| listen).collect();
    }
    Ok(())
}

/// `-l` as `stats settings` shows it: all that were given, but none twice.
fn interfaces(given: &[String]) -> Option<String> {
    let mut texts: Vec<&str> = Vec::new();
    for text in given.iter().map(|text| text.trim_ascii_start()) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if given.is_empty() { None } else { Some(texts.join(",")) }
}

/// What `-l` names, for one kind of port, and what its prefixes say; loopback without it. A port of an entry is for TCP
/// and UDP.
fn addresses(config: &mut Config, port: i32) -> Result<Vec<(Listen, ListenRules)>, Exit> {
    let port = port.try_into().unwrap_or(0); // -1: ephemeral, which the system calls 0
    let Some(interfaces) = config.interface.clone() else {
        return Ok(vec![(Listen::Loopback { port }, ListenRules::default())]);
    };
    let mut listens = Vec::new();
    for entry in interfaces.split([',', ';']).map(str::trim).filter(|entry| !entry.is_empty()) {
        let (address, rules) = prefixes::read(entry, config)?;
        let listen = interface(address, port)?;
        // The same with other rules, under TLS and not, cannot be bound twice, which is what will be said of it; unless
        // each asks for any port.
        let entry = (listen, rules);
        if !listens.contains(&entry) {
            listens.push(entry);
        }
    }
    if listens.is_empty() {
        return Err(Exit::usage("-l needs an address to listen on"));
    }
    Ok(listens)
}

/// One entry of `-l`: `host`, `host:port`, `[v6]`, `[v6]:port`, a bare IPv6 address, or `*` as the host.
fn interface(entry: &str, port: u16) -> Result<Listen, Exit> {
    let (host, own_port) = if let Some(inner) = entry.strip_prefix('[') {
        match inner.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) if rest.starts_with(':') => (host, Some(&rest[1..])),
            _ => return Err(Exit::failure(EXIT_SYSTEM, format!("Invalid IPV6 address: \"{entry}\""))),
        }
    } else {
        match entry.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            // None: a name or an address. Several: IPv6 without brackets, where no port can be told from the rest.
            Some(_) | None => (entry, None),
        }
    };
    if host.is_empty() {
        return Err(Exit::failure(EXIT_SYSTEM, format!("Invalid address: \"{entry}\" (* listens on all)")));
    }
    let port = match own_port {
        None => port,
        Some("-1") => 0,
        Some(text) => text
            .parse()
            .map_err(|_| Exit::failure(EXIT_SYSTEM, format!("Invalid port number: \"{text}\" (-l {entry})")))?,
    };
    Ok(if host == "*" { Listen::Any { port } } else { Listen::Host { host: host.into(), port } })
}

#[cfg(test)]
mod tests;
