//! The same allow-list in nftables: it judges packets, and knows their cgroup by `socket cgroupv2`.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{cgroup::Cgroup, networks::Networks};

/// Where nft looks for the cgroups that a rule names (its source, src/datatype.c).
const NFT_CGROUPS: &str = "/sys/fs/cgroup";

/// Rules in this thread's network, until this is dropped.
pub(crate) struct Rules;

/// Whether nft can be used here; else why not.
pub(crate) fn usable(cgroups: &Path) -> Result<(), String> {
    let version = Command::new("nft")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !version.is_ok_and(|status| status.success()) {
        return Err("nft is not there (Debian package nftables)".to_owned());
    }
    if !cgroups.starts_with(NFT_CGROUPS) {
        return Err(format!(
            "nft finds cgroups below {NFT_CGROUPS} only, and ours are elsewhere"
        ));
    }
    Ok(())
}

impl Rules {
    /// Lets sockets of the cgroup send to the networks and nowhere else.
    pub(crate) fn load(cgroup: &Cgroup, networks: &Networks) -> Result<Rules> {
        let path = cgroup.path().strip_prefix(NFT_CGROUPS)?.display().to_string();
        let level = cgroup.level();
        let elements: Vec<String> = networks.texts().collect();
        let text = format!(
            "table ip bench {{\n\
             set allowed {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}\n\
             chain output {{ type filter hook output priority 0; policy accept;\n\
             socket cgroupv2 level {level} \"{path}\" ip daddr @allowed accept\n\
             socket cgroupv2 level {level} \"{path}\" drop\n}}\n}}\n",
            elements.join(", ")
        );
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("nft does not start")?;
        let written = nft.stdin.take().context("no input")?.write_all(text.as_bytes());
        ensure!(nft.wait()?.success(), "nft takes the allow-list not");
        written?;
        Ok(Rules)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        // What stays goes with the network.
        let _ = Command::new("nft")
            .args(["delete", "table", "ip", "bench"])
            .status();
    }
}
