//! A plan: one chunk's decision and its index, on the host and on the device.
//!
//! A plan is made once per chunk and serves every layer whose pattern does not depend on the input.
//! Making it checks the spans and the pattern; running it cannot change path.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use sparse_accelerate_contract::{Sequence, table};

use crate::{
    error::AttentionError,
    index::{self, TileIndex},
    ops::AttendOptions,
    pattern::Pattern,
    select::{LEAST_ROWS, LayerSelection, SelectionPlan},
    settings::{AttentionMode, AttentionSettings, Decision, Path, Reason},
    span::{self, Span},
};

/// Marks "no limit" in device tables.
const UNLIMITED: u32 = u32::MAX;

/// What [`crate::attend`] needs to know of a chunk: spans, decision, index.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    spans: Vec<Span>,
    decision: Decision,
    index: Option<TileIndex>,
    table: Tensor<1, Int>,
    options: AttendOptions,
    selection: Option<SelectionPlan>,
}

impl AttentionPlan {
    /// Decides how a chunk is computed and builds its index.
    ///
    /// # Errors
    /// Contradicting spans, or parameters out of range.
    pub fn new(
        settings: &AttentionSettings,
        spans: &[Span],
        device: &Device,
    ) -> Result<Self, AttentionError> {
        span::validate(spans)?;
        settings.pattern.validate()?;
        settings.selection.validate()?;
        if let Some(heads) = &settings.heads {
            heads.validate()?;
        }
        if let Some(imposed) = &settings.imposed {
            Pattern::FixedBlocks(*imposed).validate()?;
        }
        let prompt = spans.iter().map(|s| s.prompt_len).max().unwrap_or(0);
        let threshold = settings.min_sparse_len;
        let reason = match settings.mode {
            AttentionMode::Dense => Reason::DenseRequested,
            _ if settings.pattern == Pattern::Dense && settings.heads.is_none() => {
                Reason::DenseRequested
            }
            AttentionMode::Sparse => Reason::SparseRequested,
            AttentionMode::Auto if prompt < threshold => {
                Reason::BelowThreshold { prompt, threshold }
            }
            AttentionMode::Auto => Reason::AtOrAboveThreshold { prompt, threshold },
        };
        if matches!(
            reason,
            Reason::DenseRequested | Reason::BelowThreshold { .. }
        ) {
            return Ok(Self::dense(spans, reason, device));
        }
        let index = match &settings.pattern {
            _ if settings.heads.is_some() => None,
            Pattern::Triangular(t) => Some(index::triangular(spans, t)?),
            Pattern::FixedBlocks(f) => Some(index::fixed_blocks(spans, f)?),
            _ => None,
        };
        let Some(index) = index else {
            return Self::selected(settings, spans, reason, device);
        };
        if settings.imposed.is_some() {
            return Err(AttentionError::Setting {
                op: "attention",
                field: "imposed",
                got: settings.pattern.name().to_owned(),
                limit: "a pattern whose heads choose from the input".to_owned(),
                hint: "take the pattern `dynamic`, or `fixed-blocks` without a selection",
            });
        }
        let kept = index.kept_pairs();
        if kept == span::causal_pairs(spans) {
            return Ok(Self::dense(spans, Reason::PatternKeepsAll, device));
        }
        let table = banded_table(&index);
        Ok(Self::sparse(
            index,
            kept,
            table,
            settings.pattern,
            reason,
            device,
        ))
    }

    /// A plan whose heads choose their keys; dense if the chunk is too short for that.
    fn selected(
        settings: &AttentionSettings,
        spans: &[Span],
        reason: Reason,
        device: &Device,
    ) -> Result<Self, AttentionError> {
        let rows = spans.iter().map(|s| s.query_len).max().unwrap_or(0);
        if rows < LEAST_ROWS {
            let least = LEAST_ROWS;
            return Ok(Self::dense(
                spans,
                Reason::ChunkTooShort { rows, least },
                device,
            ));
        }
        let selection = &settings.selection;
        let dense_from = |span: &Span| clamp(SelectionPlan::dense_from(selection, span));
        let mut plan = match &settings.imposed {
            Some(blocks) => {
                let index = index::fixed_blocks(spans, blocks)?;
                let (kept, pattern) = (index.kept_pairs(), Pattern::FixedBlocks(*blocks));
                let gates = index.heads() * spans.len();
                let table = index_table(&index, dense_from, gates);
                Self::sparse(index, kept, table, pattern, reason, device)
            }
            None => {
                let mut plan = Self::dense(spans, reason, device);
                plan.decision.pattern = settings.pattern;
                plan.decision.density = f64::NAN;
                plan.table = on_device(span_table(spans, dense_from), device);
                plan
            }
        };
        plan.decision.path = Path::Selected;
        plan.selection = Some(SelectionPlan::new(
            settings.pattern,
            selection,
            settings.heads.as_ref(),
            spans,
        ));
        Ok(plan)
    }

    /// Tells a selection that heads are rotated in halves, with frequencies `base^(-2j/d)`, so that it
    /// scores pooled keys in the band that pooling leaves; nothing to other plans.
    #[must_use]
    pub fn with_rotary_base(mut self, base: f64) -> Self {
        if let Some(selection) = &mut self.selection {
            selection.set_rotary_base(base);
        }
        self
    }

    /// The selection of a layer, `None` where it is dense; `shape` is query heads, KV heads and head dim.
    pub(crate) fn selection(
        &self,
        layer: usize,
        shape: [usize; 3],
        device: &Device,
    ) -> Result<Option<LayerSelection>, AttentionError> {
        match &self.selection {
            Some(selection) => selection.layer(layer, shape, device),
            None => Ok(None),
        }
    }

    /// Heads that have a record in a layer: those that would choose, if it is dense by setting.
    pub(crate) fn recorded_heads(&self, layer: usize, [heads, kv_heads]: [usize; 2]) -> usize {
        let selection = self.selection.as_ref();
        selection.map_or(kv_heads, |s| s.index_heads(layer, [heads, kv_heads]))
    }

    /// Whether heads choose their keys: [`crate::attend_selected`] then also says what they chose.
    pub fn selects(&self) -> bool {
        self.selection.is_some()
    }

    /// Whether heads of a layer do: not in the first ones that are dense by setting.
    pub(crate) fn selects_in(&self, layer: usize) -> bool {
        let selection = self.selection.as_ref();
        selection.is_some_and(|s| s.selects_in(layer))
    }

    /// A plan for an index made by hand or by a selector; `pattern` is recorded in the decision.
    ///
    /// # Errors
    /// [`AttentionError::Index`] if the index breaks an invariant.
    pub fn with_index(
        index: TileIndex,
        pattern: Pattern,
        device: &Device,
    ) -> Result<Self, AttentionError> {
        index.validate()?;
        let (kept, table) = (index.kept_pairs(), banded_table(&index));
        let reason = Reason::IndexGiven;
        Ok(Self::sparse(index, kept, table, pattern, reason, device))
    }

    fn dense(spans: &[Span], reason: Reason, device: &Device) -> Self {
        let causal_pairs = span::causal_pairs(spans);
        Self {
            spans: spans.to_vec(),
            decision: Decision {
                path: Path::Dense,
                pattern: Pattern::Dense,
                density: 1.0,
                causal_pairs,
                reason,
            },
            index: None,
            table: on_device(span_table(spans, |_| UNLIMITED), device),
            options: AttendOptions {
                index_heads: 0,
                tiles: 0,
                columns: false,
                band: None,
                causal_pairs,
                density: Some(1.0),
                scale: 0.0,
            },
            selection: None,
        }
    }

    /// `kept` are the index's kept pairs: counting them walks every query row, so it is done once.
    fn sparse(
        index: TileIndex,
        kept: u64,
        table: Vec<u32>,
        pattern: Pattern,
        reason: Reason,
        device: &Device,
    ) -> Self {
        let spans = index.spans().to_vec();
        let causal_pairs = span::causal_pairs(&spans);
        let decision = Decision {
            path: Path::Sparse,
            pattern,
            density: kept as f64 / causal_pairs as f64,
            causal_pairs,
            reason,
        };
        let options = AttendOptions {
            index_heads: index.heads(),
            tiles: index.tiles(),
            columns: !index.column_table().is_empty(),
            band: index.band().map(|b| (clamp(b.sink), clamp(b.window))),
            causal_pairs,
            density: Some(decision.density as f32),
            scale: 0.0,
        };
        Self {
            spans,
            decision,
            index: Some(index),
            table: on_device(table, device),
            options,
            selection: None,
        }
    }

    /// The sequences of the chunk.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// What was decided, and why.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The index; `None` on the dense path, whose ranges are implicit, and where heads choose theirs.
    pub fn index(&self) -> Option<&TileIndex> {
        self.index.as_ref()
    }

    /// The device table, see [`crate::SparseAttentionOps`].
    pub(crate) fn table(&self) -> Tensor<1, Int> {
        self.table.clone()
    }

    /// The options of one call, with its softmax scale.
    pub(crate) fn options(&self, scale: f32) -> AttendOptions {
        AttendOptions {
            scale,
            ..self.options
        }
    }
}

fn clamp(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(UNLIMITED)
}

/// The spans of a chunk as kernels read them.
fn sequences(spans: &[Span], dense_from: impl Fn(&Span) -> u32) -> impl Iterator<Item = Sequence> {
    let sequence =
        move |s: &Span| Sequence::new(s.query_len, s.kv_len).dense_from(dense_from(s) as usize);
    spans.iter().map(sequence)
}

fn span_table(spans: &[Span], dense_from: impl Fn(&Span) -> u32) -> Vec<u32> {
    table::spans(sequences(spans, dense_from))
}

/// The table of an index, see [`crate::SparseAttentionOps`].
fn banded_table(index: &TileIndex) -> Vec<u32> {
    let dense_from = |s: &Span| index.band().map_or(UNLIMITED, |b| clamp(b.dense_from(s)));
    index_table(index, dense_from, 0)
}

/// The same with `gates` words of [`table::SPARSE`], where a selection's table has its gates.
fn index_table(index: &TileIndex, dense_from: impl Fn(&Span) -> u32, gates: usize) -> Vec<u32> {
    let gates = vec![table::SPARSE; gates];
    table::write(sequences(index.spans(), dense_from), index.packed(), &gates)
}

fn on_device(table: Vec<u32>, device: &Device) -> Tensor<1, Int> {
    let len = table.len();
    Tensor::from_data(TensorData::new(table, [len]), (device, DType::U32))
}
