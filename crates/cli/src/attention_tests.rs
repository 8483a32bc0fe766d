//! Flags to settings.

use clap::Parser;
use sparse_accelerate::{
    AttentionMode, AttentionSettings, Pattern, Selection, Triangular,
    select::{Correction, Granularity},
};

use super::*;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    attention: AttentionArgs,
}

fn settings(flags: &[&str]) -> Result<AttentionSettings> {
    let all = std::iter::once(&"test").chain(flags);
    Flags::try_parse_from(all)?.attention.settings()
}

fn good(flags: &[&str]) -> AttentionSettings {
    settings(flags).expect("settings")
}

#[test]
fn no_flags_are_the_default_settings() {
    assert_eq!(good(&[]), AttentionSettings::default());
    let sparse = good(&["--attention", "sparse"]);
    let expected = AttentionSettings {
        mode: AttentionMode::Sparse,
        ..AttentionSettings::default()
    };
    assert_eq!(sparse, expected);
}

#[test]
fn a_preset_is_taken_whole_and_refined() {
    for preset in Preset::ALL {
        assert_eq!(good(&["--preset", preset.name()]), preset.settings());
    }
    let groups = good(&["--preset", "safe", "--recall", "0.5", "--window", "64"]);
    let safe = Preset::Safe.settings();
    let expected = AttentionSettings {
        selection: Selection {
            recall: 0.5,
            window: 64,
            ..safe.selection
        },
        ..safe
    };
    assert_eq!(groups, expected);
    let error = settings(&["--preset", "safe", "--correction", "mean"]).expect_err("no such");
    assert!(error.to_string().contains("--pattern dynamic"), "{error}");
    let refined = good(&[
        "--preset",
        "paper",
        "--recall",
        "0.5",
        "--correction",
        "mean",
        "--granularity",
        "per-query-head",
        "--window",
        "64",
        "--attention",
        "sparse",
    ]);
    let paper = Preset::Paper.settings();
    let expected = AttentionSettings {
        mode: AttentionMode::Sparse,
        selection: Selection {
            recall: 0.5,
            correction: Correction::Mean,
            granularity: Granularity::PerQueryHead,
            window: 64,
            ..paper.selection
        },
        ..paper
    };
    assert_eq!(refined, expected);
}

#[test]
fn sink_and_window_go_where_the_pattern_reads_them() {
    let Pattern::Triangular(by_name) = good(&["--pattern", "triangular", "--sink", "3"]).pattern
    else {
        panic!("no triangular");
    };
    let expected = Triangular {
        sink: 3,
        ..Triangular::default()
    };
    assert_eq!(by_name, expected);
    for name in ["interval-slash", "block-cluster", "hybrid", "dynamic"] {
        let chosen = good(&["--pattern", name, "--sink", "3", "--last", "5"]);
        assert_eq!(chosen.pattern.name(), name);
        let Selection { sink, last, .. } = chosen.selection;
        assert_eq!((sink, last), (3, 5));
    }
}

#[test]
fn a_heads_file_brings_its_patterns() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("heads.json");
    let path = path.to_str().expect("path");
    std::fs::write(path, r#"[{"0": ["vertical_and_slash", 100, 160, 1]}]"#).expect("write");
    let given = good(&["--heads-file", path, "--recall", "0", "--sink", "9"]);
    let layers = given.heads.as_ref().expect("heads").layers();
    assert_eq!(layers[0][0].name(), "interval-slash");
    assert_eq!((given.selection.recall, given.selection.sink), (0.0, 9));
    std::fs::write(path, "[[]]").expect("write");
    let error = format!(
        "{:#}",
        settings(&["--heads-file", path]).expect_err("refused")
    );
    assert!(
        error.contains("--heads-file") && error.contains("layer 0"),
        "{error}"
    );
}

#[test]
fn what_contradicts_itself_is_refused_with_the_way_out() {
    for (flags, words) in [
        (&["--preset", "turbo"][..], &["`turbo`", "balanced"][..]),
        (
            &["--preset", "exact", "--attention", "sparse"],
            &["exact", "--preset safe"],
        ),
        (
            &["--preset", "exact", "--recall", "0.9"],
            &["--recall", "exact", "--preset balanced"],
        ),
        (
            &["--preset", "exact", "--window", "9"],
            &["--window", "exact"],
        ),
        (
            &["--preset", "safe", "--pattern", "hybrid"],
            &["cannot be used with"],
        ),
        (
            &["--heads-file", "x", "--pattern", "hybrid"],
            &["cannot be used with"],
        ),
        (
            &["--pattern", "triangular", "--recall", "0.9"],
            &["--recall", "triangular", "--preset balanced"],
        ),
        (
            &["--pattern", "triangular", "--granularity", "per-kv-head"],
            &["--granularity"],
        ),
        (
            &["--preset", "fast", "--recall", "1.5"],
            &["recall", "1.5", "between 0 and 1"],
        ),
        (&["--preset", "fast", "--recall", "NaN"], &["recall", "NaN"]),
        (
            &["--preset", "fast", "--error=-1"],
            &["error", "-1", "not negative"],
        ),
        (
            &["--preset", "fast", "--error", "inf"],
            &["error", "finite"],
        ),
        (
            &["--pattern", "hybrid", "--error", "0.1"],
            &["--error", "hybrid", "--preset balanced"],
        ),
        (
            &["--preset", "safe", "--correction", "mean"],
            &["--correction", "--pattern dynamic"],
        ),
        (
            &["--preset", "fast", "--window", "0"],
            &["window", "at least 1"],
        ),
        (
            &["--heads-file", "no-such.json"],
            &["no-such.json", "search"],
        ),
        (&["--pattern", "star"], &["star", "dynamic"]),
    ] {
        let error = format!("{:#}", settings(flags).expect_err("refused"));
        for word in words {
            assert!(error.contains(word), "{flags:?}: {error}");
        }
    }
}
