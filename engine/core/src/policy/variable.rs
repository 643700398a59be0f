//! Substitutes `${NAME}` and `${NAME:-default}`. This happens after the YAML is parsed, so that a value cannot
//! change the structure of a policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    diagnostic::{Code, Problem, Reporter, quoted},
    source::Span,
    yaml_node::{Node, Scalar, Value},
};

/// The values of variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Sets a variable; replaces an earlier value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// The value of a variable; `None` if it is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether a reference to this variable gives its value; if not, its default applies.
    fn is_used(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !value.trim().is_empty())
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Variables {
        Variables(pairs.into_iter().collect())
    }
}

/// Whether the string is a valid variable name: letters, digits and `_`, not starting with a digit.
pub fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Maximum total size of the values substituted into one policy, in bytes.
pub const MAX_SUBSTITUTED_BYTES: usize = 16 << 20;

/// Substitutes the variables in all scalars of the tree, but not in field names. Returns the variables whose values were
/// used.
pub(super) fn substitute(root: &mut Node, variables: &Variables, reporter: &mut Reporter<'_>) -> Variables {
    let mut used = Variables::default();
    let mut remaining = MAX_SUBSTITUTED_BYTES;
    let mut pending = vec![root];
    while let Some(node) = pending.pop() {
        if let Value::Scalar(scalar) = &mut node.value {
            if scalar.text.contains('$')
                && !substitute_scalar(scalar, node.span, &mut remaining, variables, &mut used, reporter)
            {
                node.value = Value::Invalid;
            }
            continue;
        }
        match &mut node.value {
            Value::Null | Value::Invalid | Value::Scalar(_) => {}
            Value::List(items) => pending.extend(items),
            Value::Map(entries) => pending.extend(entries.iter_mut().map(|e| &mut e.value)),
        }
    }
    used
}

/// Substitutes the variables in one scalar; `false` if an error was reported.
fn substitute_scalar(
    scalar: &mut Scalar,
    span: Span,
    remaining: &mut usize,
    variables: &Variables,
    used: &mut Variables,
    reporter: &mut Reporter<'_>,
) -> bool {
    match expand(&scalar.text, variables) {
        Ok(expansion) if expansion.text.len() <= *remaining => {
            *remaining -= expansion.text.len();
            for name in expansion.used {
                let value = variables.get(&name).unwrap_or_default().to_owned();
                used.set(name, value);
            }
            // The value of a variable is always a string.
            scalar.plain &= !expansion.changed;
            scalar.text = expansion.text;
            scalar.variable = expansion.only;
            true
        }
        Ok(_) => {
            reporter.error(
                Code::TooLarge,
                span,
                format!("the values of variables exceed {MAX_SUBSTITUTED_BYTES} bytes in total"),
                "move long lists into an address file: sets: {name: {file: addresses.txt}}",
            );
            false
        }
        Err(problems) => {
            for problem in problems {
                reporter.report(span, problem);
            }
            false
        }
    }
}

struct Expansion {
    text: String,
    /// Whether a variable was substituted.
    changed: bool,
    /// The variable, if the text consists of one variable only.
    only: Option<String>,
    /// Names of the variables whose values were substituted, in order.
    used: Vec<String>,
}

fn expand(text: &str, variables: &Variables) -> Result<Expansion, Vec<Problem>> {
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    let mut changed = false;
    let mut only = None;
    let mut used = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(after_reference) = after.strip_prefix('$') {
            out.push('$');
            rest = after_reference;
        } else if let Some(inner) = after.strip_prefix('{') {
            let Some((reference, after_reference)) = inner.split_once('}') else {
                problems.push(Problem::new(
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
                    if variables.is_used(name) {
                        used.push(name.to_owned());
                    }
                    if dollar == 0 && rest.len() == text.len() && after_reference.is_empty() {
                        only = Some(name.to_owned());
                    }
                }
                Err(problem) => problems.push(problem),
            }
            rest = after_reference;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    if problems.is_empty() {
        Ok(Expansion {
            text: out,
            changed,
            only,
            used,
        })
    } else {
        Err(problems)
    }
}

/// The name and value of a reference, which is the text between the braces.
fn value<'v>(reference: &'v str, variables: &'v Variables) -> Result<(&'v str, &'v str), Problem> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let whole = quoted(&format!("${{{reference}}}"));
    if !is_variable_name(name) {
        return Err(Problem::new(
            Code::BadVariable,
            format!("invalid variable {whole}"),
            "write ${NAME} or ${NAME:-default}; a name has letters, digits and `_`",
        ));
    }
    if default.is_some_and(|d| d.contains("${")) {
        return Err(Problem::new(
            Code::BadVariable,
            format!("nested variable in the default of {whole}"),
            "write a plain default: ${NAME:-10.0.0.0/8}",
        ));
    }
    // As in a shell, the default of `:-` also replaces an empty value.
    match (variables.get(name).filter(|v| !v.trim().is_empty()), default) {
        (Some(value), _) => Ok((name, value.trim())),
        (None, Some(default)) => Ok((name, default)),
        (None, None) if variables.get(name).is_some() => Err(Problem::new(
            Code::UndefinedVariable,
            format!("variable {} is empty", quoted(name)),
            format!("set it with `--set {name}=...`, or write ${{{name}:-}} if it can be empty"),
        )),
        (None, None) => Err(Problem::new(
            Code::UndefinedVariable,
            format!("undefined variable {}", quoted(name)),
            format!("set it with `--set {name}=...`, or use environment variables with `--env`"),
        )),
    }
}

/// Splits the value of a variable into list items at spaces and commas. kubectl separates the values of
/// several nodes with spaces.
pub(super) fn items(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand_text(text: &str) -> Result<String, Vec<String>> {
        let mut variables = Variables::default();
        variables.set("A", "10.0.0.0/8 192.0.2.0/24");
        variables.set("EMPTY", "");
        expand(text, &variables)
            .map(|e| e.text)
            .map_err(|f| f.into_iter().map(|f| f.message).collect())
    }

    #[test]
    fn values_defaults_and_dollar_signs() {
        assert_eq!(expand_text("${A}").unwrap(), "10.0.0.0/8 192.0.2.0/24");
        assert_eq!(expand_text("x${B:-d}y").unwrap(), "xdy");
        assert_eq!(expand_text("${B:-}").unwrap(), "");
        assert_eq!(expand_text("${EMPTY:-d}").unwrap(), "d");
        assert_eq!(expand_text("$${A} costs $5").unwrap(), "${A} costs $5");
    }

    #[test]
    fn all_errors_of_a_string_are_reported() {
        let problems = expand_text("${B} ${1x} ${A:-${B}} ${EMPTY} ${A").unwrap_err();
        assert_eq!(problems.len(), 5, "{problems:?}");
    }

    #[test]
    fn only_variables_with_a_value_are_used() {
        let mut variables = Variables::default();
        variables.set("A", "10.0.0.0/8");
        variables.set("EMPTY", " ");
        variables.set("SECRET", "x");
        let expansion = expand("${A} ${EMPTY:-d} ${B:-e} $${SECRET}", &variables).ok();
        assert_eq!(expansion.map(|e| e.used), Some(vec!["A".to_owned()]));
    }

    #[test]
    fn only_a_single_variable_is_split() {
        let mut variables = Variables::default();
        variables.set("A", "x");
        let only = |text| expand(text, &variables).ok().and_then(|e| e.only);
        assert_eq!(only("${A}"), Some("A".to_owned()));
        assert_eq!(only("${A}/8"), None);
        assert_eq!(only("$${A}"), None);
        assert_eq!(only("${A}${A}"), None);
    }
}
