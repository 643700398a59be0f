//! The programs that tests use, as they are on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tree::{Entry, Tree};
use crate::command::{answer, on_path};

/// Programs on PATH that are taken with their libraries.
const PROGRAMS: [&str; 8] = ["bash", "curl", "git", "install", "ip", "setpriv", "sh", "ssh"];

/// What git runs to clone over its own protocol and over HTTP.
const GIT: [&str; 5] = [
    "git",
    "git-daemon",
    "git-remote-http",
    "git-upload-pack",
    "git-sh-setup",
];

/// What the tests do in Python, and what Python imports for it only when it comes to it.
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

/// Puts them all into the tree, and what a C library reads.
///
/// # Errors
/// When one is not there.
pub(crate) fn add(tree: &mut Tree) -> Result<()> {
    for name in PROGRAMS {
        let path = find(name)?;
        // Behind the links that it is found by: `sh` stays `sh`, whatever shell that is.
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
    for folder in ["/root", "/proc", "/sys", "/tmp", "/run"] {
        tree.put(Path::new(folder), Entry::Directory);
    }
    // As on this machine: `/bin` leads to `/usr/bin`.
    for link in ["/bin", "/sbin", "/lib", "/lib64"] {
        if let Ok(target) = std::fs::read_link(link) {
            tree.put(Path::new(link), Entry::Link(target));
        }
    }
    // Last: for all that is not there yet.
    busybox(tree)
}

fn find(name: &str) -> Result<PathBuf> {
    on_path(name).with_context(|| format!("{name} is not there: run `cargo xtask setup`"))
}

fn git(tree: &mut Tree) -> Result<()> {
    let folder = answer(Command::new("git").arg("--exec-path")).context("git does not say where it is")?;
    for name in GIT {
        let path = Path::new(&folder).join(name);
        if path.exists() {
            tree.program(&path, &path)?;
        }
    }
    Ok(())
}

/// The system's Python rather than another: that is the one whose libraries are the system's.
fn python(tree: &mut Tree) -> Result<()> {
    let system = PathBuf::from("/usr/bin/python3");
    let python = if system.is_file() {
        system
    } else {
        find("python3")?
    };
    let said = answer(Command::new(&python).args(["-I", "-c", PYTHON])).context("python3 does not answer")?;
    let mut lines = said.lines();
    let executable = PathBuf::from(lines.next().context("no executable")?);
    let prefix = PathBuf::from(lines.next().context("no prefix")?);
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
        // By this file Python knows where its library is, and by this folder that of modules in C.
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
    let applets = answer(Command::new(&busybox).arg("--list")).context("busybox lists nothing")?;
    tree.program(&busybox, Path::new("/usr/bin/busybox"))?;
    for name in applets.lines() {
        let path = Path::new("/usr/bin").join(name);
        if !tree.has(&path) {
            tree.put(&path, Entry::Link("busybox".into()));
        }
    }
    Ok(())
}
