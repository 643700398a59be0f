//! Whether this process can run commands as root.

use std::process::Command;

use crate::command;

/// How commands run as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// By sudo, which asks for no password.
    Sudo,
    /// Not at all.
    None,
}

impl Privilege {
    /// Tries `sudo -n true` where this process is not root.
    pub(crate) fn detect() -> Privilege {
        if command::stdout_of(Command::new("id").arg("-u")).as_deref() == Some("0") {
            Privilege::Root
        } else if command::succeeds(Command::new("sudo").args(["-n", "true"])) {
            Privilege::Sudo
        } else {
            Privilege::None
        }
    }
}
