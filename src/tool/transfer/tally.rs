//! What a transfer has done so far: progress on a terminal, and a summary at the end.

use crate::tool::show::{bytes, count, span};
use serde_json::{Map, Value};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two looks of the progress.
const EVERY: Duration = Duration::from_millis(500);

/// Items by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tool) struct Counts {
    /// Items that have been written or stored, and the bytes of their keys and values.
    pub(in crate::tool) items: u64,
    pub(in crate::tool) bytes: u64,
    /// Of a source: items that went after it had listed them, stale items, items that a client is about to fill, keys that
    /// no request can name, and values that the server failed to send.
    pub(in crate::tool) gone: u64,
    pub(in crate::tool) stale: u64,
    pub(in crate::tool) unfilled: u64,
    pub(in crate::tool) unnameable: u64,
    pub(in crate::tool) unread: u64,
    /// Stale items that a fetch should renew, where the server did not let us pass that on to the next client.
    pub(in crate::tool) unrestored: u64,
    /// Of a file: items that have expired since.
    pub(in crate::tool) expired: u64,
    /// Of a target: keys that it had, values that it finds too large or has no memory for, other refusals.
    pub(in crate::tool) already_there: u64,
    pub(in crate::tool) too_large: u64,
    pub(in crate::tool) no_memory: u64,
    pub(in crate::tool) refused: u64,
}

impl Counts {
    /// Whether items are missing that should have come through.
    pub(in crate::tool) fn has_failures(&self) -> bool {
        self.unnameable + self.unread + self.unrestored + self.too_large + self.no_memory + self.refused > 0
    }

    /// What was left out, by its words in the summary.
    fn left_out(&self) -> [(&'static str, &'static str, u64); 10] {
        [
            ("already_there", "already there", self.already_there),
            ("expired", "expired", self.expired),
            ("gone", "gone since they were listed", self.gone),
            ("stale", "stale", self.stale),
            ("unfilled", "about to be filled by a client", self.unfilled),
            ("too_large", "too large", self.too_large),
            ("no_memory", "without memory", self.no_memory),
            ("refused", "refused", self.refused),
            ("unread", "that the server could not send", self.unread),
            ("unnameable", "with a key of more than 186 bytes and a space or line end", self.unnameable),
        ]
    }
}

/// The figures of a transfer, and where they are shown.
#[derive(Debug)]
pub(in crate::tool) struct Tally {
    pub(in crate::tool) counts: Counts,
    /// The share of the work that is done, from 0 to 1, if that is known.
    pub(in crate::tool) done: Option<f64>,
    started: Instant,
    shown: Instant,
    /// Whether standard error is a terminal.
    is_shown: bool,
}

impl Tally {
    pub(in crate::tool) fn new() -> Tally {
        let now = Instant::now();
        Tally { counts: Counts::default(), done: None, started: now, shown: now, is_shown: io::stderr().is_terminal() }
    }

    /// Shows the progress, if it is time for that.
    pub(in crate::tool) fn show(&mut self, what: &str) {
        if self.is_shown && self.shown.elapsed() >= EVERY {
            self.shown = Instant::now();
            // It is only for looking at: if the terminal has gone, the transfer goes on.
            let _ = write!(io::stderr(), "\r\x1b[K{}", self.progress(what, self.started.elapsed().as_secs_f64()));
        }
    }

    fn progress(&self, what: &str, seconds: f64) -> String {
        let counts = &self.counts;
        let rate = counts.items as f64 / seconds.max(0.001);
        let mut line = format!(
            "{what}: {} items, {}, {} items/s",
            count(counts.items as f64),
            bytes(counts.bytes as f64),
            count(rate)
        );
        if let Some(done) = self.done.map(|done| done.clamp(0.0, 1.0)).filter(|&done| done > 0.0) {
            line += &format!(", {:.0} %, {} left", done * 100.0, span((seconds / done - seconds).round()));
        }
        line
    }

    /// Removes the progress from the terminal.
    pub(in crate::tool) fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    /// The summary in one line: `verb` says what was done with the items, as "stored".
    pub(in crate::tool) fn summary(&self, verb: &str) -> String {
        let counts = &self.counts;
        let seconds = self.started.elapsed().as_secs_f64();
        let mut line = format!(
            "{verb} {} items of {} in {} ({}/s)",
            counts.items,
            bytes(counts.bytes as f64),
            span((seconds * 10.0).round() / 10.0),
            count(counts.items as f64 / seconds.max(0.001))
        );
        let left_out = counts.left_out();
        let left_out = left_out.iter().filter(|(.., number)| *number > 0);
        let left_out: Vec<String> = left_out.map(|(_, words, number)| format!("{number} {words}")).collect();
        if !left_out.is_empty() {
            line += &format!("; left out: {}", left_out.join(", "));
        }
        if counts.unrestored > 0 {
            line += &format!(
                "; {} stale items were not marked again, nobody will be told to renew them",
                counts.unrestored
            );
        }
        line
    }

    /// The same for programs.
    pub(in crate::tool) fn json(&self, verb: &str, is_complete: bool) -> Value {
        let mut map = Map::new();
        map.insert(verb.to_owned(), self.counts.items.into());
        map.insert("bytes".to_owned(), self.counts.bytes.into());
        map.insert("seconds".to_owned(), self.started.elapsed().as_secs_f64().into());
        map.insert("complete".to_owned(), is_complete.into());
        map.insert("unrestored".to_owned(), self.counts.unrestored.into());
        for (name, _, number) in self.counts.left_out() {
            map.insert(name.to_owned(), number.into());
        }
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_said_in_words() {
        let counts = Counts { items: 1_200_000, bytes: 64 << 20, already_there: 3, too_large: 1, ..Counts::default() };
        let tally = Tally { counts, done: Some(0.25), ..Tally::new() };
        assert_eq!(tally.progress("copy", 20.0), "copy: 1.2M items, 64M, 60k items/s, 25 %, 60s left");
        let said = tally.summary("stored");
        assert!(said.starts_with("stored 1200000 items of 64M in "), "{said}");
        assert!(said.ends_with("; left out: 3 already there, 1 too large"), "{said}");
        let json = tally.json("stored", true);
        assert_eq!((&json["stored"], &json["too_large"], &json["gone"]), (&1_200_000.into(), &1.into(), &0.into()));
        assert!(tally.counts.has_failures() && !Counts::default().has_failures());
    }
}
