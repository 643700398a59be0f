//! Parses YAML into [`Node`]s. Accepts the subset of YAML that policies need: no anchors, aliases or tags,
//! one document, no duplicate fields, bounded depth.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::{
    diagnostic::{Code, Reporter, quoted},
    source::Span,
    yaml_node::{Entry, Node, Scalar, Value},
};

/// Maximum nesting of lists and mappings.
const MAX_DEPTH: usize = 32;

/// Parses the document of the reporter's source; `None` if it cannot be validated further.
pub(super) fn parse(reporter: &mut Reporter<'_>) -> Option<Node> {
    let text = reporter.source().text;
    if !is_text(reporter) {
        return None;
    }
    let offsets = Offsets::of(text);
    let mut tree = Tree::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                syntax_error(reporter, &offsets, &error);
                return None;
            }
        };
        let span = offsets.span(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    reporter.error(
                        Code::UnsupportedYaml,
                        span,
                        "multiple YAML documents in one file",
                        "put each policy into its own file",
                    );
                    break;
                }
            }
            Event::Alias(_) => {
                reporter.error(
                    Code::UnsupportedYaml,
                    span,
                    "YAML aliases are not supported",
                    "write the value out, or define shared addresses in `sets`; quote a string that starts with `*`",
                );
                tree.add(
                    Node {
                        span,
                        value: Value::Invalid,
                    },
                    reporter,
                );
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_properties(reporter, span, anchor, tag.is_some());
                let plain = style == ScalarStyle::Plain;
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    _ => Value::Scalar(Scalar {
                        text: text.into_owned(),
                        plain,
                        variable: None,
                    }),
                };
                tree.add(Node { span, value }, reporter);
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_properties(reporter, span, anchor, tag.is_some());
                tree.open(span, Container::List(Vec::new()), reporter)?;
            }
            Event::MappingStart(anchor, tag) => {
                refuse_properties(reporter, span, anchor, tag.is_some());
                let container = Container::Map {
                    entries: Vec::new(),
                    first_keys: HashMap::new(),
                    key: None,
                };
                tree.open(span, container, reporter)?;
            }
            Event::SequenceEnd | Event::MappingEnd => tree.close(span, reporter),
        }
    }
    if tree.root.is_none() {
        reporter.error(
            Code::Syntax,
            Span { start: 0, end: 0 },
            "the file is empty",
            "start with `apiVersion: tidegate.io/v1` and `kind: EgressPolicy`",
        );
    }
    tree.root
}

/// Whether the source has no control characters. The parser would treat a NUL as the end of the text.
fn is_text(reporter: &mut Reporter<'_>) -> bool {
    let text = reporter.source().text;
    let odd = |&(_, c): &(usize, char)| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    let Some((start, c)) = text.char_indices().find(odd) else {
        return true;
    };
    reporter.error(
        Code::NotText,
        Span {
            start,
            end: start + c.len_utf8(),
        },
        format!("invalid control character U+{:04X}", u32::from(c)),
        "remove it: a policy is UTF-8 text without control characters",
    );
    false
}

fn refuse_properties(reporter: &mut Reporter<'_>, span: Span, anchor: usize, tag: bool) {
    if anchor != 0 {
        reporter.error(
            Code::UnsupportedYaml,
            span,
            "YAML anchors are not supported",
            "remove the `&name`; quote a string that starts with `&`",
        );
    }
    if tag {
        reporter.error(
            Code::UnsupportedYaml,
            span,
            "YAML tags are not supported",
            "remove the `!tag`; quote a string that starts with `!`",
        );
    }
}

fn syntax_error(reporter: &mut Reporter<'_>, offsets: &Offsets, error: &ScanError) {
    let text = reporter.source().text;
    let at = offsets.byte(error.marker().index()).min(text.len());
    let line_start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let line_end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    let line = &text[line_start..line_end];
    let next = text[at..].chars().next();
    let width = next.filter(|&c| c != '\n').map_or(0, char::len_utf8);
    let mut span = Span {
        start: at,
        end: at + width,
    };
    // Common YAML mistakes in policies, recognized by the text of the line.
    let help = if let Some(i) = line.find("${").filter(|_| line.contains(['[', ','])) {
        span = Span {
            start: line_start + i,
            end: line_start + line[i..].find('}').map_or(line.len(), |e| i + e + 1),
        };
        "quote a variable inside [...]: [\"${NAME}\"]"
    } else if next == Some('@') {
        "quote the name of a set: \"@private\""
    } else if matches!(next, Some('*' | '&' | '!' | '%' | '`' | '|' | '>')) {
        "quote a string that starts with this character"
    } else if next == Some('\t') || line.starts_with('\t') {
        "indent with spaces, not with tabs"
    } else {
        "check the indentation, quotes and brackets here and on the lines above"
    };
    reporter.error(
        Code::Syntax,
        span,
        format!("invalid YAML: {}", error.info()),
        help,
    );
}

/// Converts the character indices of the parser to byte offsets. `None` for ASCII text, where both are equal.
struct Offsets(Option<Vec<usize>>);

impl Offsets {
    fn of(text: &str) -> Offsets {
        if text.is_ascii() {
            return Offsets(None);
        }
        let ends = std::iter::once(text.len());
        Offsets(Some(text.char_indices().map(|(i, _)| i).chain(ends).collect()))
    }

    fn byte(&self, index: usize) -> usize {
        match &self.0 {
            None => index,
            Some(table) => table.get(index).or(table.last()).copied().unwrap_or(0),
        }
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        Span {
            start: self.byte(span.start.index()),
            end: self.byte(span.end.index()),
        }
    }
}

/// The tree under construction.
#[derive(Default)]
struct Tree {
    open: Vec<(Span, Container)>,
    root: Option<Node>,
}

/// An open list or mapping.
enum Container {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// First occurrence of each key.
        first_keys: HashMap<String, Span>,
        /// The key whose value comes next; `Err` if the key is invalid.
        key: Option<Result<(String, Span), Span>>,
    },
}

impl Tree {
    /// Opens a list or mapping; `None` if it exceeds the depth limit.
    fn open(&mut self, span: Span, container: Container, reporter: &mut Reporter<'_>) -> Option<()> {
        if self.open.len() == MAX_DEPTH {
            reporter.error(
                Code::UnsupportedYaml,
                span,
                format!("more than {MAX_DEPTH} levels of nesting"),
                "remove the extra levels: a policy needs at most six",
            );
            return None;
        }
        self.open.push((span, container));
        Some(())
    }

    fn close(&mut self, end: Span, reporter: &mut Reporter<'_>) {
        let Some((start, container)) = self.open.pop() else {
            return;
        };
        let span = Span {
            start: start.start,
            end: end.end.max(start.end),
        };
        let value = match container {
            Container::List(items) => Value::List(items),
            Container::Map { entries, .. } => Value::Map(entries),
        };
        self.add(Node { span, value }, reporter);
    }

    fn add(&mut self, node: Node, reporter: &mut Reporter<'_>) {
        let Some((_, container)) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        match container {
            Container::List(items) => items.push(node),
            Container::Map {
                entries,
                first_keys,
                key,
            } => match key.take() {
                None => *key = Some(as_key(node, reporter)),
                Some(Err(_)) => {}
                Some(Ok((name, key_span))) => {
                    if let Some(&first) = first_keys.get(&name) {
                        let line = reporter.source().line(first.start);
                        reporter.error(
                            Code::DuplicateField,
                            key_span,
                            format!("duplicate field {}", quoted(&name)),
                            format!("remove one; the first is on line {line}"),
                        );
                        return;
                    }
                    first_keys.insert(name.clone(), key_span);
                    entries.push(Entry {
                        key: name,
                        key_span,
                        value: node,
                    });
                }
            },
        }
    }
}

fn as_key(node: Node, reporter: &mut Reporter<'_>) -> Result<(String, Span), Span> {
    match node.value {
        Value::Scalar(scalar) => Ok((scalar.text, node.span)),
        // Reported before.
        Value::Invalid => Err(node.span),
        _ => {
            reporter.error(
                Code::WrongType,
                node.span,
                format!("expected the name of a field, found {}", node.describe()),
                "write `name: value`",
            );
            Err(node.span)
        }
    }
}
