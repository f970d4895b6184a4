//! Values made of values: arrays, ranges, records. Source: `array_out`, `record_out`, `range_out` and
//! `multirange_out` in PostgreSQL's `src/backend/utils/adt`.

use super::types::{delimiter, kind};
use super::{Out, take, take_field, write};

pub(super) fn array(element: u32, bytes: &[u8], out: &mut Out, depth: usize) -> Option<()> {
    let array = Array::read(bytes)?;
    // `array_recv` refuses another one.
    (array.element == element).then_some(())?;
    if array.lengths.is_empty() || array.count == 0 {
        out.push("{}");
        return array.rest.is_empty().then_some(());
    }
    if array.lower_bounds.iter().any(|&bound| bound != 1) {
        for (&lower, &length) in array.lower_bounds.iter().zip(&array.lengths) {
            let upper = i64::from(lower) + i64::from(length) - 1;
            out.print(format_args!("[{lower}:{upper}]"))?;
        }
        out.push("=");
    }
    let delimiter = delimiter(element);
    let mut rest = array.rest;
    let mut scratch = out.scratch();
    for index in 0..array.count {
        array.brackets(index, "{", out);
        match take_field(&mut rest)? {
            None => out.push("NULL"),
            Some(field) => {
                scratch.value(element, field, depth)?;
                let needs = |text: &str| {
                    text.is_empty()
                        || text.eq_ignore_ascii_case("null")
                        || text.contains(['"', '\\', '{', '}', delimiter])
                        || text.contains(SPACES)
                };
                quoted(&scratch.text, needs, Escape::Backslash, out);
            }
        }
        array.brackets(index + 1, "}", out);
        if index + 1 < array.count {
            out.text.push(delimiter);
        }
        out.within()?;
    }
    rest.is_empty().then_some(())
}

/// One dimension without NULL, counted from 0 (`int2vectorrecv`, `oidvectorrecv`).
pub(super) fn vector(bytes: &[u8], out: &mut Out, depth: usize) -> Option<()> {
    let array = Array::read(bytes)?;
    if array.lengths.len() != 1 || array.lower_bounds != [0] {
        return None;
    }
    let mut rest = array.rest;
    let mut separator = "";
    for _ in 0..array.count {
        out.push(separator);
        write(
            kind(array.element)?,
            take_field(&mut rest)??,
            out,
            depth.checked_sub(1)?,
        )?;
        separator = " ";
    }
    rest.is_empty().then_some(())
}

/// A count of columns; of each the type and the value.
pub(super) fn record(mut rest: &[u8], out: &mut Out, depth: usize) -> Option<()> {
    let count = i32::from_be_bytes(take(&mut rest)?);
    let mut scratch = out.scratch();
    out.push("(");
    for index in 0..count {
        if index > 0 {
            out.push(",");
        }
        let column = u32::from_be_bytes(take(&mut rest)?);
        if let Some(field) = take_field(&mut rest)? {
            scratch.value(column, field, depth)?;
            let needs = |text: &str| {
                text.is_empty() || text.contains(['"', '\\', '(', ')', ',']) || text.contains(SPACES)
            };
            quoted(&scratch.text, needs, Escape::Doubled, out);
        }
        out.within()?;
    }
    out.push(")");
    (count >= 0 && rest.is_empty()).then_some(())
}

/// Flags; then the bounds that there are.
pub(super) fn range(bound: u32, mut rest: &[u8], out: &mut Out, depth: usize) -> Option<()> {
    let [flags] = take(&mut rest)?;
    if flags & EMPTY != 0 {
        out.push("empty");
        return rest.is_empty().then_some(());
    }
    let mut scratch = out.scratch();
    // What is infinite is not included.
    let included = |included: u8, infinite: u8| flags & (included | infinite) == included;
    out.push(if included(LOWER_INCLUDED, LOWER_INFINITE) {
        "["
    } else {
        "("
    });
    let closing = if included(UPPER_INCLUDED, UPPER_INFINITE) {
        "]"
    } else {
        ")"
    };
    for (infinite, behind) in [(LOWER_INFINITE, ","), (UPPER_INFINITE, closing)] {
        if flags & infinite == 0 {
            scratch.value(bound, take_field(&mut rest)??, depth)?;
            let needs = |text: &str| {
                text.is_empty()
                    || text.contains(['"', '\\', '(', ')', '[', ']', ','])
                    || text.contains(SPACES)
            };
            quoted(&scratch.text, needs, Escape::Doubled, out);
        }
        out.push(behind);
    }
    rest.is_empty().then_some(())
}

pub(super) fn multirange(range_oid: u32, mut rest: &[u8], out: &mut Out, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    let count = i32::from_be_bytes(take(&mut rest)?);
    out.push("{");
    for index in 0..count {
        if index > 0 {
            out.push(",");
        }
        write(kind(range_oid)?, take_field(&mut rest)??, out, depth)?;
    }
    out.push("}");
    (count >= 0 && rest.is_empty()).then_some(())
}

/// The head of an array, and the bytes of its elements.
struct Array<'a> {
    element: u32,
    lengths: Vec<i32>,
    lower_bounds: Vec<i32>,
    /// How many elements. Each has at least four bytes in `rest`.
    count: usize,
    rest: &'a [u8],
}

impl<'a> Array<'a> {
    fn read(mut rest: &'a [u8]) -> Option<Self> {
        let dimensions = i32::from_be_bytes(take(&mut rest)?);
        let flags = i32::from_be_bytes(take(&mut rest)?);
        let element = u32::from_be_bytes(take(&mut rest)?);
        if !(0..=DIMENSIONS).contains(&dimensions) || !matches!(flags, 0 | 1) {
            return None;
        }
        let (mut lengths, mut lower_bounds) = (Vec::new(), Vec::new());
        let mut count = usize::from(dimensions > 0);
        for _ in 0..dimensions {
            let length = i32::from_be_bytes(take(&mut rest)?);
            let lower_bound = i32::from_be_bytes(take(&mut rest)?);
            lower_bound.checked_add(length)?;
            count = count.checked_mul(usize::try_from(length).ok()?)?;
            lengths.push(length);
            lower_bounds.push(lower_bound);
        }
        // Before the loop over them: a head of fifty bytes can claim any number.
        (count <= rest.len() / 4).then_some(Self {
            element,
            lengths,
            lower_bounds,
            count,
            rest,
        })
    }

    /// One bracket for each dimension that begins or ends at element `index`.
    fn brackets(&self, index: usize, bracket: &str, out: &mut Out) {
        let mut size = 1;
        for &length in self.lengths.iter().rev() {
            size *= usize::try_from(length).unwrap_or(1);
            if !index.is_multiple_of(size) {
                break;
            }
            out.push(bracket);
        }
    }
}

impl Out {
    /// For one part, which is written in quotes or without when it is known.
    fn scratch(&self) -> Self {
        Self {
            text: String::new(),
            limit: self.limit,
        }
    }

    fn value(&mut self, type_oid: u32, bytes: &[u8], depth: usize) -> Option<()> {
        self.text.clear();
        write(kind(type_oid)?, bytes, self, depth.checked_sub(1)?)
    }

    /// Nested quotes double with each level: parts are not joined beyond the limit.
    fn within(&self) -> Option<()> {
        (self.text.len() <= self.limit).then_some(())
    }
}

#[derive(Clone, Copy)]
enum Escape {
    /// A backslash before quotes and backslashes.
    Backslash,
    /// Quotes and backslashes twice.
    Doubled,
}

fn quoted(text: &str, needs: impl Fn(&str) -> bool, escape: Escape, out: &mut Out) {
    if !needs(text) {
        out.push(text);
        return;
    }
    out.push("\"");
    for character in text.chars() {
        match (character, escape) {
            ('"' | '\\', Escape::Backslash) => out.push("\\"),
            ('"' | '\\', Escape::Doubled) => out.text.push(character),
            _ => {}
        }
        out.text.push(character);
    }
    out.push("\"");
}

/// `array_isspace`, and `isspace` in the C locale.
const SPACES: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];

/// `MAXDIM`.
const DIMENSIONS: i32 = 6;

// Flags of a range (`rangetypes.h`).
const EMPTY: u8 = 0x01;
const LOWER_INCLUDED: u8 = 0x02;
const UPPER_INCLUDED: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;
