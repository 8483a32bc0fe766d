//! Cutting scores to columns, slashes, blocks and a choice: CPU implementations against plain rules
//! written here, kernels against CPU implementations bit for bit.

use proptest::prelude::*;
use sparse_accelerate_contract::{BLOCK, Prices, Rules, Thresholds};
use sparse_accelerate_tests::selection::{self, Case, Cut, Scores, rules};

fn f(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

fn lists(case: &Case, cut: &Cut, index: usize) -> (Vec<usize>, Vec<usize>) {
    let stride = case.layout.stride();
    let (columns, slashes) = case.layout.read(&cut.lists[index * stride..][..stride]);
    let wide = |list: &[u32]| list.iter().map(|x| *x as usize).collect();
    (wide(columns), wide(slashes))
}

/// Entries of at least `wanted` and, with bounds rising by eighths of octaves, no more than `most`.
fn kept(scores: &[f64], wanted: f64, most: usize) -> Vec<usize> {
    let above = |bound: f64| -> Vec<usize> {
        let keep = |i: &usize| scores[*i] > 0.0 && scores[*i] >= wanted.max(bound);
        (0..scores.len()).filter(keep).collect()
    };
    let bounds =
        (-126..40).flat_map(|e| (0..8).map(move |k| 2f64.powi(e) * (1.0 + k as f64 / 8.0)));
    std::iter::once(0.0)
        .chain(bounds)
        .map(above)
        .find(|kept| kept.len() <= most)
        .expect("the highest bound keeps nothing")
}

fn check_columns(case: &Case, scores: &Scores, cut: &Cut) {
    let (shape, sharing) = (&case.shape, case.shape.heads_per_index());
    let buckets = shape.slash_buckets();
    for index in 0..case.indexes() {
        let (b, rules) = (
            index / shape.index_heads,
            case.rules[index % shape.index_heads],
        );
        let (keys, rows) = (case.spans[b].kv_len, case.probes(b) as f64);
        let head = |a: usize| index * sharing + a;
        let column = |a: usize, j: usize| f64::from(scores.columns[a * shape.keys + j]);
        let slash = |a: usize, s: usize| f64::from(scores.slashes[a * buckets + s]);
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);

        let of_columns: Vec<f64> = (0..keys)
            .map(|j| match j < rules.sink as usize {
                true => 0.0,
                false => most(&mut (2 * head(0)..2 * head(sharing)).map(|a| column(a, j))),
            })
            .collect();
        let of_slashes: Vec<f64> = (0..buckets)
            .map(|s| most(&mut (2 * head(0)..2 * head(sharing)).map(|a| slash(a, s))))
            .collect();
        let (columns, slashes) = lists(case, cut, index);
        // The most keys that a row sees.
        let seen = (0..keys).filter(|j| case.sees(keys - 1, *j)).count() as f64;
        let wanted = f64::from(case.thresholds.column) / seen;
        let room = |rule: u32, room: usize| (rule as usize).min(room);
        assert_eq!(
            columns,
            kept(
                &of_columns,
                wanted,
                room(rules.columns, case.layout.columns)
            ),
            "columns of index head {index}"
        );
        let wanted = f64::from(case.thresholds.slash) * 80.0 / seen * rows * 2f64.powi(20);
        assert_eq!(
            slashes,
            kept(
                &of_slashes,
                wanted,
                room(rules.slashes, case.layout.slashes)
            ),
            "slashes of index head {index}"
        );

        for a in 2 * head(0)..2 * head(sharing) {
            let local = 1.0 - (0..keys).map(|j| column(a, j)).sum::<f64>();
            let by_columns: f64 = columns.iter().map(|j| column(a, *j)).sum();
            let by_slashes: f64 = slashes.iter().map(|s| slash(a, *s)).sum();
            let apart = 1.0 - (by_columns / (1.0 - local).max(1e-9)).min(1.0);
            let both = local + by_columns + by_slashes / rows / 2f64.powi(20) * apart;
            let near = |word: usize, expected: f64| {
                let got = f(cut.covered[a * 2 + word]);
                let off = (got - expected.clamp(0.0, 1.0)).abs();
                assert!(off < 1e-5, "covered {a}/{word}: {got}, not {expected}");
            };
            near(0, local);
            near(1, both);
        }
    }
}

/// Every head has its share of the mass, and would not without the lowest bin that is kept; or: exactly
/// what reaches `alpha` of the largest.
fn check_blocks(case: &Case, scores: &Scores, cut: &Cut) {
    let (shape, sharing) = (&case.shape, case.shape.heads_per_index());
    let (rows, width) = (shape.query_blocks(), shape.key_blocks());
    for variant in 0..2 {
        for flat in 0..case.indexes() * rows {
            let (index, t) = (flat / rows, flat % rows);
            let rules = case.rules[index % shape.index_heads];
            let mask = &cut.masks[(variant * case.indexes() * rows + flat) * shape.mask_words()..];
            let has = |j: usize| mask[j / 32] >> (j % 32) & 1 == 1;
            let span = case.spans[index / shape.index_heads];
            let first = span.offset() + t * BLOCK;
            let hidden = |j: usize| !(j * BLOCK..(j + 1) * BLOCK).any(|key| case.sees(first, key));
            let share = |h: usize, j: usize| {
                let at = ((index * sharing + h) * rows + t) * width + j;
                // Blocks before the first visible one are none; those after the row have no share.
                match hidden(j) && j * BLOCK < first {
                    true => 0.0,
                    false => f64::from(scores.shares[at]),
                }
            };
            let rank = |j: usize| (0..sharing).map(|h| share(h, j)).fold(0.0, f64::max);
            let count = (0..width).filter(|j| has(*j)).count();
            let counted = cut.counts[variant * case.indexes() * rows + flat];
            assert_eq!(count, counted as usize, "blocks of row {flat}");
            let highest = (0..width).map(rank).fold(0.0, f64::max);
            if rules.alpha > 0.0 {
                let bound = f64::from(rules.alpha) * highest;
                for j in 0..width {
                    let expected = rank(j) > 0.0 && rank(j) >= bound;
                    assert_eq!(has(j), expected, "row {flat}, block {j}");
                }
                continue;
            }
            let bin = |j: usize| (rank(j) as f32).to_bits() >> 21;
            let lowest = (0..width).filter(|j| has(*j)).map(bin).min();
            let floor = f64::from(rules.floor);
            let mut all_without = true;
            for h in 0..sharing {
                let a = (index * sharing + h) * 4 + variant;
                let covered = f(cut.covered[a]).min(f(cut.covered[a + 2]));
                let needed = ((floor - covered) / (1.0 - covered).max(1e-9)).clamp(0.0, 1.0);
                let total: f64 = (0..width).map(|j| share(h, j)).sum();
                let mass = |least: Option<u32>| -> f64 {
                    let keep = |j: &usize| has(*j) && least.is_none_or(|least| bin(*j) > least);
                    (0..width).filter(keep).map(|j| share(h, j)).sum()
                };
                let slack = 1e-6 + width as f64 * 2f64.powi(-24);
                assert!(
                    mass(None) >= needed * total - slack,
                    "row {flat}, head {h}: {} of {total} kept, {needed} needed",
                    mass(None)
                );
                all_without &= mass(lowest) >= needed * total + slack;
            }
            assert!(count == 0 || !all_without, "row {flat}: more than needed");
            for j in 0..width {
                let expected = rank(j) > 0.0 && lowest.is_some_and(|lowest| bin(j) >= lowest);
                assert_eq!(has(j), expected, "row {flat}: bins are whole");
            }
        }
    }
}

/// The cheapest that meets the floor, by the formulas.
fn check_choice(case: &Case, scores: &Scores, cut: &Cut) {
    let (shape, sharing) = (&case.shape, case.shape.heads_per_index());
    for index in 0..case.indexes() {
        let rules = case.rules[index % shape.index_heads];
        let span = case.spans[index / shape.index_heads];
        let report: Vec<f64> = cut.report[index * 16..][..16]
            .iter()
            .map(|x| f(*x))
            .collect();
        let least = |variant: usize| {
            let of = |a: usize| f(cut.covered[index * sharing * 4 + a]);
            (variant..4 * sharing)
                .step_by(2)
                .map(of)
                .fold(1.0, f64::min)
        };
        let blocks = |variant: usize| -> f64 {
            let from = (variant * case.indexes() + index) * shape.query_blocks();
            let counts = &cut.counts[from..][..shape.query_blocks()];
            counts.iter().map(|c| f64::from(*c)).sum()
        };
        let (columns, slashes) = lists(case, cut, index);
        let rows = span.query_len.div_ceil(64);
        let tiles = |keys: usize| keys.div_ceil(64) as f64;
        let tile = |i: usize| case.tile(index / shape.index_heads, i);
        let causal: f64 = (0..rows)
            .map(|i| {
                let seen = |j: &usize| case.any_sees(&tile(i), *j);
                tiles((0..tile(i).end).filter(seen).count())
            })
            .sum();
        // Sinks count for a tile as far as its first row has not lost them, after its last row too.
        let sinks: f64 = (0..rows)
            .map(|i| {
                let lost = (0..tile(i).start).filter(|j| !case.sees(tile(i).start, *j));
                tiles((rules.sink as usize).saturating_sub(lost.count()))
            })
            .sum();
        let local = shape.window().map_or(rules.window, |w| w.min(rules.window));
        let gathered = |column: &usize| match shape.window() {
            // By the largest that it may be: every index row takes all of them.
            None => rows,
            Some(_) => (0..rows)
                .filter(|i| case.any_sees(&tile(*i), *column))
                .count(),
        };
        let gathered: usize = columns.iter().map(gathered).sum();
        let rows = rows as f64;
        let band = sinks + rows * (f64::from(local.div_ceil(64)) + 1.0);
        let slashed = band + (rows * slashes.len() as f64 * 1.5).floor();
        let cost = |tiles: f64, columns: usize| {
            let gathered = f64::from(case.prices.column) * columns as f64 / 64.0;
            f64::from(case.prices.row) * rows
                + f64::from(case.prices.tile) * tiles.min(causal)
                + gathered
        };
        let promised = |a: f64| {
            if rules.alpha > 0.0 {
                a
            } else {
                a.max(f64::from(rules.floor))
            }
        };
        let candidates = [
            (f64::from(case.prices.dense_tile) * causal, 1.0),
            (cost(band, 0), least(0)),
            (cost(slashed, gathered), least(1)),
            (cost(band + 4.0 * blocks(0), 0), promised(least(0))),
            (
                cost(slashed + 4.0 * blocks(1), gathered),
                promised(least(1)),
            ),
        ];
        let allowed = |i: usize| rules.allowed >> i & 1 == 1;
        let dense = allowed(0) || rules.allowed & 31 == 0;
        let floor = f64::from(rules.floor) - 1e-7;
        let meets = |i: usize| allowed(i) && (i > 2 || candidates[i].1 >= floor);
        let cheapest = (1..5)
            .filter(|i| meets(*i))
            .min_by(|a, b| candidates[*a].0.total_cmp(&candidates[*b].0));
        let lse = &scores.lse[index * sharing * 128..][..sharing * 128];
        let finite = lse.iter().all(|x| x.is_finite());
        let expected = match (dense, finite, cheapest) {
            (true, false, _) => (0, 3),
            (true, _, None) => (0, 2),
            (true, _, Some(i)) if candidates[i].0 < candidates[0].0 => (i, 0),
            (true, ..) => (0, 1),
            (false, true, Some(i)) => (i, 0),
            (false, false, Some(i)) => (i, 3),
            (false, _, None) => {
                let best = (1..5)
                    .filter(|i| allowed(*i))
                    .max_by(|a, b| {
                        let ((cost_a, a_recall), (cost_b, b_recall)) =
                            (candidates[*a], candidates[*b]);
                        let recall = a_recall.total_cmp(&b_recall);
                        recall.then(cost_b.total_cmp(&cost_a)).then(b.cmp(a))
                    })
                    .expect("a sparse pattern is allowed");
                (best, if finite { 2 } else { 3 })
            }
        };
        let got = (report[0] as usize, report[1] as usize);
        assert_eq!(got, expected, "index head {index} of {candidates:?}");
        assert_eq!(cut.gates[index], u32::from(got.0 == 0));
        let near = |word: usize, expected: f64| {
            let close = (report[word] - expected).abs() <= 1e-5 * expected.abs() + 1e-6;
            assert!(close, "report {word}: {}, not {expected}", report[word]);
        };
        near(2, candidates[got.0].1);
        assert!(report[3].is_nan() && report[4].is_nan());
        let listed = |n: usize| {
            if got.0 == 2 || got.0 == 4 {
                n as f64
            } else {
                0.0
            }
        };
        near(5, listed(columns.len()));
        near(6, listed(slashes.len()));
        near(7, if got.0 > 2 { blocks(got.0 - 3) } else { 0.0 });
        for (i, (cost, _)) in candidates.iter().enumerate() {
            match if i == 0 { dense } else { meets(i) } {
                true => near(8 + i, *cost),
                false => assert_eq!(report[8 + i], f64::INFINITY),
            }
        }
        near(13, least(0));
        near(14, least(1));
    }
}

fn length() -> impl Strategy<Value = (usize, usize)> {
    let rows = prop_oneof![Just(1usize), 62usize..67, 126usize..131, 1usize..700];
    let prefix = prop_oneof![Just(0usize), Just(128), 1usize..900];
    (rows, prefix).prop_map(|(n, p)| (n, n + p))
}

/// A window of visible keys, in half of the cases.
fn window() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![
        Just(None),
        Just(None),
        Just(Some(1)),
        (1u32..1000).prop_map(Some)
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let heads = prop_oneof![
        Just([1usize, 1, 1]),
        Just([4, 2, 2]),
        Just([4, 2, 4]),
        Just([3, 1, 1]),
        Just([7, 1, 1])
    ];
    let rules = (
        prop_oneof![Just(31u32), 0u32..32],
        0u32..200,
        1u32..300,
        0u32..60,
        0u32..16,
        prop_oneof![Just(1.0f32), Just(0.0), 0.3f32..1.0],
        prop_oneof![Just(0.0f32), Just(0.0), 0.01f32..1.0],
    )
        .prop_map(|r| Rules {
            accepted: 0.0,
            allowed: r.0,
            sink: r.1,
            window: r.2,
            columns: r.3,
            slashes: r.4,
            floor: r.5,
            alpha: r.6,
        });
    let thresholds =
        (0.0f32..20.0, 0.0f32..4.0).prop_map(|(column, slash)| Thresholds { column, slash });
    let prices = (0.2f32..2.0, 0.1f32..2.0, 0.0f32..2.0, 0.0f32..2.0).prop_map(|c| Prices {
        dense_tile: c.0,
        tile: c.1,
        column: c.2,
        row: c.3,
    });
    let lengths = prop::collection::vec(length(), 1..4);
    (heads, lengths, rules, thresholds, prices, window()).prop_map(
        |(heads, lengths, rules, thresholds, prices, window)| Case {
            thresholds,
            prices,
            ..Case::new(heads, &lengths, rules).under(window)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_cpu_follows_the_rules(case in case(), seed in any::<u64>(), broken in 0usize..4) {
        let mut scores = case.scores(seed, false);
        if broken == 0 {
            let at = seed as usize % scores.lse.len();
            scores.lse[at] = f32::NEG_INFINITY;
        }
        let cut = selection::by_cpu(&case, &scores);
        check_columns(&case, &scores, &cut);
        check_blocks(&case, &scores, &cut);
        check_choice(&case, &scores, &cut);
    }

    #[test]
    fn strange_scores_are_never_kept(case in case(), seed in any::<u64>()) {
        let scores = case.scores(seed, true);
        let cut = selection::by_cpu(&case, &scores);
        let sharing = case.shape.heads_per_index();
        for index in 0..case.indexes() {
            for j in lists(&case, &cut, index).0 {
                let of = |a: usize| scores.columns[a * case.shape.keys + j];
                let sound = |x: f32| x.is_normal() && x > 0.0;
                prop_assert!((2 * index * sharing..2 * (index + 1) * sharing).any(|a| sound(of(a))));
            }
        }
        for word in &cut.covered {
            prop_assert!((0.0..=1.0).contains(&f(*word)));
        }
    }
}

/// Entries above a uniform background are kept, and at a density that little else explains.
#[test]
fn planted_columns_slashes_and_blocks_are_kept() {
    let case = Case::new([4, 2, 2], &[(2048, 4096)], rules());
    let shape = &case.shape;
    let (keys, buckets, width) = (shape.keys, shape.slash_buckets(), shape.key_blocks());
    let mut scores = case.scores(3, false);
    scores.columns.fill(0.1 / keys as f32);
    scores.slashes.fill((64 << 20) / (20 * buckets as u32));
    let (columns, slashes, blocks) = ([7, 63, 64, 1000, 3333], [5, 60, 200], [0, 9, 14]);
    for head in 0..4 {
        // Each is seen by one query head of its index head, and in one group, alone.
        for (i, j) in columns.iter().enumerate() {
            if i % 2 == head % 2 {
                scores.columns[(head * 2 + i / 2 % 2) * keys + j] = 0.05;
            }
        }
        for (i, s) in slashes.iter().enumerate() {
            if i % 2 == head % 2 {
                scores.slashes[(head * 2 + i / 2 % 2) * buckets + s] = 5 << 20;
            }
        }
        for t in 0..shape.query_blocks() {
            let row = &mut scores.shares[(head * shape.query_blocks() + t) * width..][..width];
            row.fill(0.0);
            row[..16].fill(0.04 / 13.0);
            for j in blocks {
                row[j] = 0.32;
            }
        }
    }
    let cut = selection::by_cpu(&case, &scores);
    for index in 0..2 {
        assert_eq!(lists(&case, &cut, index).0, columns);
        assert_eq!(lists(&case, &cut, index).1, slashes);
    }
    // 0.9 is wanted; of what sinks and window leave, 0.96 lies in the planted three.
    let rows = 2 * shape.query_blocks();
    for row in 0..rows {
        let mask = cut.masks[row * shape.mask_words()];
        let none_wanted = cut.counts[row] == 0;
        assert!(
            none_wanted || mask == 1 | 1 << 9 | 1 << 14,
            "row {row}: {mask:#b}"
        );
    }
    let mut hungry = case.clone();
    hungry.rules = vec![
        Rules {
            floor: 0.95,
            ..rules()
        };
        2
    ];
    scores.columns.fill(0.999 / keys as f32);
    let cut = selection::by_cpu(&hungry, &scores);
    assert!(cut.masks[..rows].iter().all(|m| *m == 1 | 1 << 9 | 1 << 14));
}

#[test]
fn nothing_scored_keeps_nothing_and_covers_all() {
    let case = Case::new([2, 1, 1], &[(1000, 3000)], rules());
    let mut scores = case.scores(1, false);
    scores.columns.fill(0.0);
    scores.slashes.fill(0);
    scores.shares.fill(0.0);
    let cut = selection::by_cpu(&case, &scores);
    assert_eq!(lists(&case, &cut, 0), (vec![], vec![]));
    assert!(cut.covered.iter().all(|x| f(*x) == 1.0));
    assert!(cut.masks.iter().chain(&cut.counts).all(|x| *x == 0));
    assert_eq!(f(cut.report[0]), 1.0, "triangular");
}

#[cfg(any(feature = "wgpu", feature = "cuda-runtime"))]
mod kernels {
    use super::*;
    use sparse_accelerate_tests::launches;

    fn compare(case: &Case, hostile: bool) {
        let scores = case.scores(17, hostile);
        let expected = selection::by_cpu(case, &scores);
        for (name, client) in launches::clients() {
            let name = format!("{name}/{:?}", case.shape);
            let got = selection::on_device(&name, &client, case, &scores, None);
            selection::assert_same(&name, &got, &expected);
        }
    }

    #[test]
    fn kernels_have_the_bits_of_the_cpu() {
        let ragged = [(1, 1), (63, 64), (129, 1000), (65, 65), (256, 700)];
        for heads in [[1, 1, 1], [4, 2, 2], [4, 2, 4], [7, 1, 1], [6, 2, 2]] {
            for hostile in [false, true] {
                compare(&Case::new(heads, &ragged, rules()), hostile);
            }
        }
        for length in [(1, 1), (127, 127), (64, 64), (128, 130), (1000, 5000)] {
            compare(&Case::new([3, 3, 3], &[length], rules()), false);
        }
    }

    #[test]
    fn kernels_have_the_bits_of_the_cpu_under_other_rules() {
        let lengths = [(300, 2500), (130, 2049)];
        let mut case = Case::new([4, 4, 4], &lengths, rules());
        case.rules[0].alpha = 0.3;
        case.rules[1].floor = 1.0;
        case.rules[1].allowed = 0b11000;
        case.rules[2].allowed = 0b00110;
        case.rules[3].columns = 3;
        case.rules[3].slashes = 1;
        case.rules[3].allowed = 0b10000;
        compare(&case, false);
        compare(&case, true);
        case.thresholds = Thresholds {
            column: 0.0,
            slash: 0.0,
        };
        case.dense_from = vec![2300, 0];
        compare(&case, false);
        case.rules[3].columns = 0;
        case.layout.columns = 0;
        compare(&case, true);
    }

    #[test]
    fn kernels_have_the_bits_of_the_cpu_under_a_window() {
        let ragged = [(1, 1), (63, 64), (129, 1000), (65, 65), (256, 700)];
        for window in [1, 7, 64, 100, 130, 500, 999, 1000] {
            for heads in [[4, 2, 2], [3, 3, 3]] {
                let mut case = Case::new(heads, &ragged, rules()).under(Some(window));
                compare(&case, window == 100);
                case.rules[0].alpha = 0.3;
                case.rules[1].allowed = 0b11110;
                case.rules[1].sink = 300;
                compare(&case, window == 64);
            }
        }
    }

    #[test]
    fn long_rows_have_the_bits_of_the_cpu() {
        // More positions than one stretch of a scan, more blocks than one stretch of mask words.
        let rules = Rules {
            columns: 700,
            slashes: 200,
            ..rules()
        };
        let mut case = Case::new([2, 1, 1], &[(200, 140_000)], rules);
        case.layout.columns = 700;
        case.layout.slashes = 200;
        case.thresholds.slash = 0.1;
        compare(&case, false);
        compare(&case.under(Some(70_001)), false);
    }

    #[test]
    fn equal_inputs_give_equal_bits() {
        let case = Case::new([4, 2, 2], &[(700, 3000)], rules());
        let scores = case.scores(5, true);
        for (name, client) in launches::clients() {
            let run = || selection::on_device(name, &client, &case, &scores, None);
            let first = run();
            for _ in 0..3 {
                selection::assert_same(name, &run(), &first);
            }
        }
    }
}
