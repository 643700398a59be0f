//! The egress methods that are tested, and the hooks that must deny each of them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use thiserror::Error;

/// The payload of every message that a test client sends.
pub const MARKER: &[u8] = b"tidegate test_client";

/// The IP protocol of raw sockets: reserved for experiments (RFC 3692).
pub const EXPERIMENTAL_PROTOCOL: i32 = 253;

/// Defines [`EgressMethod`] and its table: each method with its name on the command line and in reports, and what the
/// process does.
macro_rules! egress_methods {
    ($($method:ident, $name:literal, $about:literal;)*) => {
        /// How a process sends something to another host.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EgressMethod {
            $(#[doc = $about] $method,)*
        }

        const METHODS: &[(EgressMethod, &str, &str)] = &[$((EgressMethod::$method, $name, $about),)*];
    };
}

egress_methods! {
    TcpConnect, "tcp-connect", "TCP: connect, send";
    UdpConnectSend, "udp-connect-send", "UDP: connect, send";
    UdpSendto, "udp-sendto", "UDP: sendto on a socket without a peer";
    UdpSendmsg, "udp-sendmsg", "UDP: sendmsg on a socket without a peer";
    UdpSendmmsg, "udp-sendmmsg", "UDP: sendmmsg with two messages";
    UdpConnectedSendto, "udp-connected-sendto", "UDP: connect to one destination, sendto to another";
    UdpReconnect, "udp-reconnect", "UDP: connect to one destination, then to another, send";
    TcpFastopenSendto, "tcp-fastopen-sendto", "TCP fast open: sendto with MSG_FASTOPEN, without connect";
    TcpFastopenConnect, "tcp-fastopen-connect", "TCP fast open: connect with TCP_FASTOPEN_CONNECT, data in the SYN";
    IoUringConnect, "io-uring-connect", "TCP: connect submitted to an io_uring";
    IoUringSendmsg, "io-uring-sendmsg", "UDP: sendmsg submitted to an io_uring";
    IoUringPing, "io-uring-ping", "ICMP echo (ping socket created by an io_uring): sendto";
    MptcpConnect, "mptcp-connect", "MPTCP: connect, send";
    SctpConnect, "sctp-connect", "SCTP: connect, send";
    MappedTcpConnect, "mapped-tcp-connect", "TCP: connect of an IPv6 socket to an IPv4-mapped address, send";
    MappedUdpConnect, "mapped-udp-connect", "UDP: connect of an IPv6 socket to an IPv4-mapped address, send";
    MappedUdpSendto, "mapped-udp-sendto", "UDP: sendto on an IPv6 socket with an IPv4-mapped address";
    InetOnUdp6Connect, "inet-on-udp6-connect", "UDP: connect of an IPv6 socket with an IPv4 `sockaddr_in`, send";
    InetOnUdp6Sendto, "inet-on-udp6-sendto", "UDP: sendto on an IPv6 socket with an IPv4 `sockaddr_in`";
    UnspecDisconnectSendto, "unspec-disconnect-sendto", "UDP: connect, disconnect by AF_UNSPEC, sendto to another destination";
    UnspecTcpReconnect, "unspec-tcp-reconnect", "TCP: connect, disconnect by AF_UNSPEC, connect to another destination";
    UnspecFamilySendto, "unspec-family-sendto", "UDP: sendto with family AF_UNSPEC, which the kernel treats as AF_INET";
    BoundTcpUnspecified, "bound-tcp-unspecified", "TCP: bind to the destination, connect to 0.0.0.0";
    MappedBoundTcpUnspecified, "mapped-bound-tcp-unspecified", "TCP: the same on an IPv6 socket, with IPv4-mapped addresses";
    BoundUdpUnspecified, "bound-udp-unspecified", "UDP: bind to the destination, sendto 0.0.0.0";
    UdpliteConnectSend, "udplite-connect-send", "UDP-Lite: connect, send";
    UdpliteSendto, "udplite-sendto", "UDP-Lite: sendto";
    RawConnectSend, "raw-connect-send", "raw IP: connect, send";
    RawSendto, "raw-sendto", "raw IP: sendto";
    RawOwnHeader, "raw-own-header", "raw IP: sendto with an IP header that the process writes (IPPROTO_RAW)";
    PingConnectSend, "ping-connect-send", "ICMP echo (ping socket): connect, send";
    PingSendto, "ping-sendto", "ICMP echo (ping socket): sendto";
    Packet, "packet", "packet socket: an IP packet, below the IP layer";
    ThreadConnect, "thread-connect", "TCP: connect in a second thread";
    GrandchildConnect, "grandchild-connect", "TCP: connect in a grandchild whose parent has ended";
}

/// The name of no egress method.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown egress method `{0}`")]
pub struct UnknownEgressMethod(String);

impl FromStr for EgressMethod {
    type Err = UnknownEgressMethod;

    fn from_str(text: &str) -> Result<EgressMethod, UnknownEgressMethod> {
        let mut all = EgressMethod::all();
        all.find(|method| method.name() == text)
            .ok_or_else(|| UnknownEgressMethod(text.to_owned()))
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];
}

/// The protocol of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP connections, with fast open.
    Tcp,
    /// MPTCP connections; plain TCP connections are accepted too.
    Mptcp,
    /// SCTP associations of one-to-one sockets.
    Sctp,
    /// UDP datagrams.
    Udp,
    /// UDP-Lite datagrams.
    Udplite,
    /// IP packets of [`EXPERIMENTAL_PROTOCOL`].
    Raw,
    /// ICMP echo requests.
    Echo,
}

/// What decides whether a method is allowed, without LSM programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnforcedBy {
    /// connect4 or connect6.
    Connect,
    /// sendmsg4 or sendmsg6.
    Sendmsg,
    /// sock_create.
    SockCreate,
    /// No hook: `exec` drops the capability that the method needs.
    Capability,
}

impl EgressMethod {
    /// Every method.
    pub fn all() -> impl Iterator<Item = EgressMethod> {
        METHODS.iter().map(|(method, ..)| *method)
    }

    /// The name on the command line of the test client and in reports.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What the process does, in one line.
    pub fn about(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (EgressMethod, &'static str, &'static str) {
        // The macro makes the table of all methods, in the order of the enum.
        &METHODS[self as usize]
    }

    /// The address families of destinations that the method supports.
    pub fn families(self) -> &'static [Family] {
        match self {
            EgressMethod::MappedTcpConnect
            | EgressMethod::MappedUdpConnect
            | EgressMethod::MappedUdpSendto
            | EgressMethod::InetOnUdp6Connect
            | EgressMethod::InetOnUdp6Sendto
            | EgressMethod::UnspecFamilySendto
            | EgressMethod::BoundTcpUnspecified
            | EgressMethod::MappedBoundTcpUnspecified
            | EgressMethod::BoundUdpUnspecified
            | EgressMethod::RawOwnHeader
            | EgressMethod::Packet => &[Family::V4],
            _ => &Family::ALL,
        }
    }

    /// The protocol of the receiver.
    pub fn transport(self) -> Transport {
        match self {
            EgressMethod::TcpConnect
            | EgressMethod::TcpFastopenSendto
            | EgressMethod::TcpFastopenConnect
            | EgressMethod::IoUringConnect
            | EgressMethod::MappedTcpConnect
            | EgressMethod::UnspecTcpReconnect
            | EgressMethod::BoundTcpUnspecified
            | EgressMethod::MappedBoundTcpUnspecified
            | EgressMethod::ThreadConnect
            | EgressMethod::GrandchildConnect => Transport::Tcp,
            EgressMethod::MptcpConnect => Transport::Mptcp,
            EgressMethod::SctpConnect => Transport::Sctp,
            EgressMethod::UdpConnectSend
            | EgressMethod::UdpSendto
            | EgressMethod::UdpSendmsg
            | EgressMethod::UdpSendmmsg
            | EgressMethod::UdpConnectedSendto
            | EgressMethod::UdpReconnect
            | EgressMethod::IoUringSendmsg
            | EgressMethod::MappedUdpConnect
            | EgressMethod::MappedUdpSendto
            | EgressMethod::InetOnUdp6Connect
            | EgressMethod::InetOnUdp6Sendto
            | EgressMethod::UnspecDisconnectSendto
            | EgressMethod::UnspecFamilySendto
            | EgressMethod::BoundUdpUnspecified => Transport::Udp,
            EgressMethod::UdpliteConnectSend | EgressMethod::UdpliteSendto => Transport::Udplite,
            EgressMethod::RawConnectSend
            | EgressMethod::RawSendto
            | EgressMethod::RawOwnHeader
            | EgressMethod::Packet => Transport::Raw,
            EgressMethod::PingConnectSend | EgressMethod::PingSendto | EgressMethod::IoUringPing => {
                Transport::Echo
            }
        }
    }

    /// What decides, without LSM programs.
    pub fn enforced_by(self) -> EnforcedBy {
        match self {
            EgressMethod::TcpConnect
            | EgressMethod::UdpConnectSend
            | EgressMethod::UdpReconnect
            | EgressMethod::TcpFastopenSendto
            | EgressMethod::TcpFastopenConnect
            | EgressMethod::IoUringConnect
            | EgressMethod::MptcpConnect
            | EgressMethod::MappedTcpConnect
            | EgressMethod::MappedUdpConnect
            | EgressMethod::InetOnUdp6Connect
            | EgressMethod::UnspecTcpReconnect
            | EgressMethod::BoundTcpUnspecified
            | EgressMethod::MappedBoundTcpUnspecified
            | EgressMethod::ThreadConnect
            | EgressMethod::GrandchildConnect => EnforcedBy::Connect,
            EgressMethod::UdpSendto
            | EgressMethod::UdpSendmsg
            | EgressMethod::UdpSendmmsg
            | EgressMethod::UdpConnectedSendto
            | EgressMethod::IoUringSendmsg
            | EgressMethod::MappedUdpSendto
            | EgressMethod::InetOnUdp6Sendto
            | EgressMethod::UnspecDisconnectSendto
            | EgressMethod::UnspecFamilySendto
            | EgressMethod::BoundUdpUnspecified => EnforcedBy::Sendmsg,
            EgressMethod::UdpliteConnectSend
            | EgressMethod::UdpliteSendto
            | EgressMethod::RawConnectSend
            | EgressMethod::RawSendto
            | EgressMethod::RawOwnHeader
            | EgressMethod::PingConnectSend
            | EgressMethod::PingSendto
            | EgressMethod::IoUringPing
            | EgressMethod::SctpConnect => EnforcedBy::SockCreate,
            EgressMethod::Packet => EnforcedBy::Capability,
        }
    }

    /// The cgroup hook that reports a destination of this family; `None` if no hook covers the method.
    pub fn hook(self, family: Family) -> Option<&'static str> {
        Some(match (self.enforced_by(), family) {
            // connect6 gets the IPv4-mapped address, before the kernel converts it.
            (EnforcedBy::Connect, _) if self.is_mapped() => "connect6",
            (EnforcedBy::Connect, Family::V4) => "connect4",
            (EnforcedBy::Connect, Family::V6) => "connect6",
            (EnforcedBy::Sendmsg, Family::V4) => "sendmsg4",
            (EnforcedBy::Sendmsg, Family::V6) => "sendmsg6",
            (EnforcedBy::SockCreate, _) => "sock_create",
            (EnforcedBy::Capability, _) => return None,
        })
    }

    /// The LSM program that is called first.
    pub fn lsm_hook(self) -> Option<&'static str> {
        Some(match self.enforced_by() {
            _ if self == EgressMethod::TcpFastopenSendto => "lsm_sendmsg",
            EnforcedBy::Connect => "lsm_connect",
            EnforcedBy::Sendmsg => "lsm_sendmsg",
            EnforcedBy::SockCreate | EnforcedBy::Capability => "lsm_create",
        })
    }

    /// The protocol in events.
    pub fn protocol(self, family: Family) -> &'static str {
        match (self.transport(), family) {
            // A subflow of MPTCP is a TCP socket.
            (Transport::Tcp | Transport::Mptcp, _) => "tcp",
            (Transport::Sctp, _) => "sctp",
            (Transport::Udp, _) => "udp",
            (Transport::Udplite, _) => "udplite",
            (Transport::Raw, _) => "raw",
            (Transport::Echo, Family::V4) => "icmp",
            (Transport::Echo, Family::V6) => "icmpv6",
        }
    }

    /// Whether the destination is an IPv4-mapped IPv6 address.
    pub fn is_mapped(self) -> bool {
        matches!(
            self,
            EgressMethod::MappedTcpConnect
                | EgressMethod::MappedUdpConnect
                | EgressMethod::MappedUdpSendto
                | EgressMethod::MappedBoundTcpUnspecified
        )
    }

    /// The address that the test client passes to the kernel to reach this one.
    pub fn requested(self, to: SocketAddr) -> SocketAddr {
        let address = match (self, to.ip()) {
            (
                EgressMethod::BoundTcpUnspecified
                | EgressMethod::MappedBoundTcpUnspecified
                | EgressMethod::BoundUdpUnspecified,
                _,
            ) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            (_, address) => address,
        };
        match address {
            IpAddr::V4(v4) if self.is_mapped() => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            address => SocketAddr::new(address, to.port()),
        }
    }

    /// Whether the test client connects to another destination first.
    pub fn needs_via(self) -> bool {
        matches!(
            self,
            EgressMethod::UdpConnectedSendto
                | EgressMethod::UdpReconnect
                | EgressMethod::UnspecDisconnectSendto
                | EgressMethod::UnspecTcpReconnect
        )
    }

    /// Whether it needs CAP_NET_RAW.
    pub fn needs_net_raw(self) -> bool {
        self.transport() == Transport::Raw
    }

    /// How many messages arrive when nothing is blocked.
    pub fn messages(self) -> usize {
        if self == EgressMethod::UdpSendmmsg { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_depends_on_family_and_address_form() {
        assert_eq!(EgressMethod::TcpConnect.hook(Family::V6), Some("connect6"));
        assert_eq!(EgressMethod::MappedTcpConnect.hook(Family::V4), Some("connect6"));
        assert_eq!(EgressMethod::MappedUdpSendto.hook(Family::V4), Some("sendmsg4"));
        assert_eq!(EgressMethod::Packet.hook(Family::V4), None);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = EgressMethod::all().map(EgressMethod::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METHODS.len());
        for method in EgressMethod::all() {
            assert_eq!(method.name().parse(), Ok(method));
        }
        assert!("".parse::<EgressMethod>().is_err());
    }
}
