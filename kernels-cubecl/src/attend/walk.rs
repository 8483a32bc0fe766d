//! The steps of a cube of the matrix tiers: its ranges, then its columns, `keys` at a time; and what a
//! row sees of a step.
//!
//! Every unit keeps the same cursor. It stands one step ahead of the copies, so that the table's
//! entries are there when a copy needs them.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::visible::Rule;

/// What of a blueprint decides the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Walk {
    /// Keys per step; a cube has at least as many units.
    pub(super) keys: usize,
    /// Ranges and columns come from the table; otherwise the range `[0, p]` is implicit.
    pub(super) indexed: bool,
    /// The index may have columns.
    pub(super) columns: bool,
    /// Triangular's element rule applies.
    pub(super) banded: bool,
    /// Rows see a window of keys.
    pub(super) windowed: bool,
}

/// Where the rows of one head lie: first vector, vectors from row to row.
#[derive(CubeType)]
pub(super) struct Rows {
    pub(super) first: usize,
    pub(super) stride: usize,
}

/// One step: the slots `[at, end)` of a range or of the columns, of which the first `keys`.
#[derive(CubeType)]
pub(super) struct Step {
    pub(super) at: u32,
    pub(super) end: u32,
    /// The slots are entries of the column list instead of key positions.
    pub(super) gathered: bool,
    /// There is a step.
    pub(super) live: bool,
}

#[cube]
impl Step {
    /// Becomes a copy of another step.
    pub(super) fn follow(&mut self, other: &Step) {
        self.at = other.at;
        self.end = other.end;
        self.gathered = other.gathered;
        self.live = other.live;
    }

    /// Whether some row of the cube may not see some slot: the step crosses the diagonal, its item's
    /// end, the band or the window. `first` and `end` are the positions of the cube's first row and past
    /// its last.
    pub(super) fn crosses(
        &self,
        first: u32,
        end: u32,
        rule: &Rule,
        #[comptime] walk: Walk,
    ) -> bool {
        let last = self.at + comptime!(walk.keys as u32);
        let mut partial = last > self.end;
        if !self.gathered {
            partial = partial || last > first + 1;
            if comptime!(walk.banded) {
                partial = partial || rule.band_cuts(self.at, last, first, end);
            }
            if comptime!(walk.windowed) {
                partial = partial || rule.window_cuts(self.at, end);
            }
        }
        if comptime!(walk.windowed && walk.columns) {
            partial = partial || self.gathered;
        }
        partial
    }
}

/// What a cube still has to walk, and the step it stands on.
#[derive(CubeType)]
pub(super) struct Cursor {
    at: u32,
    end: u32,
    gathered: bool,
    live: bool,
    item: u32,
    n_ranges: u32,
    ranges_at: u32,
    n_columns: u32,
    columns_at: u32,
    first: u32,
    causal_end: u32,
}

#[cube]
impl Cursor {
    /// A cursor on the first step of an index row, or of `[first, causal_end)` where there is none. Keys
    /// below `first`, which no row of the cube sees, are passed over in ranges as well.
    pub(super) fn new(
        table: &[u32],
        row: u32,
        first: u32,
        causal_end: u32,
        live: bool,
        #[comptime] walk: Walk,
    ) -> Cursor {
        let mut cursor = Cursor {
            at: 0u32.runtime(),
            end: 0u32.runtime(),
            gathered: false.runtime(),
            live: false.runtime(),
            item: 0u32.runtime(),
            n_ranges: 1u32.runtime(),
            ranges_at: 0u32.runtime(),
            n_columns: 0u32.runtime(),
            columns_at: 0u32.runtime(),
            first,
            causal_end,
        };
        if comptime!(walk.windowed) {
            cursor.at = first;
        }
        cursor.end = causal_end;
        cursor.live = live;
        if comptime!(walk.indexed) {
            cursor.ranges_at = table[row as usize];
            cursor.n_ranges = table[(row + 1) as usize];
            if comptime!(walk.columns) {
                cursor.columns_at = table[(row + 2) as usize];
                cursor.n_columns = table[(row + 3) as usize];
            }
            cursor.enter(table, walk);
        }
        cursor
    }

    /// The step it stands on, as values of their own.
    pub(super) fn step(&self) -> Step {
        let mut step = Step {
            at: 0u32.runtime(),
            end: 0u32.runtime(),
            gathered: false.runtime(),
            live: false.runtime(),
        };
        step.at = self.at;
        step.end = self.end;
        step.gathered = self.gathered;
        step.live = self.live;
        step
    }

    /// The position of this unit's slot, if the step is gathered.
    pub(super) fn column(&self, table: &[u32], #[comptime] walk: Walk) -> u32 {
        let mut column = 0u32;
        if self.gathered && self.live {
            let slot = self.at + UNIT_POS;
            if UNIT_POS < comptime!(walk.keys as u32) && slot < self.end {
                column = table[(self.columns_at + slot) as usize];
            }
        }
        column
    }

    /// Puts it where the copies will look for it.
    pub(super) fn keep_column(
        &self,
        column: u32,
        positions: &mut Shared<[u32]>,
        at: usize,
        #[comptime] walk: Walk,
    ) {
        if self.gathered && UNIT_POS < comptime!(walk.keys as u32) {
            positions[at + UNIT_POS as usize] = column;
        }
    }

    /// Steps on by `keys`; past the end of an item, to the next one.
    pub(super) fn advance(&mut self, table: &[u32], #[comptime] walk: Walk) {
        self.at += comptime!(walk.keys as u32);
        if self.at >= self.end {
            if comptime!(walk.indexed) {
                self.item += 1;
                self.enter(table, walk);
            } else {
                self.live = false;
            }
        }
    }

    /// Whether the row at `position` sees slot `step.at + offset` of a step that this cursor stood on.
    pub(super) fn sees(
        &self,
        step: &Step,
        offset: u32,
        position: u32,
        rule: &Rule,
        table: &[u32],
        #[comptime] walk: Walk,
    ) -> bool {
        let slot = step.at + offset;
        let mut sees = slot < step.end && (step.gathered || slot <= position);
        if comptime!(walk.banded) {
            if sees && !step.gathered {
                sees = rule.in_band(slot, position);
            }
        }
        if comptime!(walk.windowed) {
            let mut key = slot;
            if comptime!(walk.columns) {
                if sees && step.gathered {
                    key = table[(self.columns_at + slot) as usize];
                }
            }
            sees = sees && rule.in_window(key, position);
        }
        sees
    }

    fn enter(&mut self, table: &[u32], #[comptime] walk: Walk) {
        if comptime!(walk.windowed) {
            let mut before = true.runtime();
            while before && self.item < self.n_ranges {
                let entry = self.ranges_at + self.item * 2;
                before = table[(entry + 1) as usize] <= self.first;
                if before {
                    self.item += 1;
                }
            }
        }
        if self.item < self.n_ranges {
            let entry = self.ranges_at + self.item * 2;
            self.at = table[entry as usize];
            if comptime!(walk.windowed) {
                self.at = max(self.at, self.first);
            }
            self.end = min(table[(entry + 1) as usize], self.causal_end);
        } else if comptime!(walk.columns) {
            if self.item == self.n_ranges && self.n_columns > 0 {
                self.at = 0;
                self.end = self.n_columns;
                self.gathered = true;
            } else {
                self.live = false;
            }
        } else {
            self.live = false;
        }
    }
}
