//! Medians and percentiles.

use serde_json::{Value, json};

use crate::call::Batch;

/// Median, 10th and 90th percentile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) p10: f64,
    pub(crate) median: f64,
    pub(crate) p90: f64,
}

impl Spread {
    /// Computes it from values in any order; all zero if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (values.len().saturating_sub(1) as f64 * share).round() as usize;
            values.get(index).copied().unwrap_or_default()
        };
        Spread {
            p10: at(0.1),
            median: at(0.5),
            p90: at(0.9),
        }
    }

    pub(crate) fn json(self) -> Value {
        json!({"p10": self.p10, "median": self.median, "p90": self.p90})
    }
}

/// Statistics of pairs of batches: nanoseconds per call, and differences and ratios within each pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paired {
    pub(crate) baseline_ns: Spread,
    pub(crate) with_policy_ns: Spread,
    pub(crate) added_ns: Spread,
    pub(crate) ratio: Spread,
    /// Ratio of the means, each without its slowest 2 % (interrupted by other processes). Unlike the median it includes
    /// costs that occur in few batches, such as waking the reader of events.
    pub(crate) mean_ratio: f64,
    /// Number of pairs.
    pub(crate) pairs: usize,
}

impl Paired {
    /// Computes it from pairs (baseline, with policy) of batches with `calls` calls each.
    pub(crate) fn of(pairs: &[(Batch, Batch)], calls: usize) -> Paired {
        let ns = |batch: &Batch| batch.took.as_nanos() as f64 / calls as f64;
        let over = |each: &dyn Fn(f64, f64) -> f64| {
            Spread::of(
                pairs
                    .iter()
                    .map(|(baseline, with_policy)| each(ns(baseline), ns(with_policy))),
            )
        };
        Paired {
            baseline_ns: over(&|baseline, _| baseline),
            with_policy_ns: over(&|_, with_policy| with_policy),
            added_ns: over(&|baseline, with_policy| with_policy - baseline),
            ratio: over(&|baseline, with_policy| with_policy / baseline),
            mean_ratio: mean(pairs.iter().map(|(_, with_policy)| ns(with_policy)))
                / mean(pairs.iter().map(|(baseline, _)| ns(baseline))),
            pairs: pairs.len(),
        }
    }
}

/// Mean without the highest 2 %.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.truncate(values.len() - values.len() / 50);
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn median_and_percentiles() {
        let spread = Spread::of((0..=100).rev().map(f64::from));
        assert_eq!((spread.p10, spread.median, spread.p90), (10.0, 50.0, 90.0));
        assert_eq!(Spread::of([]).median, 0.0);
    }

    #[test]
    fn ratios_are_taken_within_a_pair() {
        let batch = |ns| Batch {
            took: Duration::from_nanos(ns),
            refused: 0,
        };
        // One pair is slower on both sides: its ratio is the same.
        let pairs = [(100, 200), (1000, 2000), (100, 200)].map(|(p, g)| (batch(p), batch(g)));
        let paired = Paired::of(&pairs, 10);
        assert_eq!((paired.ratio.p10, paired.ratio.p90), (2.0, 2.0));
        assert_eq!((paired.baseline_ns.median, paired.added_ns.median), (10.0, 10.0));
    }
}
