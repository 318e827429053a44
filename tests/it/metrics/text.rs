//! A strict reader of Prometheus' text format, version 0.0.4.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a sample.
pub(crate) type Labels = BTreeMap<String, String>;

/// A metric of a text.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    /// The names of the samples (a histogram has several), their labels and values.
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

/// The metrics of a text, by name. Anything that the format forbids, and anything that it only allows, fails the test.
#[track_caller]
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut series, mut current) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(name) && !help.is_empty() && !help.contains('\\'), "{line}");
            assert!(families.insert(name.to_owned(), Family::default()).is_none(), "{name} is there twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let family = families.get_mut(name).unwrap_or_else(|| panic!("{line} before its HELP"));
            assert!(name == current && family.kind.is_empty() && family.samples.is_empty(), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            kind.clone_into(&mut family.kind);
        } else if line.starts_with('#') {
            assert!(line.starts_with("# "), "{line}");
        } else {
            let (name, labels, value) = sample(line);
            assert!(series.insert((name.clone(), labels.clone())), "{line} is there twice");
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("{line} without a TYPE"));
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{line} under {current}");
            assert!(family.kind == "gauge" || value >= 0.0, "{line}: a counter below 0");
            family.samples.push((name, labels, value));
        }
    }
    for (name, family) in &families {
        assert!(!family.kind.is_empty() && !family.samples.is_empty(), "{name} has no type or no samples");
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    families
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_' || first == ':')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':')
}

#[track_caller]
fn sample(line: &str) -> (String, Labels, f64) {
    let name_len = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(name_len);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.contains(':'), "{line}: {label}");
            let (value, after) = quoted(after).unwrap_or_else(|| panic!("{line}"));
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}: {label} twice");
            rest = after;
            match rest.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(!value.contains(' '), "{line}: a time, which scrapers set themselves");
    let number = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        value => value.parse().unwrap_or_else(|_| panic!("{line}: no number")),
    };
    (name.to_owned(), labels, number)
}

/// The text up to a quotation mark, and the rest behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                letter @ ('\\' | '"') => letter,
                _ => return None,
            }),
            letter => value.push(letter),
        }
    }
    None
}

/// The bounds and counts of a histogram's buckets, its sum and its count.
type Histogram = (Vec<(f64, f64)>, [Option<f64>; 2]);

#[track_caller]
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<Labels, Histogram> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let (buckets, others) = series.entry(labels).or_default();
        match sample.rsplit_once('_').expect("it has a suffix").1 {
            "bucket" => {
                let bound = bound.unwrap_or_else(|| panic!("{name}: a bucket without a bound"));
                buckets.push((if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") }, *value));
            }
            "sum" => others[0] = Some(*value),
            _ => others[1] = Some(*value),
        }
    }
    for (labels, (buckets, [sum, count])) in series {
        assert!(buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{name} {labels:?}: {buckets:?}");
        let last = buckets.last().unwrap_or_else(|| panic!("{name} {labels:?} has no buckets"));
        assert!(
            last.0.is_infinite() && Some(last.1) == count && sum.is_some(),
            "{name} {labels:?}: {last:?} {count:?}"
        );
    }
}
