//! Differences to dense on the same questions or windows, with 95 % intervals.
//!
//! The interval is Student's: of the mean of `n` paired differences with standard deviation `s`, half of it is
//! `t(0.975, n - 1) s / sqrt(n)`. A mean over tasks weighs tasks alike: variances of their means add up, and
//! so do degrees of freedom.

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::{
    record::{AnswerRow, PerplexityRow},
    run::{distinct, mean},
};

/// Two-sided probability outside the interval.
const OUTSIDE: f64 = 0.05;

/// A mean difference to dense.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Mean of the differences, positive where the other is larger than dense.
    pub mean: f64,
    /// Half of the 95 % interval; `None` where one pair alone tells nothing of the spread.
    pub half: Option<f64>,
    /// Pairs.
    pub pairs: usize,
}

impl Difference {
    /// The mean of groups of differences, groups weighing alike; `None` of nothing.
    fn of(groups: &[Vec<f64>]) -> Option<Self> {
        let groups: Vec<&Vec<f64>> = groups.iter().filter(|group| !group.is_empty()).collect();
        if groups.is_empty() {
            return None;
        }
        let count = groups.len() as f64;
        let means: Vec<f64> = groups
            .iter()
            .map(|group| mean(group.iter().copied()))
            .collect();
        let pairs: usize = groups.iter().map(|group| group.len()).sum();
        let freedom = (pairs - groups.len()) as f64;
        let variance = groups.iter().zip(&means).map(|(group, mean)| {
            let n = group.len() as f64;
            let squares: f64 = group.iter().map(|x| (x - mean).powi(2)).sum();
            // A group of one lends no spread of its own.
            squares / (n - 1.0).max(1.0) / n
        });
        let error = variance.sum::<f64>().sqrt() / count;
        let quantile =
            StudentsT::new(0.0, 1.0, freedom).map(|t| t.inverse_cdf(1.0 - OUTSIDE / 2.0));
        Some(Self {
            mean: means.iter().sum::<f64>() / count,
            half: quantile.ok().map(|quantile| quantile * error),
            pairs,
        })
    }

    /// `0.0123 ± 0.0020` with `digits` after the point: of what is no difference by its sign.
    pub fn show_size(&self, digits: usize) -> String {
        self.show(1.0, digits).trim_start_matches('+').into()
    }

    /// `-1.2 ± 3.0`, each times `factor`, with `digits` after the point.
    pub fn show(&self, factor: f64, digits: usize) -> String {
        let mean = format!("{:+.digits$}", factor * self.mean);
        match self.half {
            Some(half) => format!("{mean} ± {:.digits$}", factor * half),
            None => mean,
        }
    }
}

/// Scores minus dense's, on the questions that both answered; tasks weigh alike.
pub fn scores(own: &[&AnswerRow], dense: &[&AnswerRow]) -> Option<Difference> {
    let tasks = distinct(own.iter().map(|row| row.task.as_str()));
    let of_task = |task: &str| -> Vec<f64> {
        let own = own.iter().filter(|row| row.task == task);
        let pairs = own.filter_map(|row| {
            let same = |other: &&&AnswerRow| {
                other.task == row.task && other.length == row.length && other.seed == row.seed
            };
            let dense = dense.iter().find(same)?;
            Some(row.score - dense.score)
        });
        pairs.collect()
    };
    Difference::of(&tasks.into_iter().map(of_task).collect::<Vec<_>>())
}

/// Loss (nats a token) over dense's, minus 1, on the windows that both have: the mean of the windows'
/// differences over dense's mean.
pub fn losses(own: &[&PerplexityRow], dense: &[&PerplexityRow]) -> Option<Difference> {
    let nats = |row: &PerplexityRow| row.nll / row.scored as f64;
    let pairs: Vec<(f64, f64)> = own
        .iter()
        .filter_map(|row| {
            let same = |other: &&&PerplexityRow| {
                other.length == row.length
                    && other.sample == row.sample
                    && other.start == row.start
                    && other.scored == row.scored
            };
            let dense = dense.iter().find(same)?;
            Some((nats(row), nats(dense)))
        })
        .collect();
    let level = mean(pairs.iter().map(|pair| pair.1));
    let shares = pairs.iter().map(|(own, dense)| (own - dense) / level);
    Difference::of(&[shares.collect()])
}

/// Divergence from dense, nats a token: the mean over windows.
pub fn divergences(rows: &[&PerplexityRow]) -> Option<Difference> {
    Difference::of(&[rows.iter().filter_map(|row| row.kl).collect()])
}

/// Share of the scored tokens before which dense names the same first, the mean over windows; `None` where it is not known.
pub fn same_first(rows: &[&PerplexityRow]) -> Option<f64> {
    let known: Vec<f64> = rows.iter().filter_map(|row| row.top1).collect();
    (!known.is_empty()).then(|| mean(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        // Mean 2, standard deviation 1, three pairs: 4.3027 / sqrt(3).
        let of = |groups: &[Vec<f64>]| Difference::of(groups).unwrap();
        let found = of(&[vec![1.0, 2.0, 3.0]]);
        assert_eq!((found.mean, found.pairs), (2.0, 3));
        assert!((found.half.unwrap() - 2.4841).abs() < 1e-4, "{found:?}");
        // Two tasks with variances 1/3 and 1/12 of their means, four degrees of freedom.
        let found = of(&[vec![1.0, 2.0, 3.0], vec![0.0, 0.5, 1.0]]);
        assert_eq!((found.mean, found.pairs), (1.25, 6));
        let half = 2.7764 * (1.0f64 / 3.0 + 1.0 / 12.0).sqrt() / 2.0;
        assert!((found.half.unwrap() - half).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn one_pair_has_no_interval_and_none_no_difference() {
        let found = Difference::of(&[vec![0.5]]).unwrap();
        assert_eq!((found.mean, found.half), (0.5, None));
        assert_eq!(found.show(100.0, 1), "+50.0");
        assert_eq!(Difference::of(&[vec![]]), None);
        let even = Difference::of(&[vec![0.25, 0.25]]).unwrap();
        assert_eq!(even.show(100.0, 1), "+25.0 ± 0.0");
    }

    #[test]
    fn only_what_both_have_is_compared() {
        let row = |attention: &str, sample, nll| PerplexityRow {
            attention: attention.into(),
            length: 64,
            sample,
            start: 100 * sample,
            scored: 10,
            bytes: 40,
            nll,
            kl: None,
            top1: None,
            density: 1.0,
            seconds: 1.0,
        };
        let dense = [
            row("dense", 0, 20.0),
            row("dense", 1, 20.0),
            row("dense", 2, 5.0),
        ];
        let own = [
            row("own", 0, 21.0),
            row("own", 1, 19.0),
            row("own", 3, 90.0),
        ];
        let (own, dense): (Vec<_>, Vec<_>) = (own.iter().collect(), dense.iter().collect());
        let found = losses(&own, &dense).unwrap();
        assert_eq!((found.mean, found.pairs), (0.0, 2));
        // Differences of 5 % either way: 12.706 * 0.0707 / sqrt(2).
        assert!((found.half.unwrap() - 0.6353).abs() < 1e-4, "{found:?}");
    }
}
