//! Builds a policy from command-line flags: `--allow 10.0.0.0/8:443 --deny any`.

use std::{io, net::IpAddr};

use engine_common::{Action, Mode, limits::MAX_RULES};
use ipnet::IpNet;

use super::{
    AddressSet, builtin,
    load_context::LoadContext,
    model::{Dedup, Errno, Hooks, Policy, Rule, Subject},
    nearest::nearest,
    rule_flag::{Host, part, split},
};

use crate::hint::Hint;

/// Name of the policy that is built from flags.
pub const NAME: &str = "command-line";

/// A policy built from flags.
#[derive(Debug)]
pub struct FlagPolicy {
    /// The policy. The name of each rule is the value of its flag.
    pub policy: Policy,
    /// The resolved names with their addresses, in the order of the flags.
    pub resolved: Vec<(String, Vec<IpAddr>)>,
}

/// Why the flags are invalid.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// There are no flags.
    #[error("no rule and no default: use --policy, --allow, --deny or --default")]
    Nothing,
    /// A part of a flag is invalid.
    #[error("in `{flag}`: {message}: {help}")]
    Part {
        /// Value of the flag.
        flag: String,
        /// What is wrong.
        message: String,
        /// What to write instead.
        help: String,
    },
    /// A name could not be resolved.
    #[error("in `{flag}`: cannot resolve `{name}`: {cause}; write its addresses, or check the resolver")]
    Resolve {
        /// Value of the flag.
        flag: String,
        /// The name.
        name: String,
        /// Error of the resolver.
        #[source]
        cause: io::Error,
    },
    /// A name has no addresses.
    #[error("in `{flag}`: `{name}` has no addresses: correct the name")]
    NoAddresses {
        /// Value of the flag.
        flag: String,
        /// The name.
        name: String,
    },
    /// The same value with different actions.
    #[error("`{flag}` is given twice with different actions: remove one")]
    Contradiction {
        /// Value of the flag.
        flag: String,
    },
    /// More flags than a policy can have rules.
    #[error("more than {MAX_RULES} rules: use a policy file with sets")]
    TooMany,
}

impl Hint for FlagError {}

/// Builds a policy from rules in the order of the command line. Each rule is an action and a value:
/// `10.0.0.0/8`, `10.0.0.1:443/tcp`, `[2001:db8::1]:443`, `2001:db8::/32`, `@private:443`, `any:53/udp` (or
/// `*:53/udp`, or `:53/udp`), `any/icmp`, `www.example.com:443`. Each name is passed to `resolve` once. If
/// `default` is `None`, the default is allow if all rules deny, and block otherwise.
///
/// # Errors
/// If a value is invalid, a name cannot be resolved, or there are neither rules nor a default.
pub fn from_flags(
    rules: &[(Action, String)],
    default: Option<Action>,
    mode: Mode,
    context: &LoadContext,
    resolve: &dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
) -> Result<FlagPolicy, FlagError> {
    if rules.is_empty() && default.is_none() {
        return Err(FlagError::Nothing);
    }
    if rules.len() > MAX_RULES {
        return Err(FlagError::TooMany);
    }
    let mut built: Vec<Rule> = Vec::new();
    let mut resolved: Vec<(String, Vec<IpAddr>)> = Vec::new();
    for (action, flag) in rules {
        if let Some(before) = built.iter().find(|r| r.name == *flag) {
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
        built.push(Rule {
            unix: None,
            name: flag.clone(),
            action: *action,
            to,
            services,
            subject: Subject::default(),
            reason: None,
        });
    }
    let only_denies = !built.is_empty() && built.iter().all(|r| r.action.denies());
    let implied = if only_denies { Action::Allow } else { Action::Block };
    Ok(FlagPolicy {
        policy: Policy {
            name: NAME.to_owned(),
            mode,
            default: default.unwrap_or(implied),
            errno: Errno::default(),
            rules: built,
            nat64: Vec::new(),
            strict: false,
            dedup: Dedup::default(),
            hooks: Hooks::default(),
        },
        resolved,
    })
}

fn set(flag: &str, name: &str, context: &LoadContext) -> Result<Vec<IpNet>, FlagError> {
    match builtin::networks(name, &context.resolvers) {
        Some(networks) if networks.is_empty() => Err(part(
            flag,
            format!("the set @{name} is empty: cannot read /etc/resolv.conf"),
            "write the addresses of the name servers",
        )),
        Some(networks) => Ok(networks),
        None => {
            let names = || builtin::all().iter().map(|b| b.name);
            let help = match nearest(name, names()) {
                Some(near) => format!("write @{near}"),
                None => {
                    let all: Vec<String> = names().map(|n| format!("@{n}")).collect();
                    format!("built-in sets: {}; other sets need a policy file", all.join(", "))
                }
            };
            Err(part(flag, format!("unknown set @{name}"), help))
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

    fn policy(rules: &[(Action, &str)], default: Option<Action>) -> Result<FlagPolicy, FlagError> {
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
    fn destinations_and_services_are_parsed() {
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
    fn errors_name_the_flag_and_what_to_write() {
        for (flag, part) in [
            ("443", "any:443"),
            ("", "10.0.0.0/8"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("@pirvate", "@private"),
            ("@resolvers", "resolv.conf"),
            ("https://example.org", "www.example.com:443"),
            ("10.0.0.1:https", "443"),
            ("10.0.0.1:90-80", "80-90"),
            ("any/icmpv4", "icmp"),
            ("any:80/icmp", "no ports"),
            ("[::1:80", "[2001:db8::1]:443"),
            ("[::1]x", "[2001:db8::1]:443/tcp"),
            ("*.example.org", "each name"),
            ("0.0.0.0:80", "127.0.0.1"),
            ("unknown.example", "cannot resolve"),
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
    fn the_default_depends_on_the_flags() {
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
    fn names_are_resolved_once_and_duplicates_are_merged() {
        let flags = [
            (Action::Allow, "example.org:443"),
            (Action::Allow, "example.org:80"),
            (Action::Allow, "example.org:443"),
        ];
        let built = policy(&flags, None).unwrap();
        assert_eq!(built.policy.rules.len(), 2);
        assert_eq!(
            built.resolved,
            [("example.org".to_owned(), vec![IpAddr::from([198, 51, 100, 7])])]
        );
        let both = [(Action::Allow, "any:1"), (Action::Block, "any:1")];
        assert!(matches!(
            policy(&both, None),
            Err(FlagError::Contradiction { .. })
        ));
    }
}
