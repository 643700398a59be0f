//! Resolves sets and selectors (lists of networks and references to sets) into [`AddressSet`]s.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    rc::Rc,
};

use engine_common::limits::MAX_CIDRS;
use ipnet::IpNet;

use super::{
    AddressSet,
    address_file::{self, AddressFileError},
    builtin,
    diagnostic::{Code, Reporter, quoted},
    fields::{self, Fields, Text},
    load_context::LoadContext,
    nearest::nearest,
    network, set_order,
    source::Span,
    yaml_node::{Node, Value},
};

/// Maximum number of ranges of all sets and selectors of a policy, counting a set for each use. Limits the
/// memory that a small file can use.
const MAX_RANGES: usize = 4 * MAX_CIDRS;

/// The members of a list of destinations.
#[derive(Default)]
struct Members<'n> {
    networks: Vec<(IpNet, Span)>,
    /// Names of sets, without the `@`.
    references: Vec<Text<'n>>,
}

/// The defined sets of a policy and the resources they use.
pub(super) struct Sets<'c> {
    context: &'c LoadContext,
    /// `None`: defined, but invalid.
    defined: BTreeMap<String, Option<Rc<AddressSet>>>,
    used: BTreeSet<String>,
    /// Number of networks in the policy, its address files, and the built-in sets it uses.
    cidrs: usize,
    ranges: usize,
    /// Whether an exceeded limit was reported.
    over: bool,
}

/// A resolved selector of a rule.
pub(super) struct Selector {
    /// The union of all items.
    pub(super) addresses: AddressSet,
    /// The addresses of each item, for diagnostics about single items.
    pub(super) items: Vec<(Span, Rc<AddressSet>)>,
}

/// A set before its references are resolved.
struct Definition<'n> {
    name: &'n str,
    span: Span,
    networks: Vec<IpNet>,
    references: Vec<Text<'n>>,
    invalid: bool,
}

impl<'c> Sets<'c> {
    /// Reads `spec.sets`. Paths of address files are relative to `base`.
    pub(super) fn read(
        node: Option<&Node>,
        base: &Path,
        context: &'c LoadContext,
        reporter: &mut Reporter<'_>,
    ) -> Sets<'c> {
        let mut sets = Sets {
            context,
            defined: BTreeMap::new(),
            used: BTreeSet::new(),
            cidrs: 0,
            ranges: 0,
            over: false,
        };
        let entries = match node.map(|n| (&n.value, n.span)) {
            None | Some((Value::Invalid, _)) => return sets,
            Some((Value::Map(entries), _)) => entries,
            Some((_, span)) => {
                reporter.error(
                    Code::WrongType,
                    span,
                    "`sets` must be a mapping",
                    "write `name: [10.0.0.0/8]` or `name: {file: addresses.txt}` for each set",
                );
                return sets;
            }
        };
        let mut definitions = Vec::new();
        for entry in entries {
            let mut definition = Definition {
                name: &entry.key,
                span: entry.key_span,
                networks: Vec::new(),
                references: Vec::new(),
                invalid: !check_set_name(&entry.key, entry.key_span, reporter),
            };
            let before = reporter.errors();
            match &entry.value.value {
                Value::Map(_) => definition.networks = sets.read_file(&entry.value, base, reporter),
                _ => {
                    let what = "addresses";
                    if let Some(items) =
                        fields::list(&entry.value, what, "add addresses, or remove the set", reporter)
                    {
                        let members = sets.members(items, reporter);
                        definition.networks = members.networks.into_iter().map(|(n, _)| n).collect();
                        definition.references = members.references;
                    }
                }
            }
            definition.invalid |= reporter.errors() != before || matches!(entry.value.value, Value::Invalid);
            definitions.push(definition);
        }
        sets.resolve(definitions, reporter);
        sets
    }

    /// Number of networks in the policy, its address files, and the built-in sets it uses.
    pub(super) fn cidrs(&self) -> usize {
        self.cidrs
    }

    /// Warns about unused sets, unless there are errors: an invalid rule can be the one that uses the set.
    pub(super) fn report_unused(&self, node: Option<&Node>, reporter: &mut Reporter<'_>) {
        let Some(Value::Map(entries)) = node.map(|n| &n.value).filter(|_| reporter.errors() == 0) else {
            return;
        };
        for entry in entries.iter().filter(|e| !self.used.contains(&e.key)) {
            reporter.warn(
                Code::UnusedSet,
                entry.key_span,
                format!("unused set {}", quoted(&entry.key)),
                format!("remove it, or use it in a rule: \"@{}\"", entry.key),
            );
        }
    }

    /// Resolves the items of a selector. `None` if an item, or the definition of a set it refers to, has errors.
    pub(super) fn selector(&mut self, items: &[Node], reporter: &mut Reporter<'_>) -> Option<Selector> {
        let before = reporter.errors();
        let members = self.members(items, reporter);
        let mut invalid =
            reporter.errors() != before || items.iter().any(|i| matches!(i.value, Value::Invalid));
        for &(network, span) in &members.networks {
            if let Some((message, help)) = network::never_matches(network) {
                reporter.warn(Code::NeverMatches, span, message, help);
            }
        }
        let mut parts: Vec<(Span, Rc<AddressSet>)> = members
            .networks
            .iter()
            .map(|&(network, span)| (span, Rc::new(AddressSet::of([network]))))
            .collect();
        for reference in &members.references {
            match self.look_up(*reference, reporter) {
                Some(set) => parts.push((reference.span, set)),
                None => invalid = true,
            }
        }
        if invalid {
            return None;
        }
        if parts.is_empty() {
            let span = items.first().map_or(Span { start: 0, end: 0 }, |i| i.span);
            reporter.error(
                Code::EmptySelector,
                span,
                "expected addresses, but all variables in the list are empty",
                "set one of the variables",
            );
            return None;
        }
        self.count_ranges(
            parts.iter().map(|(_, s)| s.range_count()).sum(),
            parts[0].0,
            reporter,
        )?;
        Some(Selector {
            addresses: AddressSet::union_of(parts.iter().map(|(_, s)| &**s)),
            items: parts,
        })
    }

    /// Splits the items of a list into networks and references to sets.
    fn members<'n>(&mut self, items: &'n [Node], reporter: &mut Reporter<'_>) -> Members<'n> {
        let mut members = Members::default();
        for text in fields::words(items, "an address, network or \"@set\"", reporter) {
            if let Some(name) = text.text.strip_prefix('@') {
                members.references.push(Text { text: name, ..text });
                continue;
            }
            match network::parse(text.text) {
                Ok(network) => {
                    if !self.count_cidrs(1, text.span, reporter) {
                        break;
                    }
                    members.networks.push((network, text.span));
                }
                Err(mut problem) => {
                    if self.defined.contains_key(text.text) || builtin::networks(text.text, &[]).is_some() {
                        problem.help = format!("write the set with an @: \"@{}\"", text.text);
                    }
                    reporter.report(text.span, *problem);
                }
            }
        }
        members
    }

    fn look_up(&mut self, name: Text<'_>, reporter: &mut Reporter<'_>) -> Option<Rc<AddressSet>> {
        if let Some(found) = self.defined.get(name.text) {
            self.used.insert(name.text.to_owned());
            return found.clone();
        }
        if let Some(networks) = builtin::networks(name.text, &self.context.resolvers) {
            if networks.is_empty() {
                reporter.error(
                    Code::EmptySelector,
                    name.span,
                    format!(
                        "the set {} is empty: cannot read /etc/resolv.conf",
                        quoted(&format!("@{}", name.text))
                    ),
                    "write the addresses of the name servers",
                );
                return None;
            }
            if self.used.insert(name.text.to_owned()) {
                self.count_cidrs(networks.len(), name.span, reporter);
            }
            return Some(Rc::new(AddressSet::of(networks)));
        }
        self.unknown(name, reporter);
        None
    }

    fn unknown(&self, name: Text<'_>, reporter: &mut Reporter<'_>) {
        let builtins = builtin::all().iter().map(|b| b.name);
        let worded = !reporter.is_full();
        let known = || {
            let defined = self.defined.keys().map(String::as_str);
            defined.chain(builtins.clone()).filter(|_| worded)
        };
        let help = match nearest(name.text, known()) {
            Some(near) => format!("write \"@{near}\""),
            None => {
                let names: Vec<String> = known().take(20).map(|n| format!("@{n}")).collect();
                format!("define it in `sets`; existing sets: {}", names.join(", "))
            }
        };
        reporter.error(
            Code::UnknownSet,
            name.span,
            format!("unknown set {}", quoted(&format!("@{}", name.text))),
            help,
        );
    }

    fn read_file(&mut self, node: &Node, base: &Path, reporter: &mut Reporter<'_>) -> Vec<IpNet> {
        let Some(fields) = Fields::of(node, "a set", &["file"], reporter) else {
            return Vec::new();
        };
        let Some(file) = fields
            .require("file", "`file: addresses.txt`, or write a list", reporter)
            .and_then(|n| fields::text(n, "the path of an address file", reporter))
        else {
            return Vec::new();
        };
        let path: PathBuf = base.join(file.text);
        match address_file::read(&path) {
            Ok(networks) if networks.is_empty() => {
                reporter.error(
                    Code::EmptySelector,
                    file.span,
                    format!("{} has no addresses", quoted(file.text)),
                    "write one address or network on each line, or remove the set",
                );
                Vec::new()
            }
            Ok(networks) => {
                if self.count_cidrs(networks.len(), file.span, reporter) {
                    networks
                } else {
                    Vec::new()
                }
            }
            Err(AddressFileError::Read(error)) => {
                reporter.error(
                    Code::Unreadable,
                    file.span,
                    format!("{} {error}", quoted(file.text)),
                    "check the path and its permissions; paths are relative to the directory of the policy",
                );
                Vec::new()
            }
            Err(AddressFileError::Problems(problems)) => {
                for problem in problems {
                    reporter.push(problem);
                }
                Vec::new()
            }
        }
    }

    /// Puts sets together in the order of their references; those in a cycle are reported.
    fn resolve(&mut self, definitions: Vec<Definition<'_>>, reporter: &mut Reporter<'_>) {
        // All names first: a reference to a later or invalid set must not be reported as unknown.
        for definition in &definitions {
            self.defined.insert(definition.name.to_owned(), None);
        }
        let index: HashMap<&str, usize> = definitions.iter().enumerate().map(|(i, d)| (d.name, i)).collect();
        let named: Vec<Vec<usize>> = definitions
            .iter()
            .map(|d| {
                d.references
                    .iter()
                    .filter_map(|r| index.get(r.text).copied())
                    .collect()
            })
            .collect();
        let order = set_order::order(&named);
        for i in order.sets {
            let set = self.build(&definitions[i], reporter);
            self.defined.insert(definitions[i].name.to_owned(), set);
        }
        for cycle in order.cycles {
            let names = cycle.iter().chain(cycle.first()).map(|&i| definitions[i].name);
            let names: Vec<&str> = names.take(10).collect();
            let first = &definitions[cycle[0]];
            reporter.error(
                Code::SetCycle,
                first.span,
                format!(
                    "the set {} contains itself: {}",
                    quoted(first.name),
                    names.join(" -> ")
                ),
                "remove one of the references",
            );
        }
    }

    fn build(&mut self, definition: &Definition<'_>, reporter: &mut Reporter<'_>) -> Option<Rc<AddressSet>> {
        let mut invalid = definition.invalid;
        let mut parts = Vec::new();
        for reference in &definition.references {
            match self.look_up(*reference, reporter) {
                Some(part) => parts.push(part),
                None => invalid = true,
            }
        }
        if invalid {
            return None;
        }
        if let ([one], true) = (parts.as_slice(), definition.networks.is_empty()) {
            return Some(Rc::clone(one));
        }
        let own = AddressSet::of(definition.networks.iter().copied());
        let set = if parts.is_empty() {
            own
        } else {
            AddressSet::union_of(parts.iter().map(|p| &**p).chain([&own]))
        };
        if set.is_empty() {
            reporter.error(
                Code::EmptySelector,
                definition.span,
                format!(
                    "set {} is empty: all its variables are empty",
                    quoted(definition.name)
                ),
                "set one of the variables, or remove the set",
            );
            return None;
        }
        self.count_ranges(set.range_count(), definition.span, reporter)?;
        Some(Rc::new(set))
    }

    fn count_cidrs(&mut self, count: usize, span: Span, reporter: &mut Reporter<'_>) -> bool {
        self.cidrs += count;
        if self.cidrs > MAX_CIDRS {
            self.report_limit(
                span,
                format!("more than {MAX_CIDRS} addresses and networks in one policy"),
                reporter,
            );
            return false;
        }
        true
    }

    fn count_ranges(&mut self, count: usize, span: Span, reporter: &mut Reporter<'_>) -> Option<()> {
        self.ranges = self.ranges.saturating_add(count);
        if self.ranges > MAX_RANGES {
            let message =
                format!("more than {MAX_RANGES} addresses and networks, counting a set for each use");
            self.report_limit(span, message, reporter);
            return None;
        }
        Some(())
    }

    fn report_limit(&mut self, span: Span, message: String, reporter: &mut Reporter<'_>) {
        if !std::mem::replace(&mut self.over, true) {
            reporter.error(
                Code::TooLarge,
                span,
                message,
                "merge adjacent networks, use large sets in fewer rules, or split the policy",
            );
        }
    }
}

fn check_set_name(name: &str, span: Span, reporter: &mut Reporter<'_>) -> bool {
    if builtin::networks(name, &[]).is_some() {
        reporter.error(
            Code::DuplicateName,
            span,
            format!("{} is the name of a built-in set", quoted(&format!("@{name}"))),
            "rename the set",
        );
        return false;
    }
    super::name::check(name, "a set", span, reporter)
}
