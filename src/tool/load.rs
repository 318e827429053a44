//! `corecached load`: the items of a file into servers.

use super::failure::Failure;
use super::target::ServerArgs;
use super::transfer::ended::{Ended, Trouble, said};
use super::transfer::interrupt::Interrupt;
use super::transfer::item::unix_now;
use super::transfer::options::PaceArgs;
use super::transfer::pace::{Pace, units};
use super::transfer::store::Store;
use super::transfer::tally::Tally;
use super::transfer::text::Reader;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

/// Store the items of a file in servers, where they are not there yet
///
/// Stores the items of a file that corecached dump or memcached-tool has written. A key that a server has stays as it is:
/// what the server has is newer, also if a client stores it meanwhile. Only a key that a client deletes meanwhile may come
/// back with its old value. Items that have expired since are left out, the others live as long as they have left.
///
/// With several servers, each gets its keys by libmemcached's ketama, as clients with pylibmc's "ketama" look for them.
///
/// After an interruption, --skip goes on behind the items that have come through. Without it, all are sent again, which
/// does no harm.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file, or - for standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// Leave out the first N items of the file
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let targets = args.servers.targets()?;
    let unreadable = |error: io::Error| Failure::Usage(format!("{}: {error}", args.file));
    let (input, length): (Box<dyn BufRead>, Option<u64>) = match args.file.as_str() {
        "-" => (Box::new(BufReader::with_capacity(1 << 16, io::stdin())), None),
        path => {
            let file = File::open(path).map_err(unreadable)?;
            let length = file.metadata().map_err(unreadable)?;
            if length.is_dir() {
                return Err(unreadable(io::ErrorKind::IsADirectory.into()));
            }
            (Box::new(BufReader::with_capacity(1 << 16, file)), Some(length.len()))
        }
    };
    let interrupt = Interrupt::watch()?;
    let pace = Pace::new(args.pace.rate);
    let mut store = Store::open(&targets, pace.batch_items()).map_err(said)?;
    let mut load = Load { args, length, interrupt, tally: Tally::new() };
    let mut reader = Reader::new(input);
    let result = load.items(&mut reader, &mut store, pace);
    // What came before a mistake in the file, or before a signal, is stored.
    let result = match store.finish(&mut load.tally.counts) {
        Err(trouble) if result.is_ok() => Err(trouble),
        _ => result,
    };
    load.tally.clear();
    let summary = load.tally.summary("stored");
    match result {
        Ok(Ended::AtEnd | Ended::AtLimit) => eprintln!("corecached: {summary}"),
        _ => {
            let skip = store.settled().max(args.skip.min(reader.items));
            eprintln!("corecached: {summary}; not complete: go on with --skip {skip}");
        }
    }
    if args.pace.json {
        writeln!(io::stdout(), "{}", load.tally.json("stored", matches!(result, Ok(Ended::AtEnd))))?;
    }
    match result {
        Err(trouble) => Err(said(trouble)),
        Ok(Ended::Interrupted) => Err(Failure::Reported),
        Ok(_) if load.tally.counts.has_failures() => Err(Failure::Reported),
        Ok(_) => Ok(()),
    }
}

#[derive(Debug)]
struct Load<'a> {
    args: &'a Args,
    /// Bytes of the file. A pipe has 0, standard input none.
    length: Option<u64>,
    interrupt: Interrupt,
    tally: Tally,
}

impl Load<'_> {
    fn items(
        &mut self,
        reader: &mut Reader<impl BufRead>,
        store: &mut Store,
        mut pace: Pace,
    ) -> Result<Ended, Trouble> {
        let batch = pace.batch_items() as u64;
        let (mut cost, mut number) = (0, 0);
        loop {
            if self.interrupt.has_come() {
                return Ok(Ended::Interrupted);
            }
            let item =
                reader.next(unix_now()).map_err(|error| Trouble::Input(format!("{}: {error}", self.args.file)))?;
            let Some(item) = item else { return Ok(Ended::AtEnd) };
            number += 1;
            if number <= self.args.skip {
                continue;
            }
            if item.left == Some(0) {
                self.tally.counts.expired += 1;
                continue;
            }
            store.put(&item, number, &mut self.tally.counts)?;
            cost += units(item.bytes());
            if cost >= batch {
                pace.wait(cost, &self.interrupt);
                cost = 0;
                self.tally.done =
                    self.length.filter(|&length| length > 0).map(|length| reader.bytes as f64 / length as f64);
                self.tally.show("load");
            }
        }
    }
}
