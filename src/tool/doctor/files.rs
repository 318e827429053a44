//! Reads files of `/proc` and `/sys` below a folder, and the forms in which the kernel writes them.

use super::finding::{Unknown, because};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most CPUs that a list may name. Linux knows 8192 at most.
const CPUS_MAX: u32 = 8192;

/// The folder that stands for `/`.
#[derive(Clone, Debug)]
pub(super) struct Root(pub(super) PathBuf);

impl Root {
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// The text of a file, without the white space around it.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        text(&self.path(path))
    }

    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The names in a folder, sorted.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

pub(super) fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A value that may be missing because its file is, and then the check cannot be made.
pub(super) fn known<'a, T>(value: &'a Option<T>, path: &str) -> Result<&'a T, Unknown> {
    match value {
        Some(value) => Ok(value),
        None => because(format!("this machine has no /{path}, or it cannot be read")),
    }
}

/// The choice in brackets: `always [madvise] never`.
pub(super) fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// The numbers of a list like `0-3,8`.
pub(super) fn cpu_list(text: &str) -> BTreeSet<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some(first..=last.min(CPUS_MAX))
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// The CPUs of a mask like `00000000,0000000f`.
pub(super) fn cpu_mask(text: &str) -> BTreeSet<u32> {
    let digits = text.chars().rev().filter_map(|letter| letter.to_digit(16));
    let bits = digits
        .zip(0..CPUS_MAX / 4)
        .flat_map(|(digit, at)| (0..4).filter(move |bit| digit & (1 << bit) != 0).map(move |bit| 4 * at + bit));
    bits.collect()
}

/// The kilobytes of a line like `VmSwap:     12 kB`, in bytes.
pub(super) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let number: u64 = field(text, name)?.split_whitespace().next()?.parse().ok()?;
    Some(number.saturating_mul(1024))
}

/// The rest of the line that begins with a name and a colon.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_masks_and_choices_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_list("0-2,8"), BTreeSet::from([0, 1, 2, 8]));
        assert_eq!(cpu_list(""), BTreeSet::new());
        assert_eq!(cpu_list("0-4294967295").len(), CPUS_MAX as usize + 1);
        assert_eq!(cpu_mask("00000001,80000003"), BTreeSet::from([0, 1, 31, 32]));
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("always"), None);
        assert_eq!(kilobytes("VmSize: 7 kB\nVmSwap:\t  12 kB\n", "VmSwap"), Some(12 * 1024));
    }
}
