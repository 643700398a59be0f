//! A network of our own: loopback only, with addresses reserved for documentation.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use thiserror::Error;

use super::{egress_method::Family, link::Link};

/// Why there is no network.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// unshare(2).
    #[error("cannot make a network namespace (this needs root)")]
    Namespace(#[source] Errno),
    /// rtnetlink(7).
    #[error("cannot {step} in the network namespace")]
    Link {
        /// What.
        step: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A setting could not be written.
    #[error("cannot write {path}")]
    Setting {
        /// Its file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The calling thread is in a network namespace of its own, and what is started from it. All of
/// `198.51.100.0/24` and `203.0.113.0/24` is here, and the IPv6 addresses named below. It goes with the last
/// process in it.
#[derive(Debug)]
pub struct Network {
    link: Link,
}

impl Network {
    /// Makes it, and moves the calling thread there: for good.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn enter() -> Result<Network, NetworkError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(NetworkError::Namespace)?;
        // First: no address may wait for duplicates that nobody could have. A kernel without IPv6 has
        // no such file, and no address to wait.
        let _ = setting("ipv6/conf/all/disable_ipv6", "0");
        let failed = |step: &str| {
            let step = step.to_owned();
            |source| NetworkError::Link { step, source }
        };
        let network = Network {
            link: Link::open().map_err(failed("ask for addresses"))?,
        };
        network.link.up().map_err(failed("set loopback up"))?;
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
        setting("ipv4/ping_group_range", "0 2147483647")?;
        setting("ipv4/ip_unprivileged_port_start", "0")?;
        // Client and server, data in the SYN even without a cookie, both ways (ip-sysctl.rst).
        setting("ipv4/tcp_fastopen", "1543")?;
        // A packet that the IP layer did not send itself may come from an address of this host.
        setting("ipv4/conf/all/accept_local", "1")?;
        Ok(network)
    }

    /// Gives loopback another address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, address: IpAddr, prefix: u8) -> Result<(), NetworkError> {
        self.link
            .add(address, prefix)
            .map_err(|source| NetworkError::Link {
                step: format!("add the address {address}"),
                source,
            })
    }

    /// The destination that policies of the tests are about.
    pub fn near(family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        }
    }

    /// Another address of the same network.
    pub fn far(family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
        }
    }

    /// An address of another network.
    pub fn elsewhere(family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
        }
    }
}

fn setting(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).map_err(|source| NetworkError::Setting { path, source })
}
