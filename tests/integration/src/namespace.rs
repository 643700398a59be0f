//! A network namespace for one test.

use std::{net::IpAddr, panic, thread};

use crate::selftest::network::Network;

use crate::egress_method::Family;

/// Proof that the thread of the test is in a new network namespace: loopback only, with addresses reserved for
/// documentation. Processes that it starts are in it too.
///
/// Every address of `198.51.100.0/24` and `203.0.113.0/24` is local there, and so are the IPv6 addresses below.
pub struct Namespace {
    _private: (),
}

impl Namespace {
    /// Runs a test in a namespace, which is removed with its last process.
    ///
    /// # Panics
    /// When the test panics, or the namespace cannot be created.
    pub fn run(test: impl FnOnce(&Namespace) + Send) {
        let result = thread::scope(|scope| {
            // A new thread: the namespace belongs to the thread, and the test runner reuses its threads.
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

    /// The destination that the policies of the tests match.
    pub fn near(family: Family) -> IpAddr {
        Network::near(family)
    }

    /// Another address in the same network.
    pub fn far(family: Family) -> IpAddr {
        Network::far(family)
    }

    /// An address in another network.
    pub fn elsewhere(family: Family) -> IpAddr {
        Network::elsewhere(family)
    }
}
