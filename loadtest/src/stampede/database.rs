//! The database that the clients ask: a pause, and a list of the moments at which they asked.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// See the top of the file.
pub struct Database {
    pause: Duration,
    asked: Mutex<Vec<Instant>>,
}

impl Database {
    pub fn new(pause: Duration) -> Database {
        Database { pause, asked: Mutex::default() }
    }

    /// Notes that a client asks, and answers after a while.
    pub fn ask(&self) {
        self.asked.lock().expect("nobody panics with it").push(Instant::now());
        thread::sleep(self.pause);
    }

    /// The sizes of the herds: how often clients have asked for each end of the value. A herd has come to its end when
    /// nobody has asked for `quiet`.
    pub fn herds(&self, quiet: Duration) -> Vec<usize> {
        let mut asked = self.asked.lock().expect("nobody panics with it").clone();
        asked.sort_unstable();
        asked.chunk_by(|one, next| *next - *one < quiet).map(<[Instant]>::len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_divides_herds() {
        let database = Database::new(Duration::ZERO);
        assert!(database.herds(Duration::from_secs(1)).is_empty());
        let start = Instant::now();
        for millis in [5000, 0, 100, 900, 5100, 9000] {
            database.asked.lock().expect("no panic").push(start + Duration::from_millis(millis));
        }
        assert_eq!(database.herds(Duration::from_secs(1)), [3, 2, 1]);
    }
}
