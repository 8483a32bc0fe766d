//! Names of stored tensors brought to those of the Hugging Face classes.
//!
//! Programs that wrap a model put a segment into the names (`module.`, `_orig_mod.`), a larger model puts a prefix before them
//! (`language_model.`), and a model saved without its head lacks `model.`. The norm of layer 0, which every decoder has, shows the
//! prefix; nothing is renamed where that is ambiguous or two names would become one.

use std::collections::HashSet;

use crate::config::{Architecture, HEAD, LAYERS, LayerPart};

/// Segments of wrappers, which stand anywhere in a name.
const WRAPPERS: [&str; 4] = [
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];
/// Prefix of everything but the head.
const MODEL: &str = "model.";
/// Segments that follow the prefix.
const PARTS: [&str; 3] = ["embed_tokens.", "layers.", "norm."];

/// The name of every tensor in the classes, in the order given.
pub(super) fn canonical<'a>(stored: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let bare: Vec<String> = stored.clone().map(without_wrappers).collect();
    let prefix = prefix(&bare);
    let names: Vec<String> = match prefix {
        Some(prefix) => bare.iter().map(|name| renamed(name, prefix)).collect(),
        None => bare,
    };
    let distinct: HashSet<&str> = names.iter().map(String::as_str).collect();
    match distinct.len() == names.len() {
        true => names,
        false => stored.map(str::to_owned).collect(),
    }
}

fn without_wrappers(name: &str) -> String {
    let segments = name
        .split('.')
        .filter(|segment| !WRAPPERS.contains(segment));
    segments.collect::<Vec<_>>().join(".")
}

/// The one prefix of a decoder's layers; `model.` where that is among several.
fn prefix(names: &[String]) -> Option<&str> {
    // It has one name in every family.
    let norm = LayerPart::AttentionNorm.name(Architecture::Llama);
    let first_norm = format!("{LAYERS}.0.{norm}.weight");
    let tail = first_norm.strip_prefix(MODEL)?;
    let found: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_suffix(tail))
        .filter(|prefix| is_prefix(prefix))
        .collect();
    match found[..] {
        [only] => Some(only),
        _ => found.into_iter().find(|&prefix| prefix == MODEL),
    }
}

/// True for whole segments.
fn is_prefix(text: &str) -> bool {
    text.is_empty() || text.ends_with('.')
}

fn renamed(name: &str, prefix: &str) -> String {
    if let Some(rest) = name.strip_prefix(prefix)
        && PARTS.iter().any(|part| rest.starts_with(part))
    {
        return format!("{MODEL}{rest}");
    }
    match name.strip_suffix(HEAD) {
        Some(before) if is_prefix(before) && prefix.starts_with(before) => HEAD.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.norm.weight",
    ];

    fn of(names: &[String]) -> Vec<String> {
        canonical(names.iter().map(String::as_str))
    }

    #[test]
    fn every_spelling_is_that_of_the_classes() {
        let spellings: [fn(&str) -> String; 9] = [
            str::to_owned,
            |name| name.trim_start_matches("model.").to_owned(),
            |name| format!("module.{name}"),
            |name| format!("_orig_mod.{name}"),
            |name| format!("module._orig_mod.{name}"),
            |name| format!("language_model.{name}"),
            |name| format!("base_model.model.{name}"),
            |name| name.replace("model.", "model.language_model."),
            |name| name.replace("layers.0.", "layers.0._orig_mod."),
        ];
        for spelling in spellings {
            let stored: Vec<String> = NAMES.iter().map(|name| spelling(name)).collect();
            assert_eq!(of(&stored), NAMES, "{stored:?}");
        }
    }

    #[test]
    fn what_is_ambiguous_keeps_its_name() {
        let twice = ["a.", "b."].map(|prefix| NAMES.map(|name| format!("{prefix}{name}")));
        let twice = twice.concat();
        assert_eq!(of(&twice), twice);
        let beside = ["draft.", ""].map(|prefix| NAMES.map(|name| format!("{prefix}{name}")));
        let beside = beside.concat();
        assert_eq!(of(&beside), beside);
        let same = ["module.", ""].map(|prefix| NAMES.map(|name| format!("{prefix}{name}")));
        let same = same.concat();
        assert_eq!(of(&same), same);
    }

    #[test]
    fn what_is_no_part_of_the_decoder_keeps_its_name() {
        let mut stored = NAMES.map(|name| format!("language_model.{name}")).to_vec();
        stored.extend(["vision.layers.1.norm.weight".into(), "norm.weight".into()]);
        assert_eq!(of(&stored)[5..], stored[5..]);
    }
}
