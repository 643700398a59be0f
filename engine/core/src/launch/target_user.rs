//! The user that the command runs as.

use std::{
    ffi::{CString, OsStr, OsString},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, User, getgrouplist},
};

use super::{Environment, EnvironmentChange};

use crate::hint::Hint;

/// `(uid_t) -1`, which system calls interpret as *unchanged*.
const NO_ID: u32 = u32::MAX;

/// Variables set by sudo. A command that runs as the caller of sudo must not see them: some programs (npm, for example)
/// would behave as under sudo.
const SUDO_VARIABLES: [&str; 5] = ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND", "SUDO_HOME"];

/// The user a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUser {
    uid: u32,
    gid: u32,
    /// `None`: the ids of this process, unchanged.
    change: Option<Change>,
}

/// What changes with the user.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    groups: Vec<u32>,
    name: OsString,
    home: PathBuf,
    shell: PathBuf,
}

/// The user could not be determined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A variable of sudo is not an id.
    #[error(
        "{variable} is `{value}`, which is not a valid id, so the caller of sudo is unknown; \
         name the user with --user, or unset SUDO_UID and SUDO_GID to run as user id {uid}"
    )]
    Sudo {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Effective user id of this process.
        uid: u32,
    },
    /// Not in the form of `--user`.
    #[error("`{text}` is not a user; write NAME, UID, NAME:GROUP or UID:GID")]
    Syntax {
        /// The given text.
        text: String,
    },
    /// The name is not in the user database.
    #[error("there is no user `{name}`; `getent passwd` lists the users")]
    UnknownUser {
        /// The given name.
        name: String,
    },
    /// The name is not in the group database.
    #[error("there is no group `{name}`; `getent group` lists the groups")]
    UnknownGroup {
        /// The given name.
        name: String,
    },
    /// A user id without an entry, so without a primary group.
    #[error("user id {uid} has no entry in the user database; add a group: {uid}:GID")]
    NoGroup {
        /// The given user id.
        uid: u32,
    },
    /// The look-up in the database failed.
    #[error("cannot look up {what}: {source}")]
    Lookup {
        /// The user or group that was looked up.
        what: String,
        /// The error of the C library.
        source: Errno,
    },
}

impl Hint for IdentityError {}

impl TargetUser {
    /// The caller: under sudo the user who called it (`SUDO_UID`, `SUDO_GID`), with the supplementary groups of the
    /// user database; otherwise the unchanged ids of this process. The variables count only when this process is
    /// root, who can change to any user anyway.
    ///
    /// # Errors
    /// When sudo's variables are not ids, or a look-up fails.
    pub fn invoking(environment: &Environment) -> Result<TargetUser, IdentityError> {
        let own = Uid::effective();
        match (environment.get("SUDO_UID"), environment.get("SUDO_GID")) {
            (None, _) => Ok(TargetUser::current()),
            (Some(_), _) if !own.is_root() => Ok(TargetUser::current()),
            (Some(uid), gid) => {
                let id = |variable, value: &OsStr| {
                    let value = value.to_string_lossy().into_owned();
                    parse_id(&value).ok_or(IdentityError::Sudo {
                        variable,
                        value,
                        uid: own.as_raw(),
                    })
                };
                let uid = id("SUDO_UID", uid)?;
                let gid = id("SUDO_GID", gid.unwrap_or_default())?;
                if uid == own.as_raw() {
                    return Ok(TargetUser::current());
                }
                TargetUser::with(uid, gid, user_by_id(uid)?)
            }
        }
    }

    /// The ids of this process, unchanged.
    pub fn current() -> TargetUser {
        TargetUser {
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
            change: None,
        }
    }

    /// The form of `--user`: `NAME` or `UID`, optionally followed by `:GROUP` or `:GID`. Digits are always an id.
    ///
    /// # Errors
    /// When the text has another form, a name does not exist, or a user id without a group has no entry.
    pub fn parse(text: &str) -> Result<TargetUser, IdentityError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if user.is_empty() || group.is_some_and(str::is_empty) || text.contains('\0') {
            return Err(IdentityError::Syntax {
                text: text.to_owned(),
            });
        }
        let numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |part: &str| {
            parse_id(part).ok_or_else(|| IdentityError::Syntax {
                text: text.to_owned(),
            })
        };
        let gid = match group {
            None => None,
            Some(group) if numeric(group) => Some(number(group)?),
            Some(name) => Some(group_by_name(name)?),
        };
        let (uid, entry) = if numeric(user) {
            let uid = number(user)?;
            (uid, user_by_id(uid)?)
        } else {
            let entry = user_by_name(user)?;
            (entry.uid.as_raw(), Some(entry))
        };
        let gid = gid
            .or_else(|| entry.as_ref().map(|entry| entry.gid.as_raw()))
            .ok_or(IdentityError::NoGroup { uid })?;
        TargetUser::with(uid, gid, entry)
    }

    fn with(uid: u32, gid: u32, entry: Option<User>) -> Result<TargetUser, IdentityError> {
        let change = match entry {
            Some(entry) => Change {
                groups: groups_of(&entry, gid)?,
                name: entry.name.into(),
                home: entry.dir,
                shell: Some(entry.shell)
                    .filter(|shell| !shell.as_os_str().is_empty())
                    .unwrap_or_else(|| "/bin/sh".into()),
            },
            None => Change {
                groups: vec![gid],
                name: uid.to_string().into(),
                home: "/".into(),
                shell: "/bin/sh".into(),
            },
        };
        Ok(TargetUser {
            uid,
            gid,
            change: Some(change),
        })
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The group id.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Whether the command runs with other ids than this process.
    pub fn changes(&self) -> bool {
        self.change.is_some()
    }

    /// The supplementary groups to set; `None` when the user does not change.
    pub(super) fn groups(&self) -> Option<&[u32]> {
        self.change.as_ref().map(|change| &*change.groups)
    }

    /// Changes of the environment that go with the user: HOME, USER, LOGNAME and SHELL are those of the user, and the
    /// variables of sudo are removed. PATH does not change.
    pub(super) fn environment(&self) -> Vec<EnvironmentChange> {
        let Some(change) = &self.change else {
            return Vec::new();
        };
        let set = [
            ("HOME", change.home.clone().into_os_string()),
            ("USER", change.name.clone()),
            ("LOGNAME", change.name.clone()),
            ("SHELL", change.shell.clone().into_os_string()),
        ];
        set.into_iter()
            .map(|(name, value)| (name.into(), Some(value)))
            .chain(SUDO_VARIABLES.into_iter().map(|name| (name.into(), None)))
            .collect()
    }
}

fn parse_id(text: &str) -> Option<u32> {
    // `parse` alone accepts a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&id| id != NO_ID)
}

fn user_by_id(uid: u32) -> Result<Option<User>, IdentityError> {
    User::from_uid(Uid::from_raw(uid)).map_err(|source| IdentityError::Lookup {
        what: format!("user id {uid}"),
        source,
    })
}

fn user_by_name(name: &str) -> Result<User, IdentityError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(IdentityError::UnknownUser {
            name: name.to_owned(),
        }),
        Err(source) => Err(IdentityError::Lookup {
            what: format!("user {name}"),
            source,
        }),
    }
}

fn group_by_name(name: &str) -> Result<u32, IdentityError> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(IdentityError::UnknownGroup {
            name: name.to_owned(),
        }),
        Err(source) => Err(IdentityError::Lookup {
            what: format!("group {name}"),
            source,
        }),
    }
}

fn groups_of(user: &User, gid: u32) -> Result<Vec<u32>, IdentityError> {
    let failed = |source| IdentityError::Lookup {
        what: format!("the groups of {}", user.name),
        source,
    };
    let name = CString::new(user.name.as_str()).map_err(|_| failed(Errno::EINVAL))?;
    let groups = getgrouplist(&name, Gid::from_raw(gid)).map_err(failed)?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_digits_and_never_minus_one() {
        assert_eq!(parse_id("1000"), Some(1000));
        for text in ["", "+1", "-1", "1x", "4294967295", "4294967296"] {
            assert_eq!(parse_id(text), None, "{text}");
        }
    }

    #[test]
    fn names_and_ids_are_accepted() {
        let root = TargetUser::parse("root").unwrap();
        assert_eq!((root.uid(), root.gid()), (0, 0));
        assert!(root.changes());
        assert_eq!(TargetUser::parse("0").unwrap(), root);
        let unknown = TargetUser::parse("3999999999:7").unwrap();
        assert_eq!((unknown.uid(), unknown.gid()), (3_999_999_999, 7));
        assert_eq!(unknown.groups(), Some(&[7][..]));
        assert_eq!(TargetUser::parse("root:7").unwrap().gid(), 7);
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, wanted) in [
            ("", "write NAME"),
            ("root:", "write NAME"),
            (":0", "write NAME"),
            ("4294967295", "write NAME"),
            ("no-such-user-here", "no user `no-such-user-here`"),
            ("root:no-such-group-here", "no group `no-such-group-here`"),
            ("3999999999", "3999999999:GID"),
        ] {
            let error = TargetUser::parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn a_change_of_user_changes_the_environment() {
        let environment = TargetUser::parse("root").unwrap().environment();
        let value = |name: &str| {
            environment
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        };
        assert_eq!(value("USER"), Some(Some("root".into())));
        assert_eq!(value("LOGNAME"), Some(Some("root".into())));
        assert!(value("HOME").flatten().is_some());
        assert_eq!(value("SUDO_UID"), Some(None));
        assert_eq!(value("PATH"), None);
        assert!(TargetUser::current().environment().is_empty());
    }
}
