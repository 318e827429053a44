//! `corecached print`: files that belong to the server and are embedded in the binary.

use super::failure::Failure;
use std::io::{self, Write};

const DASHBOARD: &str = include_str!("../service/dashboard.json");
const ALERTS: &str = include_str!("../service/alerts.yaml");

/// Print a Grafana dashboard or Prometheus alerts for the metrics of corecached
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    what: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum File {
    /// A Grafana dashboard, to import as JSON
    Dashboard,
    /// Alerting rules for Prometheus, to name under rule_files
    Alerts,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let text = match args.what {
        File::Dashboard => DASHBOARD,
        File::Alerts => ALERTS,
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests;
