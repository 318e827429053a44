//! Hand-written SVG plots: pairs of bars, and lines over steps. Text stays text, and colours follow the reader's
//! preference for light or dark.
//!
//! ```text
//! title                          title
//! ■ baseline ■ candidate         ■ baseline ■ candidate
//! label ▇▇▇▇▇▇▇▇▇▇ 1.20          y │    ╱
//!       ▇▇ 0.18                    │ ──╱
//! label ▇▇▇▇▇▇▇▇▇▇ 7.90            └───────
//!       ▇▇▇▇▇▇ 4.70                 x  x  x
//! ```

use std::fmt::Write;

use super::figure::SIDES;

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 20.0;
/// Lower end of title and legend.
const TOP: f64 = 72.0;

/// Styles of the page, the text, the grid, and the two sides.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}.small{font-size:12px}\
.page{fill:#fff}.grid{stroke:#d0d7de}.mark{stroke:#24292f;stroke-width:2}.end{text-anchor:end}.middle{text-anchor:middle}\
.f0{fill:#8c959f}.f1{fill:#0969da}.s0{stroke:#8c959f}.s1{stroke:#0969da}.line{fill:none;stroke-width:2.5}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.grid{stroke:#30363d}.mark{stroke:#e6edf3}\
.f0{fill:#848d97}.f1{fill:#58a6ff}.s0{stroke:#848d97}.s1{stroke:#58a6ff}}";

/// Pairs of horizontal bars, one pair per row.
pub struct Bars {
    pub title: String,
    pub pairs: Vec<Pair>,
}

pub struct Pair {
    pub label: String,
    /// Length, and the text at its end; `None` draws nothing.
    pub bars: [Option<(f64, String)>; 2],
    /// Target length of the second bar.
    pub mark: Option<f64>,
}

/// A line per side over the same steps.
pub struct Lines {
    pub title: String,
    /// The title of the horizontal axis.
    pub steps_title: String,
    pub steps: Vec<String>,
    pub values: [Vec<Option<f64>>; 2],
}

impl Bars {
    pub fn svg(&self) -> String {
        const LABEL: f64 = 150.0;
        const VALUE: f64 = 90.0;
        const BAR: f64 = 14.0;
        const PAIR: f64 = 2.0 * BAR + 14.0;
        let lengths = |pair: &Pair| pair.bars.iter().flatten().map(|(length, _)| *length).fold(0.0, f64::max);
        let longest = self.pairs.iter().map(lengths).fold(0.0, f64::max);
        let left = MARGIN + LABEL;
        let scale = (WIDTH - left - VALUE - MARGIN) / if longest > 0.0 { longest } else { 1.0 };
        let mut out = open(&self.title, TOP + PAIR * self.pairs.len() as f64 + MARGIN / 2.0);
        if self.pairs.iter().any(|pair| pair.mark.is_some()) {
            line(&mut out, "mark", (MARGIN + 206.0, 41.0), (MARGIN + 206.0, 55.0));
            text(&mut out, MARGIN + 216.0, 53.0, "small", "where the candidate should be");
        }
        for (row, pair) in self.pairs.iter().enumerate() {
            let top = TOP + PAIR * row as f64;
            text(&mut out, left - 10.0, top + BAR + 4.0, "end", &pair.label);
            for (side, bar) in pair.bars.iter().enumerate() {
                let Some((length, value)) = bar else { continue };
                let (y, width) = (top + BAR * side as f64, length * scale);
                let _ = writeln!(
                    out,
                    r#"<rect class="f{side}" x="{left}" y="{y}" width="{width:.1}" height="{}"/>"#,
                    BAR - 2.0
                );
                text(&mut out, left + width + 6.0, y + BAR - 3.0, "small", value);
            }
            if let Some(mark) = pair.mark {
                line(&mut out, "mark", (left + mark * scale, top + BAR - 2.0), (left + mark * scale, top + 2.0 * BAR));
            }
        }
        line(&mut out, "grid", (left, TOP - 6.0), (left, TOP + PAIR * self.pairs.len() as f64 - 8.0));
        out + "</svg>\n"
    }
}

impl Lines {
    pub fn svg(&self) -> String {
        const LEFT: f64 = MARGIN + 50.0;
        const BOTTOM: f64 = 360.0;
        let highest = self.values.iter().flatten().flatten().copied().fold(0.0, f64::max);
        let (step, count) = ticks(highest);
        let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / (step * f64::from(count));
        let gap = (WIDTH - LEFT - 2.0 * MARGIN) / self.steps.len().max(1) as f64;
        let x = |index: usize| LEFT + gap * (index as f64 + 0.5);
        let mut out = open(&self.title, BOTTOM + 60.0);
        for tick in 0..=count {
            let value = step * f64::from(tick);
            line(&mut out, "grid", (LEFT, y(value)), (WIDTH - MARGIN, y(value)));
            let precision = (-step.log10().floor()).max(0.0) as usize;
            text(&mut out, LEFT - 8.0, y(value) + 4.0, "small end", &format!("{value:.precision$}"));
        }
        for (index, name) in self.steps.iter().enumerate() {
            text(&mut out, x(index), BOTTOM + 20.0, "middle", name);
        }
        text(&mut out, LEFT + (WIDTH - LEFT - MARGIN) / 2.0, BOTTOM + 44.0, "small middle", &self.steps_title);
        for (side, values) in self.values.iter().enumerate() {
            let points: Vec<(f64, f64)> =
                values.iter().enumerate().filter_map(|(index, value)| Some((x(index), y((*value)?)))).collect();
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(out, r#"<polyline class="line s{side}" points="{}"/>"#, path.join(" "));
            for (x, y) in points {
                let _ = writeln!(out, r#"<circle class="f{side}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#);
            }
        }
        out + "</svg>\n"
    }
}

/// A step of 1, 2 or 5 times a power of ten, and the number of steps up to `highest`: three to six.
fn ticks(highest: f64) -> (f64, u32) {
    if highest <= 0.0 || !highest.is_finite() {
        return (1.0, 1);
    }
    let power = 10_f64.powf((highest / 3.0).log10().floor());
    let step =
        [5.0, 2.0, 1.0].map(|digit| digit * power).into_iter().find(|step| highest / step >= 3.0).unwrap_or(power);
    (step, (highest / step).ceil() as u32)
}

/// Begins a plot: page, title and legend.
fn open(title: &str, height: f64) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n"
    );
    text(&mut out, MARGIN, 30.0, "title", title);
    for (side, name) in SIDES.iter().enumerate() {
        let x = MARGIN + 100.0 * side as f64;
        let _ = writeln!(out, r#"<rect class="f{side}" x="{x}" y="42" width="12" height="12"/>"#);
        text(&mut out, x + 18.0, 53.0, "small", name);
    }
    out
}

fn text(out: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#);
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(out, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bar = |length: f64| Some((length, format!("{length} µs")));
        let pairs = vec![
            Pair { label: "a<b".into(), bars: [bar(1.0), bar(0.25)], mark: Some(0.5) },
            Pair { label: "refused".into(), bars: [bar(1.0), None], mark: None },
        ];
        let svg = Bars { title: "T & U".into(), pairs }.svg();
        for part in [
            r#"<rect class="f0" x="170" y="72" width="480.0" height="12"/>"#,
            r#"<rect class="f1" x="170" y="86" width="120.0" height="12"/>"#,
            r#"<line class="mark" x1="410.0" y1="84.0" x2="410.0" y2="100.0"/>"#,
            "a&lt;b</text>",
            "T &amp; U</text>",
            "0.25 µs</text>",
        ] {
            assert!(svg.contains(part), "{part} not in {svg}");
        }
        assert_eq!(svg.matches(r#"<rect class="f1""#).count(), 2, "the legend and one bar");
    }

    #[test]
    fn lines_leave_out_what_was_not_measured() {
        let steps = ["1", "2", "3"].map(str::to_owned).to_vec();
        let values = [vec![Some(1.0), Some(2.0), Some(6.0)], vec![Some(1.0), None, Some(3.0)]];
        let svg = Lines { title: "T".into(), steps_title: "keys".into(), steps, values }.svg();
        assert_eq!(svg.matches("<circle").count(), 5);
        assert!(svg.contains(r#"cy="72.0""#), "the highest value reaches the top: {svg}");
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (highest, expected) in
            [(0.0, (1.0, 1)), (1.0, (0.2, 5)), (6.0, (2.0, 3)), (0.9, (0.2, 5)), (2900.0, (500.0, 6))]
        {
            let (step, count) = ticks(highest);
            assert!((step - expected.0).abs() < 1e-9 && count == expected.1, "{highest}: {step} {count}");
        }
    }
}
