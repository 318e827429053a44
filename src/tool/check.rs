//! `corecached check`: does the server answer? For health checks of containers and scripts.

use super::client::Connection;
use super::failure::{Failure, in_words};
use super::show;
use super::target::{ServerArgs, Target};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// A health check wants an answer soon.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Ask servers whether they answer; exit with 0 or 1
///
/// Connects to each server, sends `mn` (`version` to servers that do not know it), and prints a line. Exits with 0 if
/// all servers answer, else with 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "In a container: HEALTHCHECK CMD [\"/corecached\", \"check\"]")]
pub(super) struct Args {
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut has_failed = false;
    for target in args.servers.targets_within(TIMEOUT)? {
        match answer(&target) {
            Ok(time) => {
                let time = show::micros(time.as_secs_f64() * 1e6);
                writeln!(io::stdout(), "{}: ok, answered {time} after the connection began", target.name)?;
            }
            Err(error) => {
                eprintln!("{}: {}", target.name, in_words(&error));
                has_failed = true;
            }
        }
    }
    if has_failed { Err(Failure::Reported) } else { Ok(()) }
}

fn answer(target: &Target) -> io::Result<Duration> {
    let start = Instant::now();
    Connection::open(target)?.ping()?;
    Ok(start.elapsed())
}
