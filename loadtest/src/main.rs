//! Load generator for memcached-protocol servers, and for servers that speak RESP.
//!
//! `loadtest run` puts load on a server and reports throughput, hit rate and latency. `loadtest compare` does so for two
//! servers in turn, and `loadtest scale` over numbers of workers. `loadtest replay` asks for the keys of a trace and counts the misses. `loadtest soak` starts a server
//! again and again under every kind of client, and checks its replies and its memory. `loadtest stampede` counts how
//! often clients ask the database for a value that expires. All see the server only through
//! sockets, and through the system's figures about a process.
//!
//! Reading order: [`options`] become a [`plan`] of a [`workload`] (or a [`preset`]); [`mod@run`] starts one [`worker`] per
//! thread, whose [`client`]s write [`request`]s and match [`reply`]s with them; [`keys`], [`zipf`], [`random`] and
//! [`pace`] say which key, and when; [`tally`] counts, and [`report`] prints.
//!
//! The client must be faster than any server: one write and one read per batch, no allocation, no formatting and no
//! clock per request, nothing shared between threads.

#![allow(clippy::print_stdout, reason = "the report on standard output is what this program is for")]
#![allow(unreachable_pub, reason = "a program exports nothing: pub is what other files of it use")]

// The task.
mod options;
mod plan;
mod preset;
mod workload;

// A run, its threads, their connections.
mod run;
mod worker;

mod client;
mod reply;
mod request;
mod resp;

// Keys, bytes, and times.
mod keys;
mod pace;
mod random;
mod zipf;

// Results.
mod report;
mod tail;
mod tally;

// `compare` and `scale`: two servers in turn.
mod compare;
mod pair;
mod scale;

// `replay`, `soak`, `stampede`, and code that several commands share.
mod datagrams;
mod disturb;
mod mix;
mod program;
mod replay;
mod server;
mod soak;
mod stampede;
mod storm;

mod address;
mod certificate;
mod cpus;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use options::{
    Command, CompareOptions, Options, ReplayOptions, RunOptions, ScaleOptions, SoakOptions, StampedeOptions,
};

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Run(options) => run(options),
        Command::Compare(options) => compare(options),
        Command::Scale(options) => scale(options),
        Command::Replay(options) => replay(options),
        Command::Soak(options) => soak(options),
        Command::Stampede(options) => stampede(options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("loadtest: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Returns `Ok(false)` if the run ended with errors or wrong replies.
fn run(options: RunOptions) -> Result<bool, String> {
    if let Some(listing) = options.listing() {
        print!("{listing}");
        return Ok(true);
    }
    let (quiet, json) = (options.quiet, options.json);
    let report = run::run(options.plan()?, quiet, &stop_on_signal()?)?;
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    for complaint in report.complaints() {
        eprintln!("loadtest: {complaint}");
    }
    Ok(report.is_clean())
}

/// An error of either server fails its row, because the figures of a failing server mean nothing. The other rows still
/// run and are written; the program fails at its end.
fn compare(options: CompareOptions) -> Result<bool, String> {
    if let Some(listing) = options.listing() {
        print!("{listing}");
        return Ok(true);
    }
    let output = options.output.clone();
    let comparison = options.comparison()?;
    let results = comparison.run(&stop_on_signal()?, |outcome| {
        if !output.json {
            println!("{}", outcome.text());
        }
    })?;
    if output.json {
        println!("{}", results.json());
    }
    if let Some(path) = &output.markdown {
        results.write_markdown(path)?;
    }
    if let Some(directory) = &output.plots {
        results.write_plots(directory)?;
    }
    Ok(none_failed(&results.failed()))
}

/// As with `compare`, a failed workload makes the program fail at its end. A signal ends it early; it still shows what it
/// has measured.
fn scale(options: ScaleOptions) -> Result<bool, String> {
    if let Some(listing) = options.listing() {
        print!("{listing}");
        return Ok(true);
    }
    let output = options.output.clone();
    let scale = options.scale()?;
    match (output.json, output.quiet) {
        (false, _) => println!("{}", scale.head()),
        (true, false) => eprintln!("{}", scale.head()),
        (true, true) => {}
    }
    let results = scale.run(&stop_on_signal()?)?;
    if output.json {
        println!("{}", results.json());
    } else {
        print!("{}", results.text());
    }
    if let Some(path) = &output.markdown {
        results.write_markdown(path)?;
    }
    if let Some(directory) = &output.plots {
        results.write_plots(directory)?;
    }
    Ok(none_failed(&results.failed()))
}

/// Whether no measurement failed. Names those that did.
fn none_failed(failed: &[impl AsRef<str>]) -> bool {
    if !failed.is_empty() {
        let names: Vec<&str> = failed.iter().map(AsRef::as_ref).collect();
        eprintln!("loadtest: failed: {}", names.join(", "));
    }
    failed.is_empty()
}

/// Misses do not make the program fail; a malformed trace or reply does.
fn replay(options: ReplayOptions) -> Result<bool, String> {
    let json = options.json;
    let stop = stop_on_signal()?;
    let misses = options.replay()?.run(&stop)?;
    if json {
        println!("{}", misses.json());
    } else {
        print!("{}", misses.text());
    }
    Ok(true)
}

/// A failed check makes the program fail, even if a signal has ended the soak early.
fn soak(options: SoakOptions) -> Result<bool, String> {
    let stop = stop_on_signal()?;
    let verdict = options.soak()?.run(stop.as_ref())?;
    print!("{}", verdict.text());
    Ok(verdict.holds())
}

/// The program fails if a protection lets more than one client ask the database.
fn stampede(options: StampedeOptions) -> Result<bool, String> {
    let stop = stop_on_signal()?;
    let verdict = options.stampede()?.run(&stop)?;
    print!("{}", verdict.text());
    Ok(verdict.holds())
}

/// Returns a flag that the first ctrl-C or SIGTERM sets; the second ends the program at once.
fn stop_on_signal() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| format!("signal handler: {error}"))?;
    }
    Ok(stop)
}
