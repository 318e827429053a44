//! `corecached print`: files that belong to the server and are embedded in the binary, so that whoever has the binary has
//! them too. `.ci/deb` makes the packages from them.

mod man;

use super::failure::Failure;
use clap::Command;
use clap_complete::Shell;
use corecached::config;
use std::io::{self, Write};

const ALERTS: &str = include_str!("../../service/alerts.yaml");
const CONFIG: &str = include_str!("../../service/corecached.conf");
const CONTAINER: &str = include_str!("../../service/Containerfile");
const DASHBOARD: &str = include_str!("../../service/dashboard.json");
const METRICS_SOCKET: &str = include_str!("../../service/corecached-metrics.socket");
const SOCKET: &str = include_str!("../../service/corecached.socket");
const SYSCONFIG: &str = include_str!("../../service/sysconfig.conf");
const SYSUSERS: &str = include_str!("../../service/corecached.sysusers");
const TMPFILES: &str = include_str!("../../service/corecached.tmpfiles");
const UNIT: &str = include_str!("../../service/corecached.service");

/// Print a file that belongs to the server: units for systemd, settings, the man page, a dashboard and others
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
enum File {
    /// A Grafana dashboard, to import as JSON
    Dashboard,
    /// Alerting rules for Prometheus, to name under rule_files
    Alerts,
    /// The unit for systemd: /etc/systemd/system/corecached.service
    Unit,
    /// A socket unit, with which systemd listens: /etc/systemd/system/corecached.socket
    Socket,
    /// The same for --metrics: /etc/systemd/system/corecached-metrics.socket
    MetricsSocket,
    /// A part for the unit that takes the flags from /etc/sysconfig/memcached:
    /// /etc/systemd/system/corecached.service.d/sysconfig.conf
    Sysconfig,
    /// The user of the unit: /etc/sysusers.d/corecached.conf
    Sysusers,
    /// Huge pages for --keep-memory: /etc/tmpfiles.d/corecached.conf
    Tmpfiles,
    /// The flags that the unit reads: /etc/corecached.conf
    Config,
    /// The man page, for section 1
    Man,
    /// What a shell completes
    Completions {
        /// The shell
        #[arg(value_parser = clap::builder::EnumValueParser::<Shell>::new())]
        shell: Shell,
    },
    /// A Containerfile, for podman or docker
    Container,
}

/// Prints a file. `tool` has all commands, for the man page and the completions.
pub(super) fn run(args: &Args, tool: &Command) -> Result<(), Failure> {
    Ok(io::stdout().lock().write_all(&bytes(args.what, tool)?)?)
}

fn bytes(what: File, tool: &Command) -> io::Result<Vec<u8>> {
    let text = match what {
        File::Dashboard => DASHBOARD,
        File::Alerts => ALERTS,
        File::Unit => UNIT,
        File::Socket => SOCKET,
        File::MetricsSocket => METRICS_SOCKET,
        File::Sysconfig => SYSCONFIG,
        File::Sysusers => SYSUSERS,
        File::Tmpfiles => TMPFILES,
        File::Config => CONFIG,
        File::Container => CONTAINER,
        File::Man => return man::page(&config::command_line(), tool),
        File::Completions { shell } => return Ok(completions(shell, tool)),
    };
    Ok(text.as_bytes().to_vec())
}

/// The completions of the server's flags and of all commands.
fn completions(shell: Shell, tool: &Command) -> Vec<u8> {
    let mut all = config::command_line().subcommands(tool.get_subcommands().cloned());
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut all, "corecached", &mut text);
    text
}

#[cfg(test)]
mod tests;
