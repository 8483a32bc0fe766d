//! Tiny models: a description, random weights, and a checkpoint folder of them.

mod config;
mod tensors;

use burn::tensor::Device;
use sparse_accelerate::{AttentionSettings, KvCache};
use sparse_accelerate_checkpoint::{ModelDir, WeightDtype};
use sparse_accelerate_models::{CausalLm, LoadOptions, ModelError};

pub(crate) use tensors::Tensors;

/// Layers that differ from the others.
#[derive(Debug, Clone)]
pub(crate) enum Chosen {
    None,
    /// Every n-th: of 3, the third, the sixth; written as that number by the families that have a field for it.
    Every(usize),
    /// Those below a number, which is what is written.
    Before(usize),
    /// Those of a list, which is what is written.
    Listed(Vec<usize>),
}

impl Chosen {
    pub(crate) fn has(&self, layer: usize) -> bool {
        match self {
            Self::None => false,
            Self::Every(n) => (layer + 1).is_multiple_of(*n),
            Self::Before(n) => layer < *n,
            Self::Listed(layers) => layers.contains(&layer),
        }
    }
}

/// Settings that a test varies.
#[derive(Debug, Clone)]
pub(crate) struct Tiny {
    pub(crate) family: &'static str,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocab: usize,
    pub(crate) positions: usize,
    pub(crate) theta: f64,
    /// base of the frequencies in a Gemma's layers with a window, which no scaling stretches
    pub(crate) local_theta: f64,
    pub(crate) eps: f64,
    /// factor, low, high, original positions
    pub(crate) scaling: Option<(f64, f64, f64, usize)>,
    /// factor and original positions of YaRN
    pub(crate) yarn: Option<(f64, usize)>,
    /// divisors of sequences of up to the original length, divisors of longer ones, original positions
    pub(crate) longrope: Option<(Vec<f64>, Vec<f64>, usize)>,
    /// divisor of all frequencies
    pub(crate) linear: Option<f64>,
    /// factor of dynamic NTK
    pub(crate) dynamic: Option<f64>,
    /// share of a head that is rotated
    pub(crate) rotary: f64,
    /// keys that a row sees, in every layer that is not `full`
    pub(crate) window: Option<usize>,
    /// layers without the window
    pub(crate) full: Chosen,
    /// layers without rotary positions
    pub(crate) no_rope: Chosen,
    /// number whose square root divides a Gemma's scores; the size of a head where there is none
    pub(crate) query_scalar: Option<usize>,
    pub(crate) tied: bool,
    /// `attention_bias` of the families that read it
    pub(crate) biased: bool,
    /// weights and arithmetic in bf16
    pub(crate) bf16: bool,
    /// fields that config.json does not have
    pub(crate) left_out: &'static [&'static str],
}

impl Tiny {
    pub(crate) fn llama() -> Self {
        Self {
            family: "llama",
            hidden: 48,
            intermediate: 72,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            vocab: 61,
            positions: 128,
            theta: 10_000.0,
            local_theta: 10_000.0,
            eps: 1e-5,
            scaling: None,
            yarn: None,
            longrope: None,
            linear: None,
            dynamic: None,
            rotary: 1.0,
            window: None,
            full: Chosen::None,
            no_rope: Chosen::None,
            query_scalar: None,
            tied: true,
            biased: false,
            bf16: false,
            left_out: &[],
        }
    }

    /// With a window shorter than most prompts.
    pub(crate) fn mistral() -> Self {
        Self {
            family: "mistral",
            window: Some(9),
            tied: false,
            ..Self::llama()
        }
    }

    /// With a window in the first and the last of three layers.
    pub(crate) fn ministral() -> Self {
        Self {
            family: "ministral",
            layers: 3,
            full: Chosen::Listed(vec![1]),
            ..Self::mistral()
        }
    }

    /// With three quarters of each head rotated.
    pub(crate) fn phi3() -> Self {
        Self {
            family: "phi3",
            rotary: 0.75,
            ..Self::llama()
        }
    }

    /// Divisors of LongRoPE for what is rotated, mild below `original` positions and strong beyond.
    pub(crate) fn with_longrope(self, original: usize) -> Self {
        let pairs = 0..self.rotated() / 2;
        let divisors = |slope: f64| pairs.clone().map(|i| 1.0 + slope * i as f64).collect();
        Self {
            longrope: Some((divisors(0.125), divisors(0.75), original)),
            ..self
        }
    }

    /// Elements of a head that are rotated.
    pub(crate) fn rotated(&self) -> usize {
        (self.head_dim as f64 * self.rotary) as usize
    }

    pub(crate) fn qwen2() -> Self {
        Self {
            family: "qwen2",
            hidden: 120,
            heads: 3,
            kv_heads: 1,
            head_dim: 40,
            theta: 1_000_000.0,
            eps: 1e-6,
            ..Self::llama()
        }
    }

    pub(crate) fn qwen3() -> Self {
        Self {
            family: "qwen3",
            theta: 1_000_000.0,
            eps: 1e-6,
            ..Self::llama()
        }
    }

    /// With a second layer of two that has no rotary positions.
    pub(crate) fn smollm3() -> Self {
        Self {
            family: "smollm3",
            theta: 5_000_000.0,
            eps: 1e-6,
            no_rope: Chosen::Listed(vec![1]),
            ..Self::llama()
        }
    }

    /// With a window in the first of two layers, and scores of another scale than that of the heads.
    pub(crate) fn gemma3() -> Self {
        Self {
            family: "gemma3_text",
            theta: 1_000_000.0,
            eps: 1e-6,
            window: Some(9),
            full: Chosen::Every(2),
            query_scalar: Some(20),
            ..Self::llama()
        }
    }

    /// One of every family.
    pub(crate) fn families() -> [Self; 7] {
        [
            Self::llama(),
            Self::mistral(),
            Self::phi3(),
            Self::qwen2(),
            Self::qwen3(),
            Self::smollm3(),
            Self::gemma3(),
        ]
    }

    pub(crate) fn qkv_bias(&self) -> bool {
        self.family == "qwen2" || self.biased
    }

    pub(crate) fn fused(&self) -> bool {
        self.family == "phi3"
    }

    pub(crate) fn head_norms(&self) -> bool {
        ["qwen3", "gemma3_text"].contains(&self.family)
    }

    fn gemma(&self) -> bool {
        self.family == "gemma3_text"
    }

    /// Tells that the results of attention and MLP are normalised before they are added.
    pub(crate) fn norms_after(&self) -> bool {
        self.gemma()
    }

    /// Difference of a norm's gain and its weight.
    pub(crate) fn gain_offset(&self) -> f64 {
        if self.gemma() { 1.0 } else { 0.0 }
    }

    /// Tells that the gate of the MLP goes through GELU in its tanh form, rather than SiLU.
    pub(crate) fn gelu(&self) -> bool {
        self.gemma()
    }

    /// Factor of the embeddings.
    pub(crate) fn embedding_scale(&self) -> f64 {
        match self.gemma() {
            true => (self.hidden as f64).sqrt(),
            false => 1.0,
        }
    }

    /// Keys that a row of a layer sees; all up to its own without a number.
    pub(crate) fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.filter(|_| !self.full.has(layer))
    }

    /// Tells that a layer has the base of local layers, and no scaling.
    pub(crate) fn local(&self, layer: usize) -> bool {
        self.gemma() && !self.full.has(layer)
    }

    /// Writes `tensors` and loads them as `change` has it.
    pub(crate) fn try_load_with(
        &self,
        tensors: &Tensors,
        change: impl FnOnce(&mut LoadOptions),
    ) -> Result<CausalLm, ModelError> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        self.write(dir.path(), tensors);
        let mut options = LoadOptions::new(Device::flex());
        options.model.dtype = self.bf16.then_some(WeightDtype::Bf16);
        change(&mut options);
        CausalLm::load(&ModelDir::open(dir.path())?, &options, &mut |_| {})
    }

    /// Writes `tensors` and loads them, with MLP chunks of `mlp_rows`.
    pub(crate) fn try_load(
        &self,
        tensors: &Tensors,
        mlp_rows: usize,
    ) -> Result<CausalLm, ModelError> {
        self.try_load_with(tensors, |options| options.model.mlp_rows = mlp_rows)
    }

    /// The model with its own weights.
    pub(crate) fn load(&self) -> CausalLm {
        self.try_load(&self.tensors(), 2048)
            .expect("a sound checkpoint")
    }

    /// Some tokens.
    pub(crate) fn prompt(&self, len: usize, seed: usize) -> Vec<u32> {
        (0..len)
            .map(|i| ((i * i * 7 + i * 13 + seed * 29 + 3) % self.vocab) as u32)
            .collect()
    }
}

/// An empty cache for a model.
pub(crate) fn cache(model: &CausalLm, batch: usize, capacity: usize) -> KvCache {
    let shape = model.cache_shape(batch, capacity);
    KvCache::new(&shape, model.cache_dtype(), model.device()).expect("a cache")
}

/// Feeds one chunk a sequence and returns the logits after it.
pub(crate) fn feed(
    model: &CausalLm,
    cache: &mut KvCache,
    ids: &[&[u32]],
    prompt_lens: &[usize],
) -> Vec<Vec<f32>> {
    let settings = AttentionSettings::dense();
    let output = model
        .forward(ids, prompt_lens, cache, &settings)
        .expect("a forward pass");
    let logits = model.logits(output.last_hidden).expect("logits");
    let vocab = logits.dims()[1];
    let values = logits.try_into_vec_as::<f32>().expect("logits");
    values.chunks(vocab).map(<[f32]>::to_vec).collect()
}

/// Logits after a whole prompt in one chunk.
pub(crate) fn whole(model: &CausalLm, prompt: &[u32]) -> Vec<f32> {
    let mut cache = cache(model, 1, prompt.len());
    feed(model, &mut cache, &[prompt], &[prompt.len()]).remove(0)
}

/// The largest absolute difference; infinite when lengths differ or something is not finite.
pub(crate) fn distance(left: &[f32], right: &[f32]) -> f32 {
    if left.len() != right.len() || left.iter().chain(right).any(|v| !v.is_finite()) {
        return f32::INFINITY;
    }
    left.iter()
        .zip(right)
        .map(|(l, r)| (l - r).abs())
        .fold(0.0, f32::max)
}
