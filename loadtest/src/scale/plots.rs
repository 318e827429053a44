//! Plots over the number of workers: throughput and CPU time, two for each workload.

use super::cores::Sharing;
use super::results::Cell;
use crate::pair::figure::{CPU_PER_KEY, Figure, KEYS_PER_SECOND};
use crate::pair::svg::Lines;

/// File names and contents.
pub fn all(rows: &[Vec<Cell>]) -> Vec<(String, String)> {
    rows.iter().flat_map(|row| of(row)).collect()
}

fn of(row: &[Cell]) -> [(String, String); 2] {
    let outcome = &row[0].outcome;
    let (name, about) = (&outcome.name, &outcome.about);
    [
        (
            format!("scale-{name}-keys.svg"),
            lines(row, format!("Million keys per second: {about}"), &KEYS_PER_SECOND, 1e-6),
        ),
        (format!("scale-{name}-cpu.svg"), lines(row, format!("Server CPU µs per key: {about}"), &CPU_PER_KEY, 1.0)),
    ]
}

/// The medians of both sides, times `unit`.
fn lines(row: &[Cell], title: String, figure: &Figure, unit: f64) -> String {
    let star = |cell: &Cell| if cell.sharing == Sharing::Shared { "*" } else { "" };
    let note =
        if row.iter().all(|cell| cell.sharing == Sharing::Apart) { "" } else { " (* shares cores with the client)" };
    let values = |side| row.iter().map(|cell| Some(cell.outcome.median(side, figure)? * unit)).collect();
    Lines {
        title,
        steps_title: format!("workers{note}"),
        steps: row.iter().map(|cell| format!("{}{}", cell.workers, star(cell))).collect(),
        values: [values(0), values(1)],
    }
    .svg()
}

#[cfg(test)]
mod tests {
    use super::super::stand::Measured;
    use super::super::work;
    use super::*;

    #[test]
    fn two_plots_for_each_workload() {
        let work = work::all(1000, 64).swap_remove(0);
        let mut row = vec![Cell::new(&work, 1, Sharing::Apart), Cell::new(&work, 2, Sharing::Shared)];
        for (cell, keys) in row.iter_mut().zip([1e6, 2e6]) {
            let sample = vec![(&KEYS_PER_SECOND, keys), (&CPU_PER_KEY, 0.5)];
            cell.take(0, Ok(Measured { sample, busy: Vec::new() }));
        }
        let plots = all(&[row]);
        assert_eq!(
            plots.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["scale-get-1-keys.svg", "scale-get-1-cpu.svg"]
        );
        let keys = &plots[0].1;
        for part in
            ["Million keys per second: get, one at a time</text>", ">2.0</text>", ">2*</text>", "(* shares cores"]
        {
            assert!(keys.contains(part), "{part} not in {keys}");
        }
        assert_eq!(keys.matches("<circle").count(), 2, "the baseline, with one worker and two");
    }
}
