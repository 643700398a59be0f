//! Pairs the rules of two images by name.

use std::collections::HashMap;

use super::{Image, NamedImage};

/// A rule that both images have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommonRule {
    pub(super) slot: usize,
    /// Index in the old image.
    pub(super) old: usize,
    /// Index in the new image.
    pub(super) new: usize,
}

/// Assigns a slot to each rule name of both images. A rule of the new image has its index as slot; removed
/// rules have the slots after those.
#[derive(Debug)]
pub(super) struct Pairing {
    /// Names of the rules of the old image, in order.
    pub(super) old_names: Vec<String>,
    /// Names of the rules of the new image, in order.
    pub(super) new_names: Vec<String>,
    /// Slot of each rule of the old image.
    pub(super) old_slots: Vec<usize>,
    /// Slot of each rule of the new image.
    pub(super) new_slots: Vec<usize>,
    slots: usize,
}

impl Pairing {
    pub(super) fn of(old: &NamedImage<'_>, new: &NamedImage<'_>) -> Pairing {
        let (old_names, new_names) = (names(old), names(new));
        let mut slots = new_names.len();
        // Names are unique in valid policies. If not, the first old rule is paired with the last new one.
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

    /// Number of slots.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Rules that both images have, in the order of the new image.
    pub(super) fn common(&self) -> Vec<CommonRule> {
        let mut common: Vec<CommonRule> = (self.old_slots.iter().enumerate())
            .filter(|&(_, &slot)| slot < self.new_names.len())
            .map(|(old, &slot)| CommonRule { slot, old, new: slot })
            .collect();
        common.sort_unstable_by_key(|common| common.new);
        common
    }

    /// Rules that only the new image has: index and slot.
    pub(super) fn added(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut is_new = vec![true; self.slots];
        for &slot in &self.old_slots {
            is_new[slot] = false;
        }
        (0..self.new_names.len())
            .filter(move |&rule| is_new[rule])
            .map(|rule| (rule, rule))
    }

    /// Rules that only the old image has: index and slot.
    pub(super) fn removed(&self) -> impl Iterator<Item = (usize, usize)> {
        let slots = self.old_slots.iter().copied().enumerate();
        slots.filter(|&(_, slot)| slot >= self.new_names.len())
    }
}

/// The name of every rule of the image.
fn names(named: &NamedImage<'_>) -> Vec<String> {
    let count = Image::rule_count(named.image) as usize;
    let name = |rule: usize| {
        named
            .rules
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
        test_policies::{policy, rule},
    };

    #[test]
    fn rules_with_the_same_name_share_a_slot() {
        let revision = Revision {
            generation: 1,
            mode: Mode::Enforce,
        };
        let of = |count: usize| {
            let rules = (0..count).map(|_| rule("", Action::Allow, "any")).collect();
            compile(&policy(rules), &Identities::default(), revision).unwrap()
        };
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (old, new) = (of(4), of(3));
        let pairing = Pairing::of(
            &NamedImage {
                image: &old,
                rules: &names("a gone b"),
            },
            &NamedImage {
                image: &new,
                rules: &names("b new a"),
            },
        );
        assert_eq!(pairing.slots(), 5);
        assert_eq!(pairing.old_slots, [2, 3, 0, 4]);
        let common = pairing.common();
        assert_eq!(
            common
                .iter()
                .map(|common| (common.old, common.new))
                .collect::<Vec<_>>(),
            [(2, 0), (0, 2)]
        );
        assert_eq!(pairing.added().collect::<Vec<_>>(), [(1, 1)]);
        assert_eq!(pairing.removed().collect::<Vec<_>>(), [(1, 3), (3, 4)]);
        assert_eq!(pairing.old_names[3], "#3");
    }
}
