//! The findings on the screen, and as JSON.

use super::finding::{Finding, Outcome, Unknown, Verdict};
use crate::tool::table::Style;
use serde_json::{Value, json};

/// Characters of a line of a paragraph. Lines to copy are not broken.
const WIDTH: usize = 100;

/// The verdicts about one machine or one server.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) about: About,
    pub(super) verdicts: Vec<(&'static str, Verdict)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// This machine, for these servers.
    Machine(Vec<String>),
    Server(String),
}

impl About {
    fn title(&self) -> String {
        match self {
            About::Machine(servers) if servers.is_empty() => "This machine".into(),
            About::Machine(servers) => format!("This machine, for {}", servers.join(" and ")),
            About::Server(name) => format!("The server {name}"),
        }
    }
}

impl Report {
    fn findings(&self) -> impl Iterator<Item = (&'static str, &Finding)> {
        self.verdicts.iter().filter_map(|(name, verdict)| match verdict {
            Ok(Outcome::Found(finding)) => Some((*name, finding)),
            _ => None,
        })
    }

    pub(super) fn has_findings(&self) -> bool {
        self.findings().next().is_some()
    }

    /// The checks that other servers than corecached do not tell enough for.
    pub(super) fn untold(&self) -> Vec<&'static str> {
        let untold = self.verdicts.iter().filter(|(_, verdict)| *verdict == Err(Unknown::OnlyCorecached));
        untold.map(|(name, _)| *name).collect()
    }

    /// A paragraph for each finding; nothing if there is none. `is_verbose` adds a line for each other check.
    pub(super) fn text(&self, style: Style, is_verbose: bool) -> String {
        let mut paragraphs: Vec<String> = Vec::new();
        for (name, finding) in self.findings() {
            let sentences = [&finding.is, &finding.should, &finding.why].map(String::as_str).join(" ");
            let change: String = finding.change.iter().map(|line| format!("    {line}\n")).collect();
            paragraphs.push(format!("{}\n{}{change}", style.title(name), wrapped(&sentences)));
        }
        if is_verbose {
            let line = |(name, verdict): &(&str, Verdict)| match verdict {
                Ok(Outcome::Found(_)) => None,
                Ok(Outcome::Well(text)) => Some(format!("{name:<20} ok: {text}\n")),
                Err(unknown) => Some(format!("{name:<20} not checked: {}\n", unknown.in_words())),
            };
            let lines: String = self.verdicts.iter().filter_map(line).collect();
            paragraphs.extend((!lines.is_empty()).then_some(lines));
        }
        match paragraphs.is_empty() {
            true => String::new(),
            false => format!("{}\n\n{}", style.title(&self.about.title()), paragraphs.join("\n")),
        }
    }

    pub(super) fn json(&self) -> Value {
        let findings = self.findings().map(|(name, finding)| {
            json!({
                "check": name, "is": finding.is, "should": finding.should, "why": finding.why, "change": finding.change,
            })
        });
        let others = |want: fn(&Verdict) -> Option<String>| -> Vec<Value> {
            let texts = self.verdicts.iter().filter_map(|(name, verdict)| Some((name, want(verdict)?)));
            texts.map(|(name, text)| json!({ "check": name, "is": text })).collect()
        };
        let mut object = json!({
            "findings": findings.collect::<Vec<_>>(),
            "ok": others(|verdict| match verdict {
                Ok(Outcome::Well(text)) => Some(text.clone()),
                _ => None,
            }),
            "not_checked": others(|verdict| verdict.as_ref().err().map(Unknown::in_words)),
        });
        match &self.about {
            About::Machine(servers) => object["machine_for"] = servers.clone().into(),
            About::Server(name) => object["server"] = name.clone().into(),
        }
        object
    }
}

/// Sentences in indented lines.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if length > 0 && length + 1 + width <= WIDTH {
            lines.push(' ');
            length += 1 + width;
        } else {
            lines.push_str(if length > 0 { "\n  " } else { "  " });
            length = 2 + width;
        }
        lines.push_str(word);
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let finding = Finding {
            is: "This is so. ".repeat(10),
            should: "It should not.".into(),
            why: "It costs.".into(),
            change: vec!["a command that is longer than the width of a line ".repeat(3)],
        };
        let verdicts = vec![
            ("first", Ok(Outcome::Found(finding))),
            ("second", Ok(Outcome::Well("7".into()))),
            ("third", Err(Unknown::OnlyCorecached)),
            ("fourth", Err(Unknown::Because("no file".into()))),
        ];
        Report { about: About::Server("a:1".into()), verdicts }
    }

    #[test]
    fn sentences_are_wrapped_and_commands_are_not() {
        let text = report().text(Style::Plain, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["The server a:1", "", "first"]);
        assert!(lines[3..5].iter().all(|line| line.starts_with("  This") || line.starts_with("  is")), "{text}");
        assert!(lines[3..lines.len() - 1].iter().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(lines[lines.len() - 1].starts_with("    a command"), "{text}");
    }

    #[test]
    fn clean_checks_are_silent_unless_they_are_asked_for() {
        let mut report = report();
        let verbose = report.text(Style::Plain, true);
        assert!(
            verbose.contains("second               ok: 7\nthird                not checked: only corecached tells\n")
        );
        assert_eq!(report.untold(), ["third"]);
        report.verdicts.retain(|(name, _)| *name != "first");
        assert_eq!((report.text(Style::Plain, false), report.has_findings()), (String::new(), false));
    }

    #[test]
    fn json_has_all_checks() {
        let json = report().json();
        assert_eq!((&json["server"], &json["findings"][0]["check"]), (&"a:1".into(), &"first".into()));
        assert_eq!(json["ok"], json!([{ "check": "second", "is": "7" }]));
        assert_eq!(json["not_checked"][1], json!({ "check": "fourth", "is": "no file" }));
    }
}
