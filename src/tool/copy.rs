//! `corecached copy`: the items of a server into others.

use super::failure::Failure;
use super::target::{SourceArgs, Target, WayArgs};
use super::transfer::ended::{Ended, said};
use super::transfer::interrupt::Interrupt;
use super::transfer::options::PickArgs;
use super::transfer::pace::Pace;
use super::transfer::source::Source;
use super::transfer::store::Store;
use super::transfer::tally::Tally;
use std::io::{self, Write};

/// Copy the items of a server into others, where they are not there yet
///
/// Reads the items of server A and stores them in server B: to warm a new node before it takes traffic, or while it does.
/// With several servers behind A, each gets its keys by libmemcached's ketama, as clients with pylibmc's "ketama" look
/// for them: name the servers as the clients do.
///
/// A key that B has stays as it is: what B has is newer, also if a client stores it meanwhile. Only a key that a client
/// deletes from B meanwhile may come back with its old value. Running copy again does no harm, and goes on after an
/// interruption. What is said of the server that is read, by corecached help dump, holds here too.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  corecached copy old:11211 new:11211 --by-access --rate 50000\n  corecached copy a:11211 \
    b:11211 c:11211 d:11211 --prefix user:"
)]
pub(super) struct Args {
    /// The server to read from, as HOST, HOST:PORT, [IPv6]:PORT or the path of a Unix socket
    #[arg(value_name = "A")]
    from: String,
    /// The servers that get the items
    #[arg(value_name = "B", required = true)]
    to: Vec<String>,
    #[command(flatten)]
    pick: PickArgs,
    #[command(flatten)]
    way: WayArgs,
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let from = args.way.for_source(&args.source).named(std::slice::from_ref(&args.from))?.remove(0);
    let to = args.way.named(&args.to)?;
    check(&from, &to)?;
    let interrupt = Interrupt::watch()?;
    let mut store = Store::open(&to, Pace::new(args.pick.pace.rate).batch_items()).map_err(said)?;
    let (mut tally, mut number) = (Tally::new(), 0);
    let source = Source { target: &from, pick: &args.pick, interrupt: &interrupt, name: "copy" };
    let result = source.read(&mut tally, |item, counts| {
        number += 1;
        store.put(item, number, counts)
    });
    let result = match store.finish(&mut tally.counts) {
        Err(trouble) if result.is_ok() => Err(trouble),
        _ => result,
    };
    tally.clear();
    let summary = tally.summary("copied");
    match result {
        Ok(Ended::AtEnd) => eprintln!("corecached: {summary}"),
        Ok(Ended::AtLimit) => eprintln!("corecached: {summary}; ended by --limit"),
        _ => eprintln!("corecached: {summary}; not complete: run it again, what is there stays"),
    }
    if args.pick.pace.json {
        writeln!(io::stdout(), "{}", tally.json("copied", matches!(result, Ok(Ended::AtEnd))))?;
    }
    match result {
        Err(trouble) => Err(said(trouble)),
        Ok(Ended::Interrupted) => Err(Failure::Reported),
        Ok(_) if tally.counts.has_failures() => Err(Failure::Reported),
        Ok(_) => Ok(()),
    }
}

/// Finds servers that are named twice.
fn check(from: &Target, to: &[Target]) -> Result<(), Failure> {
    if to.iter().any(|target| target.address == from.address) {
        return Err(Failure::Usage(format!("{} would be copied into itself", from.name)));
    }
    for (at, target) in to.iter().enumerate() {
        if to[..at].iter().any(|other| other.address == target.address) {
            return Err(Failure::Usage(format!("{} is named twice", target.name)));
        }
    }
    Ok(())
}
