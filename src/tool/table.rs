//! What a command found out at one server, and its two forms on standard output: a table for people, JSON for programs.

use super::client::Connection;
use super::columns::Column;
use super::failure::{Failure, in_words};
use super::reply::Row;
use super::target::Target;
use serde_json::{Map, Value};
use std::io::{self, IsTerminal, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(super) struct Format {
    /// Print JSON: an array with an object for each server
    #[arg(long)]
    json: bool,
}

/// The findings about one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// Lines above the tables.
    pub(super) introduction: Vec<String>,
    pub(super) tables: Vec<Table>,
    /// Lines below the tables.
    pub(super) conclusion: Vec<String>,
    /// Single values of the JSON object. The rows of the tables come beside them.
    pub(super) json: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The name of the rows in JSON.
    pub(super) name: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
}

/// Asks each server, prints what it says, and goes on if one fails.
pub(super) fn report(
    targets: &[Target],
    format: Format,
    mut ask: impl FnMut(&Target, &mut Connection) -> io::Result<Report>,
) -> Result<(), Failure> {
    let style = Style::of_stdout();
    let mut objects = Vec::new();
    let mut has_failed = false;
    for (at, target) in targets.iter().enumerate() {
        match Connection::open(target).and_then(|mut connection| ask(target, &mut connection)) {
            Err(error) => {
                eprintln!("corecached: {}: {}", target.name, in_words(&error));
                has_failed = true;
            }
            Ok(report) if format.json => objects.push(report.into_json(&target.name)),
            Ok(report) => {
                let mut out = io::stdout().lock();
                if targets.len() > 1 {
                    let gap = if at > 0 { "\n" } else { "" };
                    writeln!(out, "{gap}{}", style.title(&target.name))?;
                }
                out.write_all(report.text(style).as_bytes())?;
                out.flush()?;
            }
        }
    }
    if format.json {
        writeln!(io::stdout().lock(), "{:#}", Value::Array(objects))?;
    }
    if has_failed { Err(Failure::Reported) } else { Ok(()) }
}

impl Report {
    fn text(&self, style: Style) -> String {
        let mut text = String::new();
        let mut push = |line: &str| {
            text.push_str(line.trim_end());
            text.push('\n');
        };
        self.introduction.iter().for_each(|line| push(&style.quiet(line)));
        for table in &self.tables {
            table.lines(style).iter().for_each(|line| push(line));
        }
        self.conclusion.iter().for_each(|line| push(line));
        text
    }

    fn into_json(self, server: &str) -> Value {
        let mut object = self.json;
        object.insert("server".into(), server.into());
        for table in self.tables {
            object.insert(table.name.into(), table.rows.iter().map(Row::json).collect());
        }
        Value::Object(object)
    }
}

impl Table {
    /// The titles and the rows. Numbers end at the right edge of their column.
    fn lines(&self, style: Style) -> Vec<String> {
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|row| self.columns.iter().map(|column| column.show(row)).collect()).collect();
        let width = |at: usize| {
            let cells = cells.iter().map(|row| row[at].chars().count());
            cells.chain([self.columns[at].title.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.zip(self.columns).zip(&widths).map(|((cell, column), width)| match column.is_text() {
                true => cell.to_owned(),
                false => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ")
        };
        let titles = line(&mut self.columns.iter().map(|column| column.title));
        let rows = cells.iter().map(|cells| line(&mut cells.iter().map(String::as_str)));
        std::iter::once(style.title(&titles)).chain(rows).collect()
    }
}

/// Colours, if standard output is a terminal and NO_COLOR is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Coloured,
}

impl Style {
    pub(super) fn of_stdout() -> Style {
        if io::stdout().is_terminal() && colours_are_wanted() { Style::Coloured } else { Style::Plain }
    }

    pub(super) fn title(self, text: &str) -> String {
        self.with("1", text)
    }

    fn quiet(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self {
            Style::Coloured => format!("\x1b[{code}m{}\x1b[0m", text.trim_end()),
            Style::Plain => text.to_owned(),
        }
    }
}

/// See no-color.org.
pub(super) fn colours_are_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::columns::HOT_KEYS;
    use crate::tool::reply::Stats;

    #[test]
    fn numbers_stand_below_each_other_and_keys_come_last() {
        let text = "STAT 1:key user%3A1\nSTAT 1:ops_per_second 12345\nSTAT 1:share_percent 3.1\nSTAT 2:key b\n\
                    STAT 2:ops_per_second 7\n";
        let rows = Stats::from_text(text).rows("").into_iter().map(|(_, row)| row).collect();
        let table = Table { name: "keys", columns: HOT_KEYS, rows };
        assert_eq!(
            table.lines(Style::Plain),
            [
                "ops/s  share%  ±  read%  hit%  out/s  key",
                "  12k     3.1  -      -     -      -  user:1",
                "    7       -  -      -     -      -  b",
            ]
        );
    }
}
