//! The nodes of a cluster, as the file of `--nodes` lists them, and the reply to `config get cluster`. Clients that
//! discover their servers ask for it again and again, and use a list whose version is larger than that of theirs.
//!
//! ```text
//!  CONFIG cluster 0 57\r\n                  57: bytes of the two lines below with their ends
//!  12\n                                     the version
//!  one.example|10.0.0.1|11211 two.example|10.0.0.2|11211\n
//!  \r\n
//!  END\r\n
//! ```
//!
//! This module reads text and writes the reply. `server/nodes.rs` reads the file and resolves the names, in a thread of
//! its own. A worker copies the bytes, and waits for nothing.
//!
//! The form is that of Amazon ElastiCache, as parsers of clients demand it: always three parts to a node; an IPv4 address
//! in the second if there is one, because some clients use it alone and some find no node without it; a line feed before
//! the `\r\n`, because some clients read up to there.

use parking_lot::RwLock;
use std::collections::HashSet;
use std::fmt::{self, Write};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

/// The most nodes of a file.
pub const NODES_MAX: usize = 1000;
/// The port of a node without one.
const PORT: u16 = 11211;
/// The longest name of the Domain Name System.
const NAME_LENGTH_MAX: usize = 253;
/// The largest version: clients keep it as a signed number.
const VERSION_MAX: u64 = i64::MAX as u64;

/// Nodes, and the version of their list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeList {
    /// It grows with each change.
    pub version: u64,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    /// A host name, or an address.
    name: String,
    address: IpAddr,
    port: u16,
}

/// The mistake in a file of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The number of the line, from 1. None: the file as a whole.
    pub line: Option<usize>,
    what: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl NodeList {
    /// Reads the text of a file. `age_version` is the version of a file without a line `version`. `resolve` finds the
    /// addresses of a name; names with an address beside them are not resolved.
    ///
    /// # Errors
    /// The first line that is wrong or whose name has no address; a file without nodes, or with more than [`NODES_MAX`].
    pub fn from_text(
        text: &[u8],
        age_version: u64,
        mut resolve: impl FnMut(&str) -> io::Result<Vec<IpAddr>>,
    ) -> Result<NodeList, Malformed> {
        let text = std::str::from_utf8(text).map_err(|error| {
            let before = &text[..error.valid_up_to()];
            at(1 + memchr::memchr_iter(b'\n', before).count(), "it is no text (UTF-8)")
        })?;
        let mut version = None;
        let mut nodes: Vec<Node> = Vec::new();
        let mut seen = HashSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
            if line.is_empty() {
                continue;
            }
            if line.split_whitespace().next() == Some("version") {
                let word = line["version".len()..].trim();
                if version.replace(read_version(word).map_err(|what| at(number, what))?).is_some() {
                    return Err(at(number, "a second version"));
                }
                continue;
            }
            if nodes.len() == NODES_MAX {
                return Err(at(number, format!("more than {NODES_MAX} nodes")));
            }
            let node = Node::read(line, &mut resolve).map_err(|what| at(number, what))?;
            if !seen.insert((node.name.to_ascii_lowercase(), node.port)) {
                return Err(at(number, format!("\"{line}\" is there twice")));
            }
            nodes.push(node);
        }
        if nodes.is_empty() {
            return Err(Malformed { line: None, what: "it lists no node".to_owned() });
        }
        Ok(NodeList { version: version.map_or(age_version.max(1), NonZeroU64::get), nodes })
    }

    /// The number of nodes, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a list has at least one node")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The name, the address and the port of each node.
    pub fn iter(&self) -> impl Iterator<Item = (&str, IpAddr, u16)> {
        self.nodes.iter().map(|node| (node.name.as_str(), node.address, node.port))
    }

    /// Whether both list the same nodes, whatever their versions.
    pub fn has_nodes_of(&self, other: &NodeList) -> bool {
        self.nodes == other.nodes
    }

    /// The reply to `config get cluster`.
    fn reply(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.version);
        for (number, Node { name, address, port }) in self.nodes.iter().enumerate() {
            let gap = if number == 0 { "" } else { " " };
            write!(text, "{gap}{name}|{address}|{port}").expect("writing to memory cannot fail");
        }
        text.push('\n');
        format!("CONFIG cluster 0 {}\r\n{text}\r\nEND\r\n", text.len()).into_bytes()
    }
}

impl Node {
    /// Reads `name[|ip][:port]`.
    fn read(line: &str, resolve: &mut impl FnMut(&str) -> io::Result<Vec<IpAddr>>) -> Result<Node, String> {
        let (name, address, port) = match line.split_once('|') {
            Some((name, rest)) => {
                let (address, port) = split_port(rest)?;
                let address = address.parse().map_err(|_| format!("\"{address}\" is no IP address"))?;
                (name, Some(address), port)
            }
            None => {
                let (name, port) = split_port(line)?;
                (name, None, port)
            }
        };
        // The address of a name that is one.
        let literal: Option<IpAddr> = name.parse().ok();
        if literal.is_none() {
            check_name(name)?;
        }
        let address = match address.or(literal) {
            Some(address) => address,
            None => resolved(name, resolve)?,
        };
        Ok(Node { name: name.to_owned(), address, port })
    }
}

/// Splits `host`, `host:port`, `[IPv6]:port` or `IPv6` into the host and the port.
fn split_port(text: &str) -> Result<(&str, u16), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if rest.is_empty() || rest.starts_with(':') => (host, rest.strip_prefix(':')),
        Some(_) => return Err(format!("\"{text}\" has something other than a port behind its brackets")),
        // An IPv6 address without brackets has no port.
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => PORT,
        Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or_else(|| format!("\"{port}\" is no port"))?,
    };
    Ok((host, port))
}

fn check_name(name: &str) -> Result<(), String> {
    let is_good = |letter: u8| letter.is_ascii_alphanumeric() || b".-_".contains(&letter);
    if name.is_empty() {
        return Err("a node without a name".to_owned());
    }
    if name.len() > NAME_LENGTH_MAX || !name.bytes().all(is_good) {
        return Err(format!("\"{name}\" is no host name"));
    }
    Ok(())
}

/// The first IPv4 address of a name, or else its first address.
fn resolved(name: &str, resolve: &mut impl FnMut(&str) -> io::Result<Vec<IpAddr>>) -> Result<IpAddr, String> {
    let addresses = resolve(name).map_err(|error| format!("\"{name}\" cannot be resolved: {error}"))?;
    let ipv4 = addresses.iter().find(|address| address.is_ipv4());
    ipv4.or(addresses.first()).copied().ok_or_else(|| format!("\"{name}\" has no address"))
}

fn read_version(word: &str) -> Result<NonZeroU64, String> {
    let version = word.parse().ok().filter(|version: &NonZeroU64| version.get() <= VERSION_MAX);
    version.ok_or_else(|| format!("\"{word}\" is no version: it takes a whole number from 1 to {VERSION_MAX}"))
}

fn at(line: usize, what: impl Into<String>) -> Malformed {
    Malformed { line: Some(line), what: what.into() }
}

/// The present nodes of the cluster.
#[derive(Debug)]
pub struct Nodes(RwLock<Arc<Known>>);

#[derive(Clone, Debug)]
struct Known {
    list: NodeList,
    reply: Vec<u8>,
}

impl Nodes {
    /// Begins with a list.
    pub fn new(list: NodeList) -> Nodes {
        Nodes(RwLock::new(Nodes::known(list)))
    }

    fn known(list: NodeList) -> Arc<Known> {
        Arc::new(Known { reply: list.reply(), list })
    }

    /// Replaces the list, and returns the old one.
    pub fn replace(&self, list: NodeList) -> NodeList {
        let known = Nodes::known(list);
        let old = std::mem::replace(&mut *self.0.write(), known);
        Arc::unwrap_or_clone(old).list
    }

    /// The reply to `config get cluster`, some tens of kilobytes at most.
    pub fn reply(&self) -> Vec<u8> {
        let known = Arc::clone(&self.0.read());
        known.reply.clone()
    }

    /// The number of nodes.
    pub fn count(&self) -> usize {
        self.0.read().list.len()
    }
}

#[cfg(test)]
mod tests;
