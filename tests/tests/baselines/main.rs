//! Baselines: each against its rule in f64 over plain sets, on every backend; planted patterns; refusals.

mod inputs;
mod oracle;
mod pooled;
mod selector;

use burn::tensor::{DType, Device, Tensor};
use inputs::{Case, cases, chunk, selectors};
use oracle::{Kept, kept};
use sparse_accelerate::{
    AttentionError, Span,
    index::{QUERY_TILE, RANGE_ALIGN, TileIndex},
};
use sparse_accelerate_baselines::{self as baselines, BLOCK, Baseline};
use sparse_accelerate_tests::{backends, oracle as attention, tolerance};

fn index(baseline: &Baseline, case: &Case, device: &Device) -> TileIndex {
    baselines::index(
        baseline,
        0,
        &case.query(device),
        &case.key(device),
        &case.problem.spans,
    )
    .unwrap_or_else(|error| panic!("{baseline} on {}: {error}", case.name))
    .expect("a sparse layer")
}

/// Checks one index head of a sequence; returns what had to be kept and what could have been.
fn check(index: &TileIndex, b: usize, head: usize, kept: &Kept, what: &str) -> [usize; 2] {
    let span = index.spans()[b];
    let mut counts = [0; 2];
    for tile in 0..span.query_len.div_ceil(QUERY_TILE) {
        let row = index.row(b, head, tile);
        let first = span.offset() + tile * QUERY_TILE;
        let last = (first + QUERY_TILE).min(span.kv_len) - 1;
        let held = |j: usize| {
            let key = j as u32;
            let mut ranges = row.ranges.chunks_exact(2);
            ranges.any(|r| r[0] <= key && key < r[1]) || row.columns.contains(&key)
        };
        let what = format!("{what}, sequence {b}, head {head}, tile {tile}");
        match kept {
            Kept::Blocks(tiles) => {
                let cut = &tiles[tile];
                for block in 0..=last / BLOCK {
                    let mut keys = block * BLOCK..((block + 1) * BLOCK).min(last + 1);
                    let whole = keys.clone().all(held);
                    // The tile's own keys are always there, whatever a baseline says.
                    let any = keys.any(|j| j < first && held(j));
                    assert!(
                        whole || !cut.must.contains(&block),
                        "{what}: {block} missing"
                    );
                    assert!(!any || cut.may.contains(&block), "{what}: {block} too much");
                }
                counts[0] += cut.must.len();
                counts[1] += cut.may.len();
            }
            Kept::Lines { columns, offsets } => {
                let floor = |j: usize| j / RANGE_ALIGN * RANGE_ALIGN;
                let mut allowed = vec![false; last + 1];
                allowed[floor(first)..].fill(true);
                columns.may.range(..first).for_each(|&c| allowed[c] = true);
                for &offset in offsets.may.range(..=last) {
                    allowed[floor(first.saturating_sub(offset))..=last - offset].fill(true);
                }
                for (j, allowed) in allowed.into_iter().enumerate() {
                    assert!(allowed || !held(j), "{what}: key {j} too much");
                }
                for &c in columns.must.range(..first) {
                    assert!(held(c), "{what}: column {c} missing");
                }
                for &offset in &offsets.must {
                    let rows = first.max(offset)..last + 1;
                    for p in rows {
                        assert!(
                            held(p - offset),
                            "{what}: offset {offset} of row {p} missing"
                        );
                    }
                }
            }
        }
    }
    if let Kept::Lines { columns, offsets } = kept {
        counts[0] += columns.must.len() + offsets.must.len();
        counts[1] += columns.may.len() + offsets.may.len();
    }
    counts
}

#[test]
fn every_selector_keeps_what_its_rule_says() {
    let backends = backends::all();
    let (mut lowest, mut highest) = (1f64, 0f64);
    for case in cases() {
        for baseline in selectors() {
            let oracle: Vec<_> = (0..case.problem.spans.len())
                .map(|b| kept(&case, &baseline, b))
                .collect();
            for backend in &backends {
                let what = format!("{baseline} on {}, {}", backend.name, case.name);
                let index = index(&baseline, &case, &backend.device);
                index.validate().expect("invariants");
                let mut counts = [0; 2];
                for (b, heads) in oracle.iter().enumerate() {
                    assert_eq!(heads.len(), index.heads(), "{what}");
                    for (head, kept) in heads.iter().enumerate() {
                        let [must, may] = check(&index, b, head, kept, &what);
                        counts = [counts[0] + must, counts[1] + may];
                    }
                }
                // Were many entries near their threshold, little would be tested.
                let [must, may] = counts;
                assert!(
                    (may - must) * 50 <= may,
                    "{what}: {must} of {may} are certain"
                );
                lowest = lowest.min(index.density());
                highest = highest.max(index.density());
            }
        }
    }
    assert!(
        lowest < 0.45 && highest > 0.9,
        "densities {lowest} to {highest}"
    );
}

#[test]
fn both_query_aware_and_other_heads_are_met() {
    let case = Case::structured(4, 2, &[Span::whole(1408)]);
    let density = |text: &str| {
        let baseline = Baseline::parse(text).expect("a baseline");
        index(&baseline, &case, &Device::flex()).density()
    };
    let none = density("flexprefill:min_budget=128:gamma=0.7:tau=0");
    let all = density("flexprefill:min_budget=128:gamma=0.7:tau=2");
    assert!((none - all).abs() > 0.01, "{none} and {all}");
}

#[test]
fn backends_agree_and_repeat_themselves() {
    let case = Case::structured(4, 2, &[Span::whole(700), chunk(256, 896, 896)]);
    for baseline in selectors() {
        let reference = index(&baseline, &case, &Device::flex());
        for backend in backends::all() {
            let once = index(&baseline, &case, &backend.device);
            let again = index(&baseline, &case, &backend.device);
            assert!(once == again, "{baseline} on {}", backend.name);
            // Entries within rounding of a threshold may differ: see the oracle.
            let apart = (once.density() - reference.density()).abs();
            assert!(apart < 0.005, "{baseline} on {}: {apart}", backend.name);
        }
    }
}

#[test]
fn half_precision_keeps_nearly_the_same() {
    let exact = Case::structured(4, 2, &[Span::whole(900)]);
    for backend in backends::all() {
        for dtype in backend.dtypes.iter().copied().filter(|t| *t != DType::F32) {
            for baseline in selectors() {
                let query = exact.query(&backend.device).cast(dtype);
                let key = exact.key(&backend.device).cast(dtype);
                let half = baselines::index(&baseline, 0, &query, &key, &exact.problem.spans)
                    .expect("an index")
                    .expect("sparse");
                let full = index(&baseline, &exact, &backend.device);
                let apart = (half.density() - full.density()).abs();
                assert!(
                    apart < 0.05,
                    "{baseline} on {} in {dtype:?}: {apart}",
                    backend.name
                );
            }
        }
    }
}

#[test]
fn chunks_keep_what_the_whole_keeps_where_rows_stand_alone() {
    // These score every row block by itself.
    let whole = Case::structured(2, 1, &[Span::whole(1024)]);
    let rest = Case::structured(2, 1, &[chunk(448, 1024, 1024)]);
    for text in [
        "xattention",
        "flashprefill-v1:alpha=0.5",
        "flashprefill-v2:alpha=0.5",
        "pooled:parts=8:means=2:mass=0.7",
    ] {
        let baseline = Baseline::parse(text).expect("a baseline");
        let (whole, rest) = (
            index(&baseline, &whole, &Device::flex()),
            index(&baseline, &rest, &Device::flex()),
        );
        for head in 0..whole.heads() {
            // The chunk begins in the middle of a block of 128, so its first tile is left out.
            for tile in 1..7 {
                let (a, b) = (whole.row(0, head, tile + 9), rest.row(0, head, tile));
                assert_eq!(a, b, "{baseline}, head {head}, tile {tile}");
            }
        }
    }
}

/// Share of the pairs `(p, p - offset)` that an index sees, over rows in `rows`.
fn slash_share(index: &TileIndex, offset: usize, rows: std::ops::Range<usize>) -> f64 {
    let total = rows.len() as f64;
    let seen = rows.filter(|&p| index.sees(0, 0, p, p - offset)).count();
    seen as f64 / total
}

#[test]
fn planted_slash_and_columns() {
    let (len, offset, columns) = (1536, 700, [333, 450, 571]);
    let case = Case::planted(len, offset, &columns, 30.0);
    // Rows whose slash lies outside the first block and every forced window, before the dense rows at
    // the end.
    let rows = offset + 2 * BLOCK..len - 2 * BLOCK;
    for backend in backends::all() {
        let baseline = |text: &str| {
            let baseline = Baseline::parse(text).expect("a baseline");
            index(&baseline, &case, &backend.device)
        };
        let lines = baseline("minference:vertical=40:slash=120");
        assert_eq!(slash_share(&lines, offset, rows.clone()), 1.0);
        for column in columns {
            assert!(
                (column..len).all(|p| lines.sees(0, 0, p, column)),
                "{column}"
            );
        }
        assert!(lines.density() < 0.4, "{}", lines.density());

        let antidiagonal = baseline("xattention");
        assert_eq!(slash_share(&antidiagonal, offset, rows.clone()), 1.0);
        assert!(antidiagonal.density() < 0.8, "{}", antidiagonal.density());

        // The mean of a block of rotating keys is nothing; the slash has all of the attention.
        let pooled = baseline("flashprefill-v1");
        let share = slash_share(&pooled, offset, rows.clone());
        assert!(share < 0.05, "pooled keys kept {share} of the slash");
        let band = baseline("a-shape:sink=128:window=512");
        assert_eq!(slash_share(&band, offset, rows.clone()), 0.0);
    }
}

#[test]
fn attention_over_what_is_kept() {
    let case = Case::random([4, 2, 64], &[Span::whole(200), chunk(90, 282, 300)]);
    let small = [
        "a-shape:sink=16:window=40",
        "tri-shape:sink=16:window=40:last=20",
        "trianglemix:first_layer=1:sink=16:window=40:last=20",
        "minference:vertical=40:slash=60",
        "flexprefill:min_budget=1:gamma=0.3",
        "xattention:threshold=0.2",
        "flashprefill-v1:alpha=0.9",
        "flashprefill-v2:alpha=0.9",
        "pooled:mass=0.3:sink=16:window=40",
    ];
    for backend in backends::all() {
        for text in small {
            let baseline = Baseline::parse(text).expect("a baseline");
            let (query, key) = (case.query(&backend.device), case.key(&backend.device));
            let value = case.value(&backend.device);
            let run = |layer| {
                baselines::attend(
                    &baseline,
                    layer,
                    query.clone(),
                    &key,
                    &value,
                    &case.problem.spans,
                )
                .expect("attention")
            };
            let result = run(1);
            assert!(result.selection_seconds > 0.0);
            let index = result.index.expect("a sparse layer");
            let group = case.problem.heads / index.heads();
            let sees = |b, h: usize, i, j| index.sees(b, h / group, i, j);
            compare(
                &format!("{baseline} on {}", backend.name),
                &case,
                result.output,
                &sees,
            );

            let dense = matches!(baseline, Baseline::TriangleMix { .. });
            let first = run(0);
            assert_eq!(first.index.is_none(), dense, "{baseline}");
            if dense {
                let causal = attention::causal(&case.problem);
                compare("the dense layer", &case, first.output, &causal);
            }
        }
    }
}

fn compare(name: &str, case: &Case, got: Tensor<4>, sees: &attention::Sees<'_>) {
    let exact = attention::exact(&case.problem, &case.inputs, sees);
    let plain = attention::plain(&case.problem, &case.inputs, sees);
    let got: Vec<f32> = got.try_into_vec_as().expect("the launch failed");
    tolerance::check(name, DType::F32, &got, &exact.out, &plain.out);
}

#[test]
fn fixed_shapes_are_their_definitions() {
    let case = Case::random([2, 1, 32], &[Span::whole(150), chunk(70, 170, 180)]);
    for (text, sink, window, last) in [
        ("a-shape:sink=10:window=33", 10, 33, 0),
        ("tri-shape:sink=0:window=1:last=20", 0, 1, 20),
        (
            "trianglemix:first_layer=0:sink=3:window=70:last=5",
            3,
            70,
            5,
        ),
    ] {
        let baseline = Baseline::parse(text).expect("a baseline");
        let index = index(&baseline, &case, &Device::flex());
        for (b, span) in case.problem.spans.iter().enumerate() {
            for i in 0..span.query_len {
                let p = span.offset() + i;
                for j in 0..span.kv_len {
                    let sees = j < sink || p < j + window || p + last >= span.prompt_len;
                    assert_eq!(
                        index.sees(b, 0, i, j),
                        j <= p && sees,
                        "{baseline}: {p}, {j}"
                    );
                }
            }
        }
    }
}

#[test]
fn short_forms_and_files_are_read_back() {
    for baseline in Baseline::all() {
        assert_eq!(Baseline::parse(baseline.name()), Ok(baseline));
        assert_eq!(Baseline::parse(&baseline.to_string()), Ok(baseline));
        let json = serde_json::to_string(&baseline).expect("JSON");
        assert!(
            json.contains(&format!("\"kind\":\"{}\"", baseline.name())),
            "{json}"
        );
        assert_eq!(
            serde_json::from_str::<Baseline>(&json).expect("a baseline"),
            baseline
        );
        let short = format!("kind = \"{}\"", baseline.name());
        assert_eq!(
            toml::from_str::<Baseline>(&short).expect("defaults"),
            baseline
        );
    }
    let expected = Baseline::XAttention {
        stride: 8,
        threshold: 0.75,
    };
    assert_eq!("xattention:stride=8:threshold=0.75".parse(), Ok(expected));
    assert!(serde_json::from_str::<Baseline>(r#"{"kind": "xattention", "tau": 1}"#).is_err());
}

#[test]
fn refusals_name_what_there_is() {
    let message = |text: &str| Baseline::parse(text).expect_err(text).to_string();
    let text = message("sparge");
    for baseline in Baseline::all() {
        assert!(text.contains(baseline.name()), "{text}");
    }
    let text = message("xattention:tau=0.1");
    assert!(
        text.contains("`tau`") && text.contains("stride, threshold"),
        "{text}"
    );
    let text = message("xattention:stride=eight");
    assert!(
        text.contains("stride is `eight`") && text.contains("whole number"),
        "{text}"
    );
    assert!(message("xattention:stride").contains("whole number"));
    assert!(message("flexprefill:gamma=x").contains("a number"));
    assert!(message("a-shape:sink=1:sink=2").contains("once"));
    for (text, field) in [
        ("a-shape:window=0", "window is 0"),
        ("minference:slash=0", "slash is 0"),
        ("xattention:stride=12", "stride is 12"),
        ("xattention:stride=128", "stride is 128"),
        ("xattention:threshold=0", "threshold is 0"),
        ("flexprefill:gamma=1.5", "gamma is 1.5"),
        ("flexprefill:gamma=NaN", "gamma is NaN"),
        ("flexprefill:tau=-1", "tau is -1"),
        ("flexprefill:min_budget=0", "min_budget is 0"),
        ("flashprefill-v1:alpha=2", "alpha is 2"),
        ("flashprefill-v2:alpha=-0.1", "alpha is -0.1"),
    ] {
        assert!(message(text).contains(field), "{}", message(text));
    }
}

#[test]
fn problems_that_do_not_fit_are_refused() {
    let zeros = |dims: [usize; 4]| Tensor::<4>::zeros(dims, (&Device::flex(), DType::F32));
    let refused = |baseline: &str, q: [usize; 4], k: [usize; 4], span: Span| -> AttentionError {
        let baseline = Baseline::parse(baseline).expect("a baseline");
        baselines::index(&baseline, 0, &zeros(q), &zeros(k), &[span]).expect_err("refused")
    };
    let off_grid = chunk(32, 132, 132);
    for baseline in [
        "xattention",
        "flexprefill",
        "flashprefill-v1",
        "flashprefill-v2",
    ] {
        let error = refused(baseline, [1, 2, 32, 32], [1, 1, 132, 32], off_grid);
        assert!(
            matches!(
                error,
                AttentionError::Setting {
                    field: "offset",
                    ..
                }
            ),
            "{error}"
        );
    }
    let baseline = Baseline::parse("minference").expect("a baseline");
    let (query, key) = (zeros([1, 2, 32, 32]), zeros([1, 1, 132, 32]));
    assert!(baselines::index(&baseline, 0, &query, &key, &[off_grid]).is_ok());

    let span = Span::whole(64);
    let text = |q, k| refused("xattention", q, k, span).to_string();
    assert!(text([1, 3, 64, 32], [1, 2, 64, 32]).contains("query heads is 3"));
    assert!(text([1, 2, 64, 32], [1, 2, 63, 32]).contains("at most the 63 keys"));
    assert!(text([1, 2, 63, 32], [1, 2, 64, 32]).contains("query rows is [63]"));
    assert!(text([1, 2, 64, 32], [1, 2, 64, 64]).contains("head dim"));
    assert!(text([2, 2, 64, 32], [2, 2, 64, 32]).contains("number of spans is [1]"));
}
