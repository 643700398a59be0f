//! Requests: what a hook has policies evaluate.

use core::mem::offset_of;
use engine_common::{
    Address, Attempt, Protocol, SocketFamily, Substitute, decide, decide_socket,
    dedup::DedupKey,
    destination::canonical_v6,
    record::{AttemptRecord, RecordKind, UnixRecord},
    scope::SlotRef,
    verifier::forget,
};

use crate::{
    evaluate::{PackedVerdict, evaluate},
    kernel_memory,
};

/// A request to a policy, and its part of the record.
pub(crate) trait Request {
    /// The record that reports it.
    type Record: AttemptFields;

    /// Evaluates the policy of a slot.
    fn evaluate(&self, reference: SlotRef) -> PackedVerdict;

    /// Writes destination, protocol and families into a record.
    fn write_destination(&self, record: &mut AttemptRecord);

    /// Writes destination, protocol and families into the key of duplicate suppression.
    fn write_key(&self, key: &mut DedupKey);

    /// Writes the fields of the record beyond [`AttemptFields::attempt`].
    #[inline(always)]
    fn write_rest(&self, _record: &mut Self::Record) {}

    /// Bits of [`engine_common::record::attempt_flag`] that depend on the request.
    #[inline(always)]
    fn flags(&self) -> u8 {
        0
    }
}

/// A record that contains the fields of an attempt.
pub(crate) trait AttemptFields: Copy + 'static {
    /// Kind of the record.
    const KIND: RecordKind;

    /// These fields.
    fn attempt(&mut self) -> &mut AttemptRecord;
}

impl AttemptFields for AttemptRecord {
    const KIND: RecordKind = RecordKind::Attempt;

    #[inline(always)]
    fn attempt(&mut self) -> &mut AttemptRecord {
        self
    }
}

impl AttemptFields for UnixRecord {
    const KIND: RecordKind = RecordKind::Unix;

    #[inline(always)]
    fn attempt(&mut self) -> &mut AttemptRecord {
        &mut self.attempt
    }
}

/// Upper bits of the lower half of an IPv4-mapped address, the form in which IPv4 addresses are passed to
/// [`evaluate_address`]; canonical IPv6 addresses never have it.
const MAPPED: u64 = 0xffff << 32;

/// The address in the form of [`AddressRequest::argument`]. The family is unknown to the verifier, which would otherwise
/// explore the rest once for each; `unknown` as for [`forget`].
#[inline(always)]
pub(crate) fn from_argument(high: u64, low: u64, unknown: u64) -> Address {
    let is_v4 = forget((high == 0 && low >> 32 == 0xffff) as u64, unknown);
    let (high, low) = (forget(high, unknown), forget(low, unknown));
    if is_v4 != 0 {
        Address::V4(low as u32)
    } else {
        Address::V6 { high, low }
    }
}

/// Evaluates a policy for an address; a global function, see [`PackedVerdict`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_address(reference: u32, service: u64, high: u64, low: u64) -> u64 {
    let address = from_argument(high, low, service);
    evaluate(SlotRef(reference), |image, root, uid, executable| {
        let attempt = Attempt {
            address,
            port: service as u16,
            protocol: Protocol((service >> 16) as u16),
            uid,
            executable,
        };
        decide(image, root, &attempt)
    })
    .word()
}

/// Evaluates a policy for any IPv4 destination, or for any destination if `is_inet6` is not zero.
#[inline(always)]
pub(crate) fn evaluate_any(reference: SlotRef, is_inet6: u32, protocol: Protocol) -> PackedVerdict {
    PackedVerdict::from_word(evaluate_socket(reference.0, is_inet6, protocol.0 as u32))
}

/// Evaluates a policy for the creation of a socket; a global function like [`evaluate_address`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_socket(reference: u32, is_inet6: u32, protocol: u32) -> u64 {
    let family = if is_inet6 != 0 {
        SocketFamily::Inet6
    } else {
        SocketFamily::Inet
    };
    evaluate(SlotRef(reference), |image, root, uid, executable| {
        decide_socket(image, root, family, Protocol(protocol as u16), uid, executable)
    })
    .word()
}

/// A destination address.
///
/// Only plain words: the compiler copies uninitialised bytes of an [`Address`], which the verifier rejects.
pub(crate) struct AddressRequest {
    /// As the caller passed it: IPv4 in the first word; in network order, as in memory.
    pub(crate) original: [u32; 4],
    /// 4 or 6.
    pub(crate) original_family: u8,
    /// 4 or 6.
    pub(crate) family: u64,
    /// Bits 0 to 63 of the canonical address; an IPv4 address is in the upper 32.
    pub(crate) high: u64,
    /// Bits 64 to 127; zero for IPv4.
    pub(crate) low: u64,
    /// What is evaluated instead of an unspecified destination.
    pub(crate) substitute: Substitute,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

/// A canonical address in words: family, and both halves as in records.
#[inline(always)]
fn words_of(canonical: Address) -> (u64, u64, u64) {
    match canonical {
        Address::V4(v4) => (4, (v4 as u64) << 32, 0),
        Address::V6 { high, low } => (6, high, low),
    }
}

/// Writes 128 bits in network order with two stores; the compiler would copy an array with sixteen.
#[inline(always)]
pub(crate) fn write_halves(field: &mut [u8; 16], high: u64, low: u64) {
    const {
        assert!(
            offset_of!(AttemptRecord, destination) % 8 == 0 && offset_of!(AttemptRecord, original) % 8 == 0
        )
    };
    const {
        assert!(offset_of!(AttemptRecord, local_address) % 8 == 0 && offset_of!(AttemptRecord, comm) % 8 == 0)
    };
    let words = field.as_mut_ptr().cast::<u64>();
    // SAFETY: sixteen bytes of a record, which is aligned to eight bytes, and so are these four fields.
    unsafe {
        words.write(high.to_be());
        words.add(1).write(low.to_be());
    }
}

impl AddressRequest {
    /// A request for an address as the caller passed it, and for what is evaluated: its canonical form, or the
    /// substitute for it. Family, address and protocol are unknown to the verifier afterwards; `unknown` as for
    /// [`forget`].
    #[inline(always)]
    pub(crate) fn new(
        original: [u32; 4],
        original_family: u64,
        canonical: Address,
        substitute: Substitute,
        port: u16,
        protocol: Protocol,
        unknown: u64,
    ) -> AddressRequest {
        let (family, high, low) = words_of(substitute.address(canonical));
        AddressRequest {
            original,
            original_family: forget(original_family, unknown) as u8,
            family: forget(family, unknown),
            high: forget(high, unknown),
            low: forget(low, unknown),
            substitute,
            port,
            protocol: Protocol(forget(protocol.0 as u64, unknown) as u16),
        }
    }

    /// A request for the address at `address` in kernel memory, IPv6 if `is_v6` is not zero; `port` in host order.
    /// `substitute` is given the canonical address. The address is unknown to the verifier afterwards; `unknown` as for
    /// [`forget`].
    #[inline(always)]
    pub(crate) fn read(
        address: u64,
        is_v6: u64,
        port: u16,
        protocol: Protocol,
        substitute: impl FnOnce(Address) -> Substitute,
        unknown: u64,
    ) -> AddressRequest {
        let is_v6 = forget(is_v6, unknown);
        // The bytes behind an IPv4 address are readable, since it is a field of a larger structure, and ignored.
        let [mut first, mut second] = kernel_memory::read::<[u64; 2]>(address);
        let canonical = if is_v6 != 0 {
            canonical_v6(u64::from_be(first), u64::from_be(second))
        } else {
            (first, second) = (first & 0xffff_ffff, 0);
            Address::V4(u32::from_be(first as u32))
        };
        let substitute = substitute(canonical);
        let (first, second) = (forget(first, unknown), forget(second, unknown));
        let original = [
            first as u32,
            (first >> 32) as u32,
            second as u32,
            (second >> 32) as u32,
        ];
        AddressRequest::new(
            original,
            4 + 2 * is_v6,
            canonical,
            substitute,
            port,
            protocol,
            unknown,
        )
    }

    /// Evaluates the policy of a slot; the address is known.
    #[inline(always)]
    pub(crate) fn evaluate_known(&self, reference: SlotRef) -> PackedVerdict {
        let service = (self.protocol.0 as u64) << 16 | self.port as u64;
        let (high, low) = self.argument();
        PackedVerdict::from_word(evaluate_address(reference.0, service, high, low))
    }

    /// The canonical address as an argument of [`evaluate_address`].
    #[inline(always)]
    pub(crate) fn argument(&self) -> (u64, u64) {
        if self.family == 4 {
            (0, MAPPED | self.high >> 32)
        } else {
            (self.high, self.low)
        }
    }
}

impl Request for AddressRequest {
    type Record = AttemptRecord;

    #[inline(always)]
    fn evaluate(&self, reference: SlotRef) -> PackedVerdict {
        if self.substitute.is_any() {
            return evaluate_any(reference, (self.family == 6) as u32, self.protocol);
        }
        self.evaluate_known(reference)
    }

    #[inline(always)]
    fn write_destination(&self, record: &mut AttemptRecord) {
        record.family = self.family as u8;
        write_halves(&mut record.destination, self.high, self.low);
        record.original_family = self.original_family;
        let [a, b, c, d] = self.original;
        write_halves(
            &mut record.original,
            (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64,
            (u32::from_be(c) as u64) << 32 | u32::from_be(d) as u64,
        );
        record.port = if self.protocol.has_ports() { self.port } else { 0 };
        record.protocol = self.protocol.0;
    }

    #[inline(always)]
    fn write_key(&self, key: &mut DedupKey) {
        key.family = self.family as u8;
        key.destination = [self.high.to_be(), self.low.to_be()];
        key.original_family = self.original_family;
        key.port = if self.protocol.has_ports() { self.port } else { 0 };
        key.protocol = self.protocol.0;
    }
}

/// The creation of a socket whose destinations no address hook will see.
pub(crate) struct SocketRequest {
    pub(crate) family: SocketFamily,
    pub(crate) protocol: Protocol,
}

impl Request for SocketRequest {
    type Record = AttemptRecord;

    #[inline(always)]
    fn evaluate(&self, reference: SlotRef) -> PackedVerdict {
        let family = matches!(self.family, SocketFamily::Inet6) as u32;
        PackedVerdict::from_word(evaluate_socket(reference.0, family, self.protocol.0 as u32))
    }

    #[inline(always)]
    fn write_destination(&self, record: &mut AttemptRecord) {
        record.family = 0;
        write_halves(&mut record.destination, 0, 0);
        write_halves(&mut record.original, 0, 0);
        record.original_family = match self.family {
            SocketFamily::Inet => 4,
            SocketFamily::Inet6 => 6,
        };
        record.port = 0;
        record.protocol = self.protocol.0;
    }

    #[inline(always)]
    fn write_key(&self, key: &mut DedupKey) {
        key.original_family = match self.family {
            SocketFamily::Inet => 4,
            SocketFamily::Inet6 => 6,
        };
        key.protocol = self.protocol.0;
    }
}
