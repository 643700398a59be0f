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
    image::{Header, LineId, Location, Page, Trait},
    limits::MAX_BITMAP_WORDS,
    line::{find_narrow, find_wide, page},
    protocol::Protocol,
    verdict::{Fault, Reason, Verdict},
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

impl<'a> Bitmap<'a> {
    #[inline(always)]
    fn at<T: Tables>(tables: &'a T, root: &'a Page, place: Location) -> Result<Bitmap<'a>, Fault> {
        Ok(Bitmap {
            page: page(tables, root, place.page())?,
            word: place.word(),
        })
    }

    #[inline(always)]
    fn word(&self, i: usize) -> u64 {
        self.page[(self.word + i) & (crate::image::PAGE_WORDS - 1)]
    }
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
fn bit(root: &Page, of: Trait, rule: u16) -> bool {
    let at = of.word() + (rule as usize / 64 & (MAX_BITMAP_WORDS - 1));
    root[at & (crate::image::PAGE_WORDS - 1)] >> (rule & 63) & 1 != 0
}

/// Action of a rule, from the trait bitmaps.
#[inline(always)]
pub fn rule_action(root: &Page, rule: u16) -> Action {
    if bit(root, Trait::Kill, rule) {
        Action::Kill
    } else if bit(root, Trait::Block, rule) {
        Action::Block
    } else if bit(root, Trait::Audit, rule) {
        Action::Audit
    } else {
        Action::Allow
    }
}

/// First rule that all four bitmaps have.
#[inline(always)]
fn first_common(words: usize, maps: [Bitmap<'_>; 4]) -> Option<u16> {
    let mut i = 0;
    while i < MAX_BITMAP_WORDS {
        if i >= words {
            return None;
        }
        let common = maps[0].word(i) & maps[1].word(i) & maps[2].word(i) & maps[3].word(i);
        if common != 0 {
            return Some((i * 64) as u16 + lowest_bit(common));
        }
        i += 1;
    }
    None
}

/// Index of the lowest set bit; the word is not zero. By halves: `trailing_zeros` becomes a
/// multiplication and a table in read-only data on this target.
#[inline(always)]
fn lowest_bit(word: u64) -> u16 {
    #[cfg(not(target_arch = "bpf"))]
    {
        word.trailing_zeros() as u16
    }
    #[cfg(target_arch = "bpf")]
    {
        let mut word = word;
        let mut index = 0;
        if word & 0xffff_ffff == 0 {
            word >>= 32;
            index += 32;
        }
        if word & 0xffff == 0 {
            word >>= 16;
            index += 16;
        }
        if word & 0xff == 0 {
            word >>= 8;
            index += 8;
        }
        if word & 0xf == 0 {
            word >>= 4;
            index += 4;
        }
        if word & 3 == 0 {
            word >>= 2;
            index += 2;
        }
        if word & 1 == 0 {
            index += 1;
        }
        index
    }
}

/// What the policy whose image is `tables` (page 0: `root`) says about an attempt. The attempt's
/// address must be canonical.
///
/// # Errors
/// A [`Fault`] when the image cannot be read; it denies ([`Verdict::fault`]).
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, root: &Page, attempt: &Attempt) -> Result<Verdict, Fault> {
    let header = Header(root);
    check(header)?;
    let words = header.bitmap_words();

    let port = if attempt.protocol.has_ports() {
        attempt.port
    } else {
        0
    };
    let service = (attempt.protocol.0 as u32) << 16 | port as u32;
    let service = find_narrow(tables, root, header.line(LineId::Port), service)?;
    let service = Bitmap::at(tables, root, service)?;
    let uid = find_narrow(tables, root, header.line(LineId::Uid), attempt.uid)?;
    let uid = Bitmap::at(tables, root, uid)?;
    let executable = executable_class(tables, root, header, attempt.executable)?;
    let executable = Bitmap::at(tables, root, executable)?;

    let mut matched = None;
    let v4 = match attempt.address {
        Address::V4(v4) => Some(v4),
        Address::V6 { high, low } => {
            let place = find_wide(tables, root, header.line(LineId::V6), high, low)?;
            let place = Bitmap::at(tables, root, place)?;
            matched = first_common(words, [place, service, uid, executable]);
            match embedded_v4(high, low, &header.nat64()) {
                Some(v4) => match canonical_v4(v4) {
                    Address::V4(v4) => Some(v4),
                    Address::V6 { .. } => None,
                },
                None => None,
            }
        }
    };
    if let Some(v4) = v4 {
        let place = find_narrow(tables, root, header.line(LineId::V4), v4)?;
        let place = Bitmap::at(tables, root, place)?;
        if let Some(inside) = first_common(words, [place, service, uid, executable]) {
            matched = match matched {
                Some(own) if rule_action(root, own) >= rule_action(root, inside) => Some(own),
                _ => Some(inside),
            };
        }
    }
    Ok(match matched {
        Some(rule) => Verdict {
            action: rule_action(root, rule),
            reason: Reason::Rule(rule),
        },
        None => Verdict {
            action: header.default_action(),
            reason: Reason::Default,
        },
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
pub fn judge_socket<T: Tables>(
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

    let key = protocol.0 as u32;
    let some = find_narrow(tables, root, header.line(LineId::ProtocolSome), key)?;
    let some = Bitmap::at(tables, root, some)?;
    let every = find_narrow(tables, root, header.line(LineId::ProtocolEvery), key)?;
    let every = Bitmap::at(tables, root, every)?;
    let uid = find_narrow(tables, root, header.line(LineId::Uid), uid)?;
    let uid = Bitmap::at(tables, root, uid)?;
    let executable = executable_class(tables, root, header, executable)?;
    let executable = Bitmap::at(tables, root, executable)?;
    let (settling, meeting) = match family {
        SocketFamily::Inet => (Trait::EveryV4, Trait::SomeV4),
        SocketFamily::Inet6 => (Trait::EveryAddress, Trait::SomeAddress),
    };

    let mut strictest = Action::Allow;
    let mut named: Option<u16> = None;
    let mut settled = false;
    let mut i = 0;
    while i < MAX_BITMAP_WORDS {
        if i >= words || settled {
            break;
        }
        let subject = uid.word(i) & executable.word(i);
        let mut candidates = some.word(i) & subject & root[meeting.word() + i];
        let settles = every.word(i) & subject & root[settling.word() + i];
        if settles != 0 {
            // The lowest bit of `settles` and all below it.
            candidates &= settles ^ (settles - 1);
            settled = true;
        }
        let kill = candidates & root[Trait::Kill.word() + i];
        let block = candidates & root[Trait::Block.word() + i];
        let audit = candidates & root[Trait::Audit.word() + i];
        let (action, bits) = if kill != 0 {
            (Action::Kill, kill)
        } else if block != 0 {
            (Action::Block, block)
        } else if audit != 0 {
            (Action::Audit, audit)
        } else {
            (Action::Allow, candidates)
        };
        if bits != 0 && (named.is_none() || action as u8 > strictest as u8) {
            strictest = action;
            named = Some((i * 64) as u16 + lowest_bit(bits));
        }
        i += 1;
    }
    let default = header.default_action();
    Ok(match named {
        Some(rule) if settled || strictest as u8 >= default as u8 => Verdict {
            action: strictest,
            reason: Reason::Rule(rule),
        },
        _ => Verdict {
            action: default,
            reason: Reason::Default,
        },
    })
}

#[inline(always)]
fn executable_class<T: Tables>(
    tables: &T,
    root: &Page,
    header: Header<'_>,
    executable: ExecutableId,
) -> Result<Location, Fault> {
    find_wide(
        tables,
        root,
        header.line(LineId::Executable),
        executable.device,
        executable.inode,
    )
}
