//! The whole program: arguments → [`Config`] → [`server::run`] → exit code.

use corecached::config::Config;
use corecached::exit::Exit;
use corecached::server;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(exit) = program() else { return ExitCode::SUCCESS };
    // Whoever asked may be gone (`corecached -h | head -1`): that is no failure of ours.
    let _ = if exit.to_stdout { writeln!(io::stdout(), "{exit}") } else { writeln!(io::stderr(), "{exit}") };
    ExitCode::from(exit.code)
}

fn program() -> Result<(), Exit> {
    let config = Config::parse_from(std::env::args_os())?;
    server::run(config)?;
    Ok(())
}
