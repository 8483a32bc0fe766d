//! Probes against the formulas in f64, and what they tell of planted columns.

use burn::tensor::bf16;

use super::*;
use crate::select::cpu::testing::{CASES, Case, Kind, Random, WINDOWS, close, log_sum_exp};

struct Probed {
    lse: Vec<f32>,
    columns: Vec<f32>,
    slashes: Vec<u32>,
}

fn run<E: FlexFloat>(case: &Case<E>, rules: &[u32]) -> Probed {
    let shape = &case.shape;
    let heads = shape.batch * shape.heads;
    let mut got = Probed {
        lse: vec![f32::NAN; heads * PROBES],
        columns: vec![f32::NAN; heads * 2 * shape.keys],
        slashes: vec![u32::MAX; heads * 2 * shape.slash_buckets()],
    };
    let Probed {
        lse,
        columns,
        slashes,
    } = &mut got;
    probe(
        shape,
        case.query(),
        case.key(),
        &case.spans,
        rules,
        lse,
        columns,
        slashes,
    );
    got
}

/// By the formulas, one key after another.
fn matches_formula<E: FlexFloat>(index_heads: impl Fn(&Shape) -> usize) {
    let cases = CASES.iter().enumerate();
    for ((seed, &lengths), window) in cases.flat_map(|case| WINDOWS.map(|window| (case, window))) {
        let mut case = Case::<E>::normal(lengths, 2.0, seed as u64).under(window);
        case.shape.index_heads = index_heads(&case.shape);
        let shape = case.shape;
        let (keys, buckets) = (shape.keys, shape.slash_buckets());
        let rules = case.rules(4, 30, 0.0);
        let got = run(&case, &rules);
        for head in 0..shape.batch * shape.heads {
            let (b, h) = (head / shape.heads, head % shape.heads);
            let (query_len, kv_len) = case.lengths(b);
            let sink = 4 + 3 * (h / shape.heads_per_index());
            let mut lse = [0.0; PROBES];
            let mut columns = vec![0.0; 2 * keys];
            let mut slashes = vec![0.0; 2 * buckets];
            for (r, lse) in lse.iter_mut().enumerate() {
                let row = match r {
                    0..64 if query_len >= 64 => query_len - 64 + r,
                    0..64 if r < query_len => r,
                    64.. if query_len >= 128 => (2 * (r - 64) + 1) * query_len / 128,
                    _ => continue,
                };
                let seen = case.first(b, row);
                let logits = &case.logits(b, h, row)[seen..];
                *lse = log_sum_exp(logits);
                let p = kv_len - query_len + row;
                let mut tiles = vec![vec![0.0; buckets]; keys.div_ceil(128)];
                for (j, logit) in (seen..).zip(logits) {
                    if j >= sink && p - j >= 30 {
                        let share = (logit - *lse).exp();
                        let valid = if r < 64 { query_len.min(64) } else { 64 };
                        columns[r / 64 * keys + j] += share / valid as f64;
                        tiles[j / 128][(p - j) / 16] += share;
                    }
                }
                for (sum, part) in slashes[r / 64 * buckets..][..buckets]
                    .iter_mut()
                    .zip((0..buckets).map(|i| tiles.iter().map(move |t| t[i])))
                {
                    *sum += part.map(|x| (x * f64::from(1 << 20)).round()).sum::<f64>();
                }
            }
            let at = |width: usize| head * width..(head + 1) * width;
            close("lse", &got.lse[at(PROBES)], &lse, 1e-5, 1e-6);
            close("columns", &got.columns[at(2 * keys)], &columns, 1e-7, 2e-5);
            let sums: Vec<f32> = got.slashes[at(2 * buckets)]
                .iter()
                .map(|&x| x as f32)
                .collect();
            close("slashes", &sums, &slashes, 6.0, 2e-5);
        }
    }
}

#[test]
fn probes_match_the_formula_f32() {
    matches_formula::<f32>(|shape| shape.kv_heads);
}

#[test]
fn probes_match_the_formula_bf16() {
    matches_formula::<bf16>(|shape| shape.kv_heads);
}

#[test]
fn every_query_head_may_have_a_rule() {
    matches_formula::<f32>(|shape| shape.heads);
}

#[test]
fn threads_do_not_change_the_bits() {
    let case = Case::<f32>::normal((&[(700, 5000)], 4, 2, 32), 2.0, 1);
    let rules = case.rules(0, 1, 0.0);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads");
        let got = pool.install(|| run(&case, &rules));
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        (bits(&got.lse), bits(&got.columns), got.slashes)
    };
    assert!(with(1) == with(5));
}

#[test]
fn keys_that_a_window_hides_are_no_keys() {
    let lengths = (&[(150, 900)][..], 2, 1, 32);
    let clean = Case::<f32>::normal(lengths, 2.0, 4).under(Some(300));
    let mut hidden = Case::<f32>::normal(lengths, 2.0, 4).under(Some(300));
    // The first row sees keys from 451 on.
    hidden.key[..451 * 32].fill(f32::NAN);
    let rules = clean.rules(4, 30, 0.0);
    let [clean, hidden] = [clean, hidden].map(|case| run(&case, &rules));
    assert_eq!(clean.lse, hidden.lse);
    assert_eq!(clean.columns, hidden.columns);
    assert_eq!(clean.slashes, hidden.slashes);
}

#[test]
fn a_window_of_all_keys_has_the_bits_of_none() {
    let lengths = (&[(150, 900), (70, 70)][..], 2, 1, 32);
    let of = |window| {
        let case = Case::<f32>::normal(lengths, 2.0, 4).under(window);
        run(&case, &case.rules(4, 30, 0.0))
    };
    let [whole, longer, none] = [Some(900), Some(u32::MAX), None].map(of);
    for windowed in [whole, longer] {
        assert_eq!(windowed.lse, none.lse);
        assert_eq!(windowed.columns, none.columns);
        assert_eq!(windowed.slashes, none.slashes);
    }
}

#[test]
fn a_key_that_is_no_number_shows_in_the_log_sum_exp_of_who_sees_it() {
    let mut case = Case::<f32>::normal((&[(200, 200)], 1, 1, 32), 1.0, 1);
    case.key[150 * 32] = f32::NAN;
    let got = run(&case, &case.rules(4, 64, 0.0));
    for (probe, lse) in got.lse.iter().enumerate() {
        let row = probe_row(probe, 200).expect("enough rows");
        assert_eq!(lse.is_nan(), row >= 150, "probe {probe}: {lse}");
    }
}

/// Normal vectors; keys `verticals` and the queries for which `seeing` holds share a direction.
fn planted(len: usize, verticals: &'static [usize], seeing: impl Fn(usize) -> bool) -> Case<f32> {
    let mut random = Random(11);
    let lengths = Box::leak(Box::new([(len, len)]));
    Case::filled((lengths, 3, 1, 64), |kind, _, _, p, row| {
        row.iter_mut().for_each(|x| *x = random.normal());
        match kind {
            Kind::Query if seeing(p) => row[0] = 10.0,
            Kind::Query => row[0] = 0.0,
            Kind::Key => row[0] = if verticals.contains(&p) { 10.0 } else { 0.0 },
            Kind::Value => {}
        }
    })
}

/// The `count` keys of largest mean share of a group, ascending, and the least of those shares.
fn top(columns: &[f32], count: usize) -> (Vec<usize>, f32) {
    let mut keys: Vec<usize> = (0..columns.len()).collect();
    keys.sort_by(|&a, &b| columns[b].total_cmp(&columns[a]));
    keys.truncate(count);
    let least = columns[*keys.last().expect("keys")];
    keys.sort_unstable();
    (keys, least)
}

#[test]
fn columns_tell_planted_verticals() {
    const VERTICALS: &[usize] = &[100, 777, 1500];
    let case = planted(2000, VERTICALS, |_| true);
    let got = run(&case, &case.rules(4, 64, 0.0));
    for (group, columns) in got.columns.chunks_exact(2000).enumerate() {
        let (keys, least) = top(columns, VERTICALS.len());
        assert_eq!(keys, VERTICALS, "group {group}");
        let (_, next) = top(columns, VERTICALS.len() + 1);
        assert!(least > 10.0 * next, "group {group}: {least} against {next}");
    }
}

#[test]
fn spread_probes_tell_a_vertical_that_only_the_middle_sees() {
    let case = planted(4000, &[300], |p| (1500..2000).contains(&p));
    let got = run(&case, &case.rules(4, 64, 0.0));
    for head in got.columns.chunks_exact(2 * 4000) {
        let (last, spread) = head.split_at(4000);
        // Not worth a column to the last rows; worth hundreds of average keys to the chunk.
        assert!(last[300] < 4.0 / 4000.0, "last rows give it {}", last[300]);
        assert!(
            spread[300] > 200.0 / 4000.0,
            "the spread ones give it {}",
            spread[300]
        );
        assert_eq!(top(spread, 1).0, [300]);
    }
}
