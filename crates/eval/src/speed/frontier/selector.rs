//! Selectors of keys, in the grammar of attentions: `dynamic,hybrid:correction=none,baseline:minference`.

use sparse_accelerate::{AttentionMode, AttentionSettings, Preset, select::Prices};
use sparse_accelerate_baselines::Baseline;
use sparse_accelerate_engine::attention::{NamedAttention, parse_attentions};

use crate::speed::SpeedError;

/// The selector whose length decides.
const AUTO: &str = "auto";
/// Begins the text of a published selector.
const BASELINE: &str = "baseline:";

/// A selector of keys, by its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// An attention of this library.
    Own(AttentionSettings),
    /// A published selector.
    Baseline(Baseline),
}

impl Selector {
    /// Makes the selector `auto`: preset `balanced`, dense below the least sparse length.
    pub fn auto() -> Self {
        Self {
            name: AUTO.into(),
            kind: Kind::Own(Preset::Balanced.settings()),
        }
    }

    /// Gives its text.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether it decides by the prompt's length.
    pub fn is_auto(&self) -> bool {
        matches!(&self.kind, Kind::Own(settings) if settings.mode == AttentionMode::Auto)
    }

    /// Tells whether it works to a recall floor of the caller's.
    pub fn has_floor(&self) -> bool {
        match &self.kind {
            Kind::Own(settings) => settings.selects() && !self.is_auto(),
            Kind::Baseline(_) => false,
        }
    }

    /// Gives the published selector it is, if it is one.
    pub(super) fn baseline(&self) -> Option<&Baseline> {
        match &self.kind {
            Kind::Baseline(baseline) => Some(baseline),
            Kind::Own(_) => None,
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
            Kind::Own(settings) => settings.clone(),
            Kind::Baseline(_) => Preset::Balanced.settings(),
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

impl From<NamedAttention> for Selector {
    fn from(named: NamedAttention) -> Self {
        match named.name == AUTO {
            true => Self::auto(),
            false => Self {
                name: named.name,
                kind: Kind::Own(named.settings),
            },
        }
    }
}

/// Reads selectors separated by commas: attentions as [`parse_attentions`] reads them, and
/// `baseline:NAME[:parameter=value]...` as [`Baseline::parse`] reads what follows the first colon.
///
/// # Errors
/// An item that means nothing, or is given twice.
pub fn parse_selectors(text: &str) -> Result<Vec<Selector>, SpeedError> {
    let mut all: Vec<Selector> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let wrong = |reason: String| SpeedError::Selector {
            got: item.into(),
            reason,
        };
        let selector = match item.strip_prefix(BASELINE) {
            Some(baseline) => Selector {
                name: item.into(),
                kind: Kind::Baseline(
                    Baseline::parse(baseline).map_err(|error| wrong(error.to_string()))?,
                ),
            },
            None => {
                let mut named = parse_attentions(item).map_err(|error| wrong(error.to_string()))?;
                Selector::from(named.swap_remove(0))
            }
        };
        if all.contains(&selector) {
            return Err(wrong("given twice".into()));
        }
        all.push(selector);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use sparse_accelerate::{
        Dynamic, Pattern,
        select::{Correction, Granularity},
    };

    use super::*;

    fn settings(text: &str, floor: f64) -> AttentionSettings {
        let selectors = parse_selectors(text).unwrap();
        selectors[0].settings(Some(floor), Prices::default(), Some(2048))
    }

    #[test]
    fn a_selector_is_an_attention_with_its_parameters() {
        let got = settings("hybrid:granularity=per-kv-head:correction=none", 0.9);
        assert_eq!(got.pattern, Pattern::Hybrid(Dynamic::default()));
        assert_eq!(got.selection.granularity, Granularity::PerKvHead);
        assert_eq!(got.selection.correction, Correction::None);
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
        assert_eq!(parse_selectors("auto").unwrap(), [auto.clone()]);
        assert!(!auto.has_floor() && parse_selectors("dynamic").unwrap()[0].has_floor());
        assert!(!parse_selectors("triangular").unwrap()[0].has_floor());
    }

    #[test]
    fn baselines_go_by_their_own_names() {
        let text = "baseline:minference,baseline:xattention:stride=8";
        let selectors = parse_selectors(text).unwrap();
        let baselines: Vec<&Baseline> = selectors.iter().filter_map(Selector::baseline).collect();
        assert!(matches!(baselines[0], Baseline::MInference { .. }));
        assert!(matches!(
            baselines[1],
            Baseline::XAttention { stride: 8, .. }
        ));
        assert!(!selectors[0].has_floor());
        assert_eq!(selectors[1].name(), "baseline:xattention:stride=8");
    }

    #[test]
    fn what_means_nothing_is_named() {
        for (text, wrong) in [
            ("magic", "magic"),
            ("", "``"),
            ("dynamic:fast", "fast"),
            ("triangular:correction=mean", "mean"),
            ("auto:correction=mean", "no parameters"),
            ("hybrid,hybrid", "given twice"),
            ("minference", "minference"),
            ("baseline:magic", "one of a-shape"),
            ("baseline:xattention:mean", "one of stride, threshold"),
        ] {
            match parse_selectors(text) {
                Err(SpeedError::Selector { reason, .. }) => {
                    assert!(reason.contains(wrong), "{reason}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
