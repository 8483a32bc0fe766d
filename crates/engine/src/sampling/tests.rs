//! Each filter against a definition written the slow way; seeds, ties, sums and refusals.

use proptest::prelude::*;

use super::*;

fn sampler(settings: SamplingSettings) -> Sampler {
    Sampler::new(settings).expect("valid settings")
}

fn warm() -> SamplingSettings {
    SamplingSettings {
        temperature: 1.0,
        ..SamplingSettings::default()
    }
}

/// Softmax over everything by the textbook, as `(token, probability)` in order of likelihood.
fn naive(logits: &[f32], temperature: f32) -> Vec<(u32, f64)> {
    let weights: Vec<f64> = logits
        .iter()
        .map(|l| (f64::from(*l) / f64::from(temperature)).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    let mut all: Vec<_> = (0u32..).zip(weights.iter().map(|w| w / sum)).collect();
    // Stable sort on the logits themselves, so equal logits keep the order of their ids.
    all.sort_by(|a, b| logits[b.0 as usize].total_cmp(&logits[a.0 as usize]));
    all
}

fn tokens(candidates: &[Candidate]) -> Vec<u32> {
    candidates.iter().map(|c| c.token).collect()
}

fn logits() -> impl Strategy<Value = Vec<f32>> {
    // Coarse steps, so that ties are common.
    prop::collection::vec((-40i32..40).prop_map(|q| q as f32 / 4.0), 1..60)
}

proptest! {
    #[test]
    fn probabilities_are_sorted_and_sum_to_one(
        logits in logits(), temperature in 0.1f32..3.0, top_k in 0usize..70,
        top_p in 0.01f32..=1.0, min_p in 0.0f32..=1.0,
    ) {
        let settings = SamplingSettings { temperature, top_k, top_p, min_p, ..warm() };
        let kept = sampler(settings).candidates(&logits, &[]).expect("candidates");
        let sum: f64 = kept.iter().map(|c| c.probability).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9);
        prop_assert!(kept.is_sorted_by(|a, b| a.probability >= b.probability));
        prop_assert_eq!(kept[0].token, filter::greedy(&logits));
    }

    #[test]
    fn top_k_keeps_the_k_first(logits in logits(), k in 1usize..70) {
        let kept = sampler(SamplingSettings { top_k: k, ..warm() })
            .candidates(&logits, &[]).expect("candidates");
        let expected: Vec<u32> = naive(&logits, 1.0).into_iter().take(k).map(|c| c.0).collect();
        prop_assert_eq!(tokens(&kept), expected);
    }

    #[test]
    fn top_p_keeps_the_shortest_head(logits in logits(), p in 0.01f32..0.999) {
        let kept = sampler(SamplingSettings { top_p: p, ..warm() })
            .candidates(&logits, &[]).expect("candidates");
        let all = naive(&logits, 1.0);
        let mass = |n: usize| all[..n].iter().map(|c| c.1).sum::<f64>();
        prop_assert!(mass(kept.len()) >= f64::from(p) - 1e-9);
        prop_assert!(mass(kept.len() - 1) <= f64::from(p) + 1e-9);
        prop_assert_eq!(tokens(&kept), all[..kept.len()].iter().map(|c| c.0).collect::<Vec<_>>());
    }

    #[test]
    fn min_p_keeps_what_is_likely_enough(logits in logits(), p in 0.0f32..=1.0) {
        let kept = sampler(SamplingSettings { min_p: p, ..warm() })
            .candidates(&logits, &[]).expect("candidates");
        let all = naive(&logits, 1.0);
        for (token, probability) in &all {
            let ratio = probability / all[0].1;
            if (ratio - f64::from(p)).abs() > 1e-9 {
                prop_assert_eq!(tokens(&kept).contains(token), ratio > f64::from(p));
            }
        }
    }

    #[test]
    fn temperature_is_a_softmax_of_scaled_logits(logits in logits(), t in 0.2f32..3.0) {
        let kept = sampler(SamplingSettings { temperature: t, ..warm() })
            .candidates(&logits, &[]).expect("candidates");
        for (candidate, (token, probability)) in kept.iter().zip(naive(&logits, t)) {
            prop_assert_eq!(candidate.token, token);
            prop_assert!((candidate.probability - probability).abs() < 1e-9);
        }
    }

    #[test]
    fn the_penalty_touches_seen_tokens_only(
        logits in logits(), history in prop::collection::vec(0u32..80, 0..20), penalty in 0.5f32..2.0,
    ) {
        let mut changed = logits.clone();
        filter::repetition_penalty(&mut changed, &history, penalty);
        for (token, (before, after)) in logits.iter().zip(&changed).enumerate() {
            let expected = match (history.contains(&(token as u32)), *before > 0.0) {
                (false, _) => *before,
                (true, true) => before / penalty,
                (true, false) => before * penalty,
            };
            prop_assert_eq!(*after, expected);
        }
    }

    #[test]
    fn seeds_reproduce(logits in logits(), seed: u64) {
        let settings = SamplingSettings { seed, ..warm() };
        let (mut a, mut b) = (sampler(settings), sampler(settings));
        for _ in 0..8 {
            prop_assert_eq!(a.sample(&logits, &[]), b.sample(&logits, &[]));
        }
    }
}

#[test]
fn frequencies_follow_the_probabilities() {
    let logits = [1.0f32, 0.0, 2.0];
    let mut sampler = sampler(SamplingSettings { seed: 7, ..warm() });
    let mut counts = [0usize; 3];
    for _ in 0..20_000 {
        counts[sampler.sample(&logits, &[]).expect("token") as usize] += 1;
    }
    for (token, probability) in naive(&logits, 1.0) {
        let seen = counts[token as usize] as f64 / 20_000.0;
        assert!(
            (seen - probability).abs() < 0.015,
            "{token}: {seen} for {probability}"
        );
    }
}

#[test]
fn greedy_ties_go_to_the_lowest_id() {
    let mut greedy = sampler(SamplingSettings::default());
    assert_eq!(greedy.sample(&[1.0, 5.0, 5.0, 2.0], &[]), Ok(1));
    // The penalty comes before the choice.
    let settings = SamplingSettings {
        repetition_penalty: 2.0,
        ..SamplingSettings::default()
    };
    assert_eq!(sampler(settings).sample(&[1.0, 5.0, 5.0, 2.0], &[1]), Ok(2));
}

#[test]
fn different_seeds_differ() {
    let logits = [0.0f32; 64];
    let draw = |seed| {
        let mut s = sampler(SamplingSettings { seed, ..warm() });
        (0..16).map(|_| s.sample(&logits, &[])).collect::<Vec<_>>()
    };
    assert_ne!(draw(1), draw(2));
}

#[test]
fn bad_logits_are_typed_errors() {
    let mut s = sampler(warm());
    let nan = s.sample(&[0.0, f32::NAN], &[]);
    assert!(matches!(
        nan,
        Err(SamplingError::NotFinite { token: 1, .. })
    ));
    let inf = s.sample(&[f32::INFINITY], &[]);
    assert!(matches!(
        inf,
        Err(SamplingError::NotFinite { token: 0, .. })
    ));
    for empty in [&[][..], &[f32::NEG_INFINITY; 2][..]] {
        assert!(matches!(
            s.sample(empty, &[]),
            Err(SamplingError::NoCandidates { .. })
        ));
    }
    assert_eq!(s.sample(&[f32::NEG_INFINITY, 0.0], &[]), Ok(1));
}

#[test]
fn bad_settings_name_the_field() {
    let cases = [
        (
            "temperature",
            SamplingSettings {
                temperature: -1.0,
                ..warm()
            },
        ),
        (
            "temperature",
            SamplingSettings {
                temperature: f32::NAN,
                ..warm()
            },
        ),
        (
            "top_p",
            SamplingSettings {
                top_p: 0.0,
                ..warm()
            },
        ),
        (
            "top_p",
            SamplingSettings {
                top_p: 1.5,
                ..warm()
            },
        ),
        (
            "min_p",
            SamplingSettings {
                min_p: -0.1,
                ..warm()
            },
        ),
        (
            "repetition_penalty",
            SamplingSettings {
                repetition_penalty: 0.0,
                ..warm()
            },
        ),
    ];
    for (field, settings) in cases {
        let error = Sampler::new(settings).expect_err(field).to_string();
        assert!(error.contains(field), "{error}");
    }
}
