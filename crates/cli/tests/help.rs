//! Help texts say the defaults that the library has.

mod support;

use sparse_accelerate::{AttentionSettings, Pattern, Preset, Selection, Triangular};
use support::program;

/// The help of a command, every run of blanks as one.
fn help(command: &[&str]) -> String {
    let output = program().args(command).arg("--help").output();
    let output = output.expect("the program").stdout;
    let text = String::from_utf8(output).expect("UTF-8");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The part of a help that stands between a flag and the next one.
fn flag<'a>(help: &'a str, name: &str) -> &'a str {
    let at = help.find(&format!(" {name} <")).expect(name);
    let rest = &help[at + name.len()..];
    &rest[..rest.find(" --").unwrap_or(rest.len())]
}

#[test]
fn flags_of_attention_have_the_defaults_of_the_settings() {
    let help = help(&["run"]);
    let (settings, selection) = (AttentionSettings::default(), Selection::default());
    let words = serde_json::to_value(selection).expect("JSON");
    let word = |field: &str| words[field].as_str().expect(field).to_owned();
    let triangular = Triangular::default();
    let by_pattern = |one: usize, other: usize| match one == other {
        true => format!("[default: {one}]"),
        false => format!("[default: {one} with triangular, else {other}]"),
    };
    for (name, expected) in [
        ("--attention", format!("{} tokens", settings.min_sparse_len)),
        (
            "--pattern",
            format!("[default: {}]", settings.pattern.name()),
        ),
        ("--recall", format!("else {}]", selection.recall)),
        ("--error", format!("else {}]", selection.error)),
        ("--correction", format!("else {}]", word("correction"))),
        (
            "--granularity",
            format!("[default: {}]", word("granularity")),
        ),
        ("--sink", by_pattern(triangular.sink, selection.sink)),
        ("--window", by_pattern(triangular.window, selection.window)),
        ("--last", by_pattern(triangular.last, selection.last)),
    ] {
        let text = flag(&help, name);
        assert!(text.contains(&expected), "{name}: {text}, not {expected}");
    }
    for preset in [Preset::Safe, Preset::Balanced, Preset::Fast] {
        let error = format!("{:.2}", preset.settings().selection.error);
        assert!(help.contains(&error), "{} {error}", preset.name());
    }
}

#[test]
fn the_list_of_attentions_has_every_parameter_and_the_length_of_auto() {
    let help = help(&["eval"]);
    let from = AttentionSettings::default().min_sparse_len;
    assert!(
        help.contains(&format!("sparse from {from} tokens")),
        "{help}"
    );
    let patterns = Pattern::named();
    let own = patterns.iter().flat_map(|pattern| pattern.parameters());
    for parameter in own
        .chain(&Selection::PARAMETERS)
        .chain(&Selection::GROUP_PARAMETERS)
    {
        let form = format!("{}={}", parameter.name, parameter.form);
        assert!(help.contains(&form), "{form}");
    }
}

#[test]
fn the_lists_of_baselines_have_all_with_their_defaults() {
    for command in [&["eval"][..], &["bench", "frontier"]] {
        let help = help(command);
        for baseline in sparse_accelerate_baselines::Baseline::all() {
            let text = format!("baseline:{baseline}");
            assert!(help.contains(&text), "{command:?}: {text}");
        }
    }
    let help = help(&["bench", "ttft"]);
    assert!(help.contains("baseline:NAME"), "{help}");
}

#[test]
fn the_readme_has_the_floors_of_the_presets_and_the_length_of_auto() {
    let readme = include_str!("../../../README.md");
    for preset in [Preset::Safe, Preset::Balanced, Preset::Fast] {
        let selection = preset.settings().selection;
        let (recall, error) = (selection.recall, selection.error);
        let row = format!("| `{}` | {recall:.2} | {error:.2} ", preset.name());
        assert!(readme.contains(&row), "{row}");
    }
    let from = AttentionSettings::default().min_sparse_len / 1024;
    assert!(
        readme.contains(&format!("from {from}K tokens on")),
        "{from}K"
    );
}

#[test]
fn the_readme_of_the_baselines_has_their_defaults() {
    let readme = include_str!("../../baselines/README.md");
    for baseline in sparse_accelerate_baselines::Baseline::all() {
        let row = format!("| `{}` |", baseline.name());
        let row = readme.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("no row of {baseline}"));
        for part in baseline.to_string().split(':').skip(1) {
            let (field, value) = part.split_once('=').expect("a field");
            assert!(
                row.contains(&format!("`{field}` {value}")),
                "{baseline}: {row}"
            );
        }
    }
}
