//! From bytes to an [`Event`]; refuses whatever it does not know.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use engine_common::{
    ABI_VERSION, Action, ExecutableId, Fault, Hook, Mode, Outcome, Protocol, Reason, SocketFamily,
    UnixSocketId,
    event::{EventRecord, LocalAddressRecord, MigrationRecord, UnixRecord, flag, migration_flag, reason},
    limits::{MAX_POLICIES, MAX_RULES},
};

use super::{
    bound_name::BoundName,
    correlator::Source,
    event::{Comm, Event},
    migration::{CgroupMigration, MigratedBy},
    record_bytes::{self, LENGTH, LOCAL_ADDRESS_LENGTH, MIGRATION_LENGTH, UNIX_LENGTH},
    target::Target,
};

/// Greatest errno the kernel knows (MAX_ERRNO, include/linux/err.h).
const MAX_ERRNO: u16 = 4095;

/// Why a record was refused. A refused record is a defect or a mismatch of versions, never a lost
/// verdict: the kernel has acted before it wrote the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not the size of a record.
    #[error(
        "event record has {0} bytes, none of {LENGTH}, {UNIX_LENGTH}, {MIGRATION_LENGTH} and {LOCAL_ADDRESS_LENGTH}"
    )]
    Length(usize),
    /// Written by programs of another version.
    #[error("event record has ABI version {0}, this binary reads version {ABI_VERSION}")]
    Abi(u16),
    /// A field holds a number that means nothing.
    #[error("event record has an unknown {field}: {number}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it holds.
        number: u32,
    },
    /// Bytes that must be zero are not.
    #[error("event record has reserved bytes set")]
    Reserved,
}

/// What a record of the ring is about. They are told apart by their length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An attempt.
    Event(Box<Event>),
    /// Where a connection sends from.
    Source(Source),
    /// That a task has left a cgroup.
    CgroupMigration(Box<CgroupMigration>),
}

/// Reads one record of the ring.
///
/// # Errors
/// [`DecodeError`] when the bytes are no record of this version of the ABI.
pub fn decode_record(bytes: &[u8]) -> Result<Record, DecodeError> {
    if let Some(record) = record_bytes::parse_local_address(bytes) {
        return local_address_record(&record).map(Record::Source);
    }
    if let Some(record) = record_bytes::parse_unix(bytes) {
        return unix_record(&record).map(|event| Record::Event(Box::new(event)));
    }
    if let Some(record) = record_bytes::parse_migration(bytes) {
        return migration_record(&record).map(|migration| Record::CgroupMigration(Box::new(migration)));
    }
    decode(bytes).map(|event| Record::Event(Box::new(event)))
}

fn migration_record(record: &MigrationRecord) -> Result<CgroupMigration, DecodeError> {
    if u32::from(record.abi) != ABI_VERSION {
        return Err(DecodeError::Abi(record.abi));
    }
    if record.reserved != [0; 5] {
        return Err(DecodeError::Reserved);
    }
    if record.flags & !migration_flag::ALL != 0 {
        return Err(unknown("flag", record.flags));
    }
    // The first that refers to none ends the list.
    let slots = record.slots.iter().map_while(|reference| reference.slot());
    let slots = slots.map(|number| match slot(number) {
        Ok(Some(number)) => Ok(number),
        _ => Err(unknown("slot", number)),
    });
    Ok(CgroupMigration {
        monotonic_ns: record.monotonic_ns,
        scope: record.scope,
        from: record.from,
        to: record.to,
        slots: slots.collect::<Result<_, _>>()?,
        pid: record.pid,
        tid: record.tid,
        comm: Comm(record.comm),
        is_whole: record.flags & migration_flag::THREAD == 0,
        is_clone_into_cgroup: record.flags & migration_flag::CLONE_INTO_CGROUP != 0,
        by: MigratedBy {
            pid: record.migrated_by_pid,
            uid: record.migrated_by_uid,
            comm: Comm(record.migrated_by_comm),
        },
        lost: record.lost,
    })
}

fn unix_record(record: &UnixRecord) -> Result<Event, DecodeError> {
    let mut event = understood(&record.event)?;
    if event.protocol != Protocol::UNIX {
        return Err(unknown("protocol", record.event.protocol));
    }
    let name = record.name.get(..record.length as usize);
    let name = name
        .and_then(BoundName::new)
        .ok_or(unknown("length", record.length))?;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or_default();
    let (space, hash) = record.event.destination.split_at(8);
    event.target = Target::Unix {
        name,
        place: UnixSocketId {
            device: word(space),
            name_hash: word(hash),
        },
    };
    Ok(event)
}

fn local_address_record(record: &LocalAddressRecord) -> Result<Source, DecodeError> {
    if u32::from(record.abi) != ABI_VERSION {
        return Err(DecodeError::Abi(record.abi));
    }
    if record.reserved != [0; 11] {
        return Err(DecodeError::Reserved);
    }
    let address = address(record.family, record.address).ok_or(unknown("family", record.family))?;
    Ok(Source {
        monotonic_ns: record.monotonic_ns,
        key: record.key,
        // A socket of IPv6 with a peer of IPv4 is spelled as its destination is.
        address: SocketAddr::new(address.to_canonical(), record.port),
    })
}

/// Reads one record about an attempt.
///
/// # Errors
/// [`DecodeError`] when the bytes are no such record of this version of the ABI.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    understood(&record_bytes::parse(bytes).ok_or(DecodeError::Length(bytes.len()))?)
}

fn understood(record: &EventRecord) -> Result<Event, DecodeError> {
    if u32::from(record.abi) != ABI_VERSION {
        return Err(DecodeError::Abi(record.abi));
    }
    if record.reserved != [0; 5] {
        return Err(DecodeError::Reserved);
    }
    if record.flags & !flag::ALL != 0 {
        return Err(unknown("flag", record.flags));
    }
    let has = |bit: u8| record.flags & bit != 0;

    Ok(Event {
        monotonic_ns: record.monotonic_ns,
        slot: slot(record.slot)?,
        generation: record.generation,
        mode: if has(flag::AUDIT_MODE) {
            Mode::Audit
        } else {
            Mode::Enforce
        },
        verdict: Action::from_u8(record.verdict).ok_or(unknown("verdict", record.verdict))?,
        reason: why(record)?,
        outcome: Outcome::from_u8(record.outcome).ok_or(unknown("outcome", record.outcome))?,
        errno: errno(record.errno)?,
        hook: Hook::from_u8(record.hook).ok_or(unknown("hook", record.hook))?,
        protocol: protocol(record.protocol)?,
        target: target(record)?,
        source: source(record)?,
        awaits: has(flag::EXPECTS_LOCAL_ADDRESS).then(|| key(record.source)),
        foreign_socket: has(flag::FOREIGN_SOCKET),
        socket_cookie: record.socket_cookie,
        scope: record.scope,
        cgroup: record.cgroup,
        pid: record.pid,
        tid: record.tid,
        uid: record.uid,
        gid: record.gid,
        repeats: record.repeats,
        comm: Comm(record.comm),
        executable: executable(record),
        lost: record.lost,
    })
}

fn unknown(field: &'static str, number: impl Into<u32>) -> DecodeError {
    DecodeError::Unknown {
        field,
        number: number.into(),
    }
}

fn slot(number: u32) -> Result<Option<u32>, DecodeError> {
    match number {
        u32::MAX => Ok(None),
        _ if number < MAX_POLICIES => Ok(Some(number)),
        _ => Err(unknown("slot", number)),
    }
}

fn why(record: &EventRecord) -> Result<Reason, DecodeError> {
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

fn errno(number: u16) -> Result<Option<NonZeroU16>, DecodeError> {
    if number > MAX_ERRNO {
        return Err(unknown("errno", number));
    }
    Ok(NonZeroU16::new(number))
}

fn protocol(number: u16) -> Result<Protocol, DecodeError> {
    if number >= Protocol::COUNT {
        return Err(unknown("protocol", number));
    }
    Ok(Protocol(number))
}

fn executable(record: &EventRecord) -> Option<ExecutableId> {
    let id = ExecutableId {
        device: record.executable_device,
        inode: record.executable_inode,
    };
    (record.flags & flag::NO_EXECUTABLE == 0 && id != ExecutableId::default()).then_some(id)
}

fn target(record: &EventRecord) -> Result<Target, DecodeError> {
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

/// A source port that was told goes with an address of the family that the caller named.
fn source(record: &EventRecord) -> Result<Option<SocketAddr>, DecodeError> {
    if record.source_port == 0 || record.flags & flag::EXPECTS_LOCAL_ADDRESS != 0 {
        return Ok(None);
    }
    let family = address(record.family, record.source).ok_or(unknown("family", record.family))?;
    Ok(Some(SocketAddr::new(family, record.source_port)))
}

/// The key of the source that is to come: the first eight of these bytes.
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
