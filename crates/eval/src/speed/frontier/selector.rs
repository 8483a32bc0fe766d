//! Selectors of keys, in the grammar of attentions: `dynamic,hybrid:correction=none,baseline:minference`.

use sparse_accelerate::{
    AttentionMode, AttentionSettings, FixedBlocks, IndexSelector, Preset, index::QUERY_TILE,
    select::Prices,
};
use sparse_accelerate_engine::attention::{NamedAttention, parse_attentions};

use crate::speed::SpeedError;

/// The selector whose length decides.
const AUTO: &str = "auto";

/// A selector of keys, by its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    name: String,
    settings: AttentionSettings,
}

/// An error that no choice exceeds.
const UNLIMITED: f32 = 1e6;

impl Selector {
    /// Makes the selector `auto`: preset `balanced`, dense below the least sparse length.
    pub fn auto() -> Self {
        Self {
            name: AUTO.into(),
            settings: Preset::Balanced.settings(),
        }
    }

    /// Makes the selection of preset `balanced`, which runs whole, with attention over as many blocks as it keeps on
    /// a trained model: inputs that are made up do not tell how much that is.
    pub(in crate::speed) fn balanced_at(density: f64, [heads, kv_heads]: [usize; 2]) -> Self {
        let settings = Preset::Balanced.settings();
        let imposed = FixedBlocks {
            heads: settings.choices(heads, kv_heads),
            block: QUERY_TILE,
            density,
            seed: 1,
        };
        Self {
            name: Preset::Balanced.name().into(),
            settings: AttentionSettings {
                mode: AttentionMode::Sparse,
                imposed: Some(imposed),
                ..settings
            },
        }
    }

    /// Gives its text.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether it decides by the prompt's length.
    pub fn is_auto(&self) -> bool {
        self.settings.mode == AttentionMode::Auto
    }

    /// Tells whether it works to a recall floor of the caller's.
    pub fn has_floor(&self) -> bool {
        self.settings.selects() && self.settings.selector.is_none() && !self.is_auto()
    }

    /// Gives the published selector it is, if it is one.
    pub(super) fn published(&self) -> Option<&dyn IndexSelector> {
        self.settings.selector.as_deref()
    }

    /// Makes its settings at a recall floor, without a limit for the error, on a device with these prices and least sparse length; a published
    /// selector reads none of them.
    pub(super) fn settings(
        &self,
        floor: Option<f64>,
        costs: Prices,
        min_sparse_len: Option<usize>,
    ) -> AttentionSettings {
        let mut settings = self.settings.clone();
        if let Some(floor) = floor {
            settings.selection.recall = floor as f32;
            // The estimate is judged: what an error limit adds would hide it.
            settings.selection.error = UNLIMITED;
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
                settings: named.settings,
            },
        }
    }
}

/// Reads selectors separated by commas, as [`parse_attentions`] reads attentions.
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
        let mut named = parse_attentions(item).map_err(|error| wrong(error.to_string()))?;
        let selector = Selector::from(named.swap_remove(0));
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
        assert_eq!(
            parse_selectors("auto").unwrap(),
            std::slice::from_ref(&auto)
        );
        assert!(!auto.has_floor() && parse_selectors("dynamic").unwrap()[0].has_floor());
        assert!(!parse_selectors("triangular").unwrap()[0].has_floor());
    }

    #[test]
    fn baselines_go_by_their_own_names() {
        let text = "baseline:minference,baseline:xattention:stride=8";
        let selectors = parse_selectors(text).unwrap();
        let published = selectors.iter().filter_map(Selector::published);
        let names: Vec<String> = published.map(IndexSelector::name).collect();
        assert_eq!(
            names,
            [
                "minference:vertical=1000:slash=6096",
                "xattention:stride=8:threshold=0.9"
            ]
        );
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
