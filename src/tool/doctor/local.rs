//! The facts of the checks of a machine: the machine itself, and what the server there wants of it.

use super::finding::{Unknown, because};
use super::machine::Machine;
use super::process::Process;
use super::server::Server;
use std::collections::BTreeSet;

/// What a server wants that was given no flags.
const CONNECTIONS: f64 = 1024.0;
const BACKLOG: f64 = 1024.0;

#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) machine: Machine,
    pub(super) occupant: Occupant,
}

/// Who the machine is for.
#[derive(Clone, Debug)]
pub(super) enum Occupant {
    /// A server that runs here, and its process if it can be found. A container may hide it.
    Server(Box<Server>, Option<Process>),
    /// No server answers. One that is started from here gets the limits of this process.
    Nobody(Process),
}

impl Local {
    pub(super) fn server(&self) -> Result<&Server, Unknown> {
        match &self.occupant {
            Occupant::Server(server, _) => Ok(server),
            Occupant::Nobody(_) => because("no server here that answers"),
        }
    }

    /// Whether the server is another than corecached.
    pub(super) fn is_for_memcached(&self) -> bool {
        self.server().is_ok_and(|server| !server.is_corecached())
    }

    /// The process of the server, or ours in its place.
    pub(super) fn process(&self) -> Result<&Process, Unknown> {
        match &self.occupant {
            Occupant::Server(_, Some(process)) | Occupant::Nobody(process) => Ok(process),
            Occupant::Server(_, None) => {
                because("the process of the server is not in /proc here: ask in its container")
            }
        }
    }

    /// The process of the server.
    pub(super) fn server_process(&self) -> Result<&Process, Unknown> {
        self.server().and_then(|_| self.process())
    }

    /// The start of a sentence about the limits of the process.
    pub(super) fn subject(&self) -> &'static str {
        match self.occupant {
            Occupant::Server(..) => "The server",
            Occupant::Nobody(_) => "A server that is started from here",
        }
    }

    /// `-c`
    pub(super) fn connections(&self) -> Result<f64, Unknown> {
        self.server().map_or(Ok(CONNECTIONS), |server| server.number_setting("maxconns"))
    }

    /// `-b`
    pub(super) fn backlog(&self) -> Result<f64, Unknown> {
        self.server().map_or(Ok(BACKLOG), |server| server.number_setting("tcp_backlog"))
    }

    /// `-t`
    pub(super) fn workers(&self) -> Result<f64, Unknown> {
        match self.server() {
            Ok(server) => server.number_setting("num_threads"),
            Err(_) => Ok(self.cpus()?.len() as f64),
        }
    }

    /// The CPUs that the process may use.
    pub(super) fn cpus(&self) -> Result<&BTreeSet<u32>, Unknown> {
        let of_process = self.process().map(|process| &process.cpus);
        let known = [of_process.ok(), Some(&self.machine.cpus)].into_iter().flatten().find(|cpus| !cpus.is_empty());
        known.map_or_else(|| because("the CPUs of this machine cannot be read"), Ok)
    }
}
