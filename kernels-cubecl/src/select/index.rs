//! From queries and keys to an index: the stages from the probes to the build.
//!
//! Memory, with `T` query blocks, `C` key blocks and `L'` keys, in words; in MiB for 8,192 rows of 32 heads
//! that all choose and share 8 KV heads, 1,024 columns, 256 slashes:
//!
//! | buffer | words | 32K keys | 128K keys | until |
//! | --- | --- | --- | --- | --- |
//! | sums by column, by slash | `2 B Hq (L' + L'/16)` | 8.5 | 34 | columns are cut |
//! | scratch of the probe | `256 B Hq C` | 8 | 32 | the probe ends |
//! | scratch of the cut | `B Hi (L' + L'/16 + L'/2048 (1288 + 2 Hq/Hi))` | 6.8 | 27 | columns are cut |
//! | shares of key blocks | `B Hq T C` | 2 | 8 | blocks are cut |
//! | pooled keys in the element type | `3/2 B Hk C d` | 1.5 | 6 | scored, and again corrected |
//! | masks of blocks | `2 B Hi T C/32` | 0.1 | 0.5 | the build ends |
//! | table | `2 B Hi T (4 + C + 2 * 256 + 1024)` | 28 | 40 | attention ends |
//!
//! Lists, covered mass, gates, reports, kept keys and log-sum-exps take less than 1 MiB together.

use cubecl::{
    client::Client,
    ir::{AddressType, DeviceProperties, ElemType},
    prelude::*,
    server::Handle,
};

use sparse_accelerate_contract::{
    SPAN_WORDS,
    scratch::{self, SelectionWords},
};

use super::{
    ListLayout, Prices, RULE_WORDS, Shape, TableLayout, Thresholds, View, build, choose,
    cut_blocks, cut_columns, probe, score,
};
use crate::{Refusal, attend::QUERY_TILE};

/// Inputs of a selection.
#[allow(missing_debug_implementations)] // CubeCL's views have none
pub struct Inputs {
    /// `[B, Hq, N, d]`, last dimension contiguous, other strides multiples of 8; as is `key`.
    pub query: View,
    /// `[B, Hk, S, d]`.
    pub key: View,
    /// `[B, Hk, capacity, 3, d]` in f32, as [`super::pool`] leaves it.
    pub pooled: Handle,
    /// Key blocks that `pooled` has room for.
    pub capacity: usize,
    /// Spans `[B, 4]`: new rows, keys, first position that sees everything, 0.
    pub spans: Handle,
    /// The same for the rows that probes are taken of.
    pub probes: Handle,
    /// `[Hi, 8]`.
    pub rules: Handle,
    /// Weights of the dimensions `[bands, d]` in which pooled keys are scored.
    pub bands: Handle,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// The scalars of a selection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Room for kept columns and slashes.
    pub lists: ListLayout,
    /// Least shares of columns and slashes.
    pub thresholds: Thresholds,
    /// Prices of attention's work.
    pub prices: Prices,
    /// Bands in which pooled keys are scored.
    pub bands: usize,
    /// Tells whether the first band has the second-order term.
    pub gauss: bool,
}

/// Outputs of a selection.
#[allow(missing_debug_implementations)] // CubeCL's handles have none
pub struct Index {
    /// [`TableLayout::words`].
    pub table: Handle,
    /// `[B * Hi, REPORT_WORDS]` f32; recall and density are still to be measured.
    pub report: Handle,
    /// `[B * Hi * tiles]`: keys that the last row of a tile sees, or pairs under a window: see [`build`].
    pub kept: Handle,
    /// `[B, Hq, PROBES]` f32: log-sum-exp of the probe rows over all keys that they see.
    pub probe_lse: Handle,
}

/// The launches of the stages that a device runs in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plans {
    probe: probe::Plan,
    score: score::Plan,
}

/// Checks that a device runs every stage, and how.
///
/// # Errors
/// A [`Refusal`] with value, limit and way out.
pub fn prepare(
    shape: &Shape,
    options: &Options,
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Plans, Refusal> {
    let probe = probe::prepare(shape, elem, device)?;
    let score = score::prepare(shape, options.bands, options.gauss, elem, device)?;
    let words = TableLayout::new(shape, &options.lists).words;
    // Words are counted in u32 on the device.
    let limit = u32::MAX as usize / 2;
    if words > limit {
        return Err(Refusal::TooLarge {
            what: "the table of the index (words)",
            got: words,
            limit,
        });
    }
    // The pairs that the rows of a tile see are counted in a word each.
    let most = u32::MAX as usize / QUERY_TILE;
    if let Some(window) = shape.window().filter(|keys| *keys as usize > most) {
        return Err(Refusal::TooLarge {
            what: "the window of a selection (keys)",
            got: window as usize,
            limit: most,
        });
    }
    Ok(Plans { probe, score })
}

/// Selects and builds by the plans of [`prepare`]. `after` is told the name of each stage once it is
/// launched.
pub fn select(
    client: &Client,
    shape: &Shape,
    options: &Options,
    plans: &Plans,
    elem: ElemType,
    inputs: &Inputs,
    after: &mut dyn FnMut(&'static str),
) -> Index {
    let words = |len: usize| client.empty(len.max(1) * size_of::<u32>());
    let (lists, address) = (&options.lists, inputs.address);
    let lengths = SelectionWords::new(shape, lists);
    let report = words(lengths.report);
    let probe_lse = words(lengths.probe_lse);
    let kept_lists = words(lengths.lists);
    let covered = words(lengths.covered);

    // Every part of the work lets go of its buffers before the next takes some: at 128K tokens sums by
    // column and the probe's scratch are as large as the table.
    {
        let columns = words(lengths.columns);
        let slashes = words(lengths.slashes);
        let tensors = probe::Tensors {
            query: inputs.query.clone(),
            key: inputs.key.clone(),
            table: inputs.probes.clone(),
            rules: inputs.rules.clone(),
            lse: probe_lse.clone(),
            columns: columns.clone(),
            slashes: slashes.clone(),
            address,
        };
        probe::launch(client, shape, &plans.probe, elem, tensors);
        after("probe");

        let buffers = cut_columns::Buffers {
            columns,
            slashes,
            spans: inputs.probes.clone(),
            rules: inputs.rules.clone(),
            scratch: words(lengths.cut),
            lists: kept_lists.clone(),
            covered: covered.clone(),
            address,
        };
        cut_columns::launch(client, shape, lists, &options.thresholds, &buffers);
        after("cut columns");
    }

    let masks = words(lengths.masks);
    let counts = words(lengths.counts);
    {
        let shares = words(lengths.shares);
        let pooled = scratch::pooled(shape, inputs.capacity);
        let tensors = score::Tensors {
            query: inputs.query.arg(),
            pooled: whole(&inputs.pooled, pooled),
            capacity: inputs.capacity,
            table: whole(&inputs.spans, SPAN_WORDS * shape.batch),
            rules: whole(&inputs.rules, shape.index_heads * RULE_WORDS),
            weights: whole(&inputs.bands, options.bands * shape.head_dim),
            scores: whole(&shares, lengths.shares),
            address,
        };
        score::launch(client, shape, &plans.score, elem, tensors);
        after("score");

        let buffers = cut_blocks::Buffers {
            shares,
            covered: covered.clone(),
            spans: inputs.spans.clone(),
            rules: inputs.rules.clone(),
            masks: masks.clone(),
            counts: counts.clone(),
            address,
        };
        cut_blocks::launch(client, shape, &buffers);
        after("cut blocks");
    }

    let gates = words(lengths.gates);
    let buffers = choose::Buffers {
        covered,
        counts,
        lists: kept_lists.clone(),
        lse: probe_lse.clone(),
        spans: inputs.spans.clone(),
        rules: inputs.rules.clone(),
        report: report.clone(),
        gates: gates.clone(),
        address,
    };
    choose::launch(client, shape, lists, &options.prices, &buffers);
    after("choose");

    let index = Index {
        table: words(lengths.table),
        report,
        kept: words(lengths.kept),
        probe_lse,
    };
    let buffers = build::Buffers {
        spans: inputs.spans.clone(),
        lists: kept_lists,
        masks,
        report: index.report.clone(),
        gates,
        rules: inputs.rules.clone(),
        table: index.table.clone(),
        kept: index.kept.clone(),
        address,
    };
    build::launch(client, shape, lists, &buffers);
    after("build");
    index
}

/// The whole of a buffer of 4-byte words.
#[allow(unsafe_code)]
fn whole(handle: &Handle, len: usize) -> BufferArg {
    // SAFETY: whoever made the inputs promises that they hold their shapes; the rest is made here.
    unsafe { BufferArg::from_raw_parts(handle.clone(), len) }
}
