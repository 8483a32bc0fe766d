//! Speed: time to first token, decoding, and the attention of one layer, as rows of a run file.
//!
//! Dense is measured first at every length, for its hidden state is what the others are compared with;
//! tables put it last. A measurement that the device cannot do is an error with words for a
//! [`SkippedRow`](sparse_accelerate_report::record::SkippedRow); it does not end a run.

mod calibrate;
mod decode;
mod density;
mod error;
mod frontier;
mod kernel;
mod memory;
mod oracle;
mod prompt;
mod timing;
mod ttft;

pub use calibrate::{CalibrateSettings, calibrate};
pub use decode::{DecodeSettings, decode};
pub use density::ForcedDensity;
pub use error::SpeedError;
pub use frontier::{
    Family, Frontier, FrontierSettings, FrontierShape, LayersSettings, SHARES, Selector, layers,
    parse_selectors,
};
pub use kernel::{KernelSettings, KernelShape, kernel};
pub use prompt::{random_ids, repeated};
pub use ttft::{Measured, TtftSettings, ttft};

use burn::tensor::DType;
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::attention::NamedAttention;

/// One attention of a comparison at one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Names the rows.
    pub name: String,
    /// The settings of its attention.
    pub settings: sparse_accelerate::AttentionSettings,
    /// `true` if its density is imposed.
    pub forced: bool,
}

impl Case {
    /// The case that others are compared with.
    pub fn dense() -> Self {
        Self {
            name: "dense".into(),
            settings: sparse_accelerate::AttentionSettings::dense(),
            forced: false,
        }
    }

    /// Tells whether it is [`Case::dense`].
    pub fn is_dense(&self) -> bool {
        self.name == "dense"
    }
}

impl From<NamedAttention> for Case {
    fn from(named: NamedAttention) -> Self {
        Self {
            name: named.name,
            settings: named.settings,
            forced: false,
        }
    }
}

/// The element type of tensors.
fn element(dtype: WeightDtype) -> DType {
    match dtype {
        WeightDtype::Bf16 => DType::BF16,
        WeightDtype::F16 => DType::F16,
        WeightDtype::F32 => DType::F32,
    }
}

/// The middle value, or the mean of the two in the middle; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        n => sorted[n / 2],
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn median_of_even_and_odd() {
        assert_eq!(super::median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(super::median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(super::median(&[]).is_nan());
    }
}
