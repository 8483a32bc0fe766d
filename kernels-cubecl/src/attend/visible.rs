//! The rule of visibility, once for every tier.
//!
//! The row at absolute position `i` sees key `j` iff `j <= i`. Under a window of `W` keys it sees it only
//! if `i - j < W` as well, whatever else holds: sinks, columns, dense last rows. Under Triangular's band a
//! key of a range must also have `j < sink`, `i - j < band` or `i >= dense_from`.

use cubecl::prelude::*;
use sparse_accelerate_contract::RANGE_ALIGN;

/// The numbers of the rule for the rows of one sequence.
#[derive(CubeType)]
pub(super) struct Rule {
    sink: u32,
    band: u32,
    dense_from: u32,
    window: u32,
}

#[cube]
impl Rule {
    /// `band` of Triangular's rule, `window` of the visibility: both in keys.
    pub(super) fn new(sink: u32, band: u32, dense_from: u32, window: &ComptimeOption<u32>) -> Rule {
        Rule {
            sink,
            band,
            dense_from,
            window: window.unwrap_or(0u32),
        }
    }

    /// Whether Triangular's band shows a row a key at or before its position.
    pub(super) fn in_band(&self, key: u32, position: u32) -> bool {
        key < self.sink || position - key < self.band || position >= self.dense_from
    }

    /// Whether the window shows a row a key; false for a key past its position.
    pub(super) fn in_window(&self, key: u32, position: u32) -> bool {
        position - key < self.window
    }

    /// First key that the row at a position may see and none before it; 0 without a window.
    pub(super) fn first_key(&self, position: u32, #[comptime] windowed: bool) -> u32 {
        if comptime!(windowed) {
            max(position + 1, self.window) - self.window
        } else {
            0u32.runtime()
        }
    }

    /// The same, aligned down.
    pub(super) fn start(&self, position: u32, #[comptime] windowed: bool) -> u32 {
        if comptime!(windowed) {
            let align = comptime!(RANGE_ALIGN as u32);
            self.first_key(position, windowed) / align * align
        } else {
            0u32.runtime()
        }
    }

    /// Whether the band hides any of the keys `[from, to)` from rows at `[first, end)`.
    pub(super) fn band_cuts(&self, from: u32, to: u32, first: u32, end: u32) -> bool {
        let inside = to <= self.sink || end - from <= self.band || first >= self.dense_from;
        !inside
    }

    /// Whether the window hides key `from`, and so perhaps later ones, from the last row before `end`.
    pub(super) fn window_cuts(&self, from: u32, end: u32) -> bool {
        end - from > self.window
    }
}
