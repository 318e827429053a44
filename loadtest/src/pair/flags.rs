//! Flags that a measurement appends to the commands of both servers.

use crate::program::Kind;
use crate::server::Ports;

/// `-m` for measurements without evictions: room for a million items of up to 150 bytes, and for the overhead of either
/// server.
pub const ROOMY: u64 = 1024;

/// Upper bound of the bytes that either server needs for an item of the default sizes, with index and slack.
const ITEM_MAX: u64 = 160;

/// MiB that so many items of the default sizes take in either server.
pub fn taken(keys: u64) -> u64 {
    (keys * ITEM_MAX) >> 20
}

/// `-m` for so many items of the default sizes.
pub fn roomy(keys: u64) -> u64 {
    taken(keys).next_power_of_two().max(ROOMY)
}

/// Flags that come after those of both servers' commands, and override them.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `-t`
    pub threads: Option<usize>,
    /// `-m`, in MiB.
    pub memory: Option<u64>,
    /// `-c`
    pub connections: Option<usize>,
    /// `--port-per-core`, for the candidate only.
    pub port_per_core: bool,
    /// `-Z`, with the certificate of the comparison.
    pub tls: bool,
    /// `-U`
    pub udp: bool,
    /// Other flags, of both servers.
    pub others: &'static str,
}

impl Flags {
    /// The flags of `side` (0 is the baseline) for a server of this kind, with a space before each.
    pub fn text(&self, side: usize, kind: Kind) -> String {
        let threads = self.threads.map(|count| kind.threads(count)).unwrap_or_default();
        let memory = self.memory.map(|mib| kind.memory(mib)).unwrap_or_default();
        let connections = self.connections.map(|count| kind.connections(count)).unwrap_or_default();
        let others = if self.others.is_empty() { String::new() } else { format!(" {}", self.others) };
        let own = if self.port_per_core && side == 1 { " --port-per-core" } else { "" };
        let tls = if self.tls { " -Z" } else { "" };
        let udp = if self.udp { " -U" } else { "" };
        format!("{threads}{memory}{connections}{others}{own}{tls}{udp}")
    }

    /// The ports that `side` listens on.
    pub fn ports(&self, side: usize) -> Ports {
        if self.udp {
            return Ports::Udp;
        }
        match (self.tls, self.port_per_core && side == 1) {
            (true, _) => Ports::Tls,
            (false, true) => Ports::Plain(self.threads.unwrap_or(1)),
            (false, false) => Ports::Plain(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_both_sides() {
        let text = |flags: &Flags, side| flags.text(side, Kind::Memcached);
        let flags = Flags { threads: Some(2), memory: Some(64), port_per_core: true, ..Flags::default() };
        assert_eq!((text(&flags, 0).as_str(), flags.ports(0)), (" -t 2 -m 64", Ports::Plain(1)));
        assert_eq!((text(&flags, 1).as_str(), flags.ports(1)), (" -t 2 -m 64 --port-per-core", Ports::Plain(2)));
        let flags = Flags { tls: true, ..Flags::default() };
        assert_eq!((text(&flags, 0).as_str(), flags.ports(0)), (" -Z", Ports::Tls));
        assert_eq!(text(&Flags::default(), 1), "");
        assert_eq!(text(&Flags { memory: Some(64), others: "-f 1.5", ..Flags::default() }, 0), " -m 64 -f 1.5");
    }
}
