//! Candidates: the patterns among which a search chooses for every head.

use sparse_accelerate::{BlockCluster, Dynamic, IntervalSlash, Pattern, Triangular};

/// Sinks and windows of Triangular, tokens.
const TRIANGULAR: [(usize, usize); 3] = [(128, 512), (256, 1024), (256, 4096)];
/// Most columns and slashes of Interval-Slash.
const INTERVAL_SLASH: [(usize, usize); 3] = [(256, 32), (1024, 128), (4096, 256)];
/// Least score of a block, relative to the largest. A recall floor is no rule here: there is none.
const ALPHA: [f32; 3] = [0.2, 0.1, 0.05];

/// The patterns that are tried for every head, dense last.
pub fn candidates() -> Vec<Pattern> {
    let triangular = TRIANGULAR.map(|(sink, window)| {
        Pattern::Triangular(Triangular {
            sink,
            window,
            ..Triangular::default()
        })
    });
    let lists = INTERVAL_SLASH
        .map(|(columns, slashes)| Pattern::IntervalSlash(IntervalSlash { columns, slashes }));
    let blocks = ALPHA.map(|alpha| Pattern::BlockCluster(BlockCluster { alpha }));
    let hybrid = Pattern::Hybrid(Dynamic {
        interval_slash: IntervalSlash {
            columns: INTERVAL_SLASH[1].0,
            slashes: INTERVAL_SLASH[1].1,
        },
        block_cluster: BlockCluster { alpha: ALPHA[1] },
        ..Dynamic::default()
    });
    let all = triangular.into_iter().chain(lists).chain(blocks);
    all.chain([hybrid, Pattern::Dense]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_may_stand_in_a_pattern_file() {
        let heads = sparse_accelerate::HeadPatterns::from(vec![candidates()]);
        heads.validate().unwrap();
        assert_eq!(candidates().last(), Some(&Pattern::Dense));
        let text = serde_json::to_string(&heads).unwrap();
        assert_eq!(
            serde_json::from_str::<sparse_accelerate::HeadPatterns>(&text).unwrap(),
            heads
        );
    }
}
