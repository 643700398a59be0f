//! What a refusal means here, and what to change.

use nix::errno::Errno;

use super::{
    finding::{Answer, Finding},
    surroundings::Surroundings,
};
use crate::datapath::trial::{Refusal, Step};

/// The finding about what was refused.
pub(super) fn refused(
    finding: Finding,
    refusal: &Refusal,
    since: &str,
    configuration: Option<&str>,
    surroundings: &Surroundings,
) -> Finding {
    let not_permitted = matches!(refusal.errno, Some(libc::EPERM | libc::EACCES));
    let missing = surroundings.missing();
    let mut finding = Finding {
        answer: Answer::No,
        reached: (refusal.step == Step::Attach)
            .then_some("loaded")
            .or(finding.reached),
        reason: Some(refusal.to_string()),
        errno: refusal.errno.map(|errno| format!("{:?}", Errno::from_raw(errno))),
        words: refusal.words.clone(),
        ..finding
    };
    finding.remedy = Some(if not_permitted && !missing.is_empty() {
        // Whether the kernel could is not known: it was not asked by somebody who may.
        finding.answer = Answer::Unknown;
        "run it as root, for instance with sudo".to_owned()
    } else if not_permitted && refusal.words.is_none() {
        "something other than capabilities forbids it (the kernel's configuration, a container's seccomp \
         filter, a security module): run it outside the container, or on another kernel"
            .to_owned()
    } else {
        match configuration {
            Some(configuration) => format!("Linux {since} or newer, built with {configuration}"),
            None => format!("Linux {since} or newer"),
        }
    });
    finding
}
