//! From a chunk to the index of its groups, or a refusal.

use cubecl::{
    client::Client,
    ir::{AddressType, DeviceProperties, ElemType, FloatKind},
    prelude::*,
    server::Handle,
};
use sparse_accelerate_contract::{
    QUERY_TILE, RULE_WORDS, SPAN_WORDS,
    group::{self, GroupWords, MOST_HEADS},
};

use super::{
    UNITS,
    index::{self, IndexBlueprint},
    measure::{self, MeasureBlueprint},
    rows::{self, RowsBlueprint},
    share::{self, ShareBlueprint},
};
use crate::{
    Refusal,
    attend::plan::fold,
    layout::{self, buffer},
    refusal::{cube_fits, first_that_fits},
    select::{
        Shape, View, pack,
        product::{self, UNIT_WIDTH},
    },
};

/// The launches of a choice, checked against a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    share: Share,
    rows: RowsBlueprint,
    rows_grid: (u32, u32),
    index: IndexBlueprint,
}

/// The launch that shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    blueprint: ShareBlueprint,
    /// Cubes that share the tiles of an index head.
    cubes: usize,
    grid: (u32, u32),
}

impl Plan {
    /// Mean queries of a query tile and head.
    pub fn parts(&self) -> usize {
        self.share.blueprint.parts
    }
}

/// Inputs of a choice.
#[allow(missing_debug_implementations)] // CubeCL's views have none
pub struct Inputs {
    /// `[B, Hq, N, d]`, last dimension contiguous, other strides multiples of 8; as are `key` and `value`.
    pub query: View,
    /// `[B, Hk, S, d]`.
    pub key: View,
    /// `[B, Hk, S, d]`.
    pub value: View,
    /// `[B, Hk, capacity, d]` in the element type, as [`super::means`] leaves it.
    pub means: Handle,
    /// Blocks that `means` has room for.
    pub capacity: usize,
    /// Spans `[B, 4]`: new rows, keys, first position that sees everything, 0.
    pub spans: Handle,
    /// The same for the rows that are sampled.
    pub probes: Handle,
    /// `[Hi, 8]`, of which sinks, window, the recall that is aimed at and the largest error are read.
    pub rules: Handle,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// Outputs of a choice.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// [`group::table`]; all gates are sparse.
    pub table: Handle,
    /// `[B * Hi, group::report_words]` f32; the density is still to be read off its tail.
    pub report: Handle,
    /// `[B, Hi, tiles, blocks]` f32: shares of the candidates of every tile.
    pub shares: Handle,
    /// `[B, Hi, tiles, LEVELS]`: where each level cuts them.
    pub cuts: Handle,
    /// `[B, Hq, samples, MEASURES]` f32: what each level changes in the sampled rows, see [`group::Measure`].
    pub measured: Handle,
}

impl Chosen {
    /// Room for the outputs, of which nothing is written yet.
    pub fn new(client: &Client, shape: &Shape) -> Self {
        let words = |len: usize| client.empty(len.max(1) * size_of::<u32>());
        let lengths = GroupWords::new(shape);
        Self {
            table: words(lengths.table),
            report: words(lengths.report),
            shares: words(lengths.shares),
            cuts: words(lengths.cuts),
            measured: words(lengths.measured),
        }
    }
}

/// Checks that a device runs the choice, and how.
///
/// # Errors
/// A [`Refusal`] with value, limit and way out.
pub fn prepare(shape: &Shape, elem: ElemType, device: &DeviceProperties) -> Result<Plan, Refusal> {
    let heads = shape.heads_per_index();
    if heads > MOST_HEADS {
        return Err(Refusal::TooLarge {
            what: "the query heads that share a choice",
            got: heads,
            limit: MOST_HEADS,
        });
    }
    let words = GroupWords::new(shape);
    let largest = words.table.max(words.shares).max(words.parts);
    let limit = u32::MAX as usize / 2;
    if largest > limit {
        return Err(Refusal::TooLarge {
            what: "a buffer of the selection (words)",
            got: largest,
            limit,
        });
    }
    let rows = rows::prepare(shape, elem, device)?;
    let ways = ways(shape, elem, device)?;
    let index = IndexBlueprint::new(group::blocks(shape), heads, group::samples(shape));
    cube_fits(index.shared_bytes(), UNITS, device)?;
    let share = |(parts, tile)| Share::new(shape, parts, tile, device);
    Ok(Plan {
        share: first_that_fits(ways, elem, share)?,
        rows,
        rows_grid: fold(rows.cubes(shape), device)?,
        index,
    })
}

/// Mean queries of a query tile and head, and the tiles they are multiplied in: fewer where the device has too
/// little shared memory for more.
fn ways(
    shape: &Shape,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Vec<(usize, product::Tile)>, Refusal> {
    let mut ways = Vec::new();
    let mut parts = group::parts(shape);
    while parts > 0 {
        let tiles = tiles(shape, parts, elem, device)?;
        ways.extend(tiles.into_iter().map(|tile| (parts, tile)));
        parts /= 2;
    }
    Ok(ways)
}

/// Tiles in which `parts` mean queries a head are multiplied: for matrix units those of many columns as long as they leave
/// no processor idle, then for scalar units what fits 32 KiB and WebGPU's guaranteed 16 KiB.
fn tiles(
    shape: &Shape,
    parts: usize,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Vec<product::Tile>, Refusal> {
    let columns = share::stride(shape.heads_per_index() * parts);
    let four = product::Tile::matrix(shape.head_dim);
    // Eight planes hide more of each other's waits, where a plane's columns are those of whole query tiles.
    let matrix = match columns <= 32 {
        true => product::Tile {
            key_planes: 4,
            key_tiles: 4,
            ..four
        },
        false => four,
    };
    let half = product::Tile {
        row_planes: 4,
        key_planes: 1,
        ..four
    };
    let quarter = product::Tile {
        key_tiles: (columns / 8).max(4),
        ..half
    };
    // Half the rows need less room, and half the planes less again.
    let low = product::Tile {
        row_tiles: 1,
        ..matrix
    };
    let least = product::Tile {
        row_tiles: 1,
        key_tiles: quarter.key_tiles,
        ..four
    };
    let units = product::Tile {
        mma: false,
        row_planes: 4,
        row_tiles: 1,
        key_planes: 1,
        key_tiles: columns / 8,
        chunk: 16 / UNIT_WIDTH,
        ..four
    };
    let small = product::Tile {
        row_planes: 2,
        chunk: 8 / UNIT_WIDTH,
        ..units
    };
    let processors = device.hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
    let tiles = shape.indexes() * shape.tiles();
    let busy = |tile: &product::Tile| tiles * columns / tile.keys() >= processors;
    let first = [matrix, half].into_iter().find(busy).unwrap_or(quarter);
    pack::tiles([first, low, least], [units, small], elem, device)
}

impl Share {
    fn new(
        shape: &Shape,
        parts: usize,
        tile: product::Tile,
        device: &DeviceProperties,
    ) -> Result<Self, Refusal> {
        let blueprint = ShareBlueprint {
            tile,
            heads: shape.heads_per_index(),
            parts,
            inline: device.features.copy_async,
        };
        cube_fits(blueprint.shared_bytes(), tile.units(), device)?;
        let cubes = shape.tiles().div_ceil(blueprint.tiles());
        Ok(Self {
            blueprint,
            cubes,
            grid: fold(shape.indexes() * cubes, device)?,
        })
    }
}

/// Chooses by the plan of [`prepare`], into `out`. `after` is told the name of each stage once it is launched.
#[allow(unsafe_code)]
pub fn select(
    client: &Client,
    shape: &Shape,
    plan: &Plan,
    elem: ElemType,
    inputs: &Inputs,
    out: &Chosen,
    after: &mut dyn FnMut(&'static str),
) {
    let Chosen {
        table,
        report,
        shares,
        cuts,
        measured,
    } = out;
    let lengths = GroupWords::new(shape);
    let (share, samples) = (&plan.share, group::samples(shape));
    let tile = share.blueprint.tile;
    let staged = |tile: &product::Tile| match tile.mma {
        true => elem,
        false => ElemType::Float(FloatKind::F32),
    };
    let (blocks, tiles) = (group::blocks(shape), shape.tiles());
    let window = shape.window();
    let spans = |handle: &Handle| buffer(handle, SPAN_WORDS * shape.batch);
    let rules = || buffer(&inputs.rules, shape.index_heads * RULE_WORDS);
    let cubes = shape.indexes() * share.cubes;
    // Means are counted in vectors here and in the kernel.
    let means = shape.batch * shape.kv_heads * inputs.capacity * shape.head_dim;
    // SAFETY: cubes past the last leave; the others read rows and means of their sequence and write their
    // tiles.
    unsafe {
        share::share_blocks::launch_unchecked(
            client,
            CubeCount::Static(share.grid.0, share.grid.1, 1),
            CubeDim::new_2d(32, (tile.units() / 32) as u32),
            inputs.address,
            tile.width(),
            inputs.query.arg(),
            buffer(&inputs.means, means),
            spans(&inputs.spans),
            rules(),
            buffer(shares, lengths.shares),
            buffer(cuts, lengths.cuts),
            cubes as u32,
            share.cubes as u32,
            shape.index_heads as u32,
            (shape.index_heads / shape.kv_heads) as u32,
            tiles as u32,
            blocks as u32,
            inputs.capacity as u32,
            shape.scale,
            window.into(),
            share.blueprint,
            elem,
            staged(&tile),
        );
    }
    after("share");

    {
        let parts = client.empty(lengths.parts.max(1) * size_of::<u32>());
        let parts = || buffer(&parts, lengths.parts);
        let bp = plan.rows;
        let tile = bp.probe.tile;
        // SAFETY: cubes past the last leave; the others read rows, keys and values of their sequence and write
        // their rows' parts.
        unsafe {
            rows::attend_rows::launch_unchecked(
                client,
                CubeCount::Static(plan.rows_grid.0, plan.rows_grid.1, 1),
                CubeDim::new_2d(32, (tile.units() / 32) as u32),
                inputs.address,
                tile.width(),
                inputs.query.arg(),
                inputs.key.arg(),
                inputs.value.arg(),
                buffer(shares, lengths.shares),
                buffer(cuts, lengths.cuts),
                spans(&inputs.spans),
                spans(&inputs.probes),
                rules(),
                parts(),
                bp.cubes(shape) as u32,
                shape.kv_heads as u32,
                shape.heads_per_kv() as u32,
                tiles as u32,
                blocks as u32,
                shape.scale,
                window.into(),
                bp,
                elem,
                staged(&tile),
            );
        }
        after("rows");

        let cubes = shape.batch * shape.heads * samples;
        let (count, dim) = layout::cubes(client, cubes, UNITS);
        let measure = MeasureBlueprint {
            split: bp.split,
            rows: tile.rows(),
            samples,
            head_dim: shape.head_dim,
            inline: bp.probe.inline,
        };
        // SAFETY: cubes past the last leave; the others read what the launch before wrote of their row.
        unsafe {
            measure::measure_rows::launch_unchecked(
                client,
                count,
                dim,
                inputs.address,
                parts(),
                spans(&inputs.probes),
                buffer(measured, lengths.measured),
                cubes as u32,
                shape.kv_heads as u32,
                shape.heads_per_kv() as u32,
                measure,
            );
        }
        after("measure");
    }

    let at = group::table(shape);
    let each = plan.index.rows(shape.indexes() * tiles, blocks);
    let cubes = shape.indexes() * tiles.div_ceil(each);
    let (count, dim) = layout::cubes(client, cubes, UNITS);
    // SAFETY: cubes past the last leave; the others write their rows' room, which holds every run there can be.
    unsafe {
        index::index_rows::launch_unchecked(
            client,
            count,
            dim,
            inputs.address,
            buffer(shares, lengths.shares),
            buffer(cuts, lengths.cuts),
            buffer(measured, lengths.measured),
            spans(&inputs.spans),
            rules(),
            buffer(table, lengths.table),
            buffer(report, lengths.report),
            shape.batch,
            shape.index_heads,
            tiles,
            blocks,
            at.gates_at,
            at.ranges_at,
            at.range_stride,
            each,
            window.into(),
            plan.index,
        );
    }
    after("index");
}

const _: () = assert!(QUERY_TILE == group::MEAN_BLOCK);
