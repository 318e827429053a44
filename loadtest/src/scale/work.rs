//! The workloads that show how a server scales.

use crate::workload::{Popularity, Workload};

/// A workload for every number of workers.
#[derive(Clone, Debug)]
pub struct Work {
    pub name: &'static str,
    pub about: &'static str,
    pub workload: Workload,
    pub doors: Doors,
}

/// The ports of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    One,
    /// The candidate has a port for each worker, and the client asks each port for its keys. The baseline has one port.
    EachWorker,
}

/// All workloads, over `keys` keys by `connections` connections.
pub fn all(keys: u64, connections: usize) -> Vec<Work> {
    let gets = || Workload { get: 1, set: 0, keys, connections, ..Workload::default() };
    let get_32 = || Workload { pipeline: 32, ..gets() };
    let zipf = Workload { get: 9, set: 1, popularity: Popularity::Zipf(0.99), ..get_32() };
    let work = |name, about, workload| Work { name, about, workload, doors: Doors::One };
    vec![
        work("get-1", "get, one at a time", gets()),
        work("get-32", "get, 32 in flight", get_32()),
        work("get-50keys", "get of 50 keys over all shards", Workload { keys_per_get: 50, ..gets() }),
        work("mix-zipf", "get and set 9:1, Zipf 0.99, 32 in flight", zipf),
        work("hot-32", "get of one hot key, 32 in flight", Workload { keys: 1, ..get_32() }),
        work("hot-1", "get of one hot key, one at a time", Workload { keys: 1, ..gets() }),
        Work {
            doors: Doors::EachWorker,
            ..work("get-32-ports", "get, 32 in flight, the candidate with --port-per-core", get_32())
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    #[test]
    fn the_hot_key_is_one_of_the_keys_that_are_set() {
        for keys in [1, 10, 1_000_000, 123_456_789] {
            let [many, one] = [0, 4].map(|index| {
                let Workload { keys, key_size, value_size, seed, .. } = all(keys, 1).swap_remove(index).workload;
                Keys::new(keys, key_size, value_size, seed).expect("valid")
            });
            let mut value = Vec::new();
            one.write_value(0, &mut value);
            assert_eq!((one.count(), one.text(0)), (1, many.text(0)));
            assert_eq!(many.check_value(0, 0, &value), Ok(()));
        }
    }
}
