//! How busy the threads of a server are, from `/proc`, if the server runs on this machine. Its protocol does not tell.

use super::reply::Stats;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Clock ticks of `/proc` per second; Linux has shown 100 to programs on all machines since 2.6.
const TICKS_PER_SECOND: f64 = 100.0;
/// How far the start of the process may lie from what the server says about its uptime. memcached says 2 s too much, and
/// both round.
const START_TOLERANCE_SECONDS: f64 = 5.0;

/// CPU time of the threads of a process at one moment.
#[derive(Clone, Debug)]
pub(super) struct Cores {
    at: Instant,
    /// Seconds of CPU time by thread id.
    threads: HashMap<String, f64>,
}

impl Cores {
    /// The threads of the process that the statistics describe, or `None` if it cannot be found here: the same number
    /// may be another process, if the server runs in a container. So the process must have begun when the server did.
    pub(super) fn of(stats: &Stats) -> Option<Cores> {
        let pid: u32 = stats.text("pid")?.parse().ok()?;
        let process = PathBuf::from(format!("/proc/{pid}"));
        let started = ticks(&process, &[22])?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
        let age = uptime - started / TICKS_PER_SECOND;
        if (age - stats.number("uptime")?).abs() > START_TOLERANCE_SECONDS {
            return None;
        }
        let mut threads = HashMap::new();
        for entry in fs::read_dir(process.join("task")).ok()?.flatten() {
            // A thread may end between the two reads.
            if let Some(used) = ticks(&entry.path(), &[14, 15]) {
                threads.insert(entry.file_name().to_string_lossy().into_owned(), used / TICKS_PER_SECOND);
            }
        }
        Some(Cores { at: Instant::now(), threads })
    }

    /// How much of the time since `before` the busiest thread has run, in percent.
    pub(super) fn busiest_percent(&self, before: &Cores) -> f64 {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64().max(1e-6);
        let used = self.threads.iter().map(|(id, now)| now - before.threads.get(id).unwrap_or(now));
        (100.0 * used.fold(0.0, f64::max) / seconds).min(100.0)
    }
}

/// The sum of fields of a `stat` file, which proc(5) counts from 1. The second field, the name, may have spaces.
fn ticks(folder: &Path, fields: &[usize]) -> Option<f64> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let rest: Vec<&str> = rest.split(' ').collect();
    fields.iter().map(|field| rest.get(field - 3)?.trim_end().parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_process_that_began_at_another_time_is_not_the_server() {
        let of = |uptime: u32| {
            Cores::of(&Stats::from_text(&format!("STAT pid {}\nSTAT uptime {uptime}\n", std::process::id())))
        };
        assert!(of(1_000_000).is_none());
        assert!(of(0).is_some_and(|cores| !cores.threads.is_empty()));
    }

    #[test]
    fn times_of_threads_are_read_from_proc() {
        assert!(ticks(Path::new("/proc/self"), &[22]).is_some_and(|started| started > 0.0));
        assert!(ticks(Path::new("/proc/self"), &[14, 15]).is_some());
        assert!(ticks(Path::new("/proc/none"), &[14]).is_none());
    }

    #[test]
    fn the_busiest_thread_counts() {
        let start = Instant::now();
        let cores = |at, threads: &[(&str, f64)]| Cores {
            at,
            threads: threads.iter().map(|(id, used)| ((*id).to_owned(), *used)).collect(),
        };
        let before = cores(start, &[("1", 5.0), ("2", 1.0)]);
        let after = cores(start + Duration::from_secs(2), &[("1", 5.5), ("2", 2.6), ("3", 100.0)]);
        assert_eq!(after.busiest_percent(&before).round(), 80.0);
    }
}
