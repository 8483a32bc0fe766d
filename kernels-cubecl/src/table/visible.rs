//! The rule of visibility, once for every tier.
//!
//! The row at absolute position `i` sees key `j` iff `j <= i`. Under a window of `W` keys it sees it only
//! if `i - j < W` as well, whatever else holds: sinks, columns, dense last rows. Under Triangular's band a
//! key of a range must also have `j < sink`, `i - j < band` or `i >= dense_from`.

use cubecl::prelude::*;
use sparse_accelerate_contract::RANGE_ALIGN;

/// The scalars of the rule.
#[derive(CubeLaunch, CubeType)]
pub(crate) struct Limits {
    /// First keys that Triangular's band shows every row.
    pub(crate) sink: u32,
    /// Last keys that it shows a row.
    pub(crate) band: u32,
    /// Keys of the window, if there is one.
    pub(crate) window: ComptimeOption<u32>,
}

/// The window of the rows of a launch, for kernels that need no other limit. Without one it has no text in
/// them.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Window {
    /// Keys that a row sees, its own included.
    pub(crate) keys: u32,
    /// There is one.
    #[cube(comptime)]
    pub(crate) some: bool,
}

#[cube]
impl Window {
    /// Makes the window of a launch's argument.
    pub(crate) fn of(window: &ComptimeOption<u32>) -> Window {
        Window {
            keys: window.unwrap_or(0u32),
            some: comptime!(window.is_some()),
        }
    }

    /// First key that the row at a position sees; 0 without a window.
    pub(crate) fn first_key(&self, position: u32) -> u32 {
        if comptime!(self.some) {
            first_key(position, self.keys)
        } else {
            0u32.runtime()
        }
    }
}

/// First key that the row at a position sees through a window of `window` keys.
#[cube]
fn first_key(position: u32, window: u32) -> u32 {
    max(position + 1, window) - window
}

/// The rule for the rows of one sequence.
#[derive(CubeType)]
pub(crate) struct Rule {
    sink: u32,
    band: u32,
    dense_from: u32,
    window: u32,
}

#[cube]
impl Rule {
    /// Makes the rule of a sequence whose rows are dense from a position on.
    pub(crate) fn new(limits: &Limits, dense_from: u32) -> Rule {
        Rule {
            sink: limits.sink,
            band: limits.band,
            dense_from,
            window: limits.window.unwrap_or(0u32),
        }
    }

    /// Tells whether Triangular's band shows a row a key at or before its position.
    pub(crate) fn in_band(&self, key: u32, position: u32) -> bool {
        key < self.sink || position - key < self.band || position >= self.dense_from
    }

    /// Tells whether the window shows a row a key; false for a key past its position.
    pub(crate) fn in_window(&self, key: u32, position: u32) -> bool {
        position - key < self.window
    }

    /// First key that the row at a position may see and none before it; 0 without a window.
    pub(crate) fn first_key(&self, position: u32, #[comptime] windowed: bool) -> u32 {
        if comptime!(windowed) {
            first_key(position, self.window)
        } else {
            0u32.runtime()
        }
    }

    /// The same, aligned down.
    pub(crate) fn start(&self, position: u32, #[comptime] windowed: bool) -> u32 {
        if comptime!(windowed) {
            let align = comptime!(RANGE_ALIGN as u32);
            self.first_key(position, windowed) / align * align
        } else {
            0u32.runtime()
        }
    }

    /// Tells whether the band hides any of the keys `[from, to)` from rows at `[first, end)`.
    pub(crate) fn band_cuts(&self, from: u32, to: u32, first: u32, end: u32) -> bool {
        let inside = to <= self.sink || end - from <= self.band || first >= self.dense_from;
        !inside
    }

    /// Tells whether the window hides key `from`, and so perhaps later ones, from the last row before `end`.
    pub(crate) fn window_cuts(&self, from: u32, end: u32) -> bool {
        end - from > self.window
    }
}
