//! Rows in int8, signed bytes with one scale, written from the formula: the largest magnitude over 127, elements
//! over the scale to the nearest integer, halves to even.

use crate::problem::{Inputs, Problem};

/// Rows of `d` elements as words of four bytes, and their scales.
pub fn quantize(values: &[f32], d: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut words, mut scales) = (Vec::new(), Vec::new());
    for row in values.chunks_exact(d) {
        let largest = row.iter().fold(0f32, |most, x| most.max(x.abs()));
        let finite = row.iter().all(|x| x.is_finite());
        let scale = match finite {
            true if largest < 2f32.powi(-100) => 0.0,
            true => largest * (1.0 / 127.0),
            false => f32::NAN,
        };
        let byte = |x: f32| match scale > 0.0 {
            true => (x * (1.0 / scale)).round_ties_even().clamp(-127.0, 127.0) as i8,
            false => 0,
        };
        let four = |x: &[f32]| u32::from_le_bytes(std::array::from_fn(|i| byte(x[i]) as u8));
        words.extend(row.chunks_exact(4).map(four));
        scales.push(scale);
    }
    (words, scales)
}

/// Converts int8 words and their scales back to f32 values.
pub fn dequantize(words: &[u32], scales: &[f32]) -> Vec<f32> {
    let width = words.len() / scales.len();
    let rows = words.chunks_exact(width).zip(scales);
    rows.flat_map(|(words, scale)| {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.map(move |byte| f32::from(byte as i8) * scale)
    })
    .collect()
}

/// The inputs that int8 keys and values of a problem stand for.
pub fn stored(problem: &Problem, inputs: &Inputs) -> Inputs {
    let back = |x: &[f32]| {
        let (words, scales) = quantize(x, problem.head_dim);
        dequantize(&words, &scales)
    };
    Inputs {
        query: inputs.query.clone(),
        key: back(&inputs.key),
        value: back(&inputs.value),
    }
}

/// Scales of keys and of values, `[H, S]` each, as an int8 cache has them: `[H, 2, S]`.
pub fn interleave(key: &[f32], value: &[f32], capacity: usize) -> Vec<f32> {
    let heads = key.chunks_exact(capacity).zip(value.chunks_exact(capacity));
    heads.flat_map(|(k, v)| [k, v].concat()).collect()
}
