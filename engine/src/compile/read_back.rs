//! Images read back from where they were put: pages that somebody else may have written.

use engine_common::{
    ABI_VERSION,
    image::{Dimension, Location, PAGE_WORDS, Page},
    limits::{MAX_BITMAP_WORDS, MAX_RULES},
};

use super::{
    Image,
    entry::LineKey,
    walk::{self, Walk},
};

/// Why pages are no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No page at all.
    #[error("the image has no pages")]
    Empty,
    /// Another version of tidegate wrote it.
    #[error("the image has table format {found}, this tidegate reads {expected}")]
    Abi {
        /// The version it has.
        found: u32,
        /// The version that can be read.
        expected: u32,
    },
    /// Pages are missing, or too many.
    #[error("the image says it has {said} pages, and {found} were read")]
    PageCount {
        /// What its header says.
        said: u32,
        /// How many there are.
        found: usize,
    },
    /// Bitmaps of a size that no image has.
    #[error("the image says its bitmaps have {0} words; 1 to {MAX_BITMAP_WORDS} are possible")]
    BitmapWords(usize),
    /// More rules than its bitmaps have bits, or than are possible.
    #[error("the image says it has {rules} rules; it has room for {limit}")]
    RuleCount {
        /// What its header says.
        rules: u32,
        /// How many it could have.
        limit: usize,
    },
    /// The counters are not in the image.
    #[error("the counters of the image are outside of its pages")]
    Counters,
    /// A line leads to something that is not in the image, or does not cover all of its keys.
    #[error("the {0:?} line of the image cannot be followed to its end")]
    Line(Dimension),
    /// A line leads to a bitmap that is not in the image.
    #[error("the {0:?} line of the image leads to a set of rules that is not there")]
    Bitmap(Dimension),
}

impl Image {
    /// The image of pages that were read back, if all of it can be read.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn from_pages(pages: Vec<Page>) -> Result<Image, ImageError> {
        if pages.is_empty() {
            return Err(ImageError::Empty);
        }
        let image = Image::new(pages);
        image.check_header()?;
        for line in Dimension::ALL {
            match line {
                Dimension::V6 | Dimension::Executable | Dimension::Unix => {
                    image.check_line(line, &walk::wide(&image, line))?
                }
                Dimension::V4
                | Dimension::Port
                | Dimension::ProtocolSome
                | Dimension::ProtocolEvery
                | Dimension::Uid => {
                    image.check_line(line, &walk::narrow(&image, line))?;
                }
            }
        }
        Ok(image)
    }

    fn check_header(&self) -> Result<(), ImageError> {
        let header = self.header();
        if header.abi_version() != ABI_VERSION {
            return Err(ImageError::Abi {
                found: header.abi_version(),
                expected: ABI_VERSION,
            });
        }
        if header.page_count() as usize != self.pages().len() {
            return Err(ImageError::PageCount {
                said: header.page_count(),
                found: self.pages().len(),
            });
        }
        let words = header.bitmap_words();
        if !(1..=MAX_BITMAP_WORDS).contains(&words) {
            return Err(ImageError::BitmapWords(words));
        }
        let limit = MAX_RULES.min(words * 64);
        let rules = header.rule_count();
        if rules as usize > limit {
            return Err(ImageError::RuleCount { rules, limit });
        }
        // A word a rule, then default, then fault.
        let counters = header.counters().0 as usize + rules as usize + 2;
        if counters > self.words().len() {
            return Err(ImageError::Counters);
        }
        Ok(())
    }

    fn check_line<K: LineKey>(&self, line: Dimension, walk: &Walk<K>) -> Result<(), ImageError> {
        if walk.broken {
            return Err(ImageError::Line(line));
        }
        let is_there = |at: Location| {
            let words = self.header().bitmap_words();
            at.word() + words <= PAGE_WORDS && at.0 as usize + words <= self.words().len()
        };
        if !walk.sections.iter().all(|section| is_there(section.class)) {
            return Err(ImageError::Bitmap(line));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
