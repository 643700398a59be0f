//! A policy from flags of the command line: `--allow 10.0.0.0/8:443 --deny any`.

use std::{io, net::IpAddr};

use engine_common::{Action, Mode, limits::MAX_RULES};
use ipnet::IpNet;

use super::{
    AddressSet, builtin,
    context::LoadContext,
    flag::{Host, part, split},
    model::{Errno, Fold, Hooks, Policy, Rule, Subject},
    nearest::nearest,
};

/// Name of the policy that flags make.
pub const NAME: &str = "command-line";

/// A policy from flags.
#[derive(Debug)]
pub struct FromFlags {
    /// The policy; its rules have the texts of the flags as names.
    pub policy: Policy,
    /// The names that were resolved, with their addresses, in the order of the flags.
    pub resolved: Vec<(String, Vec<IpAddr>)>,
}

/// Why flags make no policy. The messages name the flag's text.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// There is no flag at all.
    #[error("there is no rule and no default: give --policy, --allow, --deny or --default")]
    Nothing,
    /// A part of a flag cannot be read.
    #[error("in `{flag}`: {message}: {help}")]
    Part {
        /// The flag's text.
        flag: String,
        /// What is wrong.
        message: String,
        /// What to write instead.
        help: String,
    },
    /// A name could not be resolved.
    #[error(
        "in `{flag}`: the name `{name}` cannot be resolved: {cause}; write its addresses, or check the resolver"
    )]
    Resolve {
        /// The flag's text.
        flag: String,
        /// The name.
        name: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A name has no addresses.
    #[error("in `{flag}`: the name `{name}` has no addresses: check its spelling")]
    NoAddresses {
        /// The flag's text.
        flag: String,
        /// The name.
        name: String,
    },
    /// One text with two actions.
    #[error("`{flag}` is given twice, with different actions: the first would always decide, so remove one")]
    Contradiction {
        /// The flag's text.
        flag: String,
    },
    /// More flags than a policy has room for.
    #[error("more than {MAX_RULES} rules: put them into a policy file with sets")]
    TooMany,
}

/// Makes a policy from rules in the order of the command line. Each is an action and a text:
/// `10.0.0.0/8`, `10.0.0.1:443/tcp`, `[2001:db8::1]:443`, `2001:db8::/32`, `@private:443`, `any:53/udp` (or
/// `*:53/udp`, or `:53/udp`), `any/icmp`, `github.com:443`. Names are given to `resolve` once. Without a
/// default, what no rule matches is allowed when all rules deny, and blocked otherwise.
///
/// # Errors
/// When a text cannot be read, a name not be resolved, or there is nothing to make a policy of.
pub fn from_flags(
    rules: &[(Action, String)],
    default: Option<Action>,
    mode: Mode,
    context: &LoadContext,
    resolve: &dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
) -> Result<FromFlags, FlagError> {
    if rules.is_empty() && default.is_none() {
        return Err(FlagError::Nothing);
    }
    if rules.len() > MAX_RULES {
        return Err(FlagError::TooMany);
    }
    let mut made: Vec<Rule> = Vec::new();
    let mut resolved: Vec<(String, Vec<IpAddr>)> = Vec::new();
    for (action, flag) in rules {
        if let Some(before) = made.iter().find(|r| r.name == *flag) {
            if before.action != *action {
                return Err(FlagError::Contradiction { flag: flag.clone() });
            }
            continue;
        }
        let (host, services) = split(flag)?;
        let to = match host {
            Host::Any => AddressSet::everything(),
            Host::Network(network) => AddressSet::of([network]),
            Host::Set(name) => AddressSet::of(set(flag, name, context)?),
            Host::Name(name) => {
                let known = resolved.iter().find(|(n, _)| n == name).map(|(_, a)| a.clone());
                let addresses = match known {
                    Some(addresses) => addresses,
                    None => {
                        let addresses = addresses_of(flag, name, resolve)?;
                        resolved.push((name.to_owned(), addresses.clone()));
                        addresses
                    }
                };
                AddressSet::of(addresses.into_iter().map(IpNet::from))
            }
        };
        made.push(Rule {
            unix: None,
            name: flag.clone(),
            action: *action,
            to,
            services,
            subject: Subject::default(),
            reason: None,
        });
    }
    let only_denies = !made.is_empty() && made.iter().all(|r| r.action.denies());
    let implied = if only_denies { Action::Allow } else { Action::Block };
    Ok(FromFlags {
        policy: Policy {
            name: NAME.to_owned(),
            mode,
            default: default.unwrap_or(implied),
            errno: Errno::default(),
            rules: made,
            nat64: Vec::new(),
            strict: false,
            fold: Fold::default(),
            hooks: Hooks::default(),
        },
        resolved,
    })
}

fn set(flag: &str, name: &str, context: &LoadContext) -> Result<Vec<IpNet>, FlagError> {
    match builtin::networks(name, &context.resolvers) {
        Some(networks) if networks.is_empty() => Err(part(
            flag,
            format!("the set @{name} has no addresses"),
            "/etc/resolv.conf could not be read: write the addresses of the name servers",
        )),
        Some(networks) => Ok(networks),
        None => {
            let names = || builtin::all().iter().map(|b| b.name);
            let help = match nearest(name, names()) {
                Some(near) => format!("write @{near}"),
                None => {
                    let all: Vec<String> = names().map(|n| format!("@{n}")).collect();
                    format!("there are {}; own sets need a policy file", all.join(", "))
                }
            };
            Err(part(flag, format!("there is no set @{name}"), help))
        }
    }
}

fn addresses_of(
    flag: &str,
    name: &str,
    resolve: &dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
) -> Result<Vec<IpAddr>, FlagError> {
    let mut addresses = resolve(name).map_err(|cause| FlagError::Resolve {
        flag: flag.to_owned(),
        name: name.to_owned(),
        cause,
    })?;
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(FlagError::NoAddresses {
            flag: flag.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use engine_common::Protocol;

    use super::*;
    use crate::policy::{PortRange, Service, Services, port};

    fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "example.org" => Ok(vec![[198, 51, 100, 7].into(), [198, 51, 100, 7].into()]),
            "nothing.example" => Ok(Vec::new()),
            _ => Err(io::Error::other("no such name")),
        }
    }

    fn policy(rules: &[(Action, &str)], default: Option<Action>) -> Result<FromFlags, FlagError> {
        let rules: Vec<_> = rules
            .iter()
            .map(|&(action, text)| (action, text.to_owned()))
            .collect();
        from_flags(&rules, default, Mode::Enforce, &LoadContext::default(), &resolve)
    }

    fn rule(flag: &str) -> Rule {
        policy(&[(Action::Allow, flag)], None)
            .unwrap()
            .policy
            .rules
            .remove(0)
    }

    fn only(of: &[(Protocol, u16, u16)]) -> Services {
        let service = |&(protocol, first, last): &(Protocol, u16, u16)| Service {
            protocol,
            ports: PortRange::new(first, last).unwrap(),
        };
        Services::Only(of.iter().map(service).collect())
    }

    #[test]
    fn destinations_and_services_are_read() {
        let tcp = |port| only(&[(Protocol::TCP, port, port)]);
        let every = |p| only(&[(p, 0, u16::MAX)]);
        let ports = |first, last| {
            let mut all = port::WITH_PORTS;
            all.sort_unstable();
            only(&all.map(|p| (p, first, last)))
        };
        for (flag, to, services) in [
            ("10.0.0.0/8", "10.0.0.0/8", Services::Any),
            ("10.0.0.1", "10.0.0.1/32", Services::Any),
            ("10.0.0.1:443", "10.0.0.1/32", ports(443, 443)),
            ("10.0.0.1:443/tcp", "10.0.0.1/32", tcp(443)),
            ("10.0.0.0/8:443/tcp", "10.0.0.0/8", tcp(443)),
            ("10.0.0.0/8/tcp", "10.0.0.0/8", every(Protocol::TCP)),
            ("[2001:db8::1]:443/tcp", "2001:db8::1/128", tcp(443)),
            ("[2001:db8::/32]:443/tcp", "2001:db8::/32", tcp(443)),
            ("[2001:db8::]/32:443/tcp", "2001:db8::/32", tcp(443)),
            ("2001:db8::/32", "2001:db8::/32", Services::Any),
            ("::1", "::1/128", Services::Any),
            ("2001:db8::1/raw", "2001:db8::1/128", every(Protocol::RAW)),
            ("example.org:443/tcp", "198.51.100.7/32", tcp(443)),
            ("example.org", "198.51.100.7/32", Services::Any),
        ] {
            let rule = rule(flag);
            assert_eq!(rule.to, AddressSet::of([to.parse::<IpNet>().unwrap()]), "{flag}");
            assert_eq!((rule.services, rule.name.as_str()), (services, flag));
        }
        for (flag, services) in [
            ("any", Services::Any),
            ("*:6000-6010", ports(6000, 6010)),
            ("any:53/udp", only(&[(Protocol::UDP, 53, 53)])),
            (":443/tcp", tcp(443)),
            ("any/47", every(Protocol(47))),
            (
                "any/icmp",
                only(&[(Protocol::ICMP, 0, u16::MAX), (Protocol::ICMPV6, 0, u16::MAX)]),
            ),
        ] {
            let rule = rule(flag);
            assert_eq!(
                (rule.to, rule.services),
                (AddressSet::everything(), services),
                "{flag}"
            );
        }
        assert!(rule("@private:443").to.contains([10, 0, 0, 1].into()));
    }

    #[test]
    fn faults_name_the_flag_and_what_to_write() {
        for (flag, part) in [
            ("443", "any:443"),
            ("", "10.0.0.0/8"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("@pirvate", "@private"),
            ("@resolvers", "resolv.conf"),
            ("https://example.org", "github.com:443"),
            ("10.0.0.1:https", "443"),
            ("10.0.0.1:90-80", "80-90"),
            ("any/icmpv4", "icmp"),
            ("any:80/icmp", "no ports"),
            ("[::1:80", "[2001:db8::1]:443"),
            ("[::1]x", "[2001:db8::1]:443/tcp"),
            ("*.example.org", "each name"),
            ("0.0.0.0:80", "127.0.0.1"),
            ("unknown.example", "cannot be resolved"),
            ("nothing.example", "no addresses"),
            ("10.0.0.300", "0 to 255"),
        ] {
            let error = policy(&[(Action::Allow, flag)], None).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains(&format!("`{flag}`")),
                "{flag}: {error}"
            );
        }
    }

    #[test]
    fn the_default_follows_from_the_flags() {
        use Action::{Allow, Audit, Block, Kill};
        for (rules, given, default) in [
            (&[(Allow, "any:1")][..], None, Block),
            (&[(Block, "any:1"), (Kill, "any:2")], None, Allow),
            (&[(Allow, "any:1"), (Block, "any:2")], None, Block),
            (&[(Allow, "any:1")], Some(Audit), Audit),
            (&[], Some(Kill), Kill),
        ] {
            assert_eq!(policy(rules, given).unwrap().policy.default, default);
        }
        assert!(matches!(policy(&[], None), Err(FlagError::Nothing)));
    }

    #[test]
    fn names_are_resolved_once_and_repeats_are_one_rule() {
        let flags = [
            (Action::Allow, "example.org:443"),
            (Action::Allow, "example.org:80"),
            (Action::Allow, "example.org:443"),
        ];
        let made = policy(&flags, None).unwrap();
        assert_eq!(made.policy.rules.len(), 2);
        assert_eq!(
            made.resolved,
            [("example.org".to_owned(), vec![IpAddr::from([198, 51, 100, 7])])]
        );
        let both = [(Action::Allow, "any:1"), (Action::Block, "any:1")];
        assert!(matches!(
            policy(&both, None),
            Err(FlagError::Contradiction { .. })
        ));
    }
}
