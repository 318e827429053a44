//! The result of a soak: a table of figures, each with its limit.

use std::fmt;
use std::time::Duration;

use super::world::Tally;

/// Bytes that a server may hold besides its cache, above those at its start: buffers that its threads keep, and memory
/// that the allocator keeps for the next load.
const BESIDE_MAX: u64 = 24 << 20;
/// Maximum growth of these bytes from the first rest of a life to the second: the server keeps nothing for guests that
/// have left.
const GROWTH_MAX: u64 = 8 << 20;

/// The resources of a server without guests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    pub connections: u64,
    pub buffers: u64,
    pub descriptors: u64,
    /// Resident memory, without the pages and the index of the cache.
    pub beside_the_cache: u64,
}

impl Rest {
    /// Whether the server holds nothing for guests that have left. Memory may stay a little above the start, because
    /// the allocator returns it late.
    pub fn is_as_at(&self, start: &Rest) -> bool {
        self.connections <= start.connections
            && self.descriptors <= start.descriptors
            && self.buffers <= start.buffers
            && self.beside_the_cache <= start.beside_the_cache + BESIDE_MAX
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rest { connections, buffers, descriptors, beside_the_cache } = self;
        write!(
            f,
            "at rest {connections} connections, {descriptors} descriptors, {buffers} bytes in buffers, {:.1} MiB beside \
             the cache",
            mebibytes(*beside_the_cache)
        )
    }
}

/// All results of a soak.
#[derive(Debug, Default)]
pub struct Verdict {
    pub start: Rest,
    pub lives: Vec<Vec<Rest>>,
    pub tally: Tally,
    pub evictions: u64,
    /// Items that servers took over from the ones before.
    pub kept: u64,
    pub time: Duration,
    pub interrupted: bool,
    /// The reason why the soak could not go on.
    pub failure: Option<String>,
    pub complaints: Vec<String>,
}

struct Row {
    what: String,
    figure: String,
    limit: String,
    holds: bool,
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// A row for an event that must not happen.
fn none(what: &str, count: u64) -> Row {
    Row { what: what.into(), figure: count.to_string(), limit: "0".into(), holds: count == 0 }
}

/// A row for an event that must happen; otherwise the soak has tested nothing.
fn some(what: &str, count: u64) -> Row {
    Row { what: what.into(), figure: count.to_string(), limit: "≥ 1".into(), holds: count > 0 }
}

impl Verdict {
    /// Whether all rows hold, and the soak ran to its end.
    pub fn holds(&self) -> bool {
        self.failure.is_none() && !self.interrupted && self.rows().iter().all(|row| row.holds)
    }

    /// Whether the soak has produced each kind of load. On a slow machine, the soak goes on until then.
    pub fn has_tried_all(&self, tally: &Tally) -> bool {
        self.loads(tally).iter().all(|row| row.holds)
    }

    fn rows(&self) -> Vec<Row> {
        let tally = &self.tally;
        let mut rows = self.loads(tally);
        rows.extend([
            none("answers: wrong or foreign values", tally.wrong.get()),
            none("answers: replaced, flushed, expired or lost", tally.stale.get()),
            none("answers: values that were never ended", tally.half_stored.get()),
            none("answers: sets refused for want of memory", tally.refused.get()),
            none("answers: that make no sense", tally.nonsense.get()),
            none("answers: missing", tally.silent.get()),
            none("answers: connections lost without a reason", tally.lost.get()),
        ]);
        rows.extend(self.rests());
        rows
    }

    fn loads(&self, tally: &Tally) -> Vec<Row> {
        vec![
            some("load: values read and checked", tally.values.get()),
            some("load: over TLS, by who knows the value", tally.values_tls.get()),
            some("load: over UDP", tally.values_udp.get()),
            some("load: by slow readers", tally.values_slow.get()),
            some("load: values begun and not ended", tally.half_values.get()),
            some("load: short connections", tally.visits.get()),
            some("load: evictions", self.evictions),
            some("load: flushes", tally.flushes.get()),
            some("load: changes of the limit", tally.limit_changes.get()),
            some("load: graceful stops with -e", tally.warm_restarts.get()),
            some("load: items kept by them", self.kept),
            some("load: servers killed", tally.kills.get()),
        ]
    }

    /// The highest figure of each resource of a server at rest.
    fn rests(&self) -> Vec<Row> {
        let most = |of: fn(&Rest) -> u64| self.lives.iter().flatten().map(of).max().unwrap_or(0);
        let row = |what: &str, of: fn(&Rest) -> u64| {
            let (figure, limit) = (most(of), of(&self.start));
            Row {
                what: format!("at rest: {what}"),
                figure: figure.to_string(),
                limit: format!("{limit}, as at the start"),
                holds: figure <= limit,
            }
        };
        let mut rows = vec![
            some("at rest: looks", self.lives.iter().flatten().count() as u64),
            row("connections, with the one that asks", |rest| rest.connections),
            row("descriptors", |rest| rest.descriptors),
            row("bytes in buffers", |rest| rest.buffers),
        ];
        let limit = self.start.beside_the_cache + BESIDE_MAX;
        for (life, rests) in self.lives.iter().enumerate() {
            let (first, last) = match rests[..] {
                [first, .., last] => (first.beside_the_cache, last.beside_the_cache),
                _ => continue,
            };
            let more = if last < first { "less" } else { "more" };
            rows.push(Row {
                what: format!("life {}: MiB beside the cache, first rest", life + 1),
                figure: format!("{:.1}", mebibytes(first)),
                limit: format!("{:.1}", mebibytes(limit)),
                holds: first <= limit,
            });
            rows.push(Row {
                what: format!("life {}: MiB {more} at the second rest", life + 1),
                figure: format!("{:.1}", mebibytes(last.abs_diff(first))),
                limit: format!("{:.1} more", mebibytes(GROWTH_MAX)),
                holds: last <= first + GROWTH_MAX && last <= limit,
            });
        }
        rows
    }

    /// The table, and the complaints.
    pub fn text(&self) -> String {
        let mut text = format!("{:<52} {:>12}  {:<20}\n", "what", "figure", "limit");
        for Row { what, figure, limit, holds } in self.rows() {
            let verdict = if holds { "ok" } else { "NOT OK" };
            text += &format!("{what:<52} {figure:>12}  {limit:<20} {verdict}\n");
        }
        text += &format!("{:.0} s, {} servers\n", self.time.as_secs_f64(), self.lives.len());
        for complaint in &self.complaints {
            text += &format!("{complaint}\n");
        }
        if self.interrupted {
            text += "interrupted\n";
        }
        if let Some(failure) = &self.failure {
            text += &format!("it could not go on: {failure}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soaked() -> Verdict {
        let rest = Rest { connections: 1, buffers: 70_000, descriptors: 20, beside_the_cache: 5 << 20 };
        let mut verdict = Verdict { start: rest, lives: vec![vec![rest, rest]], evictions: 1, ..Verdict::default() };
        verdict.kept = 1;
        let tally = &verdict.tally;
        for count in [
            &tally.values,
            &tally.values_tls,
            &tally.values_udp,
            &tally.values_slow,
            &tally.half_values,
            &tally.visits,
            &tally.flushes,
            &tally.limit_changes,
            &tally.warm_restarts,
            &tally.kills,
        ] {
            count.up();
        }
        verdict
    }

    #[test]
    fn a_fault_of_any_kind_is_not_ok() {
        assert!(soaked().holds(), "{}", soaked().text());
        assert!(!soaked().text().contains("NOT OK"));
        let faults: &[fn(&mut Verdict)] = &[
            |it| it.tally.wrong.up(),
            |it| it.tally.stale.up(),
            |it| it.tally.half_stored.up(),
            |it| it.tally.refused.up(),
            |it| it.tally.nonsense.up(),
            |it| it.tally.silent.up(),
            |it| it.tally.lost.up(),
            |it| it.tally.kills.down(),
            |it| it.evictions = 0,
            |it| it.lives.clear(),
            |it| it.lives[0][1].connections += 1,
            |it| it.lives[0][0].descriptors += 1,
            |it| it.lives[0][0].buffers += 1,
            |it| it.lives[0][0].beside_the_cache += BESIDE_MAX + 1,
            |it| it.lives[0][1].beside_the_cache += GROWTH_MAX + 1,
        ];
        for (number, fault) in faults.iter().enumerate() {
            let mut verdict = soaked();
            fault(&mut verdict);
            assert!(!verdict.holds() && verdict.text().contains("NOT OK"), "{number}: {}", verdict.text());
        }
        assert!(!Verdict { failure: Some("it ended".into()), ..soaked() }.holds());
        assert!(!Verdict { interrupted: true, ..soaked() }.holds());
    }
}
