//! Compiles a policy into an image: splits the dimensions, allocates the pages, writes the header.

use engine_common::{
    Action,
    image::{Dimension, HeaderFields, Location, Revision, RuleBitmap},
    interval_table::Node,
    limits::{MAX_CIDRS, MAX_NAT64_PREFIXES, MAX_RULES},
    protocol::Protocol,
};

use super::{
    CompileError, Identities, Image, MAX_PAGES,
    interval::split,
    interval_table::{DimensionTable, IntervalTable},
    key_ranges::{self, LAST_PORT_KEY, LAST_PROTOCOL},
    page_arena::PageArena,
    rule_set::{RuleSetId, RuleSets, set},
};
use crate::policy::{Policy, Rule, Services, model::Nat64Prefix};

/// Maximum number of address ranges of all rules together. It exceeds [`MAX_CIDRS`] because `except`
/// splits ranges and several rules can use one set.
const MAX_RANGES: usize = 4 * MAX_CIDRS;

/// Root objects of up to this many words are allocated in page 0 before the bitmaps.
const SMALL_ROOT: usize = 128;

/// Compiles a policy. Equal input gives byte-identical images.
///
/// # Errors
/// If the policy exceeds a limit, or `identities` lacks an executable or unix socket that a rule names.
pub fn compile(policy: &Policy, identities: &Identities, revision: Revision) -> Result<Image, CompileError> {
    check_limits(policy)?;
    let mut rule_sets = RuleSets::new(policy.rules.len());
    let tables = DimensionTables::build(policy, identities, &mut rule_sets)?;
    let mut arena = PageArena::new(MAX_PAGES);

    // Page 0 first gets what every evaluation reads: the roots of small tables, then bitmaps.
    let mut roots = [None; Dimension::ALL.len()];
    tables.reserve(&tables.read_at_connect(), SMALL_ROOT, &mut arena, &mut roots)?;
    let bitmaps = write_bitmaps(&tables, &rule_sets, &mut arena)?;
    tables.reserve(
        &tables.read_at_socket_creation(),
        usize::MAX,
        &mut arena,
        &mut roots,
    )?;
    tables.reserve(&tables.read_at_connect(), usize::MAX, &mut arena, &mut roots)?;
    tables.reserve(
        &tables.read_for_unix_sockets(),
        usize::MAX,
        &mut arena,
        &mut roots,
    )?;
    let mut nodes = [Node(0); Dimension::ALL.len()];
    for table in tables.all() {
        let at = roots[table.dimension() as usize].unwrap_or(Location(0));
        nodes[table.dimension() as usize] = table.write(&mut arena, at, &bitmaps)?;
    }
    let counters = arena.allocate_aligned(policy.rules.len() + 2, 8)?;

    let matches_executable = policy.rules.iter().any(|rule| rule.subject.binaries.is_some());
    let matches_uid = policy.rules.iter().any(|rule| rule.subject.uids.is_some());
    let header = HeaderFields {
        revision,
        default_action: policy.default,
        errno: policy.errno.number(),
        needs_subject: matches_uid || matches_executable,
        needs_executable: matches_executable,
        strict: policy.strict,
        has_unix_rules: tables.unix.is_some(),
        bitmap_words: rule_sets.words(),
        rule_count: policy.rules.len() as u32,
        page_count: arena.page_count() as u32,
        counters,
        dedup: policy.dedup.windows(),
        interval_tables: nodes,
        nat64: nat64_slots(&policy.nat64),
    };
    let root = arena.root_mut();
    header.write(root);
    for (i, rule) in policy.rules.iter().enumerate() {
        for of in bitmaps_of(rule) {
            set(&mut root[of.word()..], i);
        }
    }
    Ok(Image::new(arena.into_pages()))
}

/// The NAT64 slots of the header. Unused slots have length 0, which matches nothing.
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

/// The header bitmaps that the rule is in.
fn bitmaps_of(rule: &Rule) -> impl Iterator<Item = RuleBitmap> {
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

/// The interval tables of one policy.
struct DimensionTables {
    v4: IntervalTable<u32>,
    v6: IntervalTable<u128>,
    port: IntervalTable<u32>,
    protocol_some: IntervalTable<u32>,
    protocol_every: IntervalTable<u32>,
    uid: IntervalTable<u32>,
    executable: IntervalTable<u128>,
    /// Only if a rule selects unix sockets.
    unix: Option<IntervalTable<u128>>,
}

impl DimensionTables {
    fn build(
        policy: &Policy,
        known: &Identities,
        rule_sets: &mut RuleSets,
    ) -> Result<DimensionTables, CompileError> {
        let executables = key_ranges::executables(policy, known)?;
        let port = split(key_ranges::services(policy), LAST_PORT_KEY, rule_sets);
        let some = split(key_ranges::protocols_in_part(policy), LAST_PROTOCOL, rule_sets);
        let every = split(key_ranges::protocols_in_full(policy), LAST_PROTOCOL, rule_sets);
        let uid = split(key_ranges::uids(policy), u32::MAX, rule_sets);
        let executable = split(executables, u128::MAX, rule_sets);
        let v4 = split(key_ranges::v4(policy), u32::MAX, rule_sets);
        let v6 = split(key_ranges::v6(policy), u128::MAX, rule_sets);
        let unix = match policy.rules.iter().any(Rule::selects_unix_sockets) {
            true => Some(split(key_ranges::unix(policy, known)?, u128::MAX, rule_sets)),
            false => None,
        };
        Ok(DimensionTables {
            v4: IntervalTable::plan(Dimension::V4, 32, v4),
            v6: IntervalTable::plan(Dimension::V6, 64, v6),
            port: IntervalTable::plan(Dimension::Port, LAST_PORT_KEY.count_ones(), port),
            protocol_some: IntervalTable::plan(Dimension::ProtocolSome, LAST_PROTOCOL.count_ones(), some),
            protocol_every: IntervalTable::plan(Dimension::ProtocolEvery, LAST_PROTOCOL.count_ones(), every),
            uid: IntervalTable::plan(Dimension::Uid, 32, uid),
            executable: IntervalTable::plan(Dimension::Executable, 64, executable),
            unix: unix.map(|unix| IntervalTable::plan(Dimension::Unix, 64, unix)),
        })
    }

    /// Tables that every evaluation of an address reads.
    fn read_always(&self) -> [&dyn DimensionTable; 3] {
        [&self.port, &self.uid, &self.executable]
    }

    fn by_address(&self) -> [&dyn DimensionTable; 2] {
        [&self.v4, &self.v6]
    }

    fn read_at_connect(&self) -> [&dyn DimensionTable; 5] {
        [&self.port, &self.v4, &self.uid, &self.executable, &self.v6]
    }

    fn read_at_socket_creation(&self) -> [&dyn DimensionTable; 2] {
        [&self.protocol_some, &self.protocol_every]
    }

    fn read_for_unix_sockets(&self) -> Vec<&dyn DimensionTable> {
        self.unix
            .iter()
            .map(|table| table as &dyn DimensionTable)
            .collect()
    }

    fn all(&self) -> impl Iterator<Item = &dyn DimensionTable> {
        let connect = self.read_at_connect().into_iter();
        let others = self.read_at_socket_creation().into_iter().chain(connect);
        others.chain(self.read_for_unix_sockets())
    }

    /// Allocates the root objects that have no location yet and take at most `most` words.
    fn reserve(
        &self,
        tables: &[&dyn DimensionTable],
        most: usize,
        arena: &mut PageArena,
        roots: &mut [Option<Location>; Dimension::ALL.len()],
    ) -> Result<(), CompileError> {
        for table in tables {
            let root = &mut roots[table.dimension() as usize];
            let words = table.root_words();
            if root.is_none() && (1..=most).contains(&words) {
                *root = Some(arena.allocate(words)?);
            }
        }
        Ok(())
    }
}

/// Writes the bitmaps of all rule sets, the most frequently read ones first. Returns their locations,
/// indexed by [`RuleSetId`].
fn write_bitmaps(
    tables: &DimensionTables,
    rule_sets: &RuleSets,
    arena: &mut PageArena,
) -> Result<Vec<Location>, CompileError> {
    let count = |tables: &[&dyn DimensionTable]| {
        let mut uses = vec![0; rule_sets.count()];
        for table in tables {
            table.count_rule_sets(&mut uses);
        }
        uses
    };
    let always = count(&tables.read_always());
    let by_address = count(&tables.by_address());
    let mut order: Vec<RuleSetId> = (0..rule_sets.count() as u32).map(RuleSetId).collect();
    order.sort_by_key(|rule_set| {
        let index = rule_set.0 as usize;
        std::cmp::Reverse((always[index], by_address[index]))
    });

    let mut bitmaps = vec![Location(0); rule_sets.count()];
    for rule_set in order {
        bitmaps[rule_set.0 as usize] = if rule_set == RuleSets::EVERY {
            RuleBitmap::Every.location()
        } else {
            let at = arena.allocate(rule_sets.words())?;
            arena
                .words_mut(at, rule_sets.words())
                .copy_from_slice(rule_sets.bitmap(rule_set));
            at
        };
    }
    Ok(bitmaps)
}

#[cfg(test)]
mod tests;
