//! Baselines as selectors of settings: plans and caches attend to what the baseline keeps, records say so, and
//! what cannot be together is refused.

use burn::tensor::{DType, Device, Tensor};
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, CacheShape, Choice, FixedBlocks,
    HeadPatterns, HeadRecord, IndexSelector, KvCache, KvType, LayerPlan, Path, Pattern, Reason,
    Selected, SharedSelector, Span, Triangular, Visible, attend, attend_selected, attend_with_lse,
    index::TileIndex, select::Why,
};
use sparse_accelerate_baselines::{self as baselines, Baseline};
use sparse_accelerate_tests::{backends, oracle as attention};

use crate::{
    compare,
    inputs::{Case, chunk},
};

const KEPT: [&str; 4] = [
    "trianglemix:first_layer=1:sink=16:window=40:last=20",
    "minference:vertical=40:slash=60",
    "xattention:threshold=0.2",
    "flashprefill-v2:alpha=0.9",
];

fn parse(text: &str) -> Baseline {
    Baseline::parse(text).expect("a baseline")
}

fn spans() -> [Span; 2] {
    [Span::whole(200), chunk(90, 282, 300)]
}

fn selected(case: &Case, layer: &LayerPlan<'_>, device: &Device) -> Selected {
    let (key, value) = (case.key(device), case.value(device));
    attend_selected(case.query(device), &key, &value, None, layer).expect("attention")
}

#[test]
fn a_plan_attends_to_what_its_selector_keeps_and_tells_how_much() {
    let case = Case::random([4, 2, 64], &spans());
    for backend in backends::all() {
        let device = &backend.device;
        let (key, value) = (case.key(device), case.value(device));
        for text in KEPT {
            let baseline = parse(text);
            let name = format!("{baseline} on {}", backend.name);
            let settings = AttentionSettings::selected_by(baseline);
            let plan = case.problem.plan(&settings, device);
            assert!(plan.selects() && plan.index().is_none(), "{name}");
            assert_eq!(
                plan.selector().map(|s| s.name()),
                Some(baseline.to_string())
            );
            let decision = plan.decision();
            assert_eq!(
                (decision.path, decision.pattern, decision.density),
                (Path::Selected, Pattern::Index, None)
            );
            assert_eq!(decision.reason, Reason::SparseRequested);
            let layer = plan.layer(1).expect("a layer");
            assert!(layer.selects() && layer.decision() == *decision);

            let index = baselines::index(&baseline, 1, &case.query(device), &key, plan.spans());
            let index = index.expect("an index").expect("a sparse layer");
            let group = case.problem.heads / index.heads();
            let sees = |b, h: usize, i, j| index.sees(b, h / group, i, j);
            let ran = selected(&case, &layer, device);
            assert!(ran.table.is_none());
            compare(&name, &case, ran.output, &sees);
            let plain = attend(case.query(device), &key, &value, &layer).expect("attention");
            compare(&name, &case, plain, &sees);

            let heads = ran.record.read().expect("a record");
            assert_eq!(heads.len(), 2 * index.heads());
            for head in &heads {
                assert_eq!(
                    (head.layer, head.choice, head.why),
                    (1, Choice::Index, Why::IndexSelector)
                );
                assert!(head.recall.is_nan() && head.predicted_recall.is_nan());
                assert_eq!(head.time_over_dense(), None);
                let span = plan.spans()[head.sequence];
                let pairs = (0..span.query_len).flat_map(|i| (0..span.kv_len).map(move |j| (i, j)));
                let kept = pairs.filter(|&(i, j)| index.sees(head.sequence, head.head, i, j));
                let expected = kept.count() as f64 / span.causal_pairs() as f64;
                assert!((f64::from(head.density) - expected).abs() < 1e-6, "{name}");
            }
            // Three blocks are all near ones to FlashPrefill.
            let cut = !matches!(baseline, Baseline::FlashPrefillV2 { .. });
            assert_eq!(index.density() < 1.0, cut, "{name}");
            assert_eq!(ran.record.causal_pairs(), decision.causal_pairs);
        }
    }
}

#[test]
fn a_layer_that_the_selector_computes_densely_is_dense() {
    let case = Case::random([4, 2, 64], &spans());
    for backend in backends::all() {
        let device = &backend.device;
        let plan = case
            .problem
            .plan(&AttentionSettings::selected_by(parse(KEPT[0])), device);
        let layer = plan.layer(0).expect("a layer");
        let ran = selected(&case, &layer, device);
        let causal = attention::causal(&case.problem);
        compare(backend.name, &case, ran.output, &causal);
        for head in ran.record.read().expect("a record") {
            assert_eq!((head.choice, head.why), (Choice::Dense, Why::IndexSelector));
            assert_eq!((head.density, head.recall), (1.0, 1.0));
            assert_eq!(head.time_over_dense(), Some(1.0));
        }
        // The log-sum-exp is that of the keys that rows see.
        let (key, value) = (case.key(device), case.value(device));
        let dense = case.problem.plan(&AttentionSettings::dense(), device);
        let lse = |plan: &AttentionPlan, layer| {
            let layer = plan.layer(layer).expect("a layer");
            let (_, lse) = attend_with_lse(case.query(device), &key, &value, &layer).expect("lse");
            let rows: Vec<f32> = lse.try_into_vec_as().expect("the launch failed");
            rows[..200].to_vec()
        };
        assert_eq!(lse(&plan, 0), lse(&dense, 0));
        assert!(lse(&plan, 1)[150] < lse(&dense, 1)[150]);
    }
}

#[test]
fn a_cache_asks_the_selector_in_every_chunk() {
    const LEN: usize = 480;
    let case = Case::random([4, 2, 64], &[Span::whole(LEN)]);
    let baseline = parse("xattention:threshold=0.2");
    let settings = AttentionSettings::selected_by(baseline);
    let heads = case.problem.model_heads();
    for backend in backends::all() {
        let device = &backend.device;
        for kv in [KvType::Model, KvType::Int8] {
            let shape = CacheShape {
                layers: 1,
                batch: 1,
                kv_heads: 2,
                capacity: 500,
                head_dim: 64,
            };
            let mut cache = KvCache::with_type(&shape, kv, DType::F32, device).expect("a cache");
            // The last chunk is too short to be asked for; new rows are the last of the keys.
            for (from, to) in [(0, 128), (128, 384), (384, LEN)] {
                let name = format!("{kv:?}, rows {from} to {to} on {}", backend.name);
                let rows = |all: Tensor<4>| all.slice_dim(2, from..to);
                let plan = cache
                    .plan(&settings, heads, Visible::Causal, &[to - from], &[LEN])
                    .expect("a plan");
                let query = rows(case.query(device));
                let (key, value) = (rows(case.key(device)), rows(case.value(device)));
                let (out, record) = cache
                    .step(0, query.clone(), key, value, &plan)
                    .expect("a step");
                let (key, value) = (cache.key(0).expect("keys"), cache.value(0).expect("values"));
                let spans = plan.spans();
                let expected = match to - from < 128 {
                    true => {
                        assert!(record.is_none() && !plan.selects(), "{name}");
                        assert!(
                            matches!(plan.decision().reason, Reason::ChunkTooShort { .. }),
                            "{name}"
                        );
                        let layer = plan.layer(0).expect("a layer");
                        attend(query, &key, &value, &layer).expect("attention")
                    }
                    false => {
                        let got = baselines::attend(&baseline, 0, query, &key, &value, spans);
                        let got = got.expect("attention");
                        let density = got.index.expect("an index").density();
                        let heads: Vec<HeadRecord> =
                            record.expect("a record").read().expect("a record");
                        let mean = heads.iter().map(|h| f64::from(h.density)).sum::<f64>();
                        let mean = mean / heads.len() as f64;
                        assert!((mean - density).abs() < 1e-3, "{name}: {mean}, {density}");
                        assert!(from == 0 || density < 0.9, "{name}: {density}");
                        got.output
                    }
                };
                let apart = (out - expected).abs().max();
                let apart: Vec<f32> = apart.try_into_vec_as().expect("the launch failed");
                assert!(apart[0] < 1e-4, "{name}: {apart:?}");
                cache.advance(&plan).expect("the end of a chunk");
            }
        }
    }
}

#[test]
fn what_cannot_stand_beside_a_selector_is_refused() {
    let device = Device::flex();
    let case = Case::random([4, 2, 64], &[Span::whole(200)]);
    let plan = |settings: &AttentionSettings, visible| {
        let heads = case.problem.model_heads();
        AttentionPlan::new(settings, &case.problem.spans, heads, visible, &device)
    };
    let alone = AttentionSettings::selected_by(parse("minference"));
    let listed = AttentionSettings {
        heads: Some(HeadPatterns::from(vec![vec![Pattern::Dense; 4]])),
        ..alone.clone()
    };
    let imposed = AttentionSettings {
        imposed: Some(FixedBlocks {
            heads: 4,
            block: 64,
            density: 0.5,
            seed: 1,
        }),
        ..alone.clone()
    };
    for (settings, other) in [(&listed, "heads"), (&imposed, "imposed")] {
        let error = plan(settings, Visible::Causal).expect_err("refused");
        let selector = alone.selector.as_ref().map(|s| s.name()).expect("a name");
        let expected = AttentionError::SelectorBeside { selector, other };
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(
            text.contains("minference") && text.contains(other),
            "{text}"
        );
    }
    let error = plan(&alone, Visible::Window(100)).expect_err("refused");
    let windowed = matches!(
        error,
        AttentionError::SelectorBeside {
            other: "window",
            ..
        }
    );
    assert!(windowed, "{error}");
    // A window that hides nothing is none, and a mode that is dense asks nobody.
    plan(&alone, Visible::Window(200)).expect("a plan");
    let dense = AttentionSettings {
        mode: sparse_accelerate::AttentionMode::Dense,
        ..alone.clone()
    };
    let dense = plan(&dense, Visible::Window(100)).expect("a plan");
    assert!(!dense.selects() && dense.selector().is_none());

    // A chunk that begins off the grid of a block baseline.
    let off = Case::random([4, 2, 64], &[chunk(130, 230, 230)]);
    let xattention = AttentionSettings::selected_by(parse("xattention"));
    let plan = off.problem.plan(&xattention, &device);
    let layer = plan.layer(0).expect("a layer");
    let (key, value) = (off.key(&device), off.value(&device));
    let error = attend(off.query(&device), &key, &value, &layer).expect_err("refused");
    assert!(error.to_string().contains("offset is 100"), "{error}");
}

/// Hands over one index, whatever it is asked.
#[derive(Debug)]
struct Fixed(TileIndex);

impl IndexSelector for Fixed {
    fn name(&self) -> String {
        "fixed".into()
    }

    fn index(
        &self,
        _: usize,
        _: &Tensor<4>,
        _: &Tensor<4>,
        _: &[Span],
    ) -> Result<Option<TileIndex>, AttentionError> {
        Ok(Some(self.0.clone()))
    }
}

#[test]
fn an_index_for_another_chunk_or_model_is_refused() {
    let device = Device::flex();
    let case = Case::random([4, 2, 64], &[Span::whole(200)]);
    let run = |index: TileIndex| {
        let settings = AttentionSettings::selected_by(Fixed(index));
        let plan = case.problem.plan(&settings, &device);
        let layer = plan.layer(0).expect("a layer");
        let (key, value) = (case.key(&device), case.value(&device));
        attend(case.query(&device), &key, &value, &layer)
    };
    let pattern = Triangular {
        sink: 16,
        window: 32,
        last: 0,
    };
    let of = |spans: &[Span]| sparse_accelerate::index::triangular(spans, &pattern);
    run(of(&[Span::whole(200)]).expect("an index")).expect("attention");
    let error = run(of(&[Span::whole(199)]).expect("an index")).expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("spans of the selector's index") && text.contains("199"),
        "{text}"
    );
    let three = sparse_accelerate::index::Builder::new(&[Span::whole(200)], 3, None)
        .and_then(|mut builder| {
            for (head, tile) in (0..3).flat_map(|h| (0..4).map(move |t| (h, t))) {
                builder.set((0, head, tile), [], [])?;
            }
            builder.finish()
        })
        .expect("an index");
    let error = run(three).expect_err("refused");
    assert!(error.to_string().contains("index heads is 3"), "{error}");
}

#[test]
fn settings_write_the_name_of_a_selector_and_read_none() {
    let settings = AttentionSettings::selected_by(parse("minference:vertical=40"));
    let text = serde_json::to_string(&settings).expect("JSON");
    assert!(
        text.contains(r#""selector":"minference:vertical=40:slash=6096""#),
        "{text}"
    );
    let error = serde_json::from_str::<AttentionSettings>(&text).expect_err("code");
    let error = error.to_string();
    assert!(error.contains("cannot be read from a file"), "{error}");
    let plain = AttentionSettings::dense();
    let text = serde_json::to_string(&plain).expect("JSON");
    assert!(!text.contains("selector"), "{text}");
    assert_eq!(
        serde_json::from_str::<AttentionSettings>(&text).expect("settings"),
        plain
    );
    // Equal by name, whoever holds it.
    assert_eq!(settings, settings.clone());
    assert_ne!(
        settings,
        AttentionSettings::selected_by(parse("minference"))
    );
    let shared = SharedSelector::new(parse("a-shape"));
    assert_eq!(
        format!("{shared:?}"),
        r#"SharedSelector("a-shape:sink=128:window=3968")"#
    );
    for (text, without) in [
        ("tri-shape", Some("tri-shape:sink=128:window=3968:last=0")),
        (
            "flashprefill-v2",
            Some("flashprefill-v2:alpha=0.1:last_blocks=0"),
        ),
        ("xattention", None),
    ] {
        let got = parse(text).without_last().map(|selector| selector.name());
        assert_eq!(got.as_deref(), without);
    }
}
