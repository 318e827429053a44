//! The thread that keeps the nodes of `--nodes` up to date. It reads the file at HUP, and when the file has changed, and
//! resolves names meanwhile. That may take seconds, which neither a worker nor the main thread can spare.

use crate::exit::{EXIT_NO_INPUT, EXIT_USAGE, Exit};
use crate::nodes::{NodeList, Nodes};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

/// How often the thread looks whether the file has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The longest file: a thousand long names with addresses, and remarks.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file as it was when it was read. Another file, or a changed one, differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    seconds: i64,
    nanos: i64,
}

impl From<Metadata> for Stamp {
    fn from(file: Metadata) -> Stamp {
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            seconds: file.mtime(),
            nanos: file.mtime_nsec(),
        }
    }
}

/// The nodes of the file, for workers, and what the thread needs to go on from there.
pub(super) struct NodesFile {
    path: PathBuf,
    nodes: Arc<Nodes>,
    /// The file of the last attempt. None: that attempt failed, and another may succeed although the file is the same.
    stamp: Option<Stamp>,
    /// What was wrong the last time, so that the log has it once.
    complaint: Option<String>,
}

impl NodesFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// One line that names the file and, for a mistake in it, the line.
    pub(super) fn open(path: &Path) -> Result<NodesFile, Exit> {
        let (list, stamp) = read(path)?;
        log::info!("--nodes {}: {} nodes, version {}", path.display(), list.len(), list.version);
        Ok(NodesFile { path: path.to_owned(), nodes: Arc::new(Nodes::new(list)), stamp: Some(stamp), complaint: None })
    }

    pub(super) fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    /// Starts the thread. It ends with the process: nothing waits for a name that is being resolved.
    pub(super) fn watch(mut self) -> io::Result<NodesReader> {
        // One request is enough: the file is read after it was made.
        let (sender, requests) = mpsc::sync_channel(1);
        let run = move || {
            loop {
                match requests.recv_timeout(LOOK_AGAIN) {
                    Ok(()) => self.read_again(),
                    Err(RecvTimeoutError::Timeout) => self.look(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        thread::Builder::new().name("nodes".to_owned()).spawn(run)?;
        Ok(NodesReader(sender))
    }

    /// Reads the file if it is not the one that was read last.
    fn look(&mut self) {
        let now = std::fs::metadata(&self.path).ok().map(Stamp::from);
        if now.is_none() || now != self.stamp {
            self.read_again();
        }
    }

    /// Reads the file. If that fails, the old nodes stay.
    fn read_again(&mut self) {
        let path = self.path.display();
        match read(&self.path) {
            Ok((list, stamp)) => {
                (self.stamp, self.complaint) = (Some(stamp), None);
                let (count, version) = (list.len(), list.version);
                let old = self.nodes.replace(list.clone());
                if version <= old.version && !old.has_nodes_of(&list) {
                    log::warn!(
                        "--nodes {path}: the nodes have changed, but not to a version above {}: clients keep the old ones",
                        old.version
                    );
                }
                log::info!("--nodes {path}: {count} nodes, version {version}");
            }
            Err(exit) => {
                self.stamp = None;
                if self.complaint.as_ref() != Some(&exit.text) {
                    log::error!("the nodes stay as they were: {exit}");
                    self.complaint = Some(exit.text);
                }
            }
        }
    }
}

/// Makes the thread read the file.
pub(super) struct NodesReader(SyncSender<()>);

impl NodesReader {
    pub(super) fn read_again(&self) {
        // If the channel is full, the file will be read after this moment anyway.
        let _ = self.0.try_send(());
    }
}

/// Reads the file, and resolves the names in it.
fn read(path: &Path) -> Result<(NodeList, Stamp), Exit> {
    let unreadable = |error: io::Error| Exit::failure(EXIT_NO_INPUT, format!("--nodes {}: {error}", path.display()));
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    let wrong = |line: Option<usize>, what: &dyn std::fmt::Display| {
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        Exit::failure(EXIT_USAGE, format!("--nodes {}{line}: {what}", path.display()))
    };
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(None, &format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let seconds = metadata.mtime().try_into().unwrap_or(0);
    let list = NodeList::from_text(&text, seconds, resolve).map_err(|error| wrong(error.line, &error))?;
    Ok((list, metadata.into()))
}

fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    // The port does not matter here.
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}
