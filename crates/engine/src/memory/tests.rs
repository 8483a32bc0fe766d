//! Plans against hand numbers, and against what was measured.

use sparse_accelerate::KvType;
use std::{fs, path::Path};

use serde_json::Value;
use sparse_accelerate::{AttentionSettings, Pattern};

use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::Placement;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;

pub(crate) fn shape(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/shapes");
    let text = fs::read_to_string(path.join(name)).expect("shape");
    ModelConfig::from_json(&text).expect("config")
}

pub(crate) fn llama() -> ModelConfig {
    shape("llama-3.1-8b.json")
}

#[test]
fn weights_and_cache_of_llama_8b() {
    let load = Workload::new(2, 131_072, 8192);
    let plan = MemoryPlan::new(&llama(), &load);
    // 8,030,261,248 elements of 2 bytes and 65 gains of 4,096 that take 2 more each.
    assert_eq!(plan.weights, 2 * 8_030_261_248 + 65 * 4096 * 2);
    assert_eq!((plan.weights as f64 / GIB * 100.0).round(), 1496.0);
    assert_eq!(plan.cache, 16 << 30);
    let mut load = load;
    load.footprint.kv = KvType::Int8;
    // 2 * 32 layers * 8 heads * 131,072 tokens * (128 + 4), and keys and values of one layer in bf16.
    let one_layer = 512 * MIB;
    assert_eq!(
        MemoryPlan::new(&llama(), &load).cache,
        (33 << 30) / 4 + one_layer
    );
}

#[test]
fn workspace_of_a_chunk_by_hand() {
    let plan = MemoryPlan::new(&llama(), &Workload::new(2, 131_072, 8192));
    let work = plan.stages[0].workspace;
    // x and three pieces of four (2 * 8192 - 2048 rows of 4096), gate, up and product of 2048 rows.
    assert_eq!(work.activations, (112 + 168) * MIB);
    assert_eq!(work.rotation, 64 * MIB);
    assert_eq!(work.logits, 128_256 * 2);
    assert_eq!((work.products, work.in_transit), (32 * MIB, 0));
    assert_eq!(work.pages, (112 + 64) * MIB);
}

#[test]
fn a_selection_keeps_pooled_keys_and_makes_tables() {
    let load = Workload {
        choosing: Choosing::Heads,
        ..Workload::new(2, 131_072, 8192)
    };
    let work = MemoryPlan::new(&llama(), &load).stages[0].workspace;
    // 32 layers of 8 heads, 1,024 blocks, 3 rows of 128 in f32; reports of 16 chunks.
    assert_eq!(work.selection, 384 * MIB + 32 * 16 * 32 * 16 * 4);
    let words: u64 = [
        2 * 32 * 8192,                                        // log-sum-exp, twice
        32 * (128 + 2 * 131_072 + 2 * 8192 + 4),              // probes, columns, slashes, covered
        32 * (131_072 + 8192 + 64 * (1288 + 2)),              // scratch of the cut
        32 * (2 + 1024 + 256 + 128 + 1),                      // lists, kept keys of tiles, gates
        32 * 64 * 1024,                                       // shares
        2 * 32 * 64 * (32 + 1),                               // masks and counts
        4 + 32 + 32 * 128 * (4 + 2 * (512 + 256 + 2) + 1024), // spans, gates, table
    ]
    .iter()
    .sum();
    // Beside x, queries and output.
    assert_eq!(work.activations, (3 * 64 * MIB + 4 * words).max(280 * MIB));
}

#[test]
fn stages_add_up_to_the_whole_but_for_their_own_workspace() {
    let load = Workload::new(2, 32_768, 8192);
    let whole = MemoryPlan::new(&llama(), &load);
    let placement = Placement::of_counts(&[16, 16]).expect("placement");
    let plan = MemoryPlan::placed(&llama(), &placement, &load);
    assert_eq!(plan.weights, whole.weights);
    assert_eq!(plan.cache, whole.cache);
    let [first, last] = &plan.stages[..] else {
        panic!("two stages")
    };
    // 7.48 GiB of weights and 2 GiB of cache each.
    assert!(((first.weights.total() as f64 / GIB) - 7.48).abs() < 0.005);
    assert_eq!(first.cache, 2 << 30);
    assert_eq!((first.weights.output, last.weights.embedding), (0, 0));
    assert_eq!(first.workspace.in_transit, 128 * MIB);
    assert_eq!(last.workspace.in_transit, 128 * MIB);
    assert_eq!(first.workspace.logits, 0);
}

#[test]
fn a_tied_table_is_held_by_both_ends() {
    let config = shape("llama-3.2-1b.json");
    let load = Workload::new(2, 4096, 4096);
    let table = 128_256 * 2048 * 2;
    let gain = 2048 * 4;
    let whole = MemoryPlan::new(&config, &load);
    assert_eq!(whole.stages[0].weights.output, gain);
    let placement = Placement::of_counts(&[8, 8]).expect("placement");
    let plan = MemoryPlan::placed(&config, &placement, &load);
    assert_eq!(plan.weights, whole.weights + table);
    assert_eq!(plan.stages[1].weights.output, table + gain);
}

#[test]
fn a_cpu_has_no_runtime_and_no_pages() {
    let mut load = Workload::new(4, 4096, 2048);
    load.footprint.gpu = false;
    let plan = MemoryPlan::new(&llama(), &load);
    let work = plan.stages[0].workspace;
    assert_eq!((plan.runtime, work.pages, work.products), (0, 0, 0));
    assert!(!plan.to_string().contains("runtime"), "{plan}");
}

/// Every measured row: `(length, attention, measured peak of every stage)`.
fn measured(run: &str) -> Vec<(usize, String, Vec<u64>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../benches/runs/2026-11-26-h200-two-devices");
    let text = fs::read_to_string(path.join(run)).expect("run file");
    let peak = |memory: &Value| -> Option<u64> {
        let part = |name: &str| memory[name].as_u64();
        Some(part("weights")? + part("cache")? + part("workspace")?)
    };
    let rows = text.lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("row");
        let stages = row["stages"].as_array();
        let peaks: Option<Vec<u64>> = match stages {
            Some(stages) => stages.iter().map(|stage| peak(&stage["memory"])).collect(),
            None => Some(vec![peak(&row["memory"])?]),
        };
        let length = row["length"].as_u64()? as usize;
        let attention = row["attention"].as_str()?.to_owned();
        Some((length, attention, peaks?))
    });
    rows.flatten().collect()
}

#[test]
fn plans_are_within_5_percent_of_what_was_measured() {
    let files = [
        ("ttft-one.jsonl", "llama-3.1-8b.json"),
        ("ttft-two.jsonl", "llama-3.1-8b.json"),
        ("ttft-llama-3.2-1b.jsonl", "llama-3.2-1b.json"),
        ("ttft-qwen2.5-7b.jsonl", "qwen2.5-7b.json"),
    ];
    let mut checked = 0;
    for (file, config) in files {
        let config = shape(config);
        for (length, attention, peaks) in measured(file) {
            let load = Workload {
                // Preset `balanced` of that day: every head chose alone.
                choosing: match attention.contains("balanced") {
                    true => Choosing::Heads,
                    false => Choosing::Nobody,
                },
                ..Workload::new(2, length, 8192)
            };
            let stages = peaks.len();
            let placement = match stages {
                1 => Placement::whole(config.layers),
                _ => Placement::of_counts(&[config.layers / 2; 2]).expect("placement"),
            };
            let plan = MemoryPlan::placed(&config, &placement, &load);
            for (stage, peak) in plan.stages.iter().zip(&peaks) {
                let planned = stage.total() - stage.runtime;
                let ratio = planned as f64 / *peak as f64;
                assert!(
                    (0.95..=1.05).contains(&ratio),
                    "{file} {attention} {length}: planned {plan}, measured {} ({ratio:.3})",
                    Bytes(*peak)
                );
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 9 + 2 * 9 + 6 + 6);
}

#[test]
fn too_much_is_refused_with_its_parts() {
    let plan = MemoryPlan::new(&llama(), &Workload::new(2, 8192, 8192));
    assert!(plan.check(Some(plan.total), "cuda:0").is_ok());
    assert!(plan.check(None, "wgpu:0").is_ok());
    let error = plan.check(Some(6 << 30), "cuda:0").expect_err("too much");
    let text = error.to_string();
    for part in [
        "weights 14.96 GiB",
        "KV cache 1.00 GiB",
        "workspace",
        "runtime 512 MiB",
        "cuda:0 has 6.00 GiB",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn settings_say_who_chooses() {
    let footprint = Workload::new(2, 1, 1).footprint;
    let choosing = |tokens, settings: &[&AttentionSettings]| {
        footprint.workload(tokens, 8192, settings).choosing
    };
    let (auto, dense) = (AttentionSettings::default(), AttentionSettings::dense());
    let from = auto.min_sparse_len;
    assert_eq!(choosing(from, &[&dense, &auto]), Choosing::HeadBlocks);
    assert_eq!(choosing(from - 1, &[&dense, &auto]), Choosing::Nobody);
    assert_eq!(choosing(from, &[&dense]), Choosing::Nobody);
    let sparse = AttentionSettings::sparse(Pattern::Dense);
    assert_eq!(choosing(from, &[&sparse]), Choosing::Nobody);
    let paper = sparse_accelerate::Preset::Paper.settings();
    assert_eq!(choosing(from, &[&auto, &paper]), Choosing::Heads);
}

#[test]
fn blocks_by_mass_keep_mean_keys_and_make_smaller_tables() {
    let load = Workload {
        choosing: Choosing::HeadBlocks,
        ..Workload::new(2, 131_072, 8192)
    };
    let work = MemoryPlan::new(&llama(), &load).stages[0].workspace;
    // 32 layers of 8 KV heads, 2,048 means of 128 elements; reports of 32 heads and 16 chunks with 128 tiles each.
    let reports = 32 * 16 * 32 * (16 + 2 * 128) * 4;
    assert_eq!(work.selection, 128 * MIB + reports);
    // Shares of 32 heads, 128 tiles and 2,048 blocks; runs of every other block in the table; of 8 KV heads, 32 splits
    // and 64 rows three outputs of 128 and eight words; six words of 16 rows.
    let words: u64 = [
        32 * 128 * 2048,
        32 * 128 * 2,
        8 * 32 * 64 * (3 * 128 + 8),
        32 * 16 * 6,
        4 + 32 * 128 * 4 + 32 + 32 * 128 * 2 * 1025,
    ]
    .iter()
    .sum();
    assert_eq!(work.activations, (3 * 64 * MIB + 4 * words).max(280 * MIB));
}
