//! Commands that concern one connection or the whole cache. [`plan`] turns a line into an [`Action`].
//!
//! A command takes three steps, so that no code here waits. The worker that received the line calls [`plan`]. A worker
//! calls [`answer()`] for each shard that the query concerns. [`finish`] writes the reply from all answers (see
//! `stats/`). Replies and errors are those of memcached 1.6.45, and so is the reading of a line: a client may cut a
//! sub-command short (`stats s`), the server ignores words after the last argument, and `noreply` at the end silences
//! all commands but `stats`, `watch`, `version` and `quit`.
//!
//! The wanted differences from memcached are those of `watch`: see `watch.rs`.

pub mod answer;
pub mod binary;
mod cold_items;
mod context;
mod discovery;
pub mod flush_prefix;
mod line;
pub mod login;
pub mod login_reply;
mod query;
pub mod rights;
mod server;
mod settings;
mod stats;
mod tuning;
pub mod walk;

use crate::config::MEMCACHED_VERSION;
use crate::protocol::administration::AdminCommand;
use crate::protocol::token::Tokens;
use crate::watch::Categories;
use line::ERROR;
use query::say;
use stats::{classes, general, lists, measures, merge::merge};

pub use answer::{answer, go_on};
pub use context::ServerContext;
pub use query::{Action, Answer, Description, Query, ReplyKind};
pub use settings::Settings;
pub use stats::general::general_pairs;
pub use stats::measures::merge_big_keys;
pub use stats::merge::merge_snapshots;
pub use stats::settings::setting_pairs;

/// Decides the action for a command line (without its terminator).
pub fn plan(line: &[u8], context: &ServerContext<'_>) -> Action {
    let tokens = Tokens::new(line);
    let Some((&command, arguments)) = tokens.all().split_first() else { return say(ERROR) };
    let plan = match AdminCommand::named(command) {
        Some(AdminCommand::Version) => return Action::Say(format!("VERSION {MEMCACHED_VERSION}\r\n").into_bytes()),
        Some(AdminCommand::Quit) => return Action::Quit,
        Some(AdminCommand::Stats) => return stats::plan(arguments, context),
        Some(AdminCommand::Watch) if !context.config.permissions.watch => {
            return say(b"CLIENT_ERROR watch commands not allowed\r\n");
        }
        Some(AdminCommand::Watch) => return Action::Watch(Categories::named(arguments)),
        Some(AdminCommand::RefreshCerts) => return server::refresh_certificates(tokens.noreply(), context.config),
        Some(AdminCommand::FlushAll) => server::flush_all(arguments, context),
        Some(AdminCommand::FlushPrefix) => return flush_prefix::command(arguments, tokens.noreply(), context),
        Some(AdminCommand::Verbosity) => server::verbosity(arguments, context.settings),
        Some(AdminCommand::CacheMemlimit) => server::memory_limit(arguments, context.budget),
        Some(AdminCommand::Shutdown) => server::shutdown(arguments, context.config),
        Some(AdminCommand::Config) => discovery::config(arguments, context.nodes),
        Some(AdminCommand::Slabs) => tuning::slabs(arguments, context),
        Some(AdminCommand::Lru) => tuning::lru(arguments, context),
        Some(AdminCommand::LruCrawler) => tuning::lru_crawler(arguments, context),
        #[cfg(feature = "debug-commands")]
        Some(AdminCommand::Debugtime) => server::debugtime(arguments, context.clock),
        #[cfg(feature = "debug-commands")]
        Some(AdminCommand::Debugstall) => server::debugstall(arguments),
        #[cfg(not(feature = "debug-commands"))]
        Some(AdminCommand::Debugtime | AdminCommand::Debugstall) => say(ERROR),
        None if matches!(command, b"delete" | b"md") => {
            return flush_prefix::delete(tokens.all(), tokens.noreply(), context);
        }
        Some(AdminCommand::Misbehave) | None => say(ERROR),
    };
    match plan {
        Action::Say(_) if tokens.noreply() => say(b""),
        Action::Ask(query, ReplyKind::Text(_)) if tokens.noreply() => Action::Ask(query, ReplyKind::Text(b"")),
        plan => plan,
    }
}

/// Writes the reply from the answers of all shards or workers.
pub fn finish(report: &ReplyKind, answers: Vec<Answer>, context: &ServerContext<'_>) -> Vec<u8> {
    match report {
        ReplyKind::Text(text) => text.to_vec(),
        &ReplyKind::Flushed(head) => flush_prefix::finish(answers, head),
        ReplyKind::Reassigned => tuning::reassigned(&answers).to_vec(),
        ReplyKind::General => general::general(&merge(answers), context),
        ReplyKind::Items => classes::items(&merge(answers), context),
        ReplyKind::Slabs => classes::slabs(&merge(answers), context.budget),
        ReplyKind::Evictions => general::evictions(&merge(answers)),
        ReplyKind::Sizes => classes::sizes(answers),
        ReplyKind::Detail => lists::detail(answers),
        ReplyKind::BigKeys => measures::big_keys(answers, context),
        ReplyKind::ColdItems => lists::cold_items(answers),
        ReplyKind::Lines => lists::lines(answers),
        ReplyKind::Packets(head, report) => binary::packets(*head, report, &finish(report, answers, context)),
        ReplyKind::Login(_) => unreachable!("the worker replies to a login"),
        ReplyKind::Refreshed { noreply } => server::refreshed(answers, *noreply),
    }
}

#[cfg(test)]
mod tests;
