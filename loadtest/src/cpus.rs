//! Lists of cores, and threads that run only on these.

use std::str::FromStr;
use std::{fs, io, mem};

/// A list of cores such as `0,2-3`, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Cpus {
    pub fn count(&self) -> usize {
        self.0.len()
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

/// Nanoseconds that a task has run so far. `task` is its directory in /proc.
pub fn nanoseconds_run(task: &str) -> Option<u64> {
    fs::read_to_string(format!("{task}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!("0".parse(), Ok(Cpus(vec![0])));
        assert_eq!("0,2-4,7".parse(), Ok(Cpus(vec![0, 2, 3, 4, 7])));
        for bad in ["", "a", "1-", "3-1", "1024", "0,,1", "-1"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
        assert_eq!(Cpus(vec![2, 0]).union(&Cpus(vec![1, 0])), Cpus(vec![0, 1, 2]));
        assert_eq!("3,5".parse::<Cpus>().expect("valid").nth(3), Cpus(vec![5]));
    }
}
