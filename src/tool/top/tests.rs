//! Frames drawn from recorded replies, at several sizes.

use super::draw;
use super::model::{Mode, Model, Wish};
use super::poll::Sighting;
use super::{Meaning, Palette, frame_text, meaning};
use crate::tool::figures::Snapshot;
use crate::tool::histogram::Latency;
use crate::tool::recorded;
use crate::tool::reply::Stats;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What corecached says at a second of the recording: 0, or 1.
fn sighting(second: u64) -> Sighting {
    let is_first = second == 0;
    let text = |before, after| Stats::from_text(if is_first { before } else { after });
    let latency =
        if is_first { Latency::default() } else { Latency::from_stats(&Stats::from_text(recorded::HISTOGRAM)) };
    let mut stats = text(recorded::STATS_BEFORE, recorded::STATS_AFTER);
    stats.insert("time", "1764300040");
    Sighting {
        snapshot: Snapshot { at: start() + Duration::from_secs(second), stats, latency: Some(latency) },
        lists: HashMap::from([
            ("latency", Stats::from_text(recorded::LATENCY)),
            ("hotkeys", Stats::from_text(recorded::HOT_KEYS)),
            ("prefixes", Stats::from_text(recorded::PREFIXES)),
            ("slow", Stats::from_text(recorded::SLOW)),
            ("items", text(recorded::ITEMS_BEFORE, recorded::ITEMS_AFTER)),
            ("slabs", text(recorded::SLABS_BEFORE, recorded::SLABS_AFTER)),
        ]),
        cores: None,
    }
}

/// What a memcached says, which knows less.
fn memcached(second: u64) -> Sighting {
    let mut sighting = sighting(second);
    sighting.snapshot.latency = None;
    sighting.lists.retain(|name, _| ["items", "slabs"].contains(name));
    sighting
}

fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// A corecached, a memcached, and a server that is away.
fn three_servers() -> Model {
    let mut model = Model::new(["core:1", "mem:2", "gone:3"].map(str::to_owned));
    for second in 0..2 {
        model.take((0, Ok(sighting(second))));
        model.take((1, Ok(memcached(second))));
        model.take((2, Err("connection refused".into())));
    }
    model
}

fn line<'a>(text: &'a str, part: &str) -> &'a str {
    text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no line with {part:?} in\n{text}"))
}

/// The words of the first line with this part.
fn words<'a>(text: &'a str, part: &str) -> Vec<&'a str> {
    line(text, part).split_whitespace().collect()
}

fn fulfilled(model: &mut Model, wishes: &[Wish]) {
    wishes.iter().for_each(|wish| model.fulfil(*wish));
}

#[test]
fn a_small_screen_has_the_servers_and_one_pane() {
    let text = frame_text(&three_servers(), 80, 24);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(
        words(&text, "core:1  "),
        ["▸", "core:1", "105k", "98.0", "122µs", "12", "768M/1.0G", "52", "-"],
        "{text}"
    );
    assert_eq!(words(&text, "mem:2"), ["mem:2", "105k", "98.0", "-", "12", "768M/1.0G", "52", "-"], "{text}");
    assert_eq!(line(&text, "gone:3").trim(), "gone:3                    connection refused");
    assert_eq!(words(&text, "get hit"), ["get", "hit", "100", "6.2µs", "8.0µs", "122µs", "127µs", "2.1ms"], "{text}");
    // Nine requests of ten took 5 to 8 µs, and the others 65 to 128.
    assert!(line(&text, "≤8.0µs").ends_with('█') && line(&text, "≤128µs").ends_with('▓'), "{text}");
    assert!(text.contains("Latency  Keys  Prefixes  Classes  Slow"), "{text}");
    assert!(!text.contains("user:42"), "{text}");
}

#[test]
fn a_large_screen_has_all_panes() {
    let text = frame_text(&three_servers(), 200, 60);
    for title in ["Servers ─", "Latency ─", "Keys ─", "Prefixes ─", "Classes ─", "Slow ─"] {
        assert!(text.contains(title), "{title} in\n{text}");
    }
    assert!(line(&text, "user:42").contains("13k    12.0   0.4   99.0   100   1.2M  user:42"), "{text}");
    assert!(line(&text, "  user ").contains("90k  98.8  49.9  381M"), "{text}");
    assert!(line(&text, "(others)").contains("10  50.0"), "{text}");
    assert!(text.contains("31% of misses repeat one") && text.contains("8.2k samples in 10s"), "{text}");
    // Class 1: 400 hits, 50 sets and 12 evictions in a second.
    let class = line(&text, "1.0M    9.2");
    assert!(class.contains("400      50       12    2h"), "{text}");
    assert_eq!(words(&text, "15ms "), ["40s", "15ms", "200µs", "2", "500", "4.8M", "get", "page:home"]);
    assert!(line(&text, "core:1  ").ends_with('█'), "no trend in\n{text}");
}

#[test]
fn a_tiny_screen_has_one_pane_and_no_panic() {
    let mut model = three_servers();
    for pane in 0..6 {
        model.fulfil(Wish::Pane(pane));
        let text = frame_text(&model, 20, 5);
        assert!(text.lines().all(|line| line.chars().count() <= 20) && text.lines().count() > 1, "{text}");
        for (width, height) in (1..30).flat_map(|width| (1..16).map(move |height| (width, height))) {
            frame_text(&model, width, height);
        }
        for width in (30..220).step_by(7) {
            frame_text(&model, width, 41);
        }
    }
    model.fulfil(Wish::Pane(0));
    let text = frame_text(&model, 20, 5);
    assert!(text.contains("core:1") && text.contains("105k"), "{text}");
}

#[test]
fn what_a_memcached_cannot_tell_is_said_in_a_line() {
    let mut model = three_servers();
    fulfilled(&mut model, &[Wish::Pane(0), Wish::Down]);
    // It begins with a pane that has something to show.
    let text = frame_text(&model, 80, 24);
    assert!(line(&text, "▾class").ends_with("idle   age"), "{text}");
    for (pane, says) in [
        (1, "only corecached tells: this server records no latencies"),
        (2, "only corecached tells: this server keeps no samples of its keys"),
        (3, "only corecached tells: this server keeps no samples of its keys"),
        (5, "only corecached tells: this server keeps no slow requests"),
    ] {
        model.fulfil(Wish::Pane(pane));
        let text = frame_text(&model, 80, 24);
        assert!(text.contains(says), "{says} in\n{text}");
    }
}

#[test]
fn a_filter_and_an_order_choose_the_rows() {
    let mut model = three_servers();
    model.fulfil(Wish::Pane(3));
    let place = |text: &str, part: &str| text.lines().position(|line| line.ends_with(part)).expect("it is there");
    let text = frame_text(&model, 80, 24);
    assert!(place(&text, "user") < place(&text, "page"), "by operations:\n{text}");
    // The third order: by share of memory.
    fulfilled(&mut model, &[Wish::Sort, Wish::Sort]);
    let text = frame_text(&model, 80, 24);
    assert!(text.contains("▾mem%") && place(&text, "page") < place(&text, "user"), "by memory:\n{text}");
    fulfilled(&mut model, &[Wish::Filter, Wish::Type('u'), Wish::Type('s')]);
    let text = frame_text(&model, 80, 24);
    assert!(text.contains("  user") && !text.contains("  page"), "{text}");
    fulfilled(&mut model, &[Wish::Type('x')]);
    assert!(frame_text(&model, 80, 24).contains("nothing that the filter lets through"));
    fulfilled(&mut model, &[Wish::Erase, Wish::Accept]);
    assert_eq!((model.mode, model.filter.as_str()), (Mode::Looking, "us"));
    fulfilled(&mut model, &[Wish::Clear]);
    assert!(frame_text(&model, 80, 24).contains("  page"));
}

#[test]
fn a_paused_screen_stands_still() {
    let mut model = three_servers();
    model.fulfil(Wish::Pause);
    model.take((0, Err("the server closed the connection".into())));
    let text = frame_text(&model, 80, 24);
    assert!(text.contains("paused") && text.contains("105k"), "{text}");
    model.fulfil(Wish::Pause);
    model.take((0, Err("the server closed the connection".into())));
    assert!(frame_text(&model, 80, 24).contains("the server closed"));
}

#[test]
fn keys_mean_letters_only_in_a_filter() {
    let press = |code| KeyEvent::new(code, KeyModifiers::NONE);
    assert_eq!(meaning(press(KeyCode::Char('q')), Mode::Looking), Meaning::Quit);
    assert_eq!(meaning(press(KeyCode::Char('q')), Mode::Filtering), Meaning::Wish(Wish::Type('q')));
    assert_eq!(meaning(press(KeyCode::Char('2')), Mode::Looking), Meaning::Wish(Wish::Pane(1)));
    assert_eq!(meaning(press(KeyCode::Char('7')), Mode::Looking), Meaning::None);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(meaning(interrupt, Mode::Filtering), Meaning::Quit);
}

#[test]
fn colours_are_left_out_if_they_are_not_wanted() {
    let colours = |palette| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("it is memory");
        let frame = terminal.draw(|frame| draw::draw(frame, &three_servers(), palette)).expect("it is memory");
        frame.buffer.content().iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert!(colours(Palette::Coloured) > 0);
    assert_eq!(colours(Palette::Plain), 0);
}
