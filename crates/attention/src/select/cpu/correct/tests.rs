//! Corrections against the formula, and against dense attention.

use burn::tensor::bf16;

use super::*;
use crate::index::TileIndex;
use crate::select::cpu::testing::{CASES, Case, Kind, Random, close, dot, log_sum_exp};

/// The second order with a cap of `ln 128`: one key of 128 is then expected to hold all of a Gaussian block's
/// mass.
const LARGE: Correction = Correction::Gaussian { cap: 4.852_03 };

/// Output and log-sum-exp of a row over weighted values.
fn attend(logits: &[f64], values: &[Vec<f64>]) -> (Vec<f64>, f64) {
    let lse = log_sum_exp(logits);
    let mut out = vec![0.0; values[0].len()];
    for (logit, value) in logits.iter().zip(values) {
        let share = (logit - lse).exp();
        out.iter_mut().zip(value).for_each(|(o, v)| *o += share * v);
    }
    (out, lse)
}

/// A sparse result, `[B, N, Hq, d]` and `[B, Hq, N]`, and what the correction made of it.
struct Corrected<E> {
    before: (Vec<E>, Vec<f32>),
    after: (Vec<E>, Vec<f32>),
}

impl<E: FlexFloat> Corrected<E> {
    fn new(case: &Case<E>, index: &TileIndex, gates: &[u32], correction: Correction) -> Self {
        let shape = case.shape;
        let mut before = (
            vec![E::narrow(f32::NAN); shape.batch * shape.rows * shape.heads * shape.head_dim],
            vec![f32::NAN; shape.batch * shape.heads * shape.rows],
        );
        for b in 0..shape.batch {
            for h in 0..shape.heads {
                for row in 0..case.lengths(b).0 {
                    let (logits, values) = kept(case, index, b, h, row);
                    let (out, lse) = attend(&logits, &values);
                    let at = ((b * shape.rows + row) * shape.heads + h) * shape.head_dim;
                    for (to, x) in before.0[at..].iter_mut().zip(out) {
                        *to = E::narrow(x as f32);
                    }
                    before.1[(b * shape.heads + h) * shape.rows + row] = lse as f32;
                }
            }
        }
        let mut after = (before.0.clone(), vec![f32::NAN; before.1.len()]);
        let pooled = case.pooled();
        let table = case.table(index, gates);
        let out = ViewMut {
            data: &mut after.0,
            strides: case.query().strides,
        };
        let (lse, lse_out) = (&before.1, &mut after.1);
        correct(
            &shape,
            case.query(),
            case.in_blocks(&pooled),
            &table,
            correction,
            out,
            lse,
            lse_out,
        );
        Self { before, after }
    }

    fn row(
        case: &Case<E>,
        result: &(Vec<E>, Vec<f32>),
        b: usize,
        h: usize,
        row: usize,
    ) -> (Vec<f32>, f32) {
        let Shape {
            rows,
            heads,
            head_dim: d,
            ..
        } = case.shape;
        let at = ((b * rows + row) * heads + h) * d;
        let out = result.0[at..at + d].iter().map(|x| x.widen()).collect();
        (out, result.1[(b * heads + h) * rows + row])
    }
}

fn kept<E: FlexFloat>(
    case: &Case<E>,
    index: &TileIndex,
    b: usize,
    h: usize,
    row: usize,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let (index_head, kv_head) = (
        h / case.shape.heads_per_index(),
        h / case.shape.heads_per_kv(),
    );
    let logits = case.logits(b, h, row);
    let sees = |j: &usize| index.sees(b, index_head, row, *j);
    let keys: Vec<usize> = (0..logits.len()).filter(sees).collect();
    let value = |&j: &usize| case.exact(case.value(), b, kv_head, j);
    (
        keys.iter().map(|&j| logits[j]).collect(),
        keys.iter().map(value).collect(),
    )
}

/// By the formula: kept keys, then one pseudo key per block with something left out.
fn exact<E: FlexFloat>(
    case: &Case<E>,
    index: &TileIndex,
    moments: &[[Vec<f64>; 3]],
    at: (usize, usize, usize),
    cap: Option<f64>,
) -> (Vec<f64>, f64) {
    let (b, h, row) = at;
    let (query_len, kv_len) = case.lengths(b);
    let first = kv_len - query_len + row / 64 * 64;
    // The tile's last row has lost most.
    let lost = case.first(b, (row / 64 * 64 + 63).min(query_len - 1));
    let (mut logits, mut values) = kept(case, index, b, h, row);
    let query = case.exact(case.query(), b, h, row);
    let squares: Vec<f64> = query.iter().map(|x| x * x).collect();
    let scale = f64::from(case.shape.scale);
    let whole = |block: &usize| block * 128 >= lost && block * 128 + 128 <= first;
    for block in (0..kv_len.div_ceil(128)).filter(whole) {
        let sees = |j: &usize| index.sees(b, h / case.shape.heads_per_index(), row, *j);
        let left = 128 - (block * 128..block * 128 + 128).filter(sees).count();
        if left > 0 {
            let [mean, variance, value] = &moments[block];
            let second = cap.map_or(0.0, |cap| {
                cap.min(scale * scale / 2.0 * dot(&squares, variance))
            });
            logits.push(scale * dot(&query, mean) + second + (left as f64).ln());
            values.push(value.clone());
        }
    }
    attend(&logits, &values)
}

fn matches_formula<E: FlexFloat>(per_query_head: bool, rounding: f64) {
    let windows = [None, Some(1), Some(200), Some(450)];
    let cases = CASES.iter().enumerate();
    for ((seed, &lengths), visible) in cases.flat_map(|case| windows.map(|window| (case, window))) {
        let mut case = Case::<E>::normal(lengths, 1.5, seed as u64).under(visible);
        if per_query_head {
            case.shape.index_heads = case.shape.heads;
        }
        let shape = case.shape;
        // Parts of blocks by ranges and by columns, whole blocks, differing by head.
        let index = case.index(|_, head, first, _| {
            let window = first.saturating_sub(100);
            (
                vec![(0, 20), (32 + 16 * head, 176), (384, 512), (window, first)],
                vec![25, 190, 191, 700, 701 + head],
            )
        });
        let gates = vec![0; shape.batch * shape.index_heads];
        for (correction, cap) in [
            (Correction::Mean, None),
            (Correction::Gaussian { cap: 0.8 }, Some(0.8f32.into())),
        ] {
            let got = Corrected::new(&case, &index, &gates, correction);
            for b in 0..shape.batch {
                for h in 0..shape.heads {
                    let blocks = case.lengths(b).1.div_ceil(128);
                    let moments: Vec<_> = (0..blocks)
                        .map(|j| case.moments(b, h / shape.heads_per_kv(), j))
                        .collect();
                    for row in (0..case.lengths(b).0).filter(|row| row % 13 == 0 || row % 64 == 63)
                    {
                        let (out, lse) = Corrected::row(&case, &got.after, b, h, row);
                        let (exact_out, exact_lse) =
                            exact(&case, &index, &moments, (b, h, row), cap);
                        close("lse", &[lse], &[exact_lse], 1e-5, 1e-6);
                        close("out", &out, &exact_out, rounding, 2.0 * rounding);
                    }
                }
            }
        }
    }
}

#[test]
fn corrections_match_the_formula_f32() {
    matches_formula::<f32>(false, 2e-6);
}

#[test]
fn corrections_match_the_formula_bf16() {
    // Rounded twice: before and after.
    matches_formula::<bf16>(false, 1.0 / 256.0);
}

#[test]
fn every_query_head_may_have_an_index() {
    matches_formula::<f32>(true, 2e-6);
}

#[test]
fn blocks_that_a_window_hides_are_left_alone() {
    let lengths = (&[(100, 1200)][..], 2, 1, 32);
    let of = |hidden: f32| {
        let mut case = Case::<f32>::normal(lengths, 1.0, 5).under(Some(500));
        // The first row sees keys from 601 on: blocks before 512 have none.
        case.key[..512 * 32].fill(hidden);
        case.value[..512 * 32].fill(hidden);
        let index = case.index(|_, _, first, _| (vec![(700, 720), (first - 90, first)], vec![]));
        Corrected::new(&case, &index, &[0], LARGE).after
    };
    let (clean, broken) = (of(0.0), of(f32::NAN));
    assert!(clean.0.iter().chain(&clean.1).all(|x| x.is_finite()));
    assert_eq!(clean, broken);
}

#[test]
fn dense_heads_and_rows_with_nothing_left_out_keep_their_bits() {
    let case = Case::<bf16>::normal((&[(300, 500), (90, 90)], 4, 2, 64), 1.0, 5);
    // Sequence 0, head 0 is dense; the rest leaves nothing out but for sequence 0, head 1.
    let index = case.index(|b, head, _, last| match (b, head) {
        (0, _) => (vec![(0, 16)], vec![]),
        _ => (vec![(0, last + 1)], vec![]),
    });
    let got = Corrected::new(&case, &index, &[1, 0, 0, 0], LARGE);
    for b in 0..2 {
        for h in 0..4 {
            for row in 0..case.lengths(b).0 {
                let before = Corrected::row(&case, &got.before, b, h, row);
                let after = Corrected::row(&case, &got.after, b, h, row);
                let changes = b == 0 && h >= 2;
                assert_eq!(before != after, changes, "{b} {h} {row}");
            }
        }
    }
}

/// Largest error of output rows against dense attention, and of log-sum-exps.
fn errors(case: &Case<f32>, result: &(Vec<f32>, Vec<f32>)) -> (f64, f64) {
    let mut worst = (0.0f64, 0.0f64);
    for h in 0..case.shape.heads {
        for row in (0..case.lengths(0).0).step_by(7) {
            let logits = case.logits(0, h, row);
            let value = |j| case.exact(case.value(), 0, h / case.shape.heads_per_kv(), j);
            let values: Vec<_> = (0..logits.len()).map(value).collect();
            let (exact, exact_lse) = attend(&logits, &values);
            let (out, lse) = Corrected::row(case, result, 0, h, row);
            let square = |(x, y): (&f32, &f64)| (f64::from(*x) - y).powi(2);
            worst.0 = worst
                .0
                .max(out.iter().zip(&exact).map(square).sum::<f64>().sqrt());
            worst.1 = worst.1.max((f64::from(lse) - exact_lse).abs());
        }
    }
    worst
}

#[test]
fn blocks_of_equal_keys_are_put_back_exactly() {
    let (mut random, mut common) = (Random(2), [[0.0f32; 32]; 8]);
    common
        .as_flattened_mut()
        .iter_mut()
        .for_each(|x| *x = 1.5 * random.normal());
    let case = Case::<f32>::filled(
        (&[(128, 1024)], 3, 1, 32),
        |kind, _, _, p, row| match kind {
            Kind::Key => row.copy_from_slice(&common[p / 128]),
            _ => row.iter_mut().for_each(|x| *x = random.normal()),
        },
    );
    let index = case.index(|_, _, _, _| (vec![(256, 384), (768, 1024)], vec![]));
    for correction in [Correction::Mean, LARGE] {
        let got = Corrected::new(&case, &index, &[0], correction);
        let (before, after) = (errors(&case, &got.before), errors(&case, &got.after));
        assert!(
            before.0 > 0.05 && before.1 > 0.05,
            "nothing to correct: {before:?}"
        );
        assert!(after.0 < 2e-6 && after.1 < 1e-5, "{after:?}");
    }
}

#[test]
fn the_second_order_lowers_the_error_on_gaussian_keys_of_large_variance() {
    // Logits within a block spread by 1.4; values differ every 4 blocks.
    let mut random = Random(9);
    let case = Case::<f32>::filled((&[(128, 2048)], 2, 1, 128), |kind, _, _, p, row| {
        row.iter_mut().for_each(|x| *x = random.normal());
        match kind {
            Kind::Query => row.iter_mut().for_each(|x| *x *= 1.4),
            Kind::Key => {}
            Kind::Value => {
                row.iter_mut().for_each(|x| *x *= 0.1);
                row[p / 512] += 4.0;
            }
        }
    });
    let index = case.index(|_, _, first, _| (vec![(0, 16), (first - 256, first)], vec![]));
    let of = |correction| {
        let got = Corrected::new(&case, &index, &[0], correction);
        (errors(&case, &got.before), errors(&case, &got.after))
    };
    let ((none, first), (_, second)) = (of(Correction::Mean), of(LARGE));
    assert!(first.0 < none.0 && first.1 < none.1, "{none:?} {first:?}");
    assert!(
        3.0 * second.0 < first.0,
        "output: {} against {}",
        second.0,
        first.0
    );
    assert!(
        8.0 * second.1 < first.1,
        "log-sum-exp: {} against {}",
        second.1,
        first.1
    );
}
