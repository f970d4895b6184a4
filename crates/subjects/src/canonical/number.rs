//! Numbers. Source: `pg_strtoint64`, `set_var_from_str`, `float4in_internal`, `float8in_internal`.

use super::trimmed;

/// A whole number within 64 bits, as the server prints it.
pub(super) fn integer(text: &str) -> Option<String> {
    let text = trimmed(text);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // Nothing but digits: hexadecimal and underscores are read since version 16 only.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i64 = text.strip_prefix('+').unwrap_or(text).parse().ok()?;
    Some(number.to_string())
}

/// Digits without zeros at either end, and the power of ten that they are times of: `42.50` is `425e-1`.
pub(super) fn numeric(text: &str) -> Option<String> {
    let text = trimmed(text);
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    match rest.to_ascii_lowercase().as_str() {
        "nan" => return (rest == text).then(|| "NaN".to_owned()),
        "infinity" | "inf" => return Some(format!("{sign}Infinity")),
        _ => {}
    }
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, signed(exponent)?),
        None => (rest, 0),
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(before) || !is_digits(behind) || (before.is_empty() && behind.is_empty()) {
        return None;
    }
    let digits = [before, behind].concat();
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Some("0".to_owned());
    }
    let zeros = i64::try_from(digits.len() - kept.len()).ok()?;
    let exponent = exponent + zeros - i64::try_from(behind.len()).ok()?;
    Some(format!("{sign}{}e{exponent}", kept.trim_start_matches('0')))
}

/// A `numeric` that is a whole number.
pub(super) fn whole(text: &str) -> Option<String> {
    let text = trimmed(text);
    match text.split_once('.') {
        Some((whole, decimals)) if decimals.bytes().all(|byte| byte == b'0') => integer(whole),
        Some(_) => None,
        None => integer(text),
    }
}

/// An exponent; the server's largest has six digits.
fn signed(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.strip_prefix('+').unwrap_or(text).parse().ok())?
}

/// A number in double precision.
pub(super) fn double(text: &str) -> Option<f64> {
    let text = trimmed(text);
    let value: f64 = text.parse().ok()?;
    (value.is_finite() || names_no_number(text)).then_some(value)
}

/// A number in single precision.
pub(super) fn real(text: &str) -> Option<f32> {
    let text = trimmed(text);
    let value: f32 = text.parse().ok()?;
    (value.is_finite() || names_no_number(text)).then_some(value)
}

/// Infinite by name, not because it is too large, which the server refuses.
fn names_no_number(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_digit())
}

/// The fewest digits that read back as it; both zeros are equal, and so are all that are no numbers.
pub(super) fn written(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        0.0 => "0".to_owned(),
        _ => format!("{value:e}"),
    }
}

/// As [`written`].
pub(super) fn written_real(value: f32) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        0.0 => "0".to_owned(),
        _ => format!("{value:e}"),
    }
}

/// A number in double precision that is one in single precision, too.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whether it is the same is what is asked"
)]
pub(super) fn real_of_double(value: f64) -> Option<String> {
    let single = value as f32;
    (value.is_nan() || f64::from(single) == value).then(|| written_real(single))
}
