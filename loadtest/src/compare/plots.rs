//! The plots of the main figure of each set.

use crate::pair::figure::{
    Bound, CONNECTION_KIB, CPU_PER_HANDSHAKE, CPU_PER_KEY, Figure, ITEMS_PER_MIB, KEYS_PER_SECOND, Outcome, P50, P90,
    P99, P999,
};
use crate::pair::svg::{Bars, Lines, Pair};
use crate::pair::text::number;

const CPU_TITLE: &str = "Server CPU µs per key, as a share of the baseline's";
const ITEMS_TITLE: &str = "Items per MiB of resident memory";

/// File names and contents, for the sets that have run.
pub fn all(outcomes: &[Outcome]) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    for set in outcomes.chunk_by(|one, next| one.set == next.set) {
        let name = set[0].set;
        match name {
            "latency" => {
                for outcome in set {
                    plots.push((format!("latency-{}.svg", outcome.name), percentiles(outcome)));
                }
            }
            "memory" => {
                plots.push((format!("{name}-items.svg"), bars(ITEMS_TITLE, set, &ITEMS_PER_MIB)));
                plots.push((format!("{name}-idle.svg"), bars("KiB per idle connection", set, &CONNECTION_KIB)));
            }
            "peers" => {
                plots.push((format!("{name}-cpu.svg"), bars(CPU_TITLE, set, &CPU_PER_KEY)));
                plots.push((format!("{name}-items.svg"), bars(ITEMS_TITLE, set, &ITEMS_PER_MIB)));
                let rate = set.iter().filter(|outcome| outcome.target(&P99).is_some());
                plots.extend(rate.map(|outcome| (format!("{name}-{}.svg", outcome.name), percentiles(outcome))));
            }
            "growth" => {
                for (prefix, title) in [("keys-", "keys"), ("conns-", "connections")] {
                    plots.push((format!("{name}-{title}.svg"), growth(set, prefix, title)));
                }
            }
            "tails" => {
                plots.push((format!("{name}.svg"), bars("p99.9 in µs, as a share of the baseline's", set, &P999)));
            }
            "tls" => {
                plots.push((
                    format!("{name}-handshakes.svg"),
                    bars("Server CPU µs per handshake, as a share of the baseline's", set, &CPU_PER_HANDSHAKE),
                ));
            }
            _ => {
                plots.push((format!("{name}-cpu.svg"), bars(CPU_TITLE, set, &CPU_PER_KEY)));
                plots.push((
                    format!("{name}-keys.svg"),
                    bars("Keys per second, as a multiple of the baseline's", set, &KEYS_PER_SECOND),
                ));
            }
        }
    }
    plots
}

/// A pair of bars for each row that has the figure. Lengths are relative to the baseline, because a get of 100 KiB and
/// one of 32 bytes do not fit on one axis. The texts are absolute.
fn bars(title: &str, set: &[Outcome], figure: &Figure) -> String {
    let pair = |outcome: &Outcome| {
        let baseline = outcome.median(0, figure)?;
        let bar = |side| {
            let value = outcome.median(side, figure)?;
            Some((value / baseline, number(Some(value), figure.precision)))
        };
        let mark = outcome.target(figure).map(|(Bound::AtMost(bound) | Bound::AtLeast(bound))| bound);
        Some(Pair { label: outcome.name.clone(), bars: [bar(0), bar(1)], mark })
    };
    Bars { title: title.into(), pairs: set.iter().filter_map(pair).collect() }.svg()
}

fn percentiles(outcome: &Outcome) -> String {
    const STEPS: [(&str, &Figure); 4] = [("p50", &P50), ("p90", &P90), ("p99", &P99), ("p99.9", &P999)];
    let values = |side| STEPS.iter().map(|(_, figure)| outcome.median(side, figure)).collect();
    Lines {
        title: format!("Latency, µs: {}", outcome.about.split(';').next().unwrap_or_default()),
        steps_title: "percentile".into(),
        steps: STEPS.iter().map(|(name, _)| (*name).to_owned()).collect(),
        values: [values(0), values(1)],
    }
    .svg()
}

/// CPU time per key, over the rows whose names are `prefix` and their size.
fn growth(set: &[Outcome], prefix: &str, title: &str) -> String {
    let rows: Vec<(&str, &Outcome)> =
        set.iter().filter_map(|outcome| Some((outcome.name.strip_prefix(prefix)?, outcome))).collect();
    let values = |side| rows.iter().map(|(_, outcome)| outcome.median(side, &CPU_PER_KEY)).collect();
    Lines {
        title: format!("Server CPU µs per key over the number of {title}"),
        steps_title: title.into(),
        steps: rows.iter().map(|(size, _)| (*size).to_owned()).collect(),
        values: [values(0), values(1)],
    }
    .svg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::figure::tests::outcome;

    #[test]
    fn every_set_has_its_plots() {
        let names = |set: &'static str, name: &str| -> Vec<String> {
            let outcomes = [Outcome { set, name: name.into(), ..outcome(Some(1.0)) }];
            all(&outcomes).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names("throughput", "get-1"), ["throughput-cpu.svg", "throughput-keys.svg"]);
        assert_eq!(names("latency", "alone"), ["latency-alone.svg"]);
        assert_eq!(names("peers", "get-1"), ["peers-cpu.svg", "peers-items.svg"]);
        assert_eq!(names("growth", "keys-10k"), ["growth-keys.svg", "growth-connections.svg"]);
        assert_eq!(names("tails", "all-9to1-70"), ["tails.svg"]);
        let svg = &all(&[outcome(Some(1.0))])[0].1;
        assert!(
            svg.contains("4.000</text>") && svg.contains("1.000</text>") && svg.contains("class=\"mark\" x1=\"410.0\"")
        );
    }
}
