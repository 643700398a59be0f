//! A test case: an egress method, a destination, and the form of its address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use engine_common::Protocol;

use super::{
    egress_method::{EgressMethod, Family, Transport},
    network::Network,
};

/// Index of `lo` in a fresh namespace.
const LOOPBACK: u32 = 1;

/// How the test client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Technique {
    /// By a socket that it creates in its cgroup.
    EgressMethod(EgressMethod),
    /// By a datagram socket that was created and connected outside its cgroup, and inherited.
    InheritedSocket,
}

impl Technique {
    /// The name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Technique::EgressMethod(method) => method.name(),
            Technique::InheritedSocket => "inherited-socket",
        }
    }

    /// What the process does, in one line.
    pub(super) fn about(self) -> &'static str {
        match self {
            Technique::EgressMethod(method) => method.about(),
            Technique::InheritedSocket => {
                "UDP: send on a connected socket that was created outside of the cgroup"
            }
        }
    }

    /// The protocol of the receiver.
    pub(super) fn transport(self) -> Transport {
        match self {
            Technique::EgressMethod(method) => method.transport(),
            Technique::InheritedSocket => Transport::Udp,
        }
    }

    /// How many messages arrive when nothing is blocked.
    pub(super) fn messages(self) -> usize {
        match self {
            Technique::EgressMethod(method) => method.messages(),
            Technique::InheritedSocket => 1,
        }
    }
}

/// One test case.
#[derive(Clone, Debug)]
pub(super) struct TestCase {
    /// How the test client sends.
    pub(super) technique: Technique,
    /// The destination in the report: its address family, or the form of its address.
    pub(super) destination: &'static str,
    /// The address of the receiver.
    pub(super) receiver: IpAddr,
    /// The address that the test client passes to the kernel.
    pub(super) requested: IpAddr,
}

impl TestCase {
    fn plain(technique: Technique, family: Family) -> TestCase {
        let near = Network::near(family);
        TestCase {
            technique,
            destination: match family {
                Family::V4 => "IPv4",
                Family::V6 => "IPv6",
            },
            receiver: near,
            requested: near,
        }
    }

    /// The socket address that the test client passes to the kernel.
    pub(super) fn destination_address(&self, port: u16) -> SocketAddr {
        match self.requested {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, LOOPBACK).into(),
            address => SocketAddr::new(address, port),
        }
    }

    /// The socket address of the receiver, with port 0.
    pub(super) fn receiver_address(&self) -> SocketAddr {
        match self.receiver {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, 0, 0, LOOPBACK).into(),
            address => SocketAddr::new(address, 0),
        }
    }

    /// The family of the receiver's address.
    pub(super) fn family(&self) -> Family {
        match self.receiver {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The protocol that rules match.
    pub(super) fn protocol(&self) -> Protocol {
        match (self.technique.transport(), self.family()) {
            (Transport::Tcp, _) => Protocol::TCP,
            (Transport::Mptcp, _) => Protocol::MPTCP,
            (Transport::Sctp, _) => Protocol::SCTP,
            (Transport::Udp, _) => Protocol::UDP,
            (Transport::Udplite, _) => Protocol::UDPLITE,
            (Transport::Raw, _) => Protocol::RAW,
            (Transport::Echo, Family::V4) => Protocol::ICMP,
            (Transport::Echo, Family::V6) => Protocol::ICMPV6,
        }
    }
}

/// Other representations of a destination, and destinations that policies often forget: the name in the report,
/// the receiver's address, the address that the test client passes to the kernel.
fn address_variants() -> [(&'static str, IpAddr, IpAddr); 9] {
    let embedded = Ipv4Addr::new(198, 51, 100, 1);
    let [a, b, c, d] = embedded.octets();
    let pair = |high: u8, low: u8| u16::from(high) << 8 | u16::from(low);
    let (ab, cd) = (pair(a, b), pair(c, d));
    let v6 = |segments: [u16; 8]| IpAddr::V6(Ipv6Addr::from(segments));
    let same = |name, address| (name, address, address);
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let localhost6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    [
        ("0.0.0.0", localhost, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        ("::", localhost6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        same("127.0.0.2", IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))),
        same("metadata service", IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))),
        same("NAT64", v6([0x64, 0xff9b, 0, 0, 0, 0, ab, cd])),
        same("6to4", v6([0x2002, ab, cd, 0, 0, 0, 0, 1])),
        // RFC 4380: server, flags, port, and the client's address with all bits inverted.
        same("Teredo", v6([0x2001, 0, 0xcb00, 0x7101, 0, 0, !ab, !cd])),
        same("IPv4-compatible", v6([0, 0, 0, 0, 0, 0, ab, cd])),
        same("link-local with scope", v6([0xfe80, 0, 0, 0, 0, 0, 0, 1])),
    ]
}

/// Addresses that loopback needs in addition to those of [`Network`].
pub(super) fn addresses() -> impl Iterator<Item = (IpAddr, u8)> {
    address_variants()
        .into_iter()
        .filter_map(|(_, receiver, _)| match receiver {
            address if address.is_loopback() => None,
            IpAddr::V4(_) => Some((receiver, 32)),
            IpAddr::V6(_) => Some((receiver, 128)),
        })
}

/// Every test case, in the order of the report.
pub(super) fn all() -> Vec<TestCase> {
    let methods = EgressMethod::all().flat_map(|method| {
        let families = method.families().iter();
        families.map(move |&family| TestCase::plain(Technique::EgressMethod(method), family))
    });
    let variants = address_variants()
        .into_iter()
        .flat_map(|(destination, receiver, requested)| {
            [EgressMethod::TcpConnect, EgressMethod::UdpSendto].map(|method| TestCase {
                technique: Technique::EgressMethod(method),
                destination,
                receiver,
                requested,
            })
        });
    let inherited = Family::ALL.map(|family| TestCase::plain(Technique::InheritedSocket, family));
    methods.chain(variants).chain(inherited).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn test_cases_are_unique() {
        let all = all();
        let distinct: HashSet<_> = all
            .iter()
            .map(|case| (case.technique.name(), case.destination))
            .collect();
        assert_eq!(distinct.len(), all.len());
    }
}
