//! The oracle on cases that can be done by hand.

use super::*;
use crate::{Family, key, query, value};

fn bf(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&v| bf16::from_f32(v)).collect()
}

fn near(got: f64, expected: f64) -> bool {
    (got - expected).abs() < 1e-14
}

#[test]
fn three_keys_by_hand() {
    let (q, k) = (bf(&[1.0, 2.0]), bf(&[1.0, 0.0, 0.0, 1.0, 5.0, 5.0]));
    let v = bf(&[10.0, 0.0, 0.0, 20.0, 99.0, 99.0]);
    // Logits 0.5 and 1.0; the third key is hidden.
    let (out, lse) = row(&q, &k, &v, 0.5, 3, |j| j < 2);
    let (a, b) = (0.5_f64.exp(), 1_f64.exp());
    assert!(near(out[0], 10.0 * a / (a + b)), "{out:?}");
    assert!(near(out[1], 20.0 * b / (a + b)), "{out:?}");
    assert!(near(lse, (a + b).ln()), "{lse}");
}

#[test]
fn a_row_alone_is_its_value_and_large_logits_do_not_overflow() {
    let (out, lse) = row(&bf(&[100.0]), &bf(&[100.0]), &bf(&[3.0]), 1.0, 1, |_| true);
    assert_eq!((out, lse), (vec![3.0], 10_000.0));
}

#[test]
fn a_row_that_sees_nothing_is_zero() {
    let (out, lse) = row(&bf(&[1.0]), &bf(&[1.0]), &bf(&[3.0]), 1.0, 1, |_| false);
    assert_eq!((out, lse), (vec![0.0], f64::NEG_INFINITY));
}

#[test]
fn error_is_relative_and_finds_group_and_row() {
    let shape = Shape::new(8, 2, 70).with_head_dim(16);
    let (q, k, v) = (
        query(1, Family::Random, shape).unwrap(),
        key(1, Family::Random, shape).unwrap(),
        value(1, Family::Random, shape).unwrap(),
    );
    let problem = Problem::new(shape, &q, &k, &v).unwrap();
    let causal = |_: usize, i: usize, j: usize| j <= i;
    let scaled = |by: f64| {
        problem.sampled_error(9, causal, |head, i| {
            let kv = &k[head / 4 * 70 * 16..];
            let values = &v[head / 4 * 70 * 16..];
            let query = &q[(head * 70 + i) * 16..][..16];
            let (out, _) = row(query, kv, values, 0.25, i + 1, |_| true);
            out.iter().map(|x| (x * by) as f32).collect()
        })
    };
    assert!(scaled(1.0).unwrap() < 1e-7);
    assert!((scaled(1.25).unwrap() - 0.25).abs() < 1e-6);
    assert!(scaled(f64::NAN).unwrap().is_nan());
}

#[test]
fn wrong_sizes_are_refused() {
    let shape = Shape::new(2, 1, 3).with_head_dim(2);
    let (q, k) = (vec![bf16::ONE; 12], vec![bf16::ONE; 6]);
    let wrong = |what, got, expected| InputError::Elements {
        what,
        got,
        expected,
    };
    let error = Problem::new(shape, &q, &k, &q).unwrap_err();
    assert_eq!(error, wrong("value", 12, 6));
    let problem = Problem::new(shape, &q, &k, &k).unwrap();
    let error = problem.sampled_error(3, |_, _, _| true, |_, _| vec![0.0; 3]);
    assert_eq!(error.unwrap_err(), wrong("row", 3, 2));
    let error = problem.sampled_error(0, |_, _, _| true, |_, _| vec![0.0; 2]);
    assert!(matches!(error, Err(InputError::Range { .. })));
}

#[test]
fn rows_and_heads_are_spread_evenly() {
    assert_eq!(
        sampled_rows(131_072, 5),
        [0, 32_767, 65_535, 98_303, 131_071]
    );
    assert_eq!(sampled_rows(10, 1), [0]);
    assert_eq!(sampled_rows(3, 3), [0, 1, 2]);
    // Exactly 14043, but below it in f32.
    assert_eq!(sampled_rows(32_768, 64)[27], 14_042);
    assert_eq!(sampled_heads(32).collect::<Vec<_>>(), [0, 8, 16, 24]);
    assert_eq!(sampled_heads(3).collect::<Vec<_>>(), [0, 1, 2]);
}
