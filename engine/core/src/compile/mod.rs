//! Compiles a validated [`Policy`] into the pages that the kernel programs read ([`Image`]). No I/O.
//!
//! ```text
//! Policy -> keys that each rule covers (coverage) -> elementary intervals with rule sets (interval, rule_set)
//!        -> interval tables (interval_table, entry) -> pages (page_arena, assemble) -> Image
//! ```
//! [`oracle`] evaluates a policy independently: a loop over the rules, written to be obviously right.
//! [`mod@explain`] gives the reasons for a verdict, [`mod@dump`] prints an image as text, and
//! [`mod@diff`] lists the changes between two images. [`Image::from_pages`] checks pages that are read
//! back from the kernel.

mod assemble;
pub mod diff;
pub mod dump;
mod entry;
mod error;
pub mod explain;
pub mod identity;
pub mod image;
mod interval;
mod interval_table;
mod key_ranges;
pub mod oracle;
mod page_arena;
mod read_back;
pub mod rule_set;
#[cfg(test)]
mod test_policies;
mod walk;

pub use assemble::compile;
pub use error::CompileError;
pub use explain::{Explanation, explain, explain_unix};
pub use identity::{Identities, paths_of, socket_paths_of};
pub use image::Image;
pub use page_arena::MAX_PAGES;
pub use read_back::ImageError;

#[cfg(doc)]
use crate::policy::Policy;
