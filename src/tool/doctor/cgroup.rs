//! The limits of memory and CPU time that cgroups put on a process: the tightest of its group and of those above, in
//! version 2 and in version 1.

use super::files::{Root, text};
use std::path::{Component, Path, PathBuf};

/// Version 1 writes the largest number that it has for "no limit".
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// A limit, and the file that sets it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) value: f64,
    pub(super) file: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Limits {
    /// In bytes.
    pub(super) memory: Option<Bound>,
    /// Bytes of swap that the group may use.
    pub(super) swap: Option<Bound>,
    /// CPUs that the quota of CPU time is worth.
    pub(super) cpus: Option<Bound>,
}

impl Limits {
    /// The limits of a process, by the text of its file `cgroup`: lines like `4:memory:/group` and `0::/group`.
    pub(super) fn read(root: &Root, groups: &str) -> Limits {
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

    fn take_version_2(&mut self, root: &Root, folder: &Path) {
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

    fn take_version_1(&mut self, root: &Root, folder: &Path) {
        lower(&mut self.memory, bytes(root, folder, "memory.limit_in_bytes"));
        let file = folder.join("cpu.cfs_quota_us");
        let cpus = text(&file).and_then(|quota| quotient(&quota, &text(&folder.join("cpu.cfs_period_us"))?));
        lower(&mut self.cpus, cpus.map(|value| Bound { value, file: shown(root, &file) }));
    }
}

/// The folders of a group and of those above it. If the group is not there, its path is that of another namespace, as
/// in a container, and the mount itself shows the group.
fn folders(root: &Root, mount: &str, group: &str) -> Vec<PathBuf> {
    let mount = root.path(mount);
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

fn bytes(root: &Root, folder: &Path, name: &str) -> Option<Bound> {
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

/// The path of a file as the machine sees it.
fn shown(root: &Root, file: &Path) -> String {
    format!("/{}", file.strip_prefix(&root.0).unwrap_or(file).display())
}
