//! Values that all threads of the server share.

use super::memory::{Memory, item_limits};
use super::requests::Requests;
use crate::admin::{ServerContext, Settings};
use crate::auth::Auth;
use crate::clock::Clock;
use crate::command::Shard;
use crate::command::prefixes::Prefixes;
use crate::config::Config;
use crate::counters::{ServerCounters, UploadUse, WorkerCounters};
use crate::hash::KeyHasher;
use crate::measure::Measures;
use crate::nodes::Nodes;
use crate::store::budget::Budget;
use crate::store::item::Items;
use crate::ttl::TtlRules;
use crate::worker::mailbox::Exchange;
use crate::worker::pings::Pings;
use crate::worker::uploads::Limit;
use core_affinity::CoreId;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What the workers and the main thread share.
pub(super) struct Shared<'a> {
    pub(super) config: &'a Config,
    /// The users, if clients must log in.
    pub(super) auth: Option<&'a Auth>,
    /// The nodes that clients can discover.
    pub(super) nodes: Option<Arc<Nodes>>,
    pub(super) exchange: Exchange,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) hasher: KeyHasher,
    pub(super) items: Items,
    pub(super) budget: Arc<Budget>,
    /// The counters of each worker.
    pub(super) workers: Vec<WorkerCounters>,
    /// The measures of each worker.
    pub(super) measures: Vec<Measures>,
    pub(super) server: ServerCounters,
    /// The descriptor and the address of each listening socket, for `stats conns`.
    pub(super) addresses: Vec<(i32, String)>,
    /// The cores that workers are pinned to, in turn. Empty without `--pin`.
    pub(super) cores: Vec<CoreId>,
    pub(super) requests: Requests,
    pub(super) pings: Pings,
    /// The server serves, and is not about to stop.
    pub(super) is_ready: AtomicBool,
}

/// What a [`Shared`] is made of.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) auth: Option<&'a Auth>,
    pub(super) nodes: Option<Arc<Nodes>>,
    pub(super) memory: Memory,
    pub(super) clock: Clock,
    pub(super) hasher: KeyHasher,
    pub(super) addresses: Vec<(i32, String)>,
    pub(super) requests: Requests,
}

impl<'a> Shared<'a> {
    pub(super) fn new(parts: Parts<'a>) -> Shared<'a> {
        let Parts { config, auth, nodes, memory, clock, hasher, addresses, requests } = parts;
        let Memory { stores, items, budget } = memory;
        let ttl_rules = TtlRules::new(&config.ttl).map(Arc::new);
        let shard = |(number, store)| {
            let prefixes =
                config.detail.enabled.then(|| Prefixes::new(config.detail.delimiter, config.detail.prefixes_max));
            let mut shard = Shard::new(number as u16, store, item_limits(config));
            shard.prefixes = prefixes;
            if let Some(rules) = &ttl_rules {
                shard.set_ttl_rules(Arc::clone(rules));
            }
            shard
        };
        let uploads = Limit::Share {
            budget: Arc::clone(&budget),
            percent: config.uploads.percent,
            item_size_max: config.memory.item_size_max,
        };
        Shared {
            config,
            auth,
            nodes,
            exchange: Exchange::new(
                stores.into_iter().enumerate().map(shard).collect(),
                config.workers.threads,
                uploads,
            ),
            settings: Settings::new(config),
            clock,
            hasher,
            items,
            budget,
            workers: (0..config.workers.threads).map(|_| WorkerCounters::default()).collect(),
            measures: (0..config.workers.threads).map(|_| Measures::new(config.samples(), Instant::now())).collect(),
            server: ServerCounters::default(),
            addresses,
            cores: if config.workers.pin { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() },
            requests,
            pings: Pings::default(),
            is_ready: AtomicBool::new(false),
        }
    }

    /// The server as commands see it: those of the first worker, now.
    pub(super) fn context(&self) -> ServerContext<'_> {
        ServerContext {
            config: self.config,
            settings: &self.settings,
            now: self.clock.now(),
            clock: &self.clock,
            budget: &self.budget,
            auth: self.auth,
            nodes: self.nodes.as_deref(),
            workers: &self.workers,
            measures: &self.measures,
            listeners: &self.addresses,
            server: &self.server,
            worker: 0,
            uploads: UploadUse::default(),
        }
    }
}
