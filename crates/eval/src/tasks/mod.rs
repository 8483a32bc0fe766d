//! Tasks with a known answer: needles in the user's text, and RULER's families.
//!
//! A sample is a function of (seed, task, length, depth, number) and of the text, bit for bit. Its
//! prompt and the room for its answer together have at most `length` tokens of the model, as in RULER,
//! so that a length equal to the model's positions can be asked for.

mod counting;
mod haystack;
mod keys;
mod niah;
mod questions;
mod recipe;
mod tracking;

pub use questions::Questions;

use counting::{CommonWords, FrequentWords};
use niah::{Form, Hay, Needles, Niah};
use questions::Asked;
use recipe::Recipe;
use tracking::Tracking;

use crate::{
    corpus::Corpus,
    draw::{Draw, sample_seed},
    error::EvalError,
    fit::fit,
    format::Format,
    score::Match,
};

/// A prompt may end this many tokens below its length before its source counts as used up.
const SLACK: usize = 32;

/// One task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its name in rows and on the command line.
    pub name: &'static str,
    /// Tokens an answer may have.
    pub max_tokens: usize,
    /// Strings that end an answer.
    pub stop: &'static [&'static str],
    /// `true` if the needle is put at a depth that the caller gives.
    pub takes_depth: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Niah(Niah),
    Tracking,
    CommonWords,
    FrequentWords,
    Questions,
}

/// A prompt with what its answer should hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Tokens of the prompt.
    pub ids: Vec<u32>,
    /// Strings that the answer should hold.
    pub expected: Vec<String>,
    /// How much of it.
    pub rule: Match,
    /// Place of the (first) needle in the text, 0 to 1; `None` where there is none.
    pub depth: Option<f64>,
    /// Its own seed.
    pub seed: u64,
}

/// Texts, questions and the prompt format that samples are made from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The text.
    pub corpus: &'a Corpus,
    /// Questions for `qa`.
    pub questions: Option<&'a Questions>,
    /// How a question becomes a prompt.
    pub format: Format<'a>,
}

/// Which sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Which {
    /// Tokens of prompt and answer.
    pub length: usize,
    /// Place of the needle, for tasks that take a depth.
    pub depth: Option<f64>,
    /// Number of the sample.
    pub sample: usize,
}

const fn niah(name: &'static str, niah: Niah) -> Task {
    Task {
        name,
        max_tokens: 128,
        stop: &[],
        takes_depth: false,
        kind: Kind::Niah(niah),
    }
}

const SINGLE: Niah = Niah {
    hay: Hay::Prose,
    key: Form::Words,
    value: Form::Numbers,
    keys: 1,
    values: 1,
    queries: 1,
};

const fn plain(name: &'static str, max_tokens: usize, kind: Kind) -> Task {
    Task {
        name,
        max_tokens,
        stop: &[],
        takes_depth: false,
        kind,
    }
}

/// RULER's tasks, in its order.
#[rustfmt::skip]
pub const RULER: [Task; 12] = [
    niah("niah_single_1", Niah { hay: Hay::Noise, ..SINGLE }),
    niah("niah_single_2", SINGLE),
    niah("niah_single_3", Niah { value: Form::Uuids, ..SINGLE }),
    niah("niah_multikey_1", Niah { keys: 4, ..SINGLE }),
    niah("niah_multikey_2", Niah { hay: Hay::Needles, ..SINGLE }),
    niah("niah_multikey_3", Niah { hay: Hay::Needles, key: Form::Uuids, value: Form::Uuids, ..SINGLE }),
    niah("niah_multivalue", Niah { values: 4, ..SINGLE }),
    niah("niah_multiquery", Niah { keys: 4, queries: 4, ..SINGLE }),
    plain("vt", 30, Kind::Tracking),
    plain("cwe", 120, Kind::CommonWords),
    plain("fwe", 50, Kind::FrequentWords),
    plain("qa", 32, Kind::Questions),
];

const fn needle(name: &'static str, max_tokens: usize, niah: Niah) -> Task {
    Task {
        name,
        max_tokens,
        // Several values may come as a list, a line each.
        stop: if niah.values == 1 { &["\n"] } else { &[] },
        takes_depth: true,
        kind: Kind::Niah(niah),
    }
}

/// Needles at given depths of the user's text: one; one among three others; four values of one key.
#[rustfmt::skip]
pub const NEEDLE: [Task; 3] = [
    needle("needle_single", 32, SINGLE),
    needle("needle_multikey", 32, Niah { keys: 4, ..SINGLE }),
    needle("needle_multivalue", 96, Niah { values: 4, ..SINGLE }),
];

/// Reads `a,b` as tasks of `known`; `all` is all of them.
///
/// # Errors
/// A name that is not there.
pub fn parse_tasks(text: &str, known: &[Task]) -> Result<Vec<Task>, EvalError> {
    if text.trim() == "all" {
        return Ok(known.to_vec());
    }
    let mut tasks: Vec<Task> = Vec::new();
    for name in text.split(',').map(str::trim) {
        let task = known.iter().find(|task| task.name == name);
        let task = task.ok_or_else(|| EvalError::UnknownTask {
            got: name.into(),
            known: known.iter().map(|task| task.name).collect(),
        })?;
        if !tasks.contains(task) {
            tasks.push(*task);
        }
    }
    Ok(tasks)
}

impl Task {
    /// The seed of one sample under the run's `seed`.
    pub fn seed(&self, seed: u64, which: &Which) -> u64 {
        let depth = which.depth.map_or("random".into(), |d| format!("{d:.4}"));
        sample_seed(seed, &[&self.name, &which.length, &depth, &which.sample])
    }

    /// Makes one sample under the run's `seed`.
    ///
    /// # Errors
    /// A length too short for the task, a source that is missing or too short, and what tokenizer or
    /// template refuse.
    pub fn sample(
        &self,
        sources: &Sources<'_>,
        which: &Which,
        seed: u64,
    ) -> Result<Sample, EvalError> {
        let seed = self.seed(seed, which);
        let budget = which.length.saturating_sub(self.max_tokens);
        let corpus = sources.corpus;
        let mut draw = Draw::new(seed);
        let fitted = |recipe: &dyn Recipe, depth| {
            self.fitted(recipe, sources, which.length, budget, depth, seed)
        };
        match self.kind {
            Kind::Niah(niah) => {
                // From the text's beginning where what follows a later sentence is too short.
                let from = |budget| {
                    let mut draw = draw.clone();
                    let (needles, depth) =
                        Needles::draw(niah, corpus, budget, which.depth, &mut draw);
                    fitted(&needles, Some(depth))
                };
                match from(budget) {
                    Err(EvalError::TextTooShort { .. }) => from(0),
                    other => other,
                }
            }
            Kind::Tracking => {
                let (tracking, depth) = Tracking::draw(&mut draw);
                fitted(&tracking, Some(depth))
            }
            Kind::CommonWords => fitted(&CommonWords::draw(corpus, which.length, &mut draw)?, None),
            Kind::FrequentWords => fitted(&FrequentWords::draw(budget, &mut draw), None),
            Kind::Questions => {
                let questions = sources.questions.ok_or(EvalError::NoSource {
                    task: self.name,
                    reason: "no questions were given; give a file of them",
                })?;
                let (asked, depth) = Asked::draw(questions, &mut draw);
                fitted(&asked, Some(depth))
            }
        }
    }

    fn fitted(
        &self,
        recipe: &dyn Recipe,
        sources: &Sources<'_>,
        length: usize,
        budget: usize,
        depth: Option<f64>,
        seed: u64,
    ) -> Result<Sample, EvalError> {
        let guess = (budget as f64 / recipe.rate()) as usize;
        let fitted = fit(recipe.range(), guess, budget, &mut |units| {
            let question = recipe.make(units);
            let ids = sources.format.question(&question)?;
            Ok((question, ids))
        })?;
        let fitted = fitted.map_err(|least| EvalError::TooShort {
            task: self.name,
            length,
            least: least + self.max_tokens,
        })?;
        let short = budget - fitted.ids.len();
        if short > SLACK
            && fitted.units == recipe.range().1
            && let Some(error) = recipe.exhausted(short, length)
        {
            return Err(error);
        }
        let rule = match self.kind {
            Kind::Questions => Match::Any,
            _ => Match::All,
        };
        Ok(Sample {
            ids: fitted.ids,
            expected: fitted.made.expected,
            rule,
            depth,
            seed,
        })
    }
}
