//! A pattern for every index head: the cheapest of those that meet the recall floor, or dense.

use super::{
    ListLayout, PROBES, REPORT_WORDS, Rules, Shape,
    fixed::{ONE, exact, fixed, score, share},
};
use crate::index::QUERY_TILE;

/// What work costs, in any one unit of time; finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// A tile of 64 x 64 of the dense kernel.
    pub dense_tile: f32,
    /// As much of the sparse kernel.
    pub tile: f32,
    /// 64 gathered columns of an index row.
    pub column: f32,
    /// An index row.
    pub row: f32,
}

/// What a choice is made from.
#[derive(Debug, Clone, Copy)]
pub struct ChooseInputs<'a> {
    /// `[B * Hq, 4]`.
    pub covered: &'a [f32],
    /// `[2, B * Hi, query blocks]`.
    pub counts: &'a [u32],
    /// `[B * Hi]` rows of a [`ListLayout`].
    pub lists: &'a [u32],
    /// `[B, Hq, 128]`.
    pub lse: &'a [f32],
    /// `[B, 4]`.
    pub spans: &'a [u32],
    /// `[Hi, 8]`.
    pub rules: &'a [u32],
}

/// The candidates of one index head, dense first.
struct Candidates {
    recalls: [u32; 5],
    costs: [f32; 5],
    floor: u32,
    allowed: u32,
}

/// Writes the report `[B * Hi, 16]` and the gates `[B * Hi]`, 1 where dense was chosen. The cost model is
/// that of the kernels' `choose`.
pub fn choose(
    shape: &Shape,
    layout: &ListLayout,
    costs: &Costs,
    inputs: &ChooseInputs<'_>,
    report: &mut [f32],
    gates: &mut [u32],
) {
    let (sharing, query_blocks) = (shape.sharing(), shape.query_blocks());
    let indexes = shape.batch * shape.index_heads;
    for index in 0..indexes {
        let span = &inputs.spans[index / shape.index_heads * 4..];
        let rules = Rules::read(inputs.rules, index % shape.index_heads);
        let list = &inputs.lists[index * layout.stride()..];
        let covered = &inputs.covered[index * 4 * sharing..][..4 * sharing];
        let least = |of: usize| {
            let has = covered[of..].iter().step_by(2);
            has.map(|a| fixed(score(*a), 24)).min().unwrap_or(ONE)
        };
        let (local, both) = (least(0), least(1));
        let blocks = [0, indexes].map(|variant| {
            let counts = &inputs.counts[(variant + index) * query_blocks..][..query_blocks];
            counts.iter().sum::<u32>()
        });
        let floor = fixed(score(rules.floor), 24);
        // Blocks that were cut to a share of the largest one promise nothing.
        let reached = if score(rules.alpha) > 0.0 { 0 } else { floor };
        let candidates = Candidates {
            recalls: [ONE, local, both, local.max(reached), both.max(reached)],
            costs: costs_of(costs, span, &rules, list, blocks),
            floor,
            allowed: rules.allowed,
        };
        let lse = &inputs.lse[index * PROBES * sharing..][..PROBES * sharing];
        let finite = lse.iter().all(|x| x.is_finite());
        let (choice, reason) = candidates.choose(finite);

        let listed = choice == 2 || choice == 4;
        let of_list = |count: u32| if listed { exact(count) } else { 0.0 };
        let out = &mut report[index * REPORT_WORDS..][..REPORT_WORDS];
        out[0] = choice as f32;
        out[1] = reason as f32;
        out[2] = share(candidates.recalls[choice]);
        out[3..5].fill(f32::from_bits(0x7fc0_0000));
        out[5] = of_list(list[0]);
        out[6] = of_list(list[1]);
        out[7] = match choice {
            3 => exact(blocks[0]),
            4 => exact(blocks[1]),
            _ => 0.0,
        };
        for i in 0..5 {
            let open = match i {
                0 => candidates.dense(),
                _ => candidates.meets(i),
            };
            out[8 + i] = if open {
                candidates.costs[i]
            } else {
                f32::INFINITY
            };
        }
        out[13] = share(local);
        out[14] = share(both);
        out[15] = 0.0;
        gates[index] = u32::from(choice == 0);
    }
}

impl Candidates {
    fn allows(&self, candidate: usize) -> bool {
        self.allowed >> candidate & 1 == 1
    }

    /// Dense is also what is left where nothing is allowed.
    fn dense(&self) -> bool {
        self.allows(0) || self.allowed & 31 == 0
    }

    /// Whether a sparse candidate is allowed and meets the floor; blocks are cut to meet it.
    fn meets(&self, candidate: usize) -> bool {
        self.allows(candidate) && (candidate > 2 || self.recalls[candidate] >= self.floor)
    }

    /// Choice and reason; `finite` if the probes' log-sum-exp all are.
    fn choose(&self, finite: bool) -> (usize, usize) {
        let cost = |i: &usize| self.costs[*i];
        let cheaper = |a: &usize, b: &usize| cost(a).total_cmp(&cost(b)).then(a.cmp(b));
        let cheapest = (1..5).filter(|i| self.meets(*i)).min_by(cheaper);
        if self.dense() {
            return match cheapest {
                _ if !finite => (0, 3),
                None => (0, 2),
                Some(i) if cost(&i) < self.costs[0] => (i, 0),
                Some(_) => (0, 1),
            };
        }
        let better = |a: &usize, b: &usize| {
            let recall = self.recalls[*b].cmp(&self.recalls[*a]);
            recall.then(cheaper(a, b))
        };
        let best = (1..5).filter(|i| self.allows(*i)).min_by(better);
        let (choice, reason) = match cheapest {
            Some(i) => (i, 0),
            None => (best.unwrap_or(0), 2),
        };
        (choice, if finite { reason } else { 3 })
    }
}

/// The costs of dense, triangular, interval-slash, block-cluster and hybrid; see the kernels' `choose`.
fn costs_of(
    costs: &Costs,
    span: &[u32],
    rules: &Rules,
    list: &[u32],
    blocks: [u32; 2],
) -> [f32; 5] {
    let tile = QUERY_TILE as u32;
    let (query_len, kv_len) = (span[0], span[1]);
    let rows = query_len.div_ceil(tile);
    let ends = (0..rows).map(|i| kv_len - query_len + ((i + 1) * tile).min(query_len));
    let causal: u32 = ends.map(|end| end.div_ceil(tile)).sum();
    let (columns, slashes) = (list[0], list[1]);
    let triangular = rows * (rules.sink.div_ceil(tile) + rules.window.div_ceil(tile) + 1);
    let interval = triangular + rows * slashes * 3 / 2;
    let tiles = |count: u32| costs.tile * exact(count.min(causal));
    let row = costs.row * exact(rows);
    let gathered = costs.column * 0.015625 * exact(rows * columns);
    [
        costs.dense_tile * exact(causal),
        row + tiles(triangular),
        row + tiles(interval) + gathered,
        row + tiles(triangular + 4 * blocks[0]),
        row + tiles(interval + 4 * blocks[1]) + gathered,
    ]
}
