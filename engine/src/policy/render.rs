//! Diagnostics as people and as programs read them.

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Severity, printable};

/// Diagnostics as text with excerpts of the file; `styled` with colours. Ends with a line break
/// unless it is empty.
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
    // One empty line between diagnostics, none behind the last.
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
    // Values of variables and names of files can hold anything.
    let file = printable(&diagnostic.file);
    let title = level
        .primary_title(printable(&diagnostic.message))
        .id(diagnostic.code.as_str());
    let group = match &diagnostic.place {
        None => title.element(Origin::path(file)),
        Some(place) => {
            let snippet = Snippet::source(excerpt(&place.excerpt))
                .line_start(place.line)
                .annotation(AnnotationKind::Primary.span(place.range.clone()));
            if place.is_whole_line() {
                title.element(snippet.path(file))
            } else {
                // The column would be counted from the start of the excerpt.
                let origin = Origin::path(file).line(place.line).char_column(place.column);
                title.element(origin).element(snippet)
            }
        }
    };
    renderer.render(&[group.element(Level::HELP.message(printable(&diagnostic.help)))])
}

/// A line of the file. The renderer replaces the control characters of ASCII and those that turn the
/// direction of text; the others are replaced here, each by a character of as many bytes.
fn excerpt(line: &str) -> String {
    let clean = |c| match c {
        '\u{80}'..='\u{9f}' => '\u{b7}',
        '\u{2028}' | '\u{2029}' => '\u{fffd}',
        c => c,
    };
    line.chars().map(clean).collect()
}

/// Diagnostics as a JSON list of `{severity, code, file, line, column, text, message, help}`; line,
/// column and text are null when the diagnostic is about the file as a whole.
pub(super) fn json(diagnostics: &[Diagnostic]) -> serde_json::Value {
    let one = |d: &Diagnostic| {
        let place = d.place.as_ref();
        serde_json::json!({
            "severity": d.severity.as_str(),
            "code": d.code.as_str(),
            "file": d.file,
            "line": place.map(|p| p.line),
            "column": place.map(|p| p.column),
            "text": place.map(|p| p.text.as_str()),
            "message": d.message,
            "help": d.help,
        })
    };
    diagnostics.iter().map(one).collect()
}
