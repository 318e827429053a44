//! Readers of values: what stands behind a flag, made a setting.

use super::numbers::{leading_integer, leading_number};
use super::{BindingProtocol, Config, KILOBYTE, Listen, MEGABYTE, MEMORY_MEGABYTES_MAX, Observing};
use crate::exit::{EXIT_USAGE, Exit};
use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The value as text. Bytes that are not UTF-8 become a character that no number and no name has.
pub(super) fn text(value: &OsString) -> String {
    value.to_string_lossy().into_owned()
}

pub(super) fn positive(
    what: &str,
    value: &OsString,
    max: u64,
    otherwise: &str,
    config: &mut Config,
) -> Result<u64, Exit> {
    leading_number(what, &text(value), 1..=max, otherwise, &mut config.warnings)
}

/// A number of a flag that memcached does not have: it must be all of the value.
pub(super) fn own_number(flag: &str, value: &OsString, limits: RangeInclusive<u64>) -> Result<u64, Exit> {
    let number = text(value).parse().ok().filter(|number| limits.contains(number));
    let (least, most) = (limits.start(), limits.end());
    number.ok_or_else(|| Exit::usage(format!("{flag} takes a number from {least} to {most}: \"{}\"", text(value))))
}

pub(super) fn unix_mask(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    let text = text(value);
    let digits = text.bytes().take_while(|digit| (b'0'..=b'7').contains(digit)).count();
    // Like `strtol`, take a text without digits for 0, and take modes that no file can have.
    config.listen.unix_mask = u32::from_str_radix(&text[..digits], 8).unwrap_or(0);
    if digits < text.len() || digits == 0 || config.listen.unix_mask > 0o777 {
        config.warnings.push(format!("-a: \"{text}\" is read as {:o}, as in memcached", config.listen.unix_mask));
    }
    Ok(())
}

pub(super) fn protocol(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    config.listen.protocol = match text(value).as_str() {
        "auto" => BindingProtocol::Auto,
        "ascii" => BindingProtocol::Ascii,
        "binary" => BindingProtocol::Binary,
        other => {
            return Err(Exit::usage(format!(
                "Invalid value for binding protocol: {other}\n -- should be one of auto, binary, or ascii"
            )));
        }
    };
    Ok(())
}

pub(super) fn udp_allow(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    for network in text(value).split(',').filter(|network| !network.is_empty()) {
        let network = network.parse().map_err(|()| {
            Exit::usage(format!("--udp-allow takes addresses and networks, as 10.0.0.0/8: \"{network}\""))
        })?;
        config.udp.allow.push(network);
    }
    Ok(())
}

/// `--metrics`: an entry as of `-l`, a port of loopback, or `unix:` and a path.
pub(super) fn metrics(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    let text = text(value);
    let wrong = || Exit::usage(format!("--metrics takes host:port, a port of loopback, or unix:path: \"{text}\""));
    let listen = if let Some(path) = value.as_bytes().strip_prefix(b"unix:") {
        let path = Path::new(OsStr::from_bytes(path)).to_owned();
        // The mask follows when all flags are read.
        Some(Listen::Unix { path, mask: 0 }).filter(|_| value.len() > "unix:".len()).ok_or_else(wrong)?
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Listen::Loopback { port: text.parse().map_err(|_| wrong())? }
    } else {
        Listen::from_entry(&text, Observing::PORT).map_err(|_| wrong())?
    };
    if !config.observing.addresses.contains(&listen) {
        config.observing.addresses.push(listen);
    }
    Ok(())
}

pub(super) fn memory_limit(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    let otherwise = "-m takes a number of megabytes, not below 0 and at most 16777216";
    let megabytes = leading_number("-m", &text(value), 0..=MEMORY_MEGABYTES_MAX, otherwise, &mut config.warnings)
        .map_err(|exit| Exit { code: EXIT_USAGE, ..exit })?;
    config.memory.limit_bytes = megabytes * MEGABYTE;
    Ok(())
}

/// `-I`: bytes, or a number with `k` or `m`. As in memcached, its limits are checked when all flags are read.
pub(super) fn max_item_size(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    let text = text(value);
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], KILOBYTE),
        Some(b'm' | b'M') => (&text[..text.len() - 1], MEGABYTE),
        _ => (text.as_str(), 1),
    };
    let size = leading_integer("-I", digits, &mut config.warnings).max(0) as u64;
    config.memory.item_size_max = size.saturating_mul(unit);
    Ok(())
}

pub(super) fn delimiter(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    match *value.as_bytes() {
        [] | [b' ' | b'\t'..=b'\r', ..] => return Err(Exit::failure(1, "No delimiter specified")),
        [byte, ref rest @ ..] => {
            config.detail.delimiter = byte;
            if !rest.is_empty() {
                config.warnings.push(format!("-D takes one character: \"{}\"", char::from(byte)));
            }
        }
    }
    config.detail.enabled = true;
    Ok(())
}

pub(super) fn verbose(value: &OsString, config: &mut Config) -> Result<(), Exit> {
    let text = text(value);
    if !text.is_empty() {
        config.warnings.push(format!("--verbose={text}: its value is not used; -vv is more than -v"));
    }
    config.process.verbosity = config.process.verbosity.saturating_add(1);
    Ok(())
}
