//! Numbers as people read them, the same in every table.

/// Digits that matter of a measured number.
const DIGITS: i32 = 4;

/// Four significant digits, never in powers of ten between 1e-3 and 1e5.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs().log10().floor() as i32;
    match size {
        -3..=4 => format!("{value:.*}", (DIGITS - 1 - size).max(0) as usize),
        _ => format!("{value:.2e}"),
    }
}

/// A share as per cent.
pub fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "-".into();
    }
    format!("{:.1}", 100.0 * share)
}

/// A relative error; `-` where there is none.
pub fn error(error: Option<f64>) -> String {
    error.map_or("-".into(), |error| format!("{error:.2e}"))
}

/// Tokens: `128K` where that is exact.
pub fn tokens(count: usize) -> String {
    match count {
        n if n >= 1024 && n.is_multiple_of(1024) => format!("{}K", n / 1024),
        n => n.to_string(),
    }
}

/// Bytes in GiB.
pub fn gib(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1u32 << 30);
    match gib {
        g if g >= 0.1 => format!("{g:.2}"),
        g => format!("{g:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        let shown = [
            0.0,
            0.00123456,
            0.5,
            12.3456,
            1234.56,
            98765.4,
            1.5e-7,
            f64::NAN,
        ]
        .map(number);
        let expected = [
            "0", "0.001235", "0.5000", "12.35", "1235", "98765", "1.50e-7", "-",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn counts_and_bytes_read_well() {
        assert_eq!(
            [100, 1000, 1024, 131_072].map(tokens),
            ["100", "1000", "1K", "128K"]
        );
        assert_eq!([0, 1 << 30, 5 << 29].map(gib), ["0.0000", "1.00", "2.50"]);
        assert_eq!(percent(0.0461), "4.6");
        assert_eq!([error(None), error(Some(0.0123))], ["-", "1.23e-2"]);
    }
}
