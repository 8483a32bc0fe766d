//! Stages at work on chunks: one after the other, and all at once.

/// Gives the seconds after which the last chunk leaves the last stage.
///
/// Stage `s` works `seconds[s][c]` on chunk `c`, in order. It begins when it is free and the chunk has arrived,
/// `transfer[s - 1][c]` seconds after the stage before was done with it.
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
}
