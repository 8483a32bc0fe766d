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
        let list = &inputs.lists[index * layout.stride()..][..layout.stride()];
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
            costs: costs_of(
                prices,
                &Kept::new(shape, layout, list, sequence, &rules),
                blocks,
            ),
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
            error: 0.0,
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

/// Counts of what an index head may keep, but for blocks.
struct Kept {
    /// Index rows.
    rows: u32,
    /// Tiles that some row of them sees.
    causal: u32,
    /// Tiles of sinks and window.
    triangular: u32,
    slashes: u32,
    /// Columns times the index rows that see them.
    gathered: u32,
}

impl Kept {
    fn new(
        shape: &Shape,
        layout: &ListLayout,
        list: &[u32],
        sequence: Sequence,
        rules: &Rules,
    ) -> Self {
        let tile = QUERY_TILE;
        let rows = sequence.query_len.div_ceil(tile);
        let (mut causal, mut sinks) = (0, 0);
        for row in 0..rows {
            let end = sequence.offset() + ((row + 1) * tile).min(sequence.query_len);
            let seen = shape.visible.first(sequence.offset() + row * tile);
            causal += (end - seen).div_ceil(tile);
            sinks += (rules.sink as usize).saturating_sub(seen).div_ceil(tile);
        }
        let local = shape.window().unwrap_or(u32::MAX).min(rules.window);
        let columns = list[ListLayout::COLUMNS];
        let gathered = match shape.window() {
            None => rows as u32 * columns,
            Some(window) => {
                let (columns, _) = layout.read(list);
                let seen = |&column: &u32| rows_that_see(column as usize, window, sequence);
                columns.iter().map(seen).sum()
            }
        };
        Self {
            rows: rows as u32,
            causal: causal as u32,
            triangular: (sinks + rows * (local.div_ceil(tile as u32) as usize + 1)) as u32,
            slashes: list[ListLayout::SLASHES],
            gathered,
        }
    }
}

/// Index rows of a sequence of which some row sees a column through a window.
fn rows_that_see(column: usize, window: u32, sequence: Sequence) -> u32 {
    let offset = sequence.offset();
    let first = column.max(offset) - offset;
    let end = (column + window as usize).clamp(offset, sequence.kv_len) - offset;
    match first < end {
        true => ((end - 1) / QUERY_TILE - first / QUERY_TILE + 1) as u32,
        false => 0,
    }
}

/// The costs of dense, triangular, interval-slash, block-cluster and hybrid; see the kernels' `choose`.
fn costs_of(prices: &Prices, kept: &Kept, blocks: [u32; 2]) -> [f32; CHOICES] {
    let triangular = kept.triangular;
    let interval = triangular + kept.rows * kept.slashes * 3 / 2;
    let tiles = |count: u32| prices.tile * exact(count.min(kept.causal));
    let row = prices.row * exact(kept.rows);
    let gathered = prices.column * 0.015625 * exact(kept.gathered);
    [
        prices.dense_tile * exact(kept.causal),
        row + tiles(triangular),
        row + tiles(interval) + gathered,
        row + tiles(triangular + 4 * blocks[0]),
        row + tiles(interval + 4 * blocks[1]) + gathered,
    ]
}
