//! The words of `-o`.

use super::numbers::{leading_decimal, leading_integer, leading_number};
use super::{Config, KILOBYTE, MEGABYTE, MEMORY_MEGABYTES_MAX, SLAB_SIZES_MAX, tls};
use crate::exit::Exit;

/// What `-o` says of the largest chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkMax {
    Default,
    Given,
    Unchunked,
}

/// The words of one `-o`. As in `getsubopt`, a comma may end the list, but none of the words is empty.
pub(super) fn suboptions(list: &str, config: &mut Config, chunk_max: &mut ChunkMax) -> Result<(), Exit> {
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
/// `lru_crawler=0` turns it on: so it is here, with a warning.
fn switch(name: &str, value: Option<&str>, config: &mut Config) -> Result<bool, Exit> {
    match name {
        "slab_reassign" => config.slab_reassign = true,
        "no_slab_reassign" => config.slab_reassign = false,
        "no_slab_automove" => config.tuning.automove.level = 0,
        "lru_crawler" => config.lru_crawler = true,
        "no_lru_crawler" => config.lru_crawler = false,
        "lru_maintainer" => maintain_lru(config, true),
        "no_lru_maintainer" => maintain_lru(config, false),
        "no_modern" => {
            config.slab_reassign = false;
            config.tuning.automove.level = 0;
            config.lru_crawler = false;
            maintain_lru(config, false);
            config.maxconns_fast = false;
        }
        "track_sizes" => config.track_sizes = true,
        "maxconns_fast" => config.maxconns_fast = true,
        "no_maxconns_fast" => config.maxconns_fast = false,
        "drop_privileges" => {
            let line = "-o drop_privileges: there is no system call filter; systemd has one: SystemCallFilter=";
            config.warnings.push(line.into());
        }
        "no_hashexpand" => config.warnings.push("-o no_hashexpand: the index always grows here".into()),
        "modern" | "inline_ascii_resp" | "no_inline_ascii_resp" | "no_drop_privileges" | "relaxed_privileges" => {}
        _ => return Ok(false),
    }
    if let Some(value) = value.filter(|&value| value != "1") {
        config
            .warnings
            .push(format!("-o {name}={value}: the value is not used, as in memcached; it is the word that counts"));
    }
    Ok(true)
}

/// Words with a value (and `no_chunked_items`, which stands for one); false if this is none of them. Numbers are read
/// as memcached does: some by what they begin with, some only if they are nothing else.
fn setting(option: &Suboption<'_>, config: &mut Config, chunk_max: &mut ChunkMax) -> Result<bool, Exit> {
    let name = option.name;
    let warnings = &mut config.warnings;
    match name {
        "hashpower" => config.hash_power = Some(option.hash_power(warnings)?),
        "hash_algorithm" => {
            if !["jenkins", "murmur3", "xxh3"].contains(&option.argument()?) {
                return Err(Exit::failure(1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"));
            }
            warnings.push(format!("-o {}: corecached hashes with its own keyed hash", option.word));
        }
        "slab_automove" => {
            config.tuning.automove.level = match option.value {
                None => 1,
                Some(_) => option.leading(0, 2, "slab_automove must be between 0 and 2", warnings)? as u8,
            }
        }
        "slab_automove_ratio" => {
            config.tuning.automove.ratio =
                option.decimal(|ratio| ratio <= 1.0, "slab_automove_ratio must be > 0 and < 1", warnings)?;
        }
        "slab_automove_window" => {
            let otherwise = "slab_automove_window must be > 2 and < 1800";
            config.tuning.automove.window_seconds = option.leading(3, 1800, otherwise, warnings)? as u32;
        }
        "slab_automove_freeratio" => {
            let unreadable = || Exit::failure(1, "could not parse argument to slab_automove_freeratio");
            let ratio: f64 = option.argument()?.parse().map_err(|_| unreadable())?;
            config.tuning.automove.free_ratio = if (0.0..1.0).contains(&ratio) { ratio } else { 0.0 };
            if config.tuning.automove.free_ratio != ratio {
                warnings.push(format!("-o {}: not from 0 to 1, so nothing is kept free", option.word));
            }
        }
        "slab_sizes" => config.slab_sizes = Some(option.slab_sizes()?),
        "slab_chunk_max" => {
            let kilobytes = option.number(0, u32::MAX.into(), "could not parse argument to slab_chunk_max")?;
            match kilobytes {
                0 => return Err(Exit::failure(1, "slab_chunk_max must be >= 0")),
                1..=1024 => config.slab_chunk_max_bytes = kilobytes * KILOBYTE,
                1025.. => return Err(Exit::failure(1, "slab_chunk_max must be specified in kilobytes.")),
            }
            *chunk_max = ChunkMax::Given;
        }
        "no_chunked_items" => {
            *chunk_max = ChunkMax::Unchunked;
            warnings.push(format!("-o {}: items above 64 KiB are always chained here", option.word));
        }
        "lru_crawler_sleep" => {
            let otherwise = "LRU crawler sleep must be between 0 and 1 second";
            config.lru_crawler_sleep_micros = option.leading(0, 1_000_000, otherwise, warnings)? as u32;
        }
        "lru_crawler_tocrawl" => {
            let otherwise = "lru_crawler_tocrawl takes a numeric 32bit value";
            config.lru_crawler_tocrawl = option.number(0, u32::MAX.into(), otherwise)? as u32;
        }
        "hot_lru_pct" => {
            config.tuning.lru.hot_percent = option.leading(1, 79, "hot_lru_pct must be > 1 and < 80", warnings)? as u32;
        }
        "warm_lru_pct" => {
            config.tuning.lru.warm_percent =
                option.leading(1, 79, "warm_lru_pct must be > 1 and < 80", warnings)? as u32;
        }
        "hot_max_factor" => {
            config.tuning.lru.hot_max_factor = option.decimal(|_| true, "hot_max_factor must be > 0", warnings)?;
        }
        "warm_max_factor" => {
            config.tuning.lru.warm_max_factor = option.decimal(|_| true, "warm_max_factor must be > 0", warnings)?;
        }
        // As in memcached: -1 is for ever.
        "temporary_ttl" => {
            let seconds = leading_integer("-o temporary_ttl", option.argument()?, warnings);
            config.tuning.temporary_ttl = Some(seconds.clamp(i32::MIN.into(), u32::MAX.into()) as u32);
        }
        "idle_timeout" => {
            let otherwise = "idle_timeout takes a number of seconds";
            config.idle_timeout_seconds = option.leading(0, i32::MAX as u64, otherwise, warnings)? as u32;
        }
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
            warnings.push(format!("-o {}: each worker has one read buffer, which does not grow", option.word));
            config.read_buffers_limit_bytes = option.number(0, MEMORY_MEGABYTES_MAX, otherwise)? * MEGABYTE;
        }
        "resp_obj_mem_limit" => {
            let line = "DEPRECATED: resp_obj_mem_limit no longer used. See read_buf_mem_limit";
            warnings.push(line.into());
        }
        "tail_repair_time" => {
            let otherwise = "Cannot set tail_repair_time to less than 10 seconds";
            config.tail_repair_time_seconds = option.leading(10, i32::MAX as u64, otherwise, warnings)? as u32;
            warnings.push(format!("-o {}: no item can be stuck here, so nothing is repaired", option.word));
        }
        "sock_cookie_id" => {
            let mark = leading_integer("-o sock_cookie_id", option.argument()?, warnings);
            config.socket_mark = mark.clamp(0, u32::MAX.into()) as u32;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A word of `-o` and its value; errors are memcached's.
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

    /// A number and nothing else.
    pub(super) fn number(&self, min: u64, max: u64, otherwise: &str) -> Result<u64, Exit> {
        let value = self.argument()?.parse().ok().filter(|value| (min..=max).contains(value));
        value.ok_or_else(|| Exit::failure(1, otherwise))
    }

    /// The number that the value begins with, or 0.
    fn leading(&self, min: u64, max: u64, otherwise: &str, warnings: &mut Vec<String>) -> Result<u64, Exit> {
        leading_number(&format!("-o {}", self.name), self.argument()?, min, max, otherwise, warnings)
    }

    /// A fraction above 0 that also holds to `rule`.
    fn decimal(&self, rule: impl Fn(f64) -> bool, otherwise: &str, warnings: &mut Vec<String>) -> Result<f64, Exit> {
        match leading_decimal(&format!("-o {}", self.name), self.argument()?, warnings) {
            Some(value) if value > 0.0 && rule(value) => Ok(value),
            _ => Err(Exit::failure(1, otherwise)),
        }
    }

    fn hash_power(&self, warnings: &mut Vec<String>) -> Result<u32, Exit> {
        let power = leading_integer("-o hashpower", self.argument()?, warnings);
        let otherwise = |how: &str| Exit::failure(1, format!("Initial hashtable multiplier of {power} is too {how}"));
        match power {
            12..=32 => Ok(power as u32),
            33.. => Err(otherwise("high")),
            _ => Err(otherwise("low")),
        }
    }

    /// `a-b-c`, not yet held against the other limits: see `sizes` in `parse.rs`. As in memcached, empty parts are skipped.
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
    let why = if name.starts_with("ext_") {
        "there is no disk tier"
    } else if name.starts_with("proxy_") {
        "there is no proxy"
    } else {
        return Exit::failure(1, format!("Illegal suboption \"{word}\""));
    };
    Exit::usage(format!("-o {word}: {why}"))
}

/// Without the maintainer, the LRU has one segment.
fn maintain_lru(config: &mut Config, maintain: bool) {
    config.lru_maintainer = maintain;
    config.tuning.lru.segmented = maintain;
}
