//! The program: it runs a command of [`tool`] if its first argument is the name of one. Otherwise it is the server: it
//! reads the arguments into a [`Config`], calls [`server::run`], and returns an exit code.

mod tool;

use corecached::config::Config;
use corecached::exit::Exit;
use corecached::server;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if tool::is_called_by(&args) {
        return tool::run(&args);
    }
    let Err(exit) = serve(args) else { return ExitCode::SUCCESS };
    // The reader may have ended (`corecached -h | head -1`). That is no failure.
    let _ = if exit.to_stdout { writeln!(io::stdout(), "{exit}") } else { writeln!(io::stderr(), "{exit}") };
    ExitCode::from(exit.code)
}

fn serve(args: Vec<OsString>) -> Result<(), Exit> {
    server::run(Config::parse_from(args)?)
}
