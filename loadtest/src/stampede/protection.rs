//! The ways to protect a database, as requests.

/// A way to keep clients from asking the database at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// `get`, and `set` after a miss.
    Nothing,
    /// The same, with `--ttl 'early: early=…'` at the server.
    Early,
    /// `mg` with `N`: the first client that finds nothing gets `W`, and the others wait.
    Win,
    /// `mg` with `R` besides: one client gets `W` before the value expires.
    Recache,
    /// `md` with `I` when the value has changed: one client gets `W`, the others the old value.
    Stale,
}

/// The requests of the clients of a protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    pub fetch: String,
    pub store: String,
    pub invalidate: String,
}

impl Protection {
    pub const ALL: [Protection; 5] =
        [Protection::Nothing, Protection::Early, Protection::Win, Protection::Recache, Protection::Stale];

    /// The name, which is also the prefix of the key.
    pub fn name(self) -> &'static str {
        match self {
            Protection::Nothing => "nothing",
            Protection::Early => "early",
            Protection::Win => "win",
            Protection::Recache => "recache",
            Protection::Stale => "stale",
        }
    }

    /// What the clients do, in a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Protection::Nothing => "get and set",
            Protection::Early => "get and set, --ttl early=",
            Protection::Win => "mg N",
            Protection::Recache => "mg N R",
            Protection::Stale => "mg N, md I",
        }
    }

    pub fn requests(self, ttl_seconds: u32, early_seconds: u32) -> Requests {
        let key = format!("{}:key", self.name());
        let invalidate = format!("md {key} I T{ttl_seconds}\r\n");
        // A value that is invalidated does not expire meanwhile.
        let ttl = if self == Protection::Stale { 10 * ttl_seconds } else { ttl_seconds };
        let (fetch, store) = match self {
            Protection::Nothing | Protection::Early => {
                (format!("get {key}\r\n"), format!("set {key} 0 {ttl} 5\r\nvalue\r\n"))
            }
            Protection::Win | Protection::Stale => {
                (format!("mg {key} v N{ttl_seconds}\r\n"), format!("ms {key} 5 T{ttl}\r\nvalue\r\n"))
            }
            Protection::Recache => {
                (format!("mg {key} v N{ttl_seconds} R{early_seconds}\r\n"), format!("ms {key} 5 T{ttl}\r\nvalue\r\n"))
            }
        };
        Requests { fetch, store, invalidate }
    }
}
