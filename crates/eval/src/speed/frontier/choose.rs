//! The oracle's choice for a query tile: the fewest key blocks that hold a share of the mass.

/// Blocks kept out of `mass`, the softmax mass of every key block up to the diagonal, the last one: the
/// first and the last, then the largest until the share of all mass is reached.
pub(super) fn fewest(mass: &[f64], share: f64) -> Vec<bool> {
    let mut kept = vec![false; mass.len()];
    let (Some(first), Some(last)) = (mass.first(), mass.last()) else {
        return kept;
    };
    let mut held = *first;
    kept[0] = true;
    let diagonal = mass.len() - 1;
    if diagonal > 0 {
        kept[diagonal] = true;
        held += last;
    }
    let wanted = share * mass.iter().sum::<f64>();
    let mut others: Vec<usize> = (1..diagonal).collect();
    others.sort_by(|a, b| mass[*b].total_cmp(&mass[*a]));
    for block in others {
        if held >= wanted {
            break;
        }
        kept[block] = true;
        held += mass[block];
    }
    kept
}

/// Causal pairs of `rows` query rows from position `first` with the keys `start..start + size`.
pub(super) fn pairs(first: usize, rows: usize, start: usize, size: usize) -> u64 {
    let seen = |p: usize| (p + 1).saturating_sub(start).min(size) as u64;
    (first..first + rows).map(seen).sum()
}

/// Query blocks that are sampled out of `blocks`: `count` of them, or all, in the middles of as many
/// equal parts.
pub(super) fn spread(blocks: usize, count: usize) -> Vec<usize> {
    let count = count.min(blocks);
    (0..count)
        .map(|i| (2 * i + 1) * blocks / (2 * count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_until_the_share_is_held() {
        let mass = [0.05, 0.1, 0.4, 0.2, 0.05, 0.2];
        // The first and the last hold 0.25; with the block of 0.4 that is 0.65.
        let kept = |share| -> Vec<usize> {
            let kept = fewest(&mass, share);
            (0..mass.len()).filter(|block| kept[*block]).collect()
        };
        assert_eq!(kept(0.2), [0, 5]);
        assert_eq!(kept(0.6), [0, 2, 5]);
        assert_eq!(kept(0.7), [0, 2, 3, 5]);
        assert_eq!(kept(1.1), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_tile_of_one_block_keeps_it() {
        assert_eq!(fewest(&[1.0], 0.5), [true]);
        assert!(fewest(&[], 0.5).is_empty());
    }

    #[test]
    fn pairs_are_causal() {
        assert_eq!(pairs(128, 64, 0, 128), 64 * 128);
        assert_eq!(pairs(128, 64, 128, 64), 64 * 65 / 2);
        assert_eq!(pairs(128, 64, 192, 64), 0);
        assert_eq!(pairs(10, 1, 8, 64), 3);
    }

    #[test]
    fn samples_are_spread_and_never_repeat() {
        assert_eq!(spread(4, 2), [1, 3]);
        assert_eq!(spread(3, 48), [0, 1, 2]);
        let many = spread(1000, 48);
        assert_eq!(many.len(), 48);
        assert!(many.windows(2).all(|pair| pair[1] - pair[0] >= 20));
    }
}
