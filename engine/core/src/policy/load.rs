//! Loads a policy from a file, a stream or a string, and collects all diagnostics.

use std::path::Path;

use super::{
    Policy,
    definition::PolicyDefinition,
    diagnostic::{Code, Diagnostic, Reporter, Severity},
    load_context::LoadContext,
    render,
    source::{self, MAX_POLICY_BYTES, ReadError, Source, Span},
    validate,
    variable::{self, Variables},
    yaml,
};

/// The outcome of loading a policy.
#[derive(Debug)]
pub struct LoadResult {
    /// Name of the file, as given by the caller.
    pub file: String,
    /// Errors and warnings, ordered by location.
    pub diagnostics: Vec<Diagnostic>,
    /// Number of errors, including those beyond the limit of `diagnostics`.
    pub errors: usize,
    /// The policy; `None` if there is an error.
    pub policy: Option<Policy>,
    /// What it was loaded from; empty if the file could not be read.
    pub definition: PolicyDefinition,
    /// Number of addresses and networks in the policy, its address files, and the built-in sets it uses.
    pub cidrs: usize,
    /// Whether the policy file itself could not be read.
    pub unreadable: bool,
}

impl LoadResult {
    /// Whether there is an error.
    pub fn has_errors(&self) -> bool {
        self.policy.is_none()
    }

    /// Whether there is a warning.
    pub fn has_warnings(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Warning)
    }

    /// The diagnostics as text with excerpts of the file, as rustc formats them.
    pub fn render(&self, styled: bool) -> String {
        render::text(&self.diagnostics, styled)
    }

    /// The diagnostics as a JSON list of `{severity, code, file, line, column, text, message, help}`.
    pub fn to_json(&self) -> serde_json::Value {
        render::json(&self.diagnostics)
    }

    fn failed(file: String, diagnostic: Diagnostic, unreadable: bool) -> LoadResult {
        LoadResult {
            file,
            diagnostics: vec![diagnostic],
            errors: 1,
            policy: None,
            definition: PolicyDefinition::default(),
            cidrs: 0,
            unreadable,
        }
    }
}

/// Loads a policy file. A file that cannot be read is reported as a diagnostic too.
pub fn load(path: &Path, context: &LoadContext) -> LoadResult {
    let name = path.display().to_string();
    let base = path.parent().unwrap_or(Path::new(""));
    from_read(&name, source::read_policy(path), base, context)
}

/// Loads a policy from a stream, such as standard input. Paths of address files are relative to `base`.
pub fn load_stream(name: &str, stream: impl std::io::Read, base: &Path, context: &LoadContext) -> LoadResult {
    from_read(name, source::bounded(stream, MAX_POLICY_BYTES), base, context)
}

/// Loads a policy from a string. Paths of address files are relative to `base`.
pub fn load_text(name: &str, text: &str, base: &Path, context: &LoadContext) -> LoadResult {
    if text.len() as u64 > MAX_POLICY_BYTES {
        let error = ReadError::TooLarge {
            limit: MAX_POLICY_BYTES,
        };
        return from_read(name, Err(error), base, context);
    }
    let whole = text;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(name, text);
    let mut used = Variables::default();
    let mut reporter = Reporter::new(&source);
    let result = yaml::parse(&mut reporter).map(|mut root| {
        used = variable::substitute(&mut root, &context.variables, &mut reporter);
        validate::validate(&root, base, context, &mut reporter)
    });
    let (policy, cidrs) = result.map_or((None, 0), |v| (v.policy, v.cidrs));
    LoadResult {
        file: name.to_owned(),
        errors: reporter.errors(),
        diagnostics: reporter.finish(),
        policy,
        definition: PolicyDefinition {
            text: whole.to_owned(),
            variables: used,
            base_dir: base.display().to_string(),
        },
        cidrs,
        unreadable: false,
    }
}

fn from_read(name: &str, read: Result<Vec<u8>, ReadError>, base: &Path, context: &LoadContext) -> LoadResult {
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => {
            let (code, help) = match error {
                ReadError::TooLarge { .. } => (
                    Code::TooLarge,
                    "move long lists of addresses into an address file: sets: {feed: {file: addresses.txt}}",
                ),
                _ => (Code::Unreadable, "check the path and its permissions"),
            };
            let diagnostic = Diagnostic {
                severity: Severity::Error,
                code,
                file: name.to_owned(),
                location: None,
                message: format!("the policy file {error}"),
                help: help.to_owned(),
            };
            return LoadResult::failed(name.to_owned(), diagnostic, code == Code::Unreadable);
        }
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => load_text(name, text, base, context),
        Err(error) => {
            let valid = error.valid_up_to();
            let text = String::from_utf8_lossy(&bytes);
            let source = Source::new(name, &text);
            let diagnostic = Diagnostic {
                severity: Severity::Error,
                code: Code::NotText,
                file: name.to_owned(),
                // Up to here both texts are equal. The invalid bytes become one replacement character.
                location: Some(source.location(Span {
                    start: valid,
                    end: valid + '\u{fffd}'.len_utf8(),
                })),
                message: "invalid UTF-8".to_owned(),
                help: "save the file as UTF-8".to_owned(),
            };
            LoadResult::failed(name.to_owned(), diagnostic, false)
        }
    }
}
