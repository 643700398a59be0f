//! A network namespace with only a loopback device, and addresses reserved for documentation.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use thiserror::Error;

use super::{egress_method::Family, rtnetlink::Rtnetlink};

/// Why the network could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// unshare(2) failed.
    #[error("failed to create a network namespace (requires root)")]
    Namespace(#[source] Errno),
    /// A request to rtnetlink(7) failed.
    #[error("failed to {step} in the network namespace")]
    Rtnetlink {
        /// What was requested.
        step: String,
        /// The error of the kernel.
        #[source]
        source: Errno,
    },
    /// A sysctl could not be written.
    #[error("failed to write {path}")]
    Sysctl {
        /// The file below /proc/sys.
        path: String,
        /// The error of the write.
        #[source]
        source: io::Error,
    },
}

/// The calling thread and the processes that it starts are in their own network namespace. Every address of
/// `198.51.100.0/24` and `203.0.113.0/24` is local there, and so are the IPv6 addresses below. The namespace is
/// removed with its last process.
#[derive(Debug)]
pub struct Network {
    rtnetlink: Rtnetlink,
}

impl Network {
    /// Creates the namespace and moves the calling thread into it permanently.
    ///
    /// # Errors
    /// When the kernel refuses a step; creating a namespace requires CAP_SYS_ADMIN.
    pub fn enter() -> Result<Network, NetworkError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(NetworkError::Namespace)?;
        // Before the addresses are added. A kernel without IPv6 does not have the file.
        let _ = write_sysctl("ipv6/conf/all/disable_ipv6", "0");
        let failed = |step: &str| {
            let step = step.to_owned();
            |source| NetworkError::Rtnetlink { step, source }
        };
        let network = Network {
            rtnetlink: Rtnetlink::open().map_err(failed("open rtnetlink"))?,
        };
        network
            .rtnetlink
            .up()
            .map_err(failed("set the loopback device up"))?;
        for (address, prefix) in [
            (Network::near(Family::V4), 24),
            (Network::far(Family::V4), 32),
            (Network::elsewhere(Family::V4), 24),
        ] {
            network.add(address, prefix)?;
        }
        for address in [
            Network::near(Family::V6),
            Network::far(Family::V6),
            Network::elsewhere(Family::V6),
        ] {
            network.add(address, 128)?;
        }
        write_sysctl("ipv4/ping_group_range", "0 2147483647")?;
        write_sysctl("ipv4/ip_unprivileged_port_start", "0")?;
        // Client and server, data in the SYN without a cookie, for both (ip-sysctl.rst).
        write_sysctl("ipv4/tcp_fastopen", "1543")?;
        // Accept packets from an address of this host that the IP layer did not send itself (raw and packet sockets).
        write_sysctl("ipv4/conf/all/accept_local", "1")?;
        Ok(network)
    }

    /// Adds an address to the loopback device.
    ///
    /// # Errors
    /// When the kernel refuses the address.
    pub fn add(&self, address: IpAddr, prefix: u8) -> Result<(), NetworkError> {
        self.rtnetlink
            .add(address, prefix)
            .map_err(|source| NetworkError::Rtnetlink {
                step: format!("add the address {address}"),
                source,
            })
    }

    /// The destination that the policies of tests match.
    pub fn near(family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        }
    }

    /// Another address in the same network.
    pub fn far(family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
        }
    }

    /// An address in another network.
    pub fn elsewhere(family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
        }
    }
}

fn write_sysctl(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).map_err(|source| NetworkError::Sysctl { path, source })
}
