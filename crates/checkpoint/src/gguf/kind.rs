//! Element formats of GGUF tensors: plain floats, and blocks that share scales.
//!
//! A row (the fastest dimension) is a whole number of blocks. Numbers are those of the ggml type enumeration.

/// A supported element format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Every format with its number, its name, elements per block and bytes per block.
const TABLE: &[(Kind, u32, &str, usize, usize)] = &[
    (Kind::F32, 0, "F32", 1, 4),
    (Kind::F16, 1, "F16", 1, 2),
    (Kind::Q4_0, 2, "Q4_0", 32, 18),
    (Kind::Q4_1, 3, "Q4_1", 32, 20),
    (Kind::Q5_0, 6, "Q5_0", 32, 22),
    (Kind::Q5_1, 7, "Q5_1", 32, 24),
    (Kind::Q8_0, 8, "Q8_0", 32, 34),
    (Kind::Q4K, 12, "Q4_K", 256, 144),
    (Kind::Q5K, 13, "Q5_K", 256, 176),
    (Kind::Q6K, 14, "Q6_K", 256, 210),
    (Kind::Bf16, 30, "BF16", 1, 2),
];

/// Names of formats that are known but not supported, for error messages.
const UNSUPPORTED: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

impl Kind {
    /// The format of a type number, or the number with its name where known.
    pub(super) fn from_number(number: u32) -> Result<Self, String> {
        if let Some(row) = TABLE.iter().find(|row| row.1 == number) {
            return Ok(row.0);
        }
        Err(match UNSUPPORTED.iter().find(|row| row.0 == number) {
            Some((_, name)) => format!("{number} ({name})"),
            None => number.to_string(),
        })
    }

    fn row(self) -> &'static (Kind, u32, &'static str, usize, usize) {
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    pub(crate) fn name(self) -> &'static str {
        self.row().2
    }

    /// Elements that share scales; 1 for plain floats.
    pub(crate) fn block_elements(self) -> usize {
        self.row().3
    }

    pub(crate) fn block_bytes(self) -> usize {
        self.row().4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_one_row() {
        let kinds = [
            Kind::F32,
            Kind::F16,
            Kind::Bf16,
            Kind::Q4_0,
            Kind::Q4_1,
            Kind::Q5_0,
            Kind::Q5_1,
            Kind::Q8_0,
        ];
        for kind in kinds.into_iter().chain([Kind::Q4K, Kind::Q5K, Kind::Q6K]) {
            assert_eq!(kind.row().0, kind);
            assert_eq!(Kind::from_number(kind.row().1), Ok(kind));
        }
        assert_eq!(Kind::from_number(10), Err("10 (Q2_K)".to_owned()));
        assert_eq!(Kind::from_number(77), Err("77".to_owned()));
    }
}
