//! A causal language model: embedding, decoder layers, final norm and head.
//!
//! [`CausalLm::forward`] takes one chunk of a ragged batch and returns hidden states of last tokens;
//! [`CausalLm::logits`] turns those into logits. Hidden states of other rows are to be had with
//! [`CausalLm::forward_watched`]; logits of a whole long prompt would be the largest tensor of all, so
//! take them a few rows at a time.
//!
//! A failed forward leaves the cache's lengths as they were; the chunk can be given again.

use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Tensor},
};
use sparse_accelerate::{
    AttentionPlan, AttentionSettings, CacheShape, Decision, KvCache, SelectionRecord,
};
use sparse_accelerate_checkpoint::{ModelConfig, ModelDir, WeightDtype, Weights};
use sparse_accelerate_linear::linear;

use crate::{
    blueprint::Blueprint,
    chunk::Chunk,
    decoder::{DecoderLayer, Pass, Projection, RmsNorm, Rotary},
    error::ModelError,
    load::{self, LoadOptions, LoadProgress},
    observe::Watch,
};

/// A Llama or Qwen2 model on one device.
///
/// A Burn module: its parameters can be visited, counted and moved. Cloning shares the weights.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// `[vocab, hidden]`; also the head's weight when the head is absent.
    pub(crate) embedding: Param<Tensor<2>>,
    pub(crate) layers: Vec<DecoderLayer>,
    pub(crate) norm: RmsNorm,
    /// Absent when the embeddings are tied.
    pub(crate) head: Option<Projection>,
    #[module(skip)]
    pub(crate) rotary: Rotary,
    #[module(skip)]
    pub(crate) facts: Facts,
}

/// What a model remembers of how it was made.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) config: ModelConfig,
    pub(crate) blueprint: Blueprint,
    pub(crate) device: Device,
    pub(crate) dtype: WeightDtype,
    pub(crate) weight_bytes: u64,
    pub(crate) mlp_rows: usize,
}

/// What one chunk gives.
#[derive(Debug)]
pub struct ChunkOutput {
    /// Hidden state of each sequence's last new token, after the final norm: `[B, hidden]`; of the
    /// rows asked for where [`Watch::rows`] names some.
    pub last_hidden: Tensor<2>,
    /// How attention ran.
    pub decision: Decision,
    /// What the heads of each layer chose, where they choose from the input; still on the device.
    pub selection: Vec<SelectionRecord>,
}

impl CausalLm {
    /// Loads a model directory onto a device, tensor by tensor.
    ///
    /// # Errors
    /// A tensor that is missing, left over, misshapen or (with `check_finite`) not finite; a type
    /// the device does not compute in; a configuration outside what the decoder handles.
    pub fn load(
        dir: &ModelDir,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Self, ModelError> {
        load::refuse_unsupported(dir.config(), options)?;
        Self::from_weights(dir.config(), dir.weights()?, options, progress)
    }

    /// [`CausalLm::load`] for weights that were opened elsewhere.
    ///
    /// # Errors
    /// As [`CausalLm::load`].
    pub fn from_weights(
        config: &ModelConfig,
        weights: Weights,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Self, ModelError> {
        load::from_weights(config, weights, options, progress)
    }

    /// A model with random weights of sane scale, the same for the same `seed` on every device.
    ///
    /// For benches and tests: hidden states stay near unit scale, logits say nothing.
    ///
    /// # Errors
    /// A type the device does not compute in; a configuration outside what the decoder handles.
    pub fn random(
        config: &ModelConfig,
        seed: u64,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        load::random(config, seed, options)
    }

    /// As [`CausalLm::random`], drawn on the device itself: billions of weights in seconds, in no more
    /// memory than they take. The values differ between backends and element types.
    ///
    /// Reseeds the device's generator of random numbers.
    ///
    /// # Errors
    /// As [`CausalLm::random`].
    pub fn random_on_device(
        config: &ModelConfig,
        seed: u64,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Self, ModelError> {
        load::random_on_device(config, seed, options, progress)
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.facts.config
    }

    /// The device its weights are on.
    pub fn device(&self) -> &Device {
        &self.facts.device
    }

    /// The type of its weights, and of the hidden state.
    pub fn dtype(&self) -> WeightDtype {
        self.facts.dtype
    }

    /// Bytes of its weights on the device; tied embeddings count once.
    pub fn weight_bytes(&self) -> u64 {
        self.facts.weight_bytes
    }

    /// Rows its MLPs handle at a time; rules the largest temporary of a chunk.
    pub fn mlp_rows(&self) -> usize {
        self.facts.mlp_rows
    }

    /// The shape of a cache for `batch` sequences of up to `capacity` tokens.
    ///
    /// Allocate it in the type of [`CausalLm::cache_dtype`].
    pub fn cache_shape(&self, batch: usize, capacity: usize) -> CacheShape {
        let blueprint = &self.facts.blueprint;
        CacheShape {
            layers: blueprint.layers,
            batch,
            kv_heads: blueprint.kv_heads,
            capacity,
            head_dim: blueprint.head_dim,
        }
    }

    /// The type a cache of this model must have.
    pub fn cache_dtype(&self) -> DType {
        load::dtype_of(self.facts.dtype)
    }

    /// Runs one chunk of a ragged batch and appends it to the cache.
    ///
    /// `ids[b]` are the new tokens of sequence `b`, at least one, not the same number for each;
    /// `prompt_lens[b]` is the length of the whole prompt they belong to, which may be longer than
    /// what the cache holds after this chunk.
    ///
    /// # Shapes
    /// [`ChunkOutput::last_hidden`] is `[B, hidden]` in the type of the weights.
    ///
    /// # Errors
    /// No tokens, an id outside the vocabulary, a sequence past the model's positions, and whatever
    /// attention or the cache refuses (another batch size, a full cache).
    pub fn forward(
        &self,
        ids: &[&[u32]],
        prompt_lens: &[usize],
        cache: &mut KvCache,
        settings: &AttentionSettings,
    ) -> Result<ChunkOutput, ModelError> {
        self.forward_watched(ids, prompt_lens, cache, settings, Watch::default())
    }

    /// [`CausalLm::forward`] with a look into it.
    ///
    /// # Errors
    /// As [`CausalLm::forward`], rows outside the chunk or of a batch of several, and what the
    /// observer refuses.
    pub fn forward_watched(
        &self,
        ids: &[&[u32]],
        prompt_lens: &[usize],
        cache: &mut KvCache,
        settings: &AttentionSettings,
        watch: Watch<'_>,
    ) -> Result<ChunkOutput, ModelError> {
        let (device, blueprint) = (&self.facts.device, &self.facts.blueprint);
        let chunk = Chunk::new(ids, prompt_lens, blueprint)?;
        let spans = cache.spans(&chunk.lens, prompt_lens)?;
        let limit = blueprint.max_positions;
        if let Some(span) = spans.iter().find(|span| span.kv_len > limit) {
            return Err(ModelError::PromptTooLong {
                got: span.kv_len,
                limit,
            });
        }
        let plan = AttentionPlan::new(settings, &spans, device)?
            .with_rotary_base(self.facts.config.rope_theta);
        // The table grows to what the cache can hold at once rather than at every chunk.
        let reached = spans.iter().map(|span| span.kv_len).max().unwrap_or(0);
        let rotation = self.rotary.table(reached.max(cache.capacity().min(limit)));
        let narrow = match watch.rows {
            Some(rows) => chunk.range(rows)?,
            None => chunk.last_rows(device),
        };

        let mut x = self.embedding.val().select(0, chunk.ids(device));
        let mut pass = Pass {
            rotation: &rotation,
            plan: &plan,
            cache,
            selection: Vec::new(),
            // Not a plain move: a trait object's lifetime is shortened only where it is coerced.
            observer: match watch.observer {
                Some(observer) => Some(observer),
                None => None,
            },
        };
        for (index, layer) in self.layers.iter().enumerate() {
            let narrow = (index + 1 == self.layers.len()).then_some(&narrow);
            x = layer.forward(index, x, &mut pass, narrow)?;
        }
        pass.cache.advance(&plan);
        Ok(ChunkOutput {
            last_hidden: self.norm.forward(x)?,
            decision: *plan.decision(),
            selection: pass.selection,
        })
    }

    /// Logits of the last tokens, or of the rows asked for: `[rows, hidden]` to `[rows, vocab]`.
    ///
    /// # Errors
    /// A hidden state of another model: other width, element type or device.
    pub fn logits(&self, last_hidden: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        match &self.head {
            Some(head) => head.forward(last_hidden),
            None => Ok(linear(last_hidden, &self.embedding.val())?),
        }
    }
}
