//! Compares the compiled tables with the naive evaluator, for random policies and for attempts near the
//! edges of what the rules cover. Also compares the diff of two images with the rules of both policies.
//!
//! Every run uses the same policies. `TIDEGATE_TEST_SEED` (an integer) changes them, and
//! `TIDEGATE_TEST_POLICIES` sets the number of small policies.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod attempts;
mod differences;
mod listed;
mod policies;
mod random;
mod versions;

use engine_common::{Attempt, SocketFamily, UnixSocketId, image::Revision};
use policies::Shape;
use random::Random;
use tidegate_core::{
    compile::{Identities, Image, compile, oracle},
    policy::Policy,
};

/// An evaluation of a policy.
#[derive(Clone, Copy, Debug)]
enum Query {
    Attempt(Attempt),
    Socket(SocketFamily, Attempt),
    Unix(UnixSocketId, Attempt),
}

fn image(policy: &Policy, executables: &Identities) -> Image {
    let revision = Revision {
        generation: 7,
        mode: policy.mode,
    };
    compile(policy, executables, revision).unwrap()
}

/// Both verdicts, if they differ.
fn disagreement(policy: &Policy, executables: &Identities, image: &Image, query: &Query) -> Option<String> {
    let (tables, oracle) = match query {
        Query::Attempt(attempt) => (
            image.decide(attempt),
            oracle::evaluate(policy, executables, attempt),
        ),
        Query::Socket(family, a) => (
            image.decide_socket(*family, a.protocol, a.uid, a.executable),
            oracle::decide_socket(policy, executables, *family, a.protocol, a.uid, a.executable),
        ),
        Query::Unix(socket, a) => (
            image.decide_unix(*socket, a.uid, a.executable),
            oracle::decide_unix(policy, executables, *socket, a.uid, a.executable),
        ),
    };
    (tables != oracle).then(|| format!("tables: {tables:?}\noracle: {oracle:?}"))
}

/// Removes rules while the verdicts still differ, then fails with the smallest policy.
fn fail(mut policy: Policy, executables: &Identities, query: &Query, seed: u64) -> ! {
    let differ = |policy: &Policy| {
        let image = image(policy, executables);
        disagreement(policy, executables, &image, query)
    };
    let mut rule = policy.rules.len();
    while rule > 0 {
        rule -= 1;
        let mut fewer = policy.clone();
        fewer.rules.remove(rule);
        if differ(&fewer).is_some() {
            policy = fewer;
        }
    }
    let verdicts = differ(&policy).unwrap_or_default();
    panic!("{verdicts}\nquery: {query:#x?}\nseed: {seed}\nexecutables: {executables:?}\npolicy: {policy:#?}");
}

fn seed() -> u64 {
    match std::env::var("TIDEGATE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("TIDEGATE_TEST_SEED is an integer"),
        Err(_) => 0x7469_6465,
    }
}

/// Compares the verdicts of `policies` random policies for `queries` queries each.
fn compare(shape: Shape, policies: usize, queries: usize) {
    for index in 0..policies as u64 {
        let seed = seed()
            .wrapping_mul(1_000_003)
            .wrapping_add((shape as u64) << 48 | index);
        let mut random = Random::new(seed);
        let (policy, executables) = policies::policy(&mut random, shape);
        let image = image(&policy, &executables);
        assert_eq!(image.header().page_count() as usize, image.pages().len());
        assert_eq!(image.header().rule_count() as usize, policy.rules.len());
        let generator = attempts::Generator::new(&policy, &executables);
        for _ in 0..queries {
            let attempt = generator.attempt(&mut random);
            let query = match random.below(8) {
                0 => Query::Socket(SocketFamily::Inet, attempt),
                1 => Query::Socket(SocketFamily::Inet6, attempt),
                2 => Query::Unix(generator.unix_socket(&mut random), attempt),
                _ => Query::Attempt(attempt),
            };
            if disagreement(&policy, &executables, &image, &query).is_some() {
                fail(policy, &executables, &query, seed);
            }
        }
    }
}

#[test]
fn small_policies() {
    let policies = match std::env::var("TIDEGATE_TEST_POLICIES") {
        Ok(number) => number.parse().expect("TIDEGATE_TEST_POLICIES is an integer"),
        Err(_) => 10_000,
    };
    compare(Shape::Small, policies, 24);
}

#[test]
fn many_rules() {
    compare(Shape::ManyRules, 60, 120);
}

#[test]
fn the_maximum_number_of_rules() {
    compare(Shape::MostRules, 6, 300);
}

#[test]
fn many_addresses() {
    compare(Shape::ManyAddresses, 60, 400);
}

#[test]
fn many_ports_and_subjects() {
    compare(Shape::ManySubjects, 40, 400);
}
