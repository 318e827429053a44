//! The pane with a line for each server.

use super::canvas::{Canvas, Tone, fitted};
use crate::tool::show::{bytes, count, micros, or_nothing, percent};
use crate::tool::top::model::{Model, Server, ServerOrder};

/// Columns of the name. Servers with room beside it also have a trend.
const NAME_WIDTH: usize = 28;
const NAME_WIDTH_MIN: usize = 9;
/// Shortest trend that says anything.
const TREND_MIN: usize = 12;
const TREND_MAX: usize = 60;

/// Titles, their widths with the space before them, and the order that sorts by them. The last ones are left out first.
const COLUMNS: [(&str, usize, Option<ServerOrder>); 7] = [
    ("ops/s", 7, Some(ServerOrder::Operations)),
    ("hit%", 6, Some(ServerOrder::Hits)),
    ("p99", 7, Some(ServerOrder::Latency)),
    ("evict/s", 9, Some(ServerOrder::Evictions)),
    ("memory", 11, None),
    ("conns", 7, None),
    ("core%", 7, None),
];

pub(super) fn draw(canvas: &mut Canvas<'_>, model: &Model) {
    let mut shown = COLUMNS.len();
    let taken = |shown: usize| COLUMNS[..shown].iter().map(|(_, width, _)| width).sum::<usize>();
    while shown > 1 && 2 + NAME_WIDTH_MIN + taken(shown) > canvas.width() {
        shown -= 1;
    }
    let free = canvas.width().saturating_sub(2 + taken(shown));
    let trend = free.saturating_sub(NAME_WIDTH + 2).min(TREND_MAX);
    let (name_width, trend) = if trend >= TREND_MIN { (NAME_WIDTH, trend) } else { (free.min(NAME_WIDTH), 0) };
    let mut title = vec![("  ".to_owned(), Tone::Quiet), (fitted("server", name_width), Tone::Quiet)];
    for (name, width, order) in &COLUMNS[..shown] {
        let is_sorted = *order == Some(model.server_order());
        title.push((format!("{name:>width$}"), if is_sorted { Tone::Title } else { Tone::Quiet }));
    }
    if trend > 0 {
        title.push(("  ops/s over time".into(), Tone::Quiet));
    }
    put(canvas, &title);

    let order = model.servers_in_order();
    // Scroll just as far as the selected server needs.
    let selected = order.iter().position(|at| *at == model.selected).unwrap_or(0);
    let above = (selected + 1).saturating_sub(canvas.lines_left());
    for at in order.into_iter().skip(above).take(canvas.lines_left()) {
        let server = &model.servers[at];
        let is_selected = at == model.selected && model.servers.len() > 1;
        let name_tone = if is_selected { Tone::Focus } else { Tone::Text };
        let mut parts = vec![
            (if is_selected { "▸ " } else { "  " }.to_owned(), Tone::Focus),
            (fitted(&server.name, name_width), name_tone),
        ];
        match (&server.error, &server.last) {
            (Some(error), _) => parts.push((format!("  {error}"), Tone::Alarm)),
            (None, None) => parts.push(("  …".to_owned(), Tone::Quiet)),
            (None, Some(_)) => {
                parts.extend(figures(server).into_iter().take(shown));
                if trend > 0 {
                    parts.push((format!("  {}", sparkline(server, trend)), Tone::Quick));
                }
            }
        }
        put(canvas, &parts);
    }
}

fn put(canvas: &mut Canvas<'_>, parts: &[(String, Tone)]) {
    let parts: Vec<(&str, Tone)> = parts.iter().map(|(text, tone)| (text.as_str(), *tone)).collect();
    canvas.line(&parts);
}

/// The cells of a server, padded, in the order of [`COLUMNS`].
fn figures(server: &Server) -> Vec<(String, Tone)> {
    let Some(rates) = &server.rates else { return Vec::new() };
    let p99 = rates.percentile(0.99);
    let connections_max = server.last.as_ref().and_then(|last| last.snapshot.stats.number("max_connections"));
    let full = connections_max.map_or(0.0, |max| 100.0 * rates.connections / max);
    let cells = [
        (count(rates.operations), Tone::Text),
        (or_nothing(rates.hit_percent, percent), Tone::Text),
        (or_nothing(p99, micros), grade(p99.unwrap_or(0.0), 10_000.0, 100_000.0)),
        (count(rates.evictions), Tone::Text),
        (format!("{}/{}", bytes(rates.memory_bytes), bytes(rates.memory_limit_bytes)), Tone::Text),
        (count(rates.connections), grade(full, 80.0, 95.0)),
        (
            or_nothing(server.busiest_percent, |percent| format!("{percent:.0}")),
            grade(server.busiest_percent.unwrap_or(0.0), 85.0, 95.0),
        ),
    ];
    let padded = cells.into_iter().zip(COLUMNS);
    padded.map(|((text, tone), (_, width, _))| (format!("{text:>width$}"), tone)).collect()
}

fn grade(value: f64, warning: f64, alarm: f64) -> Tone {
    match value {
        _ if value >= alarm => Tone::Alarm,
        _ if value >= warning => Tone::Warning,
        _ => Tone::Text,
    }
}

/// The operations of the last intervals, the newest at the right edge.
fn sparkline(server: &Server, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = server.history.iter().rev().take(width).rev();
    let most = shown.clone().map(|interval| interval.operations).fold(1.0, f64::max);
    let bar = |operations: f64| BARS[((operations / most * 7.0).round() as usize).min(7)];
    let bars: String = shown.map(|interval| bar(interval.operations)).collect();
    format!("{bars:>width$}")
}
