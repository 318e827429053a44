//! Command lines that concern the whole server: flush, verbosity, memory limit, certificates, shutdown.

use super::context::ServerContext;
use super::line::{BAD_FORMAT, ERROR, OK, means};
use super::query::{Action, Answer, Query, ReplyKind, say};
use super::settings::Settings;
#[cfg(feature = "debug-commands")]
use crate::clock::Clock;
use crate::clock::Now;
use crate::config::Config;
use crate::protocol::token::{digits_i32, digits_u32};
use crate::store::budget::Budget;
use std::sync::atomic::Ordering;

pub(super) fn flush_all(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    context.workers[context.worker].cmd_flush.add(1);
    if !context.config.permissions.flush {
        return say(b"CLIENT_ERROR flush_all not allowed\r\n");
    }
    let exptime = match arguments {
        [] | [b"noreply"] => Some(0),
        [exptime, ..] => digits_i32(exptime),
    };
    let Some(exptime) = exptime else { return say(b"CLIENT_ERROR invalid exptime argument\r\n") };
    Action::Ask(flush(exptime, context), ReplyKind::Text(OK))
}

/// Makes the query that flushes all items older than `exptime`.
pub(super) fn flush(exptime: i32, context: &ServerContext<'_>) -> Query {
    let ServerContext { settings, clock, now, .. } = *context;
    // A flush removes items that were stored in the second before the deadline or earlier.
    let (query, oldest) = match exptime {
        1.. => match clock.deadline(exptime, now) - 1 {
            // The deadline is before the clock began. In memcached this means "no flush".
            0 => (Query::ForgetFlush, 0),
            last => (Query::Flush(Some(Now(last))), last),
        },
        _ => (Query::Flush(None), now.0 - 1),
    };
    settings.oldest.store(oldest, Ordering::Relaxed);
    query
}

pub(super) fn verbosity(arguments: &[&[u8]], settings: &Settings) -> Action {
    match arguments.first().and_then(|level| digits_u32(level)) {
        Some(level) => {
            settings.set_verbosity(level);
            say(OK)
        }
        None => say(BAD_FORMAT),
    }
}

/// The reply tells errors in spite of `noreply`.
pub(super) fn refresh_certificates(noreply: bool, config: &Config) -> Action {
    match config.tls.enabled {
        true => Action::Ask(Query::RefreshCertificates, ReplyKind::Refreshed { noreply }),
        false => say(b"Error TLS not enabled\r\n"),
    }
}

pub(super) fn refreshed(answers: Vec<Answer>, noreply: bool) -> Vec<u8> {
    let error = answers.into_iter().find_map(|answer| match answer {
        Answer::Refreshed(result) => result.err(),
        _ => None,
    });
    match error {
        Some(error) => format!("{error}\r\n").into_bytes(),
        None if noreply => Vec::new(),
        None => OK.to_vec(),
    }
}

pub(super) fn memory_limit(arguments: &[&[u8]], budget: &Budget) -> Action {
    say(match arguments.first().and_then(|megabytes| digits_u32(megabytes)) {
        None => ERROR,
        Some(0..8) => b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
        Some(1_000_000_001..) => b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n",
        Some(megabytes) if budget.set_limit_bytes(u64::from(megabytes) << 20) => OK,
        Some(_) => b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n",
    })
}

pub(super) fn shutdown(arguments: &[&[u8]], config: &Config) -> Action {
    match arguments {
        // memcached has this colon, too.
        _ if !config.permissions.shutdown => say(b"SERVER_ERROR: shutdown not enabled\r\n"),
        [] => Action::Stop { graceful: false },
        [word] if means(word, "graceful") => Action::Stop { graceful: true },
        _ => say(b"CLIENT_ERROR invalid shutdown mode\r\n"),
    }
}

/// `debugstall <milliseconds>`: the worker does nothing for so long, as if the system had taken its core away. Tests of
/// latencies need that.
#[cfg(feature = "debug-commands")]
pub(super) fn debugstall(arguments: &[&[u8]]) -> Action {
    let millis = arguments.first().and_then(|token| digits_u32(token));
    let Some(millis) = millis.filter(|&millis| millis <= 10_000) else { return say(ERROR) };
    std::thread::sleep(std::time::Duration::from_millis(millis.into()));
    say(OK)
}

/// `debugtime p`, `debugtime r`, `debugtime <seconds>`
#[cfg(feature = "debug-commands")]
pub(super) fn debugtime(arguments: &[&[u8]], clock: &Clock) -> Action {
    let seconds = |token: &[u8]| std::str::from_utf8(token).ok()?.parse().ok();
    match arguments {
        [b"p", ..] => clock.pause(),
        [b"r", ..] => clock.resume(),
        [token, ..] if let Some(count) = seconds(token) => clock.advance(count),
        _ => return say(ERROR),
    }
    say(OK)
}
