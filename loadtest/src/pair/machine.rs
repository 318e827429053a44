//! The machine and the date of the figures, which a reader needs to judge them.

use std::fmt::Write;
use std::fs;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use super::figure::SIDES;
use crate::cpus::Cpus;
use crate::program::Program;
use crate::server::{Ports, Server};

/// The machine, the date, and the servers' versions.
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// Year, month and day, UTC.
    pub date: String,
    /// What the servers say of their versions, baseline first.
    pub versions: [String; 2],
}

impl Machine {
    /// This machine, today.
    pub fn here(versions: [String; 2]) -> Machine {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400);
        let (year, month, day) = civil(days);
        Machine {
            cpu: cpu_model(&read("/proc/cpuinfo")).unwrap_or("unknown").into(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            date: format!("{year:04}-{month:02}-{day:02}"),
            versions,
        }
    }

    /// The head of a page of figures: the commands of both servers, this machine, the date, and the method.
    pub fn table(&self, programs: &[Program; 2], method: &str) -> String {
        let mut out = "| | |\n|---|---|\n".to_owned();
        for (side, name) in SIDES.iter().enumerate() {
            let _ = writeln!(out, "| {name} | `{}` ({}) |", programs[side].command, self.versions[side]);
        }
        let _ = writeln!(out, "| machine | {} cores, {}; Linux {} |", self.cores, self.cpu, self.kernel);
        let _ = writeln!(out, "| date | {} |", self.date);
        let _ = writeln!(out, "| method | {method} |");
        out
    }
}

/// What a server says of its version. Starts the server for it.
pub fn version(program: &Program, cpus: &Cpus, stop: &AtomicBool) -> Result<String, String> {
    let server = Server::start(program, Ports::Plain(1), cpus, stop)?;
    Ok(server.version().unwrap_or_else(|| "unknown version".to_owned()))
}

/// Memory of this machine in MiB; `u64::MAX` if it is unknown.
pub fn memory_mib() -> u64 {
    let kibibytes = |text: String| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    fs::read_to_string("/proc/meminfo").ok().and_then(kibibytes).map_or(u64::MAX, |kibibytes| kibibytes >> 10)
}

/// Memory in MiB that is available by the kernel's estimate.
pub fn available_mib() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Year, month and day of a day counted from 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
/// Years begin in March here, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (400 * era + year + u64::from(month <= 2), month, day - (153 * march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, date) in [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_453, (2025, 12, 31))] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn the_model_of_the_cpu() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A: 3 GHz\n"), Some("A: 3 GHz"));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
    }
}
