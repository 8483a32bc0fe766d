//! A causal language model: embedding, decoder layers, final norm and head.
//!
//! [`CausalLm::forward`] takes one chunk of a ragged batch and returns hidden states of last tokens;
//! [`CausalLm::logits`] turns those into logits. Hidden states of other rows are to be had with
//! [`CausalLm::forward_watched`]; logits of a whole long prompt would be the largest tensor of all, so
//! take them a few rows at a time.
//!
//! A failed forward leaves the cache's lengths as they were; the chunk can be given again.
//!
//! A stage is the same thing with some of its layers and ends left out: one walk serves both.

use std::ops::Range;

use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Tensor},
};
use half::{bf16, f16};
use sparse_accelerate::{
    AttentionSettings, CacheShape, Decision, Heads, KvCache, KvType, SelectionRecord, Visible,
};
use sparse_accelerate_checkpoint::{ModelConfig, ModelDir, WeightDtype, Weights};
use sparse_accelerate_layers::linear;

use crate::{
    blueprint::Blueprint,
    chunk::Chunk,
    decoder::{DecoderLayer, Pass, Projection, RmsNorm, Rotaries},
    error::ModelError,
    kinds::{KindPasses, Reached},
    load::{self, LoadOptions, LoadProgress, ModelOptions},
    observe::Watch,
    placement::StagePart,
};

/// A model on one device, or a stage of one.
///
/// A Burn module: its parameters can be visited, counted and moved. Cloning shares the weights.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// `[vocab, hidden]`; also the head's weight when the head is absent. Not in a stage that does
    /// neither.
    pub(crate) embedding: Option<Param<Tensor<2>>>,
    pub(crate) layers: Vec<DecoderLayer>,
    /// Of the output layer.
    pub(crate) norm: Option<RmsNorm>,
    /// Absent when the embeddings are tied.
    pub(crate) head: Option<Projection>,
    #[module(skip)]
    pub(crate) rotaries: Rotaries,
    #[module(skip)]
    pub(crate) metadata: Metadata,
}

/// Properties of a model that its loading fixed.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) config: ModelConfig,
    pub(crate) blueprint: Blueprint,
    pub(crate) device: Device,
    pub(crate) dtype: WeightDtype,
    pub(crate) weight_bytes: u64,
    pub(crate) options: ModelOptions,
    pub(crate) part: StagePart,
}

/// Input of a stage for one chunk.
// One value a chunk: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum StageInput<'a> {
    /// New tokens of every sequence, at least one each: for a stage with the input layer.
    Tokens(&'a [&'a [u32]]),
    /// Hidden states of the stage before: for the others.
    Hidden {
        /// `[B * N, hidden]`, N the tokens of the longest sequence, on the device of the stage.
        states: Tensor<2>,
        /// New tokens of every sequence.
        lens: &'a [usize],
    },
}

/// Output of a stage for one chunk.
#[derive(Debug)]
pub struct StageOutput {
    /// For the next stage `[B * N, hidden]`; of a stage with the output layer as
    /// [`ChunkOutput::last_hidden`].
    pub hidden: Tensor<2>,
    /// How attention ran.
    pub decision: Decision,
    /// Choices of the heads of each of its layers; still on the device.
    pub selection: Vec<SelectionRecord>,
}

/// Output of a model for one chunk.
#[derive(Debug)]
pub struct ChunkOutput {
    /// Hidden state of each sequence's last new token, after the final norm: `[B, hidden]`; of the
    /// rows asked for where [`Watch::rows`] names some.
    pub last_hidden: Tensor<2>,
    /// How attention ran.
    pub decision: Decision,
    /// Choices of the heads of each layer, where they choose from the input; still on the device.
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
        &self.metadata.config
    }

    /// The device its weights are on.
    pub fn device(&self) -> &Device {
        &self.metadata.device
    }

    /// The type of its weights, and of the hidden state.
    pub fn dtype(&self) -> WeightDtype {
        self.metadata.dtype
    }

    /// Bytes of its weights on the device; tied embeddings count once.
    pub fn weight_bytes(&self) -> u64 {
        self.metadata.weight_bytes
    }

    /// The options it was loaded with; [`CausalLm::dtype`] is the type they came to.
    pub fn options(&self) -> &ModelOptions {
        &self.metadata.options
    }

    /// The part of the model it is.
    pub fn part(&self) -> &StagePart {
        &self.metadata.part
    }

    /// The shape of a cache for `batch` sequences of up to `capacity` tokens, of this part's layers.
    ///
    /// Allocate it in the type of [`CausalLm::cache_dtype`], or let [`CausalLm::cache`] do it.
    pub fn cache_shape(&self, batch: usize, capacity: usize) -> CacheShape {
        let blueprint = &self.metadata.blueprint;
        CacheShape {
            layers: self.metadata.part.layers.len(),
            batch,
            kv_heads: blueprint.kv_heads,
            capacity,
            head_dim: blueprint.head_dim,
        }
    }

    /// The type a cache of this model must have.
    pub fn cache_dtype(&self) -> DType {
        load::dtype_of(self.metadata.dtype)
    }

    /// How its caches keep keys and values.
    pub fn kv_type(&self) -> KvType {
        self.metadata.options.kv
    }

    /// An empty cache for `batch` sequences of up to `capacity` tokens on its device. Layers with a window keep what it shows.
    ///
    /// Where rotary frequencies follow a sequence's length
    /// ([`follows_length`](sparse_accelerate_checkpoint::RopeScaling::follows_length)), `capacity` is the length that decides, at every
    /// chunk and for every sequence of the batch: make it what a sequence needs, prompt and new tokens, and not more.
    ///
    /// # Errors
    /// A dimension of 0 or a capacity that attention does not reach.
    pub fn cache(&self, batch: usize, capacity: usize) -> Result<KvCache, ModelError> {
        let shape = self.cache_shape(batch, capacity);
        let layers = &self.metadata.config.attention[self.metadata.part.layers.clone()];
        let windows: Vec<_> = layers.iter().map(|layer| layer.window).collect();
        let cache = KvCache::with_windows(
            &shape,
            &windows,
            self.metadata.options.kv,
            self.cache_dtype(),
            &self.metadata.device,
        )?;
        Ok(cache.with_first_layer(self.metadata.part.layers.start))
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
        if !self.metadata.part.output {
            return Err(self.lacks("forward", "have no output layer"));
        }
        let input = StageInput::Tokens(ids);
        let output = self.forward_stage(input, prompt_lens, cache, settings, watch)?;
        Ok(ChunkOutput {
            last_hidden: output.hidden,
            decision: output.decision,
            selection: output.selection,
        })
    }

    /// Runs one chunk through this stage and appends it to the stage's cache: the whole of
    /// [`CausalLm::forward_watched`] where the stage is the whole model.
    ///
    /// # Errors
    /// As [`CausalLm::forward_watched`]; tokens for a stage without the input layer or hidden states for
    /// one with it, hidden states of another shape or type, rows where the output layer is not.
    pub fn forward_stage(
        &self,
        input: StageInput<'_>,
        prompt_lens: &[usize],
        cache: &mut KvCache,
        settings: &AttentionSettings,
        watch: Watch<'_>,
    ) -> Result<StageOutput, ModelError> {
        let (device, blueprint) = (&self.metadata.device, &self.metadata.blueprint);
        let part = &self.metadata.part;
        let (chunk, states) = self.take(input, prompt_lens)?;
        let spans = cache.spans(&chunk.lens, prompt_lens)?;
        let limit = blueprint.max_positions;
        if let Some(span) = spans.iter().find(|span| span.kv_len > limit) {
            return Err(ModelError::PromptTooLong {
                got: span.kv_len,
                limit,
            });
        }
        let reached = Reached {
            lens: &chunk.lens,
            prompt_lens,
            tokens: spans.iter().map(|span| span.kv_len).max().unwrap_or(0),
            planned: cache.capacity().min(limit),
        };
        let layers = part.layers.clone();
        let kinds = KindPasses::new(blueprint, layers, cache, settings, &self.rotaries, reached)?;
        let narrow = match (watch.rows, part.output) {
            (Some(_), false) => return Err(self.lacks("rows", "have no output layer")),
            (Some(rows), true) => Some(chunk.range(rows)?),
            (None, true) => Some(chunk.last_rows(device)),
            (None, false) => None,
        };

        let mut x = match (states, &self.embedding) {
            (Some(states), _) => states,
            (None, Some(embedding)) => self.scaled(embedding.val().select(0, chunk.ids(device))),
            (None, None) => return Err(self.lacks("forward", "have no input layer")),
        };
        let mut pass = Pass {
            kinds: &kinds,
            cache,
            selection: Vec::new(),
            // Not a plain move: a trait object's lifetime is shortened only where it is coerced.
            observer: match watch.observer {
                Some(observer) => Some(observer),
                None => None,
            },
        };
        for (index, layer) in part.layers.clone().zip(&self.layers) {
            let narrow = narrow.as_ref().filter(|_| index + 1 == blueprint.layers);
            x = layer.forward(index, x, &mut pass, narrow)?;
        }
        pass.cache.advance(kinds.lead())?;
        Ok(StageOutput {
            hidden: match &self.norm {
                Some(norm) => norm.forward(x)?,
                None => x,
            },
            decision: *kinds.lead().decision(),
            selection: pass.selection,
        })
    }

    /// Embeddings as the first layer takes them. Their factor is of the weights' type, as in the programs that train such models.
    fn scaled(&self, x: Tensor<2>) -> Tensor<2> {
        let scale = self.metadata.blueprint.embedding_scale;
        match scale == 1.0 {
            true => x,
            false => x.mul_scalar(match self.metadata.dtype {
                WeightDtype::F32 => scale as f32,
                WeightDtype::F16 => f16::from_f64(scale).to_f32(),
                WeightDtype::Bf16 => bf16::from_f64(scale).to_f32(),
            }),
        }
    }

    /// The heads of its layers, as a plan of attention needs them; of layers without a window, where others have one.
    pub fn heads(&self) -> Heads {
        let blueprint = &self.metadata.blueprint;
        blueprint.heads_of(blueprint.attention.lead())
    }

    /// The keys that rows of its layers may see, as a plan of attention needs them; where layers differ, those of layers without a
    /// window.
    pub fn visible(&self) -> Visible {
        Visible::of(self.metadata.blueprint.attention.lead().window)
    }

    /// Checks what a stage is given: a chunk, and hidden states where they came in place of ids.
    fn take(
        &self,
        input: StageInput<'_>,
        prompt_lens: &[usize],
    ) -> Result<(Chunk, Option<Tensor<2>>), ModelError> {
        let blueprint = &self.metadata.blueprint;
        match input {
            StageInput::Tokens(_) if !self.metadata.part.input => {
                Err(self.lacks("forward", "have no input layer: give hidden states"))
            }
            StageInput::Hidden { .. } if self.metadata.part.input => {
                Err(self.lacks("forward", "begin with the input layer: give token ids"))
            }
            StageInput::Tokens(ids) => Ok((Chunk::new(ids, prompt_lens, blueprint)?, None)),
            StageInput::Hidden { states, lens } => {
                let chunk = Chunk::without_ids(lens, prompt_lens, blueprint)?;
                let (got, dtype, expected) = (states.dims(), states.dtype(), self.cache_dtype());
                let rows = lens.len() * chunk.rows;
                if got != [rows, blueprint.hidden] || dtype != expected {
                    return Err(ModelError::HiddenStates {
                        got,
                        dtype,
                        rows,
                        hidden: blueprint.hidden,
                        expected,
                    });
                }
                Ok((chunk, Some(states)))
            }
        }
    }

    fn lacks(&self, op: &'static str, lacks: &'static str) -> ModelError {
        let Range { start, end } = self.metadata.part.layers;
        ModelError::StageLacks {
            op,
            start,
            end,
            lacks,
        }
    }

    /// Logits of the last tokens, or of the rows asked for: `[rows, hidden]` to `[rows, vocab]`.
    ///
    /// # Errors
    /// A hidden state of another model: other width, element type or device. A stage without the output
    /// layer.
    pub fn logits(&self, last_hidden: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        match (&self.head, &self.embedding) {
            (Some(head), _) => head.forward(last_hidden),
            (None, Some(tied)) if self.metadata.part.output => {
                Ok(linear(last_hidden, &tied.val())?)
            }
            _ => Err(self.lacks("logits", "have no output layer")),
        }
    }
}
