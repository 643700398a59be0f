//! The compiled policy: pages in the format that the kernel programs read.

use engine_common::{
    Address, Attempt, ExecutableId, Protocol, SocketFamily, UnixSocketId, Verdict,
    image::{Header, Page, Revision},
};

/// One compiled policy. The kernel map holds a copy of these pages.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    // INVARIANT: never empty; page 0 starts with the header.
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
    /// Wraps pages that the compiler wrote.
    pub(super) fn new(pages: Vec<Page>) -> Image {
        debug_assert!(!pages.is_empty());
        Image { pages }
    }

    /// The pages of 4 KiB; page 0 starts with the header.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// The words of all pages in native byte order, as the kernel map holds them.
    pub fn words(&self) -> &[u64] {
        self.pages.as_flattened()
    }

    /// The same policy with another generation and mode.
    #[must_use]
    pub fn with_revision(mut self, revision: Revision) -> Image {
        revision.write(&mut self.pages[0]);
        self
    }

    /// The same policy with all counters set to 0.
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

    /// The header in page 0.
    pub fn header(&self) -> Header<'_> {
        Header(&self.pages[0])
    }

    /// Number of rules, 0 to 1,024.
    pub fn rule_count(&self) -> u32 {
        self.header().rule_count()
    }

    /// Evaluates the policy for an attempt, whose address must be canonical. If the image cannot be
    /// read, the verdict is a fault, which denies.
    pub fn decide(&self, attempt: &Attempt) -> Verdict {
        debug_assert!(is_canonical(attempt.address));
        engine_common::decide(self.pages(), &self.pages[0], attempt).unwrap_or_else(Verdict::fault)
    }

    /// Evaluates the policy for the creation of a socket whose protocol has no address hook
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

    /// Evaluates the policy for a connection to a unix socket ([`engine_common::decide_unix`]).
    pub fn decide_unix(&self, socket: UnixSocketId, uid: u32, executable: ExecutableId) -> Verdict {
        engine_common::decide_unix(self.pages(), &self.pages[0], socket, uid, executable)
            .unwrap_or_else(Verdict::fault)
    }
}

fn is_canonical(address: Address) -> bool {
    engine_common::destination::canonical(address) == address
}
