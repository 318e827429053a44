//! A server as its replies show it: at two moments, so that the difference is what happened in between.

use super::finding::{Unknown, because};
use crate::tool::figures::{Rates, Snapshot};
use crate::tool::reply::{Stats, readable};
use std::collections::HashMap;

/// What a server said at one moment.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) snapshot: Snapshot,
    /// The lists that it knows, by what follows `stats`.
    pub(super) lists: HashMap<&'static str, Stats>,
    /// The prefixes of `stats detail dump`, where the server collects them.
    pub(super) detail: Vec<Prefix>,
}

#[derive(Clone, Debug)]
pub(super) struct Server {
    /// As the user wrote it.
    pub(super) name: String,
    pub(super) before: Look,
    pub(super) after: Look,
    /// Seconds between the two looks, and what happened in them.
    pub(super) seconds: f64,
    pub(super) rates: Rates,
    /// Connections that we opened between the looks.
    pub(super) own_connections: f64,
    /// How much of the time each worker has run, in percent; of a server on this machine alone.
    pub(super) workers: Option<Vec<f64>>,
    /// Items of a sample, or why there is none.
    pub(super) sample: Result<Sample, String>,
}

/// Some of the items that a server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) items: u64,
    pub(super) without_ttl: u64,
}

/// Traffic of the keys with one prefix, since the server counts it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Prefix {
    pub(super) name: String,
    pub(super) gets: f64,
    pub(super) hits: f64,
    pub(super) sets: f64,
    /// Share of its stores without a time to live.
    pub(super) ttl_none_percent: Option<f64>,
}

/// A slab class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Class {
    pub(super) number: u64,
    pub(super) chunk_size: f64,
    pub(super) used_chunks: f64,
    /// Bytes of its pages.
    pub(super) memory: f64,
    pub(super) items: f64,
    /// Bytes of its items, without what is lost in chunks.
    pub(super) requested: Option<f64>,
    /// Seconds since its coldest item was used.
    pub(super) age: f64,
    /// Evictions between the looks.
    pub(super) evicted: f64,
    /// For how many seconds an item must be idle to be evicted. corecached evicts new items that nobody asks for soon,
    /// and keeps those that were asked for: there it is the age of the coldest item that stays.
    pub(super) evicted_idle: f64,
}

impl Server {
    pub(super) fn new(name: String, before: Look, after: Look) -> Server {
        let seconds = after.snapshot.at.saturating_duration_since(before.snapshot.at).as_secs_f64().max(1e-3);
        let rates = Rates::between(&before.snapshot, &after.snapshot);
        let sample = Err("it was not asked for".to_owned());
        Server { name, before, after, seconds, rates, own_connections: 0.0, workers: None, sample }
    }

    /// Only corecached knows `stats hotkeys`.
    pub(super) fn is_corecached(&self) -> bool {
        self.after.lists.contains_key("hotkeys")
    }

    /// A figure of `stats`.
    pub(super) fn figure(&self, name: &str) -> Result<f64, Unknown> {
        self.after.snapshot.stats.number(name).map_or_else(|| because(format!("its stats have no {name}")), Ok)
    }

    /// How much a counter of `stats` has grown between the looks.
    pub(super) fn added(&self, name: &str) -> Result<f64, Unknown> {
        let after = self.figure(name)?;
        Ok(grown(self.before.snapshot.stats.number(name), after))
    }

    /// How much these counters have grown, or their values since the start if the first has grown by less than `least`.
    pub(super) fn recent<const N: usize>(&self, names: [&str; N], least: f64) -> Result<([f64; N], Period), Unknown> {
        let (mut added, mut all) = ([0.0; N], [0.0; N]);
        for (at, name) in names.iter().enumerate() {
            (added[at], all[at]) = (self.added(name)?, self.figure(name)?);
        }
        let is_enough = added.first().is_some_and(|added| *added >= least);
        Ok(if is_enough { (added, Period::Interval) } else { (all, Period::SinceStart) })
    }

    /// A period in words.
    pub(super) fn period(&self, period: Period) -> String {
        match period {
            Period::Interval => format!("in the last {:.0} seconds", self.seconds.max(1.0)),
            Period::SinceStart => "since its start".to_owned(),
        }
    }

    /// A line of `stats settings`.
    pub(super) fn setting(&self, name: &str) -> Result<&str, Unknown> {
        let setting = self.after.lists.get("settings").and_then(|settings| settings.text(name));
        setting.map_or_else(|| because(format!("its settings have no {name}")), Ok)
    }

    pub(super) fn number_setting(&self, name: &str) -> Result<f64, Unknown> {
        let text = self.setting(name)?;
        text.parse().map_or_else(|_| because(format!("its setting {name} is \"{text}\"")), Ok)
    }

    /// A list that only corecached has.
    pub(super) fn own_list(&self, name: &str) -> Result<&Stats, Unknown> {
        self.after.lists.get(name).ok_or(Unknown::OnlyCorecached)
    }

    /// Whether its clients are all on its own machine: it listens on a Unix socket or on the loopback.
    pub(super) fn is_private(&self) -> bool {
        // Words like `proto[ascii]:` may stand before an address.
        let is_loopback = |entry: &str| {
            let begins = |text: &str| entry.starts_with(text) || entry.contains(&format!(":{text}"));
            begins("127.") || begins("[::1]") || begins("localhost") || entry == "::1"
        };
        match (self.setting("domain_socket"), self.setting("inter")) {
            (Ok(socket), _) if socket != "NULL" => true,
            // Without -l, corecached listens on the loopback and memcached on all addresses.
            (_, Ok("NULL")) => self.is_corecached(),
            (_, Ok(addresses)) => addresses.split(',').all(is_loopback),
            _ => false,
        }
    }

    /// The classes in use.
    pub(super) fn classes(&self) -> Vec<Class> {
        let rows = |look: &Look, list: &str, prefix: &str| {
            look.lists
                .get(list)
                .map(|stats| stats.rows(prefix))
                .unwrap_or_default()
                .into_iter()
                .collect::<HashMap<_, _>>()
        };
        let (items, items_before) = (rows(&self.after, "items", "items:"), rows(&self.before, "items", "items:"));
        let is_corecached = self.is_corecached();
        let slabs = self.after.lists.get("slabs").map(|stats| stats.rows("")).unwrap_or_default();
        let class = |(number, slab): (u64, crate::tool::reply::Row)| {
            let chunk_size = slab.number("chunk_size")?;
            let row = items.get(&number);
            let of = |field: &str| row.and_then(|row| row.number(field));
            let age = of("age").unwrap_or(0.0).max(of("age_warm").unwrap_or(0.0));
            let before = items_before.get(&number).and_then(|row| row.number("evicted"));
            Some(Class {
                number,
                chunk_size,
                used_chunks: slab.number("used_chunks").unwrap_or(0.0),
                memory: chunk_size * slab.number("total_chunks").unwrap_or(0.0),
                items: of("number").unwrap_or(0.0),
                // Older servers tell this in the other list.
                requested: of("mem_requested").or_else(|| slab.number("mem_requested")),
                age,
                evicted: grown(before.or(Some(0.0)), of("evicted").unwrap_or(0.0)),
                evicted_idle: if is_corecached { age } else { of("evicted_time").unwrap_or(0.0) },
            })
        };
        slabs.into_iter().filter_map(class).collect()
    }

    /// The prefixes that the server has counted: corecached by its sampler, others by `stats detail`.
    pub(super) fn prefixes(&self) -> Result<Vec<Prefix>, Unknown> {
        if !self.after.detail.is_empty() {
            return Ok(self.after.detail.clone());
        }
        let Some(stats) = self.after.lists.get("prefixes") else {
            return match self.setting("detail_enabled") {
                Ok("yes") => Ok(Vec::new()),
                _ => Err(Unknown::OnlyCorecached),
            };
        };
        if stats.number("sample_mean") == Some(0.0) {
            return because("it samples nothing (--sample 0)");
        }
        // Row 0 is all other prefixes together.
        let rows = stats.rows("").into_iter().filter(|(number, _)| *number > 0);
        let prefix = |(_, row): (u64, crate::tool::reply::Row)| {
            let of = |field| row.number(field).unwrap_or(0.0);
            Prefix {
                name: readable(row.text("prefix").unwrap_or_default()),
                gets: of("gets"),
                hits: of("hits"),
                sets: of("sets"),
                ttl_none_percent: row.number("ttl_none_percent"),
            }
        };
        Ok(rows.map(prefix).collect())
    }
}

/// The time that figures are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    Interval,
    SinceStart,
}

/// The growth of a counter. One that has become smaller began anew.
fn grown(before: Option<f64>, after: f64) -> f64 {
    match before {
        Some(before) if before <= after => after - before,
        _ => after,
    }
}

impl Prefix {
    /// Reads a line of `stats detail dump`: `PREFIX user get 10 hit 5 set 3 del 0`.
    pub(super) fn from_detail(line: &str) -> Option<Prefix> {
        let words: Vec<&str> = line.strip_prefix("PREFIX ")?.split(' ').collect();
        let [name, "get", gets, "hit", hits, "set", sets, ..] = words[..] else { return None };
        let [gets, hits, sets] = [gets, hits, sets].map(|number| number.parse().unwrap_or(0.0));
        Some(Prefix { name: name.to_owned(), gets, hits, sets, ttl_none_percent: None })
    }
}
