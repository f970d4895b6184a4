//! `numeric`: digits of base 10,000 with a weight, printed with exactly `dscale` decimals.
//! Source: `numeric_send`, `numeric_recv` and `get_str_from_var` in PostgreSQL's `src/backend/utils/adt/numeric.c`.

use super::{Out, take};

pub(super) fn numeric(mut rest: &[u8], out: &mut Out) -> Option<()> {
    let count = usize::from(u16::from_be_bytes(take(&mut rest)?));
    let weight = i16::from_be_bytes(take(&mut rest)?);
    let sign = u16::from_be_bytes(take(&mut rest)?);
    let scale = u16::from_be_bytes(take(&mut rest)?);
    if rest.len() != count * 2 || scale > MAX_SCALE {
        return None;
    }
    let mut digits = Vec::with_capacity(count);
    while !rest.is_empty() {
        digits.push(u16::from_be_bytes(take(&mut rest)?));
    }
    if digits.iter().any(|&digit| digit >= 10_000) {
        return None;
    }
    match sign {
        POSITIVE | NEGATIVE => {}
        // Digits of these are not looked at (`numeric_recv`).
        NAN | INFINITE | MINUS_INFINITE => {
            out.push(match sign {
                NAN => "NaN",
                INFINITE => "Infinity",
                _ => "-Infinity",
            });
            return Some(());
        }
        _ => return None,
    }
    // Zero has no weight, so that it prints no row of zeros.
    let weight = if digits.iter().all(|&digit| digit == 0) {
        -1
    } else {
        i32::from(weight)
    };
    let group = |position: i32| {
        let index = usize::try_from(weight - position).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::new();
    for position in (0..=weight).rev() {
        let group = group(position);
        if !text.is_empty() || group != 0 {
            let width = if text.is_empty() { 1 } else { 4 };
            std::fmt::Write::write_fmt(&mut text, format_args!("{group:0width$}")).ok()?;
        }
    }
    if text.is_empty() {
        text.push('0');
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + usize::from(scale);
        let mut position = -1;
        while text.len() < end {
            std::fmt::Write::write_fmt(&mut text, format_args!("{:04}", group(position))).ok()?;
            position -= 1;
        }
        text.truncate(end);
    }
    // What is zero as far as it is printed has no sign.
    if sign == NEGATIVE && text.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
        out.push("-");
    }
    out.push(&text);
    Some(())
}

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITE: u16 = 0xd000;
const MINUS_INFINITE: u16 = 0xf000;

/// `NUMERIC_DSCALE_MASK`: more decimals cannot be stored, the server refuses them.
const MAX_SCALE: u16 = 0x3fff;
