//! The same allow-list in nftables, which filters packets and matches their cgroup with `socket cgroupv2`.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{cgroup::Cgroup, networks::Networks};

/// The cgroup mount point that nft assumes (src/datatype.c in nftables).
const NFT_CGROUPS: &str = "/sys/fs/cgroup";

/// Rules in the network namespace of this thread, deleted when dropped.
pub(crate) struct Rules;

/// Fails with a reason if nft cannot be used.
pub(crate) fn usable(cgroups: &Path) -> Result<(), String> {
    let version = Command::new("nft")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !version.is_ok_and(|status| status.success()) {
        return Err("nft is not installed (Debian package nftables)".to_owned());
    }
    if !cgroups.starts_with(NFT_CGROUPS) {
        return Err(format!(
            "nft only finds cgroups below {NFT_CGROUPS}, and cgroup2 is mounted elsewhere"
        ));
    }
    Ok(())
}

impl Rules {
    /// Allows sockets of the cgroup to send to these networks only.
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
            .context("failed to run nft")?;
        let written = nft
            .stdin
            .take()
            .context("nft has no standard input")?
            .write_all(text.as_bytes());
        ensure!(nft.wait()?.success(), "nft refused the allow-list");
        written?;
        Ok(Rules)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        // Best effort: the rules are removed with the namespace.
        let _ = Command::new("nft")
            .args(["delete", "table", "ip", "bench"])
            .status();
    }
}
