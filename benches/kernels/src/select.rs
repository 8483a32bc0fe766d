//! A selection, stage by stage, on inputs with structure.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, anyhow};
use cubecl::{client::Client, future::block_on, ir::AddressType, server::Handle};
use sparse_accelerate_contract::{Report, SPAN_WORDS, group as group_contract};
use sparse_accelerate_inputs::{Family, Shape as InputShape, key, query, value};
use sparse_accelerate_kernels::attend;
use sparse_accelerate_kernels::select::{
    self, Choice, ListLayout, PROBES, Prices, REPORT_WORDS, RULE_WORDS, Rules, Shape, TableLayout,
    Thresholds, View, Visible, check, correct, group,
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
                index_heads: match args.group {
                    true => args.per.heads(sizes),
                    false => sizes.kv_heads,
                },
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
        match args.group {
            true => case.run_group()?,
            false => case.run()?,
        }
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
    /// The stages of a choice by groups, and attention over its index: what is kept, and how long it takes.
    fn run_group(&self) -> Result<()> {
        let (bench, shape, sizes) = (self.bench, &self.shape, &self.args.sizes);
        let (client, elem) = (&bench.client, elem(sizes.dtype));
        let [n, d] = [shape.rows, shape.head_dim];
        let (q, k) = ([1, shape.heads, n, d], [1, shape.kv_heads, n, d]);
        let spans = bench.upload(&table::dense(n));
        let rule = Rules {
            allowed: Choice::Dense.bit(),
            sink: 128,
            window: 512,
            columns: 0,
            slashes: 0,
            floor: self.args.recall,
            accepted: self.args.error,
            alpha: 0.0,
        };
        let capacity = group_contract::blocks(shape);
        let means_len = shape.kv_heads * capacity * d;
        let means = client.empty(means_len * 4);
        let inputs = group::Inputs {
            query: view(&self.query, q),
            key: view(&self.key, k),
            value: view(&self.value, k),
            means: means.clone(),
            capacity,
            spans: spans.clone(),
            probes: spans.clone(),
            rules: bench.upload(&rule.words().repeat(shape.index_heads)),
            address: AddressType::U32,
        };
        let plan = group::prepare(shape, elem, client.properties())?;
        let problem = attend::Problem {
            batch: 1,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            rows: n,
            keys: n,
            head_dim: d,
            scale: shape.scale,
            index: Some(attend::IndexShape {
                heads: shape.index_heads,
                tiles: shape.tiles(),
                tile_tokens: attend::QUERY_TILE,
                columns: false,
                band: None,
            }),
            gated_heads: None,
            stored: attend::Stored::Elements,
            visible: Visible::Causal,
        };
        let attention = attend::prepare(&problem, elem, client.properties())?;
        let out = bench.upload(&vec![0u16; shape.heads * n * d]);
        let lse = client.empty(shape.heads * n * 4);
        let do_means = || {
            let tensors = group::means::Tensors {
                key: tensor(&self.key, k),
                spans: buffer(&spans, SPAN_WORDS),
                means: buffer(&means, means_len),
                capacity,
                address: AddressType::U32,
            };
            group::means::launch(client, shape, elem, tensors);
        };
        let mut laps = Laps::new(client);
        let chosen = group::Chosen::new(client, shape);
        for _ in 0..sizes.runs + 2 {
            laps.begin();
            laps.lap("0 nothing")?;
            do_means();
            laps.lap("1 means")?;
            let names = ["2 share", "3 rows", "4 measure", "5 index"];
            laps.each(&names, |after| {
                group::select(client, shape, &plan, elem, &inputs, &chosen, after);
            })?;
            let tensors = attend::Tensors {
                query: tensor(&self.query, q),
                key: tensor(&self.key, k),
                value: tensor(&self.value, k),
                scales: None,
                table: buffer(&chosen.table, group_contract::table(shape).words),
                out: tensor(&out, q),
                lse: buffer(&lse, shape.heads * n),
                with_lse: true,
                scratch: None,
                address: AddressType::U32,
            };
            attend::launch(client, &problem, &attention, elem, tensors);
            laps.lap("6 attend")?;
            do_means();
            group::select(client, shape, &plan, elem, &inputs, &chosen, &mut |_| {});
            laps.lap("1 to 5 together")?;
        }
        let report = client
            .read_one(chosen.report)
            .map_err(|e| anyhow!("{e:?}"))?;
        let report: &[f32] = bytemuck::cast_slice(&report);
        let (mut kept, mut mass) = (0.0, 0.0);
        for row in report.chunks_exact(group_contract::report_words(shape)) {
            mass += f64::from(row[Report::RECALL]) / shape.index_heads as f64;
            let tail = row[REPORT_WORDS..].chunks_exact(group_contract::TAIL_WORDS);
            kept += tail.map(|tile| f64::from(tile[0])).sum::<f64>();
        }
        let pairs = (n * (n + 1) / 2 * shape.index_heads) as f64;
        let size = group::MEAN_BLOCK;
        println!(
            "{n} tokens, blocks of {size} keys for groups: density {:.4}, measured mass {mass:.4}",
            kept / pairs
        );
        laps.print();
        Ok(())
    }

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
        let mut laps = Laps::new(client);
        let out = bench.upload(&vec![0u16; shape.heads * n * d]);
        let lse = bench.upload(&vec![0f32; shape.heads * n]);
        let corrected = client.empty(shape.heads * n * 4);
        for _ in 0..sizes.runs + 2 {
            laps.begin();
            laps.lap("0 nothing")?;
            do_pool();
            laps.lap("1 pool")?;
            let names = [
                "2 probe",
                "3 cut columns",
                "4 score",
                "5 cut blocks",
                "6 choose",
                "7 build",
            ];
            let index = laps.each(&names, |after| {
                index::select(client, shape, &options, &plans, elem, &inputs, after)
            })?;
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
            laps.lap("8 correct")?;
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
            laps.lap("9 check")?;
            // Launched together, as attention does it: the waits between stages are not part of it.
            do_pool();
            index::select(client, shape, &options, &plans, elem, &inputs, &mut |_| {});
            laps.lap("1 to 7 together")?;
        }
        println!("{n} tokens, blocks of {} keys", select::BLOCK);
        laps.print();
        Ok(())
    }
}

/// A contiguous tensor as the stages of a selection read it.
fn view(handle: &Handle, shape: [usize; 4]) -> View {
    let [_, heads, rows, d] = shape;
    View {
        handle: handle.clone(),
        shape,
        strides: [heads * rows * d, rows * d, d, 1],
    }
}

/// Wall times of stages, each waited for.
struct Laps<'a> {
    client: &'a Client,
    begin: Instant,
    times: BTreeMap<&'static str, Vec<f64>>,
}

impl<'a> Laps<'a> {
    fn new(client: &'a Client) -> Self {
        Self {
            client,
            begin: Instant::now(),
            times: BTreeMap::new(),
        }
    }

    fn begin(&mut self) {
        self.begin = Instant::now();
    }

    /// Waits for what was launched since the last lap.
    fn lap(&mut self, name: &'static str) -> Result<()> {
        let done = block_on(self.client.sync());
        done.map_err(|error| anyhow!("the launch failed: {error:?}"))?;
        let took = self.begin.elapsed().as_secs_f64() * 1e3;
        self.times.entry(name).or_default().push(took);
        self.begin();
        Ok(())
    }

    /// A lap under each name in turn, whenever `launch` says that a stage is launched.
    fn each<T>(
        &mut self,
        names: &[&'static str],
        launch: impl FnOnce(&mut dyn FnMut(&'static str)) -> T,
    ) -> Result<T> {
        let mut failed = None;
        let mut names = names.iter();
        let found = launch(&mut |_| {
            if let Some(name) = names.next() {
                failed = failed.take().or(self.lap(name).err());
            }
        });
        failed.map_or(Ok(found), Err)
    }

    /// Prints the median of every stage, without its first two rounds.
    fn print(self) {
        for (name, mut of_stage) in self.times {
            of_stage.drain(..2.min(of_stage.len() - 1));
            of_stage.sort_by(f64::total_cmp);
            println!("  {name:16} {:.3} ms", of_stage[of_stage.len() / 2]);
        }
    }
}
