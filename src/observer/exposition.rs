//! Prometheus' text format, version 0.0.4.
//!
//! Scrapers get this version whatever they say that they accept: some of memcached_exporter's counters do not end in `_total`,
//! and OpenMetrics would rename them.

use crate::measure::latency::Distribution;
use std::fmt::Write;

/// The `Content-Type` of the format. Prometheus 3 takes no other.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Number {
        Number::Whole(number)
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Number {
        Number::Whole(number.into())
    }
}

impl From<bool> for Number {
    fn from(is: bool) -> Number {
        Number::Whole(is.into())
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Number {
        Number::Real(number)
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Whole(number) => write!(formatter, "{number}"),
            Number::Real(number) if number.is_nan() => formatter.write_str("NaN"),
            Number::Real(number) if number.is_infinite() => {
                formatter.write_str(if *number > 0.0 { "+Inf" } else { "-Inf" })
            }
            Number::Real(number) => write!(formatter, "{number}"),
        }
    }
}

/// The samples of a metric on their way into a text. A metric without samples leaves no trace.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
    kind: Kind,
    help: &'static str,
    is_begun: bool,
}

/// Labels of a sample: names and values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Writes a line for people, which scrapers skip.
pub(super) fn comment(text: &mut String, line: &str) {
    let _ = writeln!(text, "# {line}");
}

impl<'a> Samples<'a> {
    /// No samples yet.
    pub(super) fn new(text: &'a mut String, name: &'static str, kind: Kind, help: &'static str) -> Samples<'a> {
        Samples { text, name, kind, help, is_begun: false }
    }

    /// Puts the only sample, without labels. Returns `Some`, so that a row of a table can end with it.
    pub(super) fn one(&mut self, value: impl Into<Number>) -> Option<()> {
        self.put(&[], value)
    }

    /// Puts a sample.
    pub(super) fn put(&mut self, labels: Labels<'_>, value: impl Into<Number>) -> Option<()> {
        self.line("", labels, None, value.into());
        Some(())
    }

    /// Puts a distribution of times, in seconds.
    pub(super) fn distribution(&mut self, labels: Labels<'_>, times: &Distribution) {
        for (power, count) in times.cumulative().into_iter().enumerate() {
            let bound = Number::Real((1_u64 << power) as f64 / 1e6).to_string();
            self.line("_bucket", labels, Some(&bound), count.into());
        }
        self.line("_bucket", labels, Some("+Inf"), times.count().into());
        self.line("_sum", labels, None, Number::Real(times.sum_nanos() as f64 / 1e9));
        self.line("_count", labels, None, times.count().into());
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: Number) {
        let (text, name) = (&mut *self.text, self.name);
        if !self.is_begun {
            self.is_begun = true;
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to memory cannot fail, here and below.
            let _ = write!(text, "# HELP {name} ");
            escape(text, self.help, Quotes::Kept);
            let _ = writeln!(text, "\n# TYPE {name} {kind}");
        }
        let _ = write!(text, "{name}{suffix}");
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        for (at, (label, value)) in labels.clone().enumerate() {
            let _ = write!(text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            escape(text, value, Quotes::Escaped);
            text.push('"');
        }
        if labels.count() > 0 {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Kept,
    Escaped,
}

fn escape(text: &mut String, raw: &str, quotes: Quotes) {
    for character in raw.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes == Quotes::Escaped => text.push_str("\\\""),
            _ => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::latency::Histogram;

    #[test]
    fn lines_are_escaped_and_empty_metrics_are_left_out() {
        let mut text = String::new();
        let mut samples = Samples::new(&mut text, "a_total", Kind::Counter, "One\n\\ \"two\"");
        samples.put(&[("k", "a\\b\"c\nd"), ("j", "")], 7_u64);
        Samples::new(&mut text, "a_nothing", Kind::Gauge, "Nothing");
        Samples::new(&mut text, "a_ratio", Kind::Gauge, "A ratio").one(0.25);
        comment(&mut text, "that is all");
        assert_eq!(
            text,
            "# HELP a_total One\\n\\\\ \"two\"\n# TYPE a_total counter\na_total{k=\"a\\\\b\\\"c\\nd\",j=\"\"} 7\n\
             # HELP a_ratio A ratio\n# TYPE a_ratio gauge\na_ratio 0.25\n# that is all\n"
        );
        let shown = [Number::Real(f64::NAN), Number::Real(f64::INFINITY), Number::Real(1e-7), u64::MAX.into()];
        assert_eq!(shown.map(|number| number.to_string()), ["NaN", "+Inf", "0.0000001", "18446744073709551615"]);
    }

    #[test]
    fn a_histogram_has_powers_of_two_of_microseconds() {
        let histogram = Histogram::default();
        histogram.record(1_500, 2);
        histogram.record(20_000_000_000, 1);
        let mut times = Distribution::default();
        times.add(&histogram);
        let mut text = String::new();
        let mut samples = Samples::new(&mut text, "t", Kind::Histogram, "T");
        samples.distribution(&[("a", "b")], &times);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2 + 24 + 3);
        assert_eq!(
            lines[2..5],
            [
                "t_bucket{a=\"b\",le=\"0.000001\"} 0",
                "t_bucket{a=\"b\",le=\"0.000002\"} 2",
                "t_bucket{a=\"b\",le=\"0.000004\"} 2"
            ]
        );
        assert_eq!(
            lines[25..],
            [
                "t_bucket{a=\"b\",le=\"8.388608\"} 2",
                "t_bucket{a=\"b\",le=\"+Inf\"} 3",
                "t_sum{a=\"b\"} 20.000003",
                "t_count{a=\"b\"} 3"
            ]
        );
    }
}
