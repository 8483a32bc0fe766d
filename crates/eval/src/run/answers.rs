//! Questions with known answers: needle and ruler.
//!
//! Greedy; an answer ends at an end token, at the task's stop string, at its most tokens, or when
//! everything expected was written, since nothing after that changes the score.

use std::{collections::HashSet, ops::ControlFlow, time::Instant};

use sparse_accelerate_engine::{
    EngineError, GenerateSettings, SamplingSettings, Sequence, attention::NamedAttention, generate,
};
use sparse_accelerate_report::record::{AnswerRow, Line, RunFile, SkippedRow};

use super::{OnProgress, Subject, Work, at_least_one, check_lengths, finite, warm_up};
use crate::{
    error::EvalError,
    score::score,
    tasks::{Sample, Sources, Task, Which},
};

/// Tasks, lengths and samples of a run of questions.
#[derive(Debug, Clone)]
pub struct AnswersPlan {
    /// Attentions of the prefill; decoding is dense.
    pub attentions: Vec<NamedAttention>,
    /// Tasks.
    pub tasks: Vec<Task>,
    /// Tokens of prompt and answer.
    pub lengths: Vec<usize>,
    /// Places of the needle, 0 to 1, for tasks that take one.
    pub depths: Vec<f64>,
    /// Samples of each (length, task, depth).
    pub samples: usize,
    /// Seed of the run.
    pub seed: u64,
}

/// One question of the plan.
struct Item {
    task: Task,
    which: Which,
    seed: u64,
}

impl AnswersPlan {
    /// Refuses what cannot be asked, before any weights are read: the longest prompt of every task is
    /// made once.
    ///
    /// # Errors
    /// Numbers out of range, a length over the model's positions, a text that is too short.
    pub fn check(&self, sources: &Sources<'_>, limit: usize) -> Result<(), EvalError> {
        at_least_one("samples", self.samples)?;
        for depth in &self.depths {
            if !(0.0..=1.0).contains(depth) {
                return Err(EvalError::Range {
                    field: "depths",
                    got: depth.to_string(),
                    limit: "a depth is a share of the text, between 0 and 1".into(),
                });
            }
        }
        if let Some(length) = self.lengths.iter().find(|length| **length > limit) {
            return Err(EvalError::OverLimit {
                length: *length,
                limit,
            });
        }
        let (Some(first), Some(last)) = (self.lengths.first(), self.lengths.last()) else {
            return Ok(());
        };
        for task in &self.tasks {
            for length in [first, last] {
                let which = Which {
                    length: *length,
                    depth: self.depths_of(task)[0],
                    sample: 0,
                };
                match task.sample(sources, &which, self.seed) {
                    Ok(_) | Err(EvalError::NoSource { .. } | EvalError::TooFewWords { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn depths_of(&self, task: &Task) -> Vec<Option<f64>> {
        if task.takes_depth && !self.depths.is_empty() {
            return self.depths.iter().copied().map(Some).collect();
        }
        vec![None]
    }

    /// Everything that is asked, in order.
    fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        for &length in &self.lengths {
            for task in &self.tasks {
                for depth in self.depths_of(task) {
                    items.extend((0..self.samples).map(|sample| {
                        let which = Which {
                            length,
                            depth,
                            sample,
                        };
                        Item {
                            task: *task,
                            which,
                            seed: task.seed(self.seed, &which),
                        }
                    }));
                }
            }
        }
        items
    }
}

/// Asks what the file lacks; `finished` are its rows.
///
/// # Errors
/// Whatever ends the run; rows before are in the file.
pub fn run_answers(
    subject: &Subject<'_>,
    plan: &AnswersPlan,
    sources: &Sources<'_>,
    file: &mut RunFile,
    finished: &[Line],
    report: OnProgress<'_>,
) -> Result<(), EvalError> {
    check_lengths(&plan.lengths, subject.dir.config())?;
    let done = Done::of(finished);
    let items = plan.items();
    let missing = |item: &Item| -> Vec<NamedAttention> {
        let missing = plan.attentions.iter();
        let missing = missing.filter(|a| !done.answers.contains(&(a.name.clone(), item.seed)));
        missing.cloned().collect()
    };
    let todo: Vec<_> = items
        .iter()
        .map(|item| (item, missing(item)))
        .filter(|(item, missing)| !missing.is_empty() && !done.skips(item))
        .collect();
    let Some(capacity) = todo.iter().map(|(item, _)| item.which.length).max() else {
        return Ok(());
    };
    let mut total: usize = todo.iter().map(|(i, m)| i.which.length * m.len()).sum();
    let mut lengths: Vec<usize> = todo.iter().map(|(item, _)| item.which.length).collect();
    lengths.dedup();
    if subject.warm_up {
        total += lengths.iter().sum::<usize>() * plan.attentions.len();
    }
    let of = items.len() * plan.attentions.len();
    let mut work = Work::new(done.answers.len(), of, total as u64, report);
    let mut session = subject.sequence(capacity)?;
    let (mut warm, mut skipped) = (0, done.skipped);
    for (item, missing) in todo {
        let length = item.which.length;
        session = subject.fit(session, length)?;
        let name = skipped_name(item);
        let sample = match skipped.contains(&name) {
            true => None,
            false => match item.task.sample(sources, &item.which, plan.seed) {
                Ok(sample) => Some(sample),
                Err(error) => {
                    file.append(&Line::Skipped(SkippedRow {
                        what: name.clone(),
                        reason: error.to_string(),
                    }))?;
                    skipped.insert(name);
                    None
                }
            },
        };
        let Some(sample) = sample else {
            work.step(item.task.name, length * missing.len());
            continue;
        };
        if subject.warm_up && warm != length {
            let attentions = &plan.attentions;
            warm_up(&mut session, &sample.ids, subject, attentions, &mut work)?;
            warm = length;
        }
        for attention in &missing {
            let what = format!("{} {length} {}", item.task.name, attention.name);
            let row = ask(
                subject,
                &mut session,
                item,
                &sample,
                attention,
                &mut |progress| {
                    work.within(&what, progress);
                },
            )?;
            file.append(&Line::Answer(row))?;
            work.row(&what, length);
            if work.ended {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Rows that a file holds already.
struct Done {
    /// Attention and seed of the sample, which is its own for every question.
    answers: HashSet<(String, u64)>,
    skipped: HashSet<String>,
}

impl Done {
    fn of(lines: &[Line]) -> Self {
        let mut done = Self {
            answers: HashSet::new(),
            skipped: HashSet::new(),
        };
        for line in lines {
            match line {
                Line::Answer(row) => {
                    done.answers.insert((row.attention.clone(), row.seed));
                }
                Line::Skipped(row) => {
                    done.skipped.insert(row.what.clone());
                }
                _ => {}
            }
        }
        done
    }

    fn skips(&self, item: &Item) -> bool {
        self.skipped.contains(&skipped_name(item))
    }
}

/// A task that cannot be made at a length cannot be made for any sample of it.
fn skipped_name(item: &Item) -> String {
    format!("{} at {}", item.task.name, item.which.length)
}

fn ask(
    subject: &Subject<'_>,
    session: &mut Sequence<'_>,
    item: &Item,
    sample: &Sample,
    attention: &NamedAttention,
    progress: &mut dyn FnMut(sparse_accelerate_engine::PrefillProgress),
) -> Result<AnswerRow, EvalError> {
    let settings = GenerateSettings {
        max_tokens: item.task.max_tokens,
        chunking: subject.chunking(sample.ids.len(), &attention.settings),
        reuse: false,
        attention: attention.settings.clone(),
        sampling: SamplingSettings::default(),
        stop: item.task.stop.iter().map(ToString::to_string).collect(),
        eos: subject.dir.generation().eos.clone(),
    };
    let start = Instant::now();
    let mut text = String::new();
    let tokenizer = subject.dir.tokenizer();
    let answer = generate(
        session,
        tokenizer,
        &sample.ids,
        &settings,
        progress,
        &mut |piece| {
            text.push_str(piece);
            // A value may go on: the rest of its word has to come first.
            let whole = text.ends_with(|c: char| !c.is_alphanumeric() && c != '-');
            match whole && score(&text, &sample.expected, sample.rule) >= 1.0 {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        },
    )?;
    if subject.cancel.is_cancelled() {
        // An answer that was broken off is none.
        let done = sample.ids.len();
        return Err(EngineError::Cancelled { done, total: done }.into());
    }
    Ok(AnswerRow {
        attention: attention.name.clone(),
        task: item.task.name.to_owned(),
        length: item.which.length,
        tokens: sample.ids.len(),
        depth: sample.depth,
        sample: item.which.sample,
        seed: sample.seed,
        expected: sample.expected.clone(),
        score: score(&answer.text, &sample.expected, sample.rule),
        answer: answer.text,
        density: finite(|| "the density".into(), answer.density)?,
        ttft_s: answer.timings.ttft_s,
        seconds: start.elapsed().as_secs_f64(),
    })
}
