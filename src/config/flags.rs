//! The flags: which there are, the help that shows them, and what is said of a mistake.

use crate::exit::Exit;
use crate::protocol::MEMCACHED_VERSION;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use std::ffi::{OsStr, OsString};
use std::path::Path;

pub(super) const LICENSE: &str = include_str!("../../LICENSE");

/// Under which name it was started: programs that look for a memcached find one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Corecached,
    Memcached,
}

impl Program {
    pub(super) fn of(argv0: &OsString) -> Program {
        match Path::new(argv0).file_name() {
            Some(name) if name == "memcached" => Program::Memcached,
            _ => Program::Corecached,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Program::Corecached => "corecached",
            Program::Memcached => "memcached",
        }
    }

    pub(super) fn version_line(self) -> String {
        match self {
            Program::Corecached => {
                format!("corecached {} (memcached {MEMCACHED_VERSION} protocol)", env!("CARGO_PKG_VERSION"))
            }
            Program::Memcached => format!("memcached {MEMCACHED_VERSION}"),
        }
    }
}

/// The flags, in the groups that the help shows.
pub(super) fn command() -> Command {
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
    // As memcached, which reads on behind them.
    let unused = Arg::new("unused").num_args(0..).action(ArgAction::Append).hide(true);
    command.arg(unused.value_parser(clap::value_parser!(OsString)))
}

pub(super) fn help() -> String {
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
                .default_missing_value("")
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
                 repeating the flag; before it may stand, in this order: with -Z notls: (no TLS), btls: (no certificates \
                 of clients) or mtls: (they are required); proto[ascii]:, proto[binary]: or proto[negotiating]: (instead \
                 of -B); tag[name]: (1 to 8 characters, for the log) (default: 127.0.0.1 and ::1 only, where memcached \
                 listens on all)",
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
            Flag(
                'N',
                "napi-ids",
                One("count"),
                "Give connections to workers by the receive queue of the network card; that many queues, at most -t \
                 (default: off)",
            ),
            Flag(
                'c',
                "conn-limit",
                One("count"),
                "Simultaneous connections (default: 1024, or what the limit of open files leaves)",
            ),
            Flag(
                'R',
                "max-reqs-per-event",
                One("count"),
                "Requests of one connection before others have their turn: exact below 20, else at the end of a group of \
                 up to 64 (default: 20)",
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
            Flag(
                'v',
                "(verbose-count)",
                Count,
                "Log what happens to the server; -vv: and connections, and what they ask for, but never values or passwords",
            ),
            Flag('\0', "verbose", Perhaps("ignored"), "The same as -v"),
            Flag('h', "help", Nothing, "Print this help"),
            Flag('i', "license", Nothing, "Print the license"),
            Flag('V', "version", Nothing, "Print the version"),
        ],
    ),
    (
        "Extended options",
        &[Flag('o', "extended", Many("words"), "Comma-separated list of the words below; repeatable")],
    ),
];

const EXTENDED_HELP: &str = "\
Words of -o, with no_ before those marked (*) to turn them off:
  hashpower=<log2>             buckets the index starts with, 12 to 32 (default: 16)
  slab_sizes=<a-b-c>           explicit chunk sizes in bytes, up to 62 (default: by -f and -n)
  slab_chunk_max=<kilobytes>   largest chunk, 1 to 1024; above 64 it is 64 here (default: 512)
  slab_reassign (*)            let pages move between classes (default: on)
  slab_automove=<0-2> (*)      move them to classes that evict young items; 2: at every eviction (default: 1)
  slab_automove_ratio=<ratio>  young is below this share of the oldest class's age (default: 0.8)
  slab_automove_window=<s>     seconds of samples before a page moves, 3 to 1800 (default: 10)
  slab_automove_freeratio=<r>  share of the pages to keep free for any class to take (default: 0)
  track_sizes                  count item sizes for stats sizes (default: off)
  lru_maintainer (*)           an LRU in segments, kept in proportion in the background (default: on);
                               without it there is one list
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
  sock_cookie_id=<number>      mark of listening sockets (SO_MARK), for packet filters, 0: none (default: 0)
Accepted, without effect here:
  hash_algorithm=<name>        jenkins, murmur3 or xxh3; the hash here is our own, keyed
  tail_repair_time=<s>, read_buf_mem_limit=<MB>, resp_obj_mem_limit=<MB>, no_chunked_items, no_hashexpand,
  modern, inline_ascii_resp (*), drop_privileges (*), relaxed_privileges, ssl_kernel_tls
Refused, there is no disk tier and no proxy:
  ext_*, proxy_*

Environment: MEMCACHED_PORT_FILENAME names a file to write the bound ports to, MEMCACHED_SASL_PWDB one of
user:password lines for -S.
Signals: INT and TERM stop the server; USR1 stops it and, with -e, keeps the cache for the next one;
HUP has it read its password file and its certificates again.";

/// What clap has against a command line: unknown flags and missing values in the words of getopt(3), and memcached's
/// after them; the rest in one line.
pub(super) fn mistake(error: &clap::Error, program: Program, last: &OsStr) -> Exit {
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.as_str(),
        _ => "",
    };
    let last = last.to_string_lossy();
    let name = unknown.split(['=', ' ']).next().unwrap_or_default();
    let begun = |long: &&str| name.len() > 2 && long.starts_with(&name[2..]);
    let mut possible = FLAGS.iter().flat_map(|(_, flags)| *flags).map(|flag| flag.1).filter(begun).peekable();
    let what = match error.kind() {
        ErrorKind::TooManyValues => format!("option '{name}' doesn't allow an argument"),
        ErrorKind::UnknownArgument if unknown.starts_with("--") && possible.peek().is_some() => {
            let possible: Vec<String> = possible.map(|long| format!("'--{long}'")).collect();
            format!("option '{unknown}' is ambiguous; possibilities: {}", possible.join(" "))
        }
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
