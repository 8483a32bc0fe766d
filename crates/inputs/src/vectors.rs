//! Values of another program that follows the same rules, to the bit.

use half::bf16;

use crate::hash::{Stream, mix};
use crate::structured::{Keys, Queries, offsets};
use crate::tables::{Noise, Tables, turns_per_token};
use crate::{Family, HEAD_DIM, InputError, MAX_LEN, Shape, key, query, random_block_mask, value};

/// FNV-1a over whole words.
fn digest(words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x100_0000_01b3)
    })
}

fn digest_bf16(tensor: &[bf16]) -> u64 {
    digest(tensor.iter().map(|x| u64::from(x.to_bits())))
}

fn bits(
    tensor: &[bf16],
    shape: Shape,
    at: (usize, usize),
    dims: std::ops::Range<usize>,
) -> Vec<u16> {
    let row = &tensor[(at.0 * shape.len + at.1) * shape.head_dim..][..shape.head_dim];
    row[dims].iter().map(|x| x.to_bits()).collect()
}

#[test]
fn hash() {
    assert_eq!(mix(1), 1_753_845_952);
    let stream = Stream::new(1, 0);
    assert_eq!(
        [0, 1, 2, 3].map(|i| stream.bits(i)),
        [4_135_248_110, 2_772_762_502, 479_375_662, 3_225_555_490]
    );
    assert_eq!(offsets(1, 1), [0, 1590, 9116]);
}

#[test]
fn tables() {
    let turns = turns_per_token();
    assert_eq!(
        [turns[0], turns[1], turns[47]],
        [1_073_741_824, 926_511_757, 1_048_576]
    );
    assert_eq!(digest(turns.map(u64::from)), 0x56d0_a657_7702_fa83);
    let entries = |table: &[f32]| digest(table.iter().map(|x| u64::from(x.to_bits())));
    assert_eq!(entries(&Tables::get().cos), 0xf47b_051d_dbd4_029d);
    assert_eq!(entries(&Tables::get().rad), 0xf9c2_a7ee_dd09_cdb9);
}

#[test]
fn structured_rows() {
    // Heads 0 and 1 of 8 that share 2 KV heads are those of 32 that share 8: 4 share one.
    let shape = Shape::new(8, 2, 1002);
    let q = query(1, Family::Structured, shape).unwrap();
    assert_eq!(
        bits(&q, shape, (1, 1000), 0..8),
        [16384, 48718, 15759, 49246, 16342, 16536, 49159, 16405]
    );
    assert_eq!(
        bits(&q, shape, (1, 1001), 94..106),
        [
            16408, 15932, 16781, 16583, 48869, 49057, 15656, 16369, 48735, 16076, 16120, 49080
        ]
    );
    let shape = Shape::new(8, 2, 2);
    let k = key(1, Family::Structured, shape).unwrap();
    assert_eq!(
        bits(&k, shape, (0, 0), 94..106),
        [
            16305, 16141, 16624, 16062, 48666, 48667, 15953, 16131, 48561, 48860, 48973, 16065
        ]
    );
    let v = value(1, Family::Structured, shape).unwrap();
    assert_eq!(
        bits(&v, shape, (0, 1), 0..8),
        [16208, 16294, 16196, 48998, 15941, 16308, 49119, 15847]
    );
}

#[test]
fn whole_tensors() {
    let shape = Shape::new(8, 2, 600);
    for (family, q, k) in [
        (Family::Random, 0x8737_9843_647c_2364, 0x0d7e_a676_9219_b9f9),
        (
            Family::Structured,
            0xd0af_49b7_777e_a2c0,
            0xee45_1f3d_a86d_2767,
        ),
    ] {
        assert_eq!(digest_bf16(&query(3, family, shape).unwrap()), q);
        assert_eq!(digest_bf16(&key(3, family, shape).unwrap()), k);
        let v = digest_bf16(&value(3, family, shape).unwrap());
        assert_eq!(v, 0x753a_2351_3e5d_a2a4);
    }
    let wide = query(3, Family::Random, shape.with_head_dim(200)).unwrap();
    let whole = query(3, Family::Random, shape).unwrap();
    for (wide, row) in wide.chunks_exact(200).zip(whole.chunks_exact(128)) {
        assert_eq!(wide[..128], *row);
        assert_ne!(wide[128..], row[..72]);
    }
    let narrow = query(3, Family::Random, shape.with_head_dim(40)).unwrap();
    assert_eq!(digest_bf16(&narrow), 0x2b82_ba57_442f_e371);
}

#[test]
fn a_prefix_of_a_longer_sequence_is_the_same_tensor() {
    let (short, long) = (Shape::new(4, 2, 37), Shape::new(4, 2, 90));
    for family in [Family::Random, Family::Structured] {
        for (make, heads) in [(query as fn(_, _, _) -> _, 4), (key, 2), (value, 2)] {
            let of = |shape| -> Vec<bf16> { make(5, family, shape).unwrap() };
            let (a, b) = (of(short), of(long));
            for head in 0..heads {
                let prefix = &b[head * 90 * 128..][..37 * 128];
                assert_eq!(&a[head * 37 * 128..][..37 * 128], prefix);
            }
        }
    }
}

#[test]
fn other_shapes_are_refused() {
    let refused = |family, shape| query(1, family, shape).unwrap_err();
    let range = |what, got, limit| InputError::Range { what, got, limit };
    for (shape, error) in [
        (Shape::new(1, 1, 0), range("len", 0, 131_072)),
        (Shape::new(1, 1, 131_073), range("len", 131_073, 131_072)),
        (Shape::new(0, 1, 1), range("heads", 0, 256)),
        (Shape::new(257, 1, 1), range("heads", 257, 256)),
        (Shape::new(1, 0, 1), range("kv_heads", 0, 256)),
        (
            Shape::new(1, 1, 1).with_head_dim(257),
            range("head_dim", 257, 256),
        ),
        (
            Shape::new(3, 2, 1),
            InputError::Heads {
                heads: 3,
                kv_heads: 2,
            },
        ),
    ] {
        assert_eq!(refused(Family::Random, shape), error);
    }
    let narrow = Shape::new(1, 1, 1).with_head_dim(64);
    assert_eq!(
        refused(Family::Structured, narrow),
        InputError::StructuredHeadDim { got: 64 }
    );
}

#[test]
fn the_farthest_rows() {
    let shape = Shape::new(32, 8, MAX_LEN);
    let (queries, keys) = (Queries::new(9, shape), Keys::new(9));
    let last = |heads: usize, row: &dyn Fn(usize, usize, &mut [bf16])| {
        let mut out = vec![bf16::NAN; heads * 16 * HEAD_DIM];
        for (index, out) in out.chunks_exact_mut(HEAD_DIM).enumerate() {
            row(index / 16, MAX_LEN - 16 + index % 16, out);
        }
        digest_bf16(&out)
    };
    let q = last(32, &|h, s, out| queries.row(h, s, out));
    assert_eq!(q, 0x97fa_4e8e_74ae_59c4);
    let k = last(8, &|h, s, out| keys.row(h, s, out));
    assert_eq!(k, 0xeb8f_7bc2_d511_8037);
    let noise = Noise::new(9, 0);
    let q = last(256, &|h, s, out| noise.row(h, s, out));
    assert_eq!(q, 0xbab2_1df4_c7b1_7ec5);
}

struct Mask {
    len: usize,
    blocks: (usize, usize),
    density: f64,
    heads: usize,
    seed: u32,
    kept: usize,
    /// Digests of kept columns per row, and of the columns.
    counts: u64,
    columns: u64,
    /// Values of each head.
    pairs: u64,
}

#[rustfmt::skip]
const MASKS: [Mask; 8] = [
    Mask { len: 8192, blocks: (64, 64), density: 0.1, heads: 4, seed: 7,
        kept: 3368, counts: 0x6193_bbfa_7ee4_e295, columns: 0x1b5d_d32b_dc18_de41, pairs: 3_190_784 },
    Mask { len: 8192, blocks: (128, 128), density: 0.05, heads: 4, seed: 7,
        kept: 560, counts: 0x9dcb_d2a4_956e_be05, columns: 0xdc18_8842_c34e_e6c3, pairs: 1_773_568 },
    Mask { len: 8192, blocks: (64, 128), density: 0.2, heads: 3, seed: 7,
        kept: 2541, counts: 0x3692_1cd8_0576_cfee, columns: 0x9b1a_f6ac_4cb3_17b0, pairs: 6_418_432 },
    Mask { len: 8192, blocks: (128, 64), density: 0.5, heads: 2, seed: 7,
        kept: 4164, counts: 0x98bc_b894_8103_a6b5, columns: 0x2e0c_0146_14c4_67ac, pairs: 16_535_552 },
    Mask { len: 1024, blocks: (16, 64), density: 1.0, heads: 2, seed: 7,
        kept: 1088, counts: 0xb42e_0628_46a1_7565, columns: 0x44a3_2324_7e2d_a965, pairs: 524_800 },
    Mask { len: 960, blocks: (192, 64), density: 0.02, heads: 2, seed: 7,
        kept: 38, counts: 0x2453_8e55_e979_8a03, columns: 0x0394_bfd5_214a_f493, pairs: 141_792 },
    Mask { len: 131_072, blocks: (128, 128), density: 0.05, heads: 1, seed: 7,
        kept: 26_238, counts: 0xde15_7d2f_97fc_f7bb, columns: 0x44c6_974a_7581_9c49, pairs: 421_560_320 },
    Mask { len: 65_536, blocks: (8, 4096), density: 0.3, heads: 2, seed: 9,
        kept: 46_622, counts: 0x0236_0c49_b173_7e79, columns: 0xcaa5_394e_ebb9_de93, pairs: 629_669_888 },
];

#[test]
fn masks() {
    for case in MASKS {
        let (bq, bk) = case.blocks;
        let mask =
            random_block_mask(case.len, bq, bk, case.density, case.heads, case.seed).unwrap();
        let what = (case.len, case.blocks, case.density);
        assert_eq!(mask.kept_columns().len(), case.kept, "{what:?}");
        let counts = mask.offsets().windows(2).map(|o| u64::from(o[1] - o[0]));
        assert_eq!(digest(counts), case.counts, "{what:?}");
        let columns = mask.kept_columns().iter().map(|&c| u64::from(c));
        assert_eq!(digest(columns), case.columns, "{what:?}");
        for head in 0..case.heads {
            assert_eq!(mask.pairs(head), case.pairs, "{what:?}");
        }
    }
}

#[test]
fn mask_rows() {
    let mask = random_block_mask(8192, 64, 64, 0.1, 4, 7).unwrap();
    assert_eq!(mask.kept(0, 0), [0]);
    assert_eq!(mask.kept(0, 5), [0, 5]);
    assert_eq!(mask.kept(1, 40), [0, 27, 28, 40]);
    assert_eq!(
        mask.kept(3, 127),
        [0, 5, 31, 32, 42, 73, 80, 89, 100, 116, 117, 120, 127]
    );
    // Two columns lie on the diagonal of a row.
    let mask = random_block_mask(8192, 128, 64, 0.5, 2, 7).unwrap();
    assert_eq!(mask.kept(1, 6), [0, 1, 3, 6, 7, 12, 13]);
}
