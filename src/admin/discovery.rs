//! `config get cluster`, by which clients discover the nodes of `--nodes`. memcached knows no command `config`.

use super::line::ERROR;
use super::query::{Action, say};
use crate::nodes::Nodes;

/// Anything else gets memcached's answer to a command that it does not know, and so does this without nodes.
pub(super) fn config(arguments: &[&[u8]], nodes: Option<&Nodes>) -> Action {
    match (arguments, nodes) {
        ([b"get", b"cluster"], Some(nodes)) => Action::Say(nodes.reply()),
        // A browser asks in vain.
        ([.., last], _) if last.starts_with(b"HTTP/") => Action::Quit,
        _ => say(ERROR),
    }
}
