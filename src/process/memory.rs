//! The memory limit that the system sets to the process and its neighbours: that of its cgroup, as in a container.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the system shows cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// A limit from here on is none, in bytes: version 1 writes a huge number.
const NO_LIMIT: u64 = 1 << 60;

/// The least memory limit of the cgroup and of those above it, in bytes. None: there is no limit, or the system does not
/// show it.
pub fn limit() -> Option<u64> {
    limit_in(Path::new(CGROUPS), &fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The same, given the folder of cgroups, and the lines of `/proc/self/cgroup`.
fn limit_in(cgroups: &Path, lines: &str) -> Option<u64> {
    let limits = lines.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (roots, file) = if controllers.is_empty() {
            (vec![cgroups.to_owned(), cgroups.join("unified")], "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (vec![cgroups.join("memory"), cgroups.join(controllers)], "memory.limit_in_bytes")
        } else {
            (Vec::new(), "")
        };
        // A container may see its own cgroup as the root, although the path is that of the machine: the root is the last one.
        let folders = |root: PathBuf| {
            let path = Path::new(path.trim_start_matches('/'));
            path.ancestors().map(|folder| root.join(folder).join(file)).collect::<Vec<_>>()
        };
        roots.into_iter().flat_map(folders).collect::<Vec<_>>()
    });
    let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    limits.filter_map(read).filter(|&limit| limit < NO_LIMIT).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;

    /// The limit with these files, each with its text.
    fn limit_with(lines: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = env::temp_dir().join(format!("corecached-cgroup-{}", std::process::id()));
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder in the temporary directory");
            fs::write(path, text).expect("a file in a folder of ours");
        }
        let limit = limit_in(&root, lines);
        fs::remove_dir_all(root).expect("it was made");
        limit
    }

    #[test]
    fn the_least_limit_on_the_way_to_the_root_counts() {
        let lines = "0::/system.slice/corecached.service\n";
        let (below, above) = ("system.slice/corecached.service/memory.max", "system.slice/memory.max");
        assert_eq!(limit_with(lines, &[(below, "max\n"), (above, "max\n")]), None);
        assert_eq!(limit_with(lines, &[(below, "1000\n"), (above, "2000\n")]), Some(1000));
        assert_eq!(limit_with(lines, &[(below, "3000\n"), (above, "2000\n")]), Some(2000));
        assert_eq!(limit_with("0::/\n", &[("memory.max", "500\n")]), Some(500));
    }

    #[test]
    fn version_1_has_a_folder_for_memory() {
        let lines = "12:pids:/a\n5:memory:/docker/b\n0::/c\n";
        let endless = "9223372036854771712\n";
        let file = "memory/docker/b/memory.limit_in_bytes";
        assert_eq!(limit_with(lines, &[(file, endless)]), None);
        assert_eq!(limit_with(lines, &[(file, "4096\n"), ("pids/a/memory.limit_in_bytes", "1\n")]), Some(4096));
        // In a container without a view of the machine's cgroups.
        assert_eq!(limit_with(lines, &[("memory/memory.limit_in_bytes", "8192\n")]), Some(8192));
        assert_eq!(limit_with("", &[("memory.max", "1\n")]), None);
    }
}
