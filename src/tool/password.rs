//! `corecached password`: the line of a user for the file of `--users`.

use super::failure::Failure;
use corecached::auth::verifier::Verifier;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Write};

/// Make the line of a user for the file of --users from a password
///
/// Reads the password from the terminal, which does not show it, or else the first line of standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the user. Without it, the verifier alone is printed
    name: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let password = read_password().map_err(|error| Failure::Usage(format!("no password: {error}")))?;
    if password.is_empty() || password.contains(&0) {
        return Err(Failure::Usage("a password is not empty, and has no zero byte".into()));
    }
    let verifier = Verifier::generate(&password)?;
    match &args.name {
        Some(name) => writeln!(io::stdout(), "{name} {verifier} read write")?,
        None => writeln!(io::stdout(), "{verifier}")?,
    }
    Ok(())
}

/// Reads a password: from a terminal twice.
fn read_password() -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return read_line();
    }
    let _silence = Silence::begin()?;
    let first = ask("Password: ")?;
    if ask("Once more: ")? == first { Ok(first) } else { Err(io::Error::other("the two differ")) }
}

fn ask(prompt: &str) -> io::Result<Vec<u8>> {
    let mut stderr = io::stderr();
    stderr.write_all(prompt.as_bytes())?;
    let line = read_line()?;
    stderr.write_all(b"\n")?;
    Ok(line)
}

fn read_line() -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|&byte| byte == b'\n' || byte == b'\r') {
        line.pop();
    }
    Ok(line)
}

/// The terminal does not show what is typed, until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Silence> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}
