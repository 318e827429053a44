//! Options of `loadtest soak`: a [`Soak`].

use std::time::Duration;

use clap::Args;

use super::values::Seconds;
use crate::soak::Soak;

#[derive(Args)]
pub struct SoakOptions {
    /// Command that starts the server; the program appends ports, TLS, UDP, -m and -e [default: the corecached beside
    /// this program, with -u root -t 2]
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,

    /// Megabytes of the cache
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(128..=65536))]
    memory: u64,

    /// Length of the soak; it tries everything if this is 20 seconds or more
    #[arg(long, value_name = "SECONDS", conflicts_with = "minutes")]
    seconds: Option<Seconds>,

    /// Length of the soak in minutes [default: 60]
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u32>,

    /// Print no line for each check of a server at rest
    #[arg(long, short)]
    quiet: bool,
}

impl SoakOptions {
    /// The soak that these options describe.
    pub fn soak(self) -> Result<Soak, String> {
        let beside = || {
            let own = std::env::current_exe().map_err(|error| format!("no path of this program: {error}"))?;
            Ok(format!("{} -u root -t 2", own.with_file_name("corecached").display()))
        };
        let minutes = Duration::from_secs(60 * u64::from(self.minutes.unwrap_or(60)));
        Ok(Soak {
            command: self.command.map_or_else(beside, Ok::<_, String>)?,
            megabytes: self.memory,
            time: self.seconds.map_or(minutes, |seconds| seconds.0),
            quiet: self.quiet,
        })
    }
}
