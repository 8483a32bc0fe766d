//! generation_config.json: the sampling defaults a model was released with, and the tokens that end a text.
//!
//! The file is optional; without it everything is absent and sampling is off. `eos_token_id` is one id or a list of them. Where
//! it is absent, [`crate::ModelDir`] fills in config.json's. Sampling settings are only defaults: a value that other programs read
//! as off (`top_k` -1, `top_p` 0), or that is out of range, is left out with a note, and so is a setting that is not known here.

use serde_json::Value;

use crate::config::{Fields, describe};
use crate::{CheckpointError, ConfigError};

const FILE: &str = "generation_config.json";

/// Defaults for generation. `None` means that the file says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text; empty when neither file names one.
    pub eos: Vec<u32>,
    /// True where the file says, by ids below zero and no others, that no token ends a text.
    pub endless: bool,
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
    /// Settings of the file that are not honoured, a sentence each.
    pub notes: Vec<String>,
}

impl GenerationConfig {
    /// Parses and checks the text of a generation_config.json.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] names the field, its value and what is expected.
    pub fn from_json(text: &str) -> Result<Self, CheckpointError> {
        let value = crate::json::parse(text).map_err(|error| ConfigError::Syntax {
            file: FILE,
            reason: error.to_string(),
        })?;
        let fields = Fields::new(FILE, &value)?;
        let mut notes = Vec::new();
        let (eos, endless) = end_tokens(fields, &mut notes)?;
        let mut number = |field, expected, allowed: fn(f32) -> bool| {
            sampling_number(fields, field, expected, allowed, &mut notes)
        };
        let temperature = number("temperature", "0 or more", |x| x >= 0.0)?;
        let top_p = number("top_p", "above 0 and at most 1", |x| x > 0.0 && x <= 1.0)?;
        let min_p = number("min_p", "0 to 1", |x| (0.0..=1.0).contains(&x))?;
        let repetition_penalty = number("repetition_penalty", "above 0", |x| x > 0.0)?;
        let top_k = top_k(fields, &mut notes)?;
        let bos = match fields.get("bos_token_id") {
            Some(id) if negative(id) => None,
            _ => fields.id("bos_token_id")?,
        };
        notes.extend(unknown(fields));
        Ok(Self {
            eos,
            endless,
            bos,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            do_sample: fields.flag("do_sample")?.unwrap_or(false),
            notes,
        })
    }
}

fn negative(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number < 0.0)
}

/// The end tokens, and whether there are to be none.
fn end_tokens(
    fields: Fields<'_>,
    notes: &mut Vec<String>,
) -> Result<(Vec<u32>, bool), ConfigError> {
    const FIELD: &str = "eos_token_id";
    let given = match fields.get(FIELD) {
        None => return Ok((Vec::new(), false)),
        Some(Value::Array(list)) => list.iter().collect(),
        Some(single) => vec![single],
    };
    let (off, ids): (Vec<&Value>, Vec<&Value>) = given.into_iter().partition(|id| negative(id));
    let ids = ids.into_iter().map(|id| fields.parse_id(FIELD, id));
    let ids = ids.collect::<Result<Vec<u32>, _>>()?;
    let endless = ids.is_empty() && !off.is_empty();
    if endless {
        notes.push(format!(
            "{FILE}: `{FIELD}` is {}, so no token ends a text",
            off[0]
        ));
    } else if !off.is_empty() {
        notes.push(format!("{FILE}: `{FIELD}` has {}, left out", off[0]));
    }
    Ok((ids, endless))
}

fn top_k(fields: Fields<'_>, notes: &mut Vec<String>) -> Result<Option<usize>, ConfigError> {
    const FIELD: &str = "top_k";
    let Some(got) = number(fields, FIELD, "a whole number", notes)? else {
        return Ok(None);
    };
    if got < 0.0 {
        notes.push(format!("{FILE}: `{FIELD}` is {got}, read as off"));
        return Ok(None);
    }
    if got.fract() != 0.0 {
        notes.push(left_out(FIELD, got, "a whole number"));
        return Ok(None);
    }
    Ok(Some(got as usize))
}

fn sampling_number(
    fields: Fields<'_>,
    field: &'static str,
    expected: &str,
    allowed: fn(f32) -> bool,
    notes: &mut Vec<String>,
) -> Result<Option<f32>, ConfigError> {
    let Some(got) = number(fields, field, expected, notes)? else {
        return Ok(None);
    };
    let narrow = got as f32;
    if narrow.is_finite() && allowed(narrow) {
        return Ok(Some(narrow));
    }
    notes.push(match got <= 0.0 {
        true => format!("{FILE}: `{field}` is {got}, read as off"),
        false => left_out(field, got, expected),
    });
    Ok(None)
}

/// A number; what Python writes for one that is not finite is left out with a note.
fn number(
    fields: Fields<'_>,
    field: &'static str,
    expected: &str,
    notes: &mut Vec<String>,
) -> Result<Option<f64>, ConfigError> {
    match fields.get(field).and_then(Value::as_str) {
        Some(word) if crate::json::WORDS.contains(&word) => {
            notes.push(left_out(field, word, expected));
            Ok(None)
        }
        _ => fields.number(field),
    }
}

fn left_out(field: &str, got: impl std::fmt::Display, expected: &str) -> String {
    format!("{FILE}: `{field}` is {got}, expected {expected}; left out")
}

/// Fields that are read here, or say nothing about the text that is generated.
const KNOWN: [&str; 17] = [
    "_from_model_config",
    "transformers_version",
    "eos_token_id",
    "bos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "do_sample",
    "use_cache",
    "cache_implementation",
    "trust_remote_code",
    "return_dict_in_generate",
    "chat_format",
];

/// Values by which a setting does nothing, beside null, false, and empty lists and objects.
const NEUTRAL: [(&str, f64); 16] = [
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("num_return_sequences", 1.0),
    ("typical_p", 1.0),
    ("top_h", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("diversity_penalty", 0.0),
    ("length_penalty", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("penalty_alpha", 0.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("guidance_scale", 1.0),
];

/// One note for every setting that would change the text elsewhere and does not here.
fn unknown(fields: Fields<'_>) -> Option<String> {
    let neutral = |field: &str, value: &Value| match value {
        Value::Bool(flag) => !flag,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        number => NEUTRAL
            .iter()
            .any(|(name, off)| *name == field && number.as_f64() == Some(*off)),
    };
    let named: Vec<String> = fields
        .iter()
        .filter(|(field, value)| !KNOWN.contains(field) && !neutral(field, value))
        .map(|(field, value)| format!("`{field}` {}", describe(value)))
        .collect();
    (!named.is_empty()).then(|| format!("{FILE}: not honoured: {}", named.join(", ")))
}
