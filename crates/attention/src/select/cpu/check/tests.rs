//! Recall and density of known results.

use super::*;
use crate::select::cpu::testing::{CASES, Case, WINDOWS};

/// The reason of heads made dense for what was measured.
const BELOW_FLOOR: f32 = Why::MeasuredBelowFloor.number() as f32;

/// Recall `0.6` at every probe of the first sharing head, `0.9` elsewhere, and higher off the probes.
fn case_of(case: &Case<f32>) -> (Vec<f32>, Vec<f32>, Vec<u32>, f64) {
    let shape = &case.shape;
    let mut probe_lse = vec![0.0; shape.batch * shape.heads * PROBES];
    let mut lse = vec![50.0; shape.batch * shape.heads * shape.rows];
    for head in 0..shape.batch * shape.heads {
        let rows = case.lengths(head / shape.heads).0;
        let share = if head % shape.heads_per_index() == 0 {
            0.6f32
        } else {
            0.9
        };
        for probe in 0..PROBES {
            if let Some(row) = probe_row(probe, rows) {
                probe_lse[head * PROBES + probe] = 3.0 + row as f32 * 0.01;
                lse[head * shape.rows + row] = 3.0 + row as f32 * 0.01 + share.ln();
            }
        }
    }
    let index = case.index(|_, _, first, _| {
        (
            vec![(0, 20), (first.saturating_sub(40), first)],
            vec![25, 33],
        )
    });
    let mut kept = vec![0; shape.batch * shape.index_heads * shape.tiles()];
    for (flat, kept) in kept.iter_mut().enumerate() {
        let (head, tile) = (flat / shape.tiles(), flat % shape.tiles());
        let b = head / shape.index_heads;
        let (query_len, kv_len) = case.lengths(b);
        let last = ((tile + 1) * QUERY_TILE).min(query_len);
        if tile * QUERY_TILE < query_len {
            let of_row = |row: usize| {
                let sees = |&j: &usize| index.sees(b, head % shape.index_heads, row, j);
                (0..kv_len).filter(sees).count() as u32
            };
            *kept = match shape.window() {
                None => of_row(last - 1),
                Some(_) => (tile * QUERY_TILE..last).map(of_row).sum(),
            };
        }
    }
    let (mut pairs, mut all) = (0, 0);
    let (query_len, kv_len) = case.lengths(0);
    for i in 0..query_len {
        all += kv_len - query_len + i + 1 - case.first(0, i);
        pairs += (0..kv_len).filter(|&j| index.sees(0, 0, i, j)).count();
    }
    (lse, probe_lse, kept, pairs as f64 / all as f64)
}

fn run(
    case: &Case<f32>,
    rules: &[u32],
    lse: &[f32],
    probe_lse: &[f32],
    kept: &[u32],
    gates: &mut [u32],
) -> Vec<f32> {
    let mut report = vec![f32::NAN; gates.len() * REPORT_WORDS];
    check(
        &case.shape,
        lse,
        probe_lse,
        kept,
        &case.spans,
        &case.spans,
        rules,
        &mut report,
        gates,
    );
    report
}

#[test]
fn the_worst_head_rules_and_heads_below_the_floor_become_dense() {
    for (&lengths, window) in CASES
        .iter()
        .flat_map(|lengths| WINDOWS.map(|window| (lengths, window)))
    {
        let case = Case::<f32>::normal(lengths, 1.0, 3).under(window);
        let (lse, probe_lse, kept, density) = case_of(&case);
        let heads = case.shape.batch * case.shape.index_heads;
        for (floor, dense) in [(0.59, 0), (0.61, 1)] {
            let mut gates = vec![0; heads];
            let rules = case.rules(4, 64, floor);
            let report = run(&case, &rules, &lse, &probe_lse, &kept, &mut gates);
            assert_eq!(gates, vec![dense; heads]);
            for report in report.chunks_exact(REPORT_WORDS) {
                assert!(
                    (report[Report::RECALL] - 0.6).abs() < 1e-5,
                    "{}",
                    report[Report::RECALL]
                );
                assert_eq!(report[Report::WHY] == BELOW_FLOOR, dense == 1);
            }
            let density = if dense == 1 { 1.0 } else { density };
            let error = (f64::from(report[Report::DENSITY]) - density).abs();
            assert!(error < 1e-6, "{} {density}", report[Report::DENSITY]);
        }
    }
}

#[test]
fn heads_that_may_not_or_need_not_be_dense_keep_their_gates() {
    let case = Case::<f32>::normal((&[(200, 200)], 2, 2, 32), 1.0, 3);
    let (mut lse, probe_lse, kept, _) = case_of(&case);
    lse[..200].fill(f32::NAN);
    let mut rules = case.rules(4, 64, 0.99);
    rules[Rules::ALLOWED] &= !Choice::Dense.bit();
    let mut gates = [0, 1];
    let report = run(&case, &rules, &lse, &probe_lse, &kept, &mut gates);
    assert_eq!(gates, [0, 1]);
    assert!(report[Report::RECALL].is_nan() && report[Report::WHY].is_nan());
    assert!(report[Report::DENSITY] < 0.9);
    let dense = &report[REPORT_WORDS..];
    assert!(
        dense[Report::RECALL] == 1.0
            && dense[Report::DENSITY] == 1.0
            && dense[Report::WHY].is_nan()
    );
}

#[test]
fn one_lost_row_makes_a_head_dense() {
    let case = Case::<f32>::normal((&[(200, 200)], 2, 1, 32), 1.0, 3);
    let (mut lse, probe_lse, kept, _) = case_of(&case);
    lse[199] = f32::NAN;
    let mut gates = [0];
    let report = run(
        &case,
        &case.rules(4, 64, 0.0),
        &lse,
        &probe_lse,
        &kept,
        &mut gates,
    );
    assert_eq!(gates, [1]);
    assert!(report[Report::RECALL].is_nan() && report[Report::WHY] == BELOW_FLOOR);
}
