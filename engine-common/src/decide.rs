//! The decision.
//!
//! Order of precedence:
//! 1. A fault denies.
//! 2. Rules are evaluated in order; the first that matches decides.
//! 3. A destination with two representations (the IPv6 address and an embedded IPv4 address) is looked up
//!    twice. The stricter verdict applies; if both are equally strict, that of the IPv6 address.
//! 4. If no rule matched, the policy's default decides.
//! 5. The policy's mode is applied last, by [`crate::Outcome::of`].
//! 6. Of several policies the strictest verdict applies; the hooks combine them.

use crate::{
    action::Action,
    attempt::{Address, Attempt, SocketFamily},
    destination::embedded_v4,
    executable::ExecutableId,
    image::{Dimension, Header, Location, PAGE_WORDS, Page, RuleBitmap},
    interval_table::{lookup_u32, lookup_u128},
    limits::MAX_BITMAP_WORDS,
    protocol::Protocol,
    unix_socket_id::UnixSocketId,
    verdict::{Fault, Reason, Verdict},
    verifier::forget,
};

/// The pages of one image: an inner map in the kernel, a slice in user space.
pub trait Tables {
    /// The page with this index, or `None` if the image has fewer pages.
    fn page(&self, index: u32) -> Option<&Page>;
}

impl Tables for [Page] {
    fn page(&self, index: u32) -> Option<&Page> {
        self.get(index as usize)
    }
}

/// A rule bitmap and the page that holds it.
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

/// Rule sets of four dimensions: a rule in all four matches.
type RuleSets = [Location; 4];

/// The bitmaps of rule sets: all in page 0, as in small images, or each page looked up.
///
/// There is no mixed case: newer verifiers (7.3) distinguish pointers to the same map value from pointers to
/// different ones, so a page that may or may not be page 0 doubles the states to explore, and four of them
/// multiply them by sixteen. For the same reason a page pointer is not kept longer than the loop that uses it.
#[inline(always)]
fn bitmaps<'a, T: Tables + ?Sized>(
    tables: &'a T,
    root: &'a Page,
    rule_sets: &RuleSets,
) -> Result<[Bitmap<'a>; 4], Fault> {
    let word = |i: usize| forget(rule_sets[i].word() as u64, root[0]) as usize;
    let pages = if (rule_sets[0].0 | rule_sets[1].0 | rule_sets[2].0 | rule_sets[3].0) < PAGE_WORDS as u32 {
        [root; 4]
    } else {
        let page = |i: usize| match tables.page(rule_sets[i].page()) {
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

/// Fails if the image has another ABI version or an invalid bitmap size.
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

/// Action of a rule, read from the fixed bitmaps of page 0.
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

/// The verdict of the rule with this index.
#[inline(always)]
fn by_rule(root: &Page, rule: u64) -> Verdict {
    let rule = forget(rule, root[0]) as u16;
    Verdict {
        action: rule_action(root, rule),
        reason: Reason::Rule(rule),
    }
}

/// Returned instead of a rule index: no rule matched. (BPF functions return one 64-bit word.)
const NO_RULE: u64 = u64::MAX;

/// Returned instead of a rule index: a page of a bitmap is missing.
const NO_PAGE: u64 = u64::MAX - 1;

/// Index of the first rule in all four rule sets, [`NO_RULE`] or [`NO_PAGE`]. Not inlined in the kernel
/// programs, whose stack is limited to 512 bytes.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn first_common<T: Tables + ?Sized>(tables: &T, root: &Page, words: usize, rule_sets: &RuleSets) -> u64 {
    let Ok(maps) = bitmaps(tables, root, rule_sets) else {
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

/// The IPv4 address embedded in an IPv6 address, or [`NO_EMBEDDED_V4`]. Not inlined in
/// the kernel programs: inlined, it spills more registers than the stack can hold.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn embedded_v4_word(root: &Page, high: u64, low: u64) -> u64 {
    let (high, low) = (forget(high, root[0]), forget(low, root[0]));
    let v4 = match embedded_v4(high, low, |i| Header(root).nat64(i)) {
        Some(v4) => v4 as u64,
        None => NO_EMBEDDED_V4,
    };
    forget(v4, root[0])
}

/// Returned instead of an IPv4 address: none is embedded.
const NO_EMBEDDED_V4: u64 = u64::MAX;

/// Verdict of the policy whose image is `tables` (page 0: `root`) on an attempt. The attempt's
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

    // `forget` unlinks these copies from the attempt's fields: what the verifier learns about one in a
    // branch it would otherwise track to the end of the program.
    let protocol = Protocol(forget(attempt.protocol.0 as u64, root[0]) as u16);
    let port = if protocol.has_ports() { attempt.port } else { 0 };
    let service = forget((protocol.0 as u64) << 16 | port as u64, root[0]) as u32;
    let service = lookup_u32(tables, root, header.interval_table(Dimension::Port), service)?;
    let service = unknown_rule_set(service, root);
    let (uid, executable) = subject_rule_sets(tables, root, header, attempt.uid, attempt.executable)?;

    // Both representations, the IPv6 address first. `forget` leaves the verifier one state, whatever was found.
    let mut own = forget(NO_RULE, root[0]);
    let v4 = match attempt.address {
        Address::V4(v4) => v4 as u64,
        Address::V6 { high, low } => {
            let address = lookup_u128(tables, root, header.interval_table(Dimension::V6), high, low)?;
            own = first_common(tables, root, words, &[address, service, uid, executable]);
            embedded_v4_word(root, high, low)
        }
    };
    let v4 = forget(v4, root[0]);
    let mut embedded = forget(NO_RULE, root[0]);
    if v4 != NO_EMBEDDED_V4 {
        let address = lookup_u32(tables, root, header.interval_table(Dimension::V4), v4 as u32)?;
        embedded = first_common(tables, root, words, &[address, service, uid, executable]);
    }
    if own == NO_PAGE || embedded == NO_PAGE {
        return Err(Fault::NoPage);
    }
    let rule = if own == NO_RULE {
        embedded
    } else if embedded == NO_RULE || rule_action(root, own as u16) >= rule_action(root, embedded as u16) {
        own
    } else {
        embedded
    };
    if rule == NO_RULE {
        return Ok(Verdict {
            action: header.default_action(),
            reason: Reason::Default,
        });
    }
    Ok(by_rule(root, rule))
}

/// Verdict on creating a socket of a protocol whose destinations no address hook sees, and on sending to a destination that
/// is not known ([`crate::Substitute::ANY`]): the strictest verdict that any destination could get. It considers the rules that match protocol and subject, up to and
/// including the first that covers every destination of the family; the default counts only if no
/// rule does. The verdict names the first of the strictest rules.
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
    let some = lookup_u32(tables, root, header.interval_table(Dimension::ProtocolSome), key)?;
    let some = unknown_rule_set(some, root);
    let every = lookup_u32(tables, root, header.interval_table(Dimension::ProtocolEvery), key)?;
    let every = unknown_rule_set(every, root);
    let (uid, executable) = subject_rule_sets(tables, root, header, uid, executable)?;
    let found = strictest(tables, root, words, family, &[some, every, uid, executable]);
    if found == NO_PAGE {
        return Err(Fault::NoPage);
    }
    let default = header.default_action();
    let rank = found >> RANK & 7;
    if rank != 0 && (found & COVERS_ALL != 0 || rank > default as u64) {
        return Ok(Verdict {
            action: Action::from_u8(rank as u8 - 1).unwrap_or(Action::Block),
            reason: Reason::Rule(found as u16),
        });
    }
    Ok(Verdict {
        action: default,
        reason: Reason::Default,
    })
}

/// Verdict on reaching a unix socket: the first rule that names it decides. Without such a rule it is allowed: the
/// policy's default applies only to traffic that leaves the machine.
///
/// # Errors
/// A [`Fault`] when the image cannot be read; it denies.
#[inline(always)]
pub fn decide_unix<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    socket: UnixSocketId,
    uid: u32,
    executable: ExecutableId,
) -> Result<Verdict, Fault> {
    let header = Header(root);
    check(header)?;
    if !header.has_unix_rules() {
        return Ok(Verdict {
            action: Action::Allow,
            reason: Reason::Default,
        });
    }
    let words = header.bitmap_words();
    let rules = lookup_u128(
        tables,
        root,
        header.interval_table(Dimension::Unix),
        socket.device,
        socket.name_hash,
    )?;
    let rules = unknown_rule_set(rules, root);
    let (uid, executable) = subject_rule_sets(tables, root, header, uid, executable)?;
    let every = unknown_rule_set(RuleBitmap::Every.location(), root);
    let rule = first_common(tables, root, words, &[rules, every, uid, executable]);
    if rule == NO_PAGE {
        return Err(Fault::NoPage);
    }
    if rule == NO_RULE {
        return Ok(Verdict {
            action: Action::Allow,
            reason: Reason::Default,
        });
    }
    Ok(by_rule(root, rule))
}

/// First bit of the rank in the result of [`strictest`]: the action's discriminant plus one; zero if no rule matched.
const RANK: u32 = 16;
/// Bit of the result of [`strictest`]: some rule covers every destination, so that the default does not apply.
const COVERS_ALL: u64 = 1 << 19;

/// The first of the strictest rules that could match: bits 0 to 15 the rule's index, then [`RANK`] and
/// [`COVERS_ALL`]; or [`NO_PAGE`]. Not inlined in the kernel programs, so that its page pointers are dead when it
/// returns.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn strictest<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    words: usize,
    family: SocketFamily,
    rule_sets: &RuleSets,
) -> u64 {
    let Ok([some, every, uid, executable]) = bitmaps(tables, root, rule_sets) else {
        return NO_PAGE;
    };
    let (covering_bitmap, possible_bitmap) = match family {
        SocketFamily::Inet => (RuleBitmap::EveryV4, RuleBitmap::SomeV4),
        SocketFamily::Inet6 => (RuleBitmap::EveryAddress, RuleBitmap::SomeAddress),
    };
    let unknown = root[0];
    let words = forget(words as u64, unknown) as usize;
    let (covering_word, possible_word) = (
        forget(covering_bitmap.word() as u64, unknown) as usize,
        forget(possible_bitmap.word() as u64, unknown) as usize,
    );
    let of = |base: usize, i: usize| root[(base + i) & (PAGE_WORDS - 1)];
    let mut strictest = forget(0, unknown);
    let mut covered = forget(0, unknown);
    let mut i = 0;
    while i < MAX_BITMAP_WORDS && i < words && covered == 0 {
        let subject = uid.word(i) & executable.word(i);
        let covering = every.word(i) & subject & of(covering_word, i);
        // The lowest bit of `covering` and all bits below it; all bits if it is zero.
        let candidates =
            some.word(i) & subject & of(possible_word, i) & (covering ^ covering.wrapping_sub(1));
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
        covered = forget(covering, unknown);
        i += 1;
    }
    if covered != 0 {
        strictest |= COVERS_ALL;
    }
    forget(strictest, unknown)
}

/// The location, with an unknown value to the verifier.
#[inline(always)]
fn unknown_rule_set(rule_set: Location, root: &Page) -> Location {
    Location(forget(rule_set.0 as u64, root[0]) as u32)
}

/// Rule sets of uid and executable. Most policies select neither; then nothing is looked up.
#[inline(always)]
fn subject_rule_sets<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    header: Header<'_>,
    uid: u32,
    executable: ExecutableId,
) -> Result<(Location, Location), Fault> {
    let (mut uids, mut executables) = (RuleBitmap::Every.location(), RuleBitmap::Every.location());
    if header.needs_subject() {
        uids = lookup_u32(tables, root, header.interval_table(Dimension::Uid), uid)?;
    }
    if header.needs_executable() {
        executables = lookup_u128(
            tables,
            root,
            header.interval_table(Dimension::Executable),
            executable.device,
            executable.inode,
        )?;
    }
    Ok((unknown_rule_set(uids, root), unknown_rule_set(executables, root)))
}
