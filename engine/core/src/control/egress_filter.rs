//! The egress filter: attached to cgroups with a strict policy, and only to those.

use std::path::Path;

use engine_common::scope::Scope;

use super::{Control, error::ControlError, record::Record, scope};
use crate::{
    cgroup::CgroupHandle,
    compile::Image,
    datapath::{GroupName, LinkState, Slot},
};

impl Control {
    /// Attaches it to the cgroups of the policy, for a strict version that is about to go live. It lets all packets pass
    /// while no live policy is strict.
    pub(super) fn prepare_egress_filter(&self, record: &Record, image: &Image) -> Result<(), ControlError> {
        if !image.header().is_strict() || !self.datapath.has(GroupName::EgressFilter) {
            return Ok(());
        }
        for attachment in &record.attachments {
            self.attach_egress_filter(attachment.cgroup, &attachment.path)?;
        }
        Ok(())
    }

    /// Attaches it to a cgroup where one of the live policies is strict; otherwise detaches it.
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
        Ok(self.datapath.detach_group(cgroup, GroupName::EgressFilter)?)
    }

    fn has_strict(&self, scope: &Scope) -> Result<bool, ControlError> {
        if !self.datapath.has(GroupName::EgressFilter) {
            return Ok(false);
        }
        for slot in scope.slots.iter().filter_map(|reference| reference.slot()) {
            if let Some(live) = self.datapath.live(Slot(slot))?
                && live.is_strict()?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Does nothing for a cgroup that was removed.
    fn attach_egress_filter(&self, cgroup: u64, path: &str) -> Result<(), ControlError> {
        let Some(now) = self.scope_of(cgroup, path)? else {
            return Ok(());
        };
        let is_attached = [GroupName::Connect, GroupName::EgressFilter]
            .into_iter()
            .flat_map(|group| self.datapath.link_states(group, cgroup))
            .all(|(_, state)| state == LinkState::Attached);
        if !is_attached {
            let found = CgroupHandle::by_path(&self.hierarchy, Path::new(path));
            let Some(located) = found.ok().filter(|located| located.id() == cgroup) else {
                return Ok(());
            };
            let empty = scope::empty(cgroup, located.level(), true);
            let attached = self.datapath.prepare(located.fd(), &empty, now.hooks());
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
