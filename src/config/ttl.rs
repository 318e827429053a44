//! `--ttl`: rules for the time to live of items.
//!
//! ```text
//!  rule      [prefix] setting...        separated by spaces; the longest prefix that a key begins with decides
//!  setting   jitter=1% to jitter=90%
//!            default=DURATION  max=DURATION  early=DURATION
//!  duration  a number and s, m, h or d
//! ```

use super::Config;
use crate::exit::Exit;
use crate::ttl::{TtlRule, TtlRules};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// No key is longer, in bytes.
const PREFIX_LEN_MAX: usize = 250;
/// The longest duration in seconds: ten years.
const SECONDS_MAX: u32 = 3650 * DAY;
/// The longest and the shortest time of early misses in seconds.
const EARLY_SECONDS: std::ops::RangeInclusive<u32> = 2..=DAY;
const JITTER_PERCENT_MAX: u32 = 90;
const DAY: u32 = 24 * 60 * 60;

/// Reads a rule and adds it to the settings.
pub(super) fn rule(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    let rule = read(value.as_bytes())
        .and_then(|rule| check(rule, &config.ttl))
        .map_err(|why| Exit::usage(format!("--ttl '{}': {why}", value.to_string_lossy())))?;
    config.ttl.push(rule);
    Ok(())
}

fn read(text: &[u8]) -> Result<TtlRule, String> {
    let mut rule = TtlRule::default();
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).peekable();
    // A prefix may have a = as well, but then ends like a prefix.
    if let Some(prefix) = words.next_if(|word| !word.contains(&b'=') || word.ends_with(b":")) {
        if prefix.len() > PREFIX_LEN_MAX {
            return Err(format!("no key is longer than {PREFIX_LEN_MAX} bytes"));
        }
        rule.prefix = prefix.into();
    }
    if words.peek().is_none() {
        return Err("it has no setting: jitter=10%, default=1h, max=1d or early=30s".into());
    }
    for word in words {
        let word = String::from_utf8_lossy(word);
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!("\"{word}\" is no setting; the prefix comes first, and it has one"));
        };
        let (field, value) = match name {
            "jitter" => (&mut rule.jitter_percent, percent(value)?),
            "default" => (&mut rule.default_seconds, seconds(value)?),
            "max" => (&mut rule.max_seconds, seconds(value)?),
            "early" => (&mut rule.early_seconds, seconds(value)?),
            _ => return Err(format!("there is no setting \"{name}\", but jitter, default, max and early")),
        };
        if *field != 0 {
            return Err(format!("it sets {name} twice"));
        }
        *field = value;
    }
    Ok(rule)
}

/// Checks that a rule makes sense beside the others.
fn check(rule: TtlRule, others: &[TtlRule]) -> Result<TtlRule, String> {
    let TtlRule { ref prefix, default_seconds, max_seconds, early_seconds, .. } = rule;
    if others.iter().any(|other| other.prefix == *prefix) {
        let keys = if prefix.is_empty() { "all other keys" } else { "these keys" };
        return Err(format!("there is another rule for {keys}"));
    }
    if others.len() == TtlRules::COUNT_MAX {
        return Err(format!("there are more than {} rules", TtlRules::COUNT_MAX));
    }
    if max_seconds != 0 && default_seconds > max_seconds {
        return Err("default is longer than max".into());
    }
    if early_seconds != 0 && !EARLY_SECONDS.contains(&early_seconds) {
        return Err("early takes 2s to 1d".into());
    }
    if max_seconds != 0 && max_seconds < 2 * early_seconds {
        return Err(
            "early has no effect on items that live less than twice as long, and max lets none live longer".into()
        );
    }
    Ok(rule)
}

fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    let number = number.filter(|number| (1..=JITTER_PERCENT_MAX).contains(number));
    number.ok_or_else(|| format!("jitter takes 1% to {JITTER_PERCENT_MAX}%, not \"{text}\""))
}

/// Reads a duration, in seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || format!("a duration is a number and s, m, h or d, as 90s or 12h, from 1s to 3650d, not \"{text}\"");
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 60 * 60,
        Some(b'd') => DAY,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    let number: Option<u32> = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let seconds = number.and_then(|number| number.checked_mul(unit));
    seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(rules: &[&str]) -> Result<Vec<TtlRule>, String> {
        let mut args = vec![OsString::from("corecached")];
        args.extend(rules.iter().flat_map(|rule| ["--ttl".into(), rule.into()]));
        Config::parse_from(args).map(|config| config.ttl).map_err(|exit| format!("{} {exit}", exit.code))
    }

    #[test]
    fn rules_say_what_they_say() {
        for (text, prefix, fields) in [
            ("jitter=10%", "", [10, 0, 0, 0]),
            ("page: jitter=20% max=1d", "page:", [20, 0, 86_400, 0]),
            ("  p:q:  jitter=1%   default=1h max=2d early=30s ", "p:q:", [1, 3600, 172_800, 30]),
            ("sess_ default=90m", "sess_", [0, 5400, 0, 0]),
            ("a=b: early=1d", "a=b:", [0, 0, 0, 86_400]),
            ("max=3650d", "", [0, 0, 315_360_000, 0]),
        ] {
            let [jitter_percent, default_seconds, max_seconds, early_seconds] = fields;
            let prefix = prefix.as_bytes().into();
            let expected = TtlRule { prefix, jitter_percent, default_seconds, max_seconds, early_seconds };
            assert_eq!(read_all(&[text]), Ok(vec![expected]), "{text}");
        }
        assert_eq!(read_all(&["jitter=10%", "a: max=1s", "b max=1s"]).expect("they are valid").len(), 3);
        assert_eq!(read_all(&[]), Ok(Vec::new()));
    }

    #[test]
    fn mistakes_in_rules_are_explained() {
        let long = format!("{} max=1d", "p".repeat(251));
        for (rules, expected) in [
            (&[""][..], "--ttl '': it has no setting: jitter=10%, default=1h, max=1d or early=30s"),
            (&["page:"], "--ttl 'page:': it has no setting: jitter=10%, default=1h, max=1d or early=30s"),
            (&["jitter=0%"], "--ttl 'jitter=0%': jitter takes 1% to 90%, not \"0%\""),
            (&["jitter=91%"], "--ttl 'jitter=91%': jitter takes 1% to 90%, not \"91%\""),
            (&["jitter=10"], "--ttl 'jitter=10': jitter takes 1% to 90%, not \"10\""),
            (&["jiter=10%"], "--ttl 'jiter=10%': there is no setting \"jiter\", but jitter, default, max and early"),
            (&["a: b: max=1d"], "--ttl 'a: b: max=1d': \"b:\" is no setting; the prefix comes first, and it has one"),
            (&["max=1d max=2d"], "--ttl 'max=1d max=2d': it sets max twice"),
            (&["max=1d", "early=9s"], "--ttl 'early=9s': there is another rule for all other keys"),
            (&["a: max=1d", "a: early=9s"], "--ttl 'a: early=9s': there is another rule for these keys"),
            (&["default=2d max=1d"], "--ttl 'default=2d max=1d': default is longer than max"),
            (&["early=1s"], "--ttl 'early=1s': early takes 2s to 1d"),
            (&["early=2d"], "--ttl 'early=2d': early takes 2s to 1d"),
            (
                &["early=30s max=59s"],
                "--ttl 'early=30s max=59s': early has no effect on items that live less than twice",
            ),
            (&[&long], "no key is longer than 250 bytes"),
        ] {
            let said = read_all(rules).expect_err("a mistake");
            assert!(said.starts_with("64 ") && said.contains(expected), "{rules:?}: {said}");
        }
        for wrong in ["", "5", "s", "0s", "-1s", "+1s", "1w", "1.5h", "3651d", "99999999999d", "1 s"] {
            let said = read_all(&[&format!("max={wrong}")]).expect_err("no duration");
            assert!(said.starts_with("64 "), "{wrong}: {said}");
        }
    }
}
