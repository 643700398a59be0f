//! Compares the result of `diff` with the rules of both policies, key by key.

use std::collections::HashMap;

use tidegate_core::{
    compile::{
        Image,
        diff::{NamedImage, RuleChange, RuleSummary, diff, diff_up_to},
    },
    policy::Policy,
};

use crate::{
    attempts::Generator,
    listed::{counted, disagreement},
    policies::{self, Shape},
    random::Random,
    seed,
    versions::{Version, edited},
};

fn check(random: &mut Random, old: &Version, new: &Version, attempts: usize) -> Result<(), String> {
    let ((old_image, old_names), (new_image, new_names)) = (old.image(), new.image());
    let images = [
        NamedImage {
            image: &old_image,
            rules: &old_names,
        },
        NamedImage {
            image: &new_image,
            rules: &new_names,
        },
    ];
    let all = diff_up_to(&images[0], &images[1], usize::MAX);
    let changes: HashMap<&str, &RuleChange> = all.changed.iter().map(|c| (c.name.as_str(), c)).collect();
    let names = |rules: &[RuleSummary]| rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    let only = |one: &Version, other: &Version| {
        let rules = one.policy.rules.iter();
        let names = rules.map(|rule| rule.name.clone());
        names
            .filter(|name| other.rule(name).is_none())
            .collect::<Vec<_>>()
    };
    if names(&all.added) != only(new, old) || names(&all.removed) != only(old, new) {
        return Err("added and removed rules".to_owned());
    }
    for one in &all.added {
        let rule = new.rule(&one.name).unwrap();
        let ranges = rule.to.v4().iter();
        let v4: u128 = ranges.map(|r| u128::from(r.1 - r.0) + 1).sum();
        if one.ipv4.exact() != Some(v4) || one.action != rule.action {
            return Err(format!("added: {one:?}"));
        }
    }
    for change in &all.changed {
        for addresses in [&change.ipv4, &change.ipv6] {
            for addresses in [&addresses.gained, &addresses.lost] {
                if counted(addresses) != addresses.count.exact() {
                    return Err(format!("counts: {change:?}"));
                }
            }
        }
    }
    for rule in &old.policy.rules {
        let Some(now) = new.rule(&rule.name) else { continue };
        let change = changes.get(rule.name.as_str()).copied();
        let files = change.is_some_and(|change| change.executables_changed);
        if files != (old.executables_of(rule) != new.executables_of(now)) {
            return Err(format!("executables of {}", rule.name));
        }
        let sockets = change.is_some_and(|change| change.unix_changed);
        if sockets != (old.sockets_of(rule) != new.sockets_of(now)) {
            return Err(format!("unix sockets of {}", rule.name));
        }
        let action = change.is_some_and(|change| change.action.is_some());
        if action != (rule.action != now.action) {
            return Err(format!("action of {}", rule.name));
        }
        for _ in 0..attempts {
            let of = if random.percent(50) { old } else { new };
            let attempt = Generator::new(&of.policy, &of.executables).attempt(random);
            if let Some(what) = disagreement(change, rule, now, &attempt) {
                return Err(format!("{what} of {}: {attempt:#x?}\n{change:#?}", rule.name));
            }
        }
    }
    // The rules that did not move are in the same order.
    let stay = |policy: &Policy| -> Vec<String> {
        let rules = policy.rules.iter().map(|rule| rule.name.clone());
        let moved = |name: &String| changes.get(name.as_str()).is_some_and(|c| c.moved.is_some());
        let both = |name: &String| old.rule(name).is_some() && new.rule(name).is_some();
        rules.filter(|name| both(name) && !moved(name)).collect()
    };
    if stay(&old.policy) != stay(&new.policy) {
        return Err("order".to_owned());
    }
    // The default limit shortens the lists and changes nothing else.
    let short = diff(&images[0], &images[1]);
    let listed = short.changed.iter().all(|c| c.ipv4.gained.networks.len() <= 8);
    if !listed || short.is_empty() != all.is_empty() || short.changed.len() != all.changed.len() {
        return Err("the limit".to_owned());
    }
    Ok(())
}

fn differ(shape: Shape, pairs: usize, attempts: usize) {
    for index in 0..pairs as u64 {
        let seed = seed()
            .wrapping_mul(1_000_033)
            .wrapping_add((shape as u64) << 48 | index);
        let mut random = Random::new(seed);
        let (policy, executables) = policies::policy(&mut random, shape);
        let old = Version { policy, executables };
        let (image, rules) = old.image();
        let named = NamedImage {
            image: &image,
            rules: &rules,
        };
        assert!(diff(&named, &named).is_empty(), "seed {seed}");
        let (again, _) = old.image();
        let again = Image::from_pages(again.pages().to_vec()).unwrap();
        let again = NamedImage {
            image: &again,
            rules: &rules,
        };
        assert!(diff(&named, &again).is_empty(), "seed {seed}");

        let new = edited(&mut random, &old, shape);
        if let Err(what) = check(&mut random, &old, &new, attempts) {
            panic!(
                "{what}\nseed: {seed}\nold: {:#?}\nnew: {:#?}",
                old.policy, new.policy
            );
        }
    }
}

#[test]
fn differences_of_small_policies() {
    differ(Shape::Small, 1_500, 12);
}

#[test]
fn differences_of_many_rules() {
    differ(Shape::ManyRules, 12, 4);
}

#[test]
fn differences_of_many_addresses() {
    differ(Shape::ManyAddresses, 10, 8);
}

#[test]
fn differences_of_many_subjects() {
    differ(Shape::ManySubjects, 10, 8);
}
