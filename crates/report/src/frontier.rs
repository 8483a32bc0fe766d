//! Distance of selections from an oracle, as the density that the oracle needs for the same error, or for the same
//! attention mass.
//!
//! Along an oracle's curve density is taken as linear in the logarithm of the error, or of the mass that is left out,
//! between neighbouring points: both fall by factors where densities grow by steps. Beyond the ends nothing is guessed.

use crate::{
    record::{FrontierRow, OracleRow},
    run::{Run, mean, of_kind},
};

/// Tokens of the blocks of the curve that selections are held against; heads of a group share a choice.
pub const HELD_AGAINST: usize = 128;

/// Tokens of the blocks of the oracle at equal mass.
pub const MASS_BLOCK: usize = 64;

/// Density at an error on a curve of `(density, error)` points in any order; `None` where the error lies
/// outside the curve or no two points enclose it.
pub fn density_at(curve: &[(f64, f64)], error: f64) -> Option<f64> {
    let mut points: Vec<(f64, f64)> = curve
        .iter()
        .filter(|(density, error)| density.is_finite() && *error > 0.0 && error.is_finite())
        .map(|(density, error)| (error.ln(), *density))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let at = error.ln();
    let enclosing = points
        .windows(2)
        .find(|pair| pair[0].0 <= at && at <= pair[1].0)?;
    let [(low, from), (high, to)] = [enclosing[0], enclosing[1]];
    match high > low {
        true => Some(from + (to - from) * (at - low) / (high - low)),
        false => Some(from.min(to)),
    }
}

/// Points of the oracle that selections are held against, at a length.
pub fn curve(run: &Run, length: usize) -> Vec<(f64, f64)> {
    let held = |row: &&OracleRow| row.length == length && row.shared && row.block == HELD_AGAINST;
    let rows = of_kind!(run.rows, Oracle).filter(held);
    rows.map(|row| (row.density, row.error)).collect()
}

/// The oracle's density at the error of a row, and how many times as much the row keeps.
pub fn against_oracle(run: &Run, row: &FrontierRow) -> Option<(f64, f64)> {
    let oracle = density_at(&curve(run, row.length), row.error)?;
    Some((oracle, row.density / oracle))
}

/// The same at the mass that was measured of a row, which the oracle keeps by blocks of [`MASS_BLOCK`] that the same
/// heads choose: each alone, or those of a KV head together.
pub fn against_oracle_mass(run: &Run, row: &FrontierRow) -> Option<(f64, f64)> {
    let held = |other: &&OracleRow| {
        other.length == row.length && other.shared == row.shared && other.block == MASS_BLOCK
    };
    let rows = of_kind!(run.rows, Oracle).filter(held);
    let curve: Vec<(f64, f64)> = rows.map(|row| (row.density, 1.0 - row.share)).collect();
    let oracle = density_at(&curve, 1.0 - row.recall?)?;
    Some((oracle, row.density / oracle))
}

/// Mean of a selector's ratios at a length, with the rows it is of and all its rows; `None` where no row
/// has a ratio.
pub fn mean_ratio(run: &Run, selector: &str, length: usize) -> Option<(f64, usize, usize)> {
    let own = |row: &&FrontierRow| row.selector == selector && row.length == length;
    let rows: Vec<&FrontierRow> = of_kind!(run.rows, Frontier).filter(own).collect();
    let ratios: Vec<f64> = rows
        .iter()
        .filter_map(|row| Some(against_oracle(run, row)?.1))
        .collect();
    let count = ratios.len();
    (count > 0).then(|| (mean(ratios), count, rows.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVE: [(f64, f64); 3] = [(0.2, 0.1), (0.1, 0.4), (0.5, 0.01)];

    #[test]
    fn points_of_the_curve_give_themselves() {
        for (density, error) in CURVE {
            let got = density_at(&CURVE, error).unwrap();
            assert!((got - density).abs() < 1e-12, "{got} at {error}");
        }
    }

    #[test]
    fn the_middle_of_a_piece_is_at_the_geometric_mean_of_its_errors() {
        let got = density_at(&CURVE, (0.1_f64 * 0.01).sqrt()).unwrap();
        assert!((got - 0.35).abs() < 1e-12, "{got}");
    }

    #[test]
    fn nothing_is_guessed_beyond_the_ends() {
        for error in [0.5, 0.001, 0.0, f64::NAN] {
            assert_eq!(density_at(&CURVE, error), None, "{error}");
        }
        assert_eq!(density_at(&CURVE[..1], 0.1), None);
        assert_eq!(density_at(&[], 0.1), None);
    }
}
