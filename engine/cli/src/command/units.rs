//! Sizes and times in text output.

/// A size in B, KiB or MiB.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// The time since an RFC 3339 timestamp, such as `2h 5m ago`.
pub(super) fn ago(since: &str) -> String {
    let Ok(then) = since.parse::<jiff::Timestamp>() else {
        return since.to_owned();
    };
    let seconds = jiff::Timestamp::now().duration_since(then).as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s ago"),
        (0, 0, _) => format!("{minutes}m ago"),
        (0, ..) => format!("{hours}h {minutes}m ago"),
        _ => format!("{days}d {hours}h ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(
            (bytes(12), bytes(4097), bytes(3 << 20)),
            ("12 B".into(), "5 KiB".into(), "3.0 MiB".into())
        );
        let now = jiff::Timestamp::now();
        let before = |seconds: i64| (now - jiff::SignedDuration::from_secs(seconds)).to_string();
        assert_eq!(ago(&before(3)), "3s ago");
        assert_eq!(ago(&before(185)), "3m ago");
        assert_eq!(ago(&before(7500)), "2h 5m ago");
        assert_eq!(ago(&before(90_000)), "1d 1h ago");
        assert_eq!(ago("long"), "long");
    }
}
