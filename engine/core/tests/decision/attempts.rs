//! Random attempts near the edges of the rules of a policy.

use engine_common::{Address, Attempt, ExecutableId, UnixSocketId, destination::canonical};
use tidegate_core::{
    compile::Identities,
    policy::{Policy, Rule, Services, UnixName, UnixSockets},
};

use crate::{
    policies::{PROTOCOLS, translated, v4_near, v6_near},
    random::Random,
};

/// Generates attempts for one policy.
pub(crate) struct Generator<'a> {
    policy: &'a Policy,
    executables: &'a Identities,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(policy: &'a Policy, executables: &'a Identities) -> Generator<'a> {
        Generator { policy, executables }
    }

    /// An attempt. Address, service and subject mostly come from one rule, so that the rule matches or just
    /// misses; otherwise from several rules.
    pub(crate) fn attempt(&self, random: &mut Random) -> Attempt {
        let one = self.rule(random);
        let mixed = random.percent(40);
        let [to, services, uids, executables] = [(); 4].map(|()| if mixed { self.rule(random) } else { one });
        let (protocol, port) = service(random, services);
        Attempt {
            address: canonical(self.address(random, to)),
            port,
            protocol,
            uid: uid(random, uids),
            executable: self.executable(random, executables),
        }
    }

    fn rule(&self, random: &mut Random) -> Option<&'a Rule> {
        (!self.policy.rules.is_empty()).then(|| random.pick(&self.policy.rules))
    }

    fn address(&self, random: &mut Random, rule: Option<&Rule>) -> Address {
        let (v4, v6) = rule.map_or((&[][..], &[][..]), |rule| (rule.to.v4(), rule.to.v6()));
        match random.below(10) {
            0 => Address::V4(v4_near(random)),
            1 => Address::v6(v6_near(random, &self.policy.nat64)),
            2..6 if !v4.is_empty() => {
                let &(start, end) = random.pick(v4);
                let edge = [start.wrapping_sub(1), start, end, end.wrapping_add(1)];
                let edge = *random.pick(&edge);
                if random.percent(35) {
                    self.embedding(random, edge)
                } else {
                    Address::V4(edge)
                }
            }
            _ if !v6.is_empty() => {
                let &(start, end) = random.pick(v6);
                let edge = [start.wrapping_sub(1), start, end, end.wrapping_add(1)];
                Address::v6(*random.pick(&edge))
            }
            _ => Address::v6(random.wide()),
        }
    }

    /// An IPv6 address with this IPv4 address embedded.
    fn embedding(&self, random: &mut Random, v4: u32) -> Address {
        let bits = match random.below(6) {
            0 => 0x0064_ff9b << 96 | u128::from(v4),
            1 => 0x0064_ff9b_0001 << 80 | u128::from(v4),
            2 => 0x2002 << 112 | u128::from(v4) << 80,
            3 => 0x2001 << 112 | u128::from(!v4),
            4 => 0xffff << 32 | u128::from(v4),
            _ if self.policy.nat64.is_empty() => u128::from(v4),
            _ => translated(*random.pick(&self.policy.nat64), v4),
        };
        Address::v6(bits)
    }

    /// The id of a unix socket of some rule, or an adjacent id.
    pub(crate) fn unix_socket(&self, random: &mut Random) -> UnixSocketId {
        let named = self.policy.rules.iter().filter_map(|rule| match &rule.unix {
            Some(UnixSockets::Only(names)) => Some(names),
            _ => None,
        });
        let names: Vec<UnixName> = named.flatten().cloned().collect();
        let mut socket = UnixSocketId {
            device: 27,
            name_hash: random.next(),
        };
        if !names.is_empty()
            && let Some(ids) = self.executables.socket(random.pick(&names))
        {
            socket = *random.pick(&ids);
        }
        match random.below(8) {
            0 => socket.name_hash = socket.name_hash.wrapping_add(1),
            1 => socket.name_hash = socket.name_hash.wrapping_sub(1),
            2 => socket.device ^= 1,
            _ => {}
        }
        socket
    }

    fn executable(&self, random: &mut Random, rule: Option<&Rule>) -> ExecutableId {
        let binaries = rule.and_then(|rule| rule.subject.binaries.as_ref());
        let named = binaries.and_then(|binaries| self.executables.executable(&random.pick(binaries).path));
        let mut id = named.unwrap_or_default();
        match random.below(8) {
            0 => id.inode = id.inode.wrapping_add(1),
            1 => id.inode = id.inode.wrapping_sub(1),
            2 => id.device ^= 1,
            _ => {}
        }
        id
    }
}

fn service(random: &mut Random, rule: Option<&Rule>) -> (engine_common::Protocol, u16) {
    match rule.map(|rule| &rule.services) {
        Some(Services::Only(services)) if !services.is_empty() && random.percent(85) => {
            let service = random.pick(services);
            let (first, last) = (service.ports.first(), service.ports.last());
            let edge = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
            (service.protocol, *random.pick(&edge))
        }
        _ => {
            let port = *random.pick(&[0u16, 53, 80, 443, 65535]);
            (*random.pick(&PROTOCOLS), port)
        }
    }
}

fn uid(random: &mut Random, rule: Option<&Rule>) -> u32 {
    let uids = rule.and_then(|rule| rule.subject.uids.as_ref());
    let uid = uids.map_or(1000, |uids| *random.pick(uids));
    match random.below(6) {
        0 => uid.wrapping_add(1),
        1 => uid.wrapping_sub(1),
        _ => uid,
    }
}
