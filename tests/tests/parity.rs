//! Logits, greedy tokens and token ids against what `fixtures/reference.py` recorded.
//!
//! The reference is another program, in f64, with no cache and no fused weight. Logits in f32 are at
//! most 2e-3 apart; the recorded gaps between the two likeliest tokens are wider, so that greedy tokens
//! are compared exactly. `--nocapture` shows what was measured.

use std::ops::ControlFlow;

use sparse_accelerate::AttentionSettings;
use sparse_accelerate_engine::{GenerateSettings, SamplingSettings, Session};
use sparse_accelerate_models::CausalLm;
use sparse_accelerate_tests::{
    backends::{self, Backend},
    models::{Case, ROWS, Recorded, Running, TINY, distance},
};

/// For logits of order 10 after up to 30 layers.
const TOLERANCE: f32 = 2e-3;

/// Tokens of one prefill chunk: fewer than the longest prompts have.
const CHUNK: usize = 48;

fn report(what: &str, backend: &Backend, tokens: usize, distance: f32) {
    println!(
        "{what:28} {:6} {tokens:4} tokens  {distance:.2e}",
        backend.name
    );
    assert!(
        distance <= TOLERANCE,
        "{what} on {}: {distance} apart",
        backend.name
    );
}

fn check_logits(recorded: &Recorded, model: &CausalLm, backend: &Backend, case: &Case) {
    let mut session = Session::new(model, case.ids.len()).expect("a session");
    let settings = AttentionSettings::dense();
    let prefill = session
        .prefill(&case.ids, CHUNK, &settings, &mut |_| {})
        .expect("a prefill");
    let distance = distance(recorded.last_logits(&case.name), &prefill.logits);
    report(
        &format!("{}/{}", recorded.name, case.name),
        backend,
        case.ids.len(),
        distance,
    );
}

fn check_greedy(recorded: &Recorded, model: &CausalLm, backend: &Backend, case: &Case) -> String {
    let name = format!("{}/{} on {}", recorded.name, case.name, backend.name);
    assert!(
        case.margin > 2.0 * TOLERANCE,
        "{name}: a near tie, take another prompt"
    );
    let settings = GenerateSettings {
        max_tokens: case.greedy.len(),
        chunk: CHUNK,
        mlp_rows: CHUNK,
        attention: AttentionSettings::dense(),
        sampling: SamplingSettings::default(),
        stop: Vec::new(),
        eos: Vec::new(),
    };
    let mut session = Session::new(model, case.ids.len() + case.greedy.len()).expect("a session");
    let tokenizer = recorded.dir.tokenizer();
    let go_on = &mut |_: &str| ControlFlow::Continue(());
    let got = session.generate(tokenizer, &case.ids, &settings, &mut |_| {}, go_on);
    let got = got.expect(&name);
    assert_eq!(got.ids, case.greedy, "{name}");
    got.text
}

fn check_ids(recorded: &Recorded) {
    for case in &recorded.cases {
        let name = format!("{}/{}", recorded.name, case.name);
        if let Some(messages) = &case.messages {
            let template = recorded.dir.chat_template().expect("a chat template");
            assert_eq!(
                template.render(messages, true).expect(&name),
                case.text,
                "{name}"
            );
        }
        let ids = recorded
            .dir
            .tokenizer()
            .encode(&case.text, case.messages.is_none());
        assert_eq!(ids.expect(&name), case.ids, "{name}");
    }
}

#[test]
fn token_ids() {
    let models = TINY
        .map(Recorded::tiny)
        .into_iter()
        .chain([Recorded::smollm2()]);
    models.for_each(|recorded| check_ids(&recorded));
}

#[test]
fn tiny_models_at_every_chunk_end() {
    for backend in backends::all() {
        for recorded in TINY.map(Recorded::tiny) {
            let model = recorded.load(&backend.device);
            let ids = recorded.ids(ROWS);
            for (kind, settings) in [
                ("dense", AttentionSettings::dense()),
                ("triangular", recorded.triangular()),
            ] {
                let expected = recorded.row_logits(kind == "triangular");
                for size in [1, 7, 64, ids.len()] {
                    let got = Running::new(&model, 1, ids.len()).chunks(ids, size, &settings);
                    let mut ends = (0..ids.len()).collect::<Vec<_>>();
                    ends.retain(|row| (row + 1) % size == 0 || row + 1 == ids.len());
                    assert_eq!(got.len(), ends.len());
                    let apart = got
                        .iter()
                        .zip(&ends)
                        .map(|(got, &row)| distance(expected[row], got));
                    let what = format!("{}/{kind} by {size}", recorded.name);
                    report(&what, &backend, ids.len(), apart.fold(0.0, f32::max));
                }
            }
        }
    }
}

#[test]
fn tiny_models_logits_and_greedy_tokens() {
    for backend in backends::all() {
        for recorded in TINY.map(Recorded::tiny) {
            let model = recorded.load(&backend.device);
            for case in &recorded.cases {
                if case.name != ROWS {
                    check_logits(&recorded, &model, &backend, case);
                }
                check_greedy(&recorded, &model, &backend, case);
            }
        }
    }
}

#[test]
fn smollm2_logits_and_greedy_tokens() {
    let recorded = Recorded::smollm2();
    for backend in backends::all()
        .into_iter()
        .filter(|backend| backend.name == "flex")
    {
        let model = recorded.load(&backend.device);
        for case in &recorded.cases {
            check_logits(&recorded, &model, &backend, case);
            let text = check_greedy(&recorded, &model, &backend, case);
            println!("    {text:?}");
        }
    }
}

#[test]
fn smollm2_logits_of_one_prompt_on_a_gpu() {
    let recorded = Recorded::smollm2();
    for backend in backends::all()
        .into_iter()
        .filter(|backend| backend.name != "flex")
    {
        let start = std::time::Instant::now();
        let model = recorded.load(&backend.device);
        println!("loaded in {:.1?}", start.elapsed());
        check_logits(&recorded, &model, &backend, &recorded.cases[0]);
        println!("done in {:.1?}", start.elapsed());
    }
}
