//! From a command line to a [`Config`].

use super::flags::{Flag, LICENSE, Program, Takes, help};
use super::given::{Flags, Layer};
use super::listen::interfaces;
use super::numbers::leading_integer;
use super::options::suboptions;
use super::word::{ChunkMax, Draft};
use super::{
    BindingProtocol, CHUNK_BYTES_LARGEST, Config, ITEM_BYTES_MAX, ITEM_BYTES_MIN, Listen, ListenRules, PAGE_BYTES,
    THREADS_MANY, THREADS_MAX, prefixes, tls,
};
use crate::exit::Exit;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

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
}

/// The facts that the settings depend on besides the command line.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) cpus: usize,
    pub(super) is_root: bool,
    pub(super) port_file: Option<PathBuf>,
    pub(super) sasl_password_file: Option<PathBuf>,
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

pub(super) fn parse(mut args: Vec<OsString>, surroundings: &Surroundings) -> Result<Config, Exit> {
    if args.is_empty() {
        args.push("corecached".into());
    }
    let program = Program::of(&args[0]);
    let mut flags = Flags::of_line(args, program)?;
    if flags.given("help") {
        return Err(Exit::information(format!("{}\n{}", program.version_line(), help())));
    }
    if flags.given("version") {
        return Err(Exit::information(program.version()));
    }
    if flags.given("license") {
        return Err(Exit::information(format!("{}\n\n{}", program.version_line(), LICENSE.trim_end())));
    }

    let mut config = Config::base();
    config.warnings = flags.read_file()?;
    config.process.flags_file = flags.file().map(PathBuf::from);
    config.workers.threads = surroundings.cpus;
    config.listen.port_file = surroundings.port_file.clone();
    let mut draft = Draft { config, chunk_max: ChunkMax::Default };
    for layer in flags.layers() {
        let before = draft.config.warnings.len();
        read_layer(layer, &flags, &mut draft).map_err(|exit| layer.blame(exit))?;
        layer.mark(&mut draft.config.warnings[before..]);
    }
    let Draft { mut config, chunk_max } = draft;
    settle(&flags, surroundings, &mut config, chunk_max).map_err(|exit| match flags.file() {
        // More than one flag may be at fault, and some of them may be on the command line.
        Some(file) if !exit.text.starts_with(&*file.to_string_lossy()) => {
            Exit { text: format!("{} and the command line: {}", file.display(), exit.text), ..exit }
        }
        _ => exit,
    })?;

    if config.workers.threads > THREADS_MANY.max(surroundings.cpus) {
        config.warnings.push(format!(
            "{} worker threads on {} usable CPUs: one per CPU serves best",
            config.workers.threads, surroundings.cpus
        ));
    }
    if surroundings.is_root && config.process.user.is_none() {
        config.warnings.push("running as root: -u <user> gives up its privileges after binding".into());
    }
    Ok(config)
}

/// Reads the flags of one place, except those that the command line has in place of the file.
fn read_layer(layer: &Layer, flags: &Flags, draft: &mut Draft) -> Result<(), Exit> {
    for unused in layer.texts("unused") {
        draft.config.warnings.push(format!("\"{unused}\" belongs to no flag and is not used"));
    }
    for flag in layer.in_order().filter(|flag| !flags.is_replaced(layer, flag)) {
        read_flag(flag, layer, &mut draft.config)?;
        if flag.id() == "extended" {
            for list in layer.texts("extended") {
                suboptions(&list, draft)?;
            }
        }
    }
    Ok(())
}

/// Reads one flag as its row says.
fn read_flag(flag: &Flag, layer: &Layer, config: &mut Config) -> Result<(), Exit> {
    match flag.takes() {
        Takes::Nothing(set) => set(config),
        Takes::Count(read) => read(layer.count(flag.id()), config),
        Takes::One(_, read) | Takes::Many(_, read) | Takes::Perhaps(_, read) => {
            for value in layer.values(flag.id()) {
                read(value, config)?;
            }
        }
    }
    Ok(())
}

/// Reads the flags that depend on each other, and checks settings against each other.
fn settle(flags: &Flags, surroundings: &Surroundings, config: &mut Config, chunk_max: ChunkMax) -> Result<(), Exit> {
    authentication(flags, surroundings, config)?;
    // Without the maintainer the LRU has one segment.
    config.tuning.lru.segmented = config.memory.lru_maintainer;
    sizes(config, chunk_max)?;
    listeners(flags, config)?;
    for listen in &mut config.observing.addresses {
        if let Listen::Unix { mask, .. } = listen {
            *mask = config.listen.unix_mask;
        }
    }
    tls::check(config)
}

/// Reads `-S`, `-Y` and `--users`. Each of the first two allows one protocol only.
fn authentication(flags: &Flags, surroundings: &Surroundings, config: &mut Config) -> Result<(), Exit> {
    let (sasl, auth_file) = (flags.given("enable-sasl"), flags.path("auth-file"));
    let protocol = flags.text("protocol").map(|_| config.listen.protocol);
    let has_udp = flags.text("udp-port").is_some_and(|port| port != "0");
    config.login.users_file = flags.path("users");
    if config.login.users_file.is_some() && (sasl || auth_file.is_some()) {
        return Err(Exit::usage(
            "--users takes the place of -S and -Y, whose files have no rights: give one of the three",
        ));
    }
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
        config.login.sasl_file = Some(file.ok_or_else(none)?);
        config.listen.protocol = BindingProtocol::Binary;
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
        config.login.text_file = auth_file;
        config.listen.protocol = BindingProtocol::Ascii;
    }
    Ok(())
}

/// Checks limits against each other, in memcached's order.
fn sizes(config: &mut Config, chunk_max: ChunkMax) -> Result<(), Exit> {
    let item_max = config.memory.item_size_max;
    if item_max < ITEM_BYTES_MIN {
        return Err(Exit::usage("Item max size cannot be less than 1024 bytes."));
    }
    if item_max > ITEM_BYTES_MAX {
        return Err(Exit::usage("Cannot set item size limit higher than a gigabyte."));
    }
    if item_max > config.memory.limit_bytes / 2 {
        return Err(Exit::usage("Cannot set item size limit higher than 1/2 of memory max."));
    }
    if config.tuning.lru.hot_percent + config.tuning.lru.warm_percent > 80 {
        return Err(Exit::usage("hot_lru_pct + warm_lru_pct cannot be more than 80% combined"));
    }
    if chunk_max == ChunkMax::Unchunked && item_max <= PAGE_BYTES {
        config.memory.chunk_max_bytes = item_max;
    }
    let chunk = config.memory.chunk_max_bytes;
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
    if config.workers.napi_ids > config.workers.threads {
        return Err(Exit::usage(format!(
            "Number of napi_ids({}) cannot be greater than number of threads({})",
            config.workers.napi_ids, config.workers.threads
        )));
    }
    slab_sizes(config)
}

fn slab_sizes(config: &mut Config) -> Result<(), Exit> {
    let Some(sizes) = &config.memory.slab_sizes else { return Ok(()) };
    let mut previous = 0;
    for &size in sizes {
        if size < config.memory.chunk_size_min || u64::from(size) > config.memory.chunk_max_bytes {
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

/// Reads `-p`, `-U`, `-l` and `-s`. As in memcached, a Unix socket replaces TCP, and `-p 0` turns TCP off whatever `-l`
/// says.
fn listeners(flags: &Flags, config: &mut Config) -> Result<(), Exit> {
    let warnings = &mut config.warnings;
    let mut port_number = |flag: &str, id: &str, text: &String| match leading_integer(flag, text, warnings) {
        port @ -1..=65535 => Ok(port as i32),
        _ => Err(flags.blame(id, None, Exit::usage(format!("ERROR: Invalid port number {text}.")))),
    };
    let (port, udp_port) = (flags.text("port"), flags.text("udp-port"));
    config.udp.port = udp_port.as_ref().map_or(Ok(0), |text| port_number("-U", "udp-port", text))?;
    match &port {
        Some(text) => config.listen.tcp_port = port_number("-p", "port", text)?,
        // As in memcached, `-U` alone is the port of TCP too.
        None if config.udp.port != 0 => config.listen.tcp_port = config.udp.port,
        None => {}
    }
    config.listen.interface = interfaces(&flags.texts("listen"));

    if let Some(path) = flags.path("unix-socket") {
        if path.as_os_str().is_empty() {
            return Err(Exit::usage("-s needs the path of a socket"));
        }
        if config.listen.interface.is_some() || port.is_some_and(|port| port != "0") {
            config.warnings.push("-s: the unix socket is instead of TCP, so -l and -p are not used".into());
        }
        if config.udp.port != 0 {
            config.warnings.push("-s: the unix socket is instead of UDP too, so -U is not used".into());
        }
        if config.workers.port_per_core {
            return Err(Exit::usage("--port-per-core needs ports: there are none with a unix socket"));
        }
        config.listen.sockets.push(Listen::Unix { path, mask: config.listen.unix_mask });
        return Ok(());
    }
    if config.listen.tcp_port == 0 && config.udp.port == 0 {
        return Err(Exit::usage("-p 0 turns TCP off, and without -s or -U there is nothing to listen on"));
    }
    if config.listen.tcp_port != 0 {
        for (listen, rules) in addresses(flags, config, config.listen.tcp_port)? {
            config.listen.sockets.push(listen);
            config.listen.rules.push(rules);
        }
    }
    if config.udp.port != 0 {
        config.udp.sockets = addresses(flags, config, config.udp.port)?.into_iter().map(|(listen, _)| listen).collect();
    }
    Ok(())
}

/// The sockets of `-l` for one kind of port, and what its prefixes say. Without `-l` it is loopback. A port in an entry is for
/// TCP and UDP.
fn addresses(flags: &Flags, config: &mut Config, port: i32) -> Result<Vec<(Listen, ListenRules)>, Exit> {
    let port = port.try_into().unwrap_or(0); // -1: ephemeral, which the system calls 0
    let Some(interfaces) = config.listen.interface.clone() else {
        return Ok(vec![(Listen::Loopback { port }, ListenRules::default())]);
    };
    let mut listens = Vec::new();
    for entry in interfaces.split([',', ';']).map(str::trim).filter(|entry| !entry.is_empty()) {
        let read = prefixes::read(entry, config);
        let read = read.and_then(|(address, rules)| Ok((Listen::from_entry(address, port)?, rules)));
        let (listen, rules) = read.map_err(|exit| flags.blame("listen", Some(entry), exit))?;
        // Keep the same address with other rules: binding it twice works if both ask for any port, and fails otherwise.
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
