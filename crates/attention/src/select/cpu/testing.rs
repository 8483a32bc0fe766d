//! Problems for the tests of the stages, and attention by the formula in f64.

use super::{Pooled, View, pool};
use sparse_accelerate_contract::{BLOCK, Choice, Rules, Sequence, Shape, Visible, table};
use sparse_accelerate_cpu::FlexFloat;

use crate::{
    index::{Builder, TileIndex},
    span::Span,
};

/// `(query_len, kv_len)` by sequence, query heads, KV heads, head dimension.
pub(super) type Lengths = (&'static [(usize, usize)], usize, usize, usize);

/// Groups of 1, 3, 4 and 7; whole prompts and chunks after a prefix; ragged batches.
pub(super) const CASES: &[Lengths] = &[
    (&[(1, 1), (63, 190), (64, 64)], 1, 1, 32),
    (&[(65, 65), (127, 255), (129, 1000)], 6, 2, 64),
    (&[(1000, 1000)], 4, 1, 80),
    (&[(300, 1111), (128, 128)], 7, 1, 128),
];

/// No window; windows of one key, less than a granule, a key block, more than some prompts.
pub(super) const WINDOWS: [Option<u32>; 5] = [None, Some(1), Some(13), Some(128), Some(301)];

/// SplitMix64 and Box-Muller.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }
}

/// A problem as a model hands it in: queries `[B, N, Hq, d]`, caches `[B, Hk, S, d]` longer than what
/// is in them. What no stage may read is NaN.
pub(super) struct Case<E> {
    pub(super) shape: Shape,
    pub(super) spans: Vec<u32>,
    pub(super) capacity: usize,
    pub(super) query: Vec<E>,
    pub(super) key: Vec<E>,
    pub(super) value: Vec<E>,
}

impl<E: FlexFloat> Case<E> {
    /// Normal queries and keys of logits about as large as `magnitude`, normal values.
    pub(super) fn normal(
        (lengths, heads, kv_heads, d): Lengths,
        magnitude: f32,
        seed: u64,
    ) -> Self {
        let mut random = Random(seed);
        Self::filled((lengths, heads, kv_heads, d), |kind, _, _, _, out| {
            let size = if kind == Kind::Query { magnitude } else { 1.0 };
            out.iter_mut().for_each(|x| *x = size * random.normal());
        })
    }

    /// Rows written by `fill(kind, sequence, head, absolute position, row)`.
    pub(super) fn filled(
        (lengths, heads, kv_heads, d): Lengths,
        mut fill: impl FnMut(Kind, usize, usize, usize, &mut [f32]),
    ) -> Self {
        let rows = lengths.iter().map(|l| l.0).max().expect("sequences");
        let keys = lengths.iter().map(|l| l.1).max().expect("sequences");
        let shape = Shape {
            batch: lengths.len(),
            heads,
            kv_heads,
            index_heads: kv_heads,
            rows,
            keys,
            head_dim: d,
            scale: 1.0 / (d as f32).sqrt(),
            visible: Visible::Causal,
        };
        let capacity = keys + 24;
        let nan = || E::narrow(f32::NAN);
        let mut query = vec![nan(); shape.batch * rows * heads * d];
        let mut key = vec![nan(); shape.batch * kv_heads * capacity * d];
        let mut value = key.clone();
        let mut row = vec![0.0; d];
        for (b, &(query_len, kv_len)) in lengths.iter().enumerate() {
            for head in 0..kv_heads {
                for j in 0..kv_len {
                    let at = ((b * kv_heads + head) * capacity + j) * d;
                    fill(Kind::Key, b, head, j, &mut row);
                    E::narrow_all(&row, &mut key[at..at + d]);
                    fill(Kind::Value, b, head, j, &mut row);
                    E::narrow_all(&row, &mut value[at..at + d]);
                }
            }
            for head in 0..heads {
                for i in 0..query_len {
                    let at = ((b * rows + i) * heads + head) * d;
                    fill(Kind::Query, b, head, kv_len - query_len + i, &mut row);
                    E::narrow_all(&row, &mut query[at..at + d]);
                }
            }
        }
        let spans = table::spans(lengths.iter().map(|l| Sequence::new(l.0, l.1)));
        Self {
            shape,
            spans,
            capacity,
            query,
            key,
            value,
        }
    }

    pub(super) fn query(&self) -> View<'_, E> {
        let Shape {
            rows,
            heads,
            head_dim: d,
            ..
        } = self.shape;
        View {
            data: &self.query,
            strides: [rows * heads * d, d, heads * d],
        }
    }

    pub(super) fn key(&self) -> View<'_, E> {
        self.cache(&self.key)
    }

    pub(super) fn value(&self) -> View<'_, E> {
        self.cache(&self.value)
    }

    fn cache<'a>(&self, data: &'a [E]) -> View<'a, E> {
        let Shape {
            kv_heads,
            head_dim: d,
            ..
        } = self.shape;
        View {
            data,
            strides: [kv_heads * self.capacity * d, self.capacity * d, d],
        }
    }

    /// The same under a window of visible keys, or without one.
    pub(super) fn under(mut self, window: Option<u32>) -> Self {
        self.shape.visible = Visible::of(window);
        self
    }

    /// First key that a query row sees, by the definition.
    pub(super) fn first(&self, b: usize, row: usize) -> usize {
        let (query_len, kv_len) = self.lengths(b);
        let position = kv_len - query_len + row;
        let window = self.shape.window().map_or(usize::MAX, |keys| keys as usize);
        let seen = (0..=position).find(|j| position - j < window);
        seen.expect("its own key")
    }

    /// Query rows and keys of a sequence.
    pub(super) fn lengths(&self, b: usize) -> (usize, usize) {
        let sequence = Sequence::of(&self.spans, b);
        (sequence.query_len, sequence.kv_len)
    }

    /// A row of a tensor in f64.
    pub(super) fn exact(&self, view: View<'_, E>, b: usize, head: usize, row: usize) -> Vec<f64> {
        let row = view.row(b, head, row, self.shape.head_dim);
        row.iter().map(|x| f64::from(x.widen())).collect()
    }

    /// Scaled logits of a query row over its causal keys, of a window also those that it hides.
    pub(super) fn logits(&self, b: usize, head: usize, row: usize) -> Vec<f64> {
        let (query_len, kv_len) = self.lengths(b);
        let query = self.exact(self.query(), b, head, row);
        let kv_head = head / self.shape.heads_per_kv();
        let logit = |j| dot(&query, &self.exact(self.key(), b, kv_head, j));
        let scale = f64::from(self.shape.scale);
        (0..=kv_len - query_len + row)
            .map(|j| scale * logit(j))
            .collect()
    }

    /// Everything pooled, as if the prompts had come in one piece.
    pub(super) fn pooled(&self) -> Vec<f32> {
        let blocks = self.shape.key_blocks();
        let mut pooled =
            vec![
                f32::NAN;
                self.shape.batch * self.shape.kv_heads * blocks * 3 * self.shape.head_dim
            ];
        let whole = |b| Sequence::new(self.lengths(b).1, self.lengths(b).1);
        let spans = table::spans((0..self.shape.batch).map(whole));
        pool(
            &self.shape,
            self.key(),
            self.value(),
            &spans,
            &mut pooled,
            blocks,
        );
        pooled
    }

    pub(super) fn in_blocks<'a>(&self, pooled: &'a [f32]) -> Pooled<'a> {
        Pooled {
            data: pooled,
            blocks: self.shape.key_blocks(),
        }
    }

    /// Mean key, variance and mean value of a whole key block, in f64.
    pub(super) fn moments(&self, b: usize, kv_head: usize, block: usize) -> [Vec<f64>; 3] {
        let end = ((block + 1) * BLOCK).min(self.lengths(b).1);
        let rows = |view| -> Vec<Vec<f64>> {
            (block * BLOCK..end)
                .map(|j| self.exact(view, b, kv_head, j))
                .collect()
        };
        let (key, value) = (rows(self.key()), rows(self.value()));
        let mean = |rows: &[Vec<f64>], f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let of = |i: usize| rows.iter().map(|r| f(i, r[i])).sum::<f64>() / rows.len() as f64;
            (0..self.shape.head_dim).map(of).collect()
        };
        let mean_key = mean(&key, &|_, x| x);
        let variance = mean(&key, &|i, x| (x - mean_key[i]).powi(2));
        [mean_key, variance, mean(&value, &|_, x| x)]
    }

    /// Rules that are the same for all index heads but for the sinks, which grow by 3 from head to head.
    pub(super) fn rules(&self, sink: usize, window: usize, recall: f32) -> Vec<u32> {
        let head = |h: usize| Rules {
            allowed: Choice::Dense.bit(),
            sink: (sink + 3 * h) as u32,
            window: window as u32,
            columns: 0,
            slashes: 0,
            floor: recall,
            accepted: recall,
            alpha: 0.0,
        };
        (0..self.shape.index_heads)
            .flat_map(|h| head(h).words())
            .collect()
    }

    /// An index from ranges and columns for every tile, `keep(b, index head, first, last)`: of those that
    /// begin among the keys of the sequence, the part that the case's window shows.
    pub(super) fn index(
        &self,
        keep: impl Fn(usize, usize, usize, usize) -> (Vec<(usize, usize)>, Vec<usize>),
    ) -> TileIndex {
        let span = |b| {
            let (query_len, kv_len) = self.lengths(b);
            Span {
                query_len,
                kv_len,
                prompt_len: kv_len,
            }
        };
        let spans: Vec<Span> = (0..self.shape.batch).map(span).collect();
        let mut builder = Builder::new(&spans, self.shape.index_heads, None).expect("spans");
        for (b, span) in spans.iter().enumerate() {
            for head in 0..self.shape.index_heads {
                for tile in 0..self.shape.tiles() {
                    if let Some((first, last)) = builder.tile_positions(b, tile) {
                        let (ranges, columns) = keep(b, head, first, last);
                        // Sequences differ in length: what a longer one keeps a shorter one may not have.
                        let keys = span.kv_len;
                        let ranges = ranges.into_iter().filter(|range| range.0 < keys);
                        let columns = columns.into_iter().filter(|column| *column < keys);
                        builder
                            .set((b, head, tile), ranges, columns)
                            .expect("a row");
                    }
                }
            }
        }
        let index = builder.finish().expect("a valid index");
        match self.shape.window() {
            None => index,
            Some(keys) => {
                let visible = crate::Visible::Window(keys as usize);
                index.within(visible).expect("a window")
            }
        }
    }

    /// The table of an index as the device has it.
    pub(super) fn table(&self, index: &TileIndex, gates: &[u32]) -> Vec<u32> {
        let sequences = (0..self.shape.batch).map(|b| Sequence::of(&self.spans, b));
        table::write(sequences, index.packed(), gates)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    Key,
    Value,
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(super) fn log_sum_exp(logits: &[f64]) -> f64 {
    let maximum = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    maximum + logits.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln()
}

/// Fails with the worst of `got` if it is off by more than `absolute + relative * |exact|`.
#[track_caller]
pub(super) fn close(what: &str, got: &[f32], exact: &[f64], absolute: f64, relative: f64) {
    assert_eq!(got.len(), exact.len(), "{what}");
    for (i, (&got, &exact)) in got.iter().zip(exact).enumerate() {
        let error = (f64::from(got) - exact).abs();
        let limit = absolute + relative * exact.abs();
        assert!(error <= limit, "{what}[{i}]: {got}, expected {exact}");
    }
}
