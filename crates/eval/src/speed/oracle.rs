//! One row of attention from its formula, in f64.
//!
//!   out = sum_j w_j v_j / sum_j w_j,   w_j = exp(q . k_j / sqrt(d) - m),   over the keys j that it sees

/// Attention of `query` `[d]` over the rows of `keys` and `values`, `[S, d]` each, that `sees` lets it
/// see. At least one must be seen.
pub(super) fn row(
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    sees: impl Fn(usize) -> bool,
) -> Vec<f64> {
    let dim = query.len();
    let scale = 1.0 / (dim as f64).sqrt();
    let dot = |key: &[f32]| -> f64 {
        query
            .iter()
            .zip(key)
            .map(|(q, k)| f64::from(*q) * f64::from(*k))
            .sum()
    };
    let seen: Vec<(usize, f64)> = keys
        .chunks_exact(dim)
        .enumerate()
        .filter(|(j, _)| sees(*j))
        .map(|(j, key)| (j, scale * dot(key)))
        .collect();
    let largest = seen
        .iter()
        .map(|(_, score)| *score)
        .fold(f64::NEG_INFINITY, f64::max);
    let (mut out, mut total) = (vec![0.0; dim], 0.0);
    for (j, score) in seen {
        let weight = (score - largest).exp();
        total += weight;
        for (sum, value) in out.iter_mut().zip(&values[j * dim..(j + 1) * dim]) {
            *sum += weight * f64::from(*value);
        }
    }
    out.iter().map(|sum| sum / total).collect()
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn equal_keys_give_the_mean_of_what_is_seen() {
        let (keys, values) = ([1.0; 6], [1.0, 0.0, 5.0, 4.0, 100.0, 100.0]);
        let out = row(&[0.5, 2.0], &keys, &values, |j| j < 2);
        assert!(
            (out[0] - 3.0).abs() < 1e-12 && (out[1] - 2.0).abs() < 1e-12,
            "{out:?}"
        );
    }

    #[test]
    fn weights_follow_the_scaled_scores() {
        // Scores 0 and sqrt(2) ln 3 / sqrt(2) = ln 3: weights 1/4 and 3/4.
        let key = 2f32.sqrt() * 3f32.ln();
        let out = row(
            &[1.0, 0.0],
            &[0.0, 0.0, key, 0.0],
            &[0.0, 0.0, 4.0, 8.0],
            |_| true,
        );
        assert!(
            (out[0] - 3.0).abs() < 1e-6 && (out[1] - 6.0).abs() < 1e-6,
            "{out:?}"
        );
    }
}
