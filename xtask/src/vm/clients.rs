//! The client programs that tests use, copied from this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tree::{Entry, Tree};
use crate::command::{find_on_path, stdout_of};

/// Programs on PATH, copied with their shared libraries.
const PROGRAMS: [&str; 8] = ["bash", "curl", "git", "install", "ip", "setpriv", "sh", "ssh"];

/// Programs that git runs to clone over its own protocol and over HTTP.
const GIT: [&str; 5] = [
    "git",
    "git-daemon",
    "git-remote-http",
    "git-upload-pack",
    "git-sh-setup",
];

/// Prints the files of all Python modules that the tests need, including those that Python imports late.
const PYTHON: &str = "\
import sys
import http.server, urllib.request, encodings.idna, encodings.ascii, encodings.latin_1, runpy, socket, ctypes
import argparse, contextlib, email.message, email.parser, gettext, html, mimetypes, stringprep
print(sys.executable)
print(sys.prefix)
for module in list(sys.modules.values()):
    for name in ('__file__', '__cached__'):
        if getattr(module, name, None):
            print(getattr(module, name))
";

/// Adds the clients and the files in /etc that the C library reads.
///
/// # Errors
/// When a program is missing.
pub(crate) fn add(tree: &mut Tree) -> Result<()> {
    for name in PROGRAMS {
        let path = find(name)?;
        // Under its own name, even if that is a symbolic link here (`sh`).
        tree.program(&path, &Path::new("/usr/bin").join(name))?;
    }
    git(tree)?;
    python(tree)?;
    for (path, text) in [
        (
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        (
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        ),
    ] {
        tree.put(Path::new(path), Entry::Text(text.as_bytes().to_vec()));
    }
    for directory in ["/root", "/proc", "/sys", "/tmp", "/run"] {
        tree.put(Path::new(directory), Entry::Directory);
    }
    // As on this machine, where `/bin` may be a link to `/usr/bin`.
    for link in ["/bin", "/sbin", "/lib", "/lib64"] {
        if let Ok(target) = std::fs::read_link(link) {
            tree.put(Path::new(link), Entry::Link(target));
        }
    }
    // Last: it provides all tools that are not in the tree yet.
    busybox(tree)
}

fn find(name: &str) -> Result<PathBuf> {
    find_on_path(name).with_context(|| format!("{name} is missing: run `cargo xtask setup`"))
}

fn git(tree: &mut Tree) -> Result<()> {
    let directory = stdout_of(Command::new("git").arg("--exec-path")).context("`git --exec-path` failed")?;
    for name in GIT {
        let path = Path::new(&directory).join(name);
        if path.exists() {
            tree.program(&path, &path)?;
        }
    }
    Ok(())
}

/// Adds /usr/bin/python3 if it exists: it uses the system's libraries.
fn python(tree: &mut Tree) -> Result<()> {
    let system = PathBuf::from("/usr/bin/python3");
    let python = if system.is_file() {
        system
    } else {
        find("python3")?
    };
    let output = stdout_of(Command::new(&python).args(["-I", "-c", PYTHON]))
        .context("python3 failed to list its modules")?;
    let mut lines = output.lines();
    let executable = PathBuf::from(lines.next().context("python3 printed no executable")?);
    let prefix = PathBuf::from(lines.next().context("python3 printed no prefix")?);
    tree.program(&executable, &executable)?;
    if executable != Path::new("/usr/bin/python3") {
        tree.put(Path::new("/usr/bin/python3"), Entry::Link(executable));
    }
    for file in lines.map(Path::new).filter(|file| file.is_file()) {
        if file.extension().is_some_and(|extension| extension == "so") {
            tree.program(file, file)?;
        } else {
            tree.copy(file)?;
        }
        // Python finds its library by this file, and its C modules by this directory.
        if file.ends_with("os.py")
            && let Some(library) = file.parent()
        {
            tree.put(&library.join("lib-dynload"), Entry::Directory);
        }
    }
    tree.put(&prefix, Entry::Directory);
    Ok(())
}

fn busybox(tree: &mut Tree) -> Result<()> {
    let busybox = find("busybox")?;
    let applets = stdout_of(Command::new(&busybox).arg("--list")).context("`busybox --list` failed")?;
    tree.program(&busybox, Path::new("/usr/bin/busybox"))?;
    for name in applets.lines() {
        let path = Path::new("/usr/bin").join(name);
        if !tree.has(&path) {
            tree.put(&path, Entry::Link("busybox".into()));
        }
    }
    Ok(())
}
