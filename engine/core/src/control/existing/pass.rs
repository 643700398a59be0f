//! One scan, or two where sockets are destroyed: the second checks that they are gone.

use std::{collections::HashMap, net::SocketAddr, path::Path};

use super::{
    super::{AttachOutcome, Control, ControlError},
    Existing, ExistingReport, ExistingSocket, Fate,
    policy_check::{LivePolicy, PolicyVerdict, strictest},
    socket_scan::{ScanTarget, SocketScan},
};
use crate::{
    cgroup::CgroupHandle,
    datapath::Slot,
    sockets::{Diag, Direction, Network, Networks, Socket, direction},
};

/// Sockets that are reported one by one.
const MAX_REPORTED: usize = 100_000;

/// The scans of one command.
pub(super) struct ExistingPass<'a> {
    control: &'a Control,
    targets: Vec<ScanTarget>,
    existing: Existing,
    report: ExistingReport,
    /// Indices of sockets in the report, by network namespace and cookie, and whether the last scan saw them.
    reported: HashMap<(u64, u64), (usize, bool)>,
    unreported: usize,
}

impl<'a> ExistingPass<'a> {
    pub(super) fn new(
        control: &'a Control,
        attached: &[AttachOutcome],
        existing: Existing,
    ) -> ExistingPass<'a> {
        let mut pass = ExistingPass {
            control,
            targets: Vec::new(),
            existing,
            report: ExistingReport::default(),
            reported: HashMap::new(),
            unreported: 0,
        };
        for one in attached {
            if let Err(error) = pass.add_policy(one) {
                let what = format!("the policy {} on {}", one.policy, one.cgroup);
                pass.problem(&what, &error);
            }
        }
        pass
    }

    /// Reads the live policy from the kernel.
    fn add_policy(&mut self, attached: &AttachOutcome) -> Result<(), ControlError> {
        let record = self.control.record(&attached.policy)?;
        let live = self.control.datapath.live(Slot(record.slot))?;
        let gone = || ControlError::NotAttachedToCgroup {
            name: attached.policy.clone(),
            cgroup: attached.cgroup.clone(),
        };
        let policy = LivePolicy {
            name: attached.policy.clone(),
            image: live.ok_or_else(gone)?.image()?,
            rules: record.live.rules.into_iter().map(|rule| rule.name).collect(),
        };
        let located = CgroupHandle::by_path(&self.control.hierarchy, Path::new(&attached.cgroup));
        let located = located.map_err(|_| gone())?;
        let target = self
            .targets
            .iter_mut()
            .find(|target| target.located.id() == located.id());
        match target {
            Some(target) => target.policies.push(policy),
            None => self.targets.push(ScanTarget {
                located,
                policies: vec![policy],
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
        let targets = std::mem::take(&mut self.targets);
        self.pass(&targets, true);
        if self.existing == Existing::Destroy {
            // A call that was checked before the policy was attached may have connected its socket since.
            for (_, seen) in self.reported.values_mut() {
                *seen = false;
            }
            self.pass(&targets, false);
            for &(index, seen) in self.reported.values() {
                let socket = &mut self.report.sockets[index];
                if !seen && socket.fate == Fate::NotDestroyed {
                    socket.fate = Fate::Gone;
                    socket.cause = None;
                }
            }
        }
        if self.unreported > 0 {
            let text = format!("{} more sockets are not listed", self.unreported);
            self.report.problems.push(text);
        }
        self.report
    }

    fn pass(&mut self, targets: &[ScanTarget], is_first: bool) {
        let scan = match SocketScan::at(&self.control.hierarchy, targets) {
            Ok(scan) => scan,
            Err(error) => return self.problem("the cgroups", &error),
        };
        let mut networks = 0;
        for network in Networks::of(&scan.processes) {
            match network {
                Ok(network) => {
                    self.search(&scan, &network, is_first);
                    networks += 1;
                }
                Err(error) => self.problem("a process", &error),
            }
        }
        self.report.networks = self.report.networks.max(networks);
    }

    fn search(&mut self, scan: &SocketScan<'_>, network: &Network, is_first: bool) {
        let (found, mut diag) = match scan.sockets(network) {
            Ok(found) => found,
            Err((protocol, error)) => {
                let what = format!("{protocol} in network namespace {}", network.inode());
                return self.problem(&what, &error);
            }
        };
        for protocol in found.unseen {
            let name = protocol.to_string();
            if !self.report.unseen.contains(&name) {
                self.report.unseen.push(name);
            }
        }
        if found.unplaced > 0 || found.is_cut_short {
            let text = if found.is_cut_short {
                format!(
                    "network namespace {} has more sockets than are scanned",
                    network.inode()
                )
            } else {
                format!(
                    "network namespace {} has sockets for which the kernel reports no cgroup",
                    network.inode()
                )
            };
            if !self.report.problems.contains(&text) {
                self.report.problems.push(text);
            }
        }
        for socket in found.sockets {
            let policies: Vec<&LivePolicy> = scan.policies(&socket).collect();
            if policies.is_empty() {
                continue;
            }
            let key = (network.inode(), socket.cookie());
            if direction(&socket, &found.listeners) == Direction::Inbound {
                if is_first {
                    self.report.inbound += 1;
                    let reported = describe(scan, network, &socket);
                    self.report(
                        key,
                        ExistingSocket {
                            inbound: true,
                            ..reported
                        },
                    );
                }
                continue;
            }
            let executables = scan.executables_of(&socket);
            let Some(found) = strictest(policies, &socket, &executables) else {
                continue;
            };
            if found.verdict.action == engine_common::Action::Allow {
                self.report.allowed += usize::from(is_first);
                continue;
            }
            if is_first || found.denied {
                self.process(scan, network, &mut diag, &socket, &found);
            }
        }
    }

    fn process(
        &mut self,
        scan: &SocketScan<'_>,
        network: &Network,
        diag: &mut Diag,
        socket: &Socket,
        found: &PolicyVerdict<'_>,
    ) {
        let key = (network.inode(), socket.cookie());
        let was_destroyed = self
            .reported
            .get(&key)
            .is_some_and(|&(index, _)| self.report.sockets[index].fate == Fate::Destroyed);
        let (fate, cause) = self.carry_out(diag, socket, found, was_destroyed);
        if let Some((index, seen)) = self.reported.get_mut(&key) {
            *seen = true;
            let reported = &mut self.report.sockets[*index];
            (reported.fate, reported.cause) = (fate, cause);
            return;
        }
        let reported = ExistingSocket {
            verdict: Some(found.verdict.action.as_str()),
            policy: Some(found.policy.name.clone()),
            rule: found.rule(),
            fault: found.fault(),
            fate,
            cause,
            ..describe(scan, network, socket)
        };
        self.report(key, reported);
    }

    fn carry_out(
        &self,
        diag: &mut Diag,
        socket: &Socket,
        found: &PolicyVerdict<'_>,
        was_destroyed: bool,
    ) -> (Fate, Option<String>) {
        if self.existing == Existing::Audit || !found.verdict.action.denies() {
            return (Fate::Left, None);
        }
        if !found.denied {
            return (Fate::WouldDestroy, None);
        }
        match diag.destroy(socket) {
            // Destroying these only disconnects them (`raw_abort`, net/ipv4/raw.c, `udp_abort`): what they send next is
            // not checked.
            Ok(()) if !socket.protocol.has_address_hook() => (
                Fate::Disconnected,
                Some("its process can send on until it closes it".to_owned()),
            ),
            Ok(()) if was_destroyed => (Fate::NotDestroyed, Some("it still exists".to_owned())),
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

    fn report(&mut self, key: (u64, u64), socket: ExistingSocket) {
        if self.report.sockets.len() == MAX_REPORTED {
            self.unreported += 1;
            return;
        }
        self.reported.insert(key, (self.report.sockets.len(), true));
        self.report.sockets.push(socket);
    }
}

fn describe(scan: &SocketScan<'_>, network: &Network, socket: &Socket) -> ExistingSocket {
    // The port of a raw socket is its IP protocol.
    let text = |address: SocketAddr| match socket.protocol.has_ports() {
        true => address.to_string(),
        false => address.ip().to_string(),
    };
    ExistingSocket {
        protocol: socket.protocol.to_string(),
        local: text(socket.local),
        peer: socket.peer.map(text),
        state: socket.state.as_str(),
        cgroup: scan.cgroup_of(socket),
        network: network.inode(),
        uid: socket.uid,
        processes: scan.processes_of(socket),
        inbound: false,
        verdict: None,
        policy: None,
        rule: None,
        fault: None,
        fate: Fate::Left,
        cause: None,
    }
}
