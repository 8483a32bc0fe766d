//! Tables of rows made by hand.

use super::*;
use sparse_accelerate_report::record::SkippedRow;

/// Questions of different depths are different ones.
fn answer(attention: &str, task: &str, length: usize, depth: f64, score: f64) -> Line {
    Line::Answer(AnswerRow {
        attention: attention.into(),
        task: task.into(),
        length,
        tokens: length - 3,
        depth: Some(depth),
        sample: 0,
        seed: (100.0 * depth) as u64,
        expected: vec!["x".into()],
        answer: String::new(),
        score,
        density: if attention == "dense" { 1.0 } else { 0.25 },
        ttft_s: 2.0,
        seconds: 3.0,
    })
}

#[test]
fn a_needle_table_has_dense_first_and_depths() {
    let lines = [
        answer("sparse", "needle_single", 2048, 0.0, 0.0),
        answer("sparse", "needle_single", 2048, 1.0, 1.0),
        answer("dense", "needle_single", 2048, 0.0, 1.0),
        answer("dense", "needle_single", 2048, 1.0, 1.0),
    ];
    assert_eq!(
        needle(&lines),
        "\
attention  length   score       vs dense   at 0%  at 100%  answers  density    TTFT
dense        2048  100.0%              -  100.0%   100.0%        2    1.000  2.00 s
sparse       2048   50.0%  -50.0 ± 635.3    0.0%   100.0%        2    0.250  2.00 s
"
    );
}

#[test]
fn a_ruler_table_weighs_tasks_alike_and_lists_what_was_skipped() {
    let lines = [
        answer("dense", "vt", 4096, 0.5, 1.0),
        answer("dense", "vt", 4096, 0.5, 1.0),
        answer("dense", "vt", 4096, 0.5, 1.0),
        answer("dense", "fwe", 4096, 0.5, 0.0),
        Line::Skipped(SkippedRow {
            what: "qa at 4096".into(),
            reason: "no questions".into(),
        }),
    ];
    assert_eq!(
        ruler(&lines),
        "\
attention  length  score  vs dense  answers  density    TTFT
dense        4096  50.0%         -        4    1.000  2.00 s

4096 tokens   dense
vt           100.0%
fwe            0.0%
mean          50.0%

skipped qa at 4096: no questions
"
    );
}

#[test]
fn perplexity_is_over_all_scored_tokens() {
    let row = |attention: &str, scored, nll| {
        Line::Perplexity(PerplexityRow {
            attention: attention.into(),
            length: 512,
            sample: 0,
            start: 0,
            scored,
            bytes: 4 * scored,
            nll,
            kl: None,
            top1: None,
            density: 1.0,
            seconds: 1.0,
        })
    };
    // 8 tokens of one bit each, then of two bits: perplexity 2 and 4, a quarter and half a bit a byte.
    let two = std::f64::consts::LN_2;
    let text = perplexity(&[row("dense", 8, 8.0 * two), row("sparse", 8, 16.0 * two)]);
    assert!(
        text.contains("2.000                 -           -           -     0.2500"),
        "{text}"
    );
    assert!(
        text.contains("4.000           +100.00           -           -     0.5000"),
        "{text}"
    );
}

#[test]
fn fidelity_names_the_worst_head() {
    let head = |layer, head, recall| {
        Line::Head(HeadRow {
            attention: "sparse".into(),
            length: 512,
            sample: 0,
            layer,
            head,
            recall,
            recall_min: recall,
            error: 0.5,
            density: 0.3,
            choice: None,
            predicted_recall: None,
            lse_error: None,
        })
    };
    let prompt = Line::Fidelity(FidelityRow {
        attention: "sparse".into(),
        length: 512,
        sample: 0,
        kl: 0.25,
        top1: true,
        hidden_error: 0.125,
        density: 0.3,
        seconds: 1.0,
        dense_seconds: 2.0,
    });
    let text = fidelity(&[head(0, 0, 1.0), head(1, 2, 0.5), prompt]);
    for part in [
        "0.2500",
        "100.0%",
        "0.1250",
        "0.7500",
        "0.5000 (layer 1, head 2)",
        "2.00 s",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
