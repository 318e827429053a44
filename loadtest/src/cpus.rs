//! Lists of cores, and threads that run only on these.

use std::str::FromStr;
use std::time::Duration;
use std::{fmt, fs, io, mem};

/// A list of cores such as `0,2-3`, not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(Vec<usize>);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let number = |text: &str| {
            let number = text.trim().parse::<usize>().ok().filter(|cpu| *cpu < libc::CPU_SETSIZE as usize);
            number.ok_or_else(|| format!("\"{text}\" is not a core: expected a list such as 0,2-3"))
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("\"{part}\" ends before it begins"));
            }
            cpus.extend(first..=last);
        }
        Ok(Cpus(cpus))
    }
}

/// Runs of at least three as a range.
impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for run in self.0.chunk_by(|one, next| one + 1 == *next) {
            match run {
                [first, _, .., last] => write!(f, "{comma}{first}-{last}")?,
                few => few.iter().try_for_each(|cpu| write!(f, "{}{cpu}", mem::replace(&mut comma, ",")))?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl Cpus {
    /// The cores that this process may run on, in the order of their numbers.
    pub fn allowed() -> Result<Cpus, String> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        list.ok_or("/proc/self/status does not say which cores there are")?.parse()
    }

    /// The cores that run threads of the same physical core as `cpu`, and `cpu` itself. Only `cpu` if the kernel does not
    /// say.
    pub fn siblings(cpu: usize) -> Cpus {
        let list = fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
        list.ok().and_then(|list| list.parse().ok()).unwrap_or(Cpus(vec![cpu]))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The first `count` cores, at least one.
    pub fn first(&self, count: usize) -> Cpus {
        Cpus(self.0[..count.clamp(1, self.0.len())].to_vec())
    }

    /// The cores that are not in the other list; `None` if there are none.
    pub fn except(&self, other: &Cpus) -> Option<Cpus> {
        let cpus: Vec<usize> = self.0.iter().copied().filter(|cpu| !other.0.contains(cpu)).collect();
        (!cpus.is_empty()).then_some(Cpus(cpus))
    }

    /// Whether a core is in both lists.
    pub fn overlaps(&self, other: &Cpus) -> bool {
        self.0.iter().any(|cpu| other.0.contains(cpu))
    }

    /// The place of a core in the list.
    pub fn position(&self, cpu: usize) -> Option<usize> {
        self.0.iter().position(|other| *other == cpu)
    }

    /// The cores by `key`; in their old order where keys are equal.
    pub fn sorted_by_key<Key: Ord>(&self, key: impl FnMut(&usize) -> Key) -> Cpus {
        let mut cpus = self.0.clone();
        cpus.sort_by_key(key);
        Cpus(cpus)
    }

    /// The core for thread `index`. If threads outnumber the cores, the list starts over.
    pub fn nth(&self, index: usize) -> Cpus {
        Cpus(vec![self.0[index % self.0.len()]])
    }

    /// The cores of both lists.
    pub fn union(&self, other: &Cpus) -> Cpus {
        let mut cpus = [self.0.as_slice(), &other.0].concat();
        cpus.sort_unstable();
        cpus.dedup();
        Cpus(cpus)
    }

    /// Time that the hypervisor has given to others while these cores wanted to run, in steps of a clock tick (10 ms);
    /// zero where the kernel is not told.
    pub fn stolen(&self) -> Duration {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = self.0.iter().filter_map(|core| stolen_ticks(&stat, *core)).sum::<u64>();
        Duration::from_secs_f64(ticks as f64 / ticks_per_second())
    }

    /// Keeps the calling thread, and the threads and processes that it starts from now on, on these cores.
    ///
    /// Makes one system call and allocates nothing, so a process may call it between fork and exec.
    pub fn pin(&self) -> io::Result<()> {
        // SAFETY: `cpu_set_t` is an array of integers, for which all zeros is the empty set.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        for cpu in &self.0 {
            // SAFETY: every number of the list is below CPU_SETSIZE, as `from_str` has checked.
            unsafe { libc::CPU_SET(*cpu, &mut set) };
        }
        // SAFETY: 0 is the calling thread; the set is valid, and the size is that of the set.
        if unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// The eighth number of a core in /proc/stat.
fn stolen_ticks(stat: &str, core: usize) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
    line.split_ascii_whitespace().nth(7)?.parse().ok()
}

/// Clock ticks of the kernel's figures.
pub fn ticks_per_second() -> f64 {
    // SAFETY: asks for a number only.
    let count = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    count.max(1) as f64
}

/// Nanoseconds that a task has run so far. `task` is its directory in /proc.
pub fn nanoseconds_run(task: &str) -> Option<u64> {
    fs::read_to_string(format!("{task}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_of_a_core() {
        let stat = "cpu  1 2 3 4 5 6 7 80 0 0\ncpu1 1 2 3 4 5 6 7 30 0 0\ncpu10 1 2 3 4 5 6 7 50 0 0\nintr 9 9\n";
        assert_eq!([1, 10, 0].map(|core| stolen_ticks(stat, core)), [Some(30), Some(50), None]);
    }

    #[test]
    fn lists_of_cores() {
        assert_eq!("0".parse(), Ok(Cpus(vec![0])));
        assert_eq!("0,2-4,7".parse(), Ok(Cpus(vec![0, 2, 3, 4, 7])));
        for bad in ["", "a", "1-", "3-1", "1024", "0,,1", "-1"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
        assert_eq!(Cpus(vec![2, 0]).union(&Cpus(vec![1, 0])), Cpus(vec![0, 1, 2]));
        for list in ["0", "0,1", "0-3", "0-2,4,6,8-10", "3,1"] {
            assert_eq!(list.parse::<Cpus>().map(|cpus| cpus.to_string()).as_deref(), Ok(list));
        }
        assert_eq!("3,5".parse::<Cpus>().expect("valid").nth(3), Cpus(vec![5]));
    }
}
