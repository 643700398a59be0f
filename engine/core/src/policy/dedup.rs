//! Reads the windows of event deduplication (`deduplicate`).

use engine_common::dedup::DedupWindows;

use super::{
    diagnostic::{Code, Reporter, quoted},
    fields::{self, Fields},
    model::Dedup,
    yaml_node::Node,
};

/// Units of a window, in milliseconds.
const UNITS: [(&str, u32); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// Reads `deduplicate: {audit: 1s, block: off}`; `None` if an error was reported.
pub(super) fn read(node: &Node, reporter: &mut Reporter<'_>) -> Option<Dedup> {
    let fields = Fields::of(node, "`deduplicate`", &["audit", "block", "kill"], reporter)?;
    if fields.is_empty() {
        let help = "add a window: `deduplicate: {audit: 10s}`, or remove `deduplicate`";
        reporter.error(
            Code::EmptySelector,
            node.span,
            "`deduplicate` has no window",
            help,
        );
        return None;
    }
    let mut of = |name| match fields.get(name) {
        None => Some(None),
        Some(node) => window(node, reporter).map(Some),
    };
    // Reads all three before the first `?`, so that all errors are reported.
    let (audit_ms, block_ms, kill_ms) = (of("audit"), of("block"), of("kill"));
    Some(Dedup {
        audit_ms: audit_ms?,
        block_ms: block_ms?,
        kill_ms: kill_ms?,
    })
}

fn window(node: &Node, reporter: &mut Reporter<'_>) -> Option<u32> {
    let found = fields::word(node, "a time such as 10s, or `off`", reporter)?;
    if found.text == "off" {
        return Some(0);
    }
    let ms = milliseconds(found.text);
    if ms.is_none() {
        reporter.error(
            Code::WrongValue,
            found.span,
            format!("invalid window {}", quoted(found.text)),
            "write a time from 1ms to 1h, such as 500ms, 10s or 5m; or `off`",
        );
    }
    ms
}

fn milliseconds(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let ms = number.parse::<u32>().ok()?.checked_mul(*factor)?;
    (1..=DedupWindows::MAX_MS).contains(&ms).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_need_a_unit_and_are_limited() {
        for (text, ms) in [
            ("1ms", 1),
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(milliseconds(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "0s",
            "0",
            "5",
            "1.5s",
            "-1s",
            "s",
            "2h",
            "1d",
            "99999999999s",
            "1 s",
        ] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
