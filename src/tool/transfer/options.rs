//! Flags that `dump`, `load` and `copy` share, and how their numbers are read.

/// Which items of a server are read, and how fast.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::tool) struct PickArgs {
    /// Only keys that begin with this, as "user:"
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(in crate::tool) prefix: String,
    /// Begin with the keys that clients used last. Reads the whole list of keys first, and sorts it in 64 MiB of memory;
    /// what does not fit goes to a file in $TMPDIR, about 10 bytes and the key for each item
    #[arg(long)]
    pub(in crate::tool) by_access: bool,
    /// End after so many bytes of keys and values, as 500M or 2G
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(in crate::tool) limit: Option<u64>,
    #[command(flatten)]
    pub(in crate::tool) pace: PaceArgs,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(in crate::tool) struct PaceArgs {
    /// Most items per second; an item counts as one for each 4 KiB. 0: no limit
    #[arg(long, value_name = "N", default_value = "50000", value_parser = rate)]
    pub(in crate::tool) rate: u64,
    /// Print the summary as JSON to standard output
    #[arg(long)]
    pub(in crate::tool) json: bool,
}

/// Reads `50000`, `50000/s`, `50k` or `1M`.
fn rate(text: &str) -> Result<u64, String> {
    scaled(text.strip_suffix("/s").unwrap_or(text), 1000)
        .ok_or_else(|| "it is no number per second, as 50000 or 50k".into())
}

/// Reads `1000000`, `64K`, `500M`, `2G` or `1T`, in units of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let bytes = scaled(text, 1024).filter(|&bytes| bytes > 0);
    bytes.ok_or_else(|| "it is no number of bytes, as 1000000, 64K, 500M or 2G".into())
}

fn scaled(text: &str, unit: u64) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let power = match suffix {
        "" => 0,
        "k" | "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        assert_eq!(["0", "50000", "50000/s", "50k", "1M/s"].map(rate), [0, 50_000, 50_000, 50_000, 1_000_000].map(Ok));
        assert_eq!(["1", "64K", "2G"].map(bytes), [1, 64 << 10, 2 << 30].map(Ok));
        for wrong in ["", "-1", "k", "1.5", "5x", "5/m", "99999999999999999999", "99999999999T"] {
            assert!(rate(wrong).is_err() && bytes(wrong).is_err(), "{wrong}");
        }
        assert!(bytes("0").is_err());
    }
}
