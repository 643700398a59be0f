//! Protocols as rules and hooks name them.

/// A transport protocol: an IP protocol number (0 to 255 and the kernel's own numbers above, such
/// as 262 for MPTCP), or [`Protocol::RAW`].
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
    /// DCCP, gone from newer kernels.
    pub const DCCP: Protocol = Protocol(33);
    /// ICMPv6: ping sockets of IPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);
    /// UDP-Lite, gone from newer kernels.
    pub const UDPLITE: Protocol = Protocol(136);
    /// MPTCP, as `socket(2)` names it.
    pub const MPTCP: Protocol = Protocol(262);
    /// Any raw socket, whatever protocol it was made for: its owner writes the headers, so the
    /// number says nothing about what is sent. Not a kernel number.
    pub const RAW: Protocol = Protocol(511);

    /// First number of the families: what the kernel's own numbers (up to 262) and [`Protocol::RAW`] leave free.
    const FIRST_FAMILY: u16 = 448;
    /// Families have numbers below this (AF_MAX is 46 in Linux 7.3).
    pub const FAMILIES: u16 = 63;

    /// Unix sockets, which are judged only by rules that name them.
    pub const UNIX: Protocol = Protocol::of_family(1);

    /// Families other than the two inet ones that policies can name, by AF number (include/linux/socket.h). Not
    /// among them: AF_UNIX, AF_NETLINK and AF_ALG, which stay on this machine.
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

    /// Any socket of an address family other than the two inet ones, by its AF number: it has no
    /// destination that a rule could name, so that it is one more protocol without an address hook.
    /// Numbers that are no such family read as the last of them, which no rule can name.
    #[inline(always)]
    pub const fn of_family(family: u16) -> Protocol {
        let last = Self::FAMILIES - 1;
        Protocol(Self::FIRST_FAMILY + if family < last { family } else { last })
    }

    /// The address family, where this stands for one.
    #[inline(always)]
    pub const fn family(self) -> Option<u16> {
        if self.0 >= Self::FIRST_FAMILY && self.0 < Self::RAW.0 {
            Some(self.0 - Self::FIRST_FAMILY)
        } else {
            None
        }
    }

    /// First number that is no protocol: the tables have room for this many.
    pub const COUNT: u16 = 512;

    /// Whether destinations of this protocol have ports that a rule can name.
    #[inline(always)]
    pub const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 33 | 132 | 136)
    }

    /// Whether the address hooks (cgroup/connect, cgroup/sendmsg) see every destination of this
    /// protocol. All others are judged when their socket is made.
    #[inline(always)]
    pub const fn has_address_hook(self) -> bool {
        matches!(self.0, 6 | 17 | 262)
    }
}
