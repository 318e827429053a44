//! Prefixes of an entry of `-l`, in memcached's order: `mtls:proto[ascii]:tag[name]:address`.

use super::{BindingProtocol, Config, Listen, ListenRules};
use crate::exit::{EXIT_SYSTEM, Exit};
use crate::net::certificates::Verify;

/// Longest tag, in bytes: memcached keeps it in a number.
const TAG_LEN_MAX: usize = 8;

/// Removes the prefixes from an entry. Errors begin with memcached's words.
pub(super) fn read<'a>(entry: &'a str, config: &mut Config) -> Result<(&'a str, ListenRules), Exit> {
    let (rest, tls) = tls(entry, config)?;
    let (rest, protocol) = protocol(rest, config)?;
    let (rest, tag) = tag(rest)?;
    Ok((rest, ListenRules { tls, protocol, tag }))
}

fn refused(text: String) -> Exit {
    Exit::failure(EXIT_SYSTEM, text)
}

/// `notls:`, `btls:` or `mtls:`.
fn tls<'a>(entry: &'a str, config: &Config) -> Result<(&'a str, Option<Option<Verify>>), Exit> {
    let (name, rest) = entry.split_once(':').unwrap_or((entry, ""));
    let verify = match name {
        "notls" => None,
        "btls" => Some(Verify::None),
        "mtls" => Some(Verify::Require),
        _ => return Ok((entry, None)),
    };
    match config.tls.enabled {
        true => Ok((rest, Some(verify))),
        false => Err(refused(format!("'{name}' option is valid only when SSL is enabled"))),
    }
}

/// `proto[…]:`. As in memcached, the word may be cut short, and an unknown word has no effect.
fn protocol<'a>(entry: &'a str, config: &mut Config) -> Result<(&'a str, Option<BindingProtocol>), Exit> {
    let Some(spec) = entry.strip_prefix("proto").filter(|spec| spec.starts_with('[')) else { return Ok((entry, None)) };
    let Some((word, rest)) = spec[1..].split_once("]:") else {
        return Err(refused(format!("Invalid protocol spec: \"{spec}\"")));
    };
    let names = |name: &str| name.starts_with(word);
    let protocol = if names("ascii") {
        BindingProtocol::Ascii
    } else if names("binary") {
        BindingProtocol::Binary
    } else if names("negotiating") {
        BindingProtocol::Auto
    } else if names("proxy") {
        return Err(refused(format!("Proxy must be enabled to use: \"proto[{word}\"; there is none here")));
    } else {
        config.warnings.push(format!("-l {entry}: there is no protocol \"{word}\", so it is as -B says"));
        return Ok((rest, None));
    };
    // Clients that must log in can do so by one protocol only.
    match (config.login.text_file.is_some(), config.login.sasl_file.is_some(), protocol) {
        (true, _, BindingProtocol::Binary) => {
            Err(refused("Cannot use binary protocol when ascii authentication enabled".into()))
        }
        (_, true, BindingProtocol::Ascii) => Err(refused("Cannot use ascii protocol when SASL is enabled".into())),
        (true, ..) | (_, true, _) => Ok((rest, None)),
        (false, false, _) => Ok((rest, Some(protocol))),
    }
}

/// `tag[…]:` or `tag_…_:`.
fn tag(entry: &str) -> Result<(&str, Option<String>), Exit> {
    let Some(spec) = entry.strip_prefix("tag").filter(|spec| spec.starts_with(['[', '_'])) else {
        return Ok((entry, None));
    };
    let end = if spec.starts_with('[') { "]:" } else { "_:" };
    let Some((tag, rest)) = spec[1..].split_once(end) else {
        return Err(refused(format!("Invalid tag in socket config: \"{spec}\"")));
    };
    if !(1..=TAG_LEN_MAX).contains(&tag.len()) {
        return Err(refused(format!("Listener tags must be between 1 and 8 characters: \"{tag}\"")));
    }
    Ok((rest, Some(tag.to_owned())))
}

impl Config {
    /// What the prefixes say about the listener at this index of `listen.sockets`.
    pub fn rules(&self, at: usize) -> ListenRules {
        self.listen.rules.get(at).cloned().unwrap_or_default()
    }

    /// Whether clients of a listener must show certificates. None: the listener is not under TLS, as Unix sockets never are.
    pub fn verify(&self, at: usize) -> Option<Verify> {
        if !self.tls.enabled || matches!(self.listen.sockets[at], Listen::Unix { .. }) {
            return None;
        }
        self.rules(at).tls.unwrap_or(Some(self.tls.options.verify))
    }
}
