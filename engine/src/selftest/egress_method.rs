//! Every way out of a process that is tried, and what the gate should say about each.

use std::str::FromStr;

use thiserror::Error;

/// What a test client sends.
pub const MARKER: &[u8] = b"tidegate test_client";

/// The protocol that raw sockets are tried with: one for experiments (RFC 3692).
pub const EXPERIMENTAL_PROTOCOL: i32 = 253;

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EgressMethod {
    /// TCP: connect, send.
    TcpConnect,
    /// UDP: connect, send.
    UdpConnectSend,
    /// UDP: sendto on a socket without a peer.
    UdpSendto,
    /// UDP: sendmsg on a socket without a peer.
    UdpSendmsg,
    /// UDP: sendmmsg with two messages.
    UdpSendmmsg,
    /// UDP: connected to one place, sendto another.
    UdpConnectedSendto,
    /// UDP: connected to one place, then to another, send.
    UdpReconnect,
    /// TCP fast open: sendto with MSG_FASTOPEN, no connect.
    TcpFastopenSendto,
    /// TCP fast open: connect with TCP_FASTOPEN_CONNECT, data in the first packet.
    TcpFastopenConnect,
    /// TCP: connect submitted to an io_uring.
    IoUringConnect,
    /// UDP: sendmsg submitted to an io_uring.
    IoUringSendmsg,
    /// ICMP echo from a ping socket that an io_uring made: sendto.
    IoUringPing,
    /// MPTCP: connect, send.
    MptcpConnect,
    /// SCTP: connect, send.
    SctpConnect,
    /// TCP on an IPv6 socket to an IPv4-mapped address.
    MappedTcpConnect,
    /// UDP on an IPv6 socket connected to an IPv4-mapped address.
    MappedUdpConnect,
    /// UDP: sendto on an IPv6 socket with an IPv4-mapped address.
    MappedUdpSendto,
    /// UDP: an IPv6 socket connected with a `sockaddr_in`.
    InetOnUdp6Connect,
    /// UDP: sendto on an IPv6 socket with a `sockaddr_in`.
    InetOnUdp6Sendto,
    /// UDP: connected, disconnected by AF_UNSPEC, then sendto another place.
    UnspecDisconnectSendto,
    /// TCP: connected, disconnected by AF_UNSPEC, then connected to another place.
    UnspecTcpReconnect,
    /// UDP: sendto with family AF_UNSPEC, which the kernel takes for AF_INET.
    UnspecFamilySendto,
    /// UDP-Lite: connect, send.
    UdpliteConnectSend,
    /// UDP-Lite: sendto.
    UdpliteSendto,
    /// Raw IP: connect, send.
    RawConnectSend,
    /// Raw IP: sendto.
    RawSendto,
    /// Raw IP with a header written by the sender (IPPROTO_RAW).
    RawOwnHeader,
    /// ICMP echo from a ping socket: connect, send.
    PingConnectSend,
    /// ICMP echo from a ping socket: sendto.
    PingSendto,
    /// An IP packet through a packet socket, below the IP layer.
    Packet,
    /// TCP: connect in a second thread.
    ThreadConnect,
    /// TCP: connect in a grandchild whose parent has ended.
    GrandchildConnect,
}

/// All of them, with their names on a command line.
const NAMED: [(EgressMethod, &str); 32] = [
    (EgressMethod::TcpConnect, "tcp-connect"),
    (EgressMethod::UdpConnectSend, "udp-connect-send"),
    (EgressMethod::UdpSendto, "udp-sendto"),
    (EgressMethod::UdpSendmsg, "udp-sendmsg"),
    (EgressMethod::UdpSendmmsg, "udp-sendmmsg"),
    (EgressMethod::UdpConnectedSendto, "udp-connected-sendto"),
    (EgressMethod::UdpReconnect, "udp-reconnect"),
    (EgressMethod::TcpFastopenSendto, "tcp-fastopen-sendto"),
    (EgressMethod::TcpFastopenConnect, "tcp-fastopen-connect"),
    (EgressMethod::IoUringConnect, "io-uring-connect"),
    (EgressMethod::IoUringSendmsg, "io-uring-sendmsg"),
    (EgressMethod::IoUringPing, "io-uring-ping"),
    (EgressMethod::MptcpConnect, "mptcp-connect"),
    (EgressMethod::SctpConnect, "sctp-connect"),
    (EgressMethod::MappedTcpConnect, "mapped-tcp-connect"),
    (EgressMethod::MappedUdpConnect, "mapped-udp-connect"),
    (EgressMethod::MappedUdpSendto, "mapped-udp-sendto"),
    (EgressMethod::InetOnUdp6Connect, "inet-on-udp6-connect"),
    (EgressMethod::InetOnUdp6Sendto, "inet-on-udp6-sendto"),
    (EgressMethod::UnspecDisconnectSendto, "unspec-disconnect-sendto"),
    (EgressMethod::UnspecTcpReconnect, "unspec-tcp-reconnect"),
    (EgressMethod::UnspecFamilySendto, "unspec-family-sendto"),
    (EgressMethod::UdpliteConnectSend, "udplite-connect-send"),
    (EgressMethod::UdpliteSendto, "udplite-sendto"),
    (EgressMethod::RawConnectSend, "raw-connect-send"),
    (EgressMethod::RawSendto, "raw-sendto"),
    (EgressMethod::RawOwnHeader, "raw-own-header"),
    (EgressMethod::PingConnectSend, "ping-connect-send"),
    (EgressMethod::PingSendto, "ping-sendto"),
    (EgressMethod::Packet, "packet"),
    (EgressMethod::ThreadConnect, "thread-connect"),
    (EgressMethod::GrandchildConnect, "grandchild-connect"),
];

/// A name that is no way's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not the name of a way")]
pub struct UnknownEgressMethod(String);

impl FromStr for EgressMethod {
    type Err = UnknownEgressMethod;

    fn from_str(text: &str) -> Result<EgressMethod, UnknownEgressMethod> {
        let mut all = EgressMethod::all();
        all.find(|way| way.name() == text)
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

/// What a receiver listens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP connections, with fast open.
    Tcp,
    /// MPTCP connections, and plain TCP ones.
    Mptcp,
    /// SCTP associations, one a socket.
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

/// Which kind of cgroup hook decides about a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gatekeeper {
    /// connect4 or connect6.
    Connect,
    /// sendmsg4 or sendmsg6.
    Sendmsg,
    /// sock_create.
    SockCreate,
    /// None: the capability for it is taken away.
    Capability,
}

impl EgressMethod {
    /// All of them.
    pub fn all() -> impl Iterator<Item = EgressMethod> {
        NAMED.into_iter().map(|(way, _)| way)
    }

    /// The name on the test client's command line.
    pub fn name(self) -> &'static str {
        let named = NAMED.into_iter().find(|(way, _)| *way == self);
        named.map_or("", |(_, name)| name)
    }

    /// The families of destination that the way exists for.
    pub fn families(self) -> &'static [Family] {
        match self {
            EgressMethod::MappedTcpConnect
            | EgressMethod::MappedUdpConnect
            | EgressMethod::MappedUdpSendto
            | EgressMethod::InetOnUdp6Connect
            | EgressMethod::InetOnUdp6Sendto
            | EgressMethod::UnspecFamilySendto
            | EgressMethod::RawOwnHeader
            | EgressMethod::Packet => &[Family::V4],
            _ => &Family::ALL,
        }
    }

    /// Which receiver sees what is sent.
    pub fn transport(self) -> Transport {
        match self {
            EgressMethod::TcpConnect
            | EgressMethod::TcpFastopenSendto
            | EgressMethod::TcpFastopenConnect
            | EgressMethod::IoUringConnect
            | EgressMethod::MappedTcpConnect
            | EgressMethod::UnspecTcpReconnect
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
            | EgressMethod::UnspecFamilySendto => Transport::Udp,
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

    /// Which hook decides.
    pub fn gatekeeper(self) -> Gatekeeper {
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
            | EgressMethod::ThreadConnect
            | EgressMethod::GrandchildConnect => Gatekeeper::Connect,
            EgressMethod::UdpSendto
            | EgressMethod::UdpSendmsg
            | EgressMethod::UdpSendmmsg
            | EgressMethod::UdpConnectedSendto
            | EgressMethod::IoUringSendmsg
            | EgressMethod::MappedUdpSendto
            | EgressMethod::InetOnUdp6Sendto
            | EgressMethod::UnspecDisconnectSendto
            | EgressMethod::UnspecFamilySendto => Gatekeeper::Sendmsg,
            EgressMethod::UdpliteConnectSend
            | EgressMethod::UdpliteSendto
            | EgressMethod::RawConnectSend
            | EgressMethod::RawSendto
            | EgressMethod::RawOwnHeader
            | EgressMethod::PingConnectSend
            | EgressMethod::PingSendto
            | EgressMethod::IoUringPing
            | EgressMethod::SctpConnect => Gatekeeper::SockCreate,
            EgressMethod::Packet => Gatekeeper::Capability,
        }
    }

    /// The hook that reports a destination of this family; `None` where there is none.
    pub fn hook(self, family: Family) -> Option<&'static str> {
        Some(match (self.gatekeeper(), family) {
            // The address is still spelled as IPv6 when connect(2) shows it.
            (Gatekeeper::Connect, _) if self.is_mapped() => "connect6",
            (Gatekeeper::Connect, Family::V4) => "connect4",
            (Gatekeeper::Connect, Family::V6) => "connect6",
            (Gatekeeper::Sendmsg, Family::V4) => "sendmsg4",
            (Gatekeeper::Sendmsg, Family::V6) => "sendmsg6",
            (Gatekeeper::SockCreate, _) => "sock_create",
            (Gatekeeper::Capability, _) => return None,
        })
    }

    /// The LSM program that sees it first.
    pub fn lsm_hook(self) -> Option<&'static str> {
        Some(match self.gatekeeper() {
            _ if self == EgressMethod::TcpFastopenSendto => "lsm_sendmsg",
            Gatekeeper::Connect => "lsm_connect",
            Gatekeeper::Sendmsg => "lsm_sendmsg",
            Gatekeeper::SockCreate | Gatekeeper::Capability => "lsm_create",
        })
    }

    /// The protocol as reports name it.
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

    /// Whether the destination is spelled as an IPv4-mapped address.
    pub fn is_mapped(self) -> bool {
        matches!(
            self,
            EgressMethod::MappedTcpConnect | EgressMethod::MappedUdpConnect | EgressMethod::MappedUdpSendto
        )
    }

    /// Whether the test client goes to another place first.
    pub fn needs_via(self) -> bool {
        matches!(
            self,
            EgressMethod::UdpConnectedSendto
                | EgressMethod::UdpReconnect
                | EgressMethod::UnspecDisconnectSendto
                | EgressMethod::UnspecTcpReconnect
        )
    }

    /// Whether it takes CAP_NET_RAW.
    pub fn needs_net_raw(self) -> bool {
        self.transport() == Transport::Raw
    }

    /// How many messages arrive.
    pub fn messages(self) -> usize {
        if self == EgressMethod::UdpSendmmsg { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_those_of_the_family_and_spelling() {
        assert_eq!(EgressMethod::TcpConnect.hook(Family::V6), Some("connect6"));
        assert_eq!(EgressMethod::MappedTcpConnect.hook(Family::V4), Some("connect6"));
        assert_eq!(EgressMethod::MappedUdpSendto.hook(Family::V4), Some("sendmsg4"));
        assert_eq!(EgressMethod::Packet.hook(Family::V4), None);
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = EgressMethod::all().map(EgressMethod::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMED.len());
        for way in EgressMethod::all() {
            assert_eq!(way.name().parse(), Ok(way));
        }
        assert!("".parse::<EgressMethod>().is_err());
    }

    /// Does not compile when a way is missing here, and fails when it has no name.
    #[test]
    fn every_way_has_a_name() {
        let count = |way: EgressMethod| match way {
            EgressMethod::TcpConnect
            | EgressMethod::UdpConnectSend
            | EgressMethod::UdpSendto
            | EgressMethod::UdpSendmsg
            | EgressMethod::UdpSendmmsg
            | EgressMethod::UdpConnectedSendto
            | EgressMethod::UdpReconnect
            | EgressMethod::TcpFastopenSendto
            | EgressMethod::TcpFastopenConnect
            | EgressMethod::IoUringConnect
            | EgressMethod::IoUringSendmsg
            | EgressMethod::IoUringPing
            | EgressMethod::SctpConnect
            | EgressMethod::MptcpConnect
            | EgressMethod::MappedTcpConnect
            | EgressMethod::MappedUdpConnect
            | EgressMethod::MappedUdpSendto
            | EgressMethod::InetOnUdp6Connect
            | EgressMethod::InetOnUdp6Sendto
            | EgressMethod::UnspecDisconnectSendto
            | EgressMethod::UnspecTcpReconnect
            | EgressMethod::UnspecFamilySendto
            | EgressMethod::UdpliteConnectSend
            | EgressMethod::UdpliteSendto
            | EgressMethod::RawConnectSend
            | EgressMethod::RawSendto
            | EgressMethod::RawOwnHeader
            | EgressMethod::PingConnectSend
            | EgressMethod::PingSendto
            | EgressMethod::Packet
            | EgressMethod::ThreadConnect
            | EgressMethod::GrandchildConnect => 1,
        };
        assert_eq!(EgressMethod::all().map(count).sum::<usize>(), 32);
    }
}
