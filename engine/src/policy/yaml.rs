//! From YAML text to [`Node`]s. Takes the part of YAML that a policy needs: no anchors, aliases or
//! tags, one document, each field once, bounded depth.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::{
    diagnostic::{Code, Reporter, quoted},
    node::{Entry, Node, Scalar, Value},
    source::Span,
};

/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 32;

/// The document of the reporter's source; `None` when there is none to go on with.
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
                        "a second document in one file",
                        "put each policy into a file of its own",
                    );
                    break;
                }
            }
            Event::Alias(_) => {
                reporter.error(
                    Code::UnsupportedYaml,
                    span,
                    "aliases are not part of the policy language",
                    "write the value out, or put shared addresses into `sets`; a text that starts with `*` needs quotes",
                );
                tree.add(
                    Node {
                        span,
                        value: Value::Faulty,
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
                tree.open(span, Inside::List(Vec::new()), reporter)?;
            }
            Event::MappingStart(anchor, tag) => {
                refuse_properties(reporter, span, anchor, tag.is_some());
                let inside = Inside::Map {
                    entries: Vec::new(),
                    places: HashMap::new(),
                    key: None,
                };
                tree.open(span, inside, reporter)?;
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

/// Whether the source has nothing in it that no text has; the parser would take a NUL for its end.
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
        format!("the control character U+{:04X}", u32::from(c)),
        "remove it: a policy is plain text in UTF-8",
    );
    false
}

fn refuse_properties(reporter: &mut Reporter<'_>, span: Span, anchor: usize, tag: bool) {
    if anchor != 0 {
        reporter.error(
            Code::UnsupportedYaml,
            span,
            "anchors are not part of the policy language",
            "remove the `&name`; a text that starts with `&` needs quotes",
        );
    }
    if tag {
        reporter.error(
            Code::UnsupportedYaml,
            span,
            "tags are not part of the policy language",
            "remove the `!tag`; a text that starts with `!` needs quotes",
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
    // The usual traps of YAML in policies, told by what the line has.
    let help = if let Some(i) = line.find("${").filter(|_| line.contains(['[', ','])) {
        span = Span {
            start: line_start + i,
            end: line_start + line[i..].find('}').map_or(line.len(), |e| i + e + 1),
        };
        "put a variable inside [...] in quotes: [\"${NAME}\"]"
    } else if next == Some('@') {
        "put the name of a set in quotes: \"@private\""
    } else if matches!(next, Some('*' | '&' | '!' | '%' | '`' | '|' | '>')) {
        "put a text that starts with this character in quotes"
    } else if next == Some('\t') || line.starts_with('\t') {
        "indent with spaces, not with tabs"
    } else {
        "check the indentation, quotes and brackets here and on the lines above"
    };
    reporter.error(
        Code::Syntax,
        span,
        format!("not valid YAML: {}", error.info()),
        help,
    );
}

/// Byte offsets of the parser's character indices.
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

/// The tree as far as it is built.
#[derive(Default)]
struct Tree {
    open: Vec<(Span, Inside)>,
    root: Option<Node>,
}

/// An open list or mapping.
enum Inside {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// Where each key was first.
        places: HashMap<String, Span>,
        /// The key whose value comes next; `Err` when the key was refused.
        key: Option<Result<(String, Span), Span>>,
    },
}

impl Tree {
    /// Opens a list or mapping; `None` when it would be too deep.
    fn open(&mut self, span: Span, inside: Inside, reporter: &mut Reporter<'_>) -> Option<()> {
        if self.open.len() == MAX_DEPTH {
            reporter.error(
                Code::UnsupportedYaml,
                span,
                format!("nested deeper than {MAX_DEPTH} levels"),
                "a policy needs no more than six",
            );
            return None;
        }
        self.open.push((span, inside));
        Some(())
    }

    fn close(&mut self, end: Span, reporter: &mut Reporter<'_>) {
        let Some((start, inside)) = self.open.pop() else {
            return;
        };
        let span = Span {
            start: start.start,
            end: end.end.max(start.end),
        };
        let value = match inside {
            Inside::List(items) => Value::List(items),
            Inside::Map { entries, .. } => Value::Map(entries),
        };
        self.add(Node { span, value }, reporter);
    }

    fn add(&mut self, node: Node, reporter: &mut Reporter<'_>) {
        let Some((_, inside)) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        match inside {
            Inside::List(items) => items.push(node),
            Inside::Map { entries, places, key } => match key.take() {
                None => *key = Some(as_key(node, reporter)),
                Some(Err(_)) => {}
                Some(Ok((name, key_span))) => {
                    if let Some(&first) = places.get(&name) {
                        let line = reporter.source().line(first.start);
                        reporter.error(
                            Code::DuplicateField,
                            key_span,
                            format!("{} is given twice", quoted(&name)),
                            format!("remove one: the first is at line {line}"),
                        );
                        return;
                    }
                    places.insert(name.clone(), key_span);
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
        // Already reported.
        Value::Faulty => Err(node.span),
        _ => {
            reporter.error(
                Code::WrongType,
                node.span,
                format!("{} as the name of a field", node.describe()),
                "write `name: value`",
            );
            Err(node.span)
        }
    }
}
