//! The panes with a list: hot keys, prefixes, classes, slow requests.

use super::canvas::{Canvas, Tone, fitted};
use crate::tool::columns::Column;
use crate::tool::reply::Row;
use crate::tool::top::model::{Model, Pane};

/// Least room for the words of a row: a key, a prefix, a command.
const TEXT_WIDTH_MIN: usize = 12;
/// Least width of a column of numbers, so that columns do not move when numbers grow.
const NUMBER_WIDTH_MIN: usize = 5;
const GAP: usize = 1;
/// Idle time of evicted items below which memory is short.
const IDLE_SHORT_SECONDS: f64 = 3600.0;

pub(super) fn draw(canvas: &mut Canvas<'_>, model: &Model, pane: Pane) {
    let rows = match model.rows(pane) {
        Ok(rows) => rows,
        Err(why) => return canvas.paragraph(why, Tone::Quiet),
    };
    let columns = fitting(pane.columns(), canvas.width());
    let sorted = pane.columns().get(model.sorted_column(pane)).map(|column| column.field);
    let titles: Vec<(String, Tone)> = columns
        .iter()
        .map(|(column, width)| {
            let is_sorted = sorted == Some(column.field);
            let tone = if is_sorted && pane == model.focus { Tone::Focus } else { Tone::Quiet };
            let mark = if is_sorted { "▾" } else { "" };
            (cell(column, &format!("{mark}{}", column.title), *width), tone)
        })
        .collect();
    put(canvas, &titles);
    if rows.is_empty() {
        let why = match pane {
            _ if !model.filter.is_empty() => "nothing that the filter lets through",
            Pane::Keys => "no key stands out",
            Pane::Slow => "no slow request yet",
            _ => "nothing yet",
        };
        return canvas.line(&[(why, Tone::Quiet)]);
    }
    for row in rows.iter().skip(model.scrolled(pane)).take(canvas.lines_left()) {
        let cells: Vec<(String, Tone)> = columns
            .iter()
            .map(|(column, width)| (cell(column, &column.show(row), *width), tone(column, row)))
            .collect();
        put(canvas, &cells);
    }
}

fn put(canvas: &mut Canvas<'_>, cells: &[(String, Tone)]) {
    let parts: Vec<(&str, Tone)> = cells.iter().map(|(text, tone)| (text.as_str(), *tone)).collect();
    canvas.line(&parts);
}

/// Numbers end at the right edge of their column, and words begin at the left edge of theirs.
fn cell(column: &Column, text: &str, width: usize) -> String {
    match column.is_text() {
        true => format!(" {}", fitted(text, width.saturating_sub(1))),
        false => format!("{text:>width$}{}", " ".repeat(GAP)),
    }
}

/// The columns that fit, with their widths. If there are too many, the last ones of numbers are left out.
fn fitting(columns: &'static [Column], width: usize) -> Vec<(&'static Column, usize)> {
    let number_width = |column: &Column| (column.title.chars().count() + 1).max(NUMBER_WIDTH_MIN);
    let (words, numbers): (Vec<_>, Vec<_>) = columns.iter().partition(|column| column.is_text());
    let mut free = if words.is_empty() { width } else { width.saturating_sub(TEXT_WIDTH_MIN) };
    let mut fitting = Vec::new();
    for column in numbers {
        let taken = number_width(column) + GAP;
        if taken > free {
            break;
        }
        free -= taken;
        fitting.push((column, number_width(column)));
    }
    let used: usize = fitting.iter().map(|(_, width)| width + GAP).sum();
    fitting.extend(words.into_iter().map(|column| (column, width.saturating_sub(used))));
    fitting
}

/// A value that a person should see.
fn tone(column: &Column, row: &Row) -> Tone {
    let number = |field| row.number(field).unwrap_or(0.0);
    match column.field {
        "share_percent" if number("share_percent") >= 20.0 => Tone::Alarm,
        "share_percent" if number("share_percent") >= 10.0 => Tone::Warning,
        "evictions_per_second" | "evicted_time"
            if number("evictions_per_second") > 0.0 && number("evicted_time") < IDLE_SHORT_SECONDS =>
        {
            Tone::Warning
        }
        _ => Tone::Text,
    }
}
