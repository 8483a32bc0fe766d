//! Tensor names of GGUF and of Hugging Face.
//!
//! The parts of a layer are in the table of [`LayerPart`]. Rotary scaling as numbers, in `rope_freqs.weight` and
//! LongRoPE's two lists, goes into config.json.

use crate::config::{self, Architecture, LAYERS, LayerPart};
use crate::gguf::GgufFile;

/// Rotary scaling as one divisor per frequency.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";
/// LongRoPE's divisors for sequences of up to the original length.
pub(super) const SHORT_FACTORS: &str = "rope_factors_short.weight";
/// LongRoPE's divisors for longer sequences.
pub(super) const LONG_FACTORS: &str = "rope_factors_long.weight";
/// The embedding table.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The output table, where it is not the embedding's.
pub(super) const OUTPUT: &str = "output.weight";

/// The GGUF name of a family's Hugging Face tensor.
pub(super) fn to_gguf(family: Architecture, name: &str) -> Option<String> {
    match name {
        config::EMBEDDING => return Some(EMBEDDING.to_owned()),
        config::FINAL_NORM => return Some("output_norm.weight".to_owned()),
        config::HEAD => return Some(OUTPUT.to_owned()),
        _ => {}
    }
    let (layer, rest) = name
        .strip_prefix(LAYERS)?
        .strip_prefix('.')?
        .split_once('.')?;
    let (part, suffix) = rest.rsplit_once('.')?;
    let short = part_of(family, part)?.gguf_name();
    Some(format!("blk.{layer}.{short}.{suffix}"))
}

/// Tells whether any block of a file has a bias for a part.
pub(super) fn has_bias(file: &GgufFile, part: LayerPart) -> bool {
    let tail = format!(".{}.bias", part.gguf_name());
    let mut names = file.tensors.iter().map(|tensor| &tensor.name);
    names.any(|name| name.starts_with("blk.") && name.ends_with(&tail))
}

/// The part of a layer whose bias has this name in Hugging Face checkpoints.
pub(super) fn part_of_bias(family: Architecture, name: &str) -> Option<LayerPart> {
    let name = name.strip_suffix(".bias")?;
    let mut parts = parts(family);
    parts.find(|part| name.ends_with(part.name(family)))
}

/// The part of a family's layers with this name in Hugging Face checkpoints.
fn part_of(family: Architecture, name: &str) -> Option<LayerPart> {
    parts(family).find(|part| part.name(family) == name)
}

/// Parts that layers of a family may have: two norms share a name in the families that have one of them.
fn parts(family: Architecture) -> impl Iterator<Item = LayerPart> {
    let after = [LayerPart::PostAttentionNorm, LayerPart::PostMlpNorm];
    let has = move |part: &LayerPart| family.sandwich_norms() || !after.contains(part);
    LayerPart::ALL.into_iter().filter(has)
}

/// Number of heads whose rows are interleaved in this tensor. Converters reorder Q and K of the `llama` and `smollm3` architectures so that
/// the two halves of each rotary pair are neighbours, those of layers without positions too; all others stay as they are.
pub(super) fn interleaved_heads(
    architecture: Architecture,
    gguf_name: &str,
    heads: usize,
    kv_heads: usize,
) -> Option<usize> {
    if !matches!(architecture.gguf_name(), "llama" | "smollm3") {
        return None;
    }
    let part = gguf_name.split('.').nth(2)?;
    match LayerPart::ALL.into_iter().find(|p| p.gguf_name() == part)? {
        LayerPart::Query => Some(heads),
        LayerPart::Key => Some(kv_heads),
        _ => None,
    }
}
