//! Selections under a window of visible keys, on every backend: what is chosen is visible, the output is
//! attention over it by the formula in f64, and nothing that the window hides changes a bit.

use std::ops::Range;

use burn::tensor::{DType, Tensor};
use sparse_accelerate::{
    AttentionSettings, BlockCluster, CacheShape, Choice, Dynamic, FixedBlocks, HeadRecord,
    IntervalSlash, KvCache, Pattern, PooledKeys, Selection, Span, attend_selected,
    index::{self, QUERY_TILE},
    select::{BLOCK, Correction, GRANULE, Granularity, Why},
};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    problem::{Inputs, Problem, floats},
};

use crate::{
    planted::{COLUMNS, Case, HEADS, SLASH, planted, random},
    ragged, rounding,
    run::{Ran, dense, first, read, selection, settings, tensors},
};

/// Tokens of the planted prompt, and a window that is longer than its slash.
const LEN: usize = 1500;
const WINDOW: u32 = 800;

fn prompt(dtype: DType) -> Case {
    under(planted(dtype, LEN, 0), WINDOW)
}

fn under(case: Case, window: u32) -> Case {
    Case {
        problem: Problem {
            window: Some(window),
            ..case.problem
        },
        ..case
    }
}

/// As [`selection`]; a window has fewer keys for a slash to stand out from.
fn windowed() -> Selection {
    Selection {
        slash_share: 2.0,
        ..selection()
    }
}

fn run(backend: &Backend, case: &Case, settings: &AttentionSettings) -> Ran {
    let plan = case.problem.plan(settings, &backend.device);
    assert!(plan.selects());
    let [query, key, value] = tensors(backend, case);
    let selected = attend_selected(query, &key, &value, None, &first(&plan)).expect("selected");
    read(selected, case, &settings.selection)
}

/// Tells whether query head `h` attended to a key: in the index, or anywhere in the window if it was dense.
fn attends(case: &Case, ran: &Ran, (b, h): (usize, usize), i: usize, j: usize) -> bool {
    let heads = ran.index.heads();
    let head = h * heads / HEADS[0];
    let record = &ran.heads[b * heads + head];
    let causal = j <= case.problem.spans[b].offset() + i;
    let visible = causal && case.problem.in_window(b, i, j);
    visible && (record.choice == Choice::Dense || ran.index.sees(b, head, i, j))
}

/// Checks sampled rows of every head against the formula over the keys that it attended to, and that no
/// tile's row of the index names a granule or a column that none of its rows sees.
fn assert_exact(name: &str, case: &Case, ran: &Ran) {
    let (p, d) = (&case.problem, HEADS[2]);
    let scale = 1.0 / (d as f64).sqrt();
    for (b, span) in p.spans.iter().enumerate() {
        for h in 0..HEADS[0] {
            let kv = (b * HEADS[1] + h * HEADS[1] / HEADS[0]) * p.keys();
            let sampled = (0..span.query_len).filter(|i| i % 61 == 0 || i + 1 == span.query_len);
            for i in sampled {
                let at = (b * HEADS[0] + h) * p.rows() + i;
                let query = &case.inputs.query[at * d..][..d];
                let keys: Vec<usize> = (0..span.kv_len)
                    .filter(|j| attends(case, ran, (b, h), i, *j))
                    .collect();
                let logit = |j: &usize| {
                    let key = &case.inputs.key[(kv + j) * d..][..d];
                    let terms = query.iter().zip(key);
                    scale
                        * terms
                            .map(|(q, k)| f64::from(*q) * f64::from(*k))
                            .sum::<f64>()
                };
                let logits: Vec<f64> = keys.iter().map(logit).collect();
                let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = logits.iter().map(|z| (z - highest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let near = |what: &str, got: f32, want: f64| {
                    let off = (f64::from(got) - want).abs();
                    assert!(
                        off < 2e-4 * want.abs().max(1.0),
                        "{name}: {what} of row {i} of head {h} of {b}: {got}, not {want}"
                    );
                };
                near("the sum", ran.lse[at], highest + total.ln());
                for e in 0..d {
                    let value = |j: &usize| f64::from(case.inputs.value[(kv + j) * d + e]);
                    let terms = keys.iter().zip(&weights);
                    let want = terms.map(|(j, w)| w / total * value(j)).sum::<f64>();
                    near("an element", ran.out[at * d + e], want);
                }
            }
        }
        for head in 0..ran.index.heads() {
            for tile in 0..span.query_len.div_ceil(QUERY_TILE) {
                let row = ran.index.row(b, head, tile);
                // The tile's first row sees the earliest keys.
                let seen = |key: u32| p.in_window(b, tile * QUERY_TILE, key as usize);
                let name = format!("{name}: tile {tile} of head {head} of {b}");
                let first = row.ranges[0];
                assert!(seen(first + GRANULE as u32 - 1), "{name} begins at {first}");
                assert!(row.columns.iter().all(|c| seen(*c)), "{name}: columns");
            }
        }
    }
}

#[test]
fn lines_that_a_window_shows_are_kept() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let name = format!("{}/{dtype:?}", backend.name);
            let case = prompt(dtype);
            // Columns and slash are never the same keys; taken as independent they promise too little.
            let selection = Selection {
                recall: 0.6,
                ..cheap(windowed())
            };
            let settings = AttentionSettings {
                pattern: Pattern::IntervalSlash(IntervalSlash::default()),
                ..settings(selection)
            };
            let ran = run(&backend, &case, &settings);
            for head in &ran.heads {
                assert_eq!(head.choice, Choice::IntervalSlash, "{name}: {head:?}");
                assert!(head.density <= 0.5, "{name}: {head:?}");
                assert!(head.recall > 0.95, "{name}: {head:?}");
            }
            for (head, columns) in COLUMNS.iter().enumerate() {
                for i in (0..LEN).step_by(7) {
                    let lines = columns.iter().copied().chain(i.checked_sub(SLASH));
                    for key in lines.filter(|j| *j <= i) {
                        let visible = i - key < WINDOW as usize;
                        let kept = ran.index.sees(0, head, i, key);
                        assert_eq!(kept, visible, "{name}: row {i} of head {head}, key {key}");
                    }
                }
            }
            let dense = dense(&backend, &case);
            ran.assert_bound(&name, &case, &dense, rounding(dtype));
            if dtype == DType::F32 {
                assert_exact(&name, &case, &ran);
            }
        }
    }
}

/// Everything that chooses from the input.
fn patterns() -> [Pattern; 5] {
    let dynamic = |hybrid| {
        Pattern::Dynamic(Dynamic {
            hybrid,
            ..Dynamic::default()
        })
    };
    [
        dynamic(true),
        dynamic(false),
        Pattern::IntervalSlash(IntervalSlash::default()),
        Pattern::BlockCluster(BlockCluster::default()),
        Pattern::Hybrid(Dynamic::default()),
    ]
}

/// Prices under which a sparse choice pays even in short prompts.
fn cheap(selection: Selection) -> Selection {
    let mut selection = selection;
    selection.costs.row = 0.01;
    selection.costs.tile = 0.1;
    selection.costs.column = 0.1;
    selection
}

#[test]
fn the_output_is_attention_over_the_chosen_keys() {
    let whole = planted(DType::F32, 1000, 0);
    for backend in backends::all() {
        let mut sparse = 0;
        for window in [1, 37, 130, 300, 777] {
            for (pattern, granularity) in patterns().into_iter().zip(
                [Granularity::PerKvHead, Granularity::PerQueryHead]
                    .into_iter()
                    .cycle(),
            ) {
                let selection = Selection {
                    recall: 0.5,
                    granularity,
                    ..cheap(windowed())
                };
                let settings = AttentionSettings {
                    pattern,
                    ..settings(selection)
                };
                let name = format!("{}/{window}/{}", backend.name, pattern.name());
                let case = under(whole.clone(), window);
                let ran = run(&backend, &case, &settings);
                assert_exact(&name, &case, &ran);
                let chose = |head: &&HeadRecord| head.choice != Choice::Dense;
                sparse += ran.heads.iter().filter(chose).count();
            }
        }
        assert!(sparse > 20, "{}: {sparse} heads chose", backend.name);
    }
}

#[test]
fn ragged_batches_behind_prefixes_choose_in_the_window() {
    for backend in backends::all() {
        for window in [1, 333, 1199] {
            let selection = Selection {
                recall: 0.3,
                ..cheap(windowed())
            };
            let case = under(ragged(), window);
            let ran = run(&backend, &case, &settings(selection));
            assert_exact(&format!("{}/{window}", backend.name), &case, &ran);
        }
    }
}

#[test]
fn a_floor_of_1_is_dense_in_the_window() {
    for backend in backends::all() {
        for (pattern, window) in patterns().into_iter().zip([50, 333, 701]) {
            let selection = Selection {
                recall: 1.0,
                ..windowed()
            };
            let settings = AttentionSettings {
                pattern,
                ..settings(selection)
            };
            let case = under(ragged(), window);
            let ran = run(&backend, &case, &settings);
            let name = format!("{}/{window}/{}", backend.name, pattern.name());
            assert_exact(&name, &case, &ran);
            let (out, lse) = dense(&backend, &case);
            // Padded rows have an infinite log-sum-exp.
            let near = |(a, b): (&f32, &f32)| a == b || (a - b).abs() < 2e-4 * b.abs().max(1.0);
            assert!(ran.out.iter().zip(&out).all(near), "{name}: outputs");
            assert!(ran.lse.iter().zip(&lse).all(near), "{name}: sums");
        }
    }
}

/// A key that only a few rows in the middle of a chunk look at tells the estimates nothing; the check finds
/// that it is missed, and the head is computed again, in the window.
#[test]
fn a_head_below_its_floor_is_dense_in_the_window() {
    for backend in backends::all() {
        for window in [300, 701] {
            let selection = Selection {
                recall: 0.9,
                ..cheap(windowed())
            };
            let settings = AttentionSettings {
                // Blocks that reach a share of the largest promise nothing: the check alone keeps the floor.
                pattern: Pattern::BlockCluster(BlockCluster { alpha: 0.9 }),
                ..settings(selection)
            };
            let case = under(ragged(), window);
            let ran = run(&backend, &case, &settings);
            let name = format!("{}/{window}", backend.name);
            let fell = |head: &&HeadRecord| head.why == Why::MeasuredBelowFloor;
            assert!(
                ran.heads.iter().any(|head| fell(&head)),
                "{name}: {:?}",
                ran.heads
            );
            assert_exact(&name, &case, &ran);
        }
    }
}

#[test]
fn a_window_of_all_keys_has_the_bits_of_none() {
    let loose = Selection {
        recall: 0.5,
        correction: Correction::Mean,
        ..cheap(windowed())
    };
    for backend in backends::all() {
        for (case, longest) in [(planted(DType::F32, 900, 0), 900), (ragged(), 1200)] {
            let none = run(&backend, &case, &settings(loose));
            for window in [longest, longest + 1, 1 << 30] {
                let ran = run(&backend, &under(case.clone(), window), &settings(loose));
                assert_eq!(ran, none, "{}/{window}", backend.name);
            }
            // One key fewer is a window, of which the last row alone loses a key.
            let ran = run(
                &backend,
                &under(case.clone(), longest - 1),
                &settings(loose),
            );
            assert_ne!(ran.index.visible(), none.index.visible());
        }
    }
}

#[test]
fn hidden_keys_change_no_bit() {
    let span = Span {
        query_len: 333,
        kv_len: 1200,
        prompt_len: 1300,
    };
    let case = under(random(DType::F32, &[span]), 300);
    // The first row sees keys from 568 on, a part of the block that begins at 512.
    let hidden = (1200 - 333 + 1 - 300) / BLOCK * BLOCK;
    let mut broken = case.clone();
    let stride = case.problem.keys() * HEADS[2];
    for values in [&mut broken.inputs.key, &mut broken.inputs.value] {
        for head in values.chunks_exact_mut(stride) {
            head[..hidden * HEADS[2]].fill(f32::NAN);
        }
    }
    for correction in [Correction::None, Correction::Mean, Correction::GAUSSIAN] {
        let selection = Selection {
            recall: 0.3,
            correction,
            ..cheap(windowed())
        };
        for backend in backends::all() {
            let clean = run(&backend, &case, &settings(selection));
            let broken = run(&backend, &broken, &settings(selection));
            assert!(clean.out.iter().all(|x| x.is_finite()), "{}", backend.name);
            assert_eq!(clean, broken, "{}/{correction}", backend.name);
        }
    }
}

#[test]
fn a_correction_comes_closer_to_the_window() {
    for backend in backends::all() {
        let case = prompt(DType::F32);
        let (exact, _) = dense(&backend, &case);
        let error = |correction| {
            let selection = Selection {
                correction,
                ..cheap(windowed())
            };
            let ran = run(&backend, &case, &settings(selection));
            let square = |x: f64| x * x;
            let pairs = ran.out.iter().zip(&exact);
            let off: f64 = pairs.map(|(a, b)| square(f64::from(a - b))).sum();
            (off / exact.iter().map(|x| square(f64::from(*x))).sum::<f64>()).sqrt()
        };
        let [none, mean] = [Correction::None, Correction::Mean].map(error);
        assert!(mean < none, "{}: {mean} from {none}", backend.name);
    }
}

/// The part of a prompt that its first `to` tokens are, of which those from `from` on are new.
fn part(whole: &Case, Range { start, end }: Range<usize>) -> Case {
    let (p, d) = (&whole.problem, HEADS[2]);
    let rows = |values: &[f32], stride: usize, range: Range<usize>| -> Vec<f32> {
        let heads = values.chunks_exact(stride * d);
        heads
            .flat_map(|head| head[range.start * d..range.end * d].to_vec())
            .collect()
    };
    let keys = |values: &[f32]| rows(values, p.keys(), 0..end + p.slack);
    let span = Span {
        query_len: end - start,
        kv_len: end,
        prompt_len: p.spans[0].prompt_len,
    };
    Case {
        inputs: Inputs {
            query: rows(&whole.inputs.query, p.rows(), start..end),
            key: keys(&whole.inputs.key),
            value: keys(&whole.inputs.value),
        },
        problem: Problem {
            spans: vec![span],
            ..p.clone()
        },
    }
}

#[test]
fn chunks_of_a_prompt_choose_in_the_window() {
    const CUTS: [usize; 4] = [0, 500, 1177, LEN];
    let whole = prompt(DType::F32);
    let settings = settings(cheap(windowed()));
    for backend in backends::all() {
        let shape = CacheShape {
            layers: 1,
            batch: 1,
            kv_heads: HEADS[1],
            capacity: LEN,
            head_dim: HEADS[2],
        };
        let mut cache = KvCache::new(&shape, DType::F32, &backend.device).expect("cache");
        let mut pooled = PooledKeys::new(whole.problem.key_dims(), &backend.device);
        for cut in CUTS.windows(2) {
            let name = format!("{}/{cut:?}", backend.name);
            let case = part(&whole, cut[0]..cut[1]);
            let p = &case.problem;
            let plan = cache
                .plan(&settings, p.model_heads(), p.visible(), &[p.rows()], &[LEN])
                .expect("plan");
            assert!(plan.selects(), "{name}");
            let [query, key, value] = tensors(&backend, &case);
            let new = |all: &Tensor<4>| all.clone().slice_dim(2, cut[0]..cut[1]);
            let (out, record) = cache
                .step(0, query.clone(), new(&key), new(&value), &plan)
                .expect("step");
            cache.advance(&plan).expect("advance");
            let layer = first(&plan);
            let selected = attend_selected(query, &key, &value, Some(&mut pooled), &layer);
            let ran = read(selected.expect("selected"), &case, &settings.selection);
            assert_exact(&name, &case, &ran);
            let heads = record.expect("a record").read().expect("heads");
            assert_eq!(heads, ran.heads, "{name}");
            assert!(
                floats(out) == ran.out,
                "{name}: the cache attends differently"
            );
        }
    }
}

#[test]
fn backends_choose_alike_in_a_window() {
    let all = backends::all();
    let Some((one, others)) = all.split_first() else {
        panic!("no backend")
    };
    for (name, case) in [
        ("planted", prompt(DType::F32)),
        ("ragged", under(ragged(), 333)),
        ("short", under(ragged(), 50)),
    ] {
        for selection in [windowed(), cheap(windowed())] {
            let expected = run(one, &case, &settings(selection));
            for backend in others {
                let ran = run(backend, &case, &settings(selection));
                let name = format!("{name}: {} and {}", one.name, backend.name);
                for (a, b) in expected.heads.iter().zip(&ran.heads) {
                    let (density, recall) = (a.density - b.density, a.recall - b.recall);
                    let alike = a.choice == b.choice && density.abs() < 0.02 && recall.abs() < 0.02;
                    assert!(alike, "{name}: {a:?} and {b:?}");
                }
            }
        }
    }
}

#[test]
fn imposed_blocks_are_cut_to_the_window() {
    let blocks = FixedBlocks {
        heads: HEADS[1],
        block: 128,
        density: 0.3,
        seed: 5,
    };
    for backend in backends::all() {
        for window in [1, 200, 701] {
            let settings = AttentionSettings {
                imposed: Some(blocks),
                ..settings(windowed())
            };
            let case = under(ragged(), window);
            let visible = case.problem.visible();
            let index = index::fixed_blocks(&case.problem.spans, &blocks).expect("index");
            let index = index.within(visible).expect("a window");
            let plan = case.problem.plan(&settings, &backend.device);
            assert_eq!(plan.index(), Some(&index));
            assert_eq!(plan.decision().density, Some(index.density()));
            let [query, key, value] = tensors(&backend, &case);
            let selected = attend_selected(query, &key, &value, None, &first(&plan));
            let selected = selected.expect("selected");
            // What attention read: every head the blocks, whatever was measured of its choice.
            let mut ran = Ran {
                out: floats(selected.output),
                lse: floats(selected.lse),
                heads: selected.record.read().expect("record"),
                index,
            };
            for head in &mut ran.heads {
                head.choice = Choice::BlockCluster;
            }
            assert_exact(&format!("{}/{window}", backend.name), &case, &ran);
        }
    }
}
