//! Puts an image together.

use engine_common::{
    Action,
    image::{Dimension, HeaderFields, Location, Revision, RuleBitmap},
    interval_table::Node,
    limits::{MAX_CIDRS, MAX_NAT64_PREFIXES, MAX_RULES},
    protocol::Protocol,
};

use super::{
    CompileError, Identities, Image, MAX_PAGES,
    coverage::{self, LAST_PORT_KEY, LAST_PROTOCOL},
    interval::cut,
    interval_table::{Line, Plan},
    page_arena::PageArena,
    rule_set::{Classes, RuleSetId, set},
};
use crate::policy::{Policy, Rule, Services, model::Nat64Prefix};

/// Address ranges of all rules together. Beyond [`MAX_CIDRS`] there is room for what `except` cuts
/// in two, and for sets that several rules use.
const MAX_RANGES: usize = 4 * MAX_CIDRS;

/// Roots up to this many words may take the room of bitmaps in page 0.
const SMALL_ROOT: usize = 128;

/// Compiles a policy. Equal input gives equal images.
///
/// # Errors
/// See [`CompileError`]: limits, and executables that are not in `executables`.
pub fn compile(policy: &Policy, executables: &Identities, life: Revision) -> Result<Image, CompileError> {
    check_limits(policy)?;
    let mut classes = Classes::new(policy.rules.len());
    let lines = Lines::cut(policy, executables, &mut classes)?;
    let mut arena = PageArena::new(MAX_PAGES);

    // Page 0 first gets what every decision reads: the roots of small lines, then bitmaps.
    let mut roots = [None; Dimension::ALL.len()];
    lines.reserve(&lines.asked_at_connect(), SMALL_ROOT, &mut arena, &mut roots)?;
    let places = place_bitmaps(&lines, &classes, &mut arena)?;
    lines.reserve(&lines.asked_at_socket(), usize::MAX, &mut arena, &mut roots)?;
    lines.reserve(&lines.asked_at_connect(), usize::MAX, &mut arena, &mut roots)?;
    lines.reserve(&lines.asked_at_unix(), usize::MAX, &mut arena, &mut roots)?;
    let mut nodes = [Node(0); Dimension::ALL.len()];
    for line in lines.all() {
        let at = roots[line.id() as usize].unwrap_or(Location(0));
        nodes[line.id() as usize] = line.write(&mut arena, at, &places)?;
    }
    let counters = arena.allocate_aligned(policy.rules.len() + 2, 8)?;

    let binds_executable = policy.rules.iter().any(|rule| rule.subject.binaries.is_some());
    let binds_uid = policy.rules.iter().any(|rule| rule.subject.uids.is_some());
    let header = HeaderFields {
        revision: life,
        default_action: policy.default,
        errno: policy.errno.number(),
        needs_subject: binds_uid || binds_executable,
        needs_executable: binds_executable,
        strict: policy.strict,
        has_unix_rules: lines.unix.is_some(),
        bitmap_words: classes.words(),
        rule_count: policy.rules.len() as u32,
        page_count: arena.page_count() as u32,
        counters,
        dedup: policy.fold.windows(),
        interval_tables: nodes,
        nat64: nat64_slots(&policy.nat64),
    };
    let root = arena.root_mut();
    header.write(root);
    for (i, rule) in policy.rules.iter().enumerate() {
        for of in traits(rule) {
            set(&mut root[of.word()..], i);
        }
    }
    Ok(Image::new(arena.into_pages()))
}

/// Prefixes as the header has them: unused slots have length 0 and match nothing.
fn nat64_slots(prefixes: &[Nat64Prefix]) -> [Nat64Prefix; MAX_NAT64_PREFIXES] {
    let mut slots = [Nat64Prefix {
        high: 0,
        low: 0,
        length: 0,
    }; MAX_NAT64_PREFIXES];
    for (slot, prefix) in slots.iter_mut().zip(prefixes) {
        *slot = *prefix;
    }
    slots
}

fn check_limits(policy: &Policy) -> Result<(), CompileError> {
    let rules = policy.rules.len();
    if rules > MAX_RULES {
        return Err(CompileError::TooManyRules {
            rules,
            limit: MAX_RULES,
        });
    }
    if policy.nat64.len() > MAX_NAT64_PREFIXES {
        return Err(CompileError::TooManyNat64Prefixes {
            prefixes: policy.nat64.len(),
            limit: MAX_NAT64_PREFIXES,
        });
    }
    let ranges = policy
        .rules
        .iter()
        .map(|rule| rule.to.v4().len() + rule.to.v6().len())
        .sum();
    if ranges > MAX_RANGES {
        return Err(CompileError::TooManyRanges {
            ranges,
            limit: MAX_RANGES,
        });
    }
    for rule in &policy.rules {
        let Services::Only(services) = &rule.services else {
            continue;
        };
        for service in services {
            if service.protocol.0 >= Protocol::COUNT {
                return Err(CompileError::UnknownProtocol {
                    rule: rule.name.clone(),
                    protocol: service.protocol.0,
                    limit: Protocol::COUNT,
                });
            }
        }
    }
    Ok(())
}

fn traits(rule: &Rule) -> impl Iterator<Item = RuleBitmap> {
    let action = match rule.action {
        Action::Allow => None,
        Action::Audit => Some(RuleBitmap::Audit),
        Action::Block => Some(RuleBitmap::Block),
        Action::Kill => Some(RuleBitmap::Kill),
    };
    let every_v4 = rule.to.has_every_v4();
    let every = every_v4 && rule.to.has_every_v6();
    [
        action,
        every_v4.then_some(RuleBitmap::EveryV4),
        every.then_some(RuleBitmap::EveryAddress),
        (!rule.to.v4().is_empty()).then_some(RuleBitmap::SomeV4),
        (!rule.to.is_empty()).then_some(RuleBitmap::SomeAddress),
        Some(RuleBitmap::Every),
    ]
    .into_iter()
    .flatten()
}

/// The lines of one policy.
struct Lines {
    v4: Line<u32>,
    v6: Line<u128>,
    port: Line<u32>,
    protocol_some: Line<u32>,
    protocol_every: Line<u32>,
    uid: Line<u32>,
    executable: Line<u128>,
    /// Only where some rule is about unix sockets.
    unix: Option<Line<u128>>,
}

impl Lines {
    fn cut(policy: &Policy, known: &Identities, classes: &mut Classes) -> Result<Lines, CompileError> {
        let executables = coverage::executables(policy, known)?;
        let port = cut(coverage::services(policy), LAST_PORT_KEY, classes);
        let some = cut(coverage::protocols_in_part(policy), LAST_PROTOCOL, classes);
        let every = cut(coverage::protocols_in_full(policy), LAST_PROTOCOL, classes);
        let uid = cut(coverage::uids(policy), u32::MAX, classes);
        let executable = cut(executables, u128::MAX, classes);
        let v4 = cut(coverage::v4(policy), u32::MAX, classes);
        let v6 = cut(coverage::v6(policy), u128::MAX, classes);
        let unix = match policy.rules.iter().any(Rule::is_about_unix) {
            true => Some(cut(coverage::unix(policy, known)?, u128::MAX, classes)),
            false => None,
        };
        Ok(Lines {
            v4: Line::plan(Dimension::V4, 32, v4),
            v6: Line::plan(Dimension::V6, 64, v6),
            port: Line::plan(Dimension::Port, LAST_PORT_KEY.count_ones(), port),
            protocol_some: Line::plan(Dimension::ProtocolSome, LAST_PROTOCOL.count_ones(), some),
            protocol_every: Line::plan(Dimension::ProtocolEvery, LAST_PROTOCOL.count_ones(), every),
            uid: Line::plan(Dimension::Uid, 32, uid),
            executable: Line::plan(Dimension::Executable, 64, executable),
            unix: unix.map(|unix| Line::plan(Dimension::Unix, 64, unix)),
        })
    }

    /// Lines that every decision asks, whatever the address.
    fn asked_always(&self) -> [&dyn Plan; 3] {
        [&self.port, &self.uid, &self.executable]
    }

    fn by_address(&self) -> [&dyn Plan; 2] {
        [&self.v4, &self.v6]
    }

    fn asked_at_connect(&self) -> [&dyn Plan; 5] {
        [&self.port, &self.v4, &self.uid, &self.executable, &self.v6]
    }

    fn asked_at_socket(&self) -> [&dyn Plan; 2] {
        [&self.protocol_some, &self.protocol_every]
    }

    fn asked_at_unix(&self) -> Vec<&dyn Plan> {
        self.unix.iter().map(|line| line as &dyn Plan).collect()
    }

    fn all(&self) -> impl Iterator<Item = &dyn Plan> {
        let connect = self.asked_at_connect().into_iter();
        let others = self.asked_at_socket().into_iter().chain(connect);
        others.chain(self.asked_at_unix())
    }

    /// Finds places for the roots that have none yet and are at most `most` words.
    fn reserve(
        &self,
        lines: &[&dyn Plan],
        most: usize,
        arena: &mut PageArena,
        roots: &mut [Option<Location>; Dimension::ALL.len()],
    ) -> Result<(), CompileError> {
        for line in lines {
            let root = &mut roots[line.id() as usize];
            let words = line.root_words();
            if root.is_none() && (1..=most).contains(&words) {
                *root = Some(arena.allocate(words)?);
            }
        }
        Ok(())
    }
}

/// Writes the bitmaps of all classes, those that most decisions read first; their places by class.
fn place_bitmaps(
    lines: &Lines,
    classes: &Classes,
    arena: &mut PageArena,
) -> Result<Vec<Location>, CompileError> {
    let count = |lines: &[&dyn Plan]| {
        let mut uses = vec![0; classes.count()];
        for line in lines {
            line.count_classes(&mut uses);
        }
        uses
    };
    let always = count(&lines.asked_always());
    let by_address = count(&lines.by_address());
    let mut order: Vec<RuleSetId> = (0..classes.count() as u32).map(RuleSetId).collect();
    order.sort_by_key(|class| {
        let class = class.0 as usize;
        std::cmp::Reverse((always[class], by_address[class]))
    });

    let mut places = vec![Location(0); classes.count()];
    for class in order {
        places[class.0 as usize] = if class == Classes::EVERY {
            RuleBitmap::Every.location()
        } else {
            let at = arena.allocate(classes.words())?;
            arena
                .words_mut(at, classes.words())
                .copy_from_slice(classes.bitmap(class));
            at
        };
    }
    Ok(places)
}

#[cfg(test)]
mod tests;
