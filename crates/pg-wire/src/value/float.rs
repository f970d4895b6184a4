//! Floating-point numbers as `float4out` and `float8out` print them: the fewest digits that read back as the same
//! number, in exponent form from 1e6 (`real`) or 1e15 (`double precision`) on and below 1e-4.
//! Source: PostgreSQL's `src/common/f2s.c` and `d2s.c`.

use std::fmt::LowerExp;
use std::str::FromStr;

use super::Out;
use super::scalar::whole;

pub(super) fn float4(bytes: &[u8], out: &mut Out) -> Option<()> {
    let value = f32::from_be_bytes(whole(bytes)?);
    match special(f64::from(value)) {
        Some(name) => out.push(name),
        None => print(value, 6, out)?,
    }
    Some(())
}

pub(super) fn float8(bytes: &[u8], out: &mut Out) -> Option<()> {
    double(f64::from_be_bytes(whole(bytes)?), out)
}

pub(super) fn double(value: f64, out: &mut Out) -> Option<()> {
    match special(value) {
        Some(name) => out.push(name),
        None => print(value, 15, out)?,
    }
    Some(())
}

fn special(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

fn print<F: Float>(value: F, fixed_below: i32, out: &mut Out) -> Option<()> {
    let shortest = shortest(value);
    let (mantissa, exponent) = shortest.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    out.push(sign);
    if !(-4..fixed_below).contains(&exponent) {
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return out.print(format_args!(
            "{mantissa}e{exponent_sign}{:02}",
            exponent.unsigned_abs()
        ));
    }
    let digits = mantissa.replace('.', "");
    let places = usize::try_from(exponent.unsigned_abs()).ok()?;
    if exponent < 0 {
        return out.print(format_args!("0.{:0>1$}", digits, digits.len() + places - 1));
    }
    match digits.split_at_checked(places + 1) {
        Some((before, "")) => out.push(before),
        Some((before, behind)) => out.print(format_args!("{before}.{behind}"))?,
        None => out.print(format_args!("{:0<1$}", digits, places + 1))?,
    }
    Some(())
}

/// The fewest digits that read back as `value`, in exponent form. Unlike Rust, the server rounds ties to the even
/// digit, and takes no digits that lie exactly in the middle between two numbers and read back only because ties go to
/// the even one (`d2s.c`, `STRICTLY_SHORTEST`): 1e23 is `9.999999999999999e+22`.
fn shortest<F: Float>(value: F) -> String {
    let shortest = format!("{value:e}");
    let digits = shortest
        .bytes()
        .take_while(|&byte| byte != b'e')
        .filter(u8::is_ascii_digit)
        .count();
    let rounded = |digits: usize| format!("{value:.*e}", digits - 1);
    // Below a power of two numbers are denser than above it: there the rounded one may be another number.
    [rounded(digits), shortest.clone()]
        .into_iter()
        .chain((digits + 1..=F::DIGITS).map(rounded))
        .find(|text| text.parse() == Ok(value) && !(value.even() && in_the_middle(value, text)))
        .unwrap_or(shortest)
}

/// Whether `text`, which reads as `value`, reads as another number when it is changed by less than any number of so
/// few digits can differ from such a middle.
fn in_the_middle<F: Float>(value: F, text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return false;
    };
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    let point = if mantissa.contains('.') { "" } else { "." };
    let more = format!("{mantissa}{point}{:0>60}e{exponent}", 1);
    let less = match mantissa.char_indices().next_back() {
        Some((at, digit @ '1'..='9')) => {
            let lower = char::from(digit as u8 - 1);
            format!(
                "{}{lower}{point}{}e{exponent}",
                mantissa.get(..at).unwrap_or_default(),
                "9".repeat(60)
            )
        }
        // Zero has no last digit above 0, and is in no middle.
        _ => return false,
    };
    [more, less].iter().any(|changed| changed.parse() != Ok(value))
}

trait Float: Copy + LowerExp + FromStr<Err: PartialEq + std::fmt::Debug> + PartialEq + std::fmt::Debug {
    /// Digits that always suffice.
    const DIGITS: usize;
    /// Whether ties round to it.
    fn even(self) -> bool;
}

impl Float for f32 {
    const DIGITS: usize = 9;
    fn even(self) -> bool {
        self.to_bits() & 1 == 0
    }
}

impl Float for f64 {
    const DIGITS: usize = 17;
    fn even(self) -> bool {
        self.to_bits() & 1 == 0
    }
}
