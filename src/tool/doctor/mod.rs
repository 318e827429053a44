//! `corecached doctor`: looks for what is wrong with this machine and with servers.
//!
//! ```text
//!  mod                       which machines and servers, the screen, the exit code
//!   ├ report                 verdicts as text and as JSON
//!   ├ observe                asks servers, twice
//!   └ checks/                pure functions from facts to verdicts, in two tables
//!      └ local               the facts about a machine: machine, process; files reads them below a folder
//!         └ server           the facts about a server, from its replies
//!            └ finding       what a check can say
//! ```

mod checks;
mod files;
mod finding;
mod local;
mod machine;
mod observe;
mod process;
mod report;
mod server;
#[cfg(test)]
mod tests;

use super::cores;
use super::failure::Failure;
use super::show;
use super::table::Style;
use super::target::{ServerArgs, Target};
use files::Root;
use finding::examine;
use local::{Local, Occupant};
use machine::Machine;
use observe::Depth;
use process::Process;
use report::{About, Report};
use serde_json::Value;
use server::Server;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Look for what is wrong with this machine and with servers; exit with 0 or 1
///
/// Checks this machine (limits, queues, huge pages, swap, NUMA, clock, cgroups) against what its server wants, and each
/// server by what it does in some seconds (evictions, classes, connections, workers, keys, refusals). Prints a
/// paragraph for each finding: what is, what should be, why, and lines that change it. Such a line is a command of a
/// shell, or begins with where it belongs: "flag:" the command line of the server, "unit:" its systemd unit,
/// "server:" a connection to it. Prints nothing and exits with 0 if all is well, else with 1. Works with memcached too,
/// which cannot tell all. Changes nothing itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  corecached doctor                      this machine and the server on it\n  \
    corecached doctor --machine --verbose  this machine alone, with all that was checked\n  corecached doctor \
    --server cache7:11211\nA server on another machine is checked without its machine: run the command there, too.")]
pub(super) struct Args {
    /// Check this machine alone. A server here is asked for what it wants
    #[arg(long)]
    machine: bool,
    /// Check the servers alone
    #[arg(long, conflicts_with = "machine")]
    no_machine: bool,
    /// How long to watch the servers
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = show::seconds)]
    seconds: Duration,
    /// Tell of all checks, also of those that found nothing or could not be made
    #[arg(short, long)]
    verbose: bool,
    /// Print JSON: an array with an object for the machine and one for each server
    #[arg(long)]
    json: bool,
    /// Read the files of /proc and /sys below this folder
    #[arg(long, value_name = "FOLDER", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let root = Root(args.root.clone());
    if !root.path("proc").is_dir() {
        return Err(Failure::Usage(format!("--root {}: it has no folder proc", args.root.display())));
    }
    let targets = args.servers.targets()?;
    let depth = if args.machine { Depth::Glance } else { Depth::Watch(args.seconds) };
    if matches!(depth, Depth::Watch(_)) && io::stderr().is_terminal() {
        eprintln!("corecached: watching for {} …", show::span(args.seconds.as_secs_f64()));
    }
    let answers = observe::servers(&root, &targets, depth);
    let mut has_failed = false;
    for (target, answer) in targets.iter().zip(&answers) {
        if let Err(error) = answer {
            has_failed |= !args.machine;
            let end = if args.machine { ": this machine is checked for a server without flags" } else { "" };
            eprintln!("corecached: {}: {error}{end}", target.name);
        }
    }
    let servers: Vec<(&Target, Server)> =
        targets.iter().zip(answers).filter_map(|(target, answer)| Some((target, answer.ok()?))).collect();
    let mut reports = Vec::new();
    if !args.no_machine {
        reports.extend(machine(&root, args.machine, &targets, &servers));
    }
    if !args.machine {
        reports.extend(servers.iter().map(|(_, server)| Report {
            about: About::Server(server.name.clone()),
            verdicts: examine(checks::SERVER, server),
        }));
    }
    print(args, &reports)?;
    if has_failed || reports.iter().any(Report::has_findings) { Err(Failure::Reported) } else { Ok(()) }
}

/// What there is to say about this machine: for each server on it, or for a server to come. Nothing, if all servers are
/// on other machines and nobody has asked for this one.
fn machine(root: &Root, is_asked_for: bool, targets: &[Target], servers: &[(&Target, Server)]) -> Vec<Report> {
    let machine = Machine::read(root);
    let here = servers.iter().filter(|(target, _)| observe::is_here(target)).map(|(_, server)| server);
    let mut occupants: Vec<(Vec<String>, Occupant)> = here
        .map(|server| {
            let folder = cores::process_of(&root.0, &server.after.snapshot.stats);
            let process = folder.map(|folder| Process::read(root, &folder));
            (vec![server.name.clone()], Occupant::Server(Box::new(server.clone()), process))
        })
        .collect();
    if occupants.is_empty() && (is_asked_for || targets.iter().any(observe::is_here)) {
        occupants.push((Vec::new(), Occupant::Nobody(Process::read(root, &process::own_folder(root)))));
    }
    let mut reports: Vec<Report> = Vec::new();
    for (names, occupant) in occupants {
        let verdicts = examine(checks::MACHINE, &Local { machine: machine.clone(), occupant });
        // Servers for which all is the same share a report.
        match reports.iter_mut().find(|report| report.verdicts == verdicts) {
            Some(Report { about: About::Machine(others), .. }) => others.extend(names),
            _ => reports.push(Report { about: About::Machine(names), verdicts }),
        }
    }
    reports
}

fn print(args: &Args, reports: &[Report]) -> Result<(), Failure> {
    for report in reports {
        let untold = report.untold();
        if let (About::Server(name), false) = (&report.about, untold.is_empty() || args.json) {
            eprintln!("corecached: {name} is no corecached, and does not tell enough for: {}", untold.join(", "));
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", reports.iter().map(Report::json).collect::<Value>())?;
    } else {
        let texts = reports.iter().map(|report| report.text(Style::of_stdout(), args.verbose));
        let texts: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
        out.write_all(texts.join("\n").as_bytes())?;
    }
    Ok(out.flush()?)
}
