//! Building an index from a choice: the CPU implementation against plain sets of keys, the kernel
//! against the CPU implementation, and the table as a `TileIndex`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate::{
    AttentionError, Span,
    index::{QUERY_TILE, TileIndex},
};
use sparse_accelerate_contract::{BLOCK, GRANULE, REPORT_WORDS, Report, Rules};
use sparse_accelerate_tests::selection::{self, Case, Cut, rules};

/// Random lists, masks and choices; `choice` for all index heads, or one for each at random.
fn random_cut(case: &Case, seed: u64, choice: Option<u32>) -> Cut {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let shape = &case.shape;
    let blocks = case.indexes() * shape.query_blocks();
    let mut cut = Cut {
        lists: vec![0; case.indexes() * case.layout.stride()],
        covered: Vec::new(),
        masks: vec![0; 2 * blocks * shape.mask_words()],
        counts: Vec::new(),
        report: vec![0; case.indexes() * REPORT_WORDS],
        gates: vec![0; case.indexes()],
        table: Vec::new(),
        kept: Vec::new(),
    };
    for index in 0..case.indexes() {
        let keys = case.spans[index / shape.index_heads].kv_len as u32;
        let row = &mut cut.lists[index * case.layout.stride()..][..case.layout.stride()];
        let (head, tail) = row.split_at_mut(case.layout.slashes_at());
        let mut list = |to: &mut [u32], below: u32| {
            let most = random.random_range(0..=to.len());
            let drawn: BTreeSet<u32> = (0..most).map(|_| random.random_range(0..below)).collect();
            for (to, from) in to.iter_mut().zip(&drawn) {
                *to = *from;
            }
            drawn.len() as u32
        };
        head[0] = list(&mut head[2..], keys);
        head[1] = list(tail, keys.div_ceil(GRANULE as u32));
        let choice = choice.unwrap_or_else(|| random.random_range(0..5));
        cut.report[index * REPORT_WORDS + Report::CHOICE] = (choice as f32).to_bits();
        cut.gates[index] = u32::from(choice == 0);
    }
    let density: f64 = random.random_range(0.0..0.6);
    for j in 0..2 * blocks * shape.key_blocks() {
        let (row, j) = (j / shape.key_blocks(), j % shape.key_blocks());
        // Any causal block: also those that sinks and window keep already.
        let span = case.spans[row % blocks / shape.query_blocks() / shape.index_heads];
        let causal = j * BLOCK < span.offset() + row % shape.query_blocks() * BLOCK;
        if causal && random.random_bool(density) {
            cut.masks[row * shape.mask_words() + j / 32] |= 1 << (j % 32);
        }
    }
    cut
}

/// The keys and the columns that one tile keeps, key by key.
fn wanted(
    case: &Case,
    cut: &Cut,
    index: usize,
    tile: usize,
) -> Option<(BTreeSet<u32>, BTreeSet<u32>)> {
    let shape = &case.shape;
    let b = index / shape.index_heads;
    let (span, rules) = (case.spans[b], case.rules[index % shape.index_heads]);
    let rows: Vec<usize> = (tile * QUERY_TILE..((tile + 1) * QUERY_TILE).min(span.query_len))
        .map(|i| span.offset() + i)
        .collect();
    let (first, last) = (*rows.first()?, *rows.last()?);
    let choice = f32::from_bits(cut.report[index * REPORT_WORDS + Report::CHOICE]) as u32;
    let dense = choice == 0 || last >= case.dense_from[b] as usize;
    let stride = case.layout.stride();
    let (columns, slashes) = case.layout.read(&cut.lists[index * stride..][..stride]);
    let variant = usize::from(choice == 4) * case.indexes();
    let block = (variant + index) * shape.query_blocks() + tile / 2;
    let mask = &cut.masks[block * shape.mask_words()..];
    let slashed = |j: usize| {
        let on = |p: usize| p >= j && slashes.contains(&(((p - j) / GRANULE) as u32));
        (choice == 2 || choice == 4) && rows.iter().any(|p| on(*p))
    };
    let visible = |j: usize| case.any_sees(&(first..last + 1), j);
    let wanted = |j: usize| {
        dense
            || j < rules.sink as usize
            || rows
                .iter()
                .any(|p| *p >= j && p - j < rules.window as usize)
            || j >= first
            || slashed(j)
            || (choice >= 3 && mask[j / BLOCK / 32] >> (j / BLOCK % 32) & 1 == 1)
    };
    // A granule is kept for a key that is wanted, in whatever granule that some row sees a key of.
    let of = |keep: &dyn Fn(usize) -> bool| -> BTreeSet<usize> {
        let kept = (0..=last).filter(|j| keep(*j));
        kept.map(|j| j / GRANULE).collect()
    };
    let seen = of(&visible);
    let granules: BTreeSet<usize> = of(&wanted).intersection(&seen).copied().collect();
    let keys: BTreeSet<u32> = (0..=last)
        .filter(|j| granules.contains(&(j / GRANULE)))
        .map(|j| j as u32)
        .collect();
    let listed = (choice == 2 || choice == 4) && !dense;
    let columns = columns
        .iter()
        .filter(|c| listed && (**c as usize) < first && !keys.contains(c))
        .filter(|c| visible(**c as usize));
    Some((keys.clone(), columns.copied().collect()))
}

fn check(case: &Case, cut: &Cut) {
    let shape = &case.shape;
    let index = TileIndex::from_table(&case.spans, shape.index_heads, &cut.table).expect("index");
    index.validate().expect("invariants");
    assert_eq!(cut.table[..4 * shape.batch], case.span_words());
    let gates = 4 * shape.batch + 4 * case.indexes() * shape.tiles();
    assert_eq!(cut.table[gates..gates + case.indexes()], cut.gates);
    for head in 0..case.indexes() {
        for tile in 0..shape.tiles() {
            let (b, h) = (head / shape.index_heads, head % shape.index_heads);
            let row = index.row(b, h, tile);
            let keys: BTreeSet<u32> = row.ranges.chunks(2).flat_map(|r| r[0]..r[1]).collect();
            let columns: BTreeSet<u32> = row.columns.iter().copied().collect();
            let expected = wanted(case, cut, head, tile).unwrap_or_default();
            let at = format!("head {head}, tile {tile}");
            assert_eq!(keys, expected.0, "{at}: ranges");
            assert_eq!(columns, expected.1, "{at}: columns");
            let kept = cut.kept[head * shape.tiles() + tile] as usize;
            let all = || keys.iter().chain(&columns).map(|j| *j as usize);
            match shape.window() {
                None => assert_eq!(kept, all().count(), "{at}: kept keys"),
                Some(_) => {
                    let of_row = |p| all().filter(|j| case.sees(p, *j)).count();
                    let pairs: usize = case.tile(b, tile).map(of_row).sum();
                    assert_eq!(kept, pairs, "{at}: kept pairs");
                }
            }
            // Nothing that no row of the tile sees, but what shares a granule with what one does.
            for j in all() {
                let whole = |j: usize| j / GRANULE * GRANULE..(j / GRANULE + 1) * GRANULE;
                let seen = |j: usize| case.any_sees(&case.tile(b, tile), j);
                assert!(whole(j).any(seen), "{at}: key {j} is hidden");
            }
        }
    }
}

fn case() -> impl Strategy<Value = Case> {
    let rows = prop_oneof![Just(1usize), 62usize..67, 126usize..131, 1usize..400];
    let prefix = prop_oneof![Just(0usize), Just(64), 1usize..900];
    let dense = prop_oneof![Just(u32::MAX), 0u32..1000];
    let sequence = (rows, prefix, dense).prop_map(|(n, p, dense)| ((n, n + p), dense));
    let sequences = prop::collection::vec(sequence, 1..3);
    let heads = prop_oneof![Just([1usize, 1, 1]), Just([4, 2, 2]), Just([4, 2, 4])];
    let visible = prop_oneof![
        Just(None),
        Just(None),
        Just(Some(1u32)),
        (1u32..900).prop_map(Some)
    ];
    (
        heads,
        sequences,
        0u32..200,
        1u32..300,
        0usize..50,
        0usize..20,
        visible,
    )
        .prop_map(
            |(heads, sequences, sink, window, columns, slashes, visible)| {
                let lengths: Vec<(usize, usize)> = sequences.iter().map(|s| s.0).collect();
                let rules = Rules {
                    sink,
                    window,
                    ..rules()
                };
                let mut case = Case::new(heads, &lengths, rules).under(visible);
                case.dense_from = sequences.iter().map(|s| s.1).collect();
                case.layout.columns = columns;
                case.layout.slashes = slashes;
                case
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn cpu_builds_the_union_rounded_to_granules(case in case(), seed in any::<u64>()) {
        let cut = selection::rebuilt(&case, random_cut(&case, seed, None));
        check(&case, &cut);
    }
}

#[test]
fn tables_that_are_no_index_are_refused() {
    let span = [Span::whole(70)];
    let error = |table: &[u32]| match TileIndex::from_table(&span, 1, table) {
        Err(AttentionError::Index { row, reason }) => (row, reason),
        other => panic!("{other:?}"),
    };
    let good = [70, 70, 0, 0, 12, 1, 16, 0, 14, 1, 16, 1, 0, 64, 48, 70, 5];
    let index = TileIndex::from_table(&span, 1, &good).expect("index");
    assert_eq!(index.row(0, 0, 1).columns, [5]);
    assert_eq!(index.row(0, 0, 1).ranges, [48, 70]);
    assert!(error(&good[..11]).1.contains("outside"));
    assert_eq!(error(&good[..16]).0, 1);
    let mut far = good;
    far[4] = u32::MAX;
    assert!(error(&far).1.contains("ranges"));
    let mut column = good;
    column[16] = 50;
    assert!(error(&column).1.contains("column 50"));
}

#[cfg(any(feature = "wgpu", feature = "cuda-runtime"))]
mod kernels {
    use super::*;
    use sparse_accelerate_contract::TableLayout;
    use sparse_accelerate_tests::{launches, selection::UNTOUCHED};

    fn compare(case: &Case, cut: Cut) {
        let expected = selection::rebuilt(case, cut);
        let scores = case.scores(1, false);
        for (name, client) in launches::clients() {
            let name = format!("{name}/{:?}", case.shape);
            let got = selection::on_device(&name, &client, case, &scores, Some(&expected));
            assert_eq!(got.kept, expected.kept, "{name}");
            let differs = (0..got.table.len()).find(|&i| got.table[i] != expected.table[i]);
            assert_eq!(differs, None, "{name}: table");
            check(
                case,
                &Cut {
                    table: got.table,
                    kept: got.kept,
                    ..expected.clone()
                },
            );
        }
    }

    #[test]
    fn kernel_builds_what_the_cpu_builds() {
        let ragged = [(1, 1), (63, 64), (129, 1000), (65, 65), (200, 700)];
        for heads in [[1, 1, 1], [4, 2, 2], [4, 2, 4]] {
            for choice in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
                let mut case = Case::new(heads, &ragged, rules());
                case.dense_from[2] = 950;
                compare(&case, random_cut(&case, 7, choice));
            }
        }
        for length in [(1, 1), (1, 17), (64, 64), (127, 127), (128, 4096)] {
            let case = Case::new([2, 2, 2], &[length], rules());
            compare(&case, random_cut(&case, 9, Some(4)));
        }
    }

    #[test]
    fn kernel_builds_what_the_cpu_builds_under_a_window() {
        let ragged = [(1, 1), (63, 64), (129, 1000), (65, 65), (200, 700)];
        for window in [1, 16, 100, 333, 1000] {
            for (heads, choice) in [([4, 2, 2], None), ([4, 2, 4], None), ([1, 1, 1], Some(0))] {
                let mut case = Case::new(heads, &ragged, rules()).under(Some(window));
                case.dense_from[2] = 950;
                compare(&case, random_cut(&case, u64::from(window), choice));
            }
            let case = Case::new([2, 2, 2], &[(128, 2048)], rules()).under(Some(window));
            compare(&case, random_cut(&case, 9, Some(4)));
        }
    }

    #[test]
    fn rows_of_more_words_than_units_are_built() {
        // A word is 512 keys, a cube has 128 units.
        let mut case = Case::new([1, 1, 1], &[(70, 140_001)], rules());
        case.layout.columns = 700;
        case.layout.slashes = 300;
        for choice in [0, 2, 4] {
            compare(&case, random_cut(&case, 3, Some(choice)));
        }
        let case = case.under(Some(70_003));
        compare(&case, random_cut(&case, 3, Some(4)));
    }

    #[test]
    fn rows_fill_their_room_and_no_more() {
        // Every other granule, by slashes alone: the most runs a row can have.
        let mut case = Case::new([1, 1, 1], &[(1, 1008)], rules());
        case.rules[0].sink = 0;
        case.rules[0].window = 1;
        case.layout.slashes = 63;
        let mut cut = random_cut(&case, 1, Some(2));
        let at = case.layout.slashes_at();
        cut.lists[1] = 31;
        for i in 0..31 {
            cut.lists[at + i] = 2 + 2 * i as u32;
        }
        compare(&case, cut.clone());
        let (built, layout) = (
            selection::rebuilt(&case, cut),
            TableLayout::new(&case.shape, &case.layout),
        );
        assert_eq!(built.table[layout.rows_at + 1], 32);
        let ranges = &built.table[layout.ranges_at..layout.columns_at];
        assert!(ranges.iter().all(|word| *word != UNTOUCHED));
    }
}
