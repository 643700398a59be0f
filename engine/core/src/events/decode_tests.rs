use proptest::prelude::*;

use super::*;
use crate::events::{record_bytes::encode, test_records};

/// Records that the kernel programs may write.
fn records() -> impl Strategy<Value = AttemptRecord> {
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
        0..=attempt_flag::ALL,
    );
    (ids, slots, reasons, numbers, small).prop_map(|(ids, slot, why, numbers, small)| {
        let (words, destination, original, comm, [pid, tid, uid, gid]) = ids;
        let (errno, port, protocol) = numbers;
        let (hook, verdict, outcome, family, original_family, flags) = small;
        let is_expected = flags & attempt_flag::EXPECTS_LOCAL_ADDRESS != 0;
        let local_port = if family == 0 || is_expected {
            0
        } else {
            words[1] as u16
        };
        AttemptRecord {
            header: RecordHeader {
                lost: words[4],
                ktime_ns: words[0],
                scope: words[2],
                ..test_records::header::<AttemptRecord>(RecordKind::Attempt)
            },
            generation: words[1],
            cgroup: words[3],
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
            hook,
            verdict,
            outcome,
            reason: why.0,
            family,
            original_family,
            flags,
            local_address: if local_port == 0 && !is_expected {
                [0; 16]
            } else {
                destination
            },
            local_port,
            reserved: [0; 7],
        }
    })
}

proptest! {
    #[test]
    fn decoded_fields_are_those_of_the_record(record in records()) {
        let event = test_records::decoded(&record);
        prop_assert_eq!(event.ktime_ns, record.header.ktime_ns);
        prop_assert_eq!(event.generation, record.generation);
        prop_assert_eq!((event.scope, event.cgroup), (record.header.scope, record.cgroup));
        prop_assert_eq!((event.lost, event.socket_cookie), (record.header.lost, record.socket_cookie));
        prop_assert_eq!(event.slot.unwrap_or(u32::MAX), record.slot);
        prop_assert_eq!((event.pid, event.tid), (record.pid, record.tid));
        prop_assert_eq!((event.uid, event.gid), (record.uid, record.gid));
        prop_assert_eq!(event.errno.map_or(0, NonZeroU16::get), record.errno);
        prop_assert_eq!(event.local_address.map_or(0, |local| local.port()), record.local_port);
        let is_expected = record.flags & attempt_flag::EXPECTS_LOCAL_ADDRESS != 0;
        let key = || u64::from_le_bytes(record.local_address[..8].try_into().unwrap());
        prop_assert_eq!(event.local_address_key, is_expected.then(key));
        prop_assert_eq!(event.protocol.0, record.protocol);
        prop_assert_eq!(event.hook as u8, record.hook);
        prop_assert_eq!(event.verdict as u8, record.verdict);
        prop_assert_eq!(event.outcome as u8, record.outcome);
        prop_assert_eq!(event.mode == Mode::Audit, record.flags & attempt_flag::AUDIT_MODE != 0);
        prop_assert_eq!(event.foreign_socket, record.flags & attempt_flag::FOREIGN_SOCKET != 0);
        let (why, detail) = match event.reason {
            Reason::Rule(rule) => (reason::RULE, rule),
            Reason::Default => (reason::DEFAULT, 0),
            Reason::Fault(fault) => (reason::FAULT, fault as u16),
        };
        prop_assert_eq!((why, detail), (record.reason, record.detail));
        let name: Vec<u8> = record.comm.into_iter().take_while(|&byte| byte != 0).collect();
        prop_assert_eq!(event.comm.as_bytes(), &name[..]);
        if record.flags & attempt_flag::NO_EXECUTABLE != 0 {
            prop_assert_eq!(event.executable, None);
        } else if let Some(id) = event.executable {
            prop_assert_eq!((id.device, id.inode), (record.executable_device, record.executable_inode));
        }
        match event.target {
            Target::Socket(family) => {
                prop_assert_eq!(record.family, 0);
                prop_assert_eq!(family == SocketFamily::Inet, record.original_family == 4);
            }
            // A record of another kind.
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
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    /// Bytes behind a valid header.
    #[test]
    fn arbitrary_bytes_of_every_kind_do_not_panic(
        kind in 0..DECODERS.len(),
        bytes in prop::collection::vec(any::<u8>(), 400),
    ) {
        let decoder = &DECODERS[kind];
        let header = RecordHeader {
            length: decoder.length as u32,
            ..test_records::header::<AttemptRecord>(decoder.kind)
        };
        let bytes = [&encode(&header)[..], &bytes].concat();
        let _ = decode(&bytes[..decoder.length]);
    }

    /// A valid record with one byte changed.
    #[test]
    fn a_changed_byte_does_not_panic(
        record in records(),
        at in 0..size_of::<AttemptRecord>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&record);
        bytes[at] = byte;
        if let Ok(Record::Attempt(event)) = decode(&bytes) {
            prop_assert_eq!(event.pid, parse::<AttemptRecord>(&bytes).unwrap().pid);
        }
    }
}

#[test]
fn undefined_values_are_rejected() {
    type Change = fn(&mut AttemptRecord);
    let cases: [(Change, &str); 15] = [
        (|r| r.header.abi = 1, "ABI version 1"),
        (|r| r.header.abi = 0, "ABI version 0"),
        (|r| r.reserved[6] = 1, "reserved"),
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
        let mut record = test_records::record();
        assert!(decode(&encode(&record)).is_ok());
        change(&mut record);
        let error = decode(&encode(&record)).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} does not contain {message:?}");
    }
}

#[test]
fn lengths_are_checked_against_header_and_kind() {
    assert_eq!(decode(&[0; 3]), Err(DecodeError::Header(3)));
    let record = test_records::record();
    let bytes = encode(&record);
    let length = |bytes| {
        Err(DecodeError::Length {
            kind: 1,
            bytes,
            expected: 184,
        })
    };
    assert_eq!(decode(&bytes[..183]), length(183));
    assert_eq!(decode(&[&bytes[..], &[0]].concat()), length(185));
    let mut record = record;
    record.header.length = 183;
    assert_eq!(decode(&encode(&record)), length(184));
}

#[test]
fn an_unknown_kind_is_not_an_error() {
    let mut header = test_records::header::<AttemptRecord>(RecordKind::Attempt);
    (header.kind, header.length) = (16, 33);
    let bytes = [&encode(&header)[..], &[7]].concat();
    assert_eq!(decode(&bytes), Ok(Record::Unknown { kind: 16 }));
    assert!(decode(&bytes[..32]).is_err());
}

fn local_address_record(address: [u8; 16], family: u8) -> LocalAddressRecord {
    LocalAddressRecord {
        header: test_records::header::<LocalAddressRecord>(RecordKind::LocalAddress),
        key: 6,
        address,
        port: 40_000,
        family,
        reserved: [0; 5],
    }
}

fn unix_record(protocol: Protocol, name_length: u32) -> UnixRecord {
    let mut attempt = test_records::record();
    attempt.header = test_records::header::<UnixRecord>(RecordKind::Unix);
    attempt.protocol = protocol.0;
    attempt.hook = Hook::LsmUnixConnect as u8;
    (attempt.family, attempt.original_family) = (0, 0);
    attempt.destination = [0, 0, 0, 0, 0, 0, 0, 27, 0, 0, 0, 0, 0, 0, 0, 9];
    let mut name = [0; 108];
    name[..5].copy_from_slice(b"/a\0bc");
    UnixRecord {
        attempt,
        name_length,
        name,
    }
}

/// The corpus that fuzzing starts with: records of every kind.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let attempt = |change: fn(&mut AttemptRecord)| {
        let mut record = test_records::record();
        change(&mut record);
        encode(&record)
    };
    let mut thread = test_records::migration_record();
    thread.flags = migration_flag::ALL;
    let mut unknown = test_records::header::<AttemptRecord>(RecordKind::Attempt);
    (unknown.kind, unknown.length) = (16, 32);
    vec![
        ("connect4-blocked.bin", attempt(|_| {})),
        (
            "connect4-expects-local-address.bin",
            attempt(|r| {
                (r.outcome, r.verdict, r.errno) = (1, 1, 0);
                r.flags = attempt_flag::EXPECTS_LOCAL_ADDRESS;
                r.local_address[0] = 6;
            }),
        ),
        (
            "connect6-mapped-default.bin",
            attempt(|r| {
                (r.hook, r.original_family, r.reason) = (1, 6, reason::DEFAULT);
                r.original = Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped().octets();
            }),
        ),
        (
            "sock-create-fault.bin",
            attempt(|r| {
                (r.hook, r.family, r.protocol) = (4, 0, Protocol::RAW.0);
                (r.reason, r.detail) = (reason::FAULT, 2);
            }),
        ),
        (
            "local-address.bin",
            encode(&local_address_record(test_records::v4([192, 0, 2, 7]), 4)),
        ),
        ("unix-connect.bin", encode(&unix_record(Protocol::UNIX, 3))),
        ("migration.bin", encode(&test_records::migration_record())),
        ("migration-thread.bin", encode(&thread)),
        ("unknown-kind.bin", encode(&unknown)),
    ]
}

/// The seeds in fuzz/seeds/event are those of this version, so that fuzzing gets past the header. With `UPDATE_EXPECT=1`
/// they are written.
#[test]
fn the_seeds_of_the_fuzzer_are_up_to_date() {
    let directory = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/event"));
    let seeds = seeds();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        for file in std::fs::read_dir(directory).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        for (name, bytes) in &seeds {
            std::fs::write(directory.join(name), bytes).unwrap();
        }
    }
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), seeds.len());
    let mut kinds = std::collections::HashSet::new();
    for (name, bytes) in &seeds {
        assert_eq!(&std::fs::read(directory.join(name)).unwrap(), bytes, "{name}");
        assert!(decode(bytes).is_ok(), "{name}");
        kinds.insert(u16::from_le_bytes([bytes[0], bytes[1]]));
    }
    assert!(
        DECODERS
            .iter()
            .all(|decoder| kinds.contains(&(decoder.kind as u16)))
    );
}

#[test]
fn migrations() {
    let migration = test_records::migration(|_| {});
    assert_eq!(
        (migration.scope, migration.from, migration.to),
        (42, 43, 7),
        "cgroups"
    );
    assert_eq!(migration.slots, [0, 5]);
    assert_eq!(
        (
            migration.pid,
            migration.is_whole_process,
            migration.is_clone_into_cgroup
        ),
        (123, true, false)
    );
    assert_eq!(migration.comm.as_bytes(), b"bash");
    assert_eq!(
        (migration.migrated_by.pid, migration.migrated_by.comm.as_bytes()),
        (1, &b"systemd"[..])
    );
    let created = test_records::migration(|r| r.flags = migration_flag::ALL);
    assert_eq!(
        (created.is_whole_process, created.is_clone_into_cgroup),
        (false, true)
    );
    // Entries behind the end of the list are ignored.
    let none = test_records::migration(|r| r.slots[0].0 = 0);
    assert_eq!(none.slots, [0_u32; 0]);

    type Change = fn(&mut MigrationRecord);
    let cases: [(Change, DecodeError); 4] = [
        (|r| r.header.abi = 1, DecodeError::Abi(1)),
        (|r| r.flags = 4, unknown("flag", 4u8)),
        (|r| r.reserved[6] = 1, DecodeError::Reserved),
        (|r| r.slots[1].0 = MAX_POLICIES + 1, unknown("slot", MAX_POLICIES)),
    ];
    for (change, error) in cases {
        let mut record = test_records::migration_record();
        change(&mut record);
        assert_eq!(decode(&encode(&record)), Err(error));
    }
}

#[test]
fn local_addresses() {
    let mapped: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
    let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
    for (address, family, text) in [
        (test_records::v4([192, 0, 2, 7]), 4, "192.0.2.7:40000"),
        (mapped.octets(), 6, "192.0.2.7:40000"),
        (v6.octets(), 6, "[2001:db8::1]:40000"),
    ] {
        let local = LocalAddress {
            ktime_ns: 1_123_000_000,
            key: 6,
            address: text.parse().unwrap(),
        };
        let decoded = decode(&encode(&local_address_record(address, family)));
        assert_eq!(decoded, Ok(Record::LocalAddress(local)));
    }
    let record = local_address_record([0; 16], 5);
    assert_eq!(decode(&encode(&record)), Err(unknown("family", 5u8)));
    let mut record = local_address_record([0; 16], 4);
    record.reserved[4] = 1;
    assert_eq!(decode(&encode(&record)), Err(DecodeError::Reserved));
}

#[test]
fn unix_sockets_have_names() {
    let event = test_records::decoded(&unix_record(Protocol::UNIX, 3));
    assert_eq!(event.target.display(event.protocol).to_string(), "unix:/a");
    let Target::Unix { id, .. } = event.target else {
        panic!("{:?}", event.target);
    };
    assert_eq!((id.device, id.name_hash), (27, 9));
    assert!(decode(&encode(&unix_record(Protocol::TCP, 3))).is_err());
    assert!(decode(&encode(&unix_record(Protocol::UNIX, 109))).is_err());
}
