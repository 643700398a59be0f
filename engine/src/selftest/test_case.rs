//! What is tried: a way, to a destination, in a spelling.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use engine_common::Protocol;

use super::{
    egress_method::{EgressMethod, Family, Transport},
    network::Network,
};

/// Index of `lo` in a fresh namespace.
const LOOPBACK: u32 = 1;

/// How something leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Technique {
    /// By sockets made in the cgroup.
    EgressMethod(EgressMethod),
    /// By a datagram socket that was made and connected outside, and handed in.
    OlderSocket,
}

impl Technique {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Technique::EgressMethod(way) => way.name(),
            Technique::OlderSocket => "older-socket",
        }
    }

    /// Which receiver sees what is sent.
    pub(super) fn transport(self) -> Transport {
        match self {
            Technique::EgressMethod(way) => way.transport(),
            Technique::OlderSocket => Transport::Udp,
        }
    }

    /// How many messages arrive.
    pub(super) fn messages(self) -> usize {
        match self {
            Technique::EgressMethod(way) => way.messages(),
            Technique::OlderSocket => 1,
        }
    }
}

/// One thing to try.
#[derive(Clone, Debug)]
pub(super) struct TestCase {
    /// How it leaves.
    pub(super) passage: Technique,
    /// What is particular of the destination.
    pub(super) destination: &'static str,
    /// Where the receiver is.
    pub(super) receiver: IpAddr,
    /// How the caller spells that.
    pub(super) spelled: IpAddr,
}

impl TestCase {
    fn plain(passage: Technique, family: Family) -> TestCase {
        let near = Network::near(family);
        TestCase {
            passage,
            destination: match family {
                Family::V4 => "IPv4",
                Family::V6 => "IPv6",
            },
            receiver: near,
            spelled: near,
        }
    }

    /// Where to go, once the receiver has a port.
    pub(super) fn to(&self, port: u16) -> SocketAddr {
        match self.spelled {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, LOOPBACK).into(),
            address => SocketAddr::new(address, port),
        }
    }

    /// Where the receiver is to listen.
    pub(super) fn listens(&self) -> SocketAddr {
        match self.receiver {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, 0, 0, LOOPBACK).into(),
            address => SocketAddr::new(address, 0),
        }
    }

    /// Family of the receiver's address.
    pub(super) fn family(&self) -> Family {
        match self.receiver {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The protocol, as policies know it.
    pub(super) fn protocol(&self) -> Protocol {
        match (self.passage.transport(), self.family()) {
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

/// Other spellings of a destination, and destinations that are easily forgotten: what it is called, where
/// the receiver is, how the caller spells it.
fn spellings() -> [(&'static str, IpAddr, IpAddr); 9] {
    let inside = Ipv4Addr::new(198, 51, 100, 1);
    let [a, b, c, d] = inside.octets();
    let pair = |high: u8, low: u8| u16::from(high) << 8 | u16::from(low);
    let (ab, cd) = (pair(a, b), pair(c, d));
    let v6 = |words: [u16; 8]| IpAddr::V6(Ipv6Addr::from(words));
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
        // RFC 4380: server, flags, port, and the client's address, all bits turned over.
        same("Teredo", v6([0x2001, 0, 0xcb00, 0x7101, 0, 0, !ab, !cd])),
        same("IPv4-compatible", v6([0, 0, 0, 0, 0, 0, ab, cd])),
        same("link-local with scope", v6([0xfe80, 0, 0, 0, 0, 0, 0, 1])),
    ]
}

/// Addresses that loopback needs beside those of [`Network`].
pub(super) fn addresses() -> impl Iterator<Item = (IpAddr, u8)> {
    spellings()
        .into_iter()
        .filter_map(|(_, receiver, _)| match receiver {
            address if address.is_loopback() => None,
            IpAddr::V4(_) => Some((receiver, 32)),
            IpAddr::V6(_) => Some((receiver, 128)),
        })
}

/// Everything that is tried.
pub(super) fn all() -> Vec<TestCase> {
    let ways = EgressMethod::all().flat_map(|way| {
        let families = way.families().iter();
        families.map(move |&family| TestCase::plain(Technique::EgressMethod(way), family))
    });
    let spelled = spellings()
        .into_iter()
        .flat_map(|(destination, receiver, spelled)| {
            [EgressMethod::TcpConnect, EgressMethod::UdpSendto].map(|way| TestCase {
                passage: Technique::EgressMethod(way),
                destination,
                receiver,
                spelled,
            })
        });
    let older = Family::ALL.map(|family| TestCase::plain(Technique::OlderSocket, family));
    ways.chain(spelled).chain(older).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nothing_is_tried_twice() {
        let all = all();
        let distinct: HashSet<_> = all
            .iter()
            .map(|course| (course.passage.name(), course.destination))
            .collect();
        assert_eq!(distinct.len(), all.len());
    }
}
