//! The decision.
//!
//! Order of precedence, the whole of it:
//! 1. A fault denies.
//! 2. Rules are asked in their order; the first that matches answers.
//! 3. A destination with two spellings (its own, and an IPv4 address inside) is asked about twice;
//!    of two answers the strictest holds, and between equals that of its own spelling.
//! 4. Where no rule matched, the policy's default answers.
//! 5. The policy's mode is applied last, by [`crate::Outcome::of`].
//! 6. Among several policies the strictest answer holds; that is the hooks' part.

use crate::{
    action::Action,
    attempt::{Address, Attempt, SocketFamily},
    destination::{canonical_v4, embedded_v4},
    executable::ExecutableId,
    image::{Dimension, Header, Location, PAGE_WORDS, Page, RuleBitmap},
    interval_table::{lookup_u32, lookup_u128},
    limits::MAX_BITMAP_WORDS,
    protocol::Protocol,
    unix_socket_id::UnixSocketId,
    verdict::{Fault, Reason, Verdict},
    verifier::forget,
};

/// Where the pages of one image come from: an inner map in the kernel, a slice elsewhere.
pub trait Tables {
    /// A page, or `None` when the image has none of that number.
    fn page(&self, number: u32) -> Option<&Page>;
}

impl Tables for [Page] {
    fn page(&self, number: u32) -> Option<&Page> {
        self.get(number as usize)
    }
}

/// Class of a rule bitmap with its page at hand.
#[derive(Clone, Copy)]
struct Bitmap<'a> {
    page: &'a Page,
    word: usize,
}

impl Bitmap<'_> {
    #[inline(always)]
    fn word(&self, i: usize) -> u64 {
        self.page[(self.word + i) & (PAGE_WORDS - 1)]
    }
}

/// Classes of four dimensions: a rule that all four bitmaps have matches.
type Classes = [Location; 4];

/// The bitmaps of classes: all in page 0, as in small images, or each looked up.
///
/// Nothing between the two: a page that may be page 0 under another name doubles what newer verifiers (7.3) have
/// to follow, since they tell pointers to the same page from those to different ones; four of them take it sixteen
/// times. For the same reason pages are not held longer than the walk over them.
#[inline(always)]
fn bitmaps<'a, T: Tables + ?Sized>(
    tables: &'a T,
    root: &'a Page,
    classes: &Classes,
) -> Result<[Bitmap<'a>; 4], Fault> {
    let word = |i: usize| forget(classes[i].word() as u64, root[0]) as usize;
    let pages = if (classes[0].0 | classes[1].0 | classes[2].0 | classes[3].0) < PAGE_WORDS as u32 {
        [root; 4]
    } else {
        let page = |i: usize| match tables.page(classes[i].page()) {
            Some(page) => Ok(page),
            None => Err(Fault::NoPage),
        };
        [page(0)?, page(1)?, page(2)?, page(3)?]
    };
    let bitmap = |i: usize| Bitmap {
        page: pages[i],
        word: word(i),
    };
    Ok([bitmap(0), bitmap(1), bitmap(2), bitmap(3)])
}

/// Whether the image is one this code can read.
#[inline(always)]
fn check(header: Header<'_>) -> Result<(), Fault> {
    let words = header.bitmap_words();
    if header.abi_version() != crate::ABI_VERSION || words == 0 || words > MAX_BITMAP_WORDS {
        return Err(Fault::NoImage);
    }
    Ok(())
}

#[inline(always)]
fn bit(root: &Page, of: RuleBitmap, rule: u16) -> bool {
    let at = of.word() + ((rule as usize / 64) & (MAX_BITMAP_WORDS - 1));
    root[at & (PAGE_WORDS - 1)] >> (rule & 63) & 1 != 0
}

/// Action of a rule, from the trait bitmaps.
#[inline(always)]
pub fn rule_action(root: &Page, rule: u16) -> Action {
    if bit(root, RuleBitmap::Kill, rule) {
        Action::Kill
    } else if bit(root, RuleBitmap::Block, rule) {
        Action::Block
    } else if bit(root, RuleBitmap::Audit, rule) {
        Action::Audit
    } else {
        Action::Allow
    }
}

/// No rule, where a rule's index is a word (kernel functions return one word).
const NO_RULE: u64 = u64::MAX;

/// A page of a bitmap is missing, where a rule's index is a word.
const NO_PAGE: u64 = u64::MAX - 1;

/// First rule that is in all four classes, or [`NO_RULE`], or [`NO_PAGE`]. A function of its own in the kernel
/// programs, for the sake of their stack.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn first_common<T: Tables + ?Sized>(tables: &T, root: &Page, words: usize, classes: &Classes) -> u64 {
    let Ok(maps) = bitmaps(tables, root, classes) else {
        return NO_PAGE;
    };
    let words = forget(words as u64, root[0]) as usize;
    let mut first = NO_RULE;
    let mut i = 0;
    while i < MAX_BITMAP_WORDS && i < words {
        let common = maps[0].word(i) & maps[1].word(i) & maps[2].word(i) & maps[3].word(i);
        if common != 0 {
            first = i as u64 * 64 + common.trailing_zeros() as u64;
            break;
        }
        i += 1;
    }
    forget(first, root[0])
}

/// The IPv4 address inside an IPv6 one, canonical, or [`NOTHING_INSIDE`]. A function of its own in
/// the kernel programs: inlined it costs more registers than the stack has room for.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn inside(root: &Page, high: u64, low: u64) -> u64 {
    let (high, low) = (forget(high, root[0]), forget(low, root[0]));
    let v4 = match embedded_v4(high, low, |i| Header(root).nat64(i)) {
        Some(v4) => match canonical_v4(v4) {
            Address::V4(v4) => v4 as u64,
            Address::V6 { .. } => NOTHING_INSIDE,
        },
        None => NOTHING_INSIDE,
    };
    forget(v4, root[0])
}

/// No IPv4 address, where one is a word.
const NOTHING_INSIDE: u64 = u64::MAX;

/// What the policy whose image is `tables` (page 0: `root`) says about an attempt. The attempt's
/// address must be canonical.
///
/// # Errors
/// A [`Fault`] when the image cannot be read; it denies ([`Verdict::fault`]).
#[inline(always)]
pub fn decide<T: Tables + ?Sized>(tables: &T, root: &Page, attempt: &Attempt) -> Result<Verdict, Fault> {
    let header = Header(root);
    check(header)?;
    let words = header.bitmap_words();
    if attempt.protocol.0 >= Protocol::COUNT {
        return Err(Fault::BadContext);
    }

    // Copies that have nothing to do with the attempt's own for the verifier: what it learns of
    // one in a branch it would otherwise carry to the end of the program.
    let protocol = Protocol(forget(attempt.protocol.0 as u64, root[0]) as u16);
    let port = if protocol.has_ports() { attempt.port } else { 0 };
    let service = forget((protocol.0 as u64) << 16 | port as u64, root[0]) as u32;
    let service = lookup_u32(tables, root, header.line(Dimension::Port), service)?;
    let service = unknown_class(service, root);
    let (uid, executable) = subject_classes(tables, root, header, attempt.uid, attempt.executable)?;

    // Both spellings, own first. Whatever was found, the verifier goes on with one state.
    let mut own = forget(NO_RULE, root[0]);
    let v4 = match attempt.address {
        Address::V4(v4) => v4 as u64,
        Address::V6 { high, low } => {
            let place = lookup_u128(tables, root, header.line(Dimension::V6), high, low)?;
            own = first_common(tables, root, words, &[place, service, uid, executable]);
            inside(root, high, low)
        }
    };
    let v4 = forget(v4, root[0]);
    let mut other = forget(NO_RULE, root[0]);
    if v4 != NOTHING_INSIDE {
        let place = lookup_u32(tables, root, header.line(Dimension::V4), v4 as u32)?;
        other = first_common(tables, root, words, &[place, service, uid, executable]);
    }
    if own == NO_PAGE || other == NO_PAGE {
        return Err(Fault::NoPage);
    }
    let rule = if own == NO_RULE {
        other
    } else if other == NO_RULE || rule_action(root, own as u16) >= rule_action(root, other as u16) {
        own
    } else {
        other
    };
    if rule == NO_RULE {
        return Ok(Verdict {
            action: header.default_action(),
            reason: Reason::Default,
        });
    }
    let rule = forget(rule, root[0]) as u16;
    Ok(Verdict {
        action: rule_action(root, rule),
        reason: Reason::Rule(rule),
    })
}

/// What the policy says about making a socket of a protocol whose destinations no address hook
/// sees: the strictest answer that any destination could get, among the rules that match protocol
/// and subject, up to the first that covers every destination of the family (that one settles it);
/// the default counts only where no rule settles. The rule named is the first of the strictest.
///
/// # Errors
/// A [`Fault`] when the image cannot be read; it denies.
#[inline(always)]
pub fn decide_socket<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    family: SocketFamily,
    protocol: Protocol,
    uid: u32,
    executable: ExecutableId,
) -> Result<Verdict, Fault> {
    let header = Header(root);
    check(header)?;
    let words = header.bitmap_words();
    if protocol.0 >= Protocol::COUNT {
        return Err(Fault::BadContext);
    }

    let key = protocol.0 as u32;
    let some = lookup_u32(tables, root, header.line(Dimension::ProtocolSome), key)?;
    let some = unknown_class(some, root);
    let every = lookup_u32(tables, root, header.line(Dimension::ProtocolEvery), key)?;
    let every = unknown_class(every, root);
    let (uid, executable) = subject_classes(tables, root, header, uid, executable)?;
    let answer = strictest(tables, root, words, family, &[some, every, uid, executable]);
    if answer == NO_PAGE {
        return Err(Fault::NoPage);
    }
    let default = header.default_action();
    let rank = answer >> RANK & 7;
    if rank != 0 && (answer & SETTLED != 0 || rank > default as u64) {
        return Ok(Verdict {
            action: Action::from_u8(rank as u8 - 1).unwrap_or(Action::Block),
            reason: Reason::Rule(answer as u16),
        });
    }
    Ok(Verdict {
        action: default,
        reason: Reason::Default,
    })
}

/// What the policy says about reaching a unix socket: the first rule that names it answers. No rule, no answer but
/// to let it pass: the default is about what leaves the machine.
///
/// # Errors
/// A [`Fault`] when the image cannot be read; it denies.
#[inline(always)]
pub fn decide_unix<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    place: UnixSocketId,
    uid: u32,
    executable: ExecutableId,
) -> Result<Verdict, Fault> {
    let header = Header(root);
    check(header)?;
    if !header.names_unix() {
        return Ok(Verdict {
            action: Action::Allow,
            reason: Reason::Default,
        });
    }
    let words = header.bitmap_words();
    let place = lookup_u128(
        tables,
        root,
        header.line(Dimension::Unix),
        place.space,
        place.name,
    )?;
    let place = unknown_class(place, root);
    let (uid, executable) = subject_classes(tables, root, header, uid, executable)?;
    let every = unknown_class(RuleBitmap::Every.location(), root);
    let rule = first_common(tables, root, words, &[place, every, uid, executable]);
    if rule == NO_PAGE {
        return Err(Fault::NoPage);
    }
    if rule == NO_RULE {
        return Ok(Verdict {
            action: Action::Allow,
            reason: Reason::Default,
        });
    }
    let rule = forget(rule, root[0]) as u16;
    Ok(Verdict {
        action: rule_action(root, rule),
        reason: Reason::Rule(rule),
    })
}

/// Where the rank of an action is in the answer of [`strictest`]: its number and one, and zero where no rule is meant.
const RANK: u32 = 16;
/// Some rule settles the question.
const SETTLED: u64 = 1 << 19;

/// The first of the strictest rules that may be meant: bits 0 to 15 the rule, then [`RANK`] and [`SETTLED`]; or
/// [`NO_PAGE`]. A function of its own in the kernel programs, so that its pages are gone when it returns.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn strictest<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    words: usize,
    family: SocketFamily,
    classes: &Classes,
) -> u64 {
    let Ok([some, every, uid, executable]) = bitmaps(tables, root, classes) else {
        return NO_PAGE;
    };
    let (settling, meeting) = match family {
        SocketFamily::Inet => (RuleBitmap::EveryV4, RuleBitmap::SomeV4),
        SocketFamily::Inet6 => (RuleBitmap::EveryAddress, RuleBitmap::SomeAddress),
    };
    let unknown = root[0];
    let words = forget(words as u64, unknown) as usize;
    let (settling, meeting) = (
        forget(settling.word() as u64, unknown) as usize,
        forget(meeting.word() as u64, unknown) as usize,
    );
    let of = |base: usize, i: usize| root[(base + i) & (PAGE_WORDS - 1)];
    let mut strictest = forget(0, unknown);
    let mut settled = forget(0, unknown);
    let mut i = 0;
    while i < MAX_BITMAP_WORDS && i < words && settled == 0 {
        let subject = uid.word(i) & executable.word(i);
        let settles = every.word(i) & subject & of(settling, i);
        // The lowest bit of `settles` and all below it; all where there is none.
        let candidates = some.word(i) & subject & of(meeting, i) & (settles ^ settles.wrapping_sub(1));
        let kill = candidates & of(RuleBitmap::Kill.word(), i);
        let block = candidates & of(RuleBitmap::Block.word(), i);
        let audit = candidates & of(RuleBitmap::Audit.word(), i);
        let (action, bits) = if kill != 0 {
            (Action::Kill, kill)
        } else if block != 0 {
            (Action::Block, block)
        } else if audit != 0 {
            (Action::Audit, audit)
        } else {
            (Action::Allow, candidates)
        };
        let (rank, bits) = (forget(action as u64 + 1, unknown), forget(bits, unknown));
        if bits != 0 && rank > strictest >> RANK {
            strictest = rank << RANK | (i as u64 * 64 + bits.trailing_zeros() as u64);
        }
        strictest = forget(strictest, unknown);
        settled = forget(settles, unknown);
        i += 1;
    }
    if settled != 0 {
        strictest |= SETTLED;
    }
    forget(strictest, unknown)
}

/// A class of which the verifier knows nothing.
#[inline(always)]
fn unknown_class(class: Location, root: &Page) -> Location {
    Location(forget(class.0 as u64, root[0]) as u32)
}

/// Classes of uid and executable. Most policies do not look at either, and then nothing is searched.
#[inline(always)]
fn subject_classes<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    header: Header<'_>,
    uid: u32,
    executable: ExecutableId,
) -> Result<(Location, Location), Fault> {
    let (mut uids, mut executables) = (RuleBitmap::Every.location(), RuleBitmap::Every.location());
    if header.needs_subject() {
        uids = lookup_u32(tables, root, header.line(Dimension::Uid), uid)?;
    }
    if header.needs_executable() {
        executables = lookup_u128(
            tables,
            root,
            header.line(Dimension::Executable),
            executable.device,
            executable.inode,
        )?;
    }
    Ok((unknown_class(uids, root), unknown_class(executables, root)))
}
