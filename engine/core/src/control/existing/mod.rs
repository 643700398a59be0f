//! Sockets that existed before a policy was attached. A connected socket is not checked again, so these are looked for once,
//! after the policy was attached.
//!
//! ```text
//! attach (every new socket is checked from now on) -> scan -> policy_check -> destroy -> scan again
//! ```

mod pass;
mod policy_check;
#[cfg(test)]
mod policy_check_tests;
mod socket_scan;

use engine_common::Protocol;
use serde::Serialize;

use super::{AttachOutcome, Control, error::ControlError};
use crate::sockets::{Diag, DiagError};

/// What is done about existing sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They are reported.
    Audit,
    /// They are reported, and those that a policy denies are destroyed.
    Destroy,
}

/// The existing sockets that were found, and what was done about them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ExistingReport {
    /// Number of network namespaces that were scanned.
    pub networks: usize,
    /// Number of sockets that the policies allow silently.
    pub allowed: usize,
    /// Number of connections that a peer opened: they are not egress, and stay.
    pub inbound: usize,
    /// The others, and the inbound ones.
    pub sockets: Vec<ExistingSocket>,
    /// Protocols that this kernel cannot list.
    pub unseen: Vec<String>,
    /// What could not be scanned.
    pub problems: Vec<String>,
}

impl ExistingReport {
    /// Whether everything was scanned, and everything that was to be destroyed was.
    pub fn is_complete(&self) -> bool {
        let is_done =
            |socket: &ExistingSocket| !matches!(socket.fate, Fate::NotDestroyed | Fate::Disconnected);
        self.problems.is_empty() && self.sockets.iter().all(is_done)
    }
}

/// An existing socket.
#[derive(Clone, Debug, Serialize)]
pub struct ExistingSocket {
    /// Its protocol, by name.
    pub protocol: String,
    /// Local address and port.
    pub local: String,
    /// Address and port of the peer, if it has one.
    pub peer: Option<String>,
    /// State, as ss(8) has it.
    pub state: &'static str,
    /// Path of the cgroup it was created in; `None` where that was removed.
    pub cgroup: Option<String>,
    /// Inode number of its network namespace.
    pub network: u64,
    /// User id of its creator.
    pub uid: u32,
    /// Processes that hold it.
    pub processes: Vec<Process>,
    /// Whether the peer opened the connection.
    pub inbound: bool,
    /// Action of the strictest policy; `None` for an inbound connection.
    pub verdict: Option<&'static str>,
    /// Name of that policy.
    pub policy: Option<String>,
    /// The rule that matched; `None` for the default, or a fault.
    pub rule: Option<String>,
    /// What could not be read: then the verdict is to deny.
    pub fault: Option<&'static str>,
    /// What was done.
    pub fate: Fate,
    /// Why it could not be done.
    pub cause: Option<String>,
}

/// A process that holds a socket.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name (comm).
    pub comm: String,
    /// Path of its executable.
    pub executable: Option<String>,
}

/// What was done about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing.
    Left,
    /// Nothing, since the mode of the policy is audit.
    WouldDestroy,
    /// It was destroyed.
    Destroyed,
    /// It was disconnected, but its process can still send: for protocols without an address hook.
    Disconnected,
    /// It could not be destroyed.
    NotDestroyed,
    /// It closed by itself.
    Gone,
}

impl Existing {
    /// Checks that this kernel can do it, before anything is attached.
    ///
    /// # Errors
    /// [`ControlError::Existing`] where it cannot.
    pub fn is_possible(self) -> Result<(), ControlError> {
        let check = || -> Result<(), DiagError> {
            let mut diag = Diag::open()?;
            diag.can_list(Protocol::TCP)?;
            diag.can_list(Protocol::UDP)?;
            match self {
                Existing::Audit => Ok(()),
                Existing::Destroy => diag.can_destroy(),
            }
        };
        check().map_err(ControlError::Existing)
    }
}

impl Control {
    /// Looks for sockets that existed before the policies in `attached` were attached.
    pub fn existing(&self, attached: &[AttachOutcome], existing: Existing) -> ExistingReport {
        pass::ExistingPass::new(self, attached, existing).run()
    }
}
