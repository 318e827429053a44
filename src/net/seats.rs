//! Places for the connections of an address (`--connections-per-address`). The main thread takes one for a connection that it
//! accepts, and whoever drops it gives it back. Only connections that come or go wait for the lock.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The places of all addresses.
#[derive(Debug)]
pub struct Seats {
    most: u32,
    taken: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// A place that is taken.
#[derive(Debug)]
pub struct Seat {
    address: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl Seats {
    /// Each address has so many places.
    pub fn new(most: u32) -> Seats {
        Seats { most, taken: Arc::default() }
    }

    /// Takes a place for a connection from an address. None: all are taken.
    pub fn take(&self, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock();
        let count = taken.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Seat { address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places() {
        let seats = Seats::new(2);
        let address = |text: &str| text.parse().expect("an address");
        let first = seats.take(address("10.0.0.1"));
        let second = seats.take(address("::ffff:10.0.0.1"));
        assert!(first.is_some() && second.is_some() && seats.take(address("10.0.0.1")).is_none());
        assert!(seats.take(address("10.0.0.2")).is_some());
        drop(first);
        let third = seats.take(address("10.0.0.1"));
        assert!(third.is_some() && seats.take(address("10.0.0.1")).is_none());
        drop((second, third));
        assert!(seats.taken.lock().is_empty());
    }
}
