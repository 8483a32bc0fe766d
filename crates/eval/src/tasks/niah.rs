//! Needles in a haystack: keys with values hidden in a long text, some of them asked for.
//!
//! Wording and variants are those of RULER (arXiv 2404.06654; `niah.py` and `synthetic.yaml` of
//! NVIDIA/RULER). Other than there, a needle that is not asked for never has a key that is: two
//! answers would be right.

use super::{
    haystack::{NOISE, lines, prose},
    keys,
    recipe::Recipe,
};
use crate::{corpus::Corpus, draw::Draw, error::EvalError, format::Question};

/// Text that hides the needles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hay {
    Noise,
    Prose,
    Needles,
}

/// Form of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Words,
    Numbers,
    Uuids,
}

impl Form {
    fn draw(self, draw: &mut Draw) -> String {
        match self {
            Self::Words => keys::key(draw),
            Self::Numbers => draw.number(7),
            Self::Uuids => draw.uuid(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Numbers => "numbers",
            Self::Uuids => "uuids",
        }
    }
}

/// One variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Niah {
    pub(super) hay: Hay,
    pub(super) key: Form,
    pub(super) value: Form,
    /// Keys in the text.
    pub(super) keys: usize,
    /// Values of each key.
    pub(super) values: usize,
    /// Keys asked for.
    pub(super) queries: usize,
}

/// One sample.
#[derive(Debug)]
pub(super) struct Needles<'a> {
    niah: Niah,
    corpus: &'a Corpus,
    /// First word of the prose.
    start: usize,
    asked: Vec<String>,
    expected: Vec<String>,
    /// By depth.
    needles: Vec<(f64, String)>,
    /// Generator of the other needles.
    fill: Draw,
}

impl<'a> Needles<'a> {
    /// Draws a sample. The first needle asked for stands at `depth` where that is given; `budget` is
    /// about how many tokens of prose there will be, 0 to begin at the text's beginning.
    pub(super) fn draw(
        niah: Niah,
        corpus: &'a Corpus,
        budget: usize,
        depth: Option<f64>,
        draw: &mut Draw,
    ) -> (Self, f64) {
        let place = draw.unit();
        let mut keys: Vec<String> = Vec::new();
        while keys.len() < niah.keys {
            let key = niah.key.draw(draw);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let (mut needles, mut expected) = (Vec::new(), Vec::new());
        let mut first = None;
        for (index, key) in keys.iter().enumerate() {
            for _ in 0..niah.values {
                let value = niah.value.draw(draw);
                let drawn = draw.unit();
                let at = match first {
                    None => *first.insert(depth.unwrap_or(drawn)),
                    Some(_) => drawn,
                };
                needles.push((at, needle(niah.value, key, &value)));
                if index < niah.queries {
                    expected.push(value);
                }
            }
        }
        needles.sort_by(|a, b| a.0.total_cmp(&b.0));
        keys.truncate(niah.queries);
        let sample = Self {
            niah,
            corpus,
            start: start(corpus, budget, place),
            asked: keys,
            expected,
            needles,
            fill: draw.clone(),
        };
        (sample, first.unwrap_or(0.0))
    }

    fn lines(&self, count: usize) -> Vec<String> {
        if self.niah.hay == Hay::Noise {
            return vec![NOISE.to_owned(); count];
        }
        let mut draw = self.fill.clone();
        let mut lines = Vec::with_capacity(count);
        while lines.len() < count {
            let key = self.niah.key.draw(&mut draw);
            let value = self.niah.value.draw(&mut draw);
            if !self.asked.contains(&key) {
                lines.push(needle(self.niah.value, &key, &value));
            }
        }
        lines
    }
}

fn needle(form: Form, key: &str, value: &str) -> String {
    format!(
        "One of the special magic {} for {key} is: {value}.",
        form.name()
    )
}

/// A sentence so near the text's beginning that some `budget` tokens follow it, with room to spare.
fn start(corpus: &Corpus, budget: usize, place: f64) -> usize {
    if budget == 0 {
        return 0;
    }
    let words = corpus.words.len();
    let needed = budget as f64 * 1.2 * words as f64 / corpus.ids().len().max(1) as f64;
    let last = words.saturating_sub(needed.ceil() as usize);
    let choices = corpus.sentences.partition_point(|at| *at <= last);
    corpus.sentences[(place * choices as f64) as usize]
}

impl Recipe for Needles<'_> {
    fn range(&self) -> (usize, usize) {
        match self.niah.hay {
            Hay::Prose => (0, self.corpus.words.len() - self.start),
            Hay::Noise | Hay::Needles => (0, usize::MAX / 2),
        }
    }

    fn rate(&self) -> f64 {
        match (self.niah.hay, self.niah.key) {
            (Hay::Prose, _) => self.corpus.ids().len() as f64 / self.corpus.words.len() as f64,
            (Hay::Noise, _) => 25.0,
            (Hay::Needles, Form::Uuids) => 70.0,
            (Hay::Needles, _) => 25.0,
        }
    }

    fn make(&self, units: usize) -> Question {
        let needles = self.needles.iter();
        let needles: Vec<(f64, &str)> = needles.map(|(at, text)| (*at, text.as_str())).collect();
        let context = match self.niah.hay {
            Hay::Prose => prose(self.corpus, self.start, units, &needles),
            Hay::Noise | Hay::Needles => lines(&self.lines(units), &needles),
        };
        let (form, asked) = (self.niah.value.name(), list(&self.asked));
        if self.expected.len() == 1 {
            let form = form.trim_end_matches('s');
            return Question {
                text: format!(
                    "A special magic {form} is hidden within the following text. Make sure to \
                     memorize it. I will quiz you about the {form} afterwards.\n{context}\nWhat is \
                     the special magic {form} for {asked} mentioned in the provided text?"
                ),
                prefix: format!(
                    " The special magic {form} for {asked} mentioned in the provided text is"
                ),
                expected: self.expected.clone(),
            };
        }
        Question {
            text: format!(
                "Some special magic {form} are hidden within the following text. Make sure to \
                 memorize it. I will quiz you about the {form} afterwards.\n{context}\nWhat are all \
                 the special magic {form} for {asked} mentioned in the provided text?"
            ),
            prefix: format!(
                " The special magic {form} for {asked} mentioned in the provided text are"
            ),
            expected: self.expected.clone(),
        }
    }

    fn exhausted(&self, short: usize, length: usize) -> Option<EvalError> {
        let have = self.corpus.ids().len();
        (self.niah.hay == Hay::Prose).then(|| EvalError::TextTooShort {
            name: self.corpus.name().to_owned(),
            have,
            needed: have + short,
            length,
        })
    }
}

/// `a`, `a, and b`, `a, b, and c`.
fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [all @ .., last] => format!("{}, and {last}", all.join(", ")),
    }
}
