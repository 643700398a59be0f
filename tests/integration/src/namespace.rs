//! A network of a test's own.

use std::{net::IpAddr, panic, thread};

use tidegate::selftest::network::Network;

use crate::egress_method::Family;

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
                    Network::enter().expect("a network namespace (needs root)");
                    test(&Namespace { _private: () });
                })
                .join()
        });
        if let Err(cause) = result {
            panic::resume_unwind(cause);
        }
    }

    /// The destination that policies of the tests are about.
    pub fn near(family: Family) -> IpAddr {
        Network::near(family)
    }

    /// Another address of the same network.
    pub fn far(family: Family) -> IpAddr {
        Network::far(family)
    }

    /// An address of another network.
    pub fn elsewhere(family: Family) -> IpAddr {
        Network::elsewhere(family)
    }
}
