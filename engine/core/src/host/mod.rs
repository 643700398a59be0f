//! What policies require of the kernel, what the kernel provides, and the difference. The commands `exec`, `attach`,
//! `apply`, `set-mode`, `status`, `probe` and `selftest` all use this one.
//!
//! ```text
//! Policy -> Requirements \
//!                         unmet -> Unmet (feature, reason, effect): refused, or accepted with --best-effort
//! PinnedDatapath -> Capabilities /
//! ```
//! Whether the kernel calls programs that it has loaded is tried again ([`Capabilities::tried_for`], [`not_called`]): an
//! administrator may have switched them off since.

mod capability;
mod requirement;
mod unmet;

pub use capability::Capabilities;
pub use requirement::Requirements;
pub use unmet::{
    Enforcement, Feature, NOT_FULLY_ENFORCEABLE, PolicyUnmet, Unmet, not_called, refusal, refusal_hint, unmet,
};
