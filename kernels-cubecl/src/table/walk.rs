//! The keys that an index row names, ranges before columns: one after the other, or step by step.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;
use sparse_accelerate_contract::{IndexRow, table::RANGE_WORDS};

use super::Rule;

/// The part of a blueprint that decides the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Walk {
    /// Keys per step; a cube has at least as many units.
    pub(crate) keys: usize,
    /// Ranges and columns come from the table; otherwise the range `[0, p]` is implicit.
    pub(crate) indexed: bool,
    /// The index may have columns.
    pub(crate) columns: bool,
    /// Triangular's element rule applies.
    pub(crate) banded: bool,
    /// Rows see a window of keys.
    pub(crate) windowed: bool,
}

/// The ranges of an index row, then all of its columns as one last item; or one implicit range.
///
/// No item reaches past `end`; ranges hold no key before `first`, which none of the cube's rows sees.
#[derive(CubeType)]
pub(crate) struct Items {
    /// How many ranges.
    pub(crate) ranges: u32,
    /// How many columns.
    pub(crate) columns: u32,
    /// Word of the table at which the columns begin.
    pub(crate) columns_at: u32,
    ranges_at: u32,
    first: u32,
    end: u32,
}

#[cube]
impl Items {
    /// Reads the index row at word `row`; without an index there is the range `[first, end)`.
    pub(crate) fn of(
        table: &[u32],
        row: u32,
        first: u32,
        end: u32,
        #[comptime] walk: Walk,
    ) -> Items {
        let mut items = Items {
            ranges: 1u32.runtime(),
            columns: 0u32.runtime(),
            columns_at: 0u32.runtime(),
            ranges_at: 0u32.runtime(),
            first,
            end,
        };
        if comptime!(walk.indexed) {
            items.ranges_at = word(table, row, IndexRow::RANGES_AT);
            items.ranges = word(table, row, IndexRow::RANGES);
            if comptime!(walk.columns) {
                items.columns_at = word(table, row, IndexRow::COLUMNS_AT);
                items.columns = word(table, row, IndexRow::COLUMNS);
            }
        }
        items
    }

    /// Gives the number of items.
    pub(crate) fn count(&self) -> u32 {
        let mut count = self.ranges;
        if self.columns > 0 {
            count += 1;
        }
        count
    }

    /// Gives the first slot of an item: a key, or 0 of the columns.
    pub(crate) fn start(&self, table: &[u32], item: u32, #[comptime] walk: Walk) -> u32 {
        if comptime!(walk.indexed) {
            let mut start = 0u32;
            if item != self.ranges {
                start = self.range_start(table, item, walk);
            }
            start
        } else {
            self.first
        }
    }

    /// Gives the end of an item's slots; it may lie before the start of a range.
    pub(crate) fn end(&self, table: &[u32], item: u32, #[comptime] walk: Walk) -> u32 {
        if comptime!(walk.indexed) {
            let mut end = self.columns;
            if item != self.ranges {
                end = self.range_end(table, item);
            }
            end
        } else {
            self.end
        }
    }

    /// Gives the first key of a range.
    pub(crate) fn range_start(&self, table: &[u32], item: u32, #[comptime] walk: Walk) -> u32 {
        let start = table[(self.ranges_at + item * comptime!(RANGE_WORDS as u32)) as usize];
        if comptime!(walk.windowed) {
            max(start, self.first)
        } else {
            start
        }
    }

    /// Gives the end of a range's keys, which may lie before its first.
    pub(crate) fn range_end(&self, table: &[u32], item: u32) -> u32 {
        let at = self.ranges_at + item * comptime!(RANGE_WORDS as u32) + 1;
        min(table[at as usize], self.end)
    }
}

/// A word of the index row at word `row`.
#[cube]
fn word(table: &[u32], row: u32, #[comptime] word: usize) -> u32 {
    table[(row + comptime!(word as u32)) as usize]
}

/// One step: the slots `[at, end)` of a range or of the columns, of which the first `keys`.
#[derive(CubeType)]
pub(crate) struct Step {
    pub(crate) at: u32,
    pub(crate) end: u32,
    /// The slots are entries of the column list instead of key positions.
    pub(crate) gathered: bool,
    /// There is a step.
    pub(crate) live: bool,
}

#[cube]
impl Step {
    /// Becomes a copy of another step.
    pub(crate) fn follow(&mut self, other: &Step) {
        self.at = other.at;
        self.end = other.end;
        self.gathered = other.gathered;
        self.live = other.live;
    }

    /// Tells whether some row of the cube may not see some slot, since the step crosses the diagonal, its item's
    /// end, the band or the window. `first` and `end` are the positions of the cube's first row and past
    /// its last.
    pub(crate) fn crosses(
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

/// The steps of a cube, `keys` slots at a time, and the one it stands on.
///
/// Every unit keeps the same cursor. It stands one step ahead of the copies, so that the table's
/// entries are there when a copy needs them.
#[derive(CubeType)]
pub(crate) struct Cursor {
    at: u32,
    end: u32,
    gathered: bool,
    live: bool,
    item: u32,
    items: Items,
}

#[cube]
impl Cursor {
    /// Stands on the first step of some items; on none unless `live`.
    pub(crate) fn new(table: &[u32], items: Items, live: bool, #[comptime] walk: Walk) -> Cursor {
        let mut cursor = Cursor {
            at: 0u32.runtime(),
            end: 0u32.runtime(),
            gathered: false.runtime(),
            live: false.runtime(),
            item: 0u32.runtime(),
            items,
        };
        if comptime!(walk.windowed) {
            cursor.at = cursor.items.first;
        }
        cursor.end = cursor.items.end;
        cursor.live = live;
        if comptime!(walk.indexed) {
            cursor.enter(table, walk);
        }
        cursor
    }

    /// Gives the step it stands on, as values of their own.
    pub(crate) fn step(&self) -> Step {
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

    /// Gives the position of this unit's slot, if the step is gathered.
    pub(crate) fn column(&self, table: &[u32], #[comptime] walk: Walk) -> u32 {
        let mut column = 0u32;
        if self.gathered && self.live {
            let slot = self.at + UNIT_POS;
            if UNIT_POS < comptime!(walk.keys as u32) && slot < self.end {
                column = table[(self.items.columns_at + slot) as usize];
            }
        }
        column
    }

    /// Puts it where the copies will look for it.
    pub(crate) fn keep_column(
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
    pub(crate) fn advance(&mut self, table: &[u32], #[comptime] walk: Walk) {
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

    /// Tells whether the row at `position` sees slot `step.at + offset` of a step that this cursor stood on.
    pub(crate) fn sees(
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
                    key = table[(self.items.columns_at + slot) as usize];
                }
            }
            sees = sees && rule.in_window(key, position);
        }
        sees
    }

    fn enter(&mut self, table: &[u32], #[comptime] walk: Walk) {
        if comptime!(walk.windowed) {
            // Ranges that the window hides whole.
            let mut hidden = true.runtime();
            while hidden && self.item < self.items.ranges {
                hidden = self.items.range_end(table, self.item) <= self.items.first;
                if hidden {
                    self.item += 1;
                }
            }
        }
        if self.item < self.items.ranges {
            self.at = self.items.range_start(table, self.item, walk);
            self.end = self.items.range_end(table, self.item);
        } else if comptime!(walk.columns) {
            if self.item == self.items.ranges && self.items.columns > 0 {
                self.at = 0;
                self.end = self.items.columns;
                self.gathered = true;
            } else {
                self.live = false;
            }
        } else {
            self.live = false;
        }
    }
}
