//! A word of `-o`, as a row of a table: its name, value, help, default, and how it is read.

use super::numbers::{leading_decimal, leading_integer, leading_number};
use super::{Config, SLAB_SIZES_MAX};
use crate::exit::Exit;

/// A row of the tables of words.
pub(super) struct Word {
    pub(super) name: &'static str,
    /// The value as the help shows it. Empty: the word takes none.
    pub(super) value: &'static str,
    /// Empty: the help does not show the word.
    pub(super) help: &'static str,
    pub(super) default: Shown,
    pub(super) read: Read,
}

/// How the server reads a word.
pub(super) enum Read {
    /// The word sets the field, and the word with `no_` before it clears the field.
    Switch(fn(&mut Config) -> &mut bool),
    /// The word takes no value.
    Plain(fn(&mut Config)),
    /// The word may take a value.
    Value(fn(&Suboption<'_>, &mut Draft) -> Result<(), Exit>),
}

/// The default that the help shows.
pub(super) enum Shown {
    No,
    Text(&'static str),
    Of(fn(&Config) -> String),
}

impl Shown {
    /// The words behind the help of a setting, given the settings of an empty command line.
    pub(super) fn text(&self, defaults: &Config) -> String {
        match self {
            Shown::No => String::new(),
            Shown::Text(text) => format!(" (default: {text})"),
            Shown::Of(value) => format!(" (default: {})", value(defaults)),
        }
    }
}

/// The settings while the command line is read.
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) chunk_max: ChunkMax,
}

/// What `-o` says about the largest chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkMax {
    Default,
    Given,
    Unchunked,
}

impl Word {
    /// The line of the help. Empty if the help does not show the word.
    pub(super) fn help_line(&self, defaults: &Config) -> String {
        if self.help.is_empty() {
            return String::new();
        }
        let name = match (&self.read, self.value) {
            (Read::Switch(_), _) => format!("{} (*)", self.name),
            (_, "") => self.name.to_owned(),
            (_, value) => format!("{}={value}", self.name),
        };
        let default = match &self.read {
            Read::Switch(field) => {
                let on = *field(&mut defaults.clone());
                format!(" (default: {})", if on { "on" } else { "off" })
            }
            _ => self.default.text(defaults),
        };
        format!("  {name:<31} {}{default}\n", self.help)
    }

    /// Reads the word if it is this one. False: it is another word.
    pub(super) fn take(&self, option: &Suboption<'_>, draft: &mut Draft) -> Result<bool, Exit> {
        let is_off = matches!(self.read, Read::Switch(_)) && option.name.strip_prefix("no_") == Some(self.name);
        if option.name != self.name && !is_off {
            return Ok(false);
        }
        let config = &mut draft.config;
        match self.read {
            Read::Switch(field) => *field(config) = !is_off,
            Read::Plain(set) => set(config),
            Read::Value(read) => return read(option, draft).map(|()| true),
        }
        // As in memcached, `lru_crawler=0` turns the crawler on.
        if let Some(value) = option.value.filter(|&value| value != "1") {
            config.warnings.push(format!(
                "-o {}={value}: the value is not used, as in memcached; it is the word that counts",
                option.name
            ));
        }
        Ok(true)
    }
}

/// A word of the command line, and its value. Errors are in memcached's words.
pub(super) struct Suboption<'a> {
    pub(super) word: &'a str,
    pub(super) name: &'a str,
    pub(super) value: Option<&'a str>,
}

impl<'a> Suboption<'a> {
    pub(super) fn argument(&self) -> Result<&'a str, Exit> {
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

    /// A value that is a number and nothing else.
    pub(super) fn number(&self, min: u64, max: u64, otherwise: &str) -> Result<u64, Exit> {
        let value = self.argument()?.parse().ok().filter(|value| (min..=max).contains(value));
        value.ok_or_else(|| Exit::failure(1, otherwise))
    }

    /// A number of any size below 2^32 and nothing else.
    pub(super) fn number_32(&self) -> Result<u64, Exit> {
        self.number(0, u32::MAX.into(), &format!("could not parse argument to {}", self.name))
    }

    /// The integer that the value begins with, or 0.
    pub(super) fn integer(&self, config: &mut Config) -> Result<i64, Exit> {
        Ok(leading_integer(&format!("-o {}", self.name), self.argument()?, &mut config.warnings))
    }

    /// The number that the value begins with, or 0, within limits.
    pub(super) fn leading(&self, min: u64, max: u64, otherwise: &str, config: &mut Config) -> Result<u64, Exit> {
        let name = format!("-o {}", self.name);
        leading_number(&name, self.argument()?, min..=max, otherwise, &mut config.warnings)
    }

    /// A fraction above 0 that also satisfies `rule`.
    pub(super) fn decimal(
        &self,
        rule: impl Fn(f64) -> bool,
        otherwise: &str,
        config: &mut Config,
    ) -> Result<f64, Exit> {
        match leading_decimal(&format!("-o {}", self.name), self.argument()?, &mut config.warnings) {
            Some(value) if value > 0.0 && rule(value) => Ok(value),
            _ => Err(Exit::failure(1, otherwise)),
        }
    }

    pub(super) fn hash_power(&self, config: &mut Config) -> Result<u32, Exit> {
        let power = self.integer(config)?;
        let otherwise = |how: &str| Exit::failure(1, format!("Initial hashtable multiplier of {power} is too {how}"));
        match power {
            12..=32 => Ok(power as u32),
            33.. => Err(otherwise("high")),
            _ => Err(otherwise("low")),
        }
    }

    /// `a-b-c`, not yet checked against the other limits. As in memcached, empty parts are skipped.
    pub(super) fn slab_sizes(&self) -> Result<Vec<u32>, Exit> {
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
