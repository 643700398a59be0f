//! Which rule of the old image is which of the new one: those of one name.

use std::collections::HashMap;

use super::{Image, Side};

/// A rule that both images have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) slot: usize,
    /// Its number in the old image.
    pub(super) old: usize,
    /// Its number in the new image.
    pub(super) new: usize,
}

/// A slot for each rule of both images; the rules of one name share one. The new image's rules have
/// the slots of their numbers, those that are gone have the slots behind.
#[derive(Debug)]
pub(super) struct Pairing {
    /// Names of the old image's rules, one a rule.
    pub(super) old_names: Vec<String>,
    /// Names of the new image's rules, one a rule.
    pub(super) new_names: Vec<String>,
    /// Slot of each rule of the old image.
    pub(super) old_slots: Vec<usize>,
    /// Slot of each rule of the new image.
    pub(super) new_slots: Vec<usize>,
    slots: usize,
}

impl Pairing {
    pub(super) fn of(old: &Side<'_>, new: &Side<'_>) -> Pairing {
        let (old_names, new_names) = (names(old), names(new));
        let mut slots = new_names.len();
        // Names are unique; were they not, the first of a name would meet the last.
        let mut by_name: HashMap<&str, usize> = new_names.iter().map(String::as_str).zip(0..).collect();
        let old_slots = old_names.iter().map(|name| {
            by_name.remove(name.as_str()).unwrap_or_else(|| {
                slots += 1;
                slots - 1
            })
        });
        Pairing {
            old_slots: old_slots.collect(),
            new_slots: (0..new_names.len()).collect(),
            old_names,
            new_names,
            slots,
        }
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Rules that both have, in the new image's order.
    pub(super) fn kept(&self) -> Vec<Kept> {
        let mut kept: Vec<Kept> = (self.old_slots.iter().enumerate())
            .filter(|&(_, &slot)| slot < self.new_names.len())
            .map(|(old, &slot)| Kept { slot, old, new: slot })
            .collect();
        kept.sort_unstable_by_key(|kept| kept.new);
        kept
    }

    /// Rules that only the new image has: number and slot.
    pub(super) fn added(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut is_new = vec![true; self.slots];
        for &slot in &self.old_slots {
            is_new[slot] = false;
        }
        (0..self.new_names.len())
            .filter(move |&rule| is_new[rule])
            .map(|rule| (rule, rule))
    }

    /// Rules that only the old image has: number and slot.
    pub(super) fn removed(&self) -> impl Iterator<Item = (usize, usize)> {
        let slots = self.old_slots.iter().copied().enumerate();
        slots.filter(|&(_, slot)| slot >= self.new_names.len())
    }
}

/// A name for every rule of the image.
fn names(side: &Side<'_>) -> Vec<String> {
    let count = Image::rule_count(side.image) as usize;
    let name = |rule: usize| {
        side.rules
            .get(rule)
            .cloned()
            .unwrap_or_else(|| format!("#{rule}"))
    };
    (0..count).map(name).collect()
}

#[cfg(test)]
mod tests {
    use engine_common::{Action, Mode, image::Revision};

    use super::*;
    use crate::compile::{
        Identities, compile,
        sample::{policy, rule},
    };

    #[test]
    fn rules_of_one_name_share_a_slot() {
        let life = Revision {
            generation: 1,
            mode: Mode::Enforce,
        };
        let of = |count: usize| {
            let rules = (0..count).map(|_| rule("", Action::Allow, "any")).collect();
            compile(&policy(rules), &Identities::default(), life).unwrap()
        };
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (old, new) = (of(4), of(3));
        let pairing = Pairing::of(
            &Side {
                image: &old,
                rules: &names("a gone b"),
            },
            &Side {
                image: &new,
                rules: &names("b new a"),
            },
        );
        assert_eq!(pairing.slots(), 5);
        assert_eq!(pairing.old_slots, [2, 3, 0, 4]);
        let kept = pairing.kept();
        assert_eq!(
            kept.iter().map(|kept| (kept.old, kept.new)).collect::<Vec<_>>(),
            [(2, 0), (0, 2)]
        );
        assert_eq!(pairing.added().collect::<Vec<_>>(), [(1, 1)]);
        assert_eq!(pairing.removed().collect::<Vec<_>>(), [(1, 3), (3, 4)]);
        assert_eq!(pairing.old_names[3], "#3");
    }
}
