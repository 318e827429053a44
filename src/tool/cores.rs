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

/// Beginnings of the names of threads that serve clients: those of corecached and of memcached.
const WORKER_NAMES: [&str; 2] = ["worker-", "mc-worker"];

/// CPU time of the threads of a process at one moment.
#[derive(Clone, Debug)]
pub(super) struct Cores {
    at: Instant,
    /// By thread id.
    threads: HashMap<String, Thread>,
}

#[derive(Clone, Debug, PartialEq)]
struct Thread {
    name: String,
    /// CPU time in seconds.
    used: f64,
}

/// The folder in `/proc` of the process that the statistics describe, or `None` if it cannot be found below `root`: the
/// same number may be another process, if the server runs in a container. So the process must have begun when the server
/// did.
pub(super) fn process_of(root: &Path, stats: &Stats) -> Option<PathBuf> {
    let pid: u32 = stats.text("pid")?.parse().ok()?;
    let process = root.join(format!("proc/{pid}"));
    let started = ticks(&read_stat(&process)?.1, &[22])?;
    let uptime = fs::read_to_string(root.join("proc/uptime")).ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let age = uptime - started / TICKS_PER_SECOND;
    ((age - stats.number("uptime")?).abs() <= START_TOLERANCE_SECONDS).then_some(process)
}

impl Cores {
    /// The threads of the process that the statistics describe, if [`process_of`] finds it.
    pub(super) fn of(root: &Path, stats: &Stats) -> Option<Cores> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(process_of(root, stats)?.join("task")).ok()?.flatten() {
            // A thread may end between the two reads.
            let Some((name, fields)) = read_stat(&entry.path()) else { continue };
            if let Some(used) = ticks(&fields, &[14, 15]) {
                let id = entry.file_name().to_string_lossy().into_owned();
                threads.insert(id, Thread { name, used: used / TICKS_PER_SECOND });
            }
        }
        Some(Cores { at: Instant::now(), threads })
    }

    /// How much of the time since `before` the busiest thread has run, in percent.
    pub(super) fn busiest_percent(&self, before: &Cores) -> f64 {
        self.threads.keys().map(|id| self.percent(id, before)).fold(0.0, f64::max)
    }

    /// The same for each thread that serves clients.
    pub(super) fn worker_percents(&self, before: &Cores) -> Vec<f64> {
        let is_worker = |thread: &Thread| WORKER_NAMES.iter().any(|name| thread.name.starts_with(name));
        let workers = self.threads.iter().filter(|(_, thread)| is_worker(thread));
        workers.map(|(id, _)| self.percent(id, before)).collect()
    }

    /// How much of the time since `before` a thread has run, in percent. A thread that is new has not.
    fn percent(&self, id: &str, before: &Cores) -> f64 {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64().max(1e-6);
        let used = |cores: &Cores| cores.threads.get(id).map(|thread| thread.used);
        let ran = used(self).zip(used(before)).map_or(0.0, |(now, before)| now - before);
        (100.0 * ran / seconds).clamp(0.0, 100.0)
    }
}

/// The name in a `stat` file, and the fields after it. The name may have spaces and brackets.
fn read_stat(folder: &Path) -> Option<(String, Vec<String>)> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (name, rest) = stat.rsplit_once(") ")?;
    let (_, name) = name.split_once('(')?;
    Some((name.to_owned(), rest.split_whitespace().map(str::to_owned).collect()))
}

/// The sum of fields of a `stat` file, which proc(5) counts from 1; the name is the second.
fn ticks(fields: &[String], wanted: &[usize]) -> Option<f64> {
    wanted.iter().map(|field| fields.get(field - 3)?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_process_that_began_at_another_time_is_not_the_server() {
        let of = |uptime: u32| {
            let stats = Stats::from_text(&format!("STAT pid {}\nSTAT uptime {uptime}\n", std::process::id()));
            Cores::of(Path::new("/"), &stats)
        };
        assert!(of(1_000_000).is_none());
        assert!(of(0).is_some_and(|cores| !cores.threads.is_empty()));
    }

    #[test]
    fn times_of_threads_are_read_from_proc() {
        let (name, fields) = read_stat(Path::new("/proc/self")).expect("a process");
        assert!(!name.is_empty() && ticks(&fields, &[22]).is_some_and(|started| started > 0.0));
        assert!(ticks(&fields, &[14, 15]).is_some());
        assert!(read_stat(Path::new("/proc/none")).is_none());
    }

    #[test]
    fn the_busiest_thread_counts_and_workers_have_names() {
        let start = Instant::now();
        let thread =
            |(id, name, used): &(&str, &str, f64)| ((*id).to_owned(), Thread { name: (*name).to_owned(), used: *used });
        let cores = |at, threads: &[(&str, &str, f64)]| Cores { at, threads: threads.iter().map(thread).collect() };
        let before = cores(start, &[("1", "corecached", 5.0), ("2", "worker-0", 1.0), ("3", "mc-worker", 2.0)]);
        let now = [("1", "corecached", 5.5), ("2", "worker-0", 2.6), ("3", "mc-worker", 2.5), ("4", "worker-1", 100.0)];
        let after = cores(start + Duration::from_secs(2), &now);
        assert_eq!(after.busiest_percent(&before).round(), 80.0);
        let mut workers = after.worker_percents(&before);
        workers.sort_by(f64::total_cmp);
        assert_eq!(workers.iter().map(|percent| percent.round()).collect::<Vec<_>>(), [0.0, 25.0, 80.0]);
    }
}
