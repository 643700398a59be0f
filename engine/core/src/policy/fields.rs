//! Reads mappings, strings and lists of the tree, and reports values of the wrong type.

use super::{
    diagnostic::{Code, Reporter, quoted},
    nearest::nearest,
    source::Span,
    variable,
    yaml_node::{Entry, Node, Value},
};

/// Former names of fields, with their present names.
const RENAMED: [(&str, &str); 1] = [("fold", "deduplicate")];

/// The fields of a mapping.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    span: Span,
    what: &'static str,
}

impl<'n> Fields<'n> {
    /// Reads a mapping and reports fields that are not in `known`. `None` if the node is not a mapping.
    pub(super) fn of(
        node: &'n Node,
        what: &'static str,
        known: &[&str],
        reporter: &mut Reporter<'_>,
    ) -> Option<Fields<'n>> {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Invalid => return None,
            _ => {
                reporter.error(
                    Code::WrongType,
                    node.span,
                    format!("expected {what}, found {}", node.describe()),
                    format!("write a mapping with the fields: {}", known.join(", ")),
                );
                return None;
            }
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                unknown_field(entry, what, known, reporter);
            }
        }
        Some(Fields {
            entries,
            span: node.span,
            what,
        })
    }

    /// Whether the mapping is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a field, if present.
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|e| e.key == name).map(|e| &e.value)
    }

    /// The value of a required field. If it is missing, reports it with `example` as the correction.
    pub(super) fn require(&self, name: &str, example: &str, reporter: &mut Reporter<'_>) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            // Points to the first field, because the span of the whole mapping has many lines.
            let span = self.entries.first().map_or(self.span, |e| e.key_span);
            reporter.error(
                Code::MissingField,
                span,
                format!("missing field `{name}` in {}", self.what),
                format!("add {example}"),
            );
        }
        found
    }
}

fn unknown_field(entry: &Entry, what: &str, known: &[&str], reporter: &mut Reporter<'_>) {
    let renamed = RENAMED
        .iter()
        .find(|(old, new)| *old == entry.key && known.contains(new));
    if let Some((old, new)) = renamed {
        reporter.error(
            Code::RenamedField,
            entry.key_span,
            format!("field `{old}` was renamed to `{new}`"),
            format!("write `{new}`"),
        );
        return;
    }
    let near = nearest(&entry.key, known.iter().copied().filter(|_| !reporter.is_full()));
    let help = match near {
        Some(near) => format!("write `{near}`"),
        None => format!("valid fields: {}", known.join(", ")),
    };
    reporter.error(
        Code::UnknownField,
        entry.key_span,
        format!("unknown field {} in {what}", quoted(&entry.key)),
        help,
    );
}

/// A string with its span.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'n> {
    pub(super) text: &'n str,
    pub(super) span: Span,
}

/// A value that must be a string, not a number or boolean.
pub(super) fn text<'n>(node: &'n Node, what: &str, reporter: &mut Reporter<'_>) -> Option<Text<'n>> {
    match &node.value {
        Value::Scalar(s) if s.describe() == "a string" => Some(Text {
            text: &s.text,
            span: node.span,
        }),
        Value::Invalid => None,
        Value::Scalar(s) => {
            reporter.error(
                Code::WrongType,
                node.span,
                format!("expected {what}, found {}", s.describe()),
                format!("write it in quotes: \"{}\"", s.text),
            );
            None
        }
        _ => {
            wrong_type(node, what, reporter);
            None
        }
    }
}

/// A value that can be a string, number or boolean.
pub(super) fn word<'n>(node: &'n Node, what: &str, reporter: &mut Reporter<'_>) -> Option<Text<'n>> {
    match &node.value {
        Value::Scalar(s) => Some(Text {
            text: &s.text,
            span: node.span,
        }),
        Value::Invalid => None,
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
            "quote an address that ends with a colon: \"fe80::\"".to_owned()
        }
        Value::Map(entries) if entries.len() == 1 => {
            format!("write {what}; quote a string that contains `: ` or braces")
        }
        _ => format!("write {what}"),
    };
    reporter.error(
        Code::WrongType,
        node.span,
        format!("expected {what}, found {}", node.describe()),
        help,
    );
}

/// One of several keywords. `what` names the field without an article.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    choices: &[(&'static str, T)],
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    let found = word(node, &format!("a valid {what}"), reporter)?;
    if let Some(&(_, value)) = choices.iter().find(|(name, _)| *name == found.text) {
        return Some(value);
    }
    let names = || choices.iter().map(|(name, _)| *name);
    let help = match meant(found.text, names()) {
        Some(near) => format!("write `{near}`"),
        None => match choices {
            [(only, _)] => format!("write `{only}`"),
            _ => format!("valid values: {}", names().collect::<Vec<_>>().join(", ")),
        },
    };
    reporter.error(
        Code::WrongValue,
        found.span,
        format!("invalid {what} {}", quoted(found.text)),
        help,
    );
    None
}

/// The keyword that was probably meant: the equivalent of another system's keyword, or the nearest one.
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

/// The items of a list. `None` if it is not a list or empty. `empty` is the help for an empty list.
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
                format!("expected {what}, found an empty list"),
                empty,
            );
            None
        }
        Value::List(items) => Some(items),
        Value::Null => {
            reporter.error(
                Code::EmptySelector,
                node.span,
                format!("expected {what}, found nothing"),
                empty,
            );
            None
        }
        Value::Scalar(s) => {
            reporter.error(
                Code::WrongType,
                node.span,
                format!("expected a list of {what}, found {}", node.describe()),
                format!("write a list: [\"{}\"]", s.text),
            );
            None
        }
        Value::Map(_) => {
            reporter.error(
                Code::WrongType,
                node.span,
                format!("expected a list of {what}, found a mapping"),
                "write a list: one line with `- ` for each item, or [..., ...]",
            );
            None
        }
        Value::Invalid => None,
    }
}

/// The strings of list items. The value of a variable is split at spaces and commas. Items that are not
/// scalars are reported and omitted.
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
