//! Which of several servers has a key: the consistent hashing of libmemcached, as its behavior `KETAMA` has it (pylibmc:
//! `behaviors={"ketama": True}`), with its default hash for keys and servers.

/// Points of each server on the ring.
const POINTS_PER_SERVER: usize = 100;
/// The port that libmemcached leaves out of a server's name.
const DEFAULT_PORT: u16 = 11211;

/// Points of servers by their hashes.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// Invariant: sorted, and not empty.
    points: Vec<(u32, usize)>,
}

impl Ring {
    /// The ring of servers by host and port. A Unix socket is a host of its path, with port 0.
    pub(super) fn new<'a>(servers: impl IntoIterator<Item = (&'a str, u16)>) -> Ring {
        let mut points = Vec::new();
        for (server, (host, port)) in servers.into_iter().enumerate() {
            for point in 0..POINTS_PER_SERVER {
                let name = match port {
                    DEFAULT_PORT => format!("{host}-{point}"),
                    _ => format!("{host}:{port}-{point}"),
                };
                points.push((one_at_a_time(name.as_bytes()), server));
            }
        }
        assert!(!points.is_empty(), "a ring has servers");
        points.sort_unstable();
        Ring { points }
    }

    /// The number of the server that has the key.
    pub(super) fn server(&self, key: &[u8]) -> usize {
        let hash = one_at_a_time(key);
        let at = self.points.partition_point(|&(point, _)| point < hash);
        self.points.get(at).unwrap_or(&self.points[0]).1
    }
}

/// The hash of Bob Jenkins with this name. libmemcached reads bytes as signed characters.
fn one_at_a_time(bytes: &[u8]) -> u32 {
    let mut hash: u32 = 0;
    for &byte in bytes {
        hash = hash.wrapping_add(i32::from(byte.cast_signed()).cast_unsigned());
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_its_author() {
        // The values that are published with the function.
        assert_eq!(one_at_a_time(b"a"), 0xca2e_9442);
        assert_eq!(one_at_a_time(b"The quick brown fox jumps over the lazy dog"), 0x519e_91f5);
    }

    #[test]
    fn a_server_that_goes_takes_only_its_own_keys() {
        let servers = [("10.0.0.1", 11211), ("10.0.0.2", 11211), ("/run/cache", 0)];
        let (three, two) = (Ring::new(servers), Ring::new(servers[..2].iter().copied()));
        let mut counts = [0; 3];
        for key in (0..3000).map(|number| format!("key{number}")) {
            let server = three.server(key.as_bytes());
            counts[server] += 1;
            assert!(server == 2 || two.server(key.as_bytes()) == server, "{key}");
        }
        assert!(counts.iter().all(|count| (500..1600).contains(count)), "{counts:?}");
    }
}
