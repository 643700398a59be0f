//! Errors of the policy compiler.

use std::path::PathBuf;

use engine_common::image::Dimension;

use crate::hint::Hint;

/// Why a validated policy cannot be compiled: a limit is exceeded, or the identity of a file is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A rule names an executable that was not found.
    #[error(
        "rule {rule:?}: executable {} not found: correct the path, or install the executable",
        path.display()
    )]
    MissingExecutable {
        /// Name of the rule.
        rule: String,
        /// Path of the executable.
        path: PathBuf,
    },
    /// A rule names a unix socket whose id was not looked up.
    #[error("internal error: rule {rule:?}: unix socket {name} was not looked up")]
    MissingSocket {
        /// Name of the rule.
        rule: String,
        /// The socket, in policy syntax.
        name: String,
    },
    /// More rules than a bitmap has bits.
    #[error("the policy has {rules} rules, the maximum is {limit}: merge rules, or split the policy")]
    TooManyRules {
        /// Number of rules.
        rules: usize,
        /// The maximum.
        limit: usize,
    },
    /// More address ranges than can be compiled in reasonable time and memory.
    #[error(
        "the rules have {ranges} address ranges, the maximum is {limit} (a set counts once for each \
         rule that uses it): use large sets in fewer rules"
    )]
    TooManyRanges {
        /// Number of ranges of all rules together.
        ranges: usize,
        /// The maximum.
        limit: usize,
    },
    /// More NAT64 prefixes than the header has slots.
    #[error("the policy has {prefixes} NAT64 prefixes, the maximum is {limit}: remove some")]
    TooManyNat64Prefixes {
        /// Number of prefixes.
        prefixes: usize,
        /// The maximum.
        limit: usize,
    },
    /// A protocol id outside the range of the tables.
    #[error("rule {rule:?}: invalid protocol {protocol}: must be less than {limit}")]
    UnknownProtocol {
        /// Name of the rule.
        rule: String,
        /// The protocol id.
        protocol: u16,
        /// The first invalid id.
        limit: u16,
    },
    /// The image exceeds the maximum size.
    #[error(
        "the policy needs more than {limit} pages of 4 KiB: use fewer addresses, or fewer rules \
         with overlapping addresses"
    )]
    TooManyPages {
        /// Maximum number of pages.
        limit: u32,
    },
    /// One bucket of an interval table has more intervals than the largest directory holds.
    #[error(
        "the rules split the dimension {dimension:?} into too many intervals ({intervals} in one bucket): use fewer addresses"
    )]
    TooManyIntervals {
        /// The dimension.
        dimension: Dimension,
        /// Number of intervals of the bucket.
        intervals: usize,
    },
}

impl Hint for CompileError {}
