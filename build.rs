//! Tells the compiler which commit it compiles. `corecached -V` and the metrics show it.

use std::env;
use std::path::Path;
use std::process::Command;

const UNKNOWN: &str = "unknown";

#[allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // For builds from a copy of the source without its history.
    println!("cargo:rerun-if-env-changed=CORECACHED_COMMIT");
    let given = env::var("CORECACHED_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(commit_of_source).unwrap_or_else(|| UNKNOWN.to_owned());
    println!("cargo:rustc-env=CORECACHED_COMMIT={commit}");
}

/// The commit that is checked out, if this is a build for use. Other builds do not name it, so that a commit does not make
/// the developer compile all tests again.
#[allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
fn commit_of_source() -> Option<String> {
    let source = env::var("CARGO_MANIFEST_DIR").ok()?;
    if env::var("PROFILE").ok()? != "release" {
        return None;
    }
    // The source may lie unpacked in the repository of something else.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&source).canonicalize().ok()? {
        return None;
    }
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        // Cargo would run this again at every build if it could not find the file.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// The first line that git prints, if it succeeds.
fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some(line).filter(|line| !line.is_empty())
}
