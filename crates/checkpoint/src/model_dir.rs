//! A Hugging Face model directory.
//!
//! Opening reads and checks config.json and tokenizer.json, and where present generation_config.json, tokenizer_config.json,
//! special_tokens_map.json, added_tokens.json and chat_template.jinja (which goes before the template inside tokenizer_config.json).
//! A chat template that is broken is an error for who asks for it. Weights are mapped on demand.

use std::path::{Path, PathBuf};

use crate::files::{LARGE_FILE, SMALL_FILE, read_optional, read_required};
use crate::text::Beside;
use crate::{
    ChatTemplate, CheckpointError, ConfigError, GenerationConfig, ModelConfig, TextError,
    Tokenizer, Weights, vocabulary,
};

/// An opened model directory.
#[derive(Debug)]
pub struct ModelDir {
    path: PathBuf,
    config: ModelConfig,
    generation: GenerationConfig,
    tokenizer: Tokenizer,
    chat_template: Result<ChatTemplate, TextError>,
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
        let hint =
            "a fast tokenizer is needed, convert a slow one with the library that wrote the model";
        let text = read_required(path, "tokenizer.json", LARGE_FILE, hint)?;
        let mut beside = Beside::open(path)?;
        let text = beside.complete(text, config.vocab_size);
        let tokenizer = Tokenizer::from_json(&text)?;
        let beyond = vocabulary::check(&tokenizer, &text, config.vocab_size)?;
        let chat_template = chat_template(path, &beside);
        let mut ends = Vec::new();
        ends.extend(end_token(&beside, &tokenizer));
        ends.extend(end_of_turn(&chat_template, &tokenizer));
        let generation = generation(path, &config, &ends)?;
        let mut notes = beside.notes;
        notes.extend(beyond);
        if let Err(error) = &chat_template
            && *error != TextError::NoTemplate
        {
            notes.push(format!("{error}. Evaluations give prompts as they are"));
        }
        Ok(Self {
            path: path.to_path_buf(),
            config,
            generation,
            tokenizer,
            chat_template,
            notes,
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

    /// Sampling defaults. `eos` and `bos` fall back to config.json's; `eos` has the tokenizer's own end token and the token that
    /// ends a turn of the chat template besides, unless the file says that nothing ends a text.
    #[must_use]
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template.
    ///
    /// # Errors
    /// [`TextError::NoTemplate`] for base models; for others the fault of the template or of the special tokens it may name.
    pub fn chat_template(&self) -> Result<&ChatTemplate, TextError> {
        self.chat_template.as_ref().map_err(Clone::clone)
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

fn generation(
    dir: &Path,
    config: &ModelConfig,
    ends: &[u32],
) -> Result<GenerationConfig, CheckpointError> {
    let mut generation = match read_optional(&dir.join("generation_config.json"), SMALL_FILE)? {
        Some(text) => GenerationConfig::from_json(&text)?,
        None => GenerationConfig::default(),
    };
    if generation.eos.is_empty() && !generation.endless {
        generation.eos.clone_from(&config.eos);
    }
    generation.bos = generation.bos.or(config.bos);
    let ids = generation.eos.iter().chain(&generation.bos);
    if let Some(id) = ids.copied().find(|&id| id as usize >= config.vocab_size) {
        return Err(CheckpointError::Config(ConfigError::Value {
            file: "generation_config.json",
            field: "eos_token_id` or `bos_token_id",
            got: id.to_string(),
            expected: format!("token ids below vocab_size {}", config.vocab_size),
        }));
    }
    if !generation.endless {
        for &id in ends {
            if !generation.eos.contains(&id) && (id as usize) < config.vocab_size {
                generation.eos.push(id);
            }
        }
    }
    Ok(generation)
}

/// The end token that tokenizer_config.json or special_tokens_map.json names.
fn end_token(beside: &Beside, tokenizer: &Tokenizer) -> Option<u32> {
    let tokens = beside.tokens.as_ref().ok()?;
    tokenizer.token_to_id(tokens.get("eos_token")?)
}

/// The token that the template puts after the assistant's words.
fn end_of_turn(template: &Result<ChatTemplate, TextError>, tokenizer: &Tokenizer) -> Option<u32> {
    let after = template.as_ref().ok()?.after_answer()?;
    tokenizer.added_token_at_start(&after)
}

fn chat_template(dir: &Path, beside: &Beside) -> Result<ChatTemplate, TextError> {
    let file = read_optional(&dir.join("chat_template.jinja"), SMALL_FILE).map_err(|error| {
        TextError::TemplateFile {
            reason: error.to_string(),
        }
    })?;
    let tokens = beside.tokens.clone()?;
    let source = match file {
        Some(source) => Some(source),
        None => beside.chat_template.clone()?,
    };
    ChatTemplate::new(&source.ok_or(TextError::NoTemplate)?, tokens)
}
