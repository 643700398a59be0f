//! Sockets that were there before a policy: a connected one is asked no more, so it is looked for once,
//! when the policy stands already.
//!
//! ```text
//! attach (from now on nothing new is missed) -> look (sockets of the scope) -> judge -> destroy -> look again
//! ```

mod judge;
#[cfg(test)]
mod judge_tests;
mod look;
mod sweep;

use engine_common::Protocol;
use serde::Serialize;

use super::{AttachOutcome, Control, error::ControlError};
use crate::sockets::{Diag, DiagError};

/// What is done about sockets that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They are told of.
    Audit,
    /// Those that a policy denies are ended.
    Destroy,
}

/// What was found, and done about it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ExistingReport {
    /// Network namespaces that were looked at.
    pub networks: usize,
    /// Sockets that the policies allow silently.
    pub allowed: usize,
    /// Connections that others opened: they are no egress, and left alone.
    pub inbound: usize,
    /// The others, and the inbound ones.
    pub sockets: Vec<ExistingSocket>,
    /// Protocols that this kernel cannot list.
    pub unseen: Vec<String>,
    /// What could not be looked at.
    pub problems: Vec<String>,
}

impl ExistingReport {
    /// Whether all was seen, and nothing is left that was to be destroyed.
    pub fn is_complete(&self) -> bool {
        let is_done =
            |socket: &ExistingSocket| !matches!(socket.fate, Fate::NotDestroyed | Fate::Disconnected);
        self.problems.is_empty() && self.sockets.iter().all(is_done)
    }
}

/// A socket that existed.
#[derive(Clone, Debug, Serialize)]
pub struct ExistingSocket {
    /// Its protocol, by name.
    pub protocol: String,
    /// Own address and port.
    pub local: String,
    /// The other end, if it has one.
    pub peer: Option<String>,
    /// State, as ss(8) has it.
    pub state: &'static str,
    /// The cgroup it was made in; none where that was removed.
    pub cgroup: Option<String>,
    /// Number of its network namespace.
    pub network: u64,
    /// Who made it.
    pub uid: u32,
    /// Who holds it.
    pub processes: Vec<Process>,
    /// Whether somebody else connected to it.
    pub inbound: bool,
    /// What the strictest policy says; none of what is inbound.
    pub verdict: Option<&'static str>,
    /// Which policy.
    pub policy: Option<String>,
    /// Which rule of it; none where it is the default, or a fault.
    pub rule: Option<String>,
    /// What could not be known: then it is denied.
    pub fault: Option<&'static str>,
    /// What was done.
    pub fate: Fate,
    /// Why it could not be.
    pub cause: Option<String>,
}

/// A process that holds a socket.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The path of what it runs.
    pub executable: Option<String>,
}

/// What became of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It goes on.
    Left,
    /// It goes on, since the policy's mode is audit.
    WouldDestroy,
    /// It was ended.
    Destroyed,
    /// It was taken off its peer, but whoever holds it can send on: of protocols without an address hook.
    Disconnected,
    /// It could not be ended.
    NotDestroyed,
    /// It ended by itself.
    Gone,
}

impl Existing {
    /// Refuses where this kernel cannot do it: to be asked before anything is attached.
    ///
    /// # Errors
    /// [`ControlError::Existing`].
    pub fn is_possible(self) -> Result<(), ControlError> {
        let ask = || -> Result<(), DiagError> {
            let mut diag = Diag::here()?;
            diag.can_list(Protocol::TCP)?;
            diag.can_list(Protocol::UDP)?;
            match self {
                Existing::Audit => Ok(()),
                Existing::Destroy => diag.can_destroy(),
            }
        };
        ask().map_err(ControlError::Existing)
    }
}

impl Control {
    /// Looks for sockets that were there before the policies which were attached, and does about them what
    /// is wanted.
    pub fn existing(&self, attached: &[AttachOutcome], existing: Existing) -> ExistingReport {
        sweep::Sweep::new(self, attached, existing).run()
    }
}
