//! The server as its commands see it.

use super::settings::Settings;
use crate::auth::Auth;
use crate::clock::{Clock, Now};
use crate::config::Config;
use crate::counters::{ServerCounters, UploadUse, WorkerCounters};
use crate::store::budget::Budget;

/// What commands of the whole server see of it.
#[derive(Clone, Copy, Debug)]
pub struct ServerContext<'a> {
    /// The command line.
    pub config: &'a Config,
    /// What was changed since.
    pub settings: &'a Settings,
    /// The time at which the command is executed.
    pub now: Now,
    /// The clock, for what it knows of other times. Only the worker reads it.
    pub clock: &'a Clock,
    /// The pages of the cache.
    pub budget: &'a Budget,
    /// Who may use it, if not everybody.
    pub auth: Option<&'a Auth>,
    /// By worker.
    pub workers: &'a [WorkerCounters],
    /// Its listening sockets: descriptor and address.
    pub listeners: &'a [(i32, String)],
    /// The listening side.
    pub server: &'a ServerCounters,
    /// The worker that asks: an index into `workers`.
    pub worker: usize,
    /// What long values under way take.
    pub uploads: UploadUse,
}
