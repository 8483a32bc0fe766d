//! The stages of a selection around its attention, and attention with gates, in the shapes of
//! Llama-3.1-8B.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
};
use sparse_accelerate_kernels::{
    Refusal,
    select::{
        PROBES, REPORT_WORDS, RULE_WORDS, Shape, View, Visible, check,
        correct::{self, Correction, Order, Variant},
        group, pool, probe, score,
    },
};

use crate::cases::{BF16, Case, F16, F32, buffer, tensor};

/// Rows of a chunk.
const ROWS: usize = 2048;

fn shape(head_dim: usize) -> Shape {
    Shape {
        batch: 1,
        heads: 32,
        kv_heads: 8,
        index_heads: 8,
        rows: ROWS,
        keys: ROWS,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        visible: Visible::Causal,
    }
}

/// Every case.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    let pools = [F32, F16, BF16].into_iter().map(|(name, elem)| {
        Case::new(format!("select/pool/{name}"), move |client| {
            pooled(client, elem);
            Ok(())
        })
    });
    let narrow = [(F16, 64), (F16, 128), (BF16, 128), (BF16, 256)];
    let corrections = [((F32, 128), Order::Second), ((BF16, 128), Order::First)]
        .into_iter()
        .chain(narrow.map(|case| (case, Order::Second)))
        .map(|(((name, elem), head_dim), order)| {
            let order_name = format!("{order:?}").to_lowercase();
            let name = format!("select/correct/{order_name}/{name}/d{head_dim}");
            Case::new(name, move |client| corrected(client, elem, head_dim, order))
        });
    let check = Case::new("select/check", |client| {
        checked(client);
        Ok(())
    });
    let probes = [(F32, 128), (F16, 64), (F16, 128), (BF16, 128), (BF16, 256)];
    let scores = probes.map(|((name, elem), head_dim)| {
        let name = format!("select/score/{name}/d{head_dim}");
        Case::new(name, move |client| scored(client, elem, head_dim))
    });
    let probes = probes.map(|((name, elem), head_dim)| {
        let name = format!("select/probe/{name}/d{head_dim}");
        Case::new(name, move |client| probed(client, elem, head_dim))
    });
    let groups = [(F32, 128), (F16, 64), (BF16, 128), (BF16, 256)];
    // One choice for the query heads of a KV head, and heads that choose alone.
    let groups = groups.into_iter().flat_map(|((name, elem), head_dim)| {
        [("group", 8), ("heads", 32)].map(|(whose, index_heads)| {
            let name = format!("select/{whose}/{name}/d{head_dim}");
            Case::new(name, move |client| {
                grouped(client, elem, head_dim, index_heads)
            })
        })
    });
    pools
        .chain(groups)
        .chain(probes)
        .chain(scores)
        .chain(corrections)
        .chain([check])
}

fn pooled(client: &Client, elem: ElemType) {
    let shape = shape(128);
    let cache = || tensor(client, [1, shape.kv_heads, ROWS, 128], elem);
    let tensors = pool::Tensors {
        key: cache(),
        value: cache(),
        spans: buffer(client, 4),
        pooled: buffer(client, blocks(&shape)),
        capacity: shape.key_blocks(),
        address: AddressType::U32,
    };
    pool::launch(client, &shape, elem, tensors);
}

/// Floats of the pooled blocks.
fn blocks(shape: &Shape) -> usize {
    shape.kv_heads * shape.key_blocks() * 3 * shape.head_dim
}

/// Every variant that the device prefers to scalar units; those where there is no other.
fn corrected(
    client: &Client,
    elem: ElemType,
    head_dim: usize,
    order: Order,
) -> Result<(), Refusal> {
    let shape = shape(head_dim);
    let variants = correct::variants(&shape, elem, client.properties());
    let better = variants.iter().filter(|v| **v != Variant::Unit).count();
    for variant in &variants[..better.max(1)] {
        let rows = || tensor(client, [1, shape.heads, ROWS, head_dim], elem);
        let tensors = correct::Tensors {
            query: rows(),
            pooled: buffer(client, blocks(&shape)),
            capacity: shape.key_blocks(),
            table: buffer(client, 1024),
            out: rows(),
            lse: buffer(client, shape.heads * ROWS),
            corrected: buffer(client, shape.heads * ROWS),
            with_lse: true,
            address: AddressType::U32,
        };
        let correction = match order {
            Order::First => Correction::Mean,
            Order::Second => Correction::Gaussian { cap: 4.0 },
        };
        correct::launch(client, &shape, correction, elem, Some(*variant), tensors)?;
    }
    Ok(())
}

fn checked(client: &Client) {
    let shape = shape(128);
    let tensors = check::Tensors {
        lse: buffer(client, shape.heads * ROWS),
        probe: buffer(client, shape.heads * PROBES),
        kept: buffer(client, shape.index_heads * shape.tiles()),
        rules: buffer(client, shape.index_heads * RULE_WORDS),
        spans: buffer(client, 4),
        table: buffer(client, 1024),
        report: buffer(client, shape.index_heads * REPORT_WORDS),
    };
    check::launch(client, &shape, tensors);
}

fn probed(client: &Client, elem: ElemType, head_dim: usize) -> Result<(), Refusal> {
    let shape = shape(head_dim);
    let plan = probe::prepare(&shape, elem, client.properties())?;
    let view = |heads| View {
        handle: client.empty(heads * ROWS * head_dim * elem.size()),
        shape: [1, heads, ROWS, head_dim],
        strides: [heads * ROWS * head_dim, ROWS * head_dim, head_dim, 1],
    };
    let words = |len: usize| client.empty(len * 4);
    let tensors = probe::Tensors {
        query: view(shape.heads),
        key: view(shape.kv_heads),
        table: words(4),
        rules: words(shape.index_heads * RULE_WORDS),
        lse: words(shape.heads * PROBES),
        columns: words(shape.heads * 2 * ROWS),
        slashes: words(shape.heads * shape.slash_buckets()),
        address: AddressType::U32,
    };
    probe::launch(client, &shape, &plan, elem, tensors);
    Ok(())
}

/// Two bands, the first with the second-order term.
fn scored(client: &Client, elem: ElemType, head_dim: usize) -> Result<(), Refusal> {
    let shape = shape(head_dim);
    let plan = score::prepare(&shape, 2, true, elem, client.properties())?;
    let tensors = score::Tensors {
        query: tensor(client, [1, shape.heads, ROWS, head_dim], elem),
        pooled: buffer(client, blocks(&shape)),
        capacity: shape.key_blocks(),
        table: buffer(client, 4),
        rules: buffer(client, shape.index_heads * RULE_WORDS),
        weights: buffer(client, 2 * head_dim),
        scores: buffer(
            client,
            shape.heads * shape.query_blocks() * shape.key_blocks(),
        ),
        address: AddressType::U32,
    };
    score::launch(client, &shape, &plan, elem, tensors);
    Ok(())
}

fn grouped(
    client: &Client,
    elem: ElemType,
    head_dim: usize,
    index_heads: usize,
) -> Result<(), Refusal> {
    let shape = Shape {
        index_heads,
        ..shape(head_dim)
    };
    let plan = group::prepare(&shape, elem, client.properties())?;
    let view = |heads| View {
        handle: client.empty(heads * ROWS * head_dim * elem.size()),
        shape: [1, heads, ROWS, head_dim],
        strides: [heads * ROWS * head_dim, ROWS * head_dim, head_dim, 1],
    };
    let words = |len: usize| client.empty(len * 4);
    let capacity = shape.keys.div_ceil(group::MEAN_BLOCK);
    let means = shape.kv_heads * capacity * head_dim;
    let tensors = group::means::Tensors {
        key: tensor(client, [1, shape.kv_heads, ROWS, head_dim], elem),
        spans: buffer(client, 4),
        means: buffer(client, means),
        capacity,
        address: AddressType::U32,
    };
    group::means::launch(client, &shape, elem, tensors);
    let inputs = group::Inputs {
        query: view(shape.heads),
        key: view(shape.kv_heads),
        value: view(shape.kv_heads),
        means: words(means),
        capacity,
        spans: words(4),
        probes: words(4),
        rules: words(shape.index_heads * RULE_WORDS),
        address: AddressType::U32,
    };
    let out = group::Chosen::new(client, &shape);
    group::select(client, &shape, &plan, elem, &inputs, &out, &mut |_| {});
    Ok(())
}
