//! Names, parameters, and what is refused.

#![allow(clippy::unwrap_used)]

use sparse_accelerate::{
    IntervalSlash, Triangular,
    select::{Correction, Granularity, Selection},
};

use super::*;

fn one(text: &str) -> AttentionSettings {
    let mut list = parse_attentions(text).unwrap();
    assert_eq!(list.len(), 1);
    list.remove(0).settings
}

#[test]
fn parameters_are_read_and_the_rest_is_default() {
    let list = parse_attentions("dense,triangular:sink=1:last=0").unwrap();
    assert_eq!(list[0].settings, AttentionSettings::dense());
    let expected = Triangular {
        sink: 1,
        last: 0,
        ..Triangular::default()
    };
    assert_eq!(
        list[1].settings,
        AttentionSettings::sparse(Pattern::Triangular(expected))
    );
    assert_eq!(list[1].name, "triangular:sink=1:last=0");
}

#[test]
fn every_name_but_heads_and_baseline_stands_alone() {
    let alone = |name: &&str| !["heads", "baseline"].contains(name);
    for name in ATTENTIONS.into_iter().filter(alone) {
        let settings = one(name);
        let dense = matches!(name, "dense" | "exact");
        let mode = match name {
            "dense" | "exact" => AttentionMode::Dense,
            "auto" => AttentionMode::Auto,
            _ => AttentionMode::Sparse,
        };
        assert_eq!(settings.mode, mode, "{name}");
        let presets = ["safe", "balanced", "fast", "paper"].contains(&name);
        assert_eq!(
            presets,
            named(name).unwrap().selection != Selection::default() || name == "balanced",
            "{name}"
        );
        assert!(!dense || settings == AttentionSettings::dense());
    }
}

#[test]
fn a_selection_takes_all_its_parameters() {
    let settings = one(
        "dynamic:recall=0.5:sink=1:window=2:last=3:columns=4:slashes=5:alpha=0.25:correction=mean:\
         granularity=per-query-head:dense_layers=6:column_share=7.5:slash_share=8",
    );
    let expected = Selection {
        recall: 0.5,
        correction: Correction::Mean,
        granularity: Granularity::PerQueryHead,
        dense_layers: 6,
        sink: 1,
        window: 2,
        last: 3,
        column_share: 7.5,
        slash_share: 8.0,
        ..Selection::default()
    };
    assert_eq!(settings.selection, expected);
    let Pattern::Dynamic(dynamic) = settings.pattern else {
        panic!("{:?}", settings.pattern);
    };
    let lists = dynamic.interval_slash;
    assert_eq!((lists.columns, lists.slashes), (4, 5));
    assert_eq!(dynamic.block_cluster.alpha, 0.25);
    let safe = one("safe:recall=0.99").selection;
    assert_eq!((safe.recall, safe.dense_layers), (0.99, 2));
    assert_eq!(
        one("interval-slash:columns=9").pattern,
        Pattern::IntervalSlash(IntervalSlash {
            columns: 9,
            ..IntervalSlash::default()
        })
    );
}

#[test]
fn what_means_nothing_is_refused_with_its_text() {
    for (text, part) in [
        ("", "``"),
        ("flash", "`flash`"),
        ("flash", "block-cluster, hybrid"),
        ("dense:sink=1", "`sink=1`"),
        ("exact:recall=1", "takes no parameters"),
        ("auto:recall=1", "takes no parameters"),
        ("triangular:sink", "`sink`"),
        ("triangular:sink=-1", "`sink=-1`"),
        ("triangular:recall=0.5", "sink=N, window=N or last=N"),
        ("triangular:window=0", "window"),
        ("block-cluster:columns=1", "alpha=X"),
        ("hybrid:correction=median", "correction=none|mean|gaussian"),
        ("balanced:recall=1.5", "between 0 and 1"),
        ("balanced:recall=NaN", "between 0 and 1"),
        ("block-cluster:alpha=2", "between 0 and 1"),
        ("heads", "heads:file=FILE.json"),
        ("heads:recall=1", "heads:file=FILE.json"),
        ("heads:file=no-such.json", "no-such.json"),
        ("dense,dense", "twice"),
        ("baseline", "one of a-shape, tri-shape, minference"),
        ("baseline:", "one of a-shape"),
        ("baseline:magic", "`magic`"),
        ("baseline:magic", "flashprefill-v2, trianglemix"),
        ("baselines:minference", "heads, baseline"),
        ("baseline:xattention:mean=1", "one of stride, threshold"),
        ("baseline:xattention:stride=3", "power of two"),
        ("baseline:minference,baseline:minference", "twice"),
        ("minference", "`minference`"),
    ] {
        let error = parse_attentions(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_pattern_file_is_named_with_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heads.json");
    std::fs::write(&path, r#"[[{"kind": "dense"}]]"#).unwrap();
    let text = format!("heads:file={}:recall=0:sink=7", path.display());
    let list = parse_attentions(&text).unwrap();
    let settings = &list[0].settings;
    let heads = settings.heads.as_ref().unwrap();
    assert_eq!(heads.layers(), [vec![Pattern::Dense]]);
    assert_eq!(
        (settings.selection.recall, settings.selection.sink),
        (0.0, 7)
    );
    assert!(list[0].name.starts_with(&format!("{text}#")));
    std::fs::write(&path, r#"[[{"kind": "triangular"}]]"#).unwrap();
    assert_ne!(parse_attentions(&text).unwrap()[0].name, list[0].name);
}

#[test]
fn every_baseline_is_read_as_it_is_listed() {
    for text in baselines() {
        let name = text.split(':').next().unwrap();
        let list = parse_attentions(&format!("baseline:{text},baseline:{name}")).unwrap();
        assert_eq!(list[0].name, format!("baseline:{text}"));
        assert_eq!(list[1].name, format!("baseline:{name}"));
        // A selector's name has every parameter: left out or written, they are the same.
        assert_eq!(list[0].settings, list[1].settings);
        let selector = list[0].settings.selector.as_ref().unwrap();
        assert_eq!(selector.name(), text);
        assert!(list[0].settings.selects() && list[0].settings.is_sparse_at(1));
        list[0].settings.validate().unwrap();
        assert!(list[0].settings.parameters().is_empty());
    }
    let other = one("baseline:minference:vertical=500:slash=60");
    assert_ne!(other, one("baseline:minference"));
    assert_eq!(
        other.selector.unwrap().name(),
        "minference:vertical=500:slash=60"
    );
}
