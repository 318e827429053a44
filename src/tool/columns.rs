//! The columns of the lists that servers give: hot keys, prefixes, classes, slow requests. The tables on standard output
//! and the panes of `top` show the same ones.

use super::reply::{Row, readable};
use super::show;

/// A column: its title, the field of a row, and the form of its values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) field: &'static str,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Words, at the left edge. They stand in the last column, which takes the rest of the line.
    Text,
    Count,
    Bytes,
    Percent,
    Micros,
    Span,
}

const fn column(title: &'static str, field: &'static str, form: Form) -> Column {
    Column { title, field, form }
}

pub(super) const HOT_KEYS: &[Column] = &[
    column("ops/s", "ops_per_second", Form::Count),
    column("share%", "share_percent", Form::Percent),
    column("±", "error_percent", Form::Percent),
    column("read%", "read_percent", Form::Percent),
    column("hit%", "hit_percent", Form::Percent),
    column("out/s", "bytes_per_second", Form::Bytes),
    column("key", "key", Form::Text),
];

pub(super) const PEAKS: &[Column] = &[
    column("ops/s", "ops_per_second", Form::Count),
    column("share%", "share_percent", Form::Percent),
    column("ago", "age_seconds", Form::Span),
    column("key", "key", Form::Text),
];

/// Hot keys of a server without a sampler, counted by watching it.
pub(super) const WATCHED_KEYS: &[Column] = &[
    column("gets/s", "ops_per_second", Form::Count),
    column("share%", "share_percent", Form::Percent),
    column("hit%", "hit_percent", Form::Percent),
    column("out/s", "bytes_per_second", Form::Bytes),
    column("key", "key", Form::Text),
];

pub(super) const BIG_KEYS: &[Column] = &[
    column("bytes", "bytes", Form::Bytes),
    column("age", "age_seconds", Form::Span),
    column("key", "key", Form::Text),
];

/// Big keys found by reading the list of all items.
pub(super) const SCANNED_KEYS: &[Column] = &[
    column("bytes", "bytes", Form::Bytes),
    column("idle", "idle_seconds", Form::Span),
    column("expires", "expires_in_seconds", Form::Span),
    column("class", "class", Form::Count),
    column("key", "key", Form::Text),
];

pub(super) const PREFIXES: &[Column] = &[
    column("ops/s", "ops_per_second", Form::Count),
    column("hit%", "hit_percent", Form::Percent),
    column("mem%", "memory_percent", Form::Percent),
    column("held", "bytes_held", Form::Bytes),
    column("hits/s/MiB", "hits_per_second_per_mib", Form::Count),
    column("value", "value_mean_bytes", Form::Bytes),
    column("ttl", "ttl_mean_seconds", Form::Span),
    column("no ttl%", "ttl_none_percent", Form::Percent),
    column("prefix", "prefix", Form::Text),
];

pub(super) const CLASSES: &[Column] = &[
    column("class", "class", Form::Count),
    column("chunk", "chunk_size", Form::Bytes),
    column("pages", "total_pages", Form::Count),
    column("memory", "bytes", Form::Bytes),
    column("used%", "used_percent", Form::Percent),
    column("items", "number", Form::Count),
    column("hits/s", "hits_per_second", Form::Count),
    column("sets/s", "sets_per_second", Form::Count),
    column("evict/s", "evictions_per_second", Form::Count),
    column("idle", "evicted_time", Form::Span),
    column("age", "age", Form::Span),
];

pub(super) const SLOW: &[Column] = &[
    column("ago", "age_seconds", Form::Span),
    column("service", "service_us", Form::Micros),
    column("wait", "wait_us", Form::Micros),
    column("core", "worker", Form::Count),
    column("ops", "operations", Form::Count),
    column("reply", "bytes", Form::Bytes),
    column("command", "command", Form::Text),
];

pub(super) const LATENCIES: &[Column] = &[
    column("count", "count", Form::Count),
    column("p50", "p50_us", Form::Micros),
    column("p90", "p90_us", Form::Micros),
    column("p99", "p99_us", Form::Micros),
    column("p99.9", "p999_us", Form::Micros),
    column("max", "max_us", Form::Micros),
    column("what", "what", Form::Text),
];

impl Column {
    pub(super) fn is_text(&self) -> bool {
        self.form == Form::Text
    }

    /// The value of a row in this column. The prefix of all others has no name.
    pub(super) fn show(&self, row: &Row) -> String {
        let number = |show: fn(f64) -> String| show::or_nothing(row.number(self.field), show);
        match self.form {
            Form::Text => row.text(self.field).map_or_else(|| show::NOTHING.to_owned(), readable),
            Form::Count => number(show::count),
            Form::Bytes => number(show::bytes),
            Form::Percent => number(show::percent),
            Form::Micros => number(show::micros),
            Form::Span => number(show::span),
        }
    }
}
