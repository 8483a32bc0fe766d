//! Runs a case with a selection, and checks what holds for every selection there is.

use burn::tensor::Tensor;
use sparse_accelerate::{
    AttentionPlan, AttentionSettings, Choice, Dynamic, HeadRecord, LayerPlan, Pattern, PooledKeys,
    Selected, Selection, attend_selected, attend_with_lse,
    index::TileIndex,
    select::{Correction, Granularity, Why},
};
use sparse_accelerate_tests::{
    backends::Backend,
    problem::{Layout, floats},
};

use crate::planted::Case;

/// Result of a selection, on the host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ran {
    pub(crate) out: Vec<f32>,
    pub(crate) lse: Vec<f32>,
    pub(crate) heads: Vec<HeadRecord>,
    pub(crate) index: TileIndex,
}

/// A small local part, so that it does not hide what is planted, and no correction: outputs are then
/// bound by the recall.
pub(crate) fn selection() -> Selection {
    Selection {
        recall: 0.9,
        correction: Correction::None,
        granularity: Granularity::PerKvHead,
        sink: 16,
        window: 64,
        last: 64,
        ..Selection::default()
    }
}

pub(crate) fn settings(selection: Selection) -> AttentionSettings {
    AttentionSettings {
        selection,
        ..AttentionSettings::sparse(Pattern::Dynamic(Dynamic::default()))
    }
}

pub(crate) fn plan(backend: &Backend, case: &Case, selection: Selection) -> AttentionPlan {
    case.problem.plan(&settings(selection), &backend.device)
}

/// The plan as the first layer uses it.
pub(crate) fn first(plan: &AttentionPlan) -> LayerPlan<'_> {
    plan.layer(0).expect("layer")
}

/// Query, key and value on a backend.
pub(crate) fn tensors(backend: &Backend, case: &Case) -> [Tensor<4>; 3] {
    let (p, device) = (&case.problem, &backend.device);
    let contiguous = Layout::Contiguous;
    [
        p.tensor(&case.inputs.query, p.query_dims(), p.layout, device),
        p.tensor(&case.inputs.key, p.key_dims(), contiguous, device),
        p.tensor(&case.inputs.value, p.key_dims(), contiguous, device),
    ]
}

/// Output and log-sum-exp of dense attention.
pub(crate) fn dense(backend: &Backend, case: &Case) -> (Vec<f32>, Vec<f32>) {
    let [query, key, value] = tensors(backend, case);
    let settings = AttentionSettings::dense();
    let plan = case.problem.plan(&settings, &backend.device);
    let (out, lse) = attend_with_lse(query, &key, &value, &first(&plan)).expect("dense");
    (floats(out), floats(lse))
}

/// Runs a case whole.
pub(crate) fn run(backend: &Backend, case: &Case, selection: Selection) -> Ran {
    let [query, key, value] = tensors(backend, case);
    let plan = plan(backend, case, selection);
    let selected = attend_selected(query, &key, &value, None, &first(&plan)).expect("selected");
    read(selected, case, &selection)
}

/// Runs a case whole and returns its pooled keys too.
pub(crate) fn run_pooled(backend: &Backend, case: &Case, selection: Selection) -> (Ran, Vec<f32>) {
    let [query, key, value] = tensors(backend, case);
    let mut pooled = PooledKeys::new(case.problem.key_dims(), &backend.device);
    let plan = plan(backend, case, selection);
    let selected =
        attend_selected(query, &key, &value, Some(&mut pooled), &first(&plan)).expect("selected");
    let ran = read(selected, case, &selection);
    (ran, floats(pooled.tensor().clone()))
}

/// Reads a selection, and checks that its index keeps the invariants and that its records agree with
/// themselves and with the index.
pub(crate) fn read(selected: Selected, case: &Case, selection: &Selection) -> Ran {
    let heads = selected.record.read().expect("record");
    let table = selected.table.expect("a table").into_data();
    let table: Vec<u32> = table.convert::<u32>().try_to_vec().expect("words");
    let index_heads = heads.len() / case.problem.spans.len();
    let index = TileIndex::from_table(&case.problem.spans, index_heads, &table).expect("index");
    let longest = case.problem.spans.iter().map(|span| span.kv_len).max();
    let hides = |window: u32| longest.is_some_and(|keys| (window as usize) < keys);
    let index = match case.problem.window.is_some_and(hides) {
        true => index.within(case.problem.visible()).expect("a window"),
        false => index,
    };
    for head in &heads {
        if head.choice == Choice::Dense {
            assert_eq!(head.density, 1.0, "{head:?}");
            if !matches!(head.why, Why::MeasuredBelowFloor | Why::ErrorAboveLimit) {
                assert_eq!(head.recall, 1.0, "{head:?}");
            }
        } else {
            match head.choice {
                Choice::GroupBlocks => assert!(head.error <= selection.error, "{head:?}"),
                _ => assert!(head.recall >= selection.recall, "{head:?}"),
            }
            let density = density(&index, head);
            let close = (density - f64::from(head.density)).abs() < 1e-5;
            assert!(close, "the index's density is {density}: {head:?}");
        }
    }
    Ran {
        out: floats(selected.output),
        lse: floats(selected.lse),
        heads,
        index,
    }
}

/// Kept visible pairs of one head over all: a row sees what its tile keeps, as far as it may see it.
fn density(index: &TileIndex, head: &HeadRecord) -> f64 {
    let span = index.spans()[head.sequence];
    let (mut kept, mut all) = (0, 0);
    for i in 0..span.query_len {
        let p = span.offset() + i;
        let row = index.row(head.sequence, head.head, i / 64);
        let seen = (0..=p).find(|j| index.visible().sees(p, *j));
        let seen = seen.expect("its own key");
        let of_range = |r: &[u32]| {
            let (from, end) = ((r[0] as usize).max(seen), (r[1] as usize).min(p + 1));
            end.saturating_sub(from)
        };
        let columns = row.columns.iter().filter(|c| **c as usize >= seen);
        kept += row.ranges.chunks_exact(2).map(of_range).sum::<usize>() + columns.count();
        all += p + 1 - seen;
    }
    kept as f64 / all as f64
}

impl Ran {
    /// The record of a head of the first sequence.
    pub(crate) fn head(&self, head: usize) -> &HeadRecord {
        &self.heads[head]
    }

    /// Density over all heads.
    pub(crate) fn density(&self) -> f32 {
        self.heads.iter().map(|h| h.density).sum::<f32>() / self.heads.len() as f32
    }

    /// Output of a KV head's query heads.
    pub(crate) fn of_kv_head(&self, case: &Case, kv_head: usize) -> &[f32] {
        let part = self.out.len() / case.problem.kv_heads;
        &self.out[kv_head * part..][..part]
    }

    /// Checks every row of every head: without what is left out the output moves by at most twice the
    /// mass left out times the largest value, `|o_kept - o| = (1 - r) |o_kept - o_left|`. Returns the
    /// relative error over all rows.
    pub(crate) fn assert_bound(
        &self,
        name: &str,
        case: &Case,
        (out, lse): &(Vec<f32>, Vec<f32>),
        rounding: f32,
    ) -> f32 {
        let largest = |m: f32, x: &f32| if x.is_finite() { m.max(x.abs()) } else { m };
        let largest = case.inputs.value.iter().fold(0.0, largest);
        let d = case.problem.head_dim;
        let (mut error, mut norm) = (0.0f64, 0.0f64);
        for (row, (kept, all)) in self.lse.iter().zip(lse).enumerate() {
            let recall = (kept - all).exp();
            assert!(
                recall <= 1.0 + 1e-2,
                "{name}: row {row} has recall {recall}"
            );
            let bound = 2.0 * (1.0 - recall).max(0.0) * largest + rounding * largest;
            let entries = row * d..(row + 1) * d;
            for (got, exact) in self.out[entries.clone()].iter().zip(&out[entries]) {
                let difference = (got - exact).abs();
                assert!(
                    difference <= bound,
                    "{name}: row {row} differs by {difference}, recall {recall} allows {bound}"
                );
                error += f64::from(difference).powi(2);
                norm += f64::from(*exact).powi(2);
            }
        }
        (error / norm).sqrt() as f32
    }
}
