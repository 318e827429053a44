//! A process as `/proc` shows it: the server's, or our own where no server runs.

use super::files::{Root, cpu_list, field, kilobytes, text};
use corecached::process::cgroup::Limits;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Flags of one letter without a value. Other letters end a cluster like `-vk`.
const PLAIN_LETTERS: &str = "AdCFiLMrSvVWXZk";

#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    /// Most open files; `u64::MAX` without a limit.
    pub(super) open_files: Option<u64>,
    pub(super) swapped_bytes: Option<u64>,
    pub(super) locked_bytes: Option<u64>,
    /// The CPUs that it may run on.
    pub(super) cpus: BTreeSet<u32>,
    /// Whether the process has given up huge pages (`prctl`), or its parents have.
    pub(super) has_no_huge_pages: bool,
    /// The words of its command line, and of the file that `--flags-file` names.
    words: Vec<String>,
    pub(super) limits: Limits,
}

impl Process {
    /// Reads `/proc/PID`, or what can be read of it.
    pub(super) fn read(root: &Root, folder: &Path) -> Process {
        let status = text(&folder.join("status")).unwrap_or_default();
        let groups = text(&folder.join("cgroup")).unwrap_or_default();
        Process {
            open_files: text(&folder.join("limits")).and_then(|limits| soft_limit(&limits, "Max open files")),
            swapped_bytes: kilobytes(&status, "VmSwap"),
            locked_bytes: kilobytes(&status, "VmLck"),
            cpus: field(&status, "Cpus_allowed_list").map(cpu_list).unwrap_or_default(),
            has_no_huge_pages: field(&status, "THP_enabled") == Some("0"),
            words: words(root, &text(&folder.join("cmdline")).unwrap_or_default()),
            limits: Limits::read(&root.0, &groups),
        }
    }

    /// Whether its flags ask for locked memory.
    pub(super) fn wants_locked_memory(&self) -> bool {
        self.has_flag('k', "--lock-memory")
    }

    /// Whether its flags have this letter, alone or among others without a value, or this word.
    fn has_flag(&self, letter: char, word: &str) -> bool {
        let has_letter = |flags: &str| {
            let end = flags.find(|other| !PLAIN_LETTERS.contains(other)).unwrap_or(flags.len());
            flags[..end].contains(letter)
        };
        self.words.iter().any(|given| given == word || given.strip_prefix('-').is_some_and(has_letter))
    }
}

/// The words of a command line after the name of the program. Those of a file of flags come last.
fn words(root: &Root, command_line: &str) -> Vec<String> {
    let mut words: Vec<String> = command_line.split('\0').skip(1).map(str::to_owned).collect();
    let file = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--flags-file") {
        Some("") => words.get(at + 1).cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    });
    if let Some(text) = file.and_then(|file| root.text(file.trim_start_matches('/'))) {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        words.extend(lines.flat_map(str::split_whitespace).map(str::to_owned));
    }
    words
}

/// The soft limit in a file `limits`: `Max open files   1024   4096   files`.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The folder of the process that reads this.
pub(super) fn own_folder(root: &Root) -> PathBuf {
    root.path("proc/self")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_alone_in_clusters_and_in_a_file() {
        let process = |line: &str| Process {
            words: words(&Root("/nowhere".into()), &line.replace(' ', "\0")),
            ..Process::default()
        };
        for line in ["c -k", "c -m 64 -vk", "c --lock-memory", "memcached -d -k -u me"] {
            assert!(process(line).wants_locked_memory(), "{line}");
        }
        for line in ["c", "-k", "c -ukevin", "c -vuk", "c --pidfile -", "c k"] {
            assert!(!process(line).wants_locked_memory(), "{line}");
        }
    }

    #[test]
    fn the_soft_limit_counts() {
        let text = "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096  files\n\
                    Max cpu time  unlimited unlimited seconds";
        assert_eq!(soft_limit(text, "Max open files"), Some(1024));
        assert_eq!(soft_limit(text, "Max cpu time"), Some(u64::MAX));
        assert_eq!(soft_limit(text, "Max stack"), None);
    }
}
