//! A Hugging Face model directory.
//!
//! Opening reads and checks config.json and tokenizer.json, and where present generation_config.json, tokenizer_config.json
//! and chat_template.jinja (which goes before the template inside tokenizer_config.json). Weights are mapped on demand.

use std::path::{Path, PathBuf};

use crate::files::{LARGE_FILE, SMALL_FILE, read_optional, read_required};
use crate::text::TokenizerConfig;
use crate::{
    ChatTemplate, CheckpointError, ConfigError, GenerationConfig, ModelConfig, Tokenizer, Weights,
    json, vocabulary,
};

/// An opened model directory.
#[derive(Debug)]
pub struct ModelDir {
    path: PathBuf,
    config: ModelConfig,
    generation: GenerationConfig,
    tokenizer: Tokenizer,
    chat_template: Option<ChatTemplate>,
    notes: Vec<String>,
}

impl ModelDir {
    /// Opens a directory and checks everything but the weights.
    ///
    /// # Errors
    /// A missing, unreadable or malformed file, an unsupported model, or a tokenizer that gives ids that the embedding table lacks.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        if !path.is_dir() {
            let gguf = path
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
            let hint = if gguf {
                "; a GGUF file has to be imported into one first"
            } else {
                ""
            };
            return Err(CheckpointError::NotADirectory {
                path: path.to_path_buf(),
                hint,
            });
        }
        let text = read_required(
            path,
            "config.json",
            SMALL_FILE,
            "it says what the model is, fetch the model again",
        )?;
        let config = ModelConfig::from_json(&text)?;
        let generation = generation(path, &config)?;
        let hint =
            "a fast tokenizer is needed, convert a slow one with the library that wrote the model";
        let text = read_required(path, "tokenizer.json", LARGE_FILE, hint)?;
        let tokenizer = Tokenizer::from_json(&text)?;
        let beyond = vocabulary::check(&tokenizer, &text, config.vocab_size)?;
        let chat_template = chat_template(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            config,
            generation,
            tokenizer,
            chat_template,
            notes: beyond.into_iter().collect(),
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the model's configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Sampling defaults; `eos` and `bos` fall back to config.json's.
    #[must_use]
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template; base models have none.
    #[must_use]
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// Returns what a user should hear of although the model runs, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Maps model.safetensors, or the shards of model.safetensors.index.json, and checks their headers.
    ///
    /// # Errors
    /// [`CheckpointError::MissingFile`], [`CheckpointError::SafeTensors`] or [`CheckpointError::Index`].
    pub fn weights(&self) -> Result<Weights, CheckpointError> {
        let mut weights = Weights::open(&self.path)?;
        if self.config.tied_embeddings {
            weights.tie();
        }
        Ok(weights)
    }
}

fn generation(dir: &Path, config: &ModelConfig) -> Result<GenerationConfig, CheckpointError> {
    let mut generation = match read_optional(&dir.join("generation_config.json"), SMALL_FILE)? {
        Some(text) => GenerationConfig::from_json(&text)?,
        None => GenerationConfig::default(),
    };
    if generation.eos.is_empty() {
        generation.eos.clone_from(&config.eos);
    }
    generation.bos = generation.bos.or(config.bos);
    let ids = generation.eos.iter().chain(&generation.bos);
    match ids.copied().find(|&id| id as usize >= config.vocab_size) {
        None => Ok(generation),
        Some(id) => Err(CheckpointError::Config(ConfigError::Value {
            file: "generation_config.json",
            field: "eos_token_id` or `bos_token_id",
            got: id.to_string(),
            expected: format!("token ids below vocab_size {}", config.vocab_size),
        })),
    }
}

fn chat_template(dir: &Path) -> Result<Option<ChatTemplate>, CheckpointError> {
    let path = dir.join("tokenizer_config.json");
    let config = match read_optional(&path, SMALL_FILE)? {
        Some(text) => {
            let value =
                json::parse(&text).map_err(|source| CheckpointError::Json { path, source })?;
            TokenizerConfig::from_value(&value)?
        }
        None => TokenizerConfig::default(),
    };
    let source =
        read_optional(&dir.join("chat_template.jinja"), SMALL_FILE)?.or(config.chat_template);
    Ok(source
        .map(|source| ChatTemplate::new(&source, config.bos_token, config.eos_token))
        .transpose()?)
}
