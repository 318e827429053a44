//! Options for the protocols of two servers.

use clap::Args;

use crate::program::{Program, Spoken};

// A comment for the documentation here would become the help of the commands that have these options.
#[derive(Args)]
pub struct Protocols {
    /// Protocol of the baseline server [default: resp for redis-server, valkey-server, keydb-server and dragonfly, which
    /// get options of their own instead of -p, -t, -m and -c; text for any other program]
    #[arg(long, value_name = "NAME", value_enum)]
    baseline_protocol: Option<Spoken>,

    /// Protocol of the candidate server, in the same way
    #[arg(long, value_name = "NAME", value_enum)]
    candidate_protocol: Option<Spoken>,
}

impl Protocols {
    /// The programs of these commands.
    pub fn programs(&self, baseline: String, candidate: String) -> [Program; 2] {
        [Program::new(baseline, self.baseline_protocol), Program::new(candidate, self.candidate_protocol)]
    }
}
