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
