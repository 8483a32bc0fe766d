//! One layer of a cache: all its keys, or those that its window still shows.
//!
//! A layer with a window has room for the window and [`ROOM`] tokens. A chunk that fits is appended; when it does not, the tokens that
//! no later row sees are let go of and the others move to the front. A chunk longer than the room is put behind them in a
//! larger pair of tensors, of which the last tokens go back once it has been attended to.

use super::layer::{Layer, Rows};
use crate::{error::AttentionError, plan::AttentionPlan};

/// Tokens of room beside the window.
pub(super) const ROOM: usize = 256;
/// Tokens before the window that are kept where tokens are let go of, so that the last few can be taken back.
pub(super) const SPARE: usize = ROOM / 2;

/// Rows that a layer with this window takes of a cache of `capacity` tokens.
pub(super) fn rows(window: Option<usize>, capacity: usize) -> usize {
    window.map_or(capacity, |keys| keys.saturating_add(ROOM).min(capacity))
}

/// Rows of the tensors that take a chunk of `new` tokens beside such a layer at most; `None` where the layer itself takes it.
pub(super) fn spilled(window: Option<usize>, capacity: usize, new: usize) -> Option<usize> {
    let held = rows(window, capacity);
    let kept = window?.saturating_sub(1).saturating_add(SPARE);
    let needed = kept.saturating_add(new).min(capacity);
    (held < capacity && needed > held).then_some(needed)
}

/// A layer, and which tokens of each sequence it holds.
#[derive(Debug)]
pub(super) struct Slot {
    layer: Layer,
    /// Takes a chunk that the layer has no room for, until it has been attended to.
    spill: Option<Layer>,
    /// Of a layer that lets go of keys.
    window: Option<usize>,
    /// First token held.
    firsts: Vec<usize>,
    /// Tokens that it was given: those of the cache, and of the chunk in hand once it is appended.
    written: Vec<usize>,
}

impl Slot {
    /// An empty layer; `window` if it is to let go of keys.
    pub(super) fn new(layer: Layer, window: Option<usize>, batch: usize) -> Self {
        Self {
            layer,
            spill: None,
            window,
            firsts: vec![0; batch],
            written: vec![0; batch],
        }
    }

    /// Keys and values as they are now.
    pub(super) fn layer(&self) -> &Layer {
        self.spill.as_ref().unwrap_or(&self.layer)
    }

    pub(super) fn window(&self) -> Option<usize> {
        self.window
    }

    pub(super) fn written(&self) -> &[usize] {
        &self.written
    }

    /// First token that sequence `b` of `len` tokens is to hold for `new` ones more.
    pub(super) fn first(&self, b: usize, len: usize, new: usize) -> usize {
        let first = self.firsts[b];
        let Some(window) = self.window else {
            return first;
        };
        match len - first + new <= self.layer.rows() {
            true => first,
            false => first.max(kept_from(window, len)),
        }
    }

    /// Checks that a plan begins where the layer can.
    pub(super) fn check_begin(
        &self,
        layer: usize,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        // A window that hides none of a plan's keys is none there.
        let hides = |window: &usize| plan.spans().iter().any(|span| span.kv_len > *window);
        let window = self.window.filter(hides);
        if window.is_some() && window != plan.visible().window() {
            return Err(self.elsewhere("append", layer, 0, plan.firsts()[0]));
        }
        for (b, (span, &planned)) in plan.spans().iter().zip(plan.firsts()).enumerate() {
            let held = self.firsts[b];
            let len = planned + span.offset();
            // The first row of the chunk sees the window less itself.
            let last = self
                .window
                .map_or(held, |keys| held.max((len + 1).saturating_sub(keys)));
            if !(held..=last).contains(&planned) {
                return Err(self.elsewhere("append", layer, b, planned));
            }
        }
        Ok(())
    }

    /// Checks that the layer holds the chunk of a plan, and has let go of nothing since.
    pub(super) fn check_held(
        &self,
        layer: usize,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        let begins = self.firsts.iter().zip(plan.firsts()).enumerate();
        for (b, (&held, &planned)) in begins {
            if held != planned {
                return Err(self.elsewhere("attend", layer, b, planned));
            }
        }
        Ok(())
    }

    fn elsewhere(
        &self,
        op: &'static str,
        layer: usize,
        sequence: usize,
        planned: usize,
    ) -> AttentionError {
        AttentionError::CacheWindow {
            op,
            layer,
            sequence,
            held: self.firsts[sequence],
            planned,
        }
    }

    /// The keys and values that a plan's chunk is to be appended to: as many tokens as the plan counts before it. The layer is settled.
    pub(super) fn begin(&mut self, plan: &AttentionPlan) -> &mut Layer {
        let needed = plan.spans().iter().map(|s| s.kv_len).max().unwrap_or(0);
        let spills = needed > self.layer.rows() && self.window.is_some();
        if spills || self.firsts != plan.firsts() {
            let from = plan.spans().iter().zip(plan.firsts()).zip(&self.firsts);
            let from = from.map(|((span, planned), first)| (planned - first, span.offset()));
            let kept = self.layer.copy_rows(&from.collect::<Vec<_>>());
            self.firsts = plan.firsts().to_vec();
            // Rows may be views: another tensor takes them, which in the layer's own would be copied whole.
            match spills {
                true => self
                    .spill
                    .insert(self.layer.empty(needed, false))
                    .put_rows(kept),
                false => {
                    let mut moved = self.layer.empty(self.layer.rows(), true);
                    moved.put_rows(kept);
                    self.layer = moved;
                }
            }
        }
        // Until it is filled, the layer ends where the chunk begins.
        self.spill.as_mut().unwrap_or(&mut self.layer)
    }

    /// Notes that the chunk of a plan was appended.
    pub(super) fn fill(&mut self, plan: &AttentionPlan) {
        self.written = plan.lens().collect();
    }

    /// Brings a chunk that has been attended to back into the layer's own room: the tokens that later rows may see.
    pub(super) fn settle(&mut self) {
        let (Some(spill), Some(window)) = (self.spill.take(), self.window) else {
            return;
        };
        let sequences = self.firsts.iter_mut().zip(&self.written);
        let from: Vec<(usize, usize)> = sequences
            .map(|(first, &written)| {
                let kept = kept_from(window, written).max(*first);
                let from = kept - *first;
                *first = kept;
                (from, written - kept)
            })
            .collect();
        let kept: Rows = spill.copy_rows(&from);
        self.layer.put_rows(kept);
    }

    /// Tells whether the keys are there that the next row sees after the first `lens` tokens.
    pub(super) fn can_truncate(&self, lens: &[usize]) -> bool {
        let Some(window) = self.window else {
            return true;
        };
        let mut sequences = self.firsts.iter().zip(lens);
        self.spill.is_none()
            && sequences.all(|(&first, &len)| first <= (len + 1).saturating_sub(window))
    }

    /// Forgets what comes after the first `lens` tokens; after no tokens, it holds them from the first on again.
    pub(super) fn truncate(&mut self, lens: &[usize]) {
        self.spill = None;
        let sequences = self.written.iter_mut().zip(&mut self.firsts).zip(lens);
        for ((written, first), &len) in sequences {
            *written = len.min(*written);
            if *written == 0 {
                *first = 0;
            }
        }
    }
}

/// The first of `len` tokens that is kept where tokens are let go of.
fn kept_from(window: usize, len: usize) -> usize {
    len.saturating_sub(window - 1 + SPARE)
}
