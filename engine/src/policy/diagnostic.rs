//! What is wrong with a policy, where, and what to write instead.

use std::ops::Range;

use super::source::{Source, Span};

/// Most diagnostics kept of one policy; the rest is counted.
const MAX_DIAGNOSTICS: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The policy stands, but probably does not say what was meant.
    Warning,
    /// The policy is refused.
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
        /// The kind of a diagnostic; its text is stable and meant for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// The code's text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// A file cannot be read.
    Unreadable = "unreadable",
    /// A file or a list is larger than a policy may be.
    TooLarge = "too-large",
    /// The file is no text: not UTF-8, or with control characters.
    NotText = "not-text",
    /// The file is not YAML.
    Syntax = "syntax",
    /// YAML that the language does not take: anchors, aliases, tags, deep nesting, more documents.
    UnsupportedYaml = "unsupported-yaml",
    /// A field is given twice.
    DuplicateField = "duplicate-field",
    /// A field that the language does not have.
    UnknownField = "unknown-field",
    /// A field that must be there is not.
    MissingField = "missing-field",
    /// A list where a text belongs, and so on.
    WrongType = "wrong-type",
    /// A value that is none of those possible.
    WrongValue = "wrong-value",
    /// A name with characters that names do not have.
    BadName = "bad-name",
    /// Two rules of one name.
    DuplicateName = "duplicate-name",
    /// A variable with no value.
    UndefinedVariable = "undefined-variable",
    /// `${...}` that cannot be read.
    BadVariable = "bad-variable",
    /// Not an address and not a network.
    BadAddress = "bad-address",
    /// A network with bits set behind its prefix.
    HostBits = "host-bits",
    /// Not a port or range of ports.
    BadPort = "bad-port",
    /// A range whose end is before its start.
    ReversedRange = "reversed-range",
    /// Not a protocol.
    BadProtocol = "bad-protocol",
    /// Not an address family that a rule can name.
    BadFamily = "bad-family",
    /// A name of a unix socket that is none.
    BadUnixSocket = "bad-unix-socket",
    /// `unix` beside what is about destinations on the network.
    UnixConflict = "unix-conflict",
    /// Selectors that mean nothing for sockets of other families.
    FamiliesConflict = "families-conflict",
    /// `ports` and `protocols` contradict each other.
    PortsConflict = "ports-conflict",
    /// A protocol of one address family with destinations of the other.
    FamilyMismatch = "family-mismatch",
    /// Not a user id.
    BadUid = "bad-uid",
    /// Not an absolute path of an executable.
    BadBinary = "bad-binary",
    /// Not a NAT64 prefix.
    BadNat64 = "bad-nat64",
    /// A selector that selects nothing.
    EmptySelector = "empty-selector",
    /// A set that nobody defined.
    UnknownSet = "unknown-set",
    /// A set that contains itself.
    SetCycle = "set-cycle",
    /// A set that no rule uses.
    UnusedSet = "unused-set",
    /// An exception that takes nothing away.
    ExceptWithoutEffect = "except-without-effect",
    /// A rule that earlier ones leave nothing to.
    ShadowedRule = "shadowed-rule",
    /// A destination that no attempt has, since addresses are made canonical first.
    NeverMatches = "never-matches",
    /// An allowance that does not hold, since the protocol is judged when its socket is made.
    JudgedAtSocket = "judged-at-socket",
    /// `process` in a policy that judges packets.
    StrictProcess = "strict-process",
    /// More faults than are shown.
    MoreFaults = "more-faults",
}

/// Where something is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The offending text, up to the end of its line.
    pub text: String,
    /// The line, or of a very long one the part around the text.
    pub(super) excerpt: String,
    /// Where the text is in the excerpt, in bytes.
    pub(super) range: Range<usize>,
}

impl Place {
    /// Whether the excerpt starts where the line does.
    pub(super) fn is_whole_line(&self) -> bool {
        self.excerpt[..self.range.start].chars().count() + 1 == self.column
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Its kind.
    pub code: Code,
    /// Name of the file.
    pub file: String,
    /// Where in the file; `None` when it is about the file as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do, or to write instead.
    pub help: String,
}

/// What is said about a piece of text: everything of a [`Diagnostic`] but the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) help: String,
}

impl Fault {
    pub(super) fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault {
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

    /// Errors so far.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Whether further diagnostics are only counted: what costs time to word need not be worded.
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
        self.fault(span, Fault::new(code, message, help));
    }

    pub(super) fn fault(&mut self, span: Span, fault: Fault) {
        self.add(Severity::Error, span, fault);
    }

    pub(super) fn warn(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, span, Fault::new(code, message, help));
    }

    fn add(&mut self, severity: Severity, span: Span, fault: Fault) {
        let diagnostic = Diagnostic {
            severity,
            code: fault.code,
            file: self.source.name.to_owned(),
            place: Some(self.source.place(span)),
            message: fault.message,
            help: fault.help,
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

    /// The diagnostics, those of the policy file in the order of their places, then those of other
    /// files.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let name = self.source.name;
        let mut all = self.diagnostics;
        all.sort_by_key(|d| {
            let place = d.place.as_ref().map(|p| (p.line, p.column));
            if d.file == name {
                (0, place)
            } else {
                // In the order they came: file by file, line by line.
                (1, None)
            }
        });
        if self.more > 0 {
            all.push(more(name, self.more));
        }
        all
    }
}

/// The last diagnostic of a file with more faults than are shown.
pub(super) fn more(file: &str, count: usize) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: Code::MoreFaults,
        file: file.to_owned(),
        place: None,
        message: format!("and {count} more"),
        help: "put these right and check again".to_owned(),
    }
}

/// Text of a file as a message quotes it: between backticks, shortened, and with nothing in it
/// that a terminal could take for a command.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.is_empty() {
        return "an empty text".to_owned();
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

/// The text with nothing in it that a terminal could take for a command.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_printable(&mut out, c);
    }
    out
}

/// Adds a character; one that controls a terminal or turns the direction of text, by its number.
fn push_printable(out: &mut String, c: char) {
    let invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || invisible {
        out.extend(c.escape_unicode());
    } else {
        out.push(c);
    }
}
