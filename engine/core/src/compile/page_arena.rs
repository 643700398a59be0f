//! Allocates space in the pages of an image. Nothing is freed.

use engine_common::image::{FREE_WORD, Location, PAGE_WORDS, Page};

use super::CompileError;

/// Maximum number of pages of an image: 128 MiB.
pub const MAX_PAGES: u32 = 32768;

/// The pages of an image under construction. Page 0 exists from the start; its header and rule bitmaps
/// are reserved.
///
/// Objects go into page 0 while they fit, because the kernel programs read it without a map look-up;
/// otherwise into the page opened last.
#[derive(Debug)]
pub(super) struct PageArena {
    pages: Vec<Page>,
    limit: u32,
    /// First free word of page 0.
    root_free: usize,
    /// The page opened last, and its first free word.
    open: (usize, usize),
}

impl PageArena {
    /// An arena of at most `limit` pages.
    pub(super) fn new(limit: u32) -> PageArena {
        PageArena {
            pages: vec![[0; PAGE_WORDS]],
            limit,
            root_free: FREE_WORD,
            open: (0, PAGE_WORDS),
        }
    }

    /// Allocates `words` words within one page. Objects larger than a page get consecutive pages of their own.
    pub(super) fn allocate(&mut self, words: usize) -> Result<Location, CompileError> {
        self.allocate_aligned(words, 1)
    }

    /// Like [`PageArena::allocate`], at a multiple of `align` words (a power of two, at most a page).
    pub(super) fn allocate_aligned(&mut self, words: usize, align: usize) -> Result<Location, CompileError> {
        if let Some(word) = fit(self.root_free, words, align) {
            self.root_free = word + words;
            return Ok(location(0, word));
        }
        if let Some(word) = fit(self.open.1, words, align) {
            self.open.1 = word + words;
            return Ok(location(self.open.0, word));
        }
        let count = words.div_ceil(PAGE_WORDS).max(1);
        let first = self.allocate_pages(count)?;
        let used = words - (count - 1) * PAGE_WORDS;
        // Continue in the page with more free words.
        if used < self.open.1 {
            self.open = (first + count - 1, used);
        }
        Ok(location(first, 0))
    }

    /// Allocates `count` consecutive pages. Returns the index of the first.
    pub(super) fn allocate_pages(&mut self, count: usize) -> Result<usize, CompileError> {
        let first = self.pages.len();
        if first + count > self.limit as usize {
            return Err(CompileError::TooManyPages { limit: self.limit });
        }
        self.pages.resize(first + count, [0; PAGE_WORDS]);
        Ok(first)
    }

    /// The `count` words at `at`.
    pub(super) fn words_mut(&mut self, at: Location, count: usize) -> &mut [u64] {
        let first = at.0 as usize;
        &mut self.pages.as_flattened_mut()[first..first + count]
    }

    /// Number of pages, page 0 included.
    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Page 0.
    pub(super) fn root_mut(&mut self) -> &mut Page {
        &mut self.pages[0]
    }

    pub(super) fn into_pages(self) -> Vec<Page> {
        self.pages
    }
}

/// The first aligned word at or after `free` where `words` words fit into the page.
fn fit(free: usize, words: usize, align: usize) -> Option<usize> {
    let word = free.next_multiple_of(align);
    (word + words <= PAGE_WORDS).then_some(word)
}

/// The location of a word of a page.
pub(super) fn location(page: usize, word: usize) -> Location {
    Location((page * PAGE_WORDS + word) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_neither_overlap_nor_cross_pages() {
        let mut arena = PageArena::new(MAX_PAGES);
        let mut taken: Vec<(u32, u32)> = vec![(0, FREE_WORD as u32)];
        for i in 0..2000usize {
            let words = [1, 3, 16, 126, 400, 512, 7][i % 7];
            let at = arena.allocate(words).unwrap();
            assert!(at.word() + words <= PAGE_WORDS);
            arena.words_mut(at, words).fill(1);
            taken.push((at.0, at.0 + words as u32));
        }
        let pages = arena.page_count();
        let at = arena.allocate(3 * PAGE_WORDS - 8).unwrap();
        assert_eq!((at, arena.page_count()), (location(pages, 0), pages + 3));
        taken.push((at.0, at.0 + 3 * PAGE_WORDS as u32 - 8));
        let at = arena.allocate(8).unwrap();
        taken.push((at.0, at.0 + 8));
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    #[test]
    fn small_objects_share_page_0() {
        let mut arena = PageArena::new(MAX_PAGES);
        let free = PAGE_WORDS - FREE_WORD;
        assert_eq!(arena.allocate(free - 9).unwrap().0, FREE_WORD as u32);
        assert_eq!(arena.allocate(10).unwrap(), location(1, 0));
        assert_eq!(arena.allocate_aligned(8, 8).unwrap(), location(0, PAGE_WORDS - 8));
        assert_eq!(arena.allocate_aligned(8, 8).unwrap(), location(1, 16));
        assert_eq!(arena.page_count(), 2);
    }

    #[test]
    fn the_page_limit_is_enforced() {
        let mut arena = PageArena::new(3);
        arena.allocate_pages(2).unwrap();
        assert_eq!(
            arena.allocate_pages(1),
            Err(CompileError::TooManyPages { limit: 3 })
        );
        assert!(arena.allocate(PAGE_WORDS - FREE_WORD).is_ok());
        assert!(arena.allocate(1).is_err());
    }
}
