//! A pattern for every index head: the cheapest of those that meet the recall floor, or dense.

use sparse_accelerate_contract::{
    Choice, ListLayout, PROBES, Prices, QUERY_TILE, REPORT_WORDS, Report, Rules, Sequence, Shape,
    Why,
    report::{CHOICES, exact},
    scratch::COVERED_WORDS,
    table::{DENSE, SPARSE},
};

use super::fixed::{ONE, fixed, score, share};

/// Inputs of a choice.
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

/// The candidates of one index head, by their numbers.
struct Candidates {
    recalls: [u32; CHOICES],
    costs: [f32; CHOICES],
    floor: u32,
    allowed: u32,
}

/// Writes the report `[B * Hi, 16]` and the gates `[B * Hi]`, 1 where dense was chosen. The cost model is
/// that of the kernels' `choose`.
pub fn choose(
    shape: &Shape,
    layout: &ListLayout,
    prices: &Prices,
    inputs: &ChooseInputs<'_>,
    report: &mut [f32],
    gates: &mut [u32],
) {
    let (heads_per_index, query_blocks) = (shape.heads_per_index(), shape.query_blocks());
    let indexes = shape.indexes();
    let covered_words = COVERED_WORDS * heads_per_index;
    for index in 0..indexes {
        let sequence = Sequence::of(inputs.spans, index / shape.index_heads);
        let rules = Rules::of(inputs.rules, index % shape.index_heads);
        let list = &inputs.lists[index * layout.stride()..];
        let counted = [list[ListLayout::COLUMNS], list[ListLayout::SLASHES]];
        let covered = &inputs.covered[index * covered_words..][..covered_words];
        let least = |of: usize| {
            let has = covered[of..].iter().step_by(2);
            has.map(|a| fixed(score(*a), 24)).min().unwrap_or(ONE)
        };
        let (local, listed) = (least(0), least(1));
        let blocks = [0, indexes].map(|variant| {
            let counts = &inputs.counts[(variant + index) * query_blocks..][..query_blocks];
            counts.iter().sum::<u32>()
        });
        let floor = fixed(score(rules.floor), 24);
        // Blocks that were cut to a share of the largest one promise nothing.
        let reached = if score(rules.alpha) > 0.0 { 0 } else { floor };
        let candidates = Candidates {
            recalls: [ONE, local, listed, local.max(reached), listed.max(reached)],
            costs: costs_of(prices, sequence, &rules, counted, blocks),
            floor,
            allowed: rules.allowed,
        };
        let lse = &inputs.lse[index * PROBES * heads_per_index..][..PROBES * heads_per_index];
        let finite = lse.iter().all(|x| x.is_finite());
        let (choice, why) = candidates.choose(finite);

        let [columns, slashes] = counted.map(|n| if choice.has_lists() { n } else { 0 });
        let out = Report {
            choice,
            why,
            predicted_recall: share(candidates.recalls[choice.number() as usize]),
            recall: Report::UNMEASURED,
            density: Report::UNMEASURED,
            columns,
            slashes,
            blocks: match choice.has_blocks() {
                true => blocks[usize::from(choice.has_lists())],
                false => 0,
            },
            costs: Choice::ALL.map(|choice| candidates.price(choice)),
            local: share(local),
            listed: share(listed),
        };
        report[index * REPORT_WORDS..][..REPORT_WORDS].copy_from_slice(&out.words());
        gates[index] = match choice {
            Choice::Dense => DENSE,
            _ => SPARSE,
        };
    }
}

impl Candidates {
    fn allows(&self, choice: Choice) -> bool {
        self.allowed & choice.bit() != 0
    }

    /// Dense is also what is left where nothing is allowed.
    fn dense(&self) -> bool {
        let all: u32 = Choice::ALL.map(Choice::bit).iter().sum();
        self.allows(Choice::Dense) || self.allowed & all == 0
    }

    /// Tells whether a sparse candidate is allowed and meets the floor; blocks are cut to meet it.
    fn meets(&self, choice: Choice) -> bool {
        self.allows(choice) && (choice.has_blocks() || self.recall(choice) >= self.floor)
    }

    fn recall(&self, choice: Choice) -> u32 {
        self.recalls[choice.number() as usize]
    }

    fn cost(&self, choice: Choice) -> f32 {
        self.costs[choice.number() as usize]
    }

    /// The cost as reported: infinite for what is not allowed or does not meet the floor.
    fn price(&self, choice: Choice) -> f32 {
        let open = match choice {
            Choice::Dense => self.dense(),
            _ => self.meets(choice),
        };
        if open {
            self.cost(choice)
        } else {
            f32::INFINITY
        }
    }

    /// Choice and reason; `finite` if the probes' log-sum-exp all are.
    fn choose(&self, finite: bool) -> (Choice, Why) {
        let sparse = || Choice::ALL.into_iter().skip(1);
        let cheaper = |a: &Choice, b: &Choice| {
            let cost = self.cost(*a).total_cmp(&self.cost(*b));
            cost.then(a.cmp(b))
        };
        let cheapest = sparse().filter(|c| self.meets(*c)).min_by(cheaper);
        if self.dense() {
            return match cheapest {
                _ if !finite => (Choice::Dense, Why::NotFinite),
                None => (Choice::Dense, Why::NothingKeepsTheFloor),
                Some(c) if self.cost(c) < self.cost(Choice::Dense) => (c, Why::Cheapest),
                Some(_) => (Choice::Dense, Why::DenseIsCheapest),
            };
        }
        let better = |a: &Choice, b: &Choice| {
            let recall = self.recall(*b).cmp(&self.recall(*a));
            recall.then(cheaper(a, b))
        };
        let best = sparse().filter(|c| self.allows(*c)).min_by(better);
        let (choice, why) = match cheapest {
            Some(c) => (c, Why::Cheapest),
            None => (best.unwrap_or(Choice::Dense), Why::NothingKeepsTheFloor),
        };
        (choice, if finite { why } else { Why::NotFinite })
    }
}

/// The costs of dense, triangular, interval-slash, block-cluster and hybrid; see the kernels' `choose`.
fn costs_of(
    prices: &Prices,
    sequence: Sequence,
    rules: &Rules,
    [columns, slashes]: [u32; 2],
    blocks: [u32; 2],
) -> [f32; CHOICES] {
    let tile = QUERY_TILE as u32;
    let (query_len, kv_len) = (sequence.query_len as u32, sequence.kv_len as u32);
    let rows = query_len.div_ceil(tile);
    let ends = (0..rows).map(|i| kv_len - query_len + ((i + 1) * tile).min(query_len));
    let causal: u32 = ends.map(|end| end.div_ceil(tile)).sum();
    let triangular = rows * (rules.sink.div_ceil(tile) + rules.window.div_ceil(tile) + 1);
    let interval = triangular + rows * slashes * 3 / 2;
    let tiles = |count: u32| prices.tile * exact(count.min(causal));
    let row = prices.row * exact(rows);
    let gathered = prices.column * 0.015625 * exact(rows * columns);
    [
        prices.dense_tile * exact(causal),
        row + tiles(triangular),
        row + tiles(interval) + gathered,
        row + tiles(triangular + 4 * blocks[0]),
        row + tiles(interval + 4 * blocks[1]) + gathered,
    ]
}
