//! Stages at work on chunks: one after the other, and all at once.

/// Chunk lengths are multiples of this, but for the last.
const GRAIN: usize = 128;

/// When the last chunk leaves the last stage of a flow shop: `seconds[stage][chunk]` of work, in order; a
/// chunk enters a stage when the stage is free and the chunk has come from the stage before,
/// `transfer[stage][chunk]` after it left there.
pub fn flow_shop(seconds: &[Vec<f64>], transfer: &[Vec<f64>]) -> f64 {
    let chunks = seconds.first().map_or(0, Vec::len);
    let mut arrives = vec![0.0f64; chunks];
    for (work, away) in seconds.iter().zip(transfer) {
        let mut free = 0.0f64;
        for ((at, work), away) in arrives.iter_mut().zip(work).zip(away) {
            free = free.max(*at) + work;
            *at = free + away;
        }
    }
    arrives.last().copied().unwrap_or(0.0)
}

/// Cuts `total` tokens into `chunks` chunks that cost the same, more where one would be longer than
/// `longest`; `cost` is what the first so many tokens cost together.
pub(crate) fn equal_time(
    total: usize,
    chunks: usize,
    longest: usize,
    cost: impl Fn(usize) -> f64,
) -> Vec<usize> {
    let (all, longest, chunks) = (cost(total), longest.max(1), chunks.max(1));
    let mut sizes = Vec::new();
    let mut done = 0;
    for k in 1..=chunks {
        let wanted = all * k as f64 / chunks as f64;
        let (mut low, mut high) = (done, total);
        while low < high {
            let middle = low.midpoint(high);
            match cost(middle) < wanted {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let end = match k == chunks {
            true => total,
            false => (low / GRAIN * GRAIN).clamp(done, total),
        };
        while done < end {
            let size = (end - done).min(longest);
            sizes.push(size);
            done += size;
        }
    }
    sizes
}

/// `total` tokens in chunks of `size`, the last what is left.
pub(crate) fn fixed(total: usize, size: usize) -> Vec<usize> {
    let size = size.max(1);
    let whole = std::iter::repeat_n(size, total / size);
    let rest = (!total.is_multiple_of(size)).then_some(total % size);
    whole.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_shop_by_hand() {
        // Chunks of 2 and 3, then of 4 and 1: the second stage begins at 2 and never waits again.
        let work = [vec![2.0, 3.0], vec![4.0, 1.0]];
        let none = [vec![0.0; 2], vec![0.0; 2]];
        assert_eq!(flow_shop(&work, &none), 7.0);
        // The second chunk comes late: 2 + 3 + 1.5, then 1.
        let late = [vec![0.0, 1.5], vec![0.0; 2]];
        assert_eq!(flow_shop(&work, &late), 7.5);
        // Three equal stages and five chunks: (5 + 2) times one chunk.
        let equal = vec![vec![1.0; 5]; 3];
        let none = vec![vec![0.0; 5]; 3];
        assert_eq!(flow_shop(&equal, &none), 7.0);
        assert_eq!(flow_shop(&[], &[]), 0.0);
    }

    #[test]
    fn chunks_of_equal_cost_cover_the_prompt() {
        let cost = |n: usize| n as f64 + 3e-5 * (n as f64).powi(2) / 2.0;
        let sizes = equal_time(131_072, 16, 32_768, cost);
        assert_eq!(sizes.iter().sum::<usize>(), 131_072);
        assert_eq!(sizes.len(), 16);
        let mut at = 0;
        for size in &sizes {
            let share = (cost(at + size) - cost(at)) / cost(131_072) * 16.0;
            assert!((share - 1.0).abs() < 0.1, "{sizes:?}: {share}");
            at += size;
        }
        for (total, chunks, longest) in [
            (1, 16, 8192),
            (127, 3, 50),
            (5000, 1, 1024),
            (9000, 64, 8192),
        ] {
            let sizes = equal_time(total, chunks, longest, cost);
            assert_eq!(sizes.iter().sum::<usize>(), total);
            assert!(sizes.iter().all(|&n| n > 0 && n <= longest), "{sizes:?}");
        }
        assert_eq!(fixed(9, 4), [4, 4, 1]);
        assert_eq!(fixed(8, 4), [4, 4]);
    }
}
