//! The flags, each a row of a table, the help that shows them, and the messages for mistakes.

use super::numbers::{leading_decimal, leading_integer};
use super::options;
use super::ttl;
use super::values::{
    delimiter, max_item_size, memory_limit, metrics, own_number, positive, protocol, text, udp_allow, unix_mask,
    verbose,
};
use super::word::Shown;
use super::{COMMIT, Config, MEGABYTE, THREADS_MAX};
use crate::exit::Exit;
use crate::protocol::MEMCACHED_VERSION;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use std::ffi::{OsStr, OsString};
use std::path::Path;

pub(super) const LICENSE: &str = include_str!("../../LICENSE");

/// The name that the program was started under. Programs that look for a memcached find one.
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

    /// The answer to `-V`. memcached's is one line, which monitors read.
    pub(super) fn version(self) -> String {
        match self {
            Program::Corecached => format!("{}\ncommit {COMMIT}", self.version_line()),
            Program::Memcached => self.version_line(),
        }
    }
}

/// The flags, in the groups that the help shows.
pub fn command() -> Command {
    let defaults = Config::base();
    let mut command = Command::new("corecached")
        .override_usage("corecached [flags]")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .max_term_width(100)
        .help_template("{usage-heading} {usage}\n\n{all-args}{after-help}")
        .after_help(format!("{}{ENVIRONMENT_HELP}{COMMANDS_HELP}", options::help(&defaults)));
    for (heading, flags) in FLAGS {
        command = command.next_help_heading(*heading);
        for flag in *flags {
            command = command.arg(flag.arg(&defaults));
        }
    }
    // Like memcached, read on behind arguments that belong to no flag.
    let unused = Arg::new("unused").num_args(0..).action(ArgAction::Append).hide(true);
    command.arg(unused.value_parser(clap::value_parser!(OsString)))
}

pub(super) fn help() -> String {
    command().render_help().to_string().trim_end().to_owned()
}

/// A row of the table of flags: its letter (or `\0`), its name, what it takes and how that is read, its help, its default.
/// The name is the long form, or, in brackets, only a name.
pub(super) struct Flag(char, &'static str, Takes, &'static str, Shown);

/// Reads a value of a flag.
type ReadValue = fn(&OsString, &mut Config) -> Result<(), Exit>;

/// What a flag takes, and how the server reads it.
pub(super) enum Takes {
    Nothing(fn(&mut Config)),
    /// Nothing. The function gets the number of times that the flag was given.
    Count(fn(u8, &mut Config)),
    /// A value, of which the last one given counts. The name is for the help.
    One(&'static str, ReadValue),
    /// A value, of which all given count.
    Many(&'static str, ReadValue),
    /// A value after `=`, or none.
    Perhaps(&'static str, ReadValue),
}

impl Flag {
    pub(super) fn id(&self) -> &'static str {
        self.1.trim_matches(['(', ')'])
    }

    pub(super) fn takes(&self) -> &Takes {
        &self.2
    }

    fn arg(&self, defaults: &Config) -> Arg {
        let &Flag(letter, name, ref takes, help, ref default) = self;
        let id = self.id();
        let help = format!("{help}{}", default.text(defaults));
        let mut arg = Arg::new(id).help(help).value_parser(clap::value_parser!(OsString));
        if id == name {
            arg = arg.long(name);
        }
        if letter != '\0' {
            arg = arg.short(letter);
        }
        match takes {
            Takes::Nothing(_) => {
                arg.action(ArgAction::SetTrue).value_parser(clap::value_parser!(bool)).overrides_with(id)
            }
            Takes::Count(_) => arg.action(ArgAction::Count).value_parser(clap::value_parser!(u8)),
            // As in getopt, the next argument is the value, even if it begins with a hyphen: `-p -1`.
            Takes::One(unit, _) => arg.value_name(*unit).allow_hyphen_values(true).overrides_with(id),
            Takes::Many(unit, _) => arg.value_name(*unit).allow_hyphen_values(true).action(ArgAction::Append),
            Takes::Perhaps(unit, _) => arg
                .value_name(*unit)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("")
                .action(ArgAction::Append),
        }
    }
}

use Shown::{No, Of, Text};
use Takes::{Count, Many, Nothing, One, Perhaps};

/// For flags that `parse.rs` reads together with others, when all rows are read.
const LATER: ReadValue = |_, _| Ok(());
/// The same for flags without a value.
const ALONE: fn(&mut Config) = |_| {};

/// The flags, in the groups that the help shows.
pub(super) const FLAGS: &[(&str, &[Flag])] = &[
    (
        "Where it listens",
        &[
            Flag(
                'p',
                "port",
                One("port", LATER),
                "TCP port. -1: any free port, 0: no TCP",
                Of(|config| config.listen.tcp_port.to_string()),
            ),
            Flag(
                'l',
                "listen",
                Many("entries", LATER),
                "Addresses to listen on, separated by commas. \
                 Entry: [notls:|btls:|mtls:][proto[ascii|binary|negotiating]:][tag[name]:]host[:port]. \
                 Examples: -l 10.0.0.1,[::1]:11212 and -l 127.0.0.1,proto[ascii]:tag[web]:*:11213",
                Text("127.0.0.1 and ::1, where memcached listens on all addresses"),
            ),
            Flag('s', "unix-socket", One("file", LATER), "Unix socket to listen on, instead of TCP", Text("none")),
            Flag(
                'a',
                "unix-mask",
                One("mode", unix_mask),
                "Permissions of the Unix socket, octal",
                Of(|config| format!("{:o}", config.listen.unix_mask)),
            ),
            Flag(
                'b',
                "listen-backlog",
                One("count", |value, config| {
                    let backlog = leading_integer("-b", &text(value), &mut config.warnings);
                    config.listen.backlog = backlog.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                    Ok(())
                }),
                "Connections that may wait to be accepted",
                Of(|config| config.listen.backlog.to_string()),
            ),
            Flag(
                'B',
                "protocol",
                One("name", protocol),
                "ascii, binary, or auto: the first byte of a connection decides",
                Text("auto"),
            ),
            Flag(
                'U',
                "udp-port",
                One("port", LATER),
                "UDP port. -1: any free port, 0: no UDP. Without -p it is the TCP port too",
                Of(|config| config.udp.port.to_string()),
            ),
            Flag(
                '\0',
                "udp-allow",
                Many("networks", udp_allow),
                "Clients that get UDP replies longer than their request, as 10.0.0.0/8,fd00::/8. Others get ERROR. \
                 Not in memcached",
                Text("loopback only"),
            ),
        ],
    ),
    (
        "Memory",
        &[
            Flag(
                'm',
                "memory-limit",
                One("megabytes", memory_limit),
                "Memory for items",
                Of(|config| (config.memory.limit_bytes / MEGABYTE).to_string()),
            ),
            Flag(
                'M',
                "disable-evictions",
                Nothing(|config| config.memory.evictions = false),
                "Answer with an error when memory is used up. Without it the server evicts items",
                No,
            ),
            Flag(
                'I',
                "max-item-size",
                One("bytes", max_item_size),
                "Largest item. k and m behind the number are KiB and MiB. 1k to 1024m, at most half of -m",
                Of(|config| format!("{}m", config.memory.item_size_max / MEGABYTE)),
            ),
            Flag(
                'f',
                "slab-growth-factor",
                One("factor", |value, config| {
                    let factor = leading_decimal("-f", &text(value), &mut config.warnings);
                    let factor = factor.filter(|factor| *factor > 1.0);
                    config.memory.growth_factor =
                        factor.ok_or_else(|| Exit::failure(1, "Factor must be greater than 1"))?;
                    Ok(())
                }),
                "Ratio between the chunk sizes of slab classes, above 1. The steps are finer here: a tenth for 1.25",
                Of(|config| config.memory.growth_factor.to_string()),
            ),
            Flag(
                'n',
                "slab-min-size",
                One("bytes", |value, config| {
                    let otherwise = "Chunk size must be greater than 0";
                    config.memory.chunk_size_min =
                        positive("--slab-min-size", value, INT_MAX, otherwise, config)? as u32;
                    Ok(())
                }),
                "Least room for key, value and flags",
                Of(|config| config.memory.chunk_size_min.to_string()),
            ),
            Flag(
                'C',
                "disable-cas",
                Nothing(|config| config.memory.cas_enabled = false),
                "Keep no CAS uniques. This saves 8 bytes per item",
                No,
            ),
            Flag(
                'L',
                "enable-largepages",
                Nothing(|config| config.memory.large_pages = true),
                "Commit all memory for items at the start",
                No,
            ),
            Flag(
                'k',
                "lock-memory",
                Nothing(|config| config.memory.locked = true),
                "Lock all memory, so that the system never swaps it out",
                No,
            ),
            Flag(
                '\0',
                "keep-memory",
                Nothing(|config| config.memory.keep = true),
                "Leave the memory to the next server at any stop but a kill: by systemd (FileDescriptorStoreMax=) or --take-over. Huge pages need \
                 shmem_enabled=advise. Not in memcached",
                No,
            ),
            Flag(
                '\0',
                "ttl",
                Many("rule", ttl::rule),
                "How long items live: 'jitter=10%', 'page: jitter=20% max=1d', 'feed: default=1h early=30s'. The first word \
                 is the beginning of the keys, and the longest one decides. corecached help stampede explains it. Not in memcached",
                Text("as clients say"),
            ),
        ],
    ),
    (
        "Workers and connections",
        &[
            Flag(
                't',
                "threads",
                One("count", |value, config| {
                    let otherwise = format!("Number of threads must be greater than 0, and at most {THREADS_MAX}");
                    config.workers.threads = positive("--threads", value, THREADS_MAX, &otherwise, config)? as usize;
                    Ok(())
                }),
                "Worker threads. Each has an event loop",
                Text("usable CPUs"),
            ),
            Flag(
                '\0',
                "pin",
                Nothing(|config| config.workers.pin = true),
                "Pin each worker to a CPU, and give it the connections that arrive there. Not in memcached",
                No,
            ),
            Flag(
                '\0',
                "port-per-core",
                Nothing(|config| config.workers.port_per_core = true),
                "Worker i listens on port + i and keeps the items that it receives. Clients list the ports as servers. \
                 Not in memcached",
                No,
            ),
            Flag(
                '\0',
                "hot-copies",
                One("keys", |value, config| {
                    config.workers.hot_copies = own_number("--hot-copies", value, 0..=64)? as usize;
                    Ok(())
                }),
                "Hot keys whose items each worker may copy (values up to 4 KB), so that workers that read them at once do not \
                 wait for each other. 0 to 64. Not in memcached",
                Of(|config| config.workers.hot_copies.to_string()),
            ),
            Flag(
                'N',
                "napi-ids",
                One("count", |value, config| {
                    let otherwise = "Maximum number of NAPI IDs must be greater than 0";
                    config.workers.napi_ids = positive("--napi-ids", value, INT_MAX, otherwise, config)? as usize;
                    Ok(())
                }),
                "Give connections to workers by the receive queue of the network card. Number of queues, at most -t",
                Text("off"),
            ),
            Flag(
                'c',
                "conn-limit",
                One("count", |value, config| {
                    let otherwise = "Maximum connections must be greater than 0";
                    config.connections.max = positive("--conn-limit", value, INT_MAX, otherwise, config)? as u32;
                    config.connections.max_given = true;
                    Ok(())
                }),
                "Connections at the same time",
                Of(|config| format!("{}, or what the limit of open files leaves", config.connections.max)),
            ),
            Flag(
                '\0',
                "connections-per-address",
                One("count", |value, config| {
                    let most = own_number("--connections-per-address", value, 0..=u32::MAX.into())?;
                    config.connections.per_address = most as u32;
                    Ok(())
                }),
                "TCP connections from one address at the same time. One more is refused as one beyond -c is. 0: no limit. \
                 Not in memcached",
                Of(|config| config.connections.per_address.to_string()),
            ),
            Flag(
                'R',
                "max-reqs-per-event",
                One("count", |value, config| {
                    let otherwise = "Number of requests per event must be greater than 0";
                    let count = positive("--max-reqs-per-event", value, INT_MAX, otherwise, config)?;
                    config.turn.requests = count as u32;
                    Ok(())
                }),
                "Requests of one connection before other connections have their turn. The limit is exact below 20. From \
                 20 on the turn ends with a group of up to 64 requests",
                Of(|config| config.turn.requests.to_string()),
            ),
        ],
    ),
    (
        "What clients may ask for",
        &[
            Flag(
                'A',
                "enable-shutdown",
                Nothing(|config| config.permissions.shutdown = true),
                "Allow the shutdown command",
                No,
            ),
            Flag(
                'F',
                "disable-flush-all",
                Nothing(|config| config.permissions.flush = false),
                "Refuse flush_all and flush_prefix",
                No,
            ),
            Flag(
                'S',
                "enable-sasl",
                Nothing(ALONE),
                "Clients must log in by SASL (PLAIN), over the binary protocol only. MEMCACHED_SASL_PWDB names the file \
                 of users",
                No,
            ),
            Flag(
                'Y',
                "auth-file",
                One("file", LATER),
                "Clients must log in by a set of \"user password\", over the text protocol only. The file has up to 8 \
                 lines of user:password",
                No,
            ),
            Flag(
                '\0',
                "users",
                One("file", LATER),
                "Users with rights and limits, in place of -S and -Y. Not in memcached. A line of the file: name verifier \
                 [read] [write] [admin] [prefix=a:,b:] [connections=N] [ops=N/s] [bytes=N/s] [tls-name=CN]. corecached \
                 password makes the verifier. The user default, with - as verifier, needs no login. HUP reads the file \
                 again",
                No,
            ),
            Flag(
                'X',
                "disable-dumping",
                Nothing(|config| config.permissions.dump = false),
                "Refuse stats cachedump, stats detail and lru_crawler dumps",
                No,
            ),
            Flag('W', "disable-watch", Nothing(|config| config.permissions.watch = false), "Refuse watch", No),
            Flag(
                '\0',
                "nodes",
                One("file", |value, config| {
                    config.nodes_file = Some(value.into());
                    Ok(())
                }),
                "Tell clients that discover their servers (config get cluster) the nodes in this file: a line version N, \
                 then name[|ip][:port] lines. Not in memcached",
                Text("none"),
            ),
            Flag(
                'D',
                "(delimiter)",
                One("char", delimiter),
                "Character that ends the prefix of a key, for stats detail. With -D the server collects from the start",
                Of(|config| format!("\"{}\", not collecting", char::from(config.detail.delimiter))),
            ),
        ],
    ),
    (
        "What it measures (not in memcached)",
        &[
            Flag(
                '\0',
                "no-latency",
                Nothing(|config| config.measuring.latency = false),
                "Do not measure how long requests take (stats latency)",
                No,
            ),
            Flag(
                '\0',
                "slow-log",
                One("milliseconds", |value, config| {
                    config.measuring.slow_millis = own_number("--slow-log", value, 0..=3_600_000)?;
                    Ok(())
                }),
                "Note requests that take longer (stats slow). 0: none",
                Of(|config| config.measuring.slow_millis.to_string()),
            ),
            Flag(
                '\0',
                "sample",
                One("operations", |value, config| {
                    config.measuring.sample = own_number("--sample", value, 0..=1_000_000)? as u32;
                    Ok(())
                }),
                "Look closer at one in so many operations, on average: stats hotkeys, stats prefixes. 0: at none",
                Of(|config| config.measuring.sample.to_string()),
            ),
            Flag(
                '\0',
                "prefix-depth",
                One("parts", |value, config| {
                    config.measuring.prefix_depth = own_number("--prefix-depth", value, 1..=4)? as usize;
                    Ok(())
                }),
                "Parts of a key, each ended by the character of -D, that make its prefix in stats prefixes. 1 to 4",
                Of(|config| config.measuring.prefix_depth.to_string()),
            ),
            Flag(
                '\0',
                "hide-keys",
                Nothing(|config| config.measuring.hide_keys = true),
                "Show a hash and the prefix of a key in place of the key, in statistics and in the slow log",
                No,
            ),
            Flag(
                '\0',
                "metrics",
                Many("address", metrics),
                "Answer Prometheus and browsers by HTTP there: host:port, a port of loopback, or unix:path. Of systemd's \
                 sockets, those that are named metrics",
                Text("off"),
            ),
            Flag(
                '\0',
                "metrics-key-names",
                Nothing(|config| config.observing.key_names = true),
                "Show keys at that address. Without it a hash and the prefix stand for a key",
                No,
            ),
        ],
    ),
    (
        "TLS",
        &[Flag(
            'Z',
            "enable-ssl",
            Nothing(|config| config.tls.enabled = true),
            "TLS on all TCP ports. See -o ssl_chain_cert and the other words below",
            No,
        )],
    ),
    (
        "The process",
        &[
            Flag(
                '\0',
                "flags-file",
                One("file", LATER),
                "Read flags from this file too, in the form of Debian's memcached.conf: flags in lines, # before comments. \
                 -d and -P have no effect there. A flag of the command line replaces the same flag of the file. Not in \
                 memcached",
                Text("none"),
            ),
            Flag(
                '\0',
                "check",
                Nothing(|config| config.process.check = true),
                "Check the flags and all files that they name, print what they say, and end. Not in memcached",
                No,
            ),
            Flag('d', "daemon", Nothing(|config| config.process.daemonize = true), "Run in the background", No),
            Flag(
                '\0',
                "drain",
                One("seconds", |value, config| {
                    config.observing.drain_seconds = own_number("--drain", value, 0..=3600)?;
                    Ok(())
                }),
                "Serve on for this long after TERM or USR1, while /readyz of --metrics says that the server is not ready. A \
                 second TERM ends it. Not in memcached",
                Of(|config| config.observing.drain_seconds.to_string()),
            ),
            Flag(
                'u',
                "user",
                One("name", |value, config| {
                    config.process.user = Some(text(value)).filter(|name| !name.is_empty());
                    Ok(())
                }),
                "User to become when root starts the server",
                Text("stay root"),
            ),
            Flag(
                'P',
                "pidfile",
                One("file", |value, config| {
                    config.process.pid_file = Some(value.into());
                    Ok(())
                }),
                "File to write the process id to",
                Text("none"),
            ),
            Flag(
                'e',
                "memory-file",
                One("file", |value, config| {
                    config.process.memory_file = Some(value.into());
                    Ok(())
                }),
                "File for a warm restart. USR1 and shutdown graceful write the cache to it, and the next start loads it",
                Text("none"),
            ),
            Flag(
                '\0',
                "take-over",
                Nothing(|config| config.process.take_over = true),
                "Take the sockets of a running server of this user with the same address as soon as this one is ready, and \
                 end that. It must have been started with this flag as well. Not in memcached",
                No,
            ),
            Flag(
                'r',
                "enable-coredumps",
                Nothing(|config| config.process.core_dumps = true),
                "Raise the limit of core files",
                No,
            ),
            Flag(
                'v',
                "(verbose-count)",
                Count(|count, config| config.process.verbosity = config.process.verbosity.saturating_add(count)),
                "Log events of the server. -vv: log connections and their requests too, but never values or passwords",
                No,
            ),
            Flag('\0', "verbose", Perhaps("ignored", verbose), "The same as -v", No),
            Flag('h', "help", Nothing(ALONE), "Print this help", No),
            Flag('i', "license", Nothing(ALONE), "Print the license", No),
            Flag('V', "version", Nothing(ALONE), "Print the version", No),
        ],
    ),
    (
        "Extended options",
        &[Flag('o', "extended", Many("words", LATER), "Words of the list below, separated by commas", No)],
    ),
];

const INT_MAX: u64 = i32::MAX as u64;

const ENVIRONMENT_HELP: &str = "
Environment: MEMCACHED_PORT_FILENAME names a file to write the bound ports to. MEMCACHED_SASL_PWDB names a file of
user:password lines for -S.
Signals: INT and TERM stop the server. USR1 stops it and, with -e, keeps the cache for the next start.
HUP makes the server read its password file, its certificates and the file of --nodes again.";

/// The commands of the binary, which `main` finds before it reads any flag. A program called `memcached` has none.
const COMMANDS_HELP: &str = "

Commands that look at running servers, corecached or memcached: corecached top, stat, check,
hotkeys, bigkeys, prefixes, latency, doctor. corecached flush drops the keys of a prefix, or all
keys, on many servers; dump, load and copy move items between servers and files. corecached print
writes units, the man page, a dashboard and other files, and corecached password a line for
--users. corecached help explains them.";

/// The message for a command line that clap refuses. Unknown flags and missing values get the words of getopt(3), followed
/// by memcached's. Other mistakes get one line.
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
