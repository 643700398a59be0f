//! The bytes of an [`EventRecord`] and of the other records, field by field: no transmutation, so neither alignment nor the
//! machine's byte order matters.

use engine_common::{
    event::{EventRecord, LocalAddressRecord, MigrationRecord, UnixRecord},
    scope::SlotRef,
};

/// Bytes of one record.
pub const LENGTH: usize = size_of::<EventRecord>();

/// Bytes of one record about a source.
pub const LOCAL_ADDRESS_LENGTH: usize = size_of::<LocalAddressRecord>();

/// Bytes of one record about a unix socket.
pub const UNIX_LENGTH: usize = size_of::<UnixRecord>();

/// Bytes of one record about a move.
pub const MIGRATION_LENGTH: usize = size_of::<MigrationRecord>();

/// Takes fixed-size fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn slots<const N: usize>(&mut self) -> Option<[SlotRef; N]> {
        let mut slots = [SlotRef::NONE; N];
        for slot in &mut slots {
            *slot = SlotRef(self.u32()?);
        }
        Some(slots)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }
}

/// Reads a record; `None` unless there are exactly [`LENGTH`] bytes. What the numbers mean is not
/// looked at: that is [`decode`](super::decode())'s part.
pub fn parse(bytes: &[u8]) -> Option<EventRecord> {
    if bytes.len() != LENGTH {
        return None;
    }
    let mut fields = Fields(bytes);
    // Struct expressions are evaluated in the order written: the order of the layout.
    Some(EventRecord {
        monotonic_ns: fields.u64()?,
        generation: fields.u64()?,
        scope: fields.u64()?,
        cgroup: fields.u64()?,
        lost: fields.u64()?,
        socket_cookie: fields.u64()?,
        executable_device: fields.u64()?,
        executable_inode: fields.u64()?,
        destination: fields.take()?,
        original: fields.take()?,
        source: fields.take()?,
        comm: fields.take()?,
        slot: fields.u32()?,
        pid: fields.u32()?,
        tid: fields.u32()?,
        uid: fields.u32()?,
        gid: fields.u32()?,
        repeats: fields.u32()?,
        detail: fields.u16()?,
        errno: fields.u16()?,
        port: fields.u16()?,
        protocol: fields.u16()?,
        abi: fields.u16()?,
        source_port: fields.u16()?,
        hook: fields.u8()?,
        verdict: fields.u8()?,
        outcome: fields.u8()?,
        reason: fields.u8()?,
        family: fields.u8()?,
        original_family: fields.u8()?,
        flags: fields.u8()?,
        reserved: fields.take()?,
    })
}

/// Reads a record about a source; `None` unless there are exactly [`LOCAL_ADDRESS_LENGTH`] bytes.
pub fn parse_local_address(bytes: &[u8]) -> Option<LocalAddressRecord> {
    if bytes.len() != LOCAL_ADDRESS_LENGTH {
        return None;
    }
    let mut fields = Fields(bytes);
    Some(LocalAddressRecord {
        monotonic_ns: fields.u64()?,
        key: fields.u64()?,
        address: fields.take()?,
        port: fields.u16()?,
        abi: fields.u16()?,
        family: fields.u8()?,
        reserved: fields.take()?,
    })
}

/// Reads a record about a unix socket; `None` unless there are exactly [`UNIX_LENGTH`] bytes.
pub fn parse_unix(bytes: &[u8]) -> Option<UnixRecord> {
    let (event, rest) = bytes.split_at_checked(LENGTH)?;
    if bytes.len() != UNIX_LENGTH {
        return None;
    }
    let mut fields = Fields(rest);
    Some(UnixRecord {
        event: parse(event)?,
        length: fields.u32()?,
        name: fields.take()?,
    })
}

/// Reads a record about a move; `None` unless there are exactly [`MIGRATION_LENGTH`] bytes.
pub fn parse_migration(bytes: &[u8]) -> Option<MigrationRecord> {
    if bytes.len() != MIGRATION_LENGTH {
        return None;
    }
    let mut fields = Fields(bytes);
    Some(MigrationRecord {
        monotonic_ns: fields.u64()?,
        scope: fields.u64()?,
        from: fields.u64()?,
        to: fields.u64()?,
        lost: fields.u64()?,
        comm: fields.take()?,
        migrated_by_comm: fields.take()?,
        slots: fields.slots()?,
        pid: fields.u32()?,
        tid: fields.u32()?,
        migrated_by_pid: fields.u32()?,
        migrated_by_uid: fields.u32()?,
        abi: fields.u16()?,
        flags: fields.u8()?,
        reserved: fields.take()?,
    })
}

/// Writes a record as the kernel programs do: what tests feed to [`decode`](super::decode()).
pub fn encode(record: &EventRecord) -> [u8; LENGTH] {
    let parts: [&[u8]; 32] = [
        &record.monotonic_ns.to_le_bytes(),
        &record.generation.to_le_bytes(),
        &record.scope.to_le_bytes(),
        &record.cgroup.to_le_bytes(),
        &record.lost.to_le_bytes(),
        &record.socket_cookie.to_le_bytes(),
        &record.executable_device.to_le_bytes(),
        &record.executable_inode.to_le_bytes(),
        &record.destination,
        &record.original,
        &record.source,
        &record.comm,
        &record.slot.to_le_bytes(),
        &record.pid.to_le_bytes(),
        &record.tid.to_le_bytes(),
        &record.uid.to_le_bytes(),
        &record.gid.to_le_bytes(),
        &record.repeats.to_le_bytes(),
        &record.detail.to_le_bytes(),
        &record.errno.to_le_bytes(),
        &record.port.to_le_bytes(),
        &record.protocol.to_le_bytes(),
        &record.abi.to_le_bytes(),
        &record.source_port.to_le_bytes(),
        &[record.hook],
        &[record.verdict],
        &[record.outcome],
        &[record.reason],
        &[record.family],
        &[record.original_family],
        &[record.flags],
        &record.reserved,
    ];
    let mut out = [0; LENGTH];
    for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    out
}

/// The same of a record about a move.
pub fn encode_migration(record: &MigrationRecord) -> [u8; MIGRATION_LENGTH] {
    let slots = record.slots.map(|slot| slot.0.to_le_bytes());
    let parts: [&[u8]; 15] = [
        &record.monotonic_ns.to_le_bytes(),
        &record.scope.to_le_bytes(),
        &record.from.to_le_bytes(),
        &record.to.to_le_bytes(),
        &record.lost.to_le_bytes(),
        &record.comm,
        &record.migrated_by_comm,
        slots.as_flattened(),
        &record.pid.to_le_bytes(),
        &record.tid.to_le_bytes(),
        &record.migrated_by_pid.to_le_bytes(),
        &record.migrated_by_uid.to_le_bytes(),
        &record.abi.to_le_bytes(),
        &[record.flags],
        &record.reserved,
    ];
    let mut out = [0; MIGRATION_LENGTH];
    for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::sample;

    /// The compiler's layout, which the kernel programs write, is the one read here.
    #[test]
    fn every_field_is_where_the_compiler_puts_it() {
        macro_rules! check {
            ($($field:ident: $byte:expr => $value:expr;)*) => {$(
                let mut bytes = [0u8; LENGTH];
                bytes[std::mem::offset_of!(EventRecord, $field)] = $byte;
                let record = parse(&bytes).unwrap();
                assert_eq!(record.$field, $value, stringify!($field));
                assert_eq!(encode(&record), bytes, stringify!($field));
            )*};
        }
        fn first<const N: usize>() -> [u8; N] {
            std::array::from_fn(|i| if i == 0 { 7 } else { 0 })
        }
        check! {
            monotonic_ns: 7 => 7; generation: 7 => 7; scope: 7 => 7; cgroup: 7 => 7; lost: 7 => 7;
            socket_cookie: 7 => 7; executable_device: 7 => 7; executable_inode: 7 => 7;
            destination: 7 => first(); original: 7 => first(); source: 7 => first(); comm: 7 => first();
            slot: 7 => 7; pid: 7 => 7; tid: 7 => 7; uid: 7 => 7; gid: 7 => 7; repeats: 7 => 7;
            detail: 7 => 7; errno: 7 => 7; port: 7 => 7; protocol: 7 => 7; abi: 7 => 7; source_port: 7 => 7;
            hook: 7 => 7; verdict: 7 => 7; outcome: 7 => 7; reason: 7 => 7; family: 7 => 7;
            original_family: 7 => 7; flags: 7 => 7; reserved: 7 => first();
        }
    }

    #[test]
    fn so_is_every_field_of_a_source() {
        macro_rules! check {
            ($($field:ident => $value:expr;)*) => {$(
                let mut bytes = [0u8; LOCAL_ADDRESS_LENGTH];
                bytes[std::mem::offset_of!(LocalAddressRecord, $field)] = 7;
                assert_eq!(parse_local_address(&bytes).unwrap().$field, $value, stringify!($field));
            )*};
        }
        fn first<const N: usize>() -> [u8; N] {
            std::array::from_fn(|i| if i == 0 { 7 } else { 0 })
        }
        check! {
            monotonic_ns => 7; key => 7; address => first(); port => 7; abi => 7; family => 7; reserved => first();
        }
        assert!(parse_local_address(&[0; LOCAL_ADDRESS_LENGTH + 1]).is_none());
    }

    #[test]
    fn so_is_every_field_of_a_unix_socket() {
        let mut bytes = [0u8; UNIX_LENGTH];
        bytes[std::mem::offset_of!(UnixRecord, event)] = 7;
        bytes[std::mem::offset_of!(UnixRecord, length)] = 8;
        bytes[std::mem::offset_of!(UnixRecord, name)] = 9;
        let record = parse_unix(&bytes).unwrap();
        assert_eq!(
            (record.event.monotonic_ns, record.length, record.name[0]),
            (7, 8, 9)
        );
        assert!(parse_unix(&bytes[1..]).is_none());
        assert!(parse_unix(&bytes[..LENGTH]).is_none());
    }

    #[test]
    fn so_is_every_field_of_a_move() {
        macro_rules! check {
            ($($field:ident => $value:expr;)*) => {$(
                let mut bytes = [0u8; MIGRATION_LENGTH];
                bytes[std::mem::offset_of!(MigrationRecord, $field)] = 7;
                let record = parse_migration(&bytes).unwrap();
                assert_eq!(record.$field, $value, stringify!($field));
                assert_eq!(encode_migration(&record), bytes, stringify!($field));
            )*};
        }
        fn first<const N: usize>() -> [u8; N] {
            std::array::from_fn(|i| if i == 0 { 7 } else { 0 })
        }
        let slots = std::array::from_fn(|i| SlotRef(if i == 0 { 7 } else { 0 }));
        check! {
            monotonic_ns => 7; scope => 7; from => 7; to => 7; lost => 7; comm => first(); migrated_by_comm => first();
            slots => slots; pid => 7; tid => 7; migrated_by_pid => 7; migrated_by_uid => 7; abi => 7; flags => 7;
            reserved => first();
        }
        assert!(parse_migration(&[0; MIGRATION_LENGTH - 1]).is_none());
    }

    #[test]
    fn other_lengths_are_refused() {
        let bytes = encode(&sample::record());
        assert!(parse(&bytes).is_some());
        assert!(parse(&bytes[..LENGTH - 1]).is_none());
        assert!(parse(&[&bytes[..], &[0]].concat()).is_none());
        assert!(parse(&[]).is_none());
    }
}
