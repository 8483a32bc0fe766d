//! The short form on command lines: `name` or `name:field=value:field=value`.

use std::{fmt, str::FromStr};

use sparse_accelerate::AttentionError;

use crate::{Baseline, OP};

/// A parameter, borrowed for writing.
enum Field<'a> {
    Count(&'a mut usize),
    Number(&'a mut f64),
}

impl Baseline {
    /// Reads a baseline; parameters left out have their defaults.
    ///
    /// # Errors
    /// [`AttentionError::Setting`]: an unknown name or field (listing those there are), a value that is
    /// no number, a field given twice, or a value out of range.
    pub fn parse(text: &str) -> Result<Self, AttentionError> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let Some(mut baseline) = Baseline::all().into_iter().find(|p| p.name() == name) else {
            let hint = "write name:field=value:field=value";
            return Err(refused(
                "name",
                name,
                one_of(Baseline::all().map(|p| p.name())),
                hint,
            ));
        };
        let mut seen: Vec<&str> = Vec::new();
        for part in parts {
            let (field, value) = part.split_once('=').unwrap_or((part, ""));
            if seen.contains(&field) {
                let hint = "write each field once";
                return Err(refused("field", field, "given once".into(), hint));
            }
            seen.push(field);
            let mut fields = baseline.fields();
            let names = one_of(fields.iter().map(|(name, _)| *name));
            let Some((name, place)) = fields.iter_mut().find(|(name, _)| *name == field) else {
                let hint = "write name:field=value:field=value";
                return Err(refused("field", field, names, hint));
            };
            let read = match place {
                Field::Count(to) => value.parse().map(|v| **to = v).is_ok(),
                Field::Number(to) => value.parse().map(|v| **to = v).is_ok(),
            };
            if !read {
                let limit = match place {
                    Field::Count(_) => "a whole number",
                    Field::Number(_) => "a number",
                };
                let hint = "write name:field=value:field=value";
                return Err(refused(name, value, limit.into(), hint));
            }
        }
        baseline.validate()?;
        Ok(baseline)
    }

    fn fields(&mut self) -> Vec<(&'static str, Field<'_>)> {
        use Field::{Count, Number};
        match self {
            Baseline::AShape { sink, window } => {
                vec![("sink", Count(sink)), ("window", Count(window))]
            }
            Baseline::TriShape { sink, window, last } => vec![
                ("sink", Count(sink)),
                ("window", Count(window)),
                ("last", Count(last)),
            ],
            Baseline::MInference { vertical, slash } => {
                vec![("vertical", Count(vertical)), ("slash", Count(slash))]
            }
            Baseline::FlexPrefill {
                gamma,
                tau,
                min_budget,
            } => vec![
                ("gamma", Number(gamma)),
                ("tau", Number(tau)),
                ("min_budget", Count(min_budget)),
            ],
            Baseline::XAttention { stride, threshold } => {
                vec![("stride", Count(stride)), ("threshold", Number(threshold))]
            }
            Baseline::FlashPrefillV1 { alpha, last_blocks }
            | Baseline::FlashPrefillV2 { alpha, last_blocks } => vec![
                ("alpha", Number(alpha)),
                ("last_blocks", Count(last_blocks)),
            ],
            Baseline::TriangleMix {
                first_layer,
                sink,
                window,
                last,
            } => vec![
                ("first_layer", Count(first_layer)),
                ("sink", Count(sink)),
                ("window", Count(window)),
                ("last", Count(last)),
            ],
            Baseline::Pooled {
                parts,
                means,
                mass,
                sink,
                window,
                together,
            } => vec![
                ("parts", Count(parts)),
                ("means", Count(means)),
                ("mass", Number(mass)),
                ("sink", Count(sink)),
                ("window", Count(window)),
                ("together", Count(together)),
            ],
        }
    }
}

impl FromStr for Baseline {
    type Err = AttentionError;

    fn from_str(text: &str) -> Result<Self, AttentionError> {
        Self::parse(text)
    }
}

/// The short form with every parameter; [`Baseline::parse`] reads it back.
impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        write!(f, "{}", self.name())?;
        for (name, field) in copy.fields() {
            match field {
                Field::Count(value) => write!(f, ":{name}={value}")?,
                Field::Number(value) => write!(f, ":{name}={value}")?,
            }
        }
        Ok(())
    }
}

fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    format!("one of {}", names.join(", "))
}

fn refused(field: &'static str, got: &str, limit: String, hint: &'static str) -> AttentionError {
    AttentionError::Setting {
        op: OP,
        field,
        got: format!("`{got}`"),
        limit,
        hint,
    }
}
