//! Writing policies as YAML: what is written reads back as the same policy.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{fs, path::Path};

use proptest::prelude::*;
use tidegate_core::policy::{LoadContext, RawPolicy, load_text, to_yaml};

fn raw(text: &str) -> RawPolicy {
    serde_yaml::from_str(text.trim_start_matches('\u{feff}')).unwrap()
}

fn context() -> LoadContext {
    let mut context = LoadContext {
        resolvers: vec![[192, 0, 2, 53].into()],
        ..LoadContext::default()
    };
    for (name, value) in [
        ("NAME", "from-variable"),
        ("PODCIDR", "10.244.0.0/24 10.244.1.0/24"),
        ("SERVICECIDR", "10.96.0.0/12"),
        ("PORTS", "80,443/tcp\n6000-6010/udp"),
        ("INJECTION", "x\"\n  default: allow\n# "),
    ] {
        context.variables.set(name, value);
    }
    context
}

#[test]
fn every_valid_policy_survives_a_round_trip() {
    let mut count = 0;
    for directory in ["tests/corpus/valid", "tests/corpus/warning", "../../policies"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let before = raw(&text);
            let written = to_yaml(&before).unwrap();
            assert_eq!(raw(&written), before, "{}:\n{written}", path.display());

            let load = |text: &str| load_text("p.yaml", text, &directory, &context());
            let after = load(&written);
            assert!(after.policy.is_some(), "{}", after.render(false));
            assert_eq!(after.policy, load(&text).policy, "{}:\n{written}", path.display());
            count += 1;
        }
    }
    assert!(count >= 25, "only {count} files");
}

/// Strings that YAML could read as another type, among arbitrary ones.
fn reason() -> impl Strategy<Value = String> {
    let ambiguous = vec![
        "true",
        "no",
        "null",
        "~",
        "0x10",
        "0o7",
        "0b1",
        "1e3",
        "1.",
        ".5",
        ".inf",
        "-",
        "- a",
        "a: b",
        "a #b",
        "*a",
        "&a",
        "!t",
        "@s",
        "%",
        "|",
        ">",
        "'",
        "\"",
        "{}",
        "[]",
        "",
        " a ",
        "a\nb",
        "\u{85}",
        "\u{2028}",
        "\u{feff}a",
        "\0",
        "2001:db8::",
    ];
    prop_oneof![
        any::<String>(),
        prop::sample::select(ambiguous).prop_map(str::to_owned)
    ]
}

proptest! {
    #[test]
    fn any_string_survives_a_round_trip(reason in reason()) {
        let mut policy = raw(
            "{apiVersion: tidegate.io/v1, kind: EgressPolicy, metadata: {name: p}, \
             spec: {default: block, rules: [{name: a, action: allow, to: any}]}}",
        );
        // A dollar sign starts a variable unless it is doubled.
        let rules = policy.spec.rules.as_mut().unwrap();
        rules[0].reason = Some(reason.replace('$', "$$"));
        let written = to_yaml(&policy).unwrap();
        prop_assert_eq!(&raw(&written), &policy);
        let loaded = load_text("p.yaml", &written, Path::new(""), &LoadContext::default());
        prop_assert!(loaded.policy.is_some(), "{}\n{}", loaded.render(false), written);
        let after = loaded.policy.unwrap();
        prop_assert_eq!(after.rules[0].reason.as_deref(), Some(reason.as_str()));
    }
}
