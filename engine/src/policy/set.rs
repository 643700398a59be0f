//! Sets and selectors: from lists of networks and names of sets to [`AddressSet`]s.

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
    context::LoadContext,
    diagnostic::{Code, Reporter, quoted},
    fields::{self, Fields, Text},
    nearest::nearest,
    network,
    node::{Node, Value},
    set_order,
    source::Span,
};

/// Most ranges that all sets and selectors of a policy may have when sets are written out where they
/// are used. Bounds the memory that a small file can ask for.
const MAX_RANGES: usize = 4 * MAX_CIDRS;

/// What a list of destinations names.
#[derive(Default)]
struct Members<'n> {
    networks: Vec<(IpNet, Span)>,
    /// Names of sets, without the `@`.
    references: Vec<Text<'n>>,
}

/// The defined sets of a policy, and what it took to read them.
pub(super) struct Sets<'c> {
    context: &'c LoadContext,
    /// `None`: defined, but with faults.
    defined: BTreeMap<String, Option<Rc<AddressSet>>>,
    used: BTreeSet<String>,
    /// Networks written in the policy and its files, and those of built-in sets in use.
    cidrs: usize,
    ranges: usize,
    /// Whether the limits were reported.
    over: bool,
}

/// A selector of a rule, put together.
pub(super) struct Selector {
    /// All of it.
    pub(super) addresses: AddressSet,
    /// Its items, for those who must name one; sets as they are defined.
    pub(super) items: Vec<(Span, Rc<AddressSet>)>,
}

/// A set as it is written.
struct Definition<'n> {
    name: &'n str,
    span: Span,
    networks: Vec<IpNet>,
    references: Vec<Text<'n>>,
    faulty: bool,
}

impl<'c> Sets<'c> {
    /// Reads `spec.sets`. Files are looked for from `base` on.
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
            None | Some((Value::Faulty, _)) => return sets,
            Some((Value::Map(entries), _)) => entries,
            Some((_, span)) => {
                reporter.error(
                    Code::WrongType,
                    span,
                    "`sets` is not a mapping",
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
                faulty: !check_set_name(&entry.key, entry.key_span, reporter),
            };
            let before = reporter.errors();
            match &entry.value.value {
                Value::Map(_) => definition.networks = sets.read_file(&entry.value, base, reporter),
                _ => {
                    let what = "the addresses of a set";
                    if let Some(items) = fields::list(
                        &entry.value,
                        what,
                        "write its addresses, or remove the set",
                        reporter,
                    ) {
                        let members = sets.members(items, reporter);
                        definition.networks = members.networks.into_iter().map(|(n, _)| n).collect();
                        definition.references = members.references;
                    }
                }
            }
            definition.faulty |= reporter.errors() != before || matches!(entry.value.value, Value::Faulty);
            definitions.push(definition);
        }
        sets.resolve(definitions, reporter);
        sets
    }

    /// Networks written in the policy and its files, and those of built-in sets in use.
    pub(super) fn cidrs(&self) -> usize {
        self.cidrs
    }

    /// Warns of sets that nothing uses. Says nothing where there are errors: one of them may be the use.
    pub(super) fn report_unused(&self, node: Option<&Node>, reporter: &mut Reporter<'_>) {
        let Some(Value::Map(entries)) = node.map(|n| &n.value).filter(|_| reporter.errors() == 0) else {
            return;
        };
        for entry in entries.iter().filter(|e| !self.used.contains(&e.key)) {
            reporter.warn(
                Code::UnusedSet,
                entry.key_span,
                format!("no rule uses the set {}", quoted(&entry.key)),
                format!("remove it, or name it in a rule: \"@{}\"", entry.key),
            );
        }
    }

    /// Puts a selector's items together. `None` when some of it was reported, here or where a set is
    /// defined.
    pub(super) fn selector(&mut self, items: &[Node], reporter: &mut Reporter<'_>) -> Option<Selector> {
        let before = reporter.errors();
        let members = self.members(items, reporter);
        let mut faulty =
            reporter.errors() != before || items.iter().any(|i| matches!(i.value, Value::Faulty));
        for &(network, span) in &members.networks {
            if let Some((message, help)) = network::never_met(network) {
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
                None => faulty = true,
            }
        }
        if faulty {
            return None;
        }
        if parts.is_empty() {
            let span = items.first().map_or(Span { start: 0, end: 0 }, |i| i.span);
            reporter.error(
                Code::EmptySelector,
                span,
                "a list without addresses: the variables in it are empty",
                "give one of them a value",
            );
            return None;
        }
        self.take_ranges(
            parts.iter().map(|(_, s)| s.range_count()).sum(),
            parts[0].0,
            reporter,
        )?;
        Some(Selector {
            addresses: AddressSet::union_of(parts.iter().map(|(_, s)| &**s)),
            items: parts,
        })
    }

    /// Sorts the items of a list into networks and names of sets.
    fn members<'n>(&mut self, items: &'n [Node], reporter: &mut Reporter<'_>) -> Members<'n> {
        let mut members = Members::default();
        for text in fields::words(items, "an address, network or \"@set\"", reporter) {
            if let Some(name) = text.text.strip_prefix('@') {
                members.references.push(Text { text: name, ..text });
                continue;
            }
            match network::parse(text.text) {
                Ok(network) => {
                    if !self.take_cidrs(1, text.span, reporter) {
                        break;
                    }
                    members.networks.push((network, text.span));
                }
                Err(mut fault) => {
                    if self.defined.contains_key(text.text) || builtin::networks(text.text, &[]).is_some() {
                        fault.help = format!("a set is named with an @: \"@{}\"", text.text);
                    }
                    reporter.fault(text.span, *fault);
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
                    format!("{} has no addresses", quoted(&format!("@{}", name.text))),
                    "/etc/resolv.conf could not be read: write the addresses of the name servers",
                );
                return None;
            }
            if self.used.insert(name.text.to_owned()) {
                self.take_cidrs(networks.len(), name.span, reporter);
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
                format!("define it under `sets`; there are: {}", names.join(", "))
            }
        };
        reporter.error(
            Code::UnknownSet,
            name.span,
            format!("there is no set {}", quoted(&format!("@{}", name.text))),
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
                    format!("{} has no addresses", quoted(&path.display().to_string())),
                    "put one address or network on a line, or remove the set",
                );
                Vec::new()
            }
            Ok(networks) => {
                if self.take_cidrs(networks.len(), file.span, reporter) {
                    networks
                } else {
                    Vec::new()
                }
            }
            Err(AddressFileError::Read(error)) => {
                reporter.error(
                    Code::Unreadable,
                    file.span,
                    format!("{} {error}", quoted(&path.display().to_string())),
                    "paths are relative to the folder of the policy; check path and permissions",
                );
                Vec::new()
            }
            Err(AddressFileError::Faults(faults)) => {
                for fault in faults {
                    reporter.push(fault);
                }
                Vec::new()
            }
        }
    }

    /// Puts sets together in the order of their references; those in a circle are reported.
    fn resolve(&mut self, definitions: Vec<Definition<'_>>, reporter: &mut Reporter<'_>) {
        // All names first: a reference to a later or faulty set is not one to an unknown set.
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
            let set = self.put_together(&definitions[i], reporter);
            self.defined.insert(definitions[i].name.to_owned(), set);
        }
        for circle in order.circles {
            let names = circle.iter().chain(circle.first()).map(|&i| definitions[i].name);
            let names: Vec<&str> = names.take(10).collect();
            let first = &definitions[circle[0]];
            reporter.error(
                Code::SetCycle,
                first.span,
                format!(
                    "the set {} contains itself: {}",
                    quoted(first.name),
                    names.join(" -> ")
                ),
                "take one of the references out",
            );
        }
    }

    fn put_together(
        &mut self,
        definition: &Definition<'_>,
        reporter: &mut Reporter<'_>,
    ) -> Option<Rc<AddressSet>> {
        let mut faulty = definition.faulty;
        let mut parts = Vec::new();
        for reference in &definition.references {
            match self.look_up(*reference, reporter) {
                Some(part) => parts.push(part),
                None => faulty = true,
            }
        }
        if faulty {
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
                format!("the set {} has no addresses", quoted(definition.name)),
                "give its variables values, or remove the set",
            );
            return None;
        }
        self.take_ranges(set.range_count(), definition.span, reporter)?;
        Some(Rc::new(set))
    }

    fn take_cidrs(&mut self, count: usize, span: Span, reporter: &mut Reporter<'_>) -> bool {
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

    fn take_ranges(&mut self, count: usize, span: Span, reporter: &mut Reporter<'_>) -> Option<()> {
        self.ranges = self.ranges.saturating_add(count);
        if self.ranges > MAX_RANGES {
            let message =
                format!("more than {MAX_RANGES} addresses and networks when every use of a set is counted");
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
                "merge neighbouring networks, use large sets in fewer rules, or split the policy",
            );
        }
    }
}

fn check_set_name(name: &str, span: Span, reporter: &mut Reporter<'_>) -> bool {
    if builtin::networks(name, &[]).is_some() {
        reporter.error(
            Code::DuplicateName,
            span,
            format!("{} is a built-in set", quoted(&format!("@{name}"))),
            "give the set another name",
        );
        return false;
    }
    super::name::check(name, "a set", span, reporter)
}
