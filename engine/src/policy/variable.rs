//! `${NAME}` and `${NAME:-default}`: put in after the YAML is parsed, so that no value can add
//! structure to a policy.

use std::collections::BTreeMap;

use super::{
    diagnostic::{Code, Fault, Reporter, quoted},
    node::{Node, Scalar, Value},
    source::Span,
};

/// Values of variables by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Gives a variable its value; the last one holds.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Variables {
        Variables(pairs.into_iter().collect())
    }
}

/// Whether a text can be the name of a variable: letters, digits and `_`, no digit first.
pub fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Most bytes that all values put into one policy may have together.
const MAX_SUBSTITUTED: usize = 16 << 20;

/// Puts the values into all scalars of the tree (not into the names of fields).
pub(super) fn substitute(root: &mut Node, variables: &Variables, reporter: &mut Reporter<'_>) {
    let mut room = MAX_SUBSTITUTED;
    let mut pending = vec![root];
    while let Some(node) = pending.pop() {
        if let Value::Scalar(scalar) = &mut node.value {
            if scalar.text.contains('$') && !fill(scalar, node.span, &mut room, variables, reporter) {
                node.value = Value::Faulty;
            }
            continue;
        }
        match &mut node.value {
            Value::Null | Value::Faulty | Value::Scalar(_) => {}
            Value::List(items) => pending.extend(items),
            Value::Map(entries) => pending.extend(entries.iter_mut().map(|e| &mut e.value)),
        }
    }
}

/// Puts the values into one scalar; `false` when it was reported instead.
fn fill(
    scalar: &mut Scalar,
    span: Span,
    room: &mut usize,
    variables: &Variables,
    reporter: &mut Reporter<'_>,
) -> bool {
    match expanded(&scalar.text, variables) {
        Ok(done) if done.text.len() <= *room => {
            *room -= done.text.len();
            // What came from a variable is text, whatever it looks like.
            scalar.plain &= !done.changed;
            scalar.text = done.text;
            scalar.variable = done.only;
            true
        }
        Ok(_) => {
            reporter.error(
                Code::TooLarge,
                span,
                format!("the values of variables are larger than {MAX_SUBSTITUTED} bytes together"),
                "put long lists into an address file: sets: {name: {file: addresses.txt}}",
            );
            false
        }
        Err(faults) => {
            for fault in faults {
                reporter.fault(span, fault);
            }
            false
        }
    }
}

struct Expanded {
    text: String,
    /// Whether a variable was put in.
    changed: bool,
    /// The variable, when the text was nothing but it.
    only: Option<String>,
}

fn expanded(text: &str, variables: &Variables) -> Result<Expanded, Vec<Fault>> {
    let mut out = String::with_capacity(text.len());
    let mut faults = Vec::new();
    let mut changed = false;
    let mut only = None;
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(behind) = after.strip_prefix('$') {
            out.push('$');
            rest = behind;
        } else if let Some(inner) = after.strip_prefix('{') {
            let Some((reference, behind)) = inner.split_once('}') else {
                faults.push(Fault::new(
                    Code::BadVariable,
                    format!("{} has no closing brace", quoted(&rest[dollar..])),
                    "write ${NAME} or ${NAME:-default}; `$$` for a dollar sign",
                ));
                rest = "";
                break;
            };
            match value(reference, variables) {
                Ok((name, value)) => {
                    out.push_str(value);
                    changed = true;
                    if dollar == 0 && rest.len() == text.len() && behind.is_empty() {
                        only = Some(name.to_owned());
                    }
                }
                Err(fault) => faults.push(fault),
            }
            rest = behind;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    if faults.is_empty() {
        Ok(Expanded {
            text: out,
            changed,
            only,
        })
    } else {
        Err(faults)
    }
}

/// Name and value of a reference, which is what stands between the braces.
fn value<'v>(reference: &'v str, variables: &'v Variables) -> Result<(&'v str, &'v str), Fault> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let whole = quoted(&format!("${{{reference}}}"));
    if !is_variable_name(name) {
        return Err(Fault::new(
            Code::BadVariable,
            format!("{whole} is no variable"),
            "write ${NAME} or ${NAME:-default}; a name has letters, digits and `_`",
        ));
    }
    if default.is_some_and(|d| d.contains("${")) {
        return Err(Fault::new(
            Code::BadVariable,
            format!("a variable inside the default of {whole}"),
            "write a plain default: ${NAME:-10.0.0.0/8}",
        ));
    }
    // As in a shell, `:-` stands in for an empty value too.
    match (variables.get(name).filter(|v| !v.trim().is_empty()), default) {
        (Some(value), _) => Ok((name, value.trim())),
        (None, Some(default)) => Ok((name, default)),
        (None, None) if variables.get(name).is_some() => Err(Fault::new(
            Code::UndefinedVariable,
            format!("the variable {} is empty", quoted(name)),
            format!("give it a value (`--set {name}=...`), or write ${{{name}:-}} where nothing is meant"),
        )),
        (None, None) => Err(Fault::new(
            Code::UndefinedVariable,
            format!("the variable {} has no value", quoted(name)),
            format!("type `--set {name}=...`, or take it from the environment with `--env`"),
        )),
    }
}

/// The items that the value of a variable stands for in a list: what kubectl prints for several
/// nodes is split by spaces, what people type by commas.
pub(super) fn items(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, Vec<String>> {
        let mut variables = Variables::default();
        variables.set("A", "10.0.0.0/8 192.0.2.0/24");
        variables.set("EMPTY", "");
        expanded(text, &variables)
            .map(|e| e.text)
            .map_err(|f| f.into_iter().map(|f| f.message).collect())
    }

    #[test]
    fn values_defaults_and_dollars() {
        assert_eq!(expand("${A}").unwrap(), "10.0.0.0/8 192.0.2.0/24");
        assert_eq!(expand("x${B:-d}y").unwrap(), "xdy");
        assert_eq!(expand("${B:-}").unwrap(), "");
        assert_eq!(expand("${EMPTY:-d}").unwrap(), "d");
        assert_eq!(expand("$${A} costs $5").unwrap(), "${A} costs $5");
    }

    #[test]
    fn every_fault_of_a_text_is_found() {
        let faults = expand("${B} ${1x} ${A:-${B}} ${EMPTY} ${A").unwrap_err();
        assert_eq!(faults.len(), 5, "{faults:?}");
    }

    #[test]
    fn only_a_lone_variable_is_a_list() {
        let mut variables = Variables::default();
        variables.set("A", "x");
        let only = |text| expanded(text, &variables).ok().and_then(|e| e.only);
        assert_eq!(only("${A}"), Some("A".to_owned()));
        assert_eq!(only("${A}/8"), None);
        assert_eq!(only("$${A}"), None);
        assert_eq!(only("${A}${A}"), None);
    }
}
