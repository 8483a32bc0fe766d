//! Prompt lengths in tokens as text: `2k,4096`, where `k` is 1024.

use thiserror::Error;

/// A list of lengths with a part that is no length.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{got}: `{part}` is no length; write tokens, or k for 1024: 512,2k,32k")]
pub struct LengthsError {
    /// The list as written.
    pub got: String,
    /// The part that is no length.
    pub part: String,
}

/// Reads a list of lengths, ascending, each once.
///
/// # Errors
/// A part that is no number, 0, or too large for one.
pub fn parse_lengths(text: &str) -> Result<Vec<usize>, LengthsError> {
    let mut lengths = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (number, unit) = match part.strip_suffix(['k', 'K']) {
            Some(number) => (number, 1024usize),
            None => (part, 1),
        };
        let length = number
            .parse::<usize>()
            .ok()
            .and_then(|number| number.checked_mul(unit))
            .filter(|length| *length > 0);
        lengths.push(length.ok_or_else(|| LengthsError {
            got: text.into(),
            part: part.into(),
        })?);
    }
    lengths.sort_unstable();
    lengths.dedup();
    Ok(lengths)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn k_is_1024_and_order_is_ascending() {
        assert_eq!(
            parse_lengths("32k, 512,2K,512").unwrap(),
            [512, 2048, 32768]
        );
    }

    #[test]
    fn what_is_no_length_is_named() {
        for text in ["", "2k,", "2m", "0", "-1", "99999999999999999999k"] {
            assert!(
                matches!(parse_lengths(text), Err(LengthsError { .. })),
                "{text}"
            );
        }
    }
}
