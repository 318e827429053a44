//! The programs that the tests compare corecached with. A test reports each program that is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::Program;

/// The memcached of Debian 12. The conversations mark the replies that differ from ours with `<m`.
const DEBIAN: &str = "memcached 1.6.18";
/// corecached follows the rules of this memcached.
const NEWEST: &str = "memcached 1.6.45";

/// Whether the tests can start this program.
pub(crate) fn has(program: Program) -> bool {
    match program {
        Program::Corecached => true,
        Program::Memcached => has_memcached(),
        Program::Newest => newest_memcached().is_some(),
    }
}

/// Whether memcached is installed in the version that the conversations name.
pub(crate) fn has_memcached() -> bool {
    match version_of(Path::new("memcached")) {
        Some(version) if version == DEBIAN => true,
        Some(version) => missing(&format!("the oracle is {DEBIAN}, installed is {version}")),
        None => missing("memcached is not installed"),
    }
}

/// memcached 1.6.45: the program that `$CORECACHED_MEMCACHED` names, or `target/memcached/memcached`, where `.ci/run`
/// puts it. `CORECACHED_REQUIRE_PEERS=1` does not require this peer, because Debian keeps it only until a newer one
/// arrives. A test that needs it is skipped without it. A program at this path must have exactly this version.
pub(crate) fn newest_memcached() -> Option<PathBuf> {
    let named = std::env::var_os("CORECACHED_MEMCACHED").map(PathBuf::from);
    let path = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/memcached/memcached"));
    if !path.exists() {
        say_skipped(&format!("{NEWEST}, the newest, is not at {}", path.display()));
        return None;
    }
    let version = version_of(&path);
    assert!(version.as_deref() == Some(NEWEST), "{} is not {NEWEST} but {version:?}", path.display());
    Some(path)
}

/// The output of the program with `-V`, or `None` if it does not run.
fn version_of(memcached: &Path) -> Option<String> {
    let output = Command::new(memcached).arg("-V").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The path of the program with this name. It may be in `PATH`, where Debian puts the programs of administrators, or
/// where `.ci/run` puts the programs that it does not install.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        missing(&format!("{name} is not installed"));
    }
    found
}

/// The path of a program that checks a little more if it is there. `CORECACHED_REQUIRE_PEERS=1` does not require it.
pub(crate) fn optional_program(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        say_skipped(&format!("{name} is not installed"));
    }
    found
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let others = [
        "/usr/sbin".into(),
        "/usr/share/memcached/scripts".into(),
        target.join("mtop/bin"),
        target.join("prometheus/usr/bin"),
    ];
    let unpacked = ["sbin", "share/munin/plugins", "lib/nagios/plugins", "lib/netdata/plugins.d"];
    let unpacked = unpacked.map(|folder| target.join("debian/usr").join(folder));
    let prometheus = target.join("prometheus/usr/bin");
    let folders = std::env::split_paths(&path).chain(others).chain(unpacked).chain([prometheus]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A command for a program that `program` found. It may need libraries that `.ci/run` unpacked with it.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian/usr/lib");
    let folders = std::fs::read_dir(root).into_iter().flatten().flatten().map(|folder| folder.path());
    let libraries = folders.filter(|folder| folder.to_string_lossy().ends_with("-linux-gnu"));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("plain names"));
    command
}

pub(crate) fn openssl() -> Option<PathBuf> {
    program("openssl")
}

/// The language that a client's script is written in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Language {
    Python,
    Node,
    Php,
    Ruby,
    /// Ruby with the gems of another Debian release. `.ci/run` unpacks them into `target/ruby/RELEASE`.
    RubyWithGemsOf(&'static str),
    Perl,
    /// Go with the modules that `.ci/run` unpacks into `target/go`.
    Go,
    /// A Java that compiles the scripts itself, with the libraries that Debian puts into `/usr/share/java`.
    Java,
}

/// The command that runs a script in this language with `module`.
pub(crate) fn interpreter(language: Language, module: &str) -> Option<Command> {
    let found = match language {
        Language::Python => return python_with(module).map(Command::new),
        Language::Node => with_node_modules("node", &["-e", &format!("require('{module}')")]),
        Language::Php => runs("php", &["-r", &format!("exit(extension_loaded('{module}') ? 0 : 1);")]),
        Language::Ruby => runs("ruby", &["-e", &format!("require '{module}'")]),
        Language::RubyWithGemsOf(release) => with_gems_of(release, &["-e", &format!("require '{module}'")]),
        Language::Perl => runs("perl", &[&format!("-M{module}"), "-e", "1"]),
        Language::Go => go_with(module),
        Language::Java => java_with(module),
    };
    if found.is_none() {
        missing(&format!("no {language:?} that can load {module}"));
    }
    found
}

/// A command without arguments, if the program exists and succeeds with these arguments.
fn runs(program: &str, arguments: &[&str]) -> Option<Command> {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success()).then(|| Command::new(program))
}

/// Ruby with the gems of `target/ruby/RELEASE` before its own gems, if it succeeds with these arguments.
fn with_gems_of(release: &str, arguments: &[&str]) -> Option<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ruby").join(release);
    let gems = std::fs::read_dir(root.join("usr/share/rubygems-integration/all/gems")).ok()?;
    let libraries = std::env::join_paths(gems.flatten().map(|gem| gem.path().join("lib"))).ok()?;
    let output = Command::new("ruby").args(arguments).env("RUBYLIB", &libraries).output();
    output.is_ok_and(|output| output.status.success()).then(|| {
        let mut command = Command::new("ruby");
        command.env("RUBYLIB", libraries);
        command
    })
}

/// `go run`, if Go and the module are installed.
fn go_with(module: &str) -> Option<Command> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/go");
    let path = target.join("usr/share/gocode");
    let found = path.join("src").join(module).is_dir() && runs("go", &["version"]).is_some();
    found.then(|| {
        let mut command = Command::new("go");
        command.arg("run").env("GO111MODULE", "off").env("GOPATH", path).env("GOCACHE", target.join("cache"));
        command.env_remove("GOFLAGS").env_remove("GOROOT");
        command
    })
}

/// Java with a library. It compiles quickly and optimizes little, because the scripts are short.
fn java_with(library: &str) -> Option<Command> {
    let jar = Path::new("/usr/share/java").join(format!("{library}.jar"));
    let modules = Command::new("java").arg("--list-modules").output().ok()?;
    let compiles = String::from_utf8_lossy(&modules.stdout).lines().any(|line| line.starts_with("jdk.compiler"));
    (compiles && jar.is_file()).then(|| {
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(jar);
        command
    })
}

/// Does the same as `runs`, with the modules in `target/node`, where `.ci/run` puts them, and with the user's own
/// modules.
fn with_node_modules(program: &str, arguments: &[&str]) -> Option<Command> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules");
    let theirs = std::env::var_os("NODE_PATH").unwrap_or_default();
    let folders = std::env::join_paths(std::iter::once(ours).chain(std::env::split_paths(&theirs))).ok()?;
    let output = Command::new(program).args(arguments).env("NODE_PATH", &folders).output();
    output.is_ok_and(|output| output.status.success()).then(|| {
        let mut command = Command::new(program);
        command.env("NODE_PATH", folders);
        command
    })
}

/// A Python that can import `module`: `$CORECACHED_PYTHON`, `target/python` (where `.ci/run` puts one), or `python3`.
pub(crate) fn python_with(module: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let candidates = [std::env::var_os("CORECACHED_PYTHON").map(PathBuf::from), Some(ours), Some("python3".into())];
    let found = candidates.into_iter().flatten().find(|python| {
        let output = Command::new(python).args(["-c", &format!("import {module}")]).output();
        output.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        missing(&format!("no Python that can import {module}"));
    }
    found
}

/// Reports that a test is skipped, or fails it if the tests require their peers.
fn missing(what: &str) -> bool {
    let required = std::env::var("CORECACHED_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "{what} (and CORECACHED_REQUIRE_PEERS=1 forbids to skip)");
    say_skipped(what);
    false
}

/// Reports that a test, or a part of it, is skipped on this machine.
pub(crate) fn say_skipped(what: &str) {
    use std::io::Write;

    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // The test harness captures what `eprintln!` prints and throws it away if the test passes. It does not capture what
    // is written to the handle itself.
    let _ = writeln!(std::io::stderr(), "skipped: {what} ({test})");
}
