//! Workloads of production caches, by name.
//!
//! The figures are the statistics of Twitter's cache traces of March 2020 (github.com/twitter/cache-trace,
//! `stat/2020Mar.md`; J. Yang, Y. Yue, K. V. Rashmi, "A large scale analysis of hundreds of in-memory cache clusters at
//! Twitter", OSDI 2020): mean key and value size, share of operations, common TTLs, Zipf exponent. `add`, `cas` and
//! `incr` count as set, `gets` as get; `delete` is left out. Long lists of TTLs are shortened. No TTL exceeds 30 days,
//! because the protocol takes larger ones for Unix times. The user chooses other parameters, such as the number of
//! keys.

use crate::workload::{Popularity, Workload};

/// The workload of one cluster.
pub struct Preset {
    /// The cluster's name in the traces.
    pub name: &'static str,
    /// A short description for the user.
    pub about: &'static str,
    key_size: usize,
    value_size: usize,
    get: u32,
    set: u32,
    /// Seconds and their weight.
    ttls: &'static [(u32, f64)],
    zipf: f64,
}

const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;
const DAY: u32 = 24 * HOUR;

#[rustfmt::skip]
const PRESETS: [Preset; 18] = [
    Preset { name: "cluster1", about: "only gets, extremely skewed", key_size: 80, value_size: 267, get: 100, set: 0, ttls: &[(240, 1.0)], zipf: 2.6774 },
    Preset { name: "cluster2", about: "only gets, small items", key_size: 21, value_size: 68, get: 100, set: 0, ttls: &[(4 * DAY, 0.59), (2 * DAY, 0.41)], zipf: 1.4908 },
    Preset { name: "cluster4", about: "many TTLs, 40 % misses", key_size: 67, value_size: 2439, get: 93, set: 7, ttls: &[(60, 0.39), (300, 0.24), (HOUR, 0.13), (600, 0.12), (4 * HOUR, 0.09), (DAY, 0.03)], zipf: 1.1004 },
    Preset { name: "cluster7", about: "2 KB values, TTL below 2 h", key_size: 17, value_size: 1936, get: 82, set: 18, ttls: &[(6480, 0.28), (6120, 0.24), (6840, 0.23), (5760, 0.13), (2 * HOUR, 0.12)], zipf: 1.0666 },
    Preset { name: "cluster10", about: "half writes, no popularity, hardly a hit", key_size: 22, value_size: 2333, get: 50, set: 50, ttls: &[(2 * HOUR, 1.0)], zipf: 0.0 },
    Preset { name: "cluster12", about: "writes 4:1, TTL 5 min", key_size: 44, value_size: 1030, get: 20, set: 80, ttls: &[(300, 0.98), (299, 0.02)], zipf: 0.3048 },
    Preset { name: "cluster15", about: "only writes, TTL 30 s", key_size: 18, value_size: 102, get: 0, set: 100, ttls: &[(30, 1.0)], zipf: 0.0242 },
    Preset { name: "cluster18", about: "tiny values, very skewed", key_size: 18, value_size: 37, get: 98, set: 2, ttls: &[(12 * HOUR, 1.0)], zipf: 2.0994 },
    Preset { name: "cluster19", about: "small values, mild skew", key_size: 42, value_size: 101, get: 75, set: 25, ttls: &[(7 * HOUR, 0.5), (27_000, 0.5)], zipf: 0.735 },
    Preset { name: "cluster22", about: "counters of 4 bytes", key_size: 54, value_size: 4, get: 72, set: 28, ttls: &[(DAY, 0.85), (HOUR, 0.11), (1800, 0.03)], zipf: 0.7624 },
    Preset { name: "cluster25", about: "28-byte values, Zipf 0.99", key_size: 49, value_size: 28, get: 96, set: 4, ttls: &[(30 * DAY, 1.0)], zipf: 0.9929 },
    Preset { name: "cluster26", about: "long keys, TTL of minutes", key_size: 122, value_size: 1745, get: 71, set: 29, ttls: &[(60, 0.67), (120, 0.10), (360, 0.09), (600, 0.06), (660, 0.03), (180, 0.02)], zipf: 0.6299 },
    Preset { name: "cluster27", about: "keys longer than values, most gets miss", key_size: 66, value_size: 8, get: 85, set: 15, ttls: &[(DAY, 0.25), (HOUR, 0.20), (4 * HOUR, 0.18), (6 * HOUR, 0.06), (12 * HOUR, 0.02), (30 * DAY, 0.28)], zipf: 1.065 },
    Preset { name: "cluster29", about: "40 GB of 1 h items", key_size: 36, value_size: 799, get: 87, set: 13, ttls: &[(HOUR, 0.67), (2 * HOUR, 0.33)], zipf: 1.2323 },
    Preset { name: "cluster37", about: "20 KB values, TTL 20 s", key_size: 72, value_size: 20_134, get: 63, set: 37, ttls: &[(20, 0.91), (300, 0.06), (2 * HOUR, 0.02), (600, 0.01)], zipf: 0.4251 },
    Preset { name: "cluster40", about: "one set for each get", key_size: 44, value_size: 155, get: 50, set: 50, ttls: &[(8 * HOUR, 0.95), (DAY, 0.05)], zipf: 0.8551 },
    Preset { name: "cluster50", about: "67 KB values", key_size: 18, value_size: 67_485, get: 52, set: 48, ttls: &[(900, 0.73), (1200, 0.24), (1199, 0.03)], zipf: 1.2816 },
    Preset { name: "cluster52", about: "one of the busiest, 14 GB", key_size: 20, value_size: 273, get: 93, set: 6, ttls: &[(DAY, 0.65), (14 * DAY, 0.27), (12 * HOUR, 0.07)], zipf: 1.2117 },
];

impl Preset {
    pub fn all() -> &'static [Preset] {
        &PRESETS
    }

    /// Finds a preset by name; the error lists all presets.
    pub fn find(name: &str) -> Result<&'static Preset, String> {
        PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
            let known: Vec<String> =
                PRESETS.iter().map(|known| format!("  {:<10} {}", known.name, known.about)).collect();
            format!("no preset \"{name}\"; there are\n{}", known.join("\n"))
        })
    }

    /// Copies the parameters of this cluster into `workload`.
    pub fn apply(&self, workload: &mut Workload) {
        workload.key_size = self.key_size;
        workload.value_size = (self.value_size, self.value_size);
        workload.get = self.get;
        workload.set = self.set;
        workload.ttls = self.ttls.to_vec();
        workload.popularity = Popularity::Zipf(self.zipf);
    }
}
