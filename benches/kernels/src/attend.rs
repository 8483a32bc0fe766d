//! Attention, dense and over given blocks.

use std::num::NonZeroU32;

use anyhow::Result;
use cubecl::server::Handle;
use sparse_accelerate_inputs::{
    BlockMask, Family, Shape, key, oracle, query, random_block_mask, value,
};
use sparse_accelerate_kernels::attend::{IndexShape, Problem, Stored, Visible};

use crate::{
    args::{Blocks, Dense, Sizes},
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
        let visible = visible(args.window);
        let (all, seen) = (causal(len), (0..len).map(|i| shown(visible, i, 0, i + 1)));
        let seen = seen.sum::<u64>();
        let rows = table::dense(len);
        let case = Kept {
            name: named("dense".into(), args.window),
            density: seen as f64 / all as f64,
            index: None,
            table: &rows,
            visible,
            pairs: seen * args.sizes.heads as u64,
        };
        let sees = |_, i, j| j <= i && visible.first(i) <= j;
        run(bench, &args.sizes, &inputs, &case, sees, report)?;
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
                let heads = args.per.heads(sizes);
                let mask = random_block_mask(len, block, block, density, heads, 7)?;
                let rows = table::blocks(len, &mask);
                let sharing = sizes.heads / heads;
                let visible = visible(args.window);
                let name = format!("{:?} {block}", args.per).to_lowercase();
                let seen = pairs(&mask, len, visible);
                let case = Kept {
                    name: named(name, args.window),
                    density: match args.window {
                        None => mask.block_density(),
                        Some(_) => seen as f64 / (causal(len) * heads as u64) as f64,
                    },
                    index: Some(IndexShape {
                        heads,
                        tiles: mask.rows(),
                        tile_tokens: block,
                        columns: false,
                        band: None,
                    }),
                    table: &rows,
                    visible,
                    pairs: seen * sharing as u64,
                };
                let sees = |h: usize, i: usize, j: usize| {
                    visible.first(i) <= j && mask.sees(h / sharing, i, j)
                };
                run(bench, sizes, &inputs, &case, sees, report)?;
            }
        }
    }
    Ok(())
}

/// Pairs of a mask's heads that the rows see.
fn pairs(mask: &BlockMask, len: usize, visible: Visible) -> u64 {
    let block = mask.key_block();
    let row = |h: usize, i: usize| {
        let kept = mask.kept(h, i / mask.query_block()).iter();
        let shown = kept.map(|&at| {
            let first = at as usize * block;
            shown(visible, i, first, first + block)
        });
        shown.sum::<u64>()
    };
    (0..mask.heads())
        .flat_map(|h| (0..len).map(move |i| (h, i)))
        .map(|(h, i)| row(h, i))
        .sum()
}

/// Causal pairs of a head.
fn causal(len: usize) -> u64 {
    len as u64 * (len as u64 + 1) / 2
}

/// Keys from `from` to before `to` that the row at a position sees.
fn shown(visible: Visible, position: usize, from: usize, to: usize) -> u64 {
    visible.seen(position, from, to) as u64
}

fn visible(window: Option<NonZeroU32>) -> Visible {
    window.map_or(Visible::Causal, Visible::Window)
}

fn named(name: String, window: Option<NonZeroU32>) -> String {
    match window {
        None => name,
        Some(window) => format!("{name}, window {window}"),
    }
}

/// Keys that the rows of a case keep.
struct Kept<'a> {
    name: String,
    density: f64,
    index: Option<IndexShape>,
    table: &'a [u32],
    visible: Visible,
    /// Kept pairs of all query heads.
    pairs: u64,
}

fn run(
    bench: &Bench,
    sizes: &Sizes,
    inputs: &Inputs,
    case: &Kept<'_>,
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
            visible: case.visible,
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
