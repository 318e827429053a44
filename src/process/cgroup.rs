//! The limits of memory and CPU time that cgroups put on a process: the tightest of its group and of those above, in
//! version 2 and in version 1.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Version 1 writes the largest number that it has for "no limit".
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// A limit, and the file that sets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// In the unit that [`Limits`] says.
    pub value: f64,
    /// The path of the file.
    pub file: String,
}

/// The limits of a process. `None`: there is no limit, or the system does not show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// In bytes: the kernel slows down or kills a group that exceeds it.
    pub memory: Option<Bound>,
    /// Bytes of swap that the group may use.
    pub swap: Option<Bound>,
    /// CPUs that the quota of CPU time is worth.
    pub cpus: Option<Bound>,
}

impl Limits {
    /// The limits of this process.
    pub fn own() -> Limits {
        Limits::read(Path::new("/"), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
    }

    /// The limits of a process, by the text of its file `cgroup`: lines like `4:memory:/group` and `0::/group`. `root` is the
    /// folder that stands for `/`.
    pub fn read(root: &Path, groups: &str) -> Limits {
        let mut limits = Limits::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
            let has = |name: &str| controllers.split(',').any(|controller| controller == name);
            if controllers.is_empty() {
                for mount in ["sys/fs/cgroup", "sys/fs/cgroup/unified"] {
                    folders(root, mount, group).iter().for_each(|folder| limits.take_version_2(root, folder));
                }
            } else if has("memory") || has("cpu") {
                let mount = format!("sys/fs/cgroup/{controllers}");
                folders(root, &mount, group).iter().for_each(|folder| limits.take_version_1(root, folder));
            }
        }
        limits
    }

    fn take_version_2(&mut self, root: &Path, folder: &Path) {
        for name in ["memory.max", "memory.high"] {
            lower(&mut self.memory, bytes(root, folder, name));
        }
        lower(&mut self.swap, bytes(root, folder, "memory.swap.max"));
        let file = folder.join("cpu.max");
        let cpus = text(&file).and_then(|text| {
            let (quota, period) = text.split_once(' ')?;
            quotient(quota, period)
        });
        lower(&mut self.cpus, cpus.map(|value| Bound { value, file: shown(root, &file) }));
    }

    fn take_version_1(&mut self, root: &Path, folder: &Path) {
        lower(&mut self.memory, bytes(root, folder, "memory.limit_in_bytes"));
        let file = folder.join("cpu.cfs_quota_us");
        let cpus = text(&file).and_then(|quota| quotient(&quota, &text(&folder.join("cpu.cfs_period_us"))?));
        lower(&mut self.cpus, cpus.map(|value| Bound { value, file: shown(root, &file) }));
    }
}

/// The folders of a group and of those above it. If the group is not there, its path is that of another namespace, as
/// in a container, and the mount itself shows the group.
fn folders(root: &Path, mount: &str, group: &str) -> Vec<PathBuf> {
    let mount = root.join(mount);
    let names: Vec<_> = Path::new(group).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let mut folder = mount.clone();
    let mut folders = vec![mount];
    for name in names {
        folder = folder.join(name);
        if !folder.is_dir() {
            break;
        }
        folders.push(folder.clone());
    }
    folders
}

fn bytes(root: &Path, folder: &Path, name: &str) -> Option<Bound> {
    let file = folder.join(name);
    let value: u64 = text(&file)?.parse().ok()?;
    (value < NO_LIMIT_BYTES).then(|| Bound { value: value as f64, file: shown(root, &file) })
}

/// How many CPUs a quota of each period is, unless it is "max" or negative, which is no limit.
fn quotient(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    (quota >= 0.0 && period > 0.0).then(|| quota / period)
}

fn lower(least: &mut Option<Bound>, other: Option<Bound>) {
    if let Some(other) = other
        && least.as_ref().is_none_or(|least| other.value < least.value)
    {
        *least = Some(other);
    }
}

/// The text of a file, without the white space around it.
fn text(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

/// The path of a file as the machine sees it.
fn shown(root: &Path, file: &Path) -> String {
    format!("/{}", file.strip_prefix(root).unwrap_or(file).display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The limit with these files, each with its text.
    fn limit_with(lines: &str, files: &[(&str, &str)]) -> Option<u64> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = env::temp_dir().join(format!("corecached-cgroup-{}-{number}", std::process::id()));
        fs::create_dir(&root).expect("a new folder");
        for (file, text) in files {
            let path = root.join("sys/fs/cgroup").join(file);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder in the temporary directory");
            fs::write(path, text).expect("a file in a folder of ours");
        }
        let limit = Limits::read(&root, lines).memory.map(|bound| bound.value as u64);
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
