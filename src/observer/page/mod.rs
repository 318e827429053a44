//! The page that the metrics address serves at `/`: one file, `page.html`, with its style and its script inside.
//!
//! The script asks for `status.json` and `history.json` once a second and draws them. For a browser without script,
//! [`render`] writes plain tables into the page, and the browser loads it again every few seconds. The script removes
//! them.
//!
//! The page loads nothing else. It has exactly one `<script>` and one `<style>` element, and no handler or style in an
//! attribute, so a policy that allows those two elements by their hashes, `connect-src 'self'` and `img-src data:` (the
//! icon) is enough. Whatever a client may have chosen, such as a key, is text in it and never markup.

use serde_json::Value;

/// The file, without data: the policy takes the hashes of its elements from here. [`render`] replaces its one placeholder.
pub const PAGE: &str = include_str!("page.html");
const PLACEHOLDER: &str = "<!--TABLES-->";

/// What a value is, and so how people read it.
#[derive(Clone, Copy)]
enum Unit {
    Text,
    /// A name as programs have it, with `_` between its words.
    Kind,
    /// A text, or null for all prefixes that have no row.
    Prefix,
    Count,
    /// Per second.
    Rate,
    Bytes,
    Microseconds,
    Seconds,
    /// From 0 to 1.
    Ratio,
    /// Seconds since 1970. It is shown as the time before the answer.
    Moment,
}
use Unit::{Bytes, Count, Kind, Microseconds, Moment, Prefix, Rate, Ratio, Seconds, Text};

/// A column: its title, the name of its value in a row, and the unit.
type Column = (&'static str, &'static str, Unit);

/// Where a table has its rows: at this place in the status.
enum Rows {
    /// An array; each element is a row.
    Of(&'static str),
    /// An object of objects; each is a row. Its name is the value `name` of the row.
    Named(&'static str),
}

struct Table {
    title: &'static str,
    rows: Rows,
    columns: &'static [Column],
}

/// The tables with a name and a value in each row. Each row has a title, the place of its value, and the unit.
const LISTS: &[(&str, &[Column])] = &[
    (
        "Traffic",
        &[
            ("Items", "/stats/curr_items", Count),
            ("Gets", "/stats/cmd_get", Count),
            ("Hits", "/stats/get_hits", Count),
            ("Sets", "/stats/cmd_set", Count),
            ("Evictions", "/stats/evictions", Count),
            ("Misses: absent", "/misses/absent", Count),
            ("Misses: expired", "/misses/expired", Count),
            ("Misses: flushed", "/misses/flushed", Count),
            ("Connections", "/stats/curr_connections", Count),
            ("Most connections", "/stats/max_connections", Count),
        ],
    ),
    (
        "Memory",
        &[
            ("Limit", "/memory/limit", Bytes),
            ("Items", "/memory/items", Bytes),
            ("Index", "/memory/index", Bytes),
            ("Buffers", "/memory/buffers", Bytes),
            ("TLS", "/memory/tls", Bytes),
            ("Lent", "/memory/lent", Bytes),
            ("Free", "/memory/free", Bytes),
            ("Resident", "/memory/resident", Bytes),
        ],
    ),
];

const TABLES: &[Table] = &[
    Table { title: "Latency of the last 10 s", rows: Rows::Named("/latency_recent"), columns: LATENCY },
    Table { title: "Latency since start", rows: Rows::Named("/latency"), columns: LATENCY },
    Table {
        title: "Workers",
        rows: Rows::Of("/workers"),
        columns: &[
            ("Worker", "worker", Count),
            ("Busy", "busy", Ratio),
            ("Operations", "operations_per_second", Rate),
            ("Turns", "turns_per_second", Rate),
            ("Connections", "connections", Count),
        ],
    },
    Table {
        title: "Hot keys",
        rows: Rows::Of("/hot_keys/keys"),
        columns: &[
            ("Key", "key", Text),
            ("Share", "share", Ratio),
            ("Requests", "ops_per_second", Rate),
            ("Reads", "read_share", Ratio),
            ("Hits", "hit_ratio", Ratio),
        ],
    },
    Table {
        title: "Big keys",
        rows: Rows::Of("/big_keys"),
        columns: &[("Key", "key", Text), ("Size", "bytes", Bytes), ("Age", "age_seconds", Seconds)],
    },
    Table {
        title: "Prefixes",
        rows: Rows::Of("/prefixes"),
        columns: &[
            ("Prefix", "prefix", Prefix),
            ("Requests", "ops_per_second", Rate),
            ("Hit rate", "hit_ratio", Ratio),
            ("Memory", "bytes_held", Bytes),
            ("Hits per second and MiB", "hits_per_second_per_mib", Count),
            ("Mean TTL", "ttl_mean_seconds", Seconds),
        ],
    },
    Table {
        title: "Slab classes",
        rows: Rows::Of("/classes"),
        columns: &[
            ("Class", "class", Count),
            ("Chunk", "chunk_size", Bytes),
            ("Memory", "bytes", Bytes),
            ("Chunks", "chunks", Count),
            ("Used", "used_chunks", Count),
            ("Evictions", "evictions_per_second", Rate),
            ("Evicted idle for", "evicted_age_seconds", Seconds),
        ],
    },
    Table {
        title: "Slow requests",
        rows: Rows::Of("/slow"),
        columns: &[
            ("Time", "time", Moment),
            ("Service", "service_us", Microseconds),
            ("Wait", "wait_us", Microseconds),
            ("Worker", "worker", Count),
            ("Kind", "kind", Kind),
            ("Operations", "operations", Count),
            ("Command", "command", Text),
        ],
    },
];

const LATENCY: &[Column] = &[
    ("Kind", "name", Kind),
    ("Count", "count", Count),
    ("Mean", "mean_us", Microseconds),
    ("p50", "p50_us", Microseconds),
    ("p90", "p90_us", Microseconds),
    ("p99", "p99_us", Microseconds),
    ("p99.9", "p999_us", Microseconds),
    ("Max", "max_us", Microseconds),
];

/// The page, with the tables of a status as `/status.json` has it. A value that the status lacks is a dash.
pub fn render(status: &Value) -> String {
    let mut tables = head(status);
    for (title, rows) in LISTS {
        let lines = rows.iter().map(|(name, place, unit)| {
            let value = status.pointer(place).unwrap_or(&Value::Null);
            format!("<tr><td>{name}</td>{}</tr>", cell(value, *unit, status))
        });
        tables += &section(title, "<th>Name</th><th class=\"n\">Value</th>", &lines.collect::<String>());
    }
    for Table { title, rows, columns } in TABLES {
        let titles = columns.iter().map(|(title, _, unit)| format!("<th class=\"{}\">{title}</th>", class(*unit)));
        let lines = rows_of(status, rows).into_iter().map(|row| {
            let cells = columns.iter().map(|(_, name, unit)| cell(&row[*name], *unit, status));
            format!("<tr>{}</tr>", cells.collect::<String>())
        });
        tables += &section(title, &titles.collect::<String>(), &lines.collect::<String>());
    }
    PAGE.replacen(PLACEHOLDER, &tables, 1)
}

fn rows_of(status: &Value, rows: &Rows) -> Vec<Value> {
    match rows {
        Rows::Of(place) => status.pointer(place).and_then(Value::as_array).cloned().unwrap_or_default(),
        Rows::Named(place) => {
            let named = status.pointer(place).and_then(Value::as_object).into_iter().flatten();
            let rows = named.map(|(name, values)| {
                let mut row = values.clone();
                if let Some(values) = row.as_object_mut() {
                    values.insert("name".into(), name.as_str().into());
                }
                row
            });
            rows.collect()
        }
    }
}

/// The name, version and addresses of the server, and its health.
fn head(status: &Value) -> String {
    let server = &status["server"];
    let texts = |list: &Value| list.as_array().into_iter().flatten().map(plain).collect::<Vec<_>>().join(", ");
    let late = &status["health"]["late_workers"];
    let health = match (late.as_array().is_some_and(|late| !late.is_empty()), status["health"]["ready"].as_bool()) {
        (true, _) => format!("Workers that do not answer: {}", texts(late)),
        (false, Some(true)) => "Serving".into(),
        (false, _) => "Not ready: starting or draining".into(),
    };
    let facts = [
        plain(&server["version"]),
        plain(&server["host"]),
        texts(&server["listen"]),
        format!("up {}", words(&server["uptime_seconds"], Seconds, status)),
        format!("{} workers", plain(&server["workers"])),
        health,
    ];
    let facts = facts.map(|fact| format!("<p>{}</p>", escaped(&fact)));
    format!("<header><h1>corecached</h1>{}</header>", facts.concat())
}

/// A table with a title, or a sentence that it is empty.
fn section(title: &str, titles: &str, lines: &str) -> String {
    if lines.is_empty() {
        return format!("<section><h2>{title}</h2><p class=\"none\">Nothing to show.</p></section>");
    }
    format!(
        "<section><table><caption>{title}</caption><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></section>"
    )
}

fn cell(value: &Value, unit: Unit, status: &Value) -> String {
    format!("<td class=\"{}\">{}</td>", class(unit), escaped(&words(value, unit, status)))
}

/// Numbers stand at the right.
fn class(unit: Unit) -> &'static str {
    if matches!(unit, Text | Kind | Prefix) { "text" } else { "n" }
}

/// A value as people read it.
fn words(value: &Value, unit: Unit, status: &Value) -> String {
    let Some(number) = value.as_f64() else {
        return match unit {
            Text if value.is_string() => plain(value),
            Kind if value.is_string() => plain(value).replace('_', " "),
            Prefix if value.is_null() => "all others".into(),
            Prefix => plain(value),
            _ => "–".into(),
        };
    };
    match unit {
        Text | Kind | Prefix => plain(value),
        Count if number < 1000.0 && number.fract() != 0.0 => format!("{number:.1}"),
        Count => grouped(number),
        Rate if number < 10.0 => format!("{number:.1}/s"),
        Rate => format!("{}/s", grouped(number)),
        Ratio => format!("{:.1} %", number * 100.0),
        Bytes => scaled(number, &[("B", 1.0), ("KiB", 1024.0), ("MiB", 1024.0), ("GiB", 1024.0), ("TiB", 1024.0)]),
        Microseconds => scaled(number, &[("µs", 1.0), ("ms", 1000.0), ("s", 1000.0)]),
        Seconds => scaled(number, &[("s", 1.0), ("min", 60.0), ("h", 60.0), ("d", 24.0)]),
        Moment => {
            let ago = status["now"].as_f64().map_or(0.0, |now| (now - number).max(0.0));
            format!("{} ago", words(&ago.into(), Seconds, status))
        }
    }
}

/// A text as it is, and anything else as JSON has it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A number in the largest unit of which there is at least one. With each unit stands how many of the unit before it
/// make one.
fn scaled(mut number: f64, units: &[(&str, f64)]) -> String {
    let mut shown = units[0].0;
    for (unit, count) in &units[1..] {
        if number < *count {
            break;
        }
        number /= count;
        shown = unit;
    }
    let decimals = usize::from(number < 10.0 && number.fract() != 0.0);
    format!("{number:.decimals$} {shown}")
}

/// A whole number, with a comma after each three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The text as HTML has it, in an element or in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            // Control characters, and those that turn the direction of the text, as their numbers.
            '\0'..=' '
            | '\u{7f}'..='\u{9f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
                if letter != ' ' =>
            {
                html.extend(letter.escape_unicode());
            }
            _ => html.push(letter),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "now": 1000.0,
            "server": {"version": "0.1.0", "host": "<b>host</b>", "listen": ["127.0.0.1:11211", "unix:/a\"b"],
                "uptime_seconds": 7_200, "workers": 2},
            "health": {"ready": true, "late_workers": []},
            "stats": {"curr_items": 1_234_567},
            "memory": {"limit": 67_108_864, "items": 1_536},
            "misses": {"absent": 3},
            "latency": {"get_hit": {"count": 5, "p99_us": 41.5}},
            "latency_recent": {"get_hit": {"count": 5, "p99_us": 1_500}},
            "workers": [{"worker": 0, "busy": 0.314, "operations_per_second": 12_345.6}],
            "classes": [{"class": 1, "chunk_size": 96, "evicted_age_seconds": null}],
            "hot_keys": {"keys": [{"key": "<img src=x onerror=alert(1)>", "share": 0.031}]},
            "big_keys": [{"key": "a&b'c\n\u{202e}", "bytes": 65_536, "age_seconds": 90}],
            "prefixes": [{"prefix": "</table><script>", "hit_ratio": null}, {"prefix": null}],
            "slow": [{"time": 940.0, "service_us": 12_000, "command": "get user:1 <x>"}],
        })
    }

    #[test]
    fn a_page_without_tables_has_one_place_for_them() {
        for once in [PLACEHOLDER, "<script>", "</script>", "<style>", "</style>"] {
            assert_eq!(PAGE.matches(once).count(), 1, "{once}");
        }
        for never in [" style=", " onclick=", " onload=", "innerHTML", "http://", "https://", "eval("] {
            // The names of XML are no addresses to load from.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(never), "{never}");
        }
    }

    #[test]
    fn each_section_shows_its_values() {
        let page = render(&sample());
        for text in [
            "<p>0.1.0</p>",
            "<p>Serving</p>",
            "<p>up 2 h</p>",
            "<p>127.0.0.1:11211, unix:/a&quot;b</p>",
            "<td>Items</td><td class=\"n\">1,234,567</td>",
            "<td>Limit</td><td class=\"n\">64 MiB</td>",
            "<td class=\"n\">1.5 KiB</td>",
            "<td class=\"text\">get hit</td><td class=\"n\">5</td>",
            "<td class=\"n\">42 µs</td>",
            "<td class=\"n\">1.5 ms</td>",
            "<td class=\"n\">31.4 %</td>",
            "<td class=\"n\">12,346/s</td>",
            "<td class=\"n\">96 B</td>",
            "<td class=\"n\">3.1 %</td>",
            "<td class=\"n\">64 KiB</td><td class=\"n\">1.5 min</td>",
            "<td class=\"text\">all others</td>",
            "<td class=\"n\">1 min ago</td><td class=\"n\">12 ms</td>",
            "<td class=\"n\">–</td>",
        ] {
            assert!(page.contains(text), "{text}");
        }
        for Table { title, .. } in TABLES {
            assert!(page.contains(&format!("<caption>{title}</caption>")), "{title}");
        }
    }

    #[test]
    fn no_text_of_a_client_becomes_markup() {
        let page = render(&sample());
        for text in [
            "&lt;img src=x onerror=alert(1)&gt;",
            "a&amp;b&#39;c\\u{a}\\u{202e}",
            "&lt;/table&gt;&lt;script&gt;",
            "get user:1 &lt;x&gt;",
            "&lt;b&gt;host&lt;/b&gt;",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert_eq!(page.matches("<script>").count(), 1);
        assert!(!page.contains("<img") && !page.contains("<b>host"));
    }

    #[test]
    fn a_status_without_values_makes_a_whole_page() {
        for status in
            [json!({}), json!(null), json!({"hot_keys": null, "prefixes": null, "latency": null, "workers": [null]})]
        {
            let page = render(&status);
            assert!(page.contains("Nothing to show.") && page.ends_with("</html>\n"));
            assert!(page.contains("<td>Limit</td><td class=\"n\">–</td>"));
        }
    }

    #[test]
    fn health_is_in_words() {
        for (health, words) in [
            (json!({"ready": true, "late_workers": []}), "Serving"),
            (json!({"ready": false, "late_workers": []}), "Not ready: starting or draining"),
            (json!({"ready": true, "late_workers": [0, 3]}), "Workers that do not answer: 0, 3"),
        ] {
            assert!(render(&json!({ "health": health })).contains(&format!("<p>{words}</p>")), "{words}");
        }
    }
}
