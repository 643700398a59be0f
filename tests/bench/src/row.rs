//! What a row of the first table measures.

use crate::{
    address::Family,
    call::Call,
    policies::{Shape, folding},
    report::Budget,
};

/// What stands on the cgroup of one side of a pair.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Side {
    /// Nothing at all.
    Bare,
    /// A program that does nothing, on the hook that the call passes.
    EmptyProgram,
    /// These policies.
    Gate(Vec<Shape>),
    /// nftables in the socket's network, with the addresses of this shape allowed for the cgroup and the rest
    /// dropped.
    Nftables(Shape),
    /// Nothing, but in that other network.
    OtherNetwork,
}

/// How the two sides are told apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Contrast {
    /// Two sockets, their batches in turns.
    Sides(Side, Side),
    /// One socket, and a gate that is attached and detached in turns, each for some batches: the only way to
    /// compare with a machine on which nothing is attached.
    OnAndOff {
        shape: Shape,
        /// The gate stands on a cgroup that the socket does not belong to.
        elsewhere: bool,
    },
}

/// Where the calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// One address, in the documentation networks.
    Documentation,
    /// Generated networks of this number.
    Generated {
        networks: usize,
        /// Addresses in the networks, or between them.
        hit: bool,
        /// Many addresses, or one.
        spread: bool,
    },
}

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) call: Call,
    pub(crate) family: Family,
    pub(crate) contrast: Contrast,
    pub(crate) aim: Aim,
    /// Whether the gated calls fail.
    pub(crate) refused: bool,
    pub(crate) budget: Option<Budget>,
}

/// A row, or why it is left out.
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

fn gate(shape: Shape) -> Side {
    Side::Gate(vec![shape])
}

/// The policy that DESIGN.md sets its budgets for.
const LARGE: usize = 100_000;

fn headline(rows: &mut Vec<Planned>) {
    let shape = |action| Shape {
        action,
        ..Shape::allowing(256, Family::V4, LARGE)
    };
    let row = |name: &str, contrast, budget| {
        Ok(Row {
            name: format!("headline/{name}"),
            call: Call::UdpConnect,
            family: Family::V4,
            contrast,
            aim: Aim::Generated {
                networks: LARGE,
                hit: true,
                spread: true,
            },
            refused: false,
            budget: Some(budget),
        })
    };
    let beside = |plain, action| Contrast::Sides(plain, gate(shape(action)));
    let on_and_off = Contrast::OnAndOff {
        shape: shape("allow"),
        elsewhere: false,
    };
    let over_empty = beside(Side::EmptyProgram, "allow");
    rows.extend([
        row("allowed-over-empty-program", over_empty, Budget::AddedNs(100.0)),
        row(
            "allowed-over-bare",
            beside(Side::Bare, "allow"),
            Budget::Ratio(1.35),
        ),
        row("allowed-on-and-off", on_and_off, Budget::Ratio(1.35)),
        row(
            "audited-over-bare",
            beside(Side::Bare, "audit"),
            Budget::Ratio(1.6),
        ),
    ]);
}

fn actions(call: Call, family: Family, rows: &mut Vec<Planned>) {
    let name = |what: &str| format!("{}/{}/{what}", call.as_str(), family.as_str());
    let row = |what, contrast, budget| Row {
        name: name(what),
        call,
        family,
        contrast,
        aim: Aim::Documentation,
        refused: what == "blocked",
        budget,
    };
    let beside_bare = |side| Contrast::Sides(Side::Bare, side);
    let silent = (call == Call::TcpConnect).then_some(Budget::Ratio(1.02));
    let with_event = match call {
        Call::UdpConnect => Some(Budget::Ratio(1.6)),
        _ => None,
    };
    rows.push(Ok(row("no-gate", beside_bare(Side::Bare), None)));
    let in_turns = |elsewhere| Contrast::OnAndOff {
        shape: Shape::small("allow"),
        elsewhere,
    };
    rows.push(Ok(row("gate-elsewhere", in_turns(true), Some(Budget::Nothing))));
    rows.push(Ok(row("gate-on-and-off", in_turns(false), silent)));
    rows.push(Ok(row("empty-program", beside_bare(Side::EmptyProgram), None)));
    let policies = [
        ("allowed", "allow", silent),
        ("audited", "audit", with_event),
        ("blocked", "block", None),
    ];
    for (what, action, budget) in policies {
        rows.push(Ok(row(what, beside_bare(gate(Shape::small(action))), budget)));
        if action == "audit" {
            let folded = Shape {
                folds: true,
                ..Shape::small(action)
            };
            rows.push(match folding() {
                Some(_) => Ok(row("audited-and-folded", beside_bare(gate(folded)), with_event)),
                None => Err(format!(
                    "{}: repeats are not folded in this version",
                    name("audited-and-folded")
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
                    contrast: Contrast::Sides(Side::Bare, gate(Shape::allowing(1, family, networks))),
                    aim: Aim::Generated {
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
            contrast: Contrast::Sides(Side::Bare, Side::Gate(shapes)),
            aim: Aim::Generated {
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
                ("gate", gate(shape.clone())),
                ("nftables", Side::Nftables(shape.clone())),
            ];
            for (what, side) in sides {
                rows.push(Ok(Row {
                    name: format!("allow-list/{size}/{}/{what}", call.as_str()),
                    call,
                    family: Family::V4,
                    contrast: Contrast::Sides(Side::Bare, side),
                    aim: Aim::Generated {
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
