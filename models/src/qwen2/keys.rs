//! Names of Qwen2's tensors in a Hugging Face checkpoint.
//!
//! Weights are `[out, in]`, query and key rows in rotate-half order; the names are those of Llama.

use crate::blueprint::KeyMap;

/// The family's names.
pub(crate) const KEYS: KeyMap = KeyMap {
    embedding: "model.embed_tokens.weight",
    final_norm: "model.norm.weight",
    head: "lm_head.weight",
    layers: "model.layers",
    attention_norm: "input_layernorm",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
};
