//! Choosing among the plans of a large problem by measuring them, once per kind of problem.
//!
//! The plan taken without a measurement is the first of [`candidates`], whose order was measured on other
//! devices. A measurement costs up to four seconds of compilation per plan, so only problems that are
//! large and have several matrix-unit plans get one ([`Tuning`]), and only the first [`MOST`] plans take
//! part. A choice holds for the process: two runs of one problem are bitwise equal, from any thread.
//!
//! CubeCL's `LocalTuner` is not used: it lets a second thread run another candidate while the first
//! measures, tells the winner but no times, takes its number of launches from one global setting
//! however long a launch is, has no preference between equals, and picks from a list fixed per device,
//! where ours depends on the problem.

mod key;
mod measure;

use std::sync::{Mutex, MutexGuard, PoisonError};

use cubecl::{client::Client, ir::ElemType};
use cubecl_common::device::ServiceId;

pub use key::{Class, Density, Key};
pub use measure::{best, measure};

use super::{Plan, Problem, Tensors, Tier, candidates, launch, plan};
use crate::Refusal;

/// Most plans that are measured: each costs a compilation.
pub const MOST: usize = 3;
/// Useful operations from which a measurement is worth its cost: about a millisecond of a large device,
/// half the work of 8192 dense tokens and 32 heads of 128.
pub const WORTH: f64 = 2.5e11;
/// Share of the pairs that an index of unknown density is taken to keep, when its work is estimated.
const UNREAD: f64 = 1.0 / 16.0;

/// The work of a call as far as the host knows it, beyond its shapes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Visible (query, key) pairs of all sequences, for one head: causal, and inside the window if there is one.
    pub causal_pairs: u64,
    /// Share of them that the index keeps, averaged over its heads, 1 for dense; `None` if the index was
    /// built on the device.
    pub density: Option<f32>,
}

impl Work {
    /// Useful operations: `4 d` per kept pair and head, two products of a multiplication and an addition.
    pub fn operations(&self, problem: &Problem) -> f64 {
        let share = self.density.map_or(UNREAD, f64::from);
        4.0 * (problem.head_dim * problem.heads) as f64 * self.causal_pairs as f64 * share
    }
}

/// When to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Useful operations from which a problem is measured; infinite for never.
    pub least_operations: f64,
}

impl Tuning {
    /// Never: the first candidate is taken.
    pub const OFF: Self = Self {
        least_operations: f64::INFINITY,
    };
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            least_operations: WORTH,
        }
    }
}

/// One measurement and what followed from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The device.
    pub device: ServiceId,
    /// The problems it answers for; its tiers are what was measured.
    pub key: Key,
    /// Least device time of each tier of the key; `None` for one that failed or was not timed.
    pub milliseconds: Vec<Option<f64>>,
    /// Which of them is taken.
    pub chosen: usize,
}

static CHOICES: Mutex<Vec<Choice>> = Mutex::new(Vec::new());

/// Never held across a call of the device.
fn table() -> MutexGuard<'static, Vec<Choice>> {
    // A choice is pushed whole, so a panic elsewhere leaves the list whole.
    CHOICES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every measurement of the process, oldest first.
pub fn choices() -> Vec<Choice> {
    table().clone()
}

fn chosen(device: ServiceId, key: &Key) -> Option<usize> {
    let table = table();
    let same = |c: &&Choice| c.device == device && c.key == *key;
    table.iter().find(same).map(|c| c.chosen)
}

/// The plans of a problem that a measurement would choose from: the first matrix-unit plans, if the
/// device prefers those.
///
/// # Errors
/// As [`candidates`].
pub fn shortlist(problem: &Problem, elem: ElemType, client: &Client) -> Result<Vec<Plan>, Refusal> {
    Ok(candidates(problem, elem, client.properties())?
        .into_iter()
        .take_while(|plan| matches!(plan.tier, Tier::Mma(_)))
        .take(MOST)
        .collect())
}

/// As [`super::prepare`], but chosen by measurement if the problem is worth one: the first call with a
/// new key launches each of the [`shortlist`] a few times on the call's own `tensors` and blocks until
/// they are done. The output is written whole each time; launch the plan afterwards all the same.
///
/// Nothing is measured in a dry run, whose buffers hold nothing, nor while a graph is captured, nor with
/// gates, whose work is not known.
///
/// # Errors
/// As [`super::prepare`]. A plan that fails when it is measured is left out.
pub fn prepare(
    client: &Client,
    problem: &Problem,
    elem: ElemType,
    work: &Work,
    tuning: Tuning,
    tensors: impl Fn() -> Tensors + Sync,
) -> Result<Plan, Refusal> {
    let first = plan::prepare(problem, elem, client.properties())?;
    Ok(refine(client, problem, elem, work, tuning, first, tensors))
}

/// As [`prepare`] for a problem whose first plan, that of [`super::prepare`], is at hand.
pub fn refine(
    client: &Client,
    problem: &Problem,
    elem: ElemType,
    work: &Work,
    tuning: Tuning,
    first: Plan,
    tensors: impl Fn() -> Tensors + Sync,
) -> Plan {
    let large = work.operations(problem) >= tuning.least_operations;
    if !large
        || problem.gated_heads.is_some()
        || cubecl::dry_run::dry_run()
        || client.is_capturing()
    {
        return first;
    }
    // Who has a first plan is refused no list of them.
    let plans = shortlist(problem, elem, client).unwrap_or_default();
    if plans.len() < 2 {
        return first;
    }
    let key = Key::new(problem, elem, work, &plans);
    let run = |plan: &Plan| launch(client, problem, plan, elem, tensors());
    // A device that cannot be had fails the launch that follows, which says so.
    choose(client, &key, &plans, run).map_or(first, |i| plans[i])
}

/// Which of the plans of a key to take: what was chosen before, else what [`measure`] finds now. One
/// measurement at a time and alone on the device, so who comes second finds the answer of who came first.
///
/// `None` if the device could not be had for it; nothing was launched then, and nothing is remembered.
pub fn choose(
    client: &Client,
    key: &Key,
    plans: &[Plan],
    run: impl Fn(&Plan) + Sync,
) -> Option<usize> {
    let device = client.service_id();
    chosen(device, key).or_else(|| {
        let decide = || {
            chosen(device, key).unwrap_or_else(|| {
                let milliseconds = measure(client, plans, &run);
                let chosen = best(&milliseconds);
                table().push(Choice {
                    device,
                    key: key.clone(),
                    milliseconds,
                    chosen,
                });
                chosen
            })
        };
        client.exclusive(decide).ok()
    })
}
