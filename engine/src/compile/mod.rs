//! From a validated [`Policy`] to the pages the kernel reads ([`Image`]). Pure: no I/O, no kernel.
//!
//! ```text
//! Policy -> keys that each rule covers (coverage) -> elementary intervals with classes (interval, class)
//!        -> lines of nodes (line, entry) -> pages (page_arena, assemble) -> Image
//! ```
//! [`oracle`] is the second opinion: a loop over the rules, written to be obviously right.
//! [`mod@explain`] tells why, [`mod@dump`] prints what is in the pages, and [`mod@diff`] what changes
//! from one image to another. Pages read back from the kernel become an image again by
//! [`Image::from_pages`].

mod assemble;
mod coverage;
pub mod diff;
pub mod dump;
mod entry;
mod error;
pub mod explain;
pub mod identity;
pub mod image;
pub mod interval;
mod interval_table;
pub mod oracle;
mod page_arena;
mod read_back;
pub mod rule_set;
#[cfg(test)]
mod sample;
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
