//! The words of `-o`.

use super::tls;
use super::word::{ChunkMax, Draft, Read, Shown, Suboption, Word};
use super::{Config, KILOBYTE, MEGABYTE, MEMORY_MEGABYTES_MAX};
use crate::exit::Exit;
use Read::{Plain, Switch, Value};
use Shown::{No, Of, Text};

/// The words of one `-o`. As in `getsubopt`, a comma may end the list, but no word may be empty.
pub(super) fn suboptions(list: &str, draft: &mut Draft) -> Result<(), Exit> {
    let mut rest = list;
    while !rest.is_empty() {
        let word;
        (word, rest) = rest.split_once(',').unwrap_or((rest, ""));
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        suboption(&Suboption { word, name, value }, draft)?;
    }
    Ok(())
}

fn suboption(option: &Suboption<'_>, draft: &mut Draft) -> Result<(), Exit> {
    for word in WORDS.iter().chain(tls::WORDS).chain(IGNORED) {
        if word.take(option, draft)? {
            return Ok(());
        }
    }
    Err(unavailable(option))
}

/// The part of the help that shows the words.
pub(super) fn help(defaults: &Config) -> String {
    let lines = |words: &[Word]| words.iter().map(|word| word.help_line(defaults)).collect::<String>();
    format!(
        "Words of -o. Those with (*) also take no_ before them, which turns them off:\n{}{}\
         Words that are accepted and have no effect:\n{}\
         Words that are refused, because the server has neither a disk tier nor a proxy:\n  ext_*, proxy_*\n",
        lines(WORDS),
        lines(tls::WORDS),
        lines(IGNORED)
    )
}

const fn word(name: &'static str, value: &'static str, help: &'static str, default: Shown, read: Read) -> Word {
    Word { name, value, help, default, read }
}

/// Numbers are read as memcached reads them: some words take the number that the value begins with, and others refuse a
/// value that is not a number.
const WORDS: &[Word] = &[
    word(
        "hashpower",
        "<log2>",
        "Buckets that the index starts with, 12 to 32",
        Text("16"),
        Value(|option, draft| {
            draft.config.memory.hash_power = Some(option.hash_power(&mut draft.config)?);
            Ok(())
        }),
    ),
    word(
        "slab_sizes",
        "<a-b-c>",
        "Chunk sizes in bytes, up to 62",
        Text("by -f and -n"),
        Value(|option, draft| {
            draft.config.memory.slab_sizes = Some(option.slab_sizes()?);
            Ok(())
        }),
    ),
    word(
        "slab_chunk_max",
        "<kilobytes>",
        "Largest chunk, 1 to 1024. The server uses 12 for any number above it, and less with a small -m",
        Of(|config| (config.memory.chunk_max_bytes / KILOBYTE).to_string()),
        Value(|option, draft| {
            match option.number_32()? {
                0 => return Err(Exit::failure(1, "slab_chunk_max must be >= 0")),
                kilobytes @ 1..=1024 => draft.config.memory.chunk_max_bytes = kilobytes * KILOBYTE,
                1025.. => return Err(Exit::failure(1, "slab_chunk_max must be specified in kilobytes.")),
            }
            draft.chunk_max = ChunkMax::Given;
            Ok(())
        }),
    ),
    word("slab_reassign", "", "Move pages between classes", No, Switch(|config| &mut config.memory.slab_reassign)),
    word(
        "slab_automove",
        "<0-2>",
        "Move pages to classes that evict young items. 2: at every eviction. no_slab_automove is 0",
        Of(|config| config.tuning.automove.level.to_string()),
        Value(|option, draft| {
            let config = &mut draft.config;
            config.tuning.automove.level = match option.value {
                None => 1,
                Some(_) => option.leading(0, 2, "slab_automove must be between 0 and 2", config)? as u8,
            };
            Ok(())
        }),
    ),
    word("no_slab_automove", "", "", No, Plain(|config| config.tuning.automove.level = 0)),
    word(
        "slab_automove_ratio",
        "<ratio>",
        "Items are young below this share of the oldest class's age",
        Of(|config| config.tuning.automove.ratio.to_string()),
        Value(|option, draft| {
            let otherwise = "slab_automove_ratio must be > 0 and < 1";
            draft.config.tuning.automove.ratio = option.decimal(|ratio| ratio <= 1.0, otherwise, &mut draft.config)?;
            Ok(())
        }),
    ),
    word(
        "slab_automove_window",
        "<seconds>",
        "Time of samples before a page moves, 3 to 1800",
        Of(|config| config.tuning.automove.window_seconds.to_string()),
        Value(|option, draft| {
            let otherwise = "slab_automove_window must be > 2 and < 1800";
            draft.config.tuning.automove.window_seconds = option.leading(3, 1800, otherwise, &mut draft.config)? as u32;
            Ok(())
        }),
    ),
    word(
        "slab_automove_freeratio",
        "<ratio>",
        "Share of the pages that stays free for any class",
        Of(|config| config.tuning.automove.free_ratio.to_string()),
        Value(free_ratio),
    ),
    word(
        "flush_prefix_key",
        "<key>",
        "Deleting a key that begins so flushes the prefix in the rest of the key. Not in memcached",
        Text("off"),
        Value(|option, draft| {
            let key = option.value.filter(|key| (1..=64).contains(&key.len()) && key.bytes().all(|byte| byte > b' '));
            let Some(key) = key else { return Err(Exit::failure(1, "flush_prefix_key takes 1 to 64 bytes of a key")) };
            draft.config.permissions.flush_prefix_key = Some(key.into());
            Ok(())
        }),
    ),
    word(
        "track_sizes",
        "",
        "Count item sizes for stats sizes",
        Text("off"),
        Plain(|config| config.memory.track_sizes = true),
    ),
    word(
        "lru_maintainer",
        "",
        "Divide the LRU into segments, and balance them in the background. Without it the LRU is one list",
        No,
        Switch(|config| &mut config.memory.lru_maintainer),
    ),
    word(
        "hot_lru_pct",
        "<percent>",
        "Share of the hot segment, 1 to 79: see warm_lru_pct",
        Of(|config| config.tuning.lru.hot_percent.to_string()),
        Value(|option, draft| {
            let otherwise = "hot_lru_pct must be > 1 and < 80";
            draft.config.tuning.lru.hot_percent = option.leading(1, 79, otherwise, &mut draft.config)? as u32;
            Ok(())
        }),
    ),
    word(
        "warm_lru_pct",
        "<percent>",
        "Share of the warm segment, 1 to 79; with hot at most 80. The cache finds the share of warm itself. The \
         two numbers divide the other items between hot and cold",
        Of(|config| config.tuning.lru.warm_percent.to_string()),
        Value(|option, draft| {
            let otherwise = "warm_lru_pct must be > 1 and < 80";
            draft.config.tuning.lru.warm_percent = option.leading(1, 79, otherwise, &mut draft.config)? as u32;
            Ok(())
        }),
    ),
    word(
        "hot_max_factor",
        "<factor>",
        "Items that are idle for longer than this times cold's age leave hot",
        Of(|config| config.tuning.lru.hot_max_factor.to_string()),
        Value(|option, draft| {
            draft.config.tuning.lru.hot_max_factor =
                option.decimal(|_| true, "hot_max_factor must be > 0", &mut draft.config)?;
            Ok(())
        }),
    ),
    word(
        "warm_max_factor",
        "<factor>",
        "Has no effect",
        Of(|config| config.tuning.lru.warm_max_factor.to_string()),
        Value(|option, draft| {
            draft.config.tuning.lru.warm_max_factor =
                option.decimal(|_| true, "warm_max_factor must be > 0", &mut draft.config)?;
            Ok(())
        }),
    ),
    word(
        "temporary_ttl",
        "<seconds>",
        "Items that live no longer than this go to the temporary segment",
        Text("off"),
        Value(|option, draft| {
            // As in memcached, -1 is the largest number.
            let seconds = option.integer(&mut draft.config)?;
            draft.config.tuning.temporary_ttl = Some(seconds.clamp(i32::MIN.into(), u32::MAX.into()) as u32);
            Ok(())
        }),
    ),
    word(
        "lru_crawler",
        "",
        "Look for expired items in the background",
        No,
        Switch(|config| &mut config.crawler.enabled),
    ),
    word(
        "lru_crawler_sleep",
        "<microseconds>",
        "Pause of lru_crawler crawl after every 512 items",
        Of(|config| config.crawler.sleep_micros.to_string()),
        Value(|option, draft| {
            let otherwise = "LRU crawler sleep must be between 0 and 1 second";
            draft.config.crawler.sleep_micros = option.leading(0, 1_000_000, otherwise, &mut draft.config)? as u32;
            Ok(())
        }),
    ),
    word(
        "lru_crawler_tocrawl",
        "<count>",
        "Items of a class that lru_crawler crawl looks at. 0: all",
        Of(|config| config.crawler.tocrawl.to_string()),
        Value(|option, draft| {
            let otherwise = "lru_crawler_tocrawl takes a numeric 32bit value";
            draft.config.crawler.tocrawl = option.number(0, u32::MAX.into(), otherwise)? as u32;
            Ok(())
        }),
    ),
    word(
        "watcher_logbuf_size",
        "<kilobytes>",
        "Lines that may wait for one watcher",
        Of(|config| (config.watch.watcher_bytes / KILOBYTE).to_string()),
        Value(|option, draft| {
            draft.config.watch.watcher_bytes = option.number_32()? * KILOBYTE;
            Ok(())
        }),
    ),
    word(
        "worker_logbuf_size",
        "<kilobytes>",
        "Lines that a worker may write for watchers in one turn",
        Of(|config| (config.watch.worker_bytes / KILOBYTE).to_string()),
        Value(|option, draft| {
            draft.config.watch.worker_bytes = option.number_32()? * KILOBYTE;
            Ok(())
        }),
    ),
    word(
        "idle_timeout",
        "<seconds>",
        "Close connections that are silent for this long. 0: never",
        Of(|config| config.connections.idle_timeout_seconds.to_string()),
        Value(|option, draft| {
            let otherwise = "idle_timeout takes a number of seconds";
            draft.config.connections.idle_timeout_seconds =
                option.leading(0, i32::MAX as u64, otherwise, &mut draft.config)? as u32;
            Ok(())
        }),
    ),
    word(
        "maxconns_fast",
        "",
        "Refuse connections above -c at once. Without it they wait",
        No,
        Switch(|config| &mut config.connections.maxconns_fast),
    ),
    word(
        "sock_cookie_id",
        "<number>",
        "Mark of listening sockets (SO_MARK), for packet filters. 0: none",
        Of(|config| config.listen.socket_mark.to_string()),
        Value(|option, draft| {
            let mark = option.integer(&mut draft.config)?;
            draft.config.listen.socket_mark = mark.clamp(0, u32::MAX.into()) as u32;
            Ok(())
        }),
    ),
    word(
        "no_modern",
        "",
        "Turn slab_reassign, slab_automove, lru_crawler, lru_maintainer and maxconns_fast off",
        No,
        Plain(|config| {
            config.memory.slab_reassign = false;
            config.tuning.automove.level = 0;
            config.crawler.enabled = false;
            config.memory.lru_maintainer = false;
            config.connections.maxconns_fast = false;
        }),
    ),
];

/// Words that change nothing but `stats settings`.
const IGNORED: &[Word] = &[
    word("modern", "", "The defaults are modern", No, Plain(|_| {})),
    word("inline_ascii_resp", "", "memcached ignores it too, and no_inline_ascii_resp", No, Plain(|_| {})),
    word("no_inline_ascii_resp", "", "", No, Plain(|_| {})),
    word("relaxed_privileges", "", "The server has no system call filter", No, Plain(|_| {})),
    word("no_drop_privileges", "", "The same", No, Plain(|_| {})),
    word(
        "drop_privileges",
        "",
        "The same. systemd has such a filter",
        No,
        Plain(|config| {
            let line = "-o drop_privileges: there is no system call filter; systemd has one: SystemCallFilter=";
            config.warnings.push(line.into());
        }),
    ),
    word(
        "hash_algorithm",
        "<name>",
        "jenkins, murmur3 or xxh3. The server has a keyed hash of its own",
        No,
        Value(|option, draft| {
            if !["jenkins", "murmur3", "xxh3"].contains(&option.argument()?) {
                return Err(Exit::failure(1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"));
            }
            let line = format!("-o {}: corecached hashes with its own keyed hash", option.word);
            draft.config.warnings.push(line);
            Ok(())
        }),
    ),
    word(
        "no_hashexpand",
        "",
        "The index always grows",
        No,
        Plain(|config| config.warnings.push("-o no_hashexpand: the index always grows here".into())),
    ),
    word(
        "no_chunked_items",
        "",
        "Items above 12 KiB are always chained",
        No,
        Value(|option, draft| {
            draft.chunk_max = ChunkMax::Unchunked;
            draft.config.warnings.push(format!("-o {}: items above 12 KiB are always chained here", option.word));
            Ok(())
        }),
    ),
    word(
        "tail_repair_time",
        "<seconds>",
        "No item can be stuck, so the server repairs none",
        No,
        Value(|option, draft| {
            let otherwise = "Cannot set tail_repair_time to less than 10 seconds";
            let seconds = option.leading(10, i32::MAX as u64, otherwise, &mut draft.config)?;
            draft.config.shown.tail_repair_time_seconds = seconds as u32;
            let line = format!("-o {}: no item can be stuck here, so nothing is repaired", option.word);
            draft.config.warnings.push(line);
            Ok(())
        }),
    ),
    word(
        "read_buf_mem_limit",
        "<megabytes>",
        "Each worker has one read buffer, which does not grow",
        No,
        Value(|option, draft| {
            let line = format!("-o {}: each worker has one read buffer, which does not grow", option.word);
            draft.config.warnings.push(line);
            let otherwise = "could not parse argument to read_buf_mem_limit";
            draft.config.shown.read_buffers_limit_bytes = option.number(0, MEMORY_MEGABYTES_MAX, otherwise)? * MEGABYTE;
            Ok(())
        }),
    ),
    word(
        "resp_obj_mem_limit",
        "<megabytes>",
        "memcached ignores it too",
        No,
        Value(|_, draft| {
            let line = "DEPRECATED: resp_obj_mem_limit no longer used. See read_buf_mem_limit";
            draft.config.warnings.push(line.into());
            Ok(())
        }),
    ),
];

fn free_ratio(option: &Suboption<'_>, draft: &mut Draft) -> Result<(), Exit> {
    let unreadable = || Exit::failure(1, "could not parse argument to slab_automove_freeratio");
    let ratio: f64 = option.argument()?.parse().map_err(|_| unreadable())?;
    let config = &mut draft.config;
    config.tuning.automove.free_ratio = if (0.0..1.0).contains(&ratio) { ratio } else { 0.0 };
    if config.tuning.automove.free_ratio != ratio {
        config.warnings.push(format!("-o {}: not from 0 to 1, so nothing is kept free", option.word));
    }
    Ok(())
}

/// The error for a word that the server does not know or refuses.
fn unavailable(option: &Suboption<'_>) -> Exit {
    let word = option.word;
    let why = if option.name.starts_with("ext_") {
        "there is no disk tier"
    } else if option.name.starts_with("proxy_") {
        "there is no proxy"
    } else {
        return Exit::failure(1, format!("Illegal suboption \"{word}\""));
    };
    Exit::usage(format!("-o {word}: {why}"))
}
