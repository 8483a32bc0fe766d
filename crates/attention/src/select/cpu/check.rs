//! The recall of the sparse pass, measured at the probe rows.

use rayon::prelude::*;

use sparse_accelerate_contract::{
    Choice, PROBE_GROUP, PROBES, QUERY_TILE, REPORT_WORDS, Report, Rules, Sequence, Shape, Why,
    probe_row, report::exact, table::DENSE,
};

/// Writes measured recall and density into the report, and sets the gate (1: dense) of every head whose
/// recall lies below its floor, if it may be dense.
///
/// Recall is the least, over the query heads of an index head and the groups of probes that have rows,
/// of the mean of `exp(lse - probe_lse)` over the group, at most 1; NaN counts as below the floor.
/// (Source: attention recall from log-sum-exps, Qwen2.5-1M, arXiv 2501.15383.) Density is kept visible
/// pairs over visible pairs. Heads that were dense before have recall 1 and density 1, unmeasured; heads
/// made dense here keep the recall that they were made dense for, and have density 1.
///
/// # Shapes
/// - `lse`: `[B, Hq, N]` of the sparse pass, before any correction; `probe_lse`: `[B, Hq, 128]`
/// - `kept`: `[B, Hi, tiles]`, kept keys of the last row of each tile, or under a window its pairs
/// - `spans`, and `probes`, those of the probe rows: `[B, 4]`; `rules`: `[Hi, 8]`; `report`: `[B, Hi, 16]`; `gates`: `[B, Hi]`
#[allow(clippy::too_many_arguments)]
pub fn check(
    shape: &Shape,
    lse: &[f32],
    probe_lse: &[f32],
    kept: &[u32],
    spans: &[u32],
    probes: &[u32],
    rules: &[u32],
    report: &mut [f32],
    gates: &mut [u32],
) {
    assert_eq!(gates.len(), shape.indexes());
    let reports = report.par_chunks_exact_mut(REPORT_WORDS).zip(gates);
    reports.enumerate().for_each(|(flat, (report, gate))| {
        let (b, index_head) = (flat / shape.index_heads, flat % shape.index_heads);
        let (sequence, probed) = (Sequence::of(spans, b), Sequence::of(probes, b));
        report[Report::DENSITY] = 1.0;
        if *gate == DENSE {
            report[Report::RECALL] = 1.0;
            return;
        }
        let rule = Rules::of(rules, index_head);
        let mut measured = 1.0f32;
        for sharer in 0..shape.heads_per_index() {
            let head = b * shape.heads + index_head * shape.heads_per_index() + sharer;
            let lse = &lse[head * shape.rows..][..shape.rows];
            let probe_lse = &probe_lse[head * PROBES..][..PROBES];
            for (group, &count) in probed.probes().iter().enumerate() {
                let recall = recall(probed, group, count, lse, probe_lse);
                // Not `min`: a NaN is taken and kept.
                if recall.is_nan() || recall < measured {
                    measured = recall;
                }
            }
        }
        report[Report::RECALL] = measured;
        if (measured.is_nan() || measured < rule.accepted) && rule.allows(Choice::Dense) {
            *gate = DENSE;
            report[Report::WHY] = exact(Why::MeasuredBelowFloor.number());
        } else {
            let kept = &kept[flat * shape.tiles()..][..shape.tiles()];
            report[Report::DENSITY] = density(shape, sequence, kept);
        }
    });
}

/// Mean recall of one group of probes, 1 if it has none.
fn recall(sequence: Sequence, group: usize, count: usize, lse: &[f32], probe_lse: &[f32]) -> f32 {
    if count == 0 {
        return 1.0;
    }
    let first = group * PROBE_GROUP;
    let of_probe = |probe| {
        let row = probe_row(probe, sequence.query_len)?;
        Some(f32::exp(lse[row] - probe_lse[probe]))
    };
    let sum: f32 = (first..first + PROBE_GROUP).filter_map(of_probe).sum();
    // Not `min`: a NaN is kept.
    let mean = sum / count as f32;
    if mean > 1.0 { 1.0 } else { mean }
}

/// Kept visible pairs over visible pairs. Without a window a tile always keeps its own keys, so a row that is
/// `i` rows before the tile's last sees `i` keys fewer, of what is kept as of all.
fn density(shape: &Shape, sequence: Sequence, kept: &[u32]) -> f32 {
    let (mut pairs, mut all) = (0u64, 0u64);
    for (tile, &kept) in kept.iter().enumerate() {
        let first = tile * QUERY_TILE;
        let rows = QUERY_TILE.min(sequence.query_len.saturating_sub(first)) as u64;
        if rows == 0 {
            break;
        }
        if shape.window().is_some() {
            let position = sequence.offset() + first;
            let of_row = |p| shape.visible.seen(p, 0, p + 1) as u64;
            pairs += u64::from(kept);
            all += (position..position + rows as usize)
                .map(of_row)
                .sum::<u64>();
            continue;
        }
        let missing = rows * (rows - 1) / 2;
        pairs += rows * u64::from(kept) - missing;
        all += rows * ((sequence.offset() + first) as u64 + rows) - missing;
    }
    (pairs as f64 / all as f64) as f32
}

#[cfg(test)]
mod tests;
