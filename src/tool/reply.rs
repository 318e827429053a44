//! The `STAT` lines of a reply: single values, and numbered rows such as `1:key user`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Values by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats(BTreeMap<String, String>);

/// One numbered row of a reply, for example a hot key: its fields by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row(BTreeMap<String, String>);

impl Stats {
    /// The lines of a recorded reply.
    #[cfg(test)]
    pub(super) fn from_text(text: &str) -> Stats {
        let mut stats = Stats::default();
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("STAT ")) {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            stats.insert(name, value);
        }
        stats
    }

    pub(super) fn insert(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }

    /// The sum of these numbers. A name that the server lacks counts as 0.
    pub(super) fn sum(&self, names: &[&str]) -> f64 {
        names.iter().filter_map(|name| self.number(name)).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The rows `prefix N:field value`, by their numbers. Other lines are left out.
    pub(super) fn rows(&self, prefix: &str) -> Vec<(u64, Row)> {
        let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
        for (name, value) in self.iter() {
            let numbered = name.strip_prefix(prefix).and_then(|name| name.split_once(':'));
            let Some((number, field)) = numbered else { continue };
            let Ok(number) = number.parse() else { continue };
            rows.entry(number).or_default().insert(field, value);
        }
        rows.into_iter().collect()
    }

    /// The values that belong to no row.
    pub(super) fn json(&self) -> Map<String, Value> {
        self.iter().filter(|(name, _)| !name.contains(':')).map(|(name, value)| field_json(name, value)).collect()
    }
}

impl Row {
    pub(super) fn insert(&mut self, field: &str, value: &str) {
        self.0.insert(field.to_owned(), value.to_owned());
    }

    pub(super) fn set(&mut self, field: &str, value: f64) {
        self.0.insert(field.to_owned(), value.to_string());
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    pub(super) fn number(&self, field: &str) -> Option<f64> {
        self.text(field)?.parse().ok()
    }

    pub(super) fn json(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, value)| field_json(name, value)).collect())
    }
}

/// Fields that are words even if they look like numbers.
const WORDS: [&str; 4] = ["key", "prefix", "command", "version"];

fn field_json(name: &str, value: &str) -> (String, Value) {
    let value = if WORDS.contains(&name) {
        Value::from(readable(value))
    } else if let Ok(number) = value.parse::<i64>() {
        Value::from(number)
    } else {
        // NaN and the like are no JSON; `Value::from` makes them null.
        value.parse::<f64>().map_or_else(|_| Value::from(value), Value::from)
    };
    (name.to_owned(), value)
}

/// A key as a person reads it. The server encodes all but letters, digits and `-_.~` as `%XX`; this decodes what is
/// visible text. Control characters, bytes that are no UTF-8, and `%` itself stay encoded.
pub(super) fn readable(encoded: &str) -> String {
    let bytes = encoded.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|code| std::str::from_utf8(code).ok());
        match code.filter(|_| bytes[at] == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    let mut text = String::with_capacity(decoded.len());
    for chunk in decoded.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let is_plain = !letter.is_control() && (letter == ' ' || !letter.is_whitespace()) && letter != '%';
            match is_plain {
                true => text.push(letter),
                false => encode(&mut text, letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        encode(&mut text, chunk.invalid());
    }
    text
}

fn encode(text: &mut String, bytes: &[u8]) {
    bytes.iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_together_by_their_numbers() {
        let stats =
            Stats::from_text("STAT samples 7\nSTAT 2:key b\nSTAT 10:key c\nSTAT 2:bytes 5\nSTAT items:3:age 9\n");
        let rows = stats.rows("");
        assert_eq!(rows.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(rows[0].1.text("key"), Some("b"));
        assert_eq!(rows[0].1.number("bytes"), Some(5.0));
        assert_eq!(stats.rows("items:")[0].1.number("age"), Some(9.0));
        assert_eq!(stats.number("samples"), Some(7.0));
        assert_eq!(stats.json().len(), 1);
    }

    #[test]
    fn visible_text_of_a_key_is_decoded_and_nothing_else() {
        assert_eq!(readable("user%3A42%2Fx"), "user:42/x");
        assert_eq!(readable("caf%C3%A9"), "café");
        assert_eq!(readable("a%20b%0a%1b%00%ff%25"), "a b%0A%1B%00%FF%25");
        assert_eq!(readable("100%"), "100%25");
        assert_eq!(readable("%zz%3"), "%25zz%253");
    }

    #[test]
    fn numbers_become_numbers_and_keys_stay_text() {
        let row = Stats::from_text("STAT 1:key 42\nSTAT 1:share_percent 3.1\nSTAT 1:bytes 7\n").rows("").remove(0).1;
        assert_eq!(row.json().to_string(), r#"{"bytes":7,"key":"42","share_percent":3.1}"#);
    }
}
