//! The rows of the first table.

use crate::{
    address::Family,
    call::Call,
    policies::{Shape, deduplication},
    report::Budget,
};

/// What is attached to the cgroup of one side of a pair.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Side {
    /// Nothing.
    NoPolicy,
    /// A program that only returns 1, on the hook of the call.
    EmptyProgram,
    /// These policies.
    Policies(Vec<Shape>),
    /// nftables in the network of the socket: allows the addresses of this shape for the cgroup and drops the rest.
    Nftables(Shape),
    /// Nothing, but in the network that the nftables rows use.
    OtherNetwork,
}

/// How the two sides are measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Comparison {
    /// Two sockets with alternating batches.
    Sides(Side, Side),
    /// One socket, and a policy that is attached and detached alternately: this compares with a machine without any
    /// attached program.
    Toggled {
        shape: Shape,
        /// The policy is attached to a cgroup that does not contain the socket.
        elsewhere: bool,
    },
}

/// The destinations of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destinations {
    /// One address, in the documentation networks.
    Documentation,
    /// This many generated networks.
    Generated {
        networks: usize,
        /// Addresses inside the networks, or outside.
        hit: bool,
        /// Many addresses, or a single one.
        spread: bool,
    },
}

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) call: Call,
    pub(crate) family: Family,
    pub(crate) comparison: Comparison,
    pub(crate) destinations: Destinations,
    /// Whether the calls under the policy must fail.
    pub(crate) refused: bool,
    pub(crate) budget: Option<Budget>,
}

/// A row, or why it is skipped.
pub(crate) type Planned = Result<Row, String>;

/// All rows.
pub(crate) fn rows() -> Vec<Planned> {
    let mut rows = Vec::new();
    headline(&mut rows);
    for call in [Call::UdpConnect, Call::UdpSendto, Call::TcpConnect] {
        for family in Family::BOTH {
            actions(call, family, &mut rows);
        }
    }
    cidrs(&mut rows);
    rules_and_stacks(&mut rows);
    nftables(&mut rows);
    rows
}

fn policy(shape: Shape) -> Side {
    Side::Policies(vec![shape])
}

/// The policy that DESIGN.md sets its budgets for.
const LARGE: usize = 100_000;

fn headline(rows: &mut Vec<Planned>) {
    let shape = |action| Shape {
        action,
        ..Shape::allowing(256, Family::V4, LARGE)
    };
    let row = |name: &str, comparison, budget| {
        Ok(Row {
            name: format!("headline/{name}"),
            call: Call::UdpConnect,
            family: Family::V4,
            comparison,
            destinations: Destinations::Generated {
                networks: LARGE,
                hit: true,
                spread: true,
            },
            refused: false,
            budget: Some(budget),
        })
    };
    let compared_with = |baseline, action| Comparison::Sides(baseline, policy(shape(action)));
    let toggled = Comparison::Toggled {
        shape: shape("allow"),
        elsewhere: false,
    };
    let over_empty = compared_with(Side::EmptyProgram, "allow");
    rows.extend([
        row("allowed-over-empty-program", over_empty, Budget::AddedNs(100.0)),
        row(
            "allowed-over-no-policy",
            compared_with(Side::NoPolicy, "allow"),
            Budget::Ratio(1.35),
        ),
        row("allowed-toggled", toggled, Budget::Ratio(1.35)),
        row(
            "audited-over-no-policy",
            compared_with(Side::NoPolicy, "audit"),
            Budget::Ratio(1.6),
        ),
    ]);
}

fn actions(call: Call, family: Family, rows: &mut Vec<Planned>) {
    let name = |what: &str| format!("{}/{}/{what}", call.as_str(), family.as_str());
    let row = |what, comparison, budget| Row {
        name: name(what),
        call,
        family,
        comparison,
        destinations: Destinations::Documentation,
        refused: what == "blocked",
        budget,
    };
    let compared_with_none = |side| Comparison::Sides(Side::NoPolicy, side);
    let silent = (call == Call::TcpConnect).then_some(Budget::Ratio(1.02));
    let with_event = match call {
        Call::UdpConnect => Some(Budget::Ratio(1.6)),
        _ => None,
    };
    rows.push(Ok(row("no-policy", compared_with_none(Side::NoPolicy), None)));
    let toggled = |elsewhere| Comparison::Toggled {
        shape: Shape::small("allow"),
        elsewhere,
    };
    rows.push(Ok(row("policy-elsewhere", toggled(true), Some(Budget::Nothing))));
    rows.push(Ok(row("policy-toggled", toggled(false), silent)));
    rows.push(Ok(row(
        "empty-program",
        compared_with_none(Side::EmptyProgram),
        None,
    )));
    let policies = [
        ("allowed", "allow", silent),
        ("audited", "audit", with_event),
        ("blocked", "block", None),
    ];
    for (what, action, budget) in policies {
        rows.push(Ok(row(
            what,
            compared_with_none(policy(Shape::small(action))),
            budget,
        )));
        if action == "audit" {
            let deduplicated = Shape {
                deduplicates: true,
                ..Shape::small(action)
            };
            rows.push(match deduplication() {
                Some(_) => Ok(row(
                    "audited-deduplicated",
                    compared_with_none(policy(deduplicated)),
                    with_event,
                )),
                None => Err(format!(
                    "{}: this version does not suppress duplicates",
                    name("audited-deduplicated")
                )),
            });
        }
    }
}

fn cidrs(rows: &mut Vec<Planned>) {
    let sizes = [(10, "10"), (1000, "1k"), (LARGE, "100k"), (1_000_000, "1m")];
    for family in Family::BOTH {
        for (networks, size) in sizes {
            if family == Family::V6 && networks != LARGE {
                continue;
            }
            for (hit, spread) in [(true, false), (true, true), (false, false), (false, true)] {
                let where_to = if hit { "hit" } else { "miss" };
                let how = if spread { "spread" } else { "hot" };
                rows.push(Ok(Row {
                    name: format!("cidrs/{}/{size}/{where_to}-{how}", family.as_str()),
                    call: Call::UdpConnect,
                    family,
                    comparison: Comparison::Sides(
                        Side::NoPolicy,
                        policy(Shape::allowing(1, family, networks)),
                    ),
                    destinations: Destinations::Generated {
                        networks,
                        hit,
                        spread,
                    },
                    refused: false,
                    budget: None,
                }));
            }
        }
    }
}

fn rules_and_stacks(rows: &mut Vec<Planned>) {
    let row = |name, shapes, networks| {
        Ok(Row {
            name,
            call: Call::UdpConnect,
            family: Family::V4,
            comparison: Comparison::Sides(Side::NoPolicy, Side::Policies(shapes)),
            destinations: Destinations::Generated {
                networks,
                hit: true,
                spread: true,
            },
            refused: false,
            budget: None,
        })
    };
    for rules in [1, 64, 1024] {
        let shape = Shape::allowing(rules, Family::V4, 1024);
        rows.push(row(format!("rules/{rules}"), vec![shape], 1024));
    }
    for stacked in 1..=4 {
        let shapes = (0..stacked).map(|number| Shape {
            number,
            ..Shape::allowing(16, Family::V4, 1000)
        });
        rows.push(row(format!("stacked/{stacked}"), shapes.collect(), 1000));
    }
}

fn nftables(rows: &mut Vec<Planned>) {
    for (networks, size) in [(1000, "1k"), (LARGE, "100k")] {
        let shape = Shape::allowing(1, Family::V4, networks);
        for call in [Call::UdpSendto, Call::UdpConnectSend] {
            let sides = [
                ("other-network", Side::OtherNetwork),
                ("policy", policy(shape.clone())),
                ("nftables", Side::Nftables(shape.clone())),
            ];
            for (what, side) in sides {
                rows.push(Ok(Row {
                    name: format!("allow-list/{size}/{}/{what}", call.as_str()),
                    call,
                    family: Family::V4,
                    comparison: Comparison::Sides(Side::NoPolicy, side),
                    destinations: Destinations::Generated {
                        networks,
                        hit: true,
                        spread: true,
                    },
                    refused: false,
                    budget: None,
                }));
            }
        }
    }
}
