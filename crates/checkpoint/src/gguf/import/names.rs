//! Tensor names of GGUF and of Hugging Face.
//!
//! Both architectures share one table. `rope_freqs.weight` holds rotary scaling as numbers and has no counterpart.

use crate::Architecture;

const BLOCK_PARTS: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Rotary scaling as one divisor per frequency.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";
/// The embedding table.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The output table, where it is not the embedding's.
pub(super) const OUTPUT: &str = "output.weight";

/// The GGUF name of a Hugging Face tensor.
pub(super) fn to_gguf(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some(EMBEDDING.to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some(OUTPUT.to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, suffix) = rest.rsplit_once('.')?;
    let (short, _) = BLOCK_PARTS.iter().find(|(_, long)| *long == part)?;
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
    match gguf_name.split('.').nth(2) {
        Some("attn_q") => Some(heads),
        Some("attn_k") => Some(kv_heads),
        _ => None,
    }
}
