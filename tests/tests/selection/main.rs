//! Dynamic selection through the public calls, on every backend: what is planted is kept, what is kept
//! meets the floor, what meets no floor is dense, and how a prompt is cut into chunks changes neither.

mod group;
mod imposed;
mod planted;
mod run;
mod windowed;

use burn::tensor::DType;
use planted::{COLUMNS, Case, HEADS, NEEDLE, SLASH, planted, random};
use run::{Ran, dense, first, plan, read, run, run_pooled, selection, tensors};
use sparse_accelerate::{
    AttentionPlan, AttentionSettings, CacheShape, Choice, HeadRecord, KvCache, Path, Pattern,
    PooledKeys, Reason, Selection, Span, SparseAttentionConfig, Visible, attend, attend_selected,
    attend_with_lse,
    select::{Correction, Granularity, Why},
};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    problem::floats,
};

/// Tokens of the planted prompt: neither whole blocks nor whole tiles.
const LEN: usize = 2500;
/// A row among the probe rows: the last before those that see everything.
const NEEDLE_ROW: usize = LEN - 64 - 20;

fn prompt(dtype: DType) -> Case {
    planted(dtype, LEN, NEEDLE_ROW)
}

/// Rounding of outputs, relative to the largest value.
fn rounding(dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => 0.03,
        DType::F16 => 4e-3,
        _ => 1e-3,
    }
}

fn assert_lines_kept(name: &str, ran: &Ran) {
    for (head, columns) in COLUMNS.iter().enumerate() {
        for i in (0..LEN).step_by(7) {
            for &column in columns.iter().filter(|&&c| c <= i) {
                assert!(
                    ran.index.sees(0, head, i, column),
                    "{name}: row {i} of head {head} misses column {column}"
                );
            }
            let slash = i.checked_sub(SLASH);
            assert!(
                slash.is_none_or(|j| ran.index.sees(0, head, i, j)),
                "{name}: row {i} of head {head} misses the slash"
            );
        }
    }
    assert!(
        ran.index.sees(0, 1, NEEDLE_ROW, NEEDLE),
        "{name}: the needle is missed"
    );
}

/// Recall of a KV head from every row's log-sum-exp: the worst of its query heads and of the last and the
/// spread probe rows, among those that do not see everything anyway.
fn recall_of_probes(ran: &Ran, dense: &[f32], kv_head: usize) -> f32 {
    let (rows, sharing) = (LEN - 64, HEADS[0] / HEADS[1]);
    let last: Vec<usize> = (rows - 64..rows).collect();
    let spread: Vec<usize> = (0..64).map(|k| (2 * k + 1) * rows / 128).collect();
    let of_rows = |head: usize, group: &[usize]| {
        let recalls = group.iter().map(|&row| {
            let at = head * LEN + row;
            (ran.lse[at] - dense[at]).exp()
        });
        recalls.sum::<f32>() / 64.0
    };
    let heads = kv_head * sharing..(kv_head + 1) * sharing;
    let all = heads.flat_map(|head| [of_rows(head, &last), of_rows(head, &spread)]);
    all.fold(1.0, f32::min)
}

#[test]
fn what_is_planted_is_kept_at_low_density() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let name = format!("{}/{dtype:?}", backend.name);
            let case = prompt(dtype);
            let ran = run(&backend, &case, selection());
            for head in &ran.heads {
                assert_ne!(head.choice, Choice::Dense, "{name}: {head:?}");
                assert!(head.density <= 0.35, "{name}: {head:?}");
                let off = (head.predicted_recall - head.recall).abs();
                assert!(off <= 0.05, "{name}: predicted off by {off}: {head:?}");
            }
            assert_lines_kept(&name, &ran);
            let dense = dense(&backend, &case);
            for head in &ran.heads {
                let recall = recall_of_probes(&ran, &dense.1, head.head);
                let off = (recall - head.recall).abs();
                assert!(off < 2e-3, "{name}: recall is {recall}: {head:?}");
            }
            let error = ran.assert_bound(&name, &case, &dense, rounding(dtype));
            assert!(error < 0.05, "{name}: relative error {error}");
        }
    }
}

#[test]
fn corrections_and_granularity_keep_the_contract() {
    for backend in backends::all() {
        let case = prompt(DType::F32);
        let (exact, _) = dense(&backend, &case);
        let error = |ran: &Ran| {
            let square = |x: f64| x * x;
            let pairs = ran.out.iter().zip(&exact);
            let off: f64 = pairs.map(|(a, b)| square(f64::from(a - b))).sum();
            (off / exact.iter().map(|x| square(f64::from(*x))).sum::<f64>()).sqrt()
        };
        let without = run(&backend, &case, selection());
        for correction in [Correction::Mean, Correction::GAUSSIAN] {
            let corrected = Selection {
                correction,
                ..selection()
            };
            let ran = run(&backend, &case, corrected);
            // The second-order term takes part in the scores of blocks.
            if correction == Correction::Mean {
                assert_eq!(ran.heads, without.heads, "{}", backend.name);
                assert_eq!(ran.index, without.index, "{}", backend.name);
            }
            let (with, without) = (error(&ran), error(&without));
            assert!(with < without, "{}: {with} {without}", backend.name);
        }
        let alone = Selection {
            granularity: Granularity::PerQueryHead,
            ..selection()
        };
        let ran = run(&backend, &case, alone);
        assert_eq!(ran.heads.len(), HEADS[0], "{}", backend.name);
        assert!(ran.density() <= 0.35, "{}", backend.name);
    }
}

#[test]
fn random_keys_and_a_floor_of_1_are_dense() {
    for backend in backends::all() {
        let spans = [Span::whole(1000)];
        let whole = Selection {
            recall: 1.0,
            ..selection()
        };
        for (name, case, selection) in [
            ("random", random(DType::F32, &spans), selection()),
            ("floor of 1", planted(DType::F32, 1900, 1810), whole),
        ] {
            let ran = run(&backend, &case, selection);
            for head in &ran.heads {
                assert_eq!(head.choice, Choice::Dense, "{}/{name}", backend.name);
            }
            let (out, lse) = dense(&backend, &case);
            assert!(ran.out == out, "{}/{name}: outputs differ", backend.name);
            assert!(ran.lse == lse, "{}/{name}: sums differ", backend.name);
        }
    }
}

#[test]
fn chunks_give_what_the_whole_gives() {
    const CUTS: [usize; 4] = [0, 900, 1777, LEN];
    let case = prompt(DType::F32);
    for backend in backends::all() {
        let name = backend.name;
        let (_, whole) = run_pooled(&backend, &case, selection());
        let shape = CacheShape {
            layers: 1,
            batch: 1,
            kv_heads: HEADS[1],
            capacity: case.problem.keys(),
            head_dim: HEADS[2],
        };
        let mut cache = KvCache::new(&shape, DType::F32, &backend.device).expect("cache");
        let mut pooled = PooledKeys::new(case.problem.key_dims(), &backend.device);
        for cut in CUTS.windows(2) {
            let name = format!("{name}/{cut:?}");
            let chunk = case.chunk(cut[0], cut[1]);
            let (p, device) = (&chunk.problem, &backend.device);
            let query = p.tensor(&chunk.inputs.query, p.query_dims(), p.layout, device);
            let new = |values: &[f32]| {
                let dims = [1, HEADS[1], p.rows(), HEADS[2]];
                p.tensor(values, dims, p.layout, device)
            };
            let plan = plan(&backend, &chunk, selection());
            let spans = cache.spans(&[p.rows()], &[LEN]).expect("spans");
            assert_eq!(spans, plan.spans(), "{name}");
            let (key, value) = (new(&chunk.inputs.key), new(&chunk.inputs.value));
            cache.append(0, key, value, &plan).expect("append");
            let (out, record) = cache.attend(0, query.clone(), &plan).expect("attend");
            let (key, value) = (cache.key(0).expect("layer"), cache.value(0).expect("layer"));
            let selected = attend_selected(
                query.clone(),
                &key,
                &value,
                Some(&mut pooled),
                &first(&plan),
            );
            // Every head that is not dense meets the floor: checked by `read`.
            let ran = read(selected.expect("selected"), &chunk, &selection());
            assert!(
                ran.out == floats(out),
                "{name}: the cache attends differently"
            );
            let record = record.expect("a record").read().expect("heads");
            assert_eq!(ran.heads, record, "{name}");
            // As in the layers of a long cache, which keep no pooled keys.
            let anew = attend_selected(query, &key, &value, None, &first(&plan)).expect("selected");
            assert!(
                ran.out == floats(anew.output),
                "{name}: keys that are pooled anew are others"
            );
            let exact = dense_over(&backend, &chunk, &cache);
            ran.assert_bound(&name, &chunk, &exact, rounding(DType::F32));
            if cut[1] == LEN {
                let sparse = |h: &HeadRecord| h.choice != Choice::Dense;
                assert!(ran.heads.iter().all(sparse), "{name}: {:?}", ran.heads);
            }
            cache.advance(&plan).expect("advance");
        }
        let chunked = floats(pooled.tensor().clone());
        let same = whole.iter().map(|x| x.to_bits());
        assert!(
            same.eq(chunked.iter().map(|x| x.to_bits())),
            "{name}: pooled keys differ"
        );
    }
}

/// Dense attention of a chunk over what the cache holds.
fn dense_over(backend: &Backend, chunk: &Case, cache: &KvCache) -> (Vec<f32>, Vec<f32>) {
    let (p, device) = (&chunk.problem, &backend.device);
    let query = p.tensor(&chunk.inputs.query, p.query_dims(), p.layout, device);
    let plan = p.plan(&AttentionSettings::dense(), device);
    let (key, value) = (cache.key(0).expect("layer"), cache.value(0).expect("layer"));
    let dense = attend_with_lse(query, &key, &value, &first(&plan));
    let (out, lse) = dense.expect("dense");
    (floats(out), floats(lse))
}

/// Sequences of one batch: a whole prompt, a chunk, and one that is too short to be probed twice.
fn ragged() -> Case {
    let chunk = Span {
        query_len: 333,
        kv_len: 1200,
        prompt_len: 1300,
    };
    random(DType::F32, &[Span::whole(700), chunk, Span::whole(65)])
}

#[test]
fn two_runs_are_equal_bit_by_bit() {
    for backend in backends::all() {
        for (name, case) in [("planted", prompt(DType::F32)), ("ragged", ragged())] {
            let of = |ran: &Ran| ran.out.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let loose = Selection {
                recall: 0.3,
                ..selection()
            };
            let (first, second) = (run(&backend, &case, loose), run(&backend, &case, loose));
            let name = format!("{}/{name}", backend.name);
            assert!(of(&first) == of(&second), "{name}: outputs differ");
            assert_eq!(first.index, second.index, "{name}");
            assert_eq!(first.heads, second.heads, "{name}");
        }
    }
}

#[test]
fn backends_choose_alike() {
    let all = backends::all();
    let Some((first, others)) = all.split_first() else {
        panic!("no backend")
    };
    for (name, case) in [("planted", prompt(DType::F32)), ("ragged", ragged())] {
        let expected = run(first, &case, selection());
        for backend in others {
            let ran = run(backend, &case, selection());
            let name = format!("{name}: {} and {}", first.name, backend.name);
            for (a, b) in expected.heads.iter().zip(&ran.heads) {
                let (density, recall) = (a.density - b.density, a.recall - b.recall);
                let alike = a.choice == b.choice && density.abs() < 0.02 && recall.abs() < 0.02;
                assert!(alike, "{name}: {a:?} and {b:?}");
            }
            let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
            let off = norm(&mut expected.out.iter().zip(&ran.out).map(|(a, b)| a - b));
            let all = norm(&mut expected.out.iter().copied());
            assert!(
                (off / all).sqrt() < 0.05,
                "{name}: outputs differ by {}",
                (off / all).sqrt()
            );
        }
    }
}

#[test]
fn a_head_without_finite_scores_is_dense_and_alone() {
    let clean = prompt(DType::F32);
    let (rows, keys, d) = (clean.problem.rows(), clean.problem.keys(), HEADS[2]);
    let mut bad_key = clean.clone();
    bad_key.inputs.key[(keys + 1200) * d + 3] = f32::NAN;
    let mut bad_query = clean.clone();
    // Query head 3 reads KV head 1.
    bad_query.inputs.query[(3 * rows + NEEDLE_ROW) * d + 5] = f32::INFINITY;
    for backend in backends::all() {
        let expected = run(&backend, &clean, selection());
        for (name, case) in [("key", &bad_key), ("query", &bad_query)] {
            let name = format!("{}/{name}", backend.name);
            let ran = run(&backend, case, selection());
            let head = ran.head(1);
            assert_eq!(
                (head.choice, head.why),
                (Choice::Dense, Why::NotFinite),
                "{name}"
            );
            assert_eq!(ran.head(0), expected.head(0), "{name}");
            assert!(
                ran.of_kv_head(case, 0) == expected.of_kv_head(case, 0),
                "{name}: the other head's output moved"
            );
        }
    }
}

#[test]
fn short_chunks_are_dense() {
    for backend in backends::all() {
        for rows in [1, 64, 127, 128] {
            let span = Span {
                query_len: rows,
                kv_len: 500 + rows,
                prompt_len: 700,
            };
            let case = random(DType::F32, &[span]);
            let plan = plan(&backend, &case, selection());
            let name = format!("{}/{rows} rows", backend.name);
            assert_eq!(plan.selects(), rows >= 128, "{name}");
            if rows < 128 {
                let reason = Reason::ChunkTooShort { rows, least: 128 };
                assert_eq!(plan.decision().reason, reason, "{name}");
                let [query, key, value] = tensors(&backend, &case);
                let out = attend(query, &key, &value, &first(&plan)).expect("attend");
                let same = floats(out) == dense(&backend, &case).0;
                assert!(same, "{name}: not dense");
            }
        }
    }
}

#[test]
fn layers_that_are_dense_by_setting_say_so() {
    let case = prompt(DType::F32);
    for backend in backends::all() {
        let safe = Selection {
            dense_layers: 2,
            ..selection()
        };
        let plan = plan(&backend, &case, safe);
        assert_eq!(plan.decision().density, None);
        for (layer, selects) in [(0, false), (1, false), (2, true), (7, true)] {
            let layer = plan.layer(layer).expect("layer");
            assert_eq!(layer.selects(), selects);
            let decision = layer.decision();
            let (path, reason) = match selects {
                true => (Path::Selected, Reason::SparseRequested),
                false => (
                    Path::Dense,
                    Reason::DenseLayer {
                        layer: layer.layer(),
                        dense_layers: 2,
                    },
                ),
            };
            assert_eq!((decision.path, decision.reason), (path, reason));
        }
        let [query, key, value] = tensors(&backend, &case);
        for (layer, choice) in [(0, true), (2, false)] {
            let module = SparseAttentionConfig::new(run::settings(safe), layer).init();
            let got = module.forward(query.clone(), &key, &value).expect("module");
            let heads = got.record.expect("a record").read().expect("record");
            assert_eq!(heads.len(), HEADS[1]);
            let dense = |head: &HeadRecord| head.why == Why::DenseLayer;
            assert_eq!(heads.iter().all(dense), choice, "{}", backend.name);
            assert!(heads.iter().all(|head| head.layer == layer));
            assert_eq!(got.decision.density, choice.then_some(1.0));
        }
    }
}

#[test]
fn the_log_sum_exp_is_that_of_the_selection() {
    let case = prompt(DType::F32);
    for backend in backends::all() {
        let [query, key, value] = tensors(&backend, &case);
        let plan = plan(&backend, &case, selection());
        let layer = first(&plan);
        let selected = attend_selected(query.clone(), &key, &value, None, &layer);
        let selected = selected.expect("selected");
        let (out, lse) = attend_with_lse(query, &key, &value, &layer).expect("attention");
        let name = backend.name;
        assert_eq!(floats(out), floats(selected.output), "{name}");
        let lse = floats(lse);
        assert_eq!(lse, floats(selected.lse), "{name}");
        assert_ne!(lse, dense(&backend, &case).1, "{name}");
    }
}

#[test]
fn head_patterns_rule_by_layer() {
    let case = prompt(DType::F32);
    let dynamic = Pattern::Dynamic(Default::default());
    let rows = vec![
        vec![Pattern::Dense; HEADS[1]],
        vec![dynamic; HEADS[0]],
        vec![Pattern::Dense; HEADS[1]],
    ];
    for backend in backends::all() {
        let patterns = |rows: &[Vec<Pattern>]| AttentionSettings {
            heads: Some(rows.to_vec().into()),
            ..run::settings(selection())
        };
        let plan = case.problem.plan(&patterns(&rows), &backend.device);
        let [query, key, value] = tensors(&backend, &case);
        for (layer, heads) in [(0, HEADS[1]), (1, HEADS[0]), (2, HEADS[1])] {
            let planned = plan.layer(layer).expect("layer");
            let query = query.clone();
            let selected = attend_selected(query, &key, &value, None, &planned);
            let record = selected.expect("selected").record.read().expect("record");
            assert_eq!(record.len(), heads, "{}", backend.name);
            let dense = record.iter().all(|head| head.choice == Choice::Dense);
            assert_eq!(dense, layer != 1, "{}: {record:?}", backend.name);
        }
        let missing = plan.layer(3).expect_err("no such layer").to_string();
        assert!(missing.contains("layer is 3"), "{missing}");
        let odd = patterns(&[vec![dynamic; 3]]);
        let heads = case.problem.model_heads();
        let spans = &case.problem.spans;
        let odd = AttentionPlan::new(&odd, spans, heads, Visible::Causal, &backend.device);
        let text = odd.expect_err("heads").to_string();
        let both = format!("{} (query heads) or {} (KV heads)", HEADS[0], HEADS[1]);
        assert!(text.contains(&both), "{text}");
    }
}
