//! An outcome as text for a terminal.

use std::fmt::Write;

use super::figure::{Outcome, SIDES};

impl Outcome {
    /// A line for each side, a line for the ratios, and one for the targets if the row has any.
    pub fn text(&self) -> String {
        let figures = self.figures();
        let mut out = format!("{}: {}\n{:<11}", self.name, self.about, "");
        for figure in &figures {
            let _ = write!(out, " {:>14}", figure.name);
        }
        for (side, name) in SIDES.iter().enumerate() {
            let _ = write!(out, "\n  {name:<9}");
            for figure in &figures {
                let _ = write!(out, " {:>14}", number(self.median(side, figure), figure.precision));
            }
        }
        let _ = write!(out, "\n  {:<9}", "ratio");
        for figure in &figures {
            let _ = write!(out, " {:>14}", number(self.ratio(figure), 2));
        }
        for (figure, bound) in &self.targets {
            let ratio = self.ratio(figure);
            let _ = write!(out, "\n  {} ratio {bound}: {} {}", figure.name, number(ratio, 3), bound.verdict(ratio));
        }
        for remark in &self.remarks {
            let _ = write!(out, "\n  {remark}");
        }
        out + "\n"
    }
}

/// A number with `precision` digits after the point, or a dash; also for the ratio of 0 to 0.
pub fn number(value: Option<f64>, precision: usize) -> String {
    value.filter(|value| !value.is_nan()).map_or("-".into(), |value| format!("{value:.precision$}"))
}

#[cfg(test)]
mod tests {
    use super::super::figure::tests::outcome;

    #[test]
    fn a_row_to_read() {
        let text = "\
get-1: get, one at a time
                    keys/s     CPU µs/key
  baseline          250000          4.000
  candidate         500000          2.000
  ratio               2.00           0.50
  CPU µs/key ratio ≤ 0.50: 0.500 held
";
        assert_eq!(outcome(Some(2.0)).text(), text);
        assert!(outcome(None).text().contains("  candidate              -              -\n"));
    }
}
