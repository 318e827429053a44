//! The pane with percentiles by kind, and the spectrum: a column for each interval, a row for each power of two of time.

use super::canvas::{Canvas, Tone};
use crate::tool::histogram::{BUCKETS, Histogram, lower_bound};
use crate::tool::show::{self, count, micros, or_nothing};
use crate::tool::top::model::Server;
use std::ops::RangeInclusive;

/// Fewest lines in which a spectrum says anything.
const SPECTRUM_LINES_MIN: usize = 4;
/// Fewest lines in which kinds without requests are listed too.
const IDLE_KINDS_LINES_MIN: usize = 24;
/// Most buckets that share a row. Beyond that, the spectrum would lose its shape.
const BUCKETS_PER_ROW_MAX: usize = 2;
const LABEL_WIDTH: usize = 7;
/// Widths of the columns of the table: kind, requests, percentiles, largest.
const WIDTHS: [usize; 7] = [11, 9, 8, 8, 8, 8, 10];
const TITLES: [&str; 7] = ["kind", "requests", "p50", "p90", "p99", "p99.9", "max ever"];
/// Shades by the share of an interval's requests, and the least share of each.
const SHADES: [(char, f64); 5] = [('█', 0.3), ('▓', 0.1), ('▒', 0.02), ('░', 0.002), ('·', 0.0)];

pub(super) fn draw(canvas: &mut Canvas<'_>, server: &Server) {
    let Some(recent) = server.recent_latency() else {
        let text = match server.last {
            Some(_) => "only corecached tells: this server records no latencies",
            None => "waiting for the server",
        };
        return canvas.paragraph(text, Tone::Quiet);
    };
    row(canvas, TITLES.map(str::to_owned), Tone::Quiet);
    let largest = |kind: &str| server.list("latency").and_then(|list| list.number(&format!("{kind}_max_us")));
    let is_low = canvas.lines_left() < IDLE_KINDS_LINES_MIN;
    for (kind, histogram) in recent.kinds() {
        let requests = histogram.count();
        if requests == 0 && is_low {
            continue;
        }
        let [p50, p90, p99, p999] =
            [0.5, 0.9, 0.99, 0.999].map(|share| or_nothing(histogram.percentile(share), micros));
        let max = show::or_nothing(largest(kind), micros);
        let cells = [kind.replace('_', " "), count(requests as f64), p50, p90, p99, p999, max];
        row(canvas, cells, if requests == 0 { Tone::Quiet } else { Tone::Text });
    }
    if canvas.lines_left() > SPECTRUM_LINES_MIN {
        canvas.line(&[]);
        spectrum(canvas, server);
    }
}

/// A row of the table, without the columns that do not fit.
fn row(canvas: &mut Canvas<'_>, cells: [String; 7], tone: Tone) {
    let mut text = String::new();
    for (at, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        if text.chars().count() + width > canvas.width() {
            break;
        }
        text.push_str(&if at == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") });
    }
    canvas.line(&[(&text, tone)]);
}

fn spectrum(canvas: &mut Canvas<'_>, server: &Server) {
    let width = canvas.width().saturating_sub(LABEL_WIDTH + 2);
    let mut columns: Vec<Histogram> = server.history.iter().rev().filter_map(|one| one.requests).take(width).collect();
    columns.reverse();
    let is_used = |bucket: &usize| columns.iter().any(|column| column.buckets()[*bucket] > 0);
    let used: Vec<usize> = (0..BUCKETS).filter(is_used).collect();
    let (Some(least), Some(most)) = (used.first().copied(), used.last().copied()) else {
        return canvas.line(&[("no requests yet", Tone::Quiet)]);
    };
    // One line explains the shades. If the rest is too low, rows take two buckets, and the top row all slower requests.
    let rows = canvas.lines_left().saturating_sub(1).max(1);
    let per_row = (most + 1 - least).div_ceil(rows).clamp(1, BUCKETS_PER_ROW_MAX);
    let rows = (most + 1 - least).div_ceil(per_row).min(rows);
    for row in (0..rows).rev() {
        let first = least + row * per_row;
        let is_top = row + 1 == rows && most >= first + per_row;
        let last = if is_top { most } else { (first + per_row - 1).min(most) };
        let label = match last {
            _ if is_top || last + 1 == BUCKETS => format!(">{}", micros(lower_bound(first))),
            _ => format!("≤{}", micros(lower_bound(last + 1))),
        };
        let shades: String = columns.iter().map(|column| shade(column, first..=last)).collect();
        let label = format!("{label:>LABEL_WIDTH$} ");
        let shades = format!("{shades:>width$}");
        canvas.line(&[(&label, Tone::Quiet), (&shades, heat(first))]);
    }
    let explained: Vec<String> =
        SHADES.iter().rev().map(|(shade, share)| format!("{shade} {}%", (share * 1000.0).round() / 10.0)).collect();
    let explained = explained.join("  ").replace(" 0%", " less");
    let indent = " ".repeat(LABEL_WIDTH + 1);
    canvas.line(&[
        (&indent, Tone::Quiet),
        ("requests of an update, at least:  ", Tone::Quiet),
        (&explained, Tone::Quiet),
    ]);
}

fn shade(column: &Histogram, buckets: RangeInclusive<usize>) -> char {
    let requests: u64 = column.buckets()[buckets].iter().sum();
    if requests == 0 {
        return ' ';
    }
    let share = requests as f64 / column.count() as f64;
    SHADES.iter().find(|(_, least)| share >= *least).map_or(' ', |(shade, _)| *shade)
}

/// Up to a millisecond a cache is quick; from about ten on, its clients notice.
fn heat(bucket: usize) -> Tone {
    match bucket {
        ..=10 => Tone::Quick,
        11..=13 => Tone::Medium,
        _ => Tone::Slow,
    }
}
