//! The files beside tokenizer.json that also speak of tokens: tokenizer_config.json, special_tokens_map.json, added_tokens.json.
//!
//! Some tokenizers are released with added tokens that only these files know; without them the tokens of a chat would be plain text.
//! [`Beside::complete`] writes them into the text of tokenizer.json before it is parsed, with the ids that were declared. A token
//! that has no place there is left out, and a note says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::SpecialTokens;
use super::special::{self, TOKENIZER_CONFIG, TOKENS_MAP, added_token};
use crate::files::{SMALL_FILE, read_optional};
use crate::{CheckpointError, TextError};

const ADDED_TOKENS: &str = "added_tokens.json";
const DECODER: &str = "added_tokens_decoder";

/// Contents of the three files.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) tokens: Result<SpecialTokens, TextError>,
    pub(crate) chat_template: Result<Option<String>, TextError>,
    /// Added tokens by id, with the file that declares them.
    declared: BTreeMap<u32, (AddedToken, &'static str)>,
    pub(crate) notes: Vec<String>,
}

/// The part of a tokenizer.json that says whether anything is missing.
#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    added_tokens: Vec<Content>,
}

#[derive(Deserialize)]
struct Content {
    content: String,
}

impl Beside {
    /// Reads the files of a model directory that are there.
    ///
    /// # Errors
    /// A tokenizer_config.json that cannot be read or is not JSON.
    pub(crate) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(TOKENIZER_CONFIG);
        let config = match read_optional(&path, SMALL_FILE)? {
            Some(text) => crate::json::parse(&text)
                .map_err(|source| CheckpointError::Json { path, source })?,
            None => json!({}),
        };
        let mut notes = Vec::new();
        let map = object(dir, TOKENS_MAP, &mut notes);
        let added = object(dir, ADDED_TOKENS, &mut notes);
        let empty = Map::new();
        let (fields, top) = match &config {
            Value::Object(fields) => (fields, Ok(())),
            other => {
                let error = special::fault(TOKENIZER_CONFIG, "(top)", other, "an object");
                (&empty, Err(error))
            }
        };
        let tokens = top
            .clone()
            .and_then(|()| tokens(fields, map.as_ref().unwrap_or(&empty)));
        let declared = declared(fields, added.as_ref(), tokens.as_ref().ok(), &mut notes);
        Ok(Self {
            chat_template: top.and_then(|()| special::template(fields.get("chat_template"))),
            tokens,
            declared,
            notes,
        })
    }

    /// The text of tokenizer.json with the added tokens that it lacks. Ids reach to `vocab_size`.
    pub(crate) fn complete(&mut self, text: String, vocab_size: usize) -> String {
        let none = SpecialTokens::default();
        let named = self.tokens.as_ref().unwrap_or(&none);
        let Ok(there) = serde_json::from_str::<Added>(&text) else {
            return text;
        };
        let there: HashSet<String> = there.added_tokens.into_iter().map(|t| t.content).collect();
        let declared = self.declared.values().map(|(token, _)| token);
        let all_there = declared
            .chain(named.iter())
            .all(|token| there.contains(&token.content));
        if all_there {
            return text;
        }
        let Ok(mut file) = serde_json::from_str::<Value>(&text) else {
            return text;
        };
        let Some(mut ids) = Ids::of(&mut file) else {
            return text;
        };
        let mut fresh = Vec::new();
        for (&id, (token, source)) in &self.declared {
            if token.content.is_empty() || there.contains(&token.content) {
                continue;
            }
            match ids.place(&token.content, id, vocab_size) {
                Ok(id) => fresh.push(entry(id, token)),
                Err(reason) => self.notes.push(format!(
                    "{source}: added token {:?} with id {id} is left out: {reason}",
                    token.content
                )),
            }
        }
        for token in named.iter() {
            let known = token.content.is_empty()
                || there.contains(&token.content)
                || fresh.iter().any(|entry| entry["content"] == token.content);
            if known {
                continue;
            }
            // Without an id it takes the next one, as in the library that wrote the file.
            match ids.place(&token.content, ids.next(), vocab_size) {
                Ok(id) => fresh.push(entry(id, token)),
                Err(reason) => self.notes.push(format!(
                    "special token {:?} has no id in tokenizer.json and is plain text: {reason}",
                    token.content
                )),
            }
        }
        if fresh.is_empty() {
            return text;
        }
        ids.write(&mut file);
        match file.get_mut("added_tokens") {
            Some(Value::Array(list)) => list.extend(fresh),
            _ => file["added_tokens"] = fresh.into(),
        }
        file.to_string()
    }
}

/// The ids of a parsed tokenizer.json.
struct Ids {
    by_token: HashMap<String, u32>,
    used: HashSet<u32>,
    /// The vocabulary gives a token any id; a list of tokens gives each its position.
    free: bool,
}

impl Ids {
    fn of(file: &mut Value) -> Option<Self> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let mut by_token = HashMap::new();
        let free = match file.get("model")?.get("vocab")? {
            Value::Object(vocab) => {
                let pairs = vocab.iter();
                by_token.extend(pairs.filter_map(|(token, at)| Some((token.clone(), id(at)?))));
                true
            }
            Value::Array(vocab) => {
                let pairs = (0..).zip(vocab);
                by_token.extend(
                    pairs.filter_map(|(at, piece)| Some((piece.get(0)?.as_str()?.to_owned(), at))),
                );
                false
            }
            _ => return None,
        };
        if let Some(Value::Array(added)) = file.get("added_tokens") {
            for token in added {
                if let (Some(content), Some(at)) = (token["content"].as_str(), id(&token["id"])) {
                    by_token.entry(content.to_owned()).or_insert(at);
                }
            }
        }
        let used = by_token.values().copied().collect();
        Some(Self {
            by_token,
            used,
            free,
        })
    }

    fn of_token(&self, token: &str) -> Option<u32> {
        self.by_token.get(token).copied()
    }

    /// The id after the last one.
    fn next(&self) -> u32 {
        let last = self.used.iter().max();
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// The id that a token has or may take.
    fn place(&mut self, token: &str, id: u32, vocab_size: usize) -> Result<u32, String> {
        if let Some(id) = self.of_token(token) {
            return Ok(id);
        }
        if id as usize >= vocab_size {
            return Err(format!("the model has {vocab_size} ids"));
        }
        if self.used.contains(&id) {
            return Err("tokenizer.json gives that id to another token".to_owned());
        }
        let next = self.next();
        if !self.free && id != next {
            return Err(format!(
                "tokenizer.json, whose vocabulary is a list, goes on with id {next}"
            ));
        }
        self.used.insert(id);
        self.by_token.insert(token.to_owned(), id);
        Ok(id)
    }

    /// Writes every id into the vocabulary, since the library counts up from its size for tokens that it lacks.
    fn write(self, file: &mut Value) {
        if let Some(Value::Object(vocab)) = file.pointer_mut("/model/vocab") {
            for (token, id) in self.by_token {
                vocab.entry(token).or_insert(id.into());
            }
        }
    }
}

fn entry(id: u32, token: &AddedToken) -> Value {
    json!({
        "id": id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
        "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special,
    })
}

/// A file that may be absent; what else is wrong with it becomes a note.
fn object(dir: &Path, file: &str, notes: &mut Vec<String>) -> Option<Map<String, Value>> {
    let reason = match read_optional(&dir.join(file), SMALL_FILE) {
        Ok(None) => return None,
        Ok(Some(text)) => match serde_json::from_str(&text) {
            Ok(map) => return Some(map),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    notes.push(format!("{file} is left out: {reason}"));
    None
}

fn tokens(
    config: &Map<String, Value>,
    map: &Map<String, Value>,
) -> Result<SpecialTokens, TextError> {
    let first = SpecialTokens::from_map(TOKENIZER_CONFIG, config)?;
    let second = SpecialTokens::from_map(TOKENS_MAP, map)?;
    Ok(if config.contains_key(DECODER) {
        first.or(second)
    } else {
        second.or(first)
    })
}

/// Added tokens of tokenizer_config.json, then those of added_tokens.json with other ids.
fn declared(
    config: &Map<String, Value>,
    added: Option<&Map<String, Value>>,
    named: Option<&SpecialTokens>,
    notes: &mut Vec<String>,
) -> BTreeMap<u32, (AddedToken, &'static str)> {
    let is_special =
        |text: &str| named.is_some_and(|tokens| tokens.iter().any(|token| token.content == text));
    let mut all = BTreeMap::new();
    let decoder = config.get(DECODER).filter(|decoder| !decoder.is_null());
    if let Some(other) = decoder.filter(|decoder| !decoder.is_object()) {
        notes.push(format!(
            "{TOKENIZER_CONFIG}: `{DECODER}` is {}, expected an object of tokens by id; left out",
            crate::config::describe(other)
        ));
    }
    if let Some(Value::Object(decoder)) = decoder {
        for (id, token) in decoder {
            match id.parse().ok().zip(added_token(token, false)) {
                Some((id, token)) => {
                    all.insert(id, (token, TOKENIZER_CONFIG));
                }
                None => notes.push(format!(
                    "{TOKENIZER_CONFIG}: `{DECODER}` has {id:?}: {}, expected an id with a token; left out",
                    crate::config::describe(token)
                )),
            }
        }
    }
    for (text, id) in added.into_iter().flatten() {
        match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => {
                let token = AddedToken::from(text.as_str(), is_special(text));
                all.entry(id).or_insert((token, ADDED_TOKENS));
            }
            None => notes.push(format!(
                "{ADDED_TOKENS}: {text:?} has id {}, expected a token id; left out",
                crate::config::describe(id)
            )),
        }
    }
    all
}
