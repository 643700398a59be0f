//! Protocols of rules and hooks.

use core::fmt;

/// A transport protocol: an IP protocol number (0 to 255 and the kernel's own numbers above, such
/// as 262 for MPTCP), [`Protocol::RAW`], or an address family ([`Protocol::of_family`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Protocol(pub u16);

impl Protocol {
    /// ICMP: ping sockets of IPv4 (`socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)`).
    pub const ICMP: Protocol = Protocol(1);
    /// TCP. MPTCP connects are TCP to the hooks: its subflows are TCP sockets.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// DCCP; removed from newer kernels.
    pub const DCCP: Protocol = Protocol(33);
    /// ICMPv6: ping sockets of IPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);
    /// UDP-Lite; removed from newer kernels.
    pub const UDPLITE: Protocol = Protocol(136);
    /// MPTCP, as passed to `socket(2)`.
    pub const MPTCP: Protocol = Protocol(262);
    /// A raw socket of any protocol: the process writes the headers, so the socket's protocol does not
    /// determine what is sent. Not a value of the kernel.
    pub const RAW: Protocol = Protocol(511);

    /// First value used for address families; the kernel uses values up to 262, and [`Protocol::RAW`] is 511.
    const FIRST_FAMILY: u16 = 448;
    /// Address families are below this value (AF_MAX is 46 in Linux 7.3).
    pub const FAMILIES: u16 = 63;

    /// Unix sockets, which only rules that name them apply to.
    pub const UNIX: Protocol = Protocol::of_family(1);

    /// Address families other than AF_INET and AF_INET6 that policies can name (values of include/linux/socket.h).
    /// AF_UNIX, AF_NETLINK and AF_ALG are not included: they do not leave the machine.
    pub const FAMILY_NAMES: [(u16, &'static str); 26] = [
        (3, "ax25"),
        (4, "ipx"),
        (5, "appletalk"),
        (9, "x25"),
        (15, "key"),
        (17, "packet"),
        (21, "rds"),
        (23, "irda"),
        (24, "pppox"),
        (26, "llc"),
        (27, "ib"),
        (28, "mpls"),
        (29, "can"),
        (30, "tipc"),
        (31, "bluetooth"),
        (33, "rxrpc"),
        (35, "phonet"),
        (36, "ieee802154"),
        (37, "caif"),
        (39, "nfc"),
        (40, "vsock"),
        (41, "kcm"),
        (42, "qipcrtr"),
        (43, "smc"),
        (44, "xdp"),
        (45, "mctp"),
    ];

    /// A socket of an address family other than AF_INET and AF_INET6. It has no destination that a rule
    /// could name, so it is handled as a protocol without an address hook.
    /// Values that are too large map to the last family, which no rule can name.
    #[inline(always)]
    pub const fn of_family(family: u16) -> Protocol {
        let last = Self::FAMILIES - 1;
        Protocol(Self::FIRST_FAMILY + if family < last { family } else { last })
    }

    /// The address family, if this value represents one.
    #[inline(always)]
    pub const fn family(self) -> Option<u16> {
        if self.0 >= Self::FIRST_FAMILY && self.0 < Self::RAW.0 {
            Some(self.0 - Self::FIRST_FAMILY)
        } else {
            None
        }
    }

    /// The name in policies, events and output; `None` for a value without a name.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Protocol::ICMP => "icmp",
            Protocol::TCP => "tcp",
            Protocol::UDP => "udp",
            Protocol::DCCP => "dccp",
            Protocol::ICMPV6 => "icmpv6",
            Protocol::SCTP => "sctp",
            Protocol::UDPLITE => "udplite",
            Protocol::MPTCP => "mptcp",
            Protocol::RAW => "raw",
            Protocol::UNIX => "unix",
            _ => {
                let family = self.family()?;
                let mut names = Self::FAMILY_NAMES.iter();
                names.find(|(value, _)| *value == family)?.1
            }
        })
    }

    /// Number of valid protocol values, and size of the tables that are indexed by protocol.
    pub const COUNT: u16 = 512;

    /// Whether destinations of this protocol have ports that a rule can name.
    #[inline(always)]
    pub const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 33 | 132 | 136)
    }

    /// Whether the address hooks (cgroup/connect, cgroup/sendmsg) see every destination of this
    /// protocol. All others are checked when their socket is created.
    #[inline(always)]
    pub const fn has_address_hook(self) -> bool {
        matches!(self.0, 6 | 17 | 262)
    }
}

/// The name, or the value: `tcp`, `115`, `vsock`, `family 2`.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.family()) {
            (Some(name), _) => f.pad(name),
            (None, Some(family)) => write!(f, "family {family}"),
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn names_and_values() {
        for (protocol, text) in [
            (Protocol(6), "tcp"),
            (Protocol(511), "raw"),
            (Protocol(115), "115"),
            (Protocol::of_family(40), "vsock"),
            (Protocol::of_family(1), "unix"),
            (Protocol::of_family(2), "family 2"),
        ] {
            assert_eq!(protocol.to_string(), text);
        }
    }
}
