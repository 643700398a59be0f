//! The verifier's work for each program, compared with docs/verifier.json: a program that needs much more than before may
//! soon be refused by some kernel.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture that does not work fails the test"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    program_info::verified_instructions,
    requirement::{Need, met},
    verifier_log,
};
use serde::Deserialize;

/// The record, written by `cargo xtask vm --record-verifier`.
const RECORD: &str = include_str!("../../../docs/verifier.json");

/// Set while the record is written: then nothing is compared.
const RECORDING: &str = "TIDEGATE_RECORD_VERIFIER";

/// Allowed growth over the record, in percent.
const MARGIN: u32 = 20;

#[derive(Deserialize)]
struct Row {
    programs: BTreeMap<String, Option<u32>>,
}

/// Any policy: all use the same programs.
const POLICY: &str = "{default: audit}";

/// The pinned programs below a directory.
fn programs(dir: &Path, found: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            programs(&path, found);
        } else if dir.ends_with("programs") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.insert(name, path);
        }
    }
}

/// The verifier's work for each pinned program.
fn counted() -> BTreeMap<String, Option<u32>> {
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    let policy = fixture.policy("counted", POLICY);
    let args = ["attach", "--policy", &policy, "--cgroup", &cgroup.cgroup_path()];
    fixture.run_ok(args);
    let mut pins = BTreeMap::new();
    programs(fixture.pins(), &mut pins);
    assert!(
        pins.contains_key("connect4"),
        "no programs below {}",
        fixture.pins().display()
    );
    let counts = pins
        .into_iter()
        .map(|(name, pin)| (name, verified_instructions(&pin).expect("a program")));
    let mut counts: BTreeMap<String, Option<u32>> = counts.collect();
    if counts.values().all(Option::is_none) {
        // This kernel reports it only while loading.
        fixture.run_ok(["detach", "--all"]);
        let logged = verifier_log::counted(&mut fixture.command(args));
        for (name, count) in &mut counts {
            // The kernel truncates names to 15 characters.
            let kept = name.get(..15).unwrap_or(name);
            *count = logged.get(kept).copied();
        }
    }
    counts
}

/// `6.18` of `6.18.15+deb13-cloud-amd64`.
fn version() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<&str> = release.trim().split(['.', '-', '+']).take(2).collect();
    numbers.join(".")
}

/// The error for a program whose count has grown too much.
fn complaint(kernel: &str, program: &str, count: Option<u32>, record: Option<Option<u32>>) -> Option<String> {
    let update = "if that is meant, `cargo xtask vm --record-verifier` writes the new record";
    match (count, record) {
        (_, None) => Some(format!(
            "`{program}` on {kernel} is not in docs/verifier.json: run `cargo xtask vm --record-verifier`"
        )),
        (None, Some(Some(before))) => Some(format!(
            "`{program}` on {kernel}: {before} are on record, but the kernel reports none now"
        )),
        (Some(now), Some(Some(before))) if now > before + before * MARGIN / 100 => Some(format!(
            "`{program}` takes the verifier of {kernel} {now} instructions, and {before} are on record: \
             more than {MARGIN} percent above it. CONTRIBUTING.md explains what makes the verifier work \
             (\"When the verifier refuses a program\"); {update}"
        )),
        _ => None,
    }
}

#[test]
fn verifier_work_has_not_grown() {
    const NAME: &str = "verifier_work_has_not_grown";
    if !met(NAME, &[Need::Root]) {
        return;
    }
    let record: BTreeMap<String, Row> = serde_json::from_str(RECORD).expect("docs/verifier.json");
    let kernel = version();
    let is_recording = std::env::var_os(RECORDING).is_some();
    let known = is_recording || record.contains_key(&kernel);
    let row = "a row in docs/verifier.json (`cargo xtask vm --record-verifier` writes those of the matrix)";
    if !met(NAME, &[Need::Kernel(known, row)]) {
        return;
    }
    let counts = counted();
    for (program, count) in &counts {
        // `cargo xtask vm --record-verifier` reads these lines.
        let count = count.map_or("-".to_owned(), |count| count.to_string());
        println!("VERIFIER {kernel} {program} {count}");
    }
    if is_recording {
        return;
    }
    let recorded = &record[&kernel].programs;
    let complaints: Vec<String> = counts
        .iter()
        .filter_map(|(program, count)| complaint(&kernel, program, *count, recorded.get(program).copied()))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn growth_beyond_the_margin_is_an_error() {
    let error = |now, before| complaint("6.1", "connect4", now, before).unwrap_or_default();
    assert_eq!(error(Some(1200), Some(Some(1000))), "");
    assert_eq!(error(Some(10), Some(Some(1000))), "");
    assert_eq!(error(None, Some(None)), "");
    assert_eq!(error(Some(10), Some(None)), "");
    let growth = error(Some(1201), Some(Some(1000)));
    assert!(
        growth.contains("1201") && growth.contains("1000") && growth.contains("--record-verifier"),
        "{growth}"
    );
    assert!(error(Some(10), None).contains("not in docs/verifier.json"));
    assert!(error(None, Some(Some(10))).contains("reports none"));
}

#[test]
fn program_info_matches_the_verifier_log() {
    const NAME: &str = "program_info_matches_the_verifier_log";
    if !met(NAME, &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    let policy = fixture.policy("counted", POLICY);
    let args = ["attach", "--policy", &policy, "--cgroup", &cgroup.cgroup_path()];
    let logged = verifier_log::counted(&mut fixture.command(args));
    let mut pins = BTreeMap::new();
    programs(fixture.pins(), &mut pins);
    let counts: Vec<Option<u32>> = pins
        .values()
        .map(|pin| verified_instructions(pin).unwrap())
        .collect();
    let is_reported = counts.iter().all(Option::is_some);
    if !met(
        NAME,
        &[Need::Kernel(
            is_reported,
            "bpf_prog_info.verified_insns (Linux 5.16)",
        )],
    ) {
        return;
    }
    for ((name, _), counts) in pins.iter().zip(counts) {
        assert_eq!(
            logged.get(name.get(..15).unwrap_or(name)).copied(),
            counts,
            "{name}"
        );
    }
}
