//! Clients that people use. Each has a small script in `clients/`, in its client's language, which does what users of
//! the client do. The script gets the ports of servers as arguments, checks each result, and prints `ok` at the end.
//!
//! Every script also runs against the real memcached, so it expects what memcached does.
//!
//! If a script prints `restart`, the test restarts its servers on the same ports and then sends it a line.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::peers::{self, Language};
use crate::server::{Address, Program, Server, on_every_server};

/// How long a script may take. Most take a second on an idle machine, and many times that on a busy one.
const PATIENCE: Duration = Duration::from_secs(300);

/// A client: the language of its scripts, and the module that they load.
pub(crate) struct Peer(pub(crate) Language, pub(crate) &'static str);

/// Python without a client module.
pub(crate) const PYTHON: Peer = Peer(Language::Python, "pty");
pub(crate) const PYMEMCACHE: Peer = Peer(Language::Python, "pymemcache");
pub(crate) const PYLIBMC: Peer = Peer(Language::Python, "pylibmc");
const AIOMCACHE: Peer = Peer(Language::Python, "aiomcache");
const META_MEMCACHE: Peer = Peer(Language::Python, "meta_memcache");
const BMEMCACHED: Peer = Peer(Language::Python, "bmemcached");
pub(crate) const EMCACHE: Peer = Peer(Language::Python, "emcache");
/// pymemcache's hash client for ElastiCache, which no release of pymemcache has.
pub(crate) const ELASTIPYMEMCACHE: Peer = Peer(Language::Python, "django_elastipymemcache");
pub(crate) const NPM_MEMCACHED: Peer = Peer(Language::Node, "memcached");
const MEMJS: Peer = Peer(Language::Node, "memjs");
const PHP_MEMCACHED: Peer = Peer(Language::Php, "memcached");
const DALLI: Peer = Peer(Language::Ruby, "dalli");
const DALLI_OF_TRIXIE: Peer = Peer(Language::RubyWithGemsOf("trixie"), "dalli");
const DALLI_OF_FORKY: Peer = Peer(Language::RubyWithGemsOf("forky"), "dalli");
const PYTHON_MEMCACHED: Peer = Peer(Language::Python, "memcache");
const PHP_MEMCACHE: Peer = Peer(Language::Php, "memcache");
const CACHE_MEMCACHED_FAST: Peer = Peer(Language::Perl, "Cache::Memcached::Fast");
const GOMEMCACHE: Peer = Peer(Language::Go, "github.com/bradfitz/gomemcache/memcache");
const SPYMEMCACHED: Peer = Peer(Language::Java, "spymemcached");
const CACHE_MEMCACHED: Peer = Peer(Language::Perl, "Cache::Memcached");

/// Makes a test for each script and server.
macro_rules! scripts {
    ($($name:ident: $peer:ident, $file:literal, $servers:literal servers $(, $argument:literal)*;)*) => {
        on_every_server! {
            $($name: |program| run(&$peer, $file, program, $servers, &[$($argument),*]);)*
        }
    };
}

scripts! {
    pymemcache_speaks_every_command: PYMEMCACHE, "pymemcache_commands.py", 1 servers;
    pymemcache_hashes_over_three_servers: PYMEMCACHE, "pymemcache_hash.py", 3 servers;
    pylibmc_speaks_every_command: PYLIBMC, "pylibmc_commands.py", 1 servers, "text";
    pylibmc_loses_a_third_of_the_keys_with_a_third_of_the_servers: PYLIBMC, "pylibmc_ketama.py", 3 servers, "text";
    aiomcache_serves_many_tasks: AIOMCACHE, "aiomcache_tasks.py", 1 servers;
    stampede_recipes_of_the_meta_commands_hold: META_MEMCACHE, "stampede_meta.py", 1 servers;
    stampede_recipe_of_negative_caching_holds: PYMEMCACHE, "stampede_negative.py", 1 servers;
    meta_memcache_leases_and_recaches: META_MEMCACHE, "meta_memcache_leases.py", 3 servers;
    npm_memcached_speaks_every_command: NPM_MEMCACHED, "memcached_npm.js", 3 servers;
    php_memcached_serves_a_framework: PHP_MEMCACHED, "php_memcached.php", 3 servers, "text";
    dalli_3_serves_rails: DALLI_OF_TRIXIE, "dalli_protocols.rb", 3 servers, "meta", "3.2.8";
    dalli_5_serves_rails: DALLI_OF_FORKY, "dalli_protocols.rb", 3 servers, "meta", "5.";
    cache_memcached_serves_perl: CACHE_MEMCACHED, "cache_memcached.pl", 3 servers;
    cache_memcached_fast_serves_perl: CACHE_MEMCACHED_FAST, "cache_memcached_fast.pl", 3 servers;
    python_memcached_speaks_every_command: PYTHON_MEMCACHED, "python_memcached_commands.py", 3 servers;
    php_memcache_speaks_every_command: PHP_MEMCACHE, "php_memcache.php", 3 servers, "ascii";
    gomemcache_speaks_every_command: GOMEMCACHE, "gomemcache_commands.go", 3 servers;
    spymemcached_keeps_many_requests_in_flight: SPYMEMCACHED, "Spymemcached.java", 3 servers, "text";
}

/// Scripts that use the binary protocol.
mod binary {
    use super::*;

    scripts! {
        pylibmc_speaks_every_command: PYLIBMC, "pylibmc_commands.py", 1 servers, "binary";
        pylibmc_loses_a_third_of_the_keys_with_a_third_of_the_servers: PYLIBMC, "pylibmc_ketama.py", 3 servers, "binary";
        bmemcached_speaks_every_command: BMEMCACHED, "bmemcached_commands.py", 3 servers;
        memjs_speaks_every_command: MEMJS, "memjs_commands.js", 3 servers;
        php_memcached_serves_a_framework: PHP_MEMCACHED, "php_memcached.php", 3 servers, "binary";
        php_memcache_speaks_every_command: PHP_MEMCACHE, "php_memcache.php", 3 servers, "binary";
        spymemcached_keeps_many_requests_in_flight: SPYMEMCACHED, "Spymemcached.java", 3 servers, "binary";
        dalli_serves_rails: DALLI, "dalli_rails.rb", 3 servers;
        dalli_3_serves_rails: DALLI_OF_TRIXIE, "dalli_protocols.rb", 3 servers, "binary", "3.2.8";
    }
}

#[test]
fn the_ports_of_one_server_are_servers_to_pymemcache() {
    run_on_ports(&PYMEMCACHE, "pymemcache_ports.py", &[]);
}

#[test]
fn the_ports_of_one_server_are_servers_to_pylibmc() {
    run_on_ports(&PYLIBMC, "pylibmc_ketama.py", &["text"]);
}

/// Runs a script with the ports of `count` servers, and then `arguments`. No other script uses these servers.
fn run(peer: &Peer, file: &str, program: Program, count: usize, arguments: &[&str]) {
    if !peers::has(program) {
        return;
    }
    let servers = (0..count).map(|_| Server::on_lasting_port(program, &["-t", "2"])).collect();
    run_script(peer, file, &[], servers, arguments);
}

/// Runs a script with the three ports of one server that has a port for each core.
fn run_on_ports(peer: &Peer, file: &str, arguments: &[&str]) {
    let server = Server::corecached_tcp(&["-t", "3", "-l", "127.0.0.1", "--port-per-core"]);
    run_script(peer, file, &[], vec![server], arguments);
}

/// The rule of the recipe is the one that `corecached help stampede` names. The script says when time is to pass.
#[test]
fn stampede_recipe_of_early_misses_holds() {
    if !cfg!(feature = "debug-commands") {
        return peers::say_skipped("the clock is moved by a feature that is not built: debug-commands");
    }
    let Peer(language, module) = &PYMEMCACHE;
    let Some(mut command) = peers::interpreter(*language, module) else { return };
    let server = Server::corecached_tcp(&["-t", "4", "--ttl", "feed: early=30s"]);
    let mut keeper = server.client();
    assert_eq!(keeper.ask("debugtime p"), "OK");
    command.arg(script("stampede_early.py")).args(ports(&server));
    let Outcome { succeeded, said, complained } = converse(command, |said| {
        let Some(seconds) = said.strip_prefix("later ") else { return false };
        assert_eq!(keeper.ask(&format!("debugtime {seconds}")), "OK");
        // Each worker replies after it has noticed the new second.
        keeper.send("stats conns\r\n");
        while keeper.line().expect("a line") != b"END\r\n" {}
        true
    });
    assert!(succeeded && said.trim_end().ends_with("ok"), "{said}{complained}");
}

fn script(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients").join(file)
}

/// Runs a script with the ports of a proxy, the ports of the servers, and `arguments`.
pub(crate) fn run_script(peer: &Peer, file: &str, proxy: &[u16], mut servers: Vec<Server>, arguments: &[&str]) {
    let Peer(language, module) = peer;
    let Some(mut command) = peers::interpreter(*language, module) else { return };
    command
        .arg(script(file))
        .args(proxy.iter().map(u16::to_string))
        .args(servers.iter().flat_map(ports))
        .args(arguments);
    let result = converse(command, |said| {
        if said == "restart" {
            servers = std::mem::take(&mut servers).into_iter().map(Server::restarted).collect();
        }
        said == "restart"
    });
    let Outcome { succeeded, said, complained } = result;
    assert!(succeeded && said.trim_end().ends_with("ok"), "{file} failed:\n{said}{complained}");
}

fn ports(server: &Server) -> Vec<String> {
    let ports = server.addresses().iter().map(|address| match address {
        Address::Tcp(address) => address.port().to_string(),
        Address::Unix(path) => panic!("{} is no port", path.display()),
    });
    ports.collect()
}

/// The result of a command.
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) said: String,
    pub(crate) complained: String,
}

/// Runs a command to its end. Sends it a line after each printed line for which `answers` returns true. If the command
/// takes too long, the function kills it, and it counts as failed.
pub(crate) fn converse(mut command: Command, mut answers: impl FnMut(&str) -> bool) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("this interpreter has just been run");
    let mut input = child.stdin.take().expect("it was piped");
    let output = child.stdout.take().expect("it was piped");
    let mut errors = child.stderr.take().expect("it was piped");

    let printed = lines_of(output);
    let complaints = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = errors.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });

    let deadline = Instant::now() + PATIENCE;
    let mut said = String::new();
    let in_time = loop {
        match printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                said.push_str(&line);
                said.push('\n');
                if answers(line.trim_end()) {
                    // This fails if the command has ended. Its exit status shows that later.
                    let _ = input.write_all(b"\n").and_then(|()| input.flush());
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(mpsc::RecvTimeoutError::Timeout) => break false,
        }
    };
    if !in_time {
        said.push_str("(it took too long and was killed)\n");
        // This fails only if the command has ended meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().expect("the child is ours");
    let complained = complaints.join().expect("it only reads");
    Outcome { succeeded: in_time && status.success(), said, complained: format!("{complained}({status})") }
}

/// The lines that a program prints, in order. They end when the program and its children have ended.
pub(crate) fn lines_of(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (lines, printed) = mpsc::channel();
    std::thread::spawn(move || {
        let bytes = BufReader::new(output).split(b'\n').map_while(Result::ok);
        bytes.map(|line| String::from_utf8_lossy(&line).into_owned()).try_for_each(|line| lines.send(line).ok());
    });
    printed
}
