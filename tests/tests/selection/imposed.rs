//! Imposed blocks: the selection runs whole, is recorded and leaves its index; attention reads the blocks.

use burn::tensor::{DType, Int, Tensor};
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, Choice, FixedBlocks, HeadRecord, Heads, Path,
    Pattern, Selected, Selection, Span, Triangular, Visible, attend_selected, attend_with_lse,
    index::{self, TileIndex},
    select::{Correction, Granularity, Why},
};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    problem::floats,
};

use crate::{
    planted::{Case, HEADS, random},
    prompt, rounding,
    run::{first, selection, settings, tensors},
};

/// So few that every head falls below its floor.
fn blocks(granularity: Granularity) -> FixedBlocks {
    FixedBlocks {
        heads: granularity.choices(HEADS[0], HEADS[1]),
        block: 128,
        density: 0.2,
        seed: 5,
    }
}

fn imposed(selection: Selection) -> AttentionSettings {
    AttentionSettings {
        imposed: Some(blocks(selection.granularity)),
        ..settings(selection)
    }
}

fn run(backend: &Backend, case: &Case, settings: &AttentionSettings, layer: usize) -> Selected {
    let plan = case.problem.plan(settings, &backend.device);
    let [query, key, value] = tensors(backend, case);
    let layer = plan.layer(layer).expect("layer");
    attend_selected(query, &key, &value, None, &layer).expect("selected")
}

/// Output and log-sum-exp of attention over the blocks, without a selection.
fn over_blocks(backend: &Backend, case: &Case, granularity: Granularity) -> [Vec<f32>; 2] {
    let index = index::fixed_blocks(&case.problem.spans, &blocks(granularity)).expect("index");
    let plan = AttentionPlan::with_index(index, case.problem.model_heads(), &backend.device)
        .expect("plan");
    let [query, key, value] = tensors(backend, case);
    let (out, lse) = attend_with_lse(query, &key, &value, &first(&plan)).expect("attention");
    [floats(out), floats(lse)]
}

fn assert_near(name: &str, got: &[f32], expected: &[f32], limit: f32) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (at, (a, b)) in got.iter().zip(expected).enumerate() {
        // Padded rows have an infinite log-sum-exp.
        let near = a == b || (a - b).abs() <= limit;
        assert!(near, "{name}: entry {at} is {a}, not {b}");
    }
}

fn index(case: &Case, heads: usize, table: Tensor<1, Int>) -> TileIndex {
    let table = table.into_data().convert::<u32>();
    let table: Vec<u32> = table.try_to_vec().expect("words");
    TileIndex::from_table(&case.problem.spans, heads, &table).expect("index")
}

/// Record fields that the stages up to the choice write.
fn chosen(head: &HeadRecord) -> (f32, [u32; 3], [f32; 5]) {
    let kept = [head.columns, head.slashes, head.blocks];
    (head.predicted_recall, kept, head.costs)
}

/// Sequences of one batch: a whole prompt, and a chunk.
fn ragged() -> Case {
    let chunk = Span {
        query_len: 333,
        kv_len: 1200,
        prompt_len: 1300,
    };
    random(DType::F32, &[Span::whole(700), chunk])
}

#[test]
fn the_selection_runs_and_attention_reads_the_blocks() {
    for backend in backends::all() {
        for (name, case) in [("planted", prompt(DType::F32)), ("ragged", ragged())] {
            for granularity in [Granularity::PerKvHead, Granularity::PerQueryHead] {
                let name = format!("{}/{name}/{granularity:?}", backend.name);
                let selection = Selection {
                    granularity,
                    ..selection()
                };
                let own = run(&backend, &case, &settings(selection), 0);
                let got = run(&backend, &case, &imposed(selection), 0);
                let (own_heads, heads) = (own.record.read(), got.record.read());
                let (own_heads, heads) = (own_heads.expect("record"), heads.expect("record"));
                assert_eq!(
                    heads.iter().map(chosen).collect::<Vec<_>>(),
                    own_heads.iter().map(chosen).collect::<Vec<_>>(),
                    "{name}"
                );
                // Measured, found too little, and for all that not made dense.
                let chose = |head: &&HeadRecord| head.costs[1..].iter().any(|c| c.is_finite());
                for head in heads.iter().filter(chose) {
                    let low = head.recall < selection.recall && head.why == Why::MeasuredBelowFloor;
                    assert!(low || head.why == Why::DenseIsCheapest, "{name}: {head:?}");
                }
                let of = |table: Option<_>| {
                    index(&case, blocks(granularity).heads, table.expect("table"))
                };
                assert_eq!(of(got.table), of(own.table), "{name}");
                let [out, lse] = over_blocks(&backend, &case, granularity);
                let limit = rounding(DType::F32);
                assert_near(&name, &floats(got.output), &out, limit);
                assert_near(&name, &floats(got.lse), &lse, limit);
                assert_ne!(floats(own.output), out, "{name}");
            }
        }
    }
}

#[test]
fn element_types_of_the_kernels_read_the_blocks() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let name = format!("{}/{dtype:?}", backend.name);
            let case = prompt(dtype);
            let got = run(&backend, &case, &imposed(selection()), 0);
            let [out, _] = over_blocks(&backend, &case, Granularity::PerKvHead);
            let largest = case.inputs.value.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let limit = rounding(dtype) * largest;
            assert_near(&name, &floats(got.output), &out, limit);
        }
    }
}

#[test]
fn what_the_blocks_leave_out_is_corrected_for() {
    for backend in backends::all() {
        let case = prompt(DType::F32);
        let [out, lse] = over_blocks(&backend, &case, Granularity::PerKvHead);
        let selection = Selection {
            correction: Correction::Mean,
            ..selection()
        };
        let got = run(&backend, &case, &imposed(selection), 0);
        let raised = floats(got.lse);
        assert!(
            raised.iter().zip(&lse).all(|(a, b)| *a >= b - 1e-4),
            "{}: mass was lost",
            backend.name
        );
        let more = raised.iter().zip(&lse).filter(|(a, b)| **a > *b + 1e-3);
        assert!(
            more.count() > lse.len() / 2,
            "{}: no mass added",
            backend.name
        );
        let corrected = floats(got.output);
        assert!(corrected.iter().all(|x| x.is_finite()), "{}", backend.name);
        assert_ne!(corrected, out, "{}", backend.name);
    }
}

#[test]
fn layers_that_are_dense_by_setting_read_the_blocks_too() {
    for backend in backends::all() {
        let case = prompt(DType::F32);
        let selection = Selection {
            dense_layers: 1,
            ..selection()
        };
        let got = run(&backend, &case, &imposed(selection), 0);
        let heads = got.record.read().expect("record");
        let by_setting =
            |head: &HeadRecord| (head.choice, head.why) == (Choice::Dense, Why::DenseLayer);
        assert!(heads.iter().all(by_setting), "{}: {heads:?}", backend.name);
        let [out, _] = over_blocks(&backend, &case, Granularity::PerKvHead);
        let limit = rounding(DType::F32);
        assert_near(backend.name, &floats(got.output), &out, limit);
    }
}

#[test]
fn decisions_tell_the_imposed_density() {
    for backend in backends::all() {
        let spans = [Span::whole(2500)];
        let settings = imposed(selection());
        let heads = Heads::new(HEADS[0], HEADS[1], HEADS[2]);
        let plan = AttentionPlan::new(&settings, &spans, heads, Visible::Causal, &backend.device)
            .expect("plan");
        let blocks = blocks(Granularity::PerKvHead);
        let index = index::fixed_blocks(&spans, &blocks).expect("index");
        assert_eq!(plan.index(), Some(&index));
        let decision = plan.decision();
        assert_eq!(decision.path, Path::Selected);
        assert_eq!(decision.pattern, Pattern::FixedBlocks(blocks));
        assert_eq!(decision.density, Some(index.density()));
        assert!((index.density() - 0.2).abs() < 0.03, "{decision}");
    }
}

#[test]
fn what_cannot_be_imposed_is_refused() {
    for backend in backends::all() {
        let case = random(DType::F32, &[Span::whole(300)]);
        let per_query_head = AttentionSettings {
            imposed: Some(blocks(Granularity::PerQueryHead)),
            ..settings(selection())
        };
        let (spans, heads) = (&case.problem.spans, case.problem.model_heads());
        let plan =
            |settings| AttentionPlan::new(settings, spans, heads, Visible::Causal, &backend.device);
        let error = plan(&per_query_head).expect_err("heads");
        assert!(matches!(error, AttentionError::Shape { .. }), "{error}");
        let triangular = AttentionSettings {
            imposed: Some(blocks(Granularity::PerKvHead)),
            ..AttentionSettings::sparse(Pattern::Triangular(Triangular::default()))
        };
        let error = plan(&triangular).expect_err("pattern");
        assert!(
            matches!(
                error,
                AttentionError::Setting {
                    field: "imposed",
                    ..
                }
            ),
            "{error}"
        );
    }
}
