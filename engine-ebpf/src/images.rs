//! The active policies: one image per slot.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps},
    macros::btf_map,
};
use engine_common::{
    Tables, VerdictWord,
    image::{Header, PAGE_WORDS, Page},
    limits::MAX_POLICIES,
};

use crate::counter::Counter;

/// BPF_F_INNER_MAP (Linux 5.10) allows images of different sizes. The
/// flags of every image must equal these (`bpf_map_meta_equal`).
const IMAGE_FLAGS: usize = 0x1000;

/// An image: one element per page.
type ImageMap = Array<Page, 1, IMAGE_FLAGS>;

#[btf_map]
static IMAGES: ArrayOfMaps<ImageMap, { MAX_POLICIES as usize }> = ArrayOfMaps::new();

/// The image of a slot. It is looked up once per decision, so that a decision uses one image even if user space
/// replaces it meanwhile. A reference is the map's address, so that it fits one register.
#[repr(transparent)]
pub(crate) struct LiveImage(ImageMap);

impl LiveImage {
    #[inline(always)]
    pub(crate) fn of(slot: u32) -> Option<&'static LiveImage> {
        // SAFETY: LiveImage is a transparent wrapper of ImageMap, and the map lives as long as the
        // program runs (RCU).
        IMAGES
            .get(slot)
            .map(|map| unsafe { &*(map as *const ImageMap).cast::<LiveImage>() })
    }

    /// Page 0.
    #[inline(always)]
    pub(crate) fn root(&self) -> Option<*mut Page> {
        self.0.get_ptr_mut(0)
    }

    /// Increments the counter of a verdict. Most images have their counters in page 0, which needs no look-up.
    #[inline(always)]
    pub(crate) fn count(&self, root: *mut Page, verdict: VerdictWord) {
        // SAFETY: page 0 of the image, a map value that lives as long as the program runs (RCU).
        let header = Header(unsafe { &*root });
        let at = header.counters().0 + verdict.counter(header.rule_count());
        let page = match at / PAGE_WORDS as u32 {
            0 => root,
            index => match self.0.get_ptr_mut(index) {
                Some(page) => page,
                None => return,
            },
        };
        let word = at as usize & (PAGE_WORDS - 1);
        // SAFETY: the word is within the page, a map value.
        let counter = unsafe { Counter::at((*page).as_mut_ptr().add(word)) };
        counter.increment();
    }
}

impl Tables for LiveImage {
    #[inline(always)]
    fn page(&self, index: u32) -> Option<&Page> {
        self.0.get(index)
    }
}
