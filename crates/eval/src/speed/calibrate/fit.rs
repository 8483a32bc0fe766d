//! From times to prices: least squares over what each sample computes.
//!
//!   time = launch + dense_tile * D + tile * T + column * C + row * R
//!
//! Every sample counts by its relative error, so that short ones are not drowned. A price that would be
//! negative is 0 and the others are fitted again; 64 gathered columns never cost less than the tile that
//! they are computed as.

use crate::speed::SpeedError;

/// Work of a sample: dense tiles, sparse tiles, 64 gathered columns of a query tile, index rows,
/// each by query head.
pub(super) type Work = [f64; 4];

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) work: Work,
    pub(super) ms: f64,
}

/// The prices that fit the samples best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prices {
    /// Milliseconds of a unit of [`Work`].
    pub(super) ms: [f64; 4],
    /// Milliseconds of every call.
    pub(super) launch_ms: f64,
    /// Largest relative distance of a sample's time from the fitted one.
    pub(super) misfit: f64,
}

/// Unknowns: the prices, then the launch.
const UNKNOWNS: usize = 5;

/// Fits prices to samples.
///
/// # Errors
/// Samples that leave the price of a tile or of columns open.
pub(super) fn fit(samples: &[Sample]) -> Result<Prices, SpeedError> {
    for (at, what) in [
        (0, "no dense tile was timed"),
        (1, "no sparse tile was timed"),
        (2, "no gathered column was timed"),
    ] {
        if samples.iter().all(|sample| sample.work[at] == 0.0) {
            return Err(SpeedError::Fit { what });
        }
    }
    let mut free = [true; UNKNOWNS];
    let mut found = loop {
        let solved = solve(samples, free).ok_or(SpeedError::Fit {
            what: "the prices cannot be told apart",
        })?;
        let lowest = (0..UNKNOWNS).min_by(|a, b| solved[*a].total_cmp(&solved[*b]));
        match lowest {
            Some(at) if solved[at] < 0.0 => free[at] = false,
            _ => break solved,
        }
    };
    for (at, what) in [
        (0, "a dense tile would cost nothing"),
        (1, "a sparse tile would cost nothing"),
    ] {
        if found[at] <= 0.0 {
            return Err(SpeedError::Fit { what });
        }
    }
    found[2] = found[2].max(found[1]);
    let relative = |sample: &Sample| {
        (row(sample).iter().zip(found))
            .map(|(a, x)| a * x)
            .sum::<f64>()
    };
    let misfit = samples
        .iter()
        .map(|sample| (relative(sample) - 1.0).abs())
        .fold(0.0, f64::max);
    Ok(Prices {
        ms: [found[0], found[1], found[2], found[3]],
        launch_ms: found[4],
        misfit,
    })
}

/// A sample's equation, divided by its time.
fn row(sample: &Sample) -> [f64; UNKNOWNS] {
    let [d, t, c, r] = sample.work;
    [d, t, c, r, 1.0].map(|work| work / sample.ms)
}

/// Least squares over the free unknowns, the others 0; `None` where the equations leave one open.
fn solve(samples: &[Sample], free: [bool; UNKNOWNS]) -> Option<[f64; UNKNOWNS]> {
    let rows: Vec<[f64; UNKNOWNS]> = samples.iter().map(row).collect();
    // Columns of length 1: work is counted in very different sizes.
    let scale: Vec<f64> = (0..UNKNOWNS)
        .map(|at| rows.iter().map(|row| row[at].powi(2)).sum::<f64>().sqrt())
        .collect();
    let wanted: Vec<usize> = (0..UNKNOWNS)
        .filter(|at| free[*at] && scale[*at] > 0.0)
        .collect();
    let entry = |row: &[f64; UNKNOWNS], at: usize| row[at] / scale[at];
    let mut system: Vec<Vec<f64>> = wanted
        .iter()
        .map(|i| {
            let with = |j: &usize| rows.iter().map(|row| entry(row, *i) * entry(row, *j)).sum();
            let mut line: Vec<f64> = wanted.iter().map(with).collect();
            line.push(rows.iter().map(|row| entry(row, *i)).sum());
            line
        })
        .collect();
    let solution = eliminate(&mut system)?;
    let mut all = [0.0; UNKNOWNS];
    for (at, value) in wanted.into_iter().zip(solution) {
        all[at] = value / scale[at];
    }
    Some(all)
}

/// Gaussian elimination with the largest pivot; the last entry of a line is its right side.
fn eliminate(system: &mut [Vec<f64>]) -> Option<Vec<f64>> {
    let n = system.len();
    for at in 0..n {
        let largest = |a: &usize, b: &usize| system[*a][at].abs().total_cmp(&system[*b][at].abs());
        let pivot = (at..n).max_by(largest)?;
        system.swap(at, pivot);
        if system[at][at].abs() < 1e-10 {
            return None;
        }
        let line = system[at].clone();
        for (other, row) in system.iter_mut().enumerate() {
            if other != at {
                let factor = row[at] / line[at];
                row.iter_mut()
                    .zip(&line)
                    .for_each(|(x, y)| *x -= factor * y);
            }
        }
    }
    Some((0..n).map(|at| system[at][n] / system[at][at]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of a layer with the given prices and launch, times off by alternating shares.
    fn samples(prices: [f64; 4], launch: f64, noise: f64) -> Vec<Sample> {
        let mut works = Vec::new();
        for tiles in [64.0, 128.0, 256.0, 512.0] {
            let (rows, causal) = (32.0 * tiles, 16.0 * tiles * (tiles + 1.0));
            works.push([causal, 0.0, 0.0, 0.0]);
            works.extend([0.05, 0.2, 0.5].map(|density| [0.0, density * causal, 0.0, rows]));
            works.extend([2.0, 8.0].map(|columns| [0.0, rows, columns * rows, rows]));
        }
        let with = |(at, work): (usize, Work)| {
            let exact: f64 = work.iter().zip(prices).map(|(w, p)| w * p).sum();
            let off = if at.is_multiple_of(2) { noise } else { -noise };
            Sample {
                work,
                ms: (launch + exact) * (1.0 + off),
            }
        };
        works.into_iter().enumerate().map(with).collect()
    }

    fn close(got: [f64; 4], expected: [f64; 4], share: f64) {
        for (got, expected) in got.into_iter().zip(expected) {
            assert!(
                (got - expected).abs() <= share * expected,
                "{got} {expected}"
            );
        }
    }

    #[test]
    fn exact_times_give_the_prices_back() {
        let prices = [3e-6, 4e-6, 9e-6, 2e-6];
        let got = fit(&samples(prices, 0.02, 0.0)).unwrap();
        close(got.ms, prices, 1e-6);
        assert!(
            (got.launch_ms - 0.02).abs() < 1e-6 && got.misfit < 1e-6,
            "{got:?}"
        );
    }

    #[test]
    fn noise_moves_prices_by_as_much() {
        let prices = [3e-6, 4e-6, 9e-6, 8e-6];
        let got = fit(&samples(prices, 0.02, 0.03)).unwrap();
        close([got.ms[0], got.ms[1], got.ms[2], prices[3]], prices, 0.06);
        assert!(got.misfit > 0.0 && got.misfit < 0.1, "{got:?}");
    }

    #[test]
    fn a_price_below_0_is_0_and_columns_cost_their_tile() {
        // Rows that save time, and columns for next to nothing, are what noise can look like.
        let got = fit(&samples([3e-6, 4e-6, 1e-6, -1e-6], 0.02, 0.0)).unwrap();
        assert_eq!(got.ms[3], 0.0);
        assert_eq!(got.ms[2], got.ms[1]);
        assert!(got.ms.iter().all(|ms| *ms >= 0.0) && got.launch_ms >= 0.0);
    }

    #[test]
    fn what_was_not_timed_has_no_price() {
        let all = samples([3e-6, 4e-6, 9e-6, 2e-6], 0.02, 0.0);
        for at in 0..3 {
            let some: Vec<Sample> = all.iter().filter(|s| s.work[at] == 0.0).copied().collect();
            assert!(matches!(fit(&some), Err(SpeedError::Fit { .. })), "{at}");
        }
        // One length of everything: rows and launch are the same thing.
        let few: Vec<Sample> = all[..6].to_vec();
        let got = fit(&few);
        assert!(matches!(got, Err(SpeedError::Fit { .. })), "{got:?}");
    }
}
