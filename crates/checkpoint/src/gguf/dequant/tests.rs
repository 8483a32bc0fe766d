//! Every format against the values of the format's own Python package, bit for bit.
//!
//! `tests/fixtures/quants.safetensors` is made by `quants.py` beside it: for each format the blocks (`NAME.blocks`, bytes) and
//! the dequantised values (`NAME.values`, f32).

use safetensors::SafeTensors;

use super::*;
use crate::gguf::kind::Format;

const FIXTURE: &[u8] = include_bytes!("../../../tests/fixtures/quants.safetensors");
const NUMBERS: &[u32] = &[0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 30];

#[test]
fn values_equal_the_reference_bit_for_bit() {
    let fixture = SafeTensors::deserialize(FIXTURE).expect("the fixture is a safetensors file");
    for &number in NUMBERS {
        let format = Format::new(number);
        let (kind, name) = (format.kind().expect("a supported format"), format.name());
        let blocks = fixture.tensor(&format!("{name}.blocks")).expect("blocks");
        let expected = fixture.tensor(&format!("{name}.values")).expect("values");
        let expected: Vec<u32> = expected
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .collect();
        assert_eq!(
            blocks.data().len() / kind.block_bytes() * kind.block_elements(),
            expected.len(),
            "{name}"
        );

        let mut got = vec![f32::NAN; expected.len()];
        dequantize(kind, blocks.data(), &mut got);
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_eq!(
                got.to_bits(),
                *expected,
                "{name} element {i}: {got} and {}",
                f32::from_bits(*expected)
            );
        }
    }
}
