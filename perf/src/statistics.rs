//! Medians, spreads, and the confidence interval that decides a promise.

use serde::{Deserialize, Serialize};

/// Middle and extremes of a metric's samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest sample.
    pub min: f64,
    /// Largest sample.
    pub max: f64,
    /// Number of samples.
    pub n: usize,
}

impl Spread {
    /// Spread of the samples, if there are any.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let sorted = sorted(samples);
        let n = sorted.len();
        let middle = *sorted.get(n / 2)?;
        let median = if n % 2 == 1 { middle } else { (sorted[n / 2 - 1] + middle) / 2.0 };
        Some(Self { median, min: sorted[0], max: sorted[n - 1], n })
    }
}

/// Confidence interval of the median from order statistics, at least 95 %; `None` below six samples, where no pair of
/// samples encloses the median with that confidence.
///
/// The number of samples below the median is binomial with p = 1/2, whatever the distribution of the samples. The
/// interval runs from the k-th smallest sample to the k-th largest, with the largest k for which
/// 2 P(X < k) <= 0.05. With 20 samples k is 6: the interval from the 6th to the 15th, 95.9 %.
pub fn median_interval(samples: &[f64]) -> Option<[f64; 2]> {
    let sorted = sorted(samples);
    let n = sorted.len();
    let mut probability = 0.5_f64.powi(i32::try_from(n).ok()?);
    let mut below = 0.0;
    let mut k = 0;
    while 2.0 * (below + probability) <= 0.05 {
        below += probability;
        k += 1;
        probability *= (n - k + 1) as f64 / k as f64;
    }
    (k > 0).then(|| [sorted[k - 1], sorted[n - k]])
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: u32) -> Vec<f64> {
        (1..=n).rev().map(f64::from).collect()
    }

    #[test]
    fn spread_of_odd_and_even_counts() {
        assert_eq!(Spread::of(&numbers(5)).unwrap(), Spread { median: 3.0, min: 1.0, max: 5.0, n: 5 });
        assert_eq!(Spread::of(&numbers(4)).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }

    /// Ranks from the usual tables of the sign test's interval at 95 %.
    #[test]
    fn interval_ranks() {
        assert_eq!(median_interval(&numbers(5)), None);
        assert_eq!(median_interval(&numbers(6)), Some([1.0, 6.0]));
        assert_eq!(median_interval(&numbers(10)), Some([2.0, 9.0]));
        assert_eq!(median_interval(&numbers(20)), Some([6.0, 15.0]));
        assert_eq!(median_interval(&numbers(30)), Some([10.0, 21.0]));
    }
}
