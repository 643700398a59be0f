//! Decodes the bytes of a record; rejects values that it does not know.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use engine_common::{
    ABI_VERSION, Action, ExecutableId, Fault, Hook, Mode, Outcome, Protocol, Reason, SocketFamily,
    UnixSocketId,
    limits::{MAX_POLICIES, MAX_RULES},
    record::{
        AttemptRecord, LocalAddressRecord, MigrationRecord, RecordHeader, RecordKind, UnixRecord,
        attempt_flag, migration_flag, reason,
    },
};

use super::{
    bound_name::BoundName,
    event::{Comm, Event},
    local_address::LocalAddress,
    migration::{CgroupMigration, MigratedBy},
    record_bytes::{Encoding, parse},
    target::Target,
};

/// Greatest errno of the kernel (MAX_ERRNO, include/linux/err.h).
const MAX_ERRNO: u16 = 4095;

/// Why a record was rejected. A rejected record is a defect or a version mismatch, never a lost
/// verdict: the kernel has enforced it before it wrote the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Too short for a header.
    #[error("record of {0} bytes is shorter than a header")]
    Header(usize),
    /// The length in the header, or that of the kind, is not the number of bytes.
    #[error("record of kind {kind} has {bytes} bytes, expected {expected}")]
    Length {
        /// Kind in the header.
        kind: u16,
        /// Bytes of the record.
        bytes: usize,
        /// Length in the header, or of the kind.
        expected: usize,
    },
    /// Written by programs of another version.
    #[error("record has ABI version {0}, this binary reads version {ABI_VERSION}")]
    Abi(u16),
    /// A field has an undefined value.
    #[error("record has an unknown {field}: {value}")]
    Unknown {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// Bytes that must be zero are not.
    #[error("record has reserved bytes set")]
    Reserved,
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An attempt.
    Attempt(Box<Event>),
    /// The local address of a connection.
    LocalAddress(LocalAddress),
    /// A task was migrated out of a cgroup.
    CgroupMigration(Box<CgroupMigration>),
    /// A kind that this binary does not know. It is skipped.
    Unknown {
        /// Kind in the header.
        kind: u16,
    },
}

/// One kind of records.
struct Decoder {
    kind: RecordKind,
    /// Bytes of the record, with the header.
    length: usize,
    decode: fn(&[u8]) -> Result<Record, DecodeError>,
}

impl Decoder {
    const fn new<R>(kind: RecordKind, decode: fn(&[u8]) -> Result<Record, DecodeError>) -> Decoder {
        Decoder {
            kind,
            length: size_of::<R>(),
            decode,
        }
    }
}

/// The kinds of records that this binary reads.
const DECODERS: [Decoder; 4] = [
    Decoder::new::<AttemptRecord>(RecordKind::Attempt, |bytes| {
        let event = attempt(&whole(bytes)?)?;
        Ok(Record::Attempt(Box::new(event)))
    }),
    Decoder::new::<LocalAddressRecord>(RecordKind::LocalAddress, |bytes| {
        local_address(&whole(bytes)?).map(Record::LocalAddress)
    }),
    Decoder::new::<UnixRecord>(RecordKind::Unix, |bytes| {
        let event = unix(&whole(bytes)?)?;
        Ok(Record::Attempt(Box::new(event)))
    }),
    Decoder::new::<MigrationRecord>(RecordKind::CgroupMigration, |bytes| {
        let migration = migration(&whole(bytes)?)?;
        Ok(Record::CgroupMigration(Box::new(migration)))
    }),
];

/// Decodes one record of the ring buffer.
///
/// # Errors
/// [`DecodeError`] if the header has another ABI version or a wrong length, or a field of a known kind has an
/// undefined value.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let header = RecordHeader::take(&mut &*bytes).ok_or(DecodeError::Header(bytes.len()))?;
    if u32::from(header.abi) != ABI_VERSION {
        return Err(DecodeError::Abi(header.abi));
    }
    let known = DECODERS.iter().find(|decoder| decoder.kind as u16 == header.kind);
    let expected = known.map_or(header.length as usize, |decoder| decoder.length);
    if bytes.len() != expected || header.length as usize != expected {
        return Err(DecodeError::Length {
            kind: header.kind,
            bytes: bytes.len(),
            expected,
        });
    }
    match known {
        Some(decoder) => (decoder.decode)(bytes),
        None => Ok(Record::Unknown { kind: header.kind }),
    }
}

/// The record with these bytes; their length was checked.
fn whole<R: Encoding>(bytes: &[u8]) -> Result<R, DecodeError> {
    parse(bytes).ok_or(DecodeError::Header(bytes.len()))
}

fn migration(record: &MigrationRecord) -> Result<CgroupMigration, DecodeError> {
    if record.reserved != [0; 7] {
        return Err(DecodeError::Reserved);
    }
    if record.flags & !migration_flag::ALL != 0 {
        return Err(unknown("flag", record.flags));
    }
    // SlotRef::NONE ends the list.
    let slots = record.slots.iter().map_while(|reference| reference.slot());
    let slots = slots.map(|value| match slot(value) {
        Ok(Some(value)) => Ok(value),
        _ => Err(unknown("slot", value)),
    });
    Ok(CgroupMigration {
        ktime_ns: record.header.ktime_ns,
        scope: record.header.scope,
        from: record.from,
        to: record.to,
        slots: slots.collect::<Result<_, _>>()?,
        pid: record.pid,
        tid: record.tid,
        comm: Comm(record.comm),
        is_whole_process: record.flags & migration_flag::THREAD == 0,
        is_clone_into_cgroup: record.flags & migration_flag::CLONE_INTO_CGROUP != 0,
        migrated_by: MigratedBy {
            pid: record.migrated_by_pid,
            uid: record.migrated_by_uid,
            comm: Comm(record.migrated_by_comm),
        },
        lost: record.header.lost,
    })
}

fn unix(record: &UnixRecord) -> Result<Event, DecodeError> {
    let mut event = attempt(&record.attempt)?;
    if event.protocol != Protocol::UNIX {
        return Err(unknown("protocol", record.attempt.protocol));
    }
    let name = record.name.get(..record.name_length as usize);
    let name = name
        .and_then(BoundName::new)
        .ok_or(unknown("name length", record.name_length))?;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or_default();
    let (device, name_hash) = record.attempt.destination.split_at(8);
    event.target = Target::Unix {
        name,
        id: UnixSocketId {
            device: word(device),
            name_hash: word(name_hash),
        },
    };
    Ok(event)
}

fn local_address(record: &LocalAddressRecord) -> Result<LocalAddress, DecodeError> {
    if record.reserved != [0; 5] {
        return Err(DecodeError::Reserved);
    }
    let address = address(record.family, record.address).ok_or(unknown("family", record.family))?;
    Ok(LocalAddress {
        ktime_ns: record.header.ktime_ns,
        key: record.key,
        // The address of an IPv6 socket with an IPv4 peer is IPv4-mapped.
        address: SocketAddr::new(address.to_canonical(), record.port),
    })
}

fn attempt(record: &AttemptRecord) -> Result<Event, DecodeError> {
    if record.reserved != [0; 7] {
        return Err(DecodeError::Reserved);
    }
    if record.flags & !attempt_flag::ALL != 0 {
        return Err(unknown("flag", record.flags));
    }
    let has = |bit: u8| record.flags & bit != 0;

    Ok(Event {
        ktime_ns: record.header.ktime_ns,
        slot: slot(record.slot)?,
        generation: record.generation,
        mode: if has(attempt_flag::AUDIT_MODE) {
            Mode::Audit
        } else {
            Mode::Enforce
        },
        verdict: Action::from_u8(record.verdict).ok_or(unknown("verdict", record.verdict))?,
        reason: decided_by(record)?,
        outcome: Outcome::from_u8(record.outcome).ok_or(unknown("outcome", record.outcome))?,
        errno: errno(record.errno)?,
        hook: Hook::from_u8(record.hook).ok_or(unknown("hook", record.hook))?,
        protocol: protocol(record.protocol)?,
        target: target(record)?,
        local_address: own_local_address(record)?,
        local_address_key: has(attempt_flag::EXPECTS_LOCAL_ADDRESS).then(|| key(record.local_address)),
        foreign_socket: has(attempt_flag::FOREIGN_SOCKET),
        socket_cookie: record.socket_cookie,
        scope: record.header.scope,
        cgroup: record.cgroup,
        pid: record.pid,
        tid: record.tid,
        uid: record.uid,
        gid: record.gid,
        repeats: record.repeats,
        comm: Comm(record.comm),
        executable: executable(record),
        lost: record.header.lost,
    })
}

fn unknown(field: &'static str, value: impl Into<u32>) -> DecodeError {
    DecodeError::Unknown {
        field,
        value: value.into(),
    }
}

fn slot(value: u32) -> Result<Option<u32>, DecodeError> {
    match value {
        u32::MAX => Ok(None),
        _ if value < MAX_POLICIES => Ok(Some(value)),
        _ => Err(unknown("slot", value)),
    }
}

fn decided_by(record: &AttemptRecord) -> Result<Reason, DecodeError> {
    match record.reason {
        reason::RULE if usize::from(record.detail) < MAX_RULES => Ok(Reason::Rule(record.detail)),
        reason::RULE => Err(unknown("rule", record.detail)),
        reason::DEFAULT => Ok(Reason::Default),
        reason::FAULT => Fault::from_u16(record.detail)
            .map(Reason::Fault)
            .ok_or(unknown("fault", record.detail)),
        other => Err(unknown("reason", other)),
    }
}

fn errno(value: u16) -> Result<Option<NonZeroU16>, DecodeError> {
    if value > MAX_ERRNO {
        return Err(unknown("errno", value));
    }
    Ok(NonZeroU16::new(value))
}

fn protocol(value: u16) -> Result<Protocol, DecodeError> {
    if value >= Protocol::COUNT {
        return Err(unknown("protocol", value));
    }
    Ok(Protocol(value))
}

fn executable(record: &AttemptRecord) -> Option<ExecutableId> {
    let id = ExecutableId {
        device: record.executable_device,
        inode: record.executable_inode,
    };
    (record.flags & attempt_flag::NO_EXECUTABLE == 0 && id != ExecutableId::default()).then_some(id)
}

fn target(record: &AttemptRecord) -> Result<Target, DecodeError> {
    if let Some(family) = Protocol(record.protocol).family() {
        return Ok(Target::Family(family));
    }
    if record.family == 0 {
        return match record.original_family {
            4 => Ok(Target::Socket(SocketFamily::Inet)),
            6 => Ok(Target::Socket(SocketFamily::Inet6)),
            other => Err(unknown("original family", other)),
        };
    }
    Ok(Target::Destination {
        address: address(record.family, record.destination).ok_or(unknown("family", record.family))?,
        original: address(record.original_family, record.original)
            .ok_or(unknown("original family", record.original_family))?,
        port: record.port,
    })
}

/// The local address in the record itself; it has the family of the destination.
fn own_local_address(record: &AttemptRecord) -> Result<Option<SocketAddr>, DecodeError> {
    if record.local_port == 0 || record.flags & attempt_flag::EXPECTS_LOCAL_ADDRESS != 0 {
        return Ok(None);
    }
    let family = address(record.family, record.local_address).ok_or(unknown("family", record.family))?;
    Ok(Some(SocketAddr::new(family, record.local_port)))
}

/// The key of the expected [`LocalAddress`]: the first eight of these bytes.
fn key(bytes: [u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = bytes;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        4 => {
            let [a, b, c, d, ..] = bytes;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
