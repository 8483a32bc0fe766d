//! Counting words: the most common of a list, the most frequent of a coded text.
//!
//! RULER's `cwe` and `fwe` (arXiv 2404.06654; `common_words_extraction.py`,
//! `freq_words_extraction.py`). Words of `cwe` are the different words of the user's text, where RULER
//! has word lists of its own; it follows one solved example. Coded words are six random letters, their
//! numbers fall with the square of their rank, and the first rank is dots.

use super::recipe::Recipe;
use crate::{corpus::Corpus, draw::Draw, error::EvalError, format::Question};

const COMMON: usize = 10;
/// Below this length RULER repeats words less.
const SHORT: usize = 4096;
/// Riemann's zeta at 2.
const ZETA_2: f64 = std::f64::consts::PI * std::f64::consts::PI / 6.0;
const CODED: usize = 6;

/// How often a list repeats its common and its other words.
#[derive(Debug, Clone, Copy)]
struct Repeats {
    common: usize,
    others: usize,
}

/// One list: ten common words, then others.
#[derive(Debug)]
pub(super) struct CommonWords<'a> {
    corpus: &'a Corpus,
    example: String,
    common: Vec<String>,
    others: Vec<String>,
    repeats: Repeats,
    order: Draw,
}

impl<'a> CommonWords<'a> {
    pub(super) fn draw(
        corpus: &'a Corpus,
        length: usize,
        draw: &mut Draw,
    ) -> Result<Self, EvalError> {
        let (example_repeats, example_others, repeats) = if length < SHORT {
            ((3, 1), 10, (6, 1))
        } else {
            ((10, 3), 30, (30, 3))
        };
        let mut words = corpus.different_words();
        let needed = 2 * COMMON + example_others + 1;
        if words.len() < needed {
            return Err(EvalError::TooFewWords {
                name: corpus.name().to_owned(),
                have: words.len(),
                needed,
            });
        }
        draw.shuffle(&mut words);
        let mut take = |count: usize| words.split_off(words.len() - count);
        let (example_common, example_others) = (take(COMMON), take(example_others));
        let common = take(COMMON);
        let repeats_of = |(common, others)| Repeats { common, others };
        let example = ask(&list(
            &example_common,
            &example_others,
            repeats_of(example_repeats),
            &mut draw.clone(),
        ));
        let answer = numbered(example_common.iter().map(String::as_str));
        Ok(Self {
            corpus,
            example: format!("{example}{CWE_PREFIX} {answer}\n"),
            common,
            others: words,
            repeats: repeats_of(repeats),
            order: draw.clone(),
        })
    }
}

const CWE_PREFIX: &str = " Answer: The top 10 words that appear most often in the list are:";

fn ask(list: &str) -> String {
    format!(
        "Below is a numbered list of words. In these words, some appear more often than others. \
         Memorize the ones that appear most often.\n{list}\nQuestion: What are the 10 most common \
         words in the above list?"
    )
}

fn list(common: &[String], others: &[String], repeats: Repeats, order: &mut Draw) -> String {
    let repeated = |words: &[String], times| -> Vec<String> {
        let times = std::iter::repeat_n(words, times);
        times.flatten().cloned().collect()
    };
    let mut all = repeated(common, repeats.common);
    all.extend(repeated(others, repeats.others));
    order.shuffle(&mut all);
    numbered(all.iter().map(String::as_str))
}

/// `1. a 2. b`.
fn numbered<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let numbered = words
        .enumerate()
        .map(|(i, word)| format!("{}. {word}", i + 1));
    numbered.collect::<Vec<_>>().join(" ")
}

impl Recipe for CommonWords<'_> {
    fn range(&self) -> (usize, usize) {
        (1, self.others.len())
    }

    fn rate(&self) -> f64 {
        5.0 * self.repeats.others as f64
    }

    fn make(&self, units: usize) -> Question {
        let others = &self.others[..units];
        let list = list(&self.common, others, self.repeats, &mut self.order.clone());
        Question {
            text: format!("{}{}", self.example, ask(&list)),
            prefix: CWE_PREFIX.to_owned(),
            expected: self.common.clone(),
        }
    }

    fn exhausted(&self, short: usize, _length: usize) -> Option<EvalError> {
        let have = self.corpus.different_words().len();
        Some(EvalError::TooFewWords {
            name: self.corpus.name().to_owned(),
            have,
            needed: have + short.div_ceil(self.rate() as usize),
        })
    }
}

/// One coded text.
#[derive(Debug)]
pub(super) struct FrequentWords {
    vocabulary: Vec<String>,
    order: Draw,
}

impl FrequentWords {
    /// A vocabulary of one word for every 50 tokens, as in RULER.
    pub(super) fn draw(budget: usize, draw: &mut Draw) -> Self {
        let mut vocabulary = vec!["...".to_owned()];
        while vocabulary.len() < (budget / 50).max(8) {
            let word = draw.letters(b'a', CODED);
            if !vocabulary.contains(&word) {
                vocabulary.push(word);
            }
        }
        Self {
            vocabulary,
            order: draw.clone(),
        }
    }
}

impl Recipe for FrequentWords {
    fn range(&self) -> (usize, usize) {
        // From 100 words on the first ranks have different numbers.
        (100, usize::MAX / 2)
    }

    fn rate(&self) -> f64 {
        2.5
    }

    fn make(&self, units: usize) -> Question {
        let mut words = Vec::with_capacity(units);
        for (rank, word) in self.vocabulary.iter().enumerate() {
            let rank = (rank + 1) as f64;
            let count = (units as f64 / (rank * rank * ZETA_2)) as usize;
            words.extend(std::iter::repeat_n(word.as_str(), count));
        }
        self.order.clone().shuffle(&mut words);
        Question {
            text: format!(
                "Read the following coded text and track the frequency of each coded word. Find the \
                 three most frequently appeared coded words. {}\nQuestion: Do not provide any \
                 explanation. Please ignore the dots '....'. What are the three most frequently \
                 appeared words in the above coded text?",
                words.join(" ")
            ),
            prefix:
                " Answer: According to the coded text above, the three most frequently appeared \
                     words are:"
                    .to_owned(),
            expected: self.vocabulary[1..4].to_vec(),
        }
    }
}
