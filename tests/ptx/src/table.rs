//! The table of what every kernel takes, and the comparison with the one that is checked in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{fixtures::Gpu, ptxas::Usage};

/// One kernel of one case on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Device, case and kernel; a case that launches a kernel twice has `kernel#2` as well.
    pub key: Key,
    /// Units of a cube.
    pub cube: (u32, u32, u32),
    /// Resources that `ptxas` reports.
    pub usage: Usage,
    /// Shared memory that the launch asks for, in bytes.
    pub dynamic_shared: usize,
}

/// Device, case, kernel.
pub type Key = (String, String, String);

/// Spills that stay for now, all of tiers that are not meant for these devices: kernel, end of the case,
/// bytes at most.
///
/// Spills of the selection are small beside the kernels' traffic, except in the correction of heads of
/// 256 on units, and are to be removed with a GPU at hand.
const KNOWN_SPILLS: [(&str, &str, u32); 17] = [
    // Since the openings and the walk are one text: f32 over an index on 9.0, a band on 7.5.
    ("attend_split_e_f32_n_4_t_f32_m_4", "/d128", 36),
    ("attend_split_e_f16_n_8_t_u32_m_4", "/d40", 20),
    ("attend_split_e_f16_n_8_t_u32_m_4", "/d64", 20),
    // Three outputs of a row; by LLVM, which stops at 128 registers, and on units.
    ("attend_rows_e_bf16_f_bf16_n_8", "/d128", 20),
    ("attend_rows_e_bf16_f_bf16_n_8", "/d256", 12),
    ("attend_rows_e_bf16_f_f32_n_4", "/d256", 16),
    ("share_blocks_e_f32_f_f32_n_4", "/d128", 16),
    ("probe_parts_e_bf16_f_bf16_n_8", "/d256", 12),
    ("probe_shares_e_bf16_f_bf16_n_8", "/d256", 32),
    ("score_blocks_e_bf16_f_bf16_n_8", "/d128", 36),
    ("score_blocks_e_bf16_f_bf16_n_8", "/d256", 4),
    ("score_blocks_e_f16_f_f16_n_8", "/d64", 44),
    ("correct_unit_e_bf16", "/d256", 272),
    // The output alone is 128 of 255 registers.
    ("attend_unit", "/d256", 64),
    // `ptxas` stops at 168 registers, where three cubes share a multiprocessor.
    ("attend_unit", "/d64", 128),
    ("attend_unit", "/d40", 128),
    // The same, on 9.0, which has `wgmma`.
    ("attend_cmma_e_bf16", "/d128", 8),
];

const HEAD: [&str; 9] = [
    "device", "case", "kernel", "cube", "regs", "spill", "stack", "static", "dynamic",
];

impl Row {
    fn values(&self) -> [String; 6] {
        let (x, y, z) = self.cube;
        let usage = self.usage;
        [
            format!("{x}x{y}x{z}"),
            usage.registers.to_string(),
            usage.spills.to_string(),
            usage.stack.to_string(),
            usage.static_shared.to_string(),
            self.dynamic_shared.to_string(),
        ]
    }

    /// Describes faults that no table can excuse: spills, and more shared memory than the device has.
    pub fn excess(&self, gpu: &Gpu) -> Option<String> {
        let known = KNOWN_SPILLS
            .iter()
            .find(|(kernel, case, _)| self.key.2.starts_with(kernel) && self.key.1.ends_with(case))
            .map_or(0, |(.., bytes)| *bytes);
        if self.usage.spills > known {
            return Some(format!("{} bytes of spills", self.usage.spills));
        }
        let shared = self.usage.static_shared as usize + self.dynamic_shared;
        (shared > gpu.shared).then(|| {
            format!(
                "{shared} bytes of shared memory, {} has {}",
                gpu.name, gpu.shared
            )
        })
    }
}

/// Words of a line.
type Line = [String; 9];

/// Lines of rows, under a header, in columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(Vec<Line>);

impl Table {
    /// Makes the table of some rows.
    pub fn new(rows: &[Row]) -> Self {
        let line = |row: &Row| {
            let (device, case, kernel) = row.key.clone();
            let [a, b, c, d, e, g] = row.values();
            [device, case, kernel, a, b, c, d, e, g]
        };
        Self(rows.iter().map(line).collect())
    }

    /// Reads a table's text; other lines are left out.
    pub fn read(text: &str) -> Self {
        let lines = words(text).filter_map(|words| Line::try_from(words.collect::<Vec<_>>()).ok());
        Self(lines.collect())
    }

    /// Puts the lines of another table in the places of `ran`, the cases by device and name that it
    /// was made of: one without a line loses those it had, cases that are new come last.
    #[must_use]
    pub fn renewed(self, by: Self, ran: &BTreeSet<(String, String)>) -> Self {
        let place = |line: &Line| (line[0].clone(), line[1].clone());
        let mut new: BTreeMap<_, Vec<Line>> = BTreeMap::new();
        for line in by.0 {
            new.entry(place(&line)).or_default().push(line);
        }
        let mut lines = Vec::new();
        for line in self.0 {
            let case = place(&line);
            match new.remove(&case) {
                Some(renewed) => lines.extend(renewed),
                None if ran.contains(&case) => {}
                None => lines.push(line),
            }
        }
        lines.extend(new.into_values().flatten());
        Self(lines)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = HEAD.map(str::to_owned);
        let lines: Vec<&Line> = std::iter::once(&head).chain(&self.0).collect();
        let width = |column: usize| lines.iter().map(|l| l[column].len()).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        for line in &lines {
            for (column, word) in line.iter().enumerate() {
                let width = widths[column];
                match column {
                    0..4 => write!(f, "{word:<width$}  ")?,
                    8 => writeln!(f, "{word:>width$}")?,
                    _ => write!(f, "{word:>width$}  ")?,
                }
            }
        }
        Ok(())
    }
}

/// Words of every line of a table's text. Lines that start with `#` are comments.
fn words(text: &str) -> impl Iterator<Item = impl Iterator<Item = String>> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with(HEAD[0]))
        .map(|line| line.split_whitespace().map(str::to_owned))
}

/// A table from its text: the values by key.
pub fn parse(text: &str) -> BTreeMap<Key, Vec<String>> {
    words(text)
        .filter_map(|mut words| {
            let key = (words.next()?, words.next()?, words.next()?);
            Some((key, words.collect()))
        })
        .collect()
}

/// Describes the differences between a row and the line of the table with its key.
pub fn difference(row: &Row, listed: Option<&Vec<String>>) -> Option<String> {
    let Some(listed) = listed else {
        return Some("not in the table".into());
    };
    let now = row.values();
    if listed.len() != now.len() {
        return Some("its line in the table is not understood".into());
    }
    let changes: Vec<String> = HEAD[3..]
        .iter()
        .zip(listed.iter().zip(&now))
        .filter(|(_, (old, new))| old != new)
        .map(|(name, (old, new))| format!("{name} {old} -> {new}"))
        .collect();
    (!changes.is_empty()).then(|| changes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn row() -> Row {
        Row {
            key: ("h200".into(), "attend/x".into(), "attend_unit".into()),
            cube: (8, 16, 1),
            usage: Usage {
                registers: 168,
                ..Usage::default()
            },
            dynamic_shared: 1024,
        }
    }

    #[test]
    fn a_table_read_back_has_no_difference() {
        let rows = [row()];
        let listed = parse(&format!("# comment\n{}", Table::new(&rows)));
        assert_eq!(difference(&rows[0], listed.get(&rows[0].key)), None);
    }

    #[test]
    fn a_change_names_the_column_and_both_values() {
        let listed = parse(&Table::new(&[row()]).to_string());
        let mut now = row();
        now.usage.registers = 170;
        let said = difference(&now, listed.get(&now.key));
        assert_eq!(said.as_deref(), Some("regs 168 -> 170"));
        now.key.1 = "attend/y".into();
        assert!(difference(&now, listed.get(&now.key)).is_some());
    }

    #[test]
    fn renewed_cases_keep_their_places_and_others_their_lines() {
        let of = |case: &str, kernels: &[(&str, u32)]| -> Vec<Row> {
            let row = |(kernel, registers): &(&str, u32)| {
                let mut row = row();
                row.key = ("h200".into(), case.into(), (*kernel).into());
                row.usage.registers = *registers;
                row
            };
            kernels.iter().map(row).collect()
        };
        let table = |parts: &[Vec<Row>]| Table::new(&parts.concat());
        let first = of("a", &[("k", 1)]);
        let before = table(&[
            first.clone(),
            of("b", &[("k", 2), ("l", 3)]),
            of("c", &[("k", 4)]),
            of("e", &[("k", 7)]),
        ]);
        let ran = ["b", "d", "e"].map(|case| ("h200".into(), case.into()));
        let new = table(&[of("b", &[("m", 5)]), of("d", &[("k", 6)])]);
        let wanted = [
            first,
            of("b", &[("m", 5)]),
            of("c", &[("k", 4)]),
            of("d", &[("k", 6)]),
        ];
        let read = Table::read(&format!("# comment\n{before}"));
        assert_eq!(read, before);
        assert_eq!(read.renewed(new, &ran.into()), table(&wanted));
    }

    #[test]
    fn spills_and_too_much_shared_memory_are_excess() {
        let gpu = &fixtures::CUDA[0];
        assert_eq!(row().excess(gpu), None);
        let mut spilling = row();
        spilling.usage.spills = 4;
        assert!(spilling.excess(gpu).is_some());
        spilling.key.1 += "/d256";
        assert_eq!(spilling.excess(gpu), None);
        let mut large = row();
        large.dynamic_shared = 99 * 1024;
        assert_eq!(large.excess(gpu), None);
        large.usage.static_shared = 16;
        assert!(large.excess(gpu).is_some());
    }
}
