//! Protocols by name.

use std::borrow::Cow;

use engine_common::Protocol;

/// The protocol as the policy language writes it: a name, or the number in digits.
pub fn protocol_name(protocol: Protocol) -> Cow<'static, str> {
    Cow::Borrowed(match protocol {
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
        other if other.family().is_some() => return family_name(other.family().unwrap_or_default()),
        Protocol(number) => return Cow::Owned(number.to_string()),
    })
}

/// The family's name, or its number.
pub fn family_name(family: u16) -> Cow<'static, str> {
    match Protocol::FAMILY_NAMES
        .iter()
        .find(|(number, _)| *number == family)
    {
        Some((_, name)) => Cow::Borrowed(name),
        None => Cow::Owned(format!("family {family}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(protocol_name(Protocol(6)), "tcp");
        assert_eq!(protocol_name(Protocol(511)), "raw");
        assert_eq!(protocol_name(Protocol(115)), "115");
    }
}
