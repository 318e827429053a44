//! The command line, in memcached's letters, turned once into one validated [`Config`].
//!
//! What a service file for memcached says means the same here. A flag that is not built yet is refused with one line on
//! standard error and a non-zero exit, never ignored in silence. Where memcached has a message for a mistake, ours
//! begins with the same words and exits with the same code; what it would misread (`-m 10g` is 10 MB there) is refused.
//!
//! | what | flags |
//! |---|---|
//! | accepted | `-p -s -a -A -l -d -r -u -m -M -c -k -v -h -i -V -P -f -n -L -D -t -R -C -b -I -F -X -W -S -Y -Z --pin`, `-U`, `--udp-allow`, `-N 0`, `-B` |
//! | refused | `-N` otherwise, `-e`, prefixes of `-l` (`tag`, `proto`), arguments without a flag |
//! | `-o`, accepted | `maxconns_fast no_maxconns_fast hashpower slab_reassign no_slab_reassign slab_automove no_slab_automove slab_automove_ratio slab_automove_window slab_automove_freeratio no_modern slab_sizes slab_chunk_max lru_crawler no_lru_crawler lru_maintainer no_lru_maintainer hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor temporary_ttl lru_crawler_sleep lru_crawler_tocrawl watcher_logbuf_size worker_logbuf_size idle_timeout track_sizes ssl_chain_cert ssl_key ssl_keyformat ssl_verify_mode ssl_ca_cert ssl_ciphers ssl_min_version ssl_session_cache ssl_wbuf_size` |
//! | `-o`, no effect in memcached either | `modern inline_ascii_resp no_inline_ascii_resp no_drop_privileges relaxed_privileges sock_cookie_id=0` |
//! | `-o`, accepted with a warning | `hash_algorithm tail_repair_time read_buf_mem_limit resp_obj_mem_limit no_chunked_items drop_privileges ssl_kernel_tls`; `slab_chunk_max` and `slab_sizes` beyond the largest chunk |
//! | `-o`, refused | `no_hashexpand sock_cookie_id ext_* proxy_*` and unknown words |
//!
//! Wanted differences from memcached: it listens on loopback unless `-l` says otherwise; `-t` is the number of usable
//! CPUs; root without `-u` is warned, not refused; `slab_chunk_max` is in kilobytes,
//! as documented, up to 1024, and in bytes, as memcached reads it, above.
//!
//! Nothing here opens, binds or resolves anything, except [`Listen::resolve`], which the server calls.

mod tls;

use crate::net::certificates::{KeyFormat, TlsOptions, Verify};
use crate::net::network::Network;
use crate::net::tls::TlsLimits;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The version whose protocol and flags these are: what clients are told. Three plain numbers, because clients parse it.
pub const MEMCACHED_VERSION: &str = "1.6.45";

/// Exit code of a mistaken command line (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code when `-u` names nobody (EX_NOUSER).
pub const EXIT_NO_USER: u8 = 67;
/// Exit code when the system refuses: bind, limits, fork, setuid (EX_OSERR).
pub const EXIT_SYSTEM: u8 = 71;

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
    /// Listeners with a prefix of their own, and what it makes of them: no TLS (`notls:`), or what clients are to show
    /// (`btls:`, `mtls:`). For [`Config::verify`].
    pub listen_tls: Vec<(Listen, Option<Verify>)>,
    /// What a connection under TLS may hold: a message of a handshake up to 64 KiB; `-o ssl_wbuf_size`: bytes that are
    /// sealed before they are sent, 1 KiB to 1 MiB, default 64 KiB.
    pub tls_limits: TlsLimits,
    /// Steps of handshakes that a worker takes in a turn, before connections that are done with theirs have their turn.
    /// Default 8.
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
    /// `-c`: simultaneous connections of the whole server, at least 1. Default 1024.
    pub connections_max: u32,
    /// `-o no_maxconns_fast` clears it: a connection above `-c` is refused with an error line, rather than left waiting
    /// until one closes. Default true.
    pub maxconns_fast: bool,
    /// `-R`: requests of one connection that are served in a turn before others have theirs; at least 1. Default 20.
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
    /// Replies waiting in one connection, in bytes, beyond which it is not read from. Default 1 MiB.
    pub output_high_water_bytes: usize,
    /// Requests that are parsed ahead, hashed and prefetched together. Default 64.
    pub group_len: usize,
    /// Bytes of operations, and of replies, in one batch to another worker. Default 256 KiB.
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
    /// `-v`: 0 warnings, 1 and what happens in the event loop, 2 and commands and replies, 3 and state changes.
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
        /// Permissions of the socket, at most 0o777. Default 0o700.
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
            listen_tls: Vec::new(),
            tls_limits: TlsLimits { incoming_max: 64 << 10, seal_max: 64 << 10 },
            tls_handshakes_per_turn: 8,
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
            connections_max: 1024,
            maxconns_fast: true,
            requests_per_event: 20,
            idle_timeout_seconds: 0,
            read_buffers_limit_bytes: 0,
            read_buffer_bytes: 64 << 10,
            inline_value_max: 8 << 10,
            output_high_water_bytes: 1 << 20,
            group_len: 64,
            mailbox_batch_bytes: 256 << 10,
            poll_events_len: 1024,
            accepts_per_turn: 64,
            datagrams_per_turn: 64,
            udp_requests_max: 1024,
            udp_reply_max: 4 << 20,
            housekeeping_items_per_turn: 64,
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
    refuse_what_is_not_built(&flags)?;
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

const LICENSE: &str = include_str!("../LICENSE");

/// Under which name it was started: programs that look for a memcached find one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Corecached,
    Memcached,
}

impl Program {
    fn of(argv0: &OsString) -> Program {
        match Path::new(argv0).file_name() {
            Some(name) if name == "memcached" => Program::Memcached,
            _ => Program::Corecached,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Program::Corecached => "corecached",
            Program::Memcached => "memcached",
        }
    }

    fn version_line(self) -> String {
        match self {
            Program::Corecached => {
                format!("corecached {} (memcached {MEMCACHED_VERSION} protocol)", env!("CARGO_PKG_VERSION"))
            }
            Program::Memcached => format!("memcached {MEMCACHED_VERSION}"),
        }
    }
}

/// The flags, in the groups that the help shows.
fn command() -> Command {
    let mut command = Command::new("corecached")
        .override_usage("corecached [flags]")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .max_term_width(100)
        .help_template("{usage-heading} {usage}\n\n{all-args}{after-help}")
        .after_help(EXTENDED_HELP);
    for (heading, flags) in FLAGS {
        command = command.next_help_heading(*heading);
        for flag in *flags {
            command = command.arg(flag.arg());
        }
    }
    command
}

fn help() -> String {
    command().render_help().to_string().trim_end().to_owned()
}

/// One flag: its letter (or `\0`), its long form (or, in brackets, only a name for it), what it takes, what it means.
struct Flag(char, &'static str, Takes, &'static str);

enum Takes {
    /// Nothing.
    Nothing,
    /// Nothing, and counts how often it was given.
    Count,
    /// A value, of which the last one given counts; named for the help.
    One(&'static str),
    /// A value, of which all given count.
    Many(&'static str),
    /// Maybe a value, after `=`.
    Perhaps(&'static str),
}

impl Flag {
    fn arg(&self) -> Arg {
        let &Flag(letter, name, ref takes, help) = self;
        let id = name.trim_matches(['(', ')']);
        let mut arg = Arg::new(id).help(help).value_parser(clap::value_parser!(OsString));
        if id == name {
            arg = arg.long(name);
        }
        if letter != '\0' {
            arg = arg.short(letter);
        }
        match takes {
            Takes::Nothing => arg.action(ArgAction::SetTrue).value_parser(clap::value_parser!(bool)).overrides_with(id),
            Takes::Count => arg.action(ArgAction::Count).value_parser(clap::value_parser!(u8)),
            // As in getopt, whatever follows is the value, a hyphen first or not: `-p -1`.
            Takes::One(unit) => arg.value_name(*unit).allow_hyphen_values(true).overrides_with(id),
            Takes::Many(unit) => arg.value_name(*unit).allow_hyphen_values(true).action(ArgAction::Append),
            Takes::Perhaps(unit) => arg
                .value_name(*unit)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("1")
                .action(ArgAction::Append),
        }
    }
}

use Takes::{Count, Many, Nothing, One, Perhaps};

const FLAGS: &[(&str, &[Flag])] = &[
    (
        "Where it listens",
        &[
            Flag('p', "port", One("port"), "TCP port; -1: any free one, 0: no TCP (default: 11211)"),
            Flag(
                'l',
                "listen",
                Many("address"),
                "Address to listen on: host, host:port, [v6]:port or * for all; several by commas, semicolons or \
                 repeating the flag; with -Z also after notls: (no TLS), btls: (no certificates of clients) or mtls: \
                 (they are required) (default: 127.0.0.1 and ::1 only, where memcached listens on all)",
            ),
            Flag('s', "unix-socket", One("file"), "Unix socket to listen on, instead of TCP (default: none)"),
            Flag('a', "unix-mask", One("mode"), "Permissions of the unix socket, octal (default: 700)"),
            Flag('b', "listen-backlog", One("count"), "Connections that may wait to be accepted (default: 1024)"),
            Flag(
                'B',
                "protocol",
                One("name"),
                "ascii, binary, or auto: as the first byte of a connection says (default: auto)",
            ),
            Flag(
                'U',
                "udp-port",
                One("port"),
                "UDP port; -1: any free one, 0: no UDP; sets -p unless that is given (default: 0)",
            ),
            Flag(
                '\0',
                "udp-allow",
                Many("networks"),
                "Who gets replies over UDP that are larger than the request, as 10.0.0.0/8,fd00::/8; others are told ERROR \
                 (default: loopback only; not in memcached)",
            ),
        ],
    ),
    (
        "Memory",
        &[
            Flag('m', "memory-limit", One("megabytes"), "Memory for items (default: 64)"),
            Flag('M', "disable-evictions", Nothing, "Answer with an error when memory is used up, rather than evict"),
            Flag(
                'I',
                "max-item-size",
                One("bytes"),
                "Largest item, with k or m for KiB or MiB; 1k to 1024m, at most half of -m (default: 1m)",
            ),
            Flag(
                'f',
                "slab-growth-factor",
                One("factor"),
                "Ratio between neighbouring chunk sizes, above 1 (default: 1.25)",
            ),
            Flag('n', "slab-min-size", One("bytes"), "Least room for key, value and flags (default: 48)"),
            Flag('C', "disable-cas", Nothing, "Keep no CAS unique: saves 8 bytes per item"),
            Flag('L', "enable-largepages", Nothing, "Commit all memory for items at the start"),
            Flag('k', "lock-memory", Nothing, "Lock all memory, so that it is never swapped out"),
        ],
    ),
    (
        "Workers and connections",
        &[
            Flag('t', "threads", One("count"), "Worker threads, one event loop each (default: usable CPUs)"),
            Flag(
                '\0',
                "pin",
                Nothing,
                "Pin each worker to a CPU, and give it the connections that arrive there (not in memcached)",
            ),
            Flag(
                '\0',
                "port-per-core",
                Nothing,
                "Worker i listens on port + i and owns what it is sent: clients list the ports as servers \
                 (not in memcached)",
            ),
            Flag('c', "conn-limit", One("count"), "Simultaneous connections (default: 1024)"),
            Flag(
                'R',
                "max-reqs-per-event",
                One("count"),
                "Requests of one connection before others have their turn (default: 20)",
            ),
        ],
    ),
    (
        "What clients may ask for",
        &[
            Flag('A', "enable-shutdown", Nothing, "Allow the shutdown command"),
            Flag('F', "disable-flush-all", Nothing, "Refuse flush_all"),
            Flag(
                'S',
                "enable-sasl",
                Nothing,
                "Clients must log in by SASL (PLAIN), over the binary protocol only; users are in the file that \
                 MEMCACHED_SASL_PWDB names",
            ),
            Flag(
                'Y',
                "auth-file",
                One("file"),
                "Clients must log in by a set of \"user password\", over the text protocol only; the file has up to 8 \
                 lines of user:password",
            ),
            Flag('X', "disable-dumping", Nothing, "Refuse stats cachedump, stats detail and lru_crawler dumps"),
            Flag('W', "disable-watch", Nothing, "Refuse watch"),
            Flag(
                'D',
                "(delimiter)",
                One("char"),
                "What ends the prefix of a key, for stats detail; starts collecting (default: \":\", not collecting)",
            ),
        ],
    ),
    ("TLS", &[Flag('Z', "enable-ssl", Nothing, "TLS on all TCP ports, by -o ssl_chain_cert and the like, see below")]),
    (
        "The process",
        &[
            Flag('d', "daemon", Nothing, "Run in the background"),
            Flag('u', "user", One("name"), "User to become when started as root (default: stay)"),
            Flag('P', "pidfile", One("file"), "File to write the process id to (default: none)"),
            Flag(
                'e',
                "memory-file",
                One("file"),
                "File for a warm restart: USR1 and shutdown graceful write the cache to it, the next start takes it back \
                 (default: none)",
            ),
            Flag('r', "enable-coredumps", Nothing, "Raise the limit of core files"),
            Flag('v', "(verbose-count)", Count, "Log what happens to the server; -vv: and to connections"),
            Flag('\0', "verbose", Perhaps("level"), "The same as that many -v (default: 1 when given, else 0)"),
            Flag('h', "help", Nothing, "Print this help"),
            Flag('i', "license", Nothing, "Print the license"),
            Flag('V', "version", Nothing, "Print the version"),
        ],
    ),
    (
        "Extended options",
        &[Flag('o', "extended", Many("words"), "Comma-separated list of the words below; repeatable")],
    ),
    (
        "Flags of memcached that are refused until they are built",
        &[Flag('N', "napi-ids", One("count"), "Connections to workers by NAPI id (default: 0, off)")],
    ),
];

const EXTENDED_HELP: &str = "\
Words of -o, with no_ before those marked (*) to turn them off:
  hashpower=<log2>             buckets the index starts with, 12 to 32 (default: 16)
  slab_sizes=<a-b-c>           explicit chunk sizes in bytes, up to 62 (default: by -f and -n)
  slab_chunk_max=<kilobytes>   largest chunk; above 1024 in bytes (default: 512)
  slab_reassign (*)            let pages move between classes (default: on)
  slab_automove=<0-2> (*)      move them to classes that evict young items; 2: at every eviction (default: 1)
  slab_automove_ratio=<ratio>  young is below this share of the oldest class's age (default: 0.8)
  slab_automove_window=<s>     seconds of samples before a page moves, 3 to 1800 (default: 10)
  slab_automove_freeratio=<r>  share of the pages to keep free for any class to take (default: 0)
  track_sizes                  count item sizes for stats sizes (default: off)
  lru_maintainer (*)           an LRU in segments, kept in proportion in the background (default: on);
                               without it there is one list, and pages move only by request or need
  hot_lru_pct=<percent>        share of the hot segment, 1 to 79 (default: 20)
  warm_lru_pct=<percent>       share of the warm segment, 1 to 79, both at most 80 (default: 40)
  hot_max_factor=<factor>      idle beyond this times cold's age leaves hot (default: 0.2)
  warm_max_factor=<factor>     the same for warm (default: 2.0)
  temporary_ttl=<s>            items that live no longer than this go to temp (default: off)
  lru_crawler (*)              look for expired items in the background (default: on)
  lru_crawler_sleep=<us>       pause of `lru_crawler crawl` after every 512 items (default: 100)
  lru_crawler_tocrawl=<count>  items of a class that it looks at, 0: all (default: 0)
  watcher_logbuf_size=<kilobytes>  lines that may wait for one watcher (default: 256)
  worker_logbuf_size=<kilobytes>   lines of a worker's turn for watchers (default: 64)
  idle_timeout=<s>             close connections silent for so many seconds, 0: never (default: 0)
  maxconns_fast (*)            refuse connections above -c at once, not let them wait (default: on)
  ssl_chain_cert=<file>        certificate of the server and its chain, PEM; read again at refresh_certs or HUP
  ssl_key=<file>               its private key (default: in the file of the chain)
  ssl_keyformat=<PEM|DER>      how the key is written; 1 and 2 mean the same; no engines (default: PEM)
  ssl_verify_mode=<0-3>        certificates of clients: 0 none, 1 asked for, 2 or 3 required (default: 0)
  ssl_ca_cert=<file>           authorities of clients' certificates, PEM
  ssl_min_version=<0-3>        2: TLS 1.2, 3: TLS 1.3; 0 and 1 are not spoken and mean 2 (default: 2)
  ssl_ciphers=<list>           cipher suites of TLS 1.2, as OpenSSL lists them; ECDHE with GCM or ChaCha20 only
  ssl_session_cache            keep sessions of TLS 1.2 clients without tickets; tickets are always given (default: off)
  ssl_wbuf_size=<kilobytes>    sealed at once before it is sent, 1 to 1024 (default: 64)
Accepted, without effect here:
  hash_algorithm=<name>        jenkins, murmur3 or xxh3; the hash here is our own, keyed
  tail_repair_time=<s>, read_buf_mem_limit=<MB>, resp_obj_mem_limit=<MB>, no_chunked_items, modern,
  inline_ascii_resp (*), drop_privileges (*),
  relaxed_privileges, sock_cookie_id=0, ssl_kernel_tls
Refused:
  no_hashexpand, sock_cookie_id, ext_*, proxy_*

Environment: MEMCACHED_PORT_FILENAME names a file to write the bound ports to, MEMCACHED_SASL_PWDB one of
user:password lines for -S.
Signals: INT and TERM stop the server; USR1 stops it and, with -e, keeps the cache for the next one;
HUP has it read its password file and its certificates again.";

/// What clap has against a command line: unknown flags and missing values in the words of getopt(3), and memcached's
/// after them; the rest in one line.
fn mistake(error: &clap::Error, program: Program, last: &OsStr) -> Exit {
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.as_str(),
        _ => "",
    };
    let last = last.to_string_lossy();
    let what = match error.kind() {
        ErrorKind::UnknownArgument if unknown.starts_with("--") => format!("unrecognized option '{unknown}'"),
        ErrorKind::UnknownArgument if unknown.starts_with('-') => format!("invalid option -- '{}'", &unknown[1..]),
        ErrorKind::InvalidValue if last.starts_with("--") => format!("option '{last}' requires an argument"),
        ErrorKind::InvalidValue if last.starts_with('-') => {
            format!("option requires an argument -- '{}'", last.chars().next_back().unwrap_or('-'))
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            return Exit::usage(format!("{} (see -h)", line.strip_prefix("error: ").unwrap_or(line)));
        }
    };
    Exit::failure(1, format!("{}: {what}\nIllegal argument \"?\"", program.name()))
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

fn refuse_what_is_not_built(flags: &Flags) -> Result<(), Exit> {
    if flags.text("napi-ids").is_some_and(|count| count != "0") {
        return Err(Exit::usage("-N: workers by NAPI id are not built yet; only 0 (off) is accepted"));
    }
    Ok(())
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
                "Invalid value for binding protocol: {other} -- should be one of auto, binary, or ascii"
            )));
        }
    };
    if let Some(delimiter) = flags.raw("delimiter") {
        match *delimiter.as_bytes() {
            [] => return Err(Exit::failure(1, "No delimiter specified")),
            [byte] => config.prefix_delimiter = byte,
            _ => return Err(Exit::usage("-D takes a single character")),
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
        let none = || Exit::usage("-S: MEMCACHED_SASL_PWDB names no file of user:password lines in the environment");
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
    let positive = |id: &str, max: u64, otherwise: &str| match flags.text(id) {
        None => Ok(None),
        Some(text) => number(&text, 1, max).map(Some).map_err(|why| Exit::failure(1, format!("{otherwise}{why}"))),
    };
    if let Some(threads) = positive("threads", THREADS_MAX, "Number of threads must be greater than 0")? {
        config.threads = threads as usize;
    }
    if let Some(count) = positive("conn-limit", i32::MAX as u64, "Maximum connections must be greater than 0")? {
        config.connections_max = count as u32;
    }
    let otherwise = "Number of requests per event must be greater than 0";
    if let Some(count) = positive("max-reqs-per-event", i32::MAX as u64, otherwise)? {
        config.requests_per_event = count as u32;
    }
    if let Some(bytes) = positive("slab-min-size", PAGE_BYTES, "Chunk size must be greater than 0")? {
        config.chunk_size_min = bytes as u32;
    }
    if let Some(text) = flags.text("slab-growth-factor") {
        config.growth_factor = match decimal(&text) {
            Some(factor) if factor > 1.0 => factor,
            _ => return Err(Exit::failure(1, "Factor must be greater than 1")),
        };
    }
    if let Some(text) = flags.text("memory-limit") {
        let megabytes = number(&text, 0, MEMORY_MEGABYTES_MAX)
            .map_err(|why| Exit::usage(format!("-m takes a number of megabytes without a unit{why}")))?;
        config.memory_limit_bytes = megabytes * MEGABYTE;
    }
    if let Some(text) = flags.text("max-item-size") {
        config.item_size_max = item_size(&text)?;
    }
    if let Some(text) = flags.text("listen-backlog") {
        config.listen_backlog = match text.parse() {
            Ok(count) if count >= -1 => count,
            _ => return Err(Exit::usage(format!("-b takes a number of connections: \"{text}\""))),
        };
    }
    let mut verbosity = u64::from(flags.0.get_count("verbose-count"));
    for text in flags.texts("verbose") {
        verbosity += number(&text, 0, 255).map_err(|why| Exit::usage(format!("--verbose takes a level{why}")))?;
    }
    config.verbosity = verbosity.min(255) as u8;
    Ok(())
}

/// A decimal integer from `min` to `max`. The error goes after what must hold: it is empty when the number is too
/// small, which memcached's own words cover.
fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    match text.parse::<i128>() {
        Err(_) => Err(format!(": \"{text}\" is not a number")),
        Ok(value) if value < i128::from(min) => Err(String::new()),
        Ok(value) if value > i128::from(max) => Err(format!(" and at most {max}")),
        Ok(value) => Ok(value as u64),
    }
}

/// A finite decimal fraction.
fn decimal(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// `-I`: bytes, or with `k` or `m`.
fn item_size(text: &str) -> Result<u64, Exit> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], KILOBYTE),
        Some(b'm' | b'M') => (&text[..text.len() - 1], MEGABYTE),
        _ => (text, 1),
    };
    let bytes = number(digits, ITEM_BYTES_MIN.div_ceil(unit), u64::MAX / MEGABYTE)
        .map_err(|why| Exit::usage(format!("Item max size cannot be less than 1024 bytes.{why}")))?;
    Ok(bytes * unit)
}

/// What `-o` says of the largest chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkMax {
    Default,
    Given,
    Unchunked,
}

/// The words of one `-o`. As in `getsubopt`, a comma may end the list, but none of the words is empty.
fn suboptions(list: &str, config: &mut Config, chunk_max: &mut ChunkMax) -> Result<(), Exit> {
    let mut rest = list;
    while !rest.is_empty() {
        let word;
        (word, rest) = rest.split_once(',').unwrap_or((rest, ""));
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let option = Suboption { word, name, value };
        if !switch(name, value, config)? && !setting(&option, config, chunk_max)? && !tls::setting(&option, config)? {
            return Err(unavailable(word, name));
        }
    }
    Ok(())
}

/// Words that take no value; false if this is none of them. memcached ignores what follows a `=` here, so that
/// `lru_crawler=0` would turn it on: only `=1` is let through.
fn switch(name: &str, value: Option<&str>, config: &mut Config) -> Result<bool, Exit> {
    match name {
        "slab_reassign" => config.slab_reassign = true,
        "no_slab_reassign" => config.slab_reassign = false,
        "no_slab_automove" => config.slab_automove = 0,
        "lru_crawler" => config.lru_crawler = true,
        "no_lru_crawler" => config.lru_crawler = false,
        "lru_maintainer" => config.lru_maintainer = true,
        "no_lru_maintainer" => config.lru_maintainer = false,
        "no_modern" => {
            config.slab_reassign = false;
            config.slab_automove = 0;
            config.lru_crawler = false;
            config.lru_maintainer = false;
            config.maxconns_fast = false;
        }
        "track_sizes" => config.track_sizes = true,
        "maxconns_fast" => config.maxconns_fast = true,
        "no_maxconns_fast" => config.maxconns_fast = false,
        "drop_privileges" => {
            let line = "-o drop_privileges: there is no system call filter; systemd has one: SystemCallFilter=";
            config.warnings.push(line.into());
        }
        "modern" | "inline_ascii_resp" | "no_inline_ascii_resp" | "no_drop_privileges" | "relaxed_privileges" => {}
        _ => return Ok(false),
    }
    match value {
        None | Some("1") => Ok(true),
        Some(value) => Err(Exit::failure(1, format!("{name} takes no value: \"{value}\""))),
    }
}

/// Words with a value (and `no_chunked_items`, which stands for one); false if this is none of them.
fn setting(option: &Suboption<'_>, config: &mut Config, chunk_max: &mut ChunkMax) -> Result<bool, Exit> {
    let name = option.name;
    match name {
        "hashpower" => config.hash_power = Some(option.hash_power()?),
        "hash_algorithm" => {
            if !["jenkins", "murmur3", "xxh3"].contains(&option.argument()?) {
                return Err(Exit::failure(1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"));
            }
            config.warnings.push(format!("-o {}: corecached hashes with its own keyed hash", option.word));
        }
        "slab_automove" => {
            config.slab_automove = match option.value {
                None => 1,
                Some(_) => option.number(0, 2, "slab_automove must be between 0 and 2")? as u8,
            }
        }
        "slab_automove_ratio" => {
            config.slab_automove_ratio =
                option.decimal(|ratio| ratio <= 1.0, "slab_automove_ratio must be > 0 and < 1")?;
        }
        "slab_automove_window" => {
            config.slab_automove_window_seconds = option.number(3, 1800, "slab_automove_window must be > 2")? as u32;
        }
        "slab_automove_freeratio" => {
            let otherwise = "slab_automove_freeratio must be > 0 and < 1";
            config.slab_automove_free_ratio = option.decimal(|ratio| ratio < 1.0, otherwise)?;
        }
        "slab_sizes" => config.slab_sizes = Some(option.slab_sizes()?),
        "slab_chunk_max" => {
            // Help and documentation of memcached say kilobytes; 1.6.18 reads bytes. No sensible value is both.
            let otherwise = "could not parse argument to slab_chunk_max";
            let value = option.number(1, ITEM_BYTES_MAX, otherwise)?;
            config.slab_chunk_max_bytes = if value <= 1024 { value * KILOBYTE } else { value };
            *chunk_max = ChunkMax::Given;
        }
        "no_chunked_items" => {
            *chunk_max = ChunkMax::Unchunked;
            config.warnings.push(format!("-o {}: items above 64 KiB are always chained here", option.word));
        }
        "lru_crawler_sleep" => {
            let otherwise = "LRU crawler sleep must be between 0 and 1 second";
            config.lru_crawler_sleep_micros = option.number(0, 1_000_000, otherwise)? as u32;
        }
        "lru_crawler_tocrawl" => {
            let otherwise = "lru_crawler_tocrawl takes a numeric 32bit value";
            config.lru_crawler_tocrawl = option.number(0, u32::MAX.into(), otherwise)? as u32;
        }
        "hot_lru_pct" => config.hot_lru_percent = option.number(1, 79, "hot_lru_pct must be > 1 and < 80")? as u32,
        "warm_lru_pct" => config.warm_lru_percent = option.number(1, 79, "warm_lru_pct must be > 1 and < 80")? as u32,
        "hot_max_factor" => config.hot_max_factor = option.decimal(|_| true, "hot_max_factor must be > 0")?,
        "warm_max_factor" => config.warm_max_factor = option.decimal(|_| true, "warm_max_factor must be > 0")?,
        "temporary_ttl" => config.temporary_ttl_seconds = Some(option.seconds()?),
        "idle_timeout" => config.idle_timeout_seconds = option.seconds()?,
        "watcher_logbuf_size" | "worker_logbuf_size" => {
            let otherwise = format!("could not parse argument to {name}");
            let bytes = option.number(0, u32::MAX.into(), &otherwise)? * KILOBYTE;
            let logbuf = if name == "watcher_logbuf_size" {
                &mut config.watcher_logbuf_bytes
            } else {
                &mut config.worker_logbuf_bytes
            };
            *logbuf = bytes;
        }
        "read_buf_mem_limit" => {
            let otherwise = "could not parse argument to read_buf_mem_limit";
            config.warnings.push(format!("-o {}: each worker has one read buffer, which does not grow", option.word));
            config.read_buffers_limit_bytes = option.number(0, MEMORY_MEGABYTES_MAX, otherwise)? * MEGABYTE;
        }
        "resp_obj_mem_limit" => {
            let line = "DEPRECATED: resp_obj_mem_limit no longer used. See read_buf_mem_limit";
            config.warnings.push(line.into());
        }
        "tail_repair_time" => {
            let otherwise = "Cannot set tail_repair_time to less than 10 seconds";
            config.tail_repair_time_seconds = option.number(10, i32::MAX as u64, otherwise)? as u32;
            config.warnings.push(format!("-o {}: no item can be stuck here, so nothing is repaired", option.word));
        }
        "sock_cookie_id" if option.value == Some("0") => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// A word of `-o` and its value; errors are memcached's.
struct Suboption<'a> {
    word: &'a str,
    name: &'a str,
    value: Option<&'a str>,
}

impl<'a> Suboption<'a> {
    fn argument(&self) -> Result<&'a str, Exit> {
        self.value.ok_or_else(|| {
            Exit::failure(
                1,
                match self.name {
                    "hashpower" | "idle_timeout" | "tail_repair_time" => {
                        format!("Missing numeric argument for {}", self.name)
                    }
                    "lru_crawler_sleep" | "lru_crawler_tocrawl" => format!("Missing {} value", self.name),
                    _ => format!("Missing {} argument", self.name),
                },
            )
        })
    }

    fn number(&self, min: u64, max: u64, otherwise: &str) -> Result<u64, Exit> {
        number(self.argument()?, min, max).map_err(|why| Exit::failure(1, format!("{otherwise}{why}")))
    }

    fn seconds(&self) -> Result<u32, Exit> {
        let otherwise = format!("{} takes a number of seconds", self.name);
        Ok(self.number(0, i32::MAX as u64, &otherwise)? as u32)
    }

    /// A fraction above 0 that also holds to `rule`.
    fn decimal(&self, rule: impl Fn(f64) -> bool, otherwise: &str) -> Result<f64, Exit> {
        match decimal(self.argument()?) {
            Some(value) if value > 0.0 && rule(value) => Ok(value),
            _ => Err(Exit::failure(1, otherwise)),
        }
    }

    fn hash_power(&self) -> Result<u32, Exit> {
        let text = self.argument()?;
        let otherwise = |how: &str| Exit::failure(1, format!("Initial hashtable multiplier of {text} is too {how}"));
        match text.parse::<i64>() {
            Ok(power @ 12..=32) => Ok(power as u32),
            Ok(33..) => Err(otherwise("high")),
            Ok(_) | Err(_) => Err(otherwise("low")),
        }
    }

    /// `a-b-c`, not yet held against the other limits: see [`sizes`]. As in memcached, empty parts are skipped.
    fn slab_sizes(&self) -> Result<Vec<u32>, Exit> {
        let mut sizes = Vec::new();
        for part in self.argument()?.split('-').filter(|part| !part.is_empty()) {
            let size = part.parse().map_err(|_| Exit::usage(format!("slab size {part} is out of valid range")))?;
            sizes.push(size);
        }
        match sizes.len() {
            0 => Err(Exit::usage("slab_sizes needs sizes, as in slab_sizes=64-128-256")),
            1..=SLAB_SIZES_MAX => Ok(sizes),
            _ => Err(Exit::usage("too many slab classes specified")),
        }
    }
}

/// Why a word of `-o` is refused.
fn unavailable(word: &str, name: &str) -> Exit {
    let why = match name {
        "no_hashexpand" => "the index always grows",
        "sock_cookie_id" => "marks on sockets are not built; only 0 is accepted",
        _ if name.starts_with("ext_") => "there is no disk tier",
        _ if name.starts_with("proxy_") => "there is no proxy",
        _ => return Exit::failure(1, format!("Illegal suboption \"{word}\"")),
    };
    Exit::usage(format!("-o {word}: {why}"))
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
    let port_number = |text: &String| match text.parse() {
        Ok(port @ -1..=65535) => Ok(port),
        _ => Err(Exit::usage(format!("ERROR: Invalid port number {text}."))),
    };
    let (port, udp_port) = (flags.text("port"), flags.text("udp-port"));
    config.udp_port = udp_port.as_ref().map_or(Ok(0), port_number)?;
    match &port {
        Some(text) => config.tcp_port = port_number(text)?,
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
    let mask = match flags.text("unix-mask") {
        None => 0o700,
        Some(text) => match u32::from_str_radix(&text, 8) {
            Ok(mask @ 0..=0o777) => mask,
            _ => return Err(Exit::usage(format!("-a takes permissions in octal, up to 777: \"{text}\""))),
        },
    };
    let interfaces = flags.texts("listen");
    if !interfaces.is_empty() {
        config.interface = Some(interfaces.join(","));
    }

    if let Some(path) = flags.path("unix-socket") {
        if path.as_os_str().is_empty() {
            return Err(Exit::usage("-s needs the path of a socket"));
        }
        if config.interface.is_some() || port.is_some_and(|port| port != "0") {
            config.warnings.push("-s: the unix socket is instead of TCP, so -l and -p are not used".into());
        }
        if config.udp_port != 0 {
            config.warnings.push("-s: the unix socket is instead of UDP too, so -U is not used".into());
            config.udp_port = 0;
        }
        if config.port_per_core {
            return Err(Exit::usage("--port-per-core needs ports: there are none with a unix socket"));
        }
        config.listen.push(Listen::Unix { path, mask });
        return Ok(());
    }
    if config.tcp_port == 0 && config.udp_port == 0 {
        return Err(Exit::usage("-p 0 turns TCP off, and without -s or -U there is nothing to listen on"));
    }
    if config.tcp_port != 0 {
        let mut listen_tls = Vec::new();
        config.listen = addresses(config, config.tcp_port, |listen, verify| {
            listen_tls.extend(verify.map(|verify| (listen.clone(), verify)));
        })?;
        config.listen_tls = listen_tls;
    }
    if config.udp_port != 0 {
        config.udp_listen = addresses(config, config.udp_port, |_, _| {})?;
    }
    Ok(())
}

/// What `-l` names, for one kind of port; loopback without it. A port of an entry is for TCP and UDP. What an entry says
/// of TLS is handed to `note`, with the entry.
fn addresses(
    config: &Config,
    port: i32,
    mut note: impl FnMut(&Listen, Option<Option<Verify>>),
) -> Result<Vec<Listen>, Exit> {
    let port = port.try_into().unwrap_or(0); // -1: ephemeral, which the system calls 0
    let Some(interfaces) = &config.interface else { return Ok(vec![Listen::Loopback { port }]) };
    let mut listens = Vec::new();
    for entry in interfaces.split([',', ';']).map(str::trim).filter(|entry| !entry.is_empty()) {
        let (entry, verify) = tls::prefix(entry, config)?;
        let listen = interface(entry, port)?;
        if !listens.contains(&listen) {
            note(&listen, verify);
            listens.push(listen);
        }
    }
    if listens.is_empty() {
        return Err(Exit::usage("-l needs an address to listen on"));
    }
    Ok(listens)
}

/// One entry of `-l`: `host`, `host:port`, `[v6]`, `[v6]:port`, a bare IPv6 address, or `*` as the host.
fn interface(entry: &str, port: u16) -> Result<Listen, Exit> {
    if ["tag[", "tag_", "proto["].iter().any(|prefix| entry.starts_with(prefix)) {
        return Err(Exit::usage(format!("-l {entry}: prefixes of an address (tag, proto) are not built yet")));
    }
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
mod tests {
    use super::*;
    use std::fmt::Debug;

    const HERE: Surroundings = Surroundings { cpus: 3, is_root: false, port_file: None, sasl_password_file: None };

    /// A command line in words; `''` is an empty word.
    fn line(words: &str) -> Result<Config, Exit> {
        let words = std::iter::once("corecached").chain(words.split_ascii_whitespace());
        parse(words.map(|word| if word == "''" { "" } else { word }.into()).collect(), &HERE)
    }

    fn good(words: &str) -> Config {
        line(words).unwrap_or_else(|exit| panic!("{words}: {exit}"))
    }

    /// Each line parses, and the field is what is given beside it.
    fn check<T: PartialEq + Debug>(field: impl Fn(&Config) -> T, lines: &[(&str, T)]) {
        for (words, expected) in lines {
            assert_eq!(field(&good(words)), *expected, "{words}");
        }
    }

    /// Each line is refused with this code, in one line on standard error that begins like this.
    fn check_refused(lines: &[(&str, u8, &str)]) {
        for (words, code, text) in lines {
            match line(words) {
                Ok(_) => panic!("{words}: accepted"),
                Err(exit) => {
                    assert!(exit.text.starts_with(text), "{words}: {exit}");
                    assert_eq!(exit.code, *code, "{words}: {exit}");
                    assert!(!exit.to_stdout && !exit.text.contains('\n'), "{words}: {exit}");
                }
            }
        }
    }

    #[test]
    fn an_empty_command_line_is_the_default() {
        let config = Config::default();
        assert_eq!(config, Config::parse_from([]).expect("an empty command line is valid"));
        assert_eq!(config.listen, [Listen::Loopback { port: 11211 }]);
        assert_eq!(Config { listen: Vec::new(), ..good("") }, Config::base(&HERE));
        assert_eq!(good("").warnings, [""; 0]);
    }

    #[test]
    fn the_readme_line_starts_as_root() {
        let words = ["corecached", "-p", "21211", "-t", "2", "-m", "256"].map(OsString::from);
        let config = parse(words.into(), &Surroundings { is_root: true, ..HERE }).expect("valid");
        assert_eq!((config.tcp_port, config.threads, config.memory_limit_bytes), (21211, 2, 256 << 20));
        assert_eq!(config.warnings.len(), 1);
        assert!(config.warnings[0].contains("-u <user>"), "{:?}", config.warnings);
        let words = ["corecached", "-u", "root"].map(OsString::from);
        assert_eq!(parse(words.into(), &Surroundings { is_root: true, ..HERE }).expect("valid").warnings, [""; 0]);
    }

    #[test]
    fn numbers_with_their_units() {
        check(|config| config.memory_limit_bytes, &[("", 64 << 20), ("-m256", 256 << 20), ("-m 2", 2 << 20)]);
        check(|config| config.threads, &[("", 3), ("-t 2", 2), ("-t2 -t 5", 5), ("--threads=7", 7), ("--thr 4", 4)]);
        check(|config| config.connections_max, &[("", 1024), ("-c 10", 10), ("--conn-limit=100000", 100_000)]);
        check(|config| config.requests_per_event, &[("", 20), ("-R 1", 1)]);
        check(|config| config.listen_backlog, &[("", 1024), ("-b 8192", 8192), ("-b 0", 0), ("-b -1", -1)]);
        check(|config| config.growth_factor, &[("", 1.25), ("-f 1.07", 1.07), ("-f2", 2.0)]);
        check(|config| config.chunk_size_min, &[("", 48), ("-n 5", 5)]);
        check(
            |config| config.item_size_max,
            &[
                ("", 1 << 20),
                ("-I 2m", 2 << 20),
                ("-I 2M", 2 << 20),
                ("-I 1024K", 1 << 20),
                ("-I 2097152", 2 << 20),
                ("-I 1024m -m 4096", 1 << 30),
                ("-I 1k -o slab_chunk_max=1", 1024),
                ("-I 512k -o slab_chunk_max=524288", 512 << 10),
            ],
        );
        check(
            |config| config.verbosity,
            &[
                ("", 0),
                ("-v", 1),
                ("-vv", 2),
                ("-vvv", 3),
                ("-vv -v", 3),
                ("--verbose", 1),
                ("--verbose=2", 2),
                ("-v --verbose", 2),
                ("--verbose=0", 0),
                ("-vt2", 1),
            ],
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused_in_memcacheds_words() {
        check_refused(&[
            ("-t 0", 1, "Number of threads must be greater than 0"),
            ("-t -1", 1, "Number of threads must be greater than 0"),
            ("-t abc", 1, "Number of threads must be greater than 0"),
            ("-t 2x", 1, "Number of threads must be greater than 0: \"2x\" is not a number"),
            ("-t 1025", 1, "Number of threads must be greater than 0 and at most 1024"),
            ("-c 0", 1, "Maximum connections must be greater than 0"),
            ("-c -1", 1, "Maximum connections must be greater than 0"),
            ("-R 0", 1, "Number of requests per event must be greater than 0"),
            ("-n 0", 1, "Chunk size must be greater than 0"),
            ("-n -5", 1, "Chunk size must be greater than 0"),
            ("-f 1", 1, "Factor must be greater than 1"),
            ("-f 0.5", 1, "Factor must be greater than 1"),
            ("-f nan", 1, "Factor must be greater than 1"),
            ("-f inf", 1, "Factor must be greater than 1"),
            ("-f abc", 1, "Factor must be greater than 1"),
            ("-m 0", 64, "Cannot set item size limit higher than 1/2 of memory max."),
            ("-m 1", 64, "Cannot set item size limit higher than 1/2 of memory max."),
            ("-m 10g", 64, "-m takes a number of megabytes without a unit: \"10g\" is not a number"),
            ("-m -1", 64, "-m takes a number of megabytes"),
            ("-m 99999999999", 64, "-m takes a number of megabytes"),
            ("-I 1023", 64, "Item max size cannot be less than 1024 bytes."),
            ("-I 0", 64, "Item max size cannot be less than 1024 bytes."),
            ("-I 0k", 64, "Item max size cannot be less than 1024 bytes."),
            ("-I -1", 64, "Item max size cannot be less than 1024 bytes."),
            ("-I 1g", 64, "Item max size cannot be less than 1024 bytes.: \"1g\" is not a number"),
            ("-I ''", 64, "Item max size cannot be less than 1024 bytes."),
            ("-I 1025m -m 4096", 64, "Cannot set item size limit higher than a gigabyte."),
            ("-I 1024m -m 1024", 64, "Cannot set item size limit higher than 1/2 of memory max."),
            ("-I 1024", 64, "slab_chunk_max (bytes: 524288) cannot be larger than -I (item_size_max 1024)"),
            ("-I 1500k", 64, "-I (item_size_max: 1536000) must be evenly divisible by slab_chunk_max (bytes: 524288)"),
            ("-b abc", 64, "-b takes a number"),
            ("--verbose=abc", 64, "--verbose takes a level"),
        ]);
    }

    #[test]
    fn switches_and_texts() {
        check(|config| config.evictions, &[("", true), ("-M", false), ("-M -M", false)]);
        check(|config| config.cas_enabled, &[("", true), ("-C", false)]);
        check(|config| config.large_pages, &[("", false), ("-L", true)]);
        check(|config| config.lock_memory, &[("", false), ("-k", true)]);
        check(|config| config.pin, &[("", false), ("--pin", true)]);
        check(|config| config.port_per_core, &[("", false), ("-t 4 -p 11300 --port-per-core", true)]);
        check(|config| config.shutdown_enabled, &[("", false), ("-A", true)]);
        check(|config| config.flush_enabled, &[("", true), ("-F", false)]);
        check(|config| config.dump_enabled, &[("", true), ("-X", false)]);
        check(|config| config.watch_enabled, &[("", true), ("-W", false)]);
        check(|config| config.daemonize, &[("", false), ("-d", true), ("-dMC", true)]);
        check(|config| config.core_dumps, &[("", false), ("-r", true)]);
        check(|config| config.user.clone(), &[("", None), ("-u nobody", Some("nobody".into()))]);
        check(|config| config.memory_file.clone(), &[("", None), ("-e /mnt/image", Some("/mnt/image".into()))]);
        check(|config| config.pid_file.clone(), &[("", None), ("-P /run/x.pid", Some("/run/x.pid".into()))]);
        check(
            |config| config.protocol,
            &[
                ("", BindingProtocol::Auto),
                ("-B auto", BindingProtocol::Auto),
                ("--protocol=ascii", BindingProtocol::Ascii),
                ("-B binary", BindingProtocol::Binary),
            ],
        );
        check(
            |config| (config.prefix_delimiter, config.detail_enabled),
            &[("", (b':', false)), ("-D :", (b':', true)), ("-D -", (b'-', true)), ("-D/", (b'/', true))],
        );
        check(|config| config.udp_port, &[("", 0), ("-U 0", 0), ("-U0 -N 0", 0)]);
        check_refused(&[
            ("-B foo", 64, "Invalid value for binding protocol: foo -- should be one of auto, binary, or ascii"),
            ("-D ''", 1, "No delimiter specified"),
            ("-D ab", 64, "-D takes a single character"),
        ]);
    }

    #[test]
    fn long_forms_are_memcacheds() {
        let config = good(
            "--port=1 --unix-mask=770 --enable-shutdown --listen=::1 --daemon --enable-coredumps --user=u \
             --memory-limit=128 --disable-evictions --conn-limit=9 --lock-memory --pidfile=p --slab-growth-factor=1.5 \
             --slab-min-size=32 --enable-largepages --threads=1 --max-reqs-per-event=7 --disable-cas \
             --listen-backlog=3 --protocol=auto --max-item-size=4m --disable-flush-all --disable-dumping \
             --disable-watch --udp-port=0 --napi-ids=0 --extended=modern,idle_timeout=5",
        );
        assert_eq!(config.listen, [Listen::Host { host: "::1".into(), port: 1 }]);
        assert_eq!((config.connections_max, config.requests_per_event, config.idle_timeout_seconds), (9, 7, 5));
    }

    #[test]
    fn where_it_listens() {
        let host = |host: &str, port| Listen::Host { host: host.into(), port };
        let unix = |mask| vec![Listen::Unix { path: "/tmp/s".into(), mask }];
        check(
            |config| config.listen.clone(),
            &[
                ("-p 1", vec![Listen::Loopback { port: 1 }]),
                ("-p -1", vec![Listen::Loopback { port: 0 }]),
                ("-l *", vec![Listen::Any { port: 11211 }]),
                ("-l *:5 -p 1", vec![Listen::Any { port: 5 }]),
                ("-l 127.0.0.1 -p 1", vec![host("127.0.0.1", 1)]),
                ("-l 127.0.0.1 -p -1", vec![host("127.0.0.1", 0)]),
                ("-l 127.0.0.1:0", vec![host("127.0.0.1", 0)]),
                ("-l 127.0.0.1:-1", vec![host("127.0.0.1", 0)]),
                ("-l ::1", vec![host("::1", 11211)]),
                ("-l [::1]", vec![host("::1", 11211)]),
                ("-l [::1]:7,localhost:8;a", vec![host("::1", 7), host("localhost", 8), host("a", 11211)]),
                ("-l a -l b:1 -l a", vec![host("a", 11211), host("b", 1)]),
                // memcached looks for repeats by substring, and would lose the second.
                ("-l 10.0.0.11 -l 10.0.0.1", vec![host("10.0.0.11", 11211), host("10.0.0.1", 11211)]),
                ("-l ,a,", vec![host("a", 11211)]),
                ("-s /tmp/s", unix(0o700)),
                ("-s /tmp/s -a 777", unix(0o777)),
                ("-s /tmp/s -a 0660 -p 0", unix(0o660)),
                ("-s /tmp/s -l a -p 4", unix(0o700)),
            ],
        );
        check(
            |config| config.warnings.len(),
            &[("-s /tmp/s", 0), ("-s /tmp/s -p 0", 0), ("-s /tmp/s -p 1", 1), ("-s /tmp/s -l a", 1)],
        );
        check(
            |config| config.udp_listen.clone(),
            &[
                ("", vec![]),
                ("-U 0", vec![]),
                ("-U 5", vec![Listen::Loopback { port: 5 }]),
                ("-U -1 -p 6", vec![Listen::Loopback { port: 0 }]),
                (
                    "-U 5 -p 0 -l 10.0.0.1,10.0.0.2:7,*",
                    vec![host("10.0.0.1", 5), host("10.0.0.2", 7), Listen::Any { port: 5 }],
                ),
                ("-U 5 -s /tmp/s", vec![]),
            ],
        );
        check(
            |config| (config.tcp_port, config.udp_port, config.listen.len()),
            &[("-U 5", (5, 5, 1)), ("-U -1", (-1, -1, 1)), ("-U 5 -p 6", (6, 5, 1)), ("-U 5 -p 0", (0, 5, 0))],
        );
        check(
            |config| config.udp_allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            &[
                ("", "".to_owned()),
                ("--udp-allow 10.0.0.0/8,::1 --udp-allow 192.0.2.1", "10.0.0.0/8 ::1/128 192.0.2.1/32".to_owned()),
            ],
        );
        check(|config| config.tcp_port, &[("", 11211), ("-p -1", -1), ("-p 0 -s /tmp/s", 0), ("-p65535", 65535)]);
        check(|config| config.interface.clone(), &[("", None), ("-l a,b -l c", Some("a,b,c".into()))]);
        check_refused(&[
            ("-p 70000", 64, "ERROR: Invalid port number 70000."),
            ("-p -2", 64, "ERROR: Invalid port number -2."),
            ("-p abc", 64, "ERROR: Invalid port number abc."),
            ("-p -t", 64, "ERROR: Invalid port number -t."),
            ("-p 0", 64, "-p 0 turns TCP off, and without -s or -U there is nothing to listen on"),
            ("-U 70000", 64, "ERROR: Invalid port number 70000."),
            ("-U x", 64, "ERROR: Invalid port number x."),
            ("-U 1 -l ,,", 64, "-l needs an address"),
            ("--udp-allow 10.0.0.0/33", 64, "--udp-allow takes addresses and networks, as 10.0.0.0/8: \"10.0.0.0/33\""),
            ("-p 0 -l 127.0.0.1:5", 64, "-p 0 turns TCP off"),
            ("-l ''", 64, "-l needs an address"),
            ("-l ,,", 64, "-l needs an address"),
            ("-l 127.0.0.1:", 71, "Invalid port number: \"\""),
            ("-l 127.0.0.1:abc", 71, "Invalid port number: \"abc\""),
            ("-l 127.0.0.1:99999", 71, "Invalid port number: \"99999\""),
            ("-l [::1", 71, "Invalid IPV6 address: \"[::1\""),
            ("-l [::1]x", 71, "Invalid IPV6 address: \"[::1]x\""),
            ("-l :5", 71, "Invalid address: \":5\""),
            ("-l []:5", 71, "Invalid address: \"[]:5\""),
            ("-l notls:127.0.0.1", 71, "'notls' option is valid only when SSL is enabled"),
            ("-l mtls:127.0.0.1:5", 71, "'mtls' option is valid only when SSL is enabled"),
            ("-l proto[ascii]:127.0.0.1", 64, "-l proto"),
            ("-l tag_a_127.0.0.1", 64, "-l tag_a"),
            ("-a 999", 64, "-a takes permissions in octal"),
            ("-a 7777", 64, "-a takes permissions in octal"),
            ("-s ''", 64, "-s needs the path"),
        ]);
    }

    #[test]
    fn addresses_to_bind() {
        let text = |listen: Listen| {
            let addresses = listen.resolve().expect("no name to look up");
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(Listen::Loopback { port: 1 }), "127.0.0.1:1 [::1]:1");
        assert_eq!(text(Listen::Any { port: 1 }), "0.0.0.0:1 [::]:1");
        assert_eq!(text(Listen::Host { host: "10.0.0.1".into(), port: 1 }), "10.0.0.1:1");
        assert_eq!(text(Listen::Host { host: "::1".into(), port: 1 }), "[::1]:1");
        assert_eq!(text(Listen::Unix { path: "/tmp/s".into(), mask: 0o700 }), "");
        assert_eq!(Listen::Host { host: "::1".into(), port: 1 }.to_string(), "[::1]:1");
    }

    #[test]
    fn extended_options() {
        check(
            |config| config.slab_reassign,
            &[("", true), ("-o no_slab_reassign", false), ("-o slab_reassign=1", true)],
        );
        check(
            |config| config.slab_automove,
            &[("", 1), ("-o slab_automove=2", 2), ("-o slab_automove", 1), ("-o no_slab_automove", 0)],
        );
        check(|config| config.slab_automove_ratio, &[("", 0.8), ("-o slab_automove_ratio=1", 1.0)]);
        check(|config| config.slab_automove_free_ratio, &[("", 0.0), ("-o slab_automove_freeratio=0.1", 0.1)]);
        check(
            |config| (config.slab_reassign, config.slab_automove, config.lru_crawler),
            &[("-o modern", (true, 1, true)), ("-o no_modern", (false, 0, false))],
        );
        check(
            |config| (config.lru_maintainer, config.maxconns_fast),
            &[("-o modern", (true, true)), ("-o no_modern", (false, false))],
        );
        check(|config| config.slab_automove_window_seconds, &[("", 10), ("-o slab_automove_window=3", 3)]);
        check(|config| config.hash_power, &[("", None), ("-o hashpower=12", Some(12)), ("-o hashpower=32", Some(32))]);
        check(
            |config| config.slab_chunk_max_bytes,
            &[
                ("", 512 << 10),
                ("-o slab_chunk_max=16384", 16 << 10),
                ("-o slab_chunk_max=16", 16 << 10),
                ("-o slab_chunk_max=1024", 1 << 20),
                ("-o no_chunked_items", 1 << 20),
                ("-I 2m -o no_chunked_items", 512 << 10),
            ],
        );
        check(
            |config| config.slab_sizes.clone(),
            &[
                ("", None),
                ("-o slab_sizes=100-200-300", Some(vec![100, 200, 300])),
                ("-o slab_sizes=48", Some(vec![48])),
                ("-n 20 -o slab_sizes=40-60", Some(vec![40, 60])),
            ],
        );
        check(|config| config.lru_crawler, &[("", true), ("-o no_lru_crawler", false)]);
        check(|config| config.lru_crawler_sleep_micros, &[("", 100), ("-o lru_crawler_sleep=1000000", 1_000_000)]);
        check(|config| config.lru_crawler_tocrawl, &[("", 0), ("-o lru_crawler_tocrawl=5", 5)]);
        check(|config| config.maxconns_fast, &[("", true), ("-o no_maxconns_fast", false)]);
        check(|config| config.lru_maintainer, &[("", true), ("-o no_lru_maintainer", false)]);
        check(
            |config| (config.hot_lru_percent, config.warm_lru_percent),
            &[("", (20, 40)), ("-o hot_lru_pct=40", (40, 40)), ("-o hot_lru_pct=1,warm_lru_pct=79", (1, 79))],
        );
        check(|config| config.hot_max_factor, &[("", 0.2), ("-o hot_max_factor=5", 5.0)]);
        check(|config| config.warm_max_factor, &[("", 2.0), ("-o warm_max_factor=0.5", 0.5)]);
        check(|config| config.temporary_ttl_seconds, &[("", None), ("-o temporary_ttl=0", Some(0))]);
        check(|config| config.idle_timeout_seconds, &[("", 0), ("-o idle_timeout=10", 10)]);
        check(|config| config.watcher_logbuf_bytes, &[("", 256 << 10), ("-o watcher_logbuf_size=1", 1024)]);
        check(|config| config.worker_logbuf_bytes, &[("", 64 << 10), ("-o worker_logbuf_size=2", 2048)]);
        check(|config| config.read_buffers_limit_bytes, &[("", 0), ("-o read_buf_mem_limit=1", 1 << 20)]);
        check(|config| config.track_sizes, &[("", false), ("-o track_sizes", true)]);
        check(|config| config.tail_repair_time_seconds, &[("", 0), ("-o tail_repair_time=10", 10)]);
        check(
            |config| (config.idle_timeout_seconds, config.lru_crawler, config.hash_power),
            &[("-o idle_timeout=3,no_lru_crawler -o hashpower=20,", (3, false, Some(20)))],
        );
    }

    #[test]
    fn tls() {
        let all = "-o ssl_chain_cert=c,ssl_key=k,ssl_ca_cert=a,ssl_verify_mode=2";
        let file = |name: &str| Some(PathBuf::from(name));
        check(
            |config| config.tls_enabled,
            &[("", false), ("-Z -o ssl_chain_cert=c", true), ("-o ssl_chain_cert=c", false)],
        );
        check(
            |config| (config.tls.chain.clone(), config.tls.key.clone(), config.tls.authorities.clone()),
            &[("", (None, None, None)), (all, (file("c"), file("k"), file("a")))],
        );
        check(
            |config| (config.tls.verify, config.tls_verify_bits),
            &[
                ("", (Verify::None, 0)),
                ("-o ssl_verify_mode=0", (Verify::None, 0)),
                ("-o ssl_verify_mode=1", (Verify::Request, 1)),
                ("-o ssl_verify_mode=2", (Verify::Require, 3)),
                ("-o ssl_verify_mode=3", (Verify::Require, 7)),
            ],
        );
        check(
            |config| (config.tls.only_1_3, config.warnings.len()),
            &[("", (false, 0)), ("-o ssl_min_version=0", (false, 1)), ("-o ssl_min_version=3", (true, 0))],
        );
        check(
            |config| config.tls.key_format,
            &[
                ("-o ssl_keyformat=1", KeyFormat::Pem),
                ("-o ssl_keyformat=PEM", KeyFormat::Pem),
                ("-o ssl_keyformat=2", KeyFormat::Der),
            ],
        );
        check(|config| config.tls_limits.seal_max, &[("", 64 << 10), ("-o ssl_wbuf_size=16", 16 << 10)]);
        check(|config| config.tls.sessions_max > 0, &[("", false), ("-o ssl_session_cache", true)]);
        check(|config| config.tls.ciphers.clone(), &[("-o ssl_ciphers=HIGH:!aNULL", Some("HIGH:!aNULL".into()))]);
        check(|config| config.warnings.len(), &[(all, 1), ("-o ssl_kernel_tls", 1), ("-o ssl_session_cache", 0)]);
        let mixed = format!("-Z {all} -l a:1,notls:b:2,btls:c,mtls:[::1]:3;mtls:*");
        let verify = |config: &Config| config.listen.iter().map(|listen| config.verify(listen)).collect::<Vec<_>>();
        check(
            verify,
            &[
                (
                    &mixed,
                    vec![Some(Verify::Require), None, Some(Verify::None), Some(Verify::Require), Some(Verify::Require)],
                ),
                ("-Z -o ssl_chain_cert=c", vec![Some(Verify::None)]),
                ("-Z -o ssl_chain_cert=c -s /tmp/s", vec![None]),
                ("", vec![None]),
            ],
        );
        check_refused(&[
            ("-Z", 64, "Error loading the certificate chain: "),
            ("-Z -o ssl_chain_cert=c,ssl_verify_mode=1", 64, "certificates of clients cannot be verified"),
            ("-Z -o ssl_chain_cert=c -l mtls:a", 64, "certificates of clients cannot be verified"),
            ("-o ssl_chain_cert", 1, "Missing ssl_chain_cert argument"),
            ("-o ssl_verify_mode", 1, "Missing ssl_verify_mode argument"),
            ("-o ssl_verify_mode=4", 1, "Invalid ssl_verify_mode. Use help to see valid options."),
            ("-o ssl_verify_mode=x", 1, "could not parse argument to ssl_verify_mode"),
            ("-o ssl_min_version=4", 1, "Invalid ssl_min_version. Use help to see valid options."),
            ("-o ssl_keyformat=x", 1, "could not parse argument to ssl_keyformat"),
            ("-o ssl_keyformat=ENGINE", 64, "-o ssl_keyformat=ENGINE: there are no engines"),
            ("-o ssl_wbuf_size=x", 1, "could not parse argument to ssl_wbuf_size"),
            ("-o ssl_wbuf_size=0", 1, "could not parse argument to ssl_wbuf_size"),
            ("-o ssl_nosuch=1", 1, "Illegal suboption \"ssl_nosuch=1\""),
        ]);
    }

    #[test]
    fn what_changes_nothing_is_accepted_with_a_warning_or_was_nothing_in_memcached_either() {
        check(
            |config| config.warnings.len(),
            &[
                ("-o modern,inline_ascii_resp,no_inline_ascii_resp,maxconns_fast", 0),
                ("-o no_drop_privileges,relaxed_privileges,sock_cookie_id=0", 0),
                ("-o ''", 0),
                ("-o drop_privileges", 1),
                ("-o hash_algorithm=xxh3", 1),
                ("-o hash_algorithm=jenkins,tail_repair_time=10", 2),
                ("-o resp_obj_mem_limit", 1),
                ("-o resp_obj_mem_limit=5,watcher_logbuf_size=1,worker_logbuf_size=1", 1),
                ("-o no_chunked_items", 1),
                ("-o slab_chunk_max=512", 1),
                ("-o slab_chunk_max=64", 0),
                ("-o slab_sizes=100-65537", 1),
                ("-o slab_sizes=100-65536", 0),
                ("-t 64", 0),
                ("-t 65", 1),
            ],
        );
    }

    #[test]
    fn extended_options_are_refused_in_memcacheds_words() {
        check_refused(&[
            ("-o foo", 1, "Illegal suboption \"foo\""),
            ("-o foo=1", 1, "Illegal suboption \"foo=1\""),
            ("-o ,", 1, "Illegal suboption \"\""),
            ("-o modern,,modern", 1, "Illegal suboption \"\""),
            ("-o modern -o foo", 1, "Illegal suboption \"foo\""),
            ("-o lru_crawler=0", 1, "lru_crawler takes no value"),
            ("-o hashpower", 1, "Missing numeric argument for hashpower"),
            ("-o hashpower=11", 1, "Initial hashtable multiplier of 11 is too low"),
            ("-o hashpower=33", 1, "Initial hashtable multiplier of 33 is too high"),
            ("-o hash_algorithm", 1, "Missing hash_algorithm argument"),
            ("-o hash_algorithm=foo", 1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"),
            ("-o slab_automove=3", 1, "slab_automove must be between 0 and 2"),
            ("-o slab_automove=-1", 1, "slab_automove must be between 0 and 2"),
            ("-o slab_automove_ratio", 1, "Missing slab_automove_ratio argument"),
            ("-o slab_automove_ratio=0", 1, "slab_automove_ratio must be > 0 and < 1"),
            ("-o slab_automove_ratio=1.1", 1, "slab_automove_ratio must be > 0 and < 1"),
            ("-o slab_automove_freeratio=1", 1, "slab_automove_freeratio must be > 0 and < 1"),
            ("-o slab_automove_window=2", 1, "slab_automove_window must be > 2"),
            ("-o slab_automove_window=1801", 1, "slab_automove_window must be > 2 and at most 1800"),
            ("-o slab_chunk_max", 1, "Missing slab_chunk_max argument"),
            ("-o slab_chunk_max=abc", 1, "could not parse argument to slab_chunk_max"),
            ("-o slab_chunk_max=0", 1, "could not parse argument to slab_chunk_max"),
            ("-o slab_chunk_max=300", 64, "-I (item_size_max: 1048576) must be evenly divisible by slab_chunk_max"),
            ("-I 4m -o slab_chunk_max=2097152", 64, "slab_chunk_max (bytes: 2097152) must divide evenly into 1048576"),
            ("-o slab_sizes", 1, "Missing slab_sizes argument"),
            ("-o slab_sizes=", 64, "slab_sizes needs sizes"),
            ("-o slab_sizes=300-200", 64, "slab size 200 cannot be lower than or equal to a previous class size"),
            ("-o slab_sizes=100-108", 64, "slab size 108 must be at least 8 bytes larger than previous class"),
            ("-o slab_sizes=47-200", 64, "slab size 47 is out of valid range"),
            ("-o slab_sizes=100-524289", 64, "slab size 524289 is out of valid range"),
            ("-o slab_sizes=100-abc", 64, "slab size abc is out of valid range"),
            ("-o lru_crawler_sleep", 1, "Missing lru_crawler_sleep value"),
            ("-o lru_crawler_sleep=1000001", 1, "LRU crawler sleep must be between 0 and 1 second"),
            ("-o lru_crawler_tocrawl", 1, "Missing lru_crawler_tocrawl value"),
            ("-o lru_crawler_tocrawl=-1", 1, "lru_crawler_tocrawl takes a numeric 32bit value"),
            ("-o hot_lru_pct=0", 1, "hot_lru_pct must be > 1 and < 80"),
            ("-o hot_lru_pct=80", 1, "hot_lru_pct must be > 1 and < 80"),
            ("-o hot_lru_pct=41", 64, "hot_lru_pct + warm_lru_pct cannot be more than 80% combined"),
            ("-o warm_lru_pct=61", 64, "hot_lru_pct + warm_lru_pct cannot be more than 80% combined"),
            ("-o hot_max_factor=0", 1, "hot_max_factor must be > 0"),
            ("-o warm_max_factor=-1", 1, "warm_max_factor must be > 0"),
            ("-o temporary_ttl", 1, "Missing temporary_ttl argument"),
            ("-o temporary_ttl=-1", 1, "temporary_ttl takes a number of seconds"),
            ("-o idle_timeout", 1, "Missing numeric argument for idle_timeout"),
            ("-o idle_timeout=-1", 1, "idle_timeout takes a number of seconds"),
            ("-o watcher_logbuf_size=abc", 1, "could not parse argument to watcher_logbuf_size"),
            ("-o worker_logbuf_size", 1, "Missing worker_logbuf_size argument"),
            ("-o read_buf_mem_limit=-1", 1, "could not parse argument to read_buf_mem_limit"),
            ("-o tail_repair_time=9", 1, "Cannot set tail_repair_time to less than 10 seconds"),
        ]);
        let sizes = |count: usize| {
            let sizes: Vec<String> = (0..count).map(|index| (104 + 16 * index).to_string()).collect();
            format!("-o slab_sizes={}", sizes.join("-"))
        };
        assert_eq!(good(&sizes(62)).slab_sizes.map(|sizes| sizes.len()), Some(62));
        check_refused(&[(&sizes(63), 64, "too many slab classes specified")]);
    }

    #[test]
    fn what_is_not_built_is_refused() {
        check_refused(&[
            ("-N 4", 64, "-N: workers by NAPI id are not built yet"),
            ("-o no_hashexpand", 64, "-o no_hashexpand: "),
            ("-o sock_cookie_id=5", 64, "-o sock_cookie_id=5: "),
            ("-o sock_cookie_id", 64, "-o sock_cookie_id: "),
            ("-o ext_path=/mnt/x:1G", 64, "-o ext_path=/mnt/x:1G: there is no disk tier"),
            ("-o proxy_config=x", 64, "-o proxy_config=x: there is no proxy"),
        ]);
    }

    #[test]
    fn unknown_flags_are_refused_as_getopt_and_memcached_do() {
        let unknown = [
            ("-Q", "invalid option -- 'Q'"),
            ("-v2", "invalid option -- '2'"),
            ("-M=3", "invalid option -- '='"),
            ("--nosuch", "unrecognized option '--nosuch'"),
            ("-p", "option requires an argument -- 'p'"),
            ("-vp", "option requires an argument -- 'p'"),
            ("--port", "option '--port' requires an argument"),
        ];
        for (words, what) in unknown {
            let exit = line(words).expect_err(words);
            assert_eq!(exit.text, format!("corecached: {what}\nIllegal argument \"?\""));
            assert!(exit.code == 1 && !exit.to_stdout, "{words}");
        }
        check_refused(&[("extra", 64, "unexpected argument 'extra'")]);
    }

    #[test]
    fn help_and_version_begin_as_the_name_says() {
        let first = |words: &str| {
            let exit = parse(words.split(' ').map(OsString::from).collect(), &HERE).expect_err("asked for information");
            assert!(exit.to_stdout && exit.code == 0, "{words}");
            exit.text.lines().next().expect("not empty").to_owned()
        };
        let ours = format!("corecached {} (memcached 1.6.45 protocol)", env!("CARGO_PKG_VERSION"));
        for flag in ["-h", "--help", "-V", "--version", "-i", "--license", "-t 0 -h"] {
            assert_eq!(first(&format!("/usr/bin/memcached {flag}")), "memcached 1.6.45");
            assert_eq!(first(&format!("target/release/corecached {flag}")), ours);
        }
    }

    #[test]
    fn the_help_names_every_flag_and_every_word() {
        let help = help();
        for letter in "psaAlrdumMckvhiVPfnLDtRCbIFXWUBSYZeNo".chars() {
            assert!(help.contains(&format!("  -{letter}")), "-{letter}");
        }
        // The words of the table at the top of this file.
        let source = include_str!("config.rs");
        let rows = source.lines().filter(|line| line.starts_with("//! | `-o`"));
        let words = rows.flat_map(|row| row.split('`').skip(3).step_by(2)).flat_map(str::split_ascii_whitespace);
        let mut count = 0;
        for word in words {
            let switched_on = word.strip_prefix("no_").is_some_and(|word| help.contains(word));
            assert!(help.contains(word) || switched_on, "{word}");
            count += 1;
        }
        assert!(count > 45, "{count}");
    }

    #[test]
    fn clap_finds_no_fault_with_the_flags() {
        command().debug_assert();
    }
}
