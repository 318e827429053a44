//! `-Z`, and the words of `-o` that begin with `ssl_`.

use super::word::{Draft, Read, Shown, Suboption, Word};
use super::{Config, KILOBYTE};
use crate::exit::Exit;
use crate::net::certificates::{KeyFormat, Verify};
use Read::Value;

/// The largest `ssl_wbuf_size` that the server uses.
const WRITE_KILOBYTES_MAX: u64 = 1024;
/// Sessions that `ssl_session_cache` keeps.
const SESSIONS_MAX: usize = 10_240;

/// The words of `-o` that begin with `ssl_`.
pub(super) const WORDS: &[Word] = &[
    word(
        "ssl_chain_cert",
        "<file>",
        "Certificate of the server and its chain, PEM. refresh_certs and HUP read it again",
        Value(|option, draft| {
            draft.config.tls.options.chain = Some(option.argument()?.into());
            Ok(())
        }),
    ),
    word(
        "ssl_key",
        "<file>",
        "Private key of the server (default: in the file of the chain)",
        Value(|option, draft| {
            draft.config.tls.options.key = Some(option.argument()?.into());
            Ok(())
        }),
    ),
    word("ssl_keyformat", "<PEM|DER>", "Format of the key. 1 and 2 mean the same (default: PEM)", Value(key_format)),
    word(
        "ssl_verify_mode",
        "<0-3>",
        "Certificates of clients. 0: not asked for, 1: asked for, 2 and 3: required (default: 0)",
        Value(verify_mode),
    ),
    word(
        "ssl_ca_cert",
        "<file>",
        "Authorities of clients' certificates, PEM",
        Value(|option, draft| {
            draft.config.tls.options.authorities = Some(option.argument()?.into());
            Ok(())
        }),
    ),
    word(
        "ssl_min_version",
        "<0-3>",
        "Oldest version. 2: TLS 1.2, 3: TLS 1.3. 0 and 1 mean 2 (default: 2)",
        Value(min_version),
    ),
    word(
        "ssl_ciphers",
        "<list>",
        "Cipher suites of TLS 1.2, as OpenSSL lists them. The server has ECDHE with GCM or ChaCha20 only",
        Value(|option, draft| {
            draft.config.tls.options.ciphers = Some(option.argument()?.to_owned());
            Ok(())
        }),
    ),
    word(
        "ssl_session_cache",
        "",
        "Keep sessions of TLS 1.2 clients without tickets. Clients always get tickets (default: off)",
        Value(|_, draft| {
            draft.config.tls.options.sessions_max = SESSIONS_MAX;
            Ok(())
        }),
    ),
    Word {
        name: "ssl_wbuf_size",
        value: "<kilobytes>",
        help: "Bytes to seal before they are sent, 1 to 1024",
        default: Shown::Of(|config| (config.tls.limits.seal_max as u64 / KILOBYTE).to_string()),
        read: Value(write_buffer),
    },
    word(
        "ssl_kernel_tls",
        "",
        "Has no effect: the workers seal and open all records",
        Value(|option, draft| {
            draft.config.shown.tls_kernel = true;
            let why = "no effect here, records are sealed and opened by the workers";
            draft.config.warnings.push(format!("-o {}: {why}", option.word));
            Ok(())
        }),
    ),
];

const fn word(name: &'static str, value: &'static str, help: &'static str, read: Read) -> Word {
    Word { name, value, help, default: Shown::No, read }
}

fn key_format(option: &Suboption<'_>, draft: &mut Draft) -> Result<(), Exit> {
    draft.config.tls.options.key_format = match option.argument()? {
        // memcached's help shows names, and its parser takes OpenSSL's numbers.
        "1" | "PEM" => KeyFormat::Pem,
        "2" | "DER" | "ASN1" => KeyFormat::Der,
        "ENGINE" => return Err(Exit::usage("-o ssl_keyformat=ENGINE: there are no engines, keys are files")),
        _ => return Err(Exit::failure(1, "could not parse argument to ssl_keyformat")),
    };
    Ok(())
}

fn verify_mode(option: &Suboption<'_>, draft: &mut Draft) -> Result<(), Exit> {
    let config = &mut draft.config;
    (config.tls.options.verify, config.shown.tls_verify_bits) = match option.number_32()? {
        0 => (Verify::None, 0),
        1 => (Verify::Request, 1),
        2 => (Verify::Require, 3),
        // OpenSSL's mode 3 asks once, and not when the two sides renegotiate. This server never renegotiates.
        3 => (Verify::Require, 7),
        _ => return Err(invalid(option)),
    };
    Ok(())
}

fn min_version(option: &Suboption<'_>, draft: &mut Draft) -> Result<(), Exit> {
    let config = &mut draft.config;
    config.shown.tls_min_version = match option.number_32()? {
        version @ 0..=3 => version as u8,
        _ => return Err(invalid(option)),
    };
    config.tls.options.only_1_3 = config.shown.tls_min_version == 3;
    if config.shown.tls_min_version < 2 {
        let warning = format!("-o {}: TLS 1.0 and 1.1 are not spoken here, 1.2 is the least", option.word);
        config.warnings.push(warning);
    }
    Ok(())
}

fn write_buffer(option: &Suboption<'_>, draft: &mut Draft) -> Result<(), Exit> {
    let config = &mut draft.config;
    let given = option.number_32()?;
    let kilobytes = given.clamp(1, WRITE_KILOBYTES_MAX);
    if kilobytes != given {
        config.warnings.push(format!("-o {}: it is {kilobytes} here", option.word));
    }
    config.tls.limits.seal_max = (kilobytes * KILOBYTE) as usize;
    config.shown.tls_write_buffer_bytes = given * KILOBYTE;
    Ok(())
}

fn invalid(option: &Suboption<'_>) -> Exit {
    Exit::failure(1, format!("Invalid {}. Use help to see valid options.", option.name))
}

/// Checks the settings of TLS against each other, when the whole command line is read.
pub(super) fn check(config: &mut Config) -> Result<(), Exit> {
    let tls = &config.tls.options;
    if !config.tls.enabled {
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
    let listeners = config.listen.rules.iter().filter_map(|rules| rules.tls?);
    if listeners.chain([tls.verify]).any(|verify| verify == Verify::Require) {
        // memcached starts, but refuses every client.
        return Err(Exit::usage("certificates of clients cannot be verified: -o ssl_ca_cert=<file> is missing"));
    }
    if tls.verify == Verify::Request {
        config.tls.options.verify = Verify::None;
        let warning = "-o ssl_verify_mode=1: no certificate is asked for, because -o ssl_ca_cert=<file> is missing";
        config.warnings.push(warning.into());
    }
    Ok(())
}
