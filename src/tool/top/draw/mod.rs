//! Draws a [`Model`]: all panes at once on a large screen, the servers and one pane on a small one.
//!
//! ```text
//!  corecached top  1.6.45, up 3h, 3.0M items          every second        header
//!  Servers ──────────────────────────────────────────────────────
//!  Latency  Keys  Prefixes  Classes  Slow ─────── last 10 intervals
//!  …                                                                      the pane
//!  tab pane  ↑↓ server  / filter  s sort  p pause  q quit                 footer
//! ```

mod canvas;
mod latency;
mod list;
mod servers;

use super::model::{Mode, Model, PANES, Pane};
use crate::tool::show::{count, span};
pub(super) use canvas::Palette;
use canvas::{Canvas, Tone};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};

/// From this size on, all panes are shown at once.
const LARGE: (u16, u16) = (140, 40);
/// Below this height, only one pane is shown.
const SMALL_HEIGHT: u16 = 12;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, palette: Palette) {
    let area = frame.area();
    let mut canvas = Canvas::new(frame.buffer_mut(), area, palette);
    let is_small = area.height < SMALL_HEIGHT;
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    header(&mut canvas.part(top), model);
    footer(&mut canvas.part(bottom), model);
    if is_small {
        return pane(&mut canvas.part(middle), model, model.focus, Titles::Own);
    }
    let servers_height = (model.servers.len() as u16).saturating_add(3).min(middle.height / 3).max(4);
    let [servers, rest] = Layout::vertical([Constraint::Length(servers_height), Constraint::Fill(1)]).areas(middle);
    pane(&mut canvas.part(servers), model, Pane::Servers, Titles::Own);
    if area.width < LARGE.0 || area.height < LARGE.1 {
        return pane(&mut canvas.part(rest), model, model.detail(), Titles::AllDetails);
    }
    for (pane_of, area) in large(rest) {
        pane(&mut canvas.part(area), model, pane_of, Titles::Own);
    }
}

/// The places of the panes on a large screen.
fn large(area: Rect) -> [(Pane, Rect); 5] {
    let rows = Layout::vertical([Constraint::Fill(4), Constraint::Fill(4), Constraint::Fill(2)]).spacing(1);
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(3);
    let [first, second, third] = rows.areas(area);
    let [latency, keys] = halves.areas(first);
    let [prefixes, classes] = halves.areas(second);
    [
        (Pane::Latency, latency),
        (Pane::Keys, keys),
        (Pane::Prefixes, prefixes),
        (Pane::Classes, classes),
        (Pane::Slow, third),
    ]
}

/// The titles above a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Titles {
    Own,
    /// Those of all panes that could stand in this place.
    AllDetails,
}

fn pane(canvas: &mut Canvas<'_>, model: &Model, pane: Pane, titles: Titles) {
    let note = note(model, pane);
    let tone = |title: Pane| match title {
        _ if title == model.focus => Tone::Focus,
        _ if title == pane => Tone::Title,
        _ => Tone::Quiet,
    };
    let shown: Vec<Pane> = match titles {
        Titles::Own => vec![pane],
        Titles::AllDetails => PANES.into_iter().filter(|pane| *pane != Pane::Servers).collect(),
    };
    let mut parts = Vec::new();
    for (at, title) in shown.into_iter().enumerate() {
        if at > 0 {
            parts.push(("  ", Tone::Quiet));
        }
        parts.push((title.title(), tone(title)));
    }
    canvas.line_with_note(&parts, '─', (&note, Tone::Quiet));
    match pane {
        Pane::Servers => servers::draw(canvas, model),
        Pane::Latency => latency::draw(canvas, model.server()),
        _ => list::draw(canvas, model, pane),
    }
}

/// A few words about a pane, beside its title.
fn note(model: &Model, pane: Pane) -> String {
    let server = model.server();
    let number = |list: &str, name: &str| server.list(list).and_then(|list| list.number(name));
    match pane {
        Pane::Servers => String::new(),
        Pane::Classes => "idle: of what was evicted last".into(),
        Pane::Latency => match server.recent_latency() {
            Some(_) => format!("last {} updates", super::model::LATENCY_WINDOW),
            None => String::new(),
        },
        Pane::Keys => match number("hotkeys", "samples").zip(number("hotkeys", "window_seconds")) {
            Some((samples, seconds)) => format!("{} samples in {}", count(samples), span(seconds)),
            None => String::new(),
        },
        Pane::Prefixes => match number("prefixes", "repeated_miss_percent") {
            Some(percent) => format!("{percent:.0}% of misses repeat one"),
            None => String::new(),
        },
        Pane::Slow => match number("latency", "slow_requests") {
            Some(requests) => format!("{} since the start", count(requests)),
            None => String::new(),
        },
    }
}

fn header(canvas: &mut Canvas<'_>, model: &Model) {
    let server = model.server();
    let mut facts = Vec::new();
    if let Some(last) = &server.last {
        let stats = &last.snapshot.stats;
        if model.servers.len() > 1 {
            facts.push(server.name.clone());
        }
        facts.extend(stats.text("version").map(str::to_owned));
        facts.extend(stats.number("uptime").map(|seconds| format!("up {}", span(seconds))));
        facts.extend(stats.number("threads").map(|threads| format!("{threads:.0} threads")));
        facts.extend(stats.number("curr_items").map(|items| format!("{} items", count(items))));
    }
    let facts = facts.join(" · ");
    let note = if model.is_paused { ("paused", Tone::Warning) } else { ("", Tone::Quiet) };
    canvas.line_with_note(&[("corecached top", Tone::Title), ("  ", Tone::Text), (&facts, Tone::Quiet)], ' ', note);
}

fn footer(canvas: &mut Canvas<'_>, model: &Model) {
    if model.mode == Mode::Filtering {
        let parts = [("/", Tone::Focus), (&*model.filter, Tone::Text), ("▏", Tone::Focus)];
        return canvas.line_with_note(&parts, ' ', ("enter keep  esc drop", Tone::Quiet));
    }
    let up_down = if model.focus == Pane::Servers { "server" } else { "scroll" };
    let keys = [("tab", "pane"), ("↑↓", up_down), ("/", "filter"), ("s", "sort"), ("p", "pause"), ("q", "quit")];
    let mut parts = Vec::new();
    for (key, action) in keys {
        parts.extend([(key, Tone::Text), (" ", Tone::Quiet), (action, Tone::Quiet), ("  ", Tone::Quiet)]);
    }
    let filter = if model.filter.is_empty() { String::new() } else { format!("filter: {}", model.filter) };
    canvas.line_with_note(&parts, ' ', (&filter, Tone::Warning));
}
