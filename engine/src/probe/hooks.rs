//! Trying hooks, helpers and tables, and telling what became of each.

use std::{
    fs::{self, File},
    process,
};

use super::{
    Attach, Options,
    exercise::Exercised,
    finding::{Answer, Finding},
    remedy::refused,
    surroundings::{Surroundings, boot_with_bpf},
};
use crate::{
    datapath::trial::{Attached, HELPERS, HOOKS, Hook, Place, Refusal, TABLES, Trials},
    instance::{DISABLE_VARIABLE, Disabled},
    launch::TransientCgroup,
};

/// What trials are made with: a table for marks, and a cgroup that is made for them and goes with this.
pub(super) struct Bench<'a> {
    surroundings: &'a Surroundings,
    attach: Attach,
    disabled: &'a Disabled,
    name: [u8; 8],
    trials: Result<Trials, Refusal>,
    cgroup: Result<TransientCgroup, String>,
}

impl Bench<'_> {
    pub(super) fn set<'a>(surroundings: &'a Surroundings, options: &'a Options) -> Bench<'a> {
        // Told from other threads by the process's number; every byte counts.
        let mut name = *b"tg000000";
        name[2..].copy_from_slice(&format!("{:06x}", process::id() & 0xff_ffff).as_bytes()[..6]);
        let cgroup = match (&surroundings.hierarchy, options.attach) {
            (_, Attach::Nothing) => Err("asked not to attach anything".to_owned()),
            (Err(error), _) => Err(error.clone()),
            (Ok(hierarchy), _) => TransientCgroup::create(hierarchy).map_err(|error| error.to_string()),
        };
        Bench {
            surroundings,
            attach: options.attach,
            disabled: &options.disabled,
            name,
            trials: Trials::begin(name),
            cgroup,
        }
    }

    /// All hooks at the same time, so that one round of calls shows which of them are called.
    pub(super) fn hooks(&self) -> Vec<Finding> {
        let tell =
            |(finding, hook): (Finding, &Hook)| match finding.serves() && hook.is_disabled(self.disabled) {
                true => taken_away(finding),
                false => finding,
            };
        self.tried().into_iter().zip(&HOOKS).map(tell).collect()
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
        // Held until the last look: what is dropped is detached.
        let attached: Vec<Option<Result<Attached, Refusal>>> = HOOKS
            .iter()
            .map(|hook| self.may_attach(hook).then(|| trials.attach(hook, cgroup.fd())))
            .collect();
        let exercised = self.exercise(cgroup);
        HOOKS
            .iter()
            .zip(&attached)
            .map(|(hook, attached)| match attached {
                None => self.only_loaded(
                    trials,
                    hook,
                    "asked to attach nothing that the whole machine calls",
                ),
                Some(Err(refusal)) => self.refused(hook, refusal),
                Some(Ok(_)) => self.seen(trials, hook, &exercised),
            })
            .collect()
    }

    fn may_attach(&self, hook: &Hook) -> bool {
        match self.attach {
            Attach::Everything => true,
            Attach::OwnCgroup => !hook.place.is_global(),
            Attach::Nothing => false,
        }
    }

    fn refused(&self, hook: &Hook, refusal: &Refusal) -> Finding {
        let configuration = Some(hook.place.configuration());
        refused(
            of_hook(hook),
            refusal,
            hook.since,
            configuration,
            self.surroundings,
        )
    }

    fn exercise(&self, cgroup: &TransientCgroup) -> Exercised {
        let processes = File::options()
            .write(true)
            .open(cgroup.path().join("cgroup.procs"));
        let Ok(processes) = processes else {
            return Exercised::default();
        };
        Exercised::make(&processes, self.name, || {
            let below = cgroup.path().join("below");
            // It is the making that is looked at; the rest of the cgroup goes with it.
            fs::create_dir(&below).is_ok_and(|()| fs::remove_dir(&below).is_ok())
        })
    }

    /// What loads on a hook of a cgroup can be attached there; elsewhere loading says little.
    fn only_loaded(&self, trials: &Trials, hook: &Hook, why: &str) -> Finding {
        let finding = match trials.load(hook) {
            Err(refusal) => return self.refused(hook, &refusal),
            Ok(()) => of_hook(hook).reached("loaded"),
        };
        match (hook.place, self.surroundings.has_bpf_module()) {
            (Place::Lsm(_), Some(false)) => self.never_called(finding, "it loads, but would never be called"),
            (Place::Cgroup { .. }, _) | (Place::Lsm(_), Some(true)) => {
                finding.because(format!("not attached: {why}"))
            }
            _ => Finding {
                answer: Answer::Unknown,
                ..finding.because(format!("it loads; not attached: {why}"))
            },
        }
    }

    /// An LSM program where `bpf` is not among the active security modules.
    fn never_called(&self, finding: Finding, what: &str) -> Finding {
        let modules = self.surroundings.modules.as_deref().unwrap_or_default();
        Finding {
            answer: Answer::No,
            ..finding
        }
        .because(format!(
            "{what}: `bpf` is not among the active security modules ({modules})"
        ))
        .remedy(boot_with_bpf(modules))
    }

    /// What is attached and was not called, although it had to be, is of no use.
    fn seen(&self, trials: &Trials, hook: &Hook, exercised: &Exercised) -> Finding {
        let finding = of_hook(hook);
        let called = match trials.was_called(hook) {
            Ok(called) => called,
            Err(error) => {
                return finding
                    .reached("attached")
                    .because(format!("whether it was called cannot be read: {error}"));
            }
        };
        if called {
            return finding.reached("called");
        }
        let finding = finding.reached("attached");
        match (hook.place, self.surroundings.has_bpf_module()) {
            (Place::Lsm(_), Some(false)) => {
                self.never_called(finding, "it loads and attaches, and is never called")
            }
            _ if exercised.concerns(hook.name) => Finding {
                answer: Answer::No,
                ..finding.because("it loads and attaches, but was not called when it had to be")
            },
            _ => finding.because("nothing was done that it would see"),
        }
    }

    /// Helpers are looked for by loading programs that call them.
    pub(super) fn helpers(&self) -> Vec<Finding> {
        HELPERS
            .iter()
            .map(|helper| {
                let finding = Finding::new(helper.name, helper.purpose, Answer::Yes);
                let tried = self
                    .trials
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|trials| trials.helper(helper));
                match tried {
                    Ok(()) if helper.ability.is_some_and(|word| self.disabled.has(word)) => {
                        taken_away(finding.reached("loaded"))
                    }
                    Ok(()) => finding.reached("loaded"),
                    Err(refusal) => refused(finding, &refusal, helper.since, None, self.surroundings),
                }
            })
            .collect()
    }

    /// Tables are made and used.
    pub(super) fn tables(&self) -> Vec<Finding> {
        let cgroup = self.cgroup.as_ref().ok().map(|cgroup| (cgroup.fd(), cgroup.id()));
        TABLES
            .iter()
            .map(|&table| {
                let finding = Finding::new(table.name(), table.purpose(), Answer::Yes);
                let tried = self
                    .trials
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|trials| trials.table(table, cgroup));
                match tried {
                    Ok(()) => finding,
                    Err(refusal) => refused(finding, &refusal, table.since(), None, self.surroundings),
                }
            })
            .collect()
    }
}

/// What works, and is not to be used.
fn taken_away(finding: Finding) -> Finding {
    Finding {
        answer: Answer::No,
        ..finding
    }
    .because(format!("taken away by {DISABLE_VARIABLE}"))
    .remedy(format!("unset {DISABLE_VARIABLE}"))
}

fn of_hook(hook: &Hook) -> Finding {
    Finding::new(hook.name, hook.purpose, Answer::Yes).used(hook.is_used())
}
