//! The parts of the server that commands use.

use super::settings::Settings;
use crate::auth::Auth;
use crate::clock::{Clock, Now};
use crate::config::Config;
use crate::counters::{ServerCounters, UploadUse, WorkerCounters};
use crate::measure::Measures;
use crate::nodes::Nodes;
use crate::store::budget::Budget;
use crate::store::slab::{CLASSES_MAX, CLASSES_MAX_DEFAULT, SlabOptions};

/// The parts of the server that commands for the whole server use.
#[derive(Clone, Copy, Debug)]
pub struct ServerContext<'a> {
    /// The settings of the command line.
    pub config: &'a Config,
    /// The settings that commands have changed since.
    pub settings: &'a Settings,
    /// The time at which the command is executed.
    pub now: Now,
    /// The clock, which converts other times. Only the worker reads the present time from it.
    pub clock: &'a Clock,
    /// The pages of the cache.
    pub budget: &'a Budget,
    /// The users that may log in. `None`: everybody may use the server.
    pub auth: Option<&'a Auth>,
    /// The nodes that clients can discover (`--nodes`).
    pub nodes: Option<&'a Nodes>,
    /// The counters of each worker.
    pub workers: &'a [WorkerCounters],
    /// The measures of each worker.
    pub measures: &'a [Measures],
    /// The listening sockets of the server: descriptor and address.
    pub listeners: &'a [(i32, String)],
    /// The counters of the accepting thread.
    pub server: &'a ServerCounters,
    /// The worker that asks: an index into `workers`.
    pub worker: usize,
    /// The memory that unfinished long values take.
    pub uploads: UploadUse,
}

impl ServerContext<'_> {
    /// The largest id that commands take for a slab class, whether or not the class exists. It is memcached's, unless `-f`
    /// makes more classes than memcached has.
    pub fn class_id_max(&self) -> u32 {
        let is_default = self.config.memory.growth_factor >= SlabOptions::default().growth_factor;
        (if is_default { CLASSES_MAX_DEFAULT } else { CLASSES_MAX }) as u32
    }
}
