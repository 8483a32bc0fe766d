//! Known GPUs: what their makers publish, and which share of it this program reaches.
//!
//! For planning without the card. Memory, bandwidth and peak rates are public facts, each with its source in
//! `table`; shares are measured where a run says so, else stated.

mod table;

use serde::Serialize;
use thiserror::Error;

pub use table::CARDS;

/// A GPU as its maker describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    /// Name on the command line.
    pub name: &'static str,
    /// Words of a driver's name of the card, one after the other, without case; the longest match counts.
    pub title: &'static str,
    /// Memory that the driver reports, bytes; after error correction where that is on by default.
    pub memory: u64,
    /// Memory bandwidth, bytes per second.
    pub bandwidth: f64,
    /// Peak of dense bf16 matrix products with f32 sums, FLOP/s.
    pub peak: f64,
    /// Shares of the peak that a prefill reaches.
    pub shares: Shares,
}

/// Shares of a card's peak that a prefill reaches, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shares {
    /// Everything that is not attention, counted as its matrix products.
    pub linear: f64,
    /// Attention, counted as the products of the pairs it keeps.
    pub attention: f64,
    /// Where they come from.
    pub source: Source,
}

/// Where a number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "what", rename_all = "kebab-case")]
pub enum Source {
    /// Measured, by this run of the repository or on this device.
    Measured(&'static str),
    /// Assumed, for this reason.
    Stated(&'static str),
    /// Given by the caller.
    Given,
}

/// What a driver keeps for itself of the memory it reports: free memory of an idle card without a display is
/// 0.3 to 0.5 GiB below it.
pub const DRIVER_RESERVE: u64 = 512 << 20;

impl Card {
    /// Memory that a program can have, bytes.
    pub fn usable(&self) -> u64 {
        self.memory - DRIVER_RESERVE
    }

    /// Rate of everything that is not attention, FLOP/s.
    pub fn linear(&self) -> f64 {
        self.peak * self.shares.linear
    }

    /// Rate of attention, FLOP/s.
    pub fn attention(&self) -> f64 {
        self.peak * self.shares.attention
    }

    /// The card of a name on the command line, with or without its `rtx-`.
    ///
    /// # Errors
    /// [`UnknownCard`] with every known name.
    pub fn named(name: &str) -> Result<&'static Card, UnknownCard> {
        let name = name.trim().to_ascii_lowercase();
        let is = |card: &&Card| card.name == name || card.name.strip_prefix("rtx-") == Some(&name);
        CARDS.iter().find(is).ok_or(UnknownCard { got: name })
    }

    /// The card behind a driver's name for it, if it is known.
    pub fn of_device(name: &str, memory: Option<u64>) -> Option<&'static Card> {
        let split = |text: &str| -> Vec<String> {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            words.map(str::to_ascii_lowercase).collect()
        };
        let name = split(name);
        let holds = |card: &&Card| {
            let title = split(card.title);
            name.windows(title.len()).any(|words| *words == title)
        };
        // The A100 exists with two sizes under names that do not always say which.
        let far = |card: &&Card| card.memory.abs_diff(memory.unwrap_or(card.memory));
        let length = CARDS.iter().filter(holds).map(|card| card.title.len());
        let longest = length.max()?;
        let matching = CARDS.iter().filter(holds);
        matching
            .filter(|card| card.title.len() == longest)
            .min_by_key(far)
    }
}

/// A card that is not in the table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "device `{got}` is neither a known card nor a device of this machine; known cards: {}; a device is \
     auto, flex, wgpu[:n], vulkan[:n], metal[:n] or cuda[:n]",
    known()
)]
pub struct UnknownCard {
    /// The name.
    pub got: String,
}

fn known() -> String {
    let names: Vec<_> = CARDS.iter().map(|card| card.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (at, card) in CARDS.iter().enumerate() {
            assert_eq!(Card::named(card.name), Ok(card));
            assert!(CARDS[..at].iter().all(|other| other.name != card.name));
            assert!(card.memory > 8 << 30 && card.memory < 200 << 30, "{card:?}");
            assert!(card.bandwidth > 1e11 && card.peak > 1e13, "{card:?}");
            for share in [card.shares.linear, card.shares.attention] {
                assert!((0.3..0.9).contains(&share), "{card:?}");
            }
        }
        for (typed, name) in [(" RTX-A5000", "rtx-a5000"), ("5090", "rtx-5090")] {
            assert_eq!(Card::named(typed).map(|card| card.name), Ok(name));
        }
    }

    #[test]
    fn an_unknown_card_lists_the_known_ones() {
        let error = Card::named("rtx-9999").expect_err("unknown").to_string();
        for part in ["rtx-9999", "rtx-a5000", "h200", "cuda[:n]"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn drivers_names_lead_to_cards() {
        for (driver, memory, name) in [
            ("NVIDIA RTX A5000", None, "rtx-a5000"),
            ("NVIDIA GeForce RTX 3090", None, "rtx-3090"),
            ("NVIDIA H100 80GB HBM3", None, "h100"),
            ("NVIDIA H200", None, "h200"),
            ("NVIDIA L40S", None, "l40s"),
            ("NVIDIA L4", None, "l4"),
            ("NVIDIA A100-SXM4-80GB", Some(85_000_000_000), "a100-80g"),
            ("NVIDIA A100-PCIE", Some(42_000_000_000), "a100-40g"),
            ("NVIDIA A10", None, "a10"),
            ("NVIDIA RTX 6000 Ada Generation", None, "rtx-6000-ada"),
        ] {
            let found = Card::of_device(driver, memory).map(|card| card.name);
            assert_eq!(found, Some(name), "{driver}");
        }
        assert_eq!(
            Card::of_device("llvmpipe (LLVM 15.0.7, 256 bits)", None),
            None
        );
        for other in ["NVIDIA GeForce GTX 1080", "NVIDIA L40", "NVIDIA A1000"] {
            assert_eq!(Card::of_device(other, None), None, "{other}");
        }
    }

    #[test]
    fn a_24_gb_card_with_error_correction_has_22_gib() {
        let card = Card::named("rtx-a5000").expect("card");
        assert!((card.usable() as f64 / (1u64 << 30) as f64 - 22.0).abs() < 0.05);
        assert!((card.linear() / 1e12 - 65.5).abs() < 0.1);
    }
}
