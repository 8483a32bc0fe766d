//! Element formats of GGUF tensors: plain floats, and blocks that share scales.
//!
//! A row (the fastest dimension) is a whole number of blocks. Numbers are those of the ggml type enumeration. [`Kind`] has the
//! formats that can be read, [`Format`] any: one that is only known by its size, or by its number alone.

/// A format whose elements can be read.
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
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
}

/// Number, name, elements per block, bytes per block.
type Row = (u32, &'static str, usize, usize);

/// Every format that can be read.
const TABLE: &[(Kind, Row)] = &[
    (Kind::F32, (0, "F32", 1, 4)),
    (Kind::F16, (1, "F16", 1, 2)),
    (Kind::Q4_0, (2, "Q4_0", 32, 18)),
    (Kind::Q4_1, (3, "Q4_1", 32, 20)),
    (Kind::Q5_0, (6, "Q5_0", 32, 22)),
    (Kind::Q5_1, (7, "Q5_1", 32, 24)),
    (Kind::Q8_0, (8, "Q8_0", 32, 34)),
    (Kind::Q2K, (10, "Q2_K", 256, 84)),
    (Kind::Q3K, (11, "Q3_K", 256, 110)),
    (Kind::Q4K, (12, "Q4_K", 256, 144)),
    (Kind::Q5K, (13, "Q5_K", 256, 176)),
    (Kind::Q6K, (14, "Q6_K", 256, 210)),
    (Kind::Iq4Nl, (20, "IQ4_NL", 32, 18)),
    (Kind::Iq4Xs, (23, "IQ4_XS", 256, 136)),
    (Kind::Bf16, (30, "BF16", 1, 2)),
];

/// Formats that are known by size. Q8_1 and Q8_K are those of activations while a product is computed: no model is stored in them.
const SIZES: &[Row] = &[
    (9, "Q8_1", 32, 36),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (31, "Q4_0_4_4", 32, 18),
    (32, "Q4_0_4_8", 32, 18),
    (33, "Q4_0_8_8", 32, 18),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (36, "IQ4_NL_4_4", 32, 18),
    (37, "IQ4_NL_4_8", 32, 18),
    (38, "IQ4_NL_8_8", 32, 18),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// The names of every format that can be read, as a message lists them.
pub(crate) fn readable() -> String {
    let names: Vec<&str> = TABLE.iter().map(|(_, row)| row.1).collect();
    names.join(", ")
}

impl Kind {
    fn row(self) -> &'static Row {
        let own = TABLE.iter().find(|(kind, _)| *kind == self);
        &own.unwrap_or(&TABLE[0]).1
    }

    /// Elements that share scales; 1 for plain floats.
    pub(crate) fn block_elements(self) -> usize {
        self.row().2
    }

    pub(crate) fn block_bytes(self) -> usize {
        self.row().3
    }
}

/// The format of a tensor, as its type number tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    number: u32,
    row: Option<&'static Row>,
    kind: Option<Kind>,
}

impl Format {
    pub(super) fn new(number: u32) -> Self {
        let read = TABLE.iter().find(|(_, row)| row.0 == number);
        let sized = SIZES.iter().find(|row| row.0 == number);
        Self {
            number,
            row: read.map(|(_, row)| row).or(sized),
            kind: read.map(|(kind, _)| *kind),
        }
    }

    /// The format as one that can be read, if it is.
    pub(crate) fn kind(self) -> Option<Kind> {
        self.kind
    }

    /// Elements and bytes of a block, where the format is known.
    pub(super) fn block(self) -> Option<(usize, usize)> {
        self.row.map(|row| (row.2, row.3))
    }

    /// The name, or the number of an unknown format.
    pub(crate) fn name(self) -> String {
        match self.row {
            Some(row) => row.1.to_owned(),
            None => format!("type {}", self.number),
        }
    }

    /// The number, with the name where known.
    pub(super) fn numbered(self) -> String {
        match self.row {
            Some(row) => format!("{} ({})", self.number, row.1),
            None => self.number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_one_row() {
        for (kind, row) in TABLE {
            assert_eq!(Format::new(row.0).kind(), Some(*kind));
            assert_eq!(kind.row(), row);
        }
        let rows = || TABLE.iter().map(|(_, row)| row).chain(SIZES);
        for row in rows() {
            let same = |other: &&Row| other.0 == row.0 || other.1 == row.1;
            assert_eq!(rows().filter(same).count(), 1, "{row:?}");
        }
        assert_eq!(Format::new(15).numbered(), "15 (Q8_K)");
        assert_eq!(Format::new(77).numbered(), "77");
        assert_eq!(
            (Format::new(15).kind(), Format::new(77).block()),
            (None, None)
        );
    }
}
