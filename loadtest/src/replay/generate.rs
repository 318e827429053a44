//! Generated workloads, for which no trace is at hand: a working set with scans through it.
//!
//! No request asks again for the items of a scan. A cache that ranks items by their last use loses its working set to
//! every scan. A cache that resists scans keeps its working set, and shows that by a lower miss ratio outside the
//! scans.

use crate::keys::Keys;
use crate::random::Random;
use crate::replay::trace::{Request, Requests};
use crate::zipf::Zipf;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Generated {
    /// Zipf-distributed keys; after every --scan requests, a scan through as many new keys
    ZipfScan,
}

/// Parameters of a Zipf workload with scans.
pub struct ZipfScan {
    pub requests: u64,
    /// Keys of the working set.
    pub keys: u64,
    pub exponent: f64,
    /// Requests in a scan, and in the stretch of other requests before it; 0 for no scans.
    pub scan: u64,
    pub key_size: usize,
    pub seed: u64,
}

impl ZipfScan {
    pub fn requests(self) -> Result<Requests, String> {
        // The ids of scanned keys follow those of the working set.
        let all = Keys::new(self.keys + self.requests, self.key_size, (0, 0), self.seed)?;
        let popular = Keys::new(self.keys, self.key_size, (0, 0), self.seed)?;
        let zipf = Zipf::new(self.keys, self.exponent);
        let mut random = Random::new(self.seed);
        let mut unseen = self.keys;
        let request = move |number: u64| {
            let scan = self.scan > 0 && number / self.scan % 2 == 1;
            let id = if scan {
                unseen += 1;
                unseen - 1
            } else {
                popular.at_rank(zipf.draw(&mut random))
            };
            let mut key = Vec::with_capacity(all.size());
            all.write_key(id, &mut key);
            Ok(Request { key, size: None, scan })
        };
        Ok(Box::new((0..self.requests).map(request)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn scans_come_between_and_never_repeat_a_key() {
        let workload = ZipfScan { requests: 1000, keys: 50, exponent: 1.0, scan: 100, key_size: 10, seed: 1 };
        let requests: Vec<Request> = workload.requests().expect("valid").map(|next| next.expect("a request")).collect();
        let scanned: Vec<&Request> = requests.iter().filter(|request| request.scan).collect();
        assert_eq!(requests.len(), 1000);
        assert_eq!(scanned.len(), 500);
        assert_eq!(scanned.iter().map(|request| &request.key).collect::<HashSet<_>>().len(), 500);
        assert!(requests[..100].iter().all(|request| !request.scan) && requests[100].scan);
        let others: HashSet<_> = requests.iter().filter(|request| !request.scan).map(|request| &request.key).collect();
        assert!(others.len() <= 50 && others.iter().all(|key| scanned.iter().all(|request| request.key != **key)));
    }
}
