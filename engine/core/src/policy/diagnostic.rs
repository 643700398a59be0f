//! Diagnostics: what is wrong with a policy, where, and what to write instead.

use std::ops::Range;

use super::source::{Source, Span};

/// Maximum number of diagnostics of one policy; further ones are counted.
const MAX_DIAGNOSTICS: usize = 100;

/// Severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The policy is valid, but probably does not do what was intended.
    Warning,
    /// The policy is invalid.
    Error,
}

impl Severity {
    /// `warning` or `error`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of a diagnostic. The texts are stable and meant for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// The code as text, in snake_case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// A file cannot be read.
    Unreadable = "unreadable",
    /// A file or a list exceeds a limit.
    TooLarge = "too_large",
    /// The file is not UTF-8, or has control characters.
    NotText = "not_text",
    /// The file is not YAML.
    Syntax = "syntax",
    /// Unsupported YAML: anchors, aliases, tags, deep nesting, several documents.
    UnsupportedYaml = "unsupported_yaml",
    /// A field occurs twice.
    DuplicateField = "duplicate_field",
    /// A field that does not exist.
    UnknownField = "unknown_field",
    /// A field that has another name now.
    RenamedField = "renamed_field",
    /// A required field is missing.
    MissingField = "missing_field",
    /// A value of the wrong type, such as a list instead of a string.
    WrongType = "wrong_type",
    /// A value that the field does not accept.
    WrongValue = "wrong_value",
    /// A name with invalid characters.
    BadName = "bad_name",
    /// Two rules have the same name.
    DuplicateName = "duplicate_name",
    /// A variable without a value.
    UndefinedVariable = "undefined_variable",
    /// `${...}` with invalid syntax.
    BadVariable = "bad_variable",
    /// An invalid address or network.
    BadAddress = "bad_address",
    /// A network with host bits set.
    HostBits = "host_bits",
    /// An invalid port or port range.
    BadPort = "bad_port",
    /// A range whose start is greater than its end.
    ReversedRange = "reversed_range",
    /// An unknown protocol.
    BadProtocol = "bad_protocol",
    /// An unknown address family, or one that `families` does not accept.
    BadFamily = "bad_family",
    /// An invalid unix socket name.
    BadUnixSocket = "bad_unix_socket",
    /// `unix` in a rule with network selectors.
    UnixConflict = "unix_conflict",
    /// Selectors that cannot be combined with `families`.
    FamiliesConflict = "families_conflict",
    /// `ports` and `protocols` contradict each other.
    PortsConflict = "ports_conflict",
    /// A protocol of one address family with destinations of the other family.
    FamilyMismatch = "family_mismatch",
    /// An invalid user id.
    BadUid = "bad_uid",
    /// An invalid executable path.
    BadBinary = "bad_binary",
    /// An invalid NAT64 prefix.
    BadNat64 = "bad_nat64",
    /// A selector that selects nothing.
    EmptySelector = "empty_selector",
    /// A set that is not defined.
    UnknownSet = "unknown_set",
    /// A set that contains itself.
    SetCycle = "set_cycle",
    /// A set that no rule uses.
    UnusedSet = "unused_set",
    /// An exception that does not overlap `to`.
    ExceptWithoutEffect = "except_without_effect",
    /// A rule that earlier rules cover completely.
    ShadowedRule = "shadowed_rule",
    /// A destination that never matches, because another address is evaluated instead.
    NeverMatches = "never_matches",
    /// An allow rule without effect, because its protocol has no address hook.
    EvaluatedAtSocket = "evaluated_at_socket",
    /// `process` in a policy with `strict: true`.
    StrictProcess = "strict_process",
    /// More errors than the limit.
    MoreErrors = "more_errors",
}

/// A location in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The invalid text, up to the end of the line.
    pub text: String,
    /// The line, or the part of a very long line around the text.
    pub(super) excerpt: String,
    /// Byte range of the text in the excerpt.
    pub(super) range: Range<usize>,
}

impl SourceLocation {
    /// Whether the excerpt starts at the start of the line.
    pub(super) fn is_whole_line(&self) -> bool {
        self.excerpt[..self.range.start].chars().count() + 1 == self.column
    }
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The kind of diagnostic.
    pub code: Code,
    /// Name of the policy file or address file.
    pub file: String,
    /// Location in the file; `None` if the diagnostic is about the whole file.
    pub location: Option<SourceLocation>,
    /// What is wrong.
    pub message: String,
    /// How to correct it.
    pub help: String,
}

/// A [`Diagnostic`] without severity, file and location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) help: String,
}

impl Problem {
    pub(super) fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem {
            code,
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Collects the diagnostics of one policy file.
#[derive(Debug)]
pub(super) struct Reporter<'s> {
    source: &'s Source<'s>,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    more: usize,
}

impl<'s> Reporter<'s> {
    pub(super) fn new(source: &'s Source<'s>) -> Reporter<'s> {
        Reporter {
            source,
            diagnostics: Vec::new(),
            errors: 0,
            more: 0,
        }
    }

    pub(super) fn source(&self) -> &'s Source<'s> {
        self.source
    }

    /// Number of errors reported so far.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Whether further diagnostics are only counted, so that an expensive help text is not needed.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    pub(super) fn error(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report(span, Problem::new(code, message, help));
    }

    pub(super) fn report(&mut self, span: Span, problem: Problem) {
        self.add(Severity::Error, span, problem);
    }

    pub(super) fn warn(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, span, Problem::new(code, message, help));
    }

    fn add(&mut self, severity: Severity, span: Span, problem: Problem) {
        let diagnostic = Diagnostic {
            severity,
            code: problem.code,
            file: self.source.name.to_owned(),
            location: Some(self.source.location(span)),
            message: problem.message,
            help: problem.help,
        };
        self.push(diagnostic);
    }

    /// Adds a diagnostic about another file.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Error {
            self.errors += 1;
        }
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        } else {
            self.more += 1;
        }
    }

    /// The diagnostics: those of the policy file by location, then those of address files.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let name = self.source.name;
        let mut all = self.diagnostics;
        all.sort_by_key(|d| {
            let location = d.location.as_ref().map(|p| (p.line, p.column));
            if d.file == name {
                (0, location)
            } else {
                // Keeps the order of reporting: by file, then by line.
                (1, None)
            }
        });
        if self.more > 0 {
            all.push(more(name, self.more));
        }
        all
    }
}

/// The last diagnostic of a file with more errors than the limit.
pub(super) fn more(file: &str, count: usize) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: Code::MoreErrors,
        file: file.to_owned(),
        location: None,
        message: format!("{count} more errors not shown"),
        help: "correct the errors above and check again".to_owned(),
    }
}

/// Text of a file for use in a message: in backticks, shortened, with terminal control characters escaped.
/// An empty text becomes `""`.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    let mut out = String::from("`");
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            out.push_str("...");
            break;
        }
        push_printable(&mut out, c);
    }
    out.push('`');
    out
}

/// The text with terminal control characters escaped.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_printable(&mut out, c);
    }
    out
}

/// Appends a character. Control characters and characters that change the text direction are escaped.
fn push_printable(out: &mut String, c: char) {
    let invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || invisible {
        out.extend(c.escape_unicode());
    } else {
        out.push(c);
    }
}
