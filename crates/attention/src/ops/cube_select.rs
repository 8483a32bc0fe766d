//! Selections on every CubeCL runtime: the stages of [`sparse_accelerate_kernels::select`] one after the
//! other, with attention among them. What [`prepare`] accepted runs; nothing is read back.

use burn::{
    backend::cubecl::dtype_to_storage_type,
    tensor::{DType, Tensor},
};
use burn_cubecl::{
    CubeBackend, CubeDevice, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor,
};
use cubecl::{client::Client, ir::AddressType, prelude::*, server::Handle};
use sparse_accelerate_contract::{group::GroupWords, scratch::SelectionWords};
use sparse_accelerate_kernels::{
    Refusal,
    attend::{self as kernels},
    select::{
        PROBES, REPORT_WORDS, Shape, View, check, correct, group,
        index::{self, Index, Inputs, Options},
        pool,
    },
};

use super::{
    SelectionOps,
    cube::{owned, readable, refused},
};
use crate::{error::AttentionError, select::SelectOptions};

/// How the kernels run a selection and the attention in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SelectLaunch {
    sparse: kernels::Plan,
    stages: Stages,
}

/// The stages around the attention over the index.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stages {
    /// Every head chooses a pattern; those that fall short are attended again.
    Patterns {
        plans: index::Plans,
        dense: kernels::Plan,
    },
    /// One choice of blocks for a group.
    Group(group::Plan),
}

/// Asks the kernels how this device runs every stage, and adds their answer to the options.
pub(super) fn prepare(
    query: &Tensor<4>,
    kv_heads: usize,
    options: &SelectOptions,
    bands: usize,
    device: &CubeDevice,
) -> Result<SelectOptions, AttentionError> {
    let client = device.client();
    let elem = dtype_to_storage_type(query.dtype());
    let shape = options.shape(query.dims(), kv_heads);
    let properties = client.properties();
    let plan = |problem| kernels::prepare(&problem, elem, properties);
    let launch = || {
        Ok(SelectLaunch {
            sparse: plan(sparse(&shape, options))?,
            stages: match options.group {
                true => Stages::Group(group::prepare(&shape, elem, properties)?),
                false => Stages::Patterns {
                    plans: index::prepare(&shape, &stages(options, bands), elem, properties)?,
                    dense: plan(dense(&shape))?,
                },
            },
        })
    };
    Ok(SelectOptions {
        launch: Some(launch().map_err(|refusal| refused("attend", refusal))?),
        ..*options
    })
}

/// The scalars of the stages up to the index.
fn stages(options: &SelectOptions, bands: usize) -> Options {
    Options {
        lists: options.lists(),
        thresholds: options.thresholds,
        prices: options.prices,
        bands,
        gauss: options.second_order(),
    }
}

/// Attention over the index that was built, of the heads whose gate is 0; of a group, of all.
fn sparse(shape: &Shape, options: &SelectOptions) -> kernels::Problem {
    kernels::Problem {
        index: Some(kernels::IndexShape {
            heads: shape.index_heads,
            tiles: shape.tiles(),
            tile_tokens: kernels::QUERY_TILE,
            columns: options.columns > 0,
            band: None,
        }),
        gated_heads: (!options.group).then_some(shape.index_heads),
        ..dense(shape)
    }
}

/// Dense attention of the heads whose gate is 1.
fn dense(shape: &Shape) -> kernels::Problem {
    kernels::Problem {
        batch: shape.batch,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        rows: shape.rows,
        keys: shape.keys,
        head_dim: shape.head_dim,
        scale: shape.scale,
        index: None,
        gated_heads: Some(shape.index_heads),
        stored: kernels::Stored::Elements,
        visible: shape.visible,
    }
}

fn dims(tensor: &CubeTensor) -> [usize; 4] {
    let shape = tensor.meta.shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

fn view(tensor: &CubeTensor) -> View {
    let strides = tensor.meta.strides();
    View {
        handle: tensor.handle.clone(),
        shape: dims(tensor),
        strides: [strides[0], strides[1], strides[2], strides[3]],
    }
}

/// A buffer of 4-byte words, and how many.
#[derive(Clone)]
struct Words(Handle, usize);

impl Words {
    fn arg(&self) -> BufferArg {
        words(&self.0, self.1)
    }
}

/// The whole of a buffer of 4-byte words.
#[allow(unsafe_code)]
fn words(handle: &Handle, len: usize) -> BufferArg {
    // SAFETY: every buffer here was made for as many words.
    unsafe { BufferArg::from_raw_parts(handle.clone(), len) }
}

/// The tensors of one call, as the kernels can read them.
struct Call<'a> {
    query: CubeTensor,
    key: CubeTensor,
    value: CubeTensor,
    pooled: CubeTensor,
    spans: CubeTensor,
    rules: CubeTensor,
    bands: CubeTensor,
    probes: CubeTensor,
    shape: Shape,
    options: &'a SelectOptions,
    launch: SelectLaunch,
    table_words: usize,
    address: AddressType,
}

impl Call<'_> {
    /// The choice of a group and attention over it: table and report.
    fn run_group(
        &self,
        client: &Client,
        plan: &group::Plan,
        out: &CubeTensor,
        lse: &CubeTensor,
    ) -> (Handle, Handle) {
        let inputs = group::Inputs {
            query: view(&self.query),
            key: view(&self.key),
            value: view(&self.value),
            means: self.pooled.handle.clone(),
            capacity: self.pooled.meta.shape()[2],
            spans: self.spans.handle.clone(),
            probes: self.probes.handle.clone(),
            rules: self.rules.handle.clone(),
            address: self.address,
        };
        let elem = dtype_to_storage_type(self.query.dtype);
        let chosen = group::Chosen::new(client, &self.shape);
        group::select(
            client,
            &self.shape,
            plan,
            elem,
            &inputs,
            &chosen,
            &mut |_| {},
        );
        let read = self.read(&chosen.table);
        let kept = (&sparse(&self.shape, self.options), &self.launch.sparse);
        self.attend(client, kept, &read, out, lse);
        (chosen.table, chosen.report)
    }

    /// The table that attention reads: the one that was built, or the imposed one.
    fn read(&self, built: &Handle) -> Words {
        match self.options.imposed {
            true => Words(self.spans.handle.clone(), self.spans.meta.shape()[0]),
            false => Words(built.clone(), self.table_words),
        }
    }

    /// From the probes to the index.
    fn choose(&self, client: &Client, plans: &index::Plans) -> Index {
        let inputs = Inputs {
            query: view(&self.query),
            key: view(&self.key),
            pooled: self.pooled.handle.clone(),
            capacity: self.pooled.meta.shape()[2],
            spans: self.spans.handle.clone(),
            probes: self.probes.handle.clone(),
            rules: self.rules.handle.clone(),
            bands: self.bands.handle.clone(),
            address: self.address,
        };
        let elem = dtype_to_storage_type(self.query.dtype);
        let options = stages(self.options, self.bands.meta.shape()[0]);
        index::select(
            client,
            &self.shape,
            &options,
            plans,
            elem,
            &inputs,
            &mut |_| {},
        )
    }

    /// One pass of attention over the table: the heads that the problem's gate lets through.
    fn attend(
        &self,
        client: &Client,
        (problem, plan): (&kernels::Problem, &kernels::Plan),
        table: &Words,
        out: &CubeTensor,
        lse: &CubeTensor,
    ) {
        let elem = dtype_to_storage_type(self.query.dtype);
        let tensors = kernels::Tensors {
            query: self.query.clone().into_tensor_arg(),
            key: self.key.clone().into_tensor_arg(),
            value: self.value.clone().into_tensor_arg(),
            scales: None,
            table: table.arg(),
            out: out.clone().into_tensor_arg(),
            lse: lse.clone().into_buffer_arg(),
            with_lse: true,
            scratch: None,
            address: self.address,
        };
        kernels::launch(client, problem, plan, elem, tensors);
    }

    /// From the index to the check, and the heads that it found wanting.
    fn run(
        &self,
        client: &Client,
        chosen: &Index,
        again: &kernels::Plan,
        out: &CubeTensor,
        [kept_lse, lse]: [&CubeTensor; 2],
    ) -> Result<(), Refusal> {
        let (shape, options) = (&self.shape, self.options);
        let built = Words(chosen.table.clone(), self.table_words);
        let read = self.read(&chosen.table);
        let kept = (&sparse(shape, options), &self.launch.sparse);
        self.attend(client, kept, &read, out, kept_lse);
        if options.correction.order().is_some() {
            let tensors = correct::Tensors {
                query: self.query.clone().into_tensor_arg(),
                pooled: self.pooled.clone().into_buffer_arg(),
                capacity: self.pooled.meta.shape()[2],
                table: read.arg(),
                out: out.clone().into_tensor_arg(),
                lse: kept_lse.clone().into_buffer_arg(),
                corrected: lse.clone().into_buffer_arg(),
                with_lse: true,
                address: self.address,
            };
            let elem = dtype_to_storage_type(self.query.dtype);
            correct::launch(client, shape, options.correction, elem, None, tensors)?;
        }
        let indexes = shape.indexes();
        let tensors = check::Tensors {
            lse: kept_lse.clone().into_buffer_arg(),
            probe: words(&chosen.probe_lse, shape.batch * shape.heads * PROBES),
            kept: words(&chosen.kept, indexes * shape.tiles()),
            rules: self.rules.clone().into_buffer_arg(),
            spans: self.probes.clone().into_buffer_arg(),
            table: built.arg(),
            report: words(&chosen.report, indexes * REPORT_WORDS),
        };
        check::launch(client, shape, tensors);
        let again = (&dense(shape), again);
        self.attend(client, again, &read, out, lse);
        Ok(())
    }
}

impl SelectionOps for CubeBackend {
    fn pool(
        key: CubeTensor,
        value: CubeTensor,
        pooled: CubeTensor,
        table: CubeTensor,
    ) -> CubeTensor {
        let (key, value, pooled) = (readable(key), readable(value), owned(pooled));
        let [batch, kv_heads, keys, head_dim] = dims(&key);
        let [_, _, capacity, vectors] = dims(&pooled);
        let shape = Shape {
            batch,
            heads: kv_heads,
            kv_heads,
            index_heads: kv_heads,
            rows: keys,
            keys,
            head_dim,
            scale: 1.0,
            visible: kernels::Visible::Causal,
        };
        let address = [&key, &value, &pooled];
        let address = address.map(CubeTensor::required_address_type);
        let client = key.client.clone();
        let elem = dtype_to_storage_type(key.dtype);
        if vectors == 1 {
            let tensors = group::means::Tensors {
                capacity,
                key: key.into_tensor_arg(),
                spans: table.into_buffer_arg(),
                means: pooled.clone().into_buffer_arg(),
                address: address.into_iter().max().unwrap_or_default(),
            };
            group::means::launch(&client, &shape, elem, tensors);
            return pooled;
        }
        let tensors = pool::Tensors {
            capacity,
            key: key.into_tensor_arg(),
            value: value.into_tensor_arg(),
            spans: table.into_buffer_arg(),
            pooled: pooled.clone().into_buffer_arg(),
            address: address.into_iter().max().unwrap_or_default(),
        };
        pool::launch(&client, &shape, elem, tensors);
        pooled
    }

    fn attend_selected(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        pooled: CubeTensor,
        table: CubeTensor,
        rules: CubeTensor,
        bands: CubeTensor,
        probes: CubeTensor,
        options: SelectOptions,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        let shape = options.shape(dims(&query), dims(&key)[1]);
        let (client, device, dtype) = (query.client.clone(), query.device.clone(), query.dtype);
        let empty = |shape: &[usize], dtype| {
            let shape = shape.to_vec().into();
            empty_device_contiguous_dtype(client.clone(), device.clone(), shape, dtype)
        };
        let (batch, heads, rows) = (shape.batch, shape.heads, shape.rows);
        let (query, key, value) = (readable(query), readable(key), readable(value));
        let entries = batch * rows * heads * shape.head_dim;
        let (table_words, words) = match options.group {
            true => {
                let lengths = GroupWords::new(&shape);
                (lengths.table, lengths.shares.max(lengths.parts))
            }
            false => {
                let lengths = SelectionWords::new(&shape, &options.lists());
                (lengths.table, lengths.shares.max(lengths.columns))
            }
        };
        let words = words.max(table_words);
        let largest = words.max(entries);
        let address = [&query, &key, &value, &pooled];
        let address = address.map(CubeTensor::required_address_type);
        let own = match largest > u32::MAX as usize {
            true => AddressType::U64,
            false => AddressType::U32,
        };
        let address = address.into_iter().fold(own, AddressType::max);
        // The public function calls `prepare`; only a direct call of the extension meets these panics.
        let Some(launch) = options.launch else {
            panic!("attend: its options were made for another device");
        };
        let call = Call {
            launch,
            query,
            key,
            value,
            pooled,
            spans: table,
            rules,
            bands,
            probes,
            shape,
            options: &options,
            table_words,
            address,
        };
        let tensor = |handle: Handle, shape: &[usize], dtype| {
            let shape = shape.to_vec().into();
            CubeTensor::new_contiguous(client.clone(), device.clone(), shape, handle, dtype)
        };
        let report_words = options.report_words(&shape);
        let results = |report: Handle, table: Handle| {
            let report = tensor(report, &[shape.indexes(), report_words], DType::F32);
            (report, tensor(table, &[table_words], DType::U32))
        };
        // Written as [B, N, Hq, d], seen as [B, Hq, N, d], as by attention without a selection.
        let output = || {
            let mut out = empty(&[batch, rows, heads, shape.head_dim], dtype);
            out.meta.swap(1, 2);
            out
        };
        let (plans, again) = match &launch.stages {
            Stages::Patterns { plans, dense } => (plans, dense),
            Stages::Group(plan) => {
                let (out, lse) = (output(), empty(&[batch, heads, rows], DType::F32));
                let (table, report) = call.run_group(&client, plan, &out, &lse);
                let (report, table) = results(report, table);
                return (out, lse, report, table);
            }
        };
        let chosen = call.choose(&client, plans);
        // Allocated only now: the buffers of the choice are free again.
        let out = output();
        let lse = empty(&[batch, heads, rows], DType::F32);
        // The check reads what was kept, before the correction adds to it.
        let kept_lse = match options.correction.order() {
            None => lse.clone(),
            Some(_) => empty(&[batch, heads, rows], DType::F32),
        };
        call.run(&client, &chosen, again, &out, [&kept_lse, &lse])
            .unwrap_or_else(|refusal| panic!("attend: {refusal}"));
        let (report, table) = results(chosen.report, chosen.table);
        (out, lse, report, table)
    }
}
