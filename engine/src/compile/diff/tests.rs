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
        sample::{addresses, policy, ports, rule},
    },
    policy::{AddressSet, Binary, Errno, Policy, Rule},
};

/// A policy with what makes it a [`Side`].
struct Compiled {
    image: Image,
    rules: Vec<String>,
}

impl Compiled {
    fn of(policy: &Policy, generation: u64) -> Compiled {
        Compiled::with(policy, &Identities::synthetic(policy), generation)
    }

    fn with(policy: &Policy, executables: &Identities, generation: u64) -> Compiled {
        let life = Revision {
            generation,
            mode: policy.mode,
        };
        Compiled {
            image: compile(policy, executables, life).unwrap(),
            rules: policy.rules.iter().map(|rule| rule.name.clone()).collect(),
        }
    }

    fn side(&self) -> Side<'_> {
        Side {
            image: &self.image,
            rules: &self.rules,
        }
    }
}

fn between(old: &Policy, new: &Policy) -> PolicyDiff {
    let (old, new) = (Compiled::of(old, 1), Compiled::of(new, 2));
    diff(&old.side(), &new.side())
}

fn text(diff: &PolicyDiff) -> String {
    anstream::adapter::strip_str(&diff.render()).to_string()
}

fn binary(path: &str) -> Binary {
    Binary {
        path: PathBuf::from(path),
    }
}

/// A little of everything.
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
fn there_and_back_again() {
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
fn what_is_no_difference() {
    let (old, new) = pair();
    for one in [policy(Vec::new()), old, new] {
        let first = Compiled::of(&one, 1);
        assert!(diff(&first.side(), &first.side()).is_empty());
        // Another generation, and another layout: counters that have counted, a page more.
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
        let diff = diff(&first.side(), &again.side());
        assert!(diff.is_empty());
        assert_eq!(diff.render(), "");
    }
}

#[test]
fn a_rule_that_says_the_same_in_another_way_is_the_same() {
    let one = policy(vec![rule("a", Action::Allow, "10.0.0.0/9 10.128.0.0/9")]);
    let other = policy(vec![rule("a", Action::Allow, "10.0.0.0/8 10.1.0.0/16")]);
    assert!(between(&one, &other).is_empty());
}

#[test]
fn other_rules_that_come_and_go_change_nothing_of_a_rule() {
    let mut old: Vec<Rule> = (0..130)
        .map(|i| rule(&format!("r{i}"), Action::Allow, &format!("10.{i}.0.0/16")))
        .collect();
    old.push(rule("all", Action::Block, "any"));
    let mut new = old.clone();
    // The bitmaps get shorter, and every rule another number.
    new.drain(20..90);
    new.insert(0, rule("first", Action::Kill, "10.200.0.0/16"));
    let diff = between(&policy(old), &policy(new));
    assert_eq!((diff.removed.len(), diff.added.len()), (70, 1));
    assert_eq!(diff.changed, []);
    let first = &diff.added[0];
    assert_eq!((first.position, first.before.as_deref()), (1, Some("r0")));
    assert_eq!((first.ipv4.exact(), first.ipv6.exact()), (Some(1 << 16), Some(0)));
    assert_eq!(diff.removed[0].name, "r20");
    assert_eq!(diff.removed[0].position, 21);
}

#[test]
fn order_is_meaning() {
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
fn from_anything_to_something() {
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
fn executables_are_files_and_not_paths() {
    let mut one = policy(vec![rule("a", Action::Allow, "any")]);
    one.rules[0].subject.binaries = Some(vec![binary("/usr/bin/curl")]);
    let with = |inode: u64| {
        let id = ExecutableId { device: 5, inode };
        let executables = Identities::from_iter([(PathBuf::from("/usr/bin/curl"), id)]);
        Compiled::with(&one, &executables, 1)
    };
    assert!(diff(&with(7).side(), &with(7).side()).is_empty());
    let diff = diff(&with(7).side(), &with(8).side());
    assert_eq!(text(&diff), "  ~ rule a: executables changed\n");
}

#[test]
fn names_cannot_speak_to_the_terminal() {
    let of = |name: &str| policy(vec![rule(name, Action::Allow, "10.0.0.0/8")]);
    let diff = between(&of("\u{1b}[2J"), &of("a\nb"));
    assert_eq!(
        text(&diff),
        "  + rule a\\nb (allow), 16,777,216 addresses\n  - rule \\u{1b}[2J (allow), 16,777,216 addresses\n"
    );
}

/// Tables of every shape: what is added to a feed, and only that, is gained.
#[test]
fn few_among_many() {
    let of = |v4: u32, v6: u128| {
        let spread = (0..v4).map(|i| IpAddr::from((i.wrapping_mul(0x9e37_79b1) | 1).to_be_bytes()));
        let crowd = (0..v6).map(|i| IpAddr::from((0x2001_0db8 << 96 | i << 1).to_be_bytes()));
        let mut one = policy(vec![
            rule("feed", Action::Kill, "any"),
            rule("all", Action::Allow, "any"),
        ]);
        one.rules[0].to = AddressSet::of(spread.chain(crowd).map(Into::into));
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
