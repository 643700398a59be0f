//! The command to run, and its preparation for a process that must not allocate.

use std::{
    ffi::{CString, NulError, OsStr, OsString},
    os::{fd::RawFd, unix::ffi::OsStrExt, unix::ffi::OsStringExt},
    ptr,
};

use super::{CapabilitySet, Environment, EnvironmentChange, TargetUser};

/// The search path of execvp(3) without PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Which descriptors the command inherits besides 0, 1 and 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeepFds {
    /// None.
    #[default]
    Standard,
    /// These. Each must have been open without close-on-exec when this process started.
    Also(Vec<RawFd>),
    /// All that this process inherited.
    All,
}

/// A command to run. [`spawn`](Self::spawn) starts it.
#[derive(Clone, Debug)]
pub struct Command {
    /// A path if it contains a slash; otherwise a name to look up in the PATH of the command's environment, with the
    /// permissions of its user.
    pub program: OsString,
    /// Its arguments, without the program.
    pub args: Vec<OsString>,
    /// The environment before any change.
    pub inherited: Environment,
    /// Changes of the inherited environment, applied after those of the user.
    pub environment: Vec<EnvironmentChange>,
    /// The user that it runs as.
    pub user: TargetUser,
    /// The [`DANGEROUS`](super::DANGEROUS) capabilities that are not removed. None is granted.
    pub keep_capabilities: CapabilitySet,
    /// The descriptors that it inherits.
    pub keep_fds: KeepFds,
    /// Whether it gets a private mount namespace with read-only cgroups and hidden BPF file systems. Without effect when
    /// it keeps CAP_SYS_ADMIN, which allows undoing it.
    pub isolation: bool,
}

impl Command {
    /// A command without arguments that runs with the ids of this process and all protection on.
    pub fn new(program: impl Into<OsString>, inherited: Environment) -> Command {
        Command {
            program: program.into(),
            args: Vec::new(),
            inherited,
            environment: Vec::new(),
            user: TargetUser::current(),
            keep_capabilities: CapabilitySet::NONE,
            keep_fds: KeepFds::default(),
            isolation: true,
        }
    }

    /// Whether the command gets a private mount namespace.
    pub fn isolates(&self) -> bool {
        self.isolation && !self.keep_capabilities.contains(super::Capability::SYS_ADMIN)
    }

    pub(super) fn prepare(&self) -> Result<Image, NulError> {
        let mut variables = self.inherited.clone();
        variables.apply(self.user.environment().iter().chain(&self.environment));
        let files = candidates(&self.program, variables.get("PATH"))
            .into_iter()
            .map(CString::new)
            .collect::<Result<_, _>>()?;
        let strings = |list: Vec<Vec<u8>>| -> Result<Vec<CString>, NulError> {
            list.into_iter().map(CString::new).collect()
        };
        let arguments = strings(
            [&self.program]
                .into_iter()
                .chain(&self.args)
                .map(|text| text.clone().into_vec())
                .collect(),
        )?;
        let environment = strings(
            variables
                .into_iter()
                .map(|(mut entry, value)| {
                    entry.push("=");
                    entry.push(value);
                    entry.into_vec()
                })
                .collect(),
        )?;
        Ok(Image::new(files, arguments, environment))
    }
}

/// The files to try, as execvp(3) does.
fn candidates(program: &OsStr, path: Option<&OsStr>) -> Vec<Vec<u8>> {
    let program = program.as_bytes();
    if program.is_empty() || program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    path.unwrap_or(OsStr::new(DEFAULT_PATH))
        .as_bytes()
        .split(|&byte| byte == b':')
        .map(|directory| match directory {
            // An empty entry is the working directory.
            b"" => program.to_vec(),
            directory => [directory, b"/", program].concat(),
        })
        .collect()
}

/// Files, arguments and environment with the pointer lists that execve(2) takes.
pub(super) struct Image {
    files: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    /// `/bin/sh`, a slot for the file, the arguments: for a script without an interpreter line.
    shell_argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// Owns what the pointers point to: heap memory, which does not move with the image.
    _strings: [Vec<CString>; 2],
}

impl Image {
    fn new(files: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> Image {
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter()
                .map(|text| text.as_ptr())
                .chain([ptr::null()])
                .collect()
        };
        let argv = pointers(&arguments);
        let shell_argv = [c"/bin/sh".as_ptr(), ptr::null()]
            .into_iter()
            .chain(argv.iter().copied().skip(1))
            .collect();
        Image {
            files,
            envp: pointers(&environment),
            argv,
            shell_argv,
            _strings: [arguments, environment],
        }
    }

    /// Executes the first file that can be executed. Returns only when there is none, with the errno of execvp(3).
    ///
    /// # Safety
    /// The process must be one that may be replaced. Async-signal-safe.
    pub(super) unsafe fn exec(&mut self) -> i32 {
        let mut result = libc::ENOENT;
        for file in &self.files {
            // SAFETY: the lists end in a null pointer and their strings live in this image.
            unsafe { libc::execve(file.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            let mut errno = nix::errno::Errno::last_raw();
            if errno == libc::ENOEXEC {
                if let Some(slot) = self.shell_argv.get_mut(1) {
                    *slot = file.as_ptr();
                }
                // SAFETY: as above.
                unsafe { libc::execve(c"/bin/sh".as_ptr(), self.shell_argv.as_ptr(), self.envp.as_ptr()) };
                errno = nix::errno::Errno::last_raw();
            }
            match errno {
                libc::EACCES => result = errno,
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
                _ => return errno,
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searched(program: &str, path: Option<&str>) -> Vec<String> {
        candidates(OsStr::new(program), path.map(OsStr::new))
            .into_iter()
            .map(|file| String::from_utf8(file).unwrap())
            .collect()
    }

    #[test]
    fn the_path_is_searched_as_execvp_does() {
        assert_eq!(searched("ls", Some("/a:/b")), ["/a/ls", "/b/ls"]);
        assert_eq!(searched("ls", Some("/a::/b")), ["/a/ls", "ls", "/b/ls"]);
        assert_eq!(searched("ls", None), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(searched("./ls", Some("/a")), ["./ls"]);
        assert_eq!(searched("", Some("/a")), [""]);
    }

    #[test]
    fn a_nul_byte_is_an_error() {
        let mut command = Command::new("true", Environment::default());
        command.args.push("a\0b".into());
        assert!(command.prepare().is_err());
    }

    #[test]
    fn keeping_sys_admin_turns_isolation_off() {
        let mut command = Command::new("true", Environment::default());
        assert!(command.isolates());
        command.keep_capabilities = "sys_admin".parse().unwrap();
        assert!(!command.isolates());
    }
}
