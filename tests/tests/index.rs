//! The universal index: invariants by property tests, and every builder against plain sets.

use proptest::prelude::*;
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, BlockCluster, FixedBlocks, Heads,
    IntervalSlash, Pattern, Reason, Span, Triangular, Visible,
    index::{self, QUERY_TILE, RANGE_ALIGN, TileIndex},
};

fn spans() -> impl Strategy<Value = Vec<Span>> {
    let len = prop_oneof![Just(1usize), 62usize..67, 120usize..135, 1usize..400];
    let prefix = prop_oneof![Just(0usize), Just(1), Just(64), Just(100), 0usize..300];
    let span = (len, prefix, 0usize..80).prop_map(|(n, p, rest)| Span {
        query_len: n,
        kv_len: n + p,
        prompt_len: n + p + rest,
    });
    prop::collection::vec(span, 1..4)
}

/// Calls `f(sequence, span, query row, absolute position)` for every query row.
fn rows(spans: &[Span], mut f: impl FnMut(usize, &Span, usize, usize)) {
    for (b, span) in spans.iter().enumerate() {
        for i in 0..span.query_len {
            f(b, span, i, span.offset() + i);
        }
    }
}

fn kept(index: &TileIndex) -> u64 {
    let mut n = 0;
    for h in 0..index.heads() {
        rows(index.spans(), |b, span, i, _| {
            n += (0..span.kv_len).filter(|&j| index.sees(b, h, i, j)).count() as u64;
        });
    }
    n / index.heads() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn triangular_is_exactly_its_definition(
        spans in spans(), sink in 0usize..150, window in 1usize..150, last in 0usize..150,
    ) {
        let index = index::triangular(&spans, &Triangular { sink, window, last }).expect("index");
        index.validate().expect("invariants");
        let mut expected = 0;
        rows(&spans, |b, span, i, p| {
            for j in 0..span.kv_len {
                let dense = p + last >= span.prompt_len;
                let sees = j <= p && (j < sink || p - j < window || dense);
                expected += u64::from(sees);
                assert_eq!(index.sees(b, 0, i, j), sees, "row {i} at {p}, key {j}");
            }
        });
        prop_assert_eq!(index.kept_pairs(), expected);
    }

    #[test]
    fn full_sees_every_causal_key(spans in spans()) {
        let index = index::full(&spans).expect("index");
        rows(&spans, |b, span, i, p| {
            for j in 0..span.kv_len {
                assert_eq!(index.sees(b, 0, i, j), j <= p);
            }
        });
        prop_assert_eq!(index.density(), 1.0);
    }

    #[test]
    fn interval_slash_covers_its_sets_with_bounded_overshoot(
        spans in spans(),
        columns in prop::collection::vec(0usize..500, 0..20),
        offsets in prop::collection::vec(0usize..500, 0..8),
    ) {
        let lists = [columns.clone()];
        let index = index::interval_slash(&spans, &lists, std::slice::from_ref(&offsets)).expect("index");
        index.validate().expect("invariants");
        let reach = QUERY_TILE + RANGE_ALIGN;
        rows(&spans, |b, span, i, p| {
            for j in 0..span.kv_len {
                let exact = j <= p && (columns.contains(&j) || offsets.contains(&(p - j)) || j == p);
                let sees = index.sees(b, 0, i, j);
                assert!(!exact || sees, "row {p} misses key {j}");
                let near = || offsets.iter().chain([&0]).any(|&o| p.saturating_sub(j).abs_diff(o) < reach);
                assert!(!sees || exact || near(), "row {p} sees key {j} for no reason");
            }
        });
        prop_assert_eq!(index.kept_pairs(), kept(&index));
    }

    #[test]
    fn block_cluster_is_its_blocks_and_the_diagonal_tile(
        tiles in 1usize..8, prefix in 0usize..4, seed in any::<u64>(), heads in 1usize..4,
    ) {
        let spans = [Span {
            query_len: tiles * QUERY_TILE - 7,
            kv_len: (tiles + prefix) * QUERY_TILE - 7,
            prompt_len: 2000,
        }];
        let keep = |h: usize, q: usize, k: usize| {
            (seed ^ (h * 31 + q * 17 + k) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1
        };
        let block = 2 * QUERY_TILE;
        let index = index::block_cluster(&spans, heads, block, keep).expect("index");
        for h in 0..heads {
            rows(&spans, |b, span, i, p| {
                for j in 0..span.kv_len {
                    let own = j / QUERY_TILE == p / QUERY_TILE;
                    let sees = j <= p && (own || keep(h, p / block, j / block));
                    assert_eq!(index.sees(b, h, i, j), sees, "head {h}, row {p}, key {j}");
                }
            });
        }
        prop_assert_eq!(index.kept_pairs(), kept(&index));
    }

    #[test]
    fn fixed_blocks_have_the_density_within_a_block_a_row(
        tiles in 1usize..40, rest in 0usize..QUERY_TILE, wide in any::<bool>(),
        density in 0.0f64..=1.0, seed in any::<u64>(), heads in 1usize..3,
    ) {
        let block = if wide { 2 * QUERY_TILE } else { QUERY_TILE };
        let pattern = FixedBlocks { heads, block, density, seed };
        let span = Span::whole(tiles * QUERY_TILE - rest);
        let index = index::fixed_blocks(&[span], &pattern).expect("index");
        prop_assert_eq!(&index, &index::fixed_blocks(&[span], &pattern).expect("index"));
        prop_assert_eq!(index.kept_pairs(), kept(&index));
        for h in 0..heads {
            for row in 0..span.kv_len / block {
                let before: Vec<bool> =
                    (0..row).map(|kb| index.sees(0, h, row * block, kb * block)).collect();
                // All of a block is kept or none, for every row of the query block, and the diagonal.
                for i in row * block..(row + 1) * block {
                    for j in 0..span.kv_len {
                        let sees = j <= i && before.get(j / block).copied().unwrap_or(true);
                        assert_eq!(index.sees(0, h, i, j), sees, "head {h}, row {i}, key {j}");
                    }
                }
                let diagonal = block * (block + 1) / 2;
                let pairs = |blocks: usize| (blocks * block * block + diagonal) as f64;
                let whole = before.iter().filter(|kept| **kept).count();
                let asked = density * pairs(row);
                prop_assert!(row == 0 || before[0]);
                prop_assert!(
                    (pairs(whole) - asked).abs() <= (block * block) as f64 || whole <= 1,
                    "row {} keeps {} blocks of {} at density {}", row, whole, row, density
                );
            }
        }
    }

    #[test]
    fn fixed_blocks_do_not_depend_on_chunks(
        tiles in 3usize..20, cut in 1usize..10, density in 0.0f64..=1.0, seed in any::<u64>(),
    ) {
        let block = 2 * QUERY_TILE;
        let pattern = FixedBlocks { heads: 2, block, density, seed };
        let len = tiles * block;
        let start = cut.min(tiles - 1) * block;
        let whole = index::fixed_blocks(&[Span::whole(len)], &pattern).expect("index");
        let span = Span { query_len: len - start, kv_len: len, prompt_len: len };
        let chunk = index::fixed_blocks(&[span], &pattern).expect("index");
        for h in 0..2 {
            for tile in 0..chunk.tiles() {
                let of_whole = whole.row(0, h, start / QUERY_TILE + tile);
                prop_assert_eq!(chunk.row(0, h, tile), of_whole);
            }
        }
    }

    #[test]
    fn any_ranges_and_columns_become_a_valid_index_or_are_refused(
        spans in spans(),
        ranges in prop::collection::vec((0usize..700, 0usize..700), 0..12),
        columns in prop::collection::vec(0usize..700, 0..40),
    ) {
        let mut builder = index::Builder::new(&spans, 2, None).expect("builder");
        for (b, span) in spans.iter().enumerate() {
            let keys = span.kv_len;
            let fits = |&(start, end): &(usize, usize)| {
                start == end || (start < end && start < keys)
            };
            let good: Vec<_> = ranges.iter().copied().filter(fits).collect();
            let held: Vec<_> = columns.iter().copied().filter(|c| *c < keys).collect();
            let all_good = good.len() == ranges.len() && held.len() == columns.len();
            for h in 0..2 {
                for t in 0..span.query_len.div_ceil(QUERY_TILE) {
                    let at = (b, h, t);
                    let all = builder.set(at, ranges.iter().copied(), columns.iter().copied());
                    prop_assert_eq!(all.is_ok(), all_good);
                    builder.set(at, good.iter().copied(), held.iter().copied()).expect("good");
                }
            }
        }
        let index = builder.finish().expect("invariants");
        rows(&spans, |b, _, i, p| {
            assert!(index.sees(b, 1, i, p), "row {p} does not see itself");
            let first = p - i % QUERY_TILE;
            for &c in columns.iter().filter(|&&c| c < first) {
                assert!(index.sees(b, 0, i, c), "row {p} misses column {c}");
            }
        });
    }
}

#[test]
fn entries_out_of_bounds_are_refused() {
    let spans = [Span::whole(65), Span::whole(10)];
    let mut builder = index::Builder::new(&spans, 2, None).expect("builder");
    let none: [(usize, usize); 0] = [];
    for (at, text) in [
        ((2, 0, 0), "sequence is 2, but must be below 2"),
        ((0, 2, 0), "head is 2, but must be below 2"),
        ((0, 0, 2), "tile is 2, but must be below 2"),
    ] {
        let error = builder.set(at, none, []).expect_err("out of bounds");
        assert!(error.to_string().contains(text), "{error}");
    }
    // The second sequence has one tile.
    builder.set((1, 0, 1), none, []).expect("nothing to set");
    for (range, text) in [
        ((20, 10), "range is [20, 10)"),
        ((65, 70), "range is [65, 70)"),
    ] {
        let error = builder.set((0, 0, 0), [range], []).expect_err("range");
        assert!(error.to_string().contains(text), "{error}");
    }
    let error = builder.set((0, 0, 0), none, [65]).expect_err("column");
    assert!(error.to_string().contains("column is 65"), "{error}");
    // Ends past the tile are cut.
    builder.set((0, 0, 0), [(0, 1000)], [64]).expect("cut");
}

#[test]
fn a_row_never_set_is_refused() {
    let builder = index::Builder::new(&[Span::whole(65)], 1, None).expect("builder");
    let error = builder.finish().expect_err("rows are empty");
    assert!(
        matches!(error, AttentionError::Index { row: 0, .. }),
        "{error}"
    );
    let place = "tile 0 of head 0 of sequence 0 has no ranges";
    assert!(error.to_string().contains(place), "{error}");
}

#[test]
fn blocks_off_the_tile_grid_are_refused() {
    let odd = Span {
        query_len: 10,
        kv_len: 30,
        prompt_len: 30,
    };
    for (spans, block) in [(Span::whole(100), 0), (Span::whole(100), 96), (odd, 64)] {
        let error = index::block_cluster(&[spans], 1, block, |_, _, _| true).expect_err("off grid");
        assert!(error.to_string().contains("a multiple of 64"), "{error}");
    }
}

const HEADS: Heads = Heads::new(4, 2, 64);

#[test]
fn plans_decide_and_say_why() {
    let device = burn::tensor::Device::flex();
    let plan = |settings: &AttentionSettings, len| {
        AttentionPlan::new(
            settings,
            &[Span::whole(len)],
            HEADS,
            Visible::Causal,
            &device,
        )
        .expect("plan")
    };
    let auto = AttentionSettings {
        min_sparse_len: 3000,
        pattern: Pattern::Triangular(Triangular::default()),
        ..Default::default()
    };
    let below = *plan(&auto, 2999).decision();
    assert_eq!(
        below.reason,
        Reason::BelowThreshold {
            prompt: 2999,
            threshold: 3000
        }
    );
    assert_eq!(below.density, Some(1.0));
    let above = *plan(&auto, 3000).decision();
    assert_eq!(
        above.reason,
        Reason::AtOrAboveThreshold {
            prompt: 3000,
            threshold: 3000
        }
    );
    assert!(above.density < Some(1.0));
    let sparse = AttentionSettings::sparse(auto.pattern);
    assert_eq!(
        plan(&sparse, 1000).decision().reason,
        Reason::PatternKeepsAll
    );
    assert_eq!(
        plan(&sparse, 2000).decision().reason,
        Reason::SparseRequested
    );
    assert_eq!(
        plan(&AttentionSettings::dense(), 9000).decision().reason,
        Reason::DenseRequested
    );
}

#[test]
fn bad_parameters_are_errors() {
    let device = burn::tensor::Device::flex();
    let error = |pattern| {
        let settings = AttentionSettings::sparse(pattern);
        let spans = [Span::whole(100)];
        AttentionPlan::new(&settings, &spans, HEADS, Visible::Causal, &device)
            .expect_err("refused")
            .to_string()
    };
    let listed = error(Pattern::IntervalSlash(IntervalSlash {
        columns: 1 << 20,
        ..Default::default()
    }));
    assert!(listed.contains("columns is 1048576"), "{listed}");
    let alpha = error(Pattern::BlockCluster(BlockCluster { alpha: 2.0 }));
    assert!(alpha.contains("alpha is 2"), "{alpha}");
    let window = error(Pattern::Triangular(Triangular {
        window: 0,
        ..Default::default()
    }));
    assert!(
        window.contains("window is 0, but must be at least 1"),
        "{window}"
    );
    for spans in [
        vec![],
        vec![Span {
            query_len: 0,
            kv_len: 4,
            prompt_len: 4,
        }],
        vec![Span {
            query_len: 5,
            kv_len: 4,
            prompt_len: 4,
        }],
    ] {
        let refused = AttentionPlan::new(
            &AttentionSettings::dense(),
            &spans,
            HEADS,
            Visible::Causal,
            &device,
        );
        assert!(matches!(refused, Err(AttentionError::Shape { .. })));
    }
}

#[test]
fn settings_round_trip_and_refuse_unknown_fields() {
    let text = r#"{"mode":"sparse","pattern":{"kind":"triangular","sink":8,"window":99,"last":3}}"#;
    let settings: AttentionSettings = serde_json::from_str(text).expect("settings");
    assert_eq!(
        settings.pattern,
        Pattern::Triangular(Triangular {
            sink: 8,
            window: 99,
            last: 3
        })
    );
    let again = serde_json::to_string(&settings).expect("json");
    assert_eq!(
        serde_json::from_str::<AttentionSettings>(&again).expect("again"),
        settings
    );
    let typo = r#"{"pattern":{"kind":"triangular","sinks":8}}"#;
    assert!(serde_json::from_str::<AttentionSettings>(typo).is_err());
    let toml: AttentionSettings =
        toml::from_str("min_sparse_len = 5\n[pattern]\nkind = \"dense\"").expect("toml");
    assert_eq!((toml.min_sparse_len, toml.pattern), (5, Pattern::Dense));
}
