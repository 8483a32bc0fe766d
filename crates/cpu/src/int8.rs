//! Rows as signed bytes with one scale: the formula of the kernels, in their order, so that equal rows give
//! equal words and scales.
//!
//!   scale = max_d |x_d| / 127      byte_d = round(x_d / scale), halves to even
//!
//! Four bytes a `u32`, the first lowest. Rows whose largest magnitude is below 2^-100 are zeros with scale
//! 0; rows with an element that is not finite are zeros with scale NaN.

/// Bits of 2^-100.
const LEAST_BITS: u32 = (127 - 100) << 23;
const INFINITE_BITS: u32 = f32::INFINITY.to_bits();
const NAN: f32 = f32::from_bits(0x7fc0_0000);
const MOST: f32 = 127.0;
/// 1.5 * 2^23: a small number added to it is rounded to an integer, which stands in its lowest bits.
const ROUND: f32 = 12_582_912.0;

/// Writes the words of a row and returns its scale.
pub fn quantize(row: &[f32], words: &mut [u32]) -> f32 {
    let magnitude = row
        .iter()
        .fold(0, |most: u32, x| most.max(x.to_bits() & 0x7fff_ffff));
    if !(LEAST_BITS..INFINITE_BITS).contains(&magnitude) {
        words.fill(0);
        return if magnitude < LEAST_BITS { 0.0 } else { NAN };
    }
    let scale = f32::from_bits(magnitude) * MOST.recip();
    let inverse = 1.0 / scale;
    let byte = |x: f32| ((x * inverse).clamp(-MOST, MOST) + ROUND).to_bits() & 0xff;
    for (word, four) in words.iter_mut().zip(row.as_chunks::<4>().0) {
        let [a, b, c, d] = four.map(byte);
        *word = a | b << 8 | c << 16 | d << 24;
    }
    scale
}

/// Appends the elements of a row to `to`.
pub fn dequantize(words: &[u32], scale: f32, to: &mut Vec<f32>) {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    to.extend(bytes.map(|byte| f32::from(byte as i8) * scale));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(row: &[f32]) -> (f32, Vec<u32>, Vec<f32>) {
        let mut words = vec![u32::MAX; row.len() / 4];
        let scale = quantize(row, &mut words);
        let mut back = Vec::new();
        dequantize(&words, scale, &mut back);
        (scale, words, back)
    }

    #[test]
    fn every_byte_comes_back() {
        let row: Vec<f32> = (-127..=128).map(|i| i.min(127) as f32 * 0.5).collect();
        let (scale, _, back) = round_trip(&row);
        assert!((scale - 0.5).abs() <= f32::EPSILON);
        for (x, y) in row.iter().zip(&back) {
            assert!((x - y).abs() <= 1e-5, "{x} became {y}");
        }
    }

    #[test]
    fn halves_go_to_even() {
        let (scale, words, _) = round_trip(&[127.0, 0.5, 1.5, -2.5]);
        assert_eq!(scale, 127.0 * MOST.recip());
        assert_eq!(words[0].to_le_bytes().map(|b| b as i8), [127, 0, 2, -2]);
    }

    #[test]
    fn nothing_becomes_zeros_and_no_number_stays_none() {
        assert_eq!(round_trip(&[0.0; 8]), (0.0, vec![0; 2], vec![0.0; 8]));
        assert_eq!(round_trip(&[1e-35, 0.0, -1e-40, 0.0]).0, 0.0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (scale, words, back) = round_trip(&[1.0, bad, 2.0, 3.0]);
            assert!(scale.is_nan() && words == [0]);
            assert!(back.iter().all(|x| x.is_nan()));
        }
    }
}
