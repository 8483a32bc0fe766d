//! generation_config.json: the sampling defaults a model was released with, and the tokens that end a text.
//!
//! The file is optional; without it everything is absent and sampling is off. `eos_token_id` is one id or a list of them. Where
//! it is absent, [`crate::ModelDir`] fills in config.json's.

use serde_json::Value;

use crate::config::Fields;
use crate::{CheckpointError, ConfigError};

const FILE: &str = "generation_config.json";

/// Defaults for generation. `None` means that the file says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text; empty when neither file names one.
    pub eos: Vec<u32>,
    /// Beginning-of-sequence token.
    pub bos: Option<u32>,
    /// Softmax temperature, not negative.
    pub temperature: Option<f32>,
    /// Number of the likeliest tokens that stay; 0 means all.
    pub top_k: Option<usize>,
    /// Probability mass of the likeliest tokens that stay, in (0, 1].
    pub top_p: Option<f32>,
    /// Least probability relative to the likeliest token, in \[0, 1\].
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens already seen, above zero; 1 does nothing.
    pub repetition_penalty: Option<f32>,
    /// Samples the next token if true; takes the likeliest token if false.
    pub do_sample: bool,
}

impl GenerationConfig {
    /// Parses and checks the text of a generation_config.json.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] names the field, its value and what is expected.
    pub fn from_json(text: &str) -> Result<Self, CheckpointError> {
        let value: Value = serde_json::from_str(text).map_err(|error| ConfigError::Syntax {
            file: FILE,
            reason: error.to_string(),
        })?;
        let fields = Fields::new(FILE, &value)?;
        let top_k = fields.size("top_k")?;
        Ok(Self {
            eos: fields.ids("eos_token_id")?,
            bos: fields.id("bos_token_id")?,
            temperature: number(fields, "temperature", "0 or more", |x| x >= 0.0)?,
            top_k: top_k.map(|k| usize::try_from(k).unwrap_or(usize::MAX)),
            top_p: number(fields, "top_p", "above 0 and at most 1", |x| {
                x > 0.0 && x <= 1.0
            })?,
            min_p: number(fields, "min_p", "0 to 1", |x| (0.0..=1.0).contains(&x))?,
            repetition_penalty: number(fields, "repetition_penalty", "above 0", |x| x > 0.0)?,
            do_sample: fields.flag("do_sample")?.unwrap_or(false),
        })
    }
}

fn number(
    fields: Fields<'_>,
    field: &'static str,
    expected: &str,
    allowed: impl Fn(f32) -> bool,
) -> Result<Option<f32>, ConfigError> {
    let Some(got) = fields.number(field)? else {
        return Ok(None);
    };
    let narrow = got as f32;
    if narrow.is_finite() && allowed(narrow) {
        Ok(Some(narrow))
    } else {
        Err(ConfigError::Value {
            file: FILE,
            field,
            got: got.to_string(),
            expected: expected.to_owned(),
        })
    }
}
