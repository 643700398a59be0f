use std::{net::IpAddr, path::PathBuf};

use engine_common::{
    Action, ExecutableId, Mode, Protocol,
    destination::Nat64Prefix,
    image::{Page, Revision},
};

use super::*;
use crate::{
    compile::{
        Identities, compile,
        test_policies::{addresses, policy, ports, rule},
    },
    policy::{AddressSet, Binary, Errno, Policy, Rule},
};

/// A compiled policy and its rule names.
struct Compiled {
    image: Image,
    rules: Vec<String>,
}

impl Compiled {
    fn of(policy: &Policy, generation: u64) -> Compiled {
        Compiled::with(policy, &Identities::synthetic(policy), generation)
    }

    fn with(policy: &Policy, executables: &Identities, generation: u64) -> Compiled {
        let revision = Revision {
            generation,
            mode: policy.mode,
        };
        Compiled {
            image: compile(policy, executables, revision).unwrap(),
            rules: policy.rules.iter().map(|rule| rule.name.clone()).collect(),
        }
    }

    fn named_image(&self) -> NamedImage<'_> {
        NamedImage {
            image: &self.image,
            rules: &self.rules,
        }
    }
}

fn between(old: &Policy, new: &Policy) -> PolicyDiff {
    let (old, new) = (Compiled::of(old, 1), Compiled::of(new, 2));
    diff(&old.named_image(), &new.named_image())
}

fn text(diff: &PolicyDiff) -> String {
    anstream::adapter::strip_str(&diff.render()).to_string()
}

fn binary(path: &str) -> Binary {
    Binary {
        path: PathBuf::from(path),
    }
}

/// Two policies that differ in every kind of field.
fn pair() -> (Policy, Policy) {
    let mut database = rule("database", Action::Allow, "10.20.9.0/29");
    database.services = ports(Protocol::TCP, 5432, 5432);
    let web = rule("web", Action::Allow, "198.51.100.0/24 2001:db8::/32");
    let mut users = rule("users", Action::Audit, "any");
    users.subject.uids = Some(vec![1000, 1001]);
    let old_db = rule("old-db", Action::Allow, "192.0.2.1/32 2001:db8:1::/64");
    let mut old = policy(vec![
        rule("metadata", Action::Kill, "169.254.169.254/32"),
        database.clone(),
        web.clone(),
        users.clone(),
        old_db,
    ]);

    database.action = Action::Block;
    database.to = addresses("10.20.8.0/24 10.20.9.0/29").without(&addresses("10.20.9.7/32"));
    database.services = ports(Protocol::TCP, 5430, 5439);
    users.subject.uids = Some(vec![1001, 1002, 65534]);
    users.subject.binaries = Some(vec![binary("/usr/bin/curl")]);
    let mut new = policy(vec![
        rule("metadata", Action::Kill, "169.254.169.254/32"),
        web,
        rule("builders", Action::Audit, "10.1.0.0/30 10.2.0.0/29"),
        database,
        users,
        rule("rest", Action::Kill, "any"),
    ]);
    new.rules[1].to = new.rules[1].to.without(&addresses("2001:db8:ffff::/48"));
    old.nat64 = Vec::new();
    new.nat64 = vec![Nat64Prefix {
        high: 0x2001_0db8_0000_0064,
        low: 0,
        length: 96,
    }];
    new.default = Action::Kill;
    new.errno = Errno::Econnrefused;
    new.mode = Mode::Audit;
    (old, new)
}

#[test]
fn everything_at_once_as_text() {
    let (old, new) = pair();
    insta::assert_snapshot!(text(&between(&old, &new)));
}

#[test]
fn everything_at_once_as_json() {
    let (old, new) = pair();
    let json = serde_json::to_value(between(&old, &new)).unwrap();
    insta::assert_snapshot!(format!("{json:#}"));
}

#[test]
fn everything_in_reverse_as_text() {
    let (old, new) = pair();
    insta::assert_snapshot!(text(&between(&new, &old)));
}

#[test]
fn signs_are_coloured() {
    let diff = between(
        &policy(vec![rule("a", Action::Allow, "any")]),
        &policy(Vec::new()),
    );
    assert_eq!(
        diff.render(),
        "  \u{1b}[31m-\u{1b}[0m rule a (allow), every address\n"
    );
}

#[test]
fn generation_and_layout_are_no_difference() {
    let (old, new) = pair();
    for one in [policy(Vec::new()), old, new] {
        let first = Compiled::of(&one, 1);
        assert!(diff(&first.named_image(), &first.named_image()).is_empty());
        // Another generation and another layout: nonzero counters, an additional page.
        let again = Compiled::of(&one, 2);
        let mut pages: Vec<Page> = again.image.pages().to_vec();
        let counters = again.image.header().counters();
        pages[counters.page() as usize][counters.word()] = 77;
        pages.push([3; 512]);
        pages[0][3] += 1 << 32;
        let again = Compiled {
            image: Image::from_pages(pages).unwrap(),
            rules: again.rules,
        };
        let diff = diff(&first.named_image(), &again.named_image());
        assert!(diff.is_empty());
        assert_eq!(diff.render(), "");
    }
}

#[test]
fn equivalent_rules_are_equal() {
    let one = policy(vec![rule("a", Action::Allow, "10.0.0.0/9 10.128.0.0/9")]);
    let other = policy(vec![rule("a", Action::Allow, "10.0.0.0/8 10.1.0.0/16")]);
    assert!(between(&one, &other).is_empty());
}

#[test]
fn added_and_removed_rules_do_not_change_other_rules() {
    let mut old: Vec<Rule> = (0..130)
        .map(|i| rule(&format!("r{i}"), Action::Allow, &format!("10.{i}.0.0/16")))
        .collect();
    old.push(rule("all", Action::Block, "any"));
    let mut new = old.clone();
    // The bitmaps get shorter, and every rule gets another index.
    new.drain(20..90);
    new.insert(0, rule("first", Action::Kill, "10.200.0.0/16"));
    let diff = between(&policy(old), &policy(new));
    assert_eq!((diff.removed.len(), diff.added.len()), (70, 1));
    assert_eq!(diff.changed, []);
    let first = &diff.added[0];
    assert_eq!((first.position, first.next_rule.as_deref()), (1, Some("r0")));
    assert_eq!((first.ipv4.exact(), first.ipv6.exact()), (Some(1 << 16), Some(0)));
    assert_eq!(diff.removed[0].name, "r20");
    assert_eq!(diff.removed[0].position, 21);
}

#[test]
fn moved_rules_are_reported() {
    let of = |names: &str| {
        let one = |name| rule(name, Action::Allow, "any");
        policy(names.split(' ').map(one).collect())
    };
    let diff = between(&of("a b c d"), &of("c a b d"));
    assert_eq!(text(&diff), "  ~ rule c: moved before a\n");
    let moved = diff.changed[0].moved.as_ref().unwrap();
    assert_eq!((moved.from, moved.to), (3, 1));
    let diff = between(&of("a b c"), &of("b x c a"));
    assert_eq!(
        text(&diff),
        "  + rule x (allow) before c, every address\n  ~ rule a: moved to the end\n"
    );
}

#[test]
fn from_any_to_a_selection() {
    let mut one = policy(vec![rule("a", Action::Allow, "any")]);
    let mut other = one.clone();
    other.rules[0].to = addresses("10.0.0.0/8 2001:db8::/32");
    other.rules[0].services = ports(Protocol::TCP, 443, 443);
    other.rules[0].subject.uids = Some(vec![1000]);
    insta::assert_snapshot!(text(&between(&one, &other)));
    one.rules[0].to = addresses("0.0.0.0/0");
    other.rules[0].to = addresses("::/0");
    insta::assert_snapshot!(text(&between(&one, &other)));
}

#[test]
fn executables_are_compared_by_file() {
    let mut one = policy(vec![rule("a", Action::Allow, "any")]);
    one.rules[0].subject.binaries = Some(vec![binary("/usr/bin/curl")]);
    let with = |inode: u64| {
        let id = ExecutableId { device: 5, inode };
        let executables = Identities::from_iter([(PathBuf::from("/usr/bin/curl"), id)]);
        Compiled::with(&one, &executables, 1)
    };
    assert!(diff(&with(7).named_image(), &with(7).named_image()).is_empty());
    let diff = diff(&with(7).named_image(), &with(8).named_image());
    assert_eq!(text(&diff), "  ~ rule a: executables changed\n");
}

#[test]
fn control_characters_in_names_are_escaped() {
    let of = |name: &str| policy(vec![rule(name, Action::Allow, "10.0.0.0/8")]);
    let diff = between(&of("\u{1b}[2J"), &of("a\nb"));
    assert_eq!(
        text(&diff),
        "  + rule a\\nb (allow), 16,777,216 addresses\n  - rule \\u{1b}[2J (allow), 16,777,216 addresses\n"
    );
}

/// Tables of every kind: exactly the addresses added to a feed are gained.
#[test]
fn a_small_change_of_a_large_set() {
    let of = |v4: u32, v6: u128| {
        let sparse = (0..v4).map(|i| IpAddr::from((i.wrapping_mul(0x9e37_79b1) | 1).to_be_bytes()));
        let dense = (0..v6).map(|i| IpAddr::from((0x2001_0db8 << 96 | i << 1).to_be_bytes()));
        let mut one = policy(vec![
            rule("feed", Action::Kill, "any"),
            rule("all", Action::Allow, "any"),
        ]);
        one.rules[0].to = AddressSet::of(sparse.chain(dense).map(Into::into));
        one
    };
    for (v4, v6) in [(20, 20), (2_000, 400), (60_000, 50_000)] {
        let mut new = of(v4, v6);
        new.rules[0].to = new.rules[0].to.union(&addresses("0.0.0.2/32 2001:db8:9::/127"));
        let diff = between(&of(v4, v6), &new);
        let gained = "+1 address 0.0.0.2; +2 IPv6 addresses 2001:db8:9::/127";
        assert_eq!(text(&diff), format!("  ~ rule feed: {gained}\n"));
    }
}
