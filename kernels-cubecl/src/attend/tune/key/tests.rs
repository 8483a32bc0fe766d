//! Classes at their edges, and what must not share a key.

use cubecl::ir::{ElemType, FloatKind};

use super::*;
use crate::attend::{IndexShape, Stored, Visible};

const BF16: ElemType = ElemType::Float(FloatKind::BF16);

fn problem(rows: usize, index: Option<IndexShape>) -> Problem {
    Problem {
        batch: 1,
        heads: 32,
        kv_heads: 8,
        rows,
        keys: 131_072,
        head_dim: 128,
        scale: 1.0,
        index,
        gated_heads: None,
        stored: Stored::Elements,
        visible: Visible::Causal,
    }
}

fn key(problem: &Problem, causal_pairs: u64, density: Option<f32>) -> Key {
    let work = Work {
        causal_pairs,
        density,
    };
    Key::new(problem, BF16, &work, &[])
}

fn whole(rows: usize) -> Key {
    let n = rows as u64;
    key(&problem(rows, None), n * (n + 1) / 2, Some(1.0))
}

#[test]
fn classes_end_at_powers_of_two() {
    assert_eq!(Class::of(0), Class::of(1));
    assert!(Class::of(1) < Class::of(2));
    assert!(Class::of(2) < Class::of(3));
    assert_eq!(Class::of(3), Class::of(4));
    assert_eq!(Class::of(4097), Class::of(8192));
    assert!(Class::of(8192) < Class::of(8193));
    assert_eq!(Class::of(8192).to_string(), "<= 8192");
    assert_eq!(Class::of(u64::MAX).to_string(), "<= 18446744073709551616");
}

#[test]
fn density_falls_into_bands() {
    assert_eq!(Density::of(None), Density::Unknown);
    assert_eq!(Density::of(Some(0.0)), Density::Sixteenth);
    assert_eq!(Density::of(Some(0.0625)), Density::Sixteenth);
    assert_eq!(Density::of(Some(0.0626)), Density::Eighth);
    assert_eq!(Density::of(Some(0.25)), Density::Quarter);
    assert_eq!(Density::of(Some(0.5)), Density::Half);
    assert_eq!(Density::of(Some(0.51)), Density::Most);
    assert_eq!(Density::of(Some(1.0)), Density::Most);
}

#[test]
fn prompts_of_one_class_share_a_key() {
    assert_eq!(whole(8192), whole(5000));
    assert_ne!(whole(8192), whole(8193));
    assert_ne!(whole(8192), whole(4096));
}

#[test]
fn a_chunk_at_the_end_is_not_one_at_the_beginning() {
    let chunk = problem(8192, None);
    let early = key(&chunk, 8192 * 8193 / 2, Some(1.0));
    let late = key(&chunk, 8192 * 122_880 + 8192 * 8193 / 2, Some(1.0));
    assert_eq!(early.rows, late.rows);
    assert!(early.keys < late.keys);
}

#[test]
fn whatever_changes_the_kernel_is_in_the_key() {
    let index = IndexShape {
        heads: 8,
        tiles: 128,
        tile_tokens: 64,
        columns: false,
        band: None,
    };
    let of = |index| key(&problem(8192, Some(index)), 1 << 25, Some(0.1));
    let plain = of(index);
    assert_ne!(plain, whole(8192), "an index");
    let changed = [
        IndexShape { heads: 32, ..index },
        IndexShape {
            tile_tokens: 128,
            ..index
        },
        IndexShape {
            columns: true,
            ..index
        },
        IndexShape {
            band: Some((4, 64)),
            ..index
        },
    ];
    for other in changed {
        assert_ne!(plain, of(other), "{other:?}");
    }
    let longer_band = |window| {
        of(IndexShape {
            band: Some((4, window)),
            ..index
        })
    };
    assert_eq!(longer_band(64), longer_band(128), "the window is a number");
    let half = ElemType::Float(FloatKind::F16);
    let work = Work {
        causal_pairs: 1 << 25,
        density: Some(0.1),
    };
    let f16 = Key::new(&problem(8192, Some(index)), half, &work, &[]);
    assert_ne!(plain, f16, "the element type");
}

#[test]
fn a_key_reads_as_words() {
    assert_eq!(
        whole(8192).to_string(),
        "bf16, head_dim 128, packed heads 4, groups <= 8, rows <= 8192, keys <= 4096, dense"
    );
}
