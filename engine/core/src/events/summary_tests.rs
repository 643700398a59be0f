use engine_common::{
    Protocol,
    record::{attempt_flag, reason},
};

use super::*;
use crate::events::test_records::{comm, named, v4};

const PLAIN: Layout = Layout {
    styled: false,
    width: None,
};

fn counters(allow: u64, block: u64) -> PolicyCounters {
    PolicyCounters {
        name: "payments".into(),
        mode: Mode::Enforce,
        generation: 1,
        rules: vec![
            ("database".into(), Action::Allow, allow),
            ("metadata".into(), Action::Block, block),
        ],
        default: (Action::Allow, 1),
        faults: 0,
    }
}

fn mixed() -> Tally {
    let mut tally = Tally::default();
    for _ in 0..1200 {
        named(|_| {}, |event| tally.add(event));
    }
    named(
        |r| (r.verdict, r.outcome, r.port) = (3, 5, 80),
        |event| tally.add(event),
    );
    named(
        |r| {
            (r.verdict, r.outcome, r.reason) = (1, 1, reason::DEFAULT);
            (r.family, r.original_family, r.hook) = (6, 6, 3);
            r.protocol = Protocol::UDP.0;
            r.destination = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
            r.original = r.destination;
            r.comm = comm(b"evil\x1b[31m name");
            r.flags = attempt_flag::NO_EXECUTABLE;
        },
        |event| tally.add(event),
    );
    named(
        |r| {
            (r.verdict, r.outcome) = (2, 2);
            (r.hook, r.family, r.protocol) = (4, 0, Protocol::RAW.0);
        },
        |event| tally.add(event),
    );
    tally
}

#[test]
fn a_summary_without_events_is_one_line() {
    let empty = Tally::default();
    for (policies, text) in [
        (vec![], "tidegate: no attempts to connect or send\n"),
        (vec![counters(0, 0)], "tidegate: the only attempt was allowed\n"),
        (vec![counters(1233, 0)], "tidegate: all 1,234 attempts allowed\n"),
        (
            vec![counters(3, 0), counters(3, 0)],
            "tidegate: all 4 attempts allowed\n",
        ),
    ] {
        assert_eq!(table(&empty, &policies, PLAIN), text);
    }
}

/// Counters that denied, or lost events, are never "all allowed".
#[test]
fn missing_events_are_reported() {
    let mut tally = Tally::default();
    insta::assert_snapshot!(table(&tally, &[counters(3, 2)], PLAIN), @r#"
    tidegate: no events were read
    policy payments (enforce, generation 1): 4 allow, 2 block
    "#);
    tally.add_lost(1);
    insta::assert_snapshot!(table(&tally, &[counters(3, 0)], PLAIN), @r#"
    tidegate: no events were read
    policy payments (enforce, generation 1): 4 allow
    1 event lost (ring buffer full); verdicts and the policies' counters are not affected
    "#);
}

#[test]
fn a_mixed_table() {
    let mut policies = [counters(120, 1201), counters(1320, 0)];
    policies[1].name = "house".into();
    policies[1].mode = Mode::Audit;
    policies[1].faults = 2;
    insta::assert_snapshot!(table(&mixed(), &policies, PLAIN), @r#"
    tidegate: 1 killed, 1,200 blocked, 1 would block, 1 audited
     OUTCOME      COUNT  DESTINATION            RULE                PROCESS
     KILL             1  198.51.100.7:80/tcp    payments/metadata   /usr/bin/curl
     BLOCK        1,200  198.51.100.7:443/tcp   payments/metadata   /usr/bin/curl
     WOULD-BLOCK      1  ipv4 socket/raw        payments/metadata   /usr/bin/curl
     AUDIT            1  [2001:db8::1]:443/udp  payments/(default)  "evil\x1b[31m name"
    policy payments (enforce, generation 1): 121 allow, 1,201 block
    policy house (audit, generation 1): 1,321 allow, 2 faults
    "#);
}

#[test]
fn a_narrow_table_keeps_to_its_width() {
    let layout = Layout {
        styled: false,
        width: Some(60),
    };
    let text = table(&mixed(), &[], layout);
    let lines = text.lines().skip(1);
    assert!(lines.clone().count() > 5);
    for line in lines {
        assert!(line.chars().count() <= 60, "{line:?}");
    }
}

#[test]
fn colours_change_nothing_else() {
    let layout = Layout {
        styled: true,
        width: None,
    };
    let (styled, plain) = (table(&mixed(), &[], layout), table(&mixed(), &[], PLAIN));
    assert_ne!(styled, plain);
    assert_eq!(anstream::adapter::strip_str(&styled).to_string(), plain);
    assert!(styled.contains("\x1b[31mBLOCK\x1b[0m"), "{styled:?}");
}

#[test]
fn a_long_table_is_cut() {
    let mut tally = Tally::default();
    for i in 0..MAX_ROWS as u32 + 7 {
        let address = (0x0a00_0000 + i).to_be_bytes();
        named(|r| r.destination = v4(address), |event| tally.add(event));
    }
    let text = table(&tally, &[], PLAIN);
    assert_eq!(
        text.lines().filter(|line| line.contains("10.0.")).count(),
        SHOWN_ROWS
    );
    assert!(text.contains("  and 9,900 more rows (9,900 events); --report FILE has every event\n"));
    assert!(text.contains("  and others beyond the first 10,000 rows (7 events)\n"));
}
