//! Checks images that are read back from the kernel, because another program may have written them.

use engine_common::{
    ABI_VERSION,
    image::{Dimension, Location, PAGE_WORDS, Page},
    limits::{MAX_BITMAP_WORDS, MAX_RULES},
};

use super::{
    Image,
    entry::TableKey,
    walk::{self, Walk},
};

/// Why pages are not a valid image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no pages.
    #[error("corrupt policy image: no pages")]
    Empty,
    /// Another version of tidegate wrote the image.
    #[error("policy image has ABI version {found}, this tidegate supports {expected}")]
    Abi {
        /// ABI version of the image.
        found: u32,
        /// ABI version of this program.
        expected: u32,
    },
    /// The header has another page count.
    #[error("corrupt policy image: header says {header} pages, found {found}")]
    PageCount {
        /// Page count of the header.
        header: u32,
        /// Number of pages found.
        found: usize,
    },
    /// The bitmap size is out of range.
    #[error("corrupt policy image: bitmaps of {0} words, expected 1 to {MAX_BITMAP_WORDS}")]
    BitmapWords(usize),
    /// More rules than the bitmaps have bits, or than a policy can have.
    #[error("corrupt policy image: {rules} rules, the maximum is {limit}")]
    RuleCount {
        /// Rule count of the header.
        rules: u32,
        /// Maximum for the bitmap size of the header.
        limit: usize,
    },
    /// The counters are outside the pages.
    #[error("corrupt policy image: the counters are outside its pages")]
    Counters,
    /// A table has a malformed node, points outside the image, or does not cover all keys.
    #[error("corrupt policy image: invalid table for the dimension {0:?}")]
    Table(Dimension),
    /// A table points to a bitmap outside the image.
    #[error("corrupt policy image: the table for the dimension {0:?} points to a bitmap outside its pages")]
    Bitmap(Dimension),
}

impl Image {
    /// Makes an image of pages that were read back.
    ///
    /// # Errors
    /// If the header or a table is malformed, or the image has another ABI version.
    pub fn from_pages(pages: Vec<Page>) -> Result<Image, ImageError> {
        if pages.is_empty() {
            return Err(ImageError::Empty);
        }
        let image = Image::new(pages);
        image.check_header()?;
        for dimension in Dimension::ALL {
            match dimension {
                Dimension::V6 | Dimension::Executable | Dimension::Unix => {
                    image.check_table(dimension, &walk::walk_u128(&image, dimension))?
                }
                Dimension::V4
                | Dimension::Port
                | Dimension::ProtocolSome
                | Dimension::ProtocolEvery
                | Dimension::Uid => {
                    image.check_table(dimension, &walk::walk_u32(&image, dimension))?;
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
                header: header.page_count(),
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
        // One word for each rule, then default, then fault.
        let counters = header.counters().0 as usize + rules as usize + 2;
        if counters > self.words().len() {
            return Err(ImageError::Counters);
        }
        Ok(())
    }

    fn check_table<K: TableKey>(&self, dimension: Dimension, walk: &Walk<K>) -> Result<(), ImageError> {
        if walk.broken {
            return Err(ImageError::Table(dimension));
        }
        let is_inside = |at: Location| {
            let words = self.header().bitmap_words();
            at.word() + words <= PAGE_WORDS && at.0 as usize + words <= self.words().len()
        };
        if !walk.ranges.iter().all(|range| is_inside(range.bitmap)) {
            return Err(ImageError::Bitmap(dimension));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
