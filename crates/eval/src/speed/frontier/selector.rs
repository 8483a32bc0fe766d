//! `--selectors dynamic,hybrid:query-heads:none`: what chooses keys from the input.

use sparse_accelerate::{
    AttentionSettings, BlockCluster, Dynamic, IntervalSlash, Pattern, Preset, Selection,
    Triangular,
    select::{Correction, Granularity, Prices},
};
use sparse_accelerate_baselines::Baseline;

use crate::speed::SpeedError;

/// The selector whose length decides, as `--attention auto` has it.
const AUTO: &str = "auto";

/// Something that chooses keys, by its name on the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// A pattern of this library.
    Own(Pattern, Granularity, Correction),
    /// A published selector.
    Baseline(Baseline),
    /// Preset `balanced`, dense below the least sparse length.
    Auto,
}

impl Selector {
    /// The selector that `--attention auto` takes.
    pub fn auto() -> Self {
        Self {
            name: AUTO.into(),
            kind: Kind::Auto,
        }
    }

    /// Its name on the command line.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether it decides by the prompt's length.
    pub fn is_auto(&self) -> bool {
        self.kind == Kind::Auto
    }

    /// Tells whether it works to a recall floor of the caller's.
    pub fn has_floor(&self) -> bool {
        match &self.kind {
            Kind::Own(pattern, ..) => pattern.selects(),
            Kind::Baseline(_) | Kind::Auto => false,
        }
    }

    /// The published selector it is, if it is one.
    pub(super) fn baseline(&self) -> Option<&Baseline> {
        match &self.kind {
            Kind::Baseline(baseline) => Some(baseline),
            Kind::Own(..) | Kind::Auto => None,
        }
    }

    /// Makes its settings at a recall floor, on a device with these prices and least sparse length; of no
    /// meaning for a baseline.
    pub(super) fn settings(
        &self,
        floor: Option<f64>,
        costs: Prices,
        min_sparse_len: Option<usize>,
    ) -> AttentionSettings {
        let mut settings = match &self.kind {
            Kind::Own(pattern, granularity, correction) => AttentionSettings {
                selection: Selection {
                    granularity: *granularity,
                    correction: *correction,
                    ..Selection::default()
                },
                ..AttentionSettings::sparse(*pattern)
            },
            Kind::Baseline(_) | Kind::Auto => Preset::Balanced.settings(),
        };
        if let Some(floor) = floor {
            settings.selection.recall = floor as f32;
        }
        if let Some(length) = min_sparse_len {
            settings.min_sparse_len = length;
        }
        settings.selection.costs = costs;
        settings
    }
}

/// Reads selectors separated by commas: `dynamic`, `paper`, `hybrid`, `interval-slash`, `block-cluster`,
/// `triangular`, `auto`, or a [`Baseline`] as it reads itself; after the first five, separated by colons, who chooses (`kv-heads`,
/// `query-heads`) and what stands in for the rest (`none`, `mean`, `gaussian`).
///
/// # Errors
/// A name or a part that means nothing, or a selector given twice.
pub fn parse_selectors(text: &str) -> Result<Vec<Selector>, SpeedError> {
    let mut all: Vec<Selector> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let wrong = |part: &str| SpeedError::Selector {
            got: item.into(),
            part: part.into(),
        };
        if all.iter().any(|known| known.name == item) {
            return Err(wrong("given twice"));
        }
        all.push(parse(item).map_err(|part| wrong(&part))?);
    }
    Ok(all)
}

fn parse(item: &str) -> Result<Selector, String> {
    let mut parts = item.split(':');
    let name = parts.next().unwrap_or_default();
    let (mut granularity, mut correction) = (Granularity::PerKvHead, Correction::Mean);
    let pattern = match name {
        "dynamic" => Pattern::Dynamic(Dynamic::default()),
        "paper" => {
            correction = Correction::None;
            Pattern::Dynamic(Dynamic {
                hybrid: false,
                ..Dynamic::default()
            })
        }
        "hybrid" => Pattern::Hybrid(Dynamic::default()),
        "interval-slash" => Pattern::IntervalSlash(IntervalSlash::default()),
        "block-cluster" => Pattern::BlockCluster(BlockCluster::default()),
        "triangular" => Pattern::Triangular(Triangular::default()),
        AUTO => match parts.next() {
            None => return Ok(Selector::auto()),
            Some(part) => return Err(part.into()),
        },
        _ if Baseline::all()
            .iter()
            .any(|baseline| baseline.name() == name) =>
        {
            let baseline = Baseline::parse(item).map_err(|error| error.to_string())?;
            return Ok(Selector {
                name: item.into(),
                kind: Kind::Baseline(baseline),
            });
        }
        _ => return Err(name.into()),
    };
    for part in parts {
        match part {
            _ if !pattern.selects() => return Err(part.into()),
            "kv-heads" => granularity = Granularity::PerKvHead,
            "query-heads" => granularity = Granularity::PerQueryHead,
            "none" => correction = Correction::None,
            "mean" => correction = Correction::Mean,
            "gaussian" => correction = Correction::GAUSSIAN,
            _ => return Err(part.into()),
        }
    }
    Ok(Selector {
        name: item.into(),
        kind: Kind::Own(pattern, granularity, correction),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, floor: f64) -> AttentionSettings {
        let selectors = parse_selectors(text).unwrap();
        selectors[0].settings(Some(floor), Prices::default(), Some(2048))
    }

    #[test]
    fn parts_say_who_chooses_and_what_stands_in() {
        let got = settings("hybrid:query-heads:mean", 0.9);
        assert_eq!(got.pattern, Pattern::Hybrid(Dynamic::default()));
        assert_eq!(got.selection.granularity, Granularity::PerQueryHead);
        assert_eq!(got.selection.correction, Correction::Mean);
        assert_eq!(got.selection.recall, 0.9);
        assert_eq!(
            settings("paper", 0.8).selection.correction,
            Correction::None
        );
    }

    #[test]
    fn auto_is_the_preset_with_the_length_of_the_device() {
        let mut expected = Preset::Balanced.settings();
        expected.min_sparse_len = 2048;
        let auto = Selector::auto();
        assert_eq!(auto.settings(None, Prices::default(), Some(2048)), expected);
        assert!(!auto.has_floor() && parse_selectors("dynamic").unwrap()[0].has_floor());
    }

    #[test]
    fn baselines_go_by_their_own_names() {
        let selectors = parse_selectors("minference,xattention:stride=8").unwrap();
        let baselines: Vec<&Baseline> = selectors.iter().filter_map(Selector::baseline).collect();
        assert!(matches!(baselines[0], Baseline::MInference { .. }));
        assert!(matches!(
            baselines[1],
            Baseline::XAttention { stride: 8, .. }
        ));
        assert!(!selectors[0].has_floor() && selectors[1].name() == "xattention:stride=8");
    }

    #[test]
    fn what_means_nothing_is_named() {
        for (text, wrong) in [
            ("magic", "magic"),
            ("", ""),
            ("dynamic:fast", "fast"),
            ("triangular:mean", "mean"),
            ("auto:mean", "mean"),
            ("hybrid,hybrid", "given twice"),
            ("xattention:mean", "one of stride, threshold"),
        ] {
            match parse_selectors(text) {
                Err(SpeedError::Selector { part, .. }) => assert!(part.contains(wrong), "{part}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
