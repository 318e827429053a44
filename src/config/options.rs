//! The words of `-o`.

use super::{
    Config, Exit, ITEM_BYTES_MAX, KILOBYTE, MEGABYTE, MEMORY_MEGABYTES_MAX, SLAB_SIZES_MAX, decimal, number, tls,
};

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

    pub(super) fn number(&self, min: u64, max: u64, otherwise: &str) -> Result<u64, Exit> {
        number(self.argument()?, min, max).map_err(|why| Exit::failure(1, format!("{otherwise}{why}")))
    }

    pub(super) fn seconds(&self) -> Result<u32, Exit> {
        let otherwise = format!("{} takes a number of seconds", self.name);
        Ok(self.number(0, i32::MAX as u64, &otherwise)? as u32)
    }

    /// A fraction above 0 that also holds to `rule`.
    pub(super) fn decimal(&self, rule: impl Fn(f64) -> bool, otherwise: &str) -> Result<f64, Exit> {
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
