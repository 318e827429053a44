//! Options of `loadtest stampede`: a [`Stampede`].

use std::time::Duration;

use clap::Args;

use super::values::Seconds;
use crate::stampede::Stampede;

#[derive(Args)]
pub struct StampedeOptions {
    /// Command that starts the server; the program appends a port and --ttl [default: the corecached beside this
    /// program, with -u root -t 4 -c 2048]
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,

    /// Clients of each key
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=300))]
    clients: u32,

    /// How long a value lives, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(4..=3600))]
    ttl: u32,

    /// How long before its end one client may ask the database, in seconds; at most half of --ttl
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=1800))]
    early: u32,

    /// How long the database takes, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    database: u64,

    /// Length of the load, longer than --ttl
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    seconds: Seconds,
}

impl StampedeOptions {
    /// The task that these options describe.
    pub fn stampede(self) -> Result<Stampede, String> {
        if 2 * self.early > self.ttl {
            return Err("--early is at most half of --ttl: items that live shorter have no early miss".into());
        }
        let (time, ttl) = (self.seconds.0, Duration::from_secs(u64::from(self.ttl)));
        if time <= ttl {
            return Err("--seconds is longer than --ttl, so that the value expires at least once".into());
        }
        let beside = || {
            let own = std::env::current_exe().map_err(|error| format!("no path of this program: {error}"))?;
            Ok(format!("{} -u root -t 4 -c 2048", own.with_file_name("corecached").display()))
        };
        Ok(Stampede {
            command: self.command.map_or_else(beside, Ok::<_, String>)?,
            clients: self.clients as usize,
            ttl_seconds: self.ttl,
            early_seconds: self.early,
            database: Duration::from_millis(self.database),
            time,
        })
    }
}
