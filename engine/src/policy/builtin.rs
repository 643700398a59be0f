//! The sets that every policy has.
//!
//! | set | members | source |
//! |---|---|---|
//! | `@loopback` | 127.0.0.0/8, ::1 | RFC 1122 3.2.1.3, RFC 4291 2.5.3 |
//! | `@private` | 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7 | RFC 1918, RFC 4193 |
//! | `@link-local` | 169.254.0.0/16, fe80::/10 | RFC 3927, RFC 4291 2.5.6 |
//! | `@multicast` | 224.0.0.0/4, ff00::/8 | RFC 5771, RFC 4291 2.7 |
//! | `@broadcast` | 255.255.255.255 | RFC 919 |
//! | `@reserved` | see [`all`] | IANA special-purpose registries, RFC 6890 |
//! | `@cloud-metadata` | see [`all`] | the clouds' own manuals |
//! | `@resolvers` | the name servers of /etc/resolv.conf when the policy is loaded | resolv.conf(5) |
//!
//! The shared address space of carriers (100.64.0.0/10, RFC 6598) is in `@reserved`, not in `@private`: nobody owns
//! it, and several clouds and overlay networks use it for services of theirs.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set that every policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// Its name, without the `@`.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its members with the source of each; empty for `resolvers`, which the machine gives.
    pub members: &'static [(&'static str, &'static str)],
}

/// Name of the set that is read from resolv.conf.
pub(super) const RESOLVERS: &str = "resolvers";

/// All built-in sets.
pub fn all() -> &'static [Builtin] {
    BUILTINS
}

/// The networks of a built-in set; `None` when there is no such set.
pub(super) fn networks(name: &str, resolvers: &[IpAddr]) -> Option<Vec<IpNet>> {
    let builtin = BUILTINS.iter().find(|b| b.name == name)?;
    if name == RESOLVERS {
        return Some(resolvers.iter().map(|&a| IpNet::from(a)).collect());
    }
    // A test holds that every member is a network.
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
        about: "this machine",
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
        about: "the link, not routed; has most of @cloud-metadata in it",
        members: &[("169.254.0.0/16", "RFC 3927"), ("fe80::/10", "RFC 4291, 2.5.6")],
    },
    Builtin {
        name: "multicast",
        about: "groups of hosts",
        members: &[("224.0.0.0/4", "RFC 5771"), ("ff00::/8", "RFC 4291, 2.7")],
    },
    Builtin {
        name: "broadcast",
        about: "every host of the link",
        members: &[("255.255.255.255", "RFC 919")],
    },
    Builtin {
        name: "reserved",
        about: "special purposes: no public service is there",
        members: &[
            ("0.0.0.0/8", "RFC 791, 3.2: this network"),
            ("100.64.0.0/10", "RFC 6598: shared address space of carriers"),
            ("192.0.0.0/24", "RFC 6890: IETF protocol assignments"),
            ("192.0.2.0/24", "RFC 5737: documentation"),
            ("198.18.0.0/15", "RFC 2544: benchmarks"),
            ("198.51.100.0/24", "RFC 5737: documentation"),
            ("203.0.113.0/24", "RFC 5737: documentation"),
            // Without 255.255.255.255: that is @broadcast, and part of this network.
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
        about: "services of clouds that hand credentials to whoever asks from the machine",
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
            // The wire server hands out the machine's extension settings, certificates among them.
            // It is the machine's DNS and health probe as well: allow those ports first if needed.
            ("168.63.129.16", "Azure: wire server"),
        ],
    },
    Builtin {
        name: RESOLVERS,
        about: "the name servers of /etc/resolv.conf, when the policy is loaded",
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
    fn the_manual_lists_every_set() {
        let manual = include_str!("builtin.rs");
        for builtin in all() {
            assert!(manual.contains(&format!("//! | `@{}` |", builtin.name)));
        }
    }
}
