//! Models with recorded answers: SmolLM2 from the data directory and tiny random ones.
//!
//! The recorded values were made by `fixtures/reference.py`, which also holds the prompts. Loading a
//! model without its data is a failure with a way out, not a skip.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use sparse_accelerate::{AttentionSettings, Decision, KvCache, Pattern, Triangular};
use sparse_accelerate_checkpoint::{ChatMessage, ModelDir, WeightDtype};
use sparse_accelerate_models::{CausalLm, LoadOptions};

/// The tiny models: Llama with scaled rotary frequencies and an untied head, Qwen2 with biases, Qwen3 with norms of heads, Mistral
/// with a window of 20 tokens, Phi-3 with LongRoPE on a part of each head, SmolLM3 with a layer of three that has no positions,
/// Gemma 3 with a window of 24 tokens in the first two layers of three, the third's positions stretched.
pub const TINY: [&str; 7] = [
    "tiny-llama",
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-mistral",
    "tiny-phi3",
    "tiny-smollm3",
    "tiny-gemma3",
];

/// The tiny models' case whose logits are recorded for every row.
pub const ROWS: &str = "rows";

/// A recorded prompt.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// Name of the prompt in messages, and of its logits.
    pub name: String,
    /// Text that the tokenizer gets.
    pub text: String,
    /// Messages that the chat template turns into `text`.
    pub messages: Option<Vec<ChatMessage>>,
    /// Token ids of `text`.
    pub ids: Vec<u32>,
    /// The tokens that follow, each the most likely.
    pub greedy: Vec<u32>,
    /// Smallest gap between the two largest logits over `greedy`.
    pub margin: f32,
}

#[derive(Debug, Deserialize)]
struct About {
    cases: Vec<Case>,
    triangular: Option<Triangular>,
}

/// A model's folder and what is recorded of it.
#[derive(Debug)]
pub struct Recorded {
    /// Name of the model in messages.
    pub name: &'static str,
    /// The model.
    pub dir: ModelDir,
    /// The prompts.
    pub cases: Vec<Case>,
    triangular: Option<Triangular>,
    logits: BTreeMap<String, Vec<f32>>,
}

impl Recorded {
    /// SmolLM2-135M-Instruct in f32.
    ///
    /// # Panics
    /// When `cargo xtask setup` has not brought the model.
    pub fn smollm2() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let data = std::env::var_os("SPARSE_ACCELERATE_DATA").map(PathBuf::from);
        let folder = data.unwrap_or_else(|| root.join(".data")).join("models");
        let folder = folder.join("smollm2-135m-instruct-f32");
        let there = folder.join("model.safetensors").is_file();
        assert!(
            there,
            "no model in {}; run `cargo xtask setup`",
            folder.display()
        );
        Self::open("smollm2", &folder)
    }

    /// One of [`TINY`].
    pub fn tiny(name: &'static str) -> Self {
        Self::open(name, &fixtures().join(name))
    }

    fn open(name: &'static str, folder: &Path) -> Self {
        let about = fs::read_to_string(fixtures().join(format!("{name}.json"))).expect(name);
        let about: About = serde_json::from_str(&about).expect(name);
        let logits = fs::read(fixtures().join(format!("{name}_logits.safetensors"))).expect(name);
        let logits = safetensors::SafeTensors::deserialize(&logits).expect(name);
        let values = |bytes: &[u8]| -> Vec<f32> {
            let (values, _) = bytes.as_chunks();
            values
                .iter()
                .map(|&value| f32::from_le_bytes(value))
                .collect()
        };
        Self {
            name,
            dir: ModelDir::open(folder).expect(name),
            cases: about.cases,
            triangular: about.triangular,
            logits: logits
                .iter()
                .map(|(name, view)| (name.to_owned(), values(view.data())))
                .collect(),
        }
    }

    /// The model on a device, in f32.
    pub fn load(&self, device: &Device) -> CausalLm {
        let mut options = LoadOptions::new(device.clone());
        options.model.dtype = Some(WeightDtype::F32);
        CausalLm::load(&self.dir, &options, &mut |_| {}).expect(self.name)
    }

    /// Token ids of a case.
    pub fn ids(&self, case: &str) -> &[u32] {
        let case = self.cases.iter().find(|c| c.name == case);
        &case.expect("a recorded case").ids
    }

    /// Logits after the last token of a case.
    pub fn last_logits(&self, case: &str) -> &[f32] {
        let logits = &self.logits[case];
        &logits[logits.len() - self.dir.config().vocab_size..]
    }

    /// Logits after every token of [`ROWS`], dense or with [`Recorded::triangular`].
    pub fn row_logits(&self, sparse: bool) -> Vec<&[f32]> {
        let name = if sparse { "rows.triangular" } else { ROWS };
        self.logits[name]
            .chunks(self.dir.config().vocab_size)
            .collect()
    }

    /// The sparse settings that rows are recorded with.
    pub fn triangular(&self) -> AttentionSettings {
        let triangular = self.triangular.expect("recorded for the tiny models");
        AttentionSettings::sparse(Pattern::Triangular(triangular))
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A model with an empty cache.
#[derive(Debug)]
pub struct Running<'m> {
    /// The model.
    pub model: &'m CausalLm,
    /// Cache of the run.
    pub cache: KvCache,
    /// Decisions of the chunks so far.
    pub decisions: Vec<Decision>,
}

impl<'m> Running<'m> {
    /// A cache for `batch` sequences of up to `capacity` tokens.
    pub fn new(model: &'m CausalLm, batch: usize, capacity: usize) -> Self {
        Self {
            model,
            cache: model.cache(batch, capacity).expect("a cache"),
            decisions: Vec::new(),
        }
    }

    /// Runs one chunk of each sequence and gives the logits after it.
    pub fn feed(
        &mut self,
        ids: &[&[u32]],
        prompt_lens: &[usize],
        settings: &AttentionSettings,
    ) -> Vec<Vec<f32>> {
        let output = self
            .model
            .forward(ids, prompt_lens, &mut self.cache, settings);
        let output = output.expect("a forward pass");
        self.decisions.push(output.decision);
        rows(self.model.logits(output.last_hidden).expect("logits"))
    }

    /// Runs a prompt of one sequence in chunks and gives the logits after each.
    pub fn chunks(
        &mut self,
        ids: &[u32],
        size: usize,
        settings: &AttentionSettings,
    ) -> Vec<Vec<f32>> {
        let feed = |chunk| self.feed(&[chunk], &[ids.len()], settings).remove(0);
        ids.chunks(size).map(feed).collect()
    }
}

fn rows(logits: Tensor<2>) -> Vec<Vec<f32>> {
    let width = logits.dims()[1];
    let values = logits
        .into_data()
        .convert::<f32>()
        .try_to_vec::<f32>()
        .expect("logits");
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

/// The largest absolute difference; infinite when lengths differ or something is not finite.
pub fn distance(left: &[f32], right: &[f32]) -> f32 {
    let finite = left.iter().chain(right).all(|value| value.is_finite());
    if left.len() != right.len() || !finite {
        return f32::INFINITY;
    }
    let differences = left.iter().zip(right).map(|(l, r)| (l - r).abs());
    differences.fold(0.0, f32::max)
}
