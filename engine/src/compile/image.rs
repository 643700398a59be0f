//! The compiled policy.

use engine_common::{
    Address, Attempt, ExecutableId, Protocol, SocketFamily, UnixSocketId, Verdict,
    image::{Header, Page, Revision},
};

/// One compiled policy: the pages that the kernel reads, word for word.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    // INVARIANT: never empty; page 0 carries the header.
    pages: Vec<Page>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("pages", &self.pages.len())
            .finish_non_exhaustive()
    }
}

impl Image {
    /// The image of pages that the compiler has filled.
    pub(super) fn new(pages: Vec<Page>) -> Image {
        debug_assert!(!pages.is_empty());
        Image { pages }
    }

    /// The pages; page 0 starts with the header.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// All words of all pages, to be copied into a map as they are (native byte order).
    pub fn words(&self) -> &[u64] {
        self.pages.as_flattened()
    }

    /// The same policy as another generation, or in another mode.
    #[must_use]
    pub fn with_revision(mut self, life: Revision) -> Image {
        life.write(&mut self.pages[0]);
        self
    }

    /// The same policy with nothing counted yet.
    #[must_use]
    pub fn with_counters_cleared(mut self) -> Image {
        let first = self.header().counters().0 as usize;
        let count = self.rule_count() as usize + 2;
        let words = self.pages.as_flattened_mut();
        if let Some(counters) = words.get_mut(first..first + count) {
            counters.fill(0);
        }
        self
    }

    /// The header.
    pub fn header(&self) -> Header<'_> {
        Header(&self.pages[0])
    }

    /// Number of rules.
    pub fn rule_count(&self) -> u32 {
        self.header().rule_count()
    }

    /// What the policy says about an attempt, whose address must be canonical. What cannot be read
    /// is a fault, which denies.
    pub fn decide(&self, attempt: &Attempt) -> Verdict {
        debug_assert!(is_canonical(attempt.address));
        engine_common::decide(self.pages(), &self.pages[0], attempt).unwrap_or_else(Verdict::fault)
    }

    /// What the policy says about making a socket whose destinations no address hook sees
    /// ([`engine_common::decide_socket`]).
    pub fn decide_socket(
        &self,
        family: SocketFamily,
        protocol: Protocol,
        uid: u32,
        executable: ExecutableId,
    ) -> Verdict {
        engine_common::decide_socket(self.pages(), &self.pages[0], family, protocol, uid, executable)
            .unwrap_or_else(Verdict::fault)
    }

    /// What the policy says about reaching a unix socket ([`engine_common::decide_unix`]).
    pub fn decide_unix(&self, place: UnixSocketId, uid: u32, executable: ExecutableId) -> Verdict {
        engine_common::decide_unix(self.pages(), &self.pages[0], place, uid, executable)
            .unwrap_or_else(Verdict::fault)
    }
}

fn is_canonical(address: Address) -> bool {
    engine_common::destination::canonical(address) == address
}
