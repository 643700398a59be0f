//! A network of a test's own.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic, thread,
};

use nix::sched::{CloneFlags, unshare};

use crate::{link::Link, way::Family};

/// The thread that runs the test is in a fresh network namespace: loopback only, with addresses
/// reserved for documentation. Processes started from it are in it too.
///
/// All of `198.51.100.0/24` and `203.0.113.0/24` is here, and the IPv6 addresses named below.
pub struct Namespace {
    _private: (),
}

impl Namespace {
    /// Runs a test in a namespace. It goes with the last process in it.
    ///
    /// # Panics
    /// When the test does, or the namespace cannot be made.
    pub fn run(test: impl FnOnce(&Namespace) + Send) {
        let result = thread::scope(|scope| {
            // A thread of its own: the namespace is the thread's, and threads are used again.
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
                    test(&Namespace::furnished());
                })
                .join()
        });
        if let Err(cause) = result {
            panic::resume_unwind(cause);
        }
    }

    fn furnished() -> Namespace {
        // First: no address may wait for duplicates that nobody could have.
        setting("ipv6/conf/all/disable_ipv6", "0");
        let link = Link::open();
        link.up();
        for address in [
            Namespace::near(Family::V4),
            Namespace::far(Family::V4),
            Namespace::elsewhere(Family::V4),
        ] {
            let prefix = if address == Namespace::far(Family::V4) {
                32
            } else {
                24
            };
            link.add(address, prefix);
        }
        for address in [
            Namespace::near(Family::V6),
            Namespace::far(Family::V6),
            Namespace::elsewhere(Family::V6),
        ] {
            link.add(address, 128);
        }
        setting("ipv4/ping_group_range", "0 2147483647");
        setting("ipv4/ip_unprivileged_port_start", "0");
        // Client and server, data in the SYN even without a cookie, both ways (ip-sysctl.rst).
        setting("ipv4/tcp_fastopen", "1543");
        // A packet that the IP layer did not send itself may come from an address of this host.
        setting("ipv4/conf/all/accept_local", "1");
        Namespace { _private: () }
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

fn setting(name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}
