//! The programs that `compare` and `scale` start: what each takes for the same settings, and which protocol it speaks.
//!
//! | setting | memcached, corecached | redis-server, valkey-server | keydb-server | dragonfly |
//! |---|---|---|---|---|
//! | threads | `-t` | `--io-threads` | `--server-threads` | `--proactor_threads` |
//! | memory in MiB | `-m` | `--maxmemory`, `--maxmemory-policy allkeys-lru` | the same | `--maxmemory`, `--cache_mode` |
//! | connections | `-c` | `--maxclients` | the same | the same |
//! | port | `-p` | `--port` | the same | the same |
//!
//! Those that speak RESP listen on the loopback interface alone, and write nothing to the disk.

use crate::server::Ports;
use crate::workload::Protocol;

/// The protocol of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Spoken {
    /// RESP, as Redis speaks it
    Resp,
    /// memcached's protocols
    Text,
}

/// Programs with the same options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any program with memcached's options.
    Memcached,
    /// Redis and Valkey.
    Redis,
    KeyDb,
    Dragonfly,
}

/// A command that starts a server.
#[derive(Clone, Debug)]
pub struct Program {
    pub command: String,
    pub kind: Kind,
}

impl Program {
    /// The program of a command. Its name decides on its kind: the last part of the first word that is known. A protocol
    /// goes over the name: a program that is unknown and speaks RESP has the options of Redis.
    pub fn new(command: String, spoken: Option<Spoken>) -> Program {
        let known = command.split_whitespace().find_map(|word| match word.rsplit('/').next()? {
            "redis-server" | "valkey-server" => Some(Kind::Redis),
            "keydb-server" => Some(Kind::KeyDb),
            "dragonfly" => Some(Kind::Dragonfly),
            _ => None,
        });
        let kind = match spoken {
            Some(Spoken::Text) => Kind::Memcached,
            Some(Spoken::Resp) => known.unwrap_or(Kind::Redis),
            None => known.unwrap_or(Kind::Memcached),
        };
        Program { command, kind }
    }

    /// A program with memcached's options.
    pub fn memcached(command: impl Into<String>) -> Program {
        Program { command: command.into(), kind: Kind::Memcached }
    }

    /// The same program with further options, which begin with a space.
    pub fn with(&self, options: &str) -> Program {
        Program { command: format!("{}{options}", self.command), kind: self.kind }
    }

    /// The command with the options for its ports, of which `port` is the first. A server that speaks RESP has one.
    pub fn listening(&self, port: u16, ports: Ports) -> String {
        let listen = match (self.kind, ports) {
            (Kind::Memcached, Ports::Plain(_)) => format!("-p {port}"),
            (Kind::Memcached, Ports::Udp) => format!("-p {port} -U {port} -l 127.0.0.1"),
            (Kind::Memcached, Ports::Tls) => format!("-p {port} -l 127.0.0.1:{port},notls:127.0.0.1:{}", port + 1),
            (Kind::Redis | Kind::KeyDb, _) => format!("--port {port} --bind 127.0.0.1 --save '' --appendonly no"),
            (Kind::Dragonfly, _) => format!("--port={port} --bind=127.0.0.1 --dbfilename="),
        };
        format!("{} {listen}", self.command)
    }
}

impl Kind {
    pub fn speaks(self) -> Spoken {
        match self {
            Kind::Memcached => Spoken::Text,
            Kind::Redis | Kind::KeyDb | Kind::Dragonfly => Spoken::Resp,
        }
    }

    /// The protocol of a client, where a server that speaks text gets `text`.
    pub fn protocol(self, text: Protocol) -> Protocol {
        match self.speaks() {
            Spoken::Text => text,
            Spoken::Resp => Protocol::Resp,
        }
    }

    /// The option for a number of threads, with a space before it.
    pub fn threads(self, count: usize) -> String {
        match self {
            Kind::Memcached => format!(" -t {count}"),
            Kind::Redis => format!(" --io-threads {count}"),
            Kind::KeyDb => format!(" --server-threads {count}"),
            Kind::Dragonfly => format!(" --proactor_threads={count}"),
        }
    }

    /// The options for this many MiB of memory, from which the server evicts what was not used for longest.
    pub fn memory(self, mib: u64) -> String {
        match self {
            Kind::Memcached => format!(" -m {mib}"),
            Kind::Redis | Kind::KeyDb => format!(" --maxmemory {mib}mb --maxmemory-policy allkeys-lru"),
            Kind::Dragonfly => format!(" --maxmemory={} --cache_mode=true", mib << 20),
        }
    }

    /// The option for a number of connections.
    pub fn connections(self, count: usize) -> String {
        match self {
            Kind::Memcached => format!(" -c {count}"),
            Kind::Redis | Kind::KeyDb => format!(" --maxclients {count}"),
            Kind::Dragonfly => format!(" --maxclients={count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_decides_unless_a_protocol_is_given() {
        let kind = |command: &str, spoken| Program::new(command.into(), spoken).kind;
        for (command, expected) in [
            ("memcached -t 1", Kind::Memcached),
            ("target/release/corecached", Kind::Memcached),
            ("redis-server", Kind::Redis),
            ("target/resp/valkey-server --hz 1", Kind::Redis),
            ("env A=b nice -n 5 /usr/bin/keydb-server", Kind::KeyDb),
            ("./dragonfly --hz=1", Kind::Dragonfly),
            ("redis-server-7", Kind::Memcached),
        ] {
            assert_eq!(kind(command, None), expected, "{command}");
            assert_eq!(kind(command, Some(Spoken::Text)), Kind::Memcached, "{command}");
            let resp = if expected == Kind::Memcached { Kind::Redis } else { expected };
            assert_eq!(kind(command, Some(Spoken::Resp)), resp, "{command}");
        }
    }

    #[test]
    fn every_kind_has_its_own_options() {
        let line = |name: &str, ports| {
            let program = Program::new(name.into(), None);
            let kind = program.kind;
            let options = kind.threads(2) + &kind.memory(64) + &kind.connections(100);
            program.with(&options).listening(9, ports)
        };
        assert_eq!(line("memcached", Ports::Plain(1)), "memcached -t 2 -m 64 -c 100 -p 9");
        assert_eq!(line("memcached", Ports::Udp), "memcached -t 2 -m 64 -c 100 -p 9 -U 9 -l 127.0.0.1");
        assert_eq!(line("memcached", Ports::Tls), "memcached -t 2 -m 64 -c 100 -p 9 -l 127.0.0.1:9,notls:127.0.0.1:10");
        let rest = "--maxmemory 64mb --maxmemory-policy allkeys-lru --maxclients 100 \
                    --port 9 --bind 127.0.0.1 --save '' --appendonly no";
        assert_eq!(line("redis-server", Ports::Plain(1)), format!("redis-server --io-threads 2 {rest}"));
        assert_eq!(line("keydb-server", Ports::Plain(1)), format!("keydb-server --server-threads 2 {rest}"));
        assert_eq!(
            line("dragonfly", Ports::Plain(1)),
            "dragonfly --proactor_threads=2 --maxmemory=67108864 --cache_mode=true --maxclients=100 \
             --port=9 --bind=127.0.0.1 --dbfilename="
        );
    }
}
