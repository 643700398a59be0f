//! What the operator means: from the text of a policy file to a validated [`Policy`]. Knows no kernel;
//! files are read only where a policy or a set names one.
//!
//! ```text
//! text -> yaml (spanned tree) -> variable (values put in) -> validate -> Policy + diagnostics
//! flags of the command line   -> flags -----------------------------> Policy
//! ```
//!
//! All faults of a file are found in one go, each with its place and what to write instead.

mod address_file;
pub mod address_set;
pub mod builtin;
mod context;
mod dedup;
pub mod diagnostic;
mod family;
mod fields;
mod flag;
pub mod flags;
mod hooks;
mod load;
pub mod model;
mod name;
mod nearest;
mod network;
mod node;
mod port;
pub mod raw;
mod render;
mod resolvers;
mod rule;
mod service;
mod set;
mod set_order;
mod shadow;
mod source;
mod subject;
pub mod target;
mod unix;
mod validate;
mod variable;
mod yaml;

pub use address_set::AddressSet;
pub use context::LoadContext;
pub use diagnostic::{Code, Diagnostic, Place, Severity};
pub use flags::{FlagError, FromFlags, from_flags};
pub use load::{Loaded, load, load_stream, load_text};
pub use model::{
    Binary, Errno, Fold, Hooks, Policy, PortRange, Rule, Service, Services, Subject, UnixName, UnixSockets,
};
pub use raw::{RawPolicy, schema};
pub use source::{MAX_ADDRESS_FILE_BYTES, MAX_POLICY_BYTES};
pub use target::{Asked, Target, TargetError, parse_asked, parse_target};
pub use variable::{Variables, is_variable_name};
