//! Planned memory against the allocations of models and caches, stage by stage.
#![cfg(feature = "flex")]

use burn::tensor::Device;
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_engine::memory::{MemoryPlan, Workload};
use sparse_accelerate_models::{CausalLm, LoadOptions, Placement};

fn config(family: &str, model_type: &str, tied: bool) -> ModelConfig {
    let text = format!(
        r#"{{
            "architectures": ["{family}"], "model_type": "{model_type}", "hidden_act": "silu",
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
            "vocab_size": 50, "max_position_embeddings": 128, "rope_theta": 10000.0,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": {tied}, "torch_dtype": "float32"
        }}"#
    );
    ModelConfig::from_json(&text).expect("config")
}

#[test]
fn every_stage_weighs_what_was_planned() {
    for (family, model_type) in [
        ("LlamaForCausalLM", "llama"),
        ("MistralForCausalLM", "mistral"),
        ("Qwen2ForCausalLM", "qwen2"),
        ("Qwen3ForCausalLM", "qwen3"),
    ] {
        for tied in [false, true] {
            let config = config(family, model_type, tied);
            for counts in [&[3][..], &[1, 2], &[1, 1, 1]] {
                let placement = Placement::of_counts(counts).expect("placement");
                let load = Workload::new(4, 40, 16);
                let plan = MemoryPlan::placed(&config, &placement, &load);
                for (part, planned) in placement.parts().iter().zip(&plan.stages) {
                    let mut options = LoadOptions::new(Device::flex());
                    options.part = Some(part.clone());
                    let stage = CausalLm::random(&config, 1, &options).expect("stage");
                    let what = format!("{family}, tied {tied}, {part:?}");
                    assert_eq!(planned.weights.total(), stage.weight_bytes(), "{what}");
                    assert_eq!(planned.cache, stage.cache_shape(1, 40).bytes(4), "{what}");
                }
            }
        }
    }
}
