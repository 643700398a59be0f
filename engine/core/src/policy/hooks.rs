//! Reads the hooks that a policy uses (`hooks`).

use engine_common::{Mode, scope::HookSet};

use super::{
    diagnostic::{Code, Reporter, quoted},
    fields,
    model::Hooks,
    nearest::nearest,
    yaml_node::{Node, Value},
};

/// Reads `hooks: auto` or a list; `None` if an error was reported.
pub(super) fn read(node: &Node, mode: Option<Mode>, reporter: &mut Reporter<'_>) -> Option<Hooks> {
    let hooks = match &node.value {
        Value::Scalar(_) => {
            let found = fields::word(node, "`auto` or a list of hooks", reporter)?;
            if found.text == "auto" {
                return Some(Hooks::Auto);
            }
            let help = if Hooks::from_name(found.text).is_some() {
                format!("write a list: [{}]", found.text)
            } else {
                format!("write `auto`, or a list of: {}", names())
            };
            let message = format!("expected `auto` or a list of hooks, found {}", quoted(found.text));
            reporter.error(Code::WrongValue, found.span, message, help);
            return None;
        }
        _ => {
            let items = fields::list(node, "hooks", "write `auto`, or remove `hooks`", reporter)?;
            of_list(items, reporter)?
        }
    };
    let mut refuse = |message: &str, help: &str| {
        reporter.error(Code::WrongValue, node.span, message, help);
        None
    };
    let hooks = Hooks::Only(hooks);
    if mode.is_some_and(|mode| !hooks.supports_mode(mode)) {
        return refuse(
            "`hooks: [kprobe]` cannot enforce a policy: a kprobe only observes TCP connections",
            "write `mode: audit`, or add `cgroup` to `hooks`",
        );
    }
    if hooks == Hooks::Only(HookSet::LSM.union(HookSet::TRACER)) {
        return refuse(
            "`kprobe` has no effect without `cgroup`: it adds the local address to the events of cgroup hooks",
            "add `cgroup` to `hooks`, or remove `kprobe`",
        );
    }
    Some(hooks)
}

fn of_list(items: &[Node], reporter: &mut Reporter<'_>) -> Option<HookSet> {
    let before = reporter.errors();
    let mut hooks = HookSet::NONE;
    for word in fields::words(items, "a hook", reporter) {
        if let Some(named) = Hooks::from_name(word.text) {
            hooks = hooks.union(named);
            continue;
        }
        let known = Hooks::NAMES.iter().map(|(name, _)| *name);
        let help = match nearest(word.text, known) {
            Some(near) => format!("write `{near}`"),
            None if word.text == "auto" => "write `hooks: auto`, without a list".to_owned(),
            None => format!("valid hooks: {}", names()),
        };
        let message = format!("invalid hook {}", quoted(word.text));
        reporter.error(Code::WrongValue, word.span, message, help);
    }
    let invalid =
        reporter.errors() != before || items.iter().any(|item| matches!(item.value, Value::Invalid));
    (!invalid).then_some(hooks)
}

fn names() -> String {
    Hooks::NAMES.map(|(name, _)| name).join(", ")
}
