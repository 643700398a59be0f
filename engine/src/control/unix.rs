//! The programs that see unix sockets: attached where a policy names such sockets, and only there.

use engine_common::scope::HookSet;

use super::{Standing, error::ControlError, record::Record, scope};
use crate::{compile::Image, datapath::Slot};

impl Standing {
    /// Attaches them for a version that is about to go live, and says wherever the policy stands that they ask it: a
    /// version without such rules answers nothing.
    pub(super) fn prepare_unix(&self, record: &Record, image: &Image) -> Result<(), ControlError> {
        let there = self.gate.hooks();
        if !image.header().has_unix_rules() || !there.contains(HookSet::UNIX) {
            return Ok(());
        }
        let hooks = record.live.hooks_of(there).union(HookSet::UNIX);
        if !hooks.contains(HookSet::LSM) {
            return Ok(());
        }
        let slot = Slot(record.slot);
        self.gate.attach_unix().map_err(|source| ControlError::Attach {
            cgroup: record.name.clone(),
            source: Box::new(source),
        })?;
        for attachment in &record.attachments {
            let Some(now) = self.scope_of(attachment.cgroup, &attachment.path)? else {
                continue;
            };
            if scope::has(&now, slot)
                && let Some(wanted) = scope::with(&now, slot, record.live.mode, hooks)
                && wanted != now
            {
                self.write_scope(&wanted, &attachment.path)?;
            }
        }
        Ok(())
    }
}
