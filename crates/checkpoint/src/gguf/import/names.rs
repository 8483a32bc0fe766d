//! Tensor names of GGUF and of Hugging Face.
//!
//! The parts of a layer are in the table of [`LayerPart`]. `rope_freqs.weight` holds rotary scaling as numbers and has no counterpart.

use crate::config::{self, Architecture, LAYERS, LayerPart};

/// Rotary scaling as one divisor per frequency.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";
/// The embedding table.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The output table, where it is not the embedding's.
pub(super) const OUTPUT: &str = "output.weight";

/// The GGUF name of a Hugging Face tensor.
pub(super) fn to_gguf(name: &str) -> Option<String> {
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
    let part = LayerPart::ALL.into_iter().find(|p| p.name() == part)?;
    let short = part.gguf_name();
    Some(format!("blk.{layer}.{short}.{suffix}"))
}

/// Number of heads whose rows are interleaved in this tensor. Converters reorder Q and K of the `llama` architecture so that the two
/// halves of each rotary pair are neighbours; those of `qwen2` stay as they are.
pub(super) fn interleaved_heads(
    architecture: Architecture,
    gguf_name: &str,
    heads: usize,
    kv_heads: usize,
) -> Option<usize> {
    if architecture != Architecture::Llama {
        return None;
    }
    let part = gguf_name.split('.').nth(2)?;
    match LayerPart::ALL.into_iter().find(|p| p.gguf_name() == part)? {
        LayerPart::Query => Some(heads),
        LayerPart::Key => Some(kv_heads),
        _ => None,
    }
}
