//! Generates one test for each egress method.

/// Defines a test for each [`EgressMethod`](crate::egress_method::EgressMethod), named after it, that calls `$check`.
#[macro_export]
macro_rules! test_each_egress_method {
    ($check:path) => {
        $crate::test_each_egress_method! { $check:
            tcp_connect TcpConnect, udp_connect_send UdpConnectSend, udp_sendto UdpSendto,
            udp_sendmsg UdpSendmsg, udp_sendmmsg UdpSendmmsg,
            udp_connected_sendto UdpConnectedSendto, udp_reconnect UdpReconnect,
            tcp_fastopen_sendto TcpFastopenSendto, tcp_fastopen_connect TcpFastopenConnect,
            io_uring_connect IoUringConnect, io_uring_sendmsg IoUringSendmsg,
            io_uring_ping IoUringPing, sctp_connect SctpConnect,
            mptcp_connect MptcpConnect, mapped_tcp_connect MappedTcpConnect,
            mapped_udp_connect MappedUdpConnect, mapped_udp_sendto MappedUdpSendto,
            inet_on_udp6_connect InetOnUdp6Connect, inet_on_udp6_sendto InetOnUdp6Sendto,
            unspec_disconnect_sendto UnspecDisconnectSendto,
            unspec_tcp_reconnect UnspecTcpReconnect, unspec_family_sendto UnspecFamilySendto,
            bound_tcp_unspecified BoundTcpUnspecified,
            mapped_bound_tcp_unspecified MappedBoundTcpUnspecified,
            bound_udp_unspecified BoundUdpUnspecified,
            udplite_connect_send UdpliteConnectSend, udplite_sendto UdpliteSendto,
            raw_connect_send RawConnectSend, raw_sendto RawSendto, raw_own_header RawOwnHeader,
            ping_connect_send PingConnectSend, ping_sendto PingSendto, packet Packet,
            thread_connect ThreadConnect, grandchild_connect GrandchildConnect,
        }
    };
    ($check:path: $($test:ident $method:ident,)*) => {
        $(
            #[test]
            fn $test() {
                $check($crate::egress_method::EgressMethod::$method);
            }
        )*

        /// Does not compile if a method has no test.
        const _: fn($crate::egress_method::EgressMethod) = |method| match method {
            $($crate::egress_method::EgressMethod::$method => (),)*
        };
    };
}
