//! How to get to root: being it, or sudo that asks nothing.

use std::process::Command;

use crate::command;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// `sudo -n` works.
    Sudo,
    /// Neither.
    None,
}

impl Privilege {
    /// Finds out.
    pub(crate) fn of_this_process() -> Privilege {
        if command::answer(Command::new("id").arg("-u")).as_deref() == Some("0") {
            Privilege::Root
        } else if command::succeeds(Command::new("sudo").args(["-n", "true"])) {
            Privilege::Sudo
        } else {
            Privilege::None
        }
    }
}
