//! The program: it reads the arguments into a [`Config`], calls [`server::run`], and returns an exit code.

use corecached::config::Config;
use corecached::exit::Exit;
use corecached::server;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(exit) = program() else { return ExitCode::SUCCESS };
    // The reader may have ended (`corecached -h | head -1`). That is no failure.
    let _ = if exit.to_stdout { writeln!(io::stdout(), "{exit}") } else { writeln!(io::stderr(), "{exit}") };
    ExitCode::from(exit.code)
}

fn program() -> Result<(), Exit> {
    let config = Config::parse_from(std::env::args_os())?;
    server::run(config)?;
    Ok(())
}
