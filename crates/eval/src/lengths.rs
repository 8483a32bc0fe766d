//! `--lengths 2k,4096`: prompt lengths in tokens; `k` is 1024.

use crate::error::EvalError;

/// Reads a list of lengths, ascending, each once.
///
/// # Errors
/// A part that is no number, 0, or too large for one.
pub fn parse_lengths(text: &str) -> Result<Vec<usize>, EvalError> {
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
        lengths.push(length.ok_or_else(|| EvalError::Length {
            got: text.into(),
            part: part.into(),
        })?);
    }
    lengths.sort_unstable();
    lengths.dedup();
    Ok(lengths)
}

#[cfg(test)]
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
                matches!(parse_lengths(text), Err(EvalError::Length { .. })),
                "{text}"
            );
        }
    }
}
