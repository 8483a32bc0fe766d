//! A window of the model binds whatever attention is asked for.

use sparse_accelerate::{AttentionMode, AttentionSettings, Path, Pattern, Preset, Triangular};
use sparse_accelerate_models::CausalLm;

use crate::{
    parity::assert_parity,
    tiny::{Tiny, cache, distance, whole},
};

#[test]
fn a_window_hides_what_lies_before_it() {
    let windowed = |window| Tiny {
        window,
        ..Tiny::mistral()
    };
    let full = windowed(None).load();
    for keys in [1, 9, 36] {
        let tiny = windowed(Some(keys));
        assert_parity(&tiny, 37);
        let prompt = tiny.prompt(37, 0);
        let apart = distance(&whole(&full, &prompt), &whole(&tiny.load(), &prompt));
        assert!(apart > 1e-4, "a window of {keys} must show: {apart}");
    }
    // A window that hides nothing is none, bit for bit.
    let wide = windowed(Some(37));
    let prompt = wide.prompt(37, 0);
    assert_eq!(whole(&full, &prompt), whole(&wide.load(), &prompt));
}

/// Logits after a prompt in chunks of 150, and the way that attention took in the last.
fn chunked(model: &CausalLm, prompt: &[u32], settings: &AttentionSettings) -> (Vec<f32>, Path) {
    let mut cache = cache(model, 1, prompt.len());
    let mut last = None;
    for chunk in prompt.chunks(150) {
        let output = model.forward(&[chunk], &[prompt.len()], &mut cache, settings);
        last = Some(output.expect("a forward pass"));
    }
    let last = last.expect("a chunk");
    let logits = model.logits(last.last_hidden).expect("logits");
    let logits = logits.try_into_vec_as::<f32>().expect("logits");
    (logits, last.decision.path)
}

/// Two layers of a window of 40 reach 78 tokens back; whatever lies before must not show, sinks of a pattern included.
#[test]
fn nothing_reaches_further_than_the_windows_of_all_layers() {
    let tiny = Tiny {
        positions: 512,
        window: Some(40),
        ..Tiny::mistral()
    };
    let model = tiny.load();
    let prompt = tiny.prompt(300, 2);
    let other: Vec<u32> = tiny
        .prompt(300 - 79, 5)
        .into_iter()
        .chain(prompt[300 - 79..].to_vec())
        .collect();
    assert_ne!(prompt[..32], other[..32]);
    let triangular = AttentionSettings::sparse(Pattern::Triangular(Triangular {
        sink: 16,
        window: 16,
        last: 4,
    }));
    for (settings, path) in [
        (AttentionSettings::dense(), Path::Dense),
        (triangular, Path::Sparse),
    ] {
        let (expected, took) = chunked(&model, &prompt, &settings);
        assert_eq!(took, path);
        let apart = distance(&expected, &chunked(&model, &other, &settings).0);
        assert!(apart <= 1e-6, "{path:?}: {apart}");
        // One token nearer shows.
        let mut near = prompt.clone();
        near[300 - 79] = (near[300 - 79] + 1) % 61;
        if path == Path::Dense {
            assert!(distance(&expected, &chunked(&model, &near, &settings).0) > 1e-6);
        }
    }
}

#[test]
fn heads_choose_inside_a_window() {
    let tiny = Tiny {
        positions: 512,
        window: Some(200),
        ..Tiny::mistral()
    };
    let (model, prompt) = (tiny.load(), tiny.prompt(450, 2));
    let (dense, _) = chunked(&model, &prompt, &AttentionSettings::dense());
    let full = Tiny {
        window: None,
        ..tiny
    };
    let (full, _) = chunked(&full.load(), &prompt, &AttentionSettings::dense());
    assert!(distance(&full, &dense) > 1e-3, "the window must show");
    for preset in [Preset::Safe, Preset::Balanced, Preset::Fast, Preset::Paper] {
        let settings = AttentionSettings {
            mode: AttentionMode::Sparse,
            ..preset.settings()
        };
        let (chosen, path) = chunked(&model, &prompt, &settings);
        assert_eq!(path, Path::Selected);
        // Random weights have little to leave out.
        let apart = distance(&dense, &chosen);
        assert!(apart <= 1e-4, "{preset:?}: {apart}");
    }
}
