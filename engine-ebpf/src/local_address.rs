//! Local addresses of connections. When a connect is evaluated its socket has no local port yet; the tracer
//! reports it later, in a record of its own.

use aya_ebpf::{btf_maps::LruHashMap, macros::btf_map};
use engine_common::{
    Action, Hook, Mode, Protocol,
    dedup::DedupKey,
    record::{AttemptRecord, LocalAddressRecord, MAX_PENDING_LOCAL_ADDRESSES, attempt_flag},
    scope::{Scope, SlotRef},
};

use crate::{
    evaluate::PackedVerdict,
    features,
    kernel_memory::field,
    report::write_local_address,
    request::{AddressRequest, Request, write_halves},
    scope,
};

const AF_INET: u16 = 2;

/// Keys of the records of connections that were allowed and whose local address is still to be reported.
#[btf_map]
static PENDING_CONNECTS: LruHashMap<u64, u8, { MAX_PENDING_LOCAL_ADDRESSES as usize }> = LruHashMap::new();

/// A connect, with what is known about its local address when it is reported.
pub(crate) struct Connect {
    pub(crate) request: AddressRequest,
    /// The local address as in the record: both halves of the address, in the family of the destination, and the
    /// port; zero if not yet known.
    pub(crate) local: (u64, u64, u64),
    /// Key of the record that will report the local address; 0 for none.
    pub(crate) key: u64,
}

/// The local address is not known, or not yet.
pub(crate) const UNKNOWN_ADDRESS: (u64, u64, u64) = (0, 0, 0);

impl Request for Connect {
    type Record = AttemptRecord;

    #[inline(always)]
    fn evaluate(&self, reference: SlotRef) -> PackedVerdict {
        self.request.evaluate(reference)
    }

    #[inline(always)]
    fn write_destination(&self, record: &mut AttemptRecord) {
        self.request.write_destination(record);
        if self.key != 0 {
            write_halves(&mut record.local_address, self.key.swap_bytes(), 0);
            // If the insertion fails, the event has no local address.
            let _ = PENDING_CONNECTS.insert(self.key, 1, 0);
            return;
        }
        let (high, low, port) = self.local;
        record.local_port = port as u16;
        write_halves(&mut record.local_address, high, low);
    }

    #[inline(always)]
    fn write_key(&self, key: &mut DedupKey) {
        self.request.write_key(key);
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        if self.key != 0 {
            attempt_flag::EXPECTS_LOCAL_ADDRESS
        } else {
            0
        }
    }
}

/// Key of a connect that a cgroup hook allows and whose local address the tracer is going to report; 0 if it is not.
/// The key is the socket's cookie: a socket's address in memory is soon reused.
#[inline(always)]
pub(crate) fn key(hook: u32, protocol: Protocol, cookie: u64, packed: PackedVerdict) -> u64 {
    let is_connect = hook == Hook::Connect4 as u32 || hook == Hook::Connect6 as u32;
    let is_expected = is_connect
        && protocol.0 == Protocol::TCP.0
        && is_allowed(packed)
        && scope::current().flags & Scope::LOCAL_ADDRESSES != 0;
    if is_expected { cookie } else { 0 }
}

#[inline(always)]
fn is_allowed(packed: PackedVerdict) -> bool {
    matches!(packed.revision().mode, Mode::Audit)
        || matches!(packed.verdict().action(), Action::Allow | Action::Audit)
}

/// Reports the local address of a socket, if a record with this key expects it.
#[inline(always)]
pub(crate) fn report(socket: u64, key: u64, port: u16) {
    if key == 0 || PENDING_CONNECTS.get_ptr(key).is_none() {
        return;
    }
    let _ = PENDING_CONNECTS.remove(key);
    if port == 0 {
        return;
    }
    let is_v4 = field::<u16>(socket, features::sock_family()) == AF_INET;
    let words: [u64; 2] = if is_v4 {
        [field::<u32>(socket, features::sock_own_v4()) as u64, 0]
    } else {
        field(socket, features::sock_own_v6())
    };
    write_local_address(|record: &mut LocalAddressRecord| {
        record.key = key;
        let address = record.address.as_mut_ptr().cast::<u64>();
        // SAFETY: sixteen bytes of a record, aligned to eight. The socket has them in network order.
        unsafe {
            address.write(words[0]);
            address.add(1).write(words[1]);
        }
        record.port = port;
        record.family = if is_v4 { 4 } else { 6 };
        record.reserved = [0; 5];
    });
}
