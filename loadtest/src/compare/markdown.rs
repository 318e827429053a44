//! All outcomes as a page of tables: for each set first the main figures, and then all of them.

use std::fmt::Write;

use super::Results;
use crate::pair::figure::Outcome;
use crate::pair::text::number;

pub fn page(results: &Results<'_>) -> String {
    let (comparison, machine) = (results.comparison, &results.machine);
    let method = format!("medians of {} rounds of {} s, alternating", comparison.rounds, comparison.time.as_secs_f64());
    let mut out = format!("# Comparison\n\n{}", machine.table(&comparison.programs, &method));
    out += "\nRatio is candidate to baseline. Rows set `-t`, `-m` and `-c` on both servers where they say so.\n";
    for set in results.outcomes.chunk_by(|one, next| one.set == next.set) {
        let _ = write!(out, "\n## {}\n\n{}", title(set[0].set), leads(set));
        for group in set.chunk_by(|one, next| names(one) == names(next)) {
            out += &everything(group);
        }
        let remarks = set.iter().flat_map(|outcome| outcome.remarks.iter().map(move |remark| (&outcome.name, remark)));
        let lines: String =
            remarks.map(|(name, remark)| format!("- {name}: {}\n", remark.replace('\n', " "))).collect();
        if !lines.is_empty() {
            let _ = write!(out, "\n{lines}");
        }
    }
    out
}

fn title(set: &str) -> String {
    let (first, rest) = set.split_at(1);
    first.to_uppercase() + rest
}

fn names(outcome: &Outcome) -> Vec<&'static str> {
    outcome.figures().iter().map(|figure| figure.name).collect()
}

/// The main figures of each row, with their targets.
fn leads(set: &[Outcome]) -> String {
    let mut out =
        "| row | work | figure | baseline | candidate | ratio | target | |\n|---|---|---|--:|--:|--:|--:|---|\n"
            .to_owned();
    for outcome in set {
        for figure in outcome.leads() {
            let side = |side| number(outcome.median(side, figure), figure.precision);
            let (ratio, bound) = (outcome.ratio(figure), outcome.target(figure));
            let verdict = bound.map_or("", |bound| bound.verdict(ratio));
            let bound = bound.map(|bound| bound.to_string()).unwrap_or_default();
            let (name, about) = (&outcome.name, &outcome.about);
            let (baseline, candidate, ratio) = (side(0), side(1), number(ratio, 2));
            let figure = figure.name;
            let _ = writeln!(
                out,
                "| {name} | {about} | {figure} | {baseline} | {candidate} | {ratio} | {bound} | {verdict} |"
            );
        }
    }
    out
}

/// All figures of rows that have the same ones: `baseline → candidate (ratio)`.
fn everything(group: &[Outcome]) -> String {
    let figures = group[0].figures();
    if figures.len() < 2 {
        return String::new();
    }
    let mut out = "\n| row |".to_owned();
    for figure in &figures {
        let _ = write!(out, " {} |", figure.name);
    }
    let _ = writeln!(out, "\n|---|{}", "--:|".repeat(figures.len()));
    for outcome in group {
        let _ = write!(out, "| {} |", outcome.name);
        for figure in &figures {
            let side = |side| number(outcome.median(side, figure), figure.precision);
            let _ = write!(out, " {} → {} ({}) |", side(0), side(1), number(outcome.ratio(figure), 2));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::figure::tests::outcome;

    #[test]
    fn targets_first_and_then_everything() {
        let set = [outcome(Some(2.0)), outcome(Some(3.0)), outcome(None)];
        assert_eq!(
            leads(&set),
            "\
| row | work | figure | baseline | candidate | ratio | target | |
|---|---|---|--:|--:|--:|--:|---|
| get-1 | get, one at a time | CPU µs/key | 4.000 | 2.000 | 0.50 | ≤ 0.50 | held |
| get-1 | get, one at a time | CPU µs/key | 4.000 | 3.000 | 0.75 | ≤ 0.50 | MISSED |
| get-1 | get, one at a time | CPU µs/key | 4.000 | - | - | ≤ 0.50 |  |
"
        );
        assert_eq!(
            everything(&set[..1]),
            "
| row | keys/s | CPU µs/key |
|---|--:|--:|
| get-1 | 250000 → 500000 (2.00) | 4.000 → 2.000 (0.50) |
"
        );
    }
}
