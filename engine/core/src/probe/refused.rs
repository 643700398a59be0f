//! The findings and hints for trials that the kernel refused.

use nix::errno::Errno;

use super::{
    environment::HostEnvironment,
    finding::{Finding, Reached, Support},
};
use crate::datapath::trial::{Refusal, Step};

/// Hint where a capability is missing.
pub(super) const RUN_AS_ROOT: &str = "run it as root, for example with sudo";

/// The finding for a refused trial. `since` is the first kernel version with the feature, `configuration` the build
/// options that it needs.
pub(super) fn refused(
    finding: Finding,
    refusal: &Refusal,
    since: &str,
    configuration: Option<&str>,
    environment: &HostEnvironment,
) -> Finding {
    let not_permitted = matches!(refusal.errno, Some(libc::EPERM | libc::EACCES));
    let lacks_capabilities = !environment.missing_capabilities().is_empty();
    let mut finding = Finding {
        support: Support::No,
        reached: (refusal.step == Step::Attach)
            .then_some(Reached::Loaded)
            .or(finding.reached),
        reason: Some(refusal.to_string()),
        errno: refusal.errno.map(|errno| format!("{:?}", Errno::from_raw(errno))),
        verifier_log: refusal.detail.clone(),
        ..finding
    };
    finding.hint = Some(if not_permitted && lacks_capabilities {
        // The kernel may support it: the refusal is about this process.
        finding.support = Support::Unknown;
        RUN_AS_ROOT.to_owned()
    } else if not_permitted && refusal.detail.is_none() {
        "it is forbidden although all capabilities are held (by the kernel's configuration, a seccomp filter \
         of a container, or a security module): run it outside the container, or on another kernel"
            .to_owned()
    } else {
        match configuration {
            Some(configuration) => format!("use Linux {since} or newer, built with {configuration}"),
            None => format!("use Linux {since} or newer"),
        }
    });
    finding
}
