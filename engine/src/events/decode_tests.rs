use proptest::prelude::*;

use super::*;
use crate::events::{record_bytes::encode, sample};

/// Any record the kernel programs may write.
fn records() -> impl Strategy<Value = EventRecord> {
    let ids = any::<([u64; 8], [u8; 16], [u8; 16], [u8; 16], [u32; 4])>();
    let slots = prop_oneof![Just(u32::MAX), 0..MAX_POLICIES];
    let reasons = prop_oneof![
        (Just(reason::RULE), 0..MAX_RULES as u16),
        (Just(reason::DEFAULT), Just(0u16)),
        (Just(reason::FAULT), 0u16..5),
    ];
    let numbers = (0..=MAX_ERRNO, any::<u16>(), 0..Protocol::COUNT);
    let small = (
        0..Hook::ALL.len() as u8,
        0u8..4,
        0u8..7,
        prop::sample::select(vec![0u8, 4, 6]),
        prop::sample::select(vec![4u8, 6]),
        0..=flag::ALL,
    );
    (ids, slots, reasons, numbers, small).prop_map(|(ids, slot, why, numbers, small)| {
        let (words, destination, original, comm, [pid, tid, uid, gid]) = ids;
        let (errno, port, protocol) = numbers;
        let (hook, verdict, outcome, family, original_family, flags) = small;
        let awaits = flags & flag::EXPECTS_LOCAL_ADDRESS != 0;
        let source_port = if family == 0 || awaits { 0 } else { words[1] as u16 };
        EventRecord {
            monotonic_ns: words[0],
            generation: words[1],
            scope: words[2],
            cgroup: words[3],
            lost: words[4],
            socket_cookie: words[5],
            executable_device: words[6],
            executable_inode: words[7],
            destination,
            original,
            comm,
            slot,
            pid,
            tid,
            uid,
            gid,
            repeats: words[0] as u32,
            detail: why.1,
            errno,
            port,
            protocol,
            abi: ABI_VERSION as u16,
            hook,
            verdict,
            outcome,
            reason: why.0,
            family,
            original_family,
            flags,
            source: if source_port == 0 && !awaits {
                [0; 16]
            } else {
                destination
            },
            source_port,
            reserved: [0; 5],
        }
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(record in records()) {
        let event = decode(&encode(&record)).unwrap();
        prop_assert_eq!(event.monotonic_ns, record.monotonic_ns);
        prop_assert_eq!(event.generation, record.generation);
        prop_assert_eq!((event.scope, event.cgroup), (record.scope, record.cgroup));
        prop_assert_eq!((event.lost, event.socket_cookie), (record.lost, record.socket_cookie));
        prop_assert_eq!(event.slot.unwrap_or(u32::MAX), record.slot);
        prop_assert_eq!((event.pid, event.tid), (record.pid, record.tid));
        prop_assert_eq!((event.uid, event.gid), (record.uid, record.gid));
        prop_assert_eq!(event.errno.map_or(0, NonZeroU16::get), record.errno);
        prop_assert_eq!(event.source.map_or(0, |source| source.port()), record.source_port);
        let awaits = record.flags & flag::EXPECTS_LOCAL_ADDRESS != 0;
        let key = || u64::from_le_bytes(record.source[..8].try_into().unwrap());
        prop_assert_eq!(event.awaits, awaits.then(key));
        prop_assert_eq!(event.protocol.0, record.protocol);
        prop_assert_eq!(event.hook as u8, record.hook);
        prop_assert_eq!(event.verdict as u8, record.verdict);
        prop_assert_eq!(event.outcome as u8, record.outcome);
        prop_assert_eq!(event.mode == Mode::Audit, record.flags & flag::AUDIT_MODE != 0);
        prop_assert_eq!(event.foreign_socket, record.flags & flag::FOREIGN_SOCKET != 0);
        let (why, detail) = match event.reason {
            Reason::Rule(rule) => (reason::RULE, rule),
            Reason::Default => (reason::DEFAULT, 0),
            Reason::Fault(fault) => (reason::FAULT, fault as u16),
        };
        prop_assert_eq!((why, detail), (record.reason, record.detail));
        let name: Vec<u8> = record.comm.into_iter().take_while(|&byte| byte != 0).collect();
        prop_assert_eq!(event.comm.as_bytes(), &name[..]);
        if record.flags & flag::NO_EXECUTABLE != 0 {
            prop_assert_eq!(event.executable, None);
        } else if let Some(id) = event.executable {
            prop_assert_eq!((id.device, id.inode), (record.executable_device, record.executable_inode));
        }
        match event.target {
            Target::Socket(family) => {
                prop_assert_eq!(record.family, 0);
                prop_assert_eq!(family == SocketFamily::Inet, record.original_family == 4);
            }
            // Comes with a record of its own.
            Target::Unix { .. } => prop_assert!(false),
            Target::Family(family) => {
                prop_assert_eq!(Protocol::of_family(family), event.protocol);
            }
            Target::Destination { address, original, port } => {
                prop_assert_eq!(port, record.port);
                for (address, family, bytes) in [
                    (address, record.family, record.destination),
                    (original, record.original_family, record.original),
                ] {
                    match address {
                        IpAddr::V4(v4) => prop_assert_eq!((family, &v4.octets()[..]), (4, &bytes[..4])),
                        IpAddr::V6(v6) => prop_assert_eq!((family, v6.octets()), (6, bytes)),
                    }
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_record(&bytes);
    }

    /// A record about a move, past its first checks.
    #[test]
    fn any_change_of_a_move_is_survived(at in 0..MIGRATION_LENGTH, byte in any::<u8>()) {
        let mut bytes = record_bytes::encode_migration(&sample::migration_record());
        bytes[at] = byte;
        if let Ok(Record::CgroupMigration(migration)) = decode_record(&bytes) {
            prop_assert_eq!(migration.pid, record_bytes::parse_migration(&bytes).unwrap().pid);
        }
    }

    /// Like the above, but past the first checks.
    #[test]
    fn any_change_of_a_record_is_survived(
        record in records(),
        at in 0..LENGTH,
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&record);
        bytes[at] = byte;
        if let Ok(event) = decode(&bytes) {
            prop_assert_eq!(event.pid, record_bytes::parse(&bytes).unwrap().pid);
        }
    }
}

#[test]
fn what_is_not_known_is_refused() {
    type Change = fn(&mut EventRecord);
    let cases: [(Change, &str); 15] = [
        (|r| r.abi = 1, "ABI version 1"),
        (|r| r.abi = 0, "ABI version 0"),
        (|r| r.reserved[4] = 1, "reserved"),
        (|r| r.flags = 16, "unknown flag: 16"),
        (|r| r.slot = MAX_POLICIES, "unknown slot: 4096"),
        (|r| r.verdict = 4, "unknown verdict: 4"),
        (|r| r.outcome = 7, "unknown outcome: 7"),
        (|r| r.hook = 14, "unknown hook: 14"),
        (|r| r.reason = 3, "unknown reason: 3"),
        (|r| r.detail = 1024, "unknown rule: 1024"),
        (|r| (r.reason, r.detail) = (reason::FAULT, 7), "unknown fault: 7"),
        (|r| r.errno = 4096, "unknown errno: 4096"),
        (|r| r.protocol = 512, "unknown protocol: 512"),
        (|r| r.family = 5, "unknown family: 5"),
        (|r| r.original_family = 0, "unknown original family: 0"),
    ];
    for (change, message) in cases {
        let mut record = sample::record();
        assert!(decode(&encode(&record)).is_ok());
        change(&mut record);
        let error = decode(&encode(&record)).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    }
    let error = decode(&[0; 3]).unwrap_err().to_string();
    assert_eq!(error, "event record has 3 bytes, none of 176, 288, 128 and 48");
}

/// What fuzzing begins with is of this version, so that it gets past the first checks.
#[test]
fn the_seeds_of_the_fuzzer_are_records() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/event");
    let mut kinds = std::collections::HashSet::new();
    for seed in std::fs::read_dir(seeds).unwrap() {
        let path = seed.unwrap().path();
        let record = decode_record(&std::fs::read(&path).unwrap());
        let record = record.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        kinds.insert(std::mem::discriminant(&record));
    }
    assert_eq!(kinds.len(), 3, "one of each kind at least");
}

/// Who left a cgroup, as the kernel writes it.
#[test]
fn departures_are_told_by_their_length() {
    let migration = sample::migration(|_| {});
    assert_eq!(
        (migration.scope, migration.from, migration.to),
        (42, 43, 7),
        "cgroups"
    );
    assert_eq!(migration.slots, [0, 5]);
    assert_eq!(
        (migration.pid, migration.is_whole, migration.is_clone_into_cgroup),
        (123, true, false)
    );
    assert_eq!(migration.comm.as_bytes(), b"bash");
    assert_eq!(
        (migration.by.pid, migration.by.comm.as_bytes()),
        (1, &b"systemd"[..])
    );
    let born = sample::migration(|r| r.flags = migration_flag::THREAD | migration_flag::CLONE_INTO_CGROUP);
    assert_eq!((born.is_whole, born.is_clone_into_cgroup), (false, true));
    // What stands behind the end of the list is not looked at.
    let none = sample::migration(|r| r.slots[0].0 = 0);
    assert_eq!(none.slots, [0_u32; 0]);

    type Change = fn(&mut MigrationRecord);
    let cases: [(Change, DecodeError); 4] = [
        (|r| r.abi = 1, DecodeError::Abi(1)),
        (|r| r.flags = 4, unknown("flag", 4u8)),
        (|r| r.reserved[4] = 1, DecodeError::Reserved),
        (|r| r.slots[1].0 = MAX_POLICIES + 1, unknown("slot", MAX_POLICIES)),
    ];
    for (change, error) in cases {
        let mut record = sample::migration_record();
        change(&mut record);
        let bytes = record_bytes::encode_migration(&record);
        assert_eq!(decode_record(&bytes), Err(error));
    }
}

/// Where a connection sends from, as the kernel writes it.
#[test]
fn sources_are_told_by_their_length() {
    let mapped: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
    let bytes = |address: [u8; 16], family: u8, abi: u16, reserved: u8| {
        let mut bytes = Vec::new();
        bytes.extend(5u64.to_le_bytes());
        bytes.extend(6u64.to_le_bytes());
        bytes.extend(address);
        bytes.extend(40_000u16.to_le_bytes());
        bytes.extend(abi.to_le_bytes());
        bytes.push(family);
        bytes.extend([0; 10]);
        bytes.push(reserved);
        bytes
    };
    let now = ABI_VERSION as u16;
    let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
    for (address, family, told) in [
        (sample::v4([192, 0, 2, 7]), 4, "192.0.2.7:40000"),
        (mapped.octets(), 6, "192.0.2.7:40000"),
        (v6.octets(), 6, "[2001:db8::1]:40000"),
    ] {
        let source = Source {
            monotonic_ns: 5,
            key: 6,
            address: told.parse().unwrap(),
        };
        let read = decode_record(&bytes(address, family, now, 0));
        assert_eq!(read, Ok(Record::Source(source)));
    }
    for (bytes, error) in [
        (bytes([0; 16], 5, now, 0), unknown("family", 5u8)),
        (bytes([0; 16], 4, 1, 0), DecodeError::Abi(1)),
        (bytes([0; 16], 4, now, 1), DecodeError::Reserved),
    ] {
        assert_eq!(decode_record(&bytes), Err(error));
    }
    let event = decode_record(&encode(&sample::record())).unwrap();
    assert_eq!(event, Record::Event(Box::new(sample::event(|_| {}))));
}

#[test]
fn unix_sockets_come_with_their_names() {
    let bytes = |protocol: Protocol, length: u32| {
        let mut event = sample::record();
        event.protocol = protocol.0;
        event.hook = Hook::LsmUnixConnect as u8;
        (event.family, event.original_family) = (0, 0);
        event.destination = [0, 0, 0, 0, 0, 0, 0, 27, 0, 0, 0, 0, 0, 0, 0, 9];
        let mut name = [0; 108];
        name[..5].copy_from_slice(b"/a\0bc");
        [&encode(&event)[..], &length.to_le_bytes(), &name].concat()
    };
    let Record::Event(event) = decode_record(&bytes(Protocol::UNIX, 3)).unwrap() else {
        panic!("no event");
    };
    assert_eq!(event.target.display(event.protocol).to_string(), "unix:/a");
    let Target::Unix { place, .. } = event.target else {
        panic!("{:?}", event.target);
    };
    assert_eq!((place.device, place.name_hash), (27, 9));
    assert!(decode_record(&bytes(Protocol::TCP, 3)).is_err());
    assert!(decode_record(&bytes(Protocol::UNIX, 109)).is_err());
}
