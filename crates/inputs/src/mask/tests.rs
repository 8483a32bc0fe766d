//! Invariants of masks, on shapes where query and key blocks differ.

use super::*;
use crate::InputError;

/// Tokens, query block, key block, density, heads.
const CASES: [(usize, usize, usize, f64, usize); 6] = [
    (512, 64, 64, 0.3, 3),
    (512, 64, 16, 0.1, 2),
    (512, 16, 64, 0.5, 2),
    (960, 192, 64, 0.02, 2),
    (64, 64, 64, 1.0, 1),
    (100, 1, 4, 0.25, 2),
];

fn masks() -> impl Iterator<Item = BlockMask> {
    CASES.into_iter().map(|(len, bq, bk, density, heads)| {
        random_block_mask(len, bq, bk, density, heads, 7).unwrap()
    })
}

#[test]
fn column_0_and_the_diagonal_are_kept_and_nothing_above() {
    for mask in masks() {
        for head in 0..mask.heads() {
            for row in 0..mask.rows() {
                let kept = mask.kept(head, row);
                let first = row * mask.query_block() / mask.key_block();
                let last = last_column(row, mask.query_block(), mask.key_block());
                assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "{kept:?}");
                assert_eq!(kept[0], 0);
                let diagonal: Vec<u32> = (first as u32..=last as u32).collect();
                assert!(kept.ends_with(&diagonal), "{kept:?} {diagonal:?}");
            }
        }
        assert_eq!(mask.offsets().len(), mask.heads() * mask.rows() + 1);
        assert_eq!(
            *mask.offsets().last().unwrap() as usize,
            mask.kept_columns().len()
        );
    }
}

#[test]
fn pairs_and_density_count_what_is_seen() {
    for mask in masks() {
        let len = mask.rows() * mask.query_block();
        let mut all = 0;
        for head in 0..mask.heads() {
            let seen = (0..len)
                .flat_map(|i| (0..len).map(move |j| (i, j)))
                .filter(|&(i, j)| mask.sees(head, i, j))
                .count();
            assert_eq!(mask.pairs(head), seen as u64);
            all += seen;
        }
        let causal = mask.heads() * len * (len + 1) / 2;
        assert!((mask.density() - all as f64 / causal as f64).abs() < 1e-15);
    }
}

#[test]
fn every_query_sees_itself_and_no_later_key() {
    for mask in masks() {
        let len = mask.rows() * mask.query_block();
        for i in 0..len {
            assert!(mask.sees(0, i, i) && mask.sees(0, i, 0));
            assert!((i + 1..len).all(|j| !mask.sees(0, i, j)));
        }
    }
}

#[test]
fn density_1_is_dense() {
    let mask = random_block_mask(1024, 16, 64, 1.0, 2, 7).unwrap();
    assert_eq!(mask.density(), 1.0);
    assert_eq!(mask.block_density(), 1.0);
}

#[test]
fn density_is_met_on_average() {
    let mask = random_block_mask(32768, 64, 64, 0.2, 1, 7).unwrap();
    assert!((mask.block_density() - 0.2).abs() < 0.005);
}

#[test]
fn other_masks_are_refused() {
    let refused = |len, bq, bk, density, heads| {
        random_block_mask(len, bq, bk, density, heads, 7).unwrap_err()
    };
    let range = |what, got, limit| InputError::Range { what, got, limit };
    assert_eq!(refused(0, 1, 1, 0.5, 1), range("len", 0, 131_072));
    assert_eq!(
        refused(131_073, 1, 1, 0.5, 1),
        range("len", 131_073, 131_072)
    );
    assert_eq!(refused(64, 16, 16, 0.5, 0), range("heads", 0, 256));
    assert_eq!(refused(64, 16, 16, 0.5, 257), range("heads", 257, 256));
    assert_eq!(refused(64, 0, 16, 0.5, 1), range("query block", 0, 64));
    assert_eq!(refused(64, 16, 128, 0.5, 1), range("key block", 128, 64));
    for (bq, bk, what) in [(48, 16, "query block"), (16, 48, "key block")] {
        let error = refused(64, bq, bk, 0.5, 1);
        assert_eq!(
            error,
            InputError::Block {
                what,
                block: 48,
                len: 64
            }
        );
    }
    for density in [0.0, -0.1, 1.5, f64::NAN] {
        let error = refused(64, 16, 16, density, 1);
        assert!(matches!(error, InputError::Density { .. }), "{error}");
    }
    let error = refused(131_072, 4, 1, 1.0, 256);
    assert!(matches!(error, InputError::MaskTooLarge { .. }), "{error}");
}
