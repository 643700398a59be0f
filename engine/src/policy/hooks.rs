//! Reads which hooks a policy is for.

use engine_common::{Mode, scope::HookSet};

use super::{
    diagnostic::{Code, Reporter, quoted},
    fields,
    model::Hooks,
    nearest::nearest,
    node::{Node, Value},
};

/// `hooks: auto`, or a list; `None` when something in it was reported.
pub(super) fn read(node: &Node, mode: Option<Mode>, reporter: &mut Reporter<'_>) -> Option<Hooks> {
    let hooks = match &node.value {
        Value::Scalar(_) => {
            let found = fields::word(node, "`auto` or a list of hooks", reporter)?;
            if found.text == "auto" {
                return Some(Hooks::Auto);
            }
            let help = if Hooks::named(found.text).is_some() {
                format!("write a list: [{}]", found.text)
            } else {
                format!("write `auto`, or a list of: {}", names())
            };
            let message = format!("{} where `auto` or a list of hooks belongs", quoted(found.text));
            reporter.error(Code::WrongValue, found.span, message, help);
            return None;
        }
        _ => {
            let items = fields::list(node, "hooks", "write `auto`, or leave `hooks` out", reporter)?;
            of_list(items, reporter)?
        }
    };
    let mut refuse = |message: &str, help: &str| {
        reporter.error(Code::WrongValue, node.span, message, help);
        None
    };
    let hooks = Hooks::Only(hooks);
    if mode.is_some_and(|mode| !hooks.allow(mode)) {
        return refuse(
            "a probe only watches, and the mode of the policy is enforce",
            "write `mode: audit`, or add `cgroup` to the hooks",
        );
    }
    if hooks == Hooks::Only(HookSet::LSM.union(HookSet::TRACER)) {
        return refuse(
            "beside `lsm` alone the probe has nothing to do: it tells the sources of what cgroup hooks report",
            "add `cgroup` to the hooks, or take `kprobe` out",
        );
    }
    Some(hooks)
}

fn of_list(items: &[Node], reporter: &mut Reporter<'_>) -> Option<HookSet> {
    let before = reporter.errors();
    let mut hooks = HookSet::NONE;
    for word in fields::words(items, "a hook", reporter) {
        if let Some(named) = Hooks::named(word.text) {
            hooks = hooks.union(named);
            continue;
        }
        let known = Hooks::NAMES.iter().map(|(name, _)| *name);
        let help = match nearest(word.text, known) {
            Some(near) => format!("write `{near}`"),
            None if word.text == "auto" => "`auto` stands alone: `hooks: auto`".to_owned(),
            None => format!("the hooks are: {}", names()),
        };
        let message = format!("{} is not a hook", quoted(word.text));
        reporter.error(Code::WrongValue, word.span, message, help);
    }
    let faulty = reporter.errors() != before || items.iter().any(|item| matches!(item.value, Value::Faulty));
    (!faulty).then_some(hooks)
}

fn names() -> String {
    Hooks::NAMES.map(|(name, _)| name).join(", ")
}
