//! Where rows are measured: two networks, cgroups made for each row, one loaded gate.

use std::{collections::HashMap, os::fd::OwnedFd, path::Path, rc::Rc};

use anyhow::{Context, Result};
use tidegate::{cgroup::Hierarchy, datapath::Slot};

use crate::{
    address::{Address, Family},
    batches::Turns,
    bpf,
    call::{Batch, Caller},
    cgroup::Cgroup,
    datapath::{self, AttachedPolicies, LoadedDatapath},
    keeper::Places,
    network::{Network, PORT},
    nft::Rules,
    policies::{Policies, Shape},
    row::{Aim, Contrast, Row, Side},
    samples::Effort,
    statistics::Paired,
};

/// Destinations of a row that spreads them: more than the caches next to a core hold tables for.
const MANY: usize = 1 << 16;

/// How many times more turns are tried than are wanted, where others disturb them.
const PATIENCE: usize = 3;

/// Everything that a measurement stands on.
pub(crate) struct Laboratory<'a> {
    pub(crate) places: &'a Places,
    pub(crate) hierarchy: Hierarchy,
    pub(crate) effort: Effort,
    pub(crate) policies: Policies,
    network: Rc<Network>,
    /// With rules of nftables, or free of them.
    other_network: Rc<Network>,
    datapath: Option<LoadedDatapath>,
    slots: HashMap<Shape, Slot>,
}

/// What stands on a cgroup, for as long as this lives.
#[expect(dead_code, reason = "held for what dropping it does")]
enum Held {
    Nothing,
    Program(OwnedFd),
    Policies(AttachedPolicies),
    Rules(Rules),
}

impl<'a> Laboratory<'a> {
    pub(crate) fn open(places: &'a Places, effort: Effort) -> Result<Laboratory<'a>> {
        let other_network = Rc::new(Network::make()?);
        // Second: this thread stays in it.
        let network = Rc::new(Network::make()?);
        Ok(Laboratory {
            places,
            hierarchy: datapath::hierarchy()?,
            effort,
            policies: Policies::new(places.files.clone()),
            network,
            other_network,
            datapath: None,
            slots: HashMap::new(),
        })
    }

    /// A new cgroup.
    pub(crate) fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::create(&self.hierarchy, &self.places.cgroups)
    }

    /// The folder that nft must find.
    pub(crate) fn cgroups(&self) -> &Path {
        &self.places.cgroups
    }

    /// The datapath, loaded once.
    pub(crate) fn datapath(&mut self) -> Result<&LoadedDatapath> {
        if self.datapath.is_none() {
            self.datapath = Some(LoadedDatapath::load(None)?);
        }
        self.datapath.as_ref().context("no datapath")
    }

    /// Removes the datapath and its policies from the kernel.
    pub(crate) fn unload(&mut self) {
        self.slots.clear();
        if let Some(mut datapath) = self.datapath.take() {
            datapath.finish_reading();
        }
    }

    /// Measures a row.
    pub(crate) fn measure(&mut self, row: &Row) -> Result<Paired> {
        let targets = self.targets(row.aim, row);
        let pairs = match &row.contrast {
            Contrast::Sides(plain, gated) => self.sides(row, plain, gated, &targets),
            Contrast::OnAndOff { shape, elsewhere } => self.on_and_off(row, shape, *elsewhere, &targets),
        };
        // Home before the cgroups go.
        self.places.go_home()?;
        Ok(Paired::of(&pairs?, row.call.batch()))
    }

    /// Where the calls go, in turn; the list goes on at its start.
    fn targets(&mut self, aim: Aim, row: &Row) -> Vec<Address> {
        match aim {
            Aim::Documentation => {
                let text = match row.family {
                    Family::V4 => format!("198.51.100.10:{PORT}"),
                    Family::V6 => format!("[2001:db8::10]:{PORT}"),
                };
                let address = text.parse().map(Address::of);
                address
                    .map(|address| vec![address; row.call.batch()])
                    .unwrap_or_default()
            }
            Aim::Generated {
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

    /// Puts on a cgroup what stands on this side.
    fn furnish(&mut self, row: &Row, side: &Side, cgroup: &Cgroup) -> Result<Held> {
        Ok(match side {
            Side::Bare | Side::OtherNetwork => Held::Nothing,
            Side::EmptyProgram => {
                let hook = row.call.hook(row.family);
                Held::Program(bpf::attach_empty(cgroup.fd(), hook)?)
            }
            Side::Gate(shapes) => Held::Policies(self.attach(shapes, cgroup)?),
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

    /// Attaches policies to a cgroup; each shape is put live once.
    pub(crate) fn attach(&mut self, shapes: &[Shape], cgroup: &Cgroup) -> Result<AttachedPolicies> {
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
        plain: &Side,
        gated: &Side,
        targets: &[Address],
    ) -> Result<Vec<(Batch, Batch)>> {
        let cgroups = (self.cgroup()?, self.cgroup()?);
        let plain_held = self.furnish(row, plain, &cgroups.0)?;
        let gated_held = self.furnish(row, gated, &cgroups.1)?;
        let (rounds, pairs) = self.effort.rounds(row.call);
        let mut turns = Turns::new(row, targets);
        let mut measured = Vec::new();
        for round in 0..rounds {
            // One more: the first is thrown away.
            let mut left = self.caller(row, plain, &cgroups.0, pairs + 1)?;
            let mut right = self.caller(row, gated, &cgroups.1, pairs + 1)?;
            for pair in 0..=pairs {
                let targets = turns.next();
                let both = if (pair + round) % 2 == 0 {
                    let first = left.batch(targets)?;
                    (first, right.batch(targets)?)
                } else {
                    let first = right.batch(targets)?;
                    (left.batch(targets)?, first)
                };
                turns.check(both)?;
                if pair > 0 {
                    measured.push(both);
                }
            }
        }
        self.leave(plain_held, gated_held)?;
        Ok(measured)
    }

    /// Takes away what stood on the sides, from where it can be taken.
    fn leave(&self, plain: Held, gated: Held) -> Result<()> {
        // Rules are deleted in their network.
        self.other_network.enter()?;
        drop((plain, gated));
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

    /// Pairs of batches with a gate detached and attached. While others have a program on the hook, on whatever
    /// cgroup, nothing is without: such turns do not count, and where all are such, there are no pairs.
    fn on_and_off(
        &mut self,
        row: &Row,
        shape: &Shape,
        elsewhere: bool,
        targets: &[Address],
    ) -> Result<Vec<(Batch, Batch)>> {
        let (own, third) = (self.cgroup()?, self.cgroup()?);
        let gated = if elsewhere { &third } else { &own };
        let hook = row.call.hook(row.family);
        let (wanted, pairs) = self.effort.turns(row.call);
        let mut turns = Turns::new(row, targets);
        let mut measured = Vec::new();
        let mut counted = 0;
        for turn in 0..PATIENCE * wanted {
            let mut caller = self.caller(row, &Side::Bare, &own, 2 * (pairs + 1))?;
            let mut batches = [Vec::new(), Vec::new()];
            let mut disturbed = false;
            for half in [turn % 2, 1 - turn % 2] {
                let held = (half == 1)
                    .then(|| self.attach(std::slice::from_ref(shape), gated))
                    .transpose()?;
                disturbed |= held.is_none() && bpf::is_in_use(hook)?;
                for _ in 0..=pairs {
                    batches[half].push(caller.batch(turns.next())?);
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
            turns.check(pair)?;
        }
        Ok(measured)
    }
}
