//! Bands of a rotated head in which pooled keys are scored.
//!
//! The mean of `B` rotated keys loses what turns fast: pair `j` turns by `theta_j = base^(-2j/d)` a token,
//! and its mean over a block is shorter by `|sin(B theta_j / 2) / (B sin(theta_j / 2))|`; below the pair
//! where `B theta_j = 2 pi` nothing is left. Prism (arXiv 2602.08426) therefore scores in two bands that
//! overlap around that pair and takes the union: in all dimensions together, what is left of the pairs
//! around the cutoff, which is what tells where a slash is, drowns in the slow ones.

use std::f64::consts::TAU;

use super::BLOCK;

/// Weights of the dimensions, `[bands, d]`: all of them; and, if the head is rotated in halves (pair `j`
/// is `(j, j + d/2)`), the pairs up to twice the cutoff.
pub(super) fn weights(head_dim: usize, rotary_base: Option<f64>) -> Vec<f32> {
    let mut weights = vec![1.0; head_dim];
    let Some(base) = rotary_base else {
        return weights;
    };
    let half = head_dim / 2;
    let end = (2 * first_slow_pair(half, base) + 2).min(half);
    if 2 < end && end < half {
        weights.extend((0..head_dim).map(|i| f32::from(u8::from(i % half < end))));
    }
    weights
}

/// The first pair of `half` that turns less than once in a block.
fn first_slow_pair(half: usize, base: f64) -> usize {
    let slow = |j: &usize| {
        let theta = base.powf(-(*j as f64) / half as f64);
        BLOCK as f64 * theta < TAU
    };
    (0..half).find(slow).unwrap_or(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cutoff_is_that_of_the_published_models() {
        // Dimension index 2j = d ln(B / 2 pi) / ln(base): 29 for Llama 3.1, 28 for Qwen2.5.
        assert_eq!(first_slow_pair(64, 5e5), 15);
        assert_eq!(first_slow_pair(64, 1e6), 14);
    }

    #[test]
    fn a_band_holds_both_halves_of_its_pairs() {
        let weights = weights(128, Some(5e5));
        assert_eq!(weights.len(), 256);
        let high = &weights[128..];
        assert_eq!(high[..32], [1.0; 32]);
        assert_eq!(high[32..64], [0.0; 32]);
        assert_eq!(high[..64], high[64..]);
    }

    #[test]
    fn an_unrotated_head_has_one_band() {
        assert_eq!(super::weights(64, None), vec![1.0; 64]);
    }
}
