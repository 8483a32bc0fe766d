//! The oracle against its definition in f64, on every row of the sampled blocks; what it says of itself.

use burn::tensor::Device;
use half::bf16;
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::device::{DeviceChoice, select};
use sparse_accelerate_inputs::{HEAD_DIM, Shape, key, query, value};
use sparse_accelerate_report::record::OracleRow;

use super::{Family, Frontier, FrontierSettings, FrontierShape, SHARES, parse_selectors};
use crate::speed::SpeedError;

const SEED: u32 = 1;

fn device() -> Device {
    select(DeviceChoice::FLEX).expect("the CPU").device
}

/// Structured inputs have heads of one size.
fn family(shape: FrontierShape) -> Family {
    match shape.head_dim {
        HEAD_DIM => Family::Structured,
        _ => Family::Random,
    }
}

fn settings(family: Family, tiles: usize) -> FrontierSettings {
    FrontierSettings {
        family,
        seed: SEED,
        dtype: WeightDtype::F32,
        tiles,
        runs: 1,
    }
}

fn frontier(shape: FrontierShape, tiles: usize) -> Frontier {
    Frontier::new(&device(), shape, settings(family(shape), tiles)).expect("inputs")
}

fn rows(frontier: &Frontier) -> Vec<OracleRow> {
    let mut last = (0, 0);
    let rows = frontier.oracle(&mut |done, all| last = (done, all));
    let all = frontier.blocks.len() * frontier.shape.kv_heads;
    assert_eq!(last, (all, all));
    rows.expect("an oracle")
}

/// The problem on the host, in f64.
struct Host {
    shape: FrontierShape,
    query: Vec<bf16>,
    key: Vec<bf16>,
    value: Vec<bf16>,
}

impl Host {
    fn new(shape: FrontierShape) -> Self {
        let sizes =
            Shape::new(shape.heads, shape.kv_heads, shape.length).with_head_dim(shape.head_dim);
        Self {
            shape,
            query: query(SEED, family(shape), sizes).unwrap(),
            key: key(SEED, family(shape), sizes).unwrap(),
            value: value(SEED, family(shape), sizes).unwrap(),
        }
    }

    fn row<'a>(&self, tensor: &'a [bf16], head: usize, at: usize) -> &'a [bf16] {
        let first = (head * self.shape.length + at) * self.shape.head_dim;
        &tensor[first..first + self.shape.head_dim]
    }

    fn mean(&self, tensor: &[bf16], head: usize, block: usize, size: usize) -> Vec<f64> {
        let rows: Vec<&[bf16]> = (block * size..(block + 1) * size)
            .map(|at| self.row(tensor, head, at))
            .collect();
        (0..self.shape.head_dim)
            .map(|d| rows.iter().map(|row| row[d].to_f64()).sum::<f64>() / size as f64)
            .collect()
    }

    /// Logit of a query row with a key.
    fn logit(&self, head: usize, at: usize, key: &[f64]) -> f64 {
        let query = self.row(&self.query, head, at);
        let dot: f64 = query.iter().zip(key).map(|(q, k)| q.to_f64() * k).sum();
        dot / (self.shape.head_dim as f64).sqrt()
    }

    /// Density, error and corrected error of a set on the given query blocks of 128.
    fn judge(&self, size: usize, shared: bool, share: f64, blocks: &[usize]) -> [f64; 3] {
        let (length, heads) = (self.shape.length, self.shape.heads);
        let group = heads / self.shape.kv_heads;
        let [mut kept, mut causal, mut norm] = [0.0; 3];
        let mut distance = [0.0; 2];
        for tile in blocks
            .iter()
            .flat_map(|t| (t * 128 / size)..((t + 1) * 128 / size))
        {
            let rows = tile * size..((tile + 1) * size).min(length);
            if rows.is_empty() {
                continue;
            }
            let weights: Vec<Vec<Vec<f64>>> = (0..heads)
                .map(|head| rows.clone().map(|at| self.weights(head, at)).collect())
                .collect();
            let mass = |head: usize, block: usize| -> f64 {
                let of_row = |row: &Vec<f64>| -> f64 {
                    let end = ((block + 1) * size).min(row.len());
                    row[(block * size).min(end)..end].iter().sum::<f64>() / row.iter().sum::<f64>()
                };
                weights[head].iter().map(of_row).sum()
            };
            for head in 0..heads {
                let judged: Vec<usize> = match shared {
                    true => (head / group * group..(head / group + 1) * group).collect(),
                    false => vec![head],
                };
                let mass: Vec<f64> = (0..=tile)
                    .map(|block| judged.iter().map(|head| mass(*head, block)).sum())
                    .collect();
                let set = smallest(&mass, share);
                for (at, weights) in rows.clone().zip(&weights[head]) {
                    causal += (at + 1) as f64;
                    kept += (0..=at).filter(|j| set.contains(&(j / size))).count() as f64;
                    let dense = self.output(head / group, weights, |_| true, &[]);
                    let plain = |j: usize| set.contains(&(j / size));
                    let means: Vec<(f64, Vec<f64>)> = (0..tile)
                        .filter(|block| !set.contains(block))
                        .map(|block| {
                            let key = self.mean(&self.key, head / group, block, size);
                            let logit = self.logit(head, at, &key);
                            let value = self.mean(&self.value, head / group, block, size);
                            (size as f64 * logit.exp(), value)
                        })
                        .collect();
                    norm += dense.iter().map(|x| x * x).sum::<f64>();
                    for (sum, means) in distance.iter_mut().zip([&[][..], &means]) {
                        let got = self.output(head / group, weights, plain, means);
                        *sum += got
                            .iter()
                            .zip(&dense)
                            .map(|(a, b)| (a - b).powi(2))
                            .sum::<f64>();
                    }
                }
            }
        }
        let error = |sum: f64| (sum / norm).sqrt();
        [kept / causal, error(distance[0]), error(distance[1])]
    }

    /// `exp(logit)` of every key a row sees.
    fn weights(&self, head: usize, at: usize) -> Vec<f64> {
        let kv_head = head * self.shape.kv_heads / self.shape.heads;
        let key = |j| -> Vec<f64> {
            let row = self.row(&self.key, kv_head, j);
            row.iter().map(|k| k.to_f64()).collect()
        };
        (0..=at)
            .map(|j| self.logit(head, at, &key(j)).exp())
            .collect()
    }

    fn output(
        &self,
        kv_head: usize,
        weights: &[f64],
        sees: impl Fn(usize) -> bool,
        means: &[(f64, Vec<f64>)],
    ) -> Vec<f64> {
        let (mut sum, mut total) = (vec![0.0; self.shape.head_dim], 0.0);
        for (j, weight) in weights.iter().enumerate().filter(|(j, _)| sees(*j)) {
            total += weight;
            let value = self.row(&self.value, kv_head, j);
            sum.iter_mut()
                .zip(value)
                .for_each(|(sum, v)| *sum += weight * v.to_f64());
        }
        for (weight, value) in means {
            total += weight;
            sum.iter_mut()
                .zip(value)
                .for_each(|(sum, v)| *sum += weight * v);
        }
        sum.iter().map(|sum| sum / total).collect()
    }
}

/// The first and the last block, and the fewest others that bring their mass to the share.
fn smallest(mass: &[f64], share: f64) -> Vec<usize> {
    let mut set = vec![0, mass.len() - 1];
    set.dedup();
    let held = |set: &[usize]| set.iter().map(|block| mass[*block]).sum::<f64>();
    while held(&set) < share * mass.iter().sum::<f64>() {
        let best = (0..mass.len())
            .filter(|block| !set.contains(block))
            .max_by(|a, b| mass[*a].total_cmp(&mass[*b]));
        match best {
            Some(block) => set.push(block),
            None => break,
        }
    }
    set
}

#[test]
fn densities_and_errors_are_those_of_the_definition() {
    // Two query heads a KV head, a last block of 56 rows, which leaves its second tile of 64 empty.
    let shape = FrontierShape {
        heads: 4,
        kv_heads: 2,
        head_dim: HEAD_DIM,
        length: 440,
    };
    let host = Host::new(shape);
    let frontier = frontier(shape, 2);
    assert_eq!(frontier.blocks, [1, 3]);
    let got = rows(&frontier);
    assert_eq!(got.len(), 4 * SHARES.len());
    for row in got.iter().filter(|row| [0.8, 0.95].contains(&row.share)) {
        let [density, error, corrected] =
            host.judge(row.block, row.shared, row.share, &frontier.blocks);
        assert!((row.density - density).abs() < 1e-9, "{row:?}: {density}");
        for (got, exact) in [(row.error, error), (row.corrected_error, corrected)] {
            assert!((got - exact).abs() < 2e-3 * exact, "{row:?}: {exact}");
        }
    }
}

#[test]
fn a_ragged_last_block_counts_the_rows_it_has() {
    let shape = FrontierShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 64,
        length: 300,
    };
    let host = Host::new(shape);
    let frontier = frontier(shape, 48);
    assert_eq!(frontier.blocks, [0, 1, 2]);
    let got = rows(&frontier);
    for row in got.iter().filter(|row| [0.7, 0.9].contains(&row.share)) {
        let [density, error, _] = host.judge(row.block, row.shared, row.share, &frontier.blocks);
        assert!((row.density - density).abs() < 1e-9, "{row:?}: {density}");
        assert!(
            (row.error - error).abs() <= 2e-3 * error,
            "{row:?}: {error}"
        );
    }
}

#[test]
fn more_mass_is_more_density_and_less_error() {
    let shape = FrontierShape {
        heads: 4,
        kv_heads: 2,
        head_dim: HEAD_DIM,
        length: 2048,
    };
    let rows = rows(&frontier(shape, 4));
    for curve in rows.chunks_exact(SHARES.len()) {
        for pair in curve.windows(2) {
            assert!(pair[0].density <= pair[1].density, "{pair:?}");
            assert!(pair[0].error >= pair[1].error, "{pair:?}");
        }
        // Tiles of 64 by query head have the freest choice.
        assert!(
            curve[2].density > 0.05 && curve[2].density < 1.0,
            "{curve:?}"
        );
    }
}

#[test]
fn a_pattern_without_a_choice_is_judged_on_the_same_rows() {
    let shape = FrontierShape {
        heads: 4,
        kv_heads: 2,
        head_dim: HEAD_DIM,
        length: 2048,
    };
    let frontier = frontier(shape, 4);
    let one = |name: &str| {
        let selector = parse_selectors(name).unwrap().remove(0);
        let costs = sparse_accelerate::select::Prices::default();
        frontier
            .select(&selector, None, costs, None)
            .expect("a row")
    };
    let triangular = one("triangular");
    assert!(
        triangular.error > 0.05 && triangular.density < 1.0,
        "{triangular:?}"
    );
    assert!(triangular.total_ms > 0.0 && triangular.dense_ms > 0.0);
    // A baseline that keeps sinks and a window of its own, on the same kernels.
    let baseline = one("baseline:a-shape:sink=64:window=256");
    assert!(
        baseline.error > triangular.error && baseline.density < triangular.density,
        "{baseline:?}"
    );
    assert!(
        baseline
            .selection_ms
            .is_some_and(|ms| ms < baseline.total_ms),
        "{baseline:?}"
    );
    // Below its least length `auto` is dense: the same numbers.
    let auto = one("auto");
    assert!(auto.error < 1e-6 && auto.density == 1.0, "{auto:?}");
    assert_eq!((auto.heads, auto.dense_heads), (2, 2));
}

#[test]
fn nothing_to_measure_is_refused() {
    let shape = FrontierShape {
        heads: 4,
        kv_heads: 2,
        head_dim: HEAD_DIM,
        length: 256,
    };
    let error =
        Frontier::new(&device(), shape, settings(Family::Structured, 0)).expect_err("no tiles");
    assert!(
        matches!(error, SpeedError::Nothing { field: "tiles" }),
        "{error}"
    );
    let uneven = FrontierShape { heads: 3, ..shape };
    let error =
        Frontier::new(&device(), uneven, settings(Family::Structured, 1)).expect_err("3 of 2");
    assert!(error.is_usage(), "{error}");
}
