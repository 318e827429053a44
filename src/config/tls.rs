//! `-Z`, and the words of `-o` that begin with `ssl_`.

use super::options::Suboption;
use super::{Config, KILOBYTE};
use crate::exit::Exit;
use crate::net::certificates::{KeyFormat, Verify};
use std::path::PathBuf;

/// More is sealed ahead by nobody.
const WRITE_KILOBYTES_MAX: u64 = 1024;
/// What `ssl_session_cache` keeps.
const SESSIONS_MAX: usize = 10_240;

/// A word that begins with `ssl_`; false if this is none of them. Errors are memcached's.
pub(super) fn setting(option: &Suboption<'_>, config: &mut Config) -> Result<bool, Exit> {
    let file = || option.argument().map(PathBuf::from);
    let unreadable = format!("could not parse argument to {}", option.name);
    let invalid = format!("Invalid {}. Use help to see valid options.", option.name);
    match option.name {
        "ssl_chain_cert" => config.tls.chain = Some(file()?),
        "ssl_key" => config.tls.key = Some(file()?),
        "ssl_ca_cert" => config.tls.authorities = Some(file()?),
        "ssl_ciphers" => config.tls.ciphers = Some(option.argument()?.to_owned()),
        "ssl_keyformat" => {
            config.tls.key_format = match option.argument()? {
                // memcached's help has names, its parser the numbers of OpenSSL.
                "1" | "PEM" => KeyFormat::Pem,
                "2" | "DER" | "ASN1" => KeyFormat::Der,
                "ENGINE" => return Err(Exit::usage("-o ssl_keyformat=ENGINE: there are no engines, keys are files")),
                _ => return Err(Exit::failure(1, unreadable)),
            }
        }
        "ssl_verify_mode" => {
            let mode = option.number(0, u32::MAX.into(), &unreadable)?;
            (config.tls.verify, config.tls_verify_bits) = match mode {
                0 => (Verify::None, 0),
                1 => (Verify::Request, 1),
                2 => (Verify::Require, 3),
                // Once, not again when renegotiating: there is no renegotiating.
                3 => (Verify::Require, 7),
                _ => return Err(Exit::failure(1, invalid)),
            };
        }
        "ssl_min_version" => {
            config.tls_min_version = match option.number(0, u32::MAX.into(), &unreadable)? {
                version @ 0..=3 => version as u8,
                _ => return Err(Exit::failure(1, invalid)),
            };
            config.tls.only_1_3 = config.tls_min_version == 3;
            if config.tls_min_version < 2 {
                let warning = format!("-o {}: TLS 1.0 and 1.1 are not spoken here, 1.2 is the least", option.word);
                config.warnings.push(warning);
            }
        }
        "ssl_wbuf_size" => {
            let given = option.number(0, u32::MAX.into(), &unreadable)?;
            let kilobytes = given.clamp(1, WRITE_KILOBYTES_MAX);
            if kilobytes != given {
                config.warnings.push(format!("-o {}: it is {kilobytes} here", option.word));
            }
            config.tls_limits.seal_max = (kilobytes * KILOBYTE) as usize;
            config.tls_write_buffer_bytes = given * KILOBYTE;
        }
        "ssl_session_cache" => config.tls.sessions_max = SESSIONS_MAX,
        "ssl_kernel_tls" => {
            config.tls_kernel = true;
            let why = "no effect here, records are sealed and opened by the workers";
            config.warnings.push(format!("-o {}: {why}", option.word));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// What must hold once all words are read.
pub(super) fn check(config: &mut Config) -> Result<(), Exit> {
    let tls = &config.tls;
    if !config.tls_enabled {
        if tls.chain.is_some() || tls.key.is_some() {
            config.warnings.push("-o ssl_...: without -Z there is no TLS".into());
        }
        return Ok(());
    }
    if tls.chain.is_none() {
        return Err(Exit::usage("Error loading the certificate chain: -Z needs -o ssl_chain_cert=<file>"));
    }
    if tls.authorities.is_some() {
        return Ok(());
    }
    let listeners = config.listen_rules.iter().filter_map(|rules| rules.tls?);
    if listeners.chain([tls.verify]).any(|verify| verify == Verify::Require) {
        // memcached starts, and serves nobody.
        return Err(Exit::usage("certificates of clients cannot be verified: -o ssl_ca_cert=<file> is missing"));
    }
    if tls.verify == Verify::Request {
        config.tls.verify = Verify::None;
        let warning = "-o ssl_verify_mode=1: no certificate is asked for, because -o ssl_ca_cert=<file> is missing";
        config.warnings.push(warning.into());
    }
    Ok(())
}
