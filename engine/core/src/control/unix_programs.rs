//! The programs on unix sockets: attached while a policy names such sockets.

use engine_common::scope::HookSet;

use super::{Control, error::ControlError, record::Record, scope};
use crate::{
    compile::Image,
    datapath::{GroupName, Slot},
};

impl Control {
    /// Attaches them for a version that is about to go live, and has them evaluate the policy on all its cgroups: a version
    /// without such rules has no verdict.
    pub(super) fn prepare_unix(&self, record: &Record, image: &Image) -> Result<(), ControlError> {
        let available = self.datapath.hooks();
        if !image.header().has_unix_rules() || !available.contains(HookSet::UNIX) {
            return Ok(());
        }
        let hooks = record.live.hooks_of(available).union(HookSet::UNIX);
        if !hooks.contains(HookSet::LSM) {
            return Ok(());
        }
        let slot = Slot(record.slot);
        self.datapath
            .attach_global(GroupName::LsmUnix)
            .map_err(|source| ControlError::Attach {
                cgroup: record.name.clone(),
                source: Box::new(source),
            })?;
        for attachment in &record.attachments {
            let Some(now) = self.scope_of(attachment.cgroup, &attachment.path)? else {
                continue;
            };
            if scope::has(&now, slot)
                && let Some(changed) = scope::with(&now, slot, record.live.mode, hooks)
                && changed != now
            {
                self.write_scope(&changed, &attachment.path)?;
            }
        }
        Ok(())
    }
}
