//! Looking, and looking again.

use std::{collections::HashMap, net::SocketAddr, path::Path};

use engine_common::Protocol;

use super::{
    super::{AttachOutcome, Control, ControlError},
    Existing, ExistingReport, ExistingSocket, Fate,
    judge::{Answer, Judge, strictest},
    look::{Ground, Look},
};
use crate::{
    cgroup::Located,
    datapath::Slot,
    sockets::{Diag, Direction, Network, Networks, Socket, direction},
};

/// Sockets that are told of one by one.
const MAX_TOLD: usize = 100_000;

/// The work of one command.
pub(super) struct Sweep<'a> {
    control: &'a Control,
    grounds: Vec<Ground>,
    existing: Existing,
    report: ExistingReport,
    /// Where sockets are in the report, by network and cookie, and whether the last look saw them.
    told: HashMap<(u64, u64), (usize, bool)>,
    untold: usize,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(control: &'a Control, attached: &[AttachOutcome], existing: Existing) -> Sweep<'a> {
        let mut sweep = Sweep {
            control,
            grounds: Vec::new(),
            existing,
            report: ExistingReport::default(),
            told: HashMap::new(),
            untold: 0,
        };
        for one in attached {
            if let Err(error) = sweep.take_up(one) {
                let what = format!("the policy {} on {}", one.policy, one.cgroup);
                sweep.problem(&what, &error);
            }
        }
        sweep
    }

    /// Reads a policy as it is live in the kernel.
    fn take_up(&mut self, attached: &AttachOutcome) -> Result<(), ControlError> {
        let record = self.control.record(&attached.policy)?;
        let live = self.control.datapath.live(Slot(record.slot))?;
        let gone = || ControlError::NotThere {
            name: attached.policy.clone(),
            cgroup: attached.cgroup.clone(),
        };
        let judge = Judge {
            policy: attached.policy.clone(),
            image: live.ok_or_else(gone)?.image()?,
            rules: record.live.rules.into_iter().map(|rule| rule.name).collect(),
        };
        let located = Located::by_path(&self.control.hierarchy, Path::new(&attached.cgroup));
        let located = located.map_err(|_| gone())?;
        let ground = self
            .grounds
            .iter_mut()
            .find(|ground| ground.located.id() == located.id());
        match ground {
            Some(ground) => ground.judges.push(judge),
            None => self.grounds.push(Ground {
                located,
                judges: vec![judge],
            }),
        }
        Ok(())
    }

    fn problem(&mut self, what: &str, error: &dyn std::error::Error) {
        let mut text = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        if !self.report.problems.contains(&text) {
            self.report.problems.push(text);
        }
    }

    pub(super) fn run(mut self) -> ExistingReport {
        let grounds = std::mem::take(&mut self.grounds);
        self.pass(&grounds, true);
        if self.existing == Existing::Destroy {
            // What was made by a call that had been asked before the policy stood may not have been there yet.
            for (_, seen) in self.told.values_mut() {
                *seen = false;
            }
            self.pass(&grounds, false);
            for &(place, seen) in self.told.values() {
                let socket = &mut self.report.sockets[place];
                if !seen && socket.fate == Fate::NotDestroyed {
                    socket.fate = Fate::Gone;
                    socket.cause = None;
                }
            }
        }
        if self.untold > 0 {
            let text = format!("{} more sockets are not told of one by one", self.untold);
            self.report.problems.push(text);
        }
        self.report
    }

    fn pass(&mut self, grounds: &[Ground], is_first: bool) {
        let look = match Look::at(&self.control.hierarchy, grounds) {
            Ok(look) => look,
            Err(error) => return self.problem("the cgroups", &error),
        };
        let mut networks = 0;
        for network in Networks::of(&look.processes) {
            match network {
                Ok(network) => {
                    self.search(&look, &network, is_first);
                    networks += 1;
                }
                Err(error) => self.problem("a process", &error),
            }
        }
        self.report.networks = self.report.networks.max(networks);
    }

    fn search(&mut self, look: &Look<'_>, network: &Network, is_first: bool) {
        let (found, mut diag) = match look.sockets(network) {
            Ok(found) => found,
            Err((protocol, error)) => {
                let what = format!("{} in the network {}", name(protocol), network.inode());
                return self.problem(&what, &error);
            }
        };
        for protocol in found.unseen {
            let name = name(protocol).to_owned();
            if !self.report.unseen.contains(&name) {
                self.report.unseen.push(name);
            }
        }
        if found.unplaced > 0 || found.is_cut_short {
            let text = if found.is_cut_short {
                format!(
                    "the network {} has more sockets than are looked at",
                    network.inode()
                )
            } else {
                format!(
                    "the network {} has sockets of which the kernel does not tell the cgroup",
                    network.inode()
                )
            };
            if !self.report.problems.contains(&text) {
                self.report.problems.push(text);
            }
        }
        for socket in found.sockets {
            let judges: Vec<&Judge> = look.judges(&socket).collect();
            if judges.is_empty() {
                continue;
            }
            let key = (network.inode(), socket.cookie());
            if direction(&socket, &found.listeners) == Direction::Inbound {
                if is_first {
                    self.report.inbound += 1;
                    let told = describe(look, network, &socket);
                    self.tell(
                        key,
                        ExistingSocket {
                            inbound: true,
                            ..told
                        },
                    );
                }
                continue;
            }
            let executables = look.executables_of(&socket);
            let Some(answer) = strictest(judges, &socket, &executables) else {
                continue;
            };
            if answer.verdict.action == engine_common::Action::Allow {
                self.report.allowed += usize::from(is_first);
                continue;
            }
            if is_first || answer.denied {
                self.treat(look, network, &mut diag, &socket, &answer);
            }
        }
    }

    fn treat(
        &mut self,
        look: &Look<'_>,
        network: &Network,
        diag: &mut Diag,
        socket: &Socket,
        answer: &Answer<'_>,
    ) {
        let key = (network.inode(), socket.cookie());
        let was_destroyed = self
            .told
            .get(&key)
            .is_some_and(|&(place, _)| self.report.sockets[place].fate == Fate::Destroyed);
        let (fate, cause) = self.carry_out(diag, socket, answer, was_destroyed);
        if let Some((place, seen)) = self.told.get_mut(&key) {
            *seen = true;
            let told = &mut self.report.sockets[*place];
            (told.fate, told.cause) = (fate, cause);
            return;
        }
        let told = ExistingSocket {
            verdict: Some(answer.verdict.action.as_str()),
            policy: Some(answer.judge.policy.clone()),
            rule: answer.rule(),
            fault: answer.fault(),
            fate,
            cause,
            ..describe(look, network, socket)
        };
        self.tell(key, told);
    }

    fn carry_out(
        &self,
        diag: &mut Diag,
        socket: &Socket,
        answer: &Answer<'_>,
        was_destroyed: bool,
    ) -> (Fate, Option<String>) {
        if self.existing == Existing::Audit || !answer.verdict.action.denies() {
            return (Fate::Left, None);
        }
        if !answer.denied {
            return (Fate::WouldDestroy, None);
        }
        match diag.destroy(socket) {
            // Ending these only takes them out of the tables (`raw_abort`, net/ipv4/raw.c, `udp_abort`):
            // nothing asks where they send to next.
            Ok(()) if !socket.protocol.has_address_hook() => (
                Fate::Disconnected,
                Some("its process can send on until it closes it".to_owned()),
            ),
            Ok(()) if was_destroyed => (Fate::NotDestroyed, Some("it is there still".to_owned())),
            Ok(()) => (Fate::Destroyed, None),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                (
                    Fate::NotDestroyed,
                    Some(format!("{error}{}", cause.unwrap_or_default())),
                )
            }
        }
    }

    fn tell(&mut self, key: (u64, u64), socket: ExistingSocket) {
        if self.report.sockets.len() == MAX_TOLD {
            self.untold += 1;
            return;
        }
        self.told.insert(key, (self.report.sockets.len(), true));
        self.report.sockets.push(socket);
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::UDPLITE => "udplite",
        _ => "raw",
    }
}

fn describe(look: &Look<'_>, network: &Network, socket: &Socket) -> ExistingSocket {
    // What raw sockets have in place of ports is none.
    let spelled = |address: SocketAddr| match socket.protocol.has_ports() {
        true => address.to_string(),
        false => address.ip().to_string(),
    };
    ExistingSocket {
        protocol: name(socket.protocol).to_owned(),
        local: spelled(socket.local),
        peer: socket.peer.map(spelled),
        state: socket.state.as_str(),
        cgroup: look.cgroup_of(socket),
        network: network.inode(),
        uid: socket.uid,
        processes: look.processes_of(socket),
        inbound: false,
        verdict: None,
        policy: None,
        rule: None,
        fault: None,
        fate: Fate::Left,
        cause: None,
    }
}
