//! Selections to cut and build: shapes, random scores, and the stages from `cut_columns` to `build` on a
//! device and by their CPU implementations, over outputs filled with a sentinel.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate::{
    Span,
    index::QUERY_TILE,
    select::cpu::{self, BuildInputs, ChooseInputs},
};
use sparse_accelerate_contract::{
    BLOCK, GRANULE, ListLayout, PROBE_GROUP, PROBES, Prices, Rules, Sequence, Shape, Thresholds,
    Visible, scratch::SelectionWords, table,
};

/// Sentinel that outputs are filled with: a NaN.
pub const UNTOUCHED: u32 = 0xffc0_1234;

/// One selection.
#[derive(Debug, Clone)]
pub struct Case {
    /// Shape of the selection.
    pub shape: Shape,
    /// Sequences of the batch.
    pub spans: Vec<Span>,
    /// First position of each that sees everything.
    pub dense_from: Vec<u32>,
    /// Room of the lists.
    pub layout: ListLayout,
    /// Of every index head.
    pub rules: Vec<Rules>,
    /// Thresholds.
    pub thresholds: Thresholds,
    /// Prices.
    pub prices: Prices,
}

/// Rules that allow everything.
pub fn rules() -> Rules {
    Rules {
        allowed: 31,
        sink: 5,
        window: 40,
        columns: 32,
        slashes: 8,
        floor: 0.9,
        alpha: 0.0,
        accepted: 0.0,
    }
}

impl Case {
    /// `heads` are query, KV and index heads; `lengths` are (new rows, keys) of each sequence.
    pub fn new(heads: [usize; 3], lengths: &[(usize, usize)], rules: Rules) -> Self {
        let span = |&(query_len, kv_len): &(usize, usize)| Span {
            query_len,
            kv_len,
            prompt_len: kv_len,
        };
        let most = |f: fn(&(usize, usize)) -> usize| lengths.iter().map(f).max().unwrap_or(1);
        Self {
            shape: Shape {
                batch: lengths.len(),
                heads: heads[0],
                kv_heads: heads[1],
                index_heads: heads[2],
                rows: most(|l| l.0),
                keys: most(|l| l.1),
                head_dim: 64,
                scale: 0.125,
                visible: Visible::Causal,
            },
            spans: lengths.iter().map(span).collect(),
            dense_from: vec![u32::MAX; lengths.len()],
            layout: ListLayout {
                columns: 40,
                slashes: 12,
            },
            rules: vec![rules; heads[2]],
            thresholds: Thresholds {
                column: 3.0,
                slash: 2.0,
            },
            prices: Prices {
                dense_tile: 1.0,
                tile: 1.25,
                column: 2.0,
                row: 0.5,
            },
        }
    }

    /// The same under a window of visible keys, or without one.
    #[must_use]
    pub fn under(mut self, window: Option<u32>) -> Self {
        self.shape.visible = Visible::of(window);
        self
    }

    /// Returns true where a row at an absolute position may see a key.
    pub fn sees(&self, position: usize, key: usize) -> bool {
        let window = self.shape.window().map_or(usize::MAX, |keys| keys as usize);
        key <= position && position - key < window
    }

    /// Returns true where some row at these positions may see a key: the first that is not before the key
    /// sees most.
    pub fn any_sees(&self, positions: &std::ops::Range<usize>, key: usize) -> bool {
        let position = positions.start.max(key);
        position < positions.end && self.sees(position, key)
    }

    /// The absolute positions of a tile's rows.
    pub fn tile(&self, sequence: usize, tile: usize) -> std::ops::Range<usize> {
        let span = self.spans[sequence];
        let end = ((tile + 1) * QUERY_TILE).min(span.query_len);
        span.offset() + (tile * QUERY_TILE).min(end)..span.offset() + end
    }

    /// `[B, 4]`.
    pub fn span_words(&self) -> Vec<u32> {
        let spans = self.spans.iter().zip(&self.dense_from);
        table::spans(
            spans
                .map(|(s, dense)| Sequence::new(s.query_len, s.kv_len).dense_from(*dense as usize)),
        )
    }

    /// `[Hi, 8]`.
    pub fn rule_words(&self) -> Vec<u32> {
        self.rules.iter().flat_map(Rules::words).collect()
    }

    /// Sequences times index heads.
    pub fn indexes(&self) -> usize {
        self.shape.indexes()
    }

    /// Valid probe rows of either group, if it has any, of a sequence.
    pub fn probes(&self, sequence: usize) -> usize {
        self.spans[sequence].query_len.min(PROBE_GROUP)
    }

    /// Random attention: heavy-tailed columns, slashes and shares that add up to at most 1; some NaN,
    /// infinite, negative, subnormal and large values if `hostile`.
    pub fn scores(&self, seed: u64, hostile: bool) -> Scores {
        let mut random = Random(ChaCha8Rng::seed_from_u64(seed), hostile);
        let shape = &self.shape;
        let buckets = shape.slash_buckets();
        let mut scores = Scores {
            columns: vec![0.0; shape.batch * shape.heads * 2 * shape.keys],
            slashes: vec![0; shape.batch * shape.heads * 2 * buckets],
            lse: vec![1.0; shape.batch * shape.heads * PROBES],
            shares: vec![
                0.0;
                shape.batch * shape.heads * shape.query_blocks() * shape.key_blocks()
            ],
        };
        for head in 0..shape.batch * shape.heads {
            let b = head / shape.heads;
            let span = self.spans[b];
            let rest = random.unit();
            for group in 0..2 {
                let at = (head * 2 + group) * shape.keys;
                if group == 0 || span.query_len >= PROBES {
                    random.fill(&mut scores.columns[at..at + span.kv_len], rest);
                    let mut of_slashes = vec![0.0; span.kv_len.div_ceil(GRANULE)];
                    random.fill(&mut of_slashes, rest);
                    let sums = &mut scores.slashes[(head * 2 + group) * buckets..];
                    for (to, from) in sums.iter_mut().zip(of_slashes) {
                        let from = from.clamp(0.0, 1.0);
                        *to = (from * (self.probes(b) << 20) as f32) as u32;
                    }
                }
            }
            for t in 0..span.query_len.div_ceil(BLOCK) {
                let at = (head * shape.query_blocks() + t) * shape.key_blocks();
                let candidates = (span.offset() + t * BLOCK) / BLOCK;
                random.fill(&mut scores.shares[at..at + candidates], 1.0);
            }
        }
        scores
    }
}

struct Random(ChaCha8Rng, bool);

impl Random {
    fn unit(&mut self) -> f32 {
        self.0.random_range(0.0..1.0)
    }

    /// Positive numbers over six decades that add up to about `mass`.
    fn fill(&mut self, to: &mut [f32], mass: f32) {
        for x in to.iter_mut() {
            *x = 10f32.powf(-6.0 * self.unit());
        }
        let sum: f32 = to.iter().sum();
        for x in to.iter_mut() {
            *x *= mass / sum;
        }
        const STRANGE: [f32; 7] = [f32::NAN, f32::INFINITY, -1.0, 1e-40, 3.0, 1.0, 0.0];
        if self.1 && !to.is_empty() {
            for x in STRANGE {
                let at = self.0.random_range(0..to.len());
                to[at] = x;
            }
        }
    }
}

/// Results of the probes and block scores.
#[derive(Debug, Clone)]
pub struct Scores {
    /// `[B, Hq, 2, keys]`.
    pub columns: Vec<f32>,
    /// `[B, Hq, buckets]`.
    pub slashes: Vec<u32>,
    /// `[B, Hq, 128]`.
    pub lse: Vec<f32>,
    /// `[B, Hq, query blocks, key blocks]`.
    pub shares: Vec<f32>,
}

/// Output of the stages, floats as their bits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // as the stages name them
pub struct Cut {
    pub lists: Vec<u32>,
    pub covered: Vec<u32>,
    pub masks: Vec<u32>,
    pub counts: Vec<u32>,
    pub report: Vec<u32>,
    pub gates: Vec<u32>,
    pub table: Vec<u32>,
    pub kept: Vec<u32>,
}

/// Words of the outputs, in the order of [`Cut`].
fn lengths(case: &Case) -> [usize; 8] {
    let words = SelectionWords::new(&case.shape, &case.layout);
    [
        words.lists,
        words.covered,
        words.masks,
        words.counts,
        words.report,
        words.gates,
        words.table,
        words.kept,
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|x| f32::from_bits(*x)).collect()
}

/// Runs all stages by their CPU implementations.
pub fn by_cpu(case: &Case, scores: &Scores) -> Cut {
    let (shape, layout) = (&case.shape, &case.layout);
    let [lists, covered, masks, counts, report, gates, _, _] =
        lengths(case).map(|n| vec![UNTOUCHED; n]);
    let (mut lists, mut masks, mut counts, mut gates) = (lists, masks, counts, gates);
    let (mut covered, mut report) = (floats(&covered), floats(&report));
    let (spans, rules) = (case.span_words(), case.rule_words());
    cpu::cut_columns(
        shape,
        layout,
        &case.thresholds,
        &scores.columns,
        &scores.slashes,
        &spans,
        &rules,
        &mut lists,
        &mut covered,
    );
    cpu::cut_blocks(
        shape,
        &scores.shares,
        &covered,
        &spans,
        &rules,
        &mut masks,
        &mut counts,
    );
    let inputs = ChooseInputs {
        covered: &covered,
        counts: &counts,
        lists: &lists,
        lse: &scores.lse,
        spans: &spans,
        rules: &rules,
    };
    cpu::choose(
        shape,
        layout,
        &case.prices,
        &inputs,
        &mut report,
        &mut gates,
    );
    let cut = Cut {
        lists,
        covered: bits(&covered),
        masks,
        counts,
        report: bits(&report),
        gates,
        table: Vec::new(),
        kept: Vec::new(),
    };
    rebuilt(case, cut)
}

/// The same cut with the table and kept keys of the last stage, by its CPU implementation.
pub fn rebuilt(case: &Case, mut cut: Cut) -> Cut {
    let [.., table, kept] = lengths(case);
    cut.table = vec![UNTOUCHED; table];
    cut.kept = vec![UNTOUCHED; kept];
    let report = floats(&cut.report);
    let inputs = BuildInputs {
        spans: &case.span_words(),
        lists: &cut.lists,
        masks: &cut.masks,
        report: &report,
        gates: &cut.gates,
        rules: &case.rule_words(),
    };
    let (table, kept) = (&mut cut.table, &mut cut.kept);
    cpu::build(&case.shape, &case.layout, &inputs, table, kept);
    cut
}

/// All stages on a device, each reading what the one before wrote there.
///
/// # Panics
/// If one writes past its outputs.
#[cfg(any(feature = "wgpu", feature = "cuda-runtime"))]
pub fn on_device(
    name: &str,
    client: &cubecl::client::Client,
    case: &Case,
    scores: &Scores,
    given: Option<&Cut>,
) -> Cut {
    use crate::launches::{BEYOND, upload};
    use cubecl::ir::AddressType;
    use sparse_accelerate_kernels::select::{build, choose, cut_blocks, cut_columns};

    let (shape, layout) = (&case.shape, &case.layout);
    let lengths = lengths(case);
    let empty = |n: usize| upload(client, &vec![UNTOUCHED; n + BEYOND]);
    let out = lengths.map(empty);
    let [lists, covered, masks, counts, report, gates, table, kept] = out.clone();
    let (spans, rules) = (
        upload(client, &case.span_words()),
        upload(client, &case.rule_words()),
    );
    let address = AddressType::U32;
    let words = SelectionWords::new(shape, layout).cut;
    let scratch = empty(words);
    let cut = cut_columns::Buffers {
        columns: upload(client, &scores.columns),
        slashes: upload(client, &scores.slashes),
        spans: spans.clone(),
        rules: rules.clone(),
        scratch: scratch.clone(),
        lists: lists.clone(),
        covered: covered.clone(),
        address,
    };
    cut_columns::launch(client, shape, layout, &case.thresholds, &cut);
    let cut = cut_blocks::Buffers {
        shares: upload(client, &scores.shares),
        covered: covered.clone(),
        spans: spans.clone(),
        rules: rules.clone(),
        masks: masks.clone(),
        counts: counts.clone(),
        address,
    };
    cut_blocks::launch(client, shape, &cut);
    let choice = choose::Buffers {
        covered,
        counts,
        lists: lists.clone(),
        lse: upload(client, &scores.lse),
        spans: spans.clone(),
        rules: rules.clone(),
        report: report.clone(),
        gates: gates.clone(),
        address,
    };
    choose::launch(client, shape, layout, &case.prices, &choice);
    // A cut that is given is built instead of the one just made.
    let or = |made, given: Option<&[u32]>| given.map_or(made, |words| upload(client, words));
    let index = build::Buffers {
        spans,
        lists: or(lists, given.map(|g| &g.lists[..])),
        masks: or(masks, given.map(|g| &g.masks[..])),
        report: or(report, given.map(|g| &g.report[..])),
        gates: or(gates, given.map(|g| &g.gates[..])),
        rules,
        table,
        kept,
        address,
    };
    build::launch(client, shape, layout, &index);
    let read = |handle, len: usize| {
        let bytes = client.read_one(handle).expect("the launch failed");
        let mut words: Vec<u32> = bytemuck::cast_slice(&bytes).to_vec();
        let beyond = words.split_off(len);
        let clean = beyond.iter().all(|x| *x == UNTOUCHED);
        assert!(
            clean && beyond.len() == BEYOND,
            "{name}: wrote past the end"
        );
        words
    };
    read(scratch, words);
    let mut out = out.into_iter().zip(lengths).map(|(h, n)| read(h, n));
    let mut next = || out.next().expect("eight outputs");
    Cut {
        lists: next(),
        covered: next(),
        masks: next(),
        counts: next(),
        report: next(),
        gates: next(),
        table: next(),
        kept: next(),
    }
}

/// Compares bit for bit.
///
/// # Panics
/// With the stage and the first word that differ.
pub fn assert_same(name: &str, got: &Cut, expected: &Cut) {
    let parts = |c: &Cut| {
        [
            ("lists", c.lists.clone()),
            ("covered", c.covered.clone()),
            ("masks", c.masks.clone()),
            ("counts", c.counts.clone()),
            ("report", c.report.clone()),
            ("gates", c.gates.clone()),
            ("table", c.table.clone()),
            ("kept", c.kept.clone()),
        ]
    };
    for ((what, got), (_, expected)) in parts(got).into_iter().zip(parts(expected)) {
        assert_eq!(got.len(), expected.len(), "{name}: length of {what}");
        if let Some(at) = (0..got.len()).find(|&i| got[i] != expected[i]) {
            panic!(
                "{name}: word {at} of {what} is {:#x}, not {:#x} (as floats {}, {})",
                got[at],
                expected[at],
                f32::from_bits(got[at]),
                f32::from_bits(expected[at]),
            );
        }
    }
}
