//! Geometric types: doubles in brackets. Source: PostgreSQL's `src/backend/utils/adt/geo_ops.c`.

use super::float::double;
use super::types::Shape;
use super::{Out, take};

pub(super) fn shape(shape: Shape, mut rest: &[u8], out: &mut Out) -> Option<()> {
    let rest = &mut rest;
    match shape {
        Shape::Point => point(rest, out)?,
        Shape::Line => {
            for opening in ["{", ",", ","] {
                out.push(opening);
                double(take_double(rest)?, out)?;
            }
            out.push("}");
        }
        Shape::Lseg => points(rest, 2, "[", "]", out)?,
        Shape::Box => corners(rest, out)?,
        Shape::Path => {
            let [closed] = take(rest)?;
            let count = take_count(rest)?;
            let (opening, closing) = if closed == 0 { ("[", "]") } else { ("(", ")") };
            points(rest, count, opening, closing, out)?;
        }
        Shape::Polygon => {
            let count = take_count(rest)?;
            points(rest, count, "(", ")", out)?;
        }
        Shape::Circle => {
            out.push("<");
            point(rest, out)?;
            out.push(",");
            double(take_double(rest)?, out)?;
            out.push(">");
        }
    }
    rest.is_empty().then_some(())
}

fn points(rest: &mut &[u8], count: usize, opening: &str, closing: &str, out: &mut Out) -> Option<()> {
    out.push(opening);
    for index in 0..count {
        if index > 0 {
            out.push(",");
        }
        point(rest, out)?;
    }
    out.push(closing);
    Some(())
}

/// Two opposite corners, whichever they are: the server keeps the upper right one first (`box_recv`).
fn corners(rest: &mut &[u8], out: &mut Out) -> Option<()> {
    let [mut high, mut low] = [[0.0; 2]; 2];
    for corner in [&mut high, &mut low] {
        *corner = [take_double(rest)?, take_double(rest)?];
    }
    for (high, low) in high.iter_mut().zip(&mut low) {
        // NaN is above all numbers.
        if *high < *low || (low.is_nan() && !high.is_nan()) {
            std::mem::swap(high, low);
        }
    }
    for (corner, opening) in [(high, "("), (low, ",(")] {
        let [x, y] = corner;
        out.push(opening);
        double(x, out)?;
        out.push(",");
        double(y, out)?;
        out.push(")");
    }
    Some(())
}

fn point(rest: &mut &[u8], out: &mut Out) -> Option<()> {
    for opening in ["(", ","] {
        out.push(opening);
        double(take_double(rest)?, out)?;
    }
    out.push(")");
    Some(())
}

fn take_double(rest: &mut &[u8]) -> Option<f64> {
    take(rest).map(f64::from_be_bytes)
}

/// A number of points. No server has one without any.
fn take_count(rest: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(i32::from_be_bytes(take(rest)?)).ok()?;
    // Said before the loop, so that it ends where the bytes do.
    (count > 0 && rest.len() == count.checked_mul(16)?).then_some(count)
}
