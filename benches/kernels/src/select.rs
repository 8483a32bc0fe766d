//! A selection, stage by stage, on inputs with structure.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, anyhow};
use cubecl::{future::block_on, ir::AddressType, server::Handle};
use sparse_accelerate_contract::SPAN_WORDS;
use sparse_accelerate_inputs::{Family, Shape as InputShape, key, query, value};
use sparse_accelerate_kernels::select::{
    self, Choice, ListLayout, PROBES, Prices, REPORT_WORDS, RULE_WORDS, Rules, Shape, TableLayout,
    Thresholds, View, Visible, check, correct,
    index::{self, Inputs, Options},
    pool,
};

use crate::{
    args::Select,
    device::{Bench, buffer, elem, tensor},
    table,
};

/// Prints the median wall time of every stage, each waited for; and of all up to the index, waited for once.
pub(crate) fn stages(bench: &Bench, args: &Select) -> Result<()> {
    let sizes = &args.sizes;
    for &len in &sizes.lens {
        let inputs =
            InputShape::new(sizes.heads, sizes.kv_heads, len).with_head_dim(sizes.head_dim);
        let family = Family::Structured;
        let host = [
            query(sizes.seed, family, inputs)?,
            key(sizes.seed, family, inputs)?,
            value(sizes.seed, family, inputs)?,
        ];
        let [query, key, value] = [0, 1, 2].map(|i| bench.upload(&sizes.dtype.bits(&host[i])));
        let case = Case {
            bench,
            args,
            shape: Shape {
                batch: 1,
                heads: sizes.heads,
                kv_heads: sizes.kv_heads,
                index_heads: sizes.kv_heads,
                rows: len,
                keys: len,
                head_dim: sizes.head_dim,
                scale: 1.0 / (sizes.head_dim as f32).sqrt(),
                visible: Visible::Causal,
            },
            query,
            key,
            value,
        };
        case.run()?;
    }
    Ok(())
}

struct Case<'a> {
    bench: &'a Bench,
    args: &'a Select,
    shape: Shape,
    query: Handle,
    key: Handle,
    value: Handle,
}

impl Case<'_> {
    fn run(&self) -> Result<()> {
        let (bench, shape, sizes) = (self.bench, &self.shape, &self.args.sizes);
        let (client, elem) = (&bench.client, elem(sizes.dtype));
        let [n, d] = [shape.rows, shape.head_dim];
        let (q, k) = ([1, shape.heads, n, d], [1, shape.kv_heads, n, d]);
        let spans = bench.upload(&table::dense(n));
        let floor = self.args.recall;
        let rule = Rules {
            allowed: Choice::ALL.map(Choice::bit).iter().sum(),
            sink: 128,
            window: 512,
            columns: 1024,
            slashes: 256,
            floor,
            accepted: floor,
            alpha: 0.0,
        };
        let rules = bench.upload(&rule.words().repeat(shape.index_heads));
        let bands = bench.upload(&vec![1f32; d]);
        let pooled_len = shape.kv_heads * shape.key_blocks() * 3 * d;
        let pooled = client.empty(pooled_len * 4);
        let lists = ListLayout {
            columns: 1024,
            slashes: 256,
        };
        let options = Options {
            lists,
            thresholds: Thresholds {
                column: (2.5e-4 * n as f32).max(8.0),
                slash: 8.0,
            },
            prices: Prices::default(),
            bands: 1,
            gauss: self.args.second,
        };
        let view = |handle: &Handle, shape: [usize; 4]| View {
            handle: handle.clone(),
            shape,
            strides: [
                shape[1] * shape[2] * shape[3],
                shape[2] * shape[3],
                shape[3],
                1,
            ],
        };
        let inputs = Inputs {
            query: view(&self.query, q),
            key: view(&self.key, k),
            pooled: pooled.clone(),
            capacity: shape.key_blocks(),
            spans: spans.clone(),
            probes: spans.clone(),
            rules: rules.clone(),
            bands,
            address: AddressType::U32,
        };
        let plans = index::prepare(shape, &options, elem, client.properties())?;
        let do_pool = || {
            let tensors = pool::Tensors {
                key: tensor(&self.key, k),
                value: tensor(&self.value, k),
                spans: buffer(&spans, SPAN_WORDS),
                pooled: buffer(&pooled, pooled_len),
                capacity: shape.key_blocks(),
                address: AddressType::U32,
            };
            pool::launch(client, shape, elem, tensors);
        };
        let wait = || block_on(client.sync());
        let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let out = bench.upload(&vec![0u16; shape.heads * n * d]);
        let lse = bench.upload(&vec![0f32; shape.heads * n]);
        let corrected = client.empty(shape.heads * n * 4);
        for _ in 0..sizes.runs + 2 {
            let mut begin = Instant::now();
            let mut lap = |name: &'static str| {
                wait().map_err(|error| anyhow!("the launch failed: {error:?}"))?;
                times
                    .entry(name)
                    .or_default()
                    .push(begin.elapsed().as_secs_f64() * 1e3);
                begin = Instant::now();
                Ok::<(), anyhow::Error>(())
            };
            lap("0 nothing")?;
            do_pool();
            lap("1 pool")?;
            let mut failed = None;
            let mut count = 0;
            let names = [
                "2 probe",
                "3 cut columns",
                "4 score",
                "5 cut blocks",
                "6 choose",
                "7 build",
            ];
            let mut after = |_| {
                failed = lap(names[count]).err();
                count += 1;
            };
            let index = index::select(client, shape, &options, &plans, elem, &inputs, &mut after);
            if let Some(error) = failed {
                return Err(error);
            }
            let table_len = TableLayout::new(shape, &lists).words;
            let correction = match self.args.second {
                true => correct::Correction::GAUSSIAN,
                false => correct::Correction::Mean,
            };
            let tensors = correct::Tensors {
                query: tensor(&self.query, q),
                pooled: buffer(&pooled, pooled_len),
                capacity: shape.key_blocks(),
                table: buffer(&index.table, table_len),
                out: tensor(&out, q),
                lse: buffer(&lse, shape.heads * n),
                corrected: buffer(&corrected, shape.heads * n),
                with_lse: true,
                address: AddressType::U32,
            };
            correct::launch(client, shape, correction, elem, None, tensors)?;
            lap("8 correct")?;
            let tensors = check::Tensors {
                lse: buffer(&lse, shape.heads * n),
                probe: buffer(&index.probe_lse, shape.heads * PROBES),
                kept: buffer(&index.kept, shape.index_heads * shape.tiles()),
                rules: buffer(&rules, shape.index_heads * RULE_WORDS),
                spans: buffer(&spans, SPAN_WORDS),
                table: buffer(&index.table, table_len),
                report: buffer(&index.report, shape.index_heads * REPORT_WORDS),
            };
            check::launch(client, shape, tensors);
            lap("9 check")?;
            // Launched together, as attention does it: the waits between stages are not part of it.
            do_pool();
            index::select(client, shape, &options, &plans, elem, &inputs, &mut |_| {});
            lap("1 to 7 together")?;
        }
        println!("{n} tokens, blocks of {} keys", select::BLOCK);
        for (name, mut of_stage) in times {
            of_stage.drain(..2.min(of_stage.len() - 1));
            of_stage.sort_by(f64::total_cmp);
            println!("  {name:16} {:.3} ms", of_stage[of_stage.len() / 2]);
        }
        Ok(())
    }
}
