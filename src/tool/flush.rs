//! `corecached flush`: drops the keys of a prefix, or all keys, on many servers at once.

use super::client::Connection;
use super::failure::{Failure, in_words};
use super::target::{ServerArgs, Target};
use corecached::nodes::NodeList;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Most servers that are asked at the same time.
const THREADS_MAX: usize = 64;
/// The longest prefix in bytes: that of a key.
const PREFIX_LENGTH_MAX: usize = 250;

/// Drop the keys of a prefix, or all keys, on servers
///
/// Tells every server to forget the keys that begin with a prefix (corecached alone), or all keys. Prints a line for each
/// server. Exits with 0 if all servers have done it, else with 1: then keys may be left on some.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Args {
    /// Drop the keys that begin with this, as "user:"
    #[arg(long, group = "what", value_parser = prefix)]
    prefix: Option<String>,
    /// Let the next client that asks for a key of the prefix recache it, and give the others the old value meanwhile
    #[arg(long, requires = "prefix", conflicts_with = "all")]
    stale: bool,
    /// Drop all keys. Asks first
    #[arg(long, group = "what")]
    all: bool,
    /// Do not ask before --all
    #[arg(long, requires = "all", conflicts_with = "prefix")]
    yes: bool,
    /// The servers in a file as of the server's own --nodes
    #[arg(long, value_name = "FILE", conflicts_with = "servers", help_heading = "Servers")]
    nodes: Option<PathBuf>,
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let targets = match &args.nodes {
        Some(path) => args.servers.nodes(&read_nodes(path)?)?,
        None => args.servers.targets()?,
    };
    if args.all && !args.yes && !may_empty(&targets)? {
        return Err(Failure::Reported);
    }
    let line = match &args.prefix {
        Some(prefix) if args.stale => format!("flush_prefix {prefix} stale"),
        Some(prefix) => format!("flush_prefix {prefix}"),
        None => "flush_all".to_owned(),
    };
    let mut has_failed = false;
    for (target, result) in targets.iter().zip(ask_all(&targets, &line)) {
        match result {
            Ok(()) => writeln!(io::stdout(), "{}: flushed", target.name)?,
            Err(error) => {
                eprintln!("{}: {}", target.name, in_words(&error));
                has_failed = true;
            }
        }
    }
    if has_failed { Err(Failure::Reported) } else { Ok(()) }
}

/// Reads a prefix that fits a command line.
fn prefix(text: &str) -> Result<String, String> {
    let is_bad = |letter: char| letter.is_control() || letter.is_whitespace();
    match text {
        "" => Err("it is empty; --all drops all keys".into()),
        _ if text.len() > PREFIX_LENGTH_MAX => Err(format!("it has more than {PREFIX_LENGTH_MAX} bytes")),
        _ if text.contains(is_bad) => Err("no key has a space or a control character".into()),
        _ => Ok(text.to_owned()),
    }
}

fn read_nodes(path: &Path) -> Result<NodeList, Failure> {
    let wrong = |line: Option<usize>, what: &dyn std::fmt::Display| {
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        Failure::Usage(format!("--nodes {}{line}: {what}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| wrong(None, &error))?;
    let resolve = |name: &str| -> io::Result<Vec<IpAddr>> {
        Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    };
    NodeList::from_text(&text, 1, resolve).map_err(|error| wrong(error.line, &error))
}

/// Asks the user of a terminal.
fn may_empty(targets: &[Target]) -> Result<bool, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Usage("--all needs --yes where nobody can be asked".into()));
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    eprint!("This drops all keys of {}. Go on? [y/N] ", names.join(", "));
    Ok(agrees(stdin.lock())?)
}

fn agrees(mut input: impl BufRead) -> io::Result<bool> {
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Sends a line to all servers, and returns what each said in their order.
fn ask_all(targets: &[Target], line: &str) -> Vec<io::Result<()>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut results = Vec::new();
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&at| at < targets.len()) {
            results.push((at, ask(&targets[at], line)));
        }
        results
    };
    let mut results: Vec<(usize, io::Result<()>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..targets.len().min(THREADS_MAX)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
    });
    results.sort_by_key(|&(at, _)| at);
    results.into_iter().map(|(_, result)| result).collect()
}

fn ask(target: &Target, line: &str) -> io::Result<()> {
    let reply = Connection::open(target)?.ask(line)?;
    understand(&reply).map_err(io::Error::other)
}

/// What a reply means. An error says it in words.
fn understand(reply: &str) -> Result<(), String> {
    match reply {
        "OK" => Ok(()),
        "ERROR" => Err("it does not know this command: corecached flushes prefixes, memcached only all keys".into()),
        _ if reply.contains("unauthenticated") => Err("the server wants a login: --user and --password-file".into()),
        _ => {
            let error = reply.strip_prefix("CLIENT_ERROR ").or(reply.strip_prefix("SERVER_ERROR "));
            Err(error.map_or_else(|| format!("it says \"{reply}\""), |error| format!("it refuses: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ok_is_success() {
        let understood = |reply| understand(reply).expect_err("no success");
        assert_eq!(understand("OK"), Ok(()));
        assert!(understood("ERROR").starts_with("it does not know this command"));
        assert_eq!(
            understood("SERVER_ERROR out of memory for flushed prefixes"),
            "it refuses: out of memory for flushed prefixes"
        );
        assert_eq!(understood("CLIENT_ERROR flush_all not allowed"), "it refuses: flush_all not allowed");
        assert!(understood("CLIENT_ERROR unauthenticated").contains("--user"));
        assert_eq!(understood("VALUE a 0 1"), "it says \"VALUE a 0 1\"");
    }

    #[test]
    fn a_prefix_is_the_beginning_of_a_key() {
        assert_eq!(prefix("user:42:"), Ok("user:42:".into()));
        assert!(prefix(&"x".repeat(250)).is_ok() && prefix(&"x".repeat(251)).is_err());
        for bad in ["", "a b", "a\r\nflush_all", "a\tb", "a\u{7f}"] {
            assert!(prefix(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_yes_agrees() {
        for (answer, expected) in
            [("y\n", true), ("YES\n", true), ("yes", true), ("\n", false), ("", false), ("ye\n", false)]
        {
            assert_eq!(agrees(answer.as_bytes()).expect("no error"), expected, "{answer:?}");
        }
    }
}
