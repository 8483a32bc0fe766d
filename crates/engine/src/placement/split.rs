//! Rules of cutting a model into stages, as a person writes them.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::SplitError;

/// Rule by which layers are shared out. `Display` gives back the text that `FromStr` takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Split {
    /// The least time of the slowest stage, of all cuts that fit.
    #[default]
    Auto,
    /// The least share of memory on the fullest device.
    ByMemory,
    /// Hidden layers of every device.
    Counts(Vec<usize>),
}

impl FromStr for Split {
    type Err = SplitError;

    fn from_str(text: &str) -> Result<Self, SplitError> {
        match text {
            "auto" => Ok(Self::Auto),
            "by-memory" => Ok(Self::ByMemory),
            _ => {
                let counts = text.split(',').map(|count| count.trim().parse());
                let counts: Result<Vec<usize>, _> = counts.collect();
                let wrong = |_| SplitError::Unreadable { got: text.into() };
                counts.map_err(wrong).map(Self::Counts)
            }
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Split::Auto => f.write_str("auto"),
            Split::ByMemory => f.write_str("by-memory"),
            Split::Counts(counts) => {
                let counts: Vec<_> = counts.iter().map(usize::to_string).collect();
                f.write_str(&counts.join(","))
            }
        }
    }
}

impl Serialize for Split {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_round_trip_and_say_what_is_allowed() {
        for text in ["auto", "by-memory", "16,16", "7"] {
            assert_eq!(text.parse::<Split>().expect(text).to_string(), text);
        }
        for text in ["", "even", "16,", "16,x", "-1,33", "16;16"] {
            let error = text.parse::<Split>().expect_err(text).to_string();
            assert!(
                error.contains("by-memory") && error.contains("16,16"),
                "{error}"
            );
        }
    }
}
