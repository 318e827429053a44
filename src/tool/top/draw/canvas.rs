//! The colours of `top`, and lines drawn into a part of the screen. Nothing here writes outside its part, however small
//! that is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// Whether colours are wanted. Without them, weight and shades alone tell things apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tool::top) enum Palette {
    Coloured,
    Plain,
}

/// What a text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Text,
    /// Labels, rules, what may be overlooked.
    Quiet,
    Title,
    /// The part that the keys act on.
    Focus,
    Warning,
    Alarm,
    /// A latency of the spectrum: quick, noticeable, slow.
    Quick,
    Medium,
    Slow,
}

impl Palette {
    pub(super) fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        match (self, tone) {
            (_, Tone::Text) => style,
            (_, Tone::Title) => style.add_modifier(Modifier::BOLD),
            (Palette::Coloured, Tone::Quiet) => style.fg(Color::DarkGray),
            (Palette::Coloured, Tone::Focus) => style.fg(Color::Cyan).add_modifier(Modifier::BOLD),
            (Palette::Coloured, Tone::Warning) => style.fg(Color::Yellow),
            (Palette::Coloured, Tone::Alarm) => style.fg(Color::Red).add_modifier(Modifier::BOLD),
            (Palette::Coloured, Tone::Quick) => style.fg(Color::Cyan),
            (Palette::Coloured, Tone::Medium) => style.fg(Color::Yellow),
            (Palette::Coloured, Tone::Slow) => style.fg(Color::Red),
            (Palette::Plain, Tone::Quiet) => style.add_modifier(Modifier::DIM),
            (Palette::Plain, Tone::Focus) => style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            (Palette::Plain, Tone::Warning | Tone::Alarm) => style.add_modifier(Modifier::BOLD),
            (Palette::Plain, Tone::Quick | Tone::Medium | Tone::Slow) => style,
        }
    }
}

/// A part of the screen, filled line by line from above.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    palette: Palette,
    used: u16,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, area: Rect, palette: Palette) -> Canvas<'a> {
        let area = area.intersection(buffer.area);
        Canvas { buffer, area, palette, used: 0 }
    }

    /// Another part of the same screen.
    pub(super) fn part(&mut self, area: Rect) -> Canvas<'_> {
        Canvas::new(self.buffer, area, self.palette)
    }

    pub(super) fn width(&self) -> usize {
        self.area.width.into()
    }

    /// Lines that are still free.
    pub(super) fn lines_left(&self) -> usize {
        self.area.height.saturating_sub(self.used).into()
    }

    /// Draws the next line. What does not fit is cut off.
    pub(super) fn line(&mut self, parts: &[(&str, Tone)]) {
        if self.used < self.area.height {
            let spans: Vec<Span<'_>> =
                parts.iter().map(|(text, tone)| Span::styled(*text, self.palette.style(*tone))).collect();
            self.buffer.set_line(self.area.x, self.area.y + self.used, &Line::from(spans), self.area.width);
            self.used += 1;
        }
    }

    /// Draws a line with the first parts at the left edge and a note at the right one, if there is room for both. A rule
    /// fills the space between them if `fill` is one.
    pub(super) fn line_with_note(&mut self, parts: &[(&str, Tone)], fill: char, note: (&str, Tone)) {
        let taken: usize = parts.iter().map(|(text, _)| width(text)).sum();
        let (gap, note) = match self.width().checked_sub(taken + width(note.0) + 3) {
            Some(gap) if !note.0.is_empty() => (gap + 1, note),
            _ => (self.width().saturating_sub(taken + 1), ("", Tone::Quiet)),
        };
        let rule = format!(" {} ", fill.to_string().repeat(gap));
        let rule = if note.0.is_empty() { rule.trim_end() } else { rule.as_str() };
        let mut parts = parts.to_vec();
        parts.extend([(rule, Tone::Quiet), note]);
        self.line(&parts);
    }

    /// Draws a text over as many lines as it needs.
    pub(super) fn paragraph(&mut self, text: &str, tone: Tone) {
        let mut line = String::new();
        for word in text.split(' ') {
            if !line.is_empty() && width(&line) + 1 + width(word) > self.width() {
                self.line(&[(&line, tone)]);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(&[(&line, tone)]);
    }
}

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text, cut off or filled with spaces to this many columns.
pub(super) fn fitted(text: &str, columns: usize) -> String {
    let mut fitted = String::new();
    let mut used = 0;
    for letter in text.chars() {
        let next = width(letter.encode_utf8(&mut [0; 4]));
        if used + next > columns {
            break;
        }
        fitted.push(letter);
        used += next;
    }
    if used < width(text) && columns > 0 && fitted.pop().is_some() {
        fitted.push('…');
        used = width(&fitted);
    }
    fitted.push_str(&" ".repeat(columns.saturating_sub(used)));
    fitted
}
