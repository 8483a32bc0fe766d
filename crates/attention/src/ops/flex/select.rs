//! Selections on the CPU: the stages of [`crate::select::cpu`] one after the other, with attention among
//! them.

use burn::{
    backend::Flex,
    tensor::{DType, Shape as TensorShape, bf16, f16},
};
use burn_flex::FlexTensor;

use super::{attend_gated, rows_contiguous};
use sparse_accelerate_contract::{
    BLOCK, Shape, Visible, group::MEAN_BLOCK, scratch::SelectionWords, table,
};
use sparse_accelerate_cpu::FlexFloat;

use crate::{
    ops::{AttendOptions, SelectionOps},
    select::{
        SelectOptions,
        cpu::{self, Pooled, View, ViewMut},
    },
};

impl SelectionOps for Flex {
    fn pool(
        key: FlexTensor,
        value: FlexTensor,
        pooled: FlexTensor,
        table: FlexTensor,
    ) -> FlexTensor {
        match key.dtype() {
            DType::F32 => pool::<f32>(key, value, pooled, table),
            DType::F16 => pool::<f16>(key, value, pooled, table),
            DType::BF16 => pool::<bf16>(key, value, pooled, table),
            // The public function checks the type; only a direct call of the extension gets here.
            other => panic!("pool: element type {other:?} is not supported"),
        }
    }

    fn attend_selected(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        pooled: FlexTensor,
        table: FlexTensor,
        rules: FlexTensor,
        bands: FlexTensor,
        probes: FlexTensor,
        options: SelectOptions,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let fixed = Fixed {
            pooled,
            table,
            rules,
            bands,
            probes,
            options,
        };
        match query.dtype() {
            DType::F32 => fixed.run::<f32>(query, key, value),
            DType::F16 => fixed.run::<f16>(query, key, value),
            DType::BF16 => fixed.run::<bf16>(query, key, value),
            other => panic!("attend: element type {other:?} is not supported"),
        }
    }
}

fn dims(tensor: &FlexTensor) -> [usize; 4] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

fn view<E: FlexFloat>(tensor: &FlexTensor) -> View<'_, E> {
    let layout = tensor.layout();
    let strides = layout.strides();
    View {
        data: &tensor.storage::<E>()[layout.start_offset()..],
        strides: [
            strides[0] as usize,
            strides[1] as usize,
            strides[2] as usize,
        ],
    }
}

fn pool<E: FlexFloat>(
    key: FlexTensor,
    value: FlexTensor,
    mut pooled: FlexTensor,
    table: FlexTensor,
) -> FlexTensor {
    let (key, value) = (rows_contiguous(key), rows_contiguous(value));
    let [batch, kv_heads, keys, head_dim] = dims(&key);
    let (blocks, vectors) = (pooled.layout().shape()[2], pooled.layout().shape()[3]);
    let size = if vectors == 1 { MEAN_BLOCK } else { BLOCK };
    let shape = Shape {
        batch,
        heads: kv_heads,
        kv_heads,
        index_heads: kv_heads,
        rows: keys,
        keys: keys.min(blocks * size),
        head_dim,
        scale: 1.0,
        visible: Visible::Causal,
    };
    let spans = table.storage::<u32>();
    let (key, value) = (view::<E>(&key), view::<E>(&value));
    if vectors == 1 {
        cpu::group::means(&shape, key, spans, pooled.storage_mut::<E>(), blocks);
        return pooled;
    }
    cpu::pool(
        &shape,
        key,
        value,
        spans,
        pooled.storage_mut::<f32>(),
        blocks,
    );
    pooled
}

/// The operands that have one element type.
struct Fixed {
    pooled: FlexTensor,
    table: FlexTensor,
    rules: FlexTensor,
    bands: FlexTensor,
    probes: FlexTensor,
    options: SelectOptions,
}

/// Outputs of the choice, for attention and for the check.
struct Chosen {
    table: Vec<u32>,
    report: Vec<f32>,
    kept: Vec<u32>,
    probe_lse: Vec<f32>,
}

impl Fixed {
    fn pooled(&self) -> Pooled<'_> {
        Pooled {
            data: self.pooled.storage::<f32>(),
            blocks: self.pooled.layout().shape()[2],
        }
    }

    /// From the probes to the index.
    fn choose<E: FlexFloat>(
        &self,
        shape: &Shape,
        query: View<'_, E>,
        key: View<'_, E>,
        value: View<'_, E>,
    ) -> Chosen {
        let options = &self.options;
        let (spans, rules) = (self.table.storage::<u32>(), self.rules.storage::<u32>());
        let probes = self.probes.storage::<u32>();
        if options.group {
            let inputs = cpu::group::GroupInputs {
                spans,
                probes,
                rules,
            };
            let means = self.pooled.storage::<E>();
            let capacity = self.pooled.layout().shape()[2];
            let chosen = cpu::group::choose(shape, query, (key, value), means, capacity, &inputs);
            return Chosen {
                table: chosen.table,
                report: chosen.report,
                kept: Vec::new(),
                probe_lse: Vec::new(),
            };
        }
        let lists = options.lists();
        let lengths = SelectionWords::new(shape, &lists);

        let mut probe_lse = vec![0.0; lengths.probe_lse];
        let mut columns = vec![0.0; lengths.columns];
        let mut slashes = vec![0; lengths.slashes];
        let sums = (&mut columns, &mut slashes);
        cpu::probe(
            shape,
            query,
            key,
            probes,
            rules,
            &mut probe_lse,
            sums.0,
            sums.1,
        );

        let mut kept_lists = vec![0; lengths.lists];
        let mut covered = vec![0.0; lengths.covered];
        let cut = (&mut kept_lists, &mut covered);
        cpu::cut_columns(
            shape,
            &lists,
            &options.thresholds,
            &columns,
            &slashes,
            probes,
            rules,
            cut.0,
            cut.1,
        );

        let mut shares = vec![0.0; lengths.shares];
        let (bands, gauss) = (self.bands.storage::<f32>(), options.second_order());
        cpu::score(
            shape,
            query,
            self.pooled(),
            spans,
            rules,
            bands,
            gauss,
            &mut shares,
        );

        let mut masks = vec![0; lengths.masks];
        let mut counts = vec![0; lengths.counts];
        cpu::cut_blocks(
            shape,
            &shares,
            &covered,
            spans,
            rules,
            &mut masks,
            &mut counts,
        );

        let (mut report, mut gates) = (vec![0.0; lengths.report], vec![0; lengths.gates]);
        let inputs = cpu::ChooseInputs {
            covered: &covered,
            counts: &counts,
            lists: &kept_lists,
            lse: &probe_lse,
            spans,
            rules,
        };
        cpu::choose(
            shape,
            &lists,
            &options.prices,
            &inputs,
            &mut report,
            &mut gates,
        );

        let (mut table, mut kept) = (vec![0; lengths.table], vec![0; lengths.kept]);
        let inputs = cpu::BuildInputs {
            spans,
            lists: &kept_lists,
            masks: &masks,
            report: &report,
            gates: &gates,
            rules,
        };
        cpu::build(shape, &lists, &inputs, &mut table, &mut kept);
        Chosen {
            table,
            report,
            kept,
            probe_lse,
        }
    }

    fn run<E: FlexFloat>(
        &self,
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let query = rows_contiguous(query);
        let (key, value) = (rows_contiguous(key), rows_contiguous(value));
        let options = &self.options;
        let shape = options.shape(dims(&query), dims(&key)[1]);
        let Shape {
            batch,
            heads,
            rows,
            head_dim,
            ..
        } = shape;
        let mut chosen = self.choose::<E>(&shape, view(&query), view(&key), view(&value));
        let at = options.table(&shape);

        // Written as [B, N, Hq, d], returned as [B, Hq, N, d]: the model's next reshape copies nothing.
        let mut out =
            FlexTensor::empty(TensorShape::new([batch, rows, heads, head_dim]), E::dtype());
        let mut lse = FlexTensor::empty(TensorShape::new([batch, heads, rows]), DType::F32);
        let attention = AttendOptions {
            scale: options.scale,
            index_heads: shape.index_heads,
            tiles: shape.tiles(),
            columns: options.columns > 0,
            band: None,
            window: options.window,
            launch: None,
            causal_pairs: options.causal_pairs,
            density: None,
        };
        let operands = [&query, &key, &value];
        let gates = |table: &[u32]| table[at.gates_at..at.ranges_at].to_vec();
        // An imposed index has its gates where the one that is built has them.
        let imposed = options.imposed.then(|| self.table.storage::<u32>());
        let read = imposed.unwrap_or(&chosen.table);
        let sparse = (gates(read), table::SPARSE);
        attend_gated::<E>(operands, read, attention, &sparse, &mut out, &mut lse);

        if options.group {
            return self.results(&shape, chosen, out, lse);
        }
        let kept_lse = lse.storage::<f32>().to_vec();
        if options.correction.order().is_some() {
            let strides = [rows * heads * head_dim, head_dim, heads * head_dim];
            let view_out = ViewMut {
                data: out.storage_mut::<E>(),
                strides,
            };
            let corrected = lse.storage_mut::<f32>();
            let (query, pooled, table) = (view(&query), self.pooled(), read);
            cpu::correct(
                &shape,
                query,
                pooled,
                table,
                options.correction,
                view_out,
                &kept_lse,
                corrected,
            );
        }
        let (spans, probes) = (self.table.storage::<u32>(), self.probes.storage::<u32>());
        let rules = self.rules.storage::<u32>();
        cpu::check(
            &shape,
            &kept_lse,
            &chosen.probe_lse,
            &chosen.kept,
            spans,
            probes,
            rules,
            &mut chosen.report,
            &mut chosen.table[at.gates_at..at.ranges_at],
        );
        let dense = AttendOptions {
            index_heads: 0,
            columns: false,
            ..attention
        };
        let read = imposed.unwrap_or(&chosen.table);
        let gated = (gates(read), table::DENSE);
        attend_gated::<E>(operands, read, dense, &gated, &mut out, &mut lse);

        self.results(&shape, chosen, out, lse)
    }

    fn results(
        &self,
        shape: &Shape,
        chosen: Chosen,
        out: FlexTensor,
        lse: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let row = self.options.report_words(shape);
        let reports = TensorShape::new([shape.indexes(), row]);
        let words = TensorShape::new([chosen.table.len()]);
        (
            out.transpose(1, 2),
            lse,
            FlexTensor::from_data(burn::tensor::TensorData::new(chosen.report, reports)),
            FlexTensor::from_data(burn::tensor::TensorData::new(chosen.table, words)),
        )
    }
}
