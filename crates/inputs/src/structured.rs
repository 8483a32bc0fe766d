//! Rows of the structured family, by the rules of [`Family::Structured`](crate::Family).
//!
//! The order of f32 operations is part of the rules: terms are added to a base that starts at 0,
//! noise comes last.

use half::bf16;

use crate::hash::Stream;
use crate::shape::{HEAD_DIM, MAX_LEN, Shape};
use crate::tables::{Noise, PAIRS, Tables, counter, turns_per_token};
use crate::tensor::{KEY, QUERY};

/// Peaks of a head type, in units of the logit.
struct Peaks {
    /// Local band, then two slashes; 0 is none.
    rotary: [f64; 3],
    sink: f64,
    column: f64,
    topic: f64,
}

const fn peaks(rotary: [f64; 3], sink: f64, column: f64, topic: f64) -> Peaks {
    Peaks {
        rotary,
        sink,
        column,
        topic,
    }
}

/// Values by `head & 3`.
const PEAKS: [Peaks; 4] = [
    peaks([12.0, 0.0, 0.0], 13.0, 6.0, 0.0),
    peaks([10.0, 14.0, 11.0], 12.0, 6.0, 0.0),
    peaks([9.0, 0.0, 0.0], 11.0, 11.0, 11.0),
    peaks([10.0, 9.0, 8.0], 12.0, 8.0, 7.0),
];
/// Sinks of the first tokens, as shares of [`KEY_DIRECTION`].
const SINKS: [f32; 4] = [1.0, 0.875, 0.8125, 0.75];
const KEY_ROTARY: f32 = 1.5;
const KEY_DIRECTION: f32 = 8.0;
/// One of 1024 keys is a global column, one of 512 has a topic.
const COLUMN_BELOW: u32 = 1 << 22;
const TOPIC_BELOW: u32 = 1 << 23;
/// The lowest of the eight dimensions of topics; sink and global column come before them.
const SINK_DIM: usize = 96;
const COLUMN_DIM: usize = 97;
const TOPIC_DIM: usize = 98;

/// Distances of a head's local band and slashes.
pub(crate) fn offsets(seed: u32, head: u32) -> [u32; 3] {
    [
        0,
        256 + Stream::new(seed, 32).bits(head) % 3840,
        4096 + Stream::new(seed, 33).bits(head) % 12288,
    ]
}

fn topic_dim(bits: u32) -> usize {
    TOPIC_DIM + (bits & 7) as usize
}

/// Terms that all rows of a query head share.
struct HeadTerms {
    /// Weight and distance.
    rotary: Vec<(f32, u32)>,
    sink: f32,
    column: f32,
    topic: f32,
}

impl HeadTerms {
    fn new(seed: u32, head: usize) -> Self {
        let peaks = &PEAKS[head & 3];
        let root = 128_f64.sqrt();
        let rotary = peaks.rotary.iter().zip(offsets(seed, head as u32));
        let direction = |peak: f64| (peak * root / f64::from(KEY_DIRECTION)) as f32;
        Self {
            rotary: rotary
                .filter(|(peak, _)| **peak != 0.0)
                .map(|(peak, offset)| {
                    let weight = peak * root / (PAIRS as f64 * f64::from(KEY_ROTARY));
                    (weight as f32, offset)
                })
                .collect(),
            sink: direction(peaks.sink),
            column: direction(peaks.column),
            topic: direction(peaks.topic),
        }
    }
}

/// Rows of the queries.
pub(crate) struct Queries {
    noise: Noise,
    tables: &'static Tables,
    turns: [u32; PAIRS],
    heads: Vec<HeadTerms>,
    topics: Stream,
    group: usize,
}

impl Queries {
    pub(crate) fn new(seed: u32, shape: Shape) -> Self {
        Self {
            noise: Noise::new(seed, QUERY),
            tables: Tables::get(),
            turns: turns_per_token(),
            heads: (0..shape.heads).map(|h| HeadTerms::new(seed, h)).collect(),
            topics: Stream::new(seed, 34),
            group: shape.group(),
        }
    }

    pub(crate) fn row(&self, head: usize, position: usize, out: &mut [bf16]) {
        let terms = &self.heads[head];
        let mut base = [0_f32; HEAD_DIM];
        for &(weight, offset) in &terms.rotary {
            let from = (position as u32).wrapping_sub(offset);
            for (pair, turn) in base.chunks_exact_mut(2).zip(self.turns) {
                let (cos, sin) = self.tables.turn(from.wrapping_mul(turn));
                pair[0] += cos * weight;
                pair[1] += sin * weight;
            }
        }
        base[SINK_DIM] = terms.sink;
        base[COLUMN_DIM] = terms.column;
        let segment = ((head / self.group) << 10) + (position >> 9);
        base[topic_dim(self.topics.bits(segment as u32))] = terms.topic;
        let first = counter(head, position);
        for ((d, out), base) in (0..).zip(out).zip(base) {
            *out = bf16::from_f32(base + self.noise.normal(first + d));
        }
    }
}

/// Rows of the keys.
pub(crate) struct Keys {
    noise: Noise,
    tables: &'static Tables,
    turns: [u32; PAIRS],
    columns: Stream,
    with_topic: Stream,
    topics: Stream,
}

impl Keys {
    pub(crate) fn new(seed: u32) -> Self {
        Self {
            noise: Noise::new(seed, KEY),
            tables: Tables::get(),
            turns: turns_per_token(),
            columns: Stream::new(seed, 16),
            with_topic: Stream::new(seed, 17),
            topics: Stream::new(seed, 18),
        }
    }

    pub(crate) fn row(&self, head: usize, position: usize, out: &mut [bf16]) {
        let mut base = [0_f32; HEAD_DIM];
        for (pair, turn) in base.chunks_exact_mut(2).zip(self.turns) {
            let (cos, sin) = self.tables.turn((position as u32).wrapping_mul(turn));
            pair[0] = cos * KEY_ROTARY;
            pair[1] = sin * KEY_ROTARY;
        }
        if let Some(share) = SINKS.get(position) {
            base[SINK_DIM] = KEY_DIRECTION * share;
        }
        let column = (head * MAX_LEN + position) as u32;
        if self.columns.bits(column) < COLUMN_BELOW {
            base[COLUMN_DIM] = KEY_DIRECTION;
        }
        if self.with_topic.bits(column) < TOPIC_BELOW {
            base[topic_dim(self.topics.bits(column))] = KEY_DIRECTION;
        }
        let first = counter(head, position);
        for ((d, out), base) in (0..).zip(out).zip(base) {
            *out = bf16::from_f32(base + self.noise.normal(first + d) * 0.5);
        }
    }
}
