//! What a call costs: the paired rows.

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

/// The rows between which the design allows a factor of two.
const THOUSAND: &str = "cidrs/v4/1k/hit-spread";
const MILLION: &str = "cidrs/v4/1m/hit-spread";

/// Measures the rows; what is left out goes to `left_out`.
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
                "{}: others have programs on this hook all the while: there is nothing to compare with",
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
        title: "What a call costs, beside the same call without",
        note: "Nanoseconds a call: medians over pairs of batches, the two sides in turns, in one process. Ratio: median of the \
               ratios within the pairs, with the 10th and 90th percentile; of means: ratio of the means (without the dearest \
               fiftieth), in which what happens in few batches counts too. The plain side is a socket that nothing stands on, \
               beside one on which something does: once a program is attached anywhere, the kernel takes a longer way for all \
               sockets. `policy-toggled` attaches and detaches in turns, and so compares with a machine without any program; \
               `policy-elsewhere` does that with the gate of another cgroup. `spread` goes to 65,536 addresses in turn, `hot` to \
               one. `allow-list`: nftables judges packets, not connects; its rows pay where something is sent, in a network \
               namespace of their own, whose cost without rules is `other-network`.",
        head: vec![
            "plain ns", "gated ns", "added ns", "ratio", "p10..p90", "of means",
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
            "calls_a_batch": row.call.batch(),
        }),
        budget_result,
    }
}

/// How the cost grows from a thousand networks to a million.
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
