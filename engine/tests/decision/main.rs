//! The compiled tables and the loop over the rules must give the same answers, for random policies
//! and attempts aimed at the edges of what the rules cover. So must the differences of two versions of
//! a policy, read from their images, and its rules.
//!
//! The same policies in each run; `TIDEGATE_TEST_SEED` (a number) gives others, and
//! `TIDEGATE_TEST_POLICIES` changes how many small ones there are.
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
use tidegate::{
    compile::{Identities, Image, compile, oracle},
    policy::Policy,
};

/// What is asked of a policy.
#[derive(Clone, Copy, Debug)]
enum Question {
    Attempt(Attempt),
    Socket(SocketFamily, Attempt),
    Unix(UnixSocketId, Attempt),
}

fn image(policy: &Policy, executables: &Identities) -> Image {
    let life = Revision {
        generation: 7,
        mode: policy.mode,
    };
    compile(policy, executables, life).unwrap()
}

/// Both answers, if they differ.
fn disagreement(
    policy: &Policy,
    executables: &Identities,
    image: &Image,
    question: &Question,
) -> Option<String> {
    let (tables, oracle) = match question {
        Question::Attempt(attempt) => (
            image.decide(attempt),
            oracle::evaluate(policy, executables, attempt),
        ),
        Question::Socket(family, a) => (
            image.decide_socket(*family, a.protocol, a.uid, a.executable),
            oracle::decide_socket(policy, executables, *family, a.protocol, a.uid, a.executable),
        ),
        Question::Unix(place, a) => (
            image.decide_unix(*place, a.uid, a.executable),
            oracle::decide_unix(policy, executables, *place, a.uid, a.executable),
        ),
    };
    (tables != oracle).then(|| format!("tables: {tables:?}\noracle: {oracle:?}"))
}

/// Leaves out rules as long as the answers still differ, then fails.
fn fail(mut policy: Policy, executables: &Identities, question: &Question, seed: u64) -> ! {
    let differ = |policy: &Policy| {
        let image = image(policy, executables);
        disagreement(policy, executables, &image, question)
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
    let answers = differ(&policy).unwrap_or_default();
    panic!(
        "{answers}\nasked: {question:#x?}\nseed: {seed}\nexecutables: {executables:?}\npolicy: {policy:#?}"
    );
}

fn seed() -> u64 {
    match std::env::var("TIDEGATE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("TIDEGATE_TEST_SEED is a number"),
        Err(_) => 0x7469_6465,
    }
}

/// Compares the answers of `policies` random policies to `questions` questions each.
fn agree(shape: Shape, policies: usize, questions: usize) {
    for number in 0..policies as u64 {
        let seed = seed()
            .wrapping_mul(1_000_003)
            .wrapping_add((shape as u64) << 48 | number);
        let mut random = Random::new(seed);
        let (policy, executables) = policies::policy(&mut random, shape);
        let image = image(&policy, &executables);
        assert_eq!(image.header().page_count() as usize, image.pages().len());
        assert_eq!(image.header().rule_count() as usize, policy.rules.len());
        let aim = attempts::Aim::new(&policy, &executables);
        for _ in 0..questions {
            let attempt = aim.attempt(&mut random);
            let question = match random.below(8) {
                0 => Question::Socket(SocketFamily::Inet, attempt),
                1 => Question::Socket(SocketFamily::Inet6, attempt),
                2 => Question::Unix(aim.place(&mut random), attempt),
                _ => Question::Attempt(attempt),
            };
            if disagreement(&policy, &executables, &image, &question).is_some() {
                fail(policy, &executables, &question, seed);
            }
        }
    }
}

#[test]
fn small_policies() {
    let policies = match std::env::var("TIDEGATE_TEST_POLICIES") {
        Ok(number) => number.parse().expect("TIDEGATE_TEST_POLICIES is a number"),
        Err(_) => 10_000,
    };
    agree(Shape::Small, policies, 24);
}

#[test]
fn many_rules() {
    agree(Shape::ManyRules, 60, 120);
}

#[test]
fn every_rule_there_can_be() {
    agree(Shape::MostRules, 6, 300);
}

#[test]
fn many_addresses() {
    agree(Shape::ManyAddresses, 60, 400);
}

#[test]
fn many_ports_and_subjects() {
    agree(Shape::ManySubjects, 40, 400);
}
