//! The flags that were given: on the command line, and in the file of `--flags-file`.

use super::flags::{FLAGS, Flag, Program, command, mistake};
use super::flags_file::{self, Line};
use crate::exit::Exit;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::ffi::OsString;
use std::iter;
use std::path::{Path, PathBuf};

/// Flags of the file that have no effect. The server is not started as a daemon there, as memcached is not by Debian's unit.
const IGNORED_IN_FILE: [&str; 3] = ["daemon", "pidfile", "help"];
/// Flags that make no sense in the file.
const REFUSED_IN_FILE: [&str; 4] = ["flags-file", "check", "license", "version"];

/// The flags of one place: of the command line, or of a line of the file.
pub(super) struct Layer {
    /// The file and the line. None: the command line.
    place: Option<String>,
    matches: ArgMatches,
}

/// All flags that were given.
///
/// A flag of the command line takes the place of the same flag in the file, however often that has it. Only the words of
/// `-o` are all read, those of the command line last.
pub(super) struct Flags {
    /// The lines of the file in order, then the command line.
    layers: Vec<Layer>,
    file: Option<PathBuf>,
}

impl Flags {
    /// The flags of a command line, without those of a file.
    pub(super) fn of_line(args: Vec<OsString>, program: Program) -> Result<Flags, Exit> {
        let last = args[args.len() - 1].clone();
        let matches = command().try_get_matches_from(args).map_err(|error| mistake(&error, program, &last))?;
        let file = matches.get_one::<OsString>("flags-file").map(PathBuf::from);
        Ok(Flags { layers: vec![Layer { place: None, matches }], file })
    }

    /// Adds the flags of the file that `--flags-file` names. Returns warnings.
    pub(super) fn read_file(&mut self) -> Result<Vec<String>, Exit> {
        let Some(path) = &self.file else { return Ok(Vec::new()) };
        let (lines, warnings) = flags_file::read(path)?;
        let lines = lines.into_iter().map(Layer::of_line).collect::<Result<Vec<_>, _>>()?;
        self.layers.splice(0..0, lines);
        Ok(warnings)
    }

    /// The file of `--flags-file`.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn line(&self) -> &Layer {
        &self.layers[self.layers.len() - 1]
    }

    /// Whether the command line has the flag in place of this layer.
    pub(super) fn is_replaced(&self, layer: &Layer, flag: &Flag) -> bool {
        flag.id() != "extended" && layer.place.is_some() && self.line().has(flag.id())
    }

    /// The layers whose values of a flag count.
    fn counted(&self, id: &str) -> impl DoubleEndedIterator<Item = &Layer> {
        let from = if self.line().has(id) { self.layers.len() - 1 } else { 0 };
        self.layers[from..].iter().filter(move |layer| layer.has(id))
    }

    pub(super) fn given(&self, id: &str) -> bool {
        self.counted(id).next().is_some()
    }

    pub(super) fn raw(&self, id: &str) -> Option<&OsString> {
        self.counted(id).next_back()?.matches.get_one(id)
    }

    /// The value as text. Bytes that are not UTF-8 become a character that no number and no name has.
    pub(super) fn text(&self, id: &str) -> Option<String> {
        self.raw(id).map(|value| value.to_string_lossy().into_owned())
    }

    pub(super) fn texts(&self, id: &str) -> Vec<String> {
        self.counted(id).flat_map(|layer| layer.texts(id)).collect()
    }

    pub(super) fn path(&self, id: &str) -> Option<PathBuf> {
        self.raw(id).map(PathBuf::from)
    }

    /// A mistake in a flag, with the line of the file if the flag is there. With `text`, the last line that has it counts.
    pub(super) fn blame(&self, id: &str, text: Option<&str>, exit: Exit) -> Exit {
        let has_text = |layer: &&Layer| text.is_none_or(|text| layer.texts(id).iter().any(|it| it.contains(text)));
        self.counted(id).rev().find(has_text).map_or_else(|| exit.clone(), |layer| layer.blame(exit.clone()))
    }
}

impl Layer {
    fn of_line(line: Line) -> Result<Layer, Exit> {
        let last = line.words[line.words.len() - 1].clone();
        let words = iter::once(OsString::from("corecached")).chain(line.words);
        let matches = command().try_get_matches_from(words).map_err(|error| {
            let exit = mistake(&error, Program::Corecached, &last);
            let text = exit.text.lines().next().unwrap_or_default();
            let text = text.strip_prefix("corecached: ").unwrap_or(text);
            Exit { text: format!("{}: {text}", line.place), ..exit }
        })?;
        let layer = Layer { place: Some(line.place), matches };
        match REFUSED_IN_FILE.into_iter().find(|id| layer.has(id)) {
            Some(flag) => Err(layer.blame(Exit::usage(format!("--{flag} is for the command line alone")))),
            None => Ok(layer),
        }
    }

    /// Whether this place has the flag.
    fn has(&self, id: &str) -> bool {
        self.matches.value_source(id) == Some(ValueSource::CommandLine)
            && (self.place.is_none() || !IGNORED_IN_FILE.contains(&id))
    }

    /// The rows of the flags of this place, in their order: of several mistakes, memcached reports the first.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &'static Flag> {
        let place = |flag: &'static Flag| Some((self.matches.indices_of(flag.id())?.next()?, flag));
        let rows = FLAGS.iter().flat_map(|(_, rows)| *rows).filter(|flag| self.has(flag.id()));
        let mut given: Vec<(usize, &Flag)> = rows.filter_map(place).collect();
        given.sort_by_key(|(place, _)| *place);
        given.into_iter().map(|(_, flag)| flag)
    }

    /// The values of a flag that takes them.
    pub(super) fn values(&self, id: &str) -> impl Iterator<Item = &OsString> {
        self.matches.get_many(id).into_iter().flatten()
    }

    /// How often a flag was given that is counted.
    pub(super) fn count(&self, id: &str) -> u8 {
        self.matches.get_count(id)
    }

    /// The values as texts.
    pub(super) fn texts(&self, id: &str) -> Vec<String> {
        self.values(id).map(|value| value.to_string_lossy().into_owned()).collect()
    }

    /// A mistake, with the line of the file before it.
    pub(super) fn blame(&self, exit: Exit) -> Exit {
        match &self.place {
            Some(place) => Exit { text: format!("{place}: {}", exit.text), ..exit },
            None => exit,
        }
    }

    /// Puts the line of the file before these warnings.
    pub(super) fn mark(&self, warnings: &mut [String]) {
        if let Some(place) = &self.place {
            warnings.iter_mut().for_each(|warning| warning.insert_str(0, &format!("{place}: ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse::{Surroundings, parse};
    use crate::config::{Config, Listen};
    use crate::exit::Exit;
    use std::ffi::OsString;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::{env, fs, process};

    /// Parses a command line with a flags file of this text. In messages the file is called FILE.
    fn line(text: &str, words: &str) -> Result<Config, Exit> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corecached-flags-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::write(&path, text).expect("a file in the temporary directory");
        let here = Surroundings { cpus: 3, is_root: false, port_file: None, sasl_password_file: None };
        let words = ["corecached", "--flags-file"]
            .into_iter()
            .map(OsString::from)
            .chain([path.clone().into()])
            .chain(words.split_ascii_whitespace().map(OsString::from));
        let result = parse(words.collect(), &here);
        fs::remove_file(&path).expect("it was written");
        let named = |text: &str| text.replace(&path.display().to_string(), "FILE");
        match result {
            Ok(config) => {
                let warnings = config.warnings.iter().map(|warning| named(warning)).collect();
                Ok(Config { warnings, ..config })
            }
            Err(exit) => Err(Exit { text: named(&exit.text), ..exit }),
        }
    }

    fn good(text: &str, words: &str) -> Config {
        line(text, words).unwrap_or_else(|exit| panic!("{text} {words}: {exit}"))
    }

    #[test]
    fn debians_file_says_what_it_says() {
        let text = "# memcached default config file\n-d\nlogfile /var/log/memcached.log\n# -vv\n-m 100\n-p 11311\n\
                    -u memcache\n-l 127.0.0.1\n-l ::1\n-P /var/run/memcached/memcached.pid\n-c 500 -t 2\n";
        let config = good(text, "");
        assert_eq!(config.memory.limit_bytes, 100 << 20);
        let host = |host: &str| Listen::Host { host: host.into(), port: 11311 };
        assert_eq!(config.listen.sockets, [host("127.0.0.1"), host("::1")]);
        assert_eq!((config.connections.max, config.workers.threads), (500, 2));
        assert_eq!(config.process.user.as_deref(), Some("memcache"));
        // Neither a daemon nor a pid file: systemd wants neither.
        assert_eq!((config.process.daemonize, config.process.pid_file), (false, None));
        assert_eq!(config.warnings.len(), 1);
        assert!(config.warnings[0].starts_with("FILE:3: logfile has no effect"), "{:?}", config.warnings);
    }

    #[test]
    fn the_command_line_replaces_flags_of_the_file() {
        let text =
            "-m 100\n-m 200\n-l 10.0.0.1\n-vvv\n-o no_lru_crawler,idle_timeout=5\n-e /image\n--udp-allow 10.0.0.0/8";
        let config = good(text, "");
        assert_eq!((config.memory.limit_bytes, config.process.verbosity), (200 << 20, 3));
        let config = good(text, "-m 300 -l 10.0.0.2 -v -o idle_timeout=6 -d --udp-allow 10.0.0.1");
        assert_eq!((config.memory.limit_bytes, config.process.verbosity), (300 << 20, 1));
        assert_eq!(config.listen.interface.as_deref(), Some("10.0.0.2"));
        // All words of -o count, and the last of one.
        assert_eq!((config.crawler.enabled, config.connections.idle_timeout_seconds), (false, 6));
        assert_eq!(config.udp.allow.len(), 1);
        assert!(config.process.daemonize && config.process.memory_file == Some("/image".into()));
        // What is replaced is not read.
        assert_eq!(good("-t x\n-p 70000", "-t 1 -p 5").workers.threads, 1);
    }

    #[test]
    fn mistakes_name_the_file_and_the_line() {
        for (text, words, code, mistake) in [
            ("-m 64\n\n-t 0", "", 1, "FILE:3: Number of threads must be greater than 0"),
            ("-m 64\n-q", "", 1, "FILE:2: invalid option -- 'q'"),
            ("--no-such", "", 1, "FILE:1: unrecognized option '--no-such'"),
            ("-t", "-t 2", 1, "FILE:1: option requires an argument -- 't'"),
            ("-v\n64", "", 64, "FILE:2: \"64\" is no flag"),
            ("-v\n-p 70000", "", 64, "FILE:2: ERROR: Invalid port number 70000."),
            ("-v\n-U x1\n-U 70000", "", 64, "FILE:3: ERROR: Invalid port number 70000."),
            ("-l 10.0.0.1\n-l 10.0.0.2:x", "", 71, "FILE:2: Invalid port number: \"x\""),
            ("-o idle_timeout=5,nonsense", "", 1, "FILE:1: Illegal suboption \"nonsense\""),
            ("--flags-file /other", "", 64, "FILE:1: --flags-file is for the command line alone"),
            ("-V", "", 64, "FILE:1: --version is for the command line alone"),
            ("--check", "", 64, "FILE:1: --check is for the command line alone"),
            ("-m 64", "-I 100m", 64, "FILE and the command line: Cannot set item size limit higher"),
            ("-v", "-t 0", 1, "Number of threads must be greater than 0"),
            ("-v", "-q", 1, "corecached: invalid option -- 'q'"),
        ] {
            let exit = line(text, words).expect_err(text);
            assert!(exit.text.starts_with(mistake), "{text} {words}: {exit}");
            assert_eq!((exit.code, exit.to_stdout), (code, false), "{text} {words}");
        }
    }

    #[test]
    fn warnings_name_the_line() {
        let warnings = good("-h\n-m 64m\n-c 100 200", "-t 2x").warnings;
        assert_eq!(
            warnings,
            [
                "FILE:2: -m: \"64m\" is read as 64, as in memcached",
                "FILE:3: \"200\" belongs to no flag and is not used",
                "--threads: \"2x\" is read as 2, as in memcached",
            ]
        );
    }
}
