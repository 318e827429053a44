//! Options of `loadtest replay`: a [`Replay`].

use std::path::PathBuf;

use clap::Args;

use super::values::VALUE_SIZE_MAX;
use crate::replay::{self, Column, Generated, Replay, ZipfScan};

/// Requests of a generated trace.
const GENERATED_DEFAULT: u64 = 2_000_000;

#[derive(Args)]
pub struct ReplayOptions {
    /// The trace: ARC's lines of `first count 0 sequence`, or with --key-column a CSV file. The program zstd
    /// decompresses a file whose name ends in .zst
    #[arg(value_name = "FILE", required_unless_present = "generate", conflicts_with = "generate")]
    file: Option<PathBuf>,

    /// Server that receives the requests
    #[arg(long, short, value_name = "HOST:PORT", default_value = "127.0.0.1:11211")]
    server: String,

    /// Column of the key: its name in the first line, or its number from 1 if the file has no such line
    #[arg(long, value_name = "COLUMN")]
    key_column: Option<Column>,

    /// Column of the value's size in bytes
    #[arg(long, value_name = "COLUMN", requires = "key_column")]
    size_column: Option<Column>,

    /// Bytes of values whose size the trace does not tell
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    value_size: usize,

    /// Bytes of the keys of ARC and generated traces, padded with zeros in front
    #[arg(long, value_name = "BYTES", default_value_t = 25, value_parser = clap::value_parser!(u8).range(20..=250))]
    key_size: u8,

    /// Gets that are sent together, on one connection; after all replies, sets of the missing keys follow in the same
    /// order. A batch ends before a key that it already contains; with 1, the replay follows the trace exactly
    #[arg(long, short, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pipeline: u16,

    /// End after this many requests [default: all; 2000000 of a generated trace]
    #[arg(long, short = 'n', value_name = "REQUESTS")]
    count: Option<u64>,

    /// Generate the trace instead of reading it
    #[arg(long, value_name = "NAME", value_enum)]
    generate: Option<Generated>,

    /// Keys of a generated working set
    #[arg(long, short, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    keys: u64,

    /// Zipf exponent of a generated working set
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.99)]
    zipf: f64,

    /// Requests in a generated scan, and between two scans; 0 for no scans [default: as --keys]
    #[arg(long, value_name = "REQUESTS")]
    scan: Option<u64>,

    /// Seed of all random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl ReplayOptions {
    /// The replay that these options describe. Opens the trace.
    pub fn replay(self) -> Result<Replay, String> {
        if self.value_size > VALUE_SIZE_MAX || !(0.0..=20.0).contains(&self.zipf) {
            return Err(format!("values have up to {VALUE_SIZE_MAX} bytes, and exponents are from 0 to 20"));
        }
        let key_size = usize::from(self.key_size);
        let requests = match (self.generate, &self.file, &self.key_column) {
            (Some(Generated::ZipfScan), ..) => {
                let scan = ZipfScan {
                    requests: self.count.unwrap_or(GENERATED_DEFAULT).min(1 << 40),
                    keys: self.keys,
                    exponent: self.zipf,
                    scan: self.scan.unwrap_or(self.keys),
                    key_size,
                    seed: self.seed,
                };
                scan.requests()?
            }
            (None, None, _) => return Err("no trace".into()),
            (None, Some(file), None) => replay::arc(replay::open(file)?, key_size),
            (None, Some(file), Some(key)) => replay::csv(replay::open(file)?, key, self.size_column.as_ref())?,
        };
        let count = self.count.map_or(usize::MAX, |count| count as usize);
        Ok(Replay {
            server: self.server,
            requests: Box::new(requests.take(count)),
            value_size: self.value_size,
            pipeline: usize::from(self.pipeline),
        })
    }
}
