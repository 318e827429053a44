//! `corecached dump`: the items of a server into a file.

use super::failure::Failure;
use super::target::ServerArgs;
use super::transfer::ended::{Ended, Trouble, said};
use super::transfer::interrupt::Interrupt;
use super::transfer::item::{Item, unix_now};
use super::transfer::options::PickArgs;
use super::transfer::source::Source;
use super::transfer::tally::{Counts, Tally};
use super::transfer::text::put_item;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Write the items of a server to a file
///
/// Writes the items of servers to standard output or a file, in the form of memcached-tool's dump: commands "add KEY
/// FLAGS EXPTIME LENGTH", each with its value, and "ms KEY-IN-BASE64 …" for keys with a space or a control character.
/// corecached load reads them, and any server takes them as they are. Several servers come one after the other.
///
/// Of a server with --users, this needs the rights read and admin. The server serves on meanwhile. Fetches do not count as uses of an item, so they do not change what it evicts. Items
/// that are stale, or that a client is just about to fill, are left out. While the list of keys is read, which lasts as
/// long as the dump unless --by-access is given, the server crawls for expired items less, and memcached does not grow
/// its hash table.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  corecached dump -o items --server old:11211\n  corecached dump --prefix user: | gzip > \
    users.gz\n  zcat users.gz | corecached load - --server new:11211"
)]
pub(super) struct Args {
    /// Write to this file, and replace it when all is done: until then, the new one is FILE.new. Default: standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    pick: PickArgs,
    #[command(flatten)]
    servers: ServerArgs,
}

/// Where the items go.
#[derive(Debug)]
enum Output {
    Stdout(BufWriter<io::Stdout>),
    /// A file, and the path that it gets when all is done.
    File(BufWriter<File>, PathBuf, PathBuf),
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.pick.pace.json && args.output.is_none() {
        return Err(Failure::Usage("--json needs --output: standard output has the items".into()));
    }
    let targets = args.servers.targets()?;
    let interrupt = Interrupt::watch()?;
    let mut output = Output::open(args.output.as_deref())?;
    let mut tally = Tally::new();
    let mut buffer = Vec::new();
    let mut result = Ok(Ended::AtEnd);
    for target in &targets {
        // The limit is one for all servers.
        let limit = args.pick.limit.map(|limit| limit.saturating_sub(tally.counts.bytes));
        let pick = PickArgs { limit, ..args.pick.clone() };
        let source = Source { target, pick: &pick, interrupt: &interrupt, name: "dump" };
        result = source.read(&mut tally, |item, counts| {
            output.put(item, &mut buffer).map_err(Trouble::Output)?;
            count(item, counts);
            Ok(())
        });
        if !matches!(result, Ok(Ended::AtEnd)) {
            break;
        }
    }
    tally.clear();
    let part = output.finish(matches!(result, Ok(Ended::AtEnd | Ended::AtLimit)), tally.counts.items == 0)?;
    let summary = tally.summary("dumped");
    match (&result, part) {
        (Err(Trouble::Output(_)), _) => {}
        (_, Some(part)) => eprintln!("corecached: {summary}; not complete: {} has a part", part.display()),
        (Ok(Ended::Interrupted) | Err(_), None) => eprintln!("corecached: {summary}; not complete"),
        (Ok(Ended::AtLimit), _) => eprintln!("corecached: {summary}; ended by --limit"),
        (Ok(Ended::AtEnd), _) => eprintln!("corecached: {summary}"),
    }
    if args.pick.pace.json {
        writeln!(io::stdout(), "{}", tally.json("dumped", result.as_ref().is_ok_and(|ended| *ended == Ended::AtEnd)))?;
    }
    match result {
        Err(trouble) => Err(said(trouble)),
        Ok(Ended::Interrupted) => Err(Failure::Reported),
        Ok(_) if tally.counts.has_failures() => Err(Failure::Reported),
        Ok(_) => Ok(()),
    }
}

fn count(item: &Item<'_>, counts: &mut Counts) {
    counts.items += 1;
    counts.bytes += item.bytes();
}

impl Output {
    fn open(path: Option<&Path>) -> Result<Output, Failure> {
        let Some(path) = path else { return Ok(Output::Stdout(BufWriter::with_capacity(1 << 16, io::stdout()))) };
        let unwritable =
            |path: &Path, error: io::Error| Failure::Usage(format!("--output {}: {error}", path.display()));
        // What is no plain file, as /dev/null or a pipe, cannot be replaced.
        let is_replaced = fs::metadata(path).map_or(true, |metadata| metadata.is_file());
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let written = if is_replaced { PathBuf::from(new) } else { path.to_owned() };
        // Values are nobody else's business.
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&written);
        let file = opened.map_err(|error| unwritable(&written, error))?;
        Ok(Output::File(BufWriter::with_capacity(1 << 16, file), written, path.to_owned()))
    }

    fn put(&mut self, item: &Item<'_>, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        put_item(buffer, item, unix_now());
        match self {
            Output::Stdout(out) => out.write_all(buffer),
            Output::File(out, ..) => out.write_all(buffer),
        }
    }

    /// Writes what is left. Returns the path of a file that is no complete one; an empty one goes.
    fn finish(self, is_complete: bool, is_empty: bool) -> io::Result<Option<PathBuf>> {
        match self {
            Output::Stdout(mut out) => out.flush().map(|()| None),
            Output::File(mut out, written, path) => {
                out.flush()?;
                if !is_complete && is_empty && written != path {
                    return fs::remove_file(&written).map(|()| None);
                }
                if !is_complete {
                    return Ok((written != path).then_some(written));
                }
                if written != path {
                    out.get_ref().sync_all()?;
                    fs::rename(&written, &path)?;
                }
                Ok(None)
            }
        }
    }
}
