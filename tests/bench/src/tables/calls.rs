//! The cost of a call: the paired rows.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde_json::json;

use super::progress;
use crate::{
    cpu,
    fixture::Fixture,
    nft,
    report::{Budget, Line, Section},
    row::{Comparison, Planned, Row, Side},
    statistics::Paired,
};

/// The cost may at most double between these rows.
const THOUSAND: &str = "cidrs/v4/1k/hit-spread";
const MILLION: &str = "cidrs/v4/1m/hit-spread";

/// Measures the rows; reasons for skipped ones are added to `skipped`.
pub(crate) fn measure(
    fixture: &mut Fixture<'_>,
    rows: Vec<Planned>,
    skipped: &mut Vec<String>,
) -> Result<Section> {
    cpu::pin_to(cpu::Role::Caller);
    let nftables = nft::usable(fixture.cgroups());
    let mut lines = Vec::new();
    let mut added = HashMap::new();
    let count = rows.len();
    for (i, planned) in rows.into_iter().enumerate() {
        let row = match planned {
            Ok(row) => row,
            Err(reason) => {
                skipped.push(reason);
                continue;
            }
        };
        if let (Comparison::Sides(_, Side::Nftables(_)), Err(why)) = (&row.comparison, &nftables) {
            skipped.push(format!("{}: {why}", row.name));
            continue;
        }
        progress(&format!("{}/{count} {}", i + 1, row.name));
        let paired = fixture.measure(&row).with_context(|| row.name.clone())?;
        if paired.pairs == 0 {
            skipped.push(format!(
                "{}: other programs are attached to this hook, so there is no baseline",
                row.name
            ));
            continue;
        }
        added.insert(row.name.clone(), paired.added_ns.median);
        lines.push(line(&row, &paired));
    }
    if let (Some(&thousand), Some(&million)) = (added.get(THOUSAND), added.get(MILLION)) {
        lines.push(growth(thousand, million));
    }
    cpu::pin_to(cpu::Role::Any);
    Ok(Section {
        key: "calls",
        title: "Cost of a call, compared with the same call without a policy",
        note: "Nanoseconds per call: medians over pairs of batches; both sides alternate in one process. `ratio` is the median of \
               the ratios within the pairs, with the 10th and 90th percentile. `of means` is the ratio of the means (without \
               the slowest 2 %), which includes costs that occur in few batches. The baseline is a socket without a policy, \
               next to one with a policy: once a program is attached to any cgroup, the kernel takes a longer path for all \
               sockets. `policy-toggled` attaches and detaches the policy alternately, so its baseline is a machine without \
               any program; `policy-elsewhere` does this with a policy on another cgroup. `spread` connects to 65,536 \
               addresses in turn, `hot` to one. `allow-list`: nftables filters packets, not connects, so its cost is that of \
               sending. Its rows run in another network namespace; `other-network` is the cost of that without rules.",
        head: vec![
            "baseline ns",
            "policy ns",
            "added ns",
            "ratio",
            "p10..p90",
            "of means",
        ],
        lines,
    })
}

fn line(row: &Row, paired: &Paired) -> Line {
    let ratio = paired.ratio;
    let budget_result = row.budget.map(|budget| {
        budget.check(match budget {
            Budget::AddedNs(_) => paired.added_ns.median,
            _ => ratio.median,
        })
    });
    Line {
        name: row.name.clone(),
        cells: vec![
            format!("{:.0}", paired.baseline_ns.median),
            format!("{:.0}", paired.with_policy_ns.median),
            format!("{:+.0}", paired.added_ns.median),
            format!("{:.3}", ratio.median),
            format!("{:.2}..{:.2}", ratio.p10, ratio.p90),
            format!("{:.2}", paired.mean_ratio),
        ],
        values: json!({
            "baseline_ns": paired.baseline_ns.json(),
            "with_policy_ns": paired.with_policy_ns.json(),
            "added_ns": paired.added_ns.json(),
            "ratio": ratio.json(),
            "mean_ratio": paired.mean_ratio,
            "pairs": paired.pairs,
            "calls_per_batch": row.call.batch(),
        }),
        budget_result,
    }
}

/// The growth of the cost from a thousand networks to a million.
fn growth(thousand: f64, million: f64) -> Line {
    let ratio = million / thousand;
    Line {
        name: "cost at 1m over cost at 1k".to_owned(),
        cells: vec![
            format!("{thousand:+.0}"),
            format!("{million:+.0}"),
            format!("{:+.0}", million - thousand),
            format!("{ratio:.3}"),
            String::new(),
            String::new(),
        ],
        values: json!({"added_ns_at_1k": thousand, "added_ns_at_1m": million, "ratio": ratio}),
        budget_result: Some(Budget::Ratio(2.0).check(ratio)),
    }
}
