//! Tries hooks, helpers and maps, with one finding for each.

use std::{
    fs::{self, File},
    process,
};

use super::{
    AttachScope, Options,
    environment::{HostEnvironment, boot_with_bpf},
    finding::{Finding, Reached, Support},
    refused::refused,
    test_calls::SelfCalls,
};
use crate::{
    datapath::trial::{HELPERS, HOOKS, Hook, HookPoint, MAP_USES, Refusal, TrialLink, Trials},
    instance::{DISABLE_VARIABLE, Disabled},
    launch::TransientCgroup,
};

/// What trials need: a map in which programs record their calls, and a cgroup, which is removed on drop.
pub(super) struct Fixture<'a> {
    environment: &'a HostEnvironment,
    disabled: &'a Disabled,
    attach: AttachScope,
    thread: [u8; 8],
    trials: Result<Trials, Refusal>,
    cgroup: Result<TransientCgroup, String>,
}

impl Fixture<'_> {
    pub(super) fn new<'a>(environment: &'a HostEnvironment, options: &'a Options) -> Fixture<'a> {
        // Start of the thread name by which trial programs recognise the calls; contains the process id.
        let mut thread = *b"tg000000";
        thread[2..].copy_from_slice(&format!("{:06x}", process::id() & 0xff_ffff).as_bytes()[..6]);
        let cgroup = match (&environment.hierarchy, options.attach) {
            (_, AttachScope::None) => Err("attaching is disabled".to_owned()),
            (Err(error), _) => Err(error.clone()),
            (Ok(hierarchy), _) => TransientCgroup::create(hierarchy).map_err(|error| error.to_string()),
        };
        Fixture {
            environment,
            attach: options.attach,
            disabled: &options.disabled,
            thread,
            trials: Trials::begin(thread),
            cgroup,
        }
    }

    /// Tries all hooks at the same time: one round of calls shows which programs are called.
    pub(super) fn hooks(&self) -> Vec<Finding> {
        let disabled = |(finding, hook): (Finding, &Hook)| match finding.is_effective()
            && hook.is_disabled(self.disabled)
        {
            true => disabled_by_variable(finding),
            false => finding,
        };
        self.tried().into_iter().zip(&HOOKS).map(disabled).collect()
    }

    fn tried(&self) -> Vec<Finding> {
        let trials = match &self.trials {
            Ok(trials) => trials,
            Err(refusal) => {
                return HOOKS.iter().map(|hook| self.refused(hook, refusal)).collect();
            }
        };
        let cgroup = match &self.cgroup {
            Ok(cgroup) => cgroup,
            Err(why) => {
                return HOOKS
                    .iter()
                    .map(|hook| self.only_loaded(trials, hook, why))
                    .collect();
            }
        };
        // Kept until the results are read: dropping a link detaches its program.
        let attached: Vec<Option<Result<TrialLink, Refusal>>> = HOOKS
            .iter()
            .map(|hook| self.may_attach(hook).then(|| trials.attach(hook, cgroup.fd())))
            .collect();
        let calls = self.make_calls(cgroup);
        HOOKS
            .iter()
            .zip(&attached)
            .map(|(hook, attached)| match attached {
                None => self.only_loaded(trials, hook, "attaching system-wide programs is disabled"),
                Some(Err(refusal)) => self.refused(hook, refusal),
                Some(Ok(_)) => self.called_or_not(trials, hook, &calls),
            })
            .collect()
    }

    /// Where the kernel does not call programs none is attached (see [`Canary`](crate::datapath::Canary)).
    fn may_attach(&self, hook: &Hook) -> bool {
        if hook.point.canary().is_some_and(|canary| canary.stop().is_some()) {
            return false;
        }
        match self.attach {
            AttachScope::System => true,
            AttachScope::OwnCgroup => !hook.point.is_global(),
            AttachScope::None => false,
        }
    }

    fn refused(&self, hook: &Hook, refusal: &Refusal) -> Finding {
        let configuration = Some(hook.point.configuration());
        refused(
            of_hook(hook),
            refusal,
            hook.since,
            configuration,
            self.environment,
        )
    }

    fn make_calls(&self, cgroup: &TransientCgroup) -> SelfCalls {
        let processes = File::options()
            .write(true)
            .open(cgroup.path().join("cgroup.procs"));
        let Ok(processes) = processes else {
            return SelfCalls::default();
        };
        SelfCalls::make(&processes, self.thread, || {
            let below = cgroup.path().join("below");
            // Only mkdir is traced.
            fs::create_dir(&below).is_ok_and(|()| fs::remove_dir(&below).is_ok())
        })
    }

    /// A program that loads for a cgroup hook can also be attached; for other hooks that is unknown.
    fn only_loaded(&self, trials: &Trials, hook: &Hook, why: &str) -> Finding {
        let finding = match trials.load(hook) {
            Err(refusal) => return self.refused(hook, &refusal),
            Ok(()) => of_hook(hook).reached(Reached::Loaded),
        };
        let canary = hook.point.canary();
        let stop = canary.and_then(|canary| Some((canary.stop_reason()?, canary.stop()?)));
        match (hook.point, self.environment.has_bpf_module()) {
            (HookPoint::Lsm(_), Some(false)) => {
                self.never_called(finding, "it loads, but the kernel would not call it")
            }
            _ if let Some((reason, stop)) = stop => Finding {
                support: Support::No,
                ..finding.reason(format!("it loads; {reason}")).hint(stop.hint())
            },
            (HookPoint::Cgroup { .. }, _) | (HookPoint::Lsm(_), Some(true)) => {
                finding.reason(format!("not attached: {why}"))
            }
            _ => Finding {
                support: Support::Unknown,
                ..finding.reason(format!("it loads; not attached: {why}"))
            },
        }
    }

    /// The finding for an LSM program when `bpf` is not an active security module.
    fn never_called(&self, finding: Finding, what: &str) -> Finding {
        let modules = self.environment.modules.as_deref().unwrap_or_default();
        Finding {
            support: Support::No,
            ..finding
        }
        .reason(format!(
            "{what}: `bpf` is not an active security module (active: {modules})"
        ))
        .hint(boot_with_bpf(modules))
    }

    /// The finding for an attached program. One that was not called by a call that must reach it is not supported.
    fn called_or_not(&self, trials: &Trials, hook: &Hook, calls: &SelfCalls) -> Finding {
        let finding = of_hook(hook);
        let called = match trials.was_called(hook) {
            Ok(called) => called,
            Err(error) => {
                return finding
                    .reached(Reached::Attached)
                    .reason(format!("cannot read whether it was called: {error}"));
            }
        };
        if called {
            return finding.reached(Reached::Called);
        }
        let finding = finding.reached(Reached::Attached);
        match (hook.point, self.environment.has_bpf_module()) {
            (HookPoint::Lsm(_), Some(false)) => {
                self.never_called(finding, "it loads and attaches, but the kernel does not call it")
            }
            (place, _) if calls.reach(hook.name) => {
                let what = "it loads and attaches, but was not called by a call that must reach it";
                let finding = Finding {
                    support: Support::No,
                    ..finding
                };
                match place.canary() {
                    Some(canary) => finding.reason(format!("{what}: {}", canary.not_called_reason())),
                    None => finding.reason(what),
                }
            }
            _ => finding.reason("no call was made that reaches it"),
        }
    }

    /// Tries helpers by loading programs that call them.
    pub(super) fn helpers(&self) -> Vec<Finding> {
        HELPERS
            .iter()
            .map(|helper| {
                let finding = Finding::new(helper.name, helper.purpose, Support::Yes);
                let tried = self
                    .trials
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|trials| trials.helper(helper));
                match tried {
                    Ok(()) if helper.feature.is_some_and(|word| self.disabled.has(word)) => {
                        disabled_by_variable(finding.reached(Reached::Loaded))
                    }
                    Ok(()) => finding.reached(Reached::Loaded),
                    Err(refusal) => refused(finding, &refusal, helper.since, None, self.environment),
                }
            })
            .collect()
    }

    /// Tries maps by creating and using them.
    pub(super) fn maps(&self) -> Vec<Finding> {
        let cgroup = self.cgroup.as_ref().ok().map(|cgroup| (cgroup.fd(), cgroup.id()));
        MAP_USES
            .iter()
            .map(|&map| {
                let finding = Finding::new(map.name(), map.purpose(), Support::Yes);
                let tried = self
                    .trials
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|trials| trials.map(map, cgroup));
                match tried {
                    Ok(()) => finding,
                    Err(refusal) => refused(finding, &refusal, map.since(), None, self.environment),
                }
            })
            .collect()
    }
}

/// The finding for a feature that works, but is disabled for tests.
fn disabled_by_variable(finding: Finding) -> Finding {
    Finding {
        support: Support::No,
        ..finding
    }
    .reason(format!("disabled by {DISABLE_VARIABLE}"))
    .hint(format!("unset {DISABLE_VARIABLE}"))
}

fn of_hook(hook: &Hook) -> Finding {
    Finding::new(hook.name, hook.purpose, Support::Yes).used(hook.is_used())
}
