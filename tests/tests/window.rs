//! Windows of visible keys against the f64 oracle: dense, with every index there is, in chunks, decoding,
//! over int8. What a window hides no pattern shows; what it shows is computed as without it.

use burn::tensor::DType;
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, Dynamic, FixedBlocks, KvType, Pattern, Span,
    Triangular, Visible, attend_with_lse,
    index::{self, Band, TileIndex},
};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    int8_rows, oracle,
    problem::{Inputs, Layout, Problem, floats},
    tolerance,
};

const WINDOWS: [usize; 5] = [1, 7, 64, 100, 400];

fn span(query_len: usize, kv_len: usize, prompt_len: usize) -> Span {
    Span {
        query_len,
        kv_len,
        prompt_len,
    }
}

/// Sequences of one batch: a chunk, a decoding step, a whole prompt.
fn ragged(dtype: DType) -> Problem {
    Problem {
        spans: vec![span(70, 300, 310), span(1, 257, 257), span(65, 65, 65)],
        slack: 3,
        ..Problem::whole(dtype, [6, 2, 64], 1)
    }
}

fn plan(
    problem: &Problem,
    settings: &AttentionSettings,
    window: usize,
    on: &Backend,
) -> Result<AttentionPlan, AttentionError> {
    let (heads, visible) = (problem.model_heads(), Visible::Window(window));
    AttentionPlan::new(settings, &problem.spans, heads, visible, &on.device)
}

/// Attention over a plan, or why not.
fn run(
    problem: &Problem,
    inputs: &Inputs,
    plan: &AttentionPlan,
    on: &Backend,
) -> Result<(Vec<f32>, Vec<f32>), AttentionError> {
    let at = |v: &[f32], dims, layout| problem.tensor(v, dims, layout, &on.device);
    let query = at(&inputs.query, problem.query_dims(), problem.layout);
    let key = at(&inputs.key, problem.key_dims(), Layout::Contiguous);
    let value = at(&inputs.value, problem.key_dims(), Layout::Contiguous);
    let (out, lse) = attend_with_lse(query, &key, &value, &plan.layer(0)?)?;
    Ok((floats(out), floats(lse)))
}

/// Tells whether a row sees a key by the window and by the index, which is read without its own window.
fn sees<'a>(
    problem: &'a Problem,
    window: usize,
    index: Option<&'a TileIndex>,
) -> impl Fn(usize, usize, usize, usize) -> bool + 'a {
    let group = problem.heads / problem.kv_heads;
    move |b, h, i, j| {
        let p = problem.spans[b].offset() + i;
        let kept = index.is_none_or(|index| {
            let head = match index.heads() {
                n if n == problem.heads => h,
                n => h / group * n / problem.kv_heads,
            };
            index.sees(b, head, i, j)
        });
        j <= p && p - j < window && kept
    }
}

fn check(
    name: &str,
    problem: &Problem,
    (window, index): (usize, Option<&TileIndex>),
    plan: &AttentionPlan,
    on: &Backend,
) {
    let name = format!("{name}/{window}/{:?}/{}", problem.dtype, on.name);
    let inputs = problem.inputs(11);
    let (out, lse) = run(problem, &inputs, plan, on).expect(&name);
    let sees = sees(problem, window, index);
    let exact = oracle::exact(problem, &inputs, &sees);
    let plain = oracle::plain(problem, &inputs, &sees);
    let dtype = problem.dtype;
    tolerance::check(&format!("{name}/out"), dtype, &out, &exact.out, &plain.out);
    tolerance::check(&format!("{name}/lse"), dtype, &lse, &exact.lse, &plain.lse);
}

/// Runs on every backend there is.
fn each(run_on: impl Fn(&Backend)) {
    for backend in backends::all() {
        run_on(&backend);
    }
}

#[test]
fn dense_rows_see_the_last_keys() {
    each(|backend| {
        for window in WINDOWS {
            for &dtype in &backend.dtypes {
                for problem in [
                    Problem::whole(dtype, [6, 2, 64], 330),
                    Problem::whole(dtype, [2, 2, 40], 63),
                    ragged(dtype),
                ] {
                    let plan =
                        plan(&problem, &AttentionSettings::dense(), window, backend).expect("plan");
                    assert_eq!(plan.decision().density, Some(1.0));
                    check("dense", &problem, (window, None), &plan, backend);
                }
            }
        }
    });
}

#[test]
fn a_window_that_hides_nothing_is_causal_to_the_bit() {
    for backend in backends::all() {
        let problem = ragged(DType::F32);
        let inputs = problem.inputs(2);
        let windowed = plan(&problem, &AttentionSettings::dense(), 300, &backend).expect("plan");
        assert_eq!(windowed.visible(), Visible::Causal);
        let causal = problem.plan(&AttentionSettings::dense(), &backend.device);
        let results = [&windowed, &causal].map(|plan| run(&problem, &inputs, plan, &backend));
        let [windowed, causal] = results.map(|result| result.expect("attention"));
        assert_eq!(windowed, causal, "{}", backend.name);
    }
}

#[test]
fn patterns_show_nothing_that_the_window_hides() {
    let triangular = Triangular {
        sink: 20,
        window: 50,
        last: 30,
    };
    let blocks = |heads| FixedBlocks {
        heads,
        block: 64,
        density: 0.5,
        seed: 3,
    };
    each(|backend| {
        for window in WINDOWS {
            for problem in [
                Problem::whole(DType::F32, [6, 2, 64], 330),
                Problem {
                    spans: vec![span(70, 262, 310), span(128, 128, 300)],
                    ..Problem::whole(DType::F32, [6, 2, 64], 1)
                },
            ] {
                let spans = &problem.spans;
                for (pattern, index) in [
                    (
                        Pattern::Triangular(triangular),
                        index::triangular(spans, &triangular).expect("index"),
                    ),
                    (
                        Pattern::FixedBlocks(blocks(2)),
                        index::fixed_blocks(spans, &blocks(2)).expect("index"),
                    ),
                    (
                        Pattern::FixedBlocks(blocks(6)),
                        index::fixed_blocks(spans, &blocks(6)).expect("index"),
                    ),
                ] {
                    let settings = AttentionSettings::sparse(pattern);
                    let plan = plan(&problem, &settings, window, backend).expect("plan");
                    let name = format!("{pattern:?}");
                    check(&name, &problem, (window, Some(&index)), &plan, backend);
                    let density = plan.decision().density.expect("of an index");
                    let expected = counted(&problem, window, &index);
                    assert!((density - expected).abs() < 1e-9, "{name}/{window}");
                }
            }
        }
    });
}

/// Density by counting pairs one by one.
fn counted(problem: &Problem, window: usize, index: &TileIndex) -> f64 {
    let (mut kept, mut all) = (0u64, 0u64);
    for (b, span) in problem.spans.iter().enumerate() {
        for h in 0..index.heads() {
            for i in 0..span.query_len {
                let p = span.offset() + i;
                for j in (0..=p).filter(|j| p - j < window) {
                    all += 1;
                    kept += u64::from(index.sees(b, h, i, j));
                }
            }
        }
    }
    // Pairs are counted as the mean over the heads, rounded down.
    let heads = index.heads() as u64;
    (kept / heads) as f64 / (all / heads) as f64
}

#[test]
fn columns_of_an_index_by_hand_are_cut_too() {
    each(|backend| {
        for window in WINDOWS {
            let problem = Problem::whole(DType::F32, [6, 2, 48], 330);
            let columns: Vec<Vec<usize>> =
                (0..2).map(|h| (0..250).step_by(7 + h).collect()).collect();
            let offsets = vec![vec![0, 30, 200], vec![0, 41, 201]];
            let whole = index::interval_slash(&problem.spans, &columns, &offsets).expect("index");
            let cut = whole.clone().within(Visible::Window(window)).expect("cut");
            cut.validate().expect("invariants");
            let heads = problem.model_heads();
            let plan = AttentionPlan::with_index(cut, heads, &backend.device).expect("plan");
            check("columns", &problem, (window, Some(&whole)), &plan, backend);
        }
    });
}

#[test]
fn a_cut_index_sees_what_both_see() {
    let spans = [span(150, 400, 420), span(64, 64, 64)];
    let band = Band {
        sink: 30,
        window: 40,
        last: 10,
    };
    for band in [None, Some(band)] {
        for window in WINDOWS {
            let mut builder = index::Builder::new(&spans, 1, band).expect("builder");
            for (b, span) in spans.iter().enumerate() {
                for tile in 0..3 {
                    let keys = span.kv_len;
                    let ranges = [(0, 33), (100, 140), (230, 300)];
                    let ranges = ranges.into_iter().filter(|r| r.0 < keys);
                    let columns = [50, 60, 150, 229].into_iter().filter(|c| *c < keys);
                    builder.set((b, 0, tile), ranges, columns).expect("set");
                }
            }
            let whole = builder.finish().expect("index");
            let cut = whole.clone().within(Visible::Window(window)).expect("cut");
            cut.validate().expect("invariants");
            let mut kept = 0;
            for (b, span) in spans.iter().enumerate() {
                for i in 0..span.query_len {
                    let p = span.offset() + i;
                    for j in 0..span.kv_len {
                        let expected = whole.sees(b, 0, i, j) && p - j.min(p) < window;
                        assert_eq!(cut.sees(b, 0, i, j), expected, "{window}: {b} {p} {j}");
                        kept += u64::from(expected);
                    }
                }
            }
            assert_eq!(cut.kept_pairs(), kept, "{window}");
        }
    }
}

#[test]
fn chunks_and_decoding_are_the_whole() {
    const LEN: usize = 300;
    const CUTS: [usize; 6] = [0, 100, 164, 297, 299, LEN];
    each(|backend| {
        for (kv, window) in [KvType::Model, KvType::Int8]
            .into_iter()
            .flat_map(|kv| WINDOWS.map(|window| (kv, window)))
        {
            let whole = Problem::whole(DType::F32, [4, 2, 64], LEN);
            let inputs = whole.inputs(5);
            // What the cache holds.
            let stored = match kv {
                KvType::Int8 => {
                    let back = |x: &[f32]| {
                        let (words, scales) = int8_rows::quantize(x, 64);
                        int8_rows::dequantize(&words, &scales)
                    };
                    Inputs {
                        query: inputs.query.clone(),
                        key: back(&inputs.key),
                        value: back(&inputs.value),
                    }
                }
                _ => inputs.clone(),
            };
            let sees = sees(&whole, window, None);
            let exact = oracle::exact(&whole, &stored, &sees);
            let plain = oracle::plain(&whole, &stored, &sees);
            let shape = sparse_accelerate::CacheShape {
                layers: 1,
                batch: 1,
                kv_heads: 2,
                capacity: LEN + 5,
                head_dim: 64,
            };
            let mut cache =
                sparse_accelerate::KvCache::with_type(&shape, kv, DType::F32, &backend.device)
                    .expect("cache");
            let (heads, visible) = (whole.model_heads(), Visible::Window(window));
            for cut in CUTS.windows(2) {
                let (from, to) = (cut[0], cut[1]);
                let rows = |values: &[f32], heads: usize| -> Vec<f32> {
                    let head = |h: usize| &values[(h * LEN + from) * 64..(h * LEN + to) * 64];
                    (0..heads).flat_map(head).copied().collect()
                };
                let tensor = |values: &[f32], heads: usize| {
                    let dims = [1, heads, to - from, 64];
                    whole.tensor(
                        &rows(values, heads),
                        dims,
                        Layout::Contiguous,
                        &backend.device,
                    )
                };
                let dense = AttentionSettings::dense();
                let plan = cache
                    .plan(&dense, heads, visible, &[to - from], &[LEN])
                    .expect("plan");
                let (out, record) = cache
                    .step(
                        0,
                        tensor(&inputs.query, 4),
                        tensor(&inputs.key, 2),
                        tensor(&inputs.value, 2),
                        &plan,
                    )
                    .expect("step");
                assert!(record.is_none());
                cache.advance(&plan).expect("advance");
                let part = |values: &[f64]| -> Vec<f64> {
                    let head = |h: usize| &values[(h * LEN + from) * 64..(h * LEN + to) * 64];
                    (0..4).flat_map(head).copied().collect()
                };
                let name = format!("{kv:?}/{window}/{cut:?}/{}", backend.name);
                let (exact, plain) = (part(&exact.out), part(&plain.out));
                tolerance::check(&name, DType::F32, &floats(out), &exact, &plain);
            }
        }
    });
}

#[test]
fn heads_that_choose_have_a_window_too() {
    for backend in backends::all() {
        let problem = Problem::whole(DType::F32, [4, 2, 64], 300);
        let dynamic = AttentionSettings::sparse(Pattern::Dynamic(Dynamic::default()));
        let windowed = plan(&problem, &dynamic, 100, &backend).expect("plan");
        assert!(windowed.selects());
        assert_eq!(windowed.visible(), Visible::Window(100));
        // The first 100 rows see 1 to 100 keys, the others 100 each.
        assert_eq!(windowed.decision().causal_pairs, 5050 + 200 * 100);
        // A window that hides nothing is none.
        let whole = plan(&problem, &dynamic, 300, &backend).expect("plan");
        assert!(whole.selects());
        assert_eq!(whole.visible(), Visible::Causal);
        let zero = plan(&problem, &dynamic, 0, &backend).expect_err("refused");
        assert!(zero.to_string().contains("window is 0"), "{zero}");
    }
}
