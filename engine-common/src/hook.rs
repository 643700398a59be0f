//! The hooks that observe attempts.

/// Defines [`Hook`]: name, discriminant, and name in JSON and text. A new hook is one line.
macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident = $value:literal $text:literal,)*) => {
        /// The hook that observed an attempt.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
        #[repr(u8)]
        pub enum Hook { $($(#[$doc])* $name = $value,)* }

        impl Hook {
            /// All hooks, ordered by discriminant.
            pub const ALL: &'static [Hook] = &[$(Hook::$name,)*];

            /// The name in JSON and text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Hook::$name => $text,)* }
            }

            /// The hook with this discriminant; `None` for any other value.
            pub const fn from_u8(value: u8) -> Option<Hook> {
                match value { $($value => Some(Hook::$name),)* _ => None }
            }
        }
    };
}

hooks! {
    /// cgroup/connect4.
    Connect4 = 0 "connect4",
    /// cgroup/connect6.
    Connect6 = 1 "connect6",
    /// cgroup/sendmsg4.
    Sendmsg4 = 2 "sendmsg4",
    /// cgroup/sendmsg6.
    Sendmsg6 = 3 "sendmsg6",
    /// cgroup/sock_create.
    SockCreate = 4 "sock_create",
    /// LSM socket_connect: evaluated for the calling task.
    LsmConnect = 5 "lsm_connect",
    /// LSM socket_sendmsg.
    LsmSendmsg = 6 "lsm_sendmsg",
    /// LSM socket_create.
    LsmCreate = 7 "lsm_create",
    /// LSM sctp_bind_connect.
    LsmSctp = 8 "lsm_sctp",
    /// cgroup_skb/egress: a packet.
    Egress = 9 "egress",
    /// kprobe tcp_connect: a SYN is about to be sent. Never decides.
    TcpConnect = 10 "tcp_connect",
    /// Tracepoint inet_sock_set_state, used where kprobes are not available. Never decides.
    SockState = 11 "sock_state",
    /// LSM unix_stream_connect: a connect to a unix socket.
    LsmUnixConnect = 12 "lsm_unix_connect",
    /// LSM unix_may_send: a datagram to a unix socket.
    LsmUnixSend = 13 "lsm_unix_send",
}

#[cfg(test)]
mod tests {
    use super::Hook;

    #[test]
    fn every_discriminant_is_that_of_its_hook() {
        for (i, hook) in Hook::ALL.iter().enumerate() {
            assert_eq!((*hook as usize, Hook::from_u8(i as u8)), (i, Some(*hook)));
        }
        assert_eq!(Hook::from_u8(Hook::ALL.len() as u8), None);
    }
}
