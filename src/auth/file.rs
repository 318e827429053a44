//! The file of `--users`: a user on each line, with its verifier, rights and limits. `#` begins a remark.
//!
//! ```text
//!  name verifier [read] [write] [admin] [prefix=app1:,shared:] [connections=N] [ops=N/s] [bytes=N/s] [tls-name=CN]
//! ```
//! `-` in place of the verifier: nobody logs in as this user by password. The user `default` has none: it is those who do not
//! log in.

use super::user::{Prefix, Rate, Right, Rights};
use super::verifier::Verifier;
use std::fmt;

/// The name of the user for those who do not log in.
pub const DEFAULT: &str = "default";
/// The longest name of a user, in bytes.
const NAME_LEN_MAX: usize = 64;
/// The longest prefix: that of a key.
const PREFIX_LEN_MAX: usize = 250;
/// The most prefixes of a user. They are compared one by one.
const PREFIXES_MAX: usize = 16;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The name of the user.
    pub name: String,
    /// Its verifier, if it has one.
    pub verifier: Option<Verifier>,
    /// Its rights: at least one.
    pub rights: Rights,
    /// The prefixes of its keys. Empty: all keys.
    pub prefixes: Vec<Prefix>,
    /// `connections=`
    pub connections_max: Option<u64>,
    /// `ops=` and `bytes=`
    pub rate: Rate,
    /// `tls-name=`
    pub tls_name: Option<String>,
}

/// A mistake in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Reads a file.
///
/// # Errors
/// The first mistake. A file without users is one: nobody could use the server.
pub fn read(file: &[u8]) -> Result<Vec<Line>, Mistake> {
    let mut users: Vec<Line> = Vec::new();
    let mut last = 1;
    for (number, line) in (1..).zip(file.split(|&byte| byte == b'\n')) {
        last = number;
        let mistake = |what: String| Mistake { line: number, what };
        let line = str::from_utf8(line).map_err(|_| mistake("is not UTF-8".into()))?;
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let [name, words @ ..] = &words[..] else { continue };
        let user = read_user(name, words).map_err(mistake)?;
        if users.iter().any(|other| other.name == user.name) {
            return Err(mistake(format!("the user \"{name}\" has a line already")));
        }
        if let Some(name) = &user.tls_name
            && users.iter().any(|other| other.tls_name.as_ref() == Some(name))
        {
            return Err(mistake(format!("tls-name={name} is that of another user already")));
        }
        users.push(user);
    }
    if users.is_empty() {
        return Err(Mistake { line: last, what: "the file ends without a user".into() });
    }
    Ok(users)
}

fn read_user(name: &str, words: &[&str]) -> Result<Line, String> {
    if name.len() > NAME_LEN_MAX || name.contains([',', '=', ':']) {
        return Err(format!("a name has at most {NAME_LEN_MAX} bytes, and no comma, colon or equals sign: \"{name}\""));
    }
    let [verifier, words @ ..] = words else { return Err("a verifier or - comes after the name".into()) };
    let mut line = Line {
        name: name.to_owned(),
        verifier: match *verifier {
            "-" => None,
            text => {
                let expected = "SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>, from corecached password, or -";
                Some(Verifier::read(text).ok_or_else(|| format!("the verifier of \"{name}\" is not {expected}"))?)
            }
        },
        rights: Rights::NONE,
        prefixes: Vec::new(),
        connections_max: None,
        rate: Rate::default(),
        tls_name: None,
    };
    for word in words {
        read_word(word, &mut line)?;
    }
    check(line)
}

fn read_word(word: &str, line: &mut Line) -> Result<(), String> {
    if let Some(right) = Right::named(word) {
        line.rights.add(right);
        return Ok(());
    }
    let Some((name, value)) = word.split_once('=') else { return Err(format!("there is no right \"{word}\"")) };
    match name {
        "prefix" => {
            for prefix in value.split(',') {
                if !(1..=PREFIX_LEN_MAX).contains(&prefix.len()) || prefix.bytes().any(|byte| byte <= b' ') {
                    return Err(format!("prefix= takes beginnings of keys with commas between them: \"{value}\""));
                }
                line.prefixes.push(Prefix::new(prefix.as_bytes()));
            }
        }
        "connections" => line.connections_max = Some(number(word, value)?),
        "ops" => line.rate.operations = Some(number(word, value.strip_suffix("/s").unwrap_or_default())?),
        "bytes" => line.rate.bytes = Some(number(word, value.strip_suffix("/s").unwrap_or_default())?),
        "tls-name" if !value.is_empty() => line.tls_name = Some(value.to_owned()),
        _ => return Err(format!("\"{word}\" is no word of a user")),
    }
    Ok(())
}

fn number(word: &str, digits: &str) -> Result<u64, String> {
    let number = digits.parse().ok().filter(|number: &u64| (1..=1 << 50).contains(number));
    number.ok_or_else(|| format!("{word}: connections=N, ops=N/s and bytes=N/s take a number above 0"))
}

/// Checks the parts of a line against each other.
fn check(line: Line) -> Result<Line, String> {
    let name = &line.name;
    if line.rights == Rights::NONE {
        return Err(format!("\"{name}\" has no right: read, write or admin"));
    }
    if line.prefixes.len() > PREFIXES_MAX {
        return Err(format!("\"{name}\" has more than {PREFIXES_MAX} prefixes"));
    }
    if name == DEFAULT && (line.verifier.is_some() || line.tls_name.is_some()) {
        return Err(
            "\"default\" is for those who do not log in: it has - in place of a verifier, and no tls-name".into()
        );
    }
    if name != DEFAULT && line.verifier.is_none() && line.tls_name.is_none() {
        return Err(format!("nobody can become \"{name}\": it has neither a verifier nor a tls-name"));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                            wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_file_has_a_user_on_each_line() {
        let file = format!(
            "# users\n\nweb {VERIFIER} read write prefix=app1:,shared: connections=10 ops=500/s bytes=1000000/s # web\r\n\
             default - read\n   monitor - admin tls-name=monitor.example\n"
        );
        let users = read(file.as_bytes()).expect("a good file");
        let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["web", "default", "monitor"]);
        assert_eq!(users[0].verifier, Verifier::read(VERIFIER));
        assert_eq!(users[0].rights, Rights::READ_AND_WRITE);
        assert_eq!(users[0].prefixes, [Prefix::new(b"app1:"), Prefix::new(b"shared:")]);
        assert_eq!(users[0].rate, Rate { operations: Some(500), bytes: Some(1_000_000) });
        assert_eq!(users[0].connections_max, Some(10));
        assert_eq!((users[1].rights, &users[1].verifier), (Rights::READ, &None));
        assert_eq!(users[2].tls_name.as_deref(), Some("monitor.example"));
    }

    #[test]
    fn a_mistake_names_its_line() {
        for (file, line, words) in [
            ("".to_owned(), 1, "without a user"),
            ("# nobody\n\n".to_owned(), 3, "without a user"),
            ("\nweb".to_owned(), 2, "a verifier or - comes after the name"),
            ("web secret read".to_owned(), 1, "the verifier of \"web\" is not"),
            (format!("web {VERIFIER}"), 1, "has no right"),
            (format!("web {VERIFIER} raed"), 1, "there is no right \"raed\""),
            (format!("web {VERIFIER} read prefix="), 1, "prefix= takes"),
            (format!("web {VERIFIER} read prefix=a,,b"), 1, "prefix= takes"),
            (format!("web {VERIFIER} read prefix={}", "a,".repeat(16) + "a"), 1, "more than 16 prefixes"),
            (format!("web {VERIFIER} read ops=5"), 1, "take a number above 0"),
            (format!("web {VERIFIER} read ops=0/s"), 1, "take a number above 0"),
            (format!("web {VERIFIER} read connections=-1"), 1, "take a number above 0"),
            (format!("web {VERIFIER} read size=5"), 1, "is no word of a user"),
            (format!("web {VERIFIER} read tls-name="), 1, "is no word of a user"),
            (format!("a:b {VERIFIER} read"), 1, "a name has at most"),
            (format!("default {VERIFIER} read"), 1, "those who do not log in"),
            ("web - read".to_owned(), 1, "nobody can become \"web\""),
            (format!("web {VERIFIER} read\nweb {VERIFIER} write"), 2, "has a line already"),
            ("a - read tls-name=x\nb - read tls-name=x".to_owned(), 2, "that of another user already"),
        ] {
            let mistake = read(file.as_bytes()).expect_err(&file);
            assert!(mistake.line == line && mistake.what.contains(words), "{file:?}: {mistake}");
        }
        assert_eq!(read(b"\xff - read").expect_err("no text").to_string(), "line 1: is not UTF-8");
    }
}
