//! What `top` knows and shows: the history of each server, and the choices of the person in front of it. It draws
//! nothing and asks nobody.

use super::poll::{News, Sighting};
use crate::tool::columns::{CLASSES, Column, HOT_KEYS, PREFIXES, SLOW};
use crate::tool::figures::Rates;
use crate::tool::histogram::{Histogram, Latency};
use crate::tool::prefixes;
use crate::tool::reply::{Row, Stats, readable};
use std::collections::VecDeque;

/// Intervals that the spectrum and the trends can show.
const HISTORY: usize = 300;
/// Intervals whose latencies the table puts together.
pub(super) const LATENCY_WINDOW: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pane {
    Servers,
    Latency,
    Keys,
    Prefixes,
    Classes,
    Slow,
}

pub(super) const PANES: [Pane; 6] =
    [Pane::Servers, Pane::Latency, Pane::Keys, Pane::Prefixes, Pane::Classes, Pane::Slow];

impl Pane {
    pub(super) fn title(self) -> &'static str {
        match self {
            Pane::Servers => "Servers",
            Pane::Latency => "Latency",
            Pane::Keys => "Keys",
            Pane::Prefixes => "Prefixes",
            Pane::Classes => "Classes",
            Pane::Slow => "Slow",
        }
    }

    /// The columns of a pane with a list.
    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Pane::Servers | Pane::Latency => &[],
            Pane::Keys => HOT_KEYS,
            Pane::Prefixes => PREFIXES,
            Pane::Classes => CLASSES,
            Pane::Slow => SLOW,
        }
    }

    /// Number of orders that `s` goes through.
    fn orders(self) -> usize {
        match self {
            Pane::Servers => ServerOrder::ALL.len(),
            Pane::Latency => 1,
            _ => self.columns().len(),
        }
    }

    fn index(self) -> usize {
        PANES.iter().position(|pane| *pane == self).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerOrder {
    AsGiven,
    Hits,
    Operations,
    Latency,
    Evictions,
}

impl ServerOrder {
    const ALL: [ServerOrder; 5] = [
        ServerOrder::AsGiven,
        ServerOrder::Hits,
        ServerOrder::Operations,
        ServerOrder::Latency,
        ServerOrder::Evictions,
    ];
}

/// One interval of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) operations: f64,
    pub(super) requests: Option<Histogram>,
}

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) name: String,
    /// Why the last question had no answer.
    pub(super) error: Option<String>,
    pub(super) last: Option<Sighting>,
    pub(super) rates: Option<Rates>,
    pub(super) busiest_percent: Option<f64>,
    pub(super) history: VecDeque<Interval>,
    recent: VecDeque<Latency>,
    classes: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Looking,
    /// Keys add to the filter.
    Filtering,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) servers: Vec<Server>,
    pub(super) selected: usize,
    pub(super) focus: Pane,
    /// The pane below the servers, if the person has chosen one.
    chosen: Option<Pane>,
    pub(super) mode: Mode,
    pub(super) filter: String,
    pub(super) is_paused: bool,
    orders: [usize; PANES.len()],
    scrolled: [usize; PANES.len()],
}

/// What the person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    NextPane,
    LastPane,
    Pane(usize),
    Up,
    Down,
    Sort,
    Pause,
    Filter,
    Type(char),
    Erase,
    Accept,
    Clear,
}

impl Server {
    fn new(name: String) -> Server {
        Server {
            name,
            error: None,
            last: None,
            rates: None,
            busiest_percent: None,
            history: VecDeque::new(),
            recent: VecDeque::new(),
            classes: Vec::new(),
        }
    }

    fn take(&mut self, sighting: Result<Sighting, String>) {
        let sighting = match sighting {
            Ok(sighting) => sighting,
            Err(error) => {
                // Nothing is known of the time without answers, so no rate may span it.
                (self.error, self.last, self.rates, self.busiest_percent) = (Some(error), None, None, None);
                return;
            }
        };
        self.error = None;
        if let Some(last) = &self.last {
            let rates = Rates::between(&last.snapshot, &sighting.snapshot);
            let requests = rates.latency.as_ref().map(Latency::requests);
            push(&mut self.history, HISTORY, Interval { operations: rates.operations, requests });
            if let Some(latency) = &rates.latency {
                push(&mut self.recent, LATENCY_WINDOW, latency.clone());
            }
            self.busiest_percent =
                sighting.cores.as_ref().zip(last.cores.as_ref()).map(|(now, before)| now.busiest_percent(before));
            let seconds = sighting.snapshot.at.saturating_duration_since(last.snapshot.at).as_secs_f64().max(1e-6);
            self.classes = classes(last, &sighting, seconds);
            self.rates = Some(rates);
        }
        self.last = Some(sighting);
    }

    /// The latencies of the last intervals together, or `None` if the server has none.
    pub(super) fn recent_latency(&self) -> Option<Latency> {
        self.last.as_ref()?.snapshot.latency.as_ref()?;
        let mut all = Latency::default();
        self.recent.iter().for_each(|latency| all.add(latency));
        Some(all)
    }

    pub(super) fn list(&self, name: &str) -> Option<&Stats> {
        self.last.as_ref()?.lists.get(name)
    }

    /// The rows of a pane, or why there are none.
    fn rows(&self, pane: Pane) -> Result<Vec<Row>, &'static str> {
        if self.last.is_none() {
            return Err("waiting for the server");
        }
        let plain = |list: &Stats| list.rows("").into_iter().map(|(_, row)| row).collect::<Vec<_>>();
        let samples = |name, rows: &dyn Fn(&Stats) -> Vec<Row>| match self.list(name) {
            None => Err("only corecached tells: this server keeps no samples of its keys"),
            Some(list) if list.number("sample_mean") == Some(0.0) => Err("the server samples nothing (--sample 0)"),
            Some(list) => Ok(rows(list)),
        };
        match pane {
            Pane::Servers | Pane::Latency => Ok(Vec::new()),
            Pane::Keys => samples("hotkeys", &plain),
            Pane::Prefixes => samples("prefixes", &prefixes::rows),
            Pane::Classes => Ok(self.classes.clone()),
            Pane::Slow => {
                let list = self.list("slow").ok_or("only corecached tells: this server keeps no slow requests")?;
                let now = self.last.as_ref().and_then(|last| last.snapshot.stats.number("time"));
                let mut rows = plain(list);
                for row in &mut rows {
                    let words = ["command", "key"].map(|field| row.text(field).unwrap_or_default());
                    let words = words.join(" ");
                    if !words.trim().is_empty() {
                        row.insert("command", words.trim());
                    }
                    if let Some((now, time)) = now.zip(row.number("time")) {
                        row.set("age_seconds", (now - time).max(0.0).round());
                    }
                }
                Ok(rows)
            }
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, most: usize, value: T) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// A row for each slab class, from `stats items` and `stats slabs` of two moments.
fn classes(before: &Sighting, now: &Sighting, seconds: f64) -> Vec<Row> {
    let rows = |sighting: &Sighting, name, prefix| sighting.lists.get(name).map(|list: &Stats| list.rows(prefix));
    let find =
        |rows: &[(u64, Row)], class| rows.iter().find(|(number, _)| *number == class).map(|(_, row)| row.clone());
    let [items, slabs] = [("items", "items:"), ("slabs", "")].map(|(name, prefix)| {
        (rows(before, name, prefix).unwrap_or_default(), rows(now, name, prefix).unwrap_or_default())
    });
    let mut classes = Vec::new();
    for (class, slab) in &slabs.1 {
        let mut row = find(&items.1, *class).unwrap_or_default();
        let rate = |rows: &[(u64, Row)], now: &Row, field: &str| {
            let before = find(rows, *class).and_then(|row| row.number(field)).unwrap_or(0.0);
            (now.number(field).unwrap_or(0.0) - before).max(0.0) / seconds
        };
        let evictions = rate(&items.0, &row, "evicted");
        row.set("class", *class as f64);
        row.set("evictions_per_second", evictions);
        row.set("hits_per_second", rate(&slabs.0, slab, "get_hits"));
        row.set("sets_per_second", rate(&slabs.0, slab, "cmd_set"));
        for field in ["chunk_size", "total_pages"] {
            row.set(field, slab.number(field).unwrap_or(0.0));
        }
        let [chunks, used] = ["total_chunks", "used_chunks"].map(|field| slab.number(field).unwrap_or(0.0));
        row.set("bytes", chunks * slab.number("chunk_size").unwrap_or(0.0));
        if chunks > 0.0 {
            row.set("used_percent", 100.0 * used / chunks);
        }
        classes.push(row);
    }
    classes
}

impl Model {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Model {
        Model {
            servers: names.into_iter().map(Server::new).collect(),
            selected: 0,
            focus: Pane::Servers,
            chosen: None,
            mode: Mode::Looking,
            filter: String::new(),
            is_paused: false,
            orders: [0; PANES.len()],
            scrolled: [0; PANES.len()],
        }
    }

    pub(super) fn take(&mut self, (server, sighting): News) {
        if !self.is_paused {
            self.servers[server].take(sighting);
        }
    }

    pub(super) fn fulfil(&mut self, wish: Wish) {
        match wish {
            Wish::NextPane => self.look_at(PANES[(self.focus.index() + 1) % PANES.len()]),
            Wish::LastPane => self.look_at(PANES[(self.focus.index() + PANES.len() - 1) % PANES.len()]),
            Wish::Pane(number) => {
                if let Some(pane) = PANES.get(number) {
                    self.look_at(*pane);
                }
            }
            Wish::Up => self.step(-1),
            Wish::Down => self.step(1),
            Wish::Sort => {
                let order = &mut self.orders[self.focus.index()];
                *order = (*order + 1) % self.focus.orders();
            }
            Wish::Pause => self.is_paused = !self.is_paused,
            Wish::Filter => self.mode = Mode::Filtering,
            Wish::Type(letter) => self.filter.push(letter),
            Wish::Erase => _ = self.filter.pop(),
            Wish::Accept => self.mode = Mode::Looking,
            Wish::Clear => {
                self.filter.clear();
                self.mode = Mode::Looking;
            }
        }
    }

    fn look_at(&mut self, pane: Pane) {
        self.focus = pane;
        if pane != Pane::Servers {
            self.chosen = Some(pane);
        }
    }

    /// The pane below the servers, where there is room for one: at first one in which the server has something to show.
    pub(super) fn detail(&self) -> Pane {
        let has_latency = self.server().last.as_ref().is_none_or(|last| last.snapshot.latency.is_some());
        self.chosen.unwrap_or(if has_latency { Pane::Latency } else { Pane::Classes })
    }

    /// Goes up or down: to another server, or through the rows of a list.
    fn step(&mut self, by: isize) {
        if self.focus == Pane::Servers {
            let order = self.servers_in_order();
            let place = order.iter().position(|server| *server == self.selected).unwrap_or(0);
            self.selected = order[place.saturating_add_signed(by).min(order.len() - 1)];
        } else {
            let most = self.rows(self.focus).map_or(0, |rows| rows.len().saturating_sub(1));
            let scrolled = &mut self.scrolled[self.focus.index()];
            *scrolled = scrolled.saturating_add_signed(by).min(most);
        }
    }

    pub(super) fn server(&self) -> &Server {
        &self.servers[self.selected]
    }

    pub(super) fn server_order(&self) -> ServerOrder {
        ServerOrder::ALL[self.orders[Pane::Servers.index()]]
    }

    /// The places of the servers, in the order in which they are shown.
    pub(super) fn servers_in_order(&self) -> Vec<usize> {
        let figure = |server: &Server| {
            let rates = server.rates.as_ref()?;
            match self.server_order() {
                ServerOrder::AsGiven => None,
                // The lowest hit rate is the one to look at.
                ServerOrder::Hits => rates.hit_percent.map(|percent| -percent),
                ServerOrder::Operations => Some(rates.operations),
                ServerOrder::Latency => rates.percentile(0.99),
                ServerOrder::Evictions => Some(rates.evictions),
            }
        };
        let mut order: Vec<usize> = (0..self.servers.len()).collect();
        let figure = |at: &usize| figure(&self.servers[*at]).unwrap_or(f64::NEG_INFINITY);
        order.sort_by(|one, other| figure(other).total_cmp(&figure(one)));
        order
    }

    /// The column by which a list is sorted.
    pub(super) fn sorted_column(&self, pane: Pane) -> usize {
        self.orders[pane.index()]
    }

    /// Rows that are scrolled out above.
    pub(super) fn scrolled(&self, pane: Pane) -> usize {
        self.scrolled[pane.index()]
    }

    /// The rows of a list that the filter lets through, sorted, or why there are none.
    pub(super) fn rows(&self, pane: Pane) -> Result<Vec<Row>, &'static str> {
        let mut rows = self.server().rows(pane)?;
        let columns = pane.columns();
        let text = columns.iter().find(|column| column.is_text());
        if let Some(column) = text.filter(|_| !self.filter.is_empty()) {
            rows.retain(|row| row.text(column.field).is_some_and(|text| readable(text).contains(&self.filter)));
        }
        if let Some(column) = columns.get(self.sorted_column(pane)) {
            // Names and classes begin with the first, how long ago with the last, figures with the largest.
            let is_rising = column.is_text() || matches!(column.field, "class" | "age_seconds");
            rows.sort_by(|one, other| {
                let [one_number, other_number] =
                    [one, other].map(|row| row.number(column.field).unwrap_or(f64::NEG_INFINITY));
                match is_rising {
                    true if column.is_text() => one.text(column.field).cmp(&other.text(column.field)),
                    true => one_number.total_cmp(&other_number),
                    false => other_number.total_cmp(&one_number),
                }
            });
        }
        Ok(rows)
    }
}
