//! Reading mappings, texts and lists of the tree, with the faults they can have.

use super::{
    diagnostic::{Code, Reporter, quoted},
    nearest::nearest,
    node::{Entry, Node, Value},
    source::Span,
    variable,
};

/// The fields of a mapping, all of them known ones.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    span: Span,
    what: &'static str,
}

impl<'n> Fields<'n> {
    /// Reads a mapping whose fields are among `known`; the others are reported. `None` when it is no
    /// mapping.
    pub(super) fn of(
        node: &'n Node,
        what: &'static str,
        known: &[&str],
        reporter: &mut Reporter<'_>,
    ) -> Option<Fields<'n>> {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Faulty => return None,
            _ => {
                reporter.error(
                    Code::WrongType,
                    node.span,
                    format!("{} where {what} belongs", node.describe()),
                    format!("write its fields: {}", known.join(", ")),
                );
                return None;
            }
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let near = nearest(&entry.key, known.iter().copied().filter(|_| !reporter.is_full()));
                let help = match near {
                    Some(near) => format!("write `{near}`"),
                    None => format!("the fields are: {}", known.join(", ")),
                };
                reporter.error(
                    Code::UnknownField,
                    entry.key_span,
                    format!("{what} has no field {}", quoted(&entry.key)),
                    help,
                );
            }
        }
        Some(Fields {
            entries,
            span: node.span,
            what,
        })
    }

    /// Whether there is no field at all.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A field, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|e| e.key == name).map(|e| &e.value)
    }

    /// A field that must be there; `example` says how to write it.
    pub(super) fn require(&self, name: &str, example: &str, reporter: &mut Reporter<'_>) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            // The first field stands for the whole: the span of a mapping has many lines.
            let span = self.entries.first().map_or(self.span, |e| e.key_span);
            reporter.error(
                Code::MissingField,
                span,
                format!("{} has no `{name}`", self.what),
                format!("add {example}"),
            );
        }
        found
    }
}

/// A text with its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'n> {
    pub(super) text: &'n str,
    pub(super) span: Span,
}

/// A value that must be text: no number, and not `true` or `false`.
pub(super) fn text<'n>(node: &'n Node, what: &str, reporter: &mut Reporter<'_>) -> Option<Text<'n>> {
    match &node.value {
        Value::Scalar(s) if s.describe() == "a text" => Some(Text {
            text: &s.text,
            span: node.span,
        }),
        Value::Faulty => None,
        Value::Scalar(s) => {
            reporter.error(
                Code::WrongType,
                node.span,
                format!("{} where {what} belongs", s.describe()),
                format!("put it in quotes: \"{}\"", s.text),
            );
            None
        }
        _ => {
            wrong_type(node, what, reporter);
            None
        }
    }
}

/// A value that may be a number or a text.
pub(super) fn word<'n>(node: &'n Node, what: &str, reporter: &mut Reporter<'_>) -> Option<Text<'n>> {
    match &node.value {
        Value::Scalar(s) => Some(Text {
            text: &s.text,
            span: node.span,
        }),
        Value::Faulty => None,
        _ => {
            wrong_type(node, what, reporter);
            None
        }
    }
}

fn wrong_type(node: &Node, what: &str, reporter: &mut Reporter<'_>) {
    let help = match &node.value {
        // `fe80::` at the end of a line is a mapping to YAML.
        Value::Map(entries) if entries.iter().any(|e| e.key.contains(':')) => {
            "put an address that ends with a colon in quotes: \"fe80::\"".to_owned()
        }
        Value::Map(entries) if entries.len() == 1 => {
            format!("write {what}; a text with `: ` or braces in it needs quotes")
        }
        _ => format!("write {what}"),
    };
    reporter.error(
        Code::WrongType,
        node.span,
        format!("{} where {what} belongs", node.describe()),
        help,
    );
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    choices: &[(&'static str, T)],
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    let found = word(node, what, reporter)?;
    if let Some(&(_, value)) = choices.iter().find(|(name, _)| *name == found.text) {
        return Some(value);
    }
    let names = || choices.iter().map(|(name, _)| *name);
    let help = match meant(found.text, names()) {
        Some(near) => format!("write `{near}`"),
        None => match choices {
            [(only, _)] => format!("write `{only}`"),
            _ => format!("write one of: {}", names().collect::<Vec<_>>().join(", ")),
        },
    };
    reporter.error(
        Code::WrongValue,
        found.span,
        format!("{} is not {what}", quoted(found.text)),
        help,
    );
    None
}

/// The word that was meant: what other systems call it, or the nearest.
fn meant(word: &str, names: impl Iterator<Item = &'static str> + Clone) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    let synonym = match lower.as_str() {
        "deny" | "reject" | "drop" | "forbid" | "refuse" => Some("block"),
        "accept" | "pass" | "permit" => Some("allow"),
        "log" | "alert" | "report" | "monitor" | "warn" | "post" => Some("audit"),
        "sigkill" | "terminate" => Some("kill"),
        "enforcing" | "enforced" => Some("enforce"),
        "permissive" | "dry-run" | "dryrun" => Some("audit"),
        _ => None,
    };
    synonym
        .filter(|s| names.clone().any(|n| n == *s))
        .or_else(|| nearest(word, names))
}

/// The items of a list. `None` when it is no list; an empty list is reported with `empty` as help.
pub(super) fn list<'n>(
    node: &'n Node,
    what: &str,
    empty: &str,
    reporter: &mut Reporter<'_>,
) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            reporter.error(
                Code::EmptySelector,
                node.span,
                format!("an empty list where {what} belong"),
                empty,
            );
            None
        }
        Value::List(items) => Some(items),
        Value::Null => {
            reporter.error(
                Code::EmptySelector,
                node.span,
                format!("nothing where {what} belong"),
                empty,
            );
            None
        }
        Value::Scalar(s) => {
            reporter.error(
                Code::WrongType,
                node.span,
                format!("{} where a list of {what} belongs", node.describe()),
                format!("write a list: [\"{}\"]", s.text),
            );
            None
        }
        Value::Map(_) => {
            reporter.error(
                Code::WrongType,
                node.span,
                format!("a mapping where a list of {what} belongs"),
                "write a list: each item on a line of its own after `- `, or [..., ...]",
            );
            None
        }
        Value::Faulty => None,
    }
}

/// The texts of list items; a variable may stand for several, split by spaces and commas. Items
/// that are no text are reported and left out.
pub(super) fn words<'n>(items: &'n [Node], what: &str, reporter: &mut Reporter<'_>) -> Vec<Text<'n>> {
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        match &item.value {
            Value::Scalar(s) if s.variable.is_some() => {
                out.extend(variable::items(&s.text).map(|text| Text {
                    text,
                    span: item.span,
                }));
            }
            _ => out.extend(word(item, what, reporter)),
        }
    }
    out
}
