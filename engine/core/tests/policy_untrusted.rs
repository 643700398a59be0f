//! Policies are untrusted input: loading any text ends with a policy or with errors, without a panic.

use std::path::Path;

use proptest::prelude::*;
use tidegate_core::policy::{LoadContext, Severity, load_stream, load_text, parse_destination};

fn check(text: &str) {
    let mut context = LoadContext::default();
    context.variables.set("A", "10.0.0.0/8");
    let loaded = load_text("p.yaml", text, Path::new("/nonexistent"), &context);
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    assert_eq!(
        loaded.policy.is_none(),
        errors > 0,
        "{text:?}: {:?}",
        loaded.diagnostics
    );
    for diagnostic in &loaded.diagnostics {
        if let Some(location) = &diagnostic.location {
            let line = text
                .trim_start_matches('\u{feff}')
                .split('\n')
                .nth(location.line - 1);
            assert!(
                line.is_some_and(|l| l.contains(&location.text)),
                "{text:?}: {diagnostic:?}"
            );
        }
    }
    let rendered = loaded.render(false);
    assert!(
        !rendered.chars().any(|c| c.is_control() && c != '\n'),
        "{rendered:?}"
    );
}

/// Fragments of policies and of YAML, which get further than arbitrary characters.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "apiVersion: tidegate.io/v1\n",
        "kind: EgressPolicy\n",
        "metadata: {name: p}\n",
        "spec:\n",
        "  default: block\n",
        "  rules:\n",
        "    - name: a\n",
        "      action: allow\n",
        "      to: any\n",
        "      to: [\"@private\", 10.0.0.0/8]\n",
        "      except: [10.0.0.0/9]\n",
        "      ports: [80, \"1-2/udp\"]\n",
        "      protocols: [icmp, raw, 47]\n",
        "      process: {uids: [0], binaries: [/bin/sh]}\n",
        "  sets:\n",
        "    s: [\"@s\"]\n",
        "    t: {file: t}\n",
        "  nat64: [\"2001:db8::/32\"]\n",
        "${A}",
        "${A:-",
        "}",
        "$",
        "[",
        "]",
        "{",
        "\n",
        "- ",
        ": ",
        "? ",
        "&a ",
        "*a",
        "!t ",
        "|\n",
        ">\n",
        "\"",
        "'",
        "#",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\t",
        "  ",
        "é",
        "\u{2028}",
        "\u{85}",
        "\u{202e}",
        "\u{feff}",
        "\r\n",
        "\r",
        "@",
        ",",
        "\0",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_text(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn fragments_of_policies(text in pieces()) {
        check(&text);
    }

    #[test]
    fn a_policy_with_inserted_fragments(at in 0usize..400, piece in pieces()) {
        let mut text = include_str!("corpus/valid/everything.yaml").to_owned();
        let at = (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.insert_str(at, &piece);
        check(&text);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let loaded = load_stream("p.yaml", &bytes[..], Path::new(""), &LoadContext::default());
        prop_assert!(loaded.policy.is_none());
        loaded.render(true);
    }

    #[test]
    fn any_target(text in "[0-9a-f:./\\[\\]]{0,24}") {
        let _ = parse_destination(&text);
    }
}

#[test]
fn large_and_deep_texts_are_refused_quickly() {
    check(&"[".repeat(100_000));
    check(&"- ".repeat(100_000));
    check(&"a: ".repeat(1000));
    check(&format!("spec: {{rules: [{}]}}", "{},".repeat(10_000)));
    let chain: String = (0..5_000)
        .map(|i| format!("    s{i}: [\"@s{}\"]\n", i + 1))
        .collect();
    check(&format!("spec:\n  sets:\n{chain}    s5000: [\"@s0\"]\n"));
    assert!(
        load_text("p", &" ".repeat(5 << 20), Path::new(""), &LoadContext::default())
            .policy
            .is_none()
    );
}
