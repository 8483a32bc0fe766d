//! Blocks chosen by their mass, by groups and by heads alone, through the public calls: what a record says was kept is what the
//! log-sum-exps of the sampled rows say, every row is within the bound of what it keeps, and pooled keys carry over from chunk to chunk.

use sparse_accelerate_contract::group::{MEAN_BLOCK, sampled_row};

use super::{
    Backend, Case, Choice, DType, Granularity, HEADS, LEN, PooledKeys, Selection, Why,
    attend_selected, backends, dense, first, floats, prompt, random, read, rounding, run::Ran,
    tensors,
};
use sparse_accelerate::{AttentionPlan, AttentionSettings, Pattern, Span};

fn selection(recall: f32) -> Selection {
    Selection {
        recall,
        error: 10.0,
        sink: 16,
        window: 64,
        last: 64,
        ..Selection::default()
    }
}

fn plan(backend: &Backend, case: &Case, selection: Selection) -> AttentionPlan {
    let settings = AttentionSettings {
        selection,
        ..AttentionSettings::sparse(Pattern::GroupBlocks)
    };
    case.problem.plan(&settings, &backend.device)
}

fn run(
    backend: &Backend,
    case: &Case,
    selection: Selection,
    pooled: Option<&mut PooledKeys>,
) -> Ran {
    let [query, key, value] = tensors(backend, case);
    let plan = plan(backend, case, selection);
    let selected = attend_selected(query, &key, &value, pooled, &first(&plan)).expect("selected");
    read(selected, case, &selection)
}

/// Mean over the heads of a choice and sampled rows of what the log-sum-exps say was kept.
fn kept(ran: &Ran, dense: &[f32], choice: usize) -> f32 {
    let sharing = HEADS[0] / ran.heads.len();
    let (samples, rows) = (4, LEN - 64);
    let heads = choice * sharing..(choice + 1) * sharing;
    let all = heads
        .flat_map(|head| (0..samples).map(move |s| head * LEN + sampled_row(s, samples, rows)));
    let sum: f32 = all.map(|at| (ran.lse[at] - dense[at]).exp()).sum();
    sum / (samples * sharing) as f32
}

/// Error of the outputs of a choice's heads on sampled rows, over those of the layer's mean head.
fn error(ran: &Ran, dense: &[f32], choice: usize) -> f32 {
    let sharing = HEADS[0] / ran.heads.len();
    let (samples, rows, d) = (4, LEN - 64, dense.len() / HEADS[0] / LEN);
    let squares = |heads: std::ops::Range<usize>, of: &dyn Fn(usize) -> f32| {
        let count = heads.len() as f32;
        let at = heads.flat_map(|head| {
            (0..samples).flat_map(move |s| {
                let row = head * LEN + sampled_row(s, samples, rows);
                row * d..(row + 1) * d
            })
        });
        at.map(|i| of(i) * of(i)).sum::<f32>() / count
    };
    let heads = choice * sharing..(choice + 1) * sharing;
    let off = squares(heads, &|i| ran.out[i] - dense[i]);
    (off / squares(0..HEADS[0], &|i| dense[i])).sqrt()
}

#[test]
fn a_record_says_what_sampled_rows_keep() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let case = prompt(dtype);
            let exact = dense(&backend, &case);
            for granularity in [Granularity::PerKvHead, Granularity::PerQueryHead] {
                let name = format!("{}/{dtype:?}/{granularity:?}", backend.name);
                // Without sinks, which a record does not count and log-sum-exps do.
                let settings = Selection {
                    granularity,
                    sink: 0,
                    ..selection(0.6)
                };
                let ran = run(&backend, &case, settings, None);
                assert_eq!(ran.heads.len(), granularity.choices(HEADS[0], HEADS[1]));
                for (choice, head) in ran.heads.iter().enumerate() {
                    assert_eq!(head.choice, Choice::GroupBlocks, "{name}: {head:?}");
                    assert!(
                        matches!(head.why, Why::MassHeld | Why::MassRaised),
                        "{name}"
                    );
                    assert!(head.density < 0.95 && head.blocks > 0, "{name}: {head:?}");
                    assert_eq!(head.time_over_dense(), None);
                    let of_rows = kept(&ran, &exact.1, choice);
                    let off = (of_rows - head.recall).abs();
                    assert!(off < 0.01, "{name}: rows keep {of_rows}, {head:?}");
                    let of_rows = error(&ran, &exact.0, choice);
                    let off = (of_rows - head.error).abs();
                    let rounding = if dtype == DType::F32 { 1e-4 } else { 5e-3 };
                    assert!(
                        off < rounding + 0.02 * head.error,
                        "{name}: rows are off by {of_rows}, {head:?}"
                    );
                }
                ran.assert_bound(&name, &case, &exact, rounding(dtype));
            }
        }
    }
}

/// A limit just below the first error keeps more, one that nothing meets keeps everything.
#[test]
fn an_error_above_the_limit_keeps_more_and_then_everything() {
    for backend in backends::all() {
        let name = &backend.name;
        let case = prompt(DType::F32);
        let exact = dense(&backend, &case);
        let limited = |error| {
            let settings = Selection {
                error,
                granularity: Granularity::PerQueryHead,
                ..selection(0.5)
            };
            run(&backend, &case, settings, None)
        };
        let free = limited(10.0);
        let worst = free.heads.iter().map(|head| head.error);
        let worst = worst.fold(0.0, f32::max);
        assert!(worst > 1e-3, "{name}: {worst}");
        let tight = limited(0.999 * worst);
        for (choice, (head, before)) in tight.heads.iter().zip(&free.heads).enumerate() {
            if before.error < 0.999 * worst {
                assert_eq!(head.why, Why::MassHeld, "{name}: {head:?}");
                continue;
            }
            assert!(head.why != Why::MassHeld, "{name}: {head:?}");
            assert!(head.density > before.density, "{name}: {head:?}");
            let of_rows = error(&tight, &exact.0, choice);
            assert!(
                of_rows < worst,
                "{name}: rows are off by {of_rows}, {head:?}"
            );
        }
        let none = limited(0.0);
        for head in none.heads.iter().filter(|head| head.error > 0.0) {
            assert_eq!(head.why, Why::ErrorAboveLimit, "{name}: {head:?}");
            assert_eq!(head.density, 1.0, "{name}: {head:?}");
        }
        for (got, want) in none.out.iter().zip(&exact.0) {
            assert!((got - want).abs() < 1e-4, "{name}: {got} for {want}");
        }
    }
}

#[test]
fn a_floor_of_everything_keeps_everything() {
    for backend in backends::all() {
        let chunk = Span {
            query_len: 200,
            kv_len: 500,
            prompt_len: 700,
        };
        let case = random(DType::F32, &[Span::whole(900), chunk]);
        let (out, _) = dense(&backend, &case);
        let ran = run(&backend, &case, selection(1.0), None);
        assert!(ran.heads.iter().all(|head| head.density == 1.0));
        for (got, want) in ran
            .out
            .iter()
            .zip(&out)
            .filter(|(_, want)| want.is_finite())
        {
            assert!(
                (got - want).abs() < 1e-4,
                "{}: {got} for {want}",
                backend.name
            );
        }
    }
}

#[test]
fn mean_keys_of_chunks_are_those_of_the_whole() {
    for backend in backends::all() {
        let case = prompt(DType::F32);
        let device = &backend.device;
        let dims = case.problem.key_dims();
        let mut whole = PooledKeys::means(dims, DType::F32, device);
        run(&backend, &case, selection(0.6), Some(&mut whole));
        // Another kind of pooled keys is made anew.
        let mut parts = PooledKeys::new(dims, device);
        let [_, key, value] = tensors(&backend, &case);
        for cut in [[0, 700], [700, 1001], [1001, LEN]] {
            let chunk = case.chunk(cut[0], cut[1]);
            let p = &chunk.problem;
            let query = p.tensor(&chunk.inputs.query, p.query_dims(), p.layout, device);
            let plan = plan(&backend, &chunk, selection(0.6));
            attend_selected(query, &key, &value, Some(&mut parts), &first(&plan)).expect("chunk");
        }
        assert!(parts.means_alone());
        let blocks = LEN.div_ceil(MEAN_BLOCK);
        assert!(whole.tensor().dims()[2] >= blocks);
        assert_eq!(parts.tensor().dims()[4], whole.tensor().dims()[4]);
        let of = |pooled: &PooledKeys, head: usize| -> Vec<u32> {
            let [_, _, room, _, d] = pooled.tensor().dims();
            let values = floats(pooled.tensor().clone());
            let head = &values[head * room * d..][..blocks * d];
            head.iter().map(|x| x.to_bits()).collect()
        };
        for head in 0..HEADS[1] {
            assert_eq!(of(&whole, head), of(&parts, head), "{}", backend.name);
        }
    }
}
