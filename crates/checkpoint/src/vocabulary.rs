//! Tokens that the embedding table has no row for.
//!
//! Files are published with a padding token past the table, which no text gives unless it spells it out: such a model runs, and a
//! text that does is refused where it is fed. A token past the table that ordinary text gives is of another model.

use std::collections::HashSet;

use serde_json::Value;

use crate::{CheckpointError, Tokenizer};

/// More tokens than this past the table are those of another model.
const MOST: usize = 1 << 12;
/// Tokens that a note lists.
const SHOWN: usize = 4;
/// Decoded bytes that are no whole character.
const NO_TEXT: char = char::REPLACEMENT_CHARACTER;

/// Checks a tokenizer, read from `text`, against a table of `rows`. Returns a note on tokens past it.
pub(crate) fn check(
    tokenizer: &Tokenizer,
    text: &str,
    rows: usize,
) -> Result<Option<String>, CheckpointError> {
    let size = tokenizer.vocab_size();
    if size <= rows {
        return Ok(None);
    }
    let added = added(text);
    let past = (rows..size).take(MOST).filter_map(|id| {
        let id = u32::try_from(id).ok()?;
        Some((id, tokenizer.id_to_token(id)?))
    });
    let past: Vec<(u32, String)> = past.collect();
    let spelled = |(id, token): &(u32, String)| added.contains(token) || tokenizer.is_special(*id);
    let given = |token: &(u32, String)| !spelled(token) && is_given_by_text(tokenizer, token.0);
    if size - rows > MOST || past.iter().any(given) {
        return Err(CheckpointError::VocabMismatch {
            tokenizer_max: size - 1,
            vocab_size: rows,
        });
    }
    let shown = past.iter().take(SHOWN);
    let shown: Vec<_> = shown
        .map(|(id, token)| format!("{id} is {token:?}"))
        .collect();
    let more = if past.len() > SHOWN { ", ..." } else { "" };
    Ok(Some(format!(
        "the tokenizer has tokens past the {rows} rows of the embedding table ({} in all: {}{more}); a text that spells one out \
         is refused",
        past.len(),
        shown.join(", "),
    )))
}

/// The tokens that tokenizer.json adds to the vocabulary of its model; they stand for what spells them out.
fn added(text: &str) -> HashSet<String> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let tokens = value["added_tokens"].as_array().into_iter().flatten();
    let contents = tokens.filter_map(|token| token["content"].as_str());
    contents.map(str::to_owned).collect()
}

/// True if the text of a token gives the token, or may do so as a part of a character.
fn is_given_by_text(tokenizer: &Tokenizer, id: u32) -> bool {
    let Ok(text) = tokenizer.decode(&[id], false) else {
        return true;
    };
    let ids = tokenizer.encode(&text, false);
    text.contains(NO_TEXT) || ids.is_ok_and(|ids| ids.contains(&id))
}
