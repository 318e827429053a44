//! The commands of the binary besides the server: `corecached top`, `stat`, `check` and the others. They see servers
//! through sockets alone, so they work with any server that speaks the text protocol; what only corecached can tell, they
//! leave out for others, and say so.
//!
//! ```text
//!  top/ stat check hotkeys bigkeys prefixes latency doctor/ flush print password   one command each; stampede: a page of the help
//!   │   dump load copy
//!   │    └ transfer/                                          items on their way: read at a rate, stored where there are none
//!   └ table columns figures histogram show                    what they print, and how they reckon it
//!      └ client reply target cores failure                    one server: its address, its connection, its replies, its process
//! ```
//!
//! Data goes to standard output, messages to standard error. Exit codes: 0; 1 if a server says no or does not answer; 64
//! for a mistaken command line.

#![cfg_attr(not(feature = "top"), allow(dead_code, reason = "some of what the commands share serves `top` alone"))]

mod bigkeys;
mod check;
mod client;
mod columns;
mod copy;
mod cores;
mod doctor;
mod dump;
mod failure;
mod figures;
mod flush;
mod histogram;
mod hotkeys;
mod latency;
mod load;
mod password;
mod prefixes;
mod print;
#[cfg(test)]
mod recorded;
mod reply;
mod show;
mod stampede;
mod stat;
mod table;
mod target;
#[cfg(feature = "top")]
mod top;
mod transfer;

use clap::{CommandFactory, Parser, Subcommand};
use corecached::exit::EXIT_USAGE;
use failure::Failure;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Commands for running servers, corecached or memcached. Without a command, corecached is the server: see
/// corecached --help.
#[derive(Debug, Parser)]
#[command(name = "corecached", bin_name = "corecached", disable_version_flag = true, max_term_width = 100)]
#[command(after_help = "corecached help stampede has the rules of --ttl, and recipes against stampedes.")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Top(TopArgs),
    Stat(stat::Args),
    Check(check::Args),
    Hotkeys(hotkeys::Args),
    Bigkeys(bigkeys::Args),
    Prefixes(prefixes::Args),
    Latency(latency::Args),
    Doctor(doctor::Args),
    Flush(flush::Args),
    Dump(dump::Args),
    Load(load::Args),
    Copy(copy::Args),
    Print(print::Args),
    Password(password::Args),
}

#[cfg(feature = "top")]
use top::Args as TopArgs;
/// Not in this binary, which was built without the feature "top"
#[cfg(not(feature = "top"))]
#[derive(Debug, clap::Args)]
struct TopArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Whether the command line calls a command. memcached takes no words without a dash, but ignores them: so the name
/// `memcached` has no commands, and any other word is left to the server.
pub(crate) fn is_called_by(args: &[OsString]) -> bool {
    let name = args.first().and_then(|name| Path::new(name).file_name());
    let word = args.get(1).and_then(|word| word.to_str());
    name != Some(OsStr::new("memcached"))
        && word.is_some_and(|word| word == "help" || Line::command().find_subcommand(word).is_some())
}

/// Runs the command of a command line, and prints what goes wrong.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    if args.len() == 3 && args[1] == "help" && args[2] == "stampede" {
        return end(io::stdout().lock().write_all(stampede::page().as_bytes()).map_err(Failure::from));
    }
    let line = match Line::try_parse_from(args) {
        Ok(line) => line,
        Err(error) => {
            // It prints help to standard output, mistakes to standard error. Whether anybody reads that is no matter.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    end(line.command.run())
}

/// Prints what went wrong, and gives the exit code.
fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                eprintln!("corecached: {message}");
            }
            ExitCode::from(failure.code())
        }
    }
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            #[cfg(feature = "top")]
            Command::Top(args) => top::run(&args),
            #[cfg(not(feature = "top"))]
            Command::Top(_) => Err(Failure::Usage("this binary was built without the feature \"top\"".into())),
            Command::Stat(args) => stat::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Hotkeys(args) => hotkeys::run(&args),
            Command::Bigkeys(args) => bigkeys::run(&args),
            Command::Prefixes(args) => prefixes::run(&args),
            Command::Latency(args) => latency::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Flush(args) => flush::run(&args),
            Command::Print(args) => print::run(&args, &Line::command()),
            Command::Dump(args) => dump::run(&args),
            Command::Load(args) => load::run(&args),
            Command::Copy(args) => copy::run(&args),
            Command::Password(args) => password::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn only_the_words_of_commands_are_commands() {
        let is_called = |words: &str| is_called_by(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        for words in ["corecached top", "/usr/bin/corecached stat 1 5", "corecached help", "x print alerts"] {
            assert!(is_called(words), "{words}");
        }
        for words in ["memcached top", "/usr/bin/memcached help", "corecached", "corecached -v top", "corecached tops"]
        {
            assert!(!is_called(words), "{words}");
        }
    }
}
