//! Where connections send from. When an attempt is judged its socket has no port yet; the probe on what follows
//! tells it later, in a record of its own.

use aya_ebpf::{btf_maps::LruHashMap, helpers::bpf_ktime_get_ns, macros::btf_map};
use engine_common::{
    ABI_VERSION, Action, Hook, Mode, Protocol,
    dedup::DedupKey,
    event::{EventRecord, LocalAddressRecord, MAX_PENDING_LOCAL_ADDRESSES, flag},
    scope::{Scope, SlotRef},
};

use crate::{
    enforce::PackedVerdict,
    features,
    kernel::field,
    report::tell_source,
    request::{AddressRequest, Request, write_halves},
    scope,
};

const AF_INET: u16 = 2;

/// Connections that were reported and let through, by the keys their reports have.
#[btf_map]
static AWAITED: LruHashMap<u64, u8, { MAX_PENDING_LOCAL_ADDRESSES as usize }> = LruHashMap::new();

/// The question of a connect, with what is known of its source when it is reported.
pub(crate) struct Connect {
    pub(crate) question: AddressRequest,
    /// The source as it goes into the record: both halves of its address, in the family of the destination, and its
    /// port; 0 where it is not known yet.
    pub(crate) source: (u64, u64, u64),
    /// Key of the record that will tell it; 0 where none will.
    pub(crate) key: u64,
}

/// No source, or none yet.
pub(crate) const NO_SOURCE: (u64, u64, u64) = (0, 0, 0);

impl Request for Connect {
    type Record = EventRecord;

    #[inline(always)]
    fn ask(&self, reference: SlotRef) -> PackedVerdict {
        self.question.ask(reference)
    }

    #[inline(always)]
    fn describe(&self, record: &mut EventRecord) {
        self.question.describe(record);
        if self.key != 0 {
            write_halves(&mut record.source, self.key.swap_bytes(), 0);
            // Where there is no room the connection is told without.
            let _ = AWAITED.insert(self.key, 1, 0);
            return;
        }
        let (high, low, port) = self.source;
        record.source_port = port as u16;
        write_halves(&mut record.source, high, low);
    }

    #[inline(always)]
    fn identify(&self, key: &mut DedupKey) {
        self.question.identify(key);
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        if self.key != 0 {
            flag::EXPECTS_LOCAL_ADDRESS
        } else {
            0
        }
    }
}

/// The key of a connect that a cgroup hook lets through and whose source the probe is to tell; 0 where there is none
/// to be told. It is the socket's cookie: its address is soon another socket's.
#[inline(always)]
pub(crate) fn key(hook: u32, protocol: Protocol, cookie: u64, answer: PackedVerdict) -> u64 {
    let is_connect = hook == Hook::Connect4 as u32 || hook == Hook::Connect6 as u32;
    let is_awaited = is_connect
        && protocol.0 == Protocol::TCP.0
        && is_let_through(answer)
        && scope::current().flags & Scope::LOCAL_ADDRESSES != 0;
    if is_awaited { cookie } else { 0 }
}

#[inline(always)]
fn is_let_through(answer: PackedVerdict) -> bool {
    matches!(answer.life().mode, Mode::Audit)
        || matches!(answer.verdict().action(), Action::Allow | Action::Audit)
}

/// Tells where a socket sends from, if a report waits for that under the key.
#[inline(always)]
pub(crate) fn tell(socket: u64, key: u64, port: u16) {
    if key == 0 || AWAITED.get_ptr(key).is_none() {
        return;
    }
    let _ = AWAITED.remove(key);
    if port == 0 {
        return;
    }
    let is_v4 = field::<u16>(socket, features::sock_family()) == AF_INET;
    let words: [u64; 2] = if is_v4 {
        [field::<u32>(socket, features::sock_own_v4()) as u64, 0]
    } else {
        field(socket, features::sock_own_v6())
    };
    tell_source(|record: &mut LocalAddressRecord| {
        // SAFETY: a helper without arguments.
        record.monotonic_ns = unsafe { bpf_ktime_get_ns() };
        record.key = key;
        let place = record.address.as_mut_ptr().cast::<u64>();
        // SAFETY: sixteen bytes of a record, aligned to eight. As they stand in the socket: network order.
        unsafe {
            place.write(words[0]);
            place.add(1).write(words[1]);
        }
        record.port = port;
        record.abi = ABI_VERSION as u16;
        record.family = if is_v4 { 4 } else { 6 };
        record.reserved = [0; 11];
    });
}
