//! One choice of key blocks for a group of query heads, those of a KV head or one: mean keys, shares, measured errors and masses against
//! f64, cuts, index and report equal to the CPU's bit for bit. Outputs are filled with NaN; so is what no stage may read.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

mod case;
mod check;

use burn::tensor::DType;
use sparse_accelerate_contract::{Report, Why, group as contract};
use sparse_accelerate_tests::launches;

use case::Case;

fn case() -> Case {
    Case {
        heads: [4, 2],
        alone: false,
        head_dim: 64,
        spans: vec![(300, 1500), (1, 1000), (130, 131), (133, 700)],
        window: None,
        local: (64, 128),
        recall: (0.9, 0.2),
        last: 64,
        magnitude: 2.0,
        lean: 0.0,
    }
}

#[test]
fn a_ragged_batch_behind_prefixes() {
    case().check();
}

#[test]
fn groups_of_one_seven_and_many() {
    for (heads, head_dim, spans) in [
        ([2, 2], 32, vec![(520, 1500)]),
        ([7, 1], 128, vec![(260, 3000)]),
        ([17, 1], 40, vec![(200, 777)]),
        ([8, 4], 80, vec![(1000, 1000)]),
    ] {
        let case = Case {
            heads,
            head_dim,
            spans,
            ..case()
        };
        case.check();
    }
}

/// Windows that end inside a block, at its end, within the local keys, before them.
#[test]
fn windows_of_keys() {
    for window in [1, 50, 128, 200, 1399] {
        let case = Case {
            spans: vec![(300, 1500), (64, 900)],
            window: Some(window),
            ..case()
        };
        case.check();
    }
}

/// Sinks that hold nearly all of the mass count neither for the cut nor for the mass that is measured.
#[test]
fn sinks_that_hold_nearly_all() {
    let case = Case {
        spans: vec![(300, 1500), (130, 131)],
        lean: 9.0,
        ..case()
    };
    case.check();
}

/// More blocks than a cube has units; a long chunk whose samples are many.
#[test]
fn many_blocks_and_many_samples() {
    let case = Case {
        heads: [2, 1],
        head_dim: 32,
        spans: vec![(65, 17000)],
        ..case()
    };
    case.check();
    let case = Case {
        spans: vec![(5000, 5200)],
        ..case
    };
    case.check();
}

/// Rows of several tiles and cubes: 8 and 16 samples of up to 8 heads; heads of 40 and 256.
#[test]
fn sampled_rows_of_long_chunks() {
    for (heads, head_dim, spans) in [
        ([8, 1], 64, vec![(8200, 8300)]),
        ([4, 1], 128, vec![(4200, 4300)]),
        ([8, 1], 40, vec![(2100, 2200), (500, 600)]),
        ([4, 2], 256, vec![(2100, 2150)]),
    ] {
        let case = Case {
            heads,
            head_dim,
            spans,
            alone: true,
            ..case()
        };
        case.check_as_it_is();
    }
}

/// Levels: one that holds, one that is raised, none.
#[test]
fn a_group_that_falls_short_keeps_more_and_then_everything() {
    for (name, client) in launches::clients() {
        let word = |recall: (f32, f32), magnitude, word: usize| {
            let case = Case {
                heads: [2, 1],
                spans: vec![(600, 2000)],
                recall,
                magnitude,
                ..case()
            };
            let inputs = case.inputs(DType::F32);
            case.run(&client, DType::F32, &inputs).report[word]
        };
        let why = |recall, magnitude| word(recall, magnitude, Report::WHY) as u32;
        assert_eq!(why((0.9, 10.0), 2.0), Why::MassHeld.number(), "{name}");
        let first = word((0.5, 10.0), 2.0, Report::ERROR);
        let raised = why((0.5, 0.999 * first), 2.0);
        assert_eq!(raised, Why::MassRaised.number(), "{name}");
        let none = why((0.5, 1e-5), 2.0);
        assert_eq!(none, Why::ErrorAboveLimit.number(), "{name}");
        assert_eq!(
            why((0.9, 0.5), f32::INFINITY),
            Why::NotFinite.number(),
            "{name}"
        );
    }
}

/// A value that is not finite makes the heads that see it dense, whatever its weight.
#[test]
fn values_that_are_not_finite_are_seen() {
    for (name, client) in launches::clients() {
        let case = Case {
            heads: [4, 2],
            alone: true,
            spans: vec![(600, 2000)],
            ..case()
        };
        let mut inputs = case.inputs(DType::F32);
        inputs[2][700 * case.head_dim + 3] = f32::INFINITY;
        let found = case.run(&client, DType::F32, &inputs);
        let words = contract::report_words(&case.shape());
        let whys = found
            .report
            .chunks(words)
            .map(|head| head[Report::WHY] as u32);
        let whys: Vec<u32> = whys.collect();
        assert_eq!(whys[..2], [Why::NotFinite.number(); 2], "{name}");
        assert!(!whys[2..].contains(&Why::NotFinite.number()), "{name}");
    }
}
