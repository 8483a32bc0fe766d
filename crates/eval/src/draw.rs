//! Random draws that are the same everywhere for the same seed.
//!
//! ChaCha8, and only its 64-bit outputs: a library's ranges and shuffles may change between versions.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The seed of one sample: independent of which others are run. `parts` say which.
pub(crate) fn sample_seed(seed: u64, parts: &[&dyn std::fmt::Display]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    for part in parts {
        hash.update(part.to_string().as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    let first: [u8; 8] = std::array::from_fn(|i| digest[i]);
    u64::from_le_bytes(first)
}

/// A stream of draws. A clone draws the same again.
#[derive(Debug, Clone)]
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `n`, which is at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// A number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `count` letters from `first` on, of the 26 there.
    pub(crate) fn letters(&mut self, first: u8, count: usize) -> String {
        (0..count)
            .map(|_| char::from(first + self.below(26) as u8))
            .collect()
    }

    /// A number of exactly `digits` digits.
    pub(crate) fn number(&mut self, digits: u32) -> String {
        let least = 10usize.pow(digits - 1);
        (least + self.below(9 * least)).to_string()
    }

    /// A random UUID, version 4.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.0.next_u64(), self.0.next_u64());
        let bits = (u128::from(high) << 64) | u128::from(low);
        let bits = (bits & !(0xf << 76) & !(0xc << 60)) | (0x4 << 76) | (0x8 << 60);
        let hex = format!("{bits:032x}");
        [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-")
    }

    /// Shuffles in place (Fisher-Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_these_for_ever() {
        let mut draw = Draw::new(sample_seed(7, &[&"vt", &4096, &0]));
        let drawn = format!(
            "{} {} {}",
            draw.below(1000),
            draw.number(7),
            draw.letters(b'A', 5)
        );
        assert_eq!(drawn, "95 7845195 HSKDS");
    }

    #[test]
    fn uuids_say_their_version() {
        let mut draw = Draw::new(1);
        for _ in 0..50 {
            let uuid = draw.uuid();
            assert_eq!(uuid.len(), 36);
            assert_eq!(&uuid[14..15], "4", "{uuid}");
            assert!("89ab".contains(&uuid[19..20]), "{uuid}");
        }
    }

    #[test]
    fn samples_differ_by_every_part() {
        let seeds = [
            sample_seed(1, &[&"vt", &1, &2]),
            sample_seed(2, &[&"vt", &1, &2]),
            sample_seed(1, &[&"vt", &12, &0]),
            sample_seed(1, &[&"vt", &1, &20]),
            sample_seed(1, &[&"cwe", &1, &2]),
        ];
        for (i, seed) in seeds.iter().enumerate() {
            assert!(!seeds[..i].contains(seed));
        }
    }
}
