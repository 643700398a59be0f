//! The environment of measurements: two networks, cgroups for each row, one loaded datapath.

use std::{collections::HashMap, os::fd::OwnedFd, path::Path, rc::Rc};

use anyhow::{Context, Result};
use tidegate_core::{cgroup::Hierarchy, datapath::Slot};

use crate::{
    address::{Address, Family},
    batches::Batches,
    bpf,
    call::{Batch, Caller},
    cgroup::Cgroup,
    datapath::{self, Attached, LoadedDatapath},
    network::{Network, PORT},
    nft::Rules,
    policies::{Policies, Shape},
    row::{Comparison, Destinations, Row, Side},
    samples::Samples,
    statistics::Paired,
    supervisor::WorkDirs,
};

/// Destinations of a `spread` row: enough that the map entries for them do not fit into the caches of a core.
const MANY: usize = 1 << 16;

/// Attempts per wanted toggle: those that other programs on the hook disturb do not count.
const RETRY_FACTOR: usize = 3;

/// The environment of all measurements.
pub(crate) struct Fixture<'a> {
    pub(crate) work_dirs: &'a WorkDirs,
    pub(crate) hierarchy: Hierarchy,
    pub(crate) samples: Samples,
    pub(crate) policies: Policies,
    network: Rc<Network>,
    /// For the rows that use nftables, and for their baseline.
    other_network: Rc<Network>,
    datapath: Option<LoadedDatapath>,
    slots: HashMap<Shape, Slot>,
}

/// What one side of a pair attached to its cgroup; dropping it removes it.
#[expect(dead_code, reason = "held until it is dropped")]
enum Held {
    Nothing,
    Program(OwnedFd),
    Policies(Attached),
    Rules(Rules),
}

impl<'a> Fixture<'a> {
    pub(crate) fn open(work_dirs: &'a WorkDirs, samples: Samples) -> Result<Fixture<'a>> {
        let other_network = Rc::new(Network::make()?);
        // Created last: this thread stays in it.
        let network = Rc::new(Network::make()?);
        Ok(Fixture {
            work_dirs,
            hierarchy: datapath::hierarchy()?,
            samples,
            policies: Policies::new(work_dirs.files.clone()),
            network,
            other_network,
            datapath: None,
            slots: HashMap::new(),
        })
    }

    /// Creates a cgroup.
    pub(crate) fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::create(&self.hierarchy, &self.work_dirs.cgroups)
    }

    /// The cgroup that contains all others; nft must find it.
    pub(crate) fn cgroups(&self) -> &Path {
        &self.work_dirs.cgroups
    }

    /// The datapath, loaded at first use.
    pub(crate) fn datapath(&mut self) -> Result<&mut LoadedDatapath> {
        if self.datapath.is_none() {
            self.datapath = Some(LoadedDatapath::load(None)?);
        }
        self.datapath.as_mut().context("no datapath")
    }

    /// Unloads the datapath with its policies.
    pub(crate) fn unload(&mut self) {
        self.slots.clear();
        if let Some(mut datapath) = self.datapath.take() {
            datapath.finish_reading();
        }
    }

    /// Measures a row.
    pub(crate) fn measure(&mut self, row: &Row) -> Result<Paired> {
        let targets = self.targets(row.destinations, row);
        let pairs = match &row.comparison {
            Comparison::Sides(baseline, with_policy) => self.sides(row, baseline, with_policy, &targets),
            Comparison::Toggled { shape, elsewhere } => self.toggled(row, shape, *elsewhere, &targets),
        };
        // Leave the cgroups before they are removed.
        self.work_dirs.enter_home_cgroup()?;
        Ok(Paired::of(&pairs?, row.call.batch()))
    }

    /// The destinations of the calls, in order; the list is repeated.
    fn targets(&mut self, destinations: Destinations, row: &Row) -> Vec<Address> {
        match destinations {
            Destinations::Documentation => {
                let text = match row.family {
                    Family::V4 => format!("198.51.100.10:{PORT}"),
                    Family::V6 => format!("[2001:db8::10]:{PORT}"),
                };
                let address = text.parse().map(Address::of);
                address
                    .map(|address| vec![address; row.call.batch()])
                    .unwrap_or_default()
            }
            Destinations::Generated {
                networks,
                hit,
                spread,
            } => {
                let networks = self.policies.networks(row.family, networks);
                let count = if spread { MANY } else { 1 };
                let mut addresses = if hit {
                    networks.inside(count)
                } else {
                    networks.outside(count)
                };
                if !spread {
                    addresses = vec![addresses[0]; row.call.batch()];
                }
                addresses
            }
        }
    }

    /// Attaches the policies of one side to its cgroup.
    fn set_up(&mut self, row: &Row, side: &Side, cgroup: &Cgroup) -> Result<Held> {
        Ok(match side {
            Side::NoPolicy | Side::OtherNetwork => Held::Nothing,
            Side::EmptyProgram => {
                let hook = row.call.hook(row.family);
                Held::Program(bpf::attach_empty(cgroup.fd(), hook)?)
            }
            Side::Policies(shapes) => Held::Policies(self.attach(shapes, cgroup)?),
            Side::Nftables(shape) => {
                let (family, count) = shape.networks.context("no networks for nftables")?;
                let networks = self.policies.networks(family, count);
                self.other_network.enter()?;
                let loaded = Rules::load(cgroup, &networks);
                self.network.enter()?;
                Held::Rules(loaded?)
            }
        })
    }

    /// Attaches policies to a cgroup; each shape is installed once.
    pub(crate) fn attach(&mut self, shapes: &[Shape], cgroup: &Cgroup) -> Result<Attached> {
        let mut slots = Vec::new();
        for shape in shapes {
            if !self.slots.contains_key(shape) {
                let text = self.policies.text(shape)?;
                let image = datapath::image_of(&self.policies.parse(&text)?)?;
                let slot = self.datapath()?.install(&image)?;
                self.slots.insert(shape.clone(), slot);
            }
            slots.extend(self.slots.get(shape));
        }
        self.datapath()?.attach(cgroup, &slots)
    }

    fn sides(
        &mut self,
        row: &Row,
        baseline: &Side,
        with_policy: &Side,
        targets: &[Address],
    ) -> Result<Vec<(Batch, Batch)>> {
        let cgroups = (self.cgroup()?, self.cgroup()?);
        let baseline_held = self.set_up(row, baseline, &cgroups.0)?;
        let with_policy_held = self.set_up(row, with_policy, &cgroups.1)?;
        let (rounds, pairs) = self.samples.rounds(row.call);
        let mut schedule = Batches::new(row, targets);
        let mut measured = Vec::new();
        for round in 0..rounds {
            // One extra: the first pair is discarded.
            let mut left = self.caller(row, baseline, &cgroups.0, pairs + 1)?;
            let mut right = self.caller(row, with_policy, &cgroups.1, pairs + 1)?;
            for pair in 0..=pairs {
                let targets = schedule.next();
                let both = if (pair + round) % 2 == 0 {
                    let first = left.batch(targets)?;
                    (first, right.batch(targets)?)
                } else {
                    let first = right.batch(targets)?;
                    (left.batch(targets)?, first)
                };
                schedule.check(both)?;
                if pair > 0 {
                    measured.push(both);
                }
            }
        }
        self.tear_down(baseline_held, with_policy_held)?;
        Ok(measured)
    }

    /// Removes what both sides attached.
    fn tear_down(&self, baseline: Held, with_policy: Held) -> Result<()> {
        // nftables rules must be deleted in their own network.
        self.other_network.enter()?;
        drop((baseline, with_policy));
        self.network.enter()
    }

    fn caller(&self, row: &Row, side: &Side, cgroup: &Cgroup, batches: usize) -> Result<Caller> {
        let network = match side {
            Side::Nftables(_) | Side::OtherNetwork => &self.other_network,
            _ => &self.network,
        };
        cgroup.enter()?;
        network.enter()?;
        let caller = Caller::prepare(row.call, row.family, network, batches);
        self.network.enter()?;
        caller
    }

    /// Pairs of batches with the policy detached and attached. A toggle does not count if another program is on the
    /// hook of any cgroup, because its baseline is not without a program. If no toggle counts, there are no pairs.
    fn toggled(
        &mut self,
        row: &Row,
        shape: &Shape,
        elsewhere: bool,
        targets: &[Address],
    ) -> Result<Vec<(Batch, Batch)>> {
        let (own, third) = (self.cgroup()?, self.cgroup()?);
        let with_policy = if elsewhere { &third } else { &own };
        let hook = row.call.hook(row.family);
        let (wanted, pairs) = self.samples.toggles(row.call);
        let mut schedule = Batches::new(row, targets);
        let mut measured = Vec::new();
        let mut counted = 0;
        for toggle in 0..RETRY_FACTOR * wanted {
            let mut caller = self.caller(row, &Side::NoPolicy, &own, 2 * (pairs + 1))?;
            let mut batches = [Vec::new(), Vec::new()];
            let mut disturbed = false;
            for half in [toggle % 2, 1 - toggle % 2] {
                let held = (half == 1)
                    .then(|| self.attach(std::slice::from_ref(shape), with_policy))
                    .transpose()?;
                disturbed |= held.is_none() && bpf::is_in_use(hook)?;
                for _ in 0..=pairs {
                    batches[half].push(caller.batch(schedule.next())?);
                }
                disturbed |= held.is_none() && bpf::is_in_use(hook)?;
            }
            if !disturbed {
                let [without, with] = batches;
                measured.extend(without.into_iter().zip(with).skip(1));
                counted += 1;
            }
            if counted == wanted {
                break;
            }
        }
        for &pair in &measured {
            schedule.check(pair)?;
        }
        Ok(measured)
    }
}
