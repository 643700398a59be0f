//! Formats diagnostics as text and as JSON.

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Severity, printable};

/// Diagnostics as text with excerpts of the file; `styled` adds colours. Ends with a line feed unless empty.
pub(super) fn text(diagnostics: &[Diagnostic], styled: bool) -> String {
    let renderer = if styled {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&render(diagnostic, &renderer));
        out.push_str("\n\n");
    }
    // One empty line between diagnostics, none after the last.
    if out.ends_with("\n\n") {
        out.pop();
    }
    out
}

fn render(diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    // File names and values of variables can contain any character.
    let file = printable(&diagnostic.file);
    let title = level
        .primary_title(printable(&diagnostic.message))
        .id(diagnostic.code.as_str());
    let group = match &diagnostic.location {
        None => title.element(Origin::path(file)),
        Some(location) => {
            let snippet = Snippet::source(excerpt(&location.excerpt))
                .line_start(location.line)
                .annotation(AnnotationKind::Primary.span(location.range.clone()));
            if location.is_whole_line() {
                title.element(snippet.path(file))
            } else {
                // The renderer would count the column from the start of the excerpt.
                let origin = Origin::path(file)
                    .line(location.line)
                    .char_column(location.column);
                title.element(origin).element(snippet)
            }
        }
    };
    renderer.render(&[group.element(Level::HELP.message(printable(&diagnostic.help)))])
}

/// A line of the file without the control characters that the renderer does not replace itself. Each one is
/// replaced by a character of the same length in UTF-8, so that byte ranges stay valid.
fn excerpt(line: &str) -> String {
    let clean = |c| match c {
        '\u{80}'..='\u{9f}' => '\u{b7}',
        '\u{2028}' | '\u{2029}' => '\u{fffd}',
        c => c,
    };
    line.chars().map(clean).collect()
}

/// Diagnostics as a JSON list of `{severity, code, file, line, column, text, message, help}`. line,
/// column and text are null if the diagnostic is about the whole file.
pub(super) fn json(diagnostics: &[Diagnostic]) -> serde_json::Value {
    let one = |d: &Diagnostic| {
        let location = d.location.as_ref();
        serde_json::json!({
            "severity": d.severity.as_str(),
            "code": d.code.as_str(),
            "file": d.file,
            "line": location.map(|p| p.line),
            "column": location.map(|p| p.column),
            "text": location.map(|p| p.text.as_str()),
            "message": d.message,
            "help": d.help,
        })
    };
    diagnostics.iter().map(one).collect()
}
