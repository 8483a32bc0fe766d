//! Variable tracking: a chain of assignments in noise; which variables hold the value?
//!
//! RULER's `vt` (arXiv 2404.06654; `variable_tracking.py`): one chain of four hops, after one solved
//! example of its own.

use super::{
    haystack::{NOISE, lines},
    recipe::Recipe,
};
use crate::{draw::Draw, format::Question};

const VARIABLES: usize = 5;
/// Noise lines of the example: with them it has some 400 tokens, of the 500 RULER allows.
const EXAMPLE_LINES: usize = 10;

/// One chain with the depths of its assignments.
#[derive(Debug)]
struct Chain {
    names: Vec<String>,
    value: String,
    assignments: Vec<(f64, String)>,
}

impl Chain {
    fn draw(letters: usize, draw: &mut Draw) -> Self {
        let mut names: Vec<String> = Vec::new();
        while names.len() < VARIABLES {
            let name = draw.letters(b'A', letters);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let value = draw.number(5);
        let mut depths: Vec<f64> = names.iter().map(|_| draw.unit()).collect();
        depths.sort_by(f64::total_cmp);
        let first = [format!("VAR {} = {value}", names[0])];
        let hops = names
            .windows(2)
            .map(|pair| format!("VAR {} = VAR {}", pair[1], pair[0]));
        let assignments = depths
            .into_iter()
            .zip(first.into_iter().chain(hops))
            .collect();
        Self {
            names,
            value,
            assignments,
        }
    }

    fn question(&self, units: usize) -> String {
        let assignments = self.assignments.iter();
        let assignments: Vec<_> = assignments.map(|(at, text)| (*at, text.as_str())).collect();
        let context = lines(&vec![NOISE.to_owned(); units], &assignments);
        format!(
            "Memorize and track the chain(s) of variable assignment hidden in the following \
             text.\n\n{context}\nQuestion: Find all variables that are assigned the value {} in the \
             text above.",
            self.value
        )
    }

    fn prefix(&self) -> String {
        format!(
            " Answer: According to the chain(s) of variable assignment in the text above, \
             {VARIABLES} variables are assigned the value {}, they are:",
            self.value
        )
    }
}

/// One sample.
#[derive(Debug)]
pub(super) struct Tracking {
    example: String,
    chain: Chain,
}

impl Tracking {
    /// Draws a sample; the second number is the depth of the first assignment.
    pub(super) fn draw(draw: &mut Draw) -> (Self, f64) {
        let example = Chain::draw(3, draw);
        let chain = Chain::draw(5, draw);
        let depth = chain.assignments[0].0;
        let example = format!(
            "{}{} {}\n",
            example.question(EXAMPLE_LINES),
            example.prefix(),
            example.names.join(" ")
        );
        (Self { example, chain }, depth)
    }
}

impl Recipe for Tracking {
    fn range(&self) -> (usize, usize) {
        (0, usize::MAX / 2)
    }

    fn rate(&self) -> f64 {
        25.0
    }

    fn make(&self, units: usize) -> Question {
        Question {
            text: format!("{}{}", self.example, self.chain.question(units)),
            prefix: self.chain.prefix(),
            expected: self.chain.names.clone(),
        }
    }
}
