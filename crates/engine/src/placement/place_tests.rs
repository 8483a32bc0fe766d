//! Splits of Llama-3.1-8B by hand.

use super::*;
use crate::memory::tests::llama;

const GIB: u64 = 1 << 30;

fn device(memory: Option<u64>, speed: f64) -> StageDevice {
    StageDevice {
        name: "gpu".into(),
        memory,
        speed,
        costs: LayerCosts::new(&llama(), 131_072, 1.0, 1.0),
    }
}

fn load(tokens: usize) -> Workload {
    Workload::new(2, tokens, 8192)
}

fn split(tokens: usize, devices: &[StageDevice], split: &str) -> Result<Vec<usize>, SplitError> {
    let split = split.parse().expect("split");
    place(&llama(), &load(tokens), devices, &split).map(|placement| placement.counts())
}

#[test]
fn like_gpus_share_evenly() {
    let gpu = || device(Some(22 * GIB), 1.0);
    for how in ["auto", "by-memory"] {
        assert_eq!(split(131_072, &[gpu(), gpu()], how).expect(how), [16, 16]);
    }
    let four = split(131_072, &[gpu(), gpu(), gpu(), gpu()], "auto").expect("four");
    assert_eq!(four, [8, 8, 8, 8]);
    assert_eq!(split(8192, &[gpu()], "auto").expect("one"), [32]);
}

#[test]
fn a_faster_gpu_takes_more_layers_as_far_as_they_fit() {
    let fast = |memory| device(Some(memory), 3.0);
    let slow = || device(Some(60 * GIB), 1.0);
    assert_eq!(
        split(131_072, &[fast(60 * GIB), slow()], "auto").expect("room"),
        [24, 8]
    );
    // 24 layers take 9.73 + 0.98 + 12 GiB and a workspace; 20 GiB hold 19.
    let held = split(131_072, &[fast(20 * GIB), slow()], "auto").expect("tight");
    assert!(held[0] < 24 && held[0] >= 17, "{held:?}");
    let part = |n| StagePart {
        layers: 0..n,
        input: true,
        output: false,
    };
    let needs = |n| StageMemory::new(&llama(), &part(n), &load(131_072)).total();
    assert!(
        needs(held[0]) <= 20 * GIB && needs(held[0] + 1) > 20 * GIB,
        "{held:?}"
    );
}

#[test]
fn among_equally_fast_cuts_the_emptiest_is_taken() {
    // 33 layers on two GPUs of one speed: 17 and 16, or 16 and 17, of which the last saves its MLP; three
    // GPUs of 32 leave a choice, which memory settles.
    let gpus = [
        device(Some(40 * GIB), 1.0),
        device(Some(20 * GIB), 1.0),
        device(Some(40 * GIB), 1.0),
    ];
    let counts = split(131_072, &gpus, "auto").expect("three");
    assert_eq!(counts.iter().max(), Some(&11));
    assert_eq!(counts[1], 10, "{counts:?}");
}

#[test]
fn by_memory_balances_shares() {
    let gpus = [device(Some(10 * GIB), 1.0), device(Some(30 * GIB), 1.0)];
    let counts = split(32_768, &gpus, "by-memory").expect("split");
    assert!((5..=9).contains(&counts[0]), "{counts:?}");
    let unknown = [device(None, 1.0), device(Some(GIB), 1.0)];
    let error = split(32_768, &unknown, "by-memory").expect_err("unknown");
    assert!(matches!(error, SplitError::UnknownMemory { .. }), "{error}");
    assert_eq!(
        split(32_768, &[device(None, 1.0)], "auto").expect("auto"),
        [32]
    );
}

#[test]
fn two_24_gb_gpus_hold_128k_and_one_does_not() {
    let gpu = || device(Some(22 * GIB), 1.0);
    assert!(split(131_072, &[gpu(), gpu()], "auto").is_ok());
    let error = split(131_072, &[gpu()], "auto").expect_err("one");
    let SplitError::DoesNotFit {
        stage,
        available,
        memory,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((*stage, *available), (0, 22 * GIB));
    assert_eq!(
        memory.total(),
        crate::MemoryPlan::new(&llama(), &load(131_072)).total
    );
    let text = error.to_string();
    for part in [
        "layers 0..32",
        "gpu has 22.00 GiB",
        "too much",
        "KV cache 16.00 GiB",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn counts_must_suit_model_and_devices() {
    let gpu = || device(Some(22 * GIB), 1.0);
    let two = [gpu(), gpu()];
    assert_eq!(split(131_072, &two, "14,18").expect("counts"), [14, 18]);
    for (how, says) in [
        ("16,15", "31 layers"),
        ("32", "for 1 devices"),
        ("0,32", "at least one layer"),
        ("8,8,16", "there are 2"),
        ("2,30", "too much"),
    ] {
        let error = split(131_072, &two, how).expect_err(how).to_string();
        assert!(error.contains(says), "{how}: {error}");
    }
    let many: Vec<_> = (0..33).map(|_| gpu()).collect();
    let error = split(8192, &many, "auto").expect_err("many").to_string();
    assert!(error.contains("33 devices for 32 layers"), "{error}");
    let error = split(8192, &[], "auto").expect_err("none").to_string();
    assert!(error.contains("0 devices"), "{error}");
}

/// Every way to share `layers` out over `stages`.
fn all(layers: usize, stages: usize) -> Vec<Vec<usize>> {
    if stages == 1 {
        return vec![vec![layers]];
    }
    let first = 1..=layers + 1 - stages;
    let with = |n: usize| {
        let rest = all(layers - n, stages - 1);
        rest.into_iter().map(move |rest| [vec![n], rest].concat())
    };
    first.flat_map(with).collect()
}

#[test]
fn a_search_finds_what_trying_everything_finds() {
    let config = ModelConfig {
        layers: 9,
        ..llama()
    };
    let load = load(32_768);
    let mut state = 1u64;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    let (mut placed, mut refused) = (0, 0);
    for _ in 0..60 {
        let stages = 1 + draw(3) as usize;
        let devices: Vec<_> = (0..stages)
            .map(|_| device(Some((2 + draw(7)) * GIB), 1.0 + draw(4) as f64))
            .collect();
        let problem = Problem {
            config: &config,
            load: &load,
            devices: &devices,
        };
        // Slowest stage and fullest device of every cut that fits.
        let cuts = all(9, stages).into_iter().filter_map(|counts| {
            let placement = Placement::of_counts(&counts).expect("counts");
            problem.check(&placement).ok()?;
            let parts = || placement.parts().iter().enumerate();
            let time = parts().map(|(at, part)| problem.time(at, part));
            let share = parts().map(|(at, part)| problem.share(at, part));
            Some((time.fold(0.0, f64::max), share.fold(0.0, f64::max)))
        });
        let cuts: Vec<(f64, f64)> = cuts.collect();
        let worst = |split: &Split| {
            let placement = place(&config, &load, &devices, split).ok()?;
            let parts = || placement.parts().iter().enumerate();
            let time = parts().map(|(at, part)| problem.time(at, part));
            let share = parts().map(|(at, part)| problem.share(at, part));
            Some((time.fold(0.0, f64::max), share.fold(0.0, f64::max)))
        };
        let fastest = cuts
            .iter()
            .copied()
            .min_by(|a, b| a.partial_cmp(b).expect("finite"));
        let emptiest = cuts.iter().map(|cut| cut.1).min_by(f64::total_cmp);
        assert_eq!(worst(&Split::Auto), fastest, "{devices:?}");
        assert_eq!(
            worst(&Split::ByMemory).map(|cut| cut.1),
            emptiest,
            "{devices:?}"
        );
        match fastest {
            Some(_) => placed += 1,
            None => refused += 1,
        }
    }
    assert!(
        placed > 10 && refused > 5,
        "{placed} placed, {refused} refused"
    );
}
