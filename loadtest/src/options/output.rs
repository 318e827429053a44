//! Options for the results of a comparison.

use std::path::PathBuf;

use clap::Args;

// A comment for the documentation here would become the help of the commands that have these options.
#[derive(Args, Clone)]
pub struct OutputOptions {
    /// Also write the tables to this file, as markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Also write plots into this directory, as SVG
    #[arg(long, value_name = "DIRECTORY")]
    pub plots: Option<PathBuf>,

    /// Print one JSON object, with every round
    #[arg(long)]
    pub json: bool,

    /// No progress on the terminal
    #[arg(long, short)]
    pub quiet: bool,
}
