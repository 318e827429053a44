//! Numbers as memcached reads them: the value is the number that the text begins with, and a warning reports the rest.

use crate::exit::Exit;
use std::ops::RangeInclusive;

/// The integer that a text begins with, as `atoi` reads it. 0 if the text begins with none.
pub(super) fn leading_integer(what: &str, text: &str, warnings: &mut Vec<String>) -> i64 {
    let trimmed = text.trim_ascii_start();
    let sign_len = usize::from(trimmed.starts_with(['+', '-']));
    let digits = trimmed[sign_len..].bytes().take_while(u8::is_ascii_digit).count();
    let (read, rest) = trimmed.split_at(if digits == 0 { 0 } else { sign_len + digits });
    let huge = if read.starts_with('-') { i64::MIN } else { i64::MAX };
    let value = if read.is_empty() { 0 } else { read.parse().unwrap_or(huge) };
    if !rest.is_empty() || read.is_empty() {
        warnings.push(format!("{what}: \"{text}\" is read as {value}, as in memcached"));
    }
    value
}

/// The same within limits. Outside of them the error is `otherwise`, with code 1.
pub(super) fn leading_number(
    what: &str,
    text: &str,
    limits: RangeInclusive<u64>,
    otherwise: &str,
    warnings: &mut Vec<String>,
) -> Result<u64, Exit> {
    u64::try_from(leading_integer(what, text, warnings))
        .ok()
        .filter(|value| limits.contains(value))
        .ok_or_else(|| Exit::failure(1, otherwise))
}

/// The finite decimal fraction that a text begins with, as `atof` reads it.
pub(super) fn leading_decimal(what: &str, text: &str, warnings: &mut Vec<String>) -> Option<f64> {
    let trimmed = text.trim_ascii_start();
    // Try every length, the longest first: the texts are short.
    let lengths = (1..=trimmed.len()).rev().filter(|&length| trimmed.is_char_boundary(length));
    let (length, value) = lengths.filter_map(|length| Some((length, trimmed[..length].parse::<f64>().ok()?))).next()?;
    if length < trimmed.len() {
        warnings.push(format!("{what}: \"{text}\" is read as {value}, as in memcached"));
    }
    Some(value).filter(|value| value.is_finite())
}
