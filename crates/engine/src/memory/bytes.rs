//! A number of bytes, for people: printed and read.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// A number of bytes, shown as MiB or GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1u32 << 20);
        match mib {
            m if m >= 1024.0 => write!(f, "{:.2} GiB", m / 1024.0),
            m if m >= 10.0 => write!(f, "{m:.0} MiB"),
            m => write!(f, "{m:.1} MiB"),
        }
    }
}

/// A text that is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "memory `{got}` is no size; write a number above 0 with g (GiB) or m (MiB), such as 24g or 22528m"
)]
pub struct SizeError {
    /// The text.
    pub got: String,
}

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError { got: text.into() };
        let lower = text.trim().to_ascii_lowercase();
        let (number, shift) = match lower.strip_suffix('g').map(|n| (n, 30)) {
            Some(found) => found,
            None => (lower.strip_suffix('m').ok_or_else(wrong)?, 20),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let bytes = number * f64::from(1u32 << shift);
        match bytes.is_finite() && (1.0..1e18).contains(&bytes) {
            true => Ok(Self(bytes as u64)),
            false => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        let shown: Vec<_> = [0u64, 1 << 19, 300 << 20, 5 << 30]
            .map(|b| Bytes(b).to_string())
            .into();
        assert_eq!(shown, ["0.0 MiB", "0.5 MiB", "300 MiB", "5.00 GiB"]);
    }

    #[test]
    fn sizes_are_read_and_refused() {
        for (text, bytes) in [("24g", 24 << 30), ("22.5G", 45 << 29), ("512m", 512 << 20)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "24", "g", "-1g", "0g", "24gib", "infg"] {
            let error = text.parse::<Bytes>().expect_err(text).to_string();
            assert!(error.contains("24g"), "{error}");
        }
    }
}
