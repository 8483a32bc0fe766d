//! Attention, dense and over given blocks.

use anyhow::Result;
use cubecl::server::Handle;
use sparse_accelerate_inputs::{
    BlockMask, Family, Shape, key, oracle, query, random_block_mask, value,
};
use sparse_accelerate_kernels::attend::{self, IndexShape, Problem, Stored};

use crate::{
    args::{Blocks, Choosers, Dense, Sizes},
    device::Bench,
    measure::{Case, measure},
    report::Report,
    table,
};

/// Sampled rows of every checked head.
const SAMPLES: usize = 64;

/// Inputs of one length, on the host and on the device.
struct Inputs {
    shape: Shape,
    host: [Vec<half::bf16>; 3],
    device: [Handle; 3],
}

impl Inputs {
    fn new(bench: &Bench, sizes: &Sizes, len: usize) -> Result<Self> {
        let shape = Shape::new(sizes.heads, sizes.kv_heads, len).with_head_dim(sizes.head_dim);
        let family = Family::Random;
        let host = [
            query(sizes.seed, family, shape)?,
            key(sizes.seed, family, shape)?,
            value(sizes.seed, family, shape)?,
        ];
        let device = [0, 1, 2].map(|i| bench.upload(&sizes.dtype.bits(&host[i])));
        Ok(Self {
            shape,
            host,
            device,
        })
    }
}

/// Causal attention over everything.
pub(crate) fn dense(bench: &Bench, args: &Dense, report: &mut Report) -> Result<()> {
    for &len in &args.sizes.lens {
        let inputs = Inputs::new(bench, &args.sizes, len)?;
        let pairs = (len as u64 * (len as u64 + 1) / 2) * args.sizes.heads as u64;
        let rows = table::dense(len);
        let case = Visible {
            name: "dense".into(),
            density: 1.0,
            index: None,
            table: &rows,
            pairs,
        };
        run(bench, &args.sizes, &inputs, &case, |_, i, j| j <= i, report)?;
    }
    Ok(())
}

/// Causal attention over random blocks.
pub(crate) fn blocks(bench: &Bench, args: &Blocks, report: &mut Report) -> Result<()> {
    let sizes = &args.sizes;
    for &len in &sizes.lens {
        let inputs = Inputs::new(bench, sizes, len)?;
        for &block in &args.blocks {
            for &density in &args.densities {
                let heads = match args.per {
                    Choosers::Query => sizes.heads,
                    Choosers::Kv => sizes.kv_heads,
                };
                let mask = random_block_mask(len, block, block, density, heads, 7)?;
                let rows = table::blocks(len, &mask);
                let sharing = sizes.heads / heads;
                let case = Visible {
                    name: format!("{:?} {block}", args.per).to_lowercase(),
                    density: mask.block_density(),
                    index: Some(IndexShape {
                        heads,
                        tiles: mask.rows(),
                        tile_tokens: block,
                        columns: false,
                        band: None,
                    }),
                    table: &rows,
                    pairs: pairs(&mask) * sharing as u64,
                };
                let sees = |h: usize, i: usize, j: usize| mask.sees(h / sharing, i, j);
                run(bench, sizes, &inputs, &case, sees, report)?;
            }
        }
    }
    Ok(())
}

fn pairs(mask: &BlockMask) -> u64 {
    (0..mask.heads()).map(|h| mask.pairs(h)).sum()
}

/// Keys that the rows of a case see.
struct Visible<'a> {
    name: String,
    density: f64,
    index: Option<IndexShape>,
    table: &'a [u32],
    /// Kept causal pairs of all query heads.
    pairs: u64,
}

fn run(
    bench: &Bench,
    sizes: &Sizes,
    inputs: &Inputs,
    case: &Visible<'_>,
    sees: impl Fn(usize, usize, usize) -> bool + Sync,
    report: &mut Report,
) -> Result<()> {
    let len = inputs.shape.len;
    let case = Case {
        name: &case.name,
        len,
        density: case.density,
        problem: Problem {
            batch: 1,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            rows: len,
            keys: len,
            head_dim: sizes.head_dim,
            scale: 1.0 / (sizes.head_dim as f32).sqrt(),
            index: case.index,
            gated_heads: None,
            stored: Stored::Elements,
            visible: attend::Visible::Causal,
        },
        tensors: &inputs.device,
        scales: None,
        table: case.table,
        pairs: case.pairs,
        streamed: None,
    };
    let error = |got: &[u16]| error(sizes, inputs, got, &sees);
    measure(bench, sizes, &case, error, report)
}

fn error(
    sizes: &Sizes,
    inputs: &Inputs,
    got: &[u16],
    sees: &(impl Fn(usize, usize, usize) -> bool + Sync),
) -> Result<f64> {
    // bf16 values of this size are f16 values too, so both types see the same inputs.
    let [q, k, v] = &inputs.host;
    let problem = oracle::Problem::new(inputs.shape, q, k, v)?;
    let dim = sizes.head_dim;
    let row = |h: usize, i: usize| {
        let at = (h * inputs.shape.len + i) * dim;
        got[at..at + dim]
            .iter()
            .map(|&x| sizes.dtype.value(x))
            .collect()
    };
    Ok(problem.sampled_error(SAMPLES, sees, row)?)
}
