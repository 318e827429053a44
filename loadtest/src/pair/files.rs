//! Files of results.

use std::fs;
use std::path::Path;

/// Writes a file. An error names it.
pub fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes files, given by name and content, into a directory, which it creates if needed.
pub fn write_all(directory: &Path, files: &[(String, String)]) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    files.iter().try_for_each(|(name, text)| write(&directory.join(name), text))
}
