//! The command line. Options become a plan, a comparison, a scaling task, a replay, a soak or a stampede; no other module sees them.

mod compare;
mod output;
mod protocols;
mod replay;
mod run;
mod scale;
mod soak;
mod stampede;
mod values;

use clap::{Parser, Subcommand};

pub use compare::CompareOptions;
pub use replay::ReplayOptions;
pub use run::RunOptions;
pub use scale::ScaleOptions;
pub use soak::SoakOptions;
pub use stampede::StampedeOptions;

/// Load generator for memcached-protocol servers.
#[derive(Parser)]
#[command(version, max_term_width = 120)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Put load on a server and report throughput, hit rate and latency
    Run(RunOptions),
    /// Run the same workloads against two servers in turn, each started on the same cores
    Compare(CompareOptions),
    /// Run workloads against two servers with one worker, two, four and so on
    Scale(ScaleOptions),
    /// Ask for the keys of a trace, set those that are missing, and report the miss ratio
    Replay(ReplayOptions),
    /// Start servers one after the other under many kinds of clients, and check all their replies and their memory
    Soak(SoakOptions),
    /// Let many clients want a value that expires, and count how often they ask the database, by protection
    Stampede(StampedeOptions),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
