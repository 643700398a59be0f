//! The program that judges packets: attached where a strict policy stands, and only there.

use std::path::Path;

use engine_common::scope::Scope;

use super::{Standing, error::ControlError, record::Record, scope};
use crate::{
    cgroup::CgroupHandle,
    compile::Image,
    datapath::{LinkState, Slot},
};

impl Standing {
    /// Attaches it wherever the policy stands, for a version that is about to go live. So long as no live
    /// policy is strict it lets all packets pass.
    pub(super) fn remember_strict_user(&self, record: &Record, image: &Image) -> Result<(), ControlError> {
        if !image.header().is_strict() || !self.gate.has_egress_filter() {
            return Ok(());
        }
        for there in &record.attachments {
            self.attach_egress_filter(there.cgroup, &there.path)?;
        }
        Ok(())
    }

    /// Has it attached to a cgroup where one of the live policies is strict, and nowhere else.
    pub(super) fn update_egress_filter(&self, cgroup: u64, path: &str) -> Result<(), ControlError> {
        let Some(now) = self.scope_of(cgroup, path)? else {
            return Ok(());
        };
        if self.has_strict(&now)? {
            return self.attach_egress_filter(cgroup, path);
        }
        if now.is_strict() {
            let flags = now.flags & !Scope::STRICT;
            self.write_scope(&Scope { flags, ..now }, path)?;
        }
        Ok(self.gate.detach_egress_filter(cgroup)?)
    }

    fn has_strict(&self, scope: &Scope) -> Result<bool, ControlError> {
        if !self.gate.has_egress_filter() {
            return Ok(false);
        }
        for slot in scope.slots.iter().filter_map(|reference| reference.slot()) {
            if let Some(live) = self.gate.live(Slot(slot))?
                && live.is_strict()?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A cgroup that is gone takes no program any more.
    fn attach_egress_filter(&self, cgroup: u64, path: &str) -> Result<(), ControlError> {
        let Some(now) = self.scope_of(cgroup, path)? else {
            return Ok(());
        };
        let is_attached = self
            .gate
            .link_states(cgroup, true)
            .into_iter()
            .all(|(_, state)| state == LinkState::Attached);
        if !is_attached {
            let found = CgroupHandle::by_path(&self.hierarchy, Path::new(path));
            let Some(located) = found.ok().filter(|located| located.id() == cgroup) else {
                return Ok(());
            };
            let empty = scope::empty(cgroup, located.level(), true);
            let attached = self.gate.prepare(located.fd(), &empty, now.hooks());
            attached.map_err(|source| ControlError::Attach {
                cgroup: path.to_owned(),
                source: Box::new(source),
            })?;
        }
        if !now.is_strict() {
            let flags = now.flags | Scope::STRICT;
            self.write_scope(&Scope { flags, ..now }, path)?;
        }
        Ok(())
    }
}
