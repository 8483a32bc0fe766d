//! A plan: one chunk's decision and its index, on the host and on the device.
//!
//! A plan is made once per chunk, knows the heads of the model and serves every layer:
//! [`AttentionPlan::layer`] gives what one of them needs. Making it checks spans, heads and pattern; running
//! it cannot change path.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use sparse_accelerate_contract::{Sequence, table};

use crate::{
    error::AttentionError,
    heads::Heads,
    index::{self, TileIndex},
    layer_plan::LayerPlan,
    ops::AttendOptions,
    pattern::Pattern,
    select::{LEAST_ROWS, SelectionPlan, SharedSelector},
    settings::{AttentionMode, AttentionSettings, Decision, Path, Reason},
    span::{self, Span},
    visible::{self, Visible},
};

/// Marks "no limit" in device tables.
const UNLIMITED: u32 = u32::MAX;

/// One chunk's decision, index and device tables, for all layers of a model.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    spans: Vec<Span>,
    firsts: Vec<usize>,
    heads: Heads,
    visible: Visible,
    decision: Decision,
    index: Option<TileIndex>,
    table: Tensor<1, Int>,
    options: AttendOptions,
    selection: Option<SelectionPlan>,
    selector: Option<SharedSelector>,
}

impl AttentionPlan {
    /// Decides how a chunk is computed and builds its index.
    ///
    /// # Errors
    /// Contradicting spans or heads; parameters out of range; head patterns of other heads; a window of 0; a
    /// selector beside a window or another choice ([`AttentionError::SelectorBeside`]).
    pub fn new(
        settings: &AttentionSettings,
        spans: &[Span],
        heads: Heads,
        visible: Visible,
        device: &Device,
    ) -> Result<Self, AttentionError> {
        Chunk::new(spans, heads, visible, device)?.plan(settings)
    }

    /// The same where a cache has let go of keys: positions in `spans`, those of prompts too, count from the first key that is held, whose absolute
    /// position of each sequence `firsts` has. `prompts` are the lengths of the whole prompts.
    pub(crate) fn of_held(
        settings: &AttentionSettings,
        spans: &[Span],
        (firsts, prompts): (Vec<usize>, Vec<usize>),
        heads: Heads,
        visible: Visible,
        device: &Device,
    ) -> Result<Self, AttentionError> {
        let mut chunk = Chunk::new(spans, heads, visible, device)?;
        chunk.firsts = firsts;
        chunk.prompts = prompts;
        chunk.plan(settings)
    }

    /// A plan for an index made by hand or by a selector. What its rows may see at all is the index's own
    /// [`TileIndex::visible`].
    ///
    /// # Errors
    /// [`AttentionError::Index`] if the index breaks an invariant; heads that contradict themselves or the
    /// index.
    pub fn with_index(
        index: TileIndex,
        heads: Heads,
        device: &Device,
    ) -> Result<Self, AttentionError> {
        index.validate()?;
        let spans = index.spans().to_vec();
        let chunk = Chunk::new(&spans, heads, index.visible(), device)?;
        let kept = index.kept_pairs();
        let table = banded_table(&index, &chunk.firsts);
        chunk.sparse(index, kept, table, Pattern::Index, Reason::IndexGiven)
    }

    /// The plan as decoder layer `layer`, counted from 0, uses it.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] if the settings have a pattern for every head of every layer and this
    /// layer is not among them.
    pub fn layer(&self, layer: usize) -> Result<LayerPlan<'_>, AttentionError> {
        let selection = match &self.selection {
            Some(selection) => selection.layer(layer)?,
            None => None,
        };
        Ok(LayerPlan::new(self, layer, selection))
    }

    /// Tells whether heads, or a selector, choose the keys in some layer: [`crate::attend_selected`] then also
    /// says what was chosen.
    pub fn selects(&self) -> bool {
        self.selection.is_some() || self.selector.is_some()
    }

    /// The selector that is asked in every layer, if one is.
    pub fn selector(&self) -> Option<&SharedSelector> {
        self.selector.as_ref()
    }

    /// The sequences of the chunk, positions counted from [`AttentionPlan::firsts`].
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The absolute position of the first key that the cache holds of each sequence: 0 unless it has let go of keys that a window
    /// hides ([`crate::KvCache::with_windows`]).
    pub fn firsts(&self) -> &[usize] {
        &self.firsts
    }

    /// Tokens of each sequence after the chunk.
    pub(crate) fn lens(&self) -> impl Iterator<Item = usize> + '_ {
        let spans = self.spans.iter().zip(&self.firsts);
        spans.map(|(span, first)| first + span.kv_len)
    }

    /// The heads it was made for.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// The keys that rows may see before the pattern leaves some out. A window that hides no key of these
    /// spans is [`Visible::Causal`].
    pub fn visible(&self) -> Visible {
        self.visible
    }

    /// The decision for the chunk, and its reason; [`LayerPlan::decision`] has that of a layer.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The index; `None` on the dense path, whose ranges are implicit, and where it is chosen layer by layer.
    pub fn index(&self) -> Option<&TileIndex> {
        self.index.as_ref()
    }

    pub(crate) fn selection(&self) -> Option<&SelectionPlan> {
        self.selection.as_ref()
    }

    /// The device table, see [`crate::ops::SparseAttentionOps`].
    pub(crate) fn table(&self) -> Tensor<1, Int> {
        self.table.clone()
    }

    /// The scalars of attention without a selection, for any device.
    pub(crate) fn options(&self) -> AttendOptions {
        self.options
    }

    /// Visible (query, key) pairs of every sequence, for one head.
    pub(crate) fn pairs_of_sequences(&self) -> Vec<u64> {
        let one = |span: &Span| visible::pairs(self.visible, std::slice::from_ref(span));
        self.spans.iter().map(one).collect()
    }

    /// Query rows of the longest sequence.
    pub(crate) fn rows(&self) -> usize {
        self.spans.iter().map(|s| s.query_len).max().unwrap_or(0)
    }
}

/// A checked chunk of a model, before anything is decided.
struct Chunk<'a> {
    spans: &'a [Span],
    firsts: Vec<usize>,
    /// Lengths of the whole prompts.
    prompts: Vec<usize>,
    heads: Heads,
    visible: Visible,
    pairs: u64,
    device: &'a Device,
}

impl<'a> Chunk<'a> {
    fn new(
        spans: &'a [Span],
        heads: Heads,
        visible: Visible,
        device: &'a Device,
    ) -> Result<Self, AttentionError> {
        span::validate(spans)?;
        heads.validate()?;
        visible.validate()?;
        let longest = spans.iter().map(|s| s.kv_len).max().unwrap_or(0);
        let visible = visible.within(longest);
        Ok(Self {
            spans,
            firsts: vec![0; spans.len()],
            prompts: spans.iter().map(|span| span.prompt_len).collect(),
            heads,
            visible,
            pairs: visible::pairs(visible, spans),
            device,
        })
    }

    fn plan(self, settings: &AttentionSettings) -> Result<AttentionPlan, AttentionError> {
        settings.validate()?;
        let reason = reason(settings, &self.prompts);
        if matches!(
            reason,
            Reason::DenseRequested | Reason::BelowThreshold { .. }
        ) {
            return Ok(self.dense(reason));
        }
        let index = match &settings.pattern {
            _ if settings.heads.is_some() || settings.selector.is_some() => None,
            Pattern::Triangular(t) => Some(index::triangular(self.spans, t)?),
            Pattern::FixedBlocks(f) => Some(index::fixed_blocks(self.spans, f)?),
            _ => None,
        };
        let Some(index) = index else {
            return self.selected(settings, reason);
        };
        let index = index.within(self.visible)?;
        let kept = index.kept_pairs();
        if kept == self.pairs {
            return Ok(self.dense(Reason::PatternKeepsAll));
        }
        let table = banded_table(&index, &self.firsts);
        self.sparse(index, kept, table, settings.pattern, reason)
    }

    /// A plan whose keys are chosen from the input; dense if the chunk is too short for that.
    fn selected(
        self,
        settings: &AttentionSettings,
        reason: Reason,
    ) -> Result<AttentionPlan, AttentionError> {
        let rows = self.spans.iter().map(|s| s.query_len).max().unwrap_or(0);
        if rows < LEAST_ROWS {
            let least = LEAST_ROWS;
            return Ok(self.dense(Reason::ChunkTooShort { rows, least }));
        }
        if let Some(selector) = &settings.selector {
            if self.visible.window().is_some() {
                return Err(AttentionError::SelectorBeside {
                    selector: selector.name(),
                    other: "window",
                });
            }
            // Of a layer that the selector computes densely, the plan is that of dense.
            let mut plan = self.dense(reason);
            plan.decision.path = Path::Selected;
            plan.decision.pattern = Pattern::Index;
            plan.decision.density = None;
            plan.selector = Some(selector.clone());
            return Ok(plan);
        }
        let dense_from = |span: &Span| clamp(settings.selection.dense_from(span));
        let imposed = match &settings.imposed {
            Some(blocks) => {
                let index = index::fixed_blocks(self.spans, blocks)?;
                Some((*blocks, index.within(self.visible)?))
            }
            None => None,
        };
        let imposed_heads = imposed.as_ref().map(|(_, index)| index.heads());
        let selection = SelectionPlan::new(
            settings,
            self.spans,
            self.heads,
            self.visible,
            imposed_heads,
            self.device,
        )?;
        let mut plan = match imposed {
            Some((blocks, index)) => {
                let (kept, pattern) = (index.kept_pairs(), Pattern::FixedBlocks(blocks));
                let gates = index.heads() * self.spans.len();
                let table = index_table(&index, &self.firsts, dense_from, gates);
                self.sparse(index, kept, table, pattern, reason)?
            }
            None => {
                let table = on_device(
                    span_table(self.spans, &self.firsts, dense_from),
                    self.device,
                );
                let mut plan = self.dense(reason);
                plan.decision.pattern = settings.pattern;
                plan.decision.density = None;
                plan.table = table;
                plan
            }
        };
        plan.decision.path = Path::Selected;
        plan.selection = Some(selection);
        Ok(plan)
    }

    fn dense(self, reason: Reason) -> AttentionPlan {
        AttentionPlan {
            spans: self.spans.to_vec(),
            firsts: self.firsts.clone(),
            heads: self.heads,
            visible: self.visible,
            decision: Decision {
                path: Path::Dense,
                pattern: Pattern::Dense,
                density: Some(1.0),
                causal_pairs: self.pairs,
                reason,
            },
            index: None,
            table: on_device(
                span_table(self.spans, &self.firsts, |_| UNLIMITED),
                self.device,
            ),
            options: AttendOptions {
                index_heads: 0,
                tiles: 0,
                columns: false,
                band: None,
                window: self.visible.window().map(clamp),
                causal_pairs: self.pairs,
                density: Some(1.0),
                scale: self.heads.scale(),
                launch: None,
            },
            selection: None,
            selector: None,
        }
    }

    /// `kept` are the index's kept pairs: counting them walks every query row, so it is done once.
    fn sparse(
        self,
        index: TileIndex,
        kept: u64,
        table: Vec<u32>,
        pattern: Pattern,
        reason: Reason,
    ) -> Result<AttentionPlan, AttentionError> {
        let (heads, kv_heads) = (self.heads.query, self.heads.kv);
        let own = index.heads();
        if own != heads && !kv_heads.is_multiple_of(own) {
            return Err(AttentionError::Setting {
                op: "attention plan",
                field: "index heads",
                got: own.to_string(),
                limit: format!("{heads} (query heads) or a divisor of {kv_heads} (KV heads)"),
                hint: "build the index for these heads",
            });
        }
        let density = kept as f64 / self.pairs as f64;
        Ok(AttentionPlan {
            spans: self.spans.to_vec(),
            firsts: self.firsts.clone(),
            heads: self.heads,
            visible: self.visible,
            decision: Decision {
                path: Path::Sparse,
                pattern,
                density: Some(density),
                causal_pairs: self.pairs,
                reason,
            },
            table: on_device(table, self.device),
            options: AttendOptions {
                index_heads: own,
                tiles: index.tiles(),
                columns: !index.column_table().is_empty(),
                band: index.band().map(|b| (clamp(b.sink), clamp(b.window))),
                window: self.visible.window().map(clamp),
                causal_pairs: self.pairs,
                density: Some(density as f32),
                scale: self.heads.scale(),
                launch: None,
            },
            index: Some(index),
            selection: None,
            selector: None,
        })
    }
}

/// Why a batch is dense or sparse, as far as settings and lengths decide it.
fn reason(settings: &AttentionSettings, prompts: &[usize]) -> Reason {
    let prompt = prompts.iter().copied().max().unwrap_or(0);
    let threshold = settings.min_sparse_len;
    match settings.mode {
        AttentionMode::Dense => Reason::DenseRequested,
        _ if settings.pattern == Pattern::Dense && !settings.selects() => Reason::DenseRequested,
        AttentionMode::Sparse => Reason::SparseRequested,
        AttentionMode::Auto if prompt < threshold => Reason::BelowThreshold { prompt, threshold },
        AttentionMode::Auto => Reason::AtOrAboveThreshold { prompt, threshold },
    }
}

fn clamp(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(UNLIMITED)
}

/// The spans of a chunk as kernels read them.
fn sequences(
    spans: &[Span],
    firsts: &[usize],
    dense_from: impl Fn(&Span) -> u32,
) -> impl Iterator<Item = Sequence> {
    let sequence = move |(span, first): (&Span, &usize)| {
        let sequence = Sequence::new(span.query_len, span.kv_len).first(*first);
        sequence.dense_from(dense_from(span) as usize)
    };
    spans.iter().zip(firsts).map(sequence)
}

fn span_table(spans: &[Span], firsts: &[usize], dense_from: impl Fn(&Span) -> u32) -> Vec<u32> {
    table::spans(sequences(spans, firsts, dense_from))
}

/// The table of an index, see [`crate::ops::SparseAttentionOps`].
fn banded_table(index: &TileIndex, firsts: &[usize]) -> Vec<u32> {
    let dense_from = |s: &Span| index.band().map_or(UNLIMITED, |b| clamp(b.dense_from(s)));
    index_table(index, firsts, dense_from, 0)
}

/// The same with `gates` words of [`table::SPARSE`], where a selection's table has its gates.
fn index_table(
    index: &TileIndex,
    firsts: &[usize],
    dense_from: impl Fn(&Span) -> u32,
    gates: usize,
) -> Vec<u32> {
    let gates = vec![table::SPARSE; gates];
    let sequences = sequences(index.spans(), firsts, dense_from);
    table::write(sequences, index.packed(), &gates)
}

fn on_device(table: Vec<u32>, device: &Device) -> Tensor<1, Int> {
    let len = table.len();
    Tensor::from_data(TensorData::new(table, [len]), (device, DType::U32))
}
