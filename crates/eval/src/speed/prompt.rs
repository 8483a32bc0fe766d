//! Prompts of an exact length.

/// `length` token ids below `vocab`, from `seed` alone.
pub fn random_ids(vocab: usize, length: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    let below = |x: u64| ((u128::from(x) * vocab as u128) >> 64) as u32;
    (0..length).map(|_| below(next())).collect()
}

/// The first `length` of `ids`, repeated from the start where they are too few.
pub fn repeated(ids: &[u32], length: usize) -> Vec<u32> {
    ids.iter().copied().cycle().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_below_the_vocabulary_and_repeat_by_seed() {
        let ids = random_ids(100, 5000, 3);
        assert_eq!(ids, random_ids(100, 5000, 3));
        assert_ne!(ids, random_ids(100, 5000, 4));
        assert!(ids.iter().all(|id| *id < 100));
        assert!((0..100).all(|id| ids.contains(&id)));
    }

    #[test]
    fn short_texts_begin_again() {
        assert_eq!(repeated(&[1, 2, 3], 7), [1, 2, 3, 1, 2, 3, 1]);
        assert!(repeated(&[], 7).is_empty());
    }
}
