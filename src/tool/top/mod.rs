//! `corecached top`: the whole screen about one server or more. It reads keys, takes in what the servers say, and draws.

mod draw;
mod model;
mod poll;

use super::failure::Failure;
use super::show;
use super::table::colours_are_wanted;
use super::target::ServerArgs;
use draw::Palette;
use model::{Mode, Model, Wish};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Longest time between the arrival of figures and their display.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The frame of --once, if neither a terminal nor COLUMNS and LINES say more.
const ONCE_SIZE: (u16, u16) = (120, 40);

/// Show on the whole screen what servers do: latency, hot keys, prefixes, classes, slow requests
///
/// Shows on the whole screen what servers do, and updates it each second.
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys:\n  tab, left, right, 1-6  another pane\n  up, down               another server, or \
    through a list\n  /                      show only rows with a text; enter keeps it, escape drops it\n  \
    s                      sort by another column\n  p                      pause\n  q                      quit\n\n\
    Latency, keys, prefixes and slow requests are known to corecached alone; other servers show the rest.")]
pub(super) struct Args {
    /// Seconds between two updates
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = show::seconds)]
    interval: Duration,
    /// Print one frame as text, after one interval. $COLUMNS and $LINES give its size
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let targets = args.servers.targets()?;
    let has_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !has_terminal && !args.once {
        return Err(Failure::Usage("top needs a terminal; --once prints one frame as text".into()));
    }
    let mut model = Model::new(targets.iter().map(|target| target.name.clone()));
    let news = poll::start(&targets, args.interval);
    if args.once {
        return once(&mut model, &news);
    }
    let palette = if colours_are_wanted() { Palette::Coloured } else { Palette::Plain };
    let mut terminal = ratatui::try_init()?;
    let result = watch(&mut terminal, &mut model, &news, palette);
    ratatui::restore();
    Ok(result?)
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    model: &mut Model,
    news: &Receiver<poll::News>,
    palette: Palette,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| draw::draw(frame, model, palette))?;
        loop {
            let mut is_changed = false;
            for sighting in news.try_iter() {
                model.take(sighting);
                is_changed = true;
            }
            if is_changed {
                break;
            }
            if !event::poll(LOOK_AGAIN)? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match meaning(key, model.mode) {
                    Meaning::Quit => return Ok(()),
                    Meaning::Wish(wish) => model.fulfil(wish),
                    Meaning::None => continue,
                },
                Event::Resize(..) => {}
                _ => continue,
            }
            break;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    None,
    Quit,
    Wish(Wish),
}

fn meaning(key: KeyEvent, mode: Mode) -> Meaning {
    let wish = match (mode, key.code) {
        (_, KeyCode::Char('c')) if key.modifiers.contains(KeyModifiers::CONTROL) => return Meaning::Quit,
        (_, KeyCode::Esc) => Wish::Clear,
        (Mode::Filtering, KeyCode::Enter) => Wish::Accept,
        (Mode::Filtering, KeyCode::Backspace) => Wish::Erase,
        (Mode::Filtering, KeyCode::Char(letter)) => Wish::Type(letter),
        (_, KeyCode::Tab | KeyCode::Right) => Wish::NextPane,
        (_, KeyCode::BackTab | KeyCode::Left) => Wish::LastPane,
        (_, KeyCode::Up) => Wish::Up,
        (_, KeyCode::Down) => Wish::Down,
        (Mode::Looking, KeyCode::Char('q')) => return Meaning::Quit,
        (Mode::Looking, KeyCode::Char('s')) => Wish::Sort,
        (Mode::Looking, KeyCode::Char('p')) => Wish::Pause,
        (Mode::Looking, KeyCode::Char('/')) => Wish::Filter,
        (Mode::Looking, KeyCode::Char(digit @ '1'..='6')) => Wish::Pane(digit as usize - '1' as usize),
        _ => return Meaning::None,
    };
    Meaning::Wish(wish)
}

/// Prints a frame after each server has answered twice, or has not answered.
fn once(model: &mut Model, news: &Receiver<poll::News>) -> Result<(), Failure> {
    let is_complete = |model: &Model| model.servers.iter().all(|one| one.rates.is_some() || one.error.is_some());
    while !is_complete(model) {
        match news.recv() {
            Ok(sighting) => model.take(sighting),
            Err(_) => break,
        }
    }
    let size = |name: &str, fallback: u16| {
        let value = std::env::var(name).ok().and_then(|value| value.parse().ok());
        value.unwrap_or(fallback).clamp(1, 1000)
    };
    let (width, height) = match ratatui::crossterm::terminal::size() {
        Ok(size) if io::stdout().is_terminal() => size,
        _ => (size("COLUMNS", ONCE_SIZE.0), size("LINES", ONCE_SIZE.1)),
    };
    let text = frame_text(model, width, height);
    writeln!(io::stdout().lock(), "{text}")?;
    match model.servers.iter().any(|server| server.error.is_some()) {
        true => Err(Failure::Reported),
        false => Ok(()),
    }
}

/// The frame as lines without spaces at their ends. The last line, which explains keys, and empty lines before it are
/// left out.
fn frame_text(model: &Model, width: u16, height: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(frame) = terminal.draw(|frame| draw::draw(frame, model, Palette::Plain));
    let rows = frame.buffer.content().chunks(width.into()).take(usize::from(height).saturating_sub(1));
    let lines = rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests;
