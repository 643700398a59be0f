//! The built-in sets.
//!
//! | set | members | reference |
//! |---|---|---|
//! | `@loopback` | 127.0.0.0/8, ::1 | RFC 1122 3.2.1.3, RFC 4291 2.5.3 |
//! | `@private` | 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7 | RFC 1918, RFC 4193 |
//! | `@link-local` | 169.254.0.0/16, fe80::/10 | RFC 3927, RFC 4291 2.5.6 |
//! | `@multicast` | 224.0.0.0/4, ff00::/8 | RFC 5771, RFC 4291 2.7 |
//! | `@broadcast` | 255.255.255.255 | RFC 919 |
//! | `@reserved` | see [`all`] | IANA special-purpose registries, RFC 6890 |
//! | `@cloud-metadata` | see [`all`] | documentation of the cloud providers |
//! | `@resolvers` | the name servers of /etc/resolv.conf when the policy is loaded | resolv.conf(5) |
//!
//! The shared address space (100.64.0.0/10, RFC 6598) is in `@reserved`, not in `@private`, because several cloud
//! providers and overlay networks use it for their own services.

use std::net::IpAddr;

use ipnet::IpNet;

/// A built-in set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// Name, without the `@`.
    pub name: &'static str,
    /// Short description.
    pub about: &'static str,
    /// The members, each with its reference. Empty for `resolvers`, which depends on the machine.
    pub members: &'static [(&'static str, &'static str)],
}

/// Name of the set that is read from resolv.conf.
pub(super) const RESOLVERS: &str = "resolvers";

/// All built-in sets.
pub fn all() -> &'static [Builtin] {
    BUILTINS
}

/// The networks of a built-in set; `None` if there is no such set.
pub(super) fn networks(name: &str, resolvers: &[IpAddr]) -> Option<Vec<IpNet>> {
    let builtin = BUILTINS.iter().find(|b| b.name == name)?;
    if name == RESOLVERS {
        return Some(resolvers.iter().map(|&a| IpNet::from(a)).collect());
    }
    // A test checks that every member is a network.
    Some(
        builtin
            .members
            .iter()
            .filter_map(|(m, _)| super::network::parse(m).ok())
            .collect(),
    )
}

const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "loopback",
        about: "loopback addresses of this machine",
        members: &[("127.0.0.0/8", "RFC 1122, 3.2.1.3"), ("::1", "RFC 4291, 2.5.3")],
    },
    Builtin {
        name: "private",
        about: "networks for private use",
        members: &[
            ("10.0.0.0/8", "RFC 1918"),
            ("172.16.0.0/12", "RFC 1918"),
            ("192.168.0.0/16", "RFC 1918"),
            ("fc00::/7", "RFC 4193, unique local"),
        ],
    },
    Builtin {
        name: "link-local",
        about: "link-local addresses, not routed; contains most of @cloud-metadata",
        members: &[("169.254.0.0/16", "RFC 3927"), ("fe80::/10", "RFC 4291, 2.5.6")],
    },
    Builtin {
        name: "multicast",
        about: "multicast groups",
        members: &[("224.0.0.0/4", "RFC 5771"), ("ff00::/8", "RFC 4291, 2.7")],
    },
    Builtin {
        name: "broadcast",
        about: "limited broadcast",
        members: &[("255.255.255.255", "RFC 919")],
    },
    Builtin {
        name: "reserved",
        about: "special-purpose networks without public services",
        members: &[
            ("0.0.0.0/8", "RFC 791, 3.2: this network"),
            ("100.64.0.0/10", "RFC 6598: shared address space of carriers"),
            ("192.0.0.0/24", "RFC 6890: IETF protocol assignments"),
            ("192.0.2.0/24", "RFC 5737: documentation"),
            ("198.18.0.0/15", "RFC 2544: benchmarks"),
            ("198.51.100.0/24", "RFC 5737: documentation"),
            ("203.0.113.0/24", "RFC 5737: documentation"),
            // 255.255.255.255 (@broadcast) is part of this network.
            ("240.0.0.0/4", "RFC 1112, 4: reserved"),
            ("64:ff9b:1::/48", "RFC 8215: NAT64 for local use"),
            ("100::/64", "RFC 6666: discard"),
            ("2001:2::/48", "RFC 5180: benchmarks"),
            ("2001:10::/28", "RFC 4843: ORCHID, returned"),
            ("2001:20::/28", "RFC 7343: ORCHIDv2"),
            ("2001:db8::/32", "RFC 3849: documentation"),
            ("3fff::/20", "RFC 9637: documentation"),
            ("5f00::/16", "RFC 9602: segment routing"),
            ("fec0::/10", "RFC 3879: site local, withdrawn"),
        ],
    },
    Builtin {
        name: "cloud-metadata",
        about: "cloud services that give credentials to any process of the machine",
        members: &[
            (
                "169.254.169.254",
                "AWS, Google Cloud, Azure, Oracle Cloud, DigitalOcean, OpenStack: instance metadata",
            ),
            ("169.254.170.2", "AWS: credentials of ECS tasks"),
            ("169.254.170.23", "AWS: credentials of EKS pods"),
            ("fd00:ec2::254", "AWS: instance metadata"),
            ("fd00:ec2::23", "AWS: credentials of EKS pods"),
            ("fd20:ce::254", "Google Cloud: instance metadata"),
            ("100.100.100.200", "Alibaba Cloud: instance metadata"),
            ("192.0.0.192", "Oracle Cloud Classic: instance metadata"),
            // The wire server gives out extension settings, including certificates. It is also the DNS server
            // and health probe of the machine: allow those ports first if needed.
            ("168.63.129.16", "Azure: wire server"),
        ],
    },
    Builtin {
        name: RESOLVERS,
        about: "the name servers in /etc/resolv.conf when the policy is loaded",
        members: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_a_network() {
        for builtin in all() {
            let networks = networks(builtin.name, &[]).unwrap();
            assert_eq!(networks.len(), builtin.members.len(), "@{}", builtin.name);
        }
    }

    #[test]
    fn the_module_documentation_lists_every_set() {
        let manual = include_str!("builtin.rs");
        for builtin in all() {
            assert!(manual.contains(&format!("//! | `@{}` |", builtin.name)));
        }
    }
}
